"""Words and their repetition: how varied a text is.

Knows strings. Knows nothing about models. A fluent text repeats little, but so does noise: none of these measures
says that a text is good, and each can be pleased by a text that is not (see the chapter on scoring).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from steerlib.errors import MetricError

Tokenize = Callable[[str], list[str]]
_WORD = re.compile(r"\w+(?:[-']\w+)*|[^\w\s]")


def words(text: str) -> list[str]:
    """Words and marks of punctuation, each on its own, as word tokenizers for English cut them."""
    return _WORD.findall(text)


def spaced(text: str) -> list[str]:
    """Words between spaces, as ODESteer's evaluation cuts them."""
    return text.split()


def spaced_lower(text: str) -> list[str]:
    """Lower-cased words between spaces, as A-LQR's evaluation cuts them."""
    return text.lower().split()


def ngrams(tokens: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """All n-grams in order.

    Raises:
        MetricError: if n is below one.
    """
    if n < 1:
        raise MetricError(f"n-grams: got n = {n}, expected at least 1.")
    return zip(*(tokens[i:] for i in range(n)), strict=False)


def repetition(text: str, n: int, *, tokenize: Tokenize = words) -> float:
    """Share of repeated n-grams, 1 - distinct / (all + 1): RE-Control's rep-n, with its one in the denominator.

    The one makes a text without n-grams maximally repetitive (1) instead of undefined, and holds a text that never
    repeats a little above 0.
    """
    grams = list(ngrams(tokenize(text), n))
    return 1.0 - len(set(grams)) / (len(grams) + 1)


def diversity(texts: Sequence[str], *, tokenize: Tokenize = words) -> float:
    """Diversity as RE-Control measures it: the product of 1 - rep-n over n = 2, 3, 4, averaged over texts.

    Empty and very short texts score 0, by the one in the denominator of `repetition`.

    Raises:
        MetricError: if there is no text.
    """
    return float(diversity_each(texts, tokenize=tokenize).mean())


def diversity_each(texts: Sequence[str], *, tokenize: Tokenize = words) -> np.ndarray:
    """Diversity of each text; see `diversity`."""
    if not len(texts):
        raise MetricError("diversity: got no text.")
    return np.array([np.prod([1.0 - repetition(text, n, tokenize=tokenize) for n in (2, 3, 4)]) for text in texts])


def dist_n(texts: Sequence[str], n: int, *, pooled: bool = False, tokenize: Tokenize = spaced) -> float:
    """Dist-n: distinct n-grams over all n-grams (Li et al. 2016).

    Two definitions are in use. ODESteer averages over outputs, and its released evaluation counts an output of fewer
    than n words as 0, so that silence earns nothing. A-LQR pools the lower-cased words of all outputs
    (``pooled=True, tokenize=spaced_lower``), so that saying the same in every output counts as repetition, and so
    that the value falls as more outputs are scored. Pooling does not see silence: an empty output adds no n-gram, so
    report beside it how many outputs are empty.

    Args:
        texts: answers.
        n: length of the n-grams.
        pooled: count over all texts together instead of averaging over texts, where a text without n-grams counts as 0.
        tokenize: how a text is cut into words.

    Raises:
        MetricError: if n is below one, there is no text, or the count is pooled and no text has n words.
    """
    if not len(texts):
        raise MetricError("dist_n: got no text.")
    rows = [list(ngrams(tokenize(text), n)) for text in texts]
    if not pooled:
        return float(np.mean([len(set(row)) / len(row) if row else 0.0 for row in rows]))
    total = sum(map(len, rows))
    if not total:
        raise MetricError(
            f"dist_n: got no text of {n} words or more, expected one, since a pooled count of none has no value. "
            "Fix: average over texts, which gives 0."
        )
    return len({gram for row in rows for gram in row}) / total
