"""Judges that a cell names: who judges decides the key, the scores are theirs, and a wrong one is refused early."""

from __future__ import annotations

import shutil
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from steerlib.errors import MetricError
from steerlib.experiment import cells, judging, running
from steerlib.experiment.answered import further
from steerlib.experiment.cell_records import dump, parse
from steerlib.experiment.cells import Cell, Fit, LawSpec, Sampling, canonical, cell_key, code_hash
from steerlib.experiment.grid import missing, read_grid, run_grid
from steerlib.experiment.judge_spec import JudgeSpec
from steerlib.experiment.judging import JudgeSpecError, judge_of
from steerlib.experiment.keys import ABSENT, judge_identity, key_of, keys_of
from steerlib.experiment.running import run_cell
from steerlib.experiment.shipped import ship, shipped
from steerlib.experiment.store import Store, frame_of
from steerlib.judges import ApiJudge, ClassifierJudge, JudgeError, OracleJudge
from steerlib.tasks import Truth
from steerlib.tasks.real import Requests
from tests import families
from tests.data import sets
from tests.experiment import toys
from tests.experiment.test_cells import ROOT
from tests.judges.test_classifier import LABELS, bert, save

OPTIONS = {"settings": {"max_new_tokens": 6}}
RUBRIC = "Does this refuse?\n{answer}"


