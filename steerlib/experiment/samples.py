"""Scores by method, seed and prompt, packed into a page's record and read back.

Knows arrays and their text form; knows nothing of claims or of what a score means. A score is written with six
significant digits, which is far finer than any sampling error, and a zero or a one takes two characters: five seeds
on 100 prompts are 1 kB for each method of yes-or-no scores, and 4 kB of real ones. Whatever is computed from samples is
computed from the written form, so that anyone who reads the record gets the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from steerlib.experiment.records import RecordError, Samples

DIGITS = 6
SIZE_LIMIT = 400_000  # characters of one metric; a record is read by the gate, the scoreboard and people


class SampleError(ValueError):
    """Scores that no paired test can be made of."""


def pack(
    name: str, methods: Mapping[str, np.ndarray], *, records: Sequence[str] = (), note: str = ""
) -> tuple[Samples, dict[str, np.ndarray]]:
    """Pack scores, and give them back as they will be read.

    Args:
        name: of the metric, for messages.
        methods: by method, scores of shape (seeds, prompts), on the same seeds and prompts in the same order.
        records: ids of the cell records behind them.
        note: what the scores are.

    Raises:
        SampleError: no method, another shape, a value that is not finite, or more than `SIZE_LIMIT` characters.
    """
    arrays = {key: np.asarray(values, dtype=np.float64) for key, values in methods.items()}
    if not arrays:
        raise SampleError(f"samples {name!r}: got no method, expected scores of at least one")
    shape = next(iter(arrays.values())).shape
    for key, grid in arrays.items():
        if grid.ndim != 2 or grid.shape[0] < 1 or grid.shape[1] < 2:
            raise SampleError(
                f"samples {name!r}, method {key!r}: got shape {grid.shape}, expected (seeds, prompts) with at least "
                "two prompts; scores of one seed are of shape (1, prompts)"
            )
        if grid.shape != shape:
            shapes = ", ".join(f"{other} {values.shape}" for other, values in arrays.items())
            raise SampleError(
                f"samples {name!r}: got shapes {shapes}; expected one shape, for the tests are paired: score every "
                "method on the same seeds and prompts, and leave a prompt out for all or for none"
            )
        if not np.isfinite(grid).all():
            seed, prompt = np.argwhere(~np.isfinite(grid))[0]
            raise SampleError(
                f"samples {name!r}, method {key!r}: the score of seed {seed}, prompt {prompt} is {grid[seed, prompt]}, "
                "expected finite scores; leave a prompt that has none out for every method, and say so in the note"
            )
    rows = {key: tuple(" ".join(f"{x:z.{DIGITS}g}" for x in row) for row in grid) for key, grid in arrays.items()}
    size = sum(len(row) for texts in rows.values() for row in texts)
    if size > SIZE_LIMIT:
        raise SampleError(
            f"samples {name!r}: got {size} characters, expected at most {SIZE_LIMIT}; record fewer methods under one "
            "name, or the mean over groups of prompts"
        )
    packed = Samples(methods=rows, seeds=shape[0], prompts=shape[1], records=tuple(records), note=note)
    return packed, unpack(name, packed)


def product_scores(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Scores of single answers whose mean is the product of two means, such as T*I, for paired tests.

    A product of means is no mean, so it has no score for an answer. Its linear part at the means does:
    `mean(a) * b + mean(b) * a - mean(a) * mean(b)`. The mean is the product itself, and the spread is the product's to
    first order (the delta method), whatever the two have in common.

    Args:
        first: scores of shape (seeds, prompts).
        second: scores of the same answers by the other judge.

    Raises:
        SampleError: the shapes differ.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise SampleError(f"product_scores: got shapes {a.shape} and {b.shape}, expected two scores of every answer")
    return a.mean() * b + b.mean() * a - a.mean() * b.mean()


def unpack(name: str, samples: Samples) -> dict[str, np.ndarray]:
    """Scores by method, each of shape (seeds, prompts).

    Raises:
        RecordError: what is written is not of the shape that it says.
    """
    shape = (samples.seeds, samples.prompts)
    arrays = {}
    for key, rows in samples.methods.items():
        where = f"samples {name!r}, method {key!r}"
        try:
            grid = np.array([[float(x) for x in row.split()] for row in rows])
        except ValueError as error:
            raise RecordError(f"{where}: not numbers ({error}); execute the page anew") from error
        if grid.shape != shape:
            raise RecordError(f"{where}: got shape {grid.shape}, expected {shape}; execute the page anew")
        arrays[key] = grid
    return arrays


def described(name: str, samples: Samples) -> str:
    """One line for a footer: what was recorded, and how many characters it takes."""
    size = sum(len(row) for rows in samples.methods.values() for row in rows)
    shape = f"{len(samples.methods)} methods, {samples.seeds} seeds, {samples.prompts} prompts"
    return f"{name} ({shape}; {size / 1000:.1f} kB)"
