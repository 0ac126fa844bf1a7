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
# (ch-horse-race)=
# # 15 Horse race at equal effort
#
# **Let every push of this part run against every other, on the same prompts, at the settings of the papers and then at equal effort, beside controls that choose as freely: what changes between the two rounds is how hard each method had been allowed to push. No constant push, first or last, removes a disturbance.**
#
# :::{admonition} Cost
# :class: cost-card note
#
# Time
# : about one minute on one processor core, for the `tiny` profile; the race itself takes hours and is shipped
#
# Memory
# : about 1 GB
#
# Read first
# : [11](11_difference_of_means) for pushes and controls, [04](04_scoring) for effort and intervals; [12](12_probes_and_readings) to [14](14_reflections_and_flows) for the runners
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
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from scipy.stats import kendalltau

from steerlib import Plant, figures, metrics, tasks
from steerlib.experiment import race_tables
from steerlib.experiment.calibrate import calibrate
from steerlib.experiment.claims import load_claims
from steerlib.experiment.page import Page
from steerlib.experiment.profile_plants import plant_for
from steerlib.experiment.race_again import (
    Others,
    perplexity_under,
    scores_elsewhere,
)
from steerlib.experiment.race_plan import read_race
from steerlib.experiment.race_records import shipped_race
from steerlib.experiment.rerun_pages import show_reruns
from steerlib.experiment.running import plant_of
from steerlib.experiment.samples import product_scores
from steerlib.experiment.showing import percent, signed, table
from steerlib.files import data_folder
from steerlib.laws.additive import Additive, DifferenceOfMeans, RandomDirection
from steerlib.laws.mimic import MiMiC
from steerlib.laws.probe import LinearProbe
from steerlib.laws.projection import HalfSpaceProjection
from steerlib.laws.regression import StaticRE
from steerlib.tasks.base import spread
from steerlib.tasks.decisions import Decisions

pd.set_option("display.max_colwidth", None)
page = Page("15_horse_race", profile=profile, plant=plant, seeds=seeds)
lm = page.uses(plant_for(plant, profile=profile, exact=True))
task = tasks.for_plant(lm, data=os.environ.get("STEERLIB_DATA"))
labels = task.labels
plan = read_race(data_folder() / "races" / "open_loop.yml")
budget = plan.budget.amount


page.words(labels)
page.record("budget", budget, digits=2)
lm

# %% [markdown]
# ## Six runners, one prompt
#
# Six laws of the last chapters, fitted on the same 200 texts of each class at one block, two fifths of the way up. What does "strength 1" mean for each? For the difference of means, the distance between two clouds; for a probe, the length of its weights; for a regression, reward for each unit of state. The papers mostly leave the multiplier where it is, or sweep it for their own method only. So we measure what strength 1 *costs*: the mean divergence of the next-token distribution from that of the unsteered plant, in nats per token ({term}`effort`), along answers that the unsteered plant wrote. And then we search, for each law, the multiplier at which it costs {glue:text}`budget` nats.

# %%
layer = round(0.4 * (lm.depth - 1))
contrasts = task.contrasts(range(lm.depth), n=200, seed=seeds[0])
here = contrasts[layer]
runners = {
    "difference of means": DifferenceOfMeans(),
    "linear probe": LinearProbe(),
    "Static RE": StaticRE(rewards="labels"),
    "MiMiC": MiMiC(),
    "half-space projection": HalfSpaceProjection(),
    "random direction": RandomDirection(seed=1000),
}
for law in runners.values():
    law.fit(here)

# %%
few = {"split": "validation", "limit": 12}
asked = spread(task.prompts("validation"), few["limit"])
_, said = task.sampled(seed=seeds[0], **few)


def cost(law, prompts=asked, answers=said):
    """Effort as a function of the multiplier, in nats per token."""

    def at(strength):
        acting = lm.under(law.at(strength))
        return metrics.kl_per_token(lm, acting, prompts, answers).mean

    return at


# %%
norm = float(torch.cat([*here]).norm(dim=1).mean())
alone = {name: cost(law)(1.0) for name, law in runners.items()}
spent = {}
for name, law in runners.items():
    moved = law.at(1.0)(here.negative) - here.negative
    length = float(moved.norm(dim=1).mean())
    spent[name] = calibrate(
        cost(law), budget, start=0.2 * norm / length, tolerance=0.1, most=12,
        power=2.0,
    )  # fmt: skip


# %%
def scores(law=None, strength=None, limit=20):
    """Exact scores on test prompts, unsteered or under a law."""
    if law is None:
        return task.exact(limit=limit)
    with lm.under(law.at(strength)):
        return task.exact(limit=limit)


free = scores()
first = {name: scores(law, 1.0) for name, law in runners.items()}
equal = {name: scores(law, spent[name].strength) for name, law in runners.items()}

# %% tags=["hide-input"]
rows = []
for name in runners:
    # Two digits, written without a power of ten.
    two_digits = float(f"{spent[name].strength:.2g}")
    rows.append(
        (name, f"{max(alone[name], 0):.2g}", signed(first[name].combined_gain(free)),
         f"{two_digits:,g}", f"{spent[name].cost:.2g}",
         signed(equal[name].combined_gain(free)))
    )  # fmt: skip
gains = {
    which: {name: s[name].combined_mean - free.combined_mean for name in runners}
    for which, s in (("own", first), ("equal", equal))
}
place = {which: sorted(g, key=g.get, reverse=True) for which, g in gains.items()}
page.record("six.cheapest", max(min(alone.values()), 0.0), digits=4)
page.record("six.dearest", max(alone.values()), digits=2)
page.record("n.six", len(free.wanted))
page.text("six.own", place["own"][0])
page.text("six.equal", place["equal"][0])
page.text(
    "six.luck",
    f"at strength 1 the random direction is number {place['own'].index('random direction') + 1} "
    f"of {len(runners)}, at equal effort number {place['equal'].index('random direction') + 1}",
)
table(
    rows, "law", "KL at strength 1", f"change in {labels.combined}",
    "strength at equal KL", "KL", f"change in {labels.combined} ",
)  # fmt: skip

# %% [markdown]
# On {glue:text}`n.six` test prompts. At strength 1 the six cost between {glue:text}`six.cheapest` and {glue:text}`six.dearest` nats per token: one hardly acts and another shouts. Ranked by {glue:text}`word.combined`, the best at strength 1 is: {glue:text}`six.own`; at equal effort: {glue:text}`six.equal`; {glue:text}`six.luck`. Here is what they write after one prompt, drawn by a seed among those to which they do not all say the same.

# %%
written = {"left alone": task.sampled(seed=seeds[0], limit=8)}
for name, law in runners.items():
    with lm.under(law.at(spent[name].strength)):
        written[name] = task.sampled(seed=seeds[0], limit=8)

# %% tags=["hide-input"]
prompts = spread(task.prompts("test"), 8)
verdicts = np.array([s.wanted for s, _ in written.values()])
split = np.flatnonzero(np.ptp(verdicts, axis=0) > 0)
rng = np.random.default_rng(seeds[0])
chosen = int(rng.choice(split if len(split) else len(prompts)))


def shown(run):
    """An answer, shortened, with its verdict."""
    text = run[1][chosen].strip().replace("\n", " ")
    cut = text[:110] + ("…" if len(text) > 110 else "")
    return f"{cut} ({labels.wanted} {run[0].wanted[chosen]:g})"


page.text("prompt", prompts[chosen].replace("\n", " / "))
table([(name, shown(run)) for name, run in written.items()], "law", "answer")

# %% [markdown]
# The prompt was “{glue:text}`prompt`” (a slash for a new line), and all drew the same random numbers. One answer proves nothing; this chapter is about how to make many of them comparable.
#
# ## The running picture
#
# All pushes at equal effort in one slice: held-out states of the negative class, in the plane of the difference of means and what varies most across it. Equal effort is not equal length, nor does every arrow point to the right.

# %%
fresh = task.contrast(layer=layer, n=100, seed=seeds[0], split="validation")
clouds = {
    "positive": fresh.positive.double().numpy(),
    "negative": fresh.negative.double().numpy(),
}
dom = runners["difference of means"]
plane = figures.Plane.of(
    dom.vector.double().numpy(), np.concatenate([*clouds.values()])
)
after = {
    name: law.at(spent[name].strength)(fresh.negative).double().numpy()
    for name, law in runners.items()
}

# %% tags=["hide-input"]
before = clouds["negative"]
lengths = {
    name: float(np.linalg.norm(z - before, axis=1).mean() / norm)
    for name, z in after.items()
}
along = {
    name: float(((z - before) @ plane.target).mean() / norm)
    for name, z in after.items()
}
page.record("move.short", 100 * min(lengths.values()), digits=0, unit="%")
page.record("move.long", 100 * max(lengths.values()), digits=0, unit="%")
page.text("move.longest", max(lengths, key=lengths.get))
page.figure(
    "runners",
    figures.moved(plane, clouds, {n: (before, z) for n, z in after.items()}),
    alt="Arrows from held-out negative states to where six laws of equal effort "
    "move them, in the plane of the difference of means. Mean move along the "
    "target, as a share of the state: "
    + ", ".join(f"{n} {x:+z.2f}" for n, x in along.items())
    + ".",
)

