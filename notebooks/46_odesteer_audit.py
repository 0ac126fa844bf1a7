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
# (ch-odesteer-audit)=
# # 46 Audit: ODESteer's text and its released code
#
# **ODESteer's text and its released code part in how a score is averaged, what a seed decides, which tokens are steered and what the rivals get. Each difference is listed, those that can be run are run on a small plant at equal strength, and the printed deviations are asked which gaps they carry.**
#
# :::{admonition} Cost
# :class: cost-card note
#
# Time
# : about one and a half minutes on one processor core, for the `tiny` profile
#
# Memory
# : about 1 GB
#
# Read first
# : [43](43_odesteer) for the law, [45](45_exact_geometry) for what its strength means, [25](25_re_control_audit) for what printed rates can prove
# :::

# %% tags=["parameters"]
profile = "tiny"
plant = "almanac-llama"
seeds = [0, 1, 2]

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
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student

from steerlib import figures, metrics, tasks
from steerlib.actuator import Site
from steerlib.control.barrier import direction
from steerlib.control.sketch import PolynomialSketch
from steerlib.experiment.claims import load_claims
from steerlib.experiment.page import Page
from steerlib.experiment.profile_plants import plant_for
from steerlib.experiment.published import Compared
from steerlib.experiment.race_files import race_path, read_shipped_race
from steerlib.experiment.shipped import shipped, shipped_path
from steerlib.experiment.showing import signed, table
from steerlib.experiment.spelling import model_name
from steerlib.laws.act import LinearAcT
from steerlib.laws.additive import DifferenceOfMeans
from steerlib.laws.barrier import ODESteer
from steerlib.laws.mimic import MiMiC
from steerlib.metrics.products import product_grid_difference
from steerlib.recorder import record
from steerlib.tasks.base import Scores, spread

pd.set_option("display.max_colwidth", None)
page = Page("46_odesteer_audit", profile=profile, plant=plant, seeds=seeds)
lm = page.uses(plant_for(plant, profile=profile, exact=True))
task = tasks.for_plant(lm, data=os.environ.get("STEERLIB_DATA"))
labels = task.labels
page.words(labels)
claims = load_claims()
lm

# %% [markdown]
# ## One strength, two programs
#
# Somebody makes the sketch's class by hand and gives neither its constants nor a strength. What the class and the settings file then supply is not what the paper has. The same question, answered greedily by the plant alone, by the law with the paper's constants at a strength that does something here, and by that program:

# %% tags=["hide-input"]
first_layer = round(0.4 * lm.depth)
seen = task.contrast(layer=first_layer, n=60, seed=seeds[0])
length = float(torch.cat([seen.positive, seen.negative]).norm(dim=1).mean())
question = task.prompts("test")[0]
programs = {
    "nobody": None,
    "the paper's constants, T a third of the state's length": ODESteer(
        strength=length / 3
    ),
    "the class's constants, T as the settings file has it, 1": ODESteer(
        gamma=1.0, c0=0.1, strength=1.0
    ),
}


def answer(law):
    """One greedy answer to the question, its first line."""
    with ExitStack() as acting:
        if law is not None:
            acting.enter_context(lm.under(law.fit(seen)))
        made = lm.generate([question], max_new_tokens=20, seed=0, temperature=0)
    return made.texts[0].strip().partition("\n")[0]


asked = " / ".join(question.strip().split("\n"))
table([(asked, name, answer(law)) for name, law in programs.items()],
      "prompt", "steered by", "answer")  # fmt: skip

# %% [markdown]
# (odesteer-audit-list)=
# ## All differences
#
# What the code does is known from a reading of its commit 08cbc11; what the text says from a text dump of the paper {cite:p}`zhao2026odesteer`, tables included, figures not. Nothing of the code was run or copied here, no commit is tied to a table, and rows marked *inferred* follow from the code without having been seen to happen. So the list says what the code does, not what the authors ran.
#
# | # | Text | Released code | Run here |
# |---|---|---|---|
# | 1 | T\*I; its printed numbers are True times Info | mean over answers of *both*, the logical AND | yes |
# | 2 | sketch with $\gamma = 0.1$, $c_0 = 1$ | settings files the same; the class has $\gamma = 1$, $c_0 = 0.1$ for defaults, swapped | yes |
# | 3 | three runs | a run's seed draws the sampling *and* the hashes of the sketch, anew for each fold | yes |
# | 4 | new tokens are steered | the last position of each pass, so the last prompt token too | yes |
# | 5 | unit gradient | divided by its norm plus 1e-10, the state by its norm plus 1e-12; never stops | yes |
# | 6 | TruthfulQA: 40 % to fit, 10 % to validate, two folds | halves by question; the fit takes all pairs of the other half, no script reads a validation part or chooses T | yes |
# | 7 | blocks 15, 16, 14, 14 | 14, 15, 13, 13, counted from zero: the same blocks | the trap |
# | 8 | one block for all methods, the best of CAA | the same | yes |
# | 9 | RepE | classes cut to equal length, not paired; the mean difference taken away; sign as the solver gives it | yes |
# | 10 | T for all | MiMiC and Linear-AcT ignore T, always full transport; names of their runs carry T | yes |
# | 11 | *not stated* | Llama and Mistral on TruthfulQA: two begin tokens in front of test prompts (inferred) | yes |
# | 12 | fitted at the last token of question and answer | the same; for Qwen that token is one of the chat template (inferred) | yes |
# | 13 | T from 3 to 23, by model | default 1 in the settings | yes |
# | 14 | repetition penalty 1.1 | UltraFeedback also forbids any pair of tokens to come twice | no |
# | 15 | 500 prompts, three seeds | one fixed sample of prompts; the seed changes sampling and hashes alone | [the errors](#odesteer-audit-errors) |
# | 16 | HPR, RE-Control and TruthFlow from their authors' code | not released here | no |
# | 17 | Mistral v0.3 | v0.3 in the settings, v0.1 in the manual | no |
#
# The batched gradient lacks the factor $\sqrt\gamma$ that the single one has, which the unit length takes away again. A function that returns density ratios names an attribute that is not there, and would stop a run. A system prompt stands before test prompts and not before the texts of the fit.
#
# ## The law under audit
#
# ODESteer as in chapter [43](43_odesteer), ten Euler steps, at one block. As in the paper the block is the best of {term}`CAA <difference of means>`, added once, and T is chosen after it; both on validation prompts. T is a length, so it is chosen in shares of the mean norm of the states (chapter [45](45_exact_geometry)). Everything below has the same T unless it says otherwise.

# %%
TESTED, TUNED, TEXTS = 24, 12, 120
sites = [Site(k) for k in range(lm.depth)]
drawn = {seed: task.contrasts(sites, n=TEXTS, seed=seed) for seed in seeds}


def scores(law=None, split="test", limit=TESTED, **where):
    """Exact scores, unsteered or under a law."""
    with ExitStack() as acting:
        if law is not None:
            acting.enter_context(lm.under(law, **where))
        return task.exact(limit=limit, split=split)


def norm(contrast):
    """Mean norm of the states of both classes."""
    return float(
        torch.cat([contrast.positive, contrast.negative]).norm(dim=1).mean()
    )


