# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (ch-setpoints)=
# # 33 Setpoints and A-LQR
#
# **Name a strength for a feature, measure what is missing to it at the input of every block, and add what the regulator's gain makes of that at the output: two vectors for each block, and one knob that the behaviour follows until the answers fall apart. How much of that is due to the Riccati gain, how much to feedback, and how much to the direction alone is asked at equal effort.**
#
# :::{admonition} Cost
# :class: cost-card note
#
# Time
# : under one minute on one processor core, for the `tiny` profile
#
# Memory
# : about 1 GB
#
# Read first
# : [11](11_difference_of_means) for the feature direction, [15](15_horse_race) for equal effort and disturbances, [31](31_local_linearity) for Jacobians, [32](32_riccati_over_depth) for gains
# :::

# %% tags=["parameters"]
profile = "tiny"
plant = "almanac-llama"
seeds = [0, 1, 2, 3, 4]

# %% tags=["remove-cell"]
# On Colab nothing is installed yet; where steerlib is there, this does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("steerlib") is None:
    source = "steerlib[book] @ git+https://github.com/steerlib/steerlib"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", source], check=True
    )

# %% tags=["hide-input"]
import os
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import pandas as pd
import torch

from steerlib import figures, metrics, tasks
from steerlib.actuator import Site
from steerlib.experiment.calibrate import calibrate
from steerlib.experiment.claims import load_claims
from steerlib.experiment.page import Page
from steerlib.experiment.profile_plants import plant_for
from steerlib.experiment.profile_tables import task_for
from steerlib.experiment.showing import signed, table
from steerlib.jacobians import block_jacobians
from steerlib.laws.additive import shuffled
from steerlib.laws.base import Contrast
from steerlib.laws.lqr import ALQR
from steerlib.laws.pid import PIDAcT
from steerlib.laws.sensing import Feature, joint
from steerlib.metrics import Estimate
from steerlib.metrics.products import product_grid_difference
from steerlib.recorder import record
from steerlib.tasks.base import spread
from steerlib.tasks.source import TaskSource

pd.set_option("display.max_colwidth", None)
page = Page("33_setpoints_and_a_lqr", profile=profile, plant=plant, seeds=seeds)
lm = page.uses(
    plant_for(plant, profile=profile, table="alqr_toxicity", exact=True)
)
# A real model is asked for what its profile says, and judged as that says.
task = task_for(lm, profile=profile, table="alqr_toxicity") or tasks.for_plant(
    lm, data=os.environ.get("STEERLIB_DATA")
)
labels = task.labels
page.words(labels)
lm

# %% [markdown]
# ## One knob
#
# A constant push says *how far to go*. A {term}`setpoint <reference>` says *where to be*. For each block $k$ let $e_k$ be the difference of the mean states of two classes of texts at the block's **input**, $\mu_k = \|e_k\|$ its length and $v_k = e_k/\mu_k$ the feature direction. A-LQR {cite:p}`skifstad2026alqr` reads $v_k^\top z_k$, compares it with the setpoint $\beta_k = \lambda\mu_k$, and adds at the block's **output** a fixed vector $w_k$ times what is missing. The user turns $\lambda$ and nothing else. (Letters are the paper's in this chapter and the next: blocks are numbered $k$, the setpoint is $\beta_k$ and what is missing $\alpha_k$, elsewhere in the book $l$, $r$ and $e$; the multiplier of the input is $s$.)

# %%
source = TaskSource(task, Site(-1), n=100, seed=seeds[0])
law = ALQR(prompts=16)
contrasts = law.measured(source)
blocks = law.linearised(source)
law.fit(contrasts, jacobians=blocks)
law.notes or "a feature at every block: nothing to note"

# %%
few = {"split": "validation", "limit": 12}
lambdas = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0]


def scores(law=None, limit=16, split="test", scope=None):
    """Exact scores, unsteered or under a law."""
    if law is None:
        return task.exact(limit=limit, split=split)
    with lm.under(law, scope=scope):
        return task.exact(limit=limit, split=split)


free = scores()
tuned = {lam: scores(law.toward(lam), **few).combined_mean for lam in lambdas}
chosen = max(tuned, key=tuned.get)

# %%
said = {"left alone": task.sampled(seed=seeds[0], limit=8)}
for lam in (0.0, 1.0, chosen):
    with lm.under(law.toward(lam)):
        said[f"setpoint {lam:g} μ"] = task.sampled(seed=seeds[0], limit=8)

# %% tags=["hide-input"]
verdicts = np.array([s.wanted for s, _ in said.values()])
split = np.flatnonzero(np.ptp(verdicts, axis=0) > 0)
which = int(np.random.default_rng(seeds[0]).choice(split if len(split) else 8))
asked = spread(task.prompts("test"), 8)[which]


def shown(run):
    """An answer, shortened, with its verdict."""
    text = run[1][which].strip().replace("\n", " ")
    cut = text[:110] + ("…" if len(text) > 110 else "")
    return f"{cut} ({labels.wanted} {run[0].wanted[which]:g})"


page.record("chosen", chosen, digits=1)
page.text("prompt", asked.replace("\n", " / "))
idle = [note for note in law.notes if note.startswith("block")]
page.text("idle", "; ".join(idle) or "none")
table([(name, shown(run)) for name, run in said.items()], "law", "answer")

# %% [markdown]
# The prompt was “{glue:text}`prompt`” (a slash for a new line), drawn by a seed among those on which the four do not agree; all drew the same random numbers. $\lambda =$ {glue:text}`chosen` is the best of the grid on validation prompts. Blocks without a feature, at which the law does nothing: {glue:text}`idle`. (There would be one, the first, if the last token of all texts were the same, as in a chat template: then $e_0 = 0$.)
#
# ## The running picture
#
# Held-out states of the negative class at the input of the last block, and where the law brings them that has acted in all blocks before. A push would shift the cloud; a setpoint also draws it together, towards a height.

# %%
texts = task.contrast_texts(n=30, seed=seeds[0], split="validation")
last = Site(lm.depth - 1, "resid_pre")


def states(group, law=None):
    """States of texts at the input of the last block."""
    with ExitStack() as acting:
        if law is not None:
            acting.enter_context(lm.under(law))
        return record(lm, group, sites=[last]).at(last).double().numpy()


# %%
clouds = dict(zip(("positive", "negative"), map(states, texts), strict=True))
moved = {
    f"λ = {lam:g}": states(texts[1], law.toward(lam))
    for lam in (0.0, 1.0, chosen)
}

