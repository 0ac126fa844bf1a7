"""Extensions of the book, function by function, and once through Sphinx itself; the scoreboard has tests of its own."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docutils import nodes
from pybtex.database import Entry, Person
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from steerlib.experiment.cells import Cell
from steerlib.experiment.verification import Recomputed, Verification
from steerlib.experiment.verified import Report, Verified
from tests.book.site import ROOT


def extension(name: str) -> Any:
    """A module of book/_ext, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


steerlib_book, house_bibliography = extension("steerlib_book"), extension("house_bibliography")
EDIT = "https://github.com/o/r/edit/main/"


def test_the_edit_link_of_a_notebook_opens_its_text_source() -> None:
    buttons = [
        {"label": "launch", "url": "https://colab/x.ipynb"},
        {"label": "group", "buttons": [{"label": steerlib_book.EDIT_BUTTON, "url": EDIT + "notebooks/01_x.ipynb"}]},
    ]
    context = {
        "header_buttons": buttons,
        "get_edit_provider_and_url": lambda: ("GitHub", EDIT + "notebooks/01_x.ipynb"),
    }
    steerlib_book.edit_the_text_source(None, "", "", context, None)  # type: ignore[arg-type]
    assert buttons[1]["buttons"][0]["url"] == EDIT + "notebooks/01_x.py"
    assert buttons[0]["url"] == "https://colab/x.ipynb"
    assert context["get_edit_provider_and_url"]() == ("GitHub", EDIT + "notebooks/01_x.py")


def test_the_edit_link_of_a_prose_page_is_left_alone() -> None:
    assert steerlib_book.text_source(EDIT + "book/run.md") == EDIT + "book/run.md"


def test_bibliography_entries_are_list_items() -> None:
    context = {"body": '<div role="list"><div class="citation" role="doc-biblioentry">x</div></div>'}
    steerlib_book.list_items_in_bibliography(None, "", "", context, None)
    assert context["body"] == '<div role="list"><div class="citation" role="listitem">x</div></div>'
    steerlib_book.list_items_in_bibliography(None, "search", "", {}, None)  # a page without a body


@pytest.mark.parametrize(
    ("alt", "wrong"),
    [
        (None, True),
        ("../_images/abc123.png", True),
        ("abc123.png", True),
        ("abc123", True),
        ("", False),
        ("The share of true answers rises with strength, then falls.", False),
    ],
)
def test_a_file_name_is_no_text_alternative(alt: str | None, wrong: bool) -> None:
    assert bool(steerlib_book.alternative_problem(alt, "../_images/abc123.png")) == wrong


@pytest.mark.parametrize(
    ("line", "escaped"),
    [
        ("the norm |u| and |a_K|^2", r"the norm \|u\| and \|a_K\|^2"),
        ("kept in ``a | b`` and `x | y`, not in c | d", r"kept in ``a | b`` and `x | y`, not in c \| d"),
        (r"already \| so", r"already \| so"),
        ("no bars", "no bars"),
    ],
)
def test_bars_in_docstrings_are_norms(line: str, escaped: str) -> None:
    assert steerlib_book.escape_bars(line) == escaped


def test_code_blocks_in_docstrings_are_left_alone() -> None:
    lines = ["An example with |u|::", "", "    x = a | b", "", "after |v|"]
    steerlib_book.norms_not_substitutions(None, "", "", None, None, lines)  # type: ignore[arg-type]
    assert lines == [r"An example with \|u\|::", "", "    x = a | b", "", r"after \|v\|"]


class Domain:
    def __init__(self, **kinds: str) -> None:
        self.objects = {name.replace("__", "."): SimpleNamespace(objtype=kind) for name, kind in kinds.items()}

    def resolve_xref(self, _env: object, _page: object, _builder: object, kind: str, name: str, *_: object) -> str:
        return f"{kind} {name}"