# %%
def tuned(law, **where):
    """What validation prompts give a law."""
    return scores(law, "validation", TUNED, **where).combined_mean


by_caa = [tuned(DifferenceOfMeans(strength=1.0).fit(c)) for c in drawn[seeds[0]]]
layer = int(np.argmax(by_caa))
here = {seed: contrasts[layer] for seed, contrasts in drawn.items()}
fitted = {seed: ODESteer().fit(contrast) for seed, contrast in here.items()}
shares = [0.2, 0.3, 0.4, 0.6]
by_share = [tuned(fitted[seeds[0]].at(s * norm(here[seeds[0]]))) for s in shares]
share = shares[int(np.argmax(by_share))]
T = share * norm(here[seeds[0]])

# %%
grids = {"ODESteer": [scores(law.at(T)) for law in fitted.values()]}
free = scores()
made = {"ODESteer": fitted}  # laws, for their pushes


def run(name, laws, at=T, **where):
    """Scores of a variant at the same T, one law for each seed."""
    made[name] = laws
    grids[name] = [scores(law.at(at), **where) for law in laws.values()]


def variant(change=None, of=None, **options):
    """ODESteer of each seed, its constants or its texts exchanged."""
    of = here if of is None else of
    return {s: ODESteer(**options).fit(c if change is None else change(c))
            for s, c in of.items()}  # fmt: skip


# %% tags=["hide-input"]
page.record("layer", layer)
page.record("depth", lm.depth)
page.record("share", share, digits=1)
page.record("n.tested", len(free.wanted))
page.record("n.texts", len(here[seeds[0]].positive))
page.record("n.seeds", len(seeds))
page.record("free.combined", free.combined())
page.record("ref.combined", Scores.pooled(grids["ODESteer"]).combined())

# %% [markdown]
# Block {glue:text}`layer` of {glue:text}`depth` (from 0), T a share of {glue:text}`share` of the states' norm. On {glue:text}`n.tested` test prompts, scored exactly, {glue:text}`word.combined` is {glue:text}`free.combined` unsteered and {glue:text}`ref.combined` under the reference: {glue:text}`n.seeds` fits, each on {glue:text}`n.texts` texts of each class.
#
# ## Rung 1: both scores by hand
#
# Four answers: true and informative, true and uninformative, false and informative, and once more true and informative. True is $\frac34$, Info is $\frac34$, their product $\frac9{16}$. *Both* hold for two of four, $\frac12$. And the kernel on unit vectors with inner product $t$, once as in the settings and once as in the class:
#
# $$ (0.1\,t + 1)^2 = 1 + 0.2\,t + 0.01\,t^2, \qquad (t + 0.1)^2 = 0.01 + 0.2\,t + t^2. $$
#
# The same weight on the linear part, and a hundred times the weight on the quadratic one.

# %%
true, info = np.array([1, 1, 0, 1]), np.array([1, 0, 1, 1])
product, both = true.mean() * info.mean(), (true & info).mean()
assert (product, both) == (9 / 16, 1 / 2)
x = torch.eye(8, dtype=torch.float64)[0]
angles = torch.linspace(0, 3, 9, dtype=torch.float64)[:, None]
around = angles.cos() * x + angles.sin() * torch.eye(8, dtype=torch.float64)[1]
bent = {}
for name, gamma, c0 in (("text", 0.1, 1.0), ("code", 1.0, 0.1)):
    kernel = PolynomialSketch.draw(8, dimension=100, gamma=gamma, c0=c0).kernel
    quadratic, linear, _ = np.polyfit(angles.cos()[:, 0], kernel(x, around), 2)
    bent[name] = quadratic / linear
table(
    [(f"constants of the {name}", f"{x:.2f}") for name, x in bent.items()],
    "kernel", "quadratic weight over linear weight",
)  # fmt: skip

# %% tags=["hide-input"]
page.record("kernel.text", bent["text"], digits=2)
page.record("kernel.code", bent["code"], digits=1)

# %% [markdown]
# Quadratic over linear weight: {glue:text}`kernel.text` as in the settings, {glue:text}`kernel.code` by the class's defaults. The first is nearly a linear probe on directions, the second is not.
#
# :::{prf:proposition} Product and AND
# :label: odesteer-and
# Let $t_i, s_i \in [0, 1]$ be scores of answer $i$, True and Info, with means $T$ and $I$, and let $A$ be the mean of $t_is_i$. Then $A - TI$ is their covariance, and
#
# $$ \max(0, T + I - 1) \;\le\; A \;\le\; \min(T, I), \qquad A \;\ge\; TI - (1 - T)(1 - I). $$
#
# For verdicts of 0 and 1, every value in between that is a share of the answers occurs.
# :::
#
# :::{prf:proof}
# $A - TI$ is the definition of the covariance. $t_is_i \le t_i$ and $\le s_i$ give the right end; $(1 - t_i)(1 - s_i) \ge 0$ gives $t_is_i \ge t_i + s_i - 1$, whose mean is the left end, and $T + I - 1 = TI - (1 - T)(1 - I)$. For verdicts, shift the ones of $s$ one by one from answers that are true to answers that are not.
# :::
#
# ## Rung 2: the released field in plain PyTorch
#
# Two hashes throw the coordinates of the direction, and a constant, into buckets with signs; the feature is the circular convolution of both sketches. The field is its gradient times the weights, over the gradient's norm and a trifle.

# %%
GAMMA, C0, D = 0.1, 1.0, 8000
h = fitted[seeds[0]].ratio.barrier
w, hashes = h.weight.double(), h.sketch


def logit(a):
    """w . phi of the direction of one state."""
    x = a / (a.norm() + 1e-12)
    e = torch.cat([GAMMA**0.5 * x, x.new_tensor([C0**0.5])])
    spectrum = 1
    for bucket, sign in zip(hashes.buckets, hashes.signs, strict=True):
        sketch = torch.zeros(D).to(a).index_add(0, bucket, sign * e)
        spectrum = spectrum * torch.fft.rfft(sketch)
    return torch.fft.irfft(spectrum, n=D) @ w


# %%
def released(a, T, steps=10):
    """Euler's method on the unit gradient, which never stops."""
    for _ in range(steps):
        g = torch.func.grad(logit)(a)
        a = a + T / steps * g / (g.norm() + 1e-10)
    return a


# %% [markdown]
# ## Rung 3: the library's options
#
# What the code does has a name in {py:class}`~steerlib.laws.barrier.ODESteer`: `guard="released"`, `gamma=1.0, c0=0.1`, `seed=` the run's.

# %%
asked = spread(task.prompts("test"), TESTED)
states = record(lm, asked, sites=[Site(layer)]).at(Site(layer))
law = variant(guard="released", of={seeds[0]: here[seeds[0]]})[seeds[0]].at(T)
ours = torch.stack([released(a.double(), T) for a in states[:4]])
apart = float((ours - law(states[:4])).norm() / (ours - states[:4]).norm())
assert apart < 1e-3