# %% tags=["hide-input"]
top = law.readings[-1]
v_top = top.directions[0].double().numpy()
mu_top = float(law.lengths[-1, 0])
plane = figures.Plane.of(v_top, np.concatenate([*clouds.values()]))
before = clouds["negative"]
heights = {name: float((z @ v_top).mean() / mu_top) for name, z in moved.items()}
spreads = {
    name: float((z @ v_top).std() / (before @ v_top).std())
    for name, z in moved.items()
}
page.record("height.free", (before @ v_top).mean() / mu_top, digits=2)
page.record("height.chosen", heights[f"λ = {chosen:g}"], digits=2)
page.record("spread.chosen", spreads[f"λ = {chosen:g}"], digits=2)
page.figure(
    "gathered",
    figures.moved(plane, clouds, {n: (before, z) for n, z in moved.items()}),
    alt="Arrows from held-out negative states at the input of the last block to where "
    "the law has brought them, for three setpoints. Mean reading in units of the "
    f"distance of the class means: unsteered {float((before @ v_top).mean() / mu_top):.2f}, "
    + ", ".join(f"{n} {h:.2f}" for n, h in heights.items()) + ".",
)  # fmt: skip

# %% [markdown]
# In units of $\mu$, the mean reading goes from {glue:text}`height.free` to {glue:text}`height.chosen` at the chosen setpoint, and its spread over texts becomes {glue:text}`spread.chosen` of what it was.
#
# ## What a setpoint of 1 means
#
# :::{prf:definition} Setpoint
# :label: setpoint-kinds
# With $\bar z_{k,\pm}$ the class means at the input of block $k$, the setpoint is $\beta_k = \lambda\mu_k$ (**raw**, as in the paper), $\beta_k = v_k^\top\bar z_{k,-} + \lambda\mu_k$ (**centred**), or $\beta_k = \lambda$ (**fixed**). The **error** is $\alpha_k = \beta_k - v_k^\top z_k$.
# :::
#
# :::{prf:proposition} Raw is not centred
# :label: setpoint-raw
# $v_k^\top\bar z_{k,+} = v_k^\top\bar z_{k,-} + \mu_k$. So the raw setpoint with $\lambda = 1$ is the mean of the positive class if and only if $v_k^\top\bar z_{k,-} = 0$, and in general the raw $\lambda$ that stands for the mean of the positive class is $1 + v_k^\top\bar z_{k,-}/\mu_k$, a different number for each block.
# :::
#
# :::{prf:proof}
# $v_k^\top(\bar z_{k,+} - \bar z_{k,-}) = v_k^\top e_k = \mu_k$.
# :::

# %%
low = (law.below / law.lengths)[:, 0].numpy()
norms = np.array([float(torch.cat([*c]).norm(dim=1).mean()) for c in contrasts])
mus = law.lengths[:, 0].numpy()
rng = np.random.default_rng(seeds[0])


# %%
def again():
    """Reading of the negative class, and mu, on texts drawn again."""
    rows = []
    for c in contrasts:
        plus, minus = (x[rng.integers(len(x), size=len(x))].mean(0) for x in c)
        e = (plus - minus).double()
        rows.append((float(e @ minus.double() / (e @ e)), float(e.norm())))
    return np.array(rows)


drawn = np.stack([again() for _ in range(200)])

# %% tags=["hide-input"]
ends = np.quantile(drawn[..., 0], [0.025, 0.975], axis=0)


def above(shift):
    """Mean reading of a class, in units of mu, with its interval over texts."""
    return [
        Estimate(
            float(m + shift),
            float(min(a, m) + shift),
            float(max(b, m) + shift),
            len(contrasts[0].positive),
        )
        for m, a, b in zip(low, *ends, strict=True)
    ]


grow = np.array([np.polyfit(np.log(norms), np.log(d[:, 1]), 1)[0] for d in drawn])
slope = float(np.polyfit(np.log(norms), np.log(mus), 1)[0])
page.record(
    "mu.growth",
    Estimate(
        slope,
        float(min(slope, np.quantile(grow, 0.025))),
        float(max(slope, np.quantile(grow, 0.975))),
        len(contrasts[0].positive),
    ),
)
page.record("raw.low", 1 + low.min(), digits=2)
page.record("raw.high", 1 + low.max(), digits=2)
page.record("mu.first", mus[0], digits=2)
page.record("mu.last", mus[-1], digits=0)
page.figure(
    "setpoints",
    figures.over(
        range(lm.depth),
        {
            "readings of the classes": figures.Panel(
                {"positive class": above(1.0), "negative class": above(0.0)},
                "mean reading / μ", line=("raw setpoint, λ = 1", 1.0),
            ),
            "sizes": figures.Panel(
                {"μ": figures.exactly(mus), "mean length of a state": figures.exactly(norms)},
                "units of the state", log=True,
            ),
        },
        xlabel="block, from 0",
    ),
    alt="Left: mean readings of both classes at the input of each block in units of mu, "
    f"the negative class between {low.min():.2f} and {low.max():.2f}; the raw setpoint is "
    f"the line at 1. Right: mu grows from {mus[0]:.1f} to {mus[-1]:.0f} and the mean "
    f"length of a state from {norms[0]:.1f} to {norms[-1]:.0f}.",
)  # fmt: skip

# %% [markdown]
# Here the raw $\lambda$ that stands for the mean of the positive class lies between {glue:text}`raw.low` and {glue:text}`raw.high`, depending on the block. So the values of 0.5 to 3.5 in the scripts of the paper cannot be read as distances from a class: for that one would have to know where its negative classes read. What $\mu_k$ is good for is the other axis: it grows with the state, from {glue:text}`mu.first` to {glue:text}`mu.last` (slope of $\log\mu_k$ on the logarithm of the mean length of a state: {glue:text}`mu.growth`), so that one $\lambda$ asks for changes of a comparable share of the state at all depths.
#
# ## Rung 1: the shortest way to a setpoint, by hand
#
# Let $v = (\frac35, \frac45)$ and $z = (3, -1)$, and let the setpoint be 3. The reading is $\frac95 - \frac45 = 1$, so 2 is missing. Moving along $v$ by 2 gives $(\frac{21}{5}, \frac35)$, with reading $\frac{63}{25} + \frac{12}{25} = 3$. Moving along the first axis alone would need $2/\frac35 = \frac{10}{3}$, two thirds more.

# %%
v, z, beta = np.array([3 / 5, 4 / 5]), np.array([3.0, -1.0]), 3.0
alpha = beta - v @ z
assert np.isclose(alpha, 2) and np.allclose(z + alpha * v, [21 / 5, 3 / 5])
assert np.isclose(v @ (z + alpha * v), beta)
assert np.isclose(alpha / v[0], 10 / 3)

