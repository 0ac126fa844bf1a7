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
# (ch-pid)=
# # 34 PID over depth
#
# **Push at every block in proportion to what is missing, and a disturbance that keeps coming keeps an error open; add up the errors on the way, and the constant part of it closes, if there are blocks enough to add up over. In a plant of few blocks the sum buys nothing against the disturbance at equal effort; proportional feedback takes a part of it off, and a PID that was fitted and frozen is a constant push.**
#
# :::{admonition} Cost
# :class: cost-card note
#
# Time
# : about one minute on one processor core, for the `tiny` profile
#
# Memory
# : about 1 GB
#
# Read first
# : [33](33_setpoints_and_a_lqr) for setpoints and errors, [15](15_horse_race) for disturbances and equal effort
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
from functools import cache

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
from steerlib.experiment.samples import product_scores
from steerlib.experiment.showing import signed, table
from steerlib.laws.additive import Additive
from steerlib.laws.lqr import ALQR
from steerlib.laws.pid import SPID, PIDAcT
from steerlib.metrics.products import product_grid_difference
from steerlib.recorder import record
from steerlib.tasks.base import spread
from steerlib.tasks.source import TaskSource

pd.set_option("display.max_colwidth", None)
page = Page("34_pid", profile=profile, plant=plant, seeds=seeds)
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
# ## A disturbance that keeps coming
#
# Chapter [15](15_horse_race) pushed *against* a law and found that no constant push gives way by less than the whole of it. Here the adversary is more stubborn: at the input of every block but the first and the last it moves the state by $-w\mu_kv_k$, against the feature, in units of the distance $\mu_k$ of the class means. Three feedback laws aim at the same setpoints ($\lambda = 2$): **P** pushes in *proportion* to what is missing, **PI** adds the *integral*, the sum of what was missing at the blocks before, and A-LQR has the gains of chapter [33](33_setpoints_and_a_lqr). (The D of PID, for *derivative*, is the change of the error from block to block.) A fourth law pushes by constants; all are brought to the same effort, within the tolerance of the search, where nothing disturbs.

# %%
source = TaskSource(task, Site(-1), n=60, seed=seeds[0])
base = ALQR(prompts=8, setpoint=2.0)
contrasts = base.measured(source)
blocks_ = base.linearised(source)
base.fit(contrasts, jacobians=blocks_)


def s_pid(**options):
    """Setpoint PID on the same features."""
    return SPID(**({"setpoint": 2.0, "windup": "none"} | options)).fit(contrasts)


# %%
some = TaskSource(task, Site(-1), n=20, seed=seeds[0])
pushes = {"position": "last", "acting": "last"}
laws = {
    "constant pushes": PIDAcT(kp=1.0, ki=0.0, kd=0.0, **pushes).fit_from(some),
    "P": s_pid(kp=1.0, ki=0.0),
    "PI": s_pid(kp=1.0, ki=1.0),
    "A-LQR": base,
}

# %%
asked = spread(task.prompts("validation"), 6)
_, answers = task.sampled(seed=seeds[0], split="validation", limit=6)
USE = {"scope": "generated"}


# %%
def cost(law):
    """Effort against the multiplier, in nats per token."""

    def at(strength):
        acting = lm.under(law.at(strength), **USE)
        return metrics.kl_per_token(lm, acting, asked, answers).mean

    return at  # fmt: skip


budget = cost(base)(1.0)

# %%
search = {"start": 0.2, "tolerance": 0.07, "most": 8, "power": 2.0}
spent = {
    name: calibrate(cost(law), budget, **search)
    for name, law in laws.items()
    if name != "A-LQR"
}
at = {n: spent[n].strength if n in spent else 1.0 for n in laws}
for name, law in laws.items():
    law.at(at[name])
heads = {h.header.layer: h for h in base.readings}
inner = [k for k in heads if 0 < k < lm.depth - 1] or [max(heads)]


# %%
def adversary(w, blocks=inner):
    """Against the feature, at the inputs of some blocks."""
    acting = ExitStack()
    for k in blocks if w else ():
        mu = float(base.lengths[k, 0])
        law = Additive(-mu * heads[k].directions[0]).at(w)
        where = {"layer": k, "point": "resid_pre"}
        acting.enter_context(lm.under(law, **where, **USE))
    return acting


# %%
def scores(law=None, w=0.0, limit=16, blocks=inner, **which):
    """Exact scores under a law and against the adversary."""
    with adversary(w, blocks), ExitStack() as acting:
        if law is not None:
            acting.enter_context(lm.under(law, **USE))
        return task.exact(limit=limit, **which)


# %%
harm = 0.25
calm = {"unsteered": scores(), **{n: scores(law) for n, law in laws.items()}}
rough = {
    "unsteered": scores(w=harm),
    **{n: scores(law, harm) for n, law in laws.items()},
}

# %% tags=["hide-input"]
rows = [
    (name, f"{at[name]:.2g}" if name in at else "", f"{spent[name].cost:.3g}" if name in spent else f"{budget:.3g}" if name in at else "",
     str(calm[name].wanted_mean()), str(rough[name].wanted_mean()), signed(rough[name].combined_gain(calm[name])))
    for name in calm
]  # fmt: skip
page.record("budget", budget, digits=3)
page.record("harm", harm, digits=2)
page.record("n.scored", len(calm["P"].wanted))
for name in calm:
    key = name.lower().replace(" ", "-")
    page.record(f"calm.{key}", calm[name].wanted_mean())
    page.record(f"rough.{key}", rough[name].wanted_mean())
    page.record(f"fall.{key}", rough[name].combined_gain(calm[name]))