# %% tags=["hide-input"]
def pushes(laws, at=T):
    """What laws add to the last prompt token, (laws, prompts, width)."""
    return torch.stack([law.at(at)(states) - states for law in laws.values()])


def turned(one, other):
    """Degrees between pushes, prompt by prompt."""
    cosines = torch.cosine_similarity(one.double(), other.double(), dim=-1)
    return cosines.clamp(-1, 1).arccos().rad2deg()


moved = pushes({0: fitted[seeds[0]]})[0]
guard_gap = float((law(states) - states - moved).norm() / moved.norm())
speed = direction(h, states.double(), guard="stop").norm(dim=1)
page.record("rungs.apart", apart, digits=6)
page.text("rungs.said", f"{apart:.0e}")
page.record("guard.gap", guard_gap, digits=7)
page.text("guard.said", f"{guard_gap:.0e}" if guard_gap else "0")
page.record("speed.gap", float((speed - 1).abs().max()), digits=9)

# %% [markdown]
# From scratch and library agree to {glue:text}`rungs.said` of the push. The guard (row 5) changes the push by {glue:text}`guard.said` of its length: no state of this plant is near a critical point, so to stop or not to stop is a matter of principle here.
#
# ## True and Info, twice (row 1)
#
# On the Almanac the probability of an answer that is both is known without sampling. Two things pull AND away from the product. Declining is true and not informative, which draws it below. Answers that are broken are neither, which draws it above.


# %%
def jointly(law=None):
    """True, Info and both, prompt by prompt."""
    with ExitStack() as acting:
        if law is not None:
            acting.enter_context(lm.under(law))
        if hasattr(task, "masses"):
            m = task.masses(spread(task.items("test"), TESTED))
            declined, false = m["uninformative"], m["misconception"]
            return m["truth"] + declined, m["truth"] + false, m["truth"]
        s = task.exact(limit=TESTED)
        return s.wanted, s.intact, s.wanted * s.intact


def below(t, s, a):
    """AND less product."""
    return a.mean(-1) - t.mean(-1) * s.mean(-1)


# %%
joint = {"unsteered": jointly()}
each = [jointly(fitted[s].at(T)) for s in seeds]
joint["ODESteer"] = tuple(np.mean(x, 0) for x in zip(*each, strict=True))
less = {n: metrics.interval_of(below, *x) for n, x in joint.items()}
share_of_gain = {
    "product": np.prod([x.mean() for x in joint["ODESteer"][:2]])
    - np.prod([x.mean() for x in joint["unsteered"][:2]]),
    "AND": joint["ODESteer"][2].mean() - joint["unsteered"][2].mean(),
}

# %% tags=["hide-input"]
page.record("and.free", less["unsteered"])
page.record("and.less", less["ODESteer"])
page.record("and.gain", share_of_gain["AND"], digits=2)
page.record("product.gain", share_of_gain["product"], digits=2)
floor = {n: -(1 - x[0].mean()) * (1 - x[1].mean()) for n, x in joint.items()}
page.text(
    "and.how",
    "" if hasattr(task, "masses")
    else " (This plant's task gives no joint probability; within a prompt the two are taken as independent.)",
)  # fmt: skip
table(
    [(n, f"{t.mean():.2f}", f"{s.mean():.2f}", f"{t.mean() * s.mean():.2f}", f"{a.mean():.2f}", signed(less[n]), f"{floor[n]:+z.3f}")
     for n, (t, s, a) in joint.items()],
    "", labels.wanted, labels.intact, "product", "AND", "AND less product", "least it can be",
)  # fmt: skip

# %% [markdown]
# AND less product is {glue:text}`and.free` unsteered and {glue:text}`and.less` under ODESteer: even its sign may change with the law (the tables of chapter [44](44_odesteer_tables) have AND beside the product for every law). The gain by steering is {glue:text}`product.gain` by the product and {glue:text}`and.gain` by AND.{glue:text}`and.how`
#
# Which of the two was printed? The forty rows of the paper's main table:

# %%
printed = pd.DataFrame(
    claims["odesteer.t2.txi.every-row-is-a-product"].published
).T
gap = (printed.txi - printed["true"] * printed["info"] / 100).abs()
least = (printed["true"] + printed["info"] - 100).clip(lower=0)
most = printed[["true", "info"]].min(axis=1)
model = printed.index.str.partition("/").get_level_values(0)
is_ours = printed.index.str.endswith("/odesteer")
safe = [
    float(least[is_ours & (model == m)].iloc[0])
    > most[~is_ours & (model == m)].max()
    for m in model.unique()
]

# %% tags=["hide-input"]
page.record("product.gap", float(gap.max()), digits=2)
page.record("n.rows", len(printed))
page.record("and.narrow", float((most - least).min()), digits=1)
page.record("and.wide", float((most - least).max()), digits=1)
page.record("and.floor.worst", float((printed.txi - least).max()), digits=1)
page.record(
    "and.floor.ours", float((printed.txi - least)[is_ours].max()), digits=1
)
page.record("and.safe", int(sum(safe)))
page.record("n.models", len(safe))

# %% [markdown]
# In all {glue:text}`n.rows` the printed T\*I is the product to {glue:text}`product.gap` points, which is what rounding leaves. By {prf:ref}`odesteer-and` AND could have been anywhere in intervals of {glue:text}`and.narrow` to {glue:text}`and.wide` points; that it fell on the product forty times is no accident. **So the table has the product, and the released evaluator does not make it.** AND can lie up to {glue:text}`and.floor.worst` points below what is printed, for ODESteer's rows up to {glue:text}`and.floor.ours`. On {glue:text}`and.safe` of {glue:text}`n.models` models ODESteer's lowest possible AND is above every rival's highest; on the others its lead by AND does not follow from the table.
#
# ## The variants (rows 2 to 8, 11 and 12)
#
# One thing is changed at a time. For row 4 the last prompt token is left alone, as the text has it; for row 6 the fit gets four fifths of its texts, as 40 % is to 50 %.


# %%
class NewTokensOnly:
    """A law that leaves every prompt token as it is."""

    sees_pass = True

    def __init__(self, law):
        self.law = law

    def at(self, strength):
        return NewTokensOnly(self.law.at(strength))

    def during(self, state, now):
        if now.decoding:
            return self.law(state)
        if now.prompt_lengths is None:  # a pass over prompts
            return state
        real = now.real if now.real is not None else torch.ones(state.shape[:2])
        new = real.bool().cumsum(1) > now.prompt_lengths[:, None]
        return torch.where(new[..., None], self.law(state), state)


# %%
run("class's constants", variant(gamma=1.0, c0=0.1))
run("other hashes", variant(seed=1))
late = {s: NewTokensOnly(law) for s, law in fitted.items()}
grids["new tokens only"] = [
    scores(law.at(T), layer=layer) for law in late.values()
]


# %%
def fewer(contrast, keep=0.8):
    """The first four fifths of the texts."""
    n = int(keep * len(contrast.positive))
    return replace(
        contrast, positive=contrast.positive[:n], negative=contrast.negative[:n]
    )