# %% [markdown]
# :::{prf:theorem} The shortest move to one setpoint, and to several
# :label: setpoint-shortest
# (a) Among all $z'$ with $v^\top z' = \beta$, $\|v\| = 1$, the one nearest to $z$ is $z + \alpha v$ with $\alpha = \beta - v^\top z$, and no other is as near.
# (b) Let $V = (v_1 \dots v_c)$ have independent columns, and let $\alpha_i = \beta_i - v_i^\top z$. The nearest $z'$ with $V^\top z' = \beta$ is $z + V(V^\top V)^{-1}\alpha$. Adding the single moves, $z + V\alpha$, misses the setpoints by $(V^\top V - I)\alpha$.
# :::
#
# :::{prf:proof}
# (b) The constraint on $m = z' - z$ is $V^\top m = \alpha$. Write $m = Va + n$ with $V^\top n = 0$. Then $V^\top V a = \alpha$ fixes $a$, and $\|m\|^2 = \|Va\|^2 + \|n\|^2$ is least, and only then, for $n = 0$. The readings after $V\alpha$ have moved by $V^\top V\alpha$ instead of $\alpha$. (a) is $c = 1$.
# :::
#
# (a) is Theorem 4.1 of the paper; (b) is what it becomes for several concepts, where the released code adds.
#
# ## Rung 2: A-LQR in plain PyTorch
#
# The deviation from the nearest state on the setpoint is $\delta z_k = -\alpha_kv_k$. Chapter [32](32_riccati_over_depth) has the regulator, $u_k = -K_k\,\delta z_k$. So $u_k = \alpha_k K_k v_k$, and backwards over depth:

# %%
q, r, q_f = 0.1, 1.0, 0.1
eye = torch.eye(lm.width, dtype=torch.float64)
S, w = q_f * eye, {}
for k in reversed(range(lm.depth)):
    A = blocks[k].double()
    K = torch.linalg.solve(S + r * eye, S @ A)
    plus, minus = (x.double().mean(0) for x in contrasts[k])
    e, mu_k = plus - minus, (plus - minus).norm()
    w[k] = (mu_k, e / mu_k.clamp_min(1e-30), K @ e / mu_k.clamp_min(1e-30))
    S = q * eye + A.T @ S @ (A - K)


# %%
held = {}


def sense(k):
    """Before block k: what is missing to the setpoint, at the last token."""

    def hook(module, args, kwargs):
        state = args[0] if args else kwargs["hidden_states"]
        mu_k, v_k, _ = w[k]
        held[k] = chosen * mu_k - state[:, -1].double() @ v_k

    return hook  # fmt: skip


# %%
def act(k):
    """After block k: add that times w_k."""

    def hook(module, args, output):
        state = output[0] if isinstance(output, tuple) else output
        state[:, -1] += (held[k][:, None] * w[k][2]).float()

    return hook  # fmt: skip


# %%
one = spread(task.prompts("test"), 4)[0]
ids = lm.encode([one]).input_ids
with ExitStack() as hooks, torch.no_grad():
    for k, block in enumerate(lm.blocks):
        if w[k][0] > 0:
            first = block.register_forward_pre_hook(sense(k), with_kwargs=True)
            then = block.register_forward_hook(act(k))
            hooks.callback(first.remove), hooks.callback(then.remove)
    by_hand = lm.model(ids).logits[0, -1]

# %% [markdown]
# ## Rung 3: the law
#
# {py:class}`~steerlib.laws.lqr.ALQR` is a {py:class}`~steerlib.laws.stack.Stack`: a sensor at the input and an input at the output of every block, joined within a pass. It gives the same logits.

# %%
with lm.under(law.toward(chosen)):
    by_law = lm.forward([one])[0, -1]
torch.testing.assert_close(by_law, by_hand, atol=2e-3, rtol=1e-3)
with lm.under(law.at(0.0)):
    off = lm.forward([one])
assert torch.equal(off, lm.forward([one]))
_ = law.at(1.0)

# %% [markdown]
# Strength zero is the unsteered plant, bit for bit. $\lambda = 0$ is not: it pulls every reading towards zero, whether or not an answer shows it.
#
# ## Two vectors for each block
#
# :::{prf:proposition} Rank one
# :label: setpoint-rank-one
# For every state, $-K_k\,\delta z_k = \alpha_k w_k$ with $w_k = K_kv_k$. With $l$ blocks of width $d$ the law needs $2ld$ numbers where the matrices alone have $ld^2$, and $4d$ multiplications and additions for each token and block instead of $2d^2 + 4d$. At a state on the setpoint it does nothing; beyond it, it pushes back.
# :::
#
# :::{prf:proof}
# $K_k(\alpha_kv_k) = \alpha_k(K_kv_k)$; $\alpha_k$ is zero on the setpoint and changes its sign there.
# :::

# %%
full = ALQR(form="full", setpoint=chosen).fit(contrasts, jacobians=blocks)
with lm.under(full):
    whole = lm.forward(spread(task.prompts("test"), 4))
with lm.under(law):
    thin = lm.forward(spread(task.prompts("test"), 4))
gap = (whole - thin).abs().max() / thin.abs().max()
some = contrasts[-1].negative[:8]
reading = law.readings[-1]
on = some + reading.errors(some) @ reading.directions
at_rest = law.inputs[-1].of(reading.errors(on)).norm(dim=1).max()
size = law.inputs[-1].of(reading.errors(some)).norm(dim=1).mean()

# %% tags=["hide-input"]
page.record("law.full-gain", gap, digits=7)
page.record("law.at-setpoint", at_rest / size, digits=7)
page.record("held.thin", 2 * lm.depth * lm.width)
page.record("held.full", lm.depth * lm.width**2)
page.text("gap.said", f"{float(gap):.0e}")
page.text("rest.said", f"{float(at_rest / size):.0e}")

# %% [markdown]
# On the plant, the logits under both differ by {glue:text}`gap.said` of the largest, and {glue:text}`held.thin` numbers do the work of {glue:text}`held.full`. At states that were put on the setpoint, the input is {glue:text}`rest.said` of its usual size.
#
# ## The loop that the error runs through
#
# :::{prf:proposition} Recursion of the error
# :label: setpoint-loop
# With strength $s$, exactly and for any blocks $\varphi_k$,
#
# $$ \alpha_{k+1} = \bigl(\beta_{k+1} - v_{k+1}^\top\varphi_k(z_k)\bigr) - s\,\kappa_k\,\alpha_k, \qquad \kappa_k = v_{k+1}^\top w_k. $$ (eq-setpoint-loop)
# :::
#
# :::{prf:proof}
# $v_{k+1}^\top z_{k+1} = v_{k+1}^\top\varphi_k(z_k) + s\,\alpha_k\,v_{k+1}^\top w_k$; subtract from $\beta_{k+1}$.
# :::
#
# The bracket is the error that block $k$ would leave to the next one if it were not pushed. $\kappa_k$ is the **authority** of the law: the share of the present error that the input takes off the next. It is not a closed loop in itself, because $\varphi_k(z_k)$ carries all earlier inputs on; for blocks that leave the feature alone ($v_{k+1}^\top\varphi_k(z) = v_k^\top z$, setpoints constant), $\alpha_{k+1} = (1 - s\kappa_k)\alpha_k$. One assumption of that reading, that a block carries the feature, is **false** where $v_k$ turns from one block to the next:


