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
# (ch-lqr-tables)=
# # 36 The tables of A-LQR
#
# **Put feedback over depth into the papers' tables: truth, toxicity, refusal and its removal, a concept against its setpoint; each law at its paper's setting and at equal effort, beside open-loop pushes on the same prompts, an identity in the place of the Jacobians, and a control whose labels mean nothing. And draw the map that a sweep over weights and setpoints really has: one number for the gain, one for the aim.**
#
# :::{admonition} Cost
# :class: cost-card note
#
# Time
# : about two minutes on one processor core, for the `tiny` profile; the races take hours and are shipped
#
# Memory
# : about 1 GB
#
# Read first
# : [15](15_horse_race) for the rules of a race, [32](32_riccati_over_depth) for gains, [33](33_setpoints_and_a_lqr) for the law, [34](34_pid) for its rival
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
import time
from contextlib import ExitStack, nullcontext

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from steerlib import Plant, figures, metrics, tasks
from steerlib.actuator import Site
from steerlib.experiment import race_tables
from steerlib.experiment.claims import load_claims
from steerlib.experiment.page import Page
from steerlib.experiment.profile_plants import plant_for
from steerlib.experiment.profile_tables import task_for
from steerlib.experiment.race_again import perplexities_under, scores_elsewhere
from steerlib.experiment.race_joined import beside, grouped
from steerlib.experiment.race_plan import read_race
from steerlib.experiment.race_records import shipped_race
from steerlib.experiment.recompute import shipped_grid
from steerlib.experiment.rerun_shown import (
    FINISHED,
    finished,
    folders,
    overview,
)
from steerlib.experiment.running import plant_of
from steerlib.experiment.samples import product_scores
from steerlib.experiment.showing import signed, table
from steerlib.experiment.spelling import aside, listed, model_name
from steerlib.files import data_folder
from steerlib.laws.lqr import ALQR
from steerlib.laws.pid import SPID
from steerlib.recorder import record
from steerlib.tasks.base import spread
from steerlib.tasks.source import TaskSource

pd.set_option("display.max_colwidth", None)
page = Page("36_lqr_tables", profile=profile, plant=plant, seeds=seeds)
lm = page.uses(
    plant_for(plant, profile=profile, table="alqr_toxicity", exact=True)
)
# A real model is asked for what its profile says, and judged as that says.
task = task_for(lm, profile=profile, table="alqr_toxicity") or tasks.for_plant(
    lm, data=os.environ.get("STEERLIB_DATA")
)
labels = task.labels
claims = load_claims()
page.words(labels)
lm

# %% [markdown]
# ## Four laws, one prompt
#
# Four laws at the papers' own settings, fitted on the same texts. **A-LQR** {cite:p}`skifstad2026alqr` with the gains of the regulator; the same told that every block is the **identity**; **S-PID**, setpoint feedback without a model; and A-LQR whose class **labels were shuffled**, which has everything but a meaning. The setpoint is raw, $\beta_k = \lambda\mu_k$ ({prf:ref}`setpoint-kinds`), with $\lambda$ from the paper's scripts.

# %%
weights = {"q": 0.1, "r": 1.0, "q_f": 0.1}
source = TaskSource(task, Site(-1), n=100, seed=seeds[0])
mixed = TaskSource(task, Site(-1), n=100, seed=seeds[0], labels="shuffled")
law = ALQR(**weights, prompts=16, setpoint=2.0)
contrasts = law.measured(source)
blocks = law.linearised(source)
four = {
    "A-LQR": law.fit(contrasts, jacobians=blocks),
    "identity": ALQR(**weights, model="identity", setpoint=2.0).fit(contrasts),
    "S-PID": SPID(kp=0.7, ki=0.01, kd=0.1, setpoint=1.0).fit(contrasts),
    "shuffled labels": ALQR(**weights, setpoint=2.0, reference="centred").fit(
        law.measured(mixed), jacobians=blocks
    ),
}

# %%
free = task.exact(limit=16)
alone = {}
said = {"left alone": task.sampled(seed=seeds[0], limit=8)}
for name, one in four.items():
    with lm.under(one):
        alone[name] = task.exact(limit=16)
        said[name] = task.sampled(seed=seeds[0], limit=8)

# %% tags=["hide-input"]
asked = spread(task.prompts("test"), 8)
verdicts = np.array([s.wanted for s, _ in said.values()])
split = np.flatnonzero(np.ptp(verdicts, axis=0) > 0)
which = int(np.random.default_rng(seeds[0]).choice(split if len(split) else 8))


def shown(run):
    """An answer, shortened, with its verdict."""
    text = run[1][which].strip().replace("\n", " ")
    cut = text[:110] + ("…" if len(text) > 110 else "")
    return f"{cut} ({labels.wanted} {run[0].wanted[which]:g})"


for name, s in alone.items():
    page.record(f"four.{name.lower().replace(' ', '-')}", s.combined_gain(free))
page.record("n.four", len(free.wanted))
page.text("prompt", asked[which].replace("\n", " / "))
table(
    [(name, shown(run), "" if name == "left alone" else signed(alone[name].combined_gain(free)))
     for name, run in said.items()],
    "law", "answer", f"change in {labels.combined}",
)  # fmt: skip

# %% [markdown]
# The prompt was “{glue:text}`prompt`” (a slash for a new line), drawn by a seed among those on which the five do not agree; all drew the same random numbers. The last column is over {glue:text}`n.four` test prompts and exact. It already holds the question of this chapter: is what stands there owed to the regulator, to feedback of any kind, or to a direction?
#
# ## The running picture
#
# Held-out states of the negative class at the input of the last block, and where each law has brought them by then.

# %%
texts = task.contrast_texts(n=30, seed=seeds[0], split="validation")
sites = [Site(k, "resid_pre") for k in range(lm.depth)]


def states(group, one=None):
    """States of texts at the inputs of all blocks: (blocks, texts, width)."""
    with ExitStack() as acting:
        if one is not None:
            acting.enter_context(lm.under(one))
        found = record(lm, group, sites=sites)
    return torch.stack([found.at(site) for site in sites]).double()


# %%
calm = {"positive": states(texts[0]), "negative": states(texts[1])}
moved = {name: states(texts[1], one) for name, one in four.items()}
k_top = law.blocks[-1]
v_top = law.readings[-1].directions[0].double()
mu_top = float(law.lengths[k_top, 0])
clouds = {name: z[k_top].numpy() for name, z in calm.items()}
plane = figures.Plane.of(v_top.numpy(), np.concatenate([*clouds.values()]))
at_top = {name: z[k_top] @ v_top / mu_top for name, z in moved.items()}

# %% tags=["hide-input"]
low = float((calm["negative"][k_top] @ v_top).mean() / mu_top)
page.record("top.free", low, digits=2)
for name, readings in at_top.items():
    page.record(
        f"top.{name.lower().replace(' ', '-')}", readings.mean(), digits=2
    )
page.figure(
    "gathered",
    figures.moved(
        plane, clouds, {n: (clouds["negative"], z[k_top].numpy()) for n, z in moved.items()}
    ),
    alt="Arrows from held-out negative states at the input of the last block to where four "
    "laws have brought them. Mean reading in distances of the class means: unsteered "
    f"{low:.2f}, " + ", ".join(f"{n} {float(r.mean()):.2f}" for n, r in at_top.items()) + ".",
)  # fmt: skip

# %% [markdown]
# In distances of the class means, the mean reading there is {glue:text}`top.free` unsteered, {glue:text}`top.a-lqr` under A-LQR, {glue:text}`top.identity` with the identity, {glue:text}`top.s-pid` under S-PID and {glue:text}`top.shuffled-labels` with shuffled labels. A-LQR and the identity aim at the same $\lambda$, S-PID at half of it; where a law arrives is decided by its aim *and* by how hard it pulls, and a table of behaviours shows neither.
#
# ## Rung 1: a regulator of two blocks, by hand
#
# Let two blocks pass a reading on unchanged ($A = 1$), and let $q = r = q_f = 1$. Backwards: $S_2 = 1$, so $K_1 = \frac{1}{1+1} = \frac12$; $S_1 = q + rK_1 = \frac32$, so $K_0 = \frac{3/2}{3/2+1} = \frac35$. From a reading of 0 towards a setpoint of 5, the first block adds $\frac35\cdot 5 = 3$, the second $\frac12\cdot 2 = 1$: the reading is 4, and a fifth is still missing.


# %%
def regulator(q, r, q_f, blocks=2):
    """Gains of blocks that pass a reading on unchanged, the first block first."""
    S, found = q_f, []
    for _ in range(blocks):
        K = S / (S + r)
        S = q + r * K
        found.insert(0, K)
    return np.array(found)