run("four fifths of the texts", variant(fewer))
for name, k in (("block before", layer - 1), ("block after", layer + 1)):
    if 0 <= k < lm.depth:
        of = {s: drawn[s][k] for s in seeds}
        grids[name] = [scores(law.at(T)) for law in variant(of=of).values()]

# %%
own = [tuned(ODESteer(strength=share * norm(c)).fit(c)) for c in drawn[seeds[0]]]
best = int(np.argmax(own))
of = {s: drawn[s][best] for s in seeds}
grids["ODESteer's own block"] = (
    grids["ODESteer"] if best == layer
    else [scores(law.at(share * norm(of[seeds[0]]))) for law in variant(of=of).values()]
)  # fmt: skip

# %% [markdown]
# Row 11: the shipped plants have no begin token, so that the doubling is mimicked by one more token in front of every test prompt than the fit has seen. Row 12: texts of the fit end where the answer ends, as in text and code, or one token later, where a template would go on; the reference ends where the answer is decided.

# %%
begin = lm.tokenizer.bos_token or lm.tokenizer.eos_token
doubled = None
if hasattr(task, "scored") and begin:
    doubled = [replace(q, text=begin + q.text)
               for q in spread(task.items("test"), TESTED)]  # fmt: skip


def one_more(law):
    """Exact scores with one more begin token before every prompt."""
    with ExitStack() as acting:
        if law is not None:
            acting.enter_context(lm.under(law))
        return task.scored(doubled)


# %%
if doubled is not None:
    grids["one more begin token"] = [
        one_more(law.at(T)) for law in fitted.values()
    ]
    page.record("begin.free", one_more(None).combined_gain(free))


# %%
def ended(seed, more=""):
    """A contrast at the end of the answers, or a token after it."""
    texts = task.contrast_texts(n=TEXTS, seed=seed, at="end")
    plus, minus = (
        record(lm, [t + more for t in part], sites=[Site(layer)]).at(Site(layer))
        for part in texts
    )
    return replace(here[seed], positive=plus, negative=minus)


ends = {s: ended(s) for s in seeds}
run("fit at the answer's end", variant(of=ends))
run("fit a token after it", variant(of={s: ended(s, "\n") for s in seeds}))


# %% tags=["hide-input"]
def stacked(rows):
    """Scores of all seeds as two arrays (seeds, prompts)."""
    return np.stack([s.wanted for s in rows]), np.stack([s.intact for s in rows])


ref = stacked(grids["ODESteer"])
change = {
    name: product_grid_difference(stacked(rows), ref)
    for name, rows in grids.items()
    if name != "ODESteer"
}
SHORT = {
    "class's constants": "swapped", "other hashes": "hashes", "new tokens only": "new",
    "four fifths of the texts": "fewer", "block before": "before", "block after": "after",
    "ODESteer's own block": "own", "one more begin token": "begin",
    "fit at the answer's end": "end", "fit a token after it": "template",
}  # fmt: skip
for name, key in SHORT.items():
    if name in change:
        page.record(f"{key}.change", change[name])
angle = {
    n: turned(pushes(laws), pushes(fitted)).mean(0).numpy()
    for n, laws in made.items()
    if n != "ODESteer"
}

# %% tags=["hide-input"]
rows = []
for name, gained in change.items():
    t, s = stacked(grids[name])
    rows.append((name, f"{t.mean():.2f}", f"{s.mean():.2f}", signed(gained),
                 f"{angle[name].mean():.1f}°" if name in angle else ""))  # fmt: skip
table([("ODESteer", f"{ref[0].mean():.2f}", f"{ref[1].mean():.2f}", "", ""), *rows],
      "", labels.wanted, labels.intact, f"change in {labels.combined}", "push turned by")  # fmt: skip

# %% tags=["hide-input"]
page.figure(
    "variants",
    figures.intervals(
        {n: metrics.Estimate(e.value, e.low, e.high, e.n) for n, e in change.items()},
        xlabel=f"{labels.combined} less that of the reference, same T", zero=0.0,
    ),
    alt=f"{labels.combined} less that of ODESteer at the same strength, one thing changed at a time, with 95 % intervals over "
    "prompts and fits: " + ", ".join(f"{n} {e.value:+z.3f}" for n, e in change.items()) + ".",
)  # fmt: skip

# %% [markdown]
# **Constants.** With the class's defaults {glue:text}`word.combined` changes by {glue:text}`swapped.change` at the same T. **Begin token.** One more of them at test time: {glue:text}`begin.said` (unsteered: {glue:text}`begin.bare`). **Blocks.** Counted from zero, 14, 15, 13 and 13 are the paper's blocks; whoever takes the paper's numbers for indices is one block further up, which here changes {glue:text}`word.combined` by {glue:text}`after.said`, and one block lower by {glue:text}`before.said`. The block that validation gives ODESteer itself is {glue:text}`own.block`, that of CAA {glue:text}`layer`: {glue:text}`own.change`. **Size of the fit.** Four fifths of the texts: {glue:text}`fewer.change`. **End of the answer.** A fit there in place of where it is decided: {glue:text}`end.change`; one token later: {glue:text}`template.change`.
#
# ### What a run's seed decides (row 3)
#
# The printed deviations are of three runs, whose seeds draw sampling and hashes together; the texts of the fit do not change with them. Here there is no sampling. How far do hashes turn the push, and how far would other texts?

# %% tags=["hide-input"]
page.record("own.block", best)
for name in ("one more begin token", "block after", "block before"):
    key = f"{SHORT[name]}.said"
    page.text(key, signed(change[name]) if name in change else "not run here")
page.text("begin.bare", page.record_file.values["begin.free"].shown if doubled else "not run here")  # fmt: skip
by_hash = turned(pushes(made["other hashes"]), pushes(fitted)).mean(0).numpy()
first, second = pushes(fitted), torch.roll(pushes(fitted), 1, 0)
by_texts = turned(first, second).mean(0).numpy()
score = {
    "fits": [s.combined_mean for s in grids["ODESteer"]],
    "hashes": [
        (a.combined_mean, b.combined_mean)
        for a, b in zip(grids["ODESteer"], grids["other hashes"], strict=True)
    ],
}
sd_fits = float(np.std(score["fits"], ddof=1))
sd_hashes = float(
    np.sqrt(np.mean([(a - b) ** 2 / 2 for a, b in score["hashes"]]))
)
page.record("hashes.angle", metrics.paired_difference(by_texts, by_hash))
page.record("angle.of-hashes", metrics.mean_interval(by_hash))
page.record("angle.hashes", float(by_hash.mean()), digits=1)
page.record("angle.texts", float(by_texts.mean()), digits=1)
page.record("sd.fits", sd_fits, digits=4)
page.record("sd.hashes", sd_hashes, digits=4)

# %% [markdown]
# Other hashes turn the push by {glue:text}`angle.hashes` degrees, other texts by {glue:text}`angle.texts` (texts less hashes: {glue:text}`hashes.angle`). The standard deviation of {glue:text}`word.combined` is {glue:text}`sd.hashes` over hashes and {glue:text}`sd.fits` over fits. The two orders need not agree: what hashing adds to a field is noise in directions that hardly any answer hangs on (chapter [44](44_odesteer_tables) takes the sketch away), and what other texts add is in those that matter. A deviation over runs, whose texts are the same, holds the first kind only. It holds nothing of other questions either, to which we come back.
#
# ### Which token is steered first (row 4)

