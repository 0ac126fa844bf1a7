"""A-LQR: the gains are those of the regulator, the Jacobians those of the blocks, ablations what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlib import jacobians as module
from steerlib.actuator import Site
from steerlib.errors import LawError
from steerlib.laws.lqr import ALQR, positives
from steerlib.plant import Plant
from steerlib.recorder import record
from steerlib.tasks.source import TaskSource
from tests.families import DEPTH, WIDTH, plant, words
from tests.laws.chatter import Chatter
from tests.laws.test_setpoint import PROMPTS, classes, over_depth

BLOCKS, SMALL = 4, 6


def blocks(seed: int = 0) -> Tensor:
    """Random Jacobians near the identity, as a residual block's are."""
    noise = torch.randn(BLOCKS, SMALL, SMALL, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.eye(SMALL, dtype=torch.float64) + 0.4 * noise


CONTRASTS = [classes(SMALL, seed=block) for block in range(BLOCKS)]


def pushes(law: ALQR) -> Tensor:
    """Push of every block, (blocks, concepts, width)."""
    return torch.stack([part.pushes for part in law.inputs]).double()


def textbook(A: np.ndarray, q: np.ndarray, r: np.ndarray, q_f: np.ndarray) -> list[np.ndarray]:
    """Gains by the formulas of the paper, with inverses and a difference."""
    S, gains = np.diag(q_f), []
    for a in A[::-1]:
        K = np.linalg.inv(S + np.diag(r)) @ S @ a
        S = np.diag(q) + a.T @ S @ a - a.T @ S @ K
        gains.append(K)
    return gains[::-1]


class TestGains:
    @pytest.mark.parametrize("precision", ["float64", "float32"])
    def test_pushes_are_the_gain_times_the_direction(self, precision: str) -> None:
        law = ALQR(q=0.5, r=2.0, q_f=0.3, precision=precision).fit(CONTRASTS, jacobians=blocks())  # type: ignore[arg-type]
        ones = np.ones(SMALL)
        gains = textbook(blocks().numpy(), 0.5 * ones, 2.0 * ones, 0.3 * ones)
        for part, reading, gain in zip(law.inputs, law.readings, gains, strict=True):
            np.testing.assert_allclose(
                part.pushes[0], gain @ reading.directions[0].double().numpy(), rtol=1e-4, atol=1e-5
            )

    def test_diagonal_weights(self) -> None:
        q, r, q_f = np.linspace(0.1, 1, SMALL), np.linspace(1, 3, SMALL), np.linspace(0, 2, SMALL)
        law = ALQR(q=q.tolist(), r=r.tolist(), q_f=q_f.tolist()).fit(CONTRASTS, jacobians=blocks())
        expected = [
            gain @ reading.directions[0].double().numpy()
            for gain, reading in zip(textbook(blocks().numpy(), q, r, q_f), law.readings, strict=True)
        ]
        np.testing.assert_allclose(pushes(law)[:, 0], expected, rtol=1e-4, atol=1e-5)

    def test_only_ratios_of_weights_matter(self) -> None:
        one = ALQR(q=0.1, r=1.0, q_f=1.0).fit(CONTRASTS, jacobians=blocks())
        ten = ALQR(q=1.0, r=10.0, q_f=10.0).fit(CONTRASTS, jacobians=blocks())
        other = ALQR(q=1.0, r=1.0, q_f=1.0).fit(CONTRASTS, jacobians=blocks())
        torch.testing.assert_close(pushes(one), pushes(ten))
        assert not torch.allclose(pushes(one), pushes(other), rtol=0.1)

    def test_dear_states_are_sent_to_the_setpoint_in_one_block(self) -> None:
        law = ALQR(q=1e8, r=1.0, q_f=1e8).fit(CONTRASTS, jacobians=blocks())
        ahead = torch.stack([a @ f.directions[0].double() for a, f in zip(blocks(), law.readings, strict=True)])
        torch.testing.assert_close(pushes(law)[:, 0], ahead, atol=1e-5, rtol=1e-5)

    def test_one_block_is_a_horizon(self) -> None:
        law = ALQR(q=5.0, r=1.0, q_f=3.0).fit(CONTRASTS[:1], jacobians=blocks()[:1])
        wanted = 0.75 * blocks()[0] @ law.readings[0].directions[0].double()
        torch.testing.assert_close(pushes(law)[0, 0], wanted, atol=1e-5, rtol=1e-5)
        assert not len(law.authority)

    def test_the_full_gain_is_the_same_law(self) -> None:
        p = plant("llama")
        contrasts, jacobians = over_depth(p), 0.5 * torch.randn(DEPTH, WIDTH, WIDTH)
        found = []
        for form in ("rank-one", "full"):
            law = ALQR(form=form, setpoint=2.0).fit(contrasts, jacobians=jacobians)  # type: ignore[arg-type]
            with p.under(law, scope="all"):
                found.append(p.forward(PROMPTS[:1]))
        torch.testing.assert_close(*found, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(ALQR().fit(contrasts, jacobians=jacobians).authority, law.authority)
        assert (found[0] - p.forward(PROMPTS[:1])).abs().max() > 0.05


class TestAblations:
    def test_proportional_pushes_along_the_direction(self) -> None:
        law = ALQR(gain="proportional").fit(CONTRASTS)
        for part, reading in zip(law.inputs, law.readings, strict=True):
            assert torch.equal(part.pushes, reading.directions)

    def test_identity_is_proportional_up_to_a_schedule(self) -> None:
        law = ALQR(model="identity", q=0.1, r=1.0, q_f=0.1).fit(CONTRASTS)
        s, schedule = 0.1, []
        for _ in range(BLOCKS):
            schedule.append(s / (s + 1.0))
            s = 0.1 + s / (s + 1.0)
        for part, reading, scale in zip(law.inputs, law.readings, schedule[::-1], strict=True):
            torch.testing.assert_close(part.pushes, scale * reading.directions)

    def test_random_blocks_keep_the_size_and_lose_the_direction(self) -> None:
        same = ALQR(model="random", seed=1).fit(CONTRASTS, jacobians=torch.eye(SMALL).repeat(BLOCKS, 1, 1))
        again = ALQR(model="random", seed=1).fit(CONTRASTS, jacobians=torch.eye(SMALL).repeat(BLOCKS, 1, 1))
        other = ALQR(model="random", seed=2).fit(CONTRASTS, jacobians=torch.eye(SMALL).repeat(BLOCKS, 1, 1))
        identity = ALQR(model="identity").fit(CONTRASTS)
        torch.testing.assert_close(pushes(same), pushes(again))
        # A rotation in the place of the identity costs as much: S stays a multiple of the identity.
        torch.testing.assert_close(pushes(same).norm(dim=-1), pushes(identity).norm(dim=-1))
        for law in (other, identity):
            assert not torch.allclose(pushes(same), pushes(law), atol=0.02)

    def test_shuffled_blocks_are_those_of_other_blocks(self) -> None:
        for seed in range(5):
            kept = ALQR(model="shuffled", seed=seed)._modelled(blocks(), BLOCKS, SMALL, torch.device("cpu"))
            order = [next(i for i, a in enumerate(blocks()) if torch.equal(a, kept[k])) for k in range(BLOCKS)]
            assert sorted(order) == list(range(BLOCKS)) != order
        found = ALQR(model="shuffled").fit(CONTRASTS, jacobians=blocks())
        assert not torch.allclose(pushes(found), pushes(ALQR().fit(CONTRASTS, jacobians=blocks())), atol=0.02)


class TestConcepts:
    SEVERAL = [CONTRASTS, [classes(SMALL, seed=block + 2, gap=2.0) for block in range(BLOCKS)]]

    def test_a_sum_shares_the_gain_of_the_first(self) -> None:
        both = ALQR(combine="sum", setpoint=[1.0, 2.0]).fit(self.SEVERAL, jacobians=blocks())
        for place, contrasts in enumerate(self.SEVERAL):
            alone = ALQR(setpoint=[1.0, 2.0][place]).fit(contrasts, jacobians=blocks())
            torch.testing.assert_close(pushes(both)[:, place], pushes(alone)[:, 0])
            for mine, its in zip(both.readings, alone.readings, strict=True):
                assert float(mine.target[place]) == pytest.approx(float(its.target[0]))

    def test_jointly_the_gain_is_applied_to_the_shortest_move(self) -> None:
        both = ALQR(combine="joint", q=1e8, q_f=1e8).fit(self.SEVERAL, jacobians=torch.eye(SMALL).repeat(BLOCKS, 1, 1))
        state = torch.randn(1, 3, SMALL)
        for reading, part in zip(both.readings, both.inputs, strict=True):
            after = state + part.of(reading.errors(state))  # K = I: in one step every reading is on its setpoint
            torch.testing.assert_close(reading.errors(after), torch.zeros(1, 3, 2), atol=1e-4, rtol=0)
            alone = state + reading.errors(state) @ reading.directions
            assert (
                reading.errors(alone).abs().max() > 0.1
                or (reading.directions @ reading.directions.T)[0, 1].abs() < 0.05
            )
        with pytest.raises(LawError, match="no move can serve both"):
            ALQR(combine="joint").fit([CONTRASTS, CONTRASTS], jacobians=blocks())

    def test_from_two_sources(self) -> None:
        p = plant("llama")
        sources = [TaskSource(Chatter(p), Site(-1), n=20, seed=seed) for seed in (0, 1)]
        law = ALQR(setpoint=[1.0, 0.5], prompts=2).fit_from_several(sources)
        assert law.lengths.shape == (DEPTH, 2) and law.setpoint == (1.0, 0.5)
        first = ALQR(prompts=2).fit_from(sources[0])
        torch.testing.assert_close(pushes(law)[:, 0], pushes(first)[:, 0])


class TestJacobians:
    def source(self, p: Plant, **options: object) -> TaskSource:
        return TaskSource(Chatter(p), Site(-1), n=20, **options)  # type: ignore[arg-type]

    def test_they_are_those_of_the_blocks_on_the_wanted_texts(self) -> None:
        p = plant("llama")
        source, law = self.source(p), ALQR(prompts=3)
        found = law.linearised(source)
        texts = Chatter(p).contrast_texts(n=20, seed=0)[0][:3]
        for block in range(DEPTH):
            by_autograd = torch.stack([derivative(p, text, block) for text in texts]).mean(0)
            torch.testing.assert_close(found[block], by_autograd, atol=2e-4, rtol=1e-3)
        mean = ALQR(prompts=3, jacobian="mean").linearised(source)
        assert not torch.allclose(mean.stack(), found.stack(), atol=1e-2)
        cut = ALQR(prompts=3, context=2, keep="head").linearised(source)
        short = [" ".join(text.split()[:2]) for text in texts]
        torch.testing.assert_close(
            cut[1], torch.stack([derivative(p, text, 1) for text in short]).mean(0), atol=2e-4, rtol=1e-3
        )

    def test_labels_are_shuffled_with_the_texts(self) -> None:
        p = plant("llama")
        true, shuffled = (positives(self.source(p, labels=labels)) for labels in ("true", "shuffled"))
        assert {text.split()[0] for text in true} == {"w7"}
        assert {text.split()[0] for text in shuffled} == {"w7", "w11"}

    @pytest.mark.parametrize("labels", ["true", "shuffled"])
    def test_they_are_the_texts_whose_states_are_called_positive(self, labels: str) -> None:
        p, site = plant("llama"), Site(1)
        source = self.source(p, labels=labels)
        states = record(p, positives(source), sites=[site], position="last").at(site)
        torch.testing.assert_close(states, source.contrasts([site])[0].positive)

    def test_from_files_they_are_read_one_at_a_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        p, read, real = plant("llama"), [], module.load_file
        source, law = self.source(p), ALQR(prompts=2)
        on_disk = law.linearised(source, out=tmp_path)
        contrasts = law.measured(source)

        def note(path: Path) -> Any:
            assert path.parent == tmp_path
            read.append(path.name)
            return real(path)

        monkeypatch.setattr(module, "load_file", note)
        streamed = ALQR(prompts=2).fit(contrasts, jacobians=on_disk)
        assert read == [f"block-{k:03d}.safetensors" for k in reversed(range(DEPTH))]
        torch.testing.assert_close(pushes(streamed), pushes(law.fit(contrasts, jacobians=law.linearised(source))))

    def test_a_fit_measures_and_solves(self) -> None:
        p = plant("llama")
        source = self.source(p)
        law = ALQR(prompts=2, q=1.0).fit_from(source)
        contrasts = source.contrasts([Site(block, "resid_pre") for block in range(DEPTH)])
        by_hand = ALQR(q=1.0).fit(contrasts, jacobians=ALQR(prompts=2).linearised(source))
        torch.testing.assert_close(pushes(law), pushes(by_hand))
        assert law.blocks == [1, 2], "the last word of both classes is the same: nothing to read at the first input"


def derivative(p: Plant, text: str, block: int) -> Tensor:
    """Output of a block at the last token by its input there, through the whole plant."""
    ids, seen = p.encode([text]).input_ids, {}

    def keep(state: Tensor) -> Tensor:
        seen["out"] = state
        return state

    keep.pure = True  # type: ignore[attr-defined]

    def out(delta: Tensor) -> Tensor:
        def add(state: Tensor) -> Tensor:
            return torch.cat([state[:, :-1], state[:, -1:] + delta], 1)

        with p.under(add, layer=block, point="resid_pre", scope="all"), p.under(keep, layer=block, scope="all"):
            p.model(input_ids=ids, use_cache=False)
        return seen["out"][0, -1]

    return torch.autograd.functional.jacobian(out, torch.zeros(p.width), vectorize=True)  # type: ignore[return-value]


def test_without_a_cache_only_the_last_token_is_steered() -> None:
    """Scope "last" and no cache: earlier tokens are computed anew, unsteered; with a cache they stay as they were."""
    p = plant("llama")
    law = ALQR(model="identity", setpoint=6.0).fit(over_depth(p))
    prompt = PROMPTS[0]
    with p.under(law, scope="last"):
        uncached, cached = (
            p.generate([prompt], max_new_tokens=5, seed=0, temperature=0.0, cache=kind).tokens[0]
            for kind in ("none", "dynamic")
        )
        replayed = []
        for _ in range(5):
            logits = p.forward([prompt + "".join(f" {words(t)}" for t in replayed)])
            replayed.append(int(logits[0, -1].argmax()))
    assert list(uncached) == replayed[: len(uncached)]
    assert cached != uncached
    with p.under(law, scope="generated"):
        again = p.generate([prompt], max_new_tokens=5, seed=0, temperature=0.0, cache="none").tokens[0]
    assert again == cached


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"q": 0.0}, "got q with an entry of 0, expected all positive"),
            ({"r": -1.0}, "got r with an entry of -1, expected all positive"),
            ({"q_f": -1.0}, "got q_f with an entry of -1, expected none negative"),
            ({"q": float("nan")}, "got q with an entry of nan"),
            ({"q": "much"}, "got q='much', expected a number"),
            ({"r": [1.0, 0.0]}, "got r with an entry of 0"),
            ({"q": []}, r"got q=\[\], expected a number"),
            ({"r": True}, "got r=True, expected a number"),
            ({"q": [[1.0], [1.0, 2.0]]}, "got q=.*expected a number, or lists"),
            ({"prompts": 0}, "prompts: got 0"),
            ({"context": 1.5}, "context: got 1.5"),
            ({"jacobian": "median"}, "jacobian: got 'median'"),
            ({"keep": "both"}, "keep: got"),
            ({"gain": "none"}, "gain: got"),
            ({"model": "none"}, "model: got"),
            ({"form": "none"}, "form: got"),
            ({"combine": "none"}, "combine: got"),
            ({"precision": "float16"}, "precision: got"),
            ({"gain": "proportional", "model": "identity"}, "solves nothing"),
            ({"gain": "proportional", "form": "full"}, "solves nothing"),
        ],
    )
    def test_options(self, options: dict, message: str) -> None:
        with pytest.raises(LawError, match=message):
            ALQR(**options)

    def test_jacobians_and_weights_that_do_not_fit(self) -> None:
        with pytest.raises(LawError, match="at 4 blocks, and of Jacobians none"):
            ALQR().fit(CONTRASTS)
        with pytest.raises(LawError, match="of Jacobians those of 3 blocks"):
            ALQR().fit(CONTRASTS, jacobians=blocks()[:3])
        with pytest.raises(LawError):
            ALQR(q=[1.0, 2.0]).fit(CONTRASTS, jacobians=blocks())
        with pytest.raises(LawError):
            ALQR().fit(CONTRASTS, jacobians=blocks()[:, :5, :5])
        with pytest.raises(LawError):
            ALQR().fit(CONTRASTS, jacobians=blocks() * float("nan"))

    def test_one_block_is_not_asked_for_and_texts_are(self) -> None:
        p = plant("llama")
        with pytest.raises(LawError, match="got layer 1, but it acts at all 3 blocks"):
            ALQR().fit_from(TaskSource(Chatter(p), Site(1), n=5))
        with pytest.raises(LawError, match="no texts to linearise"):
            positives(object())