def reached(gains, setpoint, reading=0.0):
    """The reading after all blocks."""
    for gain in gains:
        reading += gain * (setpoint - reading)
    return reading


# %%
assert np.allclose(regulator(1, 1, 1), [3 / 5, 1 / 2])
assert np.isclose(reached(regulator(1, 1, 1), 5), 4)
assert np.allclose(regulator(1, 1, 1), regulator(10, 10, 10))
gentle = regulator(0.1, 1, 0.1)
page.record("toy.gentle", reached(gentle, 5), digits=2)
page.record("toy.needed", 4 / reached(gentle, 1), digits=1)
table(
    [("1, 1, 1", "3/5, 1/2", f"{reached(regulator(1, 1, 1), 5):.2f}"),
     ("0.1, 1, 0.1", ", ".join(f"{g:.3f}" for g in gentle), f"{reached(gentle, 5):.2f}")],
    "weights q, r, q_f", "gains, first block and second", "reading at the end, setpoint 5",
)  # fmt: skip

# %% [markdown]
# All weights times ten: the same gains. And with $q = q_f = 0.1$ the reading ends at {glue:text}`toy.gentle` instead of 4; to bring it to 4, the setpoint must be {glue:text}`toy.needed`. Whoever compares the two at $\lambda = 5$ compares a strong pull with a weak one.
#
# :::{prf:proposition} Only ratios count
# :label: lqr-tables-ratios
# If $(q, r, q_f)$ is replaced by $(cq, cr, cq_f)$ with $c > 0$, no gain $K_k$ changes. So three weights are two numbers, $q/r$ and $q_f/r$.
# :::
#
# :::{prf:proof}
# By induction from the last block: if $S_{k+1}$ becomes $cS_{k+1}$, then $K_k = (S_{k+1} + rI)^{-1}S_{k+1}A_k$ stays, and $S_k = qI + A_k^\top rK_k$ becomes $cS_k$. It holds for $S_l = q_fI$.
# :::
#
# :::{prf:proposition} Gain and setpoint trade
# :label: lqr-tables-trade
# Let blocks pass the reading on, with gains $\kappa_k$ along it and one setpoint $\lambda$ for all. From the reading $z$ the law ends at $z + D(\lambda - z)$ with $D = 1 - \prod_k(1 - \kappa_k)$. So the end is a straight line in $\lambda$, of slope $D$, and every pair of gains and setpoint with $D(\lambda - z) = c$ ends at the same place.
# :::
#
# :::{prf:proof}
# What is missing is multiplied by $1 - \kappa_k$ at every block.
# :::
#
# {prf:ref}`lqr-tables-ratios` is **true** for any model. The premise of {prf:ref}`lqr-tables-trade` is **approximate**: blocks turn the feature, answer to the push, and setpoints $\lambda\mu_k$ change from block to block. With the blocks' own Jacobians in the place of $A = 1$ the end is still a straight line in $\lambda$; the figure below shows how far the plant follows it.
#
# ## Rung 2: the line that the linear model predicts, in plain PyTorch
#
# Backwards for the gains, then forwards for the deviation $\delta_k$ of the mean state of held-out negative texts from where it would be without a law: $\delta_{k+1} = A_k\delta_k + \alpha_kw_k$ with $\alpha_k = \lambda\mu_k - v_k^\top(\bar z_k + \delta_k)$.

# %%
eye = torch.eye(lm.width, dtype=torch.float64)
S, w, v, mu = weights["q_f"] * eye, {}, {}, {}
for k in reversed(range(lm.depth)):
    A = blocks[k].double()
    K = torch.linalg.solve(S + weights["r"] * eye, S @ A)
    plus, minus = (z.double().mean(0) for z in contrasts[k])
    mu[k] = float((plus - minus).norm())
    v[k] = (plus - minus) / max(mu[k], 1e-30)
    w[k] = K @ v[k]
    S = weights["q"] * eye + A.T @ S @ (A - K)


# %%
def foretold(lam):
    """Reading at the input of the last block, in distances of the class means."""
    delta = torch.zeros(lm.width, dtype=torch.float64)
    for k in range(k_top):
        error = lam * mu[k] - v[k] @ (calm["negative"][k].mean(0) + delta)
        delta = blocks[k].double() @ delta + error * w[k]
    return float(v[k_top] @ (calm["negative"][k_top].mean(0) + delta)) / mu[k_top]


# %% [markdown]
# ## Rung 3: the law
#
# {py:class}`~steerlib.laws.lqr.ALQR` holds the same vectors, and at the plant's own states it pushes by what was foretold, where the plant is as linear as that.

# %%
for part, k in zip(law.inputs, law.blocks, strict=True):
    mine = part.pushes[0].double()
    assert (mine - w[k]).norm() < 1e-4 * w[k].norm()
aims = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.5]
measured = [
    metrics.mean_interval(
        (states(texts[1], law.toward(lam))[k_top] @ v_top / mu_top).numpy()
    )
    for lam in aims
]
_ = law.toward(2.0)

# %% tags=["hide-input"]
told_line = [foretold(lam) for lam in aims]
slope = float(np.polyfit(aims, told_line, 1)[0])
steps = np.diff([e.value for e in measured]) / np.diff(aims)
page.record("line.slope", slope, digits=2)
page.record("line.first", steps[0], digits=2)
page.record("line.last", steps[-1], digits=2)
page.record(
    "line.off",
    max(abs(e.value - x) for e, x in zip(measured, told_line, strict=True)),
    digits=2,
)
page.figure(
    "line",
    figures.over(
        aims,
        {"": figures.Panel(
            {"the plant": measured, "linear model": figures.exactly(told_line)}, "last reading / μ",
            line=("unsteered", low),
        )},
        xlabel="setpoint λ",
    ),
    alt="Mean reading at the input of the last block against the setpoint, in distances of the class means: foretold by "
    f"the linear model, a line of slope {slope:.2f}, and measured, from {measured[0].value:.2f} at 0 to "
    f"{measured[-1].value:.2f} at {aims[-1]:g}.",
)  # fmt: skip

# %% [markdown]
# The model foretells {glue:text}`line.slope` of reading for each unit of $\lambda$; the plant gives {glue:text}`line.first` at first and {glue:text}`line.last` at the end, and is nowhere farther than {glue:text}`line.off` from the line. (Jacobians are means over texts of the positive class, the states are of the negative one, and the law acts on every token that generates: three reasons to be off before any block bends.)
#
# ## The map of a sweep
#
# The authors swept $(q, r, q_f)$ and $\lambda$ during development, and kept the toxicity of many settings. By {prf:ref}`lqr-tables-ratios` such a table has three directions, not four. Here every field is measured by itself, exactly, on validation prompts; the black line joins fields that are one law.

# %%
few = {"split": "validation", "limit": 12}
pulled = {}


def at(q, r, q_f, lam):
    """Exact scores on validation prompts; each setting is fitted and measured anew."""
    if (q, r, q_f, lam) not in pulled:
        one = ALQR(q=q, r=r, q_f=q_f, setpoint=lam)
        with lm.under(one.fit(contrasts, jacobians=blocks)):
            pulled[q, r, q_f, lam] = task.exact(**few)
    return pulled[q, r, q_f, lam]


# %%
bare = task.exact(**few)
qs, rs = (0.01, 0.1, 1.0, 10.0), (0.1, 1.0, 10.0, 100.0)
ratios, finals = (0.01, 0.1, 1.0, 10.0), (0.1, 1.0, 10.0, 1000.0)
lams = (0.5, 1.0, 1.5, 2.5)
swept = {
    "q and r": [[at(q, r, q, 1.5) for r in rs] for q in qs],
    "gain and aim": [[at(c, 1.0, c, lam) for lam in lams] for c in ratios],
    "end and aim": [[at(0.1, 1.0, c, lam) for lam in lams] for c in finals],
}
scored = {
    name: np.array([[s.combined_mean for s in row] for row in rows])
    for name, rows in swept.items()
}