@cache
def plant():
    return families.plant("llama")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sets.everything(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def rude(tmp_path_factory):
    return save(tmp_path_factory.mktemp("rude"), bert(id2label=LABELS))


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    return save(tmp_path_factory.mktemp("reward"), bert(num_labels=1))


@pytest.fixture(autouse=True)
def toy(monkeypatch, folder):
    monkeypatch.setattr(running, "plant_of", lambda *_: plant())
    monkeypatch.setenv("STEERLIB_DATA", str(folder))
    running._task.cache_clear()


def classifier(model, label="rude", **more):
    return JudgeSpec(kind="classifier", model=str(model), options={"label": label, **more})


def cell(**more):
    given = {"plant": "toy/llama", "task": "harmful-requests", "task_options": OPTIONS, "kind": "sampled", "limit": 4}
    return Cell.model_validate({**given, **more})


def test_a_cell_is_judged_by_whom_it_names(rude):
    spec = classifier(rude)
    found = run_cell(cell(judges={"judge": spec}))
    task = Requests(plant(), **OPTIONS)
    plain, texts = task.sampled(limit=4)
    asked = [task.rows[item.row].text for item in task.items()]
    expected = ClassifierJudge(rude, label="rude", device="cpu").score(asked[: len(texts)], texts)
    assert found.answers == tuple(texts) and any(text.strip() for text in texts)
    assert found.scores["wanted"] == pytest.approx(expected.filled(0.0).tolist())
    # The task that neighbouring cells share has no judge: there, phrases tell.
    assert run_cell(cell()).scores["wanted"] == tuple(plain.wanted.tolist()) != found.scores["wanted"]
    other = run_cell(cell(judges={"judge": classifier(rude, "kind")}))
    assert other.scores["wanted"] != found.scores["wanted"]
    assert len({found.key, other.key, key_of(cell())}) == 3
    assert found.key == key_of(found.cell) and set(found.parts["judges"]) == {"judge"}
    assert Cell.model_validate_json(canonical(found.cell)) == found.cell


def test_a_task_with_two_judges_gets_each_in_its_place(rude):
    judges = {"judge": classifier(rude), "informed": classifier(rude, "neutral")}
    found = run_cell(cell(task="truthfulqa", judges=judges))
    swapped = run_cell(cell(task="truthfulqa", judges={"informed": judges["judge"], "judge": judges["informed"]}))
    assert found.scores["wanted"] == swapped.scores["intact"] != found.scores["intact"] == swapped.scores["wanted"]
    assert found.key != swapped.key


def test_a_judge_is_known_by_its_content_and_not_by_its_place(rude, tmp_path):
    copy = shutil.copytree(rude, tmp_path / "elsewhere")
    one, two = (cell(judges={"judge": classifier(place)}) for place in (rude, copy))
    several = [one, cell(), cell(judges={"judge": classifier(rude, "kind")})]
    before = keys_of(several)
    assert before == [key_of(each) for each in several] and len(set(before)) == 3
    assert key_of(two) == before[0]
    made = judge_of(classifier(copy), content=judge_identity(classifier(copy)), device="cpu")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert key_of(two) != before[0] == key_of(one)
    assert judge_of(classifier(copy), content=judge_identity(classifier(copy)), device="cpu").version != made.version
    shutil.rmtree(copy)
    assert judge_identity(classifier(copy)) == ABSENT, "it fails when it is computed, with its own message"


def test_the_parts_of_a_key_must_say_who_the_judge_is(rude):
    judged = cell(judges={"judge": classifier(rude)})
    given = {"weights": "w", "data": "d", "code": "c"}
    keys = {cell_key(judged, **given, judges={"judge": name}) for name in ("a", "b")}
    keys |= {
        cell_key(cell(), **given),
        cell_key(cell(judges={"harm": judged.judges["judge"]}), **given, judges={"harm": "a"}),
    }
    assert len(keys) == 4
    with pytest.raises(ValueError, match="do not say what its judge 'judge' is known by"):
        cell_key(judged, **given)


def test_a_commit_of_the_hub_is_known_without_a_look_and_anything_else_by_its_version(monkeypatch):
    commit = "0123456789abcdef" * 2 + "01234567"
    pinned = JudgeSpec(kind="reward", model="owner/judge", revision=commit)
    assert judge_identity(pinned) == f"owner/judge@{commit}"
    asked = []

    def load(text, content, device):
        asked.append((text, content, device))
        if "lost" in text:
            raise JudgeError("not on the hub")
        return OracleJudge(Truth(None))

    monkeypatch.setattr(judging, "_made", load)
    moving = pinned.model_copy(update={"revision": "main"})
    assert judge_identity(moving, device="cuda:1") == OracleJudge(Truth(None)).version
    assert asked == [(canonical(moving), "", "cuda:1")]
    assert judge_identity(moving.model_copy(update={"model": "owner/lost"})) == ABSENT


def api(journal, **more):
    return JudgeSpec(
        kind="api", model="judge-1",
        options={"url": "http://127.0.0.1:9/v1", "rubric": RUBRIC, "journal": str(journal), "offline": True, **more},
    )  # fmt: skip


def test_a_recorded_judge_scores_without_a_call_and_its_journal_decides(tmp_path):
    journal = tmp_path / "one.jsonl"
    task = Requests(plant(), **OPTIONS)
    _, texts = task.sampled(limit=4)
    spec = api(journal, scale=[0, 4])
    asked = cell(judges={"judge": spec})
    assert judge_identity(spec) == ABSENT
    judge = ApiJudge("http://127.0.0.1:9/v1", "judge-1", rubric=RUBRIC, journal=journal, scale=(0, 4), offline=True)
    items = [task.rows[item.row].text for item in running.spread(task.items(), 4)]
    for k, (prompt, text) in enumerate(list(zip(items, texts, strict=True))[:3]):
        judge.journal.add(judge.question(prompt, text), {"text": f'{{"score": {k}}}', "finish": "stop", "model": "m"})
    before = key_of(asked)
    found = run_cell(asked)
    assert found.key == before and found.scores["wanted"] == (0.0, 0.25, 0.5, 0.0)
    moved = shutil.copy(journal, tmp_path / "two.jsonl")
    assert key_of(cell(judges={"judge": api(moved, scale=[0, 4])})) == before
    judge.journal.add(judge.question(items[3], texts[3]), {"text": '{"score": 4}', "finish": "stop", "model": "m"})
    again = run_cell(asked)
    assert again.key != before and again.scores["wanted"] == (0.0, 0.25, 0.5, 1.0)


def test_a_journal_that_is_being_filled_does_not_move_the_key(tmp_path):
    spec = api(tmp_path / "j.jsonl", offline=False)
    before = key_of(cell(judges={"judge": spec}))
    (tmp_path / "j.jsonl").write_text("x\n")
    assert key_of(cell(judges={"judge": spec})) == before
    assert key_of(cell(judges={"judge": api(tmp_path / "j.jsonl", offline=False, rubric="Else? {answer}")})) != before


def test_an_oracle_is_that_of_the_almanac():
    spec = JudgeSpec(kind="oracle", options={"task": "truth", "reads": "intact"})
    made = judge_of(spec, content="", device="cpu")
    assert made.version == OracleJudge(Truth(None), reads="intact").version
    other = JudgeSpec(kind="oracle", options={"task": "mmlu"})
    with pytest.raises(JudgeSpecError, match="got task 'mmlu', expected a behaviour of the Almanac"):
        judge_of(other, content="", device="cpu")


@pytest.mark.parametrize(("file", "decides"), [("judges/classifier.py", True), ("judges/api.py", False)])
def test_the_code_of_a_judge_decides_where_it_judges(tmp_path, rude, file, decides):
    shutil.copytree(ROOT / "steerlib", tmp_path / "steerlib", ignore=shutil.ignore_patterns("__pycache__"))
    both = [cell(), cell(judges={"judge": classifier(rude)})]
    before = [code_hash(each, root=tmp_path) for each in both]
    path = tmp_path / "steerlib" / file
    path.write_text(path.read_text() + "\n# a remark\n")
    cells._sources.cache_clear()
    assert [code_hash(each, root=tmp_path) != then for each, then in zip(both, before, strict=True)] == [False, decides]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "truth", "task_options": {}, "judges": {"judge": classifier("m")}}, "'truth' takes no judge, got"),
        ({"task": "mmlu", "task_options": {}, "judges": {"judge": classifier("m")}}, "'mmlu' takes no judge, got"),
        ({"judges": {"judg": classifier("m")}}, "got judge 'judg', which does not exist. Did you mean judge"),
        ({"judges": {"judge": JudgeSpec(kind="reward", model="m")}}, "got a reward model as 'judge', expected a judge"),
        ({"task_options": {"judge": {"kind": "reward"}}}, "got 'judge' in task_options, which hold no judge. Fix:"),
        ({"judges": {"judge": classifier("/nowhere/judge")}}, "judge '/nowhere/judge': no such folder. Expected one"),
        ({"judges": {"judge": JudgeSpec(kind="api", model="m", options={"colour": 1})}}, "'api' does not take the opt"),
    ],
)  # fmt: skip
def test_a_judge_that_cannot_judge_a_cell(change, message):
    with pytest.raises((JudgeSpecError, JudgeError), match=message):
        run_cell(cell(**change))


