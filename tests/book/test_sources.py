"""The prose pages, their configuration and the vendored files, before anything is built."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import yaml

from steerlib.experiment.reference import read_reference
from steerlib.files import page_references
from tests.book.site import ROOT, contents

BOOK = ROOT / "book"
VENDOR = BOOK / "_static" / "vendor"
PROSE = sorted(BOOK.glob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", flags=re.S | re.M)
AMERICAN = re.compile(
    r"\b(behavior|color|center|favor|neighbor|analyz|modeling|modeled|labeled|labeling|traveling|optimiz|normaliz"
    r"|summariz|generaliz|initializ|linearization|minimiz|maximiz|catalog\b|program(?:me)?r? defense)\w*",
    flags=re.I,
)


def config() -> dict:
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def test_theme_options_stand_in_one_place() -> None:
    """Jupyter Book would silently drop these keys beside html_theme_options."""
    settings = config()
    assert not {"html", "repository", "launch_buttons"} & set(settings)
    options = settings["sphinx"]["config"]["html_theme_options"]
    assert options["repository_url"].startswith("https://github.com/")
    assert {"colab_url", "binderhub_url"} <= set(options["launch_buttons"])


def test_nothing_is_executed_or_fetched_while_building() -> None:
    settings = config()
    assert settings["execute"]["execute_notebooks"] == "off"
    sphinx = settings["sphinx"]["config"]
    assert sphinx["nb_ipywidgets_js"] == {}
    assert (BOOK / "_static" / sphinx["mathjax_path"]).is_file()


def test_the_contents_name_files_that_exist() -> None:
    named = contents()
    assert len(named) == len(set(named))
    pages = {name for name in named if name.startswith("book/")}
    assert pages == {f"book/{page.stem}" for page in PROSE}


def test_every_executed_page_has_accepted_figures_and_every_accepted_page_is_in_the_contents() -> None:
    """Without a reference nothing a page shows can drift; one whose page is gone is compared with nothing."""
    executed = {name.removeprefix("notebooks/") for name in contents() if name.startswith("notebooks/")}
    accepted: dict[str, set[str]] = {}
    for file in page_references(ROOT / "data"):
        accepted.setdefault(file.parent.name, set()).add(file.stem)
        assert read_reference(file).record.page == file.stem
    assert executed, "the book has executed pages"
    assert accepted["tiny"] == executed
    profiles = {file.stem for file in (ROOT / "data" / "profiles").glob("*.yml")}
    for profile, pages in accepted.items():
        assert profile in profiles and pages <= executed, profile


def test_vendored_files_are_those_that_were_fetched() -> None:
    listed = {}
    for line in (VENDOR / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ", 1)
        listed[name] = digest
    found = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name not in {"SHA256SUMS", "README.md"}
    }
    assert found == listed
    assert sum(path.stat().st_size for path in VENDOR.rglob("*") if path.is_file()) < 3_000_000
    for package in VENDOR.iterdir():
        assert not package.is_dir() or (package / "LICENSE").is_file(), f"{package.name} has no licence beside it"


def test_every_work_in_the_bibliography_has_an_address_or_a_publisher() -> None:
    entries = re.split(r"^@", (BOOK / "references.bib").read_text(encoding="utf-8"), flags=re.M)[1:]
    keys = [re.match(r"\w+\{([^,]+),", entry).group(1) for entry in entries]  # type: ignore[union-attr]
    assert len(keys) == len(set(keys))
    for key, entry in zip(keys, entries, strict=True):
        assert re.fullmatch(r"[a-z]+\d{4}[a-z]+", key), key
        assert re.search(r"^\s*(eprint|url|publisher|journal) = ", entry, flags=re.M), key
        for field in ("title", "author", "year"):
            assert re.search(rf"^\s*{field} = ", entry, flags=re.M), f"{key} has no {field}"


@pytest.mark.parametrize("page", [*PROSE, *NOTEBOOKS, ROOT / "README.md"], ids=lambda path: path.name)
def test_spelling_is_british(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":
        text = "\n".join(line for line in text.splitlines() if line.startswith("# "))
    found = {match.group() for match in AMERICAN.finditer(CODE.sub("", text))}
    assert not found, f"{page.name}: {sorted(found)}"


@pytest.mark.parametrize("page", PROSE, ids=lambda path: path.name)
def test_a_page_has_a_label_and_one_title(page: Path) -> None:
    lines = CODE.sub("", page.read_text(encoding="utf-8")).splitlines()
    assert re.fullmatch(r"\([a-z-]+\)=", lines[0])
    assert sum(line.startswith("# ") for line in lines) == 1
