"""Questions with two answers each: what is refused, and their shuffled control."""

from __future__ import annotations

import pytest
import torch

from steerlib.errors import ContrastError
from steerlib.laws.answers import Answers
from steerlib.laws.base import LawHeader

QUERY, RIGHT, WRONG = torch.arange(60.0).reshape(3, 10, 2)
HEADER = LawHeader(1, "resid_post", "generated", "toy", "ab" * 32, 2, "cd" * 32, 0)


def test_the_correction_is_right_minus_wrong() -> None:
    found = Answers(QUERY, RIGHT, WRONG)
    assert torch.equal(found.correction, torch.full((10, 2), -20.0)) and len(found) == 10


def test_coins_swap_answers_within_questions() -> None:
    mixed = Answers(QUERY, RIGHT, WRONG, HEADER).shuffled(seed=1)
    assert torch.equal(mixed.query, QUERY) and torch.equal(mixed.right + mixed.wrong, RIGHT + WRONG)
    swapped = (mixed.correction > 0).all(1)
    assert 0 < int(swapped.sum()) < 10
    assert torch.equal(mixed.right, torch.where(swapped[:, None], WRONG, RIGHT))
    assert not torch.equal(mixed.right, Answers(QUERY, RIGHT, WRONG).shuffled(seed=2).right)
    assert mixed.header is not None and mixed.header.data_hash != HEADER.data_hash


def test_refusals() -> None:
    with pytest.raises(ContrastError, match=r"got shapes .*'wrong': \(9, 2\).*expected \(questions, width\)"):
        Answers(QUERY, RIGHT, WRONG[:9])
    with pytest.raises(ContrastError, match="expected \\(questions, width\\)"):
        Answers(QUERY[0], RIGHT[0], WRONG[0])
    with pytest.raises(ContrastError, match="got no question"):
        Answers(QUERY[:0], RIGHT[:0], WRONG[:0])
    for name in ("query", "right", "wrong"):
        states = {"query": QUERY, "right": RIGHT, "wrong": WRONG}
        states[name] = states[name].clone()
        states[name][4, 1] = torch.nan
        with pytest.raises(ContrastError, match=f"{name} states: row 4 .*is not finite"):
            Answers(**states)
