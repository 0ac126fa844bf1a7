"""The trial on a cluster would notice what it is there to notice; and it says where it cannot be made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from steerlib.experiment.cells import Cell
from steerlib.experiment.store import Store
from tests.cluster import trial
from tests.experiment import toys

HERE = Path(__file__).resolve().parent
CELLS = [Cell(plant="p", task="truth", limit=k) for k in range(2, 10)]
PARTS = {"1-of-2": CELLS[0::2], "2-of-2": CELLS[1::2]}


def line(part, there, computed):
    return f"part {part}: {there} cells were there, {computed} computed, 0 awaited from another process, 0 failed\n"


@pytest.fixture
def folder(tmp_path):
    """What a good trial leaves: part 2 lost its node after one of four cells, part 1 after its second record."""
    rows = [f"{part}\t{toys.key(cell)}\n" for part, cells in PARTS.items() for cell in cells]
    (tmp_path / "parts.tsv").write_text("".join(rows))
    store = Store(tmp_path / "store")
    for cell in [*PARTS["1-of-2"][:2], PARTS["2-of-2"][0]]:
        store.put(toys.record(cell))
    (tmp_path / "snapshot.json").write_text(json.dumps(trial.snapshot(tmp_path)))
    for cell in [*PARTS["1-of-2"][2:], *PARTS["2-of-2"][1:]]:
        store.put(toys.record(cell))
    log_of(tmp_path, "1-of-2").write_text(line("1-of-2", 0, 4))
    log_of(tmp_path, "2-of-2").write_text("killed\n" + line("2-of-2", 1, 3))
    return tmp_path


def log_of(folder, part):
    file = folder / ".snakemake/slurm_logs/rule_part" / part / "1.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def record_of(folder, cell):
    return Store(folder / "store").path(toys.key(cell))


def test_a_good_trial_passes(folder, capsys):
    trial.check(folder, "2-of-2")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 5 and all(text.startswith("ok: ") for text in said)


def torn(folder):
    file = record_of(folder, CELLS[4])
    file.write_text(file.read_text()[:-20])


def half_written(folder):
    (record_of(folder, CELLS[4]).parent / "leftover.tmp").write_text("{")


def computed_again(folder):
    file = record_of(folder, CELLS[0])
    text = file.read_text()
    file.unlink()
    file.write_text(text)
    os.utime(file, ns=(1, 1))


BAD = {
    "a record is missing": lambda folder: record_of(folder, CELLS[5]).unlink(),
    "a record is torn": torn,
    "a record is half written": half_written,
    "a record is too many": lambda folder: Store(folder / "store").put(
        toys.record(Cell(plant="p", task="truth", limit=99))
    ),
    "a record was written again": computed_again,
    "the lost part began from nothing": lambda f: log_of(f, "2-of-2").write_text(line("2-of-2", 0, 4)),
    "the other part was begun again": lambda f: log_of(f, "1-of-2").write_text(line("1-of-2", 0, 4) * 2),
    "a part has no end": lambda folder: log_of(folder, "1-of-2").write_text("killed\n"),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_trial_is_noticed(folder, capsys, why):
    BAD[why](folder)
    with pytest.raises(SystemExit) as stopped:
        trial.check(folder, "2-of-2")
    assert stopped.value.code == 1
    assert "FAILED: " in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_where_there_is_no_slurm_the_trial_says_so_and_is_skipped(tmp_path):
    for program in ("bash", "id", "dirname", "head"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    for script in ("slurm.sh", "try_grid.sh"):
        done = subprocess.run(
            ["bash", str(HERE / script), "check"], env={"PATH": str(tmp_path)}, capture_output=True, text=True
        )
        assert done.returncode == 77, done.stderr
        assert "Slurm is not installed" in done.stderr or "expected root" in done.stderr