table(
    rows,
    "law",
    "multiplier",
    "KL",
    labels.wanted,
    f"{labels.wanted}, disturbed",
    f"change in {labels.combined} by the disturbance",
)

# %% [markdown]
# At {glue:text}`budget` nats per token, on {glue:text}`n.scored` test prompts. Against a disturbance of {glue:text}`harm` $\mu$ at each inner block, {glue:text}`word.wanted` under constant pushes goes from {glue:text}`calm.constant-pushes` to {glue:text}`rough.constant-pushes`, under P from {glue:text}`calm.p` to {glue:text}`rough.p`, under PI from {glue:text}`calm.pi` to {glue:text}`rough.pi`, under A-LQR from {glue:text}`calm.a-lqr` to {glue:text}`rough.a-lqr`. {glue:text}`word.combined` changes by {glue:text}`fall.constant-pushes` under constant pushes, {glue:text}`fall.p` under P, {glue:text}`fall.pi` under PI and {glue:text}`fall.a-lqr` under A-LQR. Here is what three of them write after one disturbed prompt, drawn by a seed from those on which they do not agree.

# %%
written = {}
for name in ("constant pushes", "PI", "A-LQR"):
    with adversary(harm), lm.under(laws[name], **USE):
        written[name] = task.sampled(seed=seeds[0], limit=8)

# %% tags=["hide-input"]
verdicts = np.array([s.wanted for s, _ in written.values()])
differ = np.flatnonzero(np.ptp(verdicts, axis=0) > 0)
chosen = int(np.random.default_rng(seeds[0]).choice(differ if len(differ) else 8))


def shown(run):
    """An answer, shortened, with its verdict."""
    text = run[1][chosen].strip().replace("\n", " ")
    cut = text[:110] + ("…" if len(text) > 110 else "")
    return f"{cut} ({labels.wanted} {run[0].wanted[chosen]:g})"


page.text("prompt", spread(task.prompts("test"), 8)[chosen].replace("\n", " / "))
table([(name, shown(run)) for name, run in written.items()], "law", "answer")

# %% [markdown]
# The prompt was “{glue:text}`prompt`”.
#
# ### Other texts
#
# One fit does not say how much of this is owed to the texts it was made on. So all four laws are fitted again on other draws of contrast texts, with the multipliers that were found above and the Jacobians of the first fit, and face the same adversary. Scores are exact, so that there is no seed of generation; the intervals draw fits and prompts anew.


# %%
def fitted_again(seed):
    """The four laws, on other texts of the same kinds."""
    held = base.measured(TaskSource(task, Site(-1), n=60, seed=seed))
    few = TaskSource(task, Site(-1), n=20, seed=seed)
    made = {
        "constant pushes": PIDAcT(kp=1.0, ki=0.0, kd=0.0, **pushes).fit_from(few),
        "P": SPID(setpoint=2.0, windup="none", kp=1.0, ki=0.0).fit(held),
        "PI": SPID(setpoint=2.0, windup="none", kp=1.0, ki=1.0).fit(held),
        "A-LQR": ALQR(setpoint=2.0).fit(held, jacobians=blocks_),
    }
    return held, {name: law.at(at[name]) for name, law in made.items()}


others = {seed: fitted_again(seed) for seed in seeds[1:3]}


# %%
def rows_of(each):
    """Both scores of several fits, each of shape (fits, prompts)."""
    return tuple(
        np.stack([getattr(s, kind) for s in each])
        for kind in ("wanted", "intact")
    )


felt = {}
for name in laws:
    each = [(calm[name], rough[name])]
    for _, again in others.values():
        each.append((scores(again[name]), scores(again[name], harm)))
    felt[name] = tuple(rows_of(group) for group in zip(*each, strict=True))
fall = {
    name: product_grid_difference(hit, still)
    for name, (still, hit) in felt.items()
}
beyond = {
    name: product_grid_difference(felt[name][1], felt["constant pushes"][1])
    for name in laws
    if name != "constant pushes"
}

# %% tags=["hide-input"]
page.record("n.fits", 1 + len(others))
for name, e in fall.items():
    page.record(f"fits.fall.{name.lower().replace(' ', '-')}", e)
for name, e in beyond.items():
    page.record(f"fits.beyond.{name.lower()}", e)
page.text(
    "fits.above", ", ".join(n for n, e in beyond.items() if e.low > 0) or "none"
)
table(
    [(name, *(f"{x:.2f}" for x in hit[0].mean(1)), signed(fall[name]), signed(beyond[name]) if name in beyond else "")
     for name, (_, hit) in felt.items()],
    "law", *(f"{labels.wanted}, disturbed, fit {i + 1}" for i in range(1 + len(others))),
    f"change in {labels.combined} by the disturbance, all fits", "disturbed, beyond constant pushes",
)  # fmt: skip

# %% [markdown]
# Over {glue:text}`n.fits` fits the disturbance changes {glue:text}`word.combined` by {glue:text}`fits.fall.constant-pushes` under constant pushes, {glue:text}`fits.fall.p` under P, {glue:text}`fits.fall.pi` under PI and {glue:text}`fits.fall.a-lqr` under A-LQR. Disturbed, clearly above constant pushes: {glue:text}`fits.above` (P by {glue:text}`fits.beyond.p`, PI by {glue:text}`fits.beyond.pi`, A-LQR by {glue:text}`fits.beyond.a-lqr`).
#
# ## The running picture
#
# The same held-out negative states as always, at the input of the last block: where a disturbance of one whole $\mu$ at every inner block takes them, and where two laws have them while it is at work.

# %%
texts = task.contrast_texts(n=16, seed=seeds[0], split="validation")
last = Site(lm.depth - 1, "resid_pre")


