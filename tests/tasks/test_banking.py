"""Banks of answers: what is kept is what was sampled, of these weights and requests and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from steerlib import Plant
from steerlib.errors import ContrastError
from steerlib.tasks import banking
from steerlib.tasks.banking import BankPlan, load_bank, sample_bank, sampled_again, save_bank
from steerlib.tasks.helpfulness import Helpfulness
from steerlib.tasks.rewarding import answering

PLAN = BankPlan(fit=6, test=4, begun=3, at=(0, 3), samples=2)


@pytest.fixture(scope="module")
def task() -> Helpfulness:
    made = Helpfulness(Plant.load("almanac-llama-tiny", dtype=torch.float32))
    made.answer_tokens = 10
    return made


@pytest.fixture(scope="module")
def bank(task: Helpfulness) -> banking.Bank:
    return sample_bank(task, PLAN)


def test_a_bank_holds_what_the_plant_answers(task: Helpfulness, bank: banking.Bank) -> None:
    fit, test, how = banking.requests(task, PLAN)
    *_, earned = answering(task, n=PLAN.fit, seed=PLAN.seed)
    said = task.plant.generate([item.text for item in fit], max_new_tokens=10, seed=0)
    assert [tuple(row) for row in said.tokens] == list(bank.fit.tokens)
    assert bank.fit.rewards.tolist() == pytest.approx(earned(fit, said.texts))
    assert bank.test.prompts == tuple(item.text for item in test) and not set(bank.test.prompts) & set(bank.fit.prompts)
    assert how.max_new_tokens == 10
    # Each beginning is one of a test answer that has a state there.
    for start, row, at in zip(bank.beginnings(), bank.rows.tolist(), bank.at.tolist(), strict=True):
        assert start == bank.test.tokens[row][:at] and len(start) == at < len(bank.test.tokens[row])
    assert set(bank.at.tolist()) == {0, 3} and set(bank.rows.tolist()) == {0, 1, 2}
    assert len(bank.worth.mean) == len(bank.rows) == len(bank.worth.error)


def test_a_bank_survives_its_file_and_is_refused_for_anything_else(
    task: Helpfulness, bank: banking.Bank, tmp_path: Path
) -> None:
    path = tmp_path / "bank.safetensors"
    assert load_bank(task, PLAN, path) is None
    save_bank(task, bank, path)
    found = load_bank(task, PLAN, path)
    assert found is not None
    assert (found.fit.tokens, found.test.tokens) == (bank.fit.tokens, bank.test.tokens)
    assert (found.fit.prompts, found.test.prompts) == (bank.fit.prompts, bank.test.prompts)
    for one, other in ((found.fit.rewards, bank.fit.rewards), (found.worth.mean, bank.worth.mean), (found.at, bank.at)):
        assert torch.equal(one, other)
    assert load_bank(task, replace(PLAN, seed=1), path) is None
    strict = Helpfulness(task.plant, rubric="strict")
    strict.answer_tokens = 10
    assert load_bank(strict, PLAN, path) is None, "rewards are of one rubric"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ContrastError, match="damaged"):
        load_bank(task, PLAN, path)


def test_sampling_a_part_again_finds_the_same_and_finds_a_forgery(task: Helpfulness, bank: banking.Bank) -> None:
    again = sampled_again(task, bank, answers=4, beginnings=2)
    assert again.answers == 4 and again.beginnings == 2
    assert again.same >= 0.75 and again.reward == 0 and again.worth < 4
    forged = replace(bank, fit=replace(bank.fit, tokens=tuple((9, *row[1:]) for row in bank.fit.tokens)))
    assert sampled_again(task, forged, answers=4, beginnings=0).same == 0
    worse = replace(bank, fit=replace(bank.fit, rewards=bank.fit.rewards + 1))
    assert sampled_again(task, worse, answers=4, beginnings=0).reward == pytest.approx(1)


def test_states_of_a_bank_are_those_that_tokens_were_drawn_from(task: Helpfulness, bank: banking.Bank) -> None:
    found = bank.fit.trajectories(task.plant)
    assert found.lengths.tolist() == [len(row) for row in bank.fit.tokens]
    batch = found.take(torch.tensor([1]))
    ids = [*task.plant._ids([bank.fit.prompts[1]])[0], *bank.fit.tokens[1]]
    logits = task.plant.forward(task.plant._pad([ids]))[0, -len(bank.fit.tokens[1]) - 1 : -1]
    with torch.inference_mode():
        torch.testing.assert_close(task.plant.model.get_output_embeddings()(batch.states), logits, atol=1e-4, rtol=1e-4)


def test_replayed_refuses_what_does_not_fit(task: Helpfulness, bank: banking.Bank) -> None:
    from steerlib.errors import PlantError
    from steerlib.trajectories import replayed

    with pytest.raises(ContrastError, match="got 6 prompts and 1 answers"):
        replayed(task.plant, bank.fit.prompts, bank.fit.tokens[:1], [0.0])
    with pytest.raises(PlantError, match="got no token in answer 0"):
        replayed(task.plant, bank.fit.prompts[:1], [()], [0.0])
