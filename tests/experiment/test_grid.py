"""Grids: the right cells, only the missing ones, whatever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steerlib.experiment import grid as grids
from steerlib.experiment.cells import Cell
from steerlib.experiment.grid import GridError, read_grid, run_grid
from steerlib.experiment.store import Store
from tests.experiment import toys

ROOT = Path(__file__).resolve().parents[2]
CELLS = [Cell(plant="p", task="truth", limit=k) for k in range(2, 8)]


@pytest.fixture(autouse=True)
def keys_without_plants(monkeypatch):
    from steerlib.experiment import running

    monkeypatch.setattr(running, "key_of", lambda cell, **_: toys.key(cell))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def traces(store):
    file = store.folder.parent / "trace"
    return file.read_text().split("\n")[:-1] if file.exists() else []


def write(tmp_path, text):
    file = tmp_path / "grid.yml"
    file.write_text(text)
    return file


def test_a_grid_is_a_product_without_what_is_skipped(tmp_path):
    cells = read_grid(write(tmp_path, """
blocks:
  - over: {plant: [p], task: [truth, toxicity], told: [false, true]}
    skip: [{task: toxicity, told: true}]
  - over: {plant: [p], task: [truth], law.name: [random-direction], law.layer: [1, 2], law.options.seed: [0],
           law.fit.n: [9]}
  - over: {plant: [p], task: [truth]}
"""))  # fmt: skip
    assert [(c.task, c.told, c.law.layer if c.law else None) for c in cells] == [
        ("truth", False, None), ("truth", True, None), ("toxicity", False, None),
        ("truth", False, 1), ("truth", False, 2),
    ]  # fmt: skip
    assert cells[3].law.options == {"seed": 0} and cells[3].law.fit.n == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blocks: [", "is not YAML"),
        ("cells: []", "expected `blocks:`"),
        ("blocks: []", "expected `blocks:`"),
        ("blocks: [{over: {plant: [p], task: [trut]}}]", "Did you mean truth"),
        ("blocks: [{over: {plant: [p], task: [truth], layer: [1]}}]", "layer: Extra inputs"),
        ("blocks: [{over: {plant: [p], task: [truth]}, skip: [{told: true}]}]", r"skip names \['told'\]"),
        ("blocks: [{over: {plant: [p], task: [truth]}, skip: [{task: truth}]}]", "every combination is skipped"),
        ("blocks: [{over: {plant: p, task: [truth]}}]", "over.plant: Input should be a valid list"),
    ],
)
def test_a_bad_grid_says_where(tmp_path, text, message):
    with pytest.raises(GridError, match=message):
        read_grid(write(tmp_path, text))
    with pytest.raises(GridError, match="no such file"):
        read_grid(tmp_path / "absent.yml")


def test_the_grids_of_the_repository_can_be_read():
    for file in (ROOT / "data" / "grids").glob("*.yml"):
        assert len(read_grid(file)) > 10


def test_only_missing_cells_are_computed(store):
    store.put(toys.record(CELLS[0]))
    first = run_grid(CELLS, store, progress=False, work=toys.keep)
    assert first.present == CELLS[:1] and first.computed == CELLS[1:]
    again = run_grid(CELLS, store, progress=False, work=toys.keep)
    assert again.present == CELLS and not again.computed
    path = store.path(toys.key(CELLS[2]))
    path.write_text(path.read_text()[:50])
    mended = run_grid(CELLS, store, progress=False, work=toys.keep)
    assert mended.computed == [CELLS[2]]
    assert len(traces(store)) == len(CELLS) - 1 + 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bad_cell_does_not_cost_the_others(store, jobs):
    found = run_grid(CELLS, store, jobs=jobs, progress=False, work=toys.fail_on_three)
    assert set(found.computed) == {c for c in CELLS if c.limit != 3}
    assert list(found.failed.values()) == ["ValueError: three is not a number of prompts"]


@pytest.mark.parametrize("jobs", [2, 3])
def test_a_killed_worker_costs_its_cell_and_no_other(store, jobs):
    # The cells that were under way beside it are lost with the pool, too, and must not be blamed.
    found = run_grid(CELLS, store, jobs=jobs, progress=False, work=toys.die_on_three)
    assert set(found.computed) == {c for c in CELLS if c.limit != 3}
    assert [c.limit for c in found.failed] == [3]
    assert "was killed, twice" in found.failed[CELLS[1]]


def test_workers_take_the_devices_in_turn(store):
    run_grid(CELLS, store, jobs=2, devices=("cuda:0", "cuda:1"), progress=False, work=toys.keep)
    assert {line.split()[1] for line in traces(store)} <= {"cuda:0", "cuda:1"}
    assert len(traces(store)) == len(CELLS)


KILLED = """
import sys
from pathlib import Path
from steerlib.experiment import running
from steerlib.experiment.cells import Cell
from steerlib.experiment.grid import run_grid
from steerlib.experiment.store import Store
from tests.experiment import toys
running.key_of = lambda cell, device="cpu": toys.key(cell)
cells = [Cell(plant="p", task="truth", limit=k, task_options={"slow": 0.2}) for k in range(2, 30)]
run_grid(cells, Store(sys.argv[1]), progress=False, work=toys.keep)
"""


def test_killed_at_any_moment_it_goes_on_where_it_was(store):
    cells = [Cell(plant="p", task="truth", limit=k, task_options={"slow": 0.2}) for k in range(2, 30)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(store.folder)], env=env, cwd=ROOT)
    deadline = time.monotonic() + 60
    while len(store.keys()) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    kept = store.keys()
    assert 3 <= len(kept) < len(cells)
    assert all(store.get(key) is not None for key in kept), "nothing half written"
    found = run_grid([c.model_copy(update={}) for c in cells], store, progress=False, work=quick)
    assert {toys.key(c) for c in found.present} == kept
    assert store.keys() == {toys.key(c) for c in cells}


def quick(cell, folder, device):
    Store(folder).put(toys.record(cell))
    return "computed"


def test_what_another_process_is_at_is_left_to_it(store, monkeypatch):
    from steerlib.experiment import running

    monkeypatch.setattr(running, "run_cell", lambda cell, **_: toys.record(cell))
    with store.claim(toys.key(CELLS[0])):
        import threading

        said = []
        thread = threading.Thread(target=lambda: said.append(grids.work_on(CELLS[0], str(store.folder), "cpu")))
        thread.start()
        thread.join(10)
    assert said == ["elsewhere"] and store.get(toys.key(CELLS[0])) is None
    assert grids.work_on(CELLS[0], str(store.folder), "cpu") == "computed"
