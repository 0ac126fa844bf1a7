"""Rows by what answered, what validation chooses, and that a grid tests what was chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from steerlib.errors import MetricError
from steerlib.experiment import value_tables
from steerlib.experiment.cell_records import CellRecord, Metric
from steerlib.experiment.cells import Cell
from steerlib.experiment.grid import read_grid
from steerlib.experiment.value_tables import ROWS, chosen, goodness, misplaced, row_of, rows, swept
from steerlib.files import data_folder
from tests.experiment import toys

LAW = {"layer": -1, "point": "final_norm"}
SCORER, BELLMAN = {"name": "fudge", "n": 20}, {"name": "cd-q", "n": 20}


def cell(*, split: str = "test", **more: Any) -> Cell:
    raw = {"plant": "p", "task": "almanac-preferred", "kind": "sampled", "split": split, "limit": 3}
    return Cell.model_validate({**raw, **more})


def law(name: str, *, fit: dict[str, Any] | None = None, strength: float = 1.0, **options: Any) -> dict[str, Any]:
    return {"law": {"name": name, **LAW, "strength": strength, "options": options, "fit": fit or {}}}


def by(name: str, *, scorer: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return {"decoder": {"name": name, "options": options, **({"scorer": scorer} if scorer else {})}}


def record(made: Cell, level: float = 0.0, *, kl: float | None = None) -> CellRecord:
    """Three answers; the reward is the level, and diversity falls as it rises beyond 1."""
    metrics = {} if kl is None else {"kl": Metric(value=kl, low=0.0, high=9.0, n=3)}
    more = {
        "reward": (level, level + 1, level - 1), "diversity": (max(0.0, 1 - level),) * 3, "topic-agreement": (0.5,) * 3,
        "win-rate": (1.0, 0.0, 0.0), "win-rate-half": (1.0, 0.5, 0.0),
    }  # fmt: skip
    return toys.record(made, more=more, metrics=metrics)


EVERY: dict[str, dict[str, Any]] = {
    "unsteered": {}, "static-re": law("static-re"), "prompting": {"told": True}, "cd": by("cd"),
    "cd-prefix": by("cd-prefix", scorer=SCORER),
    "cd-prefix-prompting": {**by("cd-prefix", scorer=SCORER), "told": True},
    "cd-prompting": {**by("cd"), "told": True},
    "cd-prefix-cd-q": by("cd-prefix", scorer=BELLMAN),
    "cd-prefix-cd-q-prompting": {**by("cd-prefix", scorer=BELLMAN), "told": True},
    "re-control": law("re-control"), "re-control-prompting": {**law("re-control"), "told": True},
    "best-of-n": by("best-of-n", n=4), "shuffled-rewards": law("re-control", fit={"labels": "shuffled"}),
    "re-control-monte-carlo": law("re-control", target="monte-carlo"),
    "shuffled-rewards-monte-carlo": law("re-control", target="monte-carlo", fit={"labels": "shuffled"}),
    "random-direction": law("random-direction"),
}  # fmt: skip


def test_every_row_is_told_from_the_others():
    assert {name: row_of(cell(**what)) for name, what in EVERY.items()} == {name: name for name in ROWS}
    assert row_of(cell(**law("re-control", target="td0"))) == "re-control", "the paper's own target goes without saying"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (law("mean-act"), "has no row 'mean-act'"),
        (law("re-control", target="released"), "has no row 're-control-released'"),
        ({**EVERY["static-re"], "told": True}, "has no row 'static-re-prompting'"),
        ({**law("re-control"), **by("cd")}, "a law and a decoder at once"),
        (by("blockwise", scorer=BELLMAN), "has no row 'blockwise-cd-q'"),
    ],
)
def test_what_the_table_has_no_row_for_is_refused(what, message):
    with pytest.raises(MetricError, match=message):
        row_of(cell(**what))


def test_rows_have_one_column_of_answers_for_each_seed():
    records = [record(cell(seed=s, **what), level=s) for s in (1, 0) for what in (EVERY["best-of-n"], {})]
    records += [record(cell(split="validation"), 9.0), record(cell(task_options={"rubric": "strict"}), 9.0)]
    found = rows(records, {})
    assert list(found) == ["unsteered", "best-of-n"]
    base = found["unsteered"]
    assert base.scores["reward"].tolist() == [[0, 1, -1], [1, 2, 0]] and [c.seed for c in base.cells] == [0, 1]
    assert base.estimate("reward").value == 0.5 and np.isnan(base.kl)
    assert base.ties == pytest.approx(1 / 3)
    assert rows(records, {"rubric": "strict"})["unsteered"].scores["reward"][0, 0] == 9.0


def test_rows_that_do_not_belong_together_are_refused():
    two = [record(cell(**law("re-control", alpha=a)), kl=1.0) for a in (0.5, 1.0)]
    with pytest.raises(MetricError, match="row 're-control': got 2 settings and seeds .0, 0."):
        rows(two, {})
    with pytest.raises(MetricError, match="expected the same for all"):
        rows([record(cell(seed=0)), record(cell(seed=1, told=True))], {})
    bare = record(cell())
    with pytest.raises(MetricError, match="the record lacks diversity of an answer"):
        rows([bare.model_copy(update={"more": {**bare.more, "diversity": (0.5, None, 0.5)}})], {})


def validation() -> list[CellRecord]:
    """RE-Control is best at 1 (2.5 - 1 = 1.5), and beyond it loses diversity, of which there is none below 0."""
    found = [record(cell(split="validation", **law("re-control", alpha=a)), a, kl=a) for a in (0.25, 1.0)]
    found += [record(cell(split="validation", **law("static-re", strength=s)), s, kl=1.0) for s in (3.0, 2.0)]
    found += [record(cell(split="validation", **law("random-direction", strength=s)), kl=k)
              for s, k in ((1.0, 0.3), (2.0, 1.9), (3.0, 2.2))]  # fmt: skip
    found += [record(cell(split="validation", **by("cd", weight=w)), w) for w in (4.0, 0.0)]
    found += [record(cell(split="validation", **by("cd-prefix", scorer=SCORER, weight=w)), w) for w in (0.0, 4.0)]
    return found


def test_on_real_text_coherence_is_that_of_an_encoder():
    """The Almanac's topic agreement stands in for it in one and the same column."""
    plain = record(cell(), 0.5)
    more = {name: values for name, values in plain.more.items() if name != "topic-agreement"}
    real = plain.model_copy(update={"more": {**more, "coherence": (0.25, 0.5, 0.75)}})
    assert rows([real], {})["unsteered"].scores["topic-agreement"].tolist() == [[0.25, 0.5, 0.75]]
    assert goodness(real) == pytest.approx(0.5 + 0.5 + 0.5)
    with pytest.raises(MetricError, match="the record lacks topic-agreement of an answer"):
        rows([plain.model_copy(update={"more": more})], {})