# %%
def probe(name, seen):
    """Looks at the last token, and changes nothing."""

    def look(state):
        seen[name] = state[:, -1].clone()
        return state

    look.pure = True
    return look  # fmt: skip


# %%
@torch.inference_mode()
def watched(prompts, scope=None):
    """Last states: inputs of all blocks, and outputs before the law."""
    seen, points = {}, {"in": "resid_pre", "out": "resid_post"}
    with ExitStack() as all_:
        for k in range(lm.depth):
            for name, point in points.items():
                look = {"layer": k, "point": point, "scope": "all"}
                all_.enter_context(lm.under(probe((name, k), seen), **look))
        if scope is not None:
            all_.enter_context(lm.under(law, scope=scope))
        lm.forward(lm.encode(prompts))
    return seen


# %%
heads, kappa = law.readings, law.authority.tolist()
turn = [float(a @ b) for a, b in pairwise(h.directions[0] for h in heads)]
seen = watched(spread(task.prompts("test"), 12), "last")
missing = {
    k: head.errors(seen["in", k])[:, 0]
    for k, head in zip(law.blocks, heads, strict=True)
}
residual = 0.0
for i, (k, b) in enumerate(pairwise(law.blocks)):
    alone = heads[i + 1].errors(seen["out", k])[:, 0]
    wrong = missing[b] - (alone - kappa[i] * missing[k])
    residual = max(residual, float(wrong.abs().max() / law.lengths[b, 0]))

# %% tags=["hide-input"]
page.record("loop.residual", residual, digits=7)
page.text("residual.said", f"{residual:.0e}")
page.record("kappa.low", min(kappa[1:] or kappa), digits=2)
page.record("kappa.high", max(kappa[1:] or kappa), digits=2)
page.record("turn.low", min(turn), digits=2)
error_by = [
    metrics.mean_interval((missing[k] / law.lengths[k, 0]).double().numpy())
    for k in law.blocks
]
page.record("error.last", error_by[-1], digits=2)
table(
    [(k, f"{float(law.lengths[k, 0]):.3g}", str(e), f"{kappa[i]:.3f}" if i < len(kappa) else "",
      f"{turn[i]:.2f}" if i < len(turn) else "")
     for i, (k, e) in enumerate(zip(law.blocks, error_by, strict=True))],
    "block", "μ", "error / μ under the law", "authority κ", "cosine with the next v",
)  # fmt: skip

# %% [markdown]
# The recursion holds on the plant to {glue:text}`residual.said` of $\mu$. From the second block on the authority lies between {glue:text}`kappa.low` and {glue:text}`kappa.high`: one block takes off that share of the error (where $\mu$ changes by a factor, so does the unit of the error). At the input of the last block {glue:text}`error.last` $\mu$ is still missing: over a few blocks, with gains of this size, a setpoint is an aim and not where the state arrives.
#
# ## Dose and response
#
# The signature figure: scores on test prompts against $\lambda$, and the reading that the last block really gets. Two controls have the same weights and Jacobians: random directions in the place of $v_k$, with $\mu_k$ and negative means as measured, and the law fitted on shuffled labels, with the $\mu_k$ that these leave.

# %%
chance = torch.Generator().manual_seed(seeds[0])


def random_twin(c):
    """The same distance of means in a random direction."""
    d = torch.randn(c.width, generator=chance, dtype=torch.float64)
    gap = c.positive.double().mean(0) - c.negative.double().mean(0)
    low = c.negative.double()
    return Contrast(low + gap.norm() * d / d.norm(), low, c.header)


# %%
mixed = TaskSource(task, Site(-1), n=100, seed=seeds[0], labels="shuffled")
twins = [random_twin(c) for c in contrasts]
untrue = ALQR().measured(mixed)
controls = {
    "A-LQR": law,
    "random directions": ALQR().fit(twins, jacobians=blocks),
    "shuffled labels": ALQR().fit(untrue, jacobians=blocks),
}
wide = [*lambdas, 4.0, 6.0]

# %%
doses = {
    name: [scores(c.toward(lam)) for lam in (wide if c is law else lambdas)]
    for name, c in controls.items()
}  # fmt: skip
reached = []
for lam in wide:
    readings = states(texts[1], law.toward(lam)) @ v_top / mu_top
    reached.append(metrics.mean_interval(readings))
_ = law.toward(chosen)

# %% tags=["hide-input"]
best = max(range(len(wide)), key=lambda i: doses["A-LQR"][i].combined_mean)
dose = {lam: s for lam, s in zip(wide, doses["A-LQR"], strict=True)}
page.record("dose.free", free.wanted_mean())
page.record("dose.zero", dose[0.0].wanted_mean())
page.record("dose.one", dose[1.0].wanted_mean())
page.record("dose.chosen", dose[chosen].wanted_mean())
page.record("dose.chosen.intact", dose[chosen].intact_mean())
page.record("dose.far.intact", dose[6.0].intact_mean())
page.record(
    "dose.random", doses["random directions"][wide.index(chosen)].wanted_mean()
)
page.record(
    "dose.shuffled", doses["shuffled labels"][wide.index(chosen)].wanted_mean()
)
gained = [reached[i + 1].value - reached[i].value for i in range(len(wide) - 1)]
page.record("reach.first", gained[1] / (wide[2] - wide[1]), digits=2)
page.record("reach.last", gained[-1] / (wide[-1] - wide[-2]), digits=2)
wanted = {n: [s.wanted_mean() for s in row] for n, row in doses.items()}
intact = {n: [s.intact_mean() for s in row] for n, row in doses.items()}
page.figure(
    "doses",
    figures.over(
        wide,
        {
            labels.wanted: figures.Panel(wanted, labels.wanted, line=("unsteered", free.wanted_mean().value)),
            labels.intact: figures.Panel(intact, labels.intact),
            "reading": figures.Panel({"A-LQR": reached}, "last reading / μ"),
        },
        xlabel="setpoint λ",
    ),
    alt=f"Three panels against the setpoint. {labels.wanted} under A-LQR goes from "
    f"{wanted['A-LQR'][0].value:.2f} at 0 to {dose[chosen].wanted_mean().value:.2f} at {chosen:g}; under random "
    f"directions it is {wanted['random directions'][wide.index(chosen)].value:.2f} there. {labels.intact} ends at "
    f"{intact['A-LQR'][-1].value:.2f}. The reading rises from {reached[0].value:.2f} to {reached[-1].value:.2f}.",
)  # fmt: skip