def test_a_folder_has_no_revision(rude):
    spec = JudgeSpec(kind="classifier", model=rude, revision="main", options={"label": "rude"})
    with pytest.raises(JudgeError, match="got revision='main', expected none for a folder"):
        judge_of(spec, content="", device="cpu")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "human", "model": "m"}, "got kind of judge 'human', which does not exist. Known are: oracle, class"),
        ({"kind": "reward"}, "judge reward: got model='', expected a hub id, a folder"),
        ({"kind": "oracle", "model": "m"}, "judge oracle: got model='m', expected none"),
        ({"kind": "oracle", "options": {"task": "trut"}}, "got task of the oracle 'trut', .* Did you mean truth"),
        ({"kind": "api", "model": "m", "revision": "main"}, "got revision='main', which only a model on the hub has"),
        ({"kind": "api", "model": "m", "colour": 1}, "Extra inputs are not permitted"),
    ],
)
def test_judges_that_are_none(spec, message):
    with pytest.raises(ValidationError, match=message):
        JudgeSpec.model_validate(spec)


def test_nothing_is_judged_where_nothing_is_sampled(rude):
    with pytest.raises(ValidationError, match=r"judges=\['judge'\] with kind='exact', where nothing is judged"):
        cell(kind="exact", judges={"judge": classifier(rude)})


