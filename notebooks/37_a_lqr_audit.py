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
# (ch-lqr-audit)=
# # 37 Audit: A-LQR's text and its released code
#
# **The text of A-LQR and the code that was released with it do not linearise, calibrate, decode and select in the same way. Each difference is listed, those that can be run are run on a small plant beside a control, and the printed rates are asked what their counts can bear.**
#
# :::{admonition} Cost
# :class: cost-card note
#
# Time
# : one to one and a half minutes on one processor core, for the `tiny` profile
#
# Memory
# : about 1 GB
#
# Read first
# : [33](33_setpoints_and_a_lqr) for the law, [32](32_riccati_over_depth) for its gains, [25](25_re_control_audit) for what printed rates can prove
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
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from scipy.stats import binomtest
from torch.func import jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from steerlib import figures, metrics, tasks
from steerlib.actuator import Site
from steerlib.control.linearity import leading, overlap
from steerlib.control.riccati import pushes
from steerlib.experiment.calibrate import calibrate
from steerlib.experiment.claims import load_claims
from steerlib.experiment.page import Page
from steerlib.experiment.profile_plants import plant_for
from steerlib.experiment.profile_tables import task_for
from steerlib.experiment.published import Compared
from steerlib.experiment.showing import signed, table
from steerlib.experiment.spelling import listed, model_name
from steerlib.jacobians import block_jacobians
from steerlib.laws.base import Contrast
from steerlib.laws.lqr import ALQR
from steerlib.metrics import Estimate
from steerlib.plant import Tokens
from steerlib.recorder import record
from steerlib.tasks.base import Scores, spread

pd.set_option("display.max_colwidth", None)
page = Page("37_a_lqr_audit", profile=profile, plant=plant, seeds=seeds)
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
# ## All differences
#
# What the code does is known from a reading of its commit c2e0c84 (July 2026) and of the commits before it, what the text says from notes, the authors' poster and their project page {cite:p}`skifstad2026alqr`; the body of the paper was not at hand. No commit is tied to a table. So the list says what the code does, not what the authors ran, and a row whose text column says *not seen* may be answered in the paper. Every row was read by one reader, and the code was not at hand when this page was written; nothing of it is copied here.
#
# | # | Text | Released code | Where in the code |
# |---|---|---|---|
# | 1 | Jacobian at the mean state of the positive class | mean of the Jacobians at single prompts | collection of Jacobians |
# | 2 | one Jacobian for each block | low-memory path: the tangent is set at *all* tokens, each prompt overwrites the one before, the last is divided by the number of prompts | `collect_jacobians_vram`, which the manual recommends |
# | 3 | *not seen* | every text is cut to its first 24 tokens | `max_ctx` |
# | 4 | *not seen* | TruthfulQA: fitted on the 817 questions that are scored; at that commit on 12 + 12 texts and one Jacobian | data script for TruthfulQA |
# | 5 | *not seen* | until February 2026 steered without, later with a key-value cache; unsteered always without | history of the generating scripts |
# | 6 | setpoint $\lambda\mu_k$ | the same: not counted from the negative class | law |
# | 7 | $\alpha_k K_kv_k$ | the matrix $K_k$ times the error vector, for every token | law |
# | 8 | *not seen* | jailbreak: unsteered with a repetition penalty of 1.2, steered greedily without | jailbreak script |
# | 9 | all tokens steered | and the padding in front of short prompts | all-token mode |
# | 10 | *not seen* | best of a sweep, on the same 104 prompts that are reported | reading of jailbreak sweeps |
# | 11 | 30 to 50 times less toxic | *no code* | printed table |
#
# Scripts that stop with an error at that commit (the run-time measurement, an example, the tracking bound) change no number and are left out.
#
# ## The law under audit
#
# A-LQR as in chapter [33](33_setpoints_and_a_lqr), once for each seed, which draws the texts: contrasts of both classes, and Jacobians of all blocks at the last token of texts of the positive class. The *reference* is the mean of Jacobians over whole texts. Everything else differs from it in one thing.

# %%
N, WEIGHTS = 12, {"q": 0.1, "r": 1.0, "q_f": 0.1}
sites = [Site(k, "resid_pre") for k in range(lm.depth)]


def measured(seed, split="fit"):
    """Contrasts at all blocks, and texts of the positive class."""
    contrasts = task.contrasts(sites, n=24, seed=seed, split=split)
    return contrasts, task.contrast_texts(n=24, seed=seed, split=split)[0][:N]


# %%
def scores(law=None, split="test", limit=12):
    """Exact scores, unsteered or under a law."""
    with ExitStack() as acting:
        if law is not None:
            acting.enter_context(lm.under(law))
        return task.exact(limit=limit, split=split)


# %%
drawn = {seed: measured(seed) for seed in seeds}
each = {
    seed: block_jacobians(lm, texts, average=False).stack()
    for seed, (_, texts) in drawn.items()
}
free = scores()


def made(seed, jacobians=None, **options):
    """A-LQR of one seed, its Jacobians exchanged."""
    own = each[seed].mean(1) if jacobians is None else jacobians
    law = ALQR(**{"setpoint": chosen, **WEIGHTS, **options})
    return law.fit(drawn[seed][0], jacobians=own)


# %%
tried = [0.5, 1.0, 1.5, 2.0, 3.0]
tuned = {}
for chosen in tried:
    tuned[chosen] = scores(made(seeds[0]), "validation", 10).combined_mean
chosen = max(tuned, key=tuned.get)

# %% tags=["hide-input"]
page.record("chosen", chosen, digits=1)
page.record("n.jacobians", N)
page.record("n.tested", len(free.wanted))
page.record("free.wanted", free.wanted_mean())

# %% [markdown]
# $\lambda =$ {glue:text}`chosen` is the best of five on validation prompts. Scores are exact, on {glue:text}`n.tested` test prompts, {glue:text}`n.jacobians` Jacobians to a mean; unsteered, {glue:text}`word.wanted` is {glue:text}`free.wanted`.
#
# ## Rung 1: two tokens by hand
#
# One number for each token, and a block whose last output is $a\,x_2 + b\,x_1$. The Jacobian at the last token is $a$. Moving *both* tokens by the same amount gives $a + b$. Two prompts with $(a, b) = (1, 3)$ and $(2, 6)$: the mean of Jacobians is $\frac32$. The low-memory path keeps the last prompt only and halves it: $(2 + 6)/2 = 4$. With a hundred prompts like the second it would be $\frac{8}{100}$.

# %%
prompts = [(1.0, 3.0), (2.0, 6.0)]
kept, low_memory = 0.0, 0.0
for a, b in prompts:
    kept += a / len(prompts)
    low_memory = a + b  # overwrites
assert kept == 1.5 and low_memory / len(prompts) == 4.0

# %% [markdown]
# :::{prf:proposition} What dividing once too often does
# :label: audit-shrunk
# Let every $A_k$ be replaced by $A_k/N$ in the recursion of chapter [32](32_riccati_over_depth), with $Q = qI$, $R = rI$. Then for $k < l - 1$, with the blocks bounded, $w_k = \frac1N\,\frac{q}{q + r}\,A_kv_k + O(N^{-3})$, and at the last block exactly $\frac1N\,\frac{q_f}{q_f + r}\,A_kv_k$: the gain looks one block ahead and is smaller by a factor of order $N$.
# :::
#
# :::{prf:proof}
# $S_l = q_fI$ gives the last block. For $k < l$, $S_k = qI + N^{-2}A_k^\top S_{k+1}(I - (S_{k+1} + R)^{-1}S_{k+1})A_k = qI + O(N^{-2})$. So $(S_{k+1} + R)^{-1}S_{k+1} = \frac{q}{q + r}I + O(N^{-2})$ for $k < l - 1$, times $A_kv_k/N$.
# :::
#
# ## Rung 2: the code's Jacobians in plain PyTorch
#
# One pass keeps the input of every block; each block is then called again with a shift added to chosen tokens, and differentiated by that shift. At the last token alone this is $A_k$; at all tokens it is what the low-memory path computes.