# %% [markdown]
# {glue:text}`word.wanted` is {glue:text}`dose.free` unsteered, {glue:text}`dose.zero` at $\lambda = 0$, {glue:text}`dose.one` at 1 and {glue:text}`dose.chosen` at the chosen setpoint, where {glue:text}`word.intact` is {glue:text}`dose.chosen.intact`; at 6 the latter is {glue:text}`dose.far.intact`. Random directions give {glue:text}`dose.random` at the chosen setpoint, shuffled labels {glue:text}`dose.shuffled` (their setpoints are scaled by their own $\mu_k$, the distances of two mixed groups). What a control does beyond the unsteered plant is not owed to the feature, and is to be taken off what the law does. The curves are one fit and one draw of each control. The reading gains {glue:text}`reach.first` $\mu$ for each unit of $\lambda$ at first and {glue:text}`reach.last` at the end: a share of what is asked for, since the error is worked off block by block.
#
# ### Other texts, other draws
#
# A curve of one fit says how much prompts differ, and nothing of how much a law depends on the texts it happened to be fitted on. So the law is fitted again on other draws of contrast texts, with other random directions and other shuffles, at the same setpoints; the Jacobians stay those of the first fit. Scores are exact, so that there is no seed of generation. Intervals draw fits and prompts anew.

# %%
fits = [contrasts]
for s in seeds[1:3]:
    fits.append(ALQR().measured(TaskSource(task, Site(-1), n=100, seed=s)))
meant = {
    "A-LQR": fits,
    "random directions": [[random_twin(c) for c in one] for one in fits],
    "shuffled labels": [
        [shuffled(c, seed=s) for c in one]
        for s, one in zip(seeds, fits, strict=False)
    ],
}
doses_of = {"A-LQR": sorted({0.5, 1.0, 1.5, 2.0, chosen})}


# %%
def at_setpoints(held, wanted_at):
    """Exact scores of one fit at some setpoints."""
    one = ALQR().fit(held, jacobians=blocks)
    return {lam: scores(one.toward(lam)) for lam in wanted_at}


refitted = {
    name: [dict(zip(wide, doses[name], strict=False))]  # the fit of the figure
    + [at_setpoints(held, doses_of.get(name, [chosen])) for held in each[1:]]
    for name, each in meant.items()
}


def rows_of(each):
    """Both scores of several fits, each of shape (fits, prompts)."""
    return tuple(
        np.stack([getattr(s, kind) for s in each])
        for kind in ("wanted", "intact")
    )


# %% tags=["hide-input"]
at_chosen = {
    name: rows_of([found[chosen] for found in each])
    for name, each in refitted.items()
}
nothing = rows_of([free] * len(fits))
page.record("n.fits", len(fits))
for name, key in (("A-LQR", "law"), ("random directions", "random"), ("shuffled labels", "shuffled")):  # fmt: skip
    page.record(f"fits.{key}", metrics.grid_interval(at_chosen[name][0]))
    page.record(
        f"fits.{key}.change",
        product_grid_difference(at_chosen[name], nothing),
    )
for key, name in (("random", "random directions"), ("shuffled", "shuffled labels")):  # fmt: skip
    page.record(
        f"fits.beyond-{key}",
        product_grid_difference(at_chosen["A-LQR"], at_chosen[name]),
    )
table(
    [(name, *(f"{x:.2f}" for x in at_chosen[name][0].mean(1)), str(metrics.grid_interval(at_chosen[name][0])),
      signed(product_grid_difference(at_chosen[name], nothing))) for name in at_chosen],
    "law", *(f"{labels.wanted}, fit {i + 1}" for i in range(len(fits))), "all fits", f"change in {labels.combined}",
)  # fmt: skip

# %% [markdown]
# Over {glue:text}`n.fits` fits {glue:text}`word.wanted` is {glue:text}`fits.law` under A-LQR, {glue:text}`fits.random` under random directions and {glue:text}`fits.shuffled` under shuffled labels. Beyond the random directions {glue:text}`word.combined` rises by {glue:text}`fits.beyond-random`, beyond the shuffled labels by {glue:text}`fits.beyond-shuffled`; the controls themselves change it by {glue:text}`fits.random.change` and {glue:text}`fits.shuffled.change`. With so few fits the intervals know the prompts better than the fits.
#
# ## Does the Riccati gain matter, or only the feedback?
#
# All laws with feedback here have the setpoints $\lambda\mu_k$ with $\lambda =$ {glue:text}`chosen`, and all laws are brought to the effort of A-LQR, in nats per token on validation prompts and within the tolerance of the search (see the table's KL), by the multiplier of their input. Between A-LQR and the first four of its rivals only the *shape* of $w_k$ over directions and depth differs:

# %% [markdown]
# - **proportional**: $w_k = v_k$. **Identity**: the recursion with $A_k = I$, so that $w_k = c_kv_k$ with a schedule $c_k$ over depth. These two are one law up to that schedule.
# - **random Jacobians**: each $A_k$ with its own singular values and random singular vectors. **Shuffled Jacobians**: the same matrices in another order of the blocks. As they differ in size, this changes the schedule over depth as well as the directions.
# - **open loop**: the constant pushes of Mean-AcT, one for each block, fitted in order of depth; no feedback at all.
# - **random directions**, as above.


# %%
def made(held=contrasts, **options):
    """A-LQR with another gain."""
    return ALQR(setpoint=chosen, **options).fit(held, jacobians=blocks)


def constant(seed):
    """Pushes of Mean-AcT, fitted on few texts."""
    law = PIDAcT(ki=0.0, kd=0.0, position="last", acting="last")
    return law.fit_from(TaskSource(task, Site(-1), n=30, seed=seed))


# %%
shapes = {
    "A-LQR": law,
    "proportional": made(gain="proportional"),
    "identity": made(model="identity"),
    "random Jacobians": made(model="random"),
    "shuffled Jacobians": made(model="shuffled"),
    "open loop": constant(seeds[0]),
    "random directions": controls["random directions"].toward(chosen),
}


# %%
asked = spread(task.prompts("validation"), 6)
_, answers = task.sampled(seed=seeds[0], split="validation", limit=6)


# %%
def cost(law):
    """Effort against the multiplier, in nats per token."""

    def at(strength):
        acting = lm.under(law.at(strength), scope="generated")
        return metrics.kl_per_token(lm, acting, asked, answers).mean

    return at  # fmt: skip


# %%
budget = cost(law)(1.0)
search = {"start": 0.3, "tolerance": 0.07, "most": 8, "power": 2.0}
spent = {
    name: calibrate(cost(one), budget, **search)
    for name, one in shapes.items()
    if name != "A-LQR"
}
at = {n: spent[n].strength if n in spent else 1.0 for n in shapes}
matched = {
    name: scores(one.at(at[name]), limit=24, scope="generated")
    for name, one in shapes.items()
}

# %% [markdown]
# The same for the law and its nearest rivals on the other draws of texts, each brought again to what A-LQR of that fit costs, from the multiplier that was found above.

