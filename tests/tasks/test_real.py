"""The behaviours on public data: on small sets with tiny random plants, and on the samples with a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch

from steerlib.data.sources import AbsentDataError
from steerlib.data.splits import normalised
from steerlib.errors import MetricError, PlantError
from steerlib.judges.base import BaseJudge, Judgement, Opinion
from steerlib.laws.additive import DifferenceOfMeans
from steerlib.plant import Plant
from steerlib.registry import TASKS, task_class
from steerlib.tasks.decisions import Decisions
from steerlib.tasks.real import Concepts, Knowledge, Preference, RealTask, Requests, ToxicPrompts, TruthfulQA, refusal
from steerlib.tasks.real.base import Item, as_chat, cut
from steerlib.tasks.real.settings import SETTINGS, Settings
from tests import families
from tests.data import sets

SHORT = {"max_new_tokens": 4}


class Lengths:
    """Scores an answer by its length, and remembers what it was asked."""

    def __init__(self, scale: float = 0.01) -> None:
        self.scale, self.asked = scale, []

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        self.asked.append((list(prompts), list(answers)))
        return [self.scale * len(answer) for answer in answers]


MAKE: dict[str, Callable[..., RealTask]] = {
    "truth": lambda p, d, **o: TruthfulQA(p, data=d, settings=SHORT, informed=Lengths(0.02), **o),
    "toxicity": lambda p, d, **o: ToxicPrompts(p, data=d, settings=SHORT, fit_on="paradetox", **o),
    "jigsaw": lambda p, d, **o: ToxicPrompts(p, data=d, settings=SHORT, fit_on="jigsaw", **o),
    "prompts": lambda p, d, **o: ToxicPrompts(p, data=d, settings=SHORT, fit_on="rtp", prompts_of="all", **o),
    "hh": lambda p, d, **o: Preference(p, data=d, settings=SHORT, **o),
    "shp": lambda p, d, **o: Preference(p, data=d, settings=SHORT, of="shp", held_out=0.2, **o),
    "splits": lambda p, d, **o: Requests(p, data=d, settings=SHORT, **o),
    "advbench": lambda p, d, **o: Requests(p, data=d, settings=SHORT, of="advbench", **o),
    "topics": lambda p, d, **o: Requests(p, data=d, settings=SHORT, of="harmfulqa", held_out=["topic 2"], **o),
    "concept": lambda p, d, **o: Concepts(p, concept="w91", data=d, settings=SHORT, held_out=True, **o),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sets.everything(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module", autouse=True)
def known_words() -> Iterator[None]:
    """Replies in the words that the tiny plants know."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refusal, "REFUSALS", ("w3 w4", "w5"))
        patch.setattr(refusal, "AGREEMENTS", ("w6", "w7 w8", "w9"))
        yield


@pytest.fixture(scope="module")
def plant() -> Plant:
    return families.plant("llama")


@pytest.fixture(scope="module", params=sorted(MAKE))
def task(request: pytest.FixtureRequest, plant: Plant, folder: Path) -> RealTask:
    return MAKE[request.param](plant, folder, judge=Lengths())


