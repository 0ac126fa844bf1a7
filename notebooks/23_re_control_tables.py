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
# (ch-re-control-tables)=
# # 23 The tables and figures
#
# **RE-Control's main table, row by row and column by column: the paper's eight ways to answer without touching a weight, a few more, and three controls, scored on the same requests with the same noise, on plants of several families and two sets of preferences. Beside each row of ours stands what was published, and what separates a difference from luck is said before any is shown.**
#
# :::{admonition} Cost
# :class: cost-card note
#
# Time
# : under one minute on one processor core, for the `tiny` profile; the table itself takes longer and is shipped
#
# Memory
# : about 1 GB
#
# Read first
# : [22](22_gradient_control) for RE-Control, [04](04_scoring) for rewards, win rates and intervals; [11](11_difference_of_means) for controls
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
import re
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from steerlib import Plant, figures, metrics, tasks
from steerlib.control.bellman import ValueNetwork
from steerlib.control.networks import seeded
from steerlib.decoding import (
    BestOf,
    ControlledDecoding,
    Plain,
    StateScorer,
    TextScorer,
    expected_best,
)
from steerlib.experiment import value_plants, value_tables
from steerlib.experiment.claims import load_claims
from steerlib.experiment.page import Page
from steerlib.experiment.profile_plants import plant_for
from steerlib.experiment.profile_tables import task_for
from steerlib.experiment.recompute import records_of, reference
from steerlib.experiment.rerun_pages import show_reruns
from steerlib.experiment.scoreboard import noted
from steerlib.experiment.showing import (
    in_percent,
    interval,
    p_value,
    percent,
    signed,
    table,
)
from steerlib.experiment.value_plants import PlantSet
from steerlib.laws.additive import RandomDirection
from steerlib.laws.base import Contrast
from steerlib.laws.value import ReControl
from steerlib.tasks.preferred import Preferred
from steerlib.tasks.rewarding import reward_among, rewarded_texts
from steerlib.trajectories import READ_OUT, RolloutSampling

pd.set_option("display.max_colwidth", None)
page = Page("23_re_control_tables", profile=profile, plant=plant, seeds=seeds)
lm = page.uses(plant_for(plant, profile=profile, table="re_control", exact=True))
almanac = lm.source.card.get("world") == "almanac"
# A real model is asked for what its profile says, by that profile's reward model.
real = task_for(lm, profile=profile, alone=True)
task = (
    Preferred(lm)
    if almanac
    else real or tasks.for_plant(lm, data=os.environ.get("STEERLIB_DATA"))
)


lm

# %% [markdown]
# ## One request, five answers
#
# What is an answer worth? On the Almanac the rubric of chapter [04](04_scoring) says so: steps in their order, a refusal where harm is asked for, cautions and courtesy; an adviser of the country who was asked the same wrote the reply that is to be beaten. (A plant of a profile on real models is rewarded by the model that the profile names. On any other this page counts the different words of an answer, which is a reward, if a poor one.) First the machinery, small and live: a few answers of the plant alone, what they earned, and a value fitted on the states they went through.

# %%
length, batch = (24, 48) if almanac else (16, 24)
how = RolloutSampling(length, seeds[0])


def asked_in(split, n):
    """Some prompts, and the reward of answers to them."""
    if almanac or real:
        items = task.items(split)[:n]
        return [item.text for item in items], reward_among(task, items)
    prompts = (task.prompts(split) * n)[:n]
    return prompts, lambda _, texts: [len(set(t.split())) / 10 for t in texts]


# %%
fitted_on, earns = asked_in("fit", batch)
rollouts = rewarded_texts(
    lm, fitted_on, lambda texts: np.asarray(earns(fitted_on, texts)),
    how=how, named="the reward of this page", site=READ_OUT,
)  # fmt: skip
law = ReControl(steps=10, passes=20).fit_rewarded(rollouts)
states = rollouts.trajectories.take(torch.arange(16)).states.float()
norm = float(states.norm(dim=1).mean())
unit = norm / float(law.ascent(states).input.norm(dim=1).mean())
law.tune(alpha=0.4 * unit * float(law.alpha))
f"state {norm:.1f}, input {law.ascent(states).input.norm(dim=1).mean():.1f}"

# %%
prompts, reward = asked_in("test", 8)
ways = {
    "the plant": Plain(),
    "best of 4": BestOf(reward, n=4),
    "CD, the reward itself": ControlledDecoding(TextScorer(reward), weight=8.0),
}
told = {"max_new_tokens": length, "seed": seeds[0]}
answers = {name: way.generate(lm, prompts, **told) for name, way in ways.items()}
with lm.under(law):
    answers["RE-Control"] = Plain().generate(lm, prompts, **told)
    answers["RE-Control, best of 4"] = ways["best of 4"].generate(
        lm, prompts, **told
    )

# %% tags=["hide-input"]
earned = {n: np.asarray(reward(prompts, a.texts)) for n, a in answers.items()}
apart = np.ptp(np.stack(list(earned.values())), axis=0)
rng = np.random.default_rng(seeds[0])
place = int(
    rng.choice(np.flatnonzero(apart > 0) if apart.any() else len(prompts))
)
page.text("prompt", prompts[place].strip().replace("\n", " / "))


def short(text, most=100):
    """An answer in one line."""
    line = text.strip().replace("\n", " / ")
    return line[:most] + ("…" if len(line) > most else "")


table(
    [
        (
            name,
            short(a.texts[place]),
            f"{earned[name][place]:+z.2f}",
            f"{earned[name].mean():+z.2f}",
            a.cost.passes,
        )
        for name, a in answers.items()
    ],
    "how", "answer", "reward", f"mean of {len(prompts)}", "passes",
)  # fmt: skip

# %% [markdown]
# The prompt was “{glue:text}`prompt`” (a slash for a new line), drawn by the seed among those where the five do not earn the same. All drew with the same noise. One prompt proves nothing, and a value of so few answers knows little; the table below is made of more.
#
# ## Rung 1: three answers, by hand
#
# A plant has three answers, with rewards 0, 1, 2 and probabilities $\frac12, \frac14, \frac14$: its mean reward is $\frac34$. Three ways to earn more. **Best of two** draws twice and keeps the better. A **tilt** multiplies the probability of each answer by $e^{wr}$, which is what controlled decoding does at every token; with $e^w = 2$ the weights are $\frac12, \frac12, 1$. **Prompting** changes the plant, and no formula says how.

# %%
p, r = np.array([2, 1, 1]) / 4, np.array([0.0, 1.0, 2.0])
both = p[:, None] * p[None, :]
best = np.maximum(r[:, None], r[None, :])
best_of_two = float((both * best).sum())
tilted = p * 2.0**r / (p * 2.0**r).sum()
assert best_of_two == 19 / 16 and np.allclose(tilted, [1 / 4, 1 / 4, 1 / 2])
assert tilted @ r == 5 / 4
pool = np.repeat(r, [2, 1, 1])[None]
assert np.isclose(expected_best(pool, 1)[0], p @ r)

# %%
after = np.array([both[best == value].sum() for value in r])
nats = {
    "best of two": float(after @ np.log(after / p)),
    "tilt": float(tilted @ np.log(tilted / p)),
}
page.record("toy.best.nats", nats["best of two"], digits=3)
page.record("toy.tilt.nats", nats["tilt"], digits=3)
page.record("toy.bound", np.log(2) - 1 / 2, digits=3)
assert nats["best of two"] <= np.log(2) - 1 / 2
(best_of_two, float(tilted @ r), {how: round(x, 3) for how, x in nats.items()})