# %%
rivals = {
    "proportional": {"gain": "proportional"},
    "identity": {"model": "identity"},
    "shuffled Jacobians": {"model": "shuffled"},
    "open loop": None,
}
again_ = {name: [matched[name]] for name in ("A-LQR", *rivals)}
for seed, held in zip(seeds[1:], fits[1:], strict=False):
    ours = made(held)
    limit = cost(ours)(1.0)
    again_["A-LQR"].append(scores(ours, limit=24, scope="generated"))
    for name, how in rivals.items():
        one = constant(seed) if how is None else made(held, **how)
        near = {**search, "start": at[name] or search["start"], "most": 5}
        one.at(calibrate(cost(one), limit, **near).strength)
        again_[name].append(scores(one, limit=24, scope="generated"))
refit = {name: rows_of(each) for name, each in again_.items()}

# %% tags=["hide-input"]
long_free = scores(limit=24)
beyond_ = {
    name: product_grid_difference(refit[name], refit["A-LQR"]) for name in rivals
}
for name, e in beyond_.items():
    page.record(f"refit.{name.lower().replace(' ', '-')}.beyond", e)
page.record(
    "refit.a-lqr",
    product_grid_difference(refit["A-LQR"], rows_of([long_free] * len(fits))),
)
clear = {
    side: [n for n, e in beyond_.items() if (e.low > 0 if side == "better" else e.high < 0)]
    for side in ("better", "worse")
}  # fmt: skip
for side, names in clear.items():
    page.text(f"refit.{side}", ", ".join(names) or "none")

# %% tags=["hide-input"]
reach = {name: spent[name].reached if name in spent else True for name in shapes}
rows = []
for name, s in matched.items():
    beyond = s.combined_gain(matched["A-LQR"])
    rows.append(
        (name, f"{spent[name].strength:.2g}" if name in spent else "1",
         f"{spent[name].cost:.3g}" + ("" if reach[name] else " (not reached)") if name in spent else f"{budget:.3g}",
         str(s.wanted_mean()), str(s.intact_mean()), signed(s.combined_gain(long_free)),
         "" if name == "A-LQR" else signed(beyond))
    )  # fmt: skip
    key = name.lower().replace(" ", "-")
    page.record(f"matched.{key}", s.combined_gain(long_free))
    if name != "A-LQR":
        page.record(f"matched.{key}.beyond", beyond)
better = [
    n
    for n, s in matched.items()
    if n != "A-LQR" and s.combined_gain(matched["A-LQR"]).low > 0
]
worse = [
    n
    for n, s in matched.items()
    if n != "A-LQR" and s.combined_gain(matched["A-LQR"]).high < 0
]
page.text("matched.better", ", ".join(better) or "none")
page.text("matched.worse", ", ".join(worse) or "none")
page.record("budget", budget, digits=3)
page.record("n.matched", len(long_free.wanted))
table(
    rows, "law", "multiplier", "KL", labels.wanted, labels.intact,
    f"change in {labels.combined}", "beyond A-LQR",
)  # fmt: skip

# %% tags=["hide-input"]
page.figure(
    "matched",
    figures.intervals(
        {n: s.combined_gain(matched["A-LQR"]) for n, s in matched.items() if n != "A-LQR"},
        xlabel=f"{labels.combined} less that of A-LQR, equal effort", zero=0.0,
    ),
    alt=f"{labels.combined} of laws with other gains less that of A-LQR at equal effort, with "
    "intervals over prompts: " + ", ".join(
        f"{n} {s.combined_gain(matched['A-LQR']).value:+z.3f}" for n, s in matched.items() if n != "A-LQR"
    ) + ".",
)  # fmt: skip

# %% [markdown]
# On {glue:text}`n.matched` test prompts at {glue:text}`budget` nats per token. Better than A-LQR, the interval of the paired difference above zero: {glue:text}`matched.better`. Worse: {glue:text}`matched.worse`. Proportional feedback differs from A-LQR by {glue:text}`matched.proportional.beyond`, the identity by {glue:text}`matched.identity.beyond`, Jacobians of other blocks by {glue:text}`matched.shuffled-jacobians.beyond`, random ones by {glue:text}`matched.random-jacobians.beyond`, and constant pushes, fitted on 30 texts of each class, by {glue:text}`matched.open-loop.beyond`. That is one fit of each, with intervals over prompts.
#
# Over {glue:text}`n.fits` fits, with intervals over fits and prompts, A-LQR changes {glue:text}`word.combined` by {glue:text}`refit.a-lqr`. Better than it: {glue:text}`refit.better`; worse: {glue:text}`refit.worse`. Proportional feedback differs by {glue:text}`refit.proportional.beyond`, the identity by {glue:text}`refit.identity.beyond`, Jacobians of other blocks by {glue:text}`refit.shuffled-jacobians.beyond`, constant pushes by {glue:text}`refit.open-loop.beyond`. No interval is corrected for the number of comparisons.
#
# Jacobians matter in one sense: wrong ones turn $w_k$ away from the feature or spoil its schedule over depth. Whether the right ones do more than that, the rows of proportional and identity gains say: they have no Jacobian. And where nothing disturbs the plant, feedback has little to do that a constant push could not; chapter [34](34_pid) disturbs it.
#
# ## The last token, or all of them
#
# A-LQR steers the last position of each pass; **A-LQR+** all positions, each by its own error. Here this is the scope: `generated` (from the last token of the prompt on; the same tokens as `last` while generating with a cache) and `all`. The linear model was made with the context frozen. When earlier tokens are steered as well, they reach the last one through attention, and that is not in $A_k$. How much is missing? Along two trajectories from the same prompt, without and with the law, let $\delta_k$ be the difference of the last token's states; the model says $\delta_{k+1} = A_k\delta_k + u_k$, with $A_k$ at that very prompt.

# %%
near = spread(task.prompts("test"), 6)
own = block_jacobians(lm, near, average=False)


# %%
law.toward(chosen).at(1.0)
still, off = watched(near), {}
for scope in ("last", "all"):
    run, off[scope] = watched(near, scope), []
    for k in range(1, lm.depth):
        change = run["out", k] - still["out", k]
        delta = run["in", k] - still["in", k]
        model = torch.einsum("nij,nj->ni", own.at(k), delta)
        lost = (change - model).norm(dim=1) / change.norm(dim=1)
        off[scope].append(lost.double().numpy())

# %%
by_scope = {
    scope: scores(law, limit=32, scope=scope) for scope in ("generated", "all")
}
plus = by_scope["all"].combined_gain(by_scope["generated"])