# %%
begun = spread(task.prompts("test"), 12)


def last_state(law=None, **where):
    """States of the last prompt tokens while generation begins."""
    got = {}

    def note(module, args, out):
        z = out[0] if isinstance(out, tuple) else out
        got.setdefault("z", z[:, -1].clone())

    with ExitStack() as acting:
        acting.callback(lm.blocks[layer].register_forward_hook(note).remove)
        if law is not None:
            acting.enter_context(lm.under(law, **where))
        lm.generate(begun, max_new_tokens=1, seed=0, temperature=0)
    return got["z"]


# %%
before = last_state()
touched = {
    "text": last_state(late[seeds[0]].at(T), layer=layer),
    "code": last_state(fitted[seeds[0]].at(T)),
}
touched = {
    n: (z - before).norm(dim=1) > 1e-3 * before.norm(dim=1)
    for n, z in touched.items()
}

# %% tags=["hide-input"]
for name, moved_ in touched.items():
    page.record(f"prompt-token.{name}", float(moved_.float().mean()), digits=1)

# %% [markdown]
# Of {glue:text}`n.tested` prompts the first are begun here: the code's rule moves the last prompt token in a share of {glue:text}`prompt-token.code` of them, the text's in {glue:text}`prompt-token.text`. That token decides the first word of the answer, and no other. To leave it alone changes {glue:text}`word.combined` by {glue:text}`new.change`, which is what that one word is worth here; where a single word is the whole answer, as in a multiple choice, it would be all.
#
# ### Radii (row 12)
#
# The barrier does not see how long a state is, but T is a length: the same T turns a short state further. Norms at the block, at three places, and the angle $T/\lVert z\rVert$, the most that a state can turn by:

# %%
places = {
    "end of the answers, where the fit is": ends[seeds[0]],
    "where answers are decided": here[seeds[0]],
    "last prompt token, steered first": states,
}
radii = {
    n: (s if isinstance(s, torch.Tensor) else torch.cat([s.positive, s.negative])).norm(dim=1).numpy()
    for n, s in places.items()
}  # fmt: skip

# %% tags=["hide-input"]
for key, r in zip(("end", "choice", "prompt"), radii.values(), strict=True):
    page.record(f"radius.{key}", metrics.mean_interval(r))
    page.record(f"angle.{key}", float(np.degrees(T / r).mean()), digits=0, unit="°")  # fmt: skip
table(
    [(n, str(metrics.central_range(r, coverage=0.9)), f"{np.degrees(T / r).mean():.0f}°") for n, r in radii.items()],
    "place", "norm, and the range of most", "T as an angle",
)  # fmt: skip

# %% [markdown]
# T is {glue:text}`angle.end` at the tokens of the fit and {glue:text}`angle.prompt` at the first token that is steered: there the law is another dose of itself. That is one reason why row 4 is worth what it is, and no more.
#
# ## What the rivals got (rows 9 and 10)
#
# RepE from the records of the race in chapter [15](15_horse_race): the form that was compared with, and the paired one, each brought to the same effort by its own search; {glue:text}`word.combined` by prompt and fit.

# %% tags=["hide-input"]
repe = {}
path = race_path("open_loop", profile=profile)


def at_budget():
    """The searches of RepE on this plant: variant, block, seed, strength."""
    for x in read_shipped_race(path).spent:
        law = x.cell.law
        if (x.cell.plant, x.cell.task, law.name) == (lm.name, "truth", "repe"):
            yield law.options["variant"], law.layer, law.fit.seed, x.strength


if path.is_file():
    searched = set(at_budget())
    for r in shipped(shipped_path("open_loop", profile=profile)).records:
        c, law = r.cell, r.cell.law
        if law is None or (c.plant, c.task, c.split, law.name) != (
            lm.name,
            "truth",
            "test",
            "repe",
        ):
            continue
        key = (law.options["variant"], law.layer, law.fit.seed, law.strength)
        if key in searched and (law.fit.labels, law.fit.task) == ("true", None):
            repe.setdefault(key[0], {})[key[2]] = r.scores

# %%
FAIR, AS_COMPARED = "paired", "as-compared"
rival = {}
if repe:
    both_seeds = sorted(set(repe[FAIR]) & set(repe[AS_COMPARED]))
    rival = {
        v: tuple(np.array([repe[v][s][k] for s in both_seeds]) for k in ("wanted", "intact"))
        for v in (FAIR, AS_COMPARED)
    }  # fmt: skip

# %% [markdown]
# MiMiC and Linear-AcT carry states all the way to the other class, whatever T. Here both are fitted at the reference's block, and a multiplier of the way is chosen on validation prompts, as T is for ODESteer.

# %%
carriers = {
    "MiMiC": lambda: MiMiC(),
    "Linear-AcT": lambda: LinearAcT(
        position="last", support="none", matching="truncate"
    ),
}
multipliers = [0.25, 0.5, 0.75, 1.0]
best_way, way = {}, {}
for name, new in carriers.items():
    laws = {s: new().fit(c) for s, c in here.items()}
    found = [tuned(laws[seeds[0]].at(m)) for m in multipliers]
    best_way[name] = multipliers[int(np.argmax(found))]
    full = [scores(law.at(1.0)) for law in laws.values()]
    part = full
    if best_way[name] != 1:
        part = [scores(law.at(best_way[name])) for law in laws.values()]
    way[name] = product_grid_difference(stacked(part), stacked(full))

# %% tags=["hide-input"]
if rival:
    fair = product_grid_difference(rival[FAIR], rival[AS_COMPARED])
    page.record("repe.change", fair)
    said = (
        f"{np.prod([x.mean() for x in rival[AS_COMPARED]]):.2f} as compared, "
        f"{np.prod([x.mean() for x in rival[FAIR]]):.2f} paired ({signed(fair)})"
    )
else:
    said = "not run here, for this plant is not in the race"
    page.cannot_check("odesteer.code.repe-is-not-paired", why=said)
page.text("repe.said", said)
for name, key in (("MiMiC", "mimic"), ("Linear-AcT", "act")):
    page.record(f"{key}.way", best_way[name], digits=2)
    page.record(f"{key}.change", way[name])

# %% [markdown]
# RepE: {glue:text}`repe.said`. MiMiC's best multiplier is {glue:text}`mimic.way`, worth {glue:text}`mimic.change` against the full way; Linear-AcT's is {glue:text}`act.way`, worth {glue:text}`act.change`. The authors' sentence that T is the only thing that is tuned is true of ODESteer, and these two rivals have nothing that was tuned at all.
#
# (odesteer-audit-errors)=
# ## What the printed deviations bear
#
# Behind every printed number stands a deviation over three runs, and no test. What it is a deviation *of* is not said in what we have. The win rates are printed in percent and their deviations as numbers like 0.014. Can these be points?
#
# :::{prf:proposition} The least deviation that three shares can have
# :label: odesteer-least
# Let three shares be multiples of $\frac1{2n}$, not all equal. Their standard deviation with 2 in the denominator is at least $\frac1{2\sqrt3\,n}$, with 3 at least $\frac{1}{3\sqrt2\,n}$, and the first, over $\sqrt3$, the standard error of their mean, at least $\frac1{6n}$.
# :::
#
# :::{prf:proof}
# The sum of squares about the mean is a third of the sum of the three squared differences, of which at least two are not zero. So it is at least $\frac23\left(\frac1{2n}\right)^2$; halve or divide by three, and for the standard error by three once more.
# :::

