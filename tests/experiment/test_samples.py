from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from steerlib.experiment.records import RecordError, Samples
from steerlib.experiment.samples import SIZE_LIMIT, SampleError, described, pack, product_scores, unpack
from steerlib.metrics import grid_interval, product_interval

GRID = np.array([[0.0, 1.0, 0.123456789], [1.0, 1.0, -2.5e-7]])
grids = arrays(
    np.float64, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=5), elements=st.floats(-1e6, 1e6, width=32)
)


@given(grids)
def test_scores_survive_to_six_digits(grid: np.ndarray) -> None:
    packed, held = pack("m", {"a": grid, "b": -grid})
    assert held["a"].shape == grid.shape
    np.testing.assert_allclose(held["a"], grid, rtol=5.1e-6, atol=0)
    np.testing.assert_array_equal(held["b"], -held["a"])
    again = unpack("m", Samples.model_validate_json(packed.model_dump_json()))
    np.testing.assert_array_equal(again["a"], held["a"])


def test_what_is_written_is_short_and_legible() -> None:
    packed, _ = pack("truth.txi", {"dom": GRID}, records=["abc"], note="shares")
    assert packed.methods == {"dom": ("0 1 0.123457", "1 1 -2.5e-07")}
    assert (packed.seeds, packed.prompts, packed.records, packed.note) == (2, 3, ("abc",), "shares")
    assert described("truth.txi", packed) == "truth.txi (1 methods, 2 seeds, 3 prompts; 0.0 kB)"
    shares = np.random.default_rng(0).integers(0, 2, size=(5, 100))
    assert "; 1.0 kB" in described("x", pack("x", {"a": shares})[0])


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({}, "got no method"),
        ({"a": GRID, "b": GRID[:, :2]}, r"got shapes a \(2, 3\), b \(2, 2\); expected one shape"),
        ({"a": GRID[0]}, r"'a': got shape \(3,\), expected \(seeds, prompts\)"),
        ({"a": GRID[:, :1]}, "at least two prompts"),
        ({"a": GRID[:0]}, r"got shape \(0, 3\)"),
        ({"a": GRID, "b": np.where(GRID == 1, np.nan, GRID)}, "'b': the score of seed 0, prompt 1 is nan"),
        ({"a": np.full((1, SIZE_LIMIT // 2), 0.25)}, "expected at most"),
    ],
)
def test_scores_that_cannot_be_paired(methods: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(SampleError, match=message):
        pack("truth.txi", methods)


def test_records_that_were_edited() -> None:
    packed, _ = pack("m", {"a": GRID})
    with pytest.raises(RecordError, match=r"'a': got shape \(2, 3\), expected \(2, 4\)"):
        unpack("m", packed.model_copy(update={"prompts": 4}))
    for row in ("1 2", "one 2 3"):
        with pytest.raises(RecordError, match="not numbers"):
            unpack("m", packed.model_copy(update={"methods": {"a": ("1 2 3", row)}}))


def test_the_scores_of_a_product_have_its_mean_and_its_spread() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(size=(1, 400)) ** 2
    info = 1 - 0.8 * true + 0.1 * rng.normal(size=true.shape)  # declining is true, and says little
    scores = product_scores(true, info)
    assert scores.mean() == pytest.approx(true.mean() * info.mean(), rel=1e-12)
    linear, whole = grid_interval(scores), product_interval(true[0], info[0])
    assert linear.high - linear.low == pytest.approx(whole.high - whole.low, rel=0.1)
    joint = grid_interval(true * info)  # another quantity, with another spread
    assert abs(joint.value - whole.value) > 5 * abs(linear.value - whole.value)
    with pytest.raises(SampleError, match="two scores of every answer"):
        product_scores(true, info[:, :9])