# %%
def block_inputs(text, context, head=False):
    """What each block is called with, for one text."""
    ids = lm.encode([text]).input_ids
    ids = ids[:, :context] if head else ids[:, -context:]
    seen, taken = {}, {}
    for k, block in enumerate(lm.blocks):

        def note(_, args, kwargs, k=k):
            seen[k] = (list(args), dict(kwargs))

        taken[k] = block.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        lm.model(input_ids=ids, use_cache=False)
    for handle in taken.values():
        handle.remove()
    return seen


# %%
def by_shift(k, seen, tokens="last", at=None):
    """Derivative of a block's last output by a shift of its input."""
    args, kwargs = list(seen[k][0]), dict(seen[k][1])
    states = args.pop(0) if args else kwargs.pop("hidden_states")
    moved = torch.ones(states.shape[1], 1)
    if tokens == "last":
        moved[:-1] = 0

    def out(shift):
        found = lm.blocks[k](states + moved * shift, *args, **kwargs)
        return (found[0] if isinstance(found, tuple) else found)[0, -1]

    here = torch.zeros(lm.width) if at is None else at - states[0, -1]
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        return jacrev(out)(here)


# %% [markdown]
# ## Rung 3: the library's options
#
# Text and code as two options of {py:func}`~steerlib.jacobians.block_jacobians`, with two texts of 24 tokens at the first and at the last block: `point="mean"` is the text's definition, `point="per-prompt"` the code's.

# %%
two, ends = drawn[seeds[0]][1][:2], [0, lm.depth - 1]
cut = {"context": 24, "keep": "head"}
inputs = [block_inputs(text, 24, head=True) for text in two]
apart = {"text": 0.0, "code": 0.0}
for name, point in (("text", "mean"), ("code", "per-prompt")):
    theirs = block_jacobians(lm, two, point=point, layers=ends, **cut)
    for k in ends:
        at = theirs.state(k) if name == "text" else None
        ours = torch.stack([by_shift(k, seen, at=at) for seen in inputs]).mean(0)
        gap = (ours - theirs.at(k)).norm() / theirs.at(k).norm()
        apart[name] = max(apart[name], float(gap))
assert max(apart.values()) < 1e-3

# %% tags=["hide-input"]
page.record("jacobian.text", apart["text"], digits=7)
page.record("jacobian.code", apart["code"], digits=7)
page.text("jacobian.said", f"{max(apart.values()):.0e}")

# %% [markdown]
# They agree to {glue:text}`jacobian.said`. (At the mean state each prompt keeps its own context; the text does not say, as far as we know, which context the mean state has.)
#
# ## Linear models (rows 1 to 3)
#
# :::{prf:proposition} Mean of Jacobians, Jacobian at the mean
# :label: audit-mean
# Let $\varphi$ have a continuous and bounded third derivative and $z = \bar z + \epsilon\xi$ with $\mathbb E\,\xi = 0$, $\mathbb E\|\xi\|^2 < \infty$ and the context fixed. Then $\mathbb E\,D\varphi(z) - D\varphi(\bar z) = \frac{\epsilon^2}2\,\mathbb E\,D^3\varphi(\bar z)[\xi, \xi] + o(\epsilon^2)$. For a quadratic block the two are the same.
# :::
#
# :::{prf:proof}
# Expand $D\varphi(\bar z + \epsilon\xi)$ to second order; the first-order term $\epsilon D^2\varphi(\bar z)[\xi]$ has mean zero, and the remainder over $\epsilon^2$ goes to zero for each $\xi$ and is at most a multiple of $\|\xi\|^2$, so that its mean goes to zero, too (dominated convergence).
# :::
#
# That the second-order term is small is an assumption, which the first row of the table below puts to the test. For row 3 the texts get a fixed preamble of more than 24 tokens, as a chat template puts one in front of every prompt.

# %%
start, spare = "", task.contrast_texts(n=40, seed=seeds[0] + 77)[0]
while lm.encode([start or " "]).input_ids.shape[1] < 30:
    start += spare.pop() + "\n"


def framed(seed, keep):
    """Jacobians of texts behind the preamble, cut to 24 tokens."""
    texts = [start + text for text in drawn[seed][1]]
    return block_jacobians(
        lm, texts, context=24, keep=keep, average=False
    ).stack()


heads, tails = ({s: framed(s, k) for s in seeds} for k in ("head", "tail"))

# %%
last_prompt, all_tokens = {}, {}
for seed in seeds:
    seen = block_inputs(drawn[seed][1][-1], 24)
    found = [by_shift(k, seen, "all") for k in range(lm.depth)]
    all_tokens[seed] = torch.stack(found)
    last_prompt[seed] = each[seed][:, -1]

# %%
models = {
    "Jacobian at the mean state": {
        s: block_jacobians(lm, drawn[s][1], point="mean").stack() for s in seeds
    },
    "low-memory path": {s: all_tokens[s] / N for s in seeds},
    "last prompt only": last_prompt,
    "last prompt only, all tokens": all_tokens,
    "last prompt only, divided": {s: last_prompt[s] / N for s in seeds},
    "preamble, first 24 tokens": {s: heads[s].mean(1) for s in seeds},
    "preamble, last 24 tokens": {s: tails[s].mean(1) for s in seeds},
    "identity": {s: torch.eye(lm.width).repeat(lm.depth, 1, 1) for s in seeds},
}


# %%
def steering(seed, jacobians):
    """The vectors w of all blocks, each times its mu over the mean mu."""
    means = [[x.double().mean(0) for x in c] for c in drawn[seed][0]]
    gaps = torch.stack([plus - minus for plus, minus in means])
    mu = gaps.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return pushes(jacobians, gaps / mu, **WEIGHTS) * mu / mu.mean()


refs = {s: steering(s, each[s].mean(1)) for s in seeds}
sizes, angles = {}, {}
for name, by_seed in models.items():
    rows = []
    for seed, found in by_seed.items():
        ours, ref = steering(seed, found), refs[seed]
        size = float(ours.norm() / ref.norm())
        rows.append((size, float((ours * ref).sum() / (ref.norm() ** 2 * size))))
    sizes[name], angles[name] = np.array(rows).T

# %%
ref_laws = {seed: made(seed) for seed in seeds}
ran = {"reference": [scores(law) for law in ref_laws.values()]}
for name, by_seed in models.items():
    if name == "last prompt only, divided":
        continue  # its length tells
    ran[name] = [scores(made(s, found)) for s, found in by_seed.items()]
ran["random Jacobians"] = [scores(made(s, model="random")) for s in seeds]
ran["centred setpoint"] = [scores(made(s, reference="centred")) for s in seeds]
pooled = {name: Scores.pooled(rows) for name, rows in ran.items()}
base = pooled["reference"]
change = {n: s.combined_gain(base) for n, s in pooled.items()}

# %% [markdown]
# The table has, for each linear model, how long the vectors $w_k$ are and how they lie to those of the reference (all blocks together, each in units of its own $\mu_k$), and what it does to the answers at the same $\lambda$. *Identity* and *random Jacobians* (singular values kept) know nothing of the plant.


