"""Calibrations that are kept come back as they were, under their own settings alone, and never damaged."""

from __future__ import annotations

import math

import pytest

from steerlib.experiment.calibrate import Status, calibrate
from steerlib.experiment.calibrations import Calibrations
from steerlib.experiment.store import Store

SETTINGS = {"cell": "c" * 64, "budget": 0.1, "measure": "kl", "limit": 20, "seed": 0}


@pytest.mark.parametrize("limit", [2.5, 5.0])
def test_a_calibration_comes_back_whole(tmp_path, limit):
    found = calibrate(lambda s: s if s < 3 else math.inf, limit, most=60)
    assert found.status is (Status.REACHED if limit == 2.5 else Status.BREAKS)
    Calibrations(Store(tmp_path)).put(SETTINGS, found)
    assert Calibrations(Store(tmp_path)).get(SETTINGS) == found
    assert Store(tmp_path).keys() == set(), "a calibration is no record of a cell"


@pytest.mark.parametrize(
    "other", [{"cell": "d" * 64}, {"budget": 0.2}, {"measure": "energy"}, {"limit": 10}, {"seed": 1}]
)
def test_other_settings_have_another_calibration(tmp_path, other):
    kept = Calibrations(Store(tmp_path))
    kept.put(SETTINGS, calibrate(lambda s: s, 1.0))
    assert kept.get({**SETTINGS, **other}) is None


@pytest.mark.parametrize(
    "harm", [lambda b: b[:-20], lambda b: b.replace(b'"strength":1.0', b'"strength":2.0'), bytes.upper]
)
def test_damage_is_set_aside_and_counts_as_absent(tmp_path, harm):
    kept = Calibrations(Store(tmp_path))
    kept.put(SETTINGS, calibrate(lambda s: s, 1.0))
    (path,) = (tmp_path / "calibrations").glob("??/*.json")
    path.write_bytes(harm(path.read_bytes()))
    assert kept.get(SETTINGS) is None and not path.exists() and "truncated or was altered" in kept.damaged[0]
    assert (tmp_path / "calibrations" / "quarantine" / path.name).exists()
