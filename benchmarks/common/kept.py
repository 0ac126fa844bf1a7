"""Rows of a long benchmark on disk, so that a run goes on where the last one ended.

Knows lines of JSON. Knows nothing about what they say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Kept:
    """Rows by what they were measured of.

    Args:
        path: one row a line; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        """Read what is there. A line cut short by an interrupted run does not count."""
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        self._begin = ""  # what comes before the next row
        if path is not None and path.is_file():
            text = path.read_text(encoding="utf-8")
            self._begin = "" if text.endswith("\n") or not text else "\n"
            for line in text.splitlines():
                try:
                    kept = json.loads(line)
                    self._rows[_name(kept["of"])] = kept["row"]
                except (ValueError, KeyError, TypeError):
                    continue

    def get(self, of: dict[str, Any]) -> dict[str, Any] | None:
        """The row of the same law, code, sizes and machine settings; None if it must be measured."""
        return self._rows.get(_name(of))

    def put(self, of: dict[str, Any], row: dict[str, Any]) -> None:
        """Keep a row; one that failed is not kept, so that it is tried again."""
        if self.path is None or "failed" in row:
            return
        self._rows[_name(of)] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(self._begin + json.dumps({"of": of, "row": row}) + "\n")
        self._begin = ""


def _name(of: dict[str, Any]) -> str:
    return json.dumps(of, sort_keys=True)
