"""Tables of a push grid: the right cell in each column, rewards paired request by request."""

from __future__ import annotations

import numpy as np
import pytest

from steerlib.errors import MetricError
from steerlib.experiment.cell_records import CellRecord, Metric
from steerlib.experiment.cells import Cell, Fit, LawSpec
from steerlib.experiment.grid import read_grid
from steerlib.experiment.pushes import preference, push_table, pushes
from steerlib.files import data_folder
from steerlib.tasks.helpfulness import Helpfulness
from steerlib.world.replies import RUBRICS, worth_range
from tests.experiment.toys import record

LOW, HIGH = worth_range(RUBRICS["common"])
TASK = Helpfulness.name


def law(name="difference-of-means", layer=2, strength=0.5, **fit) -> LawSpec:
    return LawSpec(name=name, layer=layer, strength=strength, fit=Fit(**fit))


def cell(task="truth", **more) -> Cell:
    return Cell(plant="p", task=task, **more)


def scored(value: float, made: Cell) -> CellRecord:
    return record(made, metrics={"combined": Metric(value=value, low=value, high=value, n=2)})


GRID = [
    scored(0.40, cell()),
    scored(0.80, cell(told=True)),
    scored(0.55, cell(law=law(layer=1), split="validation")),
    scored(0.60, cell(law=law(), split="validation")),
    scored(0.70, cell(law=law(layer=4, strength=1.0), split="validation")),
    scored(0.38, cell(law=law("random-direction"))),
    scored(0.44, cell(law=law("random-direction", seed=1))),
    scored(0.39, cell(law=law(labels="shuffled"))),
    scored(0.37, cell(law=law(labels="shuffled", seed=1))),
]


def test_each_column_shows_its_own_cells() -> None:
    (one,) = pushes(GRID)
    assert (one.task, one.unsteered, one.told) == ("truth", 0.40, 0.80)
    assert (one.best, one.layer, one.strength) == (0.70, 4, 1.0)
    assert one.there == 0.60, "the push at block 2, strength 0.5, where the controls are"
    assert str(one.random) == "0.410 [0.380, 0.440]"
    assert str(one.shuffled) == "0.380 [0.370, 0.390]"
    table = push_table([one])
    assert list(table.index) == ["truth"]
    assert table.iloc[0].to_list() == [
        "0.400", "0.800", "0.700 (block 4, strength 1)", "0.600", "0.410 [0.380, 0.440]", "0.380 [0.370, 0.390]",
    ]  # fmt: skip


def test_the_order_of_the_records_does_not_matter_and_sampled_ones_stay_aside() -> None:
    sampled = scored(0.99, cell(law=law(layer=5), kind="sampled"))
    assert pushes([sampled, *reversed(GRID)]) == pushes(GRID)


def test_a_grid_without_a_control_is_refused() -> None:
    with pytest.raises(MetricError, match="truth: the grid has no cell of random direction; expected one of each"):
        pushes([r for r in GRID if r.cell.law is None or r.cell.law.name != "random-direction"])


def test_controls_in_two_places_are_refused() -> None:
    stray = scored(0.4, cell(law=law(labels="shuffled", layer=1, seed=9)))
    with pytest.raises(MetricError, match=r"got controls at \[\(1, 0.5\), \(2, 0.5\)\]; expected one place"):
        pushes([*GRID, stray])


def test_controls_where_no_push_was_measured_are_refused() -> None:
    there = cell(law=law(), split="validation")
    with pytest.raises(
        MetricError, match=r"got controls at \[\(2, 0.5\)\]; expected one place, which the sweep visits"
    ):
        pushes([r for r in GRID if r.cell != there])


def replies(rewards: list[float], **more) -> CellRecord:
    made = cell(TASK, kind="sampled", **more)
    wanted = tuple((reward - LOW) / (HIGH - LOW) for reward in rewards)
    return record(made, scores={"wanted": wanted, "intact": tuple(1.0 for _ in wanted)})


BARE = {0: [0.0, 0.2, 0.4, 0.6], 1: [0.1, 0.1, 0.1, 0.1]}
PUSH = {0: [0.5, 0.2, 0.3, 0.7], 1: [0.1, 0.1, 0.2, 0.0]}


def test_rewards_are_compared_request_by_request_under_the_same_seed() -> None:
    # The push comes in the other order: what belongs together is found by seed, not by place.
    mine = [replies(BARE[0], seed=0), replies(BARE[1], seed=1)]
    mine += [replies(PUSH[1], seed=1, law=law()), replies(PUSH[0], seed=0, law=law())]
    found = preference([*mine, *GRID])
    assert list(found) == ["the plant", "the push"]
    plant, push = found["the plant"], found["the push"]
    assert plant.mean.value == pytest.approx(np.mean([*BARE[0], *BARE[1]]))
    assert push.mean.value == pytest.approx(np.mean([*PUSH[0], *PUSH[1]]))
    assert push.high.value == pytest.approx(np.quantile([*PUSH[0], *PUSH[1]], 0.9))
    assert push.wins.value == pytest.approx(3 / 8)  # 0.5 and 0.7 with seed 0, 0.2 with seed 1
    assert push.wins_half.value == pytest.approx((3 + 3 / 2) / 8)  # and three ties
    assert (plant.wins.value, plant.wins_half.value) == (0.0, 0.5)
    assert push.mean.n == 4, "requests are the unit, not replies"


def test_nothing_sampled_gives_no_row() -> None:
    assert preference(GRID) == {}


def test_a_seed_without_its_control_is_refused() -> None:
    with pytest.raises(MetricError, match=r"difference-of-means has seeds \[1\], for which nothing unsteered"):
        preference([replies(BARE[0], seed=0), replies(PUSH[1], seed=1, law=law())])


def test_one_law_in_two_places_is_refused() -> None:
    with pytest.raises(MetricError, match="difference-of-means was sampled twice with seed 0"):
        preference([replies(BARE[0]), replies(PUSH[0], law=law()), replies(PUSH[0], law=law(layer=3))])


def test_two_rubrics_are_refused() -> None:
    with pytest.raises(MetricError, match="rubrics .*common.*strict"):
        preference([replies(BARE[0]), replies(BARE[0], task_options={"rubric": "strict"})])


def test_the_shipped_grid_has_what_the_tables_need() -> None:
    cells = read_grid(data_folder() / "grids" / "push.yml")
    found = pushes([scored(0.5, one) for one in cells])
    assert [one.task for one in found] == [TASK, "refusal", "toxicity", "truth"]
    rows = preference([replies(BARE[0], **_sampled(one)) for one in cells if one.kind == "sampled"])
    assert list(rows) == ["the plant", "told by name", "the push", "random direction", "shuffled labels"]


def _sampled(one: Cell) -> dict:
    return {"seed": one.seed, "law": one.law, "told": one.told}
