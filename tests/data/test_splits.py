"""Splits: no entity on two sides, whatever the rows."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlib.data.reading import DataError
from steerlib.data.splits import SHARES, normalised, partition

names = st.text(alphabet="abAB .!é", min_size=1, max_size=4).filter(lambda t: bool(t.strip()))
rows = st.lists(st.lists(names, min_size=1, max_size=3), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(rows, st.integers(0, 5))
def test_no_entity_is_on_two_sides(entities: list[list[str]], seed: int) -> None:
    found = partition(entities, seed=seed)
    sides = defaultdict(set)
    for side, group in zip(found.sides, entities, strict=True):
        for name in group:
            sides[normalised(name)].add(side)
    assert all(len(where) == 1 for where in sides.values())


@settings(max_examples=50, deadline=None)
@given(rows, st.randoms())
def test_the_order_of_rows_does_not_count(entities: list[list[str]], random) -> None:
    order = list(range(len(entities)))
    random.shuffle(order)
    first = partition(entities, seed=3)
    second = partition([entities[i] for i in order], seed=3)
    assert [first.sides[i] for i in order] == list(second.sides)
    assert first.digests == second.digests


def test_shares_are_kept_and_seeds_differ() -> None:
    entities = [[f"question {i}"] for i in range(1000)]
    found = partition(entities, seed=0)
    for side, share in SHARES.items():
        assert abs(len(found.rows(side)) - 1000 * share) <= 1
    other = partition(entities, seed=1)
    same = np.mean([a == b for a, b in zip(found.sides, other.sides, strict=True)])
    assert 0.35 < same < 0.55  # 0.6^2 + 0.15^2 + 0.25^2 = 0.445 by chance


def test_near_duplicates_stay_together() -> None:
    entities = [[text] for i in range(200) for text in (f"Is it {i}?", f"is  it {i}", f"IS IT \uff11{str(i)[1:]}!")]
    found = partition(entities, seed=0)
    assert all(found.sides[3 * i] == found.sides[3 * i + 1] for i in range(200))


def test_chains_stay_together() -> None:
    chain = [[f"a{i}", f"a{i + 1}"] for i in range(50)]
    single = [[f"b{i}"] for i in range(50)]
    found = partition(chain + single, seed=0)
    assert len(set(found.sides[:50])) == 1
    assert len(set(found.sides)) > 1


def test_marks_alone_are_compared_as_they_stand() -> None:
    assert normalised("?!") == "?!" != normalised("...")
    assert normalised(" \u201cWhat\u2019s  UP?\u201d") == normalised("what's up")


def test_held_out_families() -> None:
    entities = [[f"q{i}"] for i in range(100)] + [["q0", "extra"]]
    families = [f"f{i % 10}" for i in range(100)] + ["f9"]
    found = partition(entities, seed=0, families=families, held_out=["f9"])
    assert found.held_out == ("f9",)
    # q0 is of family f0, but shares its entity with a row of f9.
    assert sorted(found.rows("held out")) == sorted([0, 100, *range(9, 100, 10)])
    drawn = partition(entities, seed=0, families=families, held_out=0.3)
    assert len(drawn.held_out) == 3
    assert {families[i] for i in drawn.rows("fit")}.isdisjoint(drawn.held_out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"entities": []}, "got no rows"),
        ({"entities": [["a"], [" "]]}, "row 1 has no entity"),
        ({"entities": [["a"]], "shares": {"fit": 0.5, "test": 0.6}}, "expected parts of one"),
        ({"entities": [["a"]], "shares": {"fit": 1.5, "test": -0.5}}, "expected parts of one"),
        ({"entities": [["a"]], "held_out": 0.5}, "name the family of each of the 1 rows"),
        ({"entities": [["a"]], "families": ["x"], "held_out": ["y"]}, "got family 'y'; expected one of x"),
        ({"entities": [["a"]], "families": ["x"], "held_out": 1.5}, "got held_out=1.5"),
    ],
)
def test_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        partition(**arguments, seed=0)


def test_a_written_split_is_compared(tmp_path: Path) -> None:
    file, entities = tmp_path / "split.json", [[f"q{i}"] for i in range(50)]
    found = partition(entities, seed=0)
    found.write(file)
    found.check(file)
    assert "q7" not in file.read_text()  # digests only
    with pytest.raises(DataError, match="seed, sha256 differ"):
        partition(entities, seed=1).check(file)
    with pytest.raises(DataError, match="rows, sha256 differ"):
        partition([*entities[:-1], ["else"], ["more"]], seed=0).check(file)
    file.write_text("{")
    with pytest.raises(DataError, match="not a written split"):
        found.check(file)


def test_what_is_said_about_a_split_is_compared_too(tmp_path: Path) -> None:
    file, found = tmp_path / "split.json", partition([[f"q{i}"] for i in range(50)], seed=4)
    found.write(file, about={"files": {"a.csv": "0"}, "seed": 5})
    assert json.loads(file.read_text())["seed"] == 4  # the split says its own seed
    found.check(file, about={"files": {"a.csv": "0"}})
    found.check(file)
    with pytest.raises(DataError, match="written down: files differ"):
        found.check(file, about={"files": {"a.csv": "1"}})
    with pytest.raises(DataError, match="written down: task differ"):
        found.check(file, about={"task": "truthfulqa"})