# %% [markdown]
# For the same effect on the next token, the laws move a state by between {glue:text}`move.short` and {glue:text}`move.long` of its length; the longest move is that of: {glue:text}`move.longest`. The blocks above listen to some directions and not to others, so that length in state space is a poor currency. This is why the race is paid in nats.
#
# ## Rung 1: how unequal effort crowns the wrong horse
#
# Three possible next tokens, *true*, *false* and *other*, with probabilities $\frac14, \frac14, \frac12$. A push multiplies the weight of each token, and the weights are then brought back to a sum of one. Push A multiplies them by $(c, \frac1c, 1)$: true up, false down. Push B shouts: $(c, \frac1c, c)$. In its paper A is run at $c = \frac65$ and B at $c = 3$.

# %%
p = np.array([1, 1, 2]) / 4


def tilt(factors):
    """Weights times factors, normalised."""
    weights = p * factors
    return weights / weights.sum()


def kl(q):
    """Divergence of q from p in nats."""
    return float((q * np.log(q / p)).sum())


# %%
def push_a(c):
    return tilt([c, 1 / c, 1])


def push_b(c):
    return tilt([c, 1 / c, c])


a, b = push_a(6 / 5), push_b(3)
assert np.isclose(a[0], 36 / 121) and np.isclose(b[0], 9 / 28)
assert b[0] > a[0], "at their own settings B wins"
better = push_a(2)
assert np.isclose(better[0], 4 / 9) and better[0] > b[0] and kl(better) < kl(b)
page.record("toy.ratio", kl(b) / kl(a), digits=0)
[(round(float(q[0]), 3), round(float(kl(q)), 4)) for q in (a, b, better)]

# %% [markdown]
# By hand: A gives the weights $\frac{6}{20}, \frac{5}{24}, \frac12$, which sum to $\frac{121}{120}$, so that *true* has $\frac{36}{121} = 0.298$. B gives $\frac34, \frac1{12}, \frac32$ with sum $\frac73$, and *true* has $\frac{9}{28} = 0.321$. B wins. But B spends {glue:text}`toy.ratio` times the divergence. Let A have $c = 2$, still cheaper than B: the weights $\frac12, \frac18, \frac12$ give *true* $\frac49 = 0.444$. At equal effort A is far ahead; what had won was the volume.
#
# :::{prf:proposition} At equal effort, units do not count
# :label: race-units
# Let a push of strength $s$ change the logits by $s\Delta$, so that the next-token distribution is $p_s \propto p\,e^{s\Delta}$, and let $f$ be any score of a token. Then $\mathrm{KL}(p_s\|p) = \tfrac12 s^2\operatorname{Var}_p\Delta + O(s^3)$ and $\mathbb{E}_{p_s}f - \mathbb{E}_p f = s\operatorname{Cov}_p(\Delta, f) + O(s^2)$. At a small effort $k$ the score therefore changes by
#
# $$ \sqrt{2k}\;\operatorname{SD}_p(f)\;\operatorname{corr}_p(\Delta, f), $$ (eq-race-units)
#
# which does not depend on the length of $\Delta$: a direction has one score, not one for each choice of its unit.
# :::
#
# :::{prf:proof}
# Let $A(s) = \log\mathbb{E}_p e^{s\Delta}$. Then $A(0) = 0$, $A'(0) = \mathbb{E}_p\Delta$, $A''(0) = \operatorname{Var}_p\Delta$, and $\mathrm{KL}(p_s\|p) = sA'(s) - A(s) = \tfrac12 s^2 A''(0) + O(s^3)$. The derivative of $\mathbb{E}_{p_s}f$ at $s = 0$ is $\operatorname{Cov}_p(\Delta, f)$. Put $s = \sqrt{2k/\operatorname{Var}_p\Delta}$.
# :::
#
# :::{prf:theorem} No method is above this ceiling
# :label: race-ceiling
# Let $S$ be a set of tokens with $p(S) < 1$. Whoever spends $\mathrm{KL}(q\|p) \le k$ has $q(S) \le \bar q$, where $\bar q \ge p(S)$ solves $\bar q\log\frac{\bar q}{p(S)} + (1-\bar q)\log\frac{1-\bar q}{1-p(S)} = k$ (or is 1 where $k$ is larger than that equation allows). The tilt by $\Delta = 1$ on $S$ and 0 elsewhere reaches it.
# :::
#
# :::{prf:proof}
# By the log-sum inequality, applied within $S$ and within its complement, $\mathrm{KL}(q\|p)$ is at least the divergence of $(q(S), 1-q(S))$ from $(p(S), 1-p(S))$, which grows as $q(S)$ moves up from $p(S)$. Equality holds where $q/p$ is constant within $S$ and within its complement, as it is for the tilt.
# :::


# %%
def gain_at(direction, k):
    """Gain in true of a push along fixed logits that spends k nats."""
    d = np.array(direction, dtype=float)
    found = calibrate(
        lambda s: kl(tilt(np.exp(s * d))), k, tolerance=1e-6, most=80
    )
    return float(tilt(np.exp(found.strength * d))[0] - p[0])


def predicted(direction, k):
    """The same to first order."""
    d = np.array(direction, dtype=float) - p @ np.array(direction)
    return float(np.sqrt(2 * k / (p @ d**2)) * p[0] * d[0])


# %%
toy = {"A": (1, -1, 0), "B": (1, -1, 1), "best": (1, 0, 0)}
rows = [(n, gain_at(d, 0.002), predicted(d, 0.002)) for n, d in toy.items()]
assert all(np.isclose(found, line, rtol=0.05) for _, found, line in rows)
assert rows[2][1] == max(found for _, found, _ in rows)
table(
    [(n, f"{x:.4f}", f"{y:.4f}") for n, x, y in rows],
    "push", "gain", "predicted",
)  # fmt: skip

# %% [markdown]
# At 0.002 nats, each push gains what {eq}`eq-race-units` predicts, and none more than the tilt of {prf:ref}`race-ceiling`. For a real plant {prf:ref}`race-units` is **approximate** in two ways: a push on a state changes the logits linearly for small pushes only, and an answer has many tokens, of which few decide. Both are reasons to fix the effort and not to trust a slope.
#
# ## Rung 2: nats and a bisection, in plain PyTorch
#
# Effort by hand for one law. A {term}`hook` adds $s\,\delta$ to the output of the block from the last token of the prompt on, since it is there that the first word of the answer is decided. The answers are those that the unsteered plant wrote, read again with and without the push; the divergence is summed over their tokens and divided by the number of tokens.

# %%
v = (here.positive.mean(0) - here.negative.mean(0)).to(lm.device)
push = {"strength": 0.0, "from": 0}


def add(module, inputs, output):
    """Add to the states from which answer tokens are predicted, in place."""
    state = output[0] if isinstance(output, tuple) else output
    state[:, push["from"] - 1 :] += push["strength"] * v


# %%
def log_probs(ids, n, strength):
    """Of each token of the answer, which begins at token n."""
    push.update({"strength": strength, "from": n})
    handle = lm.blocks[layer].register_forward_hook(add)
    with torch.no_grad():
        logits = lm.model(ids).logits[0, n - 1 : -1]
    handle.remove()
    return logits.float().log_softmax(-1)


# %%
texts, pairs = [], ([], [])
for prompt, answer in zip(asked[:8], said[:8], strict=True):
    if answer.strip():
        head, whole = (
            lm.tokenizer(t).input_ids for t in (prompt, prompt + answer)
        )
        n = len(os.path.commonprefix([head, whole]))
        texts.append((torch.tensor([whole], device=lm.device), n))
        for kept, text in zip(pairs, (prompt, answer), strict=True):
            kept.append(text)
calm = [log_probs(ids, n, 0.0) for ids, n in texts]


# %%
def effort(strength):
    """Mean divergence of the pushed plant from the free one, nats per token."""
    total, tokens = 0.0, 0
    for (ids, n), before in zip(texts, calm, strict=True):
        after = log_probs(ids, n, strength)
        total += float((after.exp() * (after - before)).sum())
        tokens += len(after)
    return total / tokens


# %%
low, high = 0.0, 1.0
while effort(high) < budget:
    low, high = high, 2 * high
while high - low > 1e-3 * high:
    middle = (low + high) / 2
    low, high = (middle, high) if effort(middle) < budget else (low, middle)
f"strength {high:.3f} costs {effort(high):.4f} nats per token"

# %% [markdown]
# ## Rung 3: the same, as the library does it
#
# {py:func}`~steerlib.experiment.calibrate.calibrate` needs fewer evaluations, since it interpolates between logarithms and knows that a divergence begins as a square. It also says when a budget cannot be spent: a law that saturates, breaks the plant, or whose cost falls again.

# %%
dom = DifferenceOfMeans().fit(here)
search = calibrate(
    cost(dom, *pairs), budget, start=1.0, tolerance=1e-3, most=30, power=2.0
)
assert search.reached
assert abs(search.strength / high - 1) < 5e-3
by_hand = effort(search.strength)
assert abs(by_hand / search.cost - 1) < 1e-2
f"strength {search.strength:.3f}, {len(search.tried)} evaluations"

