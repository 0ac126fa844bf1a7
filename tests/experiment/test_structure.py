from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest

from steerlib.experiment.records import FigureRecord
from steerlib.experiment.structure import figure_record


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    plt.switch_backend("agg")
    yield
    plt.close("all")


def draw(*, second: bool = True, scale: float = 1.0, noise: float = 0.0, label: str = "strength") -> FigureRecord:
    figure, axes = plt.subplots()
    x = np.linspace(0, 1, 20)
    axes.plot(x, scale * x**2 + noise, label="steered")
    if second:
        axes.plot(x, x, label="random")
    axes.fill_between(x, x - 0.1, x + 0.1)
    axes.bar([0, 1], [1, 2], label="bars")
    axes.scatter(x, x, label="points")
    axes.set_xlabel(label)
    axes.set_yscale("symlog")
    axes.legend()
    return figure_record(figure, alt="alt")


def test_what_is_drawn_is_found() -> None:
    (panel,) = draw().axes
    assert [(a.kind, a.label) for a in panel.artists] == [
        ("line", "steered"),
        ("line", "random"),
        ("collection", ""),
        ("collection", "points"),
        ("bars", "bars"),
    ]
    assert (panel.xlabel, panel.scales) == ("strength", ("linear", "symlog"))
    assert set(panel.legend) == {"steered", "random", "bars", "points"}


def test_equal_figures_have_equal_structure() -> None:
    assert draw() == draw()


@pytest.mark.parametrize("change", [{"second": False}, {"scale": 1.1}, {"label": "layer"}], ids=str)
def test_a_change_is_seen(change: dict[str, object]) -> None:
    assert draw(**change) != draw()  # type: ignore[arg-type]


def test_noise_far_below_what_can_be_seen_is_not() -> None:
    assert draw(noise=1e-9) == draw()


def test_images_and_missing_values() -> None:
    figure, axes = plt.subplots()
    axes.imshow(np.array([[0.0, 1.0], [np.nan, 2.0]]))
    axes.plot([0, 1], [np.nan, np.inf])
    kinds = [artist.kind for artist in figure_record(figure, alt="").axes[0].artists]
    assert kinds == ["line", "image"]


def test_a_title_is_found_wherever_it_stands() -> None:
    figure, (left, centre, none) = plt.subplots(1, 3)
    left.set_title("dose", loc="left")
    centre.set_title("effort")
    assert [panel.title for panel in figure_record(figure, alt="alt").axes] == ["dose", "effort", ""]