# %% tags=["hide-input"]
one_law = [(r, q) for q, r in zip(qs, rs, strict=True)]
twins = [
    (at(q, r, q, 1.5), at(10 * q, 10 * r, 10 * q, 1.5)) for q in qs[:-1] for r in rs[:-1]
]  # fmt: skip
page.record(
    "map.diagonal",
    max(float(np.abs(a.wanted - b.wanted).max()) for a, b in twins),
    digits=6,
)
page.text(
    "map.diagonal.said",
    f"{max(float(np.abs(a.wanted - b.wanted).max()) for a, b in twins):.1g}",
)
page.record("map.free", bare.combined_mean, digits=2)
page.record("n.map", len(bare.wanted))
best_of = {
    name: np.unravel_index(int(rows.argmax()), rows.shape)
    for name, rows in scored.items()
}
page.record("map.best", max(rows.max() for rows in scored.values()), digits=2)
page.record("map.worst", min(rows.min() for rows in scored.values()), digits=2)
i, j = best_of["gain and aim"]
page.text("map.best.at", f"q/r = {ratios[i]:g}, λ = {lams[j]:g}")
hill = scored["gain and aim"]
page.text("map.aims", ", ".join(f"{lams[k]:g}" for k in hill.argmax(1)))
page.record("map.fields", len(qs) * len(rs))
page.record("map.laws", len({round(q / r, 9) for q in qs for r in rs}))
page.record("map.aimed", hill.size)
page.record("map.near", int((hill >= hill.max() - 0.03).sum()))
around = hill[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
page.record("map.cliff", hill.max() - around.min(), digits=2)
# %% tags=["hide-input"]
page.figure(
    "map",
    figures.knob_maps(
        {
            "q and r, λ = 1.5": figures.KnobMap(scored["q and r"], rs, qs, "r", "q, and q_f", one_law),
            "gain and aim": figures.KnobMap(scored["gain and aim"], lams, ratios, "setpoint λ", "q/r, and q_f/r"),
            "end and aim, q/r = 0.1": figures.KnobMap(scored["end and aim"], lams, finals, "setpoint λ", "q_f/r"),
        },
        label=labels.combined, unsteered=bare.combined_mean,
    ),
    alt=f"Three maps of {labels.combined} on validation prompts, unsteered {bare.combined_mean:.2f}. Over q and r every "
    f"field on a diagonal has the same score, from {scored['q and r'].min():.2f} to {scored['q and r'].max():.2f}. Over "
    f"q/r and the setpoint the best is {scored['gain and aim'].max():.2f} at q/r = {ratios[i]:g}, λ = {lams[j]:g}, the "
    f"worst {scored['gain and aim'].min():.2f}. Over q_f/r and the setpoint: {scored['end and aim'].min():.2f} to "
    f"{scored['end and aim'].max():.2f}.",
)  # fmt: skip

# %% tags=["hide-input"]
by_ratio = {f"ratio-{c:g}": at(c, 1.0, c, 1.5).wanted[None] for c in ratios}
page.samples("map.ratio", by_ratio, note="λ = 1.5, validation prompts")
page.samples(
    "map.strong",
    {"unsteered": bare.intact[None], "strong": at(1.0, 1.0, 1.0, 2.5).intact[None]},
    note="q/r = 1, λ = 2.5: share of answers that are intact",
)  # fmt: skip
page.samples(
    "map.final",
    {"unsteered": bare.wanted[None], "final-1000": at(0.1, 1.0, 1000.0, 0.5).wanted[None]},
    note="q/r = 0.1, q_f/r = 1000, λ = 0.5",
)  # fmt: skip
page.record("map.strong.free", bare.intact_mean())
page.record("map.strong.intact", at(1.0, 1.0, 1.0, 2.5).intact_mean())

# %% [markdown]
# On {glue:text}`n.map` validation prompts; violet is better than unsteered, brown is worse. Along a diagonal of the first map no prompt's score moves by more than {glue:text}`map.diagonal.said`: {glue:text}`map.fields` fields, {glue:text}`map.laws` laws. {glue:text}`word.combined` goes from {glue:text}`map.worst` to {glue:text}`map.best`, unsteered {glue:text}`map.free`; the best of gain and aim is {glue:text}`map.best.at`. The best aim for each gain, the weakest gain first: {glue:text}`map.aims`; by {prf:ref}`lqr-tables-trade` a weak gain with a far aim does what a strong gain does with a near one. Beyond that hill answers fall apart: {glue:text}`word.intact` at $q/r = 1$ and $\lambda = 2.5$ is {glue:text}`map.strong.intact`, unsteered {glue:text}`map.strong.free`. So the best *setting* of a law is a line on a map, not a point, and two laws differ by where they were put on their maps unless both are searched.

# %% [markdown]
# ## The tables
#
# The rules are those of chapter [15](15_horse_race): each method at its **own setting** ({prf:ref}`race-own`; for laws with a setpoint, $\lambda$ chosen among the paper's on validation prompts) and at **equal budget** ({prf:ref}`race-budget`; there it is the multiplier of the input that is searched, for each of these $\lambda$). Open-loop rows come from the race of that chapter, and ODESteer's, on truth and toxicity, from the race of chapter [44](44_odesteer_tables), all on the same prompts, under the same seeds and noise, at the same budget. Three controls stand among them: A-LQR on shuffled labels, with its choice of setpoints, and the random and the shuffled direction of the open loop.

# %% tags=["hide-input"]
BESIDE = [
    "ITI", "ActAdd", "Mean-AcT", "Linear-AcT", "difference of means", "adaptive angular steering",
    "difference of means: random direction", "difference of means: shuffled labels",
]  # fmt: skip
CLIMB = ["ODESteer"]  # its own controls are in its chapter

# %%
plan = read_race(data_folder() / "races" / "feedback.yml")
race, told = shipped_race("feedback", profile=profile, page=page)
courses = dict(race.courses) if race else {}
opened, told_open = shipped_race(
    "open_loop", profile=profile, page=page, only=courses, measure=0
)
barred, told_barred = shipped_race(
    "barriers", profile=profile, page=page, only=courses, measure=0
)
for title in courses:
    for other, names in ((opened, BESIDE), (barred, CLIMB)):
        if other and title in other.courses:
            courses[title] = beside(courses[title], other.courses[title], names)

# %% tags=["hide-input"]
lacking = race.absent if race else tuple(c.title for c in plan.courses())
main = lm.name if any(t.startswith(f"{lm.name}/") for t in courses) else ""
main = main or (next(iter(courses)).split("/")[0] if courses else "")
methods = [m.name for m in plan.methods if not m.control]
page.record("race.methods", len(methods))
page.record("race.courses", len(courses))
page.record("race.planned", len(plan.courses()))
page.record("race.budget", plan.budget.amount, digits=2)
page.text("race.main", main or "none")
page.text("race.line", told)
page.text("race.line.open", told_open)
page.text("race.line.barriers", told_barred)
page.text(
    "race.lacking",
    f"not run yet, and nowhere in what follows: {', '.join(lacking)}"
    if lacking else "none is lacking",
)  # fmt: skip
page.text(
    "race.other",
    "" if not courses or main == lm.name
    else f"This page was run with {lm.name}, which is not in the race: what "
    "follows are the records of another plant, and no claim is checked on them.",
)  # fmt: skip

# %% [markdown]
# {glue:text}`race.methods` methods with feedback or from its papers, {glue:text}`race.courses` of {glue:text}`race.planned` courses, each a plant with a behaviour ({glue:text}`race.lacking`), {glue:text}`race.budget` nats per token. {glue:text}`race.other` What was shipped is sampled and computed again on this page:
#
# - {glue:text}`race.line`
# - {glue:text}`race.line.open`
# - {glue:text}`race.line.barriers`
#
# :::{prf:definition} The columns
# :label: lqr-tables-columns
# **T*I** is the product of the means of True and Info. A completion is **toxic** if its score passes one half; the share of such completions is the paper's column. **Dist-2** is the share of distinct pairs of words over all completions; **perplexity** is that of another plant, over completions alone (the paper's includes the prompt). **Knowledge** is the share of multiple-choice questions about undisputed facts whose likeliest option is right, the place of MMLU. **Refused** and **harm helped** are shares of answers to harmful requests; the second is the paper's attack success. **Prevalence** is the share of pages that show the concept.
# :::
#
# Published numbers stand in a column of their own: of other models, data and judges, they say which order to look for and nothing else.

# %% tags=["hide-input"]
PRINTED = {
    "unsteered": "original", "ITI": "iti", "ActAdd": "act_add", "Mean-AcT": "mean_act", "Linear-AcT": "linear_act",
    "PID-AcT": "pid_act", "S-PID": "s_pid", "A-LQR": "a_lqr", "A-LQR+": "a_lqr_plus", "adaptive angular steering": "aas",
    "ODESteer": "odesteer",
}  # fmt: skip
SETTINGS = {"own": "own settings", "budget": "equal budget"}


# %% tags=["hide-input"]
def printed(model, *ids):
    """What the paper has in some columns, by row: published numbers of claims, or dashes."""
    rows = [claims[one].published.get(model, {}) for one in ids]
    return {
        ours: " / ".join(f"{row[key]:g}" if key in row else "–" for row in rows)
        for ours, key in PRINTED.items()
        if any(key in row for row in rows)
    }


def tables_of(behaviour, heads="", beside_=None, columns=None):
    """The tables of one behaviour, own settings with published numbers, then equal budget."""
    course = courses.get(f"{main}/{behaviour}")
    if course is None:
        display(Markdown(f"*{behaviour}: not run yet.*"))
        return
    for setting, named in SETTINGS.items():
        own = setting == "own"
        found = race_tables.paper_table(
            course, setting, more=columns if own else None
        )
        if own and beside_:
            found[heads] = [beside_.get(name, "–") for name in found.index]
        display(
            race_tables.folded(
                f"{behaviour.capitalize()} on {main}, {named}", found
            )
        )


# %% [markdown]
# ### Truth

# %% tags=["hide-input"]
tables_of(
    "truth", "published, Gemma-2-2B: T*I / True / Info",
    printed("gemma-2-2b", "alqr.tqa.txi.beats-all", "alqr.tqa.true.a-lqr-raises", "alqr.tqa.info.a-lqr-loses"),
)  # fmt: skip

# %% [markdown]
# ### Toxicity, knowledge and perplexity
#
# Perplexity and knowledge are not in the records: laws are fitted again under their first seed, answers to some provocations sampled, and questions asked, on this page.


# %% tags=["hide-input"]
SLOW = 8.0  # seconds that a fit of an open-loop law took when records were made
NAMES = ["unsteered", "A-LQR", "S-PID", "PID-AcT", "ITI", "ActAdd", "Mean-AcT", *CLIMB]  # fmt: skip


def again(behaviour, names=NAMES):
    """Entries at their own settings whose laws can be fitted again while a reader waits."""
    course = courses.get(f"{main}/{behaviour}")
    if course is None or main != lm.name:
        return []
    entries = [race_tables.entry_of(course, n, "own") for n in names]
    return [
        e for e in entries
        if e and e.records
        and (e.name not in BESIDE or max(r.fit_seconds for r in e.records) < SLOW)
    ]  # fmt: skip


# %% tags=["hide-input"]
surprise, knows, knows_true = {}, {}, {}
rows = again("toxicity")
other = next(p for p in ("almanac-gemma", "almanac-llama-small") if p != main)
page.text("reader", other if rows else "none")
if rows:
    reader = Plant.load(other, dtype=torch.float32)
    surprise = {e.name: perplexities_under(e, reader, limit=12) for e in rows}
    asked_of = tasks.Utility(plant_of(main, "cpu"))
    knows = {e.name: scores_elsewhere(e, asked_of, limit=24).wanted for e in rows}
    for e in again("truth", ["unsteered", "A-LQR"]):
        knows_true[e.name] = scores_elsewhere(e, asked_of, limit=24).wanted
means = {
    n: metrics.mean_interval(x[np.isfinite(x)])
    for n, x in surprise.items() if np.isfinite(x).sum() > 1
}  # fmt: skip
tables_of(
    "toxicity", "published, Gemma-2-2B: toxic % / MMLU / perplexity",
    printed("gemma-2-2b", "alqr.tox.beats-all", "alqr.tox.utility.a-lqr-keeps-more-than-act-add", "alqr.tox.ppl.rises"),
    columns={"perplexity": means, "knowledge": {n: metrics.mean_interval(x) for n, x in knows.items()}},
)  # fmt: skip


# %% tags=["hide-input"]
def above(found, name, of=np.asarray):
    """What a row has more than the unsteered plant, prompt by prompt; None where one of them is absent."""
    if name not in found or "unsteered" not in found:
        return None
    a, b = of(found[name]), of(found["unsteered"])
    both = np.isfinite(a) & np.isfinite(b)
    return metrics.paired_difference(a[both], b[both]) if both.sum() > 1 else None


cost_of = {
    "ppl": above(surprise, "A-LQR"),
    "knowledge": above(knows, "A-LQR"),
    "knowledge.true": above(knows_true, "A-LQR"),
}
if cost_of["ppl"]:
    page.record("ppl.change", cost_of["ppl"])
for name in ("ppl", "knowledge", "knowledge.true"):
    page.text(
        f"said.{name}",
        signed(cost_of[name]) if cost_of[name] else "not known yet",
    )

# %% [markdown]
# (The reader of perplexities: {glue:text}`reader`. Rows with a dash could not be fitted while a reader waits.) Changes under A-LQR at its own setting (which are not known where the table says that it could not run): perplexity {glue:text}`said.ppl`, knowledge {glue:text}`said.knowledge`; under A-LQR that was fitted for truth, knowledge {glue:text}`said.knowledge.true`. An answer in which nothing can be read counts as neither civil nor prudent, so that a low toxicity cannot be bought with noise: the paper's judge, which calls noise harmless, has no such clause, and there a rise of perplexity is the only witness.
#
# ### How much a factor of thirty weighs
#
# The paper counts 5 times 1000 completions, and says "30 to 50 times" of its reductions.
#
# :::{prf:proposition} The interval of a factor is decided by its smaller count
# :label: lqr-tables-factor
# Let $a$ of $n$ and $b$ of $n$ independent completions be toxic, both shares small. The variance of $\log(a/b)$ is about $\frac1a + \frac1b - \frac2n$, so that the factor $a/b$ is known up to a factor of $\exp\bigl(1.96\sqrt{1/a + 1/b}\bigr)$ either way.
# :::
#
# :::{prf:proof}
# $a$ is binomial with mean $np$; to first order $\log a - \log np = (a - np)/np$, with variance $\frac{1-p}{np} \approx \frac1a - \frac1n$. The two are independent.
# :::

# %% tags=["hide-input"]
rates = claims["alqr.tox.beats-all"].published
rows = []
for model, row in rates.items():
    a, b = (50 * row[key] for key in ("original", "a_lqr"))
    wide = float(np.exp(1.96 * np.sqrt(1 / a + 1 / b - 2 / 5000)))
    rows.append(
        (model_name(model), f"{a:.0f}", f"{b:.0f}", f"{a / b:.0f}", f"{a / b / wide:.0f} to {a / b * wide:.0f}")
    )  # fmt: skip
gemma = rates["gemma-2-2b"]
page.record("n.row", (plan.test or 0) * len(plan.grounds[0].seeds))
page.record("factor.few", 50 * min(r["a_lqr"] for r in rates.values()), digits=0)
page.record("factor.gemma", gemma["original"] / gemma["a_lqr"], digits=0)
table(
    rows,
    "published, of 5000",
    "toxic before",
    "toxic after",
    "factor",
    "95 % of it",
)

# %% [markdown]
# The denominators are as few as {glue:text}`factor.few` completions. A factor of {glue:text}`factor.gemma` with such an interval is a large effect; it is not a number to be compared with another method's factor. Our table has {glue:text}`n.row` completions to a row, and no factor is formed of them.
#
# ### Refusal, and a concept

# %% tags=["hide-input"]
tables_of("refusal")
tables_of("concept")

# %% [markdown]
# ## Who stands out
#
# Against the unsteered plant and every control ({prf:ref}`race-union`), at both settings. A star says that a method does; where it does not, the opponent that comes closest.

# %%
standing = {
    (title, setting): {
        name: race_tables.stands_out(course, name, setting)
        for name in [*methods, *BESIDE[:6], *CLIMB]
        if race_tables.entry_of(course, name, setting)
    }
    for title, course in courses.items()
    if title.startswith(f"{main}/")
    for setting in SETTINGS
}


# %% tags=["hide-input"]
def cell_of(found, name):
    """A star, or the nearest opponent."""
    won, nearest, d = found.get(name, (False, "", None))
    if d is None:
        return "–"
    near = nearest.removeprefix("difference of means: ").removeprefix("A-LQR, ")
    return f"★ {d.value:+z.3f}" if won else f"{d.value:+z.3f} ({near})"


# %% tags=["hide-input"]
stars = {
    key: [n for n, (won, *_) in found.items() if won]
    for key, found in standing.items()
}
for setting in SETTINGS:
    page.text(
        f"stars.{setting}",
        "; ".join(f"{t.split('/')[1]}: {' / '.join(n) or 'none'}" for (t, s), n in stars.items() if s == setting)
        or "nothing has been run",
    )  # fmt: skip
    columns = ["method", *(t.split("/")[1] for t, s in standing if s == setting)]
    rows = [
        (name, *(cell_of(f, name) for (_, s), f in standing.items() if s == setting))
        for name in [*methods, *BESIDE[:6], *CLIMB]
    ]  # fmt: skip
    if standing:
        found = table(rows, *columns)
        display(race_tables.folded(f"{main}, {SETTINGS[setting]}", found))

# %% [markdown]
# Numbers are differences from the closest opponent in the product of both scores. A dash is a method that could not run: at its own setting none of the paper's candidates kept nine tenths of the second score on validation prompts. Methods by the number of behaviours on which they stand out:


# %% tags=["hide-input"]
def by_stars(setting):
    """Methods by on how many behaviours they stand out, most first."""
    won = [names for (_, s), names in stars.items() if s == setting]
    counts = {
        n: sum(n in names for names in won) for n in [*methods, *BESIDE[:6]]
    }
    return {
        k: [n for n, count in counts.items() if count == k]
        for k in range(len(won), -1, -1)
        if k in counts.values()
    }


ranks = {setting: by_stars(setting) for setting in SETTINGS}
found = sorted({k for rank in ranks.values() for k in rank}, reverse=True)
table(
    [(k, *(listed(ranks[s].get(k, []), nothing="–") for s in SETTINGS)) for k in found],
    "behaviours", *SETTINGS.values(),
)  # fmt: skip

# %% [markdown]
# The signature figure: change in that product from the unsteered plant, for every behaviour, at both settings.

# %% tags=["hide-input"]
drawn = [*(m.name for m in plan.methods), "Mean-AcT", "difference of means"]
changes = {}
for title, course in courses.items():
    if title.startswith(f"{main}/"):
        free_ = race_tables.entry_of(course, "unsteered", "none")
        panel = changes[title.split("/")[1]] = {name: {} for name in drawn}
        for e in course.entries:
            if e.name in panel and e.records and e.setting in SETTINGS:
                named = SETTINGS[e.setting]
                panel[e.name][named] = race_tables.gain(e, free_)


# %% tags=["hide-input"]
def ends_of(panel):
    """The methods that change a score least and most at equal budget."""
    at_equal = {n: e["equal budget"].value for n, e in panel.items() if "equal budget" in e}  # fmt: skip
    ends = sorted(at_equal, key=at_equal.get)[:: max(1, len(at_equal) - 1)]
    return " to ".join(f"{at_equal[n]:+z.2f} ({n})" for n in ends) or "not run"


if changes:
    page.figure(
        "rows",
        figures.effects(changes, xlabel="change in the product of both scores"),
        alt="Change in the product of both scores from the unsteered plant, a panel for each behaviour, a line for each "
        "method, a mark for each setting, with intervals over prompts and seeds. At equal budget, the least and the most "
        "by behaviour: " + "; ".join(f"{t} {ends_of(panel)}" for t, panel in changes.items()) + ".",
    )  # fmt: skip
else:
    display(Markdown(f"*No figure: {told}*"))

# %% [markdown]
# ### What the model is worth, at equal budget
#
# A-LQR against each of the others, paired over prompts and seeds. Against the identity: is the *Jacobian* worth anything? Against S-PID: is the *regulator*? Against the pushes of the open loop: is *feedback*? Against shuffled labels: is the *feature*?

# %% tags=["hide-input"]
ASKED = {
    "identity in place of Jacobians": "the Jacobian", "S-PID": "the regulator", "A-LQR, centred": "the raw setpoint",
    "PID-AcT": "feedback at use", "Mean-AcT": "feedback", "difference of means": "all blocks and feedback",
    "A-LQR, shuffled labels": "the feature",
}  # fmt: skip
worth = {}
for title, course in courses.items():
    ours = race_tables.entry_of(course, "A-LQR", "budget")
    if title.startswith(f"{main}/") and ours and ours.records:
        for name in ASKED:
            e = race_tables.entry_of(course, name, "budget")
            if e and e.records:
                worth[name, title.split("/")[1]] = race_tables.gain(ours, e)
# %% tags=["hide-input"]
behaviours = list(dict.fromkeys(b for _, b in worth))
clear = {"more": [], "less": []}
for n, what in ASKED.items():
    for sign, found in clear.items():
        on = [b for b in behaviours if (n, b) in worth
              and (worth[n, b].low > 0 if sign == "more" else worth[n, b].high < 0)]  # fmt: skip
        found += [f"{what} on {listed(on)}"] if on else []
for sign, found in clear.items():
    page.text(
        f"worth.{sign}",
        "; ".join(found) or "nothing" if worth else "not known yet",
    )
rows = [
    (ASKED[n], n, *(signed(worth[n, b]) if (n, b) in worth else "–" for b in behaviours)) for n in ASKED
]  # fmt: skip
columns = ("what it is worth", "A-LQR less", *behaviours)
table(rows, *columns) if worth else Markdown("*Nothing has been run yet.*")

# %% [markdown]
# Worth something, the whole interval above zero: {glue:text}`worth.more`. Worth less than nothing: {glue:text}`worth.less`. (None is corrected for their number: one in forty falls on either side by luck.)
#
# ## A concept against its setpoint
#
# The figure that carries the paper's case for one knob: prevalence at five setpoints. {glue:text}`feedback_doses.recomputed`


# %% tags=["hide-input"]
records = shipped_grid("feedback_doses", profile=profile, page=page)
steps_ = (0.5, 1.0, 1.5, 2.0, 2.5)


# %%
def by_setpoint(cell):
    """What a cell of a concept is called."""
    return f"lambda-{cell.law.options['setpoint']:g}" if cell.law else "unsteered"


# %%
concepts = list(
    dict.fromkeys(
        r.cell.task_options["concept"]
        for r in records
        if r.cell.task == "concept"
    )
)
doses = {
    concept: grouped(
        [r for r in records if r.cell.task_options.get("concept") == concept],
        by_setpoint,
    )
    for concept in concepts
}

# %% tags=["hide-input"]
curves = {
    what: {
        c: [metrics.grid_interval(race_tables.scores(found[f"lambda-{x:g}"], score)) for x in steps_]
        for c, found in doses.items()
    }
    for what, score in (("prevalence", "wanted"), ("readable share", "intact"))
}  # fmt: skip
varied = {
    c: [race_tables.DIST.of(found[f"lambda-{x:g}"], found["unsteered"]) for x in steps_] for c, found in doses.items()
}  # fmt: skip
# %% tags=["hide-input"]
if doses:
    page.figure(
        "doses",
        figures.over(
            steps_,
            {**{what: figures.Panel(rows, what) for what, rows in curves.items()}, "Dist-2": figures.Panel(varied, "Dist-2")},
            xlabel="setpoint λ",
        ),
        alt="Prevalence, readable share and distinct pairs of words against the setpoint. "
        + " ".join(
            f"{c.capitalize()}: prevalence " + ", ".join(f"{e.value:.2f}" for e in rows) + "; readable "
            + ", ".join(f"{e.value:.2f}" for e in curves["readable share"][c]) + "."
            for c, rows in curves["prevalence"].items()
        ),
    )  # fmt: skip
else:
    display(Markdown("*Nothing has been run yet.*"))

# %% tags=["hide-input"]
figure_of = claims["alqr.concepts.prevalence-follows-the-setpoint"].published
dose_rows = []
for c, found in doses.items():
    bare_ = metrics.grid_interval(
        race_tables.scores(found["unsteered"], "wanted")
    )
    dose_rows.append(
        (c, f"{bare_.value:.2f}", *(f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for e in curves["prevalence"][c]))
    )  # fmt: skip
for name, row in figure_of.items():
    dose_rows.append(
        (f"published, {model_name(name.rpartition('-')[0])}, {name.rpartition('-')[2]}", "–", *(f"{row[f'lambda-{x:g}']:.2f}" for x in steps_))
    )  # fmt: skip
# %% tags=["hide-input"]
at_one = {
    n: row["lambda-1"] for n, row in figure_of.items() if n.startswith("gemma")
}
page.record("paper.dose.high", 100 * max(at_one.values()), digits=0, unit="%")
page.record("paper.dose.low", 100 * min(at_one.values()), digits=0, unit="%")
n_doses = sum(
    r.size
    for r in [
        race_tables.scores(f["lambda-1"], "wanted") for f in doses.values()
    ][:1]
)
page.record("n.doses", int(n_doses))
ends = {
    c: (rows[0].value, rows[-1].value) for c, rows in curves["prevalence"].items()
}
page.text("doses.concepts", " and ".join(concepts) or "none")
page.text(
    "doses.said",
    "; ".join(f"{c} from {a:.2f} to {b:.2f}" for c, (a, b) in ends.items()) or "not known yet",
)  # fmt: skip
page.text(
    "doses.readable",
    "; ".join(f"{c} {rows[-1]}" for c, rows in curves["readable share"].items()) or "not known yet",
)  # fmt: skip
table(dose_rows, "concept", "unsteered", *(f"λ = {x:g}" for x in steps_))

# %% [markdown]
# Each field is over {glue:text}`n.doses` pages. From the smallest to the largest setpoint prevalence goes: {glue:text}`doses.said`. What can still be read at the largest: {glue:text}`doses.readable`. One knob it is, then, but not one scale: on the paper's own figure $\lambda = 1$ gives {glue:text}`paper.dose.high` of the texts for one concept and {glue:text}`paper.dose.low` for another, on the same model, and by {prf:ref}`lqr-tables-trade` it could not be otherwise, since $\lambda$ is counted from zero, and concepts differ in where their negative class reads ({prf:ref}`setpoint-raw`).
#
# ## Refusal taken away
#
# The paper's table of jailbreaks, on requests for harm of the Almanac, where harm is a recipe for mischief in a country that does not exist. The setpoint is turned round, $\lambda = -1$, which is the law of the reversed direction at $+1$; weights are those of the released script. **A-LQR** at the last token, **A-LQR+** at all, S-PID, adaptive rotation (AAS) at all tokens of one block, and A-LQR+ on shuffled labels at twice the setpoint. ([Responsible use](../book/responsible_use.md) says why this is here at all: a law that can hold a refusal up can push it down, and who relies on steering for safety must know how far.)


# %%
def removing(cell):
    """What a cell of refusal is called."""
    if cell.task != "refusal" or cell.law is None:
        return "unsteered" if cell.task == "refusal" else ""
    aim = cell.law.options.get("setpoint", -1)
    name = {"s-pid": "S-PID", "angular-steering": "AAS"}.get(cell.law.name)
    name = name or ("A-LQR+" if cell.law.scope == "all" else "A-LQR")
    if cell.law.fit.labels == "shuffled":
        name += ", shuffled labels"
    return name if aim == -1 else f"{name}, λ = {aim:g}"


removed = grouped(records, removing)


# %% tags=["hide-input"]
def shares(e):
    """Of the answers of an entry: harm was helped, refused, neither."""
    helped, refused = (
        race_tables.scores(e, n) for n in ("attack-success", "wanted")
    )
    return {
        "harm helped": helped,
        "refused": refused,
        "neither": 1 - helped - refused,
    }


parts = {n: shares(e) for n, e in removed.items()}

# %% tags=["hide-input"]
qwen = claims["alqr.refusal.every-position-beats-the-last"].published[
    "qwen2.5-14b-instruct"
]
qwen = {**qwen, **claims["alqr.refusal.angular-beats-the-last"].published["qwen2.5-14b-instruct"],
        **claims["alqr.refusal.a-lqr-breaks-refusals"].published["qwen2.5-14b-instruct"]}  # fmt: skip
asr = {
    "unsteered": "original",
    "A-LQR": "a_lqr",
    "A-LQR+": "a_lqr_plus",
    "S-PID": "s_pid",
    "AAS": "aas",
}
# %% tags=["hide-input"]
rows = []
for name, e in removed.items():
    cells = [metrics.grid_interval(x) for x in parts[name].values()]
    cells += [
        metrics.grid_interval(race_tables.scores(e, "intact")),
        race_tables.KL.of(e, e),
    ]
    rows.append(
        (
            name,
            *(race_tables.shown(c) for c in cells),
            f"{qwen[asr[name]]:g}" if name in asr else "–",
        )
    )
heads = (
    "harm helped",
    "refused",
    "neither",
    "readable",
    "KL, nats/token",
    "published attack success, Qwen2.5-14B, %",
)
if removed:
    display(race_tables.folded("Refusal taken away", table(rows, "law", *heads)))

# %% tags=["hide-input"]
shifts = {
    part: {
        n: {"change": metrics.paired_grid_difference(found[part], parts["unsteered"][part])}
        for n, found in parts.items() if n != "unsteered"
    }
    for part in ("harm helped", "refused", "neither")
} if parts else {}  # fmt: skip
if shifts:
    page.figure(
        "removed",
        figures.effects(shifts, xlabel="change in the share of answers"),
        alt="Change from the unsteered plant in the share of harmful requests that are helped, refused, or neither, for each "
        "law that pushes against refusal, with intervals over prompts and seeds. "
        + " ".join(
            f"{part.capitalize()}: " + ", ".join(f"{aside(n)} {row['change'].value:+z.2f}" for n, row in found.items()) + "."
            for part, found in shifts.items()
        ),
    )  # fmt: skip
else:
    display(Markdown("*Nothing has been run yet.*"))


# %% tags=["hide-input"]
def clearly(part, side):
    """Laws whose change in a share is wholly on one side of zero."""
    found = [
        n for n, row in shifts.get(part, {}).items()
        if (row["change"].low > 0 if side == "up" else row["change"].high < 0)
    ]  # fmt: skip
    return listed(found)


for part in ("harm helped", "refused", "neither"):
    for side in ("up", "down"):
        page.text(f"removed.{part.replace(' ', '-')}.{side}", clearly(part, side))
bare_help = (
    metrics.grid_interval(parts["unsteered"]["harm helped"]) if parts else None
)
last = claims["alqr.refusal.a-lqr-neither-refuses-nor-helps"].published[
    "qwen2.5-14b-instruct"
]
page.text("paper.neither", f"{last['a_lqr']:.0f} %")
page.text("paper.neither.free", f"{last['original']:.0f} %")
page.text("removed.free", str(bare_help) if bare_help else "not known yet")

# %% [markdown]
# Unsteered, harm is helped in {glue:text}`removed.free` of answers: this plant is no well-guarded one. More harm is helped under: {glue:text}`removed.harm-helped.up`; less under: {glue:text}`removed.harm-helped.down`. Fewer refusals: {glue:text}`removed.refused.down`. More answers that do neither: {glue:text}`removed.neither.up`. The last are what the authors call benign non-refusal: a refusal that is gone, and nothing in its place. Attack success alone would count it as safety, the share of refusals alone as a jailbreak; both columns are needed, as in the published table, where plain A-LQR leaves {glue:text}`paper.neither` of the requests neither refused nor helped, and {glue:text}`paper.neither.free` are so without a law.

# %% [markdown]
# ## The tables on real models
#
# Above stands one small plant. The same rows and columns on models of the papers' sizes, with judges that are models, are made by one command for each table ([Rerunning the papers](../book/rerun.md)): settings are tried on validation prompts, and each row is tested at what was chosen there. A finished table is shown here, our number with its interval and $n$, then the printed one; of the others it is said what makes them.

# %% tags=["hide-input"]
real = {
    name: finished(
        "alqr", name, within=folders(name)[:1] if profile == "tiny" else None
    )
    for name in (("gpu", "paper") if profile == "tiny" else (profile,))
}
for name, each in real.items():
    display(
        race_tables.folded(f"Profile {name}: what has been run", overview(each))
    )
    for one in each:
        for model, frame in one.parts.items():
            display(
                race_tables.folded(f"Profile {name}, {one.shows}: {model}", frame)
            )
        if one.parts:
            lines = [
                f"{one.shows}: {one.about}.",
                *(f"Not run: {x}." for x in one.left),
            ]
            display(Markdown(" ".join(lines)))
page.text(
    "real.said",
    "; ".join(
        f"of the profile {name} {sum(t.state == FINISHED for t in each)} of {len(each)}"
        for name, each in real.items()
    ),
)

# %% [markdown]
# Finished: {glue:text}`real.said`. Where nothing is, nothing is known: no number of the small plant stands for one of these.
#
# ## What a token costs
#
# At every block the law reads one dot product and adds one multiple of a vector: $4d$ multiplications and additions for each token, where the block itself has two for each of its weights. The released code multiplies by the whole gain, $2d^2$ more, and waits at every block for a number to reach the processor. Counted, and then timed on this page: the same prompts with and without the law, taking turns, processor time on a CPU.

# %%
weights_of = sum(p.numel() for p in lm.blocks[0].parameters())
counts = {
    "the block": 2 * weights_of,
    "two vectors": 4 * lm.width,
    "the whole gain": 2 * lm.width**2 + 4 * lm.width,
}
table(
    [(name, f"{n:,}") for name, n in counts.items()],
    "for one token", "multiplications and additions",
)  # fmt: skip

# %% tags=["hide-input"]
page.record(
    "count.vectors",
    100 * counts["two vectors"] / counts["the block"],
    digits=1,
    unit="%",
)
page.record(
    "count.gain",
    100 * counts["the whole gain"] / counts["the block"],
    digits=0,
    unit="%",
)

# %% tags=["hide-input"]
clock = time.process_time if lm.device.type == "cpu" else time.perf_counter


def speed(prompts, under=None, tokens=16):
    """Tokens per second of the answers to some prompts at once."""
    with nullcontext() if under is None else lm.under(under):
        start = clock()
        found = lm.generate(prompts, max_new_tokens=tokens, seed=seeds[0])
        spent = clock() - start
    return sum(len(row) for row in found.tokens) / spent


for one in (None, law):
    speed(asked[:1], one)  # first calls cost more
kept = {}
for size in (1, 16):
    many = (asked * 2)[:size]
    ratio = [np.log(speed(many, law) / speed(many)) for _ in range(6)]
    kept[size] = metrics.mean_interval(ratio)

# %% tags=["hide-input"]
for size, e in kept.items():
    whole = [100 * float(np.exp(x)) for x in (e.value, e.low, e.high)]
    page.record(
        f"time.kept.{size}",
        whole[0],
        low=whole[1],
        high=whole[2],
        digits=0,
        unit="%",
    )
paced = claims["alqr.runtime.share-kept"].published["gemma-2-2b"]
page.record(
    "time.published", 100 * paced["a_lqr"] / paced["original"], digits=0, unit="%"
)
if profile in claims["alqr.runtime.share-kept"].profiles:
    page.samples(
        "tokens-per-second",
        {"unsteered": [[speed([p]) for p in asked]], "a-lqr": [[speed([p], law) for p in asked]]},
    )  # fmt: skip

# %% [markdown]
# Two vectors are {glue:text}`count.vectors` of the block's own arithmetic, the whole gain would be {glue:text}`count.gain` (on a small plant; the share falls as $1/d$ for vectors and stays for the gain). Of the unsteered speed {glue:text}`time.kept.1` is kept for one prompt and {glue:text}`time.kept.16` for sixteen at once; published for Gemma-2-2B: {glue:text}`time.published`. What is lost on a plant this small is not arithmetic: it is the time of calling its hooks. `steerlib bench decode_cost` has compiled code and more sizes.
#
# ## Break it
#
# *The best setting is chosen on a hill.* Of {glue:text}`map.aimed` pairs of gain and aim in the second map, {glue:text}`map.near` are within 0.03 of the best, and the worst neighbour of the best loses {glue:text}`map.cliff`. A setting that was chosen on one task stands at an unknown distance from such a cliff on the next.
#
# *Feedback holds what it measures.* At the largest setpoints of the concepts the reading is still followed, and {glue:text}`doses.readable` can be read: the law has no sensor for sense.
#
# *A choice that looks at beginnings.* Candidates are chosen by exact scores, which know how an answer begins; tests of all but truth write whole answers. Rows that were chosen to keep nine tenths of the second score, and keep less of it in the test, with what they keep: {glue:text}`fallen`. What a law does to a first sentence says little about what it does when the context is its own writing.
#
# *A heavy last weight is no harmless one.* With $q_f/r = 1000$ the last block is told to finish what all others left: one block then makes the whole move, where no later block can answer it.

# %% tags=["hide-input"]
fallen = []
for title, course in courses.items():
    free_ = race_tables.entry_of(course, "unsteered", "none")
    least = plan.keep * race_tables.scores(free_, "intact").mean()
    fallen += [
        f"{e.name} on {title.split('/')[1]} ({race_tables.scores(e, 'intact').mean():.2f})"
        for e in race_tables.entries_at(course, "own")
        if e.records and race_tables.scores(e, "intact").mean() < least
    ]
page.text("fallen", "; ".join(fallen) or "none" if courses else "not known yet")
heavy = at(0.1, 1.0, 1000.0, 2.5)
light = at(0.1, 1.0, 0.1, 2.5)
page.record("heavy.wanted", heavy.wanted_mean())
page.record("heavy.intact", heavy.intact_mean())
page.record("light.wanted", light.wanted_mean())
page.record("light.intact", light.intact_mean())
page.record("heavy.gain", heavy.combined_gain(light))
page.record("low.change", at(0.1, 1.0, 1000.0, 0.5).combined_gain(bare))

# %% [markdown]
# At $\lambda = 2.5$ the heavy end has {glue:text}`heavy.wanted` of {glue:text}`word.wanted` and {glue:text}`heavy.intact` of {glue:text}`word.intact`, the light one {glue:text}`light.wanted` and {glue:text}`light.intact` (change in {glue:text}`word.combined`: {glue:text}`heavy.gain`). At $\lambda = 0.5$, where the authors' sweep found *more* toxicity than without a law, the heavy end changes {glue:text}`word.combined` by {glue:text}`low.change`: a raw setpoint that lies below where a class already reads pulls it down, and here the negative class reads {glue:text}`top.free`, so that even the nearest setpoint of the map pulls up. What a heavy end does is decided by where zero lies, which is nobody's choice ({prf:ref}`setpoint-raw`).
#
# **In control words.** A table of controllers compares points; a controller is a surface over its weights and its reference. What can be compared are surfaces at one price: at equal effort, each at its best, with its margin to the edge. What a model of the plant can buy, it buys where it is true and the horizon is long enough to plan over; how much that was here, the differences at equal budget say.
#
# ## Exercises
#
# Replace the body of the stub, run the stub and the cell of tests below it, then call the test on your function, for example `check_36_1(one_law)`. Silence means that it passed. Each exercise stands alone; run `import numpy as np` first. Solutions are folded; open one by a click.
#
# ### Exercise 36.1: one law or two
#
# *Easy, 5 minutes.* `a` and `b` are weights $(q, r, q_f)$. Do they give the same gains on every plant? Weights are positive, but $q_f$ may be zero.

# %% tags=["exercise-setup", "ex:36.1", "ex:36.2", "ex:36.3"]
import numpy as np


# %% tags=["exercise-stub", "ex:36.1"]
def one_law(a, b):
    """Two triples (q, r, q_f) -> bool."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:36.1"]
def check_36_1(one_law):
    assert one_law((0.1, 1, 1), (1, 10, 10))
    assert one_law((0.2, 7, 0), (0.4, 14, 0))
    assert not one_law((0.1, 1, 0.1), (0.1, 1, 1000)), "the end counts, too"
    assert not one_law((1, 1, 1), (1, 2, 1))
    assert not one_law((1, 1, 0), (1, 1, 1))


# %% tags=["exercise-wrong", "ex:36.1", "remove-cell"]
def one_law(a, b):  # forgets the weight of the final state
    return bool(np.isclose(a[0] / a[1], b[0] / b[1]))


# %% tags=["exercise-solution", "ex:36.1", "hide-cell"]
def one_law(a, b):
    (q, r, q_f), (p, s, p_f) = a, b
    return bool(np.isclose(q / r, p / s) and np.isclose(q_f / r, p_f / s))


# %%
check_36_1(one_law)

# %% [markdown]
# ### Exercise 36.2: the aim that a gain needs
#
# *Medium, 10 minutes.* Blocks pass a reading on unchanged; block $k$ takes off the share `gains[k]` of what is missing. From the reading `start`, which setpoint (one for all blocks) brings it to `goal`? At least one gain is positive.


# %% tags=["exercise-stub", "ex:36.2"]
def needed(gains, start, goal):
    """Array (blocks,), two numbers -> the setpoint."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:36.2"]