def states(group, law=None, w=0.0, blocks=inner):
    """States of texts at the input of the last block."""
    with adversary(w, blocks), ExitStack() as acting:
        if law is not None:
            acting.enter_context(lm.under(law, **USE))
        return record(lm, group, sites=[last]).at(last).double().numpy()


# %%
clouds = dict(zip(("positive", "negative"), map(states, texts), strict=True))
after = {
    "disturbed": states(texts[1], None, 1.0),
    "disturbed, constant pushes": states(texts[1], laws["constant pushes"], 1.0),
    "disturbed, PI": states(texts[1], laws["PI"], 1.0),
}

# %% tags=["hide-input"]
v_top = heads[max(heads)].directions[0].double().numpy()
mu_top = float(base.lengths[-1, 0])
plane = figures.Plane.of(v_top, np.concatenate([*clouds.values()]))
before = clouds["negative"]
heights = {n: float((z @ v_top).mean() / mu_top) for n, z in after.items()}
page.figure(
    "pushed-back",
    figures.moved(plane, clouds, {n: (before, z) for n, z in after.items()}),
    alt="Arrows from held-out negative states at the input of the last block to where a disturbance brings them, alone "
    f"and against two laws. Mean reading over the distance of the class means: {float((before @ v_top).mean() / mu_top):.2f} "
    "undisturbed; " + "; ".join(f"{n.replace(', ', ' under ')} {h:.2f}" for n, h in heights.items()) + ".",
)  # fmt: skip

# %% [markdown]
# ## Rung 1: what remains, by hand
#
# Blocks that carry the feature unchanged and lose $d = 1$ of it each; an error $e$; an input $u = k_pe$ with $k_p = \frac12$. Then $e' = e + 1 - \frac12 e$, and from $e_0 = 0$: $1, \frac32, \frac74, \dots \to 2$. At 2 the input is exactly what each block takes away. Now add a quarter of the *sum* $I$ of all errors so far: $e' = e + 1 - \frac12e - \frac14I$ gives $1$ ($I = 1$), $1 + 1 - \frac12 - \frac14 = \frac54$ ($I = \frac94$), $\frac54 + 1 - \frac58 - \frac9{16} = \frac{17}{16}$, and so on, a little past zero and back to it: at rest it is the sum that pays, $\frac14I = 1$, and the error may be nothing.


# %%
def run(kp, ki=0.0, kd=0.0, d=1.0, blocks=40, most=np.inf, windup=False):
    """Errors over depth; `most` bounds the input, `windup` keeps summing."""
    e, total, before, errors, inputs = 0.0, 0.0, 0.0, [0.0], []
    for _ in range(blocks):
        held, total = total, total + e
        u = kp * e + ki * total + kd * (e - before)
        if abs(u) > most and not windup:
            total = held
            u = kp * e + ki * total + kd * (e - before)
        u, before = np.clip(u, -most, most), e
        e = e + d - u
        errors.append(e), inputs.append(u)
    return np.array(errors), np.array(inputs)


# %%
p, pi = run(0.5)[0], run(0.5, 0.25)[0]
assert np.allclose(p[:4], [0, 1, 3 / 2, 7 / 4]) and np.isclose(p[-1], 2)
assert np.allclose(pi[:4], [0, 1, 5 / 4, 17 / 16]) and abs(pi[-1]) < 1e-2
pid = run(0.5, 0.25, 0.3)[0]

# %% [markdown]
# :::{prf:definition} PID over depth
# :label: pid-law
# With $e_k = \alpha_kv_k$ the error at the input of block $k$ as a vector (in chapter 33 the letter stood for the difference of the class means), **S-PID**, setpoint PID, adds at its output $u_k = K_pe_k + K_i\sum_{j\le k}e_j + K_d(e_k - e_{k-1})$, with $e_{-1} := e_0$. Sum and difference begin anew in every pass and at every token.
# :::
#
# :::{prf:theorem} Steady error
# :label: pid-steady
# Let the blocks carry the feature and take $d$ from it, so that the error as a number obeys $e_{k+1} = e_k + d - u_k$ with constant $d$. (a) Under $u_k = K_pe_k$ with $0 < K_p < 2$, $e_k \to d/K_p$. (b) Under $u_k = K_pe_k + K_i\sum_{j\le k}e_j$ with $0 < K_p < 2$ and $0 < K_i < 4 - 2K_p$, $e_k \to 0$. (c) Under a constant $u$, $e_k$ grows without bound unless $u = d$.
# :::
#
# :::{prf:proof}
# (a) $e_{k+1} - d/K_p = (1 - K_p)(e_k - d/K_p)$. (b) The difference of two successive equations is $e_{k+1} = (2 - K_p - K_i)e_k - (1 - K_p)e_{k-1}$: $d$ is gone. Its roots solve $x^2 - (2 - K_p - K_i)x + (1 - K_p) = 0$, and both lie inside the unit circle if and only if (Jury's test for degree two) their product is, $|1 - K_p| < 1$, the polynomial is positive at $1$, where it is $K_i$, and at $-1$, where it is $4 - 2K_p - K_i$. (c) $e_k = e_0 + k(d - u)$.
# :::
#
# For real blocks the premise is **approximate**: a block also turns the feature and answers to the push, and $d$ changes from block to block. And a limit needs room: with $K_p = \frac12$, $K_i = \frac14$ the roots have the modulus $\sqrt{1-K_p} = 0.71$: the error swings within bounds that shrink by this factor a block, and six blocks leave an eighth.

