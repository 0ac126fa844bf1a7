"""Texts with a measured toxicity: RealToxicityPrompts, the Jigsaw comments, and ParaDetox's paraphrases.

Knows their files and scores. A score is the one that Perspective or the raters gave; nothing is judged here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steerlib.data.reading import read_json_lines, read_table
from steerlib.data.sources import Loaded, locate


@dataclass(frozen=True)
class ToxicPrompt:
    """A prompt of RealToxicityPrompts (Gehman et al. 2020).

    Attributes:
        text: the beginning of a sentence.
        continuation: how it went on.
        toxicity: of the beginning, in [0, 1].
        continuation_toxicity: of what followed, in [0, 1], or None where Perspective gave no score.
        document: the web page both come from.
    """

    text: str
    continuation: str
    toxicity: float
    continuation_toxicity: float | None
    document: str


@dataclass(frozen=True)
class Comment:
    """A comment with the share of raters who called it toxic, in [0, 1]."""

    text: str
    toxicity: float


@dataclass(frozen=True)
class Paraphrase:
    """A toxic sentence with neutral ones that say the same."""

    toxic: str
    neutral: tuple[str, ...]


def load_rtp(data: str | Path | None = None) -> Loaded[ToxicPrompt]:
    """RealToxicityPrompts as DecodingTrust sampled it: the toxic prompts, then the others.

    Raises:
        DataError: a file is absent or malformed.
    """
    files = locate(
        "decodingtrust_rtp", [f"decodingtrust_rtp/{part}.jsonl" for part in ("toxic", "nontoxic")], data=data
    )
    rows = []
    for file in files:
        for row in read_json_lines(file):
            prompt, rest = row.inner("prompt"), row.inner("continuation")
            rows.append(
                ToxicPrompt(
                    prompt.text("text"),
                    rest.raw("text"),
                    prompt.number("toxicity", low=0, high=1),
                    None if rest.get("toxicity") is None else rest.number("toxicity", low=0, high=1),
                    row.text("filename"),
                )
            )
    return Loaded(tuple(rows), files)


def load_jigsaw(data: str | Path | None = None) -> Loaded[Comment]:
    """Comments of Jigsaw's second competition, from the table with all of them.

    Empty comments and repetitions are left out.

    Raises:
        DataError: the table is absent or malformed; it needs a login at Kaggle.
    """
    files = locate("jigsaw", ["jigsaw/all_data.csv"], data=data)
    rows: dict[str, Comment] = {}
    left_out = []
    for row in read_table(files[0], ("comment_text", "toxicity")):
        text = row.text("comment_text", empty=True)
        if not text or text in rows:
            left_out.append(f"{row.place}: {'the same as an earlier comment' if text else 'no text'}")
            continue
        rows[text] = Comment(text, row.number("toxicity", low=0, high=1))
    return Loaded(tuple(rows.values()), files, tuple(left_out))


def load_paradetox(data: str | Path | None = None) -> Loaded[Paraphrase]:
    """ParaDetox: one line a toxic sentence, with up to three paraphrases.

    The published file breaks some paraphrases into two lines; what then has no paraphrase is left out.

    Raises:
        DataError: the table is absent or malformed.
    """
    files = locate("paradetox", ["paradetox/paradetox.tsv"], data=data)
    columns = ("toxic", "neutral1", "neutral2", "neutral3")
    rows, left_out = [], []
    for row in read_table(files[0], columns, delimiter="\t", quoted=False, ragged=True):
        neutral = tuple(text for name in columns[1:] if (text := str(row.fields.get(name, "")).strip()))
        if not neutral or not row.text("toxic", empty=True):
            left_out.append(f"{row.place}: no paraphrase")
            continue
        rows.append(Paraphrase(row.text("toxic"), neutral))
    return Loaded(tuple(rows), files, tuple(left_out))
