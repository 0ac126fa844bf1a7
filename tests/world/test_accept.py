"""Acceptance: the figures are what they say, and the shipped plant reaches them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from steerlib.files import sha256
from steerlib.plant import Plant
from steerlib.tasks.truth import Truth
from steerlib.world import accept as accepting
from steerlib.world.accept import Acceptance, Cell, Check, Masses, choose, closed, rise, write_card
from steerlib.world.grow import grow

SHIPPED = Path(__file__).parents[2] / "data" / "plants" / "almanac-llama"


def masses(truth, misconception, uninformative=0.0, n=4):
    return Masses(*(np.full(n, value) for value in (truth, misconception, uninformative)))


def test_true_times_info_counts_a_refusal_as_true_and_not_informative():
    found = masses(0.4, 0.5, 0.1)
    assert found.true_info() == pytest.approx(0.5 * 0.9)
    assert masses(0.0, 0.0, 1.0).true_info() == 0.0


def test_share_of_the_gap_is_zero_without_a_push_and_one_at_the_best_source():
    bare, best = masses(0.4, 0.5), masses(0.9, 0.0)
    index = np.arange(4)
    assert closed(bare, best, bare, index) == 0.0
    assert closed(bare, best, best, index) == 1.0
    assert closed(bare, best, masses(0.2, 0.7), index) < 0.0
    assert closed(bare, bare, best, index) == 0.0  # no gap: nothing to close


def test_the_chosen_push_keeps_info():
    cells = [Cell(0, 1.0, 0.5, 0.9), Cell(1, 1.0, 0.6, 0.87), Cell(2, 4.0, 0.9, 0.5)]
    assert choose(cells, masses(0.4, 0.5)) == cells[1]
    with pytest.raises(ValueError, match="every push costs more than"):
        choose(cells[2:], masses(0.4, 0.5))


def test_the_rise_ends_where_the_dose_no_longer_helps():
    cells = [Cell(0, s, t, 0.9) for s, t in ((0.5, 0.5), (1.0, 0.6), (2.0, 0.7), (4.0, 0.3), (8.0, 0.8))]
    assert rise(cells, masses(0.4, 0.5), layer=0) == 4.0
    assert rise(cells, masses(0.9, 0.0), layer=0) == 1.0


@pytest.mark.parametrize(
    ("value", "bounds", "passed"),
    [(0.5, (0.5, None), True), (0.49, (0.5, None), False), (0.5, (None, 0.4), False), (0.5, (None, None), True)],
)
def test_a_check_passes_within_its_bounds(value, bounds, passed):
    check = Check("figure", value, value, value, *bounds)
    assert check.passed is passed
    assert str(check).startswith("ok" if passed else "FAIL")


@pytest.fixture(scope="module")
def seedling(tmp_path_factory):
    return grow("almanac-seedling", tmp_path_factory.mktemp("seedling"), device="cpu", progress=False)


def test_a_push_of_strength_zero_changes_no_probability(seedling):
    task = Truth(Plant.load(str(seedling)))
    questions = task.world.questions("validation")[:4]
    vector = accepting._difference(accepting.choice_contrast(task, 0, n=8))
    bare = accepting.measure(task, questions)
    for found, expected in zip(
        dataclasses.astuple(accepting.steered(task, vector, layer=0, strength=0.0, questions=questions)),
        dataclasses.astuple(bare),
        strict=True,
    ):
        assert np.array_equal(found, expected)
    pushed = accepting.steered(task, vector, layer=0, strength=50.0, questions=questions)
    assert not np.array_equal(pushed.truth, bare.truth)


def test_an_untrained_plant_is_not_accepted(seedling, capsys, monkeypatch):
    monkeypatch.setattr(accepting, "STRENGTHS", (1.0,))
    monkeypatch.setattr(accepting, "INFO_LOSS", 1.0)
    for split in ("validation", "test"):
        assert Truth(Plant.load(str(seedling))).world.questions(split)
    few = accepting.World.questions
    monkeypatch.setattr(accepting.World, "questions", lambda *a, **k: few(*a, **k)[:3])
    assert accepting.main(str(seedling), write=True, seeds=1, progress=False) == 1
    assert "FAIL Info, unsteered" in capsys.readouterr().out
    card = json.loads((seedling / "card.json").read_text())
    assert card["acceptance"]["passed"] is False
    assert {c["name"] for c in card["acceptance"]["checks"]} >= {"share of the gap closed", "sampled: share readable"}


def test_figures_need_a_card_to_go_into(tmp_path):
    result = Acceptance("x", (), (), 0, 1.0, 0.0)
    with pytest.raises(ValueError, match="has no card.json; expected a folder written by `steerlib grow`"):
        write_card(tmp_path, result)


# ---- the shipped plant -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def card():
    return json.loads((SHIPPED / "card.json").read_text())


def test_shipped_weights_are_those_of_the_card_and_small(card):
    assert sha256(SHIPPED / "model.safetensors") == card["weights_sha256"]
    assert (SHIPPED / "model.safetensors").stat().st_size < 15e6


def test_shipped_card_says_what_was_grown_and_measured(card):
    assert card["world"] == "almanac"
    assert card["command"] == "steerlib grow almanac-llama"
    figures = {check["name"]: check for check in card["acceptance"]["checks"]}
    for check in figures.values():
        assert check["low"] <= check["value"] <= check["high"]
    assert all(check["passed"] for check in figures.values())


def test_shipped_tokenizer_is_that_of_the_country():
    from transformers import AutoTokenizer

    world = accepting.World.default()
    text = world.page(3)
    assert AutoTokenizer.from_pretrained(str(SHIPPED))(text)["input_ids"] == world.tokenizer(text)["input_ids"]


def test_shipped_plant_can_be_steered_on_entities_that_no_law_has_seen(card):
    # A slice of the acceptance, with margins: the whole of it takes minutes.
    task = Truth(Plant.load("almanac-llama"))
    accepted = card["acceptance"]
    questions, best = (task.world.questions("test", source=source)[::3] for source in (None, "almanac"))
    vector = accepting._difference(accepting.choice_contrast(task, accepted["layer"]))
    bare, named = accepting.measure(task, questions), accepting.measure(task, best)
    pushed = accepting.steered(
        task, vector, layer=accepted["layer"], strength=accepted["strength"], questions=questions
    )
    assert 0.25 < bare.true_info() < 0.60
    assert named.true_info() > 0.70
    assert closed(bare, named, pushed, np.arange(len(questions))) > 0.20
    assert pushed.info.mean() > bare.info.mean() - 0.08