# %% tags=["hide-input"]
page.figure(
    "by-hand",
    figures.over(
        range(25),
        {"error": figures.Panel(
            {"P": figures.exactly(p[:25]), "PI": figures.exactly(pi[:25]), "PID": figures.exactly(pid[:25])},
            "error e", line=("no error", 0.0),
        )},
        xlabel="block",
    ),
    alt=f"Error over depth of the example. P settles at {p[-1]:.0f}, the disturbance over the gain; PI peaks at {pi.max():.2f} "
    "and comes back to zero, PID likewise.",
)  # fmt: skip

# %% [markdown]
# ## Rung 2: PI on the plant, in plain PyTorch
#
# A sum that is begun at the first block and carried through the pass.

# %%
kp, ki = at["PI"] * 1.0, at["PI"] * 1.0
held = {}


def sense(k):
    """Before block k: the error as a vector, and the sum so far."""

    def hook(module, args, kwargs):
        state = args[0] if args else kwargs["hidden_states"]
        v, mu = heads[k].directions[0], base.lengths[k, 0]
        held["e"] = (2.0 * mu - state[:, -1] @ v)[:, None] * v
        held["sum"] = held["e"] + (held["sum"] if k > min(heads) else 0.0)

    return hook  # fmt: skip


# %%
def act(module, args, output):
    """After a block: push by both."""
    state = output[0] if isinstance(output, tuple) else output
    state[:, -1] += kp * held["e"] + ki * held["sum"]


one = spread(task.prompts("test"), 4)[0]
with ExitStack() as hooks, torch.no_grad():
    for k in heads:
        block = lm.blocks[k]
        first = block.register_forward_pre_hook(sense(k), with_kwargs=True)
        then = block.register_forward_hook(act)
        hooks.callback(first.remove), hooks.callback(then.remove)
    by_hand = lm.model(lm.encode([one]).input_ids).logits[0, -1]

# %% [markdown]
# ## Rung 3: the law
#
# {py:class}`~steerlib.laws.pid.SPID` gives the same logits. With $K_i = K_d = 0$ it is the proportional ablation of chapter [33](33_setpoints_and_a_lqr), to rounding.

# %%
with lm.under(laws["PI"], **USE):
    by_law = lm.forward([one])[0, -1]
torch.testing.assert_close(by_law, by_hand, atol=2e-3, rtol=1e-3)

plain = ALQR(gain="proportional", setpoint=2.0, strength=at["P"]).fit(contrasts)
both = []
for law in (laws["P"], plain):
    with lm.under(law, **USE):
        both.append(lm.forward([one])[0, -1])
same = float((both[0] - both[1]).abs().max() / both[0].abs().max())
page.record("p.same", same, digits=7)
assert same < 1e-4

# %% [markdown]
# ## Steady-state error against disturbance
#
# Chapter 15's figure, now over depth. The reading at the input of the last block, against the size $w$ of the disturbance: on the left it enters once, at the first inner block, and the law has all later blocks to undo it; on the right at every inner block, the last of them just before the reading. The error is counted from where the same law has the reading undisturbed.

# %%
sizes = [0.0, 0.5, 1.0]
cases = {"once": inner[:1], "at every inner block": inner}
facing = {"unsteered": None} | laws


# %%
@cache
def last_reading(name, w=0.0, case=""):
    """The last reading of each text under a law and against the adversary, over mu."""
    found = states(texts[1], facing[name], w, cases.get(case, ()))
    return found @ v_top / mu_top


def errors(name, case):
    """Error of the last reading at each size, over texts, in units of mu."""
    still = last_reading(name)
    rows = [last_reading(name, w, case) if w else still for w in sizes]
    return [metrics.mean_interval(still - row) for row in rows]


error = {case: {name: errors(name, case) for name in facing} for case in cases}
slope = {
    case: {n: e[-1].value / sizes[-1] for n, e in found.items()}
    for case, found in error.items()
}


# %%
def left_open(law):
    """Error of the last reading per text, under one mu at every inner block."""
    still, hit = (states(texts[1], law, w) @ v_top / mu_top for w in (0.0, 1.0))
    return still - hit


remains = {
    name: np.stack([last_reading(name) - last_reading(name, 1.0, "at every inner block"),
                    *(left_open(again[name]) for _, again in others.values())])
    for name in laws
}  # fmt: skip
open_ = {name: metrics.grid_interval(x) for name, x in remains.items()}
less = {
    name: metrics.paired_grid_difference(x, remains["constant pushes"])
    for name, x in remains.items()
    if name != "constant pushes"
}
of_sum = metrics.paired_grid_difference(remains["PI"], remains["P"])

# %% tags=["hide-input"]
for case, key in (("once", "once"), ("at every inner block", "every")):
    for name in slope[case]:
        page.record(
            f"slope.{key}.{name.lower().replace(' ', '-')}",
            error[case][name][-1],
            digits=2,
        )
for name, e in open_.items():
    page.record(f"fits.slope.{name.lower().replace(' ', '-')}", e, digits=2)
for name, e in less.items():
    page.record(f"fits.less.{name.lower()}", e, digits=2)
page.record("fits.of-sum", of_sum, digits=2)
page.record(
    "slope.ratio",
    slope["at every inner block"]["PI"] / slope["at every inner block"]["P"],
    digits=2,
)
page.figure(
    "rejection",
    figures.over(
        sizes,
        {case: figures.Panel(found, "error of the last reading / μ", line=("perfect rejection", 0.0))
         for case, found in error.items()},
        xlabel="disturbance w / μ",
    ),
    alt="Error of the reading at the last block against the size of a disturbance, entering once or at every inner block. "
    + " ".join(f"Entering {case}, at w = 1: " + ", ".join(f"{n} {s:.2f}" for n, s in found.items()) + "." for case, found in slope.items()),
)  # fmt: skip