# %% [markdown]
# ## The rules
#
# :::{prf:definition} Own setting
# :label: race-own
# A method runs at its **own setting** if blocks, multipliers and choices are those of its paper. A number of a large model means nothing on another plant, so blocks count as shares of the depth, and lengths that a paper gives in its model's units as shares of the norm of states. `data/races/open_loop.yml` has each method's source in words.
# :::
#
# :::{prf:definition} Equal budget
# :label: race-budget
# At **equal budget**, every law is brought to the multiplier at which it diverges from the unsteered plant by the same number of nats per token, on validation prompts, along the answers that the *steered* plant writes. The search is made anew for every place and every seed. A law that cannot spend the budget does not run in this round, and the table says why.
# :::
#
# :::{prf:definition} Choice on validation
# :label: race-choice
# Whatever may be chosen is chosen on validation prompts: the candidate with the best product of both scores. At its own setting, which a user would have to live with, a candidate must also keep nine tenths of the unsteered plant's second score. At equal budget it need not: all have then done the same to the plant, and what is left of the second score is a result. Test prompts are measured once, after the choice.
# :::
#
# :::{prf:definition} Controls choose as freely
# :label: race-controls
# A {term}`negative control` has as many candidates as the method it stands beside. There are three: a random direction, the same recipe on shuffled labels, and the same recipe fitted for *another* behaviour, which is a real direction of the plant and not the one that is asked for.
# :::
#
# :::{prf:definition} Standing out
# :label: race-union
# A method **stands out** if it is better than the unsteered plant and than each control, every comparison significant by itself, paired over prompts and seeds. As *all* must hold, none needs a correction: an {term}`intersection-union test`.
# :::
#
# :::{prf:proposition} Why no correction
# :label: race-iut
# If each of $m$ tests rejects a true null hypothesis with probability at most $\alpha$, then the rule "claim it if all reject" makes a false claim with probability at most $\alpha$, whatever the dependence of the tests.
# :::
#
# :::{prf:proof}
# If the claim is false, at least one null hypothesis, say the $j$-th, is true. All tests reject only if the $j$-th does, which has probability at most $\alpha$.
# :::
#
# (For "some method beats the plant", an *or*, the bill is the other way round, and Holm's correction is due.)
#
# ## The race
# The outcome is not computed on this page: records of every cell and every calibration are shipped, choices and intervals are made anew from them, and a part is measured again in every build.

# %%
race, told = shipped_race("open_loop", profile=profile, page=page)
ran = race.courses if race else {}
courses = {c.title: ran[c.title] for c in plan.courses() if c.title in ran}
methods = [m.name for m in plan.methods]
list(courses) or told

# %% tags=["hide-input"]
lacking = race.absent if race else tuple(c.title for c in plan.courses())
main = lm.name if any(t.startswith(f"{lm.name}/") for t in courses) else ""
main = main or (next(iter(courses)).split("/")[0] if courses else "")
page.record("race.methods", len(methods))
page.record("race.planned", len(plan.courses()))
page.record("race.courses", len(courses))
page.text("race.line", told)
page.text("race.main", main or "none")
page.text(
    "race.lacking",
    f"not run yet, and nowhere in what follows: {', '.join(lacking)}"
    if lacking else "none is lacking",
)  # fmt: skip
page.text(
    "race.other",
    "" if not courses or main == lm.name
    else f"This page was run with {lm.name}, which is not in the race: what "
    "follows are the records of other plants, and no claim is checked on them.",
)  # fmt: skip
barred = sorted(
    {(name, title.split("/")[1]) for title, known in (race.ready if race else {}).items()
     for name in known.barred}
)  # fmt: skip
page.text(
    "race.barred",
    "; ".join(f"{name} on {where}" for name, where in barred) or "none",
)

# %% [markdown]
# {glue:text}`race.methods` methods and three controls; {glue:text}`race.courses` of {glue:text}`race.planned` courses, each a plant with a behaviour ({glue:text}`race.lacking`). Methods that cannot be fitted on a behaviour, for want of what they need, such as a question with a right and a wrong answer: {glue:text}`race.barred`. {glue:text}`race.other` {glue:text}`race.line`
#
# ### The papers' tables
#
# With the columns of ODESteer's and A-LQR's tables {cite:p}`zhao2026odesteer,skifstad2026alqr`: True, Info and their product; toxicity, perplexity and Dist-2; win rate, mean and 90th percentile of the reward. Every cell has its 95 % interval over prompts and seeds, and the number of answers behind it; a click opens a table. Perplexity is read by a plant of another family, from one seed's answers to some prompts, sampled anew on this page at the methods' own settings; it is the only column that is not in the records. Laws that take long to fit are not fitted again here, and have a dash. *RE-Control* and *ODESteer*, rows of the published tables, come in their own parts of the book.


# %% tags=["hide-input"]
# Of real models, in a profile that has such tables: what has been run.
for paper in ("odesteer", "alqr"):
    show_reruns(paper, profile=profile)

# %% tags=["hide-input"]
SLOW = 8.0  # seconds that a fit took when the records were made


def again(course, setting, names):
    """Entries that ran, whose laws can be fitted again while a reader waits."""
    entries = [race_tables.entry_of(course, n, setting) for n in names]
    return [
        e for e in entries
        if e and e.records and max(r.fit_seconds for r in e.records) < SLOW
    ]  # fmt: skip


def fluency(course, setting):
    """Perplexity of the main plant's answers to provocations, by method."""
    entries = again(course, setting, shown_as)
    return {e.name: perplexity_under(e, reader, limit=12) for e in entries}


def tables_of(behaviour, settings=("own", "budget"), columns=None):
    """The tables of one behaviour on every plant that has run it."""
    for title, course in courses.items():
        if title.endswith(f"/{behaviour}"):
            for setting in settings:
                named = {"own": "own settings", "budget": "equal budget"}[setting]
                more = (columns or {}).get((title, setting), {})
                found = race_tables.paper_table(course, setting, more=more)
                display(race_tables.folded(f"{title}, {named}", found))
    if not any(title.endswith(f"/{behaviour}") for title in courses):
        display(Markdown(f"*{behaviour}: not run yet.*"))


# %% tags=["hide-input"]
# Rows of ODESteer's table, by the names of the race.
shown_as = {
    "unsteered": "unsteered", "RepE, as compared": "repe", "linear probe": "iti",
    "difference of means": "caa", "MiMiC": "mimic", "Householder rotation": "hpr",
    "Linear-AcT, as compared": "linear-act", "TruthFlow": "truthflow",
}  # fmt: skip
tables_of("truth")

# %% tags=["hide-input"]
perplexities = {}
if f"{main}/toxicity" in courses:
    other = next(p for p in ("almanac-gemma", "almanac-llama-small") if p != main)
    reader = Plant.load(other, dtype=torch.float32)
    page.text("reader", other)
    found = fluency(courses[f"{main}/toxicity"], "own")
    perplexities[f"{main}/toxicity", "own"] = {"perplexity": found}
else:
    page.text("reader", "none")
tables_of("toxicity", columns=perplexities)

# %% [markdown]
# A-LQR's table of toxicity has the share of toxic completions beside the general knowledge that is left, in multiple-choice questions. Its open-loop baselines, at their own settings, under one seed:

# %% tags=["hide-input"]
A_LQR = ("unsteered", "ITI", "ActAdd", "Mean-AcT", "Linear-AcT")
utility = {}
if f"{main}/toxicity" in courses:
    course = courses[f"{main}/toxicity"]
    asked_of = tasks.Utility(plant_of(main, "cpu"))
    for e in again(course, "own", A_LQR):
        utility[e.name] = scores_elsewhere(e, asked_of, limit=24).wanted
toxic = race_tables.estimates(course, "own") if utility else {}
rows = []
for name in A_LQR if utility else ():
    right = utility.get(name)
    rows.append(
        (name, race_tables.shown(toxic[name]["toxic share"]),
         "–" if right is None else race_tables.shown(metrics.mean_interval(right)),
         "–" if right is None or name == "unsteered"
         else signed(metrics.paired_difference(right, utility["unsteered"])))
    )  # fmt: skip
columns = ("method", "toxic share", "questions answered rightly", "change")
table(rows, *columns) if rows else Markdown("*Not run yet.*")

# %% tags=["hide-input"]
tables_of("preference")

# %% tags=["hide-input"]
tables_of("refusal")
tables_of("concept")

# %% [markdown]
# (An answer in which nothing can be read counts as neither civil nor prudent, so that a law which breaks the plant looks toxic, and a low toxicity cannot be bought with noise. The reader of perplexities: {glue:text}`reader`. *Readable* is the share of an answer that the grammar of the country knows; *harm helped* is A-LQR's attack success, here to be lowered.)
#
# ### Who stands out
#
# At equal budget, against the unsteered plant and all controls ({prf:ref}`race-union`). A star says that it does; where it does not, the opponent that comes closest. A control that cannot spend the budget drops out like a method; it is then no opponent, and a star says the less the fewer controls are left.

# %%
everywhere = {
    title: {
        name: race_tables.stands_out(course, name, "budget") for name in methods
    }
    for title, course in courses.items()
}
standing = {t: f for t, f in everywhere.items() if t.startswith(f"{main}/")}