class Pages:
    """An environment of which every page has been read."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain

    def get_domain(self, _name: str) -> Domain:
        return self.domain


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("Plant", "class steerlib.plant.Plant"),
        ("plant.Plant", "class steerlib.plant.Plant"),
        ("DriftError", "class steerlib.DriftError"),
        ("Law", None),  # two of this name
        ("load", None),  # a method
        ("lant", None),
        ("other.Plant", None),
        ("Unknown", None),
    ],
)
def test_a_class_that_a_signature_names_is_found_by_the_end_of_its_name(target: str, found: str | None) -> None:
    domain = Domain(
        steerlib__plant__Plant="class", steerlib__plant__Plant__load="method", steerlib__laws__Law="class",
        steerlib__bounds__Law="class", steerlib__DriftError="exception",
    )  # fmt: skip
    node, text = nodes.Element(refdomain="py", reftarget=target, refdoc="p"), nodes.Text(target)
    app, pages = SimpleNamespace(builder=None), Pages(domain)
    got = steerlib_book.resolve_annotation(app, pages, node, text)
    assert got == (text if found is None else found)
    in_prose = nodes.literal(target, target)
    if found is None:
        assert steerlib_book.resolve_annotation(app, pages, node, in_prose) is None, "prose must name what exists"
    node["refdomain"] = "std"
    assert steerlib_book.resolve_annotation(app, pages, node, text) is None


def entry(*authors: str, year: str = "2024") -> Entry:
    return Entry("misc", fields={"year": year, "title": "T"}, persons={"author": [Person(name) for name in authors]})


@pytest.mark.parametrize(
    ("authors", "label"),
    [
        (["Wong, Bang"], "Wong, 2024"),
        (["Eldan, Ronen", "Li, Yuanzhi"], "Eldan and Li, 2024"),
        ([r"{\AA}str{\"o}m, Karl Johan", "Murray, Richard M."], "Åström and Murray, 2024"),
        (["A, B", "C, D", "E, F"], "A et al., 2024"),
        (["van der Berg, Jan"], "van der Berg, 2024"),
    ],
)
def test_a_work_is_labelled_by_author_and_year(authors: list[str], label: str) -> None:
    assert house_bibliography.label(entry(*authors)) == label


def test_equal_labels_are_told_apart() -> None:
    style = house_bibliography.AuthorYearLabels()
    labels = list(style.format_labels([entry("A, B"), entry("C, D"), entry("A, E")]))
    assert labels == ["A, 2024a", "C, 2024", "A, 2024b"]


CONF = """
import sys; sys.path.append({ext!r})
extensions = ["myst_parser", "steerlib_book", "recomputed"]
root_doc = "book/index"
html_title = "A <book>"
suppress_warnings = ["config.cache"]
"""


def render(tmp_path: Path, page: str) -> tuple[str, Path]:
    """Build a one-page book; gives the warnings and the folder of the pages."""
    source = tmp_path / "source"
    (source / "book").mkdir(parents=True)
    (source / "conf.py").write_text(CONF.format(ext=str(ROOT / "book" / "_ext")))
    (source / "book" / "index.md").write_text(page)
    (source / "book" / "dot.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    told, out = io.StringIO(), tmp_path / "html"
    with patch_docutils(str(source)), docutils_namespace():
        Sphinx(str(source), str(source), str(out), str(tmp_path / "trees"), "html", status=None, warning=told).build()
    return told.getvalue(), out


def test_an_image_without_text_is_a_warning(tmp_path: Path) -> None:
    told, _ = render(tmp_path, "# T\n\n```{image} dot.png\n```\n")
    assert "no alternative text" in told


def test_the_first_address_leads_to_the_front_page(tmp_path: Path) -> None:
    told, out = render(tmp_path, "# T\n\n```{image} dot.png\n:alt: a dot in the middle\n```\n")
    assert told == ""
    page = (out / "index.html").read_text()
    assert 'content="0; url=book/index.html"' in page
    assert "<title>A &lt;book&gt;</title>" in page
    assert 'lang="en-GB"' in page


def recomputed(tmp_path: Path) -> str:
    """What a page says that was built now."""
    told, out = render(tmp_path, "# T\n\n```{recomputed}\n```\n")
    assert told == ""
    return (out / "book" / "index.html").read_text()


def test_pages_say_what_their_build_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Verification((Recomputed(Cell(plant="p", task="truth"), 100, 1e-7, 2.0),), 108, 17)
    lines = "**1 of 108** shipped records of `push` were computed again: p: truth, unsteered. **All agree**."
    grids = (Verified("push", "d", lines, found), Verified("race", "d", "all *are* stale", None))
    Report(key="k", when="2026-01-02 10:45", grids=grids).write(tmp_path)
    monkeypatch.setenv("STEERLIB_BUILD", str(tmp_path))
    page = recomputed(tmp_path)
    assert "Computed again on 2026-01-02, before these pages were built:" in page
    assert "<strong>1 of 108</strong> shipped records of" in page and "p: truth, unsteered" in page
    assert "its records are stale" in page and page.count("<li><p>") == 2


@pytest.mark.parametrize("built", [True, False])
def test_pages_that_nothing_was_computed_for_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: bool
) -> None:
    monkeypatch.delenv("STEERLIB_BUILD", raising=False)
    if built:
        monkeypatch.setenv("STEERLIB_BUILD", str(tmp_path))
    assert "nothing was computed again" in recomputed(tmp_path)