def check_36_2(needed):
    assert np.isclose(needed([3 / 5, 1 / 2], 0.0, 4.0), 5.0)
    assert np.isclose(needed([1.0], 7.0, 2.0), 2.0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        gains, start, goal = rng.uniform(0.05, 0.9, 6), *rng.normal(size=2)
        aim, reading = needed(gains, start, goal), start
        for gain in gains:
            reading += gain * (aim - reading)
        assert np.isclose(reading, goal), "from wherever it starts"


# %% tags=["exercise-wrong", "ex:36.2", "remove-cell"]
def needed(gains, start, goal):  # right only from a reading of zero
    return goal / (1 - np.prod(1 - np.asarray(gains)))


# %% tags=["exercise-solution", "ex:36.2", "hide-cell"]
def needed(gains, start, goal):
    done = 1 - np.prod(1 - np.asarray(gains))
    return start + (goal - start) / done


# %%
check_36_2(needed)

# %% [markdown]
# ### Exercise 36.3: the interval of a factor
#
# *Medium, 8 minutes.* `a` of `n` completions were toxic before, `b` of `n` after, both positive. Return both ends of the 95 % interval of the factor $\frac{a/n}{b/n}$ by {prf:ref}`lqr-tables-factor`, with the $-\frac2n$.


# %% tags=["exercise-stub", "ex:36.3"]
def factor_interval(a, b, n):
    """Counts -> (low, high)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:36.3"]
def check_36_3(factor_interval):
    low, high = factor_interval(208, 9, 5000)
    assert np.isclose(low * high, (208 / 9) ** 2), "symmetric on a log scale"
    assert np.isclose(
        np.log(high / low), 2 * 1.96 * np.sqrt(1 / 208 + 1 / 9 - 2 / 5000)
    )
    few, many = (
        np.ptp(np.log(factor_interval(a, b, 5000)))
        for a, b in ((208, 9), (208, 90))
    )
    assert few > 2 * many, "the smaller count decides"


# %% tags=["exercise-wrong", "ex:36.3", "remove-cell"]
def factor_interval(a, b, n):  # takes only the larger count as uncertain
    wide = np.exp(1.96 * np.sqrt(1 / a - 1 / n))
    return a / b / wide, a / b * wide


# %% tags=["exercise-solution", "ex:36.3", "hide-cell"]
def factor_interval(a, b, n):
    wide = np.exp(1.96 * np.sqrt(1 / a + 1 / b - 2 / n))
    return a / b / wide, a / b * wide


# %%
check_36_3(factor_interval)

# %% [markdown]
# ## Claims checked here
#
# What A-LQR's tables, figures and development sweeps say {cite:p}`skifstad2026alqr`, tested on one small plant in a decidable world: rows of the race at the methods' own settings, as the paper ran them; concepts and refusals from the grid; the sweep from the map. ODESteer, a row of the paper's tables, is a row of ours, but not among the rivals of the claims. Claims that begin with “At equal effort” are ours, since no table of the paper has that column; those about toxicity ask, where every row runs, what the paper asks at settings at which a row may be missing here. A verdict is about what was checked, which may be less than the sentence says: that refusals are taken away "to none at all" is checked for its sign alone. The table at the foot of the page says so, claim by claim.

# %% tags=["hide-input"]
KEYS = {
    "unsteered": "unsteered", "A-LQR": "a-lqr", "identity in place of Jacobians": "identity", "S-PID": "s-pid",
    "PID-AcT": "pid-act", "A-LQR, shuffled labels": "shuffled", "ITI": "iti", "ActAdd": "act-add", "Mean-AcT": "mean-act",
    "Linear-AcT": "linear-act", "difference of means": "dom",
}  # fmt: skip


def of_race(behaviour, setting, of):
    """Scores of every row that ran, by the keys of the claims."""
    course = courses.get(f"{lm.name}/{behaviour}")
    if course is None:
        return {}
    ran = {n: race_tables.entry_of(course, n, setting) for n in KEYS}
    return {KEYS[n]: of(e) for n, e in ran.items() if e and e.records}


def toxic(e):
    """Whether each completion is toxic."""
    return (race_tables.scores(e, "wanted") < race_tables.TOXIC).astype(float)


def txi(e):
    """Product of both scores, answer by answer."""
    return product_scores(
        race_tables.scores(e, "wanted"), race_tables.scores(e, "intact")
    )


# %% tags=["hide-input"]
REMOVED = {
    "unsteered": "unsteered",
    "A-LQR": "a-lqr",
    "A-LQR+": "a-lqr-all",
    "S-PID": "s-pid",
    "AAS": "aas",
}
gathered = {
    "toxicity.share": of_race("toxicity", "own", toxic),
    "truth.txi": of_race("truth", "own", txi),
    "truth.true": of_race("truth", "own", lambda e: race_tables.scores(e, "wanted")),
    "truth.info": of_race("truth", "own", lambda e: race_tables.scores(e, "intact")),
    "truth.at-budget": of_race("truth", "budget", txi),
    "toxicity.at-budget": of_race("toxicity", "budget", toxic),
    "toxicity.utility": {KEYS[n]: x[None] for n, x in knows.items() if n in KEYS},
    "truth.utility": {KEYS[n]: x[None] for n, x in knows_true.items()},
} | {
    f"refusal.{short}": {REMOVED[n]: found[part] for n, found in parts.items() if n in REMOVED}
    for short, part in {"attack-success": "harm helped", "refused": "refused", "neither": "neither"}.items()
}  # fmt: skip
for metric, concept in (
    ("concepts.prevalence", "the sea"),
    ("concepts.prevalence-war", "war"),
):
    found = doses.get(concept, {})
    gathered[metric] = {
        n: race_tables.scores(e, "wanted")
        for n, e in found.items()
        if n != "unsteered"
    }
if lm.name != "almanac-llama":  # the grid is that of another plant
    gathered = {metric: {} for metric in gathered}

# %% tags=["hide-input"]
mine = [
    c for c in claims.values()
    if c.page == page.record_file.page and profile in c.profiles
]  # fmt: skip
for metric, found in gathered.items():
    waiting = [c for c in mine if c.metric == metric]
    for claim in waiting:
        if without := [k for k in claim.keys if k not in found]:
            page.cannot_check(
                claim.id,
                why=f"no row at this setting on {lm.name}: {', '.join(without)}",
            )
    used = {k for c in waiting for k in c.keys} & set(found)
    if used and any(c.id not in page.record_file.checks for c in waiting):
        page.samples(metric, {k: x for k, x in found.items() if k in used})
for claim in mine:
    if claim.metric.startswith("ppl") and claim.id not in page.record_file.checks:
        page.cannot_check(claim.id, why=f"not measured on {lm.name}: perplexity")
checks = page.record_file.checks
table(
    [(c.says.split(". Checked")[0], str(checks[c.id].verdict)) for c in mine if c.id in checks],
    "claim", "here",
)  # fmt: skip

# %% tags=["hide-input"]
counted = {}
for claim in mine:
    if claim.id in checks:
        word = str(checks[claim.id].verdict)
        counted[word] = counted.get(word, 0) + 1
page.text(
    "claims.count",
    ", ".join(f"{n} {word}" for word, n in counted.items()) or "none",
)

# %% [markdown]
# In all: {glue:text}`claims.count`.
#
# ## What we found


# %% tags=["hide-input"]
def star(setting):
    """Who stands out on most behaviours at a setting, in words."""
    k, names = next(iter(ranks[setting].items()), (0, []))
    of = sum(s == setting for _, s in stars)
    return f"{listed(names, nothing='nobody')} (on {k} of {of} behaviours)"


points = [
    f"Weights are two numbers: on {len(bare.wanted)} prompts, fields of the sweep with equal ratios differ by at most "
    f"{page.record_file.texts['map.diagonal.said']}. Over gain and aim {labels.combined} lies between "
    f"{scored['gain and aim'].min():.2f} and {scored['gain and aim'].max():.2f}, unsteered {bare.combined_mean:.2f}.",
    f"The reading follows the setpoint with a slope of {steps[0]:.2f} at first and {steps[-1]:.2f} at the end; the linear "
    f"model foretells {slope:.2f}.",
    f"{len(courses)} of {len(plan.courses())} courses have been run. Against the unsteered plant and every control, these stand out most often at their "
    f"own settings: {star('own')}. At equal budget these do: {star('budget')}.",
    f"At equal budget these parts of A-LQR are worth something: {page.record_file.texts['worth.more']}. These do harm: "
    f"{page.record_file.texts['worth.less']}.",
    f"The share of texts that show a concept follows the setpoint: {page.record_file.texts['doses.said']}.",
    f"Where refusal is taken away, more harm is helped under {clearly('harm helped', 'up')}. More answers neither refuse nor help "
    f"under {clearly('neither', 'up')}.",
]  # fmt: skip
page.findings(points)

# %% [markdown]
# What this does not show: how the rows stand on a model of thirty blocks, where a regulator has room to plan; with judges that are models; and with settings chosen, as in the paper, for each model by itself. Which of the published numbers can bear their sentences is asked in chapter [37](37_a_lqr_audit).
#
# ## Further reading
#
# - {cite:t}`skifstad2026alqr`: the tables that are rerun here, and sweeps over weights in its appendix.
# - {cite:t}`nguyen2025pid`: PID over depth, the row PID-AcT.
# - {cite:t}`vu2025angular`: rotation in a plane, the row AAS.
# - {cite:t}`rodriguez2025act`: Mean-AcT and Linear-AcT, open loop with a strength that means the same everywhere.
# - {cite:t}`astrom2021feedback`, chapter 7: what the weights of a regulator are for, and why only their ratios count.

# %% tags=["hide-input"]
page.footer()
