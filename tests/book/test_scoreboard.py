"""The scoreboard and the counts of the front page, through Sphinx and, where there is one, a browser."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from bs4 import BeautifulSoup, Tag
from docutils.utils import SystemMessage
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from steerlib.experiment.records import PageRecord, write_record
from steerlib.experiment.reference import accept
from tests.book.site import ROOT, served
from tests.book.test_browser import CHROMIUM, NO_BROWSER

CONF = """
import sys; sys.path.append({ext!r})
extensions = ["myst_parser", "sphinxcontrib.bibtex", "scoreboard"]
bibtex_bibfiles = ["papers.bib"]
root_doc = "book/index"
html_static_path = [{static!r}]
html_js_files = ["steering.js"]
suppress_warnings = ["config.cache"]
"""
PAPERS = """
@article{first2025, title = {A {Law} of u}, author = {Ada, A. and Bo, B.}, year = {2025}, journal = {J}}
@article{second2026, title = {Another Law}, author = {Cy, C.}, year = {2026}, journal = {J}}
"""
COMMON = {"says": "Something <b>that</b> can be checked & said.", "check": "notebooks/11_x", "where": "Table 1"}
EXACT = {**COMMON, "kind": "identity", "tolerance": {"absolute": 1e-6}, "profiles": ["tiny", "gpu", "paper"]}
SIGN = {**COMMON, "kind": "sign", "expects": "positive", "tolerance": {"level": 0.05}}
CLAIMS = [
    {**EXACT, "id": "a.identity", "paper": "first2025", "counterpart": "a.code"},
    {
        **EXACT, "id": "a.code", "paper": "first2025", "source": "code", "counterpart": "a.identity",
        "derived": "What <i>follows</i>.",
    },
    {
        **SIGN, "id": "a.sign", "paper": "first2025", "profiles": ["tiny"],
        "published": {"large-7b": {"ours": 77.4, "rival": 70.25}, "small": {"ours": 5, "rival": 4}},
    },
    {
        **SIGN, "id": "b.later", "paper": "second2026", "check": "notebooks/22_later", "profiles": ["gpu"],
        "published": {f"model_{row}": {"best_rival": row} for row in range(5)},
    },
]  # fmt: skip
CHECKS = {
    "a.identity": {"verdict": "reproduced", "estimate": 2e-9, "n": 7},
    "a.code": {"verdict": "contradicted", "estimate": 0.25},
    "a.sign": {
        "verdict": "not reproduced", "estimate": 0.012, "low": -0.02, "high": 0.05, "n": 420, "seeds": 5, "p": 0.21,
        "detectable": 0.043, "note": "against <rival>",
    },
}  # fmt: skip
PROFILES = ["tiny", "gpu", "paper"]


def record(profile: str = "tiny", **verdicts: str) -> PageRecord:
    checks = {name: {"claim": name, **check} for name, check in CHECKS.items()}
    for name, verdict in verdicts.items():
        checks[f"a.{name}"]["verdict"] = verdict
    given: dict[str, Any] = {
        "page": "11_x", "profile": profile, "plant": "some/toy", "seeds": (0,), "started": "2026-01-02T03:04:05",
        "finished": True, "checks": checks,
    }  # fmt: skip
    return PageRecord.model_validate(given)


@dataclass
class Project:
    """A book of three pages with its claims and one build."""

    root: Path

    def render(self) -> tuple[str, Path]:
        """Build the pages; gives the warnings and the folder."""
        told, out, source = io.StringIO(), self.root / "html", self.root / "source"
        with patch_docutils(str(source)), docutils_namespace():
            Sphinx(
                str(source), str(source), str(out), str(self.root / "trees"), "html", status=None, warning=told
            ).build()
        return told.getvalue(), out

    def page(self, name: str = "scoreboard") -> BeautifulSoup:
        """A page of a build without warnings."""
        if not (self.root / "html").exists():
            told, _ = self.render()
            assert told == ""
        return BeautifulSoup((self.root / "html" / "book" / f"{name}.html").read_text(), "html.parser")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The book as the tests that change nothing see it, built once."""
    with pytest.MonkeyPatch.context() as patch:
        made = prepare(tmp_path_factory.mktemp("board"), patch)
        told, _ = made.render()
    assert told == ""
    yield made


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return prepare(tmp_path, monkeypatch)


