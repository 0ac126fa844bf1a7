"""Races on a course in closed form: who wins is known, choices are made on validation, and controls show nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from steerlib.errors import MetricError
from steerlib.experiment.calibrate import Status
from steerlib.experiment.cells import Cell, Fit, LawSpec
from steerlib.experiment.judge_spec import JudgeSpec
from steerlib.experiment.methods import Method, controls_of, seeded
from steerlib.experiment.races import Spending, horse_race, stored
from steerlib.experiment.selecting import RaceError, select_on_validation
from steerlib.experiment.store import Store
from tests.experiment.racetrack import Runner, method, spend
from tests.experiment.toys import record

COURSE = {"plant": "toy", "task": "truth"}


def race(methods=None, run=None, **more):
    methods = methods or [method(), *controls_of(method())]
    return horse_race(
        methods, **{**COURSE, "run": run or Runner(), "spend": spend(0.05), "seeds": (0, 1, 2), "keep": 0.85, **more}
    )


def row(table, name, setting, metric="combined", against=None):
    found = table[(table["method"] == name) & (table["setting"] == setting) & (table["metric"] == metric)]
    if against is not None:
        found = found[found["against"] == against]
    assert len(found) == 1
    return found.iloc[0]


# ---- choosing ------------------------------------------------------------------------------------


def candidate(wanted, intact, strength, *, split="validation", prompts=4):
    law = LawSpec(name="difference-of-means", layer=1, strength=strength)
    scores = {"wanted": (wanted,) * prompts, "intact": (intact,) * prompts}
    return (record(Cell(plant="p", task="truth", law=law, split=split), scores=scores),)


def test_the_best_that_leaves_the_rest_intact_is_chosen():
    candidates = [candidate(0.4, 0.9, 1), candidate(0.6, 0.85, 2), candidate(0.9, 0.5, 3)]
    assert select_on_validation(candidates, score="wanted").chosen == 2
    found = select_on_validation(candidates, score="wanted", floor=0.8)
    assert (found.chosen, found.score, found.message) == (1, pytest.approx(0.6), "")
    assert select_on_validation(candidates, score="intact").chosen == 0
    assert select_on_validation(candidates, score="combined").scores == pytest.approx((0.36, 0.51, 0.45))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_ties_go_to_the_gentler(order):
    candidates = [candidate(0.6, 0.9, 4), candidate(0.6004, 0.9, -8), candidate(0.6, 0.9, -2)]
    chosen = select_on_validation([candidates[i] for i in order], score="wanted").chosen
    assert order[chosen] == 2, "the sign of a multiplier is no gentleness"
    assert order[select_on_validation([candidates[i] for i in order], score="wanted", tie=0).chosen] == 1
    efforts = [{0: 1.0, 1: 5.0, 2: 5.0}[i] for i in order]
    assert order[select_on_validation([candidates[i] for i in order], score="wanted", efforts=efforts).chosen] == 0


def test_where_none_keeps_the_floor_it_is_said():
    found = select_on_validation([candidate(0.9, 0.5, 1), candidate(0.8, 0.6, 2)], floor=0.7)
    assert found.chosen is None and math.isnan(found.score)
    assert found.message == (
        "none of 2 candidates keeps the other score at 0.700 on validation prompts; the best keeps 0.600"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "got no candidate"),
        (([candidate(0.5, 0.9, 1), candidate(0.9, 0.9, 1, split="test")],), "was measured on test prompts"),
        (([candidate(0.5, 0.9, 1), candidate(0.9, 0.9, 1, prompts=5)],), r"got \(seeds, prompts\) of"),
        (([()],), "got no record"),
    ],
)
def test_choices_that_would_not_be_fair_are_refused(arguments, message):
    with pytest.raises(RaceError, match=message):
        select_on_validation(*arguments)
    with pytest.raises(RaceError, match="got score 'wnated'"):
        select_on_validation([candidate(0.5, 0.9, 1)], score="wnated")
    with pytest.raises(RaceError, match="got efforts"):
        select_on_validation([candidate(0.5, 0.9, 1)], efforts=[1.0, 2.0])


# ---- racing --------------------------------------------------------------------------------------


def test_the_table_holds_what_the_course_says():
    table = race().table()
    own = row(table, "push", "own")
    # Block 2 at strength 1: wanted 0.2 more, intact 0.1 less than 0.9; block 1 would break the floor.
    assert (own.layer, own.strength, own.chosen_from) == (2, 1.0, 6) and math.isnan(own.spent)
    bare = row(table, "unsteered", "none", "wanted")
    assert row(table, "push", "own", "wanted").difference == pytest.approx(0.2, abs=0.02)
    assert row(table, "push", "own", "intact").difference == pytest.approx(-0.1)
    expected = (bare.value + 0.2) * 0.8 - bare.value * 0.9
    assert own.difference == pytest.approx(expected, abs=0.02)
    assert own.difference_low < own.difference < own.difference_high and own.p < 0.01
    assert own.prompts == 40 and own.seeds == 3 and own.low < own.value < own.high


def test_at_equal_budget_all_spend_the_same():
    table = race().table()
    at_budget = table[table["setting"] == "budget"]
    assert set(at_budget["method"]) == {"push", "push: random direction", "push: shuffled labels"}
    assert at_budget["spent"].to_numpy() == pytest.approx(0.05, rel=0.03)
    push = row(table, "push", "budget")
    assert push.layer == 2 and push.strength == pytest.approx(math.sqrt(0.5), rel=0.02)
    assert row(table, "push", "budget", "intact").difference == pytest.approx(-0.05, rel=0.03)
    assert push.chosen_from == 3, "one candidate for each block: the multiplier is not free"


def test_equal_strength_and_equal_budget_can_disagree():
    """Block 1 beats block 3 at equal strength and loses at equal budget, where its push must be gentler."""
    methods = [method("dear", (1,), (0.5,)), method("cheap", (3,), (0.5,)), controls_of(method())[0]]
    table = race(methods, keep=0.0, score="wanted").table()
    wanted = {(m, s): row(table, m, s, "wanted").value for m in ("dear", "cheap") for s in ("own", "budget")}
    assert wanted["dear", "own"] > wanted["cheap", "own"] + 0.01
    dear, cheap = (row(table, m, "budget") for m in ("dear", "cheap"))
    assert cheap.strength == pytest.approx(math.sqrt(10) * dear.strength, rel=0.05)


def test_controls_show_nothing_and_are_not_counted_as_findings():
    table = race().table()
    for name in ("push: random direction", "push: shuffled labels"):
        for setting in ("own", "budget"):
            found = row(table, name, setting, "wanted")
            assert found.control and abs(found.difference) < 0.03 and math.isnan(found.p_holm)
    two = [method("push"), method("weak", (3,), (0.5,)), *controls_of(method())]
    table = race(two).table()
    ps = sorted([row(table, n, "own", "wanted").p for n in ("push", "weak")])
    adjusted = sorted([row(table, n, "own", "wanted").p_holm for n in ("push", "weak")])
    assert adjusted == pytest.approx([2 * ps[0], max(2 * ps[0], ps[1])])


def test_nothing_is_measured_on_test_prompts_before_the_choice():
    run = Runner()
    found = race(run=run)
    splits = [{cell.split for cell in batch} for batch in run.batches]
    assert splits == [{"validation"}, {"validation"}, {"test"}]
    assert len(run.batches[-1]) == 1 + 3 * 3 * 2, "one candidate of each entry, and the unsteered plant"
    cells = [cell for batch in run.batches for cell in batch]
    assert len(set(cells)) == len(cells), "nothing is measured twice"
    again = Runner()
    race(run=again)
    assert again.batches == run.batches
    assert {r.cell.split for entry in found.entries for r in entry.records} == {"test"}


def test_seeds_move_the_fit_and_the_draw():
    push = LawSpec(name="difference-of-means", layer=1, fit=Fit(seed=10))
    random = LawSpec(name="random-direction", layer=1, options={"seed": 5})
    assert seeded(push, 2).fit.seed == 12 and seeded(push, 2).options == {}
    assert seeded(random, 2).options == {"seed": 7} and seeded(random, 2).fit.seed == 2
    found = race(kind="sampled", seeds=(3, 4))
    (push_entry,) = [e for e in found.entries if e.name == "push" and e.setting == "own"]
    assert [(r.cell.seed, r.cell.law.fit.seed) for r in push_entry.records] == [(3, 3), (4, 4)]
    assert [r.cell.seed for r in found.entries[0].records] == [3, 4]


def test_every_cell_is_judged_by_the_same():
    run, judges = Runner(), {"judge": JudgeSpec(kind="reward", model="owner/judge")}
    race(run=run, kind="sampled", judges=judges)
    cells = [cell for batch in run.batches for cell in batch]
    assert {cell.split for cell in cells} == {"validation", "test"} and all(cell.judges == judges for cell in cells)


def test_opponents_are_met_at_the_same_setting():
    methods = [method("push"), method("weak", (3,), (0.5, 1.0)), *controls_of(method())]
    found = race(methods, against=("unsteered", "told", "weak"), told=True)
    table = found.table()
    for setting in ("own", "budget"):
        push, weak = (row(table, n, setting, "wanted", "unsteered") for n in ("push", "weak"))
        assert row(table, "push", setting, "wanted", "weak").difference == pytest.approx(
            push.difference - weak.difference
        )
    assert row(table, "push", "own", "wanted", "told").difference < 0
    assert "weak" not in set(table[table["method"] == "weak"]["against"])
    assert set(table[table["setting"] == "none"]["against"]) == {""}


def test_what_cannot_run_stands_in_the_table_with_the_reason():
    def saturated(cell):
        done = spend(0.05)(cell)
        return done if cell.law.name != "random-direction" else spend(1e9)(cell)

    table = race(spend=saturated).table()
    lost = row(table, "push: random direction", "budget")
    assert math.isnan(lost.value) and math.isnan(lost.p) and Status.TOO_FEW.value in lost.note and lost.prompts == 0
    table = race(keep=1.0).table()
    assert "keeps the other score at 0.900" in row(table, "push", "own").note
    at_budget = row(table, "push", "budget")
    assert not at_budget.note and math.isfinite(at_budget.value), "at equal budget nothing has to be kept"
    assert len(table[table["method"] == "unsteered"]) == 3


def test_a_candidate_that_misses_the_budget_under_one_seed_is_no_candidate():
    def fickle(cell):
        return spend(1e9 if cell.law.layer == 2 and cell.law.fit.seed == 1 else 0.05)(cell)

    found = row(race(spend=fickle).table(), "push", "budget")
    assert found.layer != 2 and found.chosen_from == 2


def test_what_is_chosen_on_some_seeds_runs_the_test_under_all():
    run, asked = Runner(), []

    def noted(cell):
        asked.append((cell.law.layer, cell.law.fit.seed, cell.law.strength))
        return spend(0.05)(cell)

    table = race(run=run, spend=noted, choose_on=(1,)).table()
    cells = [cell for batch in run.batches for cell in batch if cell.law is not None]
    assert {cell.law.fit.seed for cell in cells if cell.split == "validation"} == {1}
    assert {cell.law.fit.seed for cell in cells if cell.split == "test"} == {0, 1, 2}
    found = row(table, "push", "budget")
    assert found.layer == 2 and found.seeds == 3 and found.chosen_from == 3 and found.spent == pytest.approx(0.05, 0.02)
    first = [one for one in asked if one[1] == 1]
    later = [one for one in asked if one[1] != 1]
    assert [layer for layer, *_ in first] == [1, 2, 3] * 3, "every place under the seed that is chosen on"
    assert len(later) == 3 * 2, "the others for the place that was chosen"
    assert {strength for *_, strength in first} == {0.5}, "the gentlest multiplier of the own setting"
    assert all(strength != 0.5 for *_, strength in later), "they begin where the first search ended"


def test_a_choice_that_misses_the_budget_under_a_later_seed_gives_way_to_the_next_best():
    def fickle(cell):
        return spend(1e9 if cell.law.layer == 2 and cell.law.fit.seed == 1 else 0.05)(cell)

    found = row(race(spend=fickle, choose_on=(0,)).table(), "push", "budget")
    assert found.layer not in (None, 2) and found.chosen_from == 2 and found.seeds == 3

    def never(cell):
        return spend(1e9 if cell.law.fit.seed == 1 else 0.05)(cell)

    lost = row(race(spend=never, choose_on=(0,)).table(), "push", "budget")
    assert lost.prompts == 0 and Status.TOO_FEW.value in lost.note


def test_calibrations_stand_in_the_order_of_the_seeds():
    made = race(seeds=(0, 1, 2), choose_on=(2,))
    (entry,) = [e for e in made.entries if (e.name, e.setting) == ("push", "budget")]
    assert [record.cell.law.fit.seed for record in entry.records] == [0, 1, 2]
    assert [c.strength for c in entry.calibrations] == [record.cell.law.strength for record in entry.records]


def test_choosing_may_be_exact_where_the_test_is_sampled():
    run, judges = Runner(), {"judge": JudgeSpec(kind="reward", model="owner/judge")}
    race(run=run, kind="sampled", validation_kind="exact", judges=judges)
    cells = [cell for batch in run.batches for cell in batch]
    for cell in cells:
        assert (cell.kind, bool(cell.judges)) == (("exact", False) if cell.split == "validation" else ("sampled", True))
    assert {cell.split for cell in cells} == {"validation", "test"}


def test_without_a_budget_only_the_own_settings_run():
    assert set(race(spend=None).table()["setting"]) == {"none", "own"}


def test_without_own_settings_only_the_budget_runs_and_gives_what_it_gives_beside_them():
    run = Runner()
    alone = race(own=False, run=run).table()
    assert set(alone["setting"]) == {"none", "budget"}
    both = race().table()
    assert alone.equals(both[both["setting"] != "own"].reset_index(drop=True))
    strengths = {cell.law.strength for batch in run.batches for cell in batch if cell.law}
    assert not strengths & {0.5, 1.0}, "no cell of an own setting is measured"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": list(controls_of(method()))}, "got no method"),
        ({"methods": [method()]}, "got no negative control. Fix: add those of controls_of"),
        ({"methods": [method(), method(), *controls_of(method())]}, "expected each once"),
        ({"seeds": (0, 0)}, "expected each once"),
        ({"seeds": ()}, "expected each once"),
        ({"against": ("pull",)}, "cannot compare with 'pull'; known are unsteered, push"),
        ({"against": ("told",)}, "cannot compare with 'told'"),
        ({"keep": 1.5}, "expected shares"),
        ({"own": False, "spend": None}, "so no setting"),
        ({"run": lambda _: []}, "the runner gave 0 records for 1 cells"),
    ],
)
def test_races_that_would_show_nothing_are_refused(change, message):
    with pytest.raises(RaceError, match=message):
        race(**change)


def test_a_method_has_a_name_of_its_own_and_a_law():
    with pytest.raises(ValidationError, match="that of a baseline"):
        Method(name="told", laws=method().laws)
    with pytest.raises(ValidationError):
        Method(name="empty", laws=())


# ---- on a plant ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seedling(tmp_path_factory):
    from steerlib.world.grow import grow

    return grow("almanac-seedling", tmp_path_factory.mktemp("seedling"), device="cpu", progress=False)


def test_a_race_on_a_plant_is_kept_by_the_store(seedling, tmp_path):
    push = method("push", (0, 1), (2.0,))
    store = Store(tmp_path / "store")
    options = {"plant": str(seedling), "task": "truth", "limit": 6, "validation_limit": 5, "keep": 0.0}
    spending = Spending(0.02, limit=3, max_new_tokens=4, tolerance=0.1, store=store)

    def go():
        methods = [push, controls_of(push)[0]]
        return horse_race(methods, run=stored(store), spend=spending, **options).table()

    first, kept = go(), store.keys()
    entries = first[(first["metric"] == "combined") & (first["setting"] != "none")]
    assert len(entries) == 4 and entries["chosen_from"].between(1, 2).all() and (entries["prompts"] == 6).all()
    assert len(kept) == 1 + entries["chosen_from"].sum() + 1 + 4, "validation of all, test of the chosen"
    again = go()
    assert store.keys() == kept, "what was measured is not measured again"
    assert first.equals(again)
    spent = first[first["setting"] == "budget"]["spent"]
    assert np.asarray(spent) == pytest.approx(0.02, rel=0.11)
    with pytest.raises(RaceError, match="1 of 1 cells cannot be computed:\n.*does not take the options"):
        stored(store)([Cell(plant=str(seedling), task="truth", task_options={"colour": 1})])


@pytest.mark.parametrize(("measure", "reader"), [("perplexity", None), ("kl", "almanac-llama")])
def test_a_reader_belongs_to_perplexity(measure, reader):
    with pytest.raises(RaceError, match=f"got measure='{measure}' and reader="):
        Spending(0.1, measure=measure, reader=reader)


def test_a_perplexity_budget_is_read_by_the_plant_of_that_name(seedling):
    law = method("push", (1,), (2.0,)).laws[0]
    cell = Cell(plant=str(seedling), task="truth", law=law, split="validation")
    found = Spending(0.5, measure="perplexity", reader="almanac-llama-tiny", limit=3, max_new_tokens=4, most=2)(cell)
    assert len(found.tried) in (1, 2)
    with pytest.raises(MetricError, match="has the weights of the steered plant"):
        Spending(0.5, measure="perplexity", reader=str(seedling), limit=3, max_new_tokens=4)(cell)


def test_a_race_that_was_killed_does_not_search_again(seedling, tmp_path, monkeypatch):
    law = method("push", (1,), (2.0,)).laws[0]
    cell = Cell(plant=str(seedling), task="truth", law=law, split="validation")
    options = {"limit": 3, "max_new_tokens": 4, "tolerance": 0.1, "store": Store(tmp_path)}
    found = Spending(0.02, **options)(cell)
    assert found.reached and found.strength == float(f"{found.strength:.3g}")
    assert (found.strength, found.cost) in found.tried

    def searched(*_args, **_options):
        raise AssertionError("searched again")

    monkeypatch.setattr("steerlib.experiment.runners.cost_of", searched)
    assert Spending(0.02, **options)(cell) == found
    for other in ({"seed": 1}, {"limit": 2}, {"measure": "energy"}, {"most": 9}):
        with pytest.raises(AssertionError, match="searched again"):
            Spending(0.02, **{**options, **other})(cell)