# %% [markdown]
# Readings are in units of the last block's $\mu$, disturbances of their own block's, which is smaller at earlier blocks. One disturbance of one $\mu$ leaves {glue:text}`slope.once.unsteered` $\mu$ at the last block if nobody answers, {glue:text}`slope.once.constant-pushes` under constant pushes, {glue:text}`slope.once.p` under P, {glue:text}`slope.once.pi` under PI, {glue:text}`slope.once.a-lqr` under A-LQR. The stubborn one leaves {glue:text}`slope.every.unsteered`, {glue:text}`slope.every.constant-pushes`, {glue:text}`slope.every.p`, {glue:text}`slope.every.pi` and {glue:text}`slope.every.a-lqr`. Constant pushes leave either about as it is. Of the stubborn one PI leaves {glue:text}`slope.ratio` times what P leaves, at efforts that are equal within the tolerance of the search: the theorem's zero is a limit, this plant is over before it, and what the sum spends is taken from the proportional gain, which answers at once.
#
# Over {glue:text}`n.fits` fits the stubborn one leaves {glue:text}`fits.slope.constant-pushes` under constant pushes, {glue:text}`fits.slope.p` under P, {glue:text}`fits.slope.pi` under PI and {glue:text}`fits.slope.a-lqr` under A-LQR: differences from constant pushes of {glue:text}`fits.less.p`, {glue:text}`fits.less.pi` and {glue:text}`fits.less.a-lqr`, and of PI from P of {glue:text}`fits.of-sum` (intervals over fits and texts).

# %%
ki_grid = [0.0, 0.5, 2.0]
share = {"calibrated": [], "three times the multiplier": []}
for ki_ in ki_grid:
    law = s_pid(kp=1.0, ki=ki_)
    found = at["P"] if ki_ == 0 else calibrate(cost(law), budget, **search).strength  # fmt: skip
    for name, times in zip(share, (1.0, 3.0), strict=True):
        law.at(found * times)
        rows = [states(texts[1], law, w) @ v_top / mu_top for w in (0.0, 1.0)]
        share[name].append(metrics.mean_interval(rows[0] - rows[1]))

# %% tags=["hide-input"]
page.record("ki.low", share["calibrated"][0], digits=2)
page.record("ki.high", share["calibrated"][-1], digits=2)
page.record("loud.low", share["three times the multiplier"][0], digits=2)
page.record("loud.high", share["three times the multiplier"][-1], digits=2)
page.figure(
    "integral",
    figures.over(
        ki_grid,
        {"": figures.Panel(share, "error of the last reading / μ", line=("perfect rejection", 0.0))},
        xlabel="integral gain over proportional gain",
    ),
    alt="Error that a disturbance at every inner block leaves in the last reading, against the ratio of integral to "
    f"proportional gain: from {share['calibrated'][0].value:.2f} to {share['calibrated'][-1].value:.2f} at equal effort, "
    f"from {share['three times the multiplier'][0].value:.2f} to {share['three times the multiplier'][-1].value:.2f} at "
    "three times the multiplier.",
)  # fmt: skip

# %% [markdown]
# More integral at the same effort: from {glue:text}`ki.low` (none) to {glue:text}`ki.high`. With three times the multiplier, from {glue:text}`loud.low` to {glue:text}`loud.high`: gain rejects disturbances, and gain is what effort pays for.
#
# ## Windup
#
# {term}`Windup <windup>`: an input that is bounded cannot do what the sum asks for, and the sum goes on growing while it waits. When the error is gone at last, the sum still pushes, and has to be worked off by an error of the other sign.

# %%
bounded = {"none": True, "conditional": False}
start, course = 1.0, {}  # one unit below the setpoint, nothing disturbs
for name, winds in bounded.items():
    e, total, out = start, 0.0, [start]
    for _ in range(60):
        held_, total = total, total + e
        u = 0.3 * e + 0.3 * total
        if abs(u) > 0.05 and not winds:
            total = held_
        e -= float(np.clip(0.3 * e + 0.3 * total, -0.05, 0.05))
        out.append(e)
    course[name] = np.array(out)

# %% tags=["hide-input"]
page.record("windup.over", -course["none"].min(), digits=2)
page.record("windup.guarded", max(0.0, -course["conditional"].min()), digits=2)
page.figure(
    "windup",
    figures.over(
        range(61),
        {"error": figures.Panel(
            {"no guard": figures.exactly(course["none"]), "conditional integration": figures.exactly(course["conditional"])},
            "error e", line=("no error", 0.0),
        )},
        xlabel="block",
    ),
    alt=f"Error over depth under PI with a bounded input. Without a guard it overshoots by {-course['none'].min():.2f}, with "
    f"conditional integration by {max(0.0, -course['conditional'].min()):.2f}.",
)  # fmt: skip

# %% [markdown]
# By hand the overshoot is {glue:text}`windup.over` of the first error, with **conditional integration** (an error is not added where the input is at its bound) {glue:text}`windup.guarded`. On the plant, the input of each block is bounded to a share of the state's length, and the integral is given more weight; then four guards are compared, by whether the last reading goes beyond its setpoint and by what the answers are worth: none; a *reset*, which sets the sum to zero at every second block; a *clamp*, which keeps the sum's part of the input within the bound; and conditional integration. This is not at equal effort: a guard that holds the sum back pushes less.

# %%
guards = {
    "none": {"windup": "none"},
    "reset every 2 blocks": {"windup": "reset", "every": 2},
    "clamp": {"windup": "clamp"},
    "conditional": {"windup": "conditional"},
}
heavy = {"kp": 0.2, "ki": 0.4, "limit": 0.15, "setpoint": 1.0}
guarded = {n: s_pid(**(heavy | how)) for n, how in guards.items()}
held_at = {
    n: states(texts[1], law) @ v_top / mu_top for n, law in guarded.items()
}
scored = {n: scores(law) for n, law in guarded.items()}