# %% tags=["hide-input"]
def over_seeds(values, digits=2):
    """Mean and range over seeds."""
    low, mid, high = (
        f"{f(values):.{digits}f}" for f in (np.min, np.mean, np.max)
    )
    return f"{mid} ({low} to {high})"


def by_seed(name):
    """Change in the combined score, each seed alone."""
    pairs = zip(ran[name], ran["reference"], strict=True)
    return [s.combined_mean - b.combined_mean for s, b in pairs]


rows = [
    (name, over_seeds(sizes[name], 3) if name in sizes else "", over_seeds(angles[name]) if name in sizes else "",
     str(s.wanted_mean()), str(s.intact_mean()), "" if name == "reference" else signed(change[name]),
     "" if name == "reference" else over_seeds(by_seed(name), 3))
    for name, s in pooled.items()
]  # fmt: skip
short = {
    "Jacobian at the mean state": "mean", "low-memory path": "vram", "last prompt only": "one",
    "last prompt only, all tokens": "tokens", "last prompt only, divided": "divided",
    "preamble, first 24 tokens": "head", "preamble, last 24 tokens": "tail", "identity": "identity",
    "random Jacobians": "random", "centred setpoint": "centred",
}  # fmt: skip
for name, key in short.items():
    if name in change:
        page.record(f"{key}.change", change[name])
        page.record(f"{key}.wanted", pooled[name].wanted_mean())
    if name in sizes:
        page.record(f"{key}.size", float(sizes[name].mean()), digits=3)
        page.record(f"{key}.cosine", float(angles[name].mean()), digits=2)
page.record("reference.wanted", base.wanted_mean())
page.record("reference.intact", base.intact_mean())
page.record(
    "vram.inverse", float((1 / sizes["low-memory path"]).mean()), digits=0
)
page.record("reference.gain", base.combined_gain(free))
page.record("vram.gain", pooled["low-memory path"].combined_gain(free))
page.samples(
    "audit.share",
    {key: np.stack([s.wanted * s.intact for s in ran[name]])
     for name, key in {"reference": "a-lqr", "low-memory path": "low-memory"}.items()},
    note=f"{task.name}, {lm.name}, the same setpoint",
)  # fmt: skip
table(
    rows, "linear model", "length of w, reference 1 (range of seeds)", "cosine", labels.wanted, labels.intact,
    f"change in {labels.combined} from the reference", "by seed",
)  # fmt: skip

# %% tags=["hide-input"]
page.figure(
    "variants",
    figures.intervals(
        {n: e for n, e in change.items() if n != "reference"},
        xlabel=f"{labels.combined} less that of the reference, same λ", zero=0.0,
    ),
    alt=f"{labels.combined} less that of the reference at the same setpoint, with intervals over prompts: "
    + ", ".join(f"{n} {e.value:+z.3f}" for n, e in change.items() if n != "reference") + ".",
)  # fmt: skip

# %% [markdown]
# **The low-memory path.** The reference changes {glue:text}`word.combined` by {glue:text}`reference.gain` from no control, the low-memory path by {glue:text}`vram.gain`. Its vectors are {glue:text}`vram.size` as long: {glue:text}`vram.inverse` times shorter, where one division too many by {glue:text}`n.jacobians` predicts a factor of that order ({prf:ref}`audit-shrunk`; the code has 25 to 50 prompts, and 50 would shorten accordingly). The three faults apart: the last prompt alone has vectors of length {glue:text}`one.size` and cosine {glue:text}`one.cosine`, and changes the answers by {glue:text}`one.change`; with all tokens of it moved, {glue:text}`tokens.size`, {glue:text}`tokens.cosine` and {glue:text}`tokens.change`; divided, but at the last token alone, the vectors are {glue:text}`divided.size` long (cosine {glue:text}`divided.cosine`). Is the loss one of size? At equal effort, the multiplier of the input raised until both cost the same:

# %%
asked = spread(task.prompts("validation"), 6)
_, answers = task.sampled(seed=seeds[0], split="validation", limit=6)


def cost(law):
    """Effort against the multiplier, in nats per token."""
    return lambda strength: (
        metrics.kl_per_token(
            lm, lm.under(law.at(strength), scope="generated"), asked, answers
        ).mean
    )


# %%
budget = cost(ref_laws[seeds[0]])(1.0)
weak = made(seeds[0], models["low-memory path"][seeds[0]])
plain = cost(weak)(1.0)
found = calibrate(
    cost(weak), budget, start=0.5 * N, tolerance=0.07, most=8, power=2.0
)
raised = scores(weak.at(found.strength)).combined_gain(ran["reference"][0])

# %% tags=["hide-input"]
page.record("budget", budget, digits=3)
page.record("vram.effort", plain / budget, digits=3)
page.record("vram.multiplier", found.strength, digits=1)
page.record("vram.raised", raised)
page.text(
    "vram.reached", "" if found.reached else " (the budget was not reached)"
)
alike = {}
middle, rank = lm.depth // 2, max(1, lm.width // 20)
for name, stack in (("head", heads), ("tail", tails), ("whole", each)):
    found_ = stack[seeds[0]]
    mean = found_.mean(1, keepdim=True)
    off = (found_ - mean).flatten(2).norm(dim=2) / mean.flatten(2).norm(dim=2)
    parts = [leading(j, rank) for j in found_[middle, :6]]
    alike[name] = np.mean([overlap(a, b) for a, b in combinations(parts, 2)])
    page.record(f"apart.{name}", float(off.mean()), digits=3)
    page.record(f"alike.{name}", alike[name], digits=3)

# %% [markdown]
# With the multiplier {glue:text}`vram.multiplier` times larger{glue:text}`vram.reached` the effort is the reference's {glue:text}`budget` nats per token (at 1 it was {glue:text}`vram.effort` of it), and {glue:text}`word.combined` differs by {glue:text}`vram.raised` (one seed). So a user of that path gets a controller that hardly acts; one who tunes $\lambda$, $q$ and $r$ on top of it gets a controller whose weights mean something else.
#
# **Twenty-four tokens from the head.** Behind a fixed preamble they are the same tokens for every prompt: the Jacobians lie {glue:text}`apart.head` from their mean (relative Frobenius norm, mean over blocks), against {glue:text}`apart.tail` for the last 24 tokens and {glue:text}`apart.whole` for whole texts without a preamble; their similarity in the paper's measure, at block {glue:text}`middle`, is {glue:text}`alike.head`, {glue:text}`alike.tail` and {glue:text}`alike.whole`. {glue:text}`n.jacobians` prompts are then one, at a token that is not steered. To the vectors it does: cosine {glue:text}`head.cosine` with the reference (tail {glue:text}`tail.cosine`), to the answers {glue:text}`head.change` (tail {glue:text}`tail.change`).
#
# **Mean of Jacobians or Jacobian at the mean.** Cosine {glue:text}`mean.cosine`, length {glue:text}`mean.size`, answers {glue:text}`mean.change`. For scale: the identity, which needs no Jacobian, changes the answers by {glue:text}`identity.change`, and random Jacobians by {glue:text}`random.change`.
#
# **Raw or centred** (row 6, no difference between text and code, but one of meaning): at the same $\lambda$ the centred setpoint changes {glue:text}`word.combined` by {glue:text}`centred.change`.

# %% tags=["hide-input"]
page.record("middle", middle)

# %% [markdown]
# ## Fitted on what is tested (row 4)
#
# The same recipe on texts about test entities. What raises both a score on test prompts and one on prompts that neither fit has seen (validation) is a better fit; what raises the first alone is the overlap. So the effect is a difference of differences.