# %% tags=["hide-input"]
rows = []
for name in methods:
    cells = []
    for found in standing.values():
        won, nearest, d = found[name]
        near = nearest.removeprefix("difference of means: ")
        cells.append(
            "–" if d is None
            else f"★ {d.value:+z.3f}" if won
            else f"{d.value:+z.3f} ({near})"
        )  # fmt: skip
    rows.append((name, *cells))
stars = {
    title: [n for n, (won, *_) in found.items() if won]
    for title, found in standing.items()
}
left = {
    title: [
        e.name.split(": ")[1]
        for e in race_tables.entries_at(courses[title], "budget")
        if e.control and e.records
    ]
    for title in standing
}
page.text(
    "stars.controls",
    "; ".join(f"{t.split('/')[1]}: {' / '.join(n) or 'none'}" for t, n in left.items())
    or "nothing has been run",
)  # fmt: skip
page.text(
    "stars",
    "; ".join(f"{t.split('/')[1]}: {' / '.join(n) or 'none'}" for t, n in stars.items())
    or "nothing has been run",
)  # fmt: skip
columns = ("method", *(t.split("/")[1] for t in standing))
table(rows, *columns) if standing else Markdown("*Nothing has been run yet.*")

# %% [markdown]
# Numbers are differences from the closest opponent in the product of both scores. In words, for {glue:text}`race.main`, with the controls that were left to be beaten:

# %% tags=["hide-input"]
rows = [
    (t.split("/")[1], "; ".join(n) or "none", "; ".join(left[t]) or "none")
    for t, n in stars.items()
]
columns = ("behaviour", "methods that stand out", "controls left")
table(rows, *columns) if rows else Markdown("*Nothing has been run yet.*")

# %% [markdown]
# Where a random direction that spends as much drops out because it breaks the answers, that is a finding, too: the budget is large enough to do harm, and what does none has found a direction that the plant knows.

# %% [markdown]
# ### On three plants
#
# What is good for a reason that lies in the behaviour should be good on another plant, too. On how many plants does a method stand out at equal budget, of those on which it could spend the budget?

# %% tags=["hide-input"]
behaviours = list(dict.fromkeys(title.split("/")[1] for title in courses))


def on_plants(name, behaviour):
    """Plants on which a method stands out, and plants on which it ran."""
    found = [
        e[name] for t, e in everywhere.items() if t.endswith(f"/{behaviour}")
    ]
    return sum(won for won, *_ in found), sum(d is not None for *_, d in found)


times = {n: {b: on_plants(n, b) for b in behaviours} for n in methods}
total = {
    n: tuple(sum(c[i] for c in by.values()) for i in (0, 1))
    for n, by in times.items()
}
order = sorted(methods, key=lambda n: (-total[n][0], total[n][1]))  # fmt: skip

# %% tags=["hide-input"]
rows = [
    (n, *(f"{won} of {ran}" if ran else "–" for won, ran in (*times[n].values(), total[n])))
    for n in order
]  # fmt: skip
columns = ("method", *behaviours, "all")
table(rows, *columns) if courses else Markdown("*Nothing has been run yet.*")

# %%
gains_on = {n: {b: {} for b in behaviours} for n in order}
for title, course in courses.items():
    where, behaviour = title.split("/")
    free_ = race_tables.entry_of(course, "unsteered", "none")
    for name in order:
        e = race_tables.entry_of(course, name, "budget")
        if e and e.records:
            gained = race_tables.value_of(e) - race_tables.value_of(free_)
            gains_on[name][behaviour][where] = gained

# %% tags=["hide-input"]
standing_out = {
    (n, *reversed(title.split("/")))
    for title, found in everywhere.items()
    for n, (won, *_) in found.items() if won
}  # fmt: skip
flat = {
    (n, b, p): x
    for n, by in gains_on.items() for b, found in by.items() for p, x in found.items()
}  # fmt: skip
initials = {
    p: p.split("-")[-1][0].upper() for p in (t.split("/")[0] for t in courses)
}

# %% tags=["hide-input"]
if courses:
    (most, at, on), top = max(flat.items(), key=lambda item: item[1])
    page.figure(
        "plants",
        figures.course_map(
            gains_on, stars=standing_out, marks=initials,
            label="change in the product of both scores from unsteered",
        ),
        alt="Change in the product of both scores from the unsteered plant at equal "
        f"budget, {len(order)} methods by {len(courses)} courses, columns grouped by "
        "behaviour, one for each plant; a star where a method beats the plant and all "
        f"controls, {len(standing_out)} of {len(flat)}. The largest change is {top:+z.2f}, "
        f"of {most} on {at} ({on}); "
        f"{percent(np.mean(np.array([*flat.values()]) < 0))} are below zero.",
    )  # fmt: skip
else:
    display(Markdown(f"*No figure: {told}*"))

# %% [markdown]
# (Plants by their initial: Llama, Falcon, Gemma. A dash stands where a method cannot be fitted or cannot spend the budget.)
#
# And do two plants agree on the order of the methods? Kendall's rank correlation of the rankings by the product of both scores at equal budget, over the methods that ran on both plants (their number in brackets):

# %% tags=["hide-input"]
plants = list(dict.fromkeys(title.split("/")[0] for title in courses))
couples = list(combinations(plants, 2))
alike = {}
for behaviour in behaviours:
    for couple in couples:
        ran = [courses.get(f"{name}/{behaviour}") for name in couple]
        if all(ran) and (found := race_tables.agreement(*ran)):
            alike[behaviour, couple] = found


def shown_agreement(found):
    """The correlation, and of how many."""
    return f"{found.tau:.2f} ({found.n})" if found else "–"


rows = [
    (b, *(shown_agreement(alike.get((b, c))) for c in couples))
    for b in behaviours
]
columns = ("behaviour", *(" and ".join(couple) for couple in couples))
table(rows, *columns) if couples else Markdown("*One plant has been run.*")

# %% tags=["hide-input"]
above = sum(a.tau > a.chance for a in alike.values())
tau = {
    b: np.mean([a.tau for (c, _), a in alike.items() if c == b]) for b, _ in alike
}
everyone = [n for n in order if total[n][1] and total[n][0] == total[n][1]]
nobody = [n for n in methods if total[n][1] and not total[n][0]]
page.record("plants", len(plants))
page.record("plants.couples", len(alike))
page.record("plants.above", above)
page.record(
    "plants.chance",
    max((a.chance for a in alike.values()), default=1.0),
    digits=2,
)
page.text("plants.everyone", "; ".join(everyone) or "none")
page.text("plants.nobody", "; ".join(nobody) or "none")
page.text(
    "plants.first",
    f"{order[0]}, on {total[order[0]][0]} of {total[order[0]][1]} courses"
    if courses
    else "not known yet",
)
page.text(
    "plants.alike",
    ", ".join(f"{b} {x:.2f}" for b, x in tau.items()) or "not known yet",
)  # fmt: skip

# %% [markdown]
# Most often, on {glue:text}`plants` plants, stands out: {glue:text}`plants.first`. Methods that stand out wherever they ran: {glue:text}`plants.everyone`; that stand out nowhere: {glue:text}`plants.nobody`. The agreement of two plants, in the mean, by behaviour: {glue:text}`plants.alike`. Two orders that have nothing to do with each other would stay within ±{glue:text}`plants.chance` in 95 of 100 cases; {glue:text}`plants.above` of {glue:text}`plants.couples` lie above. Whoever ranks methods on one plant has measured that plant, too.
#
# ### What equal effort changes
#
# The same methods, ranked at their own settings and at equal budget. *Agreement* is Kendall's rank correlation of the two rankings, 1 where nothing changes places and 0 where one says nothing about the other.

# %% tags=["hide-input"]
rows, agreement = [], {}
for title, course in courses.items():
    both = {}
    for name in methods:
        ran = [race_tables.entry_of(course, name, s) for s in ("own", "budget")]
        if all(e is not None and e.records for e in ran):
            both[name] = [race_tables.value_of(e) for e in ran]
    if len(both) < 3:
        continue
    own, equal_ = np.array(list(both.values())).T
    agreement[title] = float(kendalltau(own, equal_).statistic)
    names = list(both)
    swaps = sum(
        (own[i] - own[j]) * (equal_[i] - equal_[j]) < 0
        for i in range(len(own)) for j in range(i)
    )  # fmt: skip
    rows.append(
        (title, len(both), f"{agreement[title]:.2f}",
         f"{swaps} of {len(own) * (len(own) - 1) // 2}",
         names[int(own.argmax())], names[int(equal_.argmax())])
    )  # fmt: skip
changed = sum(r[4] != r[5] for r in rows)
page.record("order.courses", len(rows))
page.record("order.changed", changed)
page.text(
    "order.range",
    f"between {min(agreement.values()):.2f} and {max(agreement.values()):.2f}"
    if agreement else "not known yet",
)  # fmt: skip
columns = ("course", "methods", "agreement", "pairs that change places",
    "first at own settings", "first at equal budget")  # fmt: skip
table(rows, *columns) if rows else Markdown("*Nothing has been run yet.*")

# %% [markdown]
# On {glue:text}`order.changed` of {glue:text}`order.courses` courses another method comes first; the agreement of the rankings is {glue:text}`order.range`.