# %% [markdown]
# By hand: two draws miss 2 with probability $\frac{9}{16}$ and are both 0 with $\frac14$, so that best of two has 2 with $\frac{7}{16}$, 1 with $\frac{5}{16}$, and earns $\frac{19}{16}$. The tilt earns $\frac14 + 2\cdot\frac12 = \frac54$, more; but it also diverges more from the plant, {glue:text}`toy.tilt.nats` nats against {glue:text}`toy.best.nats` (whose bound $\log n - \frac{n-1}{n}$ is {glue:text}`toy.bound`). Every row of the table has such a price, and the published one shows none of them.
#
# ## What the columns say
#
# :::{prf:definition} The columns
# :label: tables-columns
# Of an answer: **diversity** is $\prod_{n=2}^{4}$ of the share of distinct $n$-grams, by the counting rule of the paper's code; **coherence** on real text is the cosine of prompt and answer embeddings, and on the Almanac topic agreement, which stands in for it; **average reward** is the mean of the reward, in its units; an answer **wins** if it earns strictly more than the answer that the data set prefers, and a tie is neither a win nor a loss; **time** is time for each token of the answers over that of the plant alone, measured side by side (processor time on a CPU, wall time on a GPU).
# :::
#
# :::{prf:proposition} How far a win rate can wander
# :label: tables-binomial
# Of $n$ independent prompts, the share that wins has the standard error $\sqrt{q(1-q)/n} \le \frac{1}{2\sqrt n}$. Two methods on the *same* prompts differ with variance $\frac1n(b + c - (b - c)^2)$, where $b$ is the probability that only the first wins and $c$ that only the second does: what both win or both lose costs nothing.
# :::
#
# :::{prf:proof}
# The first is the variance of a mean of indicators. The difference of two indicators is $1$ with probability $b$, $-1$ with $c$ and $0$ otherwise, so its second moment is $b + c$ and its mean $b - c$.
# :::
#
# :::{prf:proposition} A sum of columns has units
# :label: tables-rule
# Let settings be chosen by the largest coherence + diversity + reward, as in the paper. If the reward is replaced by $a$ times itself, an increasing change that leaves every comparison of answers as it was, then for large $a$ the choice is among those of the largest reward, and for $a \to 0$ among those of the largest coherence + diversity.
# :::
#
# :::{prf:proof}
# Among finitely many settings, divide the sum by $a$ (or let $a \to 0$): the other columns, bounded by 2 in sum, vanish against any difference of rewards (or the rewards against any difference of them).
# :::
#
# Assumptions, and where they hold. Prompts are independent: **approximate**, families of requests repeat. The reward is known: **true** on the Almanac, where the rubric is the reward; **false** for large models, where one and the same learned reward model trains the value and judges it. The noise is shared: **true** here for laws; a decoder that looks at other tokens shares it only until the first difference.

# %% tags=["hide-input"]
claims = load_claims()
wins = claims["recontrol.t1.win.beats-all"].published["hh-vicuna-7b"]
gap = wins["re_control"] - wins["cd_prefix"]
shares = [wins[k] / 100 for k in ("re_control", "cd_prefix")]
page.record("paper.gap", gap, digits=1)
page.record(
    "paper.error",
    100 * float(np.sqrt(sum(q * (1 - q) for q in shares) / 300)),
    digits=1,
)

# %% [markdown]
# The paper's win rates end in .0, .3 or .6, which is what shares of 300 prompts do. RE-Control's lead over the prefix scorer on its main data set is {glue:text}`paper.gap` points, and two rates of 300 independent prompts differ with a standard error of {glue:text}`paper.error` points. On the same prompts it may be less, by {prf:ref}`tables-binomial`; how much less, the published table cannot say.
#
# ## Rung 2: one step of search, in plain PyTorch
#
# Controlled decoding is the row that costs most in the paper, so it is worth seeing why. One prompt, token by token: the $k$ likeliest next tokens; for each, the reward of the text so far with it; the one with the highest sum of logit and weighted reward goes on.

# %%
k, weight, steps = 4, 8.0, 6
ids = lm._ids(prompts[:1])[0]
start = len(lm.tokenizer.decode(ids, skip_special_tokens=True))
by_hand = list(ids)
for _ in range(steps):
    with torch.no_grad():
        inputs = torch.tensor([by_hand], device=lm.device)
        logits = lm.model(inputs).logits[0, -1].float().cpu()
    top = logits.topk(k)
    texts = [
        lm.tokenizer.decode([*by_hand, int(t)], skip_special_tokens=True)[start:]
        for t in top.indices
    ]
    scores = torch.tensor(np.asarray(reward(prompts[:1] * k, texts))).float()
    by_hand.append(int(top.indices[(top.values + weight * scores).argmax()]))

# %% [markdown]
# ## Rung 3: the same, as the library does it
#
# {py:class}`~steerlib.decoding.controlled.ControlledDecoding` does this for a batch, with a cache, and counts what it asks for.

# %%
search = ControlledDecoding(TextScorer(reward), k=k, weight=weight)
found = search.generate(lm, prompts[:1], max_new_tokens=steps, seed=0)
said = list(found.tokens[0])
assert said == by_hand[len(ids) : len(ids) + len(said)]
assert found.cost.rewards == k * len(said)
f"{len(said)} tokens, {found.cost.rewards} rewards"

# %% [markdown]
# Every token asks for $k$ rewards. A reward model as large as the plant makes that $k$ more passes for each token, where RE-Control reads a small network: this is the paper's argument for it, and the column *time* its evidence.

# %% [markdown]
# ## What a token costs
#
# The column *time*, before the table that it belongs to: time for each token that is answered, over that of the plant alone, in one run on this machine. It is processor time on a CPU, which other programs do not add to, and wall time on a GPU. RE-Control makes {math}`n = 10` steps with a value network as wide as the state; the prefix scorer is the same network, asked about five candidates a token; the constant push adds one vector. All take turns with the plant alone, and write up to {glue:text}`time.span` tokens for each of the same prompts.

# %%
span = 12
page.text("time.span", str(span))
clock = time.process_time if lm.device.type == "cpu" else time.perf_counter


def seconds(way, size, under=None, on=lm):
    """Time for each token of the answers to so many prompts at once."""
    asked = dict(max_new_tokens=span, seed=0, batch_size=size)
    many = (prompts * size)[:size]
    with nullcontext() if under is None else on.under(under):
        start = clock()
        answered = way.generate(on, many, **asked)
        spent = clock() - start
    return spent / sum(len(row) for row in answered.tokens)


# %%
five = {"k": 5, "weight": 4.0}
pushed = RandomDirection().fit(Contrast(states[:8], states[8:], law.header))
ways = {
    "constant push": (Plain(), pushed),
    "RE-Control": (Plain(), law),
    "CD": (ControlledDecoding(TextScorer(reward), **five), None),
    "CD prefix": (ControlledDecoding(StateScorer(law.network), **five), None),
    "best of 4": (BestOf(reward, n=4), None),
}
sizes_, drawn = (1, 8, 16, 32), ("RE-Control", "CD")

# %%
for way, under in ways.values():
    seconds(way, 1, under)  # first calls cost more
taken, alone_ = {name: {} for name in ways}, {size: [] for size in sizes_}
for size in sizes_:
    # All ways at 16, the figure's two at every size.
    some = [name for name in ways if size == 16 or name in drawn]
    logs = {name: [] for name in some}
    for _ in range(3):
        alone_[size].append(seconds(Plain(), size))
        for name in some:
            spent = seconds(ways[name][0], size, ways[name][1])
            logs[name].append(np.log(spent / alone_[size][-1]))
    for name, found in logs.items():
        taken[name][size] = metrics.mean_interval(found)

# %% tags=["hide-input"]
ratio = {
    name: {
        size: metrics.Estimate(*(float(np.exp(x)) for x in (e.value, e.low, e.high)), e.n)
        for size, e in found.items()
    }
    for name, found in taken.items()
}  # fmt: skip
hours = claims["recontrol.t1.time.search-costs-more"].published["hh-vicuna-7b"]
for name in ("re-control", "cd"):
    page.record(
        f"paper.time.{name}",
        hours[name.replace("-", "_")] / hours["base"],
        digits=2,
    )
each_token = metrics.mean_interval(alone_[16])
page.record(
    "time.token",
    1e3 * each_token.value,
    digits=2,
    unit="ms",
    note="the plant alone, batch 16",
)
KEYS = {
    "constant push": "push", "RE-Control": "re-control", "CD": "cd", "CD prefix": "cd-prefix", "best of 4": "best",
}  # fmt: skip
for name, key in KEYS.items():
    page.record(
        f"time.{key}",
        ratio[name][16],
        digits=2,
        note="for each token, over the plant alone; batch 16",
    )
page.record(
    "time.log.re-control",
    taken["RE-Control"][16],
    note="log of the ratio, batch 16",
)
over_re = metrics.mean_interval(
    [taken["CD"][b].value - taken["RE-Control"][b].value for b in sizes_]
)
page.record(
    "time.log.cd-over-re-control",
    over_re,
    note="log of the ratio, over batch sizes",
)
published = {"RE-Control": hours["re_control"], "CD": hours["cd"]}
table(
    [("the plant alone", f"{1e3 * each_token.value:z.2f}", "1", "1")] + [
        (name, f"{1e3 * each_token.value * found[16].value:z.2f}",
         interval(found[16]),
         f"{published[name] / hours['base']:.2f}" if name in published else "–")
        for name, found in ratio.items()
    ],
    "how", "ms for each token", "over the plant alone", "published, Vicuna-7B",
)  # fmt: skip