# %% tags=["hide-input"]
names = {"last": "last token steered", "all": "all tokens steered"}
page.record("cross.last", 100 * float(np.mean(off["last"])), digits=0, unit="%")
page.record("cross.all", 100 * float(np.mean(off["all"])), digits=0, unit="%")
page.record(
    "cross.added",
    metrics.mean_interval(np.mean(off["all"], 0) - np.mean(off["last"], 0)),
)
page.record("plus.change", plus)
page.record("plus.wanted", by_scope["all"].wanted_mean())
page.record("plus.intact", by_scope["all"].intact_mean())
page.record("last.wanted", by_scope["generated"].wanted_mean())
page.figure(
    "cross-positions",
    figures.over(
        range(1, lm.depth),
        {"": figures.Panel({names[s]: [metrics.mean_interval(x) for x in rows] for s, rows in off.items()},
                           "relative error of the linear model")},
        xlabel="block, from 0",
    ),
    alt="Relative error of the frozen-context linear model of each block, along trajectories steered at the last "
    f"token (mean {float(np.mean(off['last'])):.2f}) and at all tokens (mean {float(np.mean(off['all'])):.2f}).",
)  # fmt: skip

# %% [markdown]
# Steered at the last token only, the linear model misses {glue:text}`cross.last` of the change that leaves a block: that is curvature, since nothing else moved. Steered everywhere it misses {glue:text}`cross.all`; the difference is {glue:text}`cross.added` as a share. It is the cost of the ignored cross-position Jacobians to the model, together with whatever the changed states add in curvature. What it costs the behaviour is another matter: {glue:text}`word.wanted` is {glue:text}`plus.wanted` with all positions steered against {glue:text}`last.wanted`, with the same multiplier and so not at the same effort (change in {glue:text}`word.combined`: {glue:text}`plus.change`).
#
# ## Two concepts at once
#
# A second feature on the same plant (refusal on the plants of the Almanac; on others, the same two classes read half-way through their texts), its own setpoint, and one gain for both. {prf:ref}`setpoint-shortest` says by how much the sum of the single moves misses; here for the states of the prompts, at the input of each block at which both features are known.

# %% tags=["hide-input"]
if lm.name.startswith("almanac"):
    other = TaskSource(tasks.Refusal(lm), Site(-1), n=60, seed=seeds[0])
    more = ALQR().measured(other)
