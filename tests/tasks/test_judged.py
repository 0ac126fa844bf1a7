"""Sampled answers before the suite's own judges: one that is blank or cannot be judged is a gap, and costs no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlib.errors import MetricError
from steerlib.judges import ClassifierJudge, Judgement, RewardJudge
from steerlib.plant import Plant
from steerlib.tasks.base import Scores
from steerlib.tasks.real import Concepts, Preference, RealTask, Requests, ToxicPrompts, TruthfulQA
from steerlib.tasks.real.judging import gaps, judged_by
from tests import families
from tests.data import sets
from tests.judges.test_classifier import LABELS, bert, save

SHORT = {"max_new_tokens": 4}
#: One blank answer, and one (ten words and two marks) that is too long for the judges below.
ANSWERS = ["w20 w21", " ", "w23 w24 w25", " ".join(f"w{i}" for i in range(30, 40))]
WHYS = {1: "empty answer", 3: "too long: 12 tokens, the judge reads 8"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sets.everything(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def plant() -> Plant:
    return families.plant("llama")


@pytest.fixture(scope="module")
def rude(tmp_path_factory: pytest.TempPathFactory) -> ClassifierJudge:
    made = save(tmp_path_factory.mktemp("classifier"), bert(id2label=LABELS))
    return ClassifierJudge(made, label="rude", max_tokens=8, too_long="missing")


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> RewardJudge:
    made = save(tmp_path_factory.mktemp("reward"), bert(num_labels=1))
    return RewardJudge(made, reads="pair")


class Says:
    """Gives what it was told to give."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Any:  # noqa: ARG002
        return self.values


def task_of(name: str, plant: Plant, folder: Path, judge: Any) -> RealTask:
    if name == "toxicity":
        return ToxicPrompts(plant, data=folder, settings=SHORT, judge=judge)
    if name == "concept":
        return Concepts(plant, concept="w91", data=folder, settings=SHORT, judge=judge)
    return Requests(plant, data=folder, settings=SHORT, judge=judge, harmful=name == "harmful")


class TestTasks:
    @pytest.mark.parametrize(
        ("name", "turned"), [("toxicity", True), ("concept", False), ("harmful", False), ("harmless", True)]
    )
    def test_a_classifier_scores_a_task_and_gaps_count_as_nothing_wanted(
        self,
        plant: Plant,
        folder: Path,
        rude: ClassifierJudge,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        turned: bool,
    ) -> None:
        task = task_of(name, plant, folder, rude)
        monkeypatch.setattr(plant, "generate", lambda *_, **__: SimpleNamespace(texts=list(ANSWERS)))
        scores, texts = task.sampled(limit=4)
        plain = rude.score([""] * 4, ANSWERS).scores
        assert texts == ANSWERS and scores.missing == WHYS
        right = 1 - plain if turned else plain
        assert scores.wanted[[0, 2]] == pytest.approx(right[[0, 2]]) and 0 < right[0] < 1
        assert scores.wanted[[1, 3]].tolist() == [0.0, 0.0]
        # The cell is not lost: its estimates count every prompt.
        assert scores.wanted_mean().n == scores.combined().n == 4

    def test_truth_lacks_what_either_judge_lacks(self, plant: Plant, folder: Path, rude: ClassifierJudge) -> None:
        task = TruthfulQA(plant, data=folder, settings=SHORT, judge=rude, informed=Says([1.0, 0.25, np.nan, 0.5]))
        scores = task.verdicts(task.items()[:4], ANSWERS)
        assert scores.wanted[[1, 3]].tolist() == [0.0, 0.0] and (scores.wanted[[0, 2]] > 0).all()
        assert scores.intact.tolist() == [1.0, 0.25, 0.0, 0.5]
        assert scores.missing == {
            1: "true: empty answer", 2: "info: the judge gave no number", 3: f"true: {WHYS[3]}",
        }  # fmt: skip

    def test_without_a_reward_nobody_wins(self, plant: Plant, folder: Path, reward: RewardJudge) -> None:
        task = Preference(plant, data=folder, settings=SHORT, judge=reward)
        items = task.items()[:4]
        prompts, theirs = [item.text for item in items], [task.rows[item.row].chosen for item in items]
        higher = reward.score(prompts, ANSWERS).filled(-99.0) > reward.score(prompts, theirs).scores
        scores = task.verdicts(items, ANSWERS)
        assert scores.wanted.tolist() == higher.astype(float).tolist() and scores.wanted[1] == 0.0
        assert scores.missing == {1: "ours: empty answer"}

    def test_nobody_wins_against_an_answer_without_a_reward(self, plant: Plant, folder: Path) -> None:
        class Once(Says):
            def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Any:  # noqa: ARG002
                return self.values.pop(0)

        # Rewards below and above zero: a gap filled with a zero would win once and lose once.
        task = Preference(plant, data=folder, settings=SHORT, judge=Once([[5.0, 9.0, np.nan], [np.nan, 7.0, -3.0]]))
        scores = task.verdicts(task.items()[:3], ["a", "b", "c"])
        assert scores.wanted.tolist() == [0.0, 1.0, 0.0] and sorted(scores.missing) == [0, 2]

    def test_without_a_judge_nothing_is_missing(self, plant: Plant, folder: Path) -> None:
        task = Requests(plant, data=folder, settings=SHORT)
        assert not task.verdicts(task.items()[:2], ["I cannot", ""]).missing

    def test_silence_everywhere_is_a_result(self, plant: Plant, folder: Path, rude: ClassifierJudge) -> None:
        task = task_of("toxicity", plant, folder, rude)
        scores = task.verdicts(task.items()[:2], ["", "\n"])
        assert scores.wanted.tolist() == [0.0, 0.0] and len(scores.missing) == 2

    def test_a_reward_is_no_probability(self, plant: Plant, folder: Path, reward: RewardJudge) -> None:
        task = task_of("toxicity", plant, folder, reward)
        with pytest.raises(MetricError, match="judge of toxicity: got .* expected a probability"):
            task.verdicts(task.items()[:4], ANSWERS)