# %%
PROMPTS, QUESTIONS, RUNS = 500, 817, 3
wins = pd.DataFrame(claims["odesteer.t2.win.deviation-is-a-fraction"].published).T
finest = 100 / (6 * PROMPTS)  # points: a standard error, ties half a win
spread_ = wins.win_pm[wins.win_pm > 0]
possible = float((spread_ + 0.0005 >= finest).mean())  # printed to three digits
binomial = 100 * (0.25 / PROMPTS) ** 0.5
toy = np.array([0, 0, 1]) / (2 * PROMPTS)
assert np.isclose(100 * toy.std(ddof=1) / RUNS**0.5, finest)

# %% tags=["hide-input"]
page.record("win.pm.possible", possible, digits=2)
page.record("win.finest", finest, digits=3)
page.record("win.largest", float(spread_.max()), digits=3)
page.record("win.median", 100 * float(spread_.median()), digits=1)
page.record("win.binomial", binomial, digits=1)
page.record("n.prompts", PROMPTS)
page.record("n.questions", QUESTIONS)

# %% [markdown]
# With {glue:text}`n.prompts` prompts and ties as halves, runs that differ at all have at least {glue:text}`win.finest` points; the largest of the printed deviations is {glue:text}`win.largest`. Of those above zero a share of {glue:text}`win.pm.possible` could be points, rounding allowed for; a column has one unit, so none is. They are fractions, in the median {glue:text}`win.median` points, and a single rate of so many prompts has a standard error of {glue:text}`win.binomial` points.
#
# Now the gaps between ODESteer and the best rival of each column. The test is Welch's, for the means of three runs each. It is done twice, for the deviation may be one of single runs or already the standard error of their mean.


# %%
def welch(gap, one, other, pm="deviation"):
    """Two-sided p, and the half width of a 95 % interval."""
    variances = np.array([one, other]) ** 2 / (RUNS if pm == "deviation" else 1)
    error = variances.sum() ** 0.5
    freedom = (RUNS - 1) * variances.sum() ** 2 / (variances**2).sum()
    p = 2 * student.sf(abs(gap) / error, freedom)
    return float(p), float(error * student.ppf(0.975, freedom))


# %%
toxicity = pd.DataFrame(
    claims["odesteer.t2.toxicity.best-by-its-deviations"].published
).T
COLUMNS = {  # table, name, points a unit, sign, points a unit of the deviation
    "T*I": (printed, "txi", 1, 1, 1),
    "win rate": (wins, "win", 1, 1, 100),
    "toxicity": (toxicity, "tox", 100, -1, 100),
}


def contest(name, m):
    """ODESteer against the best rival: gap in points, and both tests."""
    frame, col, unit, sign, pm = COLUMNS[name]
    rows = frame[frame.index.str.startswith(f"{m}/")]
    ours, rest = rows.loc[f"{m}/odesteer"], rows.drop(f"{m}/odesteer")
    other = rest.loc[(sign * rest[col]).idxmax()]
    gap = sign * unit * float(ours[col] - other[col])
    both = float(ours[f"{col}_pm"]) * pm, float(other[f"{col}_pm"]) * pm
    tests = {w: welch(gap, *both, pm=w) for w in ("deviation", "error")}
    return {"rival": other.name.split("/")[1], "gap": gap, **tests}


# %%
models = list(model.unique())
gaps = {n: {m: contest(n, m) for m in models} for n in COLUMNS}
headline = {
    n: float(np.mean([c["gap"] for c in g.values()])) for n, g in gaps.items()
}
told = claims["odesteer.text.headline-gains"].published["headline"]
STANDINGS = ("carried", "if it is of single runs", "not carried")


def standing(c):
    """What the printed deviations say of a gap."""
    return STANDINGS[int(c["deviation"][0] > 0.05) + int(c["error"][0] > 0.05)]


by_questions = {
    m: Compared(*(round(QUESTIONS * x / 100) for x in (
        printed.loc[f"{m}/odesteer"].txi, printed.loc[f"{m}/{c['rival']}"].txi)), QUESTIONS)
    for m, c in gaps["T*I"].items()
}  # fmt: skip

# %% tags=["hide-input"]
for name, key in (("T*I", "txi"), ("win rate", "win"), ("toxicity", "tox")):
    found = [standing(c) for c in gaps[name].values()]
    page.record(f"survive.{key}", float(np.mean([f == STANDINGS[0] for f in found])), digits=2)  # fmt: skip
    page.record(f"n.{key}", found.count(STANDINGS[0]))
    page.record(f"n.{key}.maybe", found.count(STANDINGS[1]))
    page.record(f"n.{key}.lost", found.count(STANDINGS[2]))
    page.record(f"headline.{key}", headline[name], digits=2)
off = {k: abs(headline[n] - told[k]) for n, k in (("T*I", "txi"), ("win rate", "win"), ("toxicity", "tox"))}  # fmt: skip
page.record("headline.gap", max(off.values()), digits=3)

# %% tags=["hide-input"]
named = {n: float(np.mean([c["gap"] for m, c in g.items() if not m.startswith("qwen")])) for n, g in gaps.items()}  # fmt: skip
page.text("headline.three", ", ".join(f"{x:.1f}" for x in named.values()))
rates = printed.txi / 100
errors_ = 100 * (rates * (1 - rates) / QUESTIONS) ** 0.5
page.record("binomial.least", float(errors_.min()), digits=1)
page.record("binomial.most", float(errors_.max()), digits=1)
page.record("printed.median", float(printed.txi_pm.median()), digits=1)
a, b = (
    printed["info"] * printed.true_pm / 100,
    printed["true"] * printed.info_pm / 100,
)
inside = ((a - b).abs() - 0.01 <= printed.txi_pm) & (
    printed.txi_pm <= a + b + 0.01
)
page.record("errors.consistent", int(inside.sum()))
page.record("n.questions.survive", sum(c.standing() == "survives" for c in by_questions.values()))  # fmt: skip
page.record("n.questions.open", sum(c.standing() == "depends on the pairing" for c in by_questions.values()))  # fmt: skip
SHOWN = {"mimic": "MiMiC", "hpr": "HPR", "truthflow": "TruthFlow", "caa": "CAA",
         "linear-act": "Linear-AcT", "re-control": "RE-Control", "iti": "ITI", "repe": "RepE"}  # fmt: skip