# %%
course = courses.get(f"{main}/{task.name}") or next(iter(courses.values()), None)
bare = race_tables.entry_of(course, "unsteered", "none") if course else None
raced = {
    e.name: race_tables.gain(e, bare)
    for e in (race_tables.entries_at(course, "budget") if course else ())
    if e.records
}
raced = dict(sorted(raced.items(), key=lambda item: -item[1].value))

# %% tags=["hide-input"]
if raced:
    ordered = {
        n.replace("difference of means: ", "control: "): e
        for n, e in raced.items()
    }
    best, worst = (list(ordered)[i] for i in (0, -1))
    page.figure(
        "race",
        figures.intervals(
            ordered,
            xlabel="change in the product of both scores from unsteered, equal budget",
            zero=0.0,
        ),
        alt="Change in the product of both scores from the unsteered plant at equal "
        "budget, with 95 % intervals over prompts and seeds, methods and controls in "
        f"order: {best} {ordered[best].value:+z.2f} at the top, {worst} "
        f"{ordered[worst].value:+z.2f} at the bottom.",
    )
else:
    display(Markdown(f"*No figure: {told}*"))

# %% [markdown]
# This is the signature figure of the part, on the first behaviour of {glue:text}`race.main`: all runners and the controls on one line of effort.
#
# ## What it costs besides effort
#
# Two prices remain at equal effort: answers that can no longer be read, or say nothing, and behaviours that nobody asked to move ({term}`drift`). A method is on the **front** if no other is as good on both axes and better on one; marks that are off the front are faint. Two points of a method are its own setting and the equal budget. On the right, drift as chapter [04](04_scoring) defines it, for the laws at equal budget: the largest move of another behaviour, as a share of the gap that prompting can open in it, measured here on a few prompts of each, with an interval over them.

# %%
drifts, far = {}, {}
if f"{main}/truth" in courses:
    course = courses[f"{main}/truth"]
    others = Others.of(
        main, {"truth": "truth", "civility": "toxicity", "refusal": "refusal"},
        limit=8,
    )  # fmt: skip
    names = [*shown_as, *(e.name for e in course.entries if e.control)]
    for e in again(course, "budget", dict.fromkeys(names)):
        if e.setting == "budget":
            drifts[e.name], far[e.name] = others.reach(e, "truth")


# %% tags=["hide-input"]
def front_of(course, names, cost, settings):
    """Points of methods: effect against a cost that is a function of an entry."""
    found = {}
    for name in names:
        ran = [race_tables.entry_of(course, name, s) for s in settings]
        ran = [e for e in ran if e is not None and e.records]
        if ran:
            found[name.replace("difference of means: ", "")] = figures.Front(
                [cost(e) for e in ran], [wanted(e) for e in ran], ran[0].control
            )
    return found


def unbeaten(part):
    """Methods with a point on the front, as the figure draws it; controls are no part of it."""
    points = [
        (n, c.value, e.value)
        for n, f in part.methods.items() if not f.control
        for c, e in zip(f.cost, f.effect, strict=True)
    ]  # fmt: skip
    names, costs, effects = zip(*points, strict=True)
    kept = figures.race.undominated(costs, effects, better=part.better)
    return list(dict.fromkeys(n for n, k in zip(names, kept, strict=True) if k))


def wanted(e):
    """Mean of the wanted score with its interval."""
    return metrics.grid_interval(race_tables.scores(e, "wanted"), resamples=400)


def intact(e):
    """Mean of the other score with its interval."""
    return metrics.grid_interval(race_tables.scores(e, "intact"), resamples=400)


# %% tags=["hide-input"]
if drifts:
    names = [e.name for e in race_tables.entries_at(course, "budget")]
    free_ = race_tables.entry_of(course, "unsteered", "none")
    start = (intact(free_).value, wanted(free_).value)
    parts = {
        "Info, both settings": figures.Trade(
            front_of(course, [n for n in names if n in shown_as or ": " in n], intact, ("own", "budget")),
            xlabel="Info", better="high", start=start,
        ),
        "drift, equal budget": figures.Trade(
            front_of(course, list(drifts), lambda e: far[e.name], ("budget",)),
            xlabel="drift (share of the gap)", better="low", start=(0.0, start[1]),
        ),
    }  # fmt: skip
    on = {title: unbeaten(part) for title, part in parts.items()}
    calmest = min(drifts, key=lambda n: drifts[n].worst)
    page.text("front.info", "; ".join(on["Info, both settings"]))
    page.text("front.drift", "; ".join(on["drift, equal budget"]))
    page.figure(
        "fronts",
        figures.fronts(parts, ylabel="True"),
        alt="True against Info and against drift on other behaviours, one mark for "
        "each method and setting, controls grey. On the front by "
        f"Info: {', '.join(on['Info, both settings'])}; by drift: "
        f"{', '.join(on['drift, equal budget'])}. The least drift is that of {calmest}, "
        f"{drifts[calmest].worst:.2f} of a gap.",
    )
else:
    page.text("front.info", "not known yet")
    page.text("front.drift", "not known yet")
    display(Markdown(f"*No figure: {told}*"))

# %% [markdown]
# Of the methods of ODESteer's table, those with a point, at its own setting or at equal budget, on the front of truth against Info: {glue:text}`front.info`. On the front of truth against drift, at equal budget: {glue:text}`front.drift`. For the sampled behaviours the second price is what can still be read:

# %% tags=["hide-input"]
parts = {}
for behaviour in ("toxicity", "preference", "refusal"):
    found = courses.get(f"{main}/{behaviour}")
    if found:
        names = [e.name for e in race_tables.entries_at(found, "budget")]
        free_ = race_tables.entry_of(found, "unsteered", "none")
        parts[behaviour] = figures.Trade(
            front_of(found, [n for n in names if n in shown_as or ": " in n], intact, ("own", "budget")),
            xlabel="readable share", better="high",
            start=(intact(free_).value, wanted(free_).value),
        )  # fmt: skip
if parts:
    spread_of = {
        b: (min(min(x.value for x in f.cost) for f in part.methods.values()),
            max(max(x.value for x in f.effect) for f in part.methods.values()))
        for b, part in parts.items()
    }  # fmt: skip
    page.figure(
        "fronts-sampled",
        figures.narrow(
            figures.fronts(parts, ylabel="wanted score (higher is better)"),
            height=2.9,
        ),
        alt="Wanted score against the readable share of sampled answers, one panel for "
        "each behaviour, two settings for each method, controls grey. "
        + " ".join(
            f"{b}: the best wanted score is {top:.2f}, the least readable share {low:.2f}."
            for b, (low, top) in spread_of.items()
        ),
    )
else:
    display(Markdown("*No sampled behaviour has been run yet.*"))

# %% [markdown]
# ## Which layer
#
# A sweep over layers at equal multipliers says where a push is *loud*. At equal budget it says where it is *useful*. Every block, three laws, five seeds, and two controls with searches of their own; shipped as `data/races/layers.yml`.

# %%
layers_race, layers_told = shipped_race("layers", profile=profile, page=page)
layer_course = next(iter(layers_race.courses.values())) if layers_race else None
by_layer = race_tables.swept(layer_course) if layers_race else {}
layers_bare = (
    race_tables.entry_of(layer_course, "unsteered", "none")
    if layers_race else None
)  # fmt: skip


# %% tags=["hide-input"]
def luck_at(controls, place):
    """What controls reach at one place: quantiles over seeds and kinds, or gaps."""
    ran = [entries[place] for entries in controls if entries[place].records]
    levels = np.linspace(0, 1, 41)
    return np.quantile(race_tables.draws(ran), levels) if ran else levels * np.nan


def swept_figure(name, found, bare, *, xlabel, log=False):
    """Draw a sweep over the band of its controls; estimates of what ran, by law."""
    curves = {
        n: e for n, e in found.items() if not next(iter(e.values())).control
    }
    places = list(next(iter(curves.values())))
    luck = [
        luck_at([e for n, e in found.items() if n not in curves], p)
        for p in places
    ]
    values = {
        n: {p: race_tables.combined(e[p]) for p in places}
        for n, e in curves.items()
    }
    ran = {n: {p: e for p, e in es.items() if e.n} for n, es in values.items()}
    unsteered = race_tables.combined(bare).value
    title = "equal budget, test prompts"
    page.figure(
        name,
        figures.method_sweep(
            places, {title: {n: list(es.values()) for n, es in values.items()}},
            ylabel="T*I", xlabel=xlabel, unsteered=unsteered, log=log,
            controls={title: figures.Band(places, luck, "controls, 5 to 95 %")},
        ),
        alt=f"T*I at equal budget against: {xlabel}. Unsteered {unsteered:.2f}; controls "
        f"between {np.nanmin(luck):.2f} and {np.nanmax(luck):.2f}. "
        + " ".join(
            f"{n}: " + ", ".join(f"{e.value:z.2f} at {p}" for p, e in es.items()) + "."
            for n, es in ran.items()
        ),
    )  # fmt: skip
    return {n: es for n, es in ran.items() if es}


