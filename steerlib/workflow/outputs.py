"""What an executed notebook looks like: which cells are hidden, where alt texts and the pipeline's stamp are.

Knows the notebook format and what MyST-NB reads of it; knows nothing of how a notebook is run.
"""

from __future__ import annotations

from typing import Any

from nbformat import NotebookNode

from steerlib.workflow.parameters import INJECTED


def tidy(node: NotebookNode, *, stamp: dict[str, Any]) -> NotebookNode:
    """Make an executed notebook fit for the book: hide injected cells, drop run metadata, place alt texts."""
    node.metadata.pop("papermill", None)
    node.metadata["steerlib"] = stamp
    for cell in node.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if INJECTED in cell.metadata.get("tags", []):
            cell.metadata["tags"] = sorted({*cell.metadata["tags"], "remove-cell"})
            cell["id"] = INJECTED
        for alt in image_alts(cell):
            if alt:  # MyST-NB takes alt text from the cell, not from the output
                options = cell.metadata.setdefault("mystnb", {}).setdefault("image", {})
                options["alt"] = alt
    return node


def image_alts(cell: NotebookNode) -> list[str]:
    """The alt text of each image that a cell shows ("" where there is none)."""
    alts = []
    for output in cell.get("outputs", []):
        for mime in output.get("data", {}):
            if mime.startswith("image/"):
                alts.append(str(output.get("metadata", {}).get(mime, {}).get("alt", "")))
    return alts


def stamp_of(node: NotebookNode) -> dict[str, object]:
    """What `execute` wrote into the notebook ({} if nothing)."""
    stamp = node.metadata.get("steerlib", {})
    return dict(stamp) if isinstance(stamp, dict) else {}
