"""Branches on one cache give what reading every text anew gives, in every family."""

from __future__ import annotations

import pytest
import torch

from steerlib.actuator import Actuator, Scope, Site
from steerlib.decoding.base import metered
from steerlib.decoding.branches import Branches, last_logits
from tests.decoding.toys import PROMPTS, ids_of, next_logits
from tests.families import FAMILIES, plant

TOKENS = torch.tensor([[[3, 11, 50], [60, 6, 7], [8, 9, 10]], [[20, 21, 22], [33, 34, 35], [4, 90, 96]]])


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_branch_is_read_as_if_it_stood_alone(family: str, cache: str) -> None:
    p = plant(family)
    texts = [ids_of(PROMPTS[0]), ids_of(PROMPTS[2])]  # of unlike length; the longer one exceeds Gemma's window
    batch = p._pad(texts)
    with torch.inference_mode():
        walk = Branches(
            p.model, last_logits, batch.input_ids, batch.attention_mask, branches=3, room=4, cache=cache,  # type: ignore[arg-type]
        )  # fmt: skip
        for row, text in enumerate(texts):
            torch.testing.assert_close(walk.last[row], next_logits(p, text), atol=2e-4, rtol=1e-4)
        # Each branch goes its own way for two tokens, then one of each text is kept and all go on from there.
        first, second = walk.step(TOKENS[:, 0]), walk.step(TOKENS[:, 1])
        for row, text in enumerate(texts):
            for branch in range(3):
                said = TOKENS[row, :2, branch].tolist()
                torch.testing.assert_close(first[row, branch], next_logits(p, [*text, said[0]]), atol=2e-4, rtol=1e-4)
                torch.testing.assert_close(second[row, branch], next_logits(p, [*text, *said]), atol=2e-4, rtol=1e-4)
        walk.keep(torch.tensor([2, 0]))
        third = walk.step(TOKENS[:, 2])
        for row, (text, kept) in enumerate(zip(texts, (2, 0), strict=True)):
            said = TOKENS[row, :2, kept].tolist()
            for branch in range(3):
                alone = next_logits(p, [*text, *said, int(TOKENS[row, 2, branch])])
                torch.testing.assert_close(third[row, branch], alone, atol=2e-4, rtol=1e-4)


def test_what_was_read_is_not_read_again() -> None:
    p = plant("llama")
    batch = p._pad([ids_of(PROMPTS[0]), ids_of(PROMPTS[2])])
    with torch.inference_mode(), metered(p) as cost:
        walk = Branches(p.model, last_logits, batch.input_ids, batch.attention_mask, branches=3, room=2)
        walk.step(TOKENS[:, 0])
        walk.keep(torch.tensor([1, 1]))
        walk.step(TOKENS[:, 1])
    # A prompt column once for each text; then a position for each branch.
    assert (cost.passes, cost.positions) == (3, 2 * 5 + 2 * (2 * 3)) and walk.positions == cost.positions
    assert cost.seconds > 0


class _Remembers:
    """A law that keeps what it saw of each row's prompt, as conditional laws do."""

    sees_pass = True

    def __init__(self) -> None:
        self.rows: list[int] = []

    def during(self, state: torch.Tensor, now: object) -> torch.Tensor:  # noqa: ARG002
        self.rows.append(state.shape[0])
        return state


def test_a_law_that_remembers_rows_sees_as_many_from_the_first_pass_on() -> None:
    p, law = plant("llama"), _Remembers()
    batch = p._pad([ids_of(PROMPTS[0]), ids_of(PROMPTS[2])])
    made = []
    for together in (False, True):
        law.rows.clear()
        with torch.inference_mode(), Actuator(p.wiring, [(Site(1), law, Scope("all"))]):  # type: ignore[list-item]
            walk = Branches(
                p.model, last_logits, batch.input_ids, batch.attention_mask, branches=3, room=2, together=together
            )
            made.append((walk.last, walk.step(TOKENS[:, 0])))
        assert law.rows == ([6, 6] if together else [2, 6])
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-4)
