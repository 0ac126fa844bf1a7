"""Shipped records: compact, whole or refused, and given out only while nothing that decides them has changed."""

from __future__ import annotations

import errno
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from steerlib.experiment import keys
from steerlib.experiment.cell_records import Metric, hash_of
from steerlib.experiment.cells import Cell, LawSpec, key_from
from steerlib.experiment.grid import read_grid
from steerlib.experiment.race_files import read_shipped_race
from steerlib.experiment.race_plan import read_race
from steerlib.experiment.racing import race_on
from steerlib.experiment.shipped import ShippedError, read_header, ship, shipped
from steerlib.experiment.store import Store, StoreError
from steerlib.files import DiskFullError, data_folder
from tests.experiment import toys

PUSH = LawSpec(name="difference-of-means", layer=1)
CONTROL = LawSpec(name="random-direction", layer=1)
CELLS = [
    Cell(plant="p", task="truth"),
    Cell(plant="p", task="truth", law=PUSH),
    Cell(plant="p", task="truth", law=CONTROL),
    Cell(plant="p", task="truth", law=PUSH, kind="sampled", seed=3),
]
SAID = ("It is Velford.", "I do not know.")


@pytest.fixture
def now(monkeypatch):
    """What decides the keys; a test may change it."""
    parts = {
        "weights": "w",
        "data": "d",
        "code": {"": "c", PUSH.name: "c1", CONTROL.name: "c2"},
        "versions": {"torch": "2.13"},
    }

    def of(cell):
        name = cell.law.name if cell.law else ""
        return {**parts, "code": parts["code"][name], "versions": dict(parts["versions"])}

    monkeypatch.setattr(keys, "present_parts", lambda **_: of)
    return parts


@pytest.fixture
def store(tmp_path, now):
    del now
    held = Store(tmp_path / "store")
    for number, cell in enumerate(CELLS):
        change = {"key": key_from(cell, keys.present_parts()(cell)), "seconds": 2.0 + number, "fit_seconds": 0.5}
        scores = {"wanted": (number / 7, 0.125), "intact": (1.0, 2 / 3)}
        said = {"answers": SAID, "answers_sha256": hash_of(SAID)} if cell.kind == "sampled" else {}
        held.put(toys.record(cell, scores=scores, **change, **said))
    return held


@pytest.fixture
def file(store, tmp_path):
    return ship(store, CELLS, tmp_path / "reference" / "tiny" / "records" / "push.jsonl.gz")


def test_what_is_shipped_comes_back_without_the_texts(store, file):
    found = shipped(file)
    assert [record.cell for record in found.records] == CELLS and not found.stale
    for record in found.records:
        full = store.get(record.key)
        assert record.answers == () and record.answers_sha256 == full.answers_sha256
        for name, column in full.scores.items():
            assert record.scores[name] == pytest.approx(column, abs=1e-6)
        assert record.model_dump(exclude={"scores", "answers"}) == full.model_dump(exclude={"scores", "answers"})
    assert found.records[3].answers_sha256 == hash_of(SAID)
    assert b"Velford" not in gzip.decompress(file.read_bytes())


def test_the_header_says_what_a_plan_needs(file):
    header = read_header(file)
    assert (header.grid, header.cells) == ("push", 4)
    assert header.seconds == pytest.approx(2 + 3 + 4 + 5 + 4 * 0.5)
    assert len(header.provenance) == 1 and len(header.parts) == 3


