"""Which modules of steerlib a piece of code depends on, read from the source without importing anything.

Knows Python's import statements, the lazy tables (`_EXPORTS = {"Plant": "steerlib.plant"}`) of our packages, and
tables of places that are imported by name later (`LAWS = {"random-direction": "steerlib.laws.additive.Law"}`); knows
nothing of notebooks. Imports inside functions count; those under `if TYPE_CHECKING:` do not, since they
never run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "steerlib"
TABLE = "_EXPORTS"


def imported_names(source: str, *, module: str, is_package: bool = False) -> set[str]:
    """Dotted names that a source imports from steerlib, as written: "steerlib.plant.Plant", "steerlib.figures".

    Args:
        source: Python code; lines with notebook magics (`%`, `!`) are ignored.
        module: its dotted name, for relative imports; "" for a notebook.
        is_package: whether it is an `__init__.py`.
    """
    code = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    names: set[str] = set()
    for node in _running_nodes(ast.parse(code)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                # `import steerlib` gives every name of the package; `import steerlib.plant` that module.
                names.add(alias.name if "." in alias.name else f"{alias.name}.*")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + (1 if is_package else 0)]
                base = ".".join([*parents, base] if base else parents)
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_call(node):
            names.add(node.args[0].value)  # type: ignore[attr-defined]
    return {name for name in names if name.split(".")[0] == PACKAGE}


def _running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that can run: all but the bodies of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from _running_nodes(other)
            continue
        yield child
        yield from _running_nodes(child)


def _is_import_call(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    literal = bool(node.args) and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    return literal and name in ("import_module", "__import__")


def lazy_table(source: str) -> dict[str, str]:
    """The literal `_EXPORTS` table of a package: attribute name -> module that defines it."""
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id == TABLE and isinstance(value, ast.Dict):
            table = ast.literal_eval(value)
            return {str(k): str(v[0] if isinstance(v, tuple) else v) for k, v in table.items()}
    return {}


def tabled_places(source: str) -> set[str]:
    """Dotted names in tables other than `_EXPORTS`, at the top level: whoever imports the table may import them all."""
    found: set[str] = set()
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id != TABLE and isinstance(value, ast.Dict):
            places = [v.value for v in value.values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
            if len(places) == len(value.values) and all(place.startswith(f"{PACKAGE}.") for place in places):
                found.update(places)
    return found


def import_closure(root: Path, names: set[str]) -> list[Path]:
    """Files of `root/steerlib` that code importing `names` depends on, directly or not.

    Packages on the way count with their `__init__.py`, and with the files in them that are not Python.
    """
    todo, seen, files = list(names), set(), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for path, module in _modules_on_the_way(root, name):
            files.add(path)
            todo.extend(_facts(path, path.stat().st_mtime_ns, module)[0])
        todo.extend(_through_table(root, name))
    folders = {path.parent for path in files}
    extra = {p for folder in folders for p in folder.iterdir() if p.is_file() and p.suffix not in (".py", ".pyc")}
    return sorted(files | extra)


def _modules_on_the_way(root: Path, name: str) -> list[tuple[Path, str]]:
    """For "steerlib.laws.additive.Law": the files of steerlib, steerlib.laws and steerlib.laws.additive."""
    found = []
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:end])
        module = ".".join(parts[:end])
        if (place / "__init__.py").is_file():
            found.append((place / "__init__.py", module))
        elif place.with_suffix(".py").is_file():
            found.append((place.with_suffix(".py"), module))
    return found


def _through_table(root: Path, name: str) -> list[str]:
    """Where a lazily exported name really lives."""
    package, _, attribute = name.rpartition(".")
    init = root.joinpath(*package.split("."), "__init__.py") if package else root / "absent"
    if not init.is_file():
        return []
    table = _facts(init, init.stat().st_mtime_ns, package)[1]
    chosen = list(table.values()) if attribute == "*" else [table[attribute]] if attribute in table else []
    return [f"{package}{module}" if module.startswith(".") else module for module in chosen]


@cache
def _facts(path: Path, _mtime: int, module: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """What a module imports, and its lazy table; read once per content."""
    source = path.read_text(encoding="utf-8")
    is_package = path.name == "__init__.py"
    names = imported_names(source, module=module, is_package=is_package)
    return tuple(names | tabled_places(source)), lazy_table(source) if is_package else {}