# %% tags=["hide-input"]
curves_ = {name: list(ratio[name].values()) for name in drawn}
page.figure(
    "time",
    figures.over(
        sizes_,
        {"": figures.Panel(curves_, ylabel="time / the plant's own", line=("the plant alone", 1.0))},
        xlabel="answers at once", log_x=True,
    ),
    alt="Time for each token over that of the plant alone against the batch size. "
    + " ".join(
        f"{n}: " + ", ".join(f"{e.value:z.2f} at {b}" for b, e in zip(sizes_, es, strict=True)) + "."
        for n, es in curves_.items()
    ),
)  # fmt: skip

# %% [markdown]
# A token of {glue:text}`time.token` at batch 16 becomes {glue:text}`time.re-control` times as dear under RE-Control, {glue:text}`time.cd` under CD with the oracle's reward, {glue:text}`time.cd-prefix` under CD prefix and {glue:text}`time.best` with best of four; a constant push makes it {glue:text}`time.push`. Published for Vicuna-7B: RE-Control {glue:text}`paper.time.re-control`, CD {glue:text}`paper.time.cd`. The gap is smaller here, for two reasons that say more of the experiment than of the methods: CD runs in batches (the paper's runs one prompt at a time), and its reward is a grammar, not a second model of seven billion weights. With the paper's {math}`n = 30`, two layers and three, eager and compiled, one answer at a time to sixty-four, the shares of speed that are left stand with their intervals on the page [What it costs](../book/costs.md), beside what training such a value takes.

# %% [markdown]
# ## The main table
#
# Its rows:
#
# - **Base**: the plant alone. **Prompting**: the plant after a preface that names a prudent adviser. *+ Prompting* puts that preface before another method.
# - **Static RE** (chapter [11](11_difference_of_means)): one vector at every token, the weights of a regression of the reward on the state.
# - **CD**, {term}`controlled decoding`: the search above, by the reward of the text so far.
# - **CD prefix**: the same search by a {term}`prefix scorer`, a network that was trained to tell from a state what the answer will earn. The *Bellman scorer* is one of another training, described below.
# - **RE-Control** (chapter [22](22_gradient_control)): at every token the state climbs a fitted value. The *Monte-Carlo value* is fitted by another of the targets of chapter [21](21_bellman_on_hidden_states).
# - **best of n**: $n$ whole answers, of which the one of highest reward is kept.
# - **Controls**: the same climb on a value whose rewards were shuffled among the answers, and a random push.
#
# The records behind it come with the book and are checked again in every build. On each plant, each row's step sizes, weights or strengths were chosen by themselves, on validation prompts of the first data set and by the paper's rule ({prf:ref}`tables-rule`); best of {math}`n` has {math}`n = 4`, and of the random pushes the one was taken that diverges from the plant most nearly as far as RE-Control does. The second data set asks other families of requests, which nothing was fitted on, and pays by other weights; values and scorers are trained anew for its rewards, and the settings are carried over. Answers are sampled at temperature 1, also those of controlled decoding, which the paper runs greedily.

# %% tags=["hide-input"]
# Of real models, in a profile that has such tables: what has been run.
show_reruns("re_control", profile=profile)
whose, why_others = records_of("re_control", profile=profile)
if why_others:
    display(Markdown(why_others))

# %%
SETS = {"first": {}, "second": {"held_out": True, "rubric": "strict"}}
refs = [
    reference(name, profile=whose, page=page)
    for name in ("re_control_plants", "re_control", "re_control_further")
]
records = [record for ref in refs[:2] for record in ref.records]
every = value_plants.by_setting(records, SETS)
of_plant = {
    plant: [record for record in records if record.cell.plant == plant]
    for plant in dict.fromkeys(setting.plant for setting in every)
}
for mine in of_plant.values():
    assert not value_tables.misplaced(mine, SETS["first"])

# %% tags=["hide-input"]
large = list(dict.fromkeys(record.cell.plant for record in refs[0].records))
home, *_ = plants = [plant for plant in of_plant if plant in large]
(rung,) = (plant for plant in of_plant if plant not in large)
tables = {
    setting: rows for setting, rows in every.items() if setting.plant in plants
}
first = tables[PlantSet(home, "first")]
sample = first["unsteered"].scores["reward"]
page.record("n.prompts", sample.shape[1])
page.record("n.seeds", sample.shape[0])
page.record("n.fit", 2 * first["re-control"].cells[0].law.fit.n)
page.text("table.plants", ", ".join(plants))
page.text("table.home", home)
page.text("table.rung", rung)
page.text("time.plant", lm.name)


def setting_of(record):
    """What was chosen for a row, in words."""
    law, by = record.cell.law, record.cell.decoder
    if by is not None:
        return f"weight {by.options['weight']:g}"
    options = law.options
    return (
        f"{options['alpha']:g} × {options['steps']}"
        if "alpha" in options
        else f"{law.strength:g}"
    )


best_of = {
    plant: value_tables.chosen(mine, SETS["first"])
    for plant, mine in of_plant.items()
}


def knob(record):
    """The number that is chosen: a weight, a step size times steps, or a strength."""
    law, by = record.cell.law, record.cell.decoder
    if by is not None:
        return by.options["weight"]
    return law.options.get("alpha", law.strength) * law.options.get("steps", 1)


edges, at_edge = {"low": [], "high": []}, {}
for plant in of_plant:
    for row in filter(best_of[plant].get, value_tables.CHOSEN):
        tried = sorted(
            map(knob, value_tables.swept(of_plant[plant], SETS["first"], row))
        )
        for edge, end_ in zip(edges, (tried[0], tried[-1]), strict=True):
            if knob(best_of[plant][row]) == end_:
                edges[edge].append(f"{value_tables.ROWS[row]} on {plant}")
                at_edge[row, plant] = {"low": " ↓", "high": " ↑"}[edge]
for edge, found in edges.items():
    page.text(f"edge.{edge}", "; ".join(found) or "no row")
table(
    [(value_tables.ROWS[row],
      *(setting_of(of[row]) + at_edge.get((row, plant), "") if row in of else "–" for plant, of in best_of.items()))
     for row in (*value_tables.CHOSEN, "random-direction")],
    "chosen on validation prompts", *of_plant,
)  # fmt: skip

# %% [markdown]
# An arrow marks a setting at the lower (↓) or the upper (↑) end of what was tried. Below the lower end lies the plant alone, for a search with only its likeliest tokens to choose from. A setting beyond an end was not tried, and might have done better: such a row says what the method is worth at the settings that stand here, and no more.
#
# Settings of RE-Control are step size × steps, of pushes a length in units of the state, of searches the weight of the score. The plants of full size are {glue:text}`table.plants`; {glue:text}`table.rung` is the lowest rung of a ladder below them: it stands beside them where differences are shown, and alone where a question was asked of it alone. Each plant of full size has {glue:text}`n.prompts` test requests and {glue:text}`n.seeds` seeds to a row, each seed with a value and a scorer of its own, fitted on {glue:text}`n.fit` answers.

# %% tags=["hide-input"]
PRINTED = {
    "unsteered": "base", "cd": "cd", "cd-prefix": "cd_prefix",
    "re-control": "re_control", "re-control-prompting": "re_control_prompting",
}  # fmt: skip
TIMED = {
    "unsteered": "1", "static-re": "constant push", "random-direction": "constant push", "cd": "CD",
    "cd-prefix": "CD prefix", "cd-prefix-cd-q": "CD prefix", "best-of-n": "best of 4",
} | dict.fromkeys(
    ("re-control", "re-control-monte-carlo", "shuffled-rewards", "shuffled-rewards-monte-carlo"), "RE-Control"
)  # fmt: skip


def of_paper(claim):
    """Numbers of the main data set that stand beside a claim, by row."""
    rows = claims[f"recontrol.t1.{claim}"].published
    return {
        key: value
        for name, row in rows.items()
        if name.startswith("hh-vicuna")
        for key, value in row.items()
    }


paper = {
    "diversity": of_paper("diversity.is-kept"),
    "coherence": of_paper("coherence.is-kept"),
    "reward": of_paper("reward.prompting-adds"),
    "win": wins,
}


def printed(row, *columns):
    """What the paper has in some columns of a row, or dashes."""
    found = [paper[c].get(PRINTED.get(row, ""), None) for c in columns]
    return " / ".join("–" if x is None else f"{x:g}" for x in found)


