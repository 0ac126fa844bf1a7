"""A judge that compares two answers: order drawn and undone, nonsense missing, a rerun from its journal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from steerlib.judges import JudgeError
from steerlib.judges.endpoint import Endpoint
from steerlib.judges.pairwise import RUBRIC, PairJudge, read_two

PROMPTS = [f"Human: question {i}\nAssistant:" for i in range(40)]
OURS = [f" ours {i}" for i in range(40)]
THEIRS = [f" theirs {i}" for i in range(40)]


class Reply:
    finish, model = "stop", "m"

    def __init__(self, text: str) -> None:
        self.text = text


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A judge that likes the longer answer, and remembers what it was asked."""
    bodies: list[dict[str, Any]] = []

    def ask(_self: Endpoint, body: dict[str, Any]) -> Reply:
        bodies.append(body)
        first, second = texts(body)
        return Reply(json.dumps({"first": min(10, len(first)), "second": min(10, len(second))}))

    monkeypatch.setattr(Endpoint, "ask", ask)
    return bodies


def texts(body: dict[str, Any]) -> tuple[str, str]:
    said = body["messages"][-1]["content"]
    return tuple(re.search(rf"<{n}-\w+>(.*?)</{n}-", said, re.DOTALL)[1] for n in ("first", "second"))  # type: ignore


def judge(folder: Path, **options: Any) -> PairJudge:
    return PairJudge("http://127.0.0.1:1/v1", "m", journal=folder / "j.jsonl", key_variable=None, **options)


def test_wins_do_not_depend_on_the_order(tmp_path: Path, asked: list) -> None:
    found = judge(tmp_path).compare(PROMPTS, OURS, THEIRS)
    assert found.scores.tolist() == [0.0] * 40, "theirs are longer, wherever they stand"
    stood_first = [texts(body)[0].startswith(" ours") for body in asked]
    assert 8 < sum(stood_first) < 32, "both orders are asked"
    assert judge(tmp_path).compare(PROMPTS, THEIRS, OURS).scores.tolist() == [1.0] * 40
    assert len(asked) == 40, "the same pairs, seen from the other side, are the same questions"
    assert (judge(tmp_path).compare(PROMPTS[:1], OURS[:1], [" same 0"]).scores == 0.5).all()
    assert judge(tmp_path, seed=1).version != judge(tmp_path).version
    judge(tmp_path, seed=1).compare(PROMPTS, OURS, THEIRS)
    again = [texts(body)[0].startswith(" ours") for body in asked[41:]]
    assert 0 < len(again) < 40, "another seed turns some pairs round, and those are other questions"


def test_a_judge_that_likes_the_first_place_gains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endpoint, "ask", lambda *_: Reply('{"first": 9, "second": 8}'))
    found = judge(tmp_path).compare(PROMPTS, OURS, THEIRS).scores
    assert 0.2 < found.mean() < 0.8 and set(found) == {0.0, 1.0}


def test_gaps_are_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(
        ["the first, clearly", '{"first": 11, "second": 1}', '{"first": 1}', '```json\n{"first":2,"second":2}\n```']
    )
    monkeypatch.setattr(Endpoint, "ask", lambda *_: Reply(next(said)))
    ours = ["a", "b", "c", "d", " ", "e"]
    found = judge(tmp_path, workers=1).compare(PROMPTS[:6], ours, [*THEIRS[:5], ""])
    assert found.missing[0] == "the judge's answer cannot be used: not JSON"
    assert 'no number "first" from 1 to 10' in found.missing[1] and 'no number "second"' in found.missing[2]
    assert found.missing[4] == found.missing[5] == "empty answer" and found.scores[3] == 0.5
    offline = judge(tmp_path, offline=True).compare(PROMPTS[:1], ["new"], ["other"])
    assert offline.missing == {0: "not recorded"}


def test_what_is_quoted_stays_quoted(tmp_path: Path) -> None:
    body = judge(tmp_path).asked("p {second}", "a {first} {prompt}", "b")["body"]
    said = body["messages"][-1]["content"]
    assert set(texts(body)) == {"a {first} {prompt}", "b"} and "p {second}" in said
    assert "harmless" in RUBRIC and body["temperature"] == 0.0


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="where the {first} and the {second} answer go"):
        judge(tmp_path, rubric="which is better? {first}")
    with pytest.raises(JudgeError, match="got 1 prompts, 2 answers and 1 rivals"):
        judge(tmp_path).compare(["p"], ["a", "b"], ["c"])
    with pytest.raises(JudgeError, match="scores none alone. Fix: compare, or ApiJudge"):
        judge(tmp_path).score(["p"], ["a"])
    with pytest.raises(ValueError, match="a name twice"):
        read_two('{"first": 1, "first": 2, "second": 3}', 1, 10)