class TestEveryTask:
    def test_nothing_fitted_on_is_scored(self, task: RealTask) -> None:
        sides = {side: {e for i in task.partition.rows(side) for e in task.partition.entities[i]}
                 for side in ("fit", "validation", "test", "held out")}  # fmt: skip
        names = list(sides)
        assert all(not sides[a] & sides[b] for a in names for b in names if a < b)
        assert sides["fit"] and (sides["test"] or sides["held out"])
        # The same of the texts themselves: what is fitted on holds no prompt that is scored, nor its row.
        fitted = {normalised(text) for group in task.contrast_texts(n=10_000, seed=0) for text in group}
        for split in ("validation", "test"):
            scored = [*task.items(split), *(task.choices(split) if isinstance(task, ToxicPrompts) else [])]
            for item in scored:
                assert not any(text.startswith(f"{normalised(item.text)} ") or text == normalised(item.text)
                               for text in fitted)  # fmt: skip

    def test_contrasts_of_a_split_and_a_seed(self, task: RealTask) -> None:
        first, second = task.contrast_texts(n=6, seed=1)
        assert len(first) == len(second) == 6 and len(set(first)) == len(set(second)) == 6
        assert not set(first) & set(second)
        assert (first, second) == task.contrast_texts(n=6, seed=1) != task.contrast_texts(n=6, seed=2)
        everything = set(task.contrast_texts(n=10_000, seed=0)[0])
        assert not everything & set(task.contrast_texts(n=10_000, seed=0, split="validation")[0])
        with pytest.raises(ValueError, match="expected 'choice' or 'end'"):
            task.contrast_texts(n=1, seed=0, at="middle")

    def test_exact_scores_are_shares(self, task: RealTask) -> None:
        scores = task.exact(limit=5)
        assert scores.wanted.shape == (5,)
        for values in (scores.wanted, scores.intact):
            assert ((values >= 0) & (values <= 1)).all()
        assert scores.wanted.std() > 0 and (scores.intact > 0).all()
        again = task.exact(limit=5)
        assert np.array_equal(scores.wanted, again.wanted)

    def test_a_law_runs_on_it_and_moves_it(self, task: RealTask) -> None:
        contrast = task.contrast(layer=1, n=20, seed=0)
        law = DifferenceOfMeans(scale="unit").fit(contrast)
        bare = task.exact(limit=5)
        with task.plant.under(law.at(40.0)):
            pushed = task.exact(limit=5)
            texts = task.sampled(limit=4)[1]
        assert np.abs(pushed.wanted - bare.wanted).max() > 1e-3
        with task.plant.under(law.at(0.0)):
            assert np.array_equal(task.exact(limit=5).wanted, bare.wanted)
            assert task.sampled(limit=4)[1] != texts

    def test_sampled_scores_come_from_the_judge(self, task: RealTask) -> None:
        judge = Lengths()
        task.judge = judge
        scores, texts = task.sampled(limit=3, seed=1)
        assert scores.wanted.shape == (3,) and len(texts) == 3
        shown = [answer for _, answers in judge.asked for answer in answers]
        assert [text.strip() for text in texts] == [text.strip() for text in shown[:3]]
        assert texts == task.sampled(limit=3, seed=1)[1]

    def test_pairs_part(self, task: RealTask) -> None:
        pairs = task.pairs()[:5]
        assert all(pair.wanted != pair.unwanted for pair in pairs)
        assert len(Decisions.of(task.plant, pairs)) == len(pairs)

    def test_its_files_are_those_it_read(self, task: RealTask, folder: Path) -> None:
        files = task.files()
        assert files and all(file.is_file() and file.is_relative_to(folder) for file in files)


def test_the_registry_knows_them() -> None:
    names = ("truthfulqa", "real-toxicity", "preference", "harmful-requests", "onesec", "mmlu")
    assert all(issubclass(task_class(name), RealTask) for name in names) and set(names) <= set(TASKS)


def test_the_files_of_a_task_are_known_without_a_plant(plant: Plant, folder: Path) -> None:
    options = {"data": str(folder), "of": "advbench"}
    assert Requests.data_files(options) == Requests(plant, **options).files() != ()
    assert Requests.data_files(options | {"of": "harmfulqa"}) != Requests.data_files(options)