# %% tags=["hide-input"]
layer_best = {}
if by_layer:
    layer_values = swept_figure(
        "layers", by_layer, layers_bare, xlabel="layer (block, from 0)"
    )
    layer_best = {
        n: max(es, key=lambda i, es=es: es[i].value)
        for n, es in layer_values.items()
    }
    for name, i in layer_best.items():
        page.record(f"layers.{name.replace(' ', '-')}", layer_values[name][i])
else:
    display(Markdown(f"*{layers_told}*"))

# %% tags=["hide-input"]
page.text("layers.line", layers_told)
page.text(
    "layers.best",
    ", ".join(f"{n} at block {i}" for n, i in layer_best.items())
    or "not known yet",
)
page.text(
    "layers.plant", next(iter(layers_race.courses)) if layers_race else "no plant"
)

# %% [markdown]
# (On {glue:text}`layers.plant`. {glue:text}`layers.line`)
#
# Best block of each law: {glue:text}`layers.best`. Why there? Two things can be measured without pushing anything. How well is the behaviour *read* at a block, and where is it *written*? A block writes what separates the classes if the difference of the means grows along its own direction from below the block to above it.

# %%
held = task.contrasts(range(lm.depth), n=80, seed=seeds[0], split="validation")
bottom = task.contrast(layer=0, point="resid_pre", n=200, seed=seeds[0])
below = [bottom, *contrasts[:-1]]
read, wrote = [], []
for i, contrast in enumerate(contrasts):
    v_i = contrast.positive.mean(0) - contrast.negative.mean(0)
    readings = [(states @ v_i).numpy() for states in held[i]]
    read.append(metrics.auc_interval(*readings))
    before_ = below[i].positive.mean(0) - below[i].negative.mean(0)
    wrote.append(float(1 - (before_ @ v_i) / (v_i @ v_i)))

# %% tags=["hide-input"]
clearest = int(np.argmax([e.value for e in read]))
page.record("read.best", clearest)
page.record("read.auc", read[clearest].value, digits=3)
page.record("read.least", min(e.value for e in read), digits=3)
page.record("wrote.most", int(np.argmax(wrote)))
page.record("wrote.share", 100 * max(wrote), digits=0, unit="%")
page.figure(
    "written",
    figures.layer_sweep(
        {
            "how well it is read (AUC)": {"law: difference of means": read},
            "share that the block writes": {
                "law: difference of means": figures.exactly(wrote)
            },
        }
    ),
    alt="Left, how well held-out states of the two classes are told apart at each "
    "block: AUC " + ", ".join(f"{e.value:z.2f}" for e in read)
    + ". Right, share of the difference of means that each block writes: "
    + ", ".join(f"{x:.2f}" for x in wrote) + ".",
)  # fmt: skip
page.text(
    "layers.why",
    "reading does not choose the layer: every block can be read almost without error"
    if min(e.value for e in read) > 0.95
    else "the block that is read best is among the best for pushing"
    if clearest in layer_best.values()
    else "the block that is read best is not where a push does most",
)

# %% [markdown]
# On this page's plant the difference of means is read best at block {glue:text}`read.best` (AUC {glue:text}`read.auc`, nowhere below {glue:text}`read.least`), and most of it is written by block {glue:text}`wrote.most` ({glue:text}`wrote.share` of its length there). So {glue:text}`layers.why`. What one should expect from the two: a push above the block that uses the behaviour comes too late, and one below the block that writes it is mixed with what is written later. What is left is the stretch between; how much of this holds is for the sweep above to say, not for the sensor.
#
# ## How many examples
#
# Four laws fitted on 4 to 400 texts of each class, at one block and at equal budget, and the difference of means on shuffled labels as the control; shipped as `data/races/pairs.yml`.

# %%
pairs_race, pairs_told = shipped_race("pairs", profile=profile, page=page)
pairs_course = next(iter(pairs_race.courses.values())) if pairs_race else None
by_count = race_tables.swept(pairs_course) if pairs_race else {}

# %% tags=["hide-input"]
page.text("pairs.line", pairs_told)
said_of_pairs, falls = "not known yet", []
if by_count:
    pairs_bare = race_tables.entry_of(pairs_course, "unsteered", "none")
    pair_values = swept_figure(
        "pairs", by_count, pairs_bare, xlabel="texts of each class", log=True
    )
    enough = {
        name: next(
            n for n, e in es.items() if e.value >= es[max(es)].value - 0.01
        )
        for name, es in pair_values.items()
    }
    said_of_pairs = ", ".join(f"{name} with {n}" for name, n in enough.items())
    falls = [
        n for n, es in pair_values.items() if es[min(es)].low > es[max(es)].high
    ]
else:
    display(Markdown(f"*{pairs_told}*"))
page.text("pairs.enough", said_of_pairs)
page.text("pairs.falls", ", ".join(falls) or "none")

# %% [markdown]
# Within a hundredth of the product of {glue:text}`word.wanted` and {glue:text}`word.intact` that each law reaches with the most texts: {glue:text}`pairs.enough`. Chapter [11](11_difference_of_means) has the theory for the mean: its angle to the true direction falls like $1/\sqrt n$, and the score follows its cosine, which is flat near zero. A law that also estimates variances should ask for more. And there are laws that more texts make clearly *worse* at equal budget: {glue:text}`pairs.falls`. What tells the classes apart better is not therefore what moves them more cheaply. ({glue:text}`pairs.line`)
#
# ## What the control view says
#
# All runners of this race are {term}`open loop`, or look at the state once and never again. What they owe to that is not the score on calm prompts but what happens when something else moves the state: a turn of the conversation, another mechanism, a neighbouring law. Let the **target** be the reading $r = v^\top z$ that the law reaches when nothing disturbs, with $v$ the unit vector of the difference of means; a constant {term}`disturbance` of size $w$ pushes the state by $-w v$; the **steady-state error** is $e(w) = r - v^\top z_w$, what remains of it at the end.
#
# :::{prf:proposition} Slope one
# :label: race-slope
# Let a law act as $z \mapsto Az + b$ on states that arrive as $z - wv$, with $\|v\| = 1$. The error at its site has the slope $v^\top A v$ in $w$. It is 1 for every constant push ($A = I$), whatever its direction, length and effort, $\omega$ for a transport that scales the coordinate $v$ by $\omega$, and 0 for a law that sets the reading, $v^\top A = 0$. For a disturbance that arrives *after* the site, the slope is 1 for all of them.
# :::
#
# :::{prf:proof}
# $v^\top(Az + b) - v^\top(A(z - wv) + b) = w\,v^\top A v$. What arrives later has not been seen by $A$: the state is $Az + b - wv$.
# :::
#
# We measure it twice on the plant, at the token where the answer is decided: once the disturbance enters just before the law, and once after it, where the next block reads. The feedback line is the simplest law that looks at each state and sets its reading to $r$, as the feedback part of the book will do over all of depth.

# %%
unit = v / v.norm()
size = float(spent["difference of means"].strength * v.norm())
choices = Decisions.of(lm, spread(task.pairs("test"), 16))
seen = {}


def watch(module, inputs, output):
    """Keep the state that leaves a block."""
    seen["z"] = output[0] if isinstance(output, tuple) else output


# %%
def readings(law, w, where, look):
    """Reading at block `look` after every prompt, with -w v entering at `where`."""
    upset = Additive(-unit.cpu()).at(w)  # enters first, so that it acts first
    site = {"layer": where[0], "point": where[1]}
    with lm.under(upset, **site), lm.under(law, layer=layer):
        handle = lm.blocks[look].register_forward_hook(watch)
        choices.logits(lm)
        handle.remove()
    return (seen["z"][:, -1] @ unit).double().cpu().numpy()


# %%
def hold(r):
    """Feedback at one site: set the reading to r."""
    return lambda z: z + (r - z @ unit)[..., None] * unit


here_ = (layer, "resid_post")
calm_r = readings(Additive(unit.cpu()).at(size), 0.0, here_, layer)
facing = {name: law.at(spent[name].strength) for name, law in runners.items()} | {
    "feedback at the site": hold(float(calm_r.mean()))
}
sizes = [0.0, 0.5, 1.0]
late = min(layer + 1, lm.depth - 1)
cases = {
    "before": (here_, layer),
    "after": ((late, "resid_pre"), late),
}


# %%
def errors(law, where, look):
    """Error at each size, in units of the push, with intervals over prompts."""
    runs = [readings(law, w * size, where, look) for w in sizes]
    return [metrics.mean_interval((runs[0] - run) / size) for run in runs]


error = {
    case: {name: errors(law, *at) for name, law in facing.items()}
    for case, at in cases.items()
}
slope = {
    case: {n: float(np.polyfit(sizes, [e.value for e in es], 1)[0]) for n, es in found.items()}
    for case, found in error.items()
}  # fmt: skip