def costs(row):
    """Time for each token over the plant alone, measured above."""
    name = TIMED.get(row, "–")
    return f"{ratio[name][16].value:z.2f}" if name in ratio else name


# %% tags=["hide-input"]
def main_table(setting):
    """The paper's rows and columns on one plant and data set; published numbers in a column of their own."""
    lines, beside = [], setting == PlantSet(home, "first")
    for name, row in every[setting].items():
        e = {c: row.estimate(c) for c in value_tables.COLUMNS}
        line = [value_tables.ROWS[name]]
        line += [
            f"{e[c].value:z.3f} ± {(e[c].high - e[c].low) / 2:.3f}"
            for c in ("diversity", "topic-agreement")
        ]
        line += [
            f"{signed(e['reward'], 2)}",
            interval(in_percent(e["win-rate"]), 0),
            percent(row.ties), "–" if np.isnan(row.kl) else f"{row.kl:.2f}", costs(name), row.scores["reward"].size,
        ]  # fmt: skip
        lines.append(
            [*line, printed(name, "diversity", "coherence", "reward", "win")]
            if beside
            else line
        )
    heads = [
        "Diversity",
        "Coherence",
        "Average reward",
        "Win rate, %",
        "ties",
        "KL",
        "time",
        "n",
    ]
    heads += ["published: Div / Coh / Rew / Win"] if beside else []
    return table(lines, f"{setting.plant}, {setting.data} set", *heads)


def main_tables(data):
    """Those of all plants on one data set."""
    for setting in tables:
        if setting.data == data:
            display(main_table(setting))


main_tables("first")

# %% [markdown]
# *n* counts answers, requests times seeds; intervals draw both anew. The last column of the first table is the paper's for Vicuna-7B on HH-RLHF where it is known, of another model, data set and reward: what may be compared is the order of rows, never the numbers. *KL* is the divergence from the unsteered plant in nats for each token, where a law acts. *Time* is that of the section above, for each token, over the plant alone, and was measured on {glue:text}`time.plant`; a preface adds words to the prompt and nothing to a token, and was not timed. {glue:text}`re_control_plants.recomputed`
#
# The second data set, whose families of requests no value and no scorer has seen:

# %% tags=["hide-input", "hide-output"]
main_tables("second")

# %% [markdown]
# Differences from the plant alone, paired over prompts and seeds, on every plant and data set:

# %%
gains = {
    setting: value_plants.changes(rows, "reward")
    for setting, rows in every.items()
}

# %% tags=["hide-input"]
for setting, changed in gains.items():
    for name, e in changed.items():
        page.record(f"gain.{setting.of(name)}", e, digits=2)
drawn_ = {
    f"{data} set": {
        value_tables.ROWS[name]: {
            s.plant: gains[s][name]
            for s in every
            if s.data == data and name in gains[s]
        }
        for name in value_tables.ROWS
        if name != "unsteered"
        and any(name in gains[s] for s in every if s.data == "first")
    }
    for data in dict.fromkeys(setting.data for setting in every)
}


def told_of(e):
    """Which side of zero an interval is on."""
    return "above" if e.low > 0 else "below" if e.high < 0 else "open"


def where(name, side):
    """Settings of the plants of full size in which a row's interval is on one side of zero."""
    return [
        s for s in tables if name in gains[s] and told_of(gains[s][name]) == side
    ]


rows_ = [
    name for name in value_tables.ROWS if any(name in gains[s] for s in tables)
]
page.figure(
    "gains",
    figures.effects(drawn_, xlabel="change in average reward"),
    alt="Change in average reward from the plant alone with 95 % intervals over prompts and seeds: a panel for each data "
    f"set, a line for each method, a mark for each plant. Of {len(tables)} settings of the plants of full size, the whole "
    "interval is above zero in so many: "
    + ", ".join(f"{label} {len(where(name, 'above'))}" for name, label in value_tables.ROWS.items() if name in rows_)
    + ".",
)  # fmt: skip


# %% tags=["hide-input"]
def spelled(settings):
    """Settings in words, or none."""
    by = {}
    for s in settings:
        by.setdefault(s.plant, []).append(s.data)
    return (
        ", ".join(f"{plant} ({' and '.join(sets)})" for plant, sets in by.items())
        or "nowhere"
    )


table(
    [(value_tables.ROWS[name], spelled(where(name, "above")), spelled(where(name, "below")),
      f"{min(gains[s][name].value for s in tables if name in gains[s]):+z.2f} to "
      f"{max(gains[s][name].value for s in tables if name in gains[s]):+z.2f}")
     for name in rows_],
    "change in average reward", "whole interval above zero", "whole interval below zero", "estimates",
)  # fmt: skip


# %% tags=["hide-input"]
def told_in(name):
    """On which plants and sets a row has found something, in one clause."""
    up, down = where(name, "above"), where(name, "below")
    asked = [s for s in tables if name in gains[s]]
    if len(up) == len(asked):
        return f"raises the reward in every one of {len(asked)} settings"
    said = f"raises the reward in {len(up)} of {len(asked)} settings" + (
        f": {spelled(up)}" if up else ""
    )
    return said + (f"; lowers it in {len(down)}: {spelled(down)}" if down else "")


for name in ("re-control", "re-control-monte-carlo", "cd-prefix", "cd-prefix-cd-q", "best-of-n", "prompting",
             "shuffled-rewards", "shuffled-rewards-monte-carlo", "random-direction", "static-re"):  # fmt: skip
    page.text(f"told.{name}", told_in(name) if name in rows_ else "was not run")

# %% [markdown]
# (A setting is a plant on a data set; an effect counts where its whole interval is on one side of zero. None is widened for the number of settings.)
#
# - RE-Control {glue:text}`told.re-control`. With a Monte-Carlo value it {glue:text}`told.re-control-monte-carlo`.
# - Prompting {glue:text}`told.prompting`; CD prefix {glue:text}`told.cd-prefix`; best of four {glue:text}`told.best-of-n`.
# - The controls: the same ascent on a value whose rewards were shuffled {glue:text}`told.shuffled-rewards`, and a random push that diverges about as far {glue:text}`told.random-direction`.
#
# A method has found something if it is above *both*; a value of shuffled rewards knows where states lie, but not what they earn.

# %%
pairs = {
    "RE-Control above the value of shuffled rewards": ("re-control", "shuffled-rewards"),
    "RE-Control above the random push": ("re-control", "random-direction"),
    "RE-Control above Static RE": ("re-control", "static-re"),
    "what prompting adds to RE-Control": ("re-control-prompting", "re-control"),
    "what RE-Control adds to prompting": ("re-control-prompting", "prompting"),
    "a Monte-Carlo value above its shuffled control": ("re-control-monte-carlo", "shuffled-rewards-monte-carlo"),
    "a Monte-Carlo value above the paper's": ("re-control-monte-carlo", "re-control"),
    "CD prefix above the Monte-Carlo ascent": ("cd-prefix", "re-control-monte-carlo"),
    "best of n above RE-Control": ("best-of-n", "re-control"),
}  # fmt: skip


# %%
def compared(rows_of_pairs):
    """The difference of two rows in every setting that has both."""
    return {
        name: {
            s: metrics.paired_grid_difference(
                rows[a].scores["reward"], rows[b].scores["reward"]
            )
            for s, rows in every.items()
            if a in rows and b in rows
        }
        for name, (a, b) in rows_of_pairs.items()
    }


contrasts = compared(pairs)


# %% tags=["hide-input"]
def beside(data, named):
    """Comparisons on one data set, a column for each plant."""
    asked = [s for s in every if s.data == data]
    lines = {name: contrasts[name] for name in named}
    return table(
        [(name, *(f"{signed(found[s])}, {p_value(found[s].p)}" if s in found else "not run" for s in asked))
         for name, found in lines.items()],
        f"{data} set, average reward", *(s.plant for s in asked),
    )  # fmt: skip


def keep(rows_of_pairs):
    """Write comparisons down."""
    for name, (a, b) in rows_of_pairs.items():
        for s, e in contrasts[name].items():
            page.record(f"beside.{a}.{b}@{s.plant}/{s.data}", e, digits=2)


for data in SETS:
    display(beside(data, pairs))

# %% tags=["hide-input"]
keep(pairs)


def stands(*names):
    """Settings of the plants of full size in which all these comparisons are above zero with their whole interval."""
    asked = [s for s in tables if all(s in contrasts[n] for n in names)]
    found = [s for s in asked if all(contrasts[n][s].low > 0 for n in names)]
    return f"in {len(found)} of {len(asked)} settings" + (
        f" ({spelled(found)})" if found else ""
    )