table(
    [(f"{n}, {model_name(m)}", SHOWN.get(c["rival"], c["rival"]), f"{c['gap']:+z.1f}", f"{c['deviation'][0]:.2g}", f"{c['error'][0]:.2g}", standing(c),
      f"{by_questions[m].closest.p:.2g} to {by_questions[m].farthest.p:.2g}" if n == "T*I" else "")
     for n, g in gaps.items() for m, c in g.items()],
    "column and model", "best rival", "points", "p, of single runs", "p, of the mean", "by the printed deviation", "p, by questions",
)  # fmt: skip


# %% tags=["hide-input"]
def reach(c):
    """A gap in points with both intervals."""
    ends_ = [
        (c["gap"] - c[w][1], c["gap"] + c[w][1]) for w in ("deviation", "error")
    ]
    return figures.Reach(c["gap"], *ends_, standing=standing(c))


NAMED = {
    "T*I": "T*I",
    "win rate": "win rate",
    "toxicity": "toxicity (less is better)",
}
every = [standing(c) for g in gaps.values() for c in g.values()]
page.figure(
    "gaps",
    figures.forest(
        {NAMED[n]: {f"{model_name(m)} over {SHOWN.get(c['rival'], c['rival'])}": reach(c) for m, c in g.items()} for n, g in gaps.items()},
        standings=STANDINGS, xlabel="lead over the best rival, points (95 % intervals)",
        bars=("deviation of single runs", "of the mean"),
    ),
    alt=f"Forest plot of ODESteer's lead over the best rival in points on four models, for T*I, win rate and toxicity, with "
    f"95 % intervals if the printed deviation is one of single runs, and if it is one of the mean. Of {len(every)} gaps "
    + ", ".join(f"{every.count(s)} are {'carried ' if s.startswith('if') else ''}{s}" for s in STANDINGS) + ".",
)  # fmt: skip

# %% [markdown]
# T\*I: {glue:text}`n.txi` of {glue:text}`n.models` gaps are carried by the deviations whichever they are, {glue:text}`n.txi.maybe` if they are of single runs, {glue:text}`n.txi.lost` by neither. Toxicity: {glue:text}`n.tox`, {glue:text}`n.tox.maybe` and {glue:text}`n.tox.lost`. Win rate: {glue:text}`n.win`, {glue:text}`n.win.maybe` and {glue:text}`n.win.lost`. Two things pull the other way, and neither is in the p-values: the best of nine rivals is partly the luckiest, which hurts ODESteer; and the same prompts stand behind all three runs, which flatters every gap. (A check of the numbers themselves: to first order the deviation of a product lies between the difference and the sum of its parts'; {glue:text}`errors.consistent` of {glue:text}`n.rows` printed ones do.)
#
# **Other questions.** TruthfulQA has {glue:text}`n.questions` questions, all of them asked. Were others asked, a share of T\*I's size would have a standard error of {glue:text}`binomial.least` to {glue:text}`binomial.most` points, where the printed deviation is {glue:text}`printed.median` in the median: runs differ by sampling and hashes, questions do not change. If T\*I is read as a share of questions, {glue:text}`n.questions.survive` of the leads survive whichever questions were won (chapter [25](25_re_control_audit) has the method), and {glue:text}`n.questions.open` depend on it.
#
# **The headline.** Gains over the best rival, averaged over all four models, are {glue:text}`headline.txi`, {glue:text}`headline.win` and {glue:text}`headline.tox` points; the abstract's three numbers are these, rounded, and points where it says percent. Over the three models that it names they would be {glue:text}`headline.three`.
#
# ## Each difference with its effect
#
# Rows are those of [the list](#odesteer-audit-list). Intervals are over prompts and fits, and none is corrected for the number of rows.


# %% tags=["hide-input"]
def shown(name):
    """A recorded value as printed."""
    return page.record_file.values[name].shown


def said_of(name):
    """The change of a variant, or that it was not run."""
    return f"{C} {signed(change[name])}" if name in change else "not run here"


# %% tags=["hide-input"]
C = labels.combined
EVERY, NONE = "every row", "none that we can see"
effects = [
    ("1", "AND for the product", f"{C} {shown('and.less')}", "no printed number; every rerun"),
    ("2", "class's constants", said_of("class's constants"), "users of the class"),
    ("3", "other hashes", f"{said_of('other hashes')}; push turned by {shown('angle.hashes')}°, by other texts {shown('angle.texts')}°", "what the deviations mean"),
    ("4", "new tokens only", said_of("new tokens only"), EVERY),
    ("5", "guard that stops", f"push {page.record_file.texts['guard.said']} of its length", NONE),
    ("6", "four fifths of the texts", said_of("four fifths of the texts"), "TruthfulQA"),
    ("7", "one block up", said_of("block after"), "readers who take the paper's numbers for indices"),
    ("7", "one block down", said_of("block before"), "the same"),
    ("8", f"ODESteer's own block, {shown('own.block')} for {shown('layer')}", said_of("ODESteer's own block"), EVERY),
    ("9", "RepE paired", page.record_file.texts["repe.said"], "row RepE"),
    ("10", "MiMiC, part of the way", f"{C} {shown('mimic.change')}", "row MiMiC"),
    ("10", "Linear-AcT, part of the way", f"{C} {shown('act.change')}", "row Linear-AcT"),
    ("11", "one more begin token", said_of("one more begin token"), "TruthfulQA, Llama and Mistral"),
    ("12", "fit at the answer's end", said_of("fit at the answer's end"), EVERY),
    ("12", "fit a token after it", said_of("fit a token after it"), "Qwen"),
    ("12", "T as an angle", f"{shown('angle.end')} at the fit, {shown('angle.prompt')} where it steers", "how T is chosen"),
    ("15", "three runs of the same prompts", f"{shown('printed.median')} points, of other questions {shown('binomial.most')}", "all gaps"),
]  # fmt: skip

# %% tags=["hide-input"]
default = ODESteer(gamma=1.0, c0=0.1).fit(here[seeds[0]])
at_one = stacked([scores(default.at(1.0))])
unsteered = stacked([free])
page.record("default.change", product_grid_difference(at_one, unsteered))
page.record("default.lost", product_grid_difference(at_one, tuple(x[:1] for x in ref)))  # fmt: skip
worst = min(change, key=lambda n: change[n].value)
page.text("worst.name", worst)
page.record("worst.change", change[worst])
effects.insert(-1, ("13", "T = 1, class's constants", f"{C} {shown('default.lost')}", "users of the defaults"))  # fmt: skip
table(effects, "row", "difference", "effect here", "bears on")