# %% tags=["hide-input"]
rows = [
    (name, str(metrics.mean_interval(held_at[name])), str(scored[name].wanted_mean()), str(scored[name].intact_mean()))
    for name in guards
]  # fmt: skip
page.record("guard.none", metrics.mean_interval(held_at["none"]), digits=2)
page.record(
    "guard.conditional", metrics.mean_interval(held_at["conditional"]), digits=2
)
page.record(
    "guard.reset",
    metrics.mean_interval(held_at["reset every 2 blocks"]),
    digits=2,
)
over = [n for n, x in held_at.items() if x.mean() > 1.0]
page.text("guard.over", ", ".join(over) or "none of them")
page.record("guard.gain", scored["conditional"].combined_gain(scored["none"]))
table(
    rows, "guard", "last reading / μ (setpoint 1)", labels.wanted, labels.intact
)

# %% [markdown]
# Without a guard the last reading is {glue:text}`guard.none` $\mu$, with conditional integration {glue:text}`guard.conditional`, with resets {glue:text}`guard.reset`; from no guard to conditional integration {glue:text}`word.combined` changes by {glue:text}`guard.gain`. Beyond their setpoint: {glue:text}`guard.over`; windup, too, needs blocks in which to wind. The released code resets the sum at blocks 0, 10, 20: on a plant of this depth, and on the first ten blocks of any, that forgets the error of block 0 and nothing else.
#
# ## PID-AcT: a PID that was frozen
#
# {cite:t}`nguyen2025pid` read difference of means, ablation and Mean-AcT as proportional control over depth, with steady errors, and add integral and derivative. Their error is $r_k$, the difference of class means *while the law is being fitted*, block after block, with the earlier blocks pushed. What is kept is a constant vector for each block. So there is feedback in the fit, for the mean of the texts it was fitted on, and none at use:
#
# :::{prf:proposition} A fitted PID is open loop
# :label: pid-open
# Whatever the gains, PID-AcT adds at use a vector that does not depend on the state. By {prf:ref}`race-slope` a disturbance passes with slope 1 at each site.
# :::
#
# :::{prf:proof}
# $u_k = K_pr_k + K_i\sum_jr_j + K_d(r_k - r_{k-1})$ is fixed once the $r_j$ are.
# :::

# %%
frozen = {
    "P (half of Mean-AcT)": {"kp": 0.5, "ki": 0.0, "kd": 0.0},
    "PI": {"kp": 0.5, "ki": 0.2, "kd": 0.0},
}
fitted = {
    name: PIDAcT(**gains, pushed="negative", **pushes).fit_from(some)
    for name, gains in frozen.items()
}
goal = states(some.task.contrast_texts(n=20, seed=seeds[0], at=some.at)[0])
seen = some.task.contrast_texts(n=20, seed=seeds[0], at=some.at)[1]

# %%
left, passed = {}, {}
for name, law in fitted.items():
    still = states(seen, law)
    gap = (goal.mean(0) - still.mean(0)) @ v_top / mu_top
    left[name] = float(gap)
    moved = states(seen, law, 1.0) @ v_top / mu_top
    passed[name] = metrics.mean_interval(still @ v_top / mu_top - moved)
none_left = float((goal.mean(0) - states(seen).mean(0)) @ v_top / mu_top)

# %% tags=["hide-input"]
page.record("frozen.none", none_left, digits=2)
page.record("frozen.p", left["P (half of Mean-AcT)"], digits=2)
page.record("frozen.pi", left["PI"], digits=2)
page.record("frozen.passed", passed["PI"], digits=2)
page.record("frozen.free", slope["at every inner block"]["unsteered"], digits=2)
table(
    [(n, f"{left[n]:+z.2f}", str(passed[n])) for n in fitted],
    "gains of the fit", "gap of the means left at the last block / μ", "error by the disturbance / μ",
)  # fmt: skip

# %% [markdown]
# On the texts of the fit, the means are {glue:text}`frozen.none` $\mu$ apart at the last block without a law, {glue:text}`frozen.p` under half of Mean-AcT and {glue:text}`frozen.pi` with an integral (a negative number is past the goal). That much is feedback, while fitting, and an integral moves the mean of those texts further. But the disturbance leaves {glue:text}`frozen.passed` under the fitted PI, against {glue:text}`frozen.free` with no law at all: it was not there when the law was fitted.
#
# ## S-PID against A-LQR
#
# The A-LQR paper has S-PID as its nearest rival. Here each law chooses its setpoint (or multiplier, for constant pushes) on validation prompts by {glue:text}`word.combined`, S-PID also its gains, and is then scored on test prompts. This is every law at the best of a small grid, not at equal effort; above was the other comparison. Constant pushes were fitted on 20 texts of each class, the laws with feedback on 60.

# %%
few = {"split": "validation", "limit": 16}


def best(candidates):
    """The law of the best product on validation prompts."""
    worth = [scores(law.at(s), **few).combined_mean for law, s in candidates]
    law, s = candidates[int(np.argmax(worth))]
    return law.at(s)


# %%
lambdas = (1.0, 1.5, 2.0, 2.5)
regulated = [
    (ALQR(setpoint=x).fit(contrasts, jacobians=blocks_), 1.0) for x in lambdas
]
controlled = [
    (s_pid(setpoint=x, kp=a, ki=b, windup="reset"), 1.0)
    for x in (1.5, 2.0)
    for a, b in ((0.1, 0.05), (0.2, 0.02))
]
integral = PIDAcT(**pushes).fit_from(some)
pushed = {
    "mean-act": [(laws["constant pushes"], s) for s in (0.1, 0.2, 0.3)],
    "pid-act": [(integral, s) for s in (0.05, 0.1, 0.2)],
}

