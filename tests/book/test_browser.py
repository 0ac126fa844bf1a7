"""The built book in a real browser: Chromium of the system, no network but this machine.

A page is opened once, and looked at in both modes and widths: opening it and setting its mathematics is what costs.
Pages are dealt into hands of similar size, so that the workers of `make test` share them. Contrast is what costs most,
by far, and is decided by the classes of an element and of what it stands in: one text of each such kind is looked at in
both modes, and no kind again by the same hand.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Response,
    Route,
    TimeoutError,
    sync_playwright,
)

from tests.book.site import Site, served

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
NO_BROWSER = (
    "no Chromium on the path. Install it (Debian and Ubuntu: apt install chromium) to check the pages in a browser"
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)

Mode = Literal["light", "dark"]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
HANDS = 4
# Pages that Sphinx makes by itself are looked at for errors and width, but are not the book's to word.
GENERATED = {"genindex.html", "py-modindex.html", "prf-prf.html", "search.html"}
SERIOUS = {"serious", "critical"}
MODES: tuple[Mode, ...] = ("light", "dark")
WCAG = """() => axe.run(document, {
    preload: false, resultTypes: ['violations'], rules: {'color-contrast': {enabled: false}},
    runOnly: {type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']},
}).then(found => found.violations)"""
CONTRAST = """() => window.fresh.length === 0 ? [] : axe.run({include: window.fresh}, {
    preload: false, resultTypes: ['violations'], runOnly: {type: 'rule', values: ['color-contrast']},
}).then(found => found.violations)"""
# Marks one text of each kind that is not known, and gives all that are known then. Rows of tables come in two colours.
KINDS = """known => {
    const one = e => [e.localName, e.className.baseVal ?? e.className, e.getAttribute('style'),
        e.matches('tr') && [...e.parentElement.children].indexOf(e) % 2].join('.');
    const kind = e => e === document.body ? '' : one(e) + '<' + kind(e.parentElement);
    const speaks = e => [...e.childNodes].some(part => part.nodeType === Node.TEXT_NODE && part.data.trim());
    const seen = new Set(known);
    window.fresh = [...document.querySelectorAll('body *')].filter(e =>
        speaks(e) && !e.closest('svg, script, style, noscript') && seen.size < seen.add(kind(e)).size);
    return [...seen];
}"""
TYPESET = "() => window.MathJax?.startup?.promise?.then(() => true) ?? true"
FORMULAS = """() => ({
    written: document.querySelectorAll('.math').length,
    set: document.querySelectorAll('.math mjx-container').length,
    wrong: [...document.querySelectorAll('mjx-merror, [data-mjx-error]')].map(e => e.textContent.slice(0, 80)),
})"""
WIDER = """() => {
    const page = document.documentElement;
    if (page.scrollWidth <= window.innerWidth) return null;
    const sticksOut = e => e.getBoundingClientRect().right > window.innerWidth + 1;
    const last = [...document.querySelectorAll('body *')].filter(sticksOut).at(-1);
    const what = `${last?.tagName}.${last?.className}: ${last?.textContent.trim().slice(0, 60)}`;
    return `${page.scrollWidth} > ${window.innerWidth} px, ${what}`;
}"""
FOLLOWS = "mode => document.documentElement.dataset.theme === mode"
THEME = "() => document.documentElement.dataset.theme"


@dataclass
class Watched:
    """A page that remembers what went wrong since it was last asked."""

    page: Page
    trouble: list[str] = field(default_factory=list)

    def on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.trouble.append(f"console: {message.text}")

    def on_response(self, response: Response) -> None:
        if response.status >= 400:
            self.trouble.append(f"{response.status}: {response.url}")

    def open(self, address: str) -> list[str]:
        """Open an address, wait for its mathematics; gives and forgets the trouble."""
        self.page.goto(address, wait_until="load")
        self.page.evaluate(TYPESET)
        told, self.trouble = self.trouble, []
        return told

    def become(self, width: str) -> None:
        """Change the size of the window."""
        self.page.set_viewport_size({"width": WIDTHS[width][0], "height": WIDTHS[width][1]})

    def shows(self, mode: Mode) -> str | None:
        """Let the system ask for a mode; gives what is wrong if the page does not follow."""
        self.page.emulate_media(color_scheme=mode)
        try:
            self.page.wait_for_function(FOLLOWS, arg=mode, timeout=3_000)
        except TimeoutError:
            return f"shown in {self.page.evaluate(THEME)}, expected {mode}"
        return None


@pytest.fixture(scope="module")
def address(site: Site) -> Iterator[str]:
    with served(site.root) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # A process that runs as root (containers) has no sandbox to offer.
    arguments = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=[*arguments, "--disable-dev-shm-usage"])
        yield launched
        launched.close()


@contextmanager
def watched(browser: Browser, *, width: str) -> Iterator[Watched]:
    size = WIDTHS[width]
    context: BrowserContext = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="light", reduced_motion="reduce"
    )
    seen = Watched(context.new_page())

    def only_this_machine(route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            seen.trouble.append(f"asked for {route.request.url}")
            route.abort()

    context.route("**/*", only_this_machine)
    seen.page.on("console", seen.on_console)
    seen.page.on("pageerror", lambda error: seen.trouble.append(f"script: {error}"))
    seen.page.on("requestfailed", lambda request: seen.trouble.append(f"failed: {request.url}"))
    seen.page.on("response", seen.on_response)
    try:
        yield seen
    finally:
        context.close()


def accessibility_problems(page: Page, rules: str) -> list[str]:
    """Violations of serious or critical impact: of all rules but contrast, or of contrast where texts are marked."""
    problems = []
    for violation in page.evaluate(rules):
        if violation["impact"] in SERIOUS:
            for node in violation["nodes"][:3]:
                why = "; ".join(part["message"] for part in [*node["any"], *node["all"], *node["none"]])
                problems.append(f"{violation['id']} ({len(violation['nodes'])}): {node['html'][:120]} {why[:160]}")
    return problems


def sideways(page: Page, what: str) -> list[str]:
    """What sticks out of the window, if anything does."""
    wide = page.evaluate(WIDER)
    return [f"{what}: scrolls sideways: {wide}"] if wide else []


def unfolding_problems(page: Page) -> list[str]:
    """What is wrong with the last folded cell of a chapter, a solution."""
    box = page.locator("details.hide").last
    code = box.locator("div.highlight").last
    if code.is_visible():
        return ["the solution is open from the start"]
    box.locator("summary").click()
    return [] if code.is_visible() else ["the solution does not open"]


@pytest.mark.parametrize("hand", range(HANDS))
def test_every_page(site: Site, address: str, browser: Browser, hand: int) -> None:
    """No error, no request that fails or leaves this machine, no sideways scrolling, mathematics set, accessible."""
    found: list[str] = []
    kinds: list[str] = []
    chapters = {page.name for page in site.chapters}
    # Dealt by size, so that no hand gets all chapters.
    pages = sorted(set(site.pages) - {"index.html"}, key=lambda name: site.pages[name].path.stat().st_size)
    with watched(browser, width="desktop") as seen:
        for name in pages[hand::HANDS]:
            problems = seen.open(address + name)
            formulas = seen.page.evaluate(FORMULAS)
            if formulas["written"] > formulas["set"] or formulas["wrong"]:
                problems.append(f"mathematics: {formulas}")
            # Contrast does not depend on the width, and nothing but contrast depends on the mode.
            accessible = name not in GENERATED
            if accessible:
                seen.page.evaluate(AXE_SCRIPT)
                kinds = seen.page.evaluate(KINDS, kinds)
                problems += accessibility_problems(seen.page, WCAG)
            for mode in MODES:
                problems += filter(None, [seen.shows(mode)])
                problems += sideways(seen.page, mode)
                if accessible:
                    problems += [f"{mode}: {problem}" for problem in accessibility_problems(seen.page, CONTRAST)]
            seen.shows("light")
            seen.become("phone")
            problems += sideways(seen.page, "phone")
            if name in chapters:
                problems += unfolding_problems(seen.page)
            seen.become("desktop")
            found += [f"{name}: {problem}" for problem in [*problems, *seen.trouble]]
            seen.trouble.clear()
    assert not found, "\n".join(found)


def test_a_text_that_is_hard_to_read_is_found_though_its_kind_is_known(address: str, browser: Browser) -> None:
    with watched(browser, width="desktop") as seen:
        seen.open(address + "book/notation.html")
        seen.page.evaluate(AXE_SCRIPT)
        kinds = seen.page.evaluate(KINDS, [])
        assert len(kinds) > 20 and not accessibility_problems(seen.page, CONTRAST)
        assert seen.page.evaluate(KINDS, kinds) == kinds and not accessibility_problems(seen.page, CONTRAST)
        last = "[...document.querySelectorAll('article p')].at(-1)"
        for fault in ("style.color = '#eee'", "className = 'faint'"):
            seen.page.add_style_tag(content=".faint { color: #eee !important; }")
            seen.page.evaluate(f"() => {{ {last}.removeAttribute('style'); {last}.{fault}; }}")
            seen.page.evaluate(KINDS, kinds)
            problems = accessibility_problems(seen.page, CONTRAST)
            assert problems and all(problem.startswith("color-contrast") for problem in problems)


def test_a_phone_opens_a_chapter(site: Site, address: str, browser: Browser) -> None:
    """Opened at that width, and not only shrunk to it; the shortest chapter stands for all."""
    shortest = min(site.chapters, key=lambda page: page.path.stat().st_size)
    with watched(browser, width="phone") as seen:
        assert not seen.open(address + shortest.name)
        assert not sideways(seen.page, "phone")
        assert not unfolding_problems(seen.page)


def test_a_figure_drawn_wide_keeps_its_letters_on_a_phone(site: Site, address: str, browser: Browser) -> None:
    """Ten points of a figure drawn 700 pixels wide are 13 pixels; 350 pixels wide, they would be less than seven."""
    name = next(page.name for page in site.chapters if page.name.startswith("notebooks/11_"))
    look = """() => [...document.querySelectorAll('.bd-article .cell_output img')].map(image => ({
        drawn: image.naturalWidth, shown: image.getBoundingClientRect().width,
        box: image.closest('.cell_output').clientWidth, key: image.closest('.cell_output').tabIndex}))"""
    with watched(browser, width="phone") as seen:
        assert not seen.open(address + name)
        assert not sideways(seen.page, "phone")
        figures = seen.page.evaluate(look)
    assert len(figures) > 5 and {figure["drawn"] > 620 for figure in figures} == {True, False}
    for figure in figures:
        assert figure["shown"] > 0.6 * figure["drawn"], figure
        if figure["drawn"] > 620:
            assert figure["shown"] > figure["box"] and figure["key"] == 0, "it scrolls, also without a mouse"


def test_the_first_address_leads_to_the_front_page(address: str, browser: Browser) -> None:
    with watched(browser, width="phone") as seen:
        seen.page.goto(address)
        seen.page.wait_for_url(address + "book/index.html", timeout=10_000)
        assert not seen.trouble


def test_the_theme_button_switches_the_colours(address: str, browser: Browser) -> None:
    with watched(browser, width="desktop") as seen:
        seen.open(address + "book/index.html")
        background = "() => getComputedStyle(document.body).backgroundColor"
        text = "() => getComputedStyle(document.querySelector('article p')).color"
        by_theme: dict[str, tuple[str, str]] = {}
        for _ in range(3):  # automatic, light, dark, in the theme's order
            seen.page.locator("button.theme-switch-button:visible").first.click()
            by_theme[seen.page.evaluate(THEME)] = (seen.page.evaluate(background), seen.page.evaluate(text))
        assert set(by_theme) == {"light", "dark"}
        assert by_theme["light"][0] != by_theme["dark"][0]
        assert by_theme["light"][1] != by_theme["dark"][1]


def test_search_finds_a_page(address: str, browser: Browser) -> None:
    with watched(browser, width="desktop") as seen:
        trouble = seen.open(address + "search.html?q=jacobian")
        # Results are put there one after another; the page with the word in its middle is not the first of them.
        seen.page.wait_for_selector("#search-results li a[href*='notation.html']", timeout=10_000)
        assert not trouble


def test_every_chapter_has_a_folded_solution(site: Site) -> None:
    """Whether it opens is asked of every page above."""
    assert site.chapters
    assert not [page.name for page in site.chapters if not page.soup.select("details.hide")]
