"""One lock; pyproject.toml, environment.yml and what is installed agree with it."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from steerlib.workflow import lock
from steerlib.workflow.lock import Entry

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = lock.sections((ROOT / "requirements.lock").read_text())
ENTRIES = [entry for part in SECTIONS.values() for entry in part]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def direct(*, asked_for: bool = True) -> list[Requirement]:
    """Every requirement that pyproject.toml states, with or without the extras that one has to ask for."""
    extras = PROJECT["project"]["optional-dependencies"]
    chosen = [extra for name, extra in extras.items() if asked_for or name not in lock.ASKED_FOR]
    texts = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    return [Requirement(text) for text in [*texts, *(text for extra in chosen for text in extra)]]


def applies(entry: Entry, **environment: str) -> bool:
    return not entry.marker or Requirement(entry.requirement).marker.evaluate(environment)  # type: ignore[union-attr]


def pins(python: str) -> dict[str, Version]:
    """What the lock installs on Linux for a Python version such as "3.12.1"."""
    environment = {"python_version": python.rpartition(".")[0], "python_full_version": python, "sys_platform": "linux"}
    chosen = [entry for entry in ENTRIES if applies(entry, **environment)]
    names = [canonicalize_name(entry.name) for entry in chosen]
    assert len(names) == len(set(names)), "two versions of one package"
    return {name: Version(entry.version) for name, entry in zip(names, chosen, strict=True)}


def test_the_lock_parses_whole() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert len(ENTRIES) == sum(1 for line in text.splitlines() if line and "==" in line and not line.startswith("#"))
    assert len(ENTRIES) > 150
    assert list(SECTIONS) == ["packages", "torch", "cuda", "extras"] and all(SECTIONS.values())
    assert set(PROJECT["project"]["optional-dependencies"]) >= lock.ASKED_FOR


def test_all_but_torch_have_hashes() -> None:
    assert [(e.name, e.version) for e in ENTRIES if not e.hashes] == [("torch", "2.13.0")]
    assert all(digest.startswith("sha256:") and len(digest) == 71 for e in ENTRIES for digest in e.hashes)


@pytest.mark.parametrize("python", ["3.11.7", "3.12.1", "3.13.0"])
def test_every_direct_requirement_is_locked_within_its_range(python: str) -> None:
    locked = pins(python)
    for requirement in direct():
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_jupyter_book_stays_at_1() -> None:
    (requirement,) = [r for r in direct() if r.name == "jupyter-book"]
    assert not requirement.specifier.contains("2.0")
    assert pins("3.12.1")["jupyter-book"].major == 1


def test_environment_yml_pins_the_same_versions() -> None:
    parsed = yaml.safe_load((ROOT / "environment.yml").read_text())
    (listed,) = [item["pip"] for item in parsed["dependencies"] if isinstance(item, dict)]
    expected = [e for e in ENTRIES if not e.name.startswith(lock._CUDA) and e not in SECTIONS["extras"]]
    assert sorted(listed) == sorted(e.requirement.replace('"', "'") for e in expected)
    assert "torch==2.13.0" in listed


def test_the_files_are_what_make_lock_writes() -> None:
    in_order = sorted(ENTRIES, key=lambda e: e.name)  # make lock keeps uv's order, which is by name
    asked_for = frozenset(e.name for e in SECTIONS["extras"])
    assert lock.sections(lock.render_lock(in_order, asked_for)) == {
        name: sorted(part, key=lambda e: e.name) for name, part in SECTIONS.items()
    }


def test_the_lock_is_closed_and_installed() -> None:
    """From the direct requirements on, all that this interpreter needs is locked, in range, and installed as locked."""
    extras = {e.name for e in SECTIONS["extras"]}
    here = {canonicalize_name(e.name): e for e in ENTRIES if applies(e) and e.name not in extras}
    environment = {key: str(value) for key, value in default_environment().items()}
    todo = [(canonicalize_name(r.name), extra, r) for r in direct(asked_for=False) for extra in ("", *r.extras)]
    seen: set[tuple[str, str]] = set()
    while todo:
        name, extra, requirement = todo.pop()
        assert name in here, f"{requirement} is not in the lock"
        assert requirement.specifier.contains(here[name].version, prereleases=True), f"{requirement}: {here[name]}"
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        assert Version(importlib.metadata.version(name)).public == Version(here[name].version).public
        for text in importlib.metadata.requires(name) or []:
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({**environment, "extra": extra}):
                todo += [(canonicalize_name(wanted.name), more, wanted) for more in ("", *wanted.extras)]
    assert len({name for name, _ in seen}) > 100
