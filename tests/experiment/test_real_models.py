"""RE-Control's table on a model that nobody here trained, offline: harvest, value, ascent, judges, rows and columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from steerlib import cli
from steerlib.experiment import running, value_tables
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell
from steerlib.experiment.keys import key_of
from steerlib.experiment.profile_tables import read_table, task_for
from steerlib.experiment.running import run_cell
from steerlib.experiment.store import Store
from steerlib.judges.classifier import RewardJudge
from steerlib.plant import Plant
from tests.experiment import folders

#: The rows of the paper's table, in its order, and a control.
PAPER = (
    "unsteered", "static-re", "prompting", "cd", "cd-prefix", "cd-prefix-prompting", "re-control",
    "re-control-prompting",
)  # fmt: skip
SETTINGS = {"max_new_tokens": 8, "temperature": 0.0, "stop": ["\nHuman:"]}
LAW = {"law.layer": -1, "law.point": "final_norm"}
RE = {
    "law.name": "re-control", **LAW, "law.fit.n": 12, "law.fit.on_disk": True, "law.options.passes": 30,
    "law.options.batch": 8, "law.options.hidden": 16, "law.options.alpha": 30.0, "law.options.steps": 5,
}  # fmt: skip
PREFIX = {
    "decoder.name": "cd-prefix", "decoder.options": {"k": 3, "weight": 8.0}, "decoder.scorer.name": "fudge",
    "decoder.scorer.n": 24, "decoder.scorer.on_disk": True,
    "decoder.scorer.options": {"hidden": 16, "passes": 5, "batch": 8},
}  # fmt: skip
ROWS: dict[str, dict[str, Any]] = {
    "unsteered": {},
    "static-re": {"law.name": "static-re", **LAW, "law.fit.n": 12, "law.strength": 3.0},
    "prompting": {"told": True},
    "cd": {"decoder.name": "cd", "decoder.options": {"k": 3, "weight": 1.0}},
    "cd-prefix": PREFIX,
    "cd-prefix-prompting": {**PREFIX, "told": True},
    "re-control": RE,
    "re-control-prompting": {**RE, "told": True},
    "shuffled-rewards": {**RE, "law.fit.labels": "shuffled"},
}


def given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: {"value": value, "chosen": "a test"} for name, value in fields.items()}


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("hub")
    return {"reward": folders.reward_model(root / "reward"), "encoder": folders.encoder(root / "encoder")}


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory, sample_models: Path, sample_data: Path, judges: Any) -> Path:
    """A profile of one's own, as a re-runner writes it: real posts, a real plant, local judges."""
    fields = {
        "task": "preference", "kind": "sampled", "limit": 4, "plant": str(sample_models / "stories260K"),
        "task_options.of": "shp", "task_options.longest": 130, "task_options.settings": SETTINGS,
        "task_options.blank": "asked", "task_options.data": str(sample_data),
        "judges.judge.kind": "reward", "judges.judge.model": judges["reward"],
        "judges.judge.options": {"reads": "joined"},
        "judges.encoder.kind": "encoder", "judges.encoder.model": judges["encoder"],
    }  # fmt: skip
    table = {
        "about": "a test", "fields": given(fields), "rows": {row: given(own) for row, own in ROWS.items()},
        "validation": {
            "fields": given({"limit": 3}), "sweeps": {"re-control": given({"law.options.alpha": [10.0, 30.0]})},
        },
        "settings": {"shp-stories": {}},
    }  # fmt: skip
    file = tmp_path_factory.mktemp("profiles") / "mine.yml"
    file.write_text(yaml.safe_dump({"name": "mine", "seeds": [0], "tables": {"re_control": table}}))
    return file


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rollouts")


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, rollouts: Path) -> None:
    monkeypatch.setenv("STEERLIB_ROLLOUTS", str(rollouts))


