"""The figure of logit shifts: every token stands where its numbers say."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib import figures


def test_every_token_stands_at_its_worth_and_its_shift() -> None:
    worth, shift, p = np.array([0.0, 1.0, 3.0]), np.array([-1.0, 0.5, 2.0]), np.array([0.7, 0.2, 0.1])
    figure = figures.logit_shifts(worth, {"search": worth, "push": shift}, p, xlabel="worth", ylabel="shift")
    axis = figure.axes[0]
    clouds = axis.collections
    np.testing.assert_array_equal(clouds[0].get_offsets(), np.stack([worth, worth], 1))
    np.testing.assert_array_equal(clouds[1].get_offsets(), np.stack([worth, shift], 1))
    assert list(np.argsort(clouds[0].get_sizes())) == [2, 1, 0], "likelier tokens have larger marks"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["search", "push"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("worth", "shift")
    plt.close(figure)


def test_numbers_for_other_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="push has shape"):
        figures.logit_shifts(np.zeros(3), {"push": np.zeros(2)}, np.zeros(3), xlabel="", ylabel="")