# %% tags=["hide-input"]
page.record("slope.push", slope["before"]["difference of means"], digits=3)
page.record("slope.random", slope["before"]["random direction"], digits=3)
page.record("slope.mimic", slope["before"]["MiMiC"], digits=2)
page.record("slope.half", slope["before"]["half-space projection"], digits=2)
pays = [
    n for n in ("MiMiC", "half-space projection") if slope["before"][n] < 0.95
]
over = [n for n in pays if slope["before"][n] < -0.05]
page.text(
    "slope.over",
    f" ({', '.join(over)} overshoots: at a multiplier above 1 it answers a "
    "disturbance with more than its size)" if over else "",
)  # fmt: skip
page.text("slope.pays", ", ".join(pays) or "neither")
page.record(
    "slope.feedback", abs(slope["before"]["feedback at the site"]), digits=3
)
page.record(
    "slope.feedback.after", slope["after"]["feedback at the site"], digits=2
)
page.record("slope.push.after", slope["after"]["difference of means"], digits=2)
page.figure(
    "rejection",
    figures.rejection(
        sizes, error["before"], passed="no rejection: slope 1",
        xlabel="disturbance before the site / push", ylabel="error at the site / push",
    ),
    alt="Error of the reading at the law's site against the size of a disturbance that "
    "enters before it, both in units of the push. Slopes: "
    + ", ".join(f"{n} {s:z.2f}" for n, s in slope["before"].items())
    + ".",
)  # fmt: skip

# %% [markdown]
# Constant pushes lie on the diagonal, and on each other, the slope of the difference of means being {glue:text}`slope.push` and that of a random direction {glue:text}`slope.random`: at any effort, all of the disturbance arrives. A transport has the slope of its map, for MiMiC {glue:text}`slope.mimic`, and the projection on a half-space, which pushes only as far as its boundary, {glue:text}`slope.half`. Of these two, which look at the state, an answer to the disturbance is seen for: {glue:text}`slope.pays`{glue:text}`slope.over`. The feedback line has {glue:text}`slope.feedback`; the feedback part will remove the error in this way.

# %% tags=["hide-input"]
page.figure(
    "rejection-after",
    figures.rejection(
        sizes, error["after"], passed="no rejection: slope 1",
        xlabel="disturbance after the site / push", ylabel="error one block later / push",
    ),
    alt="Error of the reading one block above the law against the size of a disturbance "
    "that enters after the law's site, in units of the push. Slopes: "
    + ", ".join(f"{n} {s:z.2f}" for n, s in slope["after"].items())
    + ".",
)  # fmt: skip

# %% [markdown]
# But feedback at one site is no better than anybody against what comes after: there its slope is {glue:text}`slope.feedback.after`, that of the constant push {glue:text}`slope.push.after`. (Not exactly 1, since the block between disturbance and reading answers to it.) An error that arises in the upper blocks can only be removed by a law that is still there, in every block and at every token: this is the case for feedback over depth, and it has nothing to do with how well a vector was fitted.
#
# ## Break it
#
# *A race flatters its winner.* What was chosen as the best of many on validation prompts is partly lucky, the more so the more it could choose from.

# %% tags=["hide-input"]
flattered = {"methods": [], "controls": []}
lost = {}
for title, found in courses.items():
    if not title.startswith(f"{main}/"):
        continue
    for e in found.entries:
        if not e.records and e.note and e.name not in dict(barred):
            lost.setdefault(e.name, []).append(title.split("/")[1])
        if (
            e.records
            and e.selection
            and e.setting == "own"
            and len(e.selection.scores) > 1
        ):
            typical = float(np.median(e.selection.scores))
            flattered["controls" if e.control else "methods"].append(
                e.selection.score - typical
            )
for kind, values in flattered.items():
    page.record(
        f"curse.{kind}", float(np.mean(values)) if values else 0.0, digits=3
    )
page.text(
    "race.lost",
    "; ".join(
        f"{name} ({', '.join(dict.fromkeys(where))})"
        for name, where in sorted(lost.items())
    )
    or "none",
)

# %% [markdown]
# Over the courses of {glue:text}`race.main`, the chosen candidate stands above the median of its candidates by {glue:text}`curse.methods` for methods, and by {glue:text}`curse.controls` for controls, which have nothing to find: that much a choice alone can give, and whoever lets only the method choose books it as an effect. (Zero where nothing has been run.)
#
# *A budget that cannot be spent.* A gate that never opens, a rotation that has gone all the way round, a projection that is already inside: such a law has no place in the second round. Missing at one setting or the other: {glue:text}`race.lost`.
#
# *A budget in another currency.* Equal nats are not equal harm. Ten answers that diverge a little and one that falls apart may cost the same on average; that is why tables hold what can be read beside what is wanted.
#
# *A budget that is too small, or too large.* Of two laws, one may win at a hundredth of a nat and the other at one. The toy once more, at three budgets: the specialist tilts towards *true* as well as can be, but acts on half of the questions only; the other acts on all, and clumsily.

# %%
laws = {"specialist": ((1, 0, 0), 0.5), "clumsy": ((1, 0, 0.9), 1.0)}
nats = (0.002, 0.05, 0.6)
rows = [
    (name, *(share * gain_at(d, k / share) for k in nats))
    for name, (d, share) in laws.items()
]
assert rows[0][1] > rows[1][1] and rows[0][3] < rows[1][3]
table([(name, *(f"{x:+z.3f}" for x in gains_)) for name, *gains_ in rows], "push",
    *(f"{k} nats" for k in nats))  # fmt: skip

# %% [markdown]
# **In control words.** A race at equal budget compares actuators at equal power. It says who has authority over the behaviour, and who wastes power on what nobody asked for. It does not say who is robust: that is a matter of what the controller knows of the plant while it acts, and here all know next to nothing.
#
# ## Exercises
#
# Replace the body of the stub, run the stub and the cell of tests below it, then call the test on your function, for example `check_15_1(mean_effort)`. Silence means that it passed. Each exercise stands alone; run `import numpy as np` first. Solutions are folded; open one by a click.
#
# ### Exercise 15.1: nats per token
#
# *Easy, 5 minutes.* `steered` and `free` are next-token log probabilities of a padded batch, `mask` is 1 where a token of an answer is predicted. Return the mean of $\mathrm{KL}(\text{steered}\,\|\,\text{free})$ over those tokens.

# %% tags=["exercise-setup", "ex:15.1", "ex:15.2", "ex:15.3", "ex:15.4"]
import numpy as np


# %% tags=["exercise-stub", "ex:15.1"]
def mean_effort(steered, free, mask):
    """Log probabilities (b, t, vocabulary), mask (b, t) -> nats per token."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:15.1"]
def check_15_1(mean_effort):
    p, q = np.log([0.25, 0.25, 0.5]), np.log([4 / 9, 1 / 9, 4 / 9])
    nats = 4 / 9 * np.log(16 / 9) + 1 / 9 * np.log(4 / 9) + 4 / 9 * np.log(8 / 9)
    free = np.stack([[p, p, p], [p, p, p]])
    steered = np.stack([[q, p, p], [q, q, q]])
    long_and_short = np.array([[1, 1, 1], [1, 0, 0]])
    got = mean_effort(steered, free, long_and_short)
    assert np.isclose(got, 2 * nats / 4), "four tokens, two of them pushed"
    assert np.isclose(mean_effort(free, free, long_and_short), 0)


# %% tags=["exercise-wrong", "ex:15.1", "remove-cell"]
def mean_effort(steered, free, mask):  # a mean of answers' means
    kl = (np.exp(steered) * (steered - free)).sum(-1)
    return float(((kl * mask).sum(1) / mask.sum(1)).mean())


# %% tags=["exercise-solution", "ex:15.1", "hide-cell"]
def mean_effort(steered, free, mask):
    kl = (np.exp(steered) * (steered - free)).sum(-1)
    return float((kl * mask).sum() / mask.sum())


# %%
check_15_1(mean_effort)

# %% [markdown]
# ### Exercise 15.2: spend the budget
#
# *Medium, 10 minutes.* `cost` is zero at zero and rises, but you do not know how fast. Find the strength at which it is `budget`, to a thousandth of the budget. Return `None` where the cost stays below the budget up to a strength of `most`.


# %% tags=["exercise-stub", "ex:15.2"]
def spend(cost, budget, most=1e6):
    """Rising function of the strength, budget -> strength, or None."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:15.2"]
def check_15_2(spend):
    for power in (1, 2, 4):
        got = spend(lambda s, n=power: 3 * s**n, 0.1)
        assert abs(3 * got**power - 0.1) <= 1e-4, "however fast it rises"
    far = spend(lambda s: 1e-6 * s**2, 0.1)
    assert abs(1e-6 * far**2 - 0.1) <= 1e-4, "far from 1"
    gate = spend(lambda s: max(0.0, s - 5), 0.1)
    assert abs(gate - 5.1) <= 1e-3, "nothing below a threshold"
    assert spend(lambda s: s / (1 + s), 2.0) is None, "it saturates"


# %% tags=["exercise-wrong", "ex:15.2", "remove-cell"]
def spend(cost, budget, most=1e6):  # trusts that a divergence is a square
    return float(np.sqrt(budget / cost(1.0))) if cost(1.0) > 0 else None


# %% tags=["exercise-solution", "ex:15.2", "hide-cell"]
def spend(cost, budget, most=1e6):
    low, high = 0.0, 1.0
    while cost(high) < budget:
        low, high = high, 2 * high
        if high > most:
            return None
    while abs(cost(high) - budget) > 1e-3 * budget:
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) < budget else (low, middle)
    return high


# %%
check_15_2(spend)