@pytest.fixture(scope="module")
def made(profile: Path, rollouts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, CellRecord]:
    """All cells of the table, by the command that a re-runner types."""
    store = tmp_path_factory.mktemp("store")
    command = ["run", "re_control", "--profile", str(profile), "--store", str(store)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEERLIB_ROLLOUTS", str(rollouts))
        found = CliRunner().invoke(cli.app, command)
        assert found.exit_code == 0, found.output
        again = CliRunner().invoke(cli.app, command)
    cells = read_table("re_control", profile=profile)[0].cells([0])
    assert f"{len(cells)} cells were there, 0 computed" in again.output
    kept = {cell: Store(store).get(key_of(cell)) for cell in cells}
    return {cell: record for cell, record in kept.items() if record is not None}


def row(made: dict[Cell, CellRecord], name: str) -> CellRecord:
    (found,) = [r for c, r in made.items() if c.split == "test" and value_tables.row_of(c) == name]
    return found


def test_the_table_has_the_published_rows_and_columns(made: dict[Cell, CellRecord]) -> None:
    options = next(iter(made)).task_options
    table = value_tables.rows(list(made.values()), options)
    assert tuple(table) == (*PAPER, "shuffled-rewards")
    for found in table.values():
        for column in value_tables.COLUMNS:
            estimate = found.estimate(column, resamples=50)
            assert estimate.n == 4 and np.isfinite(estimate.value), (found.name, column)
        assert found.scores["reward"].shape == (1, 4)
    assert len(value_tables.swept(list(made.values()), options, "re-control")) == 2
    assert all(np.isfinite(value_tables.goodness(r)) for r in made.values())
    moved = {name for name in table if row(made, name).answers != row(made, "unsteered").answers}
    assert moved >= {"prompting", "cd", "cd-prefix", "re-control"}, "a row that answers as the base does tests nothing"


def test_columns_are_what_the_judges_say_of_the_answers(
    made: dict[Cell, CellRecord], judges: dict[str, str], profile: Path, sample_models: Path
) -> None:
    """From the texts alone, by judges made here: the preface of a told prompt is not what is judged."""
    task: Any = task_for(Plant.load(str(sample_models / "stories260K")), profile=profile)
    rows = [task.rows[item.row] for item in running.spread(task.items(), 4)]
    asked = [f"Human: {r.turns[0]}\nAssistant:" for r in rows]
    reward = RewardJudge(judges["reward"], reads="joined", device="cpu")
    preferred = reward.score(asked, [" " + r.chosen for r in rows]).scores
    told = row(made, "re-control-prompting")
    expected = reward.score(asked, told.answers).scores
    np.testing.assert_allclose(np.array(told.more["reward"], dtype=float), expected, atol=1e-5)
    assert told.more["win-rate"] == tuple((expected > preferred).astype(float).tolist())
    assert task.judge.version == reward.version and task.encoder.name == "encoder"
    cosines = task.encoder.score(asked, told.answers).scores
    np.testing.assert_allclose(np.array(told.more["coherence"], dtype=float), cosines, atol=1e-5)


@pytest.mark.parametrize("options", [{"steps": 0}, {"alpha": 0.0}], ids=["the identity", "a step of no length"])
def test_without_an_ascent_a_row_is_the_base_bit_for_bit(made: dict[Cell, CellRecord], options: dict[str, Any]) -> None:
    real = row(made, "re-control")
    assert real.cell.law is not None
    law = real.cell.law.model_copy(update={"options": {**real.cell.law.options, **options}})
    swapped, base = run_cell(real.cell.model_copy(update={"law": law})), row(made, "unsteered")
    assert swapped.answers == base.answers and swapped.more == base.more and swapped.scores == base.scores
    assert swapped.metrics["kl"].value == 0.0
    table = value_tables.rows([base, real], real.cell.task_options)
    other = value_tables.rows([base, swapped], real.cell.task_options)
    for column in ("reward", "topic-agreement"):
        assert np.abs(table["re-control"].scores[column] - table["unsteered"].scores[column]).max() > 1e-3
        np.testing.assert_array_equal(other["re-control"].scores[column], other["unsteered"].scores[column])


def test_the_states_of_a_fit_lie_on_disk_once(made: dict[Cell, CellRecord], rollouts: Path) -> None:
    """One harvest for the value, of all its rows and settings, and one for the prefix scorer."""
    held = {folder: sorted(f.name.split("-")[0] for f in folder.glob("*.safetensors")) for folder in rollouts.iterdir()}
    assert sorted(held.values()) == [["scorer"], ["value", "value"]], "one value, and one of shuffled rewards"
    assert all((folder / "states" / "trajectories.json").is_file() for folder in held)
    assert made


def test_a_fit_on_disk_is_the_fit_in_memory(made: dict[Cell, CellRecord]) -> None:
    cell = row(made, "re-control").cell
    assert cell.law is not None
    fit = cell.law.fit.model_copy(update={"on_disk": False})
    one, other = (
        running.task_and_law(cell.model_copy(update={"law": law}))[1]
        for law in (cell.law, cell.law.model_copy(update={"fit": fit}))
    )
    for (name, ours), (_, theirs) in zip(one.named_buffers(), other.named_buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5, msg=name)