def test_equal_records_are_equal_files(store, file, tmp_path):
    before = file.read_bytes()
    os.utime(file, (1, 1))
    assert ship(store, CELLS, tmp_path / "push.jsonl.gz").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "why", "kept"),
    [
        ({"weights": "v"}, "changed since: the weights of the plant", []),
        ({"data": "e"}, "changed since: the data", []),
        ({"code": {"": "c", PUSH.name: "c1", CONTROL.name: "x"}}, "the code of the law or the task", [0, 1, 3]),
        ({"versions": {"torch": "2.14"}}, r"torch (2.13, here 2.14)", []),
    ],
)
def test_a_record_of_something_else_is_named_and_kept_back(file, now, change, why, kept):
    now.update(change)
    found = shipped(file)
    assert [record.cell for record in found.records] == [CELLS[k] for k in kept]
    assert {stale.cell for stale in found.stale} == set(CELLS) - {CELLS[k] for k in kept}
    assert all(why in stale.why and stale.cell is not None and stale.title == stale.cell.title for stale in found.stale)


def rewrite(file, change):
    """Alter the lines of a file, and its checksum with them if there is one."""
    import hashlib

    head, *lines = gzip.decompress(file.read_bytes()).decode().splitlines(keepends=True)
    header = json.loads(head)
    lines = change(header, lines)
    header["sha256"] = hashlib.sha256("".join(lines).encode()).hexdigest()
    file.write_bytes(gzip.compress(f"{json.dumps(header)}\n{''.join(lines)}".encode()))


def test_a_law_that_there_is_no_more_costs_its_own_records(file):
    rewrite(file, lambda _, lines: [line.replace("random-direction", "astrology") for line in lines])
    found = shipped(file)
    assert len(found.records) == 3 and len(found.stale) == 1
    assert "got law 'astrology', which does not exist" in found.stale[0].why and found.stale[0].cell is None


def test_a_key_that_is_not_that_of_the_cell_counts_as_altered(file):
    rewrite(file, lambda _, lines: [line.replace('"limit":null', '"limit":7') for line in lines[:1]] + lines[1:])
    found = shipped(file)
    assert [stale.cell.limit for stale in found.stale] == [7]
    assert "it was altered, or computed otherwise" in found.stale[0].why


def test_a_plant_on_the_hub_is_not_fetched_to_read_a_file(store, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr("steerlib.experiment.running.plant_of", lambda *_: pytest.fail("a plant was loaded"))
    cell = Cell(plant="owner/name", task="truth")
    parts = keys.present_parts(known={"owner/name": ("weights of then", "")})(cell)
    store.put(toys.record(cell, key=key_from(cell, parts)))
    with monkeypatch.context() as there:
        there.setattr(keys, "present_parts", lambda **_: lambda _: parts)
        file = ship(store, [cell], tmp_path / "hub.jsonl.gz")
    assert [record.cell for record in shipped(file).records] == [cell]


def test_only_whole_grids_are_shipped(store, file):
    before = file.read_bytes()
    more = [*CELLS, Cell(plant="p", task="truth", limit=9)]
    with pytest.raises(ShippedError, match=r"1 of 5 cells have no record in .*, such as p: truth, unsteered"):
        ship(store, more, file)
    damaged = store.path(key_from(CELLS[0], keys.present_parts()(CELLS[0])))
    damaged.write_text("half")
    with pytest.raises(ShippedError, match="1 of 4 cells have no record"):
        ship(store, CELLS, file)
    with pytest.raises(ShippedError, match="0 of 0 cells"):
        ship(store, [], file)
    with pytest.raises(ShippedError, match=r"expected a name that ends in .jsonl.gz"):
        ship(store, CELLS, file.with_suffix(".zip"))
    assert file.read_bytes() == before


def test_a_folder_of_one_machine_is_not_shipped(store, tmp_path):
    placed = Cell(plant="p", task="truthfulqa", task_options={"data": "/home/me/sets"})
    store.put(toys.record(placed, key=key_from(placed, keys.present_parts()(placed))))
    with pytest.raises(ShippedError, match=r"1 of 5 cells say where data lie \('/home/me/sets'\).*STEERLIB_DATA"):
        ship(store, [*CELLS, placed], tmp_path / "placed.jsonl.gz")
    assert not (tmp_path / "placed.jsonl.gz").exists()


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EROFS, StoreError)])
def test_a_disk_that_takes_nothing_leaves_the_old_file(store, file, monkeypatch, number, kind):
    before = file.read_bytes()

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(kind):
        ship(store, CELLS[:2], file)
    assert file.read_bytes() == before and [p.name for p in file.parent.iterdir()] == [file.name]


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "is truncated or damaged"),
        (_flip, "is truncated or damaged"),
        (lambda _: b"", "does not begin with what its records share"),
        (lambda _: b"plain text", "is truncated or damaged"),
        (lambda data: gzip.compress(gzip.decompress(data).replace(b"0.125", b"0.126")), "was altered"),
        (lambda data: gzip.compress(gzip.decompress(data).rpartition(b"\n{")[0] + b"\n"), "was altered"),
        (
            lambda data: gzip.compress(gzip.decompress(data).replace(b'"schema_version":1', b'"schema_version":9', 1)),
            "schema 9, expected 1",
        ),
    ],
    ids=["truncated", "a bit", "empty", "no gzip", "a score", "a record less", "schema"],
)
def test_damage_is_refused_by_name(file, damage, message):
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ShippedError, match=message) as raised:
        shipped(file)
    assert str(file) in str(raised.value) and "Fix: " in str(raised.value)