def test_a_grid_names_judges(tmp_path):
    (tmp_path / "grid.yml").write_text(
        "blocks: [{over: {plant: [p], task: [harmful-requests], kind: [sampled], judges.judge.kind: [classifier],\n"
        "  judges.judge.model: [owner/a, owner/b], judges.judge.options.label: [refusal]}}]\n"
    )
    found = read_grid(tmp_path / "grid.yml")
    assert [each.judges["judge"].model for each in found] == ["owner/a", "owner/b"]
    assert found[0].title.endswith("(sampled, seed 0, judge: classifier owner/a refusal)")


# ---- what a record keeps of the judges' opinions -------------------------------------------------


class Says:
    """Gives the next of the scores that it was told, at each asking."""

    def __init__(self, *scores):
        self.scores = list(scores)

    def score(self, prompts, answers):  # noqa: ARG002
        return self.scores.pop(0)


ANSWERS = ["w20 w21", " ", "w23 w24 w25", "I cannot w30"]
NAN = float("nan")


@pytest.fixture
def says(monkeypatch):
    """Answers and scores as written down."""

    def told(**by_role):
        monkeypatch.setattr(plant(), "generate", lambda *_, **__: SimpleNamespace(texts=list(ANSWERS)))
        monkeypatch.setattr(
            judging, "_made", lambda text, *_: Says(*by_role[JudgeSpec.model_validate_json(text).model])
        )
        return {role: JudgeSpec(kind="classifier", model=role, revision="0" * 40) for role in by_role}

    return told


def test_rewards_are_kept_beside_wins_with_their_gaps(says):
    ours, theirs = [5.0, NAN, -3.0, 9.0], [9.0, 1.0, -7.0, NAN]
    record = run_cell(cell(task="preference", judges=says(judge=[ours, theirs])))
    assert record.scores["wanted"] == (0.0, 0.0, 1.0, 0.0)
    assert record.more["reward"] == (5.0, None, -3.0, 9.0)
    assert record.more["win-rate"] == record.more["win-rate-half"] == (0.0, 0.0, 1.0, 0.0)
    assert set(record.more) == {"reward", "win-rate", "win-rate-half", "diversity"}
    assert record.missing == {1: "ours: empty answer", 3: "preferred: the judge gave no number"}
    reward, top = record.metrics["reward"], record.metrics["reward-p90"]
    assert reward.value == pytest.approx(11 / 3) and (reward.n, top.n) == (3, 3)
    assert top.value == pytest.approx(np.quantile([5, -3, 9], 0.9))
    assert record.metrics["wanted"].n == 4
    assert parse(dump(record).encode(), key=record.key, name="x") == record


def test_the_success_of_attacks_is_told_by_phrases_and_by_a_judge_of_harm(says):
    plain = run_cell(cell(task="harmful-requests", judges=says(judge=[[0.5, NAN, 0.0, 1.0]])))
    assert plain.more == {"attack-success-phrases": (1.0, 0.0, 1.0, 0.0)} and "attack-success" not in plain.metrics
    record = run_cell(cell(judges=says(harm=[[0.75, NAN, NAN, 0.0]])))
    assert record.scores["wanted"] == (0.0, 0.0, 0.0, 1.0), "phrases tell of refusal as before"
    assert record.more["attack-success"] == (0.75, 0.0, None, 0.0)
    assert record.missing == {1: "empty answer", 2: "the judge gave no number"}
    assert record.metrics["attack-success"].value == pytest.approx(0.25) and record.metrics["attack-success"].n == 3
    assert record.metrics["attack-success-phrases"].value == 0.5
    both = run_cell(cell(judges=says(judge=[[1.0, NAN, 0.5, 0.0]], harm=[[0.0, NAN, NAN, 1.0]])))
    assert both.missing == {1: "refusal: empty answer; harm: empty answer", 2: "harm: the judge gave no number"}