def test_the_rule_adds_up_three_columns():
    assert goodness(record(cell(), 0.25)) == pytest.approx(0.25 + 0.75 + 0.5)
    assert goodness(record(cell(), 3.0)) == pytest.approx(3.0 + 0.0 + 0.5)


def test_validation_chooses_by_the_rule_and_the_random_push_by_what_it_spends():
    best = chosen(validation(), {})
    assert best["static-re"].cell.law.strength == 3.0
    assert best["cd"].cell.decoder.options["weight"] == best["cd-prefix"].cell.decoder.options["weight"] == 4.0
    spent = best["re-control"].metrics["kl"].value
    # The two are equally good by the rule (the sum is 1.5 for both): the first stands.
    assert spent == best["re-control"].cell.law.options["alpha"] == 0.25
    assert best["random-direction"].cell.law.strength == 1.0, "0.3 is nearest to 0.25"
    without = [r for r in validation() if row_of(r.cell) != "random-direction"]
    with pytest.raises(MetricError, match="random-direction: no record on validation"):
        chosen(without, {})
    still = [record(cell(split="validation", **law("random-direction", strength=0.0)), kl=0.0)]
    with pytest.raises(MetricError, match="does not move the plant"):
        chosen(without + still, {})
    assert len(swept(validation(), {}, "re-control")) == 2 and not swept(validation(), {"rubric": "strict"}, "cd")


def test_what_a_plant_has_no_row_for_is_not_chosen():
    """As CD of Falcon in the paper's table: neither tried on validation prompts nor tested."""
    tested = [record(cell(**what, seed=0), kl=1.0) for name, what in EVERY.items() if name != "cd"]
    tried = [r for r in validation() if row_of(r.cell) != "cd"]
    assert set(chosen(tried + tested, {})) == set(chosen(validation(), {})) - {"cd"}
    with pytest.raises(MetricError, match="cd: no record on validation"):
        chosen([*tried, *tested, record(cell(**by("cd"), seed=0))], {})
    bare = [r for r in tried if row_of(r.cell) != "random-direction"]
    some = [r for r in tested if row_of(r.cell) != "random-direction"]
    assert "random-direction" not in chosen(bare + some, {})


