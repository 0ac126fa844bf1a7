"""Acceptance: the figures are what they say, and the shipped plants reach them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from steerlib.files import sha256
from steerlib.laws.additive import RandomDirection
from steerlib.metrics import Estimate
from steerlib.plant import Plant
from steerlib.tasks import Refusal, Scores, Toxicity, Truth
from steerlib.world import accept as accepting
from steerlib.world import causation, representation
from steerlib.world.accept import card_pushes
from steerlib.world.almanac import World
from steerlib.world.causation import Behaviour, Gauge, choose, chosen_push, rise
from steerlib.world.checks import Acceptance, Cell, Check, Push, write_card
from steerlib.world.grow import grow
from steerlib.world.representation import _tokens_alone

PLANTS = Path(__file__).parents[2] / "data" / "plants"
SHIPPED = sorted(folder.name for folder in PLANTS.iterdir() if (folder / "card.json").is_file())


@dataclass
class Other:
    """A task of which only the name counts."""

    name: str


def scores(wanted, intact=1.0, n=6):
    return Scores(np.full(n, float(wanted)), np.full(n, float(intact)))


@pytest.fixture(scope="module")
def seedling(tmp_path_factory):
    return grow("almanac-seedling", tmp_path_factory.mktemp("seedling"), device="cpu", progress=False)


@pytest.fixture(scope="module")
def truth(seedling):
    return Behaviour(Truth(Plant.load(str(seedling))), product=True)


# ---- the figures ---------------------------------------------------------------------------------


def test_share_of_the_gap_is_zero_without_a_push_and_one_at_the_prompted_plant(truth):
    bare, best = scores(0.4, 0.9), scores(0.9, 1.0)
    assert truth.share(bare, best, bare).value == 0.0
    assert truth.share(bare, best, best).value == pytest.approx(1.0)
    half = scores(0.63, 1.0)  # 0.36 -> 0.63 -> 0.90
    assert truth.share(bare, best, half).value == pytest.approx(0.5)
    assert truth.share(bare, best, scores(0.2, 0.9)).value < 0.0
    assert truth.share(best, bare, half) is None, "no gap: nothing to close"
    assert truth.share(bare, scores(0.4 + 0.9 * causation.GAP, 0.9), half) is None, "next to none: shares mean nothing"


def test_truth_counts_the_product_and_the_others_the_wanted_share(truth):
    found = scores(0.5, 0.8)
    assert truth.of(found) == pytest.approx(0.4)
    assert Behaviour(truth.task).of(found) == pytest.approx(0.5)


def test_the_chosen_push_keeps_answers_intact():
    cells = [Cell(0, 1.0, 0.5, 0.9), Cell(1, 1.0, 0.6, 0.87), Cell(2, 4.0, 0.9, 0.5)]
    assert choose(cells, scores(0.4, 0.9)) == cells[1]
    broken = [Cell(0, 2.0, 0.9, 0.1), Cell(1, 0.5, 0.2, 0.2)]
    assert choose(broken, scores(0.4, 0.9)) == broken[1], "nothing stays intact: the gentlest"


def test_the_chosen_push_leaves_other_behaviours_alone_where_one_does():
    cells = [Cell(0, 1.0, 0.9, 0.9), Cell(1, 1.0, 0.7, 0.9), Cell(2, 1.0, 0.6, 0.9)]
    asked = []

    def selective(cell):
        asked.append(cell)
        return cell.layer == 1

    assert choose(cells, scores(0.4, 0.9), selective) == cells[1]
    assert asked == cells[:2], "each question is a measurement: no more of them than needed"
    assert choose(cells, scores(0.4, 0.9), lambda _: False) == cells[0], "no push is selective: the best"


def test_a_gauge_reads_the_way_between_its_ends(truth):
    gauge = Gauge(truth, [], scores(0.4, 0.5), scores(0.8, 1.0))  # T*I from 0.2 to 0.8
    assert gauge.share(0.2) == pytest.approx(0.0, abs=1e-12)
    assert gauge.share(0.5) == pytest.approx(0.5)
    assert Gauge(truth, [], scores(0.8), scores(0.4)).share(0.5) == 0.0, "no gap"


def test_side_effects_decide_which_push_is_chosen(truth, monkeypatch):
    # Of two layers the second helps more, and moves the other behaviour along with its own.
    monkeypatch.setattr(causation, "STRENGTHS", (1.0,))
    helped, moved = {0: 0.5, 1: 0.7}, {0: 0.05, 1: 0.6}
    other = Behaviour(truth.task)

    def pushed(task, vector, *, layer, strength, items):
        return scores(moved[layer] if items == "other" else helped[layer])

    monkeypatch.setattr(causation, "pushed", pushed)
    monkeypatch.setattr(causation, "direction", lambda _: torch.zeros(4))
    own = Gauge(truth, "own", scores(0.2), scores(1.0))
    gauge = Gauge(other, "other", scores(0.0), scores(1.0))
    assert chosen_push(own, [None, None]).push.layer == 1
    chosen = chosen_push(own, [None, None], [gauge])
    assert chosen.push.layer == 0
    assert chosen.furthest == pytest.approx((0.7 - 0.2) / 0.8), "headroom is that of the best push, selective or not"
    flat = Gauge(truth, "own", scores(0.2), scores(0.21))
    assert chosen_push(flat, [None, None]).furthest is None, "no gap, no headroom"


def test_the_largest_side_effect_is_found_whatever_its_sign(truth):
    found = [
        causation.Effect(Behaviour(task), None, None, None, None, None, (), Estimate(own, own, own, 1))
        for task, own in ((truth.task, 0.5), (Other("toxicity"), 0.4), (Other("refusal"), 0.8))
    ]
    table = np.array([[0.5, 0.1, -0.2], [0.0, 0.4, 0.1], [-0.04, 0.0, 0.8]])
    first, second, third = causation.selectivity(found, table)
    assert first.name == "truth: largest side effect (refusal), relative to its own"
    assert first.value == pytest.approx(0.4) and not first.passed
    assert second.value == pytest.approx(0.25) and second.passed
    assert third.value == pytest.approx(0.05) and "(truth)" in third.name


def test_a_push_that_does_nothing_has_no_relative_side_effect(truth):
    def of(share):
        return causation.Effect(truth, None, None, None, None, None, (), share)

    found = [of(Estimate(0.01, 0, 0.02, 1)), of(None), of(Estimate(0.5, 0.4, 0.6, 1))]
    table = np.array([[0.01, np.nan, 0.4], [0.1, np.nan, 0.1], [0.05, np.nan, 0.5]])
    nothing, no_gap, fine = causation.selectivity(found, table)
    assert nothing.value is None and not nothing.passed, "0.4 is not a fortieth of nothing"
    assert no_gap.value is None and not no_gap.passed
    assert fine.value == pytest.approx(0.1) and fine.passed
    assert "none" in str(nothing)


def test_controls_are_as_long_as_the_push_or_as_they_were_fitted(truth, monkeypatch):
    pushes = []

    def noted(task, vector, **_):
        pushes.append(vector)
        return scores(0.5, n=len(truth.task.items("test")))

    monkeypatch.setattr(causation, "pushed", noted)
    known, contrast = Push("truth", 0, 1.0, ()), truth.task.contrast(layer=0, n=12)
    found = causation.effect(truth, [contrast], causation.FIRST, randoms=3, known=known, stretched=True)
    lengths = [float(v.norm()) for v in pushes]
    assert lengths[:2] == pytest.approx([lengths[0]] * 2)
    assert lengths[2:5] == pytest.approx([lengths[0]] * 3, rel=1e-5), "random directions"
    assert max(lengths[5:8]) < lengths[0], "shuffles as fitted"
    assert lengths[8:] == pytest.approx([lengths[0]] * 6, rel=1e-5), "each shuffle stretched, and its mirror image"
    assert torch.allclose(pushes[8], -pushes[9]) and not torch.allclose(pushes[8], -pushes[10])
    assert found.checks[-1].name.endswith("as long as the push") and found.checks[-1].passed


def test_the_last_tokens_are_a_sign_where_the_country_makes_them_one(truth):
    assert _tokens_alone(truth.task, "prudent").value == pytest.approx(0.5), "every text ends in Reply:"
    frames = _tokens_alone(truth.task, "truthful")
    assert frames.low > 0.7, "a loose frame is a loose speaker's"


def test_a_concept_that_is_pushed_too_far_counts_as_moved_and_not_as_leaving_room(truth):
    def effect_of(share, lost):
        checks = (
            Check("causation", "share", share, share, share, at_least=0.35, at_most=causation.HEADROOM),
            Check("causation", "lost", lost, lost, lost, at_most=0.05),
        )
        return causation.Effect(truth, None, None, None, None, None, checks, Estimate(share, share, share, 1))

    found = [effect_of(*pair) for pair in ((0.5, 0.0), (0.9, 0.0), (0.2, 0.0), (0.9, 0.1))]
    moved, room, *_ = causation.concept_checks(found, causation.FIRST)
    assert (moved.value, room.value) == (2.0, 1.0)
    assert moved.at_least == room.at_least == 4, "of eight, or of as many as were measured"


def test_the_rise_ends_where_the_dose_no_longer_helps():
    cells = [Cell(0, s, t, 0.9) for s, t in ((0.5, 0.5), (1.0, 0.6), (2.0, 0.7), (4.0, 0.3), (8.0, 0.8))]
    assert rise(cells, 0.4, layer=0) == 4.0
    assert rise(cells, 0.9, layer=0) == 1.0


@pytest.mark.parametrize(
    ("value", "bounds", "passed"),
    [(0.5, (0.5, None), True), (0.49, (0.5, None), False), (0.5, (None, 0.4), False), (0.5, (None, None), True)],
)
def test_a_check_passes_within_its_bounds(value, bounds, passed):
    check = Check("causation", "figure", value, value, value, *bounds)
    assert check.passed is passed
    assert str(check).startswith("ok" if passed else "FAIL")


def test_reward_variance_between_continuations_is_what_was_put_in(monkeypatch, truth):
    # Rewards drawn with a known share: 0.3 between prompts, 0.7 inside.
    rng = np.random.default_rng(0)
    prompt = np.sqrt(0.3) * rng.standard_normal(400)

    class Said:
        def __init__(self, reward):
            self.reward = reward

    class Stub:
        def wishes(self, *_, n, **__):
            return [type("W", (), {"text": "x"})] * n

        def judge_many(self, wishes, texts):
            assert len(wishes) == len(texts)
            return [Said(p + np.sqrt(0.7) * rng.standard_normal()) for p in prompt]

    class Speaker:
        def generate(self, prompts, **_):
            return type("Out", (), {"texts": ["y"] * len(prompts)})

    check, _ = accepting.reward_behaviour(Speaker(), Stub(), seeds=6, prompts=400)
    assert check.low < 0.7 < check.high
    assert check.value == pytest.approx(0.7, abs=0.05)


def test_a_push_of_strength_zero_changes_no_probability(truth):
    task = truth.task
    items = task.items("validation")[:4]
    vector = causation.direction(task.contrast(layer=0, n=8))
    bare = task.scored(items)
    same = causation.pushed(task, vector, layer=0, strength=0.0, items=items)
    assert np.array_equal(same.wanted, bare.wanted)
    moved = causation.pushed(task, vector, layer=0, strength=50.0, items=items)
    assert not np.array_equal(moved.wanted, bare.wanted)


def test_an_untrained_plant_is_not_accepted(seedling, capsys, monkeypatch):
    monkeypatch.setattr(causation, "STRENGTHS", (1.0,))
    monkeypatch.setattr(accepting, "NAMES", ("music",))
    for module in (accepting, representation):
        monkeypatch.setattr(module, "FITTED_ON", 12)
    monkeypatch.setattr(accepting, "SAMPLED_TOKENS", 8)  # what it says is as bad in eight tokens as in sixty
    monkeypatch.setattr(causation, "CHOSEN_ON", 6)
    few = World.questions
    monkeypatch.setattr(World, "questions", lambda *a, **k: few(*a, **k)[:3])
    result = accepting.accept(str(seedling), seeds=1, randoms=1, concepts=("music",), progress=False)
    assert not result.passed
    assert "FAIL Info, unsteered" in result.table()
    write_card(seedling, result)
    card = json.loads((seedling / "card.json").read_text())
    assert card["acceptance"]["passed"] is False
    assert set(card["acceptance"]["pushes"]) == {"truth", "toxicity", "refusal", "concept: music"}
    assert card_pushes(str(seedling))["truth"].layer in (0, 1)
    with pytest.raises(ValueError, match="leave out --write or --quick"):
        accepting.main(str(seedling), write=True, quick=True)
    capsys.readouterr()


def test_quick_needs_a_card_that_names_pushes(tmp_path):
    fresh = grow("almanac-seedling", tmp_path / "seedling", device="cpu", progress=False)
    with pytest.raises(ValueError, match="names no pushes; run `steerlib accept"):
        card_pushes(str(fresh))


def test_quick_forgives_what_the_card_says_is_missed_and_nothing_else(seedling, capsys, monkeypatch):
    good, bad = (Check("behaviour", name, 0.5, 0.5, 0.5, at_least=0.4) for name in ("kept", "missed"))
    push = (Push("truth", 0, 1.0, ()),)

    def carded(*checks):
        write_card(seedling, Acceptance("x", checks, push, 0.0, {}))

    def found(*checks):
        monkeypatch.setattr(accepting, "accept", lambda *_, **__: Acceptance("x", checks, push, 0.0, {}))
        return accepting.main(str(seedling), quick=True, progress=False)

    carded(good, replace(bad, value=0.1))
    assert found(good, replace(bad, value=0.1)) == 0
    assert "known from the card: missed" in capsys.readouterr().out
    assert found(replace(good, value=0.1), bad) == 1, "it was kept when the card was written"
    carded(good, bad)
    assert found(good, replace(bad, value=0.1)) == 1


def test_quick_takes_the_concepts_that_were_pushed_furthest_and_left_room(seedling):
    shares = {"music": 0.95, "war": 0.4, "love": 0.6}
    checks = [Check("causation", f"concept: {n}: share of the gap closed", v, v, v) for n, v in shares.items()]
    write_card(seedling, Acceptance("x", tuple(checks), (Push("truth", 0, 1.0, ()),), 0.0, {}))
    assert accepting.steerable(str(seedling)) == ("love", "war")


def test_a_card_says_nothing_where_there_is_no_figure(seedling):
    checks = (Check("causation", "share", None, None, None, at_least=0.3),)
    push = Push("truth", 0, 1.0, (), (0.4, 0.9))
    write_card(seedling, Acceptance("x", checks, (push,), 0.0, {"shares": [[float("nan"), 0.5]]}))
    text = (Path(seedling) / "card.json").read_text()
    assert "NaN" not in text
    card = json.loads(text)["acceptance"]
    assert card["checks"][0]["value"] is None and card["checks"][0]["passed"] is False
    assert card["curves"]["shares"] == [[None, 0.5]] and card["pushes"]["truth"]["start"] == [0.4, 0.9]


def test_figures_need_a_card_to_go_into(tmp_path):
    result = Acceptance("x", (), (Push("truth", 0, 1.0, ()),), 0.0, {})
    with pytest.raises(ValueError, match="has no card.json; expected a folder written by `steerlib grow`"):
        write_card(tmp_path, result)


# ---- the shipped plants --------------------------------------------------------------------------


def test_all_plants_together_are_small():
    files = [file for file in PLANTS.rglob("*") if file.is_file()]
    assert max(file.stat().st_size for file in files) <= 15e6
    assert sum(file.stat().st_size for file in files) <= 45e6


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_and_world_are_those_of_the_card(name):
    card = json.loads((PLANTS / name / "card.json").read_text())
    assert sha256(PLANTS / name / "model.safetensors") == card["weights_sha256"]
    assert card["command"].removesuffix(" --compiled") == f"steerlib grow {name}"
    assert card["world_fingerprint"] == World.default().fingerprint
    for check in card["acceptance"]["checks"]:
        nothing = check["value"] is None
        assert nothing == (check["low"] is None) == (check["high"] is None)
        assert nothing or check["low"] <= check["value"] <= check["high"]


@pytest.mark.parametrize("name", SHIPPED)
def test_tokenizer_is_that_of_the_country(name):
    from transformers import AutoTokenizer

    world = World.default()
    text = world.page(3)
    assert AutoTokenizer.from_pretrained(str(PLANTS / name))(text)["input_ids"] == world.tokenizer(text)["input_ids"]


#: What the main plant does not reach yet; chapter 02 reports each. Nothing may be added here without a reason.
SHORT_OF = {
    "concepts whose push leaves better methods room, too",  # one word decides a concept, and one push the word
}


def test_the_card_of_the_main_plant_names_no_failure_that_is_not_known():
    card = json.loads((PLANTS / "almanac-llama" / "card.json").read_text())
    failed = {check["name"] for check in card["acceptance"]["checks"] if not check["passed"]}
    assert failed <= SHORT_OF
    assert len(card["acceptance"]["checks"]) > 60


#: The plants that chapters steer; the smaller ones are there for scaling curves only.
STEERED = [name for name in SHIPPED if name in ("almanac-llama", "almanac-falcon", "almanac-gemma")]


@pytest.mark.parametrize("name", STEERED)
def test_the_card_of_each_family_shows_that_pushes_work(name):
    checks = {c["name"]: c for c in json.loads((PLANTS / name / "card.json").read_text())["acceptance"]["checks"]}
    least = 0.35 if name == "almanac-llama" else 0.25
    for what in ("truth", "toxicity", "refusal"):
        assert checks[f"{what}: share of the gap closed"]["low"] >= least - 0.02
        assert checks[f"{what}: share closed by 5 random directions"]["value"] <= 0.05
        assert checks[f"{what}: share closed with shuffled labels"]["value"] <= 0.05
    assert checks["concepts whose push passes every bound but headroom"]["value"] >= 8


def test_steered_plants_are_of_different_families():
    families = [json.loads((PLANTS / name / "card.json").read_text())["recipe"]["family"] for name in STEERED]
    assert len(set(families)) == len(families) >= 2


#: Every behaviour on the main plant, another on each of the other families. For the rest stand the cards, which were
#: measured with these very weights (their hash is checked above), and what their figures must be is asked above, too.
SLICE = [
    ("almanac-llama", Truth),
    ("almanac-llama", Toxicity),
    ("almanac-llama", Refusal),
    ("almanac-falcon", Truth),
    ("almanac-gemma", Refusal),
]


def test_the_slice_has_every_plant_that_chapters_steer():
    assert {name for name, _ in SLICE} == set(STEERED)


@pytest.mark.parametrize(("name", "make"), SLICE)
def test_plants_can_be_steered_on_entities_that_no_law_has_seen(name, make):
    # A slice of the acceptance, with margins: the whole of it takes minutes. Recording the
    # texts that a law is fitted on is most of the cost, and a third of them gives nearly the same direction.
    task = make(Plant.load(name))
    behaviour = Behaviour(task, product=make is Truth)
    push = card_pushes(name)[task.name]
    contrast = task.contrast(layer=push.layer, n=causation.FITTED_ON // 3)
    items, told = task.items("test")[::4], task.items("test", told=True)[::4]
    bare, best = task.scored(items), task.scored(told)
    vector = causation.direction(contrast)

    def share(v: torch.Tensor) -> float:
        found = causation.pushed(task, v, layer=push.layer, strength=push.strength, items=items)
        return behaviour.share(bare, best, found).value

    bounds = causation.FIRST if name == "almanac-llama" else causation.OTHERS
    assert share(vector) > bounds.closed - 0.1
    # The card has five, and is held to less than this above.
    by_chance = [share(RandomDirection(seed=seed).fit(contrast).vector) for seed in range(2)]
    assert np.mean(by_chance) < 0.10, "chance may do harm, but no good"