page.text(
    "controls.said",
    stands(
        "RE-Control above the value of shuffled rewards",
        "RE-Control above the random push",
    ),
)
page.text("target.said", stands("a Monte-Carlo value above its shuffled control"))
page.text("target.paper", stands("a Monte-Carlo value above the paper's"))
page.text("best.said", stands("best of n above RE-Control"))
page.text("static.said", stands("RE-Control above Static RE"))
page.text("preface.said", stands("what RE-Control adds to prompting"))
for name in ("re-control", "re-control-monte-carlo"):
    page.record(f"kl.{name}", first[name].kl, digits=3, unit="nats", note=home)

# %% [markdown]
# (An interval draws prompts and seeds anew; *p* is of a two-sided test that flips the signs of the prompts' differences and takes the seeds as they are. Where seeds disagree, the interval can hold zero though *p* is small; the sentences below go by the interval.)
#
# - RE-Control stands above both controls {glue:text}`controls.said`.
# - It stands above Static RE {glue:text}`static.said`.
# - It adds to prompting {glue:text}`preface.said`.
# - Best of four, a row that no table of the paper has and that needs no training, is above RE-Control {glue:text}`best.said`.
#
# Is it the ascent that fails where it does, or the value? CD prefix reads the same states and was trained on as many answers, by regression on the reward at every position; the row *Monte-Carlo value* has RE-Control ascend a value fitted in that way, and the training target and the step size that the rule chose for it differ from the paper's (on {glue:text}`table.home` it diverges from the plant by {glue:text}`kl.re-control-monte-carlo` a token, RE-Control by {glue:text}`kl.re-control`, so that the two are not at equal effort). It is above its own shuffled control {glue:text}`target.said`, and above the paper's target {glue:text}`target.paper`.
#
# ### Search with a preface, and with a scorer of another training
#
# Three rows of the main table are not in the paper's: CD with the preface, and a prefix scorer that is trained as the paper's value is, without the preface and with it. Its states, its network and its answers are those of CD prefix; but where that one is drawn to the reward of the whole answer at every position (FUDGE), this one is drawn to its own value one token later, and to the reward at the end alone (CD-Q, {cite:p}`mudgal2024cd`, a Bellman equation). Its weight was chosen on validation prompts, too: {glue:text}`search.weights`. On {glue:text}`table.rung`, which the tables above leave out:

# %% tags=["hide-input"]
page.text(
    "search.weights",
    ", ".join(
        f"{of['cd-prefix-cd-q'].cell.decoder.options['weight']:g} on {plant}"
        for plant, of in best_of.items()
    ),
)
for data in SETS:
    display(main_table(PlantSet(rung, data)))

# %% [markdown]
# And what these rows say of each other, on every plant:

# %%
searches = {
    "what a preface adds to CD": ("cd-prompting", "cd"),
    "what a preface adds to CD prefix": ("cd-prefix-prompting", "cd-prefix"),
    "what it adds to the Bellman scorer": ("cd-prefix-cd-q-prompting", "cd-prefix-cd-q"),
    "CD prefix above the plant alone": ("cd-prefix", "unsteered"),
    "the Bellman scorer above the plant alone": ("cd-prefix-cd-q", "unsteered"),
    "outcomes above Bellman's equation": ("cd-prefix", "cd-prefix-cd-q"),
    "CD above the Bellman scorer": ("cd", "cd-prefix-cd-q"),
    "CD + Prompting above RE-Control + Prompting": ("cd-prompting", "re-control-prompting"),
    "CD prefix + Prompting above RE-Control + Prompting": ("cd-prefix-prompting", "re-control-prompting"),
}  # fmt: skip
contrasts |= compared(searches)

# %% tags=["hide-input"]
keep(searches)
for name, key in {
    "what a preface adds to CD": "preface.cd",
    "what a preface adds to CD prefix": "preface.cd-prefix",
    "outcomes above Bellman's equation": "outcomes",
    "CD above the Bellman scorer": "reward-itself",
    "CD + Prompting above RE-Control + Prompting": "prompted.cd",
    "CD prefix + Prompting above RE-Control + Prompting": "prompted.cd-prefix",
}.items():
    page.text(f"search.{key}", stands(name))
for data in SETS:
    display(beside(data, searches))

# %% [markdown]
# On the plants of full size:
#
# - A preface raises the reward of CD {glue:text}`search.preface.cd`, and that of CD prefix {glue:text}`search.preface.cd-prefix`: the scorer of a prefix was trained on answers to prompts without one.
# - With the preface in both, CD is above RE-Control {glue:text}`search.prompted.cd`, CD prefix {glue:text}`search.prompted.cd-prefix`.
# - The Bellman scorer {glue:text}`told.cd-prefix-cd-q`; the scorer that saw outcomes {glue:text}`told.cd-prefix`, and is above it {glue:text}`search.outcomes`.
# - The reward itself, asked about every beginning, is above the Bellman scorer {glue:text}`search.reward-itself`.
#
# A search with a small weight hardly hears its scorer and is left with the choice among the likeliest tokens, which chapter [24](24_search_and_tuning) shows to be worth something by itself; where the rule chose the least weight that was tried, the row is little more than that. A reward that comes once, at the end, has to travel back through the values of all tokens before it, and chapter [21](21_bellman_on_hidden_states) shows what else is lost where the state does not say what was written. That goes for the value that RE-Control ascends as it does for the one that search asks.

# %% [markdown]
# ## How much is too much
#
# The paper's sweeps: the step size at a fixed number of steps, and the number of steps at a fixed size, on validation prompts. Beyond some point the ascent earns by $V$ and not by the reward: states leave what the value was fitted on, and coherence and diversity fall. This is called **{term}`over-optimisation`**, and in control words it is a controller that trusts its model outside the data.

# %%
ran = value_tables.swept(of_plant[home], SETS["first"], "re-control")
bare = value_tables.swept(of_plant[home], SETS["first"], "unsteered")[0]
best = best_of[home]["re-control"].cell.law.options


def along(knob, other, held):
    """Records along one knob with the other held: knob -> record."""
    found = {
        r.cell.law.options[knob]: r
        for r in ran
        if r.cell.law.options[other] == held
    }
    return dict(sorted({0: bare, **found}.items()))


held = max(
    {r.cell.law.options["alpha"] for r in ran},
    key=lambda a: len(along("steps", "alpha", a)),
)
sizes, counts = along("alpha", "steps", 10), along("steps", "alpha", held)


# %% tags=["hide-input"]
def curves(found):
    """Estimates of three columns along a knob."""
    names = {
        "reward": "reward",
        "topic-agreement": "coherence",
        "diversity": "diversity",
    }
    return {
        name: [metrics.mean_interval(np.array(r.more[c], dtype=float)) for r in found.values()]
        for c, name in names.items()
    }  # fmt: skip


by_size = curves(sizes)
page.text("chosen.alpha", f"{best['alpha']:g}")
page.text("chosen.steps", f"{best['steps']:g}")
page.text("chosen.held", f"{held:g}")
end = {name: es[-1] for name, es in by_size.items()}
for name, e in end.items():
    page.record(f"most.{name}", e, digits=2)
    page.record(f"least.{name}", by_size[name][0], digits=2)


def sweep_figure(name, found, knob, held):
    """Three scores along a knob, beside the reward without control."""
    scores = curves(found)
    alone = scores["reward"][0].value
    page.figure(
        name,
        figures.over(
            list(found)[1:],
            {held: figures.Panel(
                {n: es[1:] for n, es in scores.items()}, ylabel="score, validation prompts",
                line=("reward without control", alone))},
            xlabel=knob, log_x=True,
        ),
        alt=f"Reward, coherence and diversity against the {knob}, {held}, on validation "
        "prompts with 95 % intervals. "
        + " ".join(
            f"{n}: " + ", ".join(f"{e.value:z.2f} at {x:g}" for x, e in zip(found, es, strict=True)) + "."
            for n, es in scores.items()
        ),
    )  # fmt: skip


sweep_figure("step-size", sizes, "step size", "10 steps")

# %% [markdown]
# On {glue:text}`table.home`, chosen by the paper's rule: step size {glue:text}`chosen.alpha` with {glue:text}`chosen.steps` steps. At the largest size the reward is {glue:text}`most.reward` (without control {glue:text}`least.reward`), coherence {glue:text}`most.coherence` ({glue:text}`least.coherence`) and diversity {glue:text}`most.diversity` ({glue:text}`least.diversity`).

