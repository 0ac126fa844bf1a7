"""Sentences that use a noun in a known sense (OneSeC; Scarlini et al. 2019), as A-LQR takes concepts from them.

Knows the table and its lemmas.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steerlib.data.reading import read_table
from steerlib.data.sources import Loaded, locate


@dataclass(frozen=True)
class ConceptSentence:
    """A sentence about a concept.

    Attributes:
        lemma: the noun, such as "dog".
        sense: its sense key in WordNet.
        sentence: the text.
        instance: its number in the set.
    """

    lemma: str
    sense: str
    sentence: str
    instance: str


def load_concepts(data: str | Path | None = None) -> Loaded[ConceptSentence]:
    """The sentences of all concepts.

    Raises:
        DataError: the table is absent or malformed, or a concept is not a lemma with its part of speech.
    """
    files = locate("lqr_concepts", ["lqr_concepts/filtered_sentences.csv"], data=data)
    rows = []
    for row in read_table(files[0], ("concept", "instance_id", "sense", "sentence")):
        lemma, mark, _ = row.text("concept").rpartition(".")
        if not mark or not lemma:
            raise row.error("concept", f"got {row.text('concept')!r}, expected a lemma such as 'dog.NOUN'")
        rows.append(ConceptSentence(lemma, row.text("sense"), row.text("sentence"), row.text("instance_id")))
    return Loaded(tuple(rows), files)