# %%
leaky = {}
for seed in seeds:
    contrasts, texts = measured(seed, "test")
    law = ALQR(setpoint=chosen, **WEIGHTS)
    leaky[seed] = law.fit(contrasts, jacobians=block_jacobians(lm, texts).stack())
leaked = {
    split: Scores.pooled([scores(law, split) for law in leaky.values()])
    for split in ("test", "validation")
}
unseen = Scores.pooled([scores(law, "validation") for law in ref_laws.values()])

# %% tags=["hide-input"]
on_test = leaked["test"].combined_gain(base)
on_new = leaked["validation"].combined_gain(unseen)
width = [
    np.hypot(a.value - getattr(a, end), b.value - getattr(b, other))
    for end, other, a, b in (
        ("low", "high", on_test, on_new),
        ("high", "low", on_test, on_new),
    )
]
gap = on_test.value - on_new.value
page.record("overlap.test", on_test)
page.record("overlap.new", on_new)
page.record(
    "overlap.gain", Estimate(gap, gap - width[0], gap + width[1], on_test.n)
)

# %% [markdown]
# Fitted on the test entities, {glue:text}`word.combined` on test prompts changes by {glue:text}`overlap.test`; on validation prompts, which neither has seen, by {glue:text}`overlap.new`. The overlap itself is worth {glue:text}`overlap.gain` here (intervals of two independent sets of prompts, added in quadrature; three draws of texts). A law of one direction for each block has little room to remember an answer; the same fault in a method with more parameters could cost more. TruthfulQA also differs in that its answers, and not only its questions, are among the texts.
#
# ## Used where it was not fitted (row 3)
#
# A law is fitted on texts as they stand, or as a script cuts them, and acts behind whatever a template or a conversation has put in front. Here the reference acts behind the preamble from above, whose lines are texts of the wanted class, and behind a longer one of the same kind. Such a preamble is two things: another context than the law was fitted in, and a reason for the plant to do what is wanted before any law does. To tell the two apart, *neutral* preambles of about as many tokens stand beside them, whose texts are of neither class: on the Almanac pages of plain scenery, elsewhere lines of both classes in turn.


# %%
def tokens_in(text):
    """Tokens of what stands in front."""
    return lm.encode([text]).input_ids.shape[1] if text else 0


def neutral(least):
    """A text of neither class, of so many tokens or a few more."""
    if hasattr(task, "world"):
        scenes = task.world.neutral(20, split="fit", seed=seeds[0] + 77)
        parts = [
            f"{s.rstrip('.')}. " for text in scenes for s in text.split(". ")
        ]
    else:
        both = task.contrast_texts(n=40, seed=seeds[0] + 77)
        parts = [line + "\n" for pair in zip(*both, strict=True) for line in pair]
    text = ""
    while tokens_in(text) < least and parts:
        text += parts.pop(0)
    return text.strip() + "\n"


# %%
longer = start
while tokens_in(longer) < 120:
    spare = spare or task.contrast_texts(n=40, seed=seeds[0] + 78)[0]
    longer += spare.pop() + "\n"
fronts = {
    "bare": "",
    "neutral": neutral(tokens_in(start)),
    "short": start,
    "neutral.long": neutral(tokens_in(longer)),
    "long": longer,
}

# %% [markdown]
# Beside the reference stands a law that was fitted where it is used, contrasts and Jacobians, on texts behind the short preamble of the same kind. A preamble steers, too, so each law is compared with the unsteered plant *in the same context*.


# %%
def fitted_behind(seed, front):
    """The law of one seed, all of it measured behind something."""
    groups = task.contrast_texts(n=24, seed=seed, split="fit")
    found = [record(lm, [front + t for t in group], sites=sites) for group in groups]  # fmt: skip
    contrasts = [
        Contrast(found[0].at(site), found[1].at(site), c.header)
        for site, c in zip(sites, drawn[seed][0], strict=True)
    ]
    texts = [front + text for text in groups[0][:N]]
    law = ALQR(setpoint=chosen, **WEIGHTS)
    return law.fit(contrasts, jacobians=block_jacobians(lm, texts).stack())


def behind(front, law=None):
    """Exact scores of prompts behind something, unsteered or under a law."""
    items = [replace(item, text=front + item.text) for item in spread(task.items("test"), 10)]  # fmt: skip
    with ExitStack() as acting:
        if law is not None:
            acting.enter_context(lm.under(law))
        return task.scored(items)


# %%
used = {}
if hasattr(task, "scored"):  # a task whose prompts can be put behind a text
    laws = {kind: [fitted_behind(s, fronts[kind]) for s in seeds[:3]] for kind in ("neutral", "short")}  # fmt: skip
    laws["bare"] = [ref_laws[s] for s in seeds[:3]]
    for key, front in fronts.items():
        home = "neutral" if key.startswith("neutral") else "short"
        used[key] = {"unsteered": behind(front)} | {
            how: Scores.pooled([behind(front, law) for law in laws[kind]])
            for how, kind in (("bare", "bare"), ("behind", home))
        }


# %%
def more_gained(one, other):
    """What the reference gains in one context less what in another."""
    scored = [
        used[key][how] for key in (one, other) for how in ("bare", "unsteered")
    ]

    def gap(*x):
        w, i = [v.mean(-1) for v in x[:4]], [v.mean(-1) for v in x[4:]]
        return w[0] * i[0] - w[1] * i[1] - w[2] * i[2] + w[3] * i[3]

    return metrics.interval_of(
        gap, *(s.wanted for s in scored), *(s.intact for s in scored)
    )


# %% tags=["hide-input"]
FRONTS = {
    "bare": "nothing", "neutral": "neutral text", "short": "text of the wanted class",
    "neutral.long": "longer neutral text", "long": "longer text of the wanted class",
}  # fmt: skip
rows = []
for key, row in used.items():
    gained = {"": row["bare"].combined_gain(row["unsteered"]), ".refit": row["behind"].combined_gain(row["unsteered"]),
              ".worth": row["behind"].combined_gain(row["bare"])}  # fmt: skip
    for part, e in gained.items():
        page.record(f"use.{key}{part}", e)
    ends = (f"{row[how].combined_mean:.2f}" for how in ("unsteered", "bare"))
    rows.append((FRONTS[key], tokens_in(fronts[key]), *ends, *map(signed, gained.values())))  # fmt: skip
parts, sentences = {}, []
for size, calm, wanted in (("short", "neutral", "short"), ("long", "neutral.long", "long")) if used else ():  # fmt: skip
    parts[size] = more_gained(calm, "bare"), more_gained(wanted, calm)
    for part, e in zip(("context", "class"), parts[size], strict=True):
        page.record(f"use.{part}.{size}", e)
    sentences.append(
        f"With {tokens_in(fronts[calm])} tokens of neutral text in the place of nothing, the law's gain in {labels.combined} changes by "
        f"{signed(parts[size][0])}; with {tokens_in(fronts[wanted])} tokens of the wanted class in the place of these, by {signed(parts[size][1])}."
    )
page.text(
    "use.said",
    " ".join(sentences)
    if used else f"Prompts of {task.name} cannot be put behind a text here: not measured.",
)  # fmt: skip
table(
    rows, "in front of the prompts", "tokens", f"{labels.combined}, unsteered", "fitted bare", "change, fitted bare",
    "change, fitted behind such a text", "the second less the first",
) if rows else Markdown("*Not measured.*")  # fmt: skip