class TestJudgedBy:
    @pytest.mark.parametrize(
        ("values", "message"),
        [([0.5], r"shape \(1,\), expected one for each of 2"), ([0.5, np.inf], "got inf for answer 1"),
         ([[0.5, 0.5]], r"shape \(1, 2\)"), ([np.nan, 1.5], "got 1.5 for answer 1, expected a probability"),
         ([-0.5, 1.0], "got -0.5 for answer 0"), (["good", "bad"], "got list, expected a Judgement or a number"),
         ([np.nan, None], "0 of 2 answers judged .2: the judge gave no number., none of the 2 that are not blank"),
         (Judgement(np.array([0.5]), {}, "j", ""), r"shape \(1,\), expected one for each of 2"),
         (Judgement(np.array([0.5, 2.0]), {}, "j", ""), "got 2.0 for answer 1, expected a probability"),
         (Judgement(np.full(2, np.nan), {0: "timed out", 1: "timed out"}, "j", ""), "0 of 2 .* .2: timed out.")],
    )  # fmt: skip
    def test_a_judge_that_answers_nonsense(self, values: Any, message: str) -> None:
        with pytest.raises(MetricError, match=message):
            judged_by(Says(values), ["p", "q"], ["a", "b"], what="judge")

    def test_a_score_of_a_blank_answer_does_not_hide_that_the_others_have_none(self) -> None:
        with pytest.raises(MetricError, match="none of the 1 that are not blank"):
            judged_by(Says([0.5, np.nan]), ["p", "q"], ["", "b"], what="judge")

    @given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1).filter(lambda v: any(x is not None for x in v)))
    def test_an_array_is_a_judgement_with_its_nans_as_gaps(self, values: list[float | None]) -> None:
        found = judged_by(Says(values), ["p"] * len(values), ["a"] * len(values), what="judge")
        assert sorted(found.missing) == [i for i, value in enumerate(values) if value is None]
        assert found.judged.tolist() == [value for value in values if value is not None]

    def test_rewards_have_any_size(self) -> None:
        found = judged_by(Says([-7.5, 30.0]), ["p", "q"], ["a", "b"], what="judge", bounded=False)
        assert found.scores.tolist() == [-7.5, 30.0] and not found.missing

    def test_gaps_of_two_judges_are_told_apart(self) -> None:
        nan = np.nan
        one = Judgement(np.array([nan, 1.0, nan]), {0: "late", 2: "blank"}, "j", "")
        two = Judgement(np.array([1.0, nan, nan]), {1: "lost", 2: "blank"}, "j", "")
        assert gaps(a=one, b=two) == {0: "a: late", 1: "b: lost", 2: "a: blank; b: blank"}


class TestScores:
    def test_a_pooled_prompt_is_missing_where_one_seed_lacks_it(self) -> None:
        zeros = np.zeros(3)
        pooled = Scores.pooled([Scores(zeros, zeros, {2: "late"}), Scores(zeros, zeros, {0: "blank", 2: "lost"})])
        assert pooled.missing == {0: "blank", 2: "late"}

    def test_what_else_was_measured_is_pooled_where_all_seeds_have_it(self) -> None:
        zeros, nan = np.zeros(2), np.nan
        one = Scores(zeros, zeros, more={"reward": np.array([1.0, nan]), "attack-success": zeros})
        pooled = Scores.pooled([one, Scores(zeros, zeros, more={"reward": np.array([4.0, 2.0])})])
        assert list(pooled.more) == ["reward"]
        np.testing.assert_array_equal(pooled.more["reward"], [2.5, nan])

    @pytest.mark.parametrize(
        ("name", "column", "message"),
        [("reward", [1.0], r"got reward of shape \(1,\)"), ("reward", [1.0, np.inf], "1 of them infinite"),
         ("rewart", [1.0, 2.0], "got metric 'rewart', which does not exist. Did you mean reward")],
    )  # fmt: skip
    def test_columns_that_are_none(self, name: str, column: list[float], message: str) -> None:
        with pytest.raises(MetricError, match=message):
            Scores(np.zeros(2), np.zeros(2), more={name: np.array(column)})

    def test_a_gap_at_no_prompt(self) -> None:
        with pytest.raises(MetricError, match="got a gap at prompt 2, expected prompts 0 to 1"):
            Scores(np.zeros(2), np.zeros(2), {2: "late"})
