"""Sphinx extension of the book: what the theme and its plug-ins do not get right for this project.

Knows the layout of the repository (a chapter is `notebooks/NN_name.py`, paired with an `.ipynb`) and the parts of
Sphinx that it corrects. Knows nothing about steerlib, about what the chapters say, or about how they were executed.

- The edit link of a chapter opens its text source, `.py`; Colab and Binder open the `.ipynb`.
- Code of `sphinx_thebe` (live cells, loaded from a content network) is left out of the pages.
- The site's `index.html` forwards to the front page as a valid, readable document.
- An image without a text alternative is a warning, and so an error of the strict build.
- A bibliography is a list of list items; docutils writes items of a deprecated role that screen readers lose.
- Vertical bars in docstrings (`|u|`) are norms, not substitutions of reStructuredText.
- A class of steerlib that a signature names without its module becomes a link; a private one stays text.
"""

from __future__ import annotations

import html
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.domains.python import PythonDomain
    from sphinx.environment import BuildEnvironment

logger = logging.getLogger(__name__)

EDIT_BUTTON = "source-edit-button"
_CLASSES = {"class", "exception"}
# Literals are kept as they are; only bars outside them are escaped.
_LITERAL = re.compile(r"(``.+?``|`[^`]+`)")
_FORWARD = """<!DOCTYPE html>
<html lang="en-GB">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta http-equiv="refresh" content="0; url={target}">
    <title>{title}</title>
    <link rel="icon" href="data:,">
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
    _app: Sphinx, _pagename: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None
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
    _app: Sphinx, _pagename: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    """Drop the style sheet that belongs to the disconnected extension (handler of `html-page-context`)."""
    files = context.get("css_files", [])
    files[:] = [file for file in files if "sphinx-thebe" not in str(getattr(file, "filename", file))]


def list_items_in_bibliography(
    _app: Sphinx, _pagename: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    """Give the entries of a bibliography the role that their list asks for (handler of `html-page-context`)."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


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
    """What is wrong with the text alternative of an image, or None. Empty text is right for a decorative image."""
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

    def run(self, **_options: Any) -> None:
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
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
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


def resolve_annotation(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, contnode: nodes.Node
) -> nodes.Node | None:
    """Link `Plant` to `steerlib.plant.Plant`; leave private types as plain text (handler of `missing-reference`).

    Only names in signatures are treated so. A role in prose, whose content is a literal, must name something that
    exists, or the strict build fails.
    """
    if node.get("refdomain") != "py":
        return None
    target = str(node.get("reftarget", ""))
    domain = cast("PythonDomain", env.get_domain("py"))
    found = [
        name for name, entry in domain.objects.items() if entry.objtype in _CLASSES and name.endswith(f".{target}")
    ]
    if len(found) == 1:
        content = cast("nodes.Element", contnode)
        return domain.resolve_xref(
            env, node["refdoc"], app.builder, "class", found[0], cast("pending_xref", node), content
        )
    return None if isinstance(contnode, nodes.literal) else contnode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the handlers."""
    app.setup_extension("sphinx.ext.autodoc")  # defines autodoc-process-docstring
    app.connect("builder-inited", leave_out_thebe, priority=1)
    # After the theme (501), which fills in the header's buttons.
    app.connect("html-page-context", edit_the_text_source, priority=502)
    app.connect("html-page-context", leave_out_thebe_style, priority=502)
    app.connect("html-page-context", list_items_in_bibliography)
    app.connect("build-finished", write_forwarding_page)
    app.connect("autodoc-process-docstring", norms_not_substitutions)
    app.connect("missing-reference", resolve_annotation)
    app.add_post_transform(CheckImageText)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
