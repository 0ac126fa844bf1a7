"""Gaps are stated and never numbers; the oracle as a judge is the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steerlib.errors import MetricError
from steerlib.judges import BaseJudge, JudgeError, Judgement, OracleJudge
from steerlib.judges.base import Opinion
from steerlib.tasks import Refusal, Toxicity, Truth


class Lengths(BaseJudge):
    """Scores an answer by its length; has no opinion on "?" and breaks on "nan"."""

    name, version = "lengths", "1"

    def __init__(self):
        self.asked = []

    def opinions(self, prompts, answers):
        self.asked += list(zip(prompts, answers, strict=True))
        table = {"?": Opinion(None, "unclear"), "nan": Opinion(math.nan), "cut": Opinion(0.5, truncated=True)}
        return [table.get(text, Opinion(len(text) / 10)) for text in answers]


def test_gaps_stay_in_their_places_and_say_why():
    judge = Lengths()
    found = judge.score(list("abcdefg"), ["one", None, "", " \n", "?", "nan", "cut"])
    assert found.missing == {
        1: "no answer", 2: "empty answer", 3: "empty answer", 4: "unclear", 5: "the judge gave nan",
    }  # fmt: skip
    assert np.isnan(found.scores).tolist() == [False, True, True, True, True, True, False]
    assert found.judged.tolist() == [0.3, 0.5] and found.truncated == (6,)
    assert judge.asked == [("a", "one"), ("e", "?"), ("f", "nan"), ("g", "cut")]
    assert found.summary() == (
        "2 of 7 answers judged (2: empty answer; 1: no answer; 1: unclear; 1: the judge gave nan); 1 read in part"
    )


def test_what_silence_is_worth_is_said_by_the_caller():
    found = Lengths().score(["a"] * 4, ["12345", "12345", "", "123"])
    assert found.mean().value == pytest.approx(13 / 30) and found.mean().n == 3
    assert found.filled(0.0).tolist() == [0.5, 0.5, 0.0, 0.3]
    with pytest.raises(JudgeError, match="expected what a missing score is to count as"):
        found.filled(math.nan)


def test_one_prompt_and_nothing_but_gaps():
    one = Lengths().score(["a"], ["four"])
    assert one.scores.tolist() == [0.4]
    with pytest.raises(MetricError, match="one value says nothing about spread"):
        one.mean()
    judge = Lengths()
    none = judge.score(["a", "b"], [None, ""])
    assert np.isnan(none.scores).all() and judge.asked == []
    with pytest.raises(MetricError, match="expected at least one value"):
        none.mean()


@pytest.mark.parametrize(
    ("prompts", "answers", "error", "message"),
    [
        ([], [], JudgeError, "got no answer"),
        (["a"], ["b", "c"], JudgeError, "got 1 prompts and 2 answers"),
        ("a", ["b"], TypeError, "prompts is one string"),
        (["a"], "b", TypeError, "answers is one string"),
        (["a", "b"], ["c", 5], TypeError, "answers number 1 is int"),
        ([None], ["c"], TypeError, "prompts number 0 is NoneType"),
    ],
)
def test_what_cannot_be_judged_is_refused(prompts, answers, error, message):
    with pytest.raises(error, match=message):
        Lengths().score(prompts, answers)


def test_a_judgement_must_account_for_every_number():
    with pytest.raises(JudgeError, match="answer 1 has score nan and reason None"):
        Judgement(np.array([0.5, np.nan]), {}, "j", "1")
    with pytest.raises(JudgeError, match=r"answer 0 has score 0\.5 and reason 'why'"):
        Judgement(np.array([0.5]), {0: "why"}, "j", "1")
    with pytest.raises(TypeError):
        Judgement(np.array([0.5]), {}, "j", "1").missing[0] = "later"  # type: ignore[index]


# ---- the oracle ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Truth, Toxicity, Refusal])
@pytest.mark.parametrize("reads", ["wanted", "intact"])
def test_the_oracle_says_what_the_task_counts(kind, reads):
    task = kind(None)  # the oracle needs no plant
    items = task.items("test")[:6]
    answers = [task.forms(item).texts[i] for i, item in enumerate(items)]
    answers[4] = " So it is written in no book"
    expected = getattr(task.verdicts(items, answers), reads)
    found = OracleJudge(task, reads=reads).score([item.text for item in items], answers)
    assert found.scores.tolist() == expected.tolist() and not found.missing
    assert len(set(expected.tolist())) > 1, "a case in which nothing differs shows nothing"


def test_an_empty_answer_is_missing_and_counts_as_the_task_counts_it_when_filled():
    task = Truth(None)  # type: ignore[arg-type]
    items = task.items("test")[:2]
    answers = [task.forms(items[0]).texts[0], ""]
    found = OracleJudge(task).score([item.text for item in items], answers)
    assert found.missing == {1: "empty answer"}
    assert found.filled(0.0).tolist() == task.verdicts(items, answers).wanted.tolist() == [1.0, 0.0]


def test_told_prompts_and_other_splits_are_known_and_strange_ones_are_not():
    task = Truth(None)  # type: ignore[arg-type]
    judge = OracleJudge(task)
    told = task.items("validation", told=True)[0]
    assert judge.score([told.text], [task.forms(told).texts[0]]).scores.tolist() == [1.0]
    with pytest.raises(JudgeError, match="prompt 'What is love' is none of its"):
        judge.score(["What is love"], ["a game"])
    with pytest.raises(JudgeError, match="got score 'wnated', which does not exist. Did you mean wanted"):
        OracleJudge(task, reads="wnated")  # type: ignore[arg-type]


def test_versions_of_oracles_tell_them_apart():
    task = Truth(None)  # type: ignore[arg-type]
    first, again, other = OracleJudge(task), OracleJudge(task), OracleJudge(task, reads="intact")
    assert first.version == again.version != other.version
    assert len({first.version, OracleJudge(Refusal(None)).version}) == 2  # type: ignore[arg-type]
