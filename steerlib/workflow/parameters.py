"""The parameters cell of a notebook, and what may be passed to it.

Knows the cell tagged `parameters`; knows nothing of profiles. papermill only warns of a parameter that the
notebook does not declare and runs on with the default: here it is an error, before anything runs.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from nbformat import NotebookNode

from steerlib.workflow.errors import SourceError

TAG = "parameters"
INJECTED = "injected-parameters"


def declared_parameters(node: NotebookNode, *, notebook: str) -> dict[str, object]:
    """Names and defaults of the parameters that a notebook declares.

    Raises:
        SourceError: not exactly one parameters cell, or one that holds anything but literal assignments.
    """
    cells = [c for c in node.cells if c.cell_type == "code" and TAG in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise SourceError(
            f'notebooks/{notebook}.py: got {len(cells)} cells tagged "parameters", expected one: '
            '`# %% tags=["parameters"]` with profile, plant and seeds'
        )
    found: dict[str, object] = {}
    for statement in ast.parse(cells[0].source).body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        value = getattr(statement, "value", None)
        try:
            if not isinstance(target, ast.Name) or value is None:
                raise ValueError
            found[target.id] = ast.literal_eval(value)
        except ValueError:
            raise SourceError(
                f"notebooks/{notebook}.py, parameters cell: got `{ast.unparse(statement)}`, expected `name = literal`; "
                "values are injected after this cell, so compute anything derived from them in a later one"
            ) from None
    return found


def check_parameters(node: NotebookNode, *, notebook: str, parameters: Mapping[str, object]) -> None:
    """Refuse a parameter that the notebook does not declare.

    Raises:
        SourceError: names the notebook, the parameter, and those that it declares.
    """
    known = declared_parameters(node, notebook=notebook)
    if unknown := sorted(set(parameters) - set(known)):
        raise SourceError(
            f"notebooks/{notebook}.py: got unknown parameter {', '.join(map(repr, unknown))}, expected only "
            f"those it declares: {', '.join(sorted(known)) or 'none'}. "
            "Fix the name in data/profiles, or declare it in the cell tagged parameters"
        )
