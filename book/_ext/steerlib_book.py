"""Sphinx extension of the book: what the theme and its plug-ins do not get right for this project.

Knows the layout of the repository (a chapter is `notebooks/NN_name.py`, paired with an `.ipynb`) and the parts of
Sphinx that it corrects. Knows nothing about steerlib, about what the chapters say, or about how they were executed.

- The edit link of a chapter opens its text source, `.py`; Colab and Binder open the `.ipynb`.
- Code of `sphinx_thebe` (live cells, loaded from a content network) is left out of the pages.
- The site's `index.html` forwards to the front page as a valid, readable document.
- An image without a text alternative is a warning, and so an error of the strict build.
- Vertical bars in docstrings (`|u|`) are norms, not substitutions of reStructuredText.
- A class of steerlib that is named in a signature without its module becomes a link.
"""

from __future__ import annotations

import html
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sphinx.application import Sphinx

logger = logging.getLogger(__name__)

EDIT_BUTTON = "source-edit-button"
# Both branches of a literal or a role are kept as they are; only bars outside them are escaped.
_LITERAL = re.compile(r"(``.+?``|`[^`]+`)")
_FORWARD = """<!DOCTYPE html>
<html lang="en-GB">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta http-equiv="refresh" content="0; url={target}">
    <title>{title}</title>
  </head>
  <body>
    <h1>{title}</h1>
    <p><a href="{target}">Open the book</a></p>
  </body>
</html>
"""


def text_source(url: str) -> str:
    """The address of a notebook's text source, given the address of its `.ipynb`; other addresses as they are."""
    return url.removesuffix(".ipynb") + ".py" if url.endswith(".ipynb") else url


def _buttons(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every button of the header, those inside groups too."""
    for entry in entries:
        yield entry
        yield from _buttons(entry.get("buttons", []))


def edit_the_text_source(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Point the edit link of a notebook page at the file that is edited (handler of `html-page-context`)."""
    for button in _buttons(context.get("header_buttons", [])):
        if button.get("label") == EDIT_BUTTON:
            button["url"] = text_source(button["url"])
    original: Callable[[], tuple[str, str]] | None = context.get("get_edit_provider_and_url")
    if original is not None:

        def provider_and_url() -> tuple[str, str]:
            provider, url = original()
            return provider, text_source(url)

        context["get_edit_provider_and_url"] = provider_and_url


def leave_out_thebe(app: Sphinx) -> None:
    """Disconnect `sphinx_thebe`, which Jupyter Book always loads (handler of `builder-inited`)."""
    for listeners in app.events.listeners.values():
        listeners[:] = [entry for entry in listeners if not entry.handler.__module__.startswith("sphinx_thebe")]


def leave_out_thebe_style(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Drop the style sheet that belongs to the disconnected extension (handler of `html-page-context`)."""
    files = context.get("css_files", [])
    files[:] = [file for file in files if "sphinx-thebe" not in str(getattr(file, "filename", file))]


def write_forwarding_page(app: Sphinx, exception: Exception | None) -> None:
    """Write `index.html` for a book whose front page is elsewhere (handler of `build-finished`).

    Jupyter Book would write one without a title or a language.
    """
    root = app.config.root_doc
    if exception is not None or app.builder.format != "html" or root == "index":
        return
    page = _FORWARD.format(target=html.escape(f"{root}.html"), title=html.escape(app.config.html_title))
    Path(app.outdir, "index.html").write_text(page, encoding="utf-8")


def alternative_problem(alt: str | None, uri: str) -> str | None:
    """What is wrong with the text alternative of an image, or None. Empty text is allowed: a decorative image says so."""
    if alt is None:
        return "no alternative text"
    name = PurePosixPath(uri).name
    if alt.strip() and alt.strip() in {uri, name, PurePosixPath(name).stem}:
        return f"a file name as alternative text ({alt.strip()!r})"
    return None


class CheckImageText(SphinxPostTransform):
    """Warn of every image that a screen reader could not read out.

    A post-transform, because the images of executed cells enter the document only when a page is written.
    """

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        """Check the images of one page."""
        for image in self.document.findall(nodes.image):
            problem = alternative_problem(image.get("alt"), image.get("uri", ""))
            if problem:
                logger.warning(
                    "image with %s: give it one (in a notebook: cell metadata mystnb.image.alt)",
                    problem,
                    location=image if image.source else self.env.docname,
                    type="steerlib",
                    subtype="alt",
                )


def escape_bars(line: str) -> str:
    r"""Escape the vertical bars of one docstring line that stand outside literals."""
    parts = _LITERAL.split(line)
    return "".join(part if index % 2 else re.sub(r"(?<!\\)\|", r"\\|", part) for index, part in enumerate(parts))


def norms_not_substitutions(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Keep `|u|` in a docstring (handler of `autodoc-process-docstring`); indented code blocks are left alone."""
    in_block = False
    for index, line in enumerate(lines):
        if in_block and line.strip() and not line.startswith(" "):
            in_block = False
        if not in_block:
            lines[index] = escape_bars(line)
        if line.rstrip().endswith("::"):
            in_block = True


def link_short_name(
    app: Sphinx, env: Any, node: nodes.Element, contnode: nodes.Element
) -> nodes.Element | None:
    """Resolve `Plant` to `steerlib.plant.Plant` where one documented class has that name (`missing-reference`)."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or "." in target or not target:
        return None
    domain = env.get_domain("py")
    found = [full for full, entry in domain.objects.items() if entry.objtype in {"class", "exception"} and full.endswith(f".{target}")]
    if len(found) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "class", found[0], node, contnode)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handlers."""
    app.connect("builder-inited", leave_out_thebe, priority=1)
    # After the theme (501), which fills in the header's buttons.
    app.connect("html-page-context", edit_the_text_source, priority=502)
    app.connect("html-page-context", leave_out_thebe_style, priority=502)
    app.connect("build-finished", write_forwarding_page)
    app.connect("autodoc-process-docstring", norms_not_substitutions)
    app.connect("missing-reference", link_short_name)
    app.add_post_transform(CheckImageText)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
