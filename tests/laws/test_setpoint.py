"""Setpoints over depth: what is read and where, what is pushed and where, and what the setpoint means."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steerlib.actuator import Pass
from steerlib.errors import LawError
from steerlib.laws.base import Contrast, LawHeader
from steerlib.laws.lqr import ALQR
from steerlib.laws.sensing import Feature, FullPush, Push, Reading, joint
from steerlib.laws.setpoint import Setpoints
from steerlib.plant import Plant
from tests.families import DEPTH, WIDTH, plant, words

PROMPTS = [words(5, 9, 30, 41, 8), words(60, 3), words(12, 13, 14)]


def classes(width: int = 6, *, seed: int = 0, gap: float = 3.0, n: int = 20) -> Contrast:
    """Two clouds whose means are a few units apart, away from the origin."""
    noise = torch.randn(2, n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Contrast(noise[0] + 2.0 + gap * torch.eye(width)[seed % width], noise[1] + 2.0)


def over_depth(p: Plant, *, seed: int = 0, idle: tuple[int, ...] = ()) -> list[Contrast]:
    """Contrasts for the inputs of all blocks of a plant, with headers; idle blocks have one state twice."""
    found = []
    for block in range(p.depth):
        one = classes(p.width, seed=seed + block, gap=2.0)
        one = Contrast(one.negative, one.negative) if block in idle else one
        header = LawHeader(block, "resid_pre", "generated", p.name, p.weight_hash, p.width, "d", 0)
        found.append(Contrast(one.positive, one.negative, header))
    return found


class TestFeature:
    def test_direction_length_and_reading(self) -> None:
        contrast = classes()
        found = Feature.of([contrast])
        gap = contrast.positive.mean(0) - contrast.negative.mean(0)
        torch.testing.assert_close(found.directions[0] * found.lengths[0], gap)
        assert found.directions[0].norm() == pytest.approx(1.0)
        above = contrast.positive.mean(0) @ found.directions[0]
        assert float(found.below[0] + found.lengths[0]) == pytest.approx(float(above))

    def test_the_same_states_in_another_order_have_none(self) -> None:
        states = 1e3 * classes(n=301).positive
        other = states[torch.randperm(301, generator=torch.Generator().manual_seed(1))]
        found = Feature.of([Contrast(states, other), classes()])
        assert found.lengths[0] == 0 and not found.directions[0].any() and found.below[0] == 0
        assert found.known and found.lengths[1] > 0


class TestReading:
    @pytest.mark.parametrize("lam", [0.0, 0.7, 1.0, 2.5])
    def test_setpoints_by_name(self, lam: float) -> None:
        contrast = classes()
        feature = Feature.of([contrast])
        v, mu, low = feature.directions[0], float(feature.lengths), float(feature.below)
        wanted = {"raw": lam * mu, "centred": low + lam * mu, "fixed": lam}
        for name, target in wanted.items():
            reading = Reading(reference=name).hold(feature, [lam], contrast)  # type: ignore[arg-type]
            assert float(reading.target) == pytest.approx(target, abs=1e-5)
            state = torch.randn(4, 6)
            expected = target - state.double() @ v
            torch.testing.assert_close(reading.errors(state)[:, 0].double(), expected, atol=1e-5, rtol=1e-5)
            assert torch.equal(reading(state), state)

    def test_centred_setpoints_of_zero_and_one_are_the_class_means(self) -> None:
        contrast = classes()
        reading = Reading(reference="centred").fit(contrast)
        assert float(reading.errors(contrast.positive).mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(reading.toward([0.0]).errors(contrast.negative).mean()) == pytest.approx(0.0, abs=1e-5)

    def test_a_raw_setpoint_of_one_is_not_the_positive_mean(self) -> None:
        contrast = classes()
        missing = float(Reading().fit(contrast).errors(contrast.positive).mean())
        assert missing == pytest.approx(-float(Feature.of([contrast]).below), abs=1e-5) and abs(missing) > 1

    def test_a_concept_without_direction_asks_for_nothing(self) -> None:
        contrast, same = classes(), Contrast(classes().negative, classes().negative)
        for name in ("raw", "centred", "fixed"):
            reading = Reading(reference=name).hold(Feature.of([contrast, same]), [2.0, 2.0], contrast)
            errors = reading.errors(torch.randn(5, 6))
            assert not errors[:, 1].any() and errors[:, 0].abs().max() > 0.1

    def test_what_is_not_fitted_or_too_wide(self) -> None:
        with pytest.raises(LawError, match="not fitted"):
            Reading().readings(torch.randn(2, 6))
        with pytest.raises(LawError, match="holds a map of width 6; the state has width 7"):
            Reading().fit(classes()).readings(torch.randn(2, 7))
        with pytest.raises(LawError, match="reference"):
            Reading(reference="mean")  # type: ignore[arg-type]


class TestJoint:
    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000), concepts=st.integers(1, 4))
    def test_all_setpoints_are_met_by_the_shortest_move(self, seed: int, concepts: int) -> None:
        feature = Feature.of([classes(8, seed=seed + i, gap=4.0, n=5) for i in range(concepts)])
        generator = torch.Generator().manual_seed(seed)
        errors = torch.randn(3, concepts, generator=generator, dtype=torch.float64)
        move = errors @ joint(feature)
        torch.testing.assert_close(move @ feature.directions.T, errors, atol=1e-8, rtol=1e-6)
        wanted = errors @ torch.linalg.pinv(feature.directions.T)  # the shortest of all that meet them
        torch.testing.assert_close(move, wanted, atol=1e-8, rtol=1e-6)

    def test_the_sum_of_single_moves_misses_them_and_one_concept_is_the_sum(self) -> None:
        feature = Feature.of([classes(4, seed=0), classes(4, seed=0, gap=2.0)])
        errors = torch.ones(1, 2, dtype=torch.float64)
        assert (errors @ feature.directions @ feature.directions.T - errors).abs().min() > 0.3
        one = Feature.of([classes()])
        torch.testing.assert_close(joint(one), one.directions)

    def test_unknown_ones_stay_out_and_equal_ones_are_refused(self) -> None:
        same = Contrast(classes().negative, classes().negative)
        found = joint(Feature.of([classes(seed=1), same]))
        torch.testing.assert_close(found[:1], Feature.of([classes(seed=1)]).directions)
        assert not found[1].any()
        with pytest.raises(LawError, match="smallest eigenvalue.*combine='sum'"):
            joint(Feature.of([classes(), classes()]))


def by_hand(p: Plant, law: Setpoints, prompts: list[str], *, every: bool) -> list[Tensor]:
    """Logits of single rows, steered by plain hooks: read the input of a block, push its output."""
    rows = {}
    for reading, acting in zip(law.readings, law.inputs, strict=True):
        assert reading.header is not None
        rows[reading.header.layer] = (reading.directions[0], reading.target[0], acting.pushes[0])
    seen: dict[int, Tensor] = {}
    handles = []
    for block, (v, beta, w) in rows.items():

        def before(_m: object, args: tuple, kwargs: dict, block: int = block) -> None:
            seen[block] = args[0] if args else kwargs["hidden_states"]

        def after(_m: object, _a: object, out: Tensor, block: int = block, v=v, beta=beta, w=w):  # noqa: ANN001, ANN202
            state = out[0] if isinstance(out, tuple) else out
            push = (beta - seen[block] @ v)[..., None] * w
            if not every:
                push[:, :-1] = 0
            return (state + push, *out[1:]) if isinstance(out, tuple) else state + push

        handles.append(p.blocks[block].register_forward_pre_hook(before, with_kwargs=True))
        handles.append(p.blocks[block].register_forward_hook(after))
    try:
        with torch.inference_mode():
            return [p.model(p.encode([prompt]).input_ids).logits[0] for prompt in prompts]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("family", ["llama", "falcon", "gemma2"])
@pytest.mark.parametrize("scope", ["last", "all"])
def test_input_of_a_block_to_its_output(family: str, scope: str) -> None:
    p = plant(family)
    law = ALQR(model="identity", q=10.0, q_f=10.0, setpoint=8.0).fit(over_depth(p, idle=(1,)))
    expected = by_hand(p, law, PROMPTS, every=scope == "all")
    with p.under(law, scope=scope):
        batch = p.encode(PROMPTS, side="right")
        found = p.forward(batch)
    free = p.forward(batch)
    for row, wanted in enumerate(expected):
        torch.testing.assert_close(found[row, : len(wanted)], wanted, atol=1e-4, rtol=1e-4)
        assert (found[row, : len(wanted)] - free[row, : len(wanted)]).abs().max() > 0.05


def test_the_error_loop_is_exact() -> None:
    """alpha_{k+1} = beta_{k+1} - v_{k+1} . phi_k(z_k) - strength kappa_k alpha_k."""
    p = plant("llama")
    law = ALQR(model="identity", setpoint=1.5).fit(over_depth(p)).at(0.7)
    ins, outs = {}, {}
    with torch.inference_mode():
        taps = []
        for block in range(p.depth):
            taps.append(p.under(_tap(ins, block), layer=block, point="resid_pre", scope="all"))
            taps.append(p.under(_tap(outs, block), layer=block, scope="all"))
        for tap in taps:
            tap.__enter__()
        with p.under(law, scope="all"):
            p.forward(PROMPTS[:1])
        for tap in taps:
            tap.__exit__()
    assert len(law.authority) == DEPTH - 1
    for block, kappa in enumerate(law.authority.tolist()):
        here, above = law.readings[block], law.readings[block + 1]
        alone = above.target - above.readings(outs[block])
        expected = alone - 0.7 * kappa * here.errors(ins[block])
        torch.testing.assert_close(above.errors(ins[block + 1]), expected, atol=1e-4, rtol=1e-4)
        assert abs(kappa) > 1e-3


def _tap(seen: dict[int, Tensor], block: int):  # noqa: ANN202
    def look(state: Tensor) -> Tensor:
        seen[block] = state.clone()
        return state

    return look


class TestUse:
    def test_the_setpoint_is_moved_in_place_and_is_kept_in_the_file(self, tmp_path: Path) -> None:
        p = plant("llama")
        law = ALQR(model="identity").fit(over_depth(p))
        buffer = law.readings[0].target
        with p.under(law, scope="all"):
            before = p.forward(PROMPTS)
            law.toward(2.0)
            after = p.forward(PROMPTS)
        assert law.readings[0].target is buffer and not torch.allclose(before, after, atol=1e-2)
        again = ALQR.load(law.save(tmp_path / "law.safetensors"))
        assert again.setpoint == (2.0,) and again.notes == law.notes
        with p.under(again, scope="all"):
            torch.testing.assert_close(p.forward(PROMPTS), after, atol=1e-5, rtol=1e-5)
        fresh = ALQR(model="identity", setpoint=2.0).fit(over_depth(p))
        torch.testing.assert_close(dict(fresh.named_buffers()), dict(law.named_buffers()))

    def test_idle_blocks_are_left_alone_and_noted(self) -> None:
        p = plant("llama")
        law = ALQR(model="identity").fit(over_depth(p, idle=(0, 2)))
        assert law.blocks == [1] and [str(s) for s in law.check_use(p)] == [
            "resid_pre of layer 1",
            "resid_post of layer 1",
        ]
        assert [note.split(":")[0] for note in law.notes] == ["block 0", "block 2"]
        assert ALQR().notes == ["the law is not fitted"]
        assert not len(law.authority), "no two neighbouring blocks"
        with pytest.raises(LawError, match="same mean at the inputs of all 3 blocks"):
            ALQR(model="identity").fit(over_depth(p, idle=(0, 1, 2)))

    def test_a_setpoint_far_outside_of_the_classes_is_noted(self) -> None:
        law = ALQR(model="identity", reference="centred").fit([classes(), classes(seed=1)])
        assert law.notes == []
        assert law.toward(3.9).notes == [] and law.toward(-2.9).notes == []
        for setpoint, past in ((4.5, "3.5"), (-3.25, "3.2")):
            assert len(law.toward(setpoint).notes) == 1
            assert f"lies {past} distances of the class means outside of both" in law.notes[0]
        raw = ALQR(model="identity").fit([classes(), classes(seed=1)])
        low = float((raw.below / raw.lengths).min())
        assert raw.toward(low + 4.2).notes and "block" in raw.notes[0]

    def test_a_part_alone_and_a_copy_in_the_middle_of_a_pass(self) -> None:
        law = ALQR(model="identity").fit([classes()])
        reading, acting = law.readings[0], law.inputs[0]
        state, now = torch.randn(2, 3, 6), Pass()
        with pytest.raises(LawError, match="attach the whole law"):
            acting.during(state, now)
        reading.during(state, now)
        assert reading.loop is acting.loop and reading.loop.error is not None
        copied = deepcopy(law)
        assert copied.readings[0].loop is copied.inputs[0].loop and copied.readings[0].loop.error is None
        with pytest.raises(LawError, match="attach the whole law"):
            acting.during(state[:, :2], now)
        with pytest.raises(LawError, match="of\\(errors\\)"):
            acting(state)

    def test_half_precision_reads_in_float32(self) -> None:
        law = ALQR(model="identity").fit([classes()])
        state = 100 * torch.randn(2, 1, 6).half()
        law.readings[0].during(state, Pass())
        moved = law.inputs[0].during(state, Pass())
        expected = state.float() + law.readings[0].errors(state.float()) * law.inputs[0].pushes
        assert moved.dtype == torch.float16
        torch.testing.assert_close(moved.float(), expected, atol=0.2, rtol=2e-3)


class TestBadInput:
    @pytest.mark.parametrize("setpoint", [float("nan"), float("inf"), "much", [], [1.0, None]])
    def test_setpoints(self, setpoint: object) -> None:
        with pytest.raises(LawError, match="setpoint: got"):
            ALQR(setpoint=setpoint)  # type: ignore[arg-type]

    def test_numbers_of_concepts_and_blocks(self) -> None:
        one, law = [classes()], ALQR(model="identity", setpoint=[1.0, 2.0])
        with pytest.raises(LawError, match="got 2 numbers for 1 concepts"):
            law.fit(one)
        with pytest.raises(LawError, match=r"blocks, expected one for each block"):
            law.fit([one, [*one, *one]])
        with pytest.raises(LawError, match="got contrasts of"):
            law.fit([])
        assert law.fit([one, [classes(seed=1)]]).readings[0].target.shape == (2,)
        with pytest.raises(LawError, match="got 3 numbers for 2 concepts"):
            law.toward([1.0, 2.0, 3.0])

    def test_full_push_is_the_matrix(self) -> None:
        v, k = torch.randn(2, WIDTH), torch.randn(WIDTH, WIDTH)
        errors = torch.randn(4, 1, 2)
        torch.testing.assert_close(FullPush(v, k).of(errors), Push(v @ k.T).of(errors), atol=1e-4, rtol=1e-4)
