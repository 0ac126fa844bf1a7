"""Reading a file that was written by hand, and what is said of one that is wrong."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, RootModel, ValidationError

from steerlib.experiment.yaml_files import problems, read_yaml


class Wrong(Exception):
    """What a reader raises."""


class Place(BaseModel):
    layer: int


class Law(BaseModel):
    name: str
    place: Place


def told(model, raw, **options):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(raw)
    return problems(caught.value, **options)


def test_content(tmp_path):
    (tmp_path / "a.yml").write_text("Ørsted: [1, two]\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yml", wrong=Wrong, expected="a law") == {"Ørsted": [1, "two"]}


def test_an_absent_file_says_what_was_expected(tmp_path):
    with pytest.raises(Wrong) as caught:
        read_yaml(tmp_path / "a.yml", wrong=Wrong, expected="a law such as x.yml")
    assert str(caught.value) == f"{tmp_path / 'a.yml'}: no such file; expected a law such as x.yml"


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00", b"a: b: c"])
def test_what_is_no_yaml(tmp_path, content):
    (tmp_path / "a.yml").write_bytes(content)
    with pytest.raises(Wrong, match=r"^a\.yml is not YAML: ."):
        read_yaml(tmp_path / "a.yml", wrong=Wrong, expected="a law", name="a.yml")
    with pytest.raises(Wrong) as caught:
        read_yaml(tmp_path / "a.yml", wrong=Wrong, expected="a law")
    assert str(caught.value).startswith(f"{tmp_path / 'a.yml'} is not YAML: ")


def test_a_line_for_each_field():
    found = told(Law, {"place": {"layer": "x"}}, whole="law")
    assert found.splitlines() == [
        "  name: Field required",
        "  place.layer: Input should be a valid integer, unable to parse string as an integer",
    ]


def test_the_whole_has_a_name_of_its_own():
    (line,) = told(Law, 3, whole="law").splitlines()
    assert line.startswith("  law: Input should be a valid dictionary")


def test_entries_of_a_list_are_named():
    found = told(RootModel[list[Law]], [{"name": "a", "place": {"layer": 1}}, {"name": "b"}, 3], whole="law",
                 entry=lambda index: f"number {index}")  # fmt: skip
    first, second = found.splitlines()
    assert first == "  number 1: place: Field required"
    assert second.startswith("  number 2: law: Input should be a valid dictionary")
