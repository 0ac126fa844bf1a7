"""Recording: the right token in any batch, resumable on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from steerlib.actuator import Point, Site
from steerlib.errors import PlantError, SiteError
from steerlib.recorder import record
from tests.families import DEPTH, FAMILIES, WIDTH, plant, words

TEXTS = [words(5, 9, 30, 41, 8, 77), words(60, 3), words(12, 13, 14, 15), words(60, 3, 9)]
SITES = [0, Site(1, "resid_pre"), Site(2, "final_norm")]


@pytest.mark.parametrize("position", ["last", 0, 1, -2])
def test_positions_do_not_depend_on_the_batch(position: str | int) -> None:
    p = plant("gpt_neox")
    together = record(p, TEXTS, sites=SITES, position=position, batch_size=3)
    for i, text in enumerate(TEXTS):
        every = record(p, [text], sites=SITES, position="all")
        index = {"last": -1}.get(position, position)  # type: ignore[call-overload]
        for site in together.sites:
            torch.testing.assert_close(together.at(site)[i], every.at(site)[index], atol=2e-5, rtol=2e-5)


def test_all_tokens_come_back_in_the_order_of_the_texts() -> None:
    p = plant("llama")
    together = record(p, TEXTS, sites=[1], position="all", batch_size=2)
    assert together.rows == (6, 2, 4, 3)
    apart = torch.cat([record(p, [text], sites=[1], position="all").at(1) for text in TEXTS])
    torch.testing.assert_close(together.at(1), apart, atol=2e-5, rtol=2e-5)


def test_the_mean_is_over_the_tokens_of_a_text_and_no_padding() -> None:
    p = plant("llama")
    together = record(p, TEXTS, sites=SITES, position="mean", batch_size=3)
    assert together.rows == (1, 1, 1, 1)
    for i, text in enumerate(TEXTS):
        every = record(p, [text], sites=SITES, position="all")
        for site in together.sites:
            torch.testing.assert_close(together.at(site)[i], every.at(site).mean(0), atol=2e-5, rtol=2e-5)
    assert together.data_hash != record(p, TEXTS, sites=SITES).data_hash


def test_a_recording_sees_the_laws_around_it() -> None:
    p = plant("llama")
    free = record(p, TEXTS, sites=[0, 1])
    with p.under(lambda state: state + 1.0, layer=1, scope="last"):
        steered = record(p, TEXTS, sites=[0, 1])
    assert torch.equal(free.at(0), steered.at(0))
    torch.testing.assert_close(steered.at(1), free.at(1) + 1.0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("points", [("resid_post",), ("heads", "attn_norm"), ("resid_pre", "resid_post")])
def test_a_pass_ends_when_every_site_was_seen(family: str, points: tuple[Point, ...]) -> None:
    p = plant(family)
    sites = [Site(1, point) for point in points]
    for site in sites:
        p.wiring.slot(site)  # sites inside a block are looked for by one small pass, the first time
    before = p.forward(TEXTS)
    above: list[int] = []
    handle = p.blocks[2].register_forward_pre_hook(lambda *_: above.append(1))
    early = record(p, TEXTS, sites=sites, position="all")
    assert not above, "the block above the sites was run for nothing"
    whole = record(p, TEXTS, sites=[*sites, Site(2)], position="all")
    handle.remove()
    assert above
    for site in early.sites:
        assert torch.equal(early.at(site), whole.at(site))
    assert torch.equal(p.forward(TEXTS), before), "a pass that was ended leaves nothing behind"


def test_a_model_spread_over_devices_runs_to_the_end() -> None:
    p = plant("llama")
    p.model.hf_device_map = {"": "cpu"}  # its own hooks move weights away behind each block
    above: list[int] = []
    handle = p.blocks[2].register_forward_pre_hook(lambda *_: above.append(1))
    record(p, TEXTS, sites=[0])
    handle.remove()
    del p.model.hf_device_map
    assert above


def test_streaming_gives_the_same_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = plant("llama")
    wanted = record(p, TEXTS, sites=SITES, position="all", batch_size=1)
    passes: list[int] = []
    forward = p.forward

    def interrupted(batch, **options):  # noqa: ANN001, ANN003, ANN202
        passes.append(1)
        if len(passes) == 3:
            raise KeyboardInterrupt
        return forward(batch, **options)

    monkeypatch.setattr(p, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record(p, TEXTS, sites=SITES, position="all", batch_size=1, out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "recording.json").read_text())["done"] == 2
    passes[:] = [1, 1, 1]  # no further interrupt
    got = record(p, TEXTS, sites=SITES, position="all", batch_size=1, out=tmp_path / "run")
    assert len(passes) == 3 + 2, "the two finished texts must not be recorded again"
    for site in wanted.sites:
        assert torch.equal(got.at(site), wanted.at(site))
    assert not list((tmp_path / "run").glob("*.pkl"))
    assert np.load(tmp_path / "run" / "resid_post-0.npy", allow_pickle=False).shape == (15, WIDTH)


def test_another_recording_is_not_overwritten(tmp_path: Path) -> None:
    p = plant("llama")
    record(p, TEXTS, sites=[0], out=tmp_path)
    with pytest.raises(PlantError, match="holds another recording.*data_hash"):
        record(p, TEXTS[:2], sites=[0], out=tmp_path)
    with pytest.raises(PlantError, match="holds another recording.*weight_hash"):
        record(plant("llama", seed=1), TEXTS, sites=[0], out=tmp_path)


def test_a_folder_is_no_place_for_steered_states(tmp_path: Path) -> None:
    p = plant("llama")
    with p.under(lambda state: state + 1.0, layer=1), pytest.raises(PlantError, match="a law is attached"):
        record(p, TEXTS, sites=[1], out=tmp_path)


def test_what_is_on_disk_is_trusted_only_if_it_is_there(tmp_path: Path) -> None:
    p = plant("llama")
    first = record(p, TEXTS, sites=[0], out=tmp_path)
    wanted = first.at(0).clone()
    first.at(0).zero_()  # a copy: the file must keep its states
    assert torch.equal(record(p, TEXTS, sites=[0], out=tmp_path).at(0), wanted)
    (tmp_path / "resid_post-0.npy").unlink()
    with pytest.raises(PlantError, match="its journal counts on it"):
        record(p, TEXTS, sites=[0], out=tmp_path)


def test_bad_input_is_named() -> None:
    p = plant("llama")
    with pytest.raises(SiteError, match=f"from 0 to {DEPTH - 1}"):
        record(p, TEXTS, sites=[DEPTH])
    with pytest.raises(PlantError, match="text 1 has 2 tokens"):
        record(p, TEXTS, sites=[0], position=2)
    with pytest.raises(PlantError, match="expected 'last', 'mean', 'all' or an integer"):
        record(p, TEXTS, sites=[0], position="first")  # type: ignore[arg-type]
    with pytest.raises(PlantError, match="expected at least one"):
        record(p, TEXTS, sites=[])
    with pytest.raises(PlantError, match="was not recorded"):
        record(p, TEXTS, sites=[0]).at(1)