# %% [markdown]
# {glue:text}`use.said` (The setpoint is the one chosen for bare prompts; three draws of texts, intervals over prompts.) The first number of each pair is what another context does, the second what it does that the texts in front are of the wanted class. Where the second is the larger loss, most of what the law seems to lose behind such a preamble is *saturation*: the unsteered plant already does what is wanted, and little is left to gain. The last column of the table says what a fit in the place of use is worth; where it is small beside both, the loss is not one of a law grown stale. And where the change under a law is negative, the setpoint has gone on pulling beyond what was wanted: what it holds is a reading and not an answer. (One preamble of each kind and length. Pages of scenery also ask no questions, so that what is told apart is texts that show the behaviour from texts that do not.)
#
# ## With and without a cache (row 5)
#
# Without a cache, every token is written by a pass over the whole text in which only the current last position is steered: what was steered before is computed anew, unsteered. With a cache, keys and values of all steered tokens stay. The same law, the same texts (the unsteered plant's own answers), both ways; the first token of an answer must not differ, since nothing was steered before it.


# %%
def padded(rows):
    """Token lists as a batch, padded on the left."""
    long = max(map(len, rows))
    ids = [[0] * (long - len(r)) + list(r) for r in rows]
    mask = [[0] * (long - len(r)) + [1] * len(r) for r in rows]
    return Tokens(torch.tensor(ids), torch.tensor(mask))


law = ref_laws[seeds[0]].at(1.0)
asked = spread(task.prompts("test"), 12)
written = lm.generate(asked, max_new_tokens=8, seed=0, temperature=0).tokens
begun = [lm.encode([p]).input_ids[0].tolist() for p in asked]
places = [(i, t) for i, a in enumerate(written) for t in range(len(a))]
texts = padded([begun[i] + list(written[i][:t]) for i, t in places])
lengths = torch.tensor([len(begun[i]) for i, _ in places])


# %%
def next_logs(scope=None):
    """Log probabilities of every next token, one prefix a row."""
    with ExitStack() as acting:
        if scope is not None:
            acting.enter_context(lm.under(law, scope=scope))
        logits = lm.forward(texts, prompt_lengths=lengths)[:, -1]
    return logits.double().log_softmax(-1)


# %%
def nats(p, q):
    """Divergence of q from p, prefix by prefix."""
    return (p.exp() * (p - q)).sum(-1).numpy()


still, kept, anew = next_logs(), next_logs("generated"), next_logs("last")
spent = {"cache": nats(kept, still), "no cache": nats(anew, still)}
between = nats(kept, anew)

# %%
prompts = spread(task.prompts("test"), 20)
ways = {"cache": ("dynamic", "generated"), "no cache": ("none", "last"),
        "control": ("none", "generated")}  # fmt: skip
replies = {}
for name, (cache, scope) in ways.items():
    with lm.under(law, scope=scope):
        replies[name] = lm.generate(
            prompts, max_new_tokens=12, seed=seeds[0], cache=cache
        )
differ = {
    n: np.mean([a != b for a, b in zip(r.tokens, replies["cache"].tokens, strict=True)])
    for n, r in replies.items()
}  # fmt: skip


# %% tags=["hide-input"]
def worth(of, items, texts):
    """How far each text shows the behaviour, and is a good answer."""
    if hasattr(of, "verdicts"):
        found = of.verdicts(items, [t.partition("\n")[0] for t in texts])
        return found.wanted, found.intact
    happy = np.array([of.happiness(t) for t in texts], dtype=float)
    return happy, np.array([len(set(t.split())) / max(1, len(t.split())) for t in texts])  # fmt: skip


items = spread(task.items("test"), 20) if hasattr(task, "items") else prompts
judged = {n: worth(task, items, r.texts)[0] for n, r in replies.items()}
step = np.array([t for _, t in places])
by_step = {
    name: [
        metrics.mean_interval(v[step == t]) for t in range(int(step.max()) + 1)
    ]
    for name, v in (spent | {"between the two": between}).items()
}
owner = np.array([i for i, _ in places])
later = [
    float(
        np.mean((spent["cache"] - spent["no cache"])[(owner == i) & (step > 0)])
    )
    for i in range(len(asked))
    if ((owner == i) & (step > 0)).any()
]
page.record("cache.first", float(np.abs(between[step == 0]).max()), digits=7)
first_gap = float(np.abs(between[step == 0]).max())
page.text("cache.first.said", f"{first_gap:.0e}" if first_gap else "0")
page.record("cache.effort", metrics.mean_interval(later))
page.record("cache.kept", metrics.mean_interval(spent["cache"][step > 0]))
page.record("cache.anew", metrics.mean_interval(spent["no cache"][step > 0]))
page.record("cache.between", metrics.mean_interval(between[step > 0]))
page.record("cache.differ", 100 * differ["no cache"], digits=0, unit="%")
page.record("cache.control", 100 * differ["control"], digits=0, unit="%")
changed = int((judged["cache"] != judged["no cache"]).sum())
page.record("cache.verdicts", changed)
page.record("n.replies", len(prompts))
page.record(
    "cache.most",
    100 * binomtest(changed, len(prompts)).proportion_ci().high,
    digits=0,
    unit="%",
)
page.figure(
    "cache",
    figures.over(
        range(1, int(step.max()) + 2),
        {"": figures.Panel(by_step, "divergence, nats")}, xlabel="token of the answer",
    ),
    alt="Divergence of the next token from the unsteered plant, with and without a cache, and between the two, against "
    f"the place in the answer. Between the two it is zero at the first token and {np.mean(between[step > 0]):.3f} nats "
    f"on average after it; from the unsteered plant {np.mean(spent['cache'][step > 0]):.3f} with and "
    f"{np.mean(spent['no cache'][step > 0]):.3f} without a cache.",
)  # fmt: skip

# %% [markdown]
# At the first token the two differ by {glue:text}`cache.first.said` nats. After it, the law spends {glue:text}`cache.kept` nats per token with a cache and {glue:text}`cache.anew` without (difference, by prompt: {glue:text}`cache.effort`), and the two lie {glue:text}`cache.between` nats apart. Of {glue:text}`n.replies` sampled answers {glue:text}`cache.differ` differ in some token, and the oracle's verdict on {glue:text}`cache.verdicts` (so on up to {glue:text}`cache.most` of all, by the exact interval): a difference in effort that one answer in many shows. The control, no cache but earlier tokens steered anew in each pass, differs from the cache in {glue:text}`cache.control` of the answers: it is what is steered that counts, not the cache. Numbers made before and after the switch belong to two laws under one name, and each has its own best $\lambda$.
#
# ## Decoding and padding (rows 7 to 9)
#
# A repetition penalty of 1.2 for one side only changes what the two sides are compared by. Nothing is steered here: the plant alone, greedy, with the penalty and without, on this page's task and on the one that is nearest to the paper's jailbreak.


# %%
def greedy(prompts, penalty):
    """Answers of the plant alone."""
    batch = lm.encode(prompts)
    out = lm.model.generate(
        **vars(batch), max_new_tokens=16, do_sample=False,
        repetition_penalty=penalty, pad_token_id=0,
    )  # fmt: skip
    begun, whole = (
        lm.tokenizer.batch_decode(ids, skip_special_tokens=True)
        for ids in (batch.input_ids, out)
    )  # an answer decoded alone would lose its first space
    return [w[len(b) :].partition("\n")[0] for b, w in zip(begun, whole, strict=True)]  # fmt: skip


# %%
almanac = lm.name.startswith("almanac")
asking = {"own": task} | ({"refusal": tasks.Refusal(lm)} if almanac else {})
alone = {}
for key, of in asking.items():
    prompts = spread(of.prompts("test"), 24)
    alone[key] = {p: greedy(prompts, p) for p in (1.0, 1.2)}

