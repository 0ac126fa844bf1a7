from __future__ import annotations

import nbformat
import pytest

from steerlib.workflow.errors import SourceError
from steerlib.workflow.parameters import check_parameters, declared_parameters


def notebook(*cells: str) -> nbformat.NotebookNode:
    made = [nbformat.v4.new_code_cell(text, metadata={"tags": ["parameters"]}) for text in cells]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1"), *made])


def test_declared() -> None:
    node = notebook('profile = "tiny"\nseeds: list[int] = [0, -1]\nlayer = None  # chosen later\n')
    assert declared_parameters(node, notebook="n") == {"profile": "tiny", "seeds": [0, -1], "layer": None}


def test_a_typo_names_notebook_parameter_and_what_is_declared() -> None:
    node = notebook("seed = 0\nprofile = 1")
    with pytest.raises(SourceError, match=r"11_x\.py: got unknown parameter 'sed'.*profile, seed"):
        check_parameters(node, notebook="11_x", parameters={"sed": 1, "profile": "tiny"})
    check_parameters(node, notebook="11_x", parameters={"seed": 1})


@pytest.mark.parametrize("cells", [(), ("a = 1", "b = 1")])
def test_exactly_one_parameters_cell(cells: tuple[str, ...]) -> None:
    with pytest.raises(SourceError, match=f'got {len(cells)} cells tagged "parameters"'):
        declared_parameters(notebook(*cells), notebook="n")


@pytest.mark.parametrize("code", ["a = len('x')", "import os", "a, b = 1, 2", "a: int", "a = b = f()"])
def test_literals_only(code: str) -> None:
    with pytest.raises(SourceError, match="expected `name = literal`"):
        declared_parameters(notebook(code), notebook="n")