SHIPPED = sorted((data_folder() / "reference").glob("*/records/*.jsonl.gz"))


def test_grids_are_shipped():
    assert SHIPPED


def asked_by_the_race(path: Path, name: str) -> set[Cell]:
    """The cells that a race looks at when it is run from what is shipped; its choices decide which."""
    found = read_shipped_race(path.parents[1] / "races" / f"{name}.json.gz")
    plan = read_race(data_folder() / "races" / f"{name}.yml")
    records = {record.cell: record for record in shipped(path).records}
    spent = {one.cell: one.calibration for one in found.spent}
    asked: set[Cell] = set()

    def run(cells):
        asked.update(cells)
        return [records[cell] for cell in cells]

    for course in plan.courses():
        if course.title in found.courses:
            race_on(plan, course, found.courses[course.title], run=run, spend=spent.__getitem__)
    return asked


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.parent.name}/{path.name}")
def test_what_is_shipped_holds_the_cells_of_its_file_and_no_others(path):
    name = path.name.removesuffix(".jsonl.gz")
    assert read_header(path).grid == name
    _, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    held = [Cell.model_validate(json.loads(line)["cell"]) for line in lines]
    grid = data_folder() / "grids" / f"{name}.yml"
    wanted = read_grid(grid) if grid.is_file() else asked_by_the_race(path, name)
    assert set(held) == set(wanted) and len(held) == len(set(held)), "ship it anew: `steerlib run ... --ship`"


def test_absent_records_name_the_command_that_makes_them(tmp_path):
    path = Path(tmp_path / "reference" / "tiny" / "records" / "race.jsonl.gz")
    with pytest.raises(ShippedError, match=r"steerlib run data/grids/race.yml --ship tiny"):
        shipped(path)


def test_a_thousand_cells_take_less_than_two_megabytes(store, tmp_path):
    rng = np.random.default_rng(0)
    metric = Metric(value=0.123456789, low=0.1, high=0.2, n=100)
    cells = [Cell(plant="p", task="truth", law=PUSH.model_copy(update={"strength": k / 100})) for k in range(100)]
    for cell in cells:
        scores = {name: tuple(rng.random(100).tolist()) for name in ("wanted", "intact")}
        key = key_from(cell, keys.present_parts()(cell))
        store.put(toys.record(cell, key=key, scores=scores, metrics=dict.fromkeys(("wanted", "intact"), metric)))
    size = ship(store, cells, tmp_path / "big.jsonl.gz").stat().st_size
    assert 10 * size < 2e6, f"{10 * size / 1e6:.2f} MB per 1,000 cells"
    print(f"{10 * size / 1e6:.2f} MB per 1,000 cells")