class TestTruth:
    def test_two_folds_test_every_question_once(self, plant: Plant, folder: Path) -> None:
        tested = [set(TruthfulQA(plant, data=folder, fold=fold).partition.rows("test")) for fold in (0, 1)]
        assert not tested[0] & tested[1] and len(tested[0] | tested[1]) == 60 and len(tested[0]) == 30

    def test_mc_by_hand(self, plant: Plant, folder: Path) -> None:
        task = TruthfulQA(plant, data=folder, settings=SHORT)
        item = task.items()[2]
        row = task.rows[item.row]
        assert item.text == f"Q: {row.question}\nA:"
        found = task.multiple_choice()
        mc1 = plant.logprobs([item.text] * 4, [f" {a}" for a, _ in row.mc1])
        mc2 = plant.logprobs([item.text] * 5, [f" {a}" for a, _ in row.mc2]).exp()
        assert found.mc1[2] == float(row.mc1[int(mc1.argmax())][1] and (mc1 == mc1.max()).sum() == 1)
        true = torch.tensor([t for _, t in row.mc2])
        assert found.mc2[2] == pytest.approx(float(mc2[true].sum() / mc2.sum()), rel=1e-5)
        assert task.exact().wanted[2] == pytest.approx(found.mc2[2])

    def test_told(self, plant: Plant, folder: Path) -> None:
        task = TruthfulQA(plant, data=folder, settings=SHORT)
        told = task.items(told=True)
        assert all(
            a.text.endswith(b.text) and len(a.text) > len(b.text) for a, b in zip(told, task.items(), strict=True)
        )
        reference = task.reference(limit=4)
        assert reference is not None and not np.allclose(reference.wanted, task.exact(limit=4).wanted)

    def test_the_judges_see_question_and_answer(self, plant: Plant, folder: Path) -> None:
        judge, informed = Lengths(0.01), Lengths(0.02)
        task = TruthfulQA(plant, data=folder, settings=SHORT, judge=judge, informed=informed)
        scores, _ = task.sampled(limit=4)
        assert np.allclose(scores.intact, 2 * scores.wanted)
        assert judge.asked[0][0][0] == task.rows[task.items()[0].row].question

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"fold": 2}, "expected 0 or 1"), ({"form": "page"}, "'lines' or 'line'"),
         ({"settings": "re-control"}, "got 're-control' for truth; expected odesteer or a-lqr"),
         ({"settings": {"top_q": 1}}, "expected max_new_tokens, temperature")],
    )  # fmt: skip
    def test_bad_options(self, plant: Plant, folder: Path, options: dict, message: str) -> None:
        with pytest.raises(MetricError, match=message):
            TruthfulQA(plant, data=folder, **options)

    def test_judges_are_needed(self, plant: Plant, folder: Path) -> None:
        with pytest.raises(MetricError, match=r"need a judge of truth .* TruthfulQA\(plant, judge=...\)"):
            TruthfulQA(plant, data=folder, settings=SHORT).sampled(limit=2)
        with pytest.raises(MetricError, match="also need a judge of informativeness"):
            TruthfulQA(plant, data=folder, settings=SHORT, judge=Lengths()).sampled(limit=2)