else:  # another plant: the same texts, read at their first halves
    halves = [
        [t[: max(1, len(t) // 2)] for t in g]
        for g in task.contrast_texts(n=60, seed=seeds[0])
    ]
    sites = [Site(k, "resid_pre") for k in range(lm.depth)]
    found = [record(lm, g, sites=sites) for g in halves]
    more = [
        Contrast(found[0].at(s), found[1].at(s), c.header)
        for s, c in zip(sites, contrasts, strict=True)
    ]

# %%
both = [contrasts, more]
pair = {
    how: ALQR(combine=how, setpoint=[chosen, 1.0]).fit(both, jacobians=blocks)
    for how in ("sum", "joint")
}

# %%
where, overlap, missed = [], [], {"sum": [], "joint": []}
for k, head in zip(pair["sum"].blocks, pair["sum"].readings, strict=True):
    feature = Feature.of([contrasts[k], more[k]])
    if not (feature.lengths > 0).all():
        continue
    V, alpha = feature.directions, head.errors(still["in", k]).double()
    where.append(k), overlap.append(float(V[0] @ V[1]))
    for how, move in (("sum", alpha @ V), ("joint", alpha @ joint(feature))):
        left = (alpha - move @ V.T).abs() / alpha.abs()
        missed[how].append(float(left.mean()))

# %% tags=["hide-input"]
under = {how: scores(p) for how, p in pair.items()}
page.record("pair.overlap", max(map(abs, overlap)), digits=2)
page.record("pair.sum", 100 * max(missed["sum"]), digits=0, unit="%")
page.text("pair.joint", f"{max(missed['joint']):.0e}")
page.record("pair.sum.wanted", under["sum"].wanted_mean())
page.record("pair.joint.wanted", under["joint"].wanted_mean())
page.record("pair.change", under["joint"].combined_gain(under["sum"]))
table(
    [(k, f"{c:+z.2f}", f"{100 * a:.0f} %", f"{b:.0e}") for k, c, a, b in zip(where, overlap, *missed.values(), strict=True)],
    "block", "cosine of the two directions", "error left by the sum", "by the joint move",
)  # fmt: skip

# %% [markdown]
# The two directions have cosines of up to {glue:text}`pair.overlap`; the sum leaves up to {glue:text}`pair.sum` of an error (mean over prompts and both concepts), the joint move {glue:text}`pair.joint`. For the behaviour, {glue:text}`word.wanted` is {glue:text}`pair.sum.wanted` under the sum and {glue:text}`pair.joint.wanted` under the joint law (change in {glue:text}`word.combined` {glue:text}`pair.change`). The theorem is about single moves: what they do to answers it does not say. Where the directions are nearly parallel the length of the joint move grows like $1/\sqrt{1 - \cos^2}$: {py:func}`~steerlib.laws.sensing.joint` refuses before it is noise.
#
# ## Break it
#
# *Saturation.* Between the chosen setpoint and 6 the reading goes on following $\lambda$ while the answers fall apart ({glue:text}`word.intact` {glue:text}`dose.far.intact` at 6). What saturates is not the sensor but what the blocks above can make of such states: the law holds what it measures, and nobody measures whether the state is still one that the plant computes with.
#
# *A setpoint measured at one kind of token* is imposed on all: the features were measured at the last token of texts, and the law acts at every token of an answer.
#
# *The gain is a number, not a guarantee.* The recursion is optimal for bringing $\delta z$ to zero in the linear model. The target moves from block to block, and chapter [32](32_riccati_over_depth) has what an honest tracker would add.
#
# **In control words.** The sensor is a projection, the actuator the residual stream, and the loop closes over depth within one pass: it rejects what disturbs the reading at *every* block, which no constant push does. Proportional feedback with one gain is the baseline that a designed gain has to beat.
#
# ## Exercises
#
# Replace the body of the stub, run the stub and the cell of tests below it, then call the test on your function, for example `check_33_1(shortest)`. Silence means that it passed. Each exercise stands alone; run `import numpy as np` first. Solutions are folded; open one by a click.
#
# ### Exercise 33.1: the shortest move for several setpoints
#
# *Easy, 5 minutes.* Return the shortest $m$ with $V^\top(z + m) = \beta$.

# %% tags=["exercise-setup", "ex:33.1", "ex:33.2", "ex:33.3", "ex:33.4"]
import numpy as np


# %% tags=["exercise-stub", "ex:33.1"]
def shortest(z, V, beta):
    """State z (d,), unit columns V (d, c), setpoints (c,) -> move (d,)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:33.1"]
def check_33_1(shortest):
    rng = np.random.default_rng(0)
    z, V, beta = rng.normal(size=6), rng.normal(size=(6, 3)), rng.normal(size=3)
    V /= np.linalg.norm(V, axis=0)
    m = shortest(z, V, beta)
    assert np.allclose(V.T @ (z + m), beta), "not on the setpoints"
    assert np.allclose(m, np.linalg.pinv(V.T) @ (beta - V.T @ z)), "not shortest"


# %% tags=["exercise-wrong", "ex:33.1", "remove-cell"]
def shortest(z, V, beta):  # adds the single moves
    return V @ (beta - V.T @ z)


# %% tags=["exercise-solution", "ex:33.1", "hide-cell"]
def shortest(z, V, beta):
    return V @ np.linalg.solve(V.T @ V, beta - V.T @ z)


# %%
check_33_1(shortest)

# %% [markdown]
# ### Exercise 33.2: two vectors
#
# *Easy, 5 minutes.* Given the gain $K$, return the pair of vectors that the law keeps, and apply it: `u = law(z, beta)` must be $-K\,\delta z$.


# %% tags=["exercise-stub", "ex:33.2"]
def two_vectors(K, v):
    """Gain (d, d), unit direction (d,) -> a function of (z, beta)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:33.2"]
def check_33_2(two_vectors):
    rng = np.random.default_rng(1)
    K, v, z = rng.normal(size=(5, 5)), rng.normal(size=5), rng.normal(size=5)
    v /= np.linalg.norm(v)
    law = two_vectors(K, v)
    nearest = z + (2.0 - v @ z) * v
    assert np.allclose(law(z, 2.0), -K @ (z - nearest))
    assert np.allclose(law(nearest, 2.0), 0), "on the setpoint nothing is pushed"


# %% tags=["exercise-wrong", "ex:33.2", "remove-cell"]
def two_vectors(K, v):  # transposes the gain
    w = K.T @ v
    return lambda z, beta: (beta - v @ z) * w


# %% tags=["exercise-solution", "ex:33.2", "hide-cell"]
def two_vectors(K, v):
    w = K @ v
    return lambda z, beta: (beta - v @ z) * w


# %%
check_33_2(two_vectors)

# %% [markdown]
# ### Exercise 33.3: the steady error of a ramp
#
# *Medium, 10 minutes.* Blocks carry the feature unchanged, the authority is the same $\kappa$ at every block ($0 < \kappa < 2$), and the setpoint rises by $c$ from block to block. Return the error that remains in the long run.


# %% tags=["exercise-stub", "ex:33.3"]
def ramp_error(kappa, c):
    """Authority, rise of the setpoint for each block -> error at last."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:33.3"]
def check_33_3(ramp_error):
    for kappa, c in ((0.2, 1.0), (0.9, -2.0), (1.5, 0.3)):
        reading = beta = 0.0
        for _ in range(400):
            reading += kappa * (beta - reading)
            beta += c
        assert np.isclose(ramp_error(kappa, c), beta - reading)


# %% tags=["exercise-wrong", "ex:33.3", "remove-cell"]
def ramp_error(kappa, c):  # the error before the setpoint has moved on
    return c / kappa - c


# %% tags=["exercise-solution", "ex:33.3", "hide-cell"]
def ramp_error(kappa, c):
    # alpha = (1 - kappa) alpha + c
    return c / kappa


# %%
check_33_3(ramp_error)

# %% [markdown]
# ### Exercise 33.4: translate a setpoint
#
# *Easy, 5 minutes.* Somebody reports a raw $\lambda$ at a block with class means `plus` and `minus`. Return the centred $\lambda$ of the same setpoint.


# %% tags=["exercise-stub", "ex:33.4"]
def centred(raw, plus, minus):
    """Raw lambda, class means (d,) -> centred lambda."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:33.4"]
def check_33_4(centred):
    plus, minus = np.array([4.0, 1.0]), np.array([1.0, 1.0])
    assert np.isclose(centred(4 / 3, plus, minus), 1.0), (
        "the mean of the positive class"
    )
    assert np.isclose(centred(1 / 3, plus, minus), 0.0), "of the negative class"
    assert np.isclose(centred(2.0, -minus, -plus), 2 + 4 / 3)


# %% tags=["exercise-wrong", "ex:33.4", "remove-cell"]
def centred(raw, plus, minus):  # adds the offset in the place of taking it away
    e = plus - minus
    return raw + minus @ e / (e @ e)


# %% tags=["exercise-solution", "ex:33.4", "hide-cell"]
def centred(raw, plus, minus):
    e = plus - minus
    return raw - minus @ e / (e @ e)


# %%
check_33_4(centred)

# %% [markdown]
# ## Claims checked here
#
# What the A-LQR paper says of its law on models of a billion parameters and more, tested here on one small plant in a decidable world and on one behaviour; identities to rounding.

# %% tags=["hide-input"]
page.samples(
    "dose.wanted",
    {
        f"lambda-{lam:g}": rows_of([f[lam] for f in refitted["A-LQR"]])[0]
        for lam in (0.5, 1.0, 1.5, 2.0)
    },
    note=f"{task.name}, {lm.name}, {len(fits)} fits",
)
mine = [c for c in load_claims().values() if c.page == page.record_file.page]
rows = [
    (c.says.split(". ")[0].rstrip("."), c.kind, str(page.record_file.checks[c.id].verdict))
    for c in mine
]  # fmt: skip
table(rows, "claim", "kind", "here")

# %% [markdown]
# ## What we found

# %% tags=["hide-input"]
points = [
    f"The law is two vectors for each block: the full gain gives the same logits to {float(gap):.0e}, and the error "
    f"obeys a scalar recursion to {residual:.0e} of μ, with an authority of {min(kappa[1:] or kappa):.2f} to "
    f"{max(kappa[1:] or kappa):.2f} a block.",
    f"A raw setpoint of 1 is not the mean of the positive class, which lies at {1 + low.min():.2f} to "
    f"{1 + low.max():.2f} depending on the block.",
    f"Over {len(fits)} fits {labels.wanted} goes from {free.wanted_mean().value:.2f} to "
    f"{at_chosen['A-LQR'][0].mean():.2f} at λ = {chosen:g}; the same gains along random directions give "
    f"{at_chosen['random directions'][0].mean():.2f}, the law of shuffled labels "
    f"{at_chosen['shuffled labels'][0].mean():.2f}.",
    f"At equal effort, over {len(fits)} fits, plain proportional feedback differs from A-LQR by "
    f"{signed(beyond_['proportional'])} in {labels.combined}, gains from Jacobians of the wrong blocks by "
    f"{signed(beyond_['shuffled Jacobians'])}, constant pushes by {signed(beyond_['open loop'])}.",
]  # fmt: skip
page.findings(points)

# %% [markdown]
# What this does not show: how gains compare over thirty blocks, where errors have longer to be carried on; and what is lost where the plant of use is not that of the fit, which chapters 36 and 37 take up.
#
# ## Further reading
#
# - {cite:t}`skifstad2026alqr`: the method; Theorem 4.1 is {prf:ref}`setpoint-shortest` (a).
# - {cite:t}`rodriguez2025act`: constant pushes at every block, fitted in order of depth: the open loop of the comparison.

# %% tags=["hide-input"]
page.footer()