# %%
full = ALQR(form="full", setpoint=chosen, **WEIGHTS)
full.fit(drawn[seeds[0]][0], jacobians=each[seeds[0]].mean(1))
some = lm.encode(
    spread(task.prompts("test"), 6) + [start + task.prompts("test")[0]]
)
logits = {}
for name, one in (("two vectors", law), ("matrix", full)):
    with lm.under(one, scope="all"):
        logits[name] = lm.forward(some)[:, -1]
real = some.attention_mask.bool()


# %%
def everywhere(pads):
    """A push on all tokens, or on all but the padding."""

    def push(k):
        def hook(module, args, output):
            state = output[0] if isinstance(output, tuple) else output
            state += (real | pads)[..., None] * vectors[k]

        return hook  # fmt: skip

    with ExitStack() as hooks, torch.no_grad():
        for k, block in enumerate(lm.blocks):
            hooks.callback(block.register_forward_hook(push(k)).remove)
        return lm.model(**vars(some), use_cache=False).logits[:, -1]


vectors = refs[seeds[0]].float() * chosen * law.lengths.mean().float()
# %%
with_pads, without = everywhere(True), everywhere(False)

# %% tags=["hide-input"]
penalised = []
for key, of in asking.items():
    items = spread(
        of.items("test") if hasattr(of, "items") else of.prompts("test"), 24
    )
    before, after = (worth(of, items, alone[key][p]) for p in (1.0, 1.2))
    moved_ = np.mean([a != b for a, b in zip(*alone[key].values(), strict=True)])
    page.record(f"penalty.{key}.changed", 100 * float(moved_), digits=0, unit="%")
    for name, b, a in zip(("wanted", "intact"), before, after, strict=True):
        page.record(f"penalty.{key}.{name}", metrics.mean_interval(a - b))
        word = getattr(of.labels, name)
        penalised.append((word, f"{b.mean():.2f}", f"{a.mean():.2f}", signed(metrics.mean_interval(a - b))))  # fmt: skip
page.record("penalty.most", 100 * binomtest(0, 24).proportion_ci().high, digits=0, unit="%")  # fmt: skip
table(penalised, "unsteered, greedy", "no penalty", "penalty 1.2", "change")

# %% tags=["hide-input"]
matrix_gap = float(
    (logits["matrix"] - logits["two vectors"]).abs().max()
    / logits["matrix"].abs().max()
)
pad_gap = float((with_pads - without).abs().max() / without.abs().max())
page.record("matrix.gap", matrix_gap, digits=7)
page.record("pads.gap", pad_gap, digits=7)
page.text("matrix.said", f"{matrix_gap:.0e}")
page.text("pads.said", f"{pad_gap:.0e}" if pad_gap else "0")
page.record("pads.share", 100 * float((~real).float().mean()), digits=0, unit="%")
page.record("pads.active", float((without - lm.forward(some)[:, -1]).abs().max() / without.abs().max()), digits=2)  # fmt: skip

# %% [markdown]
# With the penalty {glue:text}`penalty.own.changed` of the *unsteered* answers change, {glue:text}`word.wanted` by {glue:text}`penalty.own.wanted` and {glue:text}`word.intact` by {glue:text}`penalty.own.intact`; the table has the rest. (Where an interval has no width, no verdict changed: the greedy plant decides within its first words, before a penalty has much to act on. By the exact interval, {glue:text}`penalty.most` of verdicts could still change where 24 did not.) Whatever that is on a large model, it sits in the comparison of a steered run without and an unsteered run with the penalty.
#
# The matrix $K_k$ and two vectors give the same logits to {glue:text}`matrix.said`. And padding, {glue:text}`pads.share` of the positions of this batch, may be pushed or not: the logits at the last token differ by {glue:text}`pads.said` (the push itself changes them by {glue:text}`pads.active` of the largest). No attention reads it. What it does reach is a statistic: the code averages readings over positions, padding included.
#
# ## Chosen on the test prompts (row 10)
#
# Three settings of the weights times three setpoints, each scored on the same prompts. Whoever reports the best of them on these prompts reports the luck of the draw as well. We draw 104 prompts, as many as were used, with an answer to each that is wanted and intact or is not, by the plant's exact probabilities; the optimism is the best setting's share on the drawn answers less its true one. Beside it: a rule that chooses on one half and reports on the other, and as many settings that do not differ at all.

# %%
grid = [(w, lam) for w in ((0.1, 1, 0.1), (1, 1, 1), (0.1, 10, 1))
        for lam in (1.0, 2.0, 3.0)]  # fmt: skip
chance = []
for (q, r, q_f), lam in grid:
    law = made(seeds[0], q=q, r=r, q_f=q_f, setpoint=lam)
    runs = [scores(law, split, 12) for split in ("validation", "test")]
    chance.append([s.wanted * s.intact for s in runs])
chance = np.array(chance)  # settings, splits, prompts
pool = chance.reshape(len(grid), -1)

# %%
rng = np.random.default_rng(seeds[0])


def optimism(p, n=104, draws=2000):
    """Shares reported less true ones: chosen on the same, on others."""
    same, other = np.empty(draws), np.empty(draws)
    for i in range(draws):
        which = rng.integers(p.shape[1], size=(2, n))
        seen = rng.random((2, len(p), n)) < p[:, which].transpose(1, 0, 2)
        shares, best = seen.mean(2), seen[0].mean(1).argmax()
        true = p[best].mean()
        same[i], other[i] = shares[0, best] - true, shares[1, best] - true
    return same, other


# %%
on_same, on_other = optimism(pool)
noise, _ = optimism(np.repeat(pool.mean(0, keepdims=True), len(grid), 0))
by_test, by_validation = (chance[:, i].mean(1).argmax() for i in (1, 0))

# %% tags=["hide-input"]
for name, values in (("same", on_same), ("other", on_other), ("noise", noise)):
    page.record(
        f"optimism.{name}", metrics.mean_interval(100 * values), unit="points"
    )
page.record(
    "optimism.high", 100 * np.quantile(on_same, 0.975), digits=1, unit="points"
)
page.record("n.grid", len(grid))
picked = metrics.mean_interval(chance[by_test, 1] - chance[by_validation, 1])
page.record("picked", picked)
page.text(
    "picked.same",
    "the same setting" if by_test == by_validation else "another setting",
)

# %% [markdown]
# The best of {glue:text}`n.grid` on its own 104 prompts is reported {glue:text}`optimism.same` too high on average over draws, and up to {glue:text}`optimism.high` in one draw of forty; reported on other prompts, {glue:text}`optimism.other`. Settings that are all alike still give {glue:text}`optimism.noise`: the more alike settings are, the more of the best one is luck. (Answers of different settings are drawn independently here; where a prompt is hard for all of them alike, there is less to choose among.) Exact scores leave less room for luck: on our test prompts validation chooses {glue:text}`picked.same` as test does, and the test's own choice scores {glue:text}`picked` more.
#
# ## What the printed rates bear (row 11)
#
# Toxic completions of five times 1000, in percent. All printed rates are whole counts of 5000. Factors with exact intervals (given the sum of two counts, one of them is binomial):

# %%
claims = load_claims()
toxic = claims["alqr.text.thirty-to-fifty-times-less-toxic"].published
jail = claims["alqr.t.jailbreak.all-tokens-beat-aas-in-any-pairing"].published