# %% tags=["hide-input"]
sweep_figure("step-count", counts, "number of steps", f"step size {held:g}")

# %% tags=["hide-input"]
sweeps = {
    plant: sorted(
        value_tables.swept(mine, SETS["first"], "re-control"),
        key=lambda r: (
            r.cell.law.options["alpha"] * r.cell.law.options["steps"],
            r.cell.law.options["steps"],
        ),
    )
    for plant, mine in of_plant.items()
}
ends = {
    plant: (
        value_tables.swept(of_plant[plant], SETS["first"], "unsteered")[0],
        tried[-1],
    )
    for plant, tried in sweeps.items()
}
lost = [
    plant for plant, (start, end_) in ends.items()
    if all(np.mean(end_.more[c]) < np.mean(start.more[c]) for c in ("reward", "topic-agreement"))
]  # fmt: skip
page.text("n.swept", str(len(bare.more["reward"])))
page.text("lost", " and ".join(lost) or "none of the plants")
table(
    [
        (plant, setting_of(r), *(f"{np.mean(r.more[c]):+z.2f}" for c in ("reward", "topic-agreement", "diversity")),
         f"{r.metrics['kl'].value:z.3f}", f"{value_tables.goodness(r):.2f}",
         "chosen" if r is best_of[plant]["re-control"] else "")
        for plant, tried in sweeps.items() for r in tried
    ],
    "plant", "step size × steps", "reward", "coherence", "diversity", "KL", "sum of the rule", "",
)  # fmt: skip

# %% [markdown]
# The whole sweep, in the order of size times steps, {glue:text}`n.swept` validation prompts each. At its far end both reward and coherence are below those without control on {glue:text}`lost`. With so few prompts the rule's choice among neighbours is luck; that the far end is bad is not.

# %%
same = {}
for plant, tried in sweeps.items():
    for found in tried:
        options = found.cell.law.options
        way = options["alpha"] * options["steps"]
        same.setdefault((plant, way), []).append(found)
same = {key: both for key, both in same.items() if len(both) == 2}
rows = [
    (plant, setting_of(r), f"{np.mean(r.more['reward']):+z.3f}", f"{r.metrics['kl'].value:z.3f}")
    for (plant, _), both in same.items() for r in both
]  # fmt: skip
table(rows, "plant", "step size × steps", "reward", "KL")

# %% tags=["hide-input"]
turned = [
    abs(np.mean(a.more["reward"]) - np.mean(b.more["reward"]))
    for a, b in same.values()
]
page.record("knobs.apart", max(turned), digits=3)

# %% [markdown]
# Two knobs, or one? Where size times number is the same, which the sweep of the lowest rung has, the rewards differ by at most {glue:text}`knobs.apart`: with this value the gradient hardly turns along the way, and what counts is how long the way is. A trust region makes that length the knob, in units of the state.

# %% [markdown]
# ### What more steps buy
#
# A figure of the paper has the win rate against time as the number of steps grows. Time is measured here, the win rate is that of the validation records of {glue:text}`table.home` at step size {glue:text}`chosen.held`.

# %%
bought = {}
for count, record in counts.items():
    stepped = ReControl(steps=int(count), alpha=float(law.alpha))
    stepped.hold(law.network, law.header)
    spent = [seconds(Plain(), 8, stepped) / seconds(Plain(), 8) for _ in range(3)]
    won = metrics.mean_interval(np.array(record.more["win-rate"], dtype=float))
    bought[int(count)] = (float(np.mean(spent)), won)
table([(n, f"{t:.2f}", f"{100 * e.value:z.0f} % [{100 * e.low:z.0f}, {100 * e.high:z.0f}]")
     for n, (t, e) in bought.items()], "steps", "time / the plant's", "win rate")  # fmt: skip

# %% [markdown]
# And what does more of the rivals buy? The same question on {glue:text}`table.rung`, whose records have more of it: {glue:text}`n.counted` test answers for each number of steps, and of answers of which the best is kept, beside both forms of search. Time is for each token that is answered, at batch 8, measured here; that of an ascent depends on the sizes of its network alone, so that one with first weights will do. {glue:text}`re_control_further.recomputed`

# %%
FURTHER = refs[2].records
counted = {}
for record in {r.key: r for r in (*of_plant[rung], *FURTHER)}.values():
    asked_ = record.cell.split, record.cell.task_options, record.cell.told
    row = value_tables.row_of(record.cell)
    if asked_ == ("test", {}, False):
        spec = record.cell.decoder or record.cell.law
        options = spec.options if spec else {}
        n = options.get("n", options.get("steps", 0))
        counted.setdefault(row, {}).setdefault(n, []).append(record)


def won_by(row, n=0, column="win-rate"):
    """A score of a row with so many steps or answers: (seeds, prompts)."""
    ordered = sorted(counted[row][n], key=lambda r: r.cell.seed)
    return np.array([r.more[column] for r in ordered], dtype=float)


# %%
little = Plant.load(rung, dtype=torch.float32)
placed = replace(
    law.header,
    plant=little.name,
    weight_hash=little.weight_hash,
    width=little.width,
    layer=READ_OUT.resolve(little.depth).layer,
)
network = seeded(lambda: ValueNetwork(little.width, little.width), seed=seeds[0])
ten = {"k": 10, "weight": 4.0}
timed = {
    ("cd", 0): (ControlledDecoding(TextScorer(reward), **ten), None),
    ("cd-prefix", 0): (ControlledDecoding(StateScorer(network), **ten), None),
    **{("best-of-n", n): (BestOf(reward, n=n), None) for n in (2, 4, 8)},
    **{
        ("re-control", n): (
            Plain(),
            ReControl(steps=n, alpha=1e-3).hold(network, placed),
        )
        for n in (3, 10, 30)
    },
}

# %%
logs = {key: [] for key in timed}
for way, under in timed.values():
    seconds(way, 8, under, little)  # first calls cost more
for _ in range(3):
    alone = seconds(Plain(), 8, on=little)
    for key, (way, under) in timed.items():
        logs[key].append(np.log(seconds(way, 8, under, little) / alone))


def times(row):
    """Time over that of the plant alone, for each number of a row."""
    found = [
        metrics.mean_interval(log)
        for (name, _), log in logs.items()
        if name == row
    ]
    return [
        metrics.Estimate(*np.exp([e.value, e.low, e.high]).tolist(), e.n)
        for e in found
    ]


# %% tags=["hide-input"]
MORE = {
    "best-of-n": ("best of n", "best-of-n", (2, 4, 8)),
    "re-control": ("RE-Control, n steps", "re-control", (3, 10, 30)),
    "re-control-monte-carlo": ("the same, Monte-Carlo value", "re-control", (3, 10, 30)),
    "cd": ("CD", "cd", (0,)),
    "cd-prefix": ("CD prefix", "cd-prefix", (0,)),
    "cd-prefix-cd-q": ("CD prefix, Bellman scorer", "cd-prefix", (0,)),
}  # fmt: skip
fields = {
    name: figures.Front(
        times(clocked), [metrics.grid_interval(100 * won_by(row, n)) for n in ns]
    )
    for row, (name, clocked, ns) in MORE.items()
}
bare_won = 100 * float(won_by("unsteered").mean())
page.figure(
    "more-for-time",
    figures.more_for_time(
        fields,
        {name: ns for name, _, ns in MORE.values() if ns != (0,)},
        xlabel="time for each token / the plant's own", ylabel="win rate, %",
        line=("the plant alone", bare_won),
    ),
    alt=f"Win rate against time for each token, {rung}; the plant alone wins {bare_won:.0f} %. "
    + " ".join(
        f"{name}: " + ", ".join(
            f"{e.value:z.0f} %" + (f" with n = {n}" if n else "") + f" in {t.value:z.1f} times the time"
            for n, t, e in zip(ns, fields[name].cost, fields[name].effect, strict=True)
        ) + "."
        for name, _, ns in MORE.values()
    ),
)  # fmt: skip
page.record("n.counted", won_by("unsteered").size)
page.record("counted.alone", bare_won, digits=0, unit="%")
for row, key, many, few in (
    ("best-of-n", "best", 8, 2), ("re-control", "steps", 30, 10), ("re-control-monte-carlo", "learned", 30, 10)
):  # fmt: skip
    more_won = metrics.paired_grid_difference(
        100 * won_by(row, many), 100 * won_by(row, few)
    )
    page.record(f"counted.{key}", more_won, digits=0, note="points")