def test_a_row_that_is_tested_at_another_setting_is_named():
    tested = [
        record(cell(**law("re-control", alpha=0.25, fit={"seed": 3}, ), seed=0), kl=1.0),
        record(cell(**law("re-control", alpha=0.25, fit={"labels": "shuffled"}), seed=0), kl=1.0),
        record(cell(told=True, **law("re-control", alpha=0.5), seed=0), kl=1.0),
        record(cell(**by("cd", weight=0.0), seed=0)),
        record(cell(**by("cd-prefix", scorer={**SCORER, "seed": 2}, weight=4.0), seed=0)),
        record(cell(told=True, **by("cd", weight=4.0), seed=0)),
        record(cell(told=True, **by("cd-prefix", scorer={**BELLMAN, "seed": 2}, weight=0.0), seed=0)),
        record(cell(**by("best-of-n", n=4), seed=0)),
    ]  # fmt: skip
    assert misplaced(validation() + tested, {}) == ["cd", "re-control-prompting"]
    swept_too = [record(cell(split="validation", **by("cd-prefix", scorer=BELLMAN, weight=w)), w) for w in (0.0, 4.0)]
    assert misplaced(validation() + swept_too + tested, {})[2:] == ["cd-prefix-cd-q-prompting"]


def test_the_shipped_grid_has_every_row_under_every_seed():
    cells = [c for c in read_grid(data_folder() / "grids" / "re_control.yml") if c.split == "test"]
    sets = {str(c.task_options) for c in cells}
    for options in sets:
        mine = [c for c in cells if str(c.task_options) == options]
        seeds = {name: sorted(c.seed for c in mine if row_of(c) == name) for name in {row_of(c) for c in mine}}
        assert len(set(map(tuple, seeds.values()))) == 1 and len(seeds["unsteered"]) >= 3, seeds
        assert set(seeds) <= set(ROWS) and (options != "{}" or set(seeds) == set(ROWS))
        for c in mine:
            assert c.law is None or c.law.fit.seed == c.seed, "each seed has a value of its own"
            assert c.decoder is None or not c.decoder.scorer.trained or c.decoder.scorer.seed == c.seed
    assert value_tables.COLUMNS.keys() >= set(value_tables.RULE)


def of_grid(grid: str, options: dict[str, Any]) -> dict[tuple[str, int], list[Cell]]:
    """Test cells of a shipped grid on one data set, by row and seed."""
    found: dict[tuple[str, int], list[Cell]] = {}
    for c in read_grid(data_folder() / "grids" / f"{grid}.yml"):
        if c.split == "test" and c.task_options == options:
            found.setdefault((row_of(c), c.seed), []).append(c)
    return found


def test_what_meets_other_requests_is_what_was_fitted_for_the_first_set():
    """The requests change and nothing else: neither a law, nor what it is fitted on, nor the rubric that pays."""
    home, away = of_grid("re_control", {}), of_grid("re_control_further", {"held_out": True})
    assert {row for row, _ in away} >= {"unsteered", "re-control", "shuffled-rewards", "random-direction", "cd-prefix"}
    for (row, seed), (c,) in away.items():
        (same,) = home[row, seed]
        assert (c.plant, c.limit, c.told, c.decoder) == (same.plant, same.limit, same.told, same.decoder)
        if c.law is not None:
            assert c.fitted_for == ("almanac-preferred", {}) != (c.task, c.task_options)
            fit = c.law.fit.model_copy(update={"task": None})
            assert c.law.model_copy(update={"fit": fit}) == same.law


def test_more_of_a_method_is_more_of_its_row_in_the_table():
    """Of a row that is swept, the number is all that differs from what the table has."""
    home, more = of_grid("re_control", {}), of_grid("re_control_further", {})
    for row, name in (("best-of-n", "n"), ("re-control", "steps"), ("re-control-monte-carlo", "steps")):
        for seed in (0, 1, 2):
            (known,), numbers = home[row, seed], set()
            spec = known.decoder or known.law
            assert spec is not None
            for c in more[row, seed]:
                swept_ = c.decoder or c.law
                assert swept_ is not None
                numbers.add(swept_.options[name])
                options = {**swept_.options, name: spec.options[name]}
                assert swept_.model_copy(update={"options": options}) == spec
            assert len(numbers) == 2 and spec.options[name] not in numbers