def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Write the book, its claims and its build."""
    source = tmp_path / "source"
    for folder in ("book", "notebooks"):
        (source / folder).mkdir(parents=True)
    ext, static = ROOT / "book" / "_ext", ROOT / "book" / "_static"
    (source / "conf.py").write_text(CONF.format(ext=str(ext), static=str(static)))
    (source / "papers.bib").write_text(PAPERS)
    toc = "```{toctree}\nscoreboard\nlist\n../notebooks/11_x\n```\n"
    (source / "book" / "index.md").write_text(f"# Front\n\n```{{verdict-counts}}\n```\n\n{toc}")
    (source / "book" / "scoreboard.md").write_text("# Board\n\n```{scoreboard}\n```\n")
    (source / "book" / "list.md").write_text("# Papers\n\n```{bibliography}\n:all:\n```\n")
    (source / "notebooks" / "11_x.md").write_text("# 11 A chapter\n")
    (tmp_path / "data" / "claims").mkdir(parents=True)
    (tmp_path / "data" / "claims" / "a.yml").write_text(yaml.safe_dump(CLAIMS))
    (tmp_path / "build" / "records").mkdir(parents=True)
    write_record(tmp_path / "build" / "records" / "11_x.json", record())
    monkeypatch.setenv("STEERLIB_ROOT", str(tmp_path))
    monkeypatch.setenv("STEERLIB_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("STEERLIB_PROFILE", "tiny")
    return Project(tmp_path)


def words(tag: Tag | None) -> str:
    assert tag is not None
    return " ".join(tag.get_text(" ").split())


def shown(row: Tag) -> dict[str, str]:
    """What a claim's last column says, by profiles."""
    return {str(line["data-profiles"]): words(line) for line in row.select("li[data-profiles]")}


def test_every_claim_is_there_with_its_verdicts_and_both_sides(built: Project) -> None:
    page = built.page()
    rows = {row["id"]: row for row in page.select("table.claims tbody tr")}
    assert list(rows) == ["claim-a-identity", "claim-a-code", "claim-a-sign", "claim-b-later"]
    sign = rows["claim-a-sign"]
    assert "Something <b>that</b> can be checked & said." in words(sign.th), "text is text, not markup"
    assert words(sign.select_one("td[data-label=Published]")) == (
        "large-7b ours 77.40, rival 70.25 small ours 5.0, rival 4.0"
    )
    said = shown(sign)
    assert list(said) == PROFILES
    assert said["tiny"] == (
        "tiny: not reproduced difference 0.012 [-0.02, 0.05] n = 420, 5 seeds, p = 0.21, "
        "smallest detectable effect 0.043 against <rival>"
    )
    assert said["gpu"] == "gpu: cannot be checked in this profile it is checked in tiny, not in gpu"
    assert shown(rows["claim-a-identity"]) == {
        "tiny": "tiny: reproduced largest deviation 2e-09 n = 7",
        "gpu paper": "gpu, paper: not run",
    }
    assert words(rows["claim-a-identity"].select_one("td[data-label=Published]")) == "no number"
    folded = words(rows["claim-b-later"].select_one("td[data-label=Published] details"))
    assert folded.startswith("5 rows of numbers model 0 best rival 0 model 1 best rival 1")


def test_links_lead_to_the_chapter_and_to_the_other_side_of_a_difference(built: Project) -> None:
    page = built.page()
    code = page.find(id="claim-a-code")
    assert isinstance(code, Tag)
    links = {words(link): link["href"] for link in code.find_all("a")}
    assert links == {"chapter 11": "../notebooks/11_x.html", "the text differs": "#claim-a-identity"}
    assert "what the released code does" in words(code.th)
    assert "We derive and check: What <i>follows</i>." in words(code.th)  # as text, apart from what is said
    later = page.find(id="claim-b-later")
    assert isinstance(later, Tag)
    assert "checked in chapter 22" in words(later)
    assert later.a is None, "no link to a chapter that is not there"


def test_papers_have_sections_and_counts(built: Project) -> None:
    page = built.page()
    sections = page.select("section.claims-of-paper")
    assert [words(section.h2).rstrip("# ¶") for section in sections] == ["A Law of u", "Another Law"]
    assert "3 claims; in profile tiny, 1 reproduced, 1 not reproduced, 1 contradicted." in words(sections[0])
    table = page.select_one("table.count")
    assert table is not None
    found = {words(row.th): [words(cell) for cell in row.find_all("td")] for row in table.select("tbody tr")}
    assert found == {
        "reproduced": ["1", "0", "1"],
        "not reproduced": ["1", "0", "1"],
        "contradicted": ["1", "0", "1"],
        "cannot be checked in this profile": ["0", "1", "1"],
        "not run": ["0", "0", "0"],
    }
    assert "Profile tiny : 1 page, executed for this build, run on toy (2026-01-02)" in words(page.article or page.body)


