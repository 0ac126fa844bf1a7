"""Questions and answers of a task are measured at their own tokens, and a source hands them to laws."""

from __future__ import annotations

import pytest
import torch

from steerlib.actuator import Site
from steerlib.errors import ContrastError
from steerlib.laws.additive import Additive
from steerlib.laws.truthflow import TruthFlow
from steerlib.plant import Plant
from steerlib.recorder import record
from steerlib.tasks.answering import answers_of
from steerlib.tasks.source import TaskSource
from steerlib.tasks.truth import Truth

SITE = Site(2)


@pytest.fixture(scope="module")
def task() -> Truth:
    return Truth(Plant.load("almanac-llama-tiny"))


def test_each_state_is_that_of_its_tokens(task: Truth) -> None:
    found = answers_of(task, SITE, n=5, seed=3)
    pairs = {pair.prompt: pair for pair in task.pairs("fit")}
    prompts = list(pairs)
    everywhere = record(task.plant, prompts, sites=[SITE]).at(SITE)
    for i in range(5):
        place = int((everywhere - found.query[i]).norm(dim=1).argmin())
        torch.testing.assert_close(found.query[i], everywhere[place], atol=1e-3, rtol=1e-3)
        pair = pairs[prompts[place]]
        for answer, state in ((pair.wanted, found.right[i]), (pair.unwanted, found.wrong[i])):
            whole = record(task.plant, [pair.prompt + answer], sites=[SITE], position="all").at(SITE)
            asked = len(task.plant._ids([pair.prompt])[0])
            assert len(whole) > asked
            torch.testing.assert_close(state, whole[asked:].mean(0), atol=1e-3, rtol=1e-3)


def test_no_question_is_used_twice_and_the_seed_says_which(task: Truth) -> None:
    whole = answers_of(task, SITE, n=10_000, seed=0)
    assert len(whole) == len(task.pairs("fit"))
    first, other = (answers_of(task, SITE, n=6, seed=seed) for seed in (1, 2))
    assert not torch.equal(first.query, other.query)
    assert torch.equal(first.query, answers_of(task, SITE, n=6, seed=1).query)


def test_the_header_says_where(task: Truth) -> None:
    header = answers_of(task, Site(-1), n=2, seed=4, scope="all").header
    assert header is not None and header.weight_hash == task.plant.weight_hash
    assert (header.layer, header.scope, header.seed, header.width) == (task.plant.depth - 1, "all", 4, task.plant.width)
    other = answers_of(task, Site(-1), n=3, seed=4, scope="all").header
    assert other is not None and other.data_hash != header.data_hash


def test_earlier_layers_may_be_steered(task: Truth) -> None:
    plain = answers_of(task, SITE, n=3, seed=0)
    with task.plant.under(Additive(torch.ones(task.plant.width)), layer=0, scope="all"):
        steered = answers_of(task, SITE, n=3, seed=0)
    assert (steered.query - plain.query).norm() > 0.1


def test_refusals(task: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContrastError, match="n: got 0"):
        answers_of(task, SITE, n=0, seed=0)
    monkeypatch.setattr(task, "pairs", lambda _: [])
    with pytest.raises(ContrastError, match="truth: got no pair of answers in split 'fit'"):
        answers_of(task, SITE, n=2, seed=0)


def test_a_law_is_fitted_on_a_source_s_answers(task: Truth) -> None:
    source = TaskSource(task, SITE, n=8, seed=5, scope="last")
    plain = answers_of(task, SITE, n=8, seed=5, scope="last")
    assert torch.equal(source.answers([source.site])[0].right, plain.right)
    mixed = TaskSource(task, SITE, n=8, seed=5, labels="shuffled").answers([SITE])[0]
    assert torch.equal(mixed.right, plain.shuffled(seed=5).right)
    law = TruthFlow(updates=3).fit_from(source)
    assert law.header == plain.header and law.header is not None and law.header.scope == "last"
    assert torch.equal(law.axes, TruthFlow(updates=3).fit_answers(plain).axes)