# %% [markdown]
# From 2 to 8 answers the win rate changes by {glue:text}`counted.best` points; the plant alone has {glue:text}`counted.alone`. From 10 to 30 steps it changes by {glue:text}`counted.steps` points under the paper's value and by {glue:text}`counted.learned` under one of Monte-Carlo regression. More answers are more draws, judged by the reward itself; more steps go further along one estimate of it, which no amount of time makes better.

# %% [markdown]
# ## Break it
#
# *The rule of choice.* Multiply the reward by ten, which changes no comparison between answers, and choose again; or divide by ten.


# %%
def choice(scale):
    """Setting with the largest coherence + diversity + scaled reward."""

    def total(r):
        *kept, earned_ = (np.mean(r.more[c]) for c in value_tables.RULE)
        return sum(kept) + scale * earned_

    options = max(ran, key=total).cell.law.options
    return f"step size {options['alpha']:g}, {options['steps']} steps"


picks = {scale: choice(scale) for scale in (0.1, 1.0, 10.0)}
assert picks[1.0].startswith(f"step size {best['alpha']:g},")
table([(f"{s:g}", pick) for s, pick in picks.items()], "reward times", "choice")

# %% tags=["hide-input"]
page.text(
    "rule.said",
    "all three agree here" if len(set(picks.values())) == 1
    else "the choice depends on the unit of the reward",
)  # fmt: skip

# %% [markdown]
# On {glue:text}`table.home` {glue:text}`rule.said`; {prf:ref}`tables-rule` says what happens in the limits. A rule that does not depend on units is to keep nine tenths of diversity and coherence and take the highest reward among what is left, as the race of chapter [15](15_horse_race) does.
#
# *One judge for both.* The value is trained on the reward that the table reports. That is legitimate for an oracle, and circular for a learned reward model: whoever ascends its errors is paid for them. The win rate of the same reward is not a second opinion.
#
# *Requests that nothing has seen.* The second data set above is one such test: its families of requests are none that a value was fitted on. But it pays by other weights, too, and its values are fitted anew for them.

# %% tags=["hide-input"]
asked = (
    "static-re",
    "cd-prefix",
    "re-control",
    "re-control-monte-carlo",
    "re-control-prompting",
    "shuffled-rewards",
)
table(
    [
        (value_tables.ROWS[name], *(signed(gains[s][name]) if name in gains[s] else "not run" for s in tables))
        for name in asked if name in rows_
    ],
    "change in reward", *(f"{s.plant}, {s.data} set" for s in tables),
)  # fmt: skip

# %% [markdown]
# *The same, and the value as it is.* So that the requests change and nothing else, the very values, pushes and scorers of the first set now meet those families, paid by the weights that they were fitted for. On {glue:text}`table.rung`:

# %%
carried = value_tables.rows(FURTHER, {"held_out": True})
at_home = every[PlantSet(rung, "first")]
for name, row in carried.items():
    for here, there in zip(row.cells, at_home[name].cells, strict=True):
        if here.law:  # the same fit of the same law, as a record says it
            fit = here.law.fit.model_copy(update={"task": None})
            assert here.law.model_copy(update={"fit": fit}) == there.law
kept = value_plants.changes(carried, "reward")

# %% tags=["hide-input"]
known = gains[PlantSet(rung, "first")]
anew = gains[PlantSet(rung, "second")]
table(
    [
        (value_tables.ROWS[name], signed(known[name]), signed(e), signed(anew[name]) if name in anew else "not run")
        for name, e in kept.items()
    ],
    "change in reward", "first set: families of the fit", "other families, the fit as it is",
    "second set: other families and weights, fitted anew",
)  # fmt: skip

# %% tags=["hide-input"]
for name, e in kept.items():
    page.record(f"carried.{name}", e, digits=2)
against = {
    "re-control": "shuffled-rewards",
    "re-control-monte-carlo": "shuffled-rewards-monte-carlo",
}
for name, control in against.items():
    scores = [carried[row].scores["reward"] for row in (name, control)]
    over_control = metrics.paired_grid_difference(*scores)
    page.record(f"carried.{name}.over-shuffled", over_control, digits=2)
base = carried["unsteered"].scores["reward"]
least = metrics.detectable_effect(
    (carried["re-control"].scores["reward"] - base).mean(0)
)
page.record("carried.least", least, digits=2)
controlled = contrasts["RE-Control above the value of shuffled rewards"]
page.record("carried.at-home", controlled[PlantSet(rung, "first")], digits=2)
page.record("carried.n", base.size)
page.text(
    "carried.said",
    ", ".join(value_tables.ROWS[name] for name, e in kept.items() if e.low > 0)
    or "no row",
)
page.text(
    "carried.lost",
    ", ".join(value_tables.ROWS[name] for name, e in kept.items() if e.high < 0)
    or "no row",
)

# %% [markdown]
# On {glue:text}`carried.n` answers to requests of other families RE-Control with its value as it is changes the reward by {glue:text}`carried.re-control`. Against its control, the same ascent on a value of shuffled rewards, the difference is {glue:text}`carried.re-control.over-shuffled`; on the families of the fit it was {glue:text}`carried.at-home`, and where that interval holds zero there was little to carry. With a Monte-Carlo value the reward changes by {glue:text}`carried.re-control-monte-carlo`, and by {glue:text}`carried.re-control-monte-carlo.over-shuffled` against that value's own control. A change of {glue:text}`carried.least` would have been found in four of five cases. The whole interval is above zero for {glue:text}`carried.said`, and below it for {glue:text}`carried.lost`. The paper's figure on questions from elsewhere has RE-Control with the preface first; here it changes the reward by {glue:text}`carried.re-control-prompting`.

# %% [markdown]
# **In control words.** The main table compares a controller with a model of the cost-to-go (RE-Control), a constant input (Static RE), a reference change (prompting), one-step search by what has been earned so far (CD) or by a learned cost-to-go (CD prefix), and whole answers by their true reward (best of $n$). The true reward of a beginning is not the cost-to-go: it knows nothing of what is still to come, so that a learned cost-to-go can do better than it.
#
# ## Exercises
#
# Replace the body of the stub, run the stub and the cell of tests below it, then call the test on your function, for example `check_23_1(win_rate)`. Silence means that it passed. Each exercise stands alone; run `import numpy as np` first. Solutions are folded; open one by a click.
#
# ### Exercise 23.1: wins, ties, losses
#
# *Easy, 5 minutes.* Return the paper's win rate (a win is strictly higher) and the share of ties. Rewards that differ by less than `tol` are equal: sums of the same numbers in another order are.

# %% tags=["exercise-setup", "ex:23.1", "ex:23.2", "ex:23.3"]
import numpy as np


# %% tags=["exercise-stub", "ex:23.1"]
def win_rate(ours, theirs, tol=1e-9):
    """Two arrays (n,) -> (share of wins, share of ties)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:23.1"]
def check_23_1(win_rate):
    ours, theirs = np.array([1.0, 2, 3, 0.1 + 0.2]), np.array([1.0, 1, 4, 0.3])
    assert np.allclose(win_rate(ours, theirs), (0.25, 0.5))
    assert np.allclose(win_rate(theirs, ours), (0.25, 0.5))
    assert np.allclose(win_rate(ours, ours), (0.0, 1.0)), "a tie is no win"


# %% tags=["exercise-wrong", "ex:23.1", "remove-cell"]
def win_rate(ours, theirs, tol=1e-9):  # compares sums of floats with ==
    return float((ours > theirs).mean()), float((ours == theirs).mean())


# %% tags=["exercise-solution", "ex:23.1", "hide-cell"]
def win_rate(ours, theirs, tol=1e-9):
    gap = ours - theirs
    return float((gap > tol).mean()), float((np.abs(gap) <= tol).mean())


# %%
check_23_1(win_rate)

# %% [markdown]
# ### Exercise 23.2: paired or not
#
# *Medium, 10 minutes.* Two methods answered the same prompts; `a` and `b` say of each prompt whether that method won. Return the standard error of the difference of the two win rates twice: as if the prompts were others for each, and paired ({prf:ref}`tables-binomial`).


# %% tags=["exercise-stub", "ex:23.2"]
def errors_of_gap(a, b):
    """Two arrays (n,) of zeros and ones -> (independent, paired)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:23.2"]
def check_23_2(errors_of_gap):
    a, b = np.array([1, 1, 1, 0]), np.array([1, 1, 0, 0])
    independent, paired = errors_of_gap(a, b)
    assert np.isclose(independent**2, (3 / 16 + 4 / 16) / 4)
    assert np.isclose(paired**2, (1 / 4 - 1 / 16) / 4)
    assert np.isclose(errors_of_gap(a, a)[1], 0.0), "they never differ"
    assert np.isclose(errors_of_gap(a, 1 - a)[1] ** 2, (1 - 1 / 4) / 4)