def test_another_profile_is_shown_as_it_was_accepted_and_this_one_as_it_was_built(project: Project) -> None:
    accept([record("gpu", code="reproduced")], project.root / "data" / "reference" / "gpu", plant="some/toy")
    accept([record(code="not run")], project.root / "data" / "reference" / "tiny", plant="some/toy")
    row = project.page().find(id="claim-a-code")
    assert isinstance(row, Tag)
    said = shown(row)
    assert list(said) == PROFILES
    assert [said[name].split(" ")[1] for name in PROFILES] == ["contradicted", "reproduced", "not"]


def test_without_a_build_what_was_accepted_is_shown(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEERLIB_BUILD")
    accept([record()], project.root / "data" / "reference" / "tiny", plant="some/toy")
    assert "as last accepted" in words(project.page().body)


def test_before_any_run_every_claim_is_there(project: Project) -> None:
    (project.root / "build" / "records" / "11_x.json").unlink()
    page = project.page()
    assert "No page has been run yet." in words(page.body)
    assert len(page.select("table.claims tbody tr")) == len(CLAIMS)


def test_the_front_page_counts_this_builds_verdicts_and_links_to_them(built: Project) -> None:
    page = built.page("index")
    tiles = {words(tile): tile.a["href"] for tile in page.select("ul.verdict-counts li") if tile.a}
    assert tiles == {
        "1 reproduced": "scoreboard.html?verdict=reproduced&profile=tiny",
        "1 not reproduced": "scoreboard.html?verdict=not-reproduced&profile=tiny",
        "1 contradicted": "scoreboard.html?verdict=contradicted&profile=tiny",
        "1 cannot be checked in this profile": (
            "scoreboard.html?verdict=cannot-be-checked-in-this-profile&profile=tiny"
        ),
    }
    assert words(page.select_one(".verdict-counts-told")) == "Of 4 claims of 2 papers, in profile tiny:"


def test_a_record_left_over_from_a_chapter_that_is_gone_is_not_shown(project: Project) -> None:
    gone = record().model_copy(update={"page": "10_gone", "plant": "another"})
    write_record(project.root / "build" / "records" / "10_gone.json", gone)
    assert len(project.page().select("table.claims tbody tr")) == len(CLAIMS)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "build" / "records" / "11_x.json").write_text("{"), "11_x.json is truncated"),
        (lambda root: (root / "source" / "papers.bib").write_text(PAPERS.replace("second", "third")), "second2026"),
        (
            lambda root: (root / "data" / "claims" / "a.yml").write_text(yaml.safe_dump(CLAIMS[1:])),
            "a.identity",
        ),
    ],
    ids=["record", "bibliography", "claim"],
)
def test_what_cannot_be_read_is_named(project: Project, spoil: Any, message: str) -> None:
    spoil(project.root)
    try:
        told, _ = project.render()
    except SystemMessage as error:
        told = str(error)
    assert message in told


def test_no_script_no_menus_and_the_whole_table(built: Project) -> None:
    form = built.page().select_one("form.claims-filter")
    assert form is not None
    assert form.has_attr("hidden"), "menus that nothing answers are not shown"
    assert {str(menu["name"]) for menu in form.select("label select")} == {"paper", "verdict", "kind", "profile"}
    output = form.select_one("output")
    assert output is not None
    assert output["aria-live"] == "polite"


@pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)
def test_menus_choose_claims_and_the_address_keeps_the_choice(built: Project) -> None:
    from playwright.sync_api import sync_playwright

    with served(built.root / "html") as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(f"{address}book/scoreboard.html?verdict=contradicted&profile=tiny&kind=nonsense")

        def rows() -> list[str]:
            found = page.locator("table.claims tbody tr")
            return [str(row.get_attribute("id")) for row in found.all() if row.is_visible()]

        def counted() -> str:
            return page.locator("form.claims-filter output").inner_text()

        assert (rows(), counted()) == (["claim-a-code"], "1 of 4 claims")
        assert page.locator("#claim-a-code li[data-profiles='gpu paper']").is_hidden()
        assert page.get_by_role("combobox", name="Paper").is_visible()
        page.get_by_role("combobox", name="Verdict").select_option("")
        page.get_by_role("combobox", name="Kind").select_option("sign")
        assert rows() == ["claim-a-sign", "claim-b-later"]
        assert page.url.endswith("?kind=sign&profile=tiny")
        page.get_by_role("combobox", name="Profile").select_option("gpu")
        page.get_by_role("combobox", name="Verdict").select_option("not-run")
        assert rows() == ["claim-b-later"]
        page.get_by_role("combobox", name="Paper").select_option("first2025")
        page.get_by_role("combobox", name="Verdict").select_option("reproduced")
        assert (rows(), counted()) == ([], "No claim matches; there are 4")
        page.get_by_role("button", name="Show all").press("Enter")
        page.wait_for_function("document.querySelector('output').textContent === '4 of 4 claims'")
        assert len(rows()) == 4
        assert page.url.endswith("scoreboard.html")
        browser.close()