# %% [markdown]
# ## What follows, and what does not
#
# 1. *That following a learned barrier steers* hangs on none of the rows: the largest loss that one of them brings by itself, the defaults apart, is {glue:text}`worst.change` ({glue:text}`worst.name`), of a gain of {glue:text}`product.gain`.
# 2. *The printed T\*I are products.* A rerun with the released evaluator prints other numbers for the same answers, and these should not be read as a failure to reproduce, nor set beside the printed ones.
# 3. *That ODESteer beats every rival on T\*I* is carried by the printed deviations on {glue:text}`n.txi` of {glue:text}`n.models` models, *on toxicity* on {glue:text}`n.tox`, *on win rate* on {glue:text}`n.win`, if nothing is assumed about what they are deviations of.
# 4. *By how much it beats RepE, MiMiC and Linear-AcT* is open: the first was compared in a form that its authors did not propose, the other two were not tuned. The table above says what that costs them on our plant. CAA, ITI and HPR are not touched by this.
# 5. *That the sketch is what helps* is not asked by text or code; chapter [44](44_odesteer_tables) asks it.
# 6. What would settle the rest costs nothing but disk: verdicts by question and run, for every row.
#
# **In control words.** The plant, the law and the test are one experiment. Here the law is the same in text and code; what differs is where the loop is closed (row 4), how the disturbance is drawn (row 3) and by which functional the outcome is scored (row 1).
#
# ## Break it
#
# *Leave everything to the defaults.* A user of the class who gives no constants, under settings whose T is 1, steers by {glue:text}`default.change` from no control, and loses {glue:text}`default.lost` against the reference: a law that is fitted, attached, and does next to nothing, without a word. It is a failure of units. T is a length, and a state of this plant is {glue:text}`radius.choice` long; a default that were an angle would be the same on every plant.

# %%
angles_of = {
    f"T = {t:g}": {"degrees": float(np.degrees(t / radii["last prompt token, steered first"].mean()))}
    for t in (1, 5, 23)
}  # fmt: skip
pd.DataFrame(angles_of).T.round(2).rename_axis(index="strength, here")

# %% [markdown]
# ## Exercises
#
# Replace the body of the stub, run the stub and the cell of tests below it, then call the test on your function, for example `check_46_1(both_bounds)`. Silence means that it passed. Each exercise stands alone; run its imports first. Solutions are folded; open one by a click.
#
# ### Exercise 46.1: what AND can be
#
# *Easy, 8 minutes.* `k` of `n` answers were judged true and `m` of the same `n` informative. Return the smallest and the largest number of answers that can be both.

# %% tags=["exercise-setup", "ex:46.1", "ex:46.2"]
import numpy as np
from scipy.stats import t as student


# %% tags=["exercise-stub", "ex:46.1"]
def both_bounds(k, m, n):
    """True, informative, answers -> (least, most)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:46.1"]
def check_46_1(both_bounds):
    assert both_bounds(3, 3, 4) == (2, 3)
    assert both_bounds(1, 2, 10) == (0, 1), "they need not meet"
    assert both_bounds(10, 7, 10) == (7, 7) and both_bounds(0, 7, 10) == (0, 0)
    rng = np.random.default_rng(0)
    for n in rng.integers(1, 30, 50):
        a, b = rng.integers(0, 2, (2, n))
        low, high = both_bounds(a.sum(), b.sum(), n)
        assert low <= (a & b).sum() <= high


# %% tags=["exercise-wrong", "ex:46.1", "remove-cell"]
def both_bounds(k, m, n):  # forgets that two large sets must meet
    return 0, min(k, m)


# %% tags=["exercise-solution", "ex:46.1", "hide-cell"]
def both_bounds(k, m, n):
    return max(0, k + m - n), min(k, m)


# %%
check_46_1(both_bounds)

# %% [markdown]
# ### Exercise 46.2: a gap of two means of three runs
#
# *Medium, 12 minutes.* Two methods ran `runs` times each; `one` and `other` are the standard deviations of their **single runs**, `gap` is the difference of their means. Return Welch's two-sided p-value.


# %% tags=["exercise-stub", "ex:46.2"]
def welch_p(gap, one, other, runs):
    """Gap, two standard deviations, runs of each -> p."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:46.2"]
def check_46_2(welch_p):
    from scipy.stats import ttest_ind_from_stats as reference

    for gap, one, other, runs in (
        (1.0, 0.5, 0.5, 3),
        (-2.0, 0.1, 1.4, 3),
        (0.3, 1, 2, 8),
    ):
        want = reference(gap, one, runs, 0.0, other, runs, equal_var=False).pvalue
        assert np.isclose(welch_p(gap, one, other, runs), want)
    assert np.isclose(welch_p(0.0, 1.0, 2.0, 3), 1)


# %% tags=["exercise-wrong", "ex:46.2", "remove-cell"]
def welch_p(
    gap, one, other, runs
):  # takes the deviations for errors of the means
    a, b = one**2, other**2
    freedom = (runs - 1) * (a + b) ** 2 / (a**2 + b**2)
    return 2 * student.sf(abs(gap) / (a + b) ** 0.5, freedom)


# %% tags=["exercise-solution", "ex:46.2", "hide-cell"]
def welch_p(gap, one, other, runs):
    a, b = one**2 / runs, other**2 / runs
    freedom = (runs - 1) * (a + b) ** 2 / (a**2 + b**2)
    return 2 * student.sf(abs(gap) / (a + b) ** 0.5, freedom)


# %%
check_46_2(welch_p)

# %% [markdown]
# ## Claims checked here
#
# Where text and code differ, both are entered. A contradicted statement about printed numbers says that their deviations do not bear it, not that it is false. What is measured on our plant says nothing about large models.

# %% tags=["hide-input"]
checks = page.record_file.checks
table(
    [
        (f"{claims[name].says} {claims[name].derived}".strip(), str(c.verdict))
        for name, c in checks.items()
    ],
    "claim", "verdict",
)  # fmt: skip

# %% [markdown]
# ## What we found

# %% tags=["hide-input"]
points = [
    f"The forty printed T*I are the products of True and Info to {shown('product.gap')} points; the released evaluator averages AND, "
    f"which on our plant parts from the product by {shown('and.free')} unsteered and {shown('and.less')} under ODESteer.",
    f"To leave the last prompt token alone, as the text has it, changes {C} by {shown('new.change')}; the class's constants by "
    f"{shown('swapped.change')}; other hashes by {shown('hashes.change')}.",
    f"Other hashes turn the push by {shown('angle.hashes')} degrees, other texts by {shown('angle.texts')}; T is an angle of "
    f"{shown('angle.end')} where the law is fitted and {shown('angle.prompt')} where it first steers.",
    f"The {C} of RepE is {page.record_file.texts['repe.said']}. MiMiC gains {shown('mimic.change')} by going {shown('mimic.way')} of the way."
    if rival else f"MiMiC gains {shown('mimic.change')} by going {shown('mimic.way')} of the way.",
    f"The printed deviations carry ODESteer's lead, in either reading, on {shown('n.txi')} of {shown('n.models')} models in T*I, on "
    f"{shown('n.tox')} in toxicity and on {shown('n.win')} in win rate.",
    f"Other questions would move a printed T*I by up to {shown('binomial.most')} points (one standard error), another run by "
    f"{shown('printed.median')}.",
]  # fmt: skip
page.findings(points)

# %% [markdown]
# What this does not show: what the authors ran, and what any difference is worth on a model whose answers are not decided by one word. A plant that declines rarely has AND near the product.
#
# ## Further reading
#
# - {cite:t}`zhao2026odesteer`: the method; read its appendix for the sketch, and its tables with the deviations covered, then uncovered.
# - {cite:t}`mcnemar1947note`: the test for two answers to one question.

# %% tags=["hide-input"]
page.footer()