# %%
racers = {"a-lqr": best(regulated), "s-pid": best(controlled)}
racers |= {name: best(candidates) for name, candidates in pushed.items()}
runs = {"unsteered": scores(limit=24)}
runs |= {name: scores(law, limit=24) for name, law in racers.items()}

# %% [markdown]
# The chosen settings are then given to laws that were fitted on the other draws of texts.


# %%
def raced_again(seed):
    """The chosen settings, fitted on other texts."""
    held, constant = others[seed][0], others[seed][1]["constant pushes"]
    aim, pid = racers["a-lqr"].setpoint[0], racers["s-pid"]
    few = TaskSource(task, Site(-1), n=20, seed=seed)
    made = {
        "a-lqr": ALQR(setpoint=aim).fit(held, jacobians=blocks_),
        "s-pid": SPID(setpoint=pid.setpoint[0], kp=pid.kp, ki=pid.ki).fit(held),
        "mean-act": constant.at(float(racers["mean-act"].strength)),
        "pid-act": PIDAcT(**pushes).fit_from(few).at(float(racers["pid-act"].strength)),
    }  # fmt: skip
    return {name: scores(law, limit=24) for name, law in made.items()}


again_ = [raced_again(seed) for seed in others]
by_fit = {
    name: rows_of([s, *(found.get(name, s) for found in again_)])
    for name, s in runs.items()
}

# %% tags=["hide-input"]
products = {name: product_scores(*rows) for name, rows in by_fit.items()}


def apart(name, than):
    """By how much the product of one law is above that of another, over fits."""
    return product_grid_difference(by_fit[name], by_fit[than])


# %% tags=["hide-input"]
RACERS = {
    "a-lqr": "A-LQR", "s-pid": "S-PID", "mean-act": "Mean-AcT", "pid-act": "PID-AcT"
}  # fmt: skip
rows = []
for name, (wanted, intact) in by_fit.items():
    rows.append(
        (RACERS.get(name, name), str(metrics.grid_interval(wanted)), str(metrics.grid_interval(intact)),
         signed(apart(name, "unsteered")) if name != "unsteered" else "",
         signed(apart(name, "a-lqr")) if name not in ("unsteered", "a-lqr") else "")
    )  # fmt: skip
    if name != "unsteered":
        page.record(f"own.{name}", apart(name, "unsteered"))
page.record("own.s-pid-beyond", apart("s-pid", "a-lqr"))
page.record("own.pid-act-beyond", apart("pid-act", "a-lqr"))
page.record("n.own", len(runs["a-lqr"].wanted))
page.text("own.setpoint", f"{racers['a-lqr'].setpoint[0]:g}")
page.text(
    "own.gains",
    f"setpoint {racers['s-pid'].setpoint[0]:g}, gains {racers['s-pid'].kp:g}, {racers['s-pid'].ki:g}",
)
page.samples(
    "truth.own", products, note=f"{task.name}, {lm.name}, {1 + len(others)} fits"
)
table(
    rows,
    "law",
    labels.wanted,
    labels.intact,
    f"change in {labels.combined}",
    "beyond A-LQR",
)

# %% [markdown]
# On {glue:text}`n.own` test prompts and {glue:text}`n.fits` fits, with intervals over both, A-LQR at setpoint {glue:text}`own.setpoint` and S-PID at {glue:text}`own.gains`. S-PID is {glue:text}`own.s-pid-beyond` beyond A-LQR in {glue:text}`word.combined`, PID-AcT {glue:text}`own.pid-act-beyond`. Beyond the unsteered plant S-PID gains {glue:text}`own.s-pid`, PID-AcT {glue:text}`own.pid-act` and Mean-AcT, whose pushes are constant as well, {glue:text}`own.mean-act`: a difference between the first two need not be owed to feedback.
#
# ## Break it
#
# *Too much integral.* {prf:ref}`pid-steady` (b) has a border, $K_i < 4 - 2K_p$: near it the loop over depth rings, and beyond it ever louder. A network has so few blocks that ringing looks like noise between neighbouring blocks.
#
# *Depth is short.* In a factory or an aeroplane the integral has all the time it needs. Here time is the number of blocks, and what is not worked off by the last one is in the logits.
#
# *A sum of vectors in turning coordinates.* The sum adds errors along $v_0, v_1, \dots$, which are not parallel; the error of an early block is pushed along a direction that later blocks no longer read.
#
# **In control words.** P is a spring, I a memory, D a damper. Memory over depth is the one thing that neither a constant push nor A-LQR has; an LQR with an integral state would be the next design, and its theory is the recursion of chapter 32 for a larger state, of which the input reaches a part.
#
# ## Exercises
#
# Replace the body of the stub, run the stub and the cell of tests below it, then call the test on your function, for example `check_34_1(pi_input)`. Silence means that it passed. Each exercise stands alone; run `import numpy as np` first. Solutions are folded; open one by a click.
#
# ### Exercise 34.1: an integral
#
# *Easy, 5 minutes.* Given the errors at blocks $0..k$ as rows, return the input at block $k$ of a PI law on vectors.

# %% tags=["exercise-setup", "ex:34.1", "ex:34.2", "ex:34.3"]
import numpy as np