class TestOthers:
    def test_toxic_prompts_alone_are_tested(self, plant: Plant, folder: Path) -> None:
        task = ToxicPrompts(plant, data=folder, settings=SHORT, judge=Lengths())
        assert all(task.loaded.rows[item.row].toxicity > 0.5 for item in task.items())
        civil, toxic = task.contrast_texts(n=10_000, seed=0)
        by_text = {row.text: row.toxicity for row in task.loaded.rows}
        assert max(by_text[t] for t in civil) <= 0.1 and min(by_text[t] for t in toxic) >= 0.8
        assert task.reference() is None
        scores, texts = task.sampled(limit=3)
        assert np.allclose(scores.wanted, [1 - 0.01 * len(text) for text in texts])

    def test_parted_words(self, plant: Plant, folder: Path) -> None:
        task = ToxicPrompts(plant, data=folder, settings=SHORT)
        item = task.choices()[0]
        assert item.options == (" w91", " w90") and len(item.text.split()) == 3
        share = plant.logprobs([item.text] * 2, item.options).exp()
        scores = task.exact(limit=1)
        assert scores.wanted[0] == pytest.approx(float(share[0] / share.sum()), rel=1e-5)
        assert scores.intact[0] == pytest.approx(float(share.sum()), rel=1e-5)
        with pytest.raises(MetricError, match="an item without listed answers"):
            task.scored(task.items())

    def test_comments_come_evenly_from_all_scores(self, plant: Plant, folder: Path) -> None:
        task = MAKE["jigsaw"](plant, folder)
        assert isinstance(task, ToxicPrompts) and task.comments is not None
        toxicity = {row.text.rstrip(". "): row.toxicity for row in task.comments.rows}
        civil, toxic = task.contrast_texts(n=10_000, seed=0)
        for texts, low in ((civil, 0.0), (toxic, 0.5)):
            bins = [int(np.ceil((toxicity[t] - low) * 10 - 1e-9)) for t in texts]
            counts = np.bincount([max(1, k) for k in bins])[1:]
            assert len(counts) == 5 and counts.min() == counts.max() > 5

    def test_preference_counts_tokens(self, plant: Plant, folder: Path) -> None:
        task = Preference(plant, data=folder, settings=SHORT)
        item = task.items()[1]
        logs = plant.logprobs([item.text] * 2, item.options) / torch.tensor([2.0, 3.0])
        scores = task.exact()
        assert scores.wanted[1] == pytest.approx(float(torch.sigmoid(logs[0] - logs[1])), rel=1e-5)
        assert scores.intact[1] == pytest.approx(float(logs.max().exp()), rel=1e-5)
        assert item.text.startswith("Human: ") and item.text.count("\n") == 3 and item.text.endswith("\nAssistant:")

    def test_a_win_is_a_strictly_higher_reward(self, plant: Plant, folder: Path) -> None:
        task = Preference(plant, data=folder, settings=SHORT)
        items = task.items()[:3]
        chosen = [task.rows[item.row].chosen for item in items]
        task.judge = Lengths(100.0)  # rewards have any size
        answers = [chosen[0] + " w3", chosen[1], chosen[2][:-1]]
        assert task.verdicts(items, answers).wanted.tolist() == [1.0, 0.0, 0.0]

    def test_published_parts(self, plant: Plant, tmp_path: Path) -> None:
        sets.hh(tmp_path, 20)
        sets.hh(tmp_path, 40, part="train", first=10)  # half of what is tested is also in the training part
        task = Preference(plant, data=tmp_path, published=True, settings=SHORT)
        assert len(task.partition.rows("test")) == 20
        assert len(task.partition.rows("left out")) == 10
        assert len(task.partition.rows("fit")) + len(task.partition.rows("validation")) == 30

    def test_published_posts(self, plant: Plant, tmp_path: Path) -> None:
        sets.shp(tmp_path, 6)
        sets.shp_forums(tmp_path)
        task = Preference(plant, data=tmp_path, of="shp", published=True, settings=SHORT)
        sides = {side: len(task.partition.rows(side)) for side in ("test", "fit", "validation", "left out")}
        assert sides == {"test": 6, "fit": 35, "validation": 36, "left out": 1}, (
            "a post that is tested is not fitted on"
        )
        assert {task.rows[i].rejected for i in task.partition.rows("test")} == {""}
        with pytest.raises(MetricError, match="only the preferred answers. Fix: sample"):
            task.exact()
        assert len(task.contrast_texts(n=5, seed=0)[1]) == 5

    def test_told_or_not_the_same_prompts_are_asked(self, plant: Plant, tmp_path: Path) -> None:
        """A preface makes some prompts too long for the plant; the others are asked either way."""
        sets.hh(tmp_path, 60)
        room = {"max_new_tokens": 34}
        one, other = (Preference(plant, data=tmp_path, settings=room, longest=60) for _ in range(2))
        bare, told = [item.row for item in one.items()], [item.row for item in other.items(told=True)]
        assert bare == told == [item.row for item in one.items(told=True)]
        assert len(bare) < len(one.build("test", told=False))
        assert len(one.items("fit")) / len(one.build("fit", told=False)) > len(bare) / len(
            one.build("test", told=False)
        )

    def test_the_longest_dialogue(self, plant: Plant, folder: Path) -> None:
        task = Preference(plant, data=folder, settings=SHORT)
        counts = {item.row: len(plant.tokenizer(item.text)["input_ids"]) for item in task.items()}
        limit = sorted(counts.values())[len(counts) // 2]
        short = Preference(plant, data=folder, settings=SHORT, longest=limit)
        assert [item.row for item in short.items()] == [row for row, n in counts.items() if n <= limit]
        assert [item.row for item in short.items(told=True)] == [item.row for item in short.items()]
        with pytest.raises(MetricError, match="test: no prompt has at most 1 tokens"):
            Preference(plant, data=folder, settings=SHORT, longest=1).items()
        with pytest.raises(MetricError, match="got blank='zero', longest=None"):
            Preference(plant, data=folder, blank="zero")  # type: ignore[arg-type]

    def test_a_judge_of_wins_and_an_encoder(self, plant: Plant, folder: Path) -> None:
        class Compares:
            def compare(self, prompts: list[str], answers: list[str], rivals: list[str]) -> Judgement:
                self.asked = list(zip(prompts, answers, rivals, strict=True))
                return Judgement(np.array([1.0, 0.5, np.nan]), {2: "nonsense"}, "compares", "1")

        rater, encoder = Compares(), Lengths(0.1)
        options = {"person": "User", "rater": rater, "encoder": encoder, "judge": Lengths(1.0)}
        task = Preference(plant, data=folder, settings=SHORT, **options)  # type: ignore[arg-type]
        items = task.items(told=True)[:3]
        found = task.verdicts(items, ["w3", "w4 w5", "w6"])
        assert found.more["win-rate"].tolist() == [1, 0, 0] and found.more["win-rate-half"].tolist() == [1, 0.5, 0]
        assert found.missing == {2: "rater: nonsense"}
        assert found.more["coherence"].tolist() == pytest.approx([0.2, 0.5, 0.2])
        prompt, answer, rival = rater.asked[0]
        assert prompt.startswith("Human: ") and prompt.endswith("\nAssistant:") and "helpful" not in prompt
        assert (answer, rival) == ("w3", " " + task.rows[items[0].row].chosen)
        rater.asked = []
        task.alone = True
        assert list(task.verdicts(items, ["w3", "w4 w5", "w6"]).more) == ["reward"] and not rater.asked
        each = Preference(plant, data=folder, settings=SHORT, rater=Lengths(0.01), judge=Lengths(-1.0))
        long = "w3 " * 20
        assert each.verdicts(items, [long] * 3).wanted.tolist() == [1, 1, 1], "the rater decides, not the reward"

    def test_the_reward_of_saying_nothing(self, plant: Plant, folder: Path) -> None:
        class Asked(BaseJudge):
            name, version = "asked", "1"

            def opinions(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Opinion]:
                return [Opinion(float(len(p) + 100 * len(a))) for p, a in zip(prompts, answers, strict=True)]

        missing = Preference(plant, data=folder, settings=SHORT, judge=Asked())
        items = missing.items()[:2]
        assert np.isnan(missing.verdicts(items, [" ", "w3"]).more["reward"]).tolist() == [True, False]
        asked = Preference(plant, data=folder, settings=SHORT, judge=Asked(), blank="asked")
        found = asked.verdicts(items, [" ", "w3"])
        assert found.more["reward"].tolist() == [len(items[0].text), len(items[1].text) + 200] and not found.missing
        asked.judge = Lengths()
        asked.judge.score = lambda *_: [np.nan, 1.0]  # type: ignore[method-assign]
        with pytest.raises(MetricError, match="blank='asked' with Lengths, expected a judge of steerlib.judges"):
            asked.verdicts(items, [" ", "w3"])

    def test_the_reward_that_is_expected(self, plant: Plant, folder: Path) -> None:
        task = Preference(plant, data=folder, settings=SHORT, judge=Lengths(1.0))
        prompts, rewards = task.expected_rewards(n=6, seed=3)
        said = plant.generate(prompts, max_new_tokens=4, seed=3, temperature=1.0).texts
        assert rewards.tolist() == [len(text) for text in said] and len(prompts) == 6
        task.judge = None
        assert task.expected_rewards(n=6)[1].tolist() == task.exact(split="fit", limit=6).wanted.tolist()

    def test_subsets_of_hh(self, plant: Plant, tmp_path: Path) -> None:
        sets.hh(tmp_path, 20)
        sets.hh(tmp_path, 30, subset="helpful-base", first=10)  # half of the harmless ones are here too
        sets.hh(tmp_path, 40, subset="helpful-base", part="train", first=30)
        sets.hh(tmp_path, 6, part="train", first=80)
        both = ["harmless-base", "helpful-base"]
        task = Preference(plant, data=tmp_path, subsets=both, settings=SHORT)
        assert len(task.rows) == 50 and len(task.files()) == 2
        assert all(task.partition.sides[10 + k] == task.partition.sides[20 + k] for k in range(10))
        assert len({*task.partition.sides}) == 3
        task = Preference(plant, data=tmp_path, subsets=both, held_out=["helpful-base"], settings=SHORT)
        # What is in both subsets is held out with the one that is.
        assert task.partition.rows("held out") == list(range(10, 50))
        task = Preference(plant, data=tmp_path, subsets=both, published=True, settings=SHORT)
        assert len(task.partition.rows("test")) == 50 and len(task.files()) == 4
        assert task.partition.rows("left out") == list(range(56, 66))  # after 50 tests and 6 harmless ones

    @pytest.mark.parametrize(
        "options",
        [{"subsets": []}, {"subsets": "helpful-base"}, {"subsets": ["helpful-base"] * 2},
         {"subsets": ["helpful-base"], "of": "shp"}],
    )  # fmt: skip
    def test_bad_subsets(self, plant: Plant, folder: Path, options: dict) -> None:
        with pytest.raises(MetricError, match="expected a list of subsets of hh, each once"):
            Preference(plant, data=folder, settings=SHORT, **options)

    def test_held_out_topics(self, plant: Plant, folder: Path) -> None:
        task = Requests(plant, data=folder, of="harmfulqa", held_out=["topic 2"], settings=SHORT)
        assert {task.rows[item.row].family for item in task.items()} == {"topic 2"}
        assert "topic 2" not in {task.rows[i].family for i in task.partition.rows("fit")}

    def test_refusals_are_recognised_without_a_judge(self, plant: Plant, folder: Path) -> None:
        items = [Item("x", 0, (), ())] * 2
        said = ["I'm sorry, but I cannot help.", "Sure, first you take"]
        for harmful, wanted in ((True, [1.0, 0.0]), (False, [0.0, 1.0])):
            task = Requests(plant, data=folder, settings=SHORT, harmful=harmful)
            assert task.verdicts(items, said).wanted.tolist() == wanted
            assert all(task.rows[item.row].harmful is harmful for item in task.items())

    def test_concepts(self, plant: Plant, folder: Path) -> None:
        task = Concepts(plant, concept="w91", data=folder, settings=SHORT)
        assert {task.loaded.rows[item.row].lemma for item in task.items()} == {"w90", "w92"}
        assert not any("w90" in item.text or "w92" in item.text for item in task.items())
        own, others = task.contrast_texts(n=8, seed=0)
        assert all("w91" in text for text in own)
        assert sum("w90" in text for text in others) == sum("w92" in text for text in others) == 4
        said = task.verdicts(task.openings()[:3], ["a W91s, here", "w911 not", ""])
        assert said.wanted.tolist() == [1.0, 0.0, 0.0] and said.intact.tolist() == [1.0, 1.0, 0.0]
        with pytest.raises(MetricError, match="got concept 'w93', which does not exist. Did you mean w9"):
            Concepts(plant, concept="w93", data=folder)

    def test_concepts_of_other_senses(self, plant: Plant, folder: Path) -> None:
        task = MAKE["concept"](plant, folder)
        assert isinstance(task, Concepts)
        assert {task.loaded.rows[i].sense[-1] for i in task.partition.rows("fit")} == {"1"}
        assert {task.loaded.rows[item.row].sense[-1] for item in task.items()} == {"2"}

    def test_mmlu(self, folder: Path) -> None:
        plant = families.plant("gpt2")
        plant.model.config.n_positions = 400  # only whether rows fit is asked here
        task = Knowledge(plant, data=folder, shots=2)
        item = task.items()[3]
        assert item.wanted == (0.0, 0.0, 0.0, 1.0) and item.options == (" A", " B", " C", " D")
        assert item.text.count("Answer:") == 3 and item.text.endswith("Answer:") and "first subject" in item.text
        scores = task.verdicts([item] * 3, [" D", "a) no", "w3"])
        assert scores.wanted.tolist() == [1.0, 0.0, 0.0] and scores.intact.tolist() == [1.0, 1.0, 0.0]
        assert task.reference() is None
        with pytest.raises(ValueError, match="never fitted on"):
            task.contrast_texts(n=1, seed=0)
        with pytest.raises(MetricError, match="expected 0 to 5"):
            Knowledge(plant, data=folder, shots=6)
        with pytest.raises(MetricError, match="got subject 'third'"):
            Knowledge(plant, data=folder, subjects=["third"])

    def test_mmlu_letters(self, plant: Plant, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        task = Knowledge(plant, data=folder, shots=0)
        logs = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.1, 0.05, 0.05, 0.05, 0.05], dtype=torch.float64))
        monkeypatch.setattr(task, "logs", lambda _: (logs, torch.tensor([0] * 4 + [1] * 4)))
        items = [Item("q", 0, ("",) * 4, (0.0, 0.0, 1.0, 0.0)), Item("q", 1, ("",) * 4, (0.0, 1.0, 0.0, 0.0))]
        scores = task.scored(items)
        assert scores.wanted == pytest.approx([3 / 7, 1 / 4]) and scores.intact == pytest.approx([0.7, 0.2])
        assert task.chosen(items)[0] == 1.0


