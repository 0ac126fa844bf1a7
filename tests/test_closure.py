from __future__ import annotations

from pathlib import Path

import pytest

from steerlib.closure import import_closure, imported_names

FILES = {
    "__init__.py": (
        '_EXPORTS: dict[str, str] = {"Plant": "steerlib.plant", "Law": "steerlib.laws.base"}\n'
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from steerlib.unrelated import x\n"
        "def __getattr__(name): ...\n"
    ),
    "plant.py": "from steerlib.actuator import Site\n",
    "actuator.py": "import torch\nfrom . import errors\n",
    "errors.py": "",
    "unrelated.py": "",
    "cyclic.py": "import steerlib.plant\ndef f():\n    from steerlib.laws.additive import mean\n",
    "laws/__init__.py": "",
    "laws/base.py": "from ..errors import E\n",
    "laws/additive.py": "from .base import Law\nfrom steerlib import cyclic\n",
    "laws/style.mplstyle": "",
    "laws/unused.py": "",
    "names.py": 'LAWS: dict[str, str] = {"mean": "steerlib.laws.additive.Law"}\nTITLES = {"a": "mean"}\nNONE = {}\n',
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "steerlib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def closure(root: Path, code: str) -> set[str]:
    return {str(path.relative_to(root / "steerlib")) for path in import_closure(root, imported_names(code, module=""))}


BASE = {"__init__.py"}
PLANT = BASE | {"plant.py", "actuator.py", "errors.py"}
LAWS = {"laws/__init__.py", "laws/base.py", "laws/style.mplstyle", "errors.py"}
EVERYTHING_USED = PLANT | LAWS | {"laws/additive.py", "cyclic.py"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import numpy\nfrom math import pi", set()),
        ("from steerlib.errors import E", BASE | {"errors.py"}),
        ("from steerlib import errors", BASE | {"errors.py"}),
        ("from steerlib import Plant", PLANT),
        ("from steerlib import Law as L", BASE | LAWS),
        ("import steerlib.plant as p", PLANT),
        ("import steerlib\nsteerlib.Plant", PLANT | LAWS),
        ("from steerlib import *", PLANT | LAWS),
        ("def f():\n    from steerlib.laws.additive import mean", EVERYTHING_USED),
        ("%matplotlib inline\n!ls\nfrom steerlib import cyclic", EVERYTHING_USED),
        ("import importlib\nimportlib.import_module('steerlib.errors')", BASE | {"errors.py"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import steerlib.plant", set()),
        # What is imported by name later counts as soon as the table of names is imported.
        ("from steerlib.names import LAWS", EVERYTHING_USED | {"names.py"}),
    ],
)
def test_closure(root: Path, code: str, expected: set[str]) -> None:
    assert closure(root, code) == expected


def test_an_edit_is_seen_in_the_same_process(root: Path) -> None:
    assert "unrelated.py" not in closure(root, "from steerlib import errors")
    path = root / "steerlib" / "errors.py"
    path.write_text("from steerlib import unrelated  # longer\n")
    assert "unrelated.py" in closure(root, "from steerlib import errors")


def test_a_page_of_shipped_records_depends_on_every_law_and_task() -> None:
    """Otherwise a law could change under a page that shows its records."""
    repository = Path(__file__).resolve().parents[1]
    code = "from steerlib.experiment.recompute import reference"
    names = {str(p.relative_to(repository)) for p in import_closure(repository, imported_names(code, module=""))}
    assert {"steerlib/laws/additive.py", "steerlib/tasks/truth.py", "steerlib/experiment/running.py"} <= names


def test_the_executor_does_not_depend_on_the_models_or_the_world() -> None:
    """Otherwise every notebook would run again at every edit of the library."""
    repository = Path(__file__).resolve().parents[1]
    names = {str(path.relative_to(repository)) for path in import_closure(repository, {"steerlib.workflow.execute"})}
    assert "steerlib/workflow/execute.py" in names
    assert "steerlib/workflow/pairing.py" in names
    assert not {name for name in names if name.startswith(("steerlib/world", "steerlib/laws", "steerlib/plant"))}