# %% tags=["exercise-stub", "ex:34.1"]
def pi_input(errors, kp, ki):
    """Errors (k + 1, d) -> input (d,)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:34.1"]
def check_34_1(pi_input):
    errors = np.array([[1.0, 0], [0, 2], [1, 1]])
    assert np.allclose(pi_input(errors, 0.5, 0.1), [0.7, 0.8])
    assert np.allclose(pi_input(errors[:1], 0.5, 0.1), [0.6, 0.0])


# %% tags=["exercise-wrong", "ex:34.1", "remove-cell"]
def pi_input(errors, kp, ki):  # the sum without the block itself
    return kp * errors[-1] + ki * errors[:-1].sum(0)


# %% tags=["exercise-solution", "ex:34.1", "hide-cell"]
def pi_input(errors, kp, ki):
    return kp * errors[-1] + ki * errors.sum(0)


# %%
check_34_1(pi_input)

# %% [markdown]
# ### Exercise 34.2: does it settle?
#
# *Medium, 10 minutes.* Say whether the loop of {prf:ref}`pid-steady` (b) converges for given gains, from the roots of its polynomial and not from the inequalities.


# %% tags=["exercise-stub", "ex:34.2"]
def settles(kp, ki):
    """Gains -> True if the error goes to zero."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:34.2"]
def check_34_2(settles):
    for kp in np.linspace(0.1, 2.5, 9):
        for ki in np.linspace(0.05, 4.3, 9):
            assert settles(kp, ki) == (kp < 2 and ki < 4 - 2 * kp), (kp, ki)


# %% tags=["exercise-wrong", "ex:34.2", "remove-cell"]
def settles(kp, ki):  # forgets that the sum holds the present error, too
    return bool(np.all(np.abs(np.roots([1, kp - 2, 1 - kp + ki])) < 1))


# %% tags=["exercise-solution", "ex:34.2", "hide-cell"]
def settles(kp, ki):
    return bool(np.all(np.abs(np.roots([1, kp + ki - 2, 1 - kp])) < 1))


# %%
check_34_2(settles)

# %% [markdown]
# ### Exercise 34.3: guard the sum
#
# *Medium, 10 minutes.* Return input and new sum of a scalar PI law whose input is bounded to $\pm b$, with conditional integration: an error is added to the sum only if the input with it stays within the bound.


# %% tags=["exercise-stub", "ex:34.3"]
def guarded_pi(e, total, kp, ki, b):
    """Error, sum so far, gains, bound -> (input, new sum)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:34.3"]
def check_34_3(guarded_pi):
    assert np.allclose(guarded_pi(1.0, 2.0, 0.5, 0.1, 10.0), (0.8, 3.0))
    assert np.allclose(guarded_pi(1.0, 2.0, 0.5, 0.1, 0.75), (0.7, 2.0))
    assert np.allclose(guarded_pi(-4.0, 0.0, 0.5, 0.1, 1.0), (-1.0, 0.0))


# %% tags=["exercise-wrong", "ex:34.3", "remove-cell"]
def guarded_pi(e, total, kp, ki, b):  # bounds the input and lets the sum wind up
    total = total + e
    return float(np.clip(kp * e + ki * total, -b, b)), total


# %% tags=["exercise-solution", "ex:34.3", "hide-cell"]
def guarded_pi(e, total, kp, ki, b):
    if abs(kp * e + ki * (total + e)) <= b:
        total = total + e
    return float(np.clip(kp * e + ki * total, -b, b)), total


# %%
check_34_3(guarded_pi)

# %% [markdown]
# ## Claims checked here
#
# What the A-LQR paper's tables say of S-PID and PID-AcT on models of a billion parameters and more, tested here for its sign on one small plant.

# %% tags=["hide-input"]
mine = [c for c in load_claims().values() if c.page == page.record_file.page]
rows = [
    (c.says.split(". ")[0].rstrip("."), c.kind, str(page.record_file.checks[c.id].verdict))
    for c in mine
]  # fmt: skip
table(rows, "claim", "kind", "here")

# %% [markdown]
# ## What we found

# %% tags=["hide-input"]
every = slope["at every inner block"]
points = [
    f"Of disturbances of one μ at every inner block, {open_['constant pushes'].value:.2f} μ reach the last reading under "
    f"constant pushes, {open_['P'].value:.2f} under P, {open_['PI'].value:.2f} under PI and {open_['A-LQR'].value:.2f} under "
    f"A-LQR, over {1 + len(others)} fits, all at about {budget:.3f} nats per token; unsteered {every['unsteered']:.2f}.",
    f"Under {harm:g} μ at each, {labels.combined} changes over {1 + len(others)} fits by {signed(fall['constant pushes'])} "
    f"under constant pushes, {signed(fall['P'])} under P, {signed(fall['PI'])} under PI and {signed(fall['A-LQR'])} under "
    "A-LQR.",
    f"A PID over depth that is fitted and frozen moves the gap of the means on its own texts (from {none_left:.2f} to "
    f"{left['PI']:+z.2f} μ) and lets {passed['PI'].value:.2f} μ of the disturbance pass.",
    f"Each at its best on validation, S-PID differs from A-LQR by {signed(apart('s-pid', 'a-lqr'))} in "
    f"{labels.combined}, over {1 + len(others)} fits.",
]  # fmt: skip
page.findings(points)

# %% [markdown]
# What this does not show: a plant of eighty blocks, where sums have room to work; and disturbances that are not along the feature, which none of these laws reads.
#
# ## Further reading
#
# - {cite:t}`nguyen2025pid`: activation steering read as proportional control, and a PID over depth in the fit.
# - {cite:t}`astrom2021feedback`, chapters 10 and 11: PID, integral action and windup.
# - {cite:t}`skifstad2026alqr`: S-PID as a comparator.

# %% tags=["hide-input"]
page.footer()