def factor(one, other, n=5000):
    """Ratio of two rates in percent, with its exact 95 % interval."""
    a, b = round(one * n / 100), round(other * n / 100)
    share = binomtest(a, a + b).proportion_ci()
    return Estimate(a / b, *(s / (1 - s) for s in share), n)


assert all(
    np.isclose(50 * x, round(50 * x)) for r in toxic.values() for x in r.values()
)
# %%
cuts = {m: factor(r["original"], r["a_lqr"]) for m, r in toxic.items()}
rivals = {m: factor(r["original"], r["best_baseline"]) for m, r in toxic.items()}  # fmt: skip
level = {
    m: binomtest(
        round(50 * r["a_lqr"]), round(50 * (r["a_lqr"] + r["best_baseline"]))
    ).pvalue
    for m, r in toxic.items()
}


# %% tags=["hide-input"]
def reach(e):
    """A factor with its interval."""
    return f"{e.value:.1f} [{e.low:.0f}, {e.high:.0f}]"


inside = [30 <= e.value <= 50 for e in cuts.values()]
could = [e.low <= 50 and e.high >= 30 for e in cuts.values()]
page.record("factor.least", min(e.value for e in cuts.values()), digits=0)
page.record("factor.most", max(e.value for e in cuts.values()), digits=0)
page.record("factor.inside", float(np.mean(inside)), digits=2)
page.record("factor.could", float(np.mean(could)), digits=2)
page.record("n.inside", sum(inside))
page.record("n.could", sum(could))
page.record("n.models", len(cuts))
page.record(
    "rival.inside",
    float(np.mean([8 <= round(e.value) <= 10 for e in rivals.values()])),
    digits=2,
)
page.record("rival.least", min(e.value for e in rivals.values()), digits=1)
page.record("rival.most", max(e.value for e in rivals.values()), digits=1)
page.record("beats.rival", max(level.values()), digits=2)
page.text("unproved", listed(model_name(m) for m, p in level.items() if p > 0.05))
table(
    [(model_name(m), f"{r['original']:g}", f"{r['best_baseline']:g}", f"{r['a_lqr']:g}", reach(rivals[m]), reach(cuts[m]), f"{level[m]:.2g}")
     for m, r in toxic.items()],
    "model", "unsteered, %", "best baseline, %", "A-LQR, %", "factor, best baseline", "factor, A-LQR", "p, A-LQR against it",
)  # fmt: skip

# %% [markdown]
# The text has A-LQR reduce toxicity 30 to 50 times and baselines 8 to 10 times. Of the {glue:text}`n.models` models whose rates we know, the factor lies in that range for {glue:text}`n.inside`; the smallest is {glue:text}`factor.least`, the largest {glue:text}`factor.most`. Behind them are six to eleven toxic completions, so the intervals are wide: they reach into 30 to 50 for {glue:text}`n.could`. The best baselines reduce {glue:text}`rival.least` to {glue:text}`rival.most` times. That A-LQR beats the best baseline cannot be told by counts for: {glue:text}`unproved` (the test takes all completions as independent, which flatters both). These are the rows that were at hand; four more models were not.

# %%
contests = {
    (m, a, b): Compared(round(1.04 * r[a]), round(1.04 * r[b]), 104)
    for m, r in jail.items()
    for a, b in (("a_lqr_plus", "aas"), ("a_lqr_plus", "a_lqr"),
                 ("a_lqr", "s_pid"), ("a_lqr", "aas"))
    if a in r and b in r
}  # fmt: skip

# %% tags=["hide-input"]
NAMES = {"a_lqr": "A-LQR", "a_lqr_plus": "A-LQR+", "aas": "AAS", "s_pid": "S-PID"}
page.record(
    "survive.plus",
    float(np.mean([c.standing() == "survives" for (_, a, b), c in contests.items() if (a, b) == ("a_lqr_plus", "aas")])),
    digits=2,
)  # fmt: skip
small = [c for (_, a, b), c in contests.items() if (a, b) == ("a_lqr", "s_pid")]
page.record("gap.pid", 100 * small[0].gap, digits=1)
page.record("smallest-p.pid", small[0].closest.p, digits=2)
page.record("largest-p.pid", small[0].farthest.p, digits=2)
table(
    [(f"{model_name(m)}: {NAMES[a]} over {NAMES[b]}", f"{100 * c.gap:+z.1f}", f"{c.closest.p:.2g}", f"{c.farthest.p:.2g}", c.standing())
     for (m, a, b), c in contests.items()],
    "jailbreak, 104 prompts", "points", "smallest p", "largest p", "standing",
)  # fmt: skip

# %% [markdown]
# Steering all tokens against AAS: the share of such comparisons that survive whichever of 104 prompts were won is {glue:text}`survive.plus` ([25](25_re_control_audit) has the method). A-LQR over S-PID, {glue:text}`gap.pid` points, has p from {glue:text}`smallest-p.pid` to {glue:text}`largest-p.pid`, depending on the pairing. Beside such a gap stands what the best of a sweep owes to luck: {glue:text}`optimism.same` on our plant, {glue:text}`optimism.noise` where settings are alike. If both sides were swept alike, both owe it.
#
# ## Each difference with its effect

# %% tags=["hide-input"]
v = page.record_file.values


def shown(name):
    """A recorded value as printed."""
    return v[name].shown


C = labels.combined
table(
    [
        ("1", "Jacobian at the mean for mean of Jacobians", f"{C} {signed(change['Jacobian at the mean state'])}; cosine of w {shown('mean.cosine')}"),
        ("2", "low-memory path", f"{C} {signed(change['low-memory path'])}; length of w {shown('vram.size')}; at equal effort {C} {signed(raised)}"),
        ("3", "first 24 tokens behind a preamble", f"{C} {signed(change['preamble, first 24 tokens'])}; spread of Jacobians {shown('apart.head')} (last 24: {shown('apart.tail')})"),
        ("3", "used behind a preamble, fitted without", f"{C} {shown('use.short')}, behind a neutral one {shown('use.neutral')}, behind nothing {shown('use.bare')}" if used else "not measured"),
        ("4", "fitted on what is tested", f"{C} {shown('overlap.gain')}, beyond what it gains elsewhere"),
        ("4", "one Jacobian for a mean", f"{C} {signed(change['last prompt only'])}"),
        ("5", "cache for no cache", f"effort {shown('cache.effort')} nats per token; {shown('cache.differ')} of answers differ"),
        ("6", "centred for raw, same λ", f"{C} {signed(change['centred setpoint'])}"),
        ("7", "matrix for two vectors", f"logits {page.record_file.texts['matrix.said']}"),
        ("8", "penalty on the unsteered side", f"{labels.wanted} {shown('penalty.own.wanted')}, {labels.intact} {shown('penalty.own.intact')}, unsteered"),
        ("9", "padding steered", f"logits {page.record_file.texts['pads.said']}"),
        ("10", "best of a sweep on the test prompts", shown("optimism.same")),
        ("11", "30 to 50 times", f"{shown('factor.least')} to {shown('factor.most')} times by the printed rates"),
        ("", "control: random Jacobians", f"{C} {signed(change['random Jacobians'])}"),
        ("", "control: identity", f"{C} {signed(change['identity'])}"),
    ],
    "row", "difference", "effect here",
)  # fmt: skip