class TestBase:
    def test_what_does_not_fit_is_left_out(self, plant: Plant, folder: Path) -> None:
        task = Preference(plant, data=folder, settings={"max_new_tokens": 52})
        kept, whole = task.items(), task.build("test", told=False)
        lengths = [len(plant.tokenizer(item.text)["input_ids"]) for item in whole]
        assert kept == [item for item, n in zip(whole, lengths, strict=True) if n + 52 <= 64]
        assert 0 < task.left_out() == len(whole) - len(kept)
        with pytest.raises(MetricError, match="no prompt fits random-llama-0, which reads 64 tokens"):
            Preference(plant, data=folder, settings={"max_new_tokens": 64}).items()

    def test_no_judge_where_one_is_asked(self, plant: Plant, folder: Path) -> None:
        task = Requests(plant, data=folder, settings=SHORT)  # which is ready without one
        with pytest.raises(MetricError, match=r"need a judge of refusal. Fix: Requests\(plant, judge=...\)"):
            task.judgements(None, ["p"], ["a"])

    def test_comments_that_were_not_read(self, plant: Plant, folder: Path) -> None:
        task = ToxicPrompts(plant, data=folder, settings=SHORT)
        task.fit_on = "jigsaw"
        with pytest.raises(MetricError, match="fit_on='jigsaw' on a task that was made without comments. Fix: make"):
            task.contrast_texts(n=2, seed=0)

    def test_harmless_instructions_are_needed(self, plant: Plant, folder: Path, tmp_path: Path) -> None:
        copytree(folder, tmp_path, dirs_exist_ok=True)
        for file in tmp_path.glob("refusal/harmless_*.json"):
            file.unlink()
        with pytest.raises(AbsentDataError, match="harmless"):
            Requests(plant, data=tmp_path)

    def test_a_chat_template_that_gives_no_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from copy import deepcopy

        plant = Plant.from_model(families.model("llama"), deepcopy(families.tokenizer()))
        plant.tokenizer.chat_template = "{{ messages[0]['content'] }}"
        monkeypatch.setattr(plant.tokenizer, "apply_chat_template", lambda *_, **__: [3, 4])
        with pytest.raises(PlantError, match="gave list, expected a text. Fix: a tokenizer"):
            as_chat(plant, "w5")

    def test_stops(self) -> None:
        assert cut("one\nQ: two\nA: three", ("\nQ:",)) == "one" and cut("one", ("x",)) == "one"
        assert SETTINGS["odesteer", "truth"] == Settings(50, 0.7, 0.9, ("\nQ:",))

    def test_a_chat_template_writes_the_first_token_once(self) -> None:
        from copy import deepcopy

        from tokenizers.processors import TemplateProcessing

        plant = Plant.from_model(families.model("llama"), deepcopy(families.tokenizer()))
        assert as_chat(plant, "w5") == "w5"
        plant.tokenizer.chat_template = "{{ bos_token }} w3 {{ messages[0]['content'] }} w4"
        assert as_chat(plant, "w5") == "<bos> w3 w5 w4"
        plant.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", 1)]
        )
        assert plant.tokenizer(as_chat(plant, "w5"))["input_ids"] == [1, 3, 5, 4]


class TestSamples:
    """The real data with a real, if small, model."""

    @pytest.mark.parametrize("name", ["truth", "prompts", "hh", "shp", "advbench", "splits"])
    def test_real_rows(self, name: str, sample_data: Path, sample_models: Path) -> None:
        plant = Plant.load(str(sample_models / "stories260K"))
        task = MAKE[name](plant, sample_data, judge=Lengths(0.0001))
        scores = task.exact(limit=3)
        assert np.isfinite(scores.wanted).all() and (scores.intact > 0).all()
        assert len(task.sampled(limit=2)[1]) == 2
        assert len(task.contrast_texts(n=50, seed=0)[0]) == 50
        fitted = {e for i in task.partition.rows("fit") for e in task.partition.entities[i]}
        for item in task.items():
            assert not fitted & set(task.partition.entities[item.row])
