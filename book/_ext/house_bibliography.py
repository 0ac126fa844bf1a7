"""Bibliography style: entries labelled by author and year, as the text cites them, and sorted in that order.

Knows pybtex, which formats the entries; knows nothing about Sphinx beyond the name that `_config.yml` uses.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, cast

from pybtex.plugin import register_plugin
from pybtex.richtext import Text
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybtex.database import Entry, Person
    from sphinx.application import Sphinx


def surname(person: Person) -> str:
    """The family name of a person, with its particle, as plain text ("Åström", "van der Berg")."""
    parts = [*person.rich_prelast_names, *person.rich_last_names]
    return str(Text(" ").join(parts))


def label(entry: Entry) -> str:
    """Author and year of one entry: "Kong et al., 2024", "Eldan and Li, 2023"."""
    persons = cast("Mapping[str, list[Person]]", entry.persons)  # pybtex fills both in, its types do not say so
    names = [surname(person) for person in persons.get("author") or persons.get("editor") or []]
    year = cast("Mapping[str, str]", entry.fields).get("year", "no date")
    if not names:
        return f"{entry.key}, {year}"
    if len(names) == 1:
        return f"{names[0]}, {year}"
    return f"{names[0]} and {names[1]}, {year}" if len(names) == 2 else f"{names[0]} et al., {year}"


class AuthorYearLabels(BaseLabelStyle):
    """Labels by author and year; equal ones are told apart by a letter after the year."""

    def format_labels(self, sorted_entries: Iterable[Entry]) -> Iterator[str]:
        """One label for each entry, in order."""
        labels = [label(entry) for entry in sorted_entries]
        total, seen = Counter(labels), defaultdict(int)
        for text in labels:
            suffix = ascii_lowercase[seen[text]] if total[text] > 1 else ""
            seen[text] += 1
            yield text + suffix


class HouseStyle(PlainStyle):
    """The plain style of pybtex (sorted by author, year and title) with labels that can be recognised."""

    default_label_style = AuthorYearLabels


def setup(_app: Sphinx) -> dict[str, Any]:
    """Make the style known under the name "house"."""
    register_plugin("pybtex.style.formatting", "house", HouseStyle)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