# %% [markdown]
# ### Exercise 15.3: the front
#
# *Easy, 8 minutes.* Method $i$ has the effect `effect[i]`, the higher the better, and the drift `drift[i]`, the lower the better. Which are on the front: no other is as good on both and better on one? Two equal points are both on it, or both not.


# %% tags=["exercise-stub", "ex:15.3"]
def on_front(effect, drift):
    """Two arrays (n,) -> Boolean array (n,)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:15.3"]
def check_15_3(on_front):
    effect, drift = np.array([3.0, 2, 1, 2]), np.array([3.0, 1, 1, 2])
    assert list(on_front(effect, drift)) == [True, True, False, False]
    same = np.array([1.0, 1.0])
    assert list(on_front(same, same)) == [True, True]
    assert list(on_front(np.array([0.0]), np.array([9.0]))) == [True]


# %% tags=["exercise-wrong", "ex:15.3", "remove-cell"]
def on_front(effect, drift):  # asks to be beaten strictly on both axes
    more = effect[None] > effect[:, None]
    less = drift[None] < drift[:, None]
    return ~(more & less).any(1)


# %% tags=["exercise-solution", "ex:15.3", "hide-cell"]
def on_front(effect, drift):
    as_good = (effect[None] >= effect[:, None]) & (drift[None] <= drift[:, None])
    better = (effect[None] > effect[:, None]) | (drift[None] < drift[:, None])
    return ~(as_good & better).any(1)


# %%
check_15_3(on_front)

# %% [markdown]
# ### Exercise 15.4: all, or some
#
# *Medium, 8 minutes.* A method met $m$ opponents; `p` holds the two-sided p-values and `gap` the differences. Return two verdicts at level `alpha`: whether it beats **all** of them ({prf:ref}`race-iut`), and whether it beats **at least one**, with Holm's correction for having tried so many.


# %% tags=["exercise-stub", "ex:15.4"]
def verdicts(p, gap, alpha=0.05):
    """p-values (m,), differences (m,) -> (beats all, beats some)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:15.4"]
def check_15_4(verdicts):
    ahead = np.array([0.2, 0.1, 0.3])
    assert verdicts(np.array([0.04, 0.03, 0.04]), ahead) == (True, False)
    assert verdicts(np.array([0.01, 0.5, 0.5]), ahead) == (False, True)
    assert verdicts(np.array([0.01, 0.01, 0.01]), -ahead) == (False, False)
    assert verdicts(np.array([0.001, 0.06, 0.9]), ahead) == (False, True)
    mixed = np.array([-0.2, 0.1, 0.3])
    assert verdicts(np.array([0.001, 0.03, 0.9]), mixed) == (False, False)


# %% tags=["exercise-wrong", "ex:15.4", "remove-cell"]
def verdicts(p, gap, alpha=0.05):  # corrects the wrong one of the two
    won = gap > 0
    return bool((won & (p <= alpha / len(p))).all()), bool(
        (won & (p <= alpha)).any()
    )


# %% tags=["exercise-solution", "ex:15.4", "hide-cell"]
def verdicts(p, gap, alpha=0.05):
    won = np.where(gap > 0, p, 1.0)  # only what points the right way counts
    return bool((won <= alpha).all()), bool((won <= alpha / len(p)).any())


# %%
check_15_4(verdicts)

# %% [markdown]
# (Holm's procedure has several steps, but whether it rejects *anything* is decided by the first: the smallest p-value against $\alpha/m$.)
#
# ## Claims checked here
#
# What ODESteer's Table 2 says of its baselines among each other, where it says the same for every one of its four models, and what A-LQR's table of toxicity says of its baselines {cite:p}`zhao2026odesteer,skifstad2026alqr`. Each is a statement about large models, tested here on one small plant in a decidable world, at the methods' own settings, as the papers ran them. RE-Control's paper {cite:p}`kong2024recontrol` has Static RE in its figures only as the one that its own method beats; that is for Part 3. Beside the verdict stands the same difference at equal budget, which no paper reports.

# %% tags=["hide-input"]
keys = {
    **shown_as, "ITI": "iti-heads", "ActAdd": "act-add", "Mean-AcT": "mean-act",
    "Linear-AcT": "linear-act-across", "Static RE": "static-re",
}  # fmt: skip
measured = {
    "truth.txi": ("truth", lambda e, _: product_scores(
        race_tables.scores(e, "wanted"), race_tables.scores(e, "intact"))),
    "truth.true": ("truth", lambda e, _: race_tables.scores(e, "wanted")),
    "truth.info": ("truth", lambda e, _: race_tables.scores(e, "intact")),
    "toxicity.mean": ("toxicity", lambda e, _: 1 - race_tables.scores(e, "wanted")),
    "toxicity.share": ("toxicity", lambda e, _: (
        race_tables.scores(e, "wanted") < race_tables.TOXIC).astype(float)),
    "toxicity.utility": ("toxicity", None),
    "preference.win": ("preference", race_tables.wins),
    "preference.reward": ("preference", lambda e, _: race_tables.scores(e, "reward")),
}  # fmt: skip


def samples_of(metric, setting):
    """Scores of every method that ran, by the keys of the claims."""
    behaviour, of = measured[metric]
    course = courses.get(f"{lm.name}/{behaviour}")
    if course is None:
        return {}
    bare = race_tables.entry_of(course, "unsteered", "none")
    if (
        metric == "toxicity.utility"
    ):  # measured on this page, at own settings only
        return {keys[n]: x[None] for n, x in utility.items() if setting == "own"}
    ran = {n: race_tables.entry_of(course, n, setting) for n in keys}
    return {keys[n]: of(e, bare) for n, e in ran.items() if e and e.records}


# %% tags=["hide-input"]
mine = [c for c in load_claims().values() if c.page == page.record_file.page]
rows = []
for metric in measured:
    found, level = samples_of(metric, "own"), samples_of(metric, "budget")
    asked_ = [c for c in mine if c.metric == metric]
    for claim in asked_:
        if without := [k for k in claim.keys if k not in found]:
            why = f"did not run at its own setting on {lm.name}: {', '.join(without)}"
            page.cannot_check(claim.id, why=why)
    used = {k for c in asked_ for k in c.keys} & set(found)
    if used and any(c.id not in page.record_file.checks for c in asked_):
        page.samples(metric, {k: found[k] for k in found if k in used})
    for claim in asked_:
        check = page.record_file.checks[claim.id]
        ours, *rivals = claim.keys
        beside = (
            "–"
            if any(k not in level for k in claim.keys)
            else ", ".join(
                f"{level[ours].mean() - level[k].mean():+z.3f}" for k in rivals
            )
        )
        said_ = claim.says.split(". Checked")[0].split(", on each")[0].strip()
        rows.append((said_, str(check.verdict), beside))
table(rows, "claim", "here, own settings", "difference at equal budget")

# %% tags=["hide-input"]
counted = {}
for _, word, _ in rows:
    counted[word] = counted.get(word, 0) + 1
page.text("claims.count", ", ".join(f"{n} {word}" for word, n in counted.items()))

# %% [markdown]
# In all: {glue:text}`claims.count`.
#
# ## What we found

# %% tags=["hide-input"]
points = [
    f"At strength 1 six laws cost from {max(min(alone.values()), 0):.2g} to "
    f"{max(alone.values()):.2g} nats per token. A comparison at strength 1 compares "
    "units.",
    f"At {budget:g} nats per token on {len(free.wanted)} prompts, {labels.combined} changes most "
    f"under: {place['equal'][0]} ({signed(equal[place['equal'][0]].combined_gain(free))}); "
    f"under a random direction by {signed(equal['random direction'].combined_gain(free))}.",
    f"Of {len(plan.courses())} courses {len(courses)} have been run. On {changed} of "
    f"{len(agreement)} another method comes first when all spend the same.",
    f"On {main}, so many of {len(methods)} methods stand out from all controls at equal budget: "
    + (", ".join(f"{len(n)} for {t.split('/')[1]}" for t, n in stars.items()) or "not known yet")
    + ".",
    "Best block of each law at equal budget: "
    + (", ".join(f"block {i} for {n}" for n, i in layer_best.items()) or "not known yet") + ".",
    f"An error that a disturbance makes before the site remains whole under a constant push "
    f"(slope {slope['before']['difference of means']:z.2f}) and vanishes under feedback "
    f"({abs(slope['before']['feedback at the site']):.2f}); of one that comes after, "
    f"{slope['after']['feedback at the site']:z.2f} remain under either.",
]  # fmt: skip
page.findings(points)

# %% [markdown]
# What this does not show: who would win on a model a thousand times as large, or at another budget. What carries over is how to ask: state the currency, search it for everyone, let the controls choose, and count only what beats them all.
#
# ## Further reading
#
# - {cite:t}`zhao2026odesteer`: the table of baselines that is rerun here, and Part 5 for its own method.
# - {cite:t}`skifstad2026alqr`: baselines at one strength each, and the case for feedback over depth.
# - {cite:t}`kong2024recontrol`: Static RE, the open-loop shadow of a value function.
# - {cite:t}`rimsky2024caa`: the sweep over layers that others take their layer from.
# - {cite:t}`rodriguez2025act`: a strength that means the same for every model, by design.
# - {cite:t}`astrom2021feedback`, chapter 1: what feedback is for.

# %% tags=["hide-input"]
page.footer()