def test_phrases_and_the_judge_of_harm_are_compared_where_something_is_said():
    harm = np.array([1.0, 0.9, 0.8, 0.1, 0.0, 0.0, 0.2, 0.7, NAN, 0.0] * 4)
    phrases = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0] * 4)
    answers = ["a"] * 9 + [" "]
    found = further({"attack-success": harm, "attack-success-phrases": phrases}, answers * 4)
    # Of eight that both judge: harm says yes to 4, phrases to 4, they agree on 6.
    assert found["attack-agreement"].value == pytest.approx((0.75 - 0.5) / 0.5) and found["attack-agreement"].n == 32
    assert found["attack-success"].n == 36 and found["attack-success-phrases"].n == 40
    one_sided = further({"attack-success": harm * 0, "attack-success-phrases": harm * 0}, answers * 4)
    assert "attack-agreement" not in one_sided and one_sided["attack-success"].value == 0.0
    assert further({"reward": np.array([NAN, 2.0])}, ["a", "b"]) == {}


def test_a_judge_of_harm_needs_harmful_requests(says):
    options = {**OPTIONS, "harmful": False}
    with pytest.raises(MetricError, match="got a judge of harm with harmful=False"):
        run_cell(cell(task_options=options, judges=says(harm=[[0.0] * 4])))
    assert run_cell(cell(task_options=options, judges=says(judge=[[0.0] * 4]))).more == {}


def test_rows_of_a_frame_say_who_was_fitted_sampled_and_judged_how(says):
    judges = says(judge=[[5.0, NAN, -3.0, 9.0], [0.0] * 4])
    record = run_cell(cell(task="preference", judges=judges))
    law = LawSpec(name="difference-of-means", layer=0)
    other = Cell(
        plant="p", task="utility", kind="sampled", settings=Sampling(top_p=0.5),
        law=law.model_copy(update={"fit": Fit(task="concept", task_options={"concept": "war"})}),
    )  # fmt: skip
    own = Cell(plant="p", task="truth", law=law)
    frame = frame_of([record, toys.record(other), toys.record(own)]).drop_duplicates("key").set_index("task")
    judged, scored, plain = (frame.loc[name] for name in (frame.index[0], "utility", "truth"))
    assert judged.judge == judges["judge"].title.join(["judge: ", ""]) and judged.missing == 1
    assert (scored.fitted_for, scored.top_p, scored.missing) == ("concept war", 0.5, 0) and plain.fitted_for == "truth"
    assert frame.fitted_for.isna().tolist() == [True, False, False]
    assert frame.judge.notna().tolist() == [True, False, False]


def test_shipped_columns_of_judges_are_as_short_as_scores(says, tmp_path):
    asked = cell(task="preference", judges=says(judge=[[1 / 3, NAN, 2.0, 0.0], [0.0] * 4]))
    store = Store(tmp_path / "store")
    store.put(run_cell(asked))
    found = shipped(ship(store, [asked], tmp_path / "tiny" / "records" / "g.jsonl.gz"))
    assert found.records[0].more["reward"] == (0.333333, None, 2.0, 0.0) and found.records[0].missing


def test_a_cell_whose_judge_is_not_there_fails_alone(rude, tmp_path):
    good, bad = cell(judges={"judge": classifier(rude)}), cell(judges={"judge": classifier(tmp_path / "lost")})
    wrong = cell(judges={"judge": JudgeSpec(kind="api", model="m", options={"offline": True})})
    outcome = run_grid([bad, good, wrong], Store(tmp_path / "store"), progress=False)
    assert outcome.computed == [good] and list(outcome.failed) == [bad, wrong]
    assert "lost': no such folder" in outcome.failed[bad] and "does not take the options" in outcome.failed[wrong]
    assert missing([bad, good, wrong], Store(tmp_path / "store")) == [bad, wrong]