# %% tags=["exercise-wrong", "ex:23.2", "remove-cell"]
def errors_of_gap(a, b):  # forgets the mean of the difference
    one = [x.mean() * (1 - x.mean()) for x in (a, b)]
    return float(np.sqrt(sum(one) / len(a))), float(
        np.sqrt(np.mean(a != b) / len(a))
    )


# %% tags=["exercise-solution", "ex:23.2", "hide-cell"]
def errors_of_gap(a, b):
    one = [x.mean() * (1 - x.mean()) for x in (a, b)]
    return float(np.sqrt(sum(one) / len(a))), float(
        (a - b).std() / np.sqrt(len(a))
    )


# %%
check_23_2(errors_of_gap)

# %% [markdown]
# ### Exercise 23.3: what best of n expects
#
# *Medium, 10 minutes.* From a pool of $N$ rewards, the expected highest of $n$ drawn without putting back. (Of the $\binom{N}{n}$ subsets, the $i$-th smallest reward is the highest of $\binom{i-1}{n-1}$.)


# %% tags=["exercise-stub", "ex:23.3"]
def best_of(pool, n):
    """Rewards (N,), n -> expected highest of n."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:23.3"]
def check_23_3(best_of):
    from itertools import combinations

    pool = np.array([3.0, 0.0, 2.0, 2.0, -1.0])
    for n in range(1, 6):
        every = [max(some) for some in combinations(pool, n)]
        assert np.isclose(best_of(pool, n), np.mean(every)), f"n = {n}"


# %% tags=["exercise-wrong", "ex:23.3", "remove-cell"]
def best_of(pool, n):  # draws with putting back
    rank = np.arange(1, len(pool) + 1) / len(pool)
    weights = rank**n - (rank - 1 / len(pool)) ** n
    return float(weights @ np.sort(pool))


# %% tags=["exercise-solution", "ex:23.3", "hide-cell"]
def best_of(pool, n):
    from math import comb

    size = len(pool)
    weights = [comb(i - 1, n - 1) / comb(size, n) for i in range(1, size + 1)]
    return float(np.array(weights) @ np.sort(pool))


# %%
check_23_3(best_of)

# %% [markdown]
# ## Claims checked here
#
# What the paper {cite:p}`kong2024recontrol` says of its main table, tested on small plants in a decidable world ({glue:text}`table.plants`), with the oracle's reward in the place of its reward model and the adviser's reply in the place of the preferred answer. A sentence on every model and data set is tested as one: each of its comparisons must be significant by itself, and one that is not leaves the sentence open (an {term}`intersection-union test`). The table says what was checked here, and against which row on which plant and data set it was decided; the sentence of the paper that it answers is at the foot of the page. It stands beside the published numbers and not in their place.

# %% tags=["hide-input"]
NOTE = "records of " + ", ".join(plants) + "; sampled answers"
OURS = {
    "everywhere": ("re-control", ("first", "second")),
    "prompted": ("re-control-prompting", ("first", "second")),
    "main": ("re-control", ("first",)),
    "second": ("re-control", ("second",)),
    "shifted": ("re-control-prompting", ("second",)),
    "learned": ("re-control-monte-carlo", ("first", "second")),
}
SCORES = {
    "reward": "reward",
    "win-rate": "win-rate",
    "diversity": "diversity",
    "coherence": "topic-agreement",
}
mine = [c for c in claims.values() if c.page == page.record_file.page]
waiting = {}
for claim in mine:
    about, _, score = claim.metric.partition(".")
    if about in OURS and score in SCORES and profile in claim.profiles:
        waiting.setdefault((about, score), []).append(claim)
for (about, score), needs in waiting.items():
    row, data = OURS[about]
    asked = {
        s: rows for s, rows in tables.items() if s.data in data and row in rows
    }
    samples = value_plants.relative(asked, row, SCORES[score]) if asked else {}
    for claim in needs:
        if lacking := [key for key in claim.keys if key not in samples]:
            parts = dict.fromkeys(key.partition("@")[2] or key for key in lacking)
            page.cannot_check(claim.id, why=f"not run yet: {', '.join(parts)}")
        elif not almanac:
            page.cannot_check(claim.id, why=f"the records are not of {lm.name}")
    if samples:
        named = {key for claim in needs for key in claim.keys}
        held_ = {key: grid for key, grid in samples.items() if key in named}
        page.samples(f"{about}.{score}", held_ or samples, note=NOTE)
_ = page.samples(
    "preference.reward",
    {name: row.scores["reward"] for name, row in first.items()},
    note=f"records of {home}, first set",
)

# %% tags=["hide-input"]
if not almanac:
    page.cannot_check(
        "recontrol.ood.win.with-the-value-as-it-is",
        why=f"the records are not of {lm.name}",
    )
_ = page.samples(
    "carried.win-rate",
    {name: row.scores["win-rate"] for name, row in carried.items()},
    note=f"records of {rung}, families of requests that nothing was fitted on",
)

# %% tags=["hide-input"]
checks = page.record_file.checks


def in_rows(note):
    """A note with the names of the table's rows in the place of their keys."""
    keys = r"[a-z]+(?:-[a-z]+)*"
    return re.sub(keys, lambda m: value_tables.ROWS.get(m[0], m[0]), note)


rows = [
    (c.derived or c.says, checks[c.id].verdict, in_rows(noted(checks[c.id].note.split(";")[0])))
    for c in mine if c.id in checks
]  # fmt: skip
counted = Counter(word for _, word, _ in rows)
page.text("claims.count", ", ".join(f"{n} {word}" for word, n in counted.items()))
table(rows, "claim", "here", "what decided")

# %% [markdown]
# In all: {glue:text}`claims.count`.
#
# ## What we found

# %% tags=["hide-input"]
texts = page.record_file.texts
best_rows = {
    s: max(found, key=lambda n: found[n].value)
    for s, found in gains.items()
    if s in tables
}
largest = {}
for s, n in best_rows.items():
    largest.setdefault(n, []).append(gains[s][n].value)
points = [
    f"On {', '.join(plants)}, {sample.shape[1]} requests and {sample.shape[0]} seeds each, RE-Control {texts['told.re-control']}; "
    f"with a Monte-Carlo value it {texts['told.re-control-monte-carlo']}.",
    "The largest change in average reward: "
    + "; ".join(
        f"{value_tables.ROWS[n]} in {len(found)} of {len(best_rows)} settings (by {min(found):+z.2f} to {max(found):+z.2f})"
        for n, found in largest.items()
    ) + ".",
    f"RE-Control stands above both of its controls {texts['controls.said']}; the Monte-Carlo value above its own {texts['target.said']}.",
    f"At the largest step size of the sweep on {home} diversity is {end['diversity'].value:z.2f} and coherence "
    f"{end['coherence'].value:z.2f}, from {by_size['diversity'][0].value:z.2f} and "
    f"{by_size['coherence'][0].value:z.2f} without control.",
    f"A token at batch 16 takes RE-Control {ratio['RE-Control'][16].value:z.2f} times as long as the plant alone, "
    f"CD {ratio['CD'][16].value:z.1f} times and CD prefix {ratio['CD prefix'][16].value:z.1f} times.",
    f"On {rung}, from 2 to 8 answers the win rate changes by {page.record_file.values['counted.best'].shown} points, from "
    f"10 to 30 steps by {page.record_file.values['counted.steps'].shown}; on requests of other families, with the value "
    f"as it is, RE-Control changes the reward by {signed(kept['re-control'])}.",
    f"Win rates of 300 prompts cannot tell {wins['re_control']} from {wins['cd_prefix']} %, "
    "and chapter 25 shows that no pairing of the prompts could have.",
]  # fmt: skip
page.findings(points)

# %% [markdown]
# What this does not show: that the order of rows is that of large models. A value fitted on {glue:text}`n.fit` answers of a small plant may well know less of its reward than one fitted on the paper's whole training set, and learning by bootstrapping from token to token (TD) may need more answers than regression does. What carries over is the table's design: controls, ties, costs and intervals in it.
#
# ## Further reading
#
# - {cite:t}`kong2024recontrol`: the method and its main table.
# - {cite:t}`zhao2026odesteer`: has RE-Control among its baselines, on another judge.
# - {cite:t}`rimsky2024caa`: the constant push that Static RE is a cousin of.

# %% tags=["hide-input"]
page.footer()