# %% [markdown]
# Intervals are over prompts, scores of all seeds pooled by prompt; none is corrected for the number of rows.
#
# ## What follows, and what does not
#
# 1. *That feedback to a setpoint steers* does not hang on the rows that were run, but for one: with the low-memory path taken as it is the law hardly acts.
# 2. *That published gains were made with the low-memory path* does not follow. It is in the code and recommended for small machines; gains that are so small would hardly have given the printed effects at the printed $\lambda$, which speaks against it. Whoever follows the manual on a small machine, however, does not run the published method.
# 3. *That the Jacobians matter* is not shown by a fit at the first 24 tokens of a template, nor refuted: the controls of our table say how much there is to lose here: random Jacobians cost {glue:text}`random.change`, and the identity, which asks for no Jacobian, {glue:text}`identity.change`.
# 4. *Rates from before and after the cache switch* should not stand in one table without saying so. We cannot see whether they do.
# 5. *The order of methods on TruthfulQA* is not settled by our small overlap: baselines that were fitted on the same questions have it as well.
# 6. Printed factors are of small counts. Counts and sets of prompts, printed beside them, would cost nothing.
#
# **In control words.** A controller is a plant model, a gain, a sampling rule for the loop and a test. All four are named once in the text and chosen more than once in the code; an identification of the closed loop has to say which.
#
# ## Break it
#
# *Many prompts make it worse.* The low-memory path divides by the number of prompts: who collects more, to be careful, gets less. Length of $w$ against $N$, by the recursion alone:

# %%
counts = [1, 4, 16, 64, 256]
ref = refs[seeds[0]].norm()
lengths = {
    n: float(steering(seeds[0], all_tokens[seeds[0]] / n).norm() / ref)
    for n in counts
}
pd.DataFrame([lengths], index=["length of w"]).round(4).rename_axis(columns="N")

# %% [markdown]
# ## Exercises
#
# Replace the body of the stub, run the stub and the cell of tests below it, then call the test on your function, for example `check_37_1(mean_jacobian)`. Silence means that it passed. Each exercise stands alone; run its imports first. Solutions are folded; open one by a click.
#
# ### Exercise 37.1: the mean of Jacobians
#
# *Easy, 5 minutes.* Each prompt comes with the derivative of a block's last output by its input at every token. Return the mean over prompts of the Jacobian at the last token.

# %% tags=["exercise-setup", "ex:37.1", "ex:37.2", "ex:37.3"]
import numpy as np
from scipy.stats import binomtest


# %% tags=["exercise-stub", "ex:37.1"]
def mean_jacobian(found):
    """List of (width, tokens, width), tokens differ -> (width, width)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:37.1"]
def check_37_1(mean_jacobian):
    rng = np.random.default_rng(0)
    found = [rng.normal(size=(3, t, 3)) for t in (2, 5, 4)]
    want = (found[0][:, 1] + found[1][:, 4] + found[2][:, 3]) / 3
    assert np.allclose(mean_jacobian(found), want)
    assert np.allclose(mean_jacobian(found[:1]), found[0][:, 1])


# %% tags=["exercise-wrong", "ex:37.1", "remove-cell"]
def mean_jacobian(found):  # all tokens, the last prompt, divided
    for one in found:
        total = one.sum(1)
    return total / len(found)


# %% tags=["exercise-solution", "ex:37.1", "hide-cell"]
def mean_jacobian(found):
    return sum(one[:, -1] for one in found) / len(found)


# %%
check_37_1(mean_jacobian)

# %% [markdown]
# ### Exercise 37.2: the interval of a factor
#
# *Medium, 10 minutes.* `a` toxic completions unsteered and `b` steered, of equally many. Given $a + b$, how many are unsteered is binomial. Return the exact 95 % interval of the factor (use `binomtest(...).proportion_ci()`).


# %% tags=["exercise-stub", "ex:37.2"]
def factor_interval(a, b):
    """Two counts -> (low, high) of the ratio of rates."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:37.2"]
def check_37_2(factor_interval):
    low, high = factor_interval(20, 20)
    assert low < 1 < high and np.isclose(low * high, 1), "symmetric in the log"
    low, high = factor_interval(200, 10)
    assert 10 < low < 12 and 35 < high < 50
    wide = factor_interval(20, 1)
    assert wide[1] / wide[0] > high / low, "fewer counts, a wider interval"


# %% tags=["exercise-wrong", "ex:37.2", "remove-cell"]
def factor_interval(a, b):  # takes the share for the factor
    share = binomtest(a, a + b).proportion_ci()
    return share.low, share.high


# %% tags=["exercise-solution", "ex:37.2", "hide-cell"]
def factor_interval(a, b):
    share = binomtest(a, a + b).proportion_ci()
    return share.low / (1 - share.low), share.high / (1 - share.high)


# %%
check_37_2(factor_interval)

# %% [markdown]
# ### Exercise 37.3: report what was not chosen on
#
# *Easy, 5 minutes.* Scores of several settings on validation and on test prompts. Return what an honest table prints: the mean test score of the setting that validation chooses.


# %% tags=["exercise-stub", "ex:37.3"]
def honest(validation, test):
    """Two arrays (settings, prompts) -> a number."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:37.3"]
def check_37_3(honest):
    validation = np.array([[0.2, 0.4], [0.9, 0.7], [0.1, 0.9]])
    test = np.array([[1.0, 0.8], [0.3, 0.5], [0.6, 0.6]])
    assert np.isclose(honest(validation, test), 0.4)
    assert np.isclose(honest(test, validation), 0.3)


# %% tags=["exercise-wrong", "ex:37.3", "remove-cell"]
def honest(validation, test):  # the best on test
    return test.mean(1).max()


# %% tags=["exercise-solution", "ex:37.3", "hide-cell"]
def honest(validation, test):
    return test[validation.mean(1).argmax()].mean()


# %%
check_37_3(honest)

# %% [markdown]
# ## Claims checked here
#
# Where text and code differ, both are entered. A contradicted statement of arithmetic says that the rates at hand do not bear the sentence; the missing rows may. What is measured on our plant says nothing about large models.

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
    f"The low-memory path shortens the law's vectors to {shown('vram.size')} of their length; {C} changes by "
    f"{signed(pooled['low-memory path'].combined_gain(free))} from no control, where the reference changes it by "
    f"{signed(base.combined_gain(free))}.",
    f"Behind a fixed preamble the first 24 tokens make all Jacobians one (spread {shown('apart.head')}).",
    f"The Jacobian at the mean state in the place of the mean of Jacobians changes {C} by {signed(change['Jacobian at the mean state'])}, "
    f"a fit on what is tested by {shown('overlap.gain')}. For scale: random Jacobians change it by {signed(change['random Jacobians'])}.",
    f"With nothing in front of a prompt the law changes {C} by {shown('use.bare')}, behind neutral text by {shown('use.neutral')} and behind as "
    f"many tokens of the wanted class by {shown('use.short')}; behind longer ones by {shown('use.neutral.long')} and {shown('use.long')}."
    if used else "Use behind a text that the law was not fitted behind was not measured.",
    f"With a cache the law spends {shown('cache.effort')} nats per token more than without: two laws under one name.",
    f"The best of {len(grid)} settings on its own 104 prompts is {shown('optimism.same')} too high on average.",
    f"Printed rates give reductions of {shown('factor.least')} to {shown('factor.most')} times, where the text says 30 to 50.",
]  # fmt: skip
page.findings(points)

# %% [markdown]
# What this does not show: what the authors ran, nor what any of it is worth at thirty blocks and 4096 dimensions, where Jacobians are sparser in their leading directions and errors have longer to be carried on.
#
# ## Further reading
#
# - {cite:t}`skifstad2026alqr`: the method; the law itself passes the audit.
# - {cite:t}`mcnemar1947note`: the test for two answers to one question.

# %% tags=["hide-input"]
page.footer()
