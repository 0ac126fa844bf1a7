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
# (ch-search-and-tuning)=
# # 24 Against search at decoding time, and against tuning
#
# **One value can be used in two ways: asked about each candidate token (search), or climbed by the state (RE-Control). The two are compared on one plant, with the same values and prompts, at the same divergence from the unsteered plant, beside best of n, prompting, a constant push and plants that were tuned by PPO and by DPO. A good part of what search is praised for is owned by a control that knows nothing, and a proposition says what a push of the state can be worth at most.**
#
# :::{admonition} Cost
# :class: cost-card note
#
# Time
# : about one minute on one processor core, for the `tiny` profile
#
# Memory
# : about 1.3 GB
#
# Read first
# : [21](21_bellman_on_hidden_states) and [22](22_gradient_control) for values and climbing them, [15](15_horse_race) for comparisons at equal effort; the part on tuning takes up the table of [23](23_re_control_tables)
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
import copy
import time
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from steerlib import figures, metrics, tasks
from steerlib.control.bellman import ValueNetwork
from steerlib.control.networks import Training
from steerlib.control.rollouts import Trajectories
from steerlib.control.value_training import Pairs
from steerlib.control.values import fit_value
from steerlib.decoding import (
    BestOf,
    Blockwise,
    ControlledDecoding,
    DecodingError,
    ModelScorer,
    Plain,
    StateScorer,
    TextScorer,
    TokenScorer,
    best_of_divergence,
    expected_best,
    pool_rewards,
    prefix_states,
    small_reader,
    told_prompts,
)
from steerlib.experiment import value_tables
from steerlib.experiment.answered import departure
from steerlib.experiment.calibrate import calibrate
from steerlib.experiment.claims import load_claims
from steerlib.experiment.page import Page
from steerlib.experiment.profile_plants import plant_for
from steerlib.experiment.profile_tables import task_for
from steerlib.experiment.recompute import records_of, reference
from steerlib.experiment.scoreboard import estimate
from steerlib.experiment.showing import (
    in_percent,
    interval,
    percent,
    signed,
    table,
)
from steerlib.figures import Front, Panel, Trade
from steerlib.laws.additive import Additive
from steerlib.laws.base import LawHeader
from steerlib.laws.regression import StaticRE
from steerlib.laws.scored import Scored
from steerlib.laws.value import ReControl
from steerlib.metrics import Estimate
from steerlib.tasks.base import spread
from steerlib.tasks.helpfulness import Helpfulness
from steerlib.tasks.rewarding import reward_among
from steerlib.trajectories import READ_OUT, RolloutSampling, collect
from steerlib.tuning import load_plant, recipe_of
from steerlib.tuning.adapters import read_tuning
from steerlib.tuning.shipped import RECIPES, adapter_folder

pd.set_option("display.max_colwidth", None)
seeds = seeds[:3]  # each has a value of its own to fit, whatever a profile asks
page = Page("24_search_and_tuning", profile=profile, plant=plant, seeds=seeds)
lm = page.uses(plant_for(plant, profile=profile, table="re_control", exact=True))
site = READ_OUT.resolve(lm.depth)
lm

# %% [markdown]
# ## What is to be had more of
#
# On the Almanac: the worth of a reply to a request, by the rubric of chapter [04](04_scoring). A right first step is worth more than a wrong one, a refusal earns where the request is harmful and costs where it is not. A reply ends with its line, and here after {glue:text}`longest` tokens at the latest; the rubric can judge beginnings, and takes no offence at a sentence that is merely cut. (A plant of a profile on real models is asked what the profile says, and rewarded by the model that it names; any other is asked for happy stories, by a count of words.)

# %% tags=["hide-input"]
longest, n_prompts, k = 20, 20, 5
on_almanac = lm.source.card.get("world") == "almanac"
# A real model is asked for what its profile says, by that profile's reward model.
real = task_for(lm, profile=profile, alone=True)
task = Helpfulness(lm) if on_almanac else real or tasks.for_plant(lm)
told = {}
if on_almanac:
    told = told_prompts(task)
    wishes = {w.text: w for said in (False, True) for w in task.items(told=said)}
    to_fit = task.world.wishes("fit", harmful=None, held_out=False, n=128)
    wishes |= {w.text: w for w in to_fit}
    fit_prompts = [w.text for w in to_fit]
    line_end = lm.tokenizer("\n", add_special_tokens=False).input_ids[-1]
    ends = lm.model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    lm.model.generation_config.eos_token_id = [*ends, line_end]
elif real:
    told = told_prompts(real)
    to_fit = real.items("fit")[:128]
    real_reward = reward_among(
        real, [*to_fit, *real.items(), *real.items(told=True)]
    )
    fit_prompts = [item.text for item in to_fit]
else:
    fit_prompts = task.prompts("fit") * 4
prompts = spread(task.prompts("test"), n_prompts)
n_prompts = len(prompts)


def earned(asked, answers):
    """Rewards of answers, or of beginnings of answers."""
    if on_almanac:
        return task.rewards([wishes[p] for p in asked], answers)
    if real:
        return real_reward(asked, answers)
    return [task.happiness(text) for text in answers]


page.words(task.labels)
page.record("longest", longest)
page.record("n.prompts", len(prompts))
page.record("n.seeds", len(seeds))
page.record("k", k)

# %% [markdown]
# ## One value, two uses
#
# The unsteered plant writes {glue:text}`n.written` answers to requests that no test prompt shares, several to each. Every state on the way, from the one that the first token is drawn from to the one behind the last, is kept with the reward that the answer ended in, and a network of two layers learns to tell the reward from the state (regression of the outcome, the *FUDGE* target {cite:p}`yang2021fudge`; chapter [05](05_claims_on_paper) has the others). A value is an estimate, and another one would steer otherwise: so there are {glue:text}`n.seeds`, each fitted on {glue:text}`n.fit` of the answers (to four fifths of the requests, drawn by its seed) from its own first weights, and the seed of a value is also that of the noise that it answers with. Intervals on this page are over values and prompts.

# %%
how = RolloutSampling(longest, seed=100, samples=2)
bank = prefix_states(
    lm, fit_prompts, earned, how=how, rewarded_by="worth", start=True,
    batch_size=320, shard=320,
)  # fmt: skip


# %%
training = Training(steps=100, batch=64, rate=1.5e-3, held_out=0.0)


def answers_of(index, rewards=bank.rewards):
    """Some answers of the bank, as trajectories."""
    chosen = bank.take(index)
    return Trajectories([chosen.states], chosen.lengths, rewards[index])


def value_of(trajectories, seed, **more):
    """A value network fitted on rewarded answers."""
    return fit_value(
        trajectories, target="monte-carlo", hidden=lm.width, how=training,
        seed=seed, **more,
    ).network  # fmt: skip


# %%
requests, drawn, aside = {}, {}, {}  # by seed; answers to fit on, and others
for seed in seeds:
    order = np.random.default_rng(seed).permutation(len(fit_prompts))
    both = torch.tensor(order[:, None] * how.samples + np.arange(how.samples))
    cut = 4 * len(order) // 5
    requests[seed] = torch.tensor(order[:cut])
    drawn[seed], aside[seed] = both[:cut].ravel(), both[cut:].ravel()
values = [value_of(answers_of(drawn[seed]), seed) for seed in seeds]
V = values[0]

# %% tags=["hide-input"]


def explained(network, index):
    """Share of the variance of rewards that a value explains, over all states of some answers."""
    batch = bank.take(index)
    reward = batch.rewards.repeat_interleave(batch.lengths).float()
    with torch.no_grad():
        left = (network(batch.states.float()).cpu() - reward).square().mean()
    return 1 - float(left / reward.var(correction=0))


shares = [
    explained(network, aside[seed])
    for network, seed in zip(values, seeds, strict=True)
]
page.record("n.written", len(bank))
page.record("n.fit", len(drawn[seeds[0]]))
page.record("value.explained", np.mean(shares), digits=2)
page.text("value.each", ", ".join(f"{share:.2f}" for share in shares))
Markdown(
    f"Of the variance of the reward, over all states of answers that they were not fitted on, the values explain {', '.join(f'{x:.2f}' for x in shares)}."
)

# %% [markdown]
# **Search** asks the value about the plant's own {glue:text}`k` likeliest next tokens: each is read by the plant, the value looks at the state behind it, and the token is drawn from
#
# $$ q(y) \propto \exp\bigl(\log p(y) + w\,V(o_{\text{after } y})\bigr). $$ (eq-search-cd)
#
# This is **{term}`controlled decoding`** {cite:p}`mudgal2024cd`, *CD prefix* in RE-Control's tables; with a reward of whole answers in the place of $V$ it is ARGS {cite:p}`khanov2024args`, which these tables call *CD*. **RE-Control** {cite:p}`kong2024recontrol` does not look ahead: it climbs $V$ from the state $o$ that is about to be read out, and draws from $\operatorname{softmax}(W(o+u))$. **{term}`Best of n <best of n>`** writes $n$ answers and keeps the one of highest reward.
#
# All of them pay in the same coin: the divergence of their answers from the plant's own, in nats for each answer. For RE-Control it can be computed from the states alone, since the push only shifts logits; the step size is the one that spends a given number of nats for each token, on states of the fitting prompts. No step size is chosen by its reward.

# %%
head = lm.model.get_output_embeddings()
cap = getattr(lm.model.config.get_text_config(), "final_logit_softcapping", None)
rest = {"plant": lm.name, "weight_hash": lm.weight_hash, "width": lm.width,
        "data_hash": bank.digest, "seed": seeds[0]}  # fmt: skip
header = LawHeader(layer=site.layer, point=site.point, scope="generated", **rest)


@torch.no_grad()
def nats(o, u):
    """KL(pushed | free) of the next token, for states o and pushes u."""
    read = [head(z).float() for z in (o, o + u)]
    if cap:
        read = [cap * torch.tanh(z / cap) for z in read]
    free, pushed = (z.log_softmax(-1) for z in read)
    return (pushed.exp() * (pushed - free)).sum(-1)


# %%
some = bank.take(torch.arange(0, len(bank), 16)).states.to(lm.device)


def spending(law, budget):
    """The law at the strength, or step size, that spends so many nats."""
    climbs = isinstance(law, ReControl)

    def cost(x):
        law.tune(alpha=x) if climbs else law.at(x)
        return float(nats(some, law(some) - some).mean())

    start = 1.0 if climbs else 1 / float(law.vector.norm())
    found = calibrate(cost, budget, start=start, tolerance=0.05, power=2.0)
    cost(found.strength)
    return law


# %%
def climbing(network, budget):
    """RE-Control with a value network, at a price in nats for each token."""
    return spending(ReControl(steps=10).hold(network, header), budget)


def all_climbing(networks, budget):
    """The same with several, one for each seed."""
    return [climbing(network, budget) for network in networks]


# %%
draws = RolloutSampling(longest, seed=seeds[0])


def pushed_once(law, asked, how):
    """Rewards and nats of answers under a law, to all prompts."""
    found = collect(
        lm, asked, earned, how=how, rewarded_by="worth", law=law, batch_size=100
    )
    batch = found.take(torch.arange(len(found)))
    z = batch.states.to(lm.device)
    paid = torch.zeros(len(z)) if law is None else nats(z, law(z) - z).cpu()
    row = torch.arange(len(found)).repeat_interleave(batch.lengths)
    total = torch.zeros(len(found)).index_add(0, row, paid)
    return found.rewards.numpy(), total.numpy()


# %%
def pushed(laws=None, asked=prompts, how=draws):
    """Rewards and nats, each (seeds, prompts); laws for as many seeds, or one."""
    each = laws if isinstance(laws, list) else [laws] * len(seeds)
    found = [
        pushed_once(law, asked, replace(how, seed=seed))
        for law, seed in zip(each, seeds, strict=False)
    ]
    return tuple(map(np.stack, zip(*found, strict=True)))


# %%
def searched(decoders):
    """The same for decoders; of fewer than there are seeds, for the first."""
    if not isinstance(decoders, list):
        decoders = [decoders] * len(seeds)
    outs = [
        decoder.generate(lm, prompts, max_new_tokens=longest, seed=s, batch_size=100)
        for decoder, s in zip(decoders, seeds, strict=False)
    ]  # fmt: skip
    rewards = np.array([earned(out.prompts, out.texts) for out in outs])
    return rewards, np.array([out.nats for out in outs])


def search(scorer, weight, k=k):
    """Controlled decoding that draws, as the plant does."""
    return ControlledDecoding(scorer, k=k, weight=weight, temperature=None)


# %%
def searching(networks, weight):
    """Controlled decoding with several values, one for each seed."""
    return [search(StateScorer(network), weight) for network in networks]


middle = 0.04  # nats for each token
free, _ = pushed()
climbed = {middle: pushed(all_climbing(values, middle))}
climbed[4 * middle] = pushed([climbing(V, 4 * middle)])
ahead = searched(searching(values, 3.0))
pool, pool_cost = pool_rewards(
    lm, prompts, earned, size=8, max_new_tokens=longest, seed=seeds[0] + 50,
    batch_size=320,
)  # fmt: skip

# %% [markdown]
# One prompt, drawn by a seed among those where the four do not earn the same, and what is answered with the same random numbers:

# %% tags=["hide-input"]
few = prompts[:8]
asked_once = {"max_new_tokens": longest, "seed": seeds[0]}
said = {"left alone": Plain().generate(lm, few, **asked_once).texts}
with lm.under(climbing(V, middle)):
    said["RE-Control"] = lm.generate(few, **asked_once).texts
said["CD prefix"] = (
    search(StateScorer(V), 3.0).generate(lm, few, **asked_once).texts
)
said["best of 4"] = BestOf(earned, n=4).generate(lm, few, **asked_once).texts
worths = np.array([earned(few, texts) for texts in said.values()])
differ = np.flatnonzero(np.ptp(worths, axis=0) > 0)
chosen = int(
    np.random.default_rng(seeds[0]).choice(differ if len(differ) else len(few))
)
page.text("prompt", few[chosen].replace("\n", " / "))
table(
    [
        (name, texts[chosen].strip().replace("\n", " "), f"{w:+z.2f}")
        for (name, texts), w in zip(said.items(), worths[:, chosen], strict=True)
    ],
    "method", "answer", "reward",
)  # fmt: skip

# %% [markdown]
# The prompt was “{glue:text}`prompt`” (a slash for a new line). One answer proves nothing; the rest of the chapter is about many.
#
# ## Rung 1: four ways to tilt four answers
#
# Two tokens an answer: first *a* or *b*, then *c* or *d*, each with probability $\frac12$. The rewards are 2 for *ac*, 0 for *ad*, 1 for *bc* and for *bd*. What is the best thing to do, if moving away from the plant is not free?
#
# :::{prf:definition} The price of leaving the plant
# :label: search-price
# Let $p$ be the plant's distribution over answers, $r$ a reward and $\beta > 0$. The **tilted** distribution is $\pi^*(y) = p(y)\,e^{r(y)/\beta}/Z$ with $Z = \mathbb{E}_p\,e^{r/\beta}$.
# :::
#
# :::{prf:proposition} What everyone here approximates
# :label: search-optimum
# For every distribution $q$ over answers, $\mathbb{E}_q r - \beta\,\mathrm{KL}(q\|p)$ $= \beta\log Z - \beta\,\mathrm{KL}(q\|\pi^*)$. So $\pi^*$ is the only maximiser, and no $q$ with the same divergence from $p$ has a higher mean reward.
# :::
#
# :::{prf:proof}
# $\log\pi^* = \log p + r/\beta - \log Z$. Insert this into $\mathrm{KL}(q\|\pi^*) = \mathbb{E}_q[\log q - \log\pi^*]$ and multiply by $\beta$. The divergence is zero for $q = \pi^*$ only. If $\mathrm{KL}(q\|p) = \mathrm{KL}(\pi^*\|p)$, subtract the equation for $\pi^*$.
# :::
#
# :::{prf:proposition} Controlled decoding is the tilt, token by token, with a mean in the place of a soft maximum
# :label: search-one-step
# Let $V^*(x) = \beta\log\mathbb{E}_p[e^{r/\beta} \mid x]$ for a beginning $x$, and $Q(x) = \mathbb{E}_p[r\mid x]$. Then $\pi^*(y\mid x) \propto p(y\mid x)\,e^{V^*(xy)/\beta}$, and, for large $\beta$, $V^*(x) = Q(x)$ $+ \operatorname{Var}_p[r\mid x]/2\beta$ $+\ O(\beta^{-2})$. Controlled decoding by {eq}`eq-search-cd` with an exact scorer, all tokens as candidates and $w = 1/\beta$ puts $Q$ in the place of $V^*$. It is exact where one token is left.
# :::
#
# :::{prf:proof}
# Sum $p(\cdot)e^{r/\beta}$ over all answers that begin with $xy$: this gives $p(xy)\,e^{V^*(xy)/\beta}$. Divide by the same for $x$. The expansion is that of a cumulant-generating function. With no token left nothing varies, and $V^* = Q = r$.
# :::
#
# :::{prf:proposition} Best of n has a budget
# :label: search-best-of
# Keep the answer of highest reward among $n$ from $p$, ties broken at random. Its distribution $\pi_n$ has $\mathrm{KL}(\pi_n\|p) \le \log n - \frac{n-1}{n}$.
# :::
#
# :::{prf:proof}
# Give each answer a number $U$ that is uniform between $P(r' < r)$ and $P(r' \le r)$. Under $p$ it is uniform in $[0,1]$, a higher reward has a higher number, and the answer with the highest number is the best of $n$. The highest of $n$ uniform numbers has the density $nU^{n-1}$, so that the pair of answer and number has the divergence $\mathbb{E}[\log n + (n-1)\log U_{\max}]$ $= \log n - (n-1)/n$. Forgetting the number cannot raise it.
# :::
#
# Equality holds where ties have no probability {cite:p}`beirami2024bestofn`. Rewards of few levels have many ties, and then best of n is cheaper than its bound.


# %%
answers = list(product("ab", "cd"))
p = np.full(4, 1 / 4)
r = np.array([2.0, 0, 1, 1])


def bought(q):
    """Mean reward and divergence of a distribution over the four answers."""
    inside = q > 0
    return q @ r, float((q[inside] * np.log(q[inside] / p[inside])).sum())


# %%
beta = 1 / np.log(2)  # so that exp(r / beta) = 2**r
tilted = p * 2**r / (p @ 2**r)
assert np.allclose(tilted, np.array([4, 1, 2, 2]) / 9)
second = np.array([4 / 5, 1 / 5, 1 / 2, 1 / 2])  # tokens c, d after a; after b
cd = 1 / 2 * second  # Q(a) = Q(b) = 1: the first token is left alone
two = np.array([7, 1, 4, 4]) / 16

# %% [markdown]
# By hand: the tilt at $\beta = 1/\ln 2$ has weights $2^r$, that is $4, 1, 2, 2$. Controlled decoding with $w = \ln 2$ sees no difference between *a* and *b*, whose answers earn 1 on average; after *a* it prefers *c* four to one. The best of two is *ad* only if both are, with $\frac1{16}$; it is *ac* unless both are something else, $1 - \frac{9}{16}$.

# %%
pairs = np.zeros(4)
for i, j in product(range(4), repeat=2):  # all pairs of samples
    best = [i, j] if r[i] == r[j] else [max(i, j, key=lambda m: r[m])]
    np.add.at(pairs, best, 1 / 16 / len(best))
assert np.allclose(pairs, two) and bought(two)[1] < best_of_divergence(2)
assert np.isclose(bought(tilted)[0], 12 / 9) and np.isclose(bought(cd)[0], 1.3)
gap = bought(tilted)[0] - beta * bought(tilted)[1] - beta * np.log(p @ 2**r)
assert abs(gap) < 1e-12, "the identity of the proposition"
rows = {"tilt": tilted, "controlled decoding": cd, "best of 2": two}
table(
    [(n, f"{bought(q)[0]:.3f}", f"{bought(q)[1]:.3f}") for n, q in rows.items()],
    "method", "mean reward", "nats",
)  # fmt: skip

# %% [markdown]
# Where does RE-Control stand? A push of the state shifts logits, as search does. So the question is how well the shift goes with what the tokens are worth.
#
# :::{prf:proposition} What a push can be worth
# :label: search-efficiency
# Let the next token be drawn from $p = \operatorname{softmax}(Wo)$, and let $Q(y)$ be what is expected once $y$ is written. (1) A shift of the logits by $s\Delta$ that spends a small $\kappa = \mathrm{KL}$ raises $\mathbb{E}Q$ by $\sqrt{2\kappa}\,\operatorname{SD}_p(Q)\,\operatorname{corr}_p(\Delta, Q)$, up to terms of order $\kappa$. (2) Token-wise search has $\Delta = Q$ and correlation 1: nothing is better. (3) A push $u$ of the read-out state has $\Delta = Wu$. The best such push is the weighted least-squares fit of $Q$ by the columns of $W$ and a constant, and reaches their multiple correlation $R$ with $Q$; (4) a push along the gradient $W^\top[p\odot(Q-V)]$ of the expected value, with $V = \mathbb{E}_p Q$, has a non-negative correlation, at most $R$; a push along another gradient may have any sign.
# :::
#
# :::{prf:proof}
# (1) is the first proposition of chapter [15](15_horse_race), with $f = Q$. (2) A correlation is at most 1. (3) Over all $u$, the correlation of $Wu$ with $Q$ is largest at the projection of $Q$ on the span of the columns, in the inner product $\operatorname{Cov}_p$. (4) With $g = W^\top[p\odot(Q-V)]$ we have $\operatorname{Cov}_p(Wg, Q)$ $= \sum_y p_y (Wg)_y (Q_y - V)$ $= g^\top g \ge 0$; and $Wg$ is in the span.
# :::
#
# Three tokens with $p = (\frac12,\frac14,\frac14)$, $Q = (0,1,3)$, and $W$ the identity, so that the state is the logits. Then $V = 1$ and $g = p\odot(Q - V) = (-\frac12, 0, \frac12)$: each token is pushed by its probability times what it is worth, so that the rare good token, which search shifts by 2 against $-1$ for the frequent bad one, gets no more than that one loses. By hand, $\operatorname{Cov}_p(g,Q) = \frac12$, $\operatorname{Var}_p g = \frac{11}{64}$ and $\operatorname{Var}_p Q = \frac32$.


# %%
def efficiency(shift, q, p):
    """Correlation of a shift of the logits with Q, under p; rows are states."""
    a = shift - (p * shift).sum(-1, keepdims=True)
    b = q - (p * q).sum(-1, keepdims=True)
    norm = (p * a * a).sum(-1) * (p * b * b).sum(-1)
    return (p * a * b).sum(-1) / np.sqrt(np.maximum(norm, 1e-30))


p3, q3 = np.array([2, 1, 1]) / 4, np.array([0.0, 1, 3])
g3 = p3 * (q3 - p3 @ q3)
corr = efficiency(g3, q3, p3)
assert np.isclose(corr, 0.5 / np.sqrt(11 / 64 * 3 / 2))
assert np.isclose(efficiency(q3, q3, p3), 1)
page.record("toy.efficiency", corr, digits=3)

# %% tags=["hide-input"]
step = 1e-3  # nats
change = {}
for name, d in (("gradient", g3), ("search", q3)):
    low, high = 0.0, 5.0
    for _ in range(60):
        s = (low + high) / 2
        q = p3 * np.exp(s * d) / (p3 @ np.exp(s * d))
        low, high = (s, high) if q @ np.log(q / p3) < step else (low, s)
    change[name] = q @ q3 - p3 @ q3
page.record(
    "tilt.identity", change["gradient"] / change["search"] / corr - 1, digits=5
)
table(
    [(n, f"{x:.4f}") for n, x in change.items()],
    "shift along",
    "gain at 0.001 nats",
)

# %% [markdown]
# At a thousandth of a nat the gradient gains {glue:text}`toy.efficiency` of what search gains, as {prf:ref}`search-efficiency` says (the ratio is off by {glue:text}`tilt.identity`, the terms of higher order).
#
# ## Rung 2: by hand on the plant
#
# Greedy search in plain PyTorch: read everything anew for each candidate, look at the state that the head of the model is given, ask the value.

# %%
seen = {}


@torch.no_grad()
def reading(rows):
    """Logits behind rows of token ids, and the states they are read from."""
    tap = head.register_forward_pre_hook(lambda _, a: seen.update(o=a[0][:, -1]))
    out = lm.model(torch.tensor(rows, device=lm.device)).logits[:, -1].float()
    tap.remove()
    return out, seen["o"].float()


# %%
def next_token(ids, weight, k):
    """Of the k likeliest tokens the one of highest logit plus value."""
    best = reading([ids])[0][0].topk(k)
    _, states = reading([[*ids, y] for y in best.indices.tolist()])
    total = best.values + weight * V(states)
    return int(best.indices[total.argmax()])


# %%
start = lm.tokenizer(prompts[0]).input_ids
ids = list(start)
for _ in range(6):
    ids.append(next_token(ids, weight=3.0, k=k))
several = lm.generate(prompts[:1], max_new_tokens=8, seed=seeds[0], samples=4)
several_worth = earned(several.prompts, several.texts)
best_by_hand = several.texts[int(np.argmax(several_worth))]

# %% [markdown]
# ## Rung 3: the decoders
#
# {py:class}`~steerlib.decoding.controlled.ControlledDecoding` reads prompts and candidates in batches and keeps what was read, and chooses the same tokens. {py:class}`~steerlib.decoding.best_of.BestOf` keeps the same answer. And {py:class}`~steerlib.laws.value.ReControl` shifts the logits by $Wu$ and does nothing else.

# %%
greedy = ControlledDecoding(StateScorer(V), k=k, weight=3.0)
by_class = greedy.generate(lm, prompts[:1], max_new_tokens=6, seed=0).tokens[0]
assert list(by_class) == ids[len(start) :][: len(by_class)]
kept = BestOf(earned, n=4).generate(
    lm, prompts[:1], max_new_tokens=8, seed=seeds[0]
)
assert kept.texts[0] == best_by_hand
law = climbing(V, middle)
logits, o = reading([start])
with lm.under(law):
    steered = lm.forward(prompts[:1])[0, -1].float()
by_hand = head(o + law.input(o))[0].detach()
by_hand = cap * torch.tanh(by_hand / cap) if cap else by_hand
torch.testing.assert_close(steered, by_hand, atol=2e-3, rtol=2e-3)

# %% [markdown]
# ## Everyone at their price
#
# The rest of the field, on the same prompts and the same noise, {glue:text}`n.seeds` times: with a value each, where there is one. *CD* asks the reward itself about every beginning: its scorer knows everything about what has been said, and nothing about what will be. *Static RE* adds the weights of a linear regression of the reward on the state behind the prompt, at every token alike. *Prompting* names a prudent adviser in the prompt. The controls have nothing to know: values fitted on **shuffled rewards**, **random directions**, and a search whose scorer draws lots.


# %%
def shuffled(rewards, seed):
    """The same rewards, each for another answer."""
    lots = torch.Generator().manual_seed(seed)
    return rewards[torch.randperm(len(rewards), generator=lots)]


of_nothing = [
    value_of(answers_of(drawn[seed], shuffled(bank.rewards, seed)), seed)
    for seed in seeds
]

# %%
misled = all_climbing(of_nothing, middle)
first = torch.cat(
    [bank.take(torch.tensor([i])).states[:1] for i in range(len(bank))]
)
static = StaticRE().fit_scored(Scored(first, bank.rewards.float(), header))
lottery = torch.Generator().manual_seed(seeds[0])
luck = []
for _ in seeds:
    luck.append(Additive(torch.randn(lm.width, generator=lottery)))
    luck[-1].header = header


# %%
def lots(asked, answers):
    """A reward of nothing."""
    return np.random.default_rng(len(answers[0])).standard_normal(len(answers))


# %%
runs = {
    "static-re": pushed(spending(static, middle)),
    "re-control": climbed[middle],
    "cd": searched(search(TextScorer(earned), 3.0)),
    "cd-prefix": ahead,
    "shuffled": pushed(misled),
    "random": pushed([spending(law, middle) for law in luck]),
    "top": searched(search(TextScorer(lots), 0.0)),
    "lots": searched([search(TextScorer(lots), 1.0)]),
}

# %%
only_likely = replace(draws, top_k=k)
climbers = all_climbing(values, middle)
runs["re-control-top"] = pushed(climbers, how=only_likely)
if told:
    longer = [told[prompt] for prompt in prompts]
    runs["prompting"] = pushed(None, longer)
    runs["re-control-prompting"] = pushed(climbers, longer)

# %% tags=["hide-input"]
names = {
    "static-re": "Static RE", "re-control": "RE-Control", "cd": "CD, w = 3",
    "cd-prefix": "CD prefix, w = 3",
    "prompting": "prompting", "re-control-prompting": "RE-Control + prompting",
    "re-control-top": f"RE-Control, {k} likeliest tokens only",
    "top": f"{k} likeliest tokens only",
    "shuffled": "RE-Control, shuffled value", "random": "random direction",
    "lots": "CD, random scorer",
}  # fmt: skip


def change_of(run, control=free):
    """Gain in reward over a control, paired by prompt and seed."""
    return metrics.paired_grid_difference(run, control[: len(run)])


def best_of(n):
    """Gain of the best of n over one sample, from the pool."""
    return metrics.mean_interval(expected_best(pool, n) - pool.mean(1))


def tilt_of_pool(beta):
    """Gain and nats of the tilted distribution, on the pool as if it were all."""
    w = np.exp((pool - pool.max(1, keepdims=True)) / beta)
    w /= w.sum(1, keepdims=True)
    paid = (w * np.log(np.maximum(w * pool.shape[1], 1e-300))).sum(1)
    gain = (w * pool).sum(1) - pool.mean(1)
    return metrics.mean_interval(gain), metrics.mean_interval(paid)


gains = {name: change_of(run[0]) for name, run in runs.items()}
paid = {name: metrics.grid_interval(run[1]) for name, run in runs.items()}
page.record("free", metrics.grid_interval(free))
for name in gains:
    page.record(f"gain.{name}", gains[name], digits=2)
for n in (2, 4, 8):
    page.record(f"gain.best-{n}", best_of(n))
page.record("value.adds", change_of(runs["cd-prefix"][0], runs["top"][0]))
page.record("climb.adds", change_of(runs["re-control-top"][0], runs["top"][0]))
page.record("paid.cd-prefix", paid["cd-prefix"])
page.record("paid.re-control", paid["re-control"])
rows = [
    (names[n], signed(gains[n]),
     "another prompt" if "prompting" in n
     else "both" if n == "re-control-top" else f"{paid[n].value:z.2f}")
    for n in names if n in runs
]  # fmt: skip
rows[4:4] = [
    (f"best of {n}", signed(best_of(n)), f"≤ {best_of_divergence(n):.2f}")
    for n in (2, 4, 8)
]
table(rows, "method", "change in reward", "nats for each answer")

# %% [markdown]
# (Of two prices, *both* means that of the climb and that of the narrower choice together; *another prompt* means that answers to different prompts have no divergence to compare.) Unsteered the mean reward is {glue:text}`free`. With the *same* values, search changes it by {glue:text}`gain.cd-prefix` and climbing by {glue:text}`gain.re-control`; values of shuffled rewards by {glue:text}`gain.shuffled`, a constant push of equal price along the regression by {glue:text}`gain.static-re`. Two samples, of which the better one is kept, change it by {glue:text}`gain.best-2`.
#
# Part of what search gains is not search. It only ever draws from the {glue:text}`k` likeliest tokens, and what is left out is mostly worse: the same choice **without any scorer** changes the reward by {glue:text}`gain.top`, and with a scorer that draws lots by {glue:text}`gain.lots` (one seed). Over the choice alone, the value adds {glue:text}`value.adds`; RE-Control under the same choice adds {glue:text}`climb.adds`. A comparison of search with the plain plant credits the scorer with both.
#
# The **frontier**: what is gained against what it costs. Marks that are off it are faint. At equal nats, no method can be above the tilt of {prf:ref}`search-optimum`; here the tilt is taken of the pool of 8 answers for each prompt, as if these were all there are, which is fair for small prices only. RE-Control's second price is paid with the first value alone.

# %% tags=["hide-input"]
budgets = (1.5, 0.6, 0.35, 0.2)
best = [tilt_of_pool(b) for b in budgets]


def front(done):
    """A method at several doses."""
    ready = [
        (metrics.grid_interval(spent), change_of(won)) for won, spent in done
    ]
    cost, effect = zip(*ready, strict=True)
    return Front(cost, [Estimate(e.value, e.low, e.high, e.n) for e in effect])


def plainly(done):
    """The same for a control."""
    return Front(front(done).cost, front(done).effect, control=True)


field = {
    "tilt (pool)": Front([c for _, c in best], [g for g, _ in best]),
    "best of 2, 4, 8": Front(
        figures.exactly(map(best_of_divergence, (2, 4, 8))),
        [best_of(n) for n in (2, 4, 8)],
    ),
    "CD": front([runs["cd"]]),
    "CD prefix": front([runs["cd-prefix"]]),
    "RE-Control": front(list(climbed.values())),
    "Static RE": front([runs["static-re"]]),
    "shuffled value": plainly([runs["shuffled"]]),
    "random direction": plainly([runs["random"]]),
    "likeliest tokens only": plainly([runs["top"]]),
    "random scorer": plainly([runs["lots"]]),
}
page.figure(
    "frontier",
    figures.narrow(
        figures.fronts(
            {"": Trade(field, "KL from the unsteered plant, nats for each answer", "low", start=(0.0, 0.0))},
            ylabel="gain in mean reward",
        ),
        height=5.4,
    ),
    alt="Gain in mean reward against divergence from the unsteered plant in nats "
    f"for each answer, {len(prompts)} prompts and {len(seeds)} fitted values. CD prefix "
    f"gains {gains['cd-prefix'].value:+z.2f} at {paid['cd-prefix'].value:z.1f} nats, "
    f"best of 4 {best_of(4).value:+z.2f} at no more than {best_of_divergence(4):.1f}, "
    f"RE-Control {gains['re-control'].value:+z.2f} at {paid['re-control'].value:z.1f}; "
    "the controls stand in grey.",
)  # fmt: skip

# %% [markdown]
# ## Why climbing buys less
#
# {prf:ref}`search-efficiency` says where to look: at the correlation between the shift of the logits and the worth of the tokens. At states of answers that the plant wrote, we ask the value about the {glue:text}`k.wide` likeliest tokens ($Q$), and compare with the shifts that the pushes make.

# %%
wide, seats = 10, 40
told_ids = [lm.tokenizer(q).input_ids for q in prompts]
written = (
    Plain().generate(lm, prompts, max_new_tokens=8, seed=seeds[0] + 7).tokens
)


# %%
at_states = []
for i in range(seats):
    row = [
        *told_ids[i % n_prompts],
        *written[i % n_prompts][: i // n_prompts * 4],
    ]
    logits, o = reading([row])
    likely = logits[0].topk(wide).indices
    _, after = reading([[*row, y] for y in likely.tolist()])
    at_states.append((o[0], logits[0].softmax(-1)[likely], likely, after))
o, probs, likely, ends_at = (torch.stack(x) for x in zip(*at_states, strict=True))
weights = (probs / probs.sum(1, keepdim=True)).numpy(force=True).astype(float)

# %% tags=["hide-input"]
Wk = head.weight.detach().float()[likely]  # (states, tokens, width)
with torch.no_grad():
    Qs = [network(ends_at) for network in values]  # one for each value


def plainly_(x):
    """A tensor as an array of float64."""
    return x.numpy(force=True).astype(float)


def centred(x):
    """What is left of a mean over the tokens, by probability."""
    return x - (weights * x).sum(1, keepdims=True)


decided_by = [np.sqrt((weights * centred(plainly_(Q)) ** 2).sum(1)) for Q in Qs]
counts = np.min(decided_by, axis=0) > 0.02


def shift_of(law):
    """W u of the likely tokens."""
    u = law.input(o).expand_as(o)
    return plainly_(torch.einsum("skd,sd->sk", Wk, u.detach()))


p_ = torch.as_tensor(weights, device=o.device).float()
shifts, worth = [], []
for Q, climber, none in zip(Qs, climbers, misled, strict=True):
    pull = p_ * (Q - (p_ * Q).sum(1, keepdim=True))
    causal = torch.einsum("sk,skd->sd", pull, Wk)
    anywhere = torch.randn(o.shape, generator=lottery).to(o.device)
    found = {
        "search": plainly_(Q),
        "gradient of the expected value": plainly_(torch.einsum("skd,sd->sk", Wk, causal)),
        "RE-Control": shift_of(climber),
        "Static RE": shift_of(static),
        "shuffled value": shift_of(none),
        "random directions": plainly_(torch.einsum("skd,sd->sk", Wk, anywhere)),
    }  # fmt: skip
    shifts.append(found)
    worth.append(
        {n: efficiency(x, plainly_(Q), weights)[counts] for n, x in found.items()}
    )
effect = {
    n: metrics.grid_interval(np.stack([each[n] for each in worth]))
    for n in worth[0]
    if n != "search"
}
page.record("k.wide", wide)
page.record("n.states", int(counts.sum()))
page.record("efficiency.climb", effect["RE-Control"], digits=2)
page.record(
    "efficiency.causal", effect["gradient of the expected value"], digits=2
)
page.record("efficiency.static", effect["Static RE"], digits=2)
page.record("efficiency.shuffled", effect["shuffled value"], digits=2)
page.figure(
    "efficiency",
    figures.narrow(
        figures.intervals(
            effect, xlabel="correlation with worth (search: 1)", zero=0.0
        ),
        height=2.9,
    ),
    alt=f"Correlation of logit shifts with the worth of the {wide} likeliest tokens, means over "
    f"{int(counts.sum())} states and {len(seeds)} values with intervals. "
    + ", ".join(f"{n} {e.value:z.2f}" for n, e in effect.items())
    + ". Search has 1 by construction.",
)  # fmt: skip

# %% [markdown]
# Over the {glue:text}`n.states` states where every value sees something to decide, RE-Control's shift has a correlation of {glue:text}`efficiency.climb` with what tokens are worth, values of shuffled rewards {glue:text}`efficiency.shuffled` (their sign is an accident, and RE-Control's is to be held against their size), the constant push along a linear regression {glue:text}`efficiency.static`, and the gradient of the expected value {glue:text}`efficiency.causal`. At a small price that is the share of search's gain, as the value itself reckons it, which each push buys. What is lost is not lost by a wrong value, for search has the same: the gradient of $V$ in $o$ says how states of better answers *differ*, and not every difference chooses a token. The picture of one state:

# %% tags=["hide-input"]
shown = int(np.argmax(decided_by[0]))
climb, tilt = shifts[0]["RE-Control"][shown], shifts[0]["search"][shown]
mean = weights[shown] @ climb
page.figure(
    "shifts",
    figures.narrow(figures.logit_shifts(
        tilt - weights[shown] @ tilt,
        {"search, w = 1": tilt - weights[shown] @ tilt, "RE-Control": climb - mean},
        weights[shown],
        xlabel="worth of the token, Q minus its mean", ylabel="shift of the logit",
    ), height=3.8),
    alt=f"Shift of the logits of the {wide} likeliest tokens against their worth, at the "
    "state where most is to be decided; likelier tokens have larger marks. Search lies on "
    "the diagonal; RE-Control's shift has a correlation of "
    f"{efficiency(climb, tilt, weights[shown]):.2f} with the worth, weighted by probability.",
)  # fmt: skip

# %% [markdown]
# **Assumed, and how far it holds.** {prf:ref}`search-optimum` and {prf:ref}`search-best-of` assume nothing of the plant: *true*. {prf:ref}`search-one-step` wants an exact scorer, *approximate* here (the values explain {glue:text}`value.explained` of the variance, a mean of {glue:text}`value.each`), and all tokens as candidates, *false*: what leaving most of them out does alone is in the table. {prf:ref}`search-efficiency` is about small prices, *approximate*: the frontier shows prices that are not small, and a push that is best for the next token need not be for the answer.
#
# ## What it costs to compute
#
# Counted while it happens ({py:class}`~steerlib.decoding.base.Cost`), not derived: passes of the plant, token positions it computes, and calls of the reward, for each token of the answers. Four prompts, twelve tokens; the time is that of this machine, now, three times over.

# %%
short = {"max_new_tokens": 12, "seed": seeds[0]}
timed = {
    "unsteered": Plain(),
    f"CD, k = {k}": search(TextScorer(earned), 3.0),
    f"CD prefix, k = {k}": search(StateScorer(V), 3.0),
    "blockwise CD, 4 of 6 tokens": Blockwise(TextScorer(earned), k=4, block=6),
    **{f"best of {n}": BestOf(earned, n=n) for n in (2, 4, 8)},
}
climber = "RE-Control, 10 steps"
logged = {n: [] for n in (*timed, climber)}
for _ in range(3):
    for n, d in timed.items():
        logged[n].append(d.generate(lm, prompts[:4], **short).cost)
    with lm.under(climbing(V, middle)):
        logged[climber].append(Plain().generate(lm, prompts[:4], **short).cost)
costs = {n: found[0] for n, found in logged.items()}

# %% tags=["hide-input"]
took = {
    n: metrics.mean_interval([1000 * c.seconds / c.answer_tokens for c in found])
    for n, found in logged.items()
}
each = {
    n: (c.passes, c.positions / c.answer_tokens, c.rewards / c.answer_tokens,
        took[n].value)
    for n, c in costs.items()
}  # fmt: skip
page.record("positions.climb", each["RE-Control, 10 steps"][1], digits=1)
page.record("positions.search", each[f"CD prefix, k = {k}"][1], digits=1)
hours = load_claims()["recontrol.t1.time.search-costs-more"].published
hours = hours["hh-vicuna-7b"]
page.text("hours.cd", f"{hours['cd']:g}")
page.text("hours.climb", f"{hours['re_control']:g}")
extra_work = each[f"CD prefix, k = {k}"][1] - each["RE-Control, 10 steps"][1]
page.record(
    "positions.extra", extra_work, low=extra_work, high=extra_work, digits=1
)
if profile != "tiny":  # a ratio of times is compared with the paper's models only
    page.samples(
        "seconds",
        {name: np.array([[decoder.generate(lm, [q], **short).cost.seconds
                          for q in prompts[:8]]])
         for name, decoder in (("cd", search(TextScorer(earned), 3.0)),
                               ("unsteered", Plain()))},
    )  # fmt: skip
page.record("time.climb", each["RE-Control, 10 steps"][3], unit="ms", digits=0)
page.record("time.search", each[f"CD prefix, k = {k}"][3], unit="ms", digits=0)
table(
    [(n, a, f"{b:.1f}", f"{c:.1f}", f"{d:.0f} [{took[n].low:.0f}, {took[n].high:.0f}]")
     for n, (a, b, c, d) in each.items()],
    "method", "passes", "positions / token", "rewards / token", "ms / token",
)  # fmt: skip

# %% tags=["hide-input"]
sizes = [1, 2, 4, 8]
by_n = ["unsteered", *(f"best of {n}" for n in sizes[1:])]
lines = {
    "best of n": by_n,
    "RE-Control": ["RE-Control, 10 steps"] * 4,
    f"CD prefix, k = {k}": [f"CD prefix, k = {k}"] * 4,
}
page.figure(
    "time-against-n",
    figures.narrow(figures.over(
        sizes,
        {
            title: Panel(
                {n: [took[m] for m in ms] if place == 3 else figures.exactly(each[m][place] for m in ms)
                 for n, ms in lines.items()},
                ylabel=ylabel,
            )
            for title, place, ylabel in (
                ("work", 1, "positions for each token"), ("time", 3, "ms for each token"),
            )
        },
        xlabel="n of best of n",
    ), height=2.7),
    alt="Positions that the plant computes, and time, for each token of the answers, against n "
    f"of best of n: {each['best of 8'][1]:.0f} positions at n = 8, {each['unsteered'][1]:.1f} at "
    f"n = 1. RE-Control computes {each['RE-Control, 10 steps'][1]:.1f} positions, CD prefix "
    f"{each[f'CD prefix, k = {k}'][1]:.0f}.",
)  # fmt: skip

# %% [markdown]
# RE-Control has the plant compute {glue:text}`positions.climb` positions for each token (more than one: the prompt has to be read, and rows that are over wait for the others), search {glue:text}`positions.search`. In time, on this machine and at this batch size, it is {glue:text}`time.climb` against {glue:text}`time.search` for each token. (The paper reports {glue:text}`hours.cd` hours for CD and {glue:text}`hours.climb` for RE-Control on one of its models, which would fit a reward model as large as the plant that reads one prompt at a time.)
#
# ## A second policy iteration
#
# RE-Control improves the policy once: it climbs the value of the *unsteered* plant. Policy iteration would go on: let the steered plant answer, fit its value, climb that. Here is the second round, at the same price as the first; the control is a value fitted on as many answers of the unsteered plant. This comparison is of one value against one other: its seeds are draws of noise.

# %%
again = RolloutSampling(longest, seed=200)
new = collect(
    lm, fit_prompts, earned, how=again, rewarded_by="worth", law=climbers[0],
    batch_size=160,
)  # fmt: skip
half = answers_of(torch.arange(0, len(bank), how.samples))
V_half, V_new = (value_of(data, seeds[0]) for data in (half, new))
rounds = {
    "first, half the answers": pushed(climbing(V_half, middle)),
    "second": pushed(climbing(V_new, middle)),
}

# %% [markdown]
# ## Preferences in the loss
#
# Pref-CTRL adds to the value's loss that the last state of a preferred answer should have a higher value than that of a rejected one. The plant wrote two answers to each fitting prompt: the better one is preferred (of equal ones neither). (It is compared here with the same fit without it, of the first value alone and under one noise; in its own paper the rival was trained otherwise.)

# %%
two_each = bank.rewards.reshape(-1, 2)
place = torch.arange(len(two_each)) * 2
better = place + two_each.argmax(1)
tied = two_each[:, 0] == two_each[:, 1]
worse = torch.where(tied, better, place + 1 - two_each.argmax(1))


# %%
def part(index):
    """Some answers of the bank, each twice: once for both of a prompt."""
    return answers_of(index.repeat_interleave(2))


own = requests[seeds[0]]
pairs_ = Pairs(part(better[own]), part(worse[own]), weight=1.0, pull=0.0)
data = answers_of(drawn[seeds[0]])
V_pref = value_of(data, seeds[0], pairs=pairs_)
preferring = pushed([climbing(V_pref, middle)])

# %% tags=["hide-input"]
steps = {
    "second iteration over first": change_of(
        rounds["second"][0], rounds["first, half the answers"][0]
    ),
    "second iteration over unsteered": change_of(rounds["second"][0]),
    "preferences over plain": change_of(preferring[0], climbed[middle][0]),
    "preferences over unsteered": change_of(preferring[0]),
}
page.record("iteration.gain", steps["second iteration over first"])
page.record("preference.gain", steps["preferences over plain"])
page.figure(
    "beyond",
    figures.narrow(
        figures.intervals(steps, xlabel="difference in mean reward", zero=0.0),
        height=2.5,
    ),
    alt="Differences in mean reward with 95 % intervals, all at equal divergence. "
    + ", ".join(f"{n}: {e.value:+z.2f}" for n, e in steps.items())
    + ".",
)  # fmt: skip

# %% [markdown]
# The second round changes the reward by {glue:text}`iteration.gain` against the first; {glue:text}`iteration.least` would have been found in four of five cases. Preferences change it by {glue:text}`preference.gain`. Neither changes where the push acts: a better $V$ is still climbed at a state whose only way out is the choice of one token.

# %% [markdown]
# ## Against tuning
#
# The other rival changes the weights. RE-Control's paper trains low-rank adapters {cite:p}`hu2022lora` with the reward, by PPO {cite:p}`schulman2017ppo`, and on preferred and rejected answers, by DPO {cite:p}`rafailov2023dpo`, and finds itself competitive; its numbers were not available to us. Here both tune the smallest plant of the Almanac, {glue:text}`tuned.seeds` times each. The training library is an extra that this page does not need, for finished adapters come with the book: two thin matrices $B$ and $A$ beside each matrix of the blocks, of which $W + \frac{\alpha}{r} BA$ is made once. A tuned plant is then a plant like any other, and one more row of the table of chapter [23](23_re_control_tables): the same requests, the same noise, the same scores. What a name says: {glue:text}`tuned.name`.

# %%
small = "almanac-llama-tiny"
SETS = {"first": {}, "second": {"held_out": True, "rubric": "strict"}}
whose, why_others = records_of("re_control_tuned", profile=profile)
here = {"profile": whose, "page": page}
with_tuned = reference("re_control_tuned", **here).records
noises = {r.cell.seed for r in with_tuned}
beside = [
    r for r in reference("re_control", **here).records
    if r.cell.plant == small and r.cell.seed in noises
]  # fmt: skip
by_recipe = {}
for record in with_tuned:
    if record.cell.task == "almanac-preferred":
        recipe = recipe_of(record.cell.plant)
        by_recipe.setdefault(recipe, []).append(record)

# %% tags=["hide-input"]
Markdown(why_others) if why_others else None

# %%
tables = {}
for name, options in SETS.items():
    tables[name] = dict(value_tables.rows(beside, options))
    for recipe, records in by_recipe.items():
        found = value_tables.rows(records, options)
        method = RECIPES[recipe].method
        tables[name][method] = found["unsteered"]
        if "prompting" in found:
            tables[name][f"{method}-prompting"] = found["prompting"]

# %% tags=["hide-input"]
heads = {**value_tables.ROWS, "dpo": "DPO", "dpo-prompting": "DPO + Prompting",
         "ppo": "PPO", "ppo-prompting": "PPO + Prompting"}  # fmt: skip
SHOWN = ("unsteered", "prompting", "best-of-n", "cd", "cd-prompting", "cd-prefix", "cd-prefix-prompting",
         "cd-prefix-cd-q", "cd-prefix-cd-q-prompting", "re-control", "re-control-monte-carlo",
         "re-control-prompting", "dpo", "ppo", "dpo-prompting", "ppo-prompting", "shuffled-rewards")  # fmt: skip


def scores_of(rows):
    """Rows of the table, in the metrics of chapter 23."""
    return [
        (
            heads[name],
            interval(rows[name].estimate("reward")),
            interval(in_percent(rows[name].estimate("win-rate")), 0),
            f"{rows[name].estimate('diversity').value:z.2f}",
            f"{rows[name].estimate('topic-agreement').value:z.2f}",
            "–" if np.isnan(rows[name].kl) else f"{rows[name].kl:.3f}",
        )
        for name in SHOWN
        if name in rows
    ]


columns = ("row", "Average reward", "Win rate, %", "Diversity", "Coherence", "KL, nats per token")  # fmt: skip
plain = tables["first"]
page.record("tuned.prompts", plain["unsteered"].scores["reward"].shape[1])
page.record("tuned.seeds", len(noises))
used = {RECIPES[recipe].method: recipe for recipe in by_recipe}
adapters = {
    method: sorted({r.cell.plant for r in by_recipe[recipe]})
    for method, recipe in used.items()
}
how_dpo, how_ppo = (RECIPES[used[m]].how for m in ("dpo", "ppo"))
page.text(
    "tuned.name",
    f"{adapters['dpo'][0]} is {small} after {how_dpo.steps} steps of DPO with seed 0",
)
page.text(
    "tuned.recipes",
    f"DPO takes {how_dpo.steps} steps of {how_dpo.batch} pairs, PPO {how_ppo.steps} batches of "
    f"{how_ppo.batch} answers",
)  # fmt: skip
table(scores_of(plain), *columns)

# %% [markdown]
# {glue:text}`tuned.prompts` test requests of the first data set, {glue:text}`tuned.seeds` seeds; a seed is that of the value, the scorer or the adapter and of the noise. {glue:text}`tuned.recipes`: one recipe of each, which was not searched for, where RE-Control's step size was chosen on validation requests. Another rate or more steps may do better, or worse.
#
# {glue:text}`re_control_tuned.recomputed` The other rows: {glue:text}`re_control.recomputed`
#
# The second data set asks families of requests that neither a value nor an adapter of the first has seen, and pays by other weights: RE-Control's values were fitted anew for its rewards, the adapters were not.

# %% tags=["hide-input"]
table(scores_of(tables["second"]), *columns)


# %% tags=["hide-input"]
def spent_on(p, asked):
    """Processor time of answering, in seconds, the second time."""
    p.generate(asked, **once)
    begun = time.process_time()
    p.generate(asked, **once)
    return time.process_time() - begun


def against(rows, one, other="unsteered"):
    """Change in reward of one row over another, paired by request and noise."""
    return metrics.paired_grid_difference(
        rows[one].scores["reward"], rows[other].scores["reward"]
    )


for method in ("dpo", "ppo"):
    for name, rows in tables.items():
        page.record(
            f"tuned.gain.{method}.{name}", against(rows, method), digits=2
        )
    page.record(f"tuned.kl.{method}", plain[method].kl, digits=3)
    page.record(
        f"tuned.over.{method}", against(plain, "re-control", method), digits=2
    )
page.record("tuned.gain.re-control", against(plain, "re-control"), digits=2)
page.record("tuned.kl.re-control", plain["re-control"].kl, digits=3)
for key, one, other in (
    ("prompted.cd", "cd-prompting", "prompting"), ("prompted.cd-prefix", "cd-prefix-prompting", "prompting"),
    ("prompted.re-control", "re-control-prompting", "prompting"), ("prompted.best", "best-of-n", "prompting"),
    ("scorer.bellman", "cd-prefix-cd-q", "unsteered"), ("scorer.outcome", "cd-prefix", "unsteered"),
    ("scorer.apart", "cd-prefix", "cd-prefix-cd-q"),
):  # fmt: skip
    page.record(key, against(plain, one, other), digits=2)
apart_second = against(tables["second"], "cd-prefix", "cd-prefix-cd-q")
page.record("scorer.apart.second", apart_second, digits=2)
brief = {
    "re-control-monte-carlo": "RE-Control, Monte-Carlo",
    "shuffled-rewards": "shuffled value",
    "cd-prefix-cd-q": "CD prefix, Bellman",
    "cd-prefix-cd-q-prompting": "the same + Prompting",
}
changes = {
    brief.get(name, heads[name]): against(plain, name)
    for name in SHOWN
    if name in plain and name != "unsteered"
}
page.figure(
    "tuned-gains",
    figures.narrow(
        figures.intervals(changes, xlabel="change in mean reward", zero=0.0),
        height=5.8,
    ),
    alt="Change in mean reward from the plant alone, with 95 % intervals over requests and seeds: "
    + ", ".join(f"{n} {e.value:+z.2f}" for n, e in changes.items()) + ".",
)  # fmt: skip

# %% [markdown]
# DPO changes the reward by {glue:text}`tuned.gain.dpo.first` at {glue:text}`tuned.kl.dpo` nats for each token, PPO by {glue:text}`tuned.gain.ppo.first` at {glue:text}`tuned.kl.ppo`; RE-Control, at {glue:text}`tuned.kl.re-control` nats, by {glue:text}`tuned.gain.re-control`, which is {glue:text}`tuned.over.dpo` over DPO and {glue:text}`tuned.over.ppo` over PPO. On requests of families that were not tuned on, DPO changes it by {glue:text}`tuned.gain.dpo.second`, PPO by {glue:text}`tuned.gain.ppo.second`. Where an interval holds zero, the table does not tell the two apart; what it does tell is the price in nats, which is not the same for all rows.
#
# The table also says what this page left open of search: what becomes of it behind a preface, and what its scorer is trained to. Over prompting alone, CD with the preface changes the reward by {glue:text}`prompted.cd`, CD prefix with it by {glue:text}`prompted.cd-prefix`, RE-Control with it by {glue:text}`prompted.re-control`, best of four without it by {glue:text}`prompted.best`. And a prefix scorer drawn to its own next value, a Bellman equation as that of the paper's value (*CD-Q* {cite:p}`mudgal2024cd`), raises the reward of the plant by {glue:text}`scorer.bellman`, on the same answers where one that is drawn to outcomes raises it by {glue:text}`scorer.outcome`: {glue:text}`scorer.apart` between the two. On the second data set it is {glue:text}`scorer.apart.second`.
#
# What did it cost? And does an adapter leave alone what it is not about? The control is questions of fact, which neither method was shown: how far the tuned plant is from the plant there, and how much of what it knows has changed.

# %%
cards = {
    method: [read_tuning(adapter_folder(name)) for name in names]
    for method, names in adapters.items()
}
bare = load_plant(small, device="cpu")
value_size = sum(
    w.numel() for w in ValueNetwork(bare.width, bare.width).parameters()
)
fits = {}  # of RE-Control's values, the longest that a cell waited for each
for r in beside:
    law = r.cell.law
    if law is not None and law.name == "re-control" and r.cell.split == "test":
        key = (law.fit.seed, law.fit.labels)
        fits[key] = max(r.fit_seconds, fits.get(key, 0.0))

# %%
facts = tasks.Truth(bare).prompts("test")[:10]
once = {"max_new_tokens": 12, "seed": 0}
replies = bare.generate(facts, **once).texts
knows = {r.cell.plant: np.array(r.scores["wanted"]) for r in with_tuned
         if r.cell.task == "truth"}  # fmt: skip
apart, lost, slower = {}, {}, {}
for method, names in adapters.items():
    changed = np.stack([knows[name] - knows[small] for name in names])
    lost[method] = metrics.grid_interval(changed)
    plants = [load_plant(name, device="cpu") for name in names]
    far = [departure(bare, p, facts, replies)["kl"].value for p in plants]
    apart[method] = float(np.mean(far))
    slower[method] = spent_on(plants[0], facts) / spent_on(bare, facts)

# %% tags=["hide-input"]
whole = sum(w.numel() for w in bare.model.parameters())
seconds = {m: float(np.mean([c["cpu_seconds"] for c in cards[m]])) for m in cards}
fit_time = float(np.mean(list(fits.values())))
rows = [
    (
        m.upper(),
        f"{cards[m][0]['parameters']:,} ({percent(cards[m][0]['parameters'] / whole)} of the plant)",
        f"{seconds[m]:.0f}",
        f"{slower[m]:.1f}",
        f"{plain[m].kl:.3f}",
        f"{apart[m]:.3f}",
        signed(lost[m]),
    )
    for m in ("dpo", "ppo")
]
rows.append(("RE-Control", f"{value_size:,} ({percent(value_size / whole)})", f"{fit_time:.0f}",
             "see above", f"{plain['re-control'].kl:.3f}", "–", "–"))  # fmt: skip
for m in ("dpo", "ppo"):
    page.record(f"tuned.seconds.{m}", seconds[m], unit="s", digits=0)
    page.record(f"tuned.apart.{m}", apart[m], digits=3)
    page.record(f"tuned.lost.{m}", lost[m], digits=3)
page.record("tuned.fit", fit_time, unit="s", digits=1)
page.record("tuned.numbers", cards["dpo"][0]["parameters"])
page.record("tuned.value", value_size)
more = min(seconds.values()) - max(fits.values())
page.record("tuned.seconds.extra", more, low=more, high=more, digits=1)
extra = min(c[0]["parameters"] for c in cards.values()) - value_size
page.record("tuned.numbers.extra", extra, low=extra, high=extra, digits=0)
table(rows, "method", "numbers trained", "seconds", "time to answer, of the plant's", "KL on requests",
      "KL on questions of fact", "change in what it knows of facts")  # fmt: skip

# %% [markdown]
# An adapter has {glue:text}`tuned.numbers` numbers, RE-Control's value {glue:text}`tuned.value`. DPO took {glue:text}`tuned.seconds.dpo` of processor time and PPO {glue:text}`tuned.seconds.ppo`, as their cards say; a value of RE-Control {glue:text}`tuned.fit`, its own answers included. What is paid once is not paid again: a tuned plant answers in the time of the plant, while RE-Control climbs at every token. On questions of fact the plant's answers are {glue:text}`tuned.apart.dpo` nats for each token away from the plant that DPO made, and {glue:text}`tuned.apart.ppo` from PPO's; the probability of true answers changes by {glue:text}`tuned.lost.dpo` and {glue:text}`tuned.lost.ppo`. A law acts where it is attached; an adapter is everywhere.

# %% tags=["hide-input"]
logs = [card["history"] for card in cards["ppo"]]
base_reward = np.array([card["numbers"]["baseline"] for card in cards["ppo"]])[
    :, None
]
in_training = (
    np.array([[e["objective/scores"] for e in log] for log in logs]) + base_reward
)
moved = np.array([[e["objective/kl"] for e in log] for log in logs])
batches = list(range(1, in_training.shape[1] + 1))


def over_seeds(found):
    """Mean of the adapters, between the lowest and the highest."""
    return [
        Estimate(float(c.mean()), float(c.min()), float(c.max()), len(c))
        for c in found.T
    ]


page.record(
    "tuned.climb", in_training[:, -1].mean() - in_training[:, 0].mean(), digits=2
)
page.record("tuned.moved", moved[:, -1].mean(), digits=2)
page.figure(
    "tuned-training",
    figures.narrow(
        figures.over(
            batches,
            {
                "what its answers earn": Panel({"PPO": over_seeds(in_training)}, ylabel="mean reward"),
                "how far they are from the plant's": Panel({"PPO": over_seeds(moved)}, ylabel="nats for each answer"),
            },
            xlabel="batch of answers",
        ),
        height=2.5,
    ),
    alt=f"PPO while it trains, over {len(batches)} batches, mean of {len(logs)} seeds between the lowest and the "
    f"highest: the mean reward of a batch goes from {in_training[:, 0].mean():+z.2f} to {in_training[:, -1].mean():+z.2f}, "
    f"the divergence of its answers from the plant's from {moved[:, 0].mean():.2f} to {moved[:, -1].mean():.2f} nats.",
)  # fmt: skip

# %% [markdown]
# The log of PPO: over its batches the reward of its answers changes by {glue:text}`tuned.climb`, and they end {glue:text}`tuned.moved` nats from the plant's.
#
# ### Tuned too far
#
# Chapters [22](22_gradient_control) and [23](23_re_control_tables) drive RE-Control into {term}`over-optimisation`, where what is climbed goes on rising while answers fall apart. Does tuning end there, too? PPO pays for moving away from the plant; here it goes on at twice the rate with nothing to pay, and, as a control, at the price of the recipe above, {glue:text}`tuned.seeds` adapters each. Answers to the same test requests, scored like those of the table:

# %%
done = {}  # by cost of a nat and number of batches
whose_doses, _ = records_of("ppo_doses", profile=profile)
for record in reference("ppo_doses", profile=whose_doses, page=page).records:
    made = RECIPES[recipe_of(record.cell.plant)]
    done.setdefault((made.kl, made.how.steps), []).append(record)
rows_of = {
    key: value_tables.row_from("unsteered", records)
    for key, records in sorted(done.items())
}
free_kl, price = sorted({kl for kl, _ in rows_of})
alone = plain["unsteered"]
doses = [n for kl, n in rows_of if kl == free_kl]
longest_dose, held_dose = max(doses), max(n for kl, n in rows_of if kl == price)
path = {0: alone} | {n: rows_of[free_kl, n] for n in doses}
dear, unpriced = rows_of[price, held_dose], rows_of[free_kl, held_dose]

# %% tags=["hide-input"]
WHAT = {
    "reward": "reward",
    "topic-agreement": "coherence",
    "diversity": "diversity",
}
overdone = {
    name: [row.estimate(column) for row in path.values()]
    for column, name in WHAT.items()
}
table(
    [
        (label, interval(row.estimate("reward")), interval(in_percent(row.estimate("win-rate")), 0),
         interval(row.estimate("topic-agreement")), interval(row.estimate("diversity")),
         "–" if np.isnan(row.kl) else f"{row.kl:.3f}")
        for label, row in [("the plant alone", alone)]
        + [(f"{n} batches, a nat costs {kl:g}", row) for (kl, n), row in rows_of.items()]
    ],
    "PPO", "Average reward", "Win rate, %", "Coherence", "Diversity", "KL, nats per token",
)  # fmt: skip

# %% tags=["hide-input"]
page.figure(
    "tuned-too-far",
    figures.narrow(
        figures.over(
            list(path),
            {"": Panel(overdone, ylabel="score, test requests", line=("reward without tuning", overdone["reward"][0].value))},
            xlabel="batches of PPO at no price",
        ),
        height=3.0,
    ),
    alt="Reward, coherence and diversity of the tuned plant's answers against the batches of PPO when moving away "
    "costs nothing, with 95 % intervals. "
    + " ".join(
        f"{name}: " + ", ".join(f"{e.value:z.2f} at {n}" for n, e in zip(path, es, strict=True)) + "."
        for name, es in overdone.items()
    ),
)  # fmt: skip
ended = path[longest_dose]
for key, column in (
    ("reward", "reward"),
    ("coherence", "topic-agreement"),
    ("diversity", "diversity"),
):
    for name, one, other in (
        ("free", ended, alone), ("priced", dear, alone), ("apart", dear, unpriced), ("last", ended, path[doses[0]])
    ):  # fmt: skip
        page.record(
            f"toofar.{key}.{name}",
            metrics.paired_grid_difference(one.scores[column], other.scores[column]),
            digits=2,
        )  # fmt: skip
page.record("toofar.kl.free", ended.kl, digits=2)
page.record("toofar.kl.priced", dear.kl, digits=2)
page.record("toofar.price", price, digits=2)
page.record("toofar.batches", longest_dose)
page.record("toofar.held", held_dose)
page.record("toofar.first", doses[0])

# %% [markdown]
# - After {glue:text}`toofar.batches` batches at no price the reward has changed by {glue:text}`toofar.reward.free` from the plant alone, coherence by {glue:text}`toofar.coherence.free` and diversity by {glue:text}`toofar.diversity.free`, at {glue:text}`toofar.kl.free` nats for each token. What the batches after the first {glue:text}`toofar.first` bought of that: {glue:text}`toofar.reward.last` of reward, {glue:text}`toofar.coherence.last` of coherence.
# - With a nat at {glue:text}`toofar.price`, {glue:text}`toofar.held` batches change the reward by {glue:text}`toofar.reward.priced`, coherence by {glue:text}`toofar.coherence.priced` and diversity by {glue:text}`toofar.diversity.priced`, at {glue:text}`toofar.kl.priced` nats for each token; over as many at no price that is {glue:text}`toofar.reward.apart` of reward and {glue:text}`toofar.coherence.apart` of coherence.
#
# The reward here is the rubric itself and has no errors to exploit: what is lost is what it does not pay for. A step size and a number of batches are one knob under two names, how far from the plant to go, and the price of a nat is what turns it back. {glue:text}`ppo_doses.recomputed`
#
# ## Break it
#
# *Another tokenizer.* ARGS reads the plant's token ids with the reward model. Where the two split texts differently, the ids mean nothing, and the paper's tables say N/A. That is a limit of this form and not of search: a reward model of *texts* works with any tokenizer, at the price of reading every beginning from the start.

# %%
reader = small_reader(lm, width=16, depth=1, heads=2)
other = copy.deepcopy(lm.tokenizer)
other.add_tokens(["<another>"])
tiny = {"max_new_tokens": 2, "seed": 0}
try:
    search(TokenScorer(reader, other), 1.0).generate(lm, prompts[:1], **tiny)
    refused = 0.0
except DecodingError as error:
    refused = 1.0
    page.text("mismatch", str(error).split(", so")[0])
works = search(ModelScorer(reader, lm.tokenizer, batch_size=1), 1.0, k=2)
reads = works.generate(lm, prompts[:1], **tiny).cost.reward_positions

# %% [markdown]
# *Too much weight.* What search maximises is the value: beyond some weight it pays nats for what only the value believes. *Zero weight, all tokens* is the plant itself, to the last draw. *Temperature zero*: best of n and blocks refuse it, since all their samples would be one.

# %%
hard = searched(searching(values[:1], 30.0))
whole = search(TextScorer(earned), 0.0, k=head.weight.shape[0])
alone = {"max_new_tokens": 2, "seed": seeds[0]}
assert (
    whole.generate(lm, prompts[:1], **alone).texts
    == lm.generate(prompts[:1], **alone).texts
)
try:
    BestOf(earned, n=2).generate(lm, prompts[:1], temperature=0, **tiny)
except DecodingError as error:
    print(error)

# %% tags=["hide-input"]
page.record("mismatch.refused", refused, digits=0)
page.record("mismatch.reads", int(reads))
page.record("gain.hard", change_of(hard[0]), digits=2)
page.record("paid.hard", metrics.grid_interval(hard[1]))
page.record("hard.change", change_of(hard[0], ahead[0]), digits=2)

# %% [markdown]
# The refusal says: “{glue:text}`mismatch`”. The reward model of texts reads {glue:text}`mismatch.reads` positions for two tokens with two candidates each. With the first value, ten times the weight makes search spend {glue:text}`paid.hard` nats for each answer, and changes the reward by {glue:text}`gain.hard` against the unsteered plant, by {glue:text}`hard.change` against the weight of 3.
#
# **In control words.** Search is model-predictive control with a horizon of one and a learned cost-to-go: it tries inputs on the plant itself. RE-Control replaces the trial by a linearisation of the cost-to-go in the state, learned from answers in which nobody pushed. Best of n is random shooting. Prompting is a setpoint; tuning is another plant.
#
# ## Exercises
#
# Replace the body of the stub, run the stub and the cell of tests below it, then call the test on your function, for example `check_24_1(tilt)`. Silence means that it passed. Each exercise stands alone; run `import numpy as np` first. Solutions are folded; open one by a click.
#
# ### Exercise 24.1: the tilt
#
# *Easy, 5 minutes.* Return $\pi^*$ of {prf:ref}`search-price` and $\mathrm{KL}(\pi^*\|p)$. Rewards may be as large as 1,000.

# %% tags=["exercise-setup", "ex:24.1", "ex:24.2", "ex:24.3", "ex:24.4"]
import math

import numpy as np


# %% tags=["exercise-stub", "ex:24.1"]
def tilt(p, r, beta):
    """Probabilities (n,), rewards (n,), beta -> (tilted (n,), nats)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:24.1"]
def check_24_1(tilt):
    p, r = np.full(4, 0.25), np.array([2.0, 0, 1, 1])
    q, paid = tilt(p, r, 1 / np.log(2))
    assert np.allclose(q, np.array([4, 1, 2, 2]) / 9)
    assert np.isclose(paid, (q * np.log(4 * q)).sum())
    q, _ = tilt(p, r, 1e6)
    assert np.allclose(q, p, atol=1e-5), "dear: stay with the plant"
    q, paid = tilt(p, 1000 * r, 1.0)
    assert np.allclose(q, [1, 0, 0, 0]) and np.isclose(paid, np.log(4))


# %% tags=["exercise-wrong", "ex:24.1", "remove-cell"]
def tilt(p, r, beta):  # multiplies by beta where it divides
    w = p * np.exp(beta * (r - r.max()))
    q = w / w.sum()
    return q, float((q * np.log(np.maximum(q, 1e-300) / p)).sum())


# %% tags=["exercise-solution", "ex:24.1", "hide-cell"]
def tilt(p, r, beta):
    w = p * np.exp((r - r.max()) / beta)
    q = w / w.sum()
    return q, float((q * np.log(np.maximum(q, 1e-300) / p)).sum())


# %%
check_24_1(tilt)

# %% [markdown]
# ### Exercise 24.2: the best of n, from a pool
#
# *Medium, 10 minutes.* You have $N$ samples. Return the mean, over all subsets of $n$, of their highest reward, without going through the subsets.


# %% tags=["exercise-stub", "ex:24.2"]
def expected_best_of(pool, n):
    """Rewards (N,), n -> mean highest reward of n of them."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:24.2"]
def check_24_2(expected_best_of):
    pool = np.array([3.0, 1, 2, 0])
    assert np.isclose(expected_best_of(pool, 1), 1.5)
    assert np.isclose(expected_best_of(pool, 4), 3)
    assert np.isclose(expected_best_of(pool, 2), (3 * 3 + 2 * 2 + 1) / 6)
    assert np.isclose(expected_best_of(np.array([1.0, 1, 0]), 2), 1)


# %% tags=["exercise-wrong", "ex:24.2", "remove-cell"]
def expected_best_of(pool, n):  # draws with replacement
    rising, size = np.sort(pool), len(pool)
    ranks = np.arange(size + 1) / size
    return float(np.diff(ranks**n) @ rising)


# %% tags=["exercise-solution", "ex:24.2", "hide-cell"]
def expected_best_of(pool, n):
    rising, size = np.sort(pool), len(pool)
    ways = [math.comb(i, n - 1) for i in range(size)]
    return float(np.array(ways) @ rising / math.comb(size, n))


# %%
check_24_2(expected_best_of)

# %% [markdown]
# ### Exercise 24.3: one step of search, with its price
#
# *Medium, 10 minutes.* From `logits` and one `score` for each token, return the distribution of controlled decoding over **all** tokens (zero outside of the $k$ likeliest) and its divergence from the plant's own.


# %% tags=["exercise-stub", "ex:24.3"]
def cd_step(logits, score, weight, k):
    """Logits (n,), scores (n,) -> (probabilities (n,), nats)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:24.3"]
def check_24_3(cd_step):
    logits = np.log([4.0, 2, 1, 1])
    q, paid = cd_step(logits, np.zeros(4), 1.0, 4)
    assert np.allclose(q, [0.5, 0.25, 0.125, 0.125]) and np.isclose(paid, 0)
    q, paid = cd_step(logits, np.zeros(4), 1.0, 2)
    assert np.allclose(q, [2 / 3, 1 / 3, 0, 0])
    assert np.isclose(paid, np.log(4 / 3)), "leaving out tokens has a price"
    q, paid = cd_step(logits, np.log([1.0, 2, 9, 9]), 1.0, 2)
    assert np.allclose(q, [0.5, 0.5, 0, 0])
    assert np.isclose(paid, 0.5 * np.log(2))


# %% tags=["exercise-wrong", "ex:24.3", "remove-cell"]
def cd_step(logits, score, weight, k):  # compares with the truncated plant
    kept = np.argsort(-logits, kind="stable")[:k]
    free = np.exp(logits[kept]) / np.exp(logits[kept]).sum()
    total = free * np.exp(weight * score[kept])
    q = np.zeros(len(logits))
    q[kept] = total / total.sum()
    return q, float((q[kept] * np.log(q[kept] / free)).sum())


# %% tags=["exercise-solution", "ex:24.3", "hide-cell"]
def cd_step(logits, score, weight, k):
    kept = np.argsort(-logits, kind="stable")[:k]
    free = np.exp(logits) / np.exp(logits).sum()
    total = free[kept] * np.exp(weight * score[kept])
    q = np.zeros(len(logits))
    q[kept] = total / total.sum()
    return q, float((q[kept] * np.log(q[kept] / free[kept])).sum())


# %%
check_24_3(cd_step)

# %% [markdown]
# ### Exercise 24.4: the best push
#
# *Hard, 15 minutes.* Return the push $u$ of {prf:ref}`search-efficiency` (3), for which the correlation of $Wu$ with $Q$ under $p$ is the highest: a weighted least-squares fit with a constant. Scale it so that $Wu$ has variance 1 under $p$.


# %% tags=["exercise-stub", "ex:24.4"]
def best_push(W, o, q):
    """Head (n, d), state (d,), worth of tokens (n,) -> push (d,)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:24.4"]
def check_24_4(best_push):
    rng = np.random.default_rng(0)
    W, o, q = rng.normal(size=(7, 3)), rng.normal(size=3), rng.normal(size=7)
    p = np.exp(W @ o) / np.exp(W @ o).sum()

    def corr(u):
        a, b = W @ u - p @ W @ u, q - p @ q
        return (p @ (a * b)) / np.sqrt((p @ a**2) * (p @ b**2))

    u = best_push(W, o, q)
    assert np.isclose(p @ (W @ u) ** 2 - (p @ W @ u) ** 2, 1)
    others = rng.normal(size=(200, 3)) * 0.2 + u
    assert all(corr(v) <= corr(u) + 1e-12 for v in others)
    assert corr(u) > 0, "up, not down"


# %% tags=["exercise-wrong", "ex:24.4", "remove-cell"]
def best_push(W, o, q):  # the gradient: steepest in length, not in nats
    p = np.exp(W @ o) / np.exp(W @ o).sum()
    u = W.T @ (p * (q - p @ q))
    return u / np.sqrt(p @ (W @ u) ** 2 - (p @ W @ u) ** 2)


# %% tags=["exercise-solution", "ex:24.4", "hide-cell"]
def best_push(W, o, q):
    p = np.exp(W @ o) / np.exp(W @ o).sum()
    centred = W - p @ W
    root = np.sqrt(p)[:, None]
    u = np.linalg.lstsq(root * centred, root[:, 0] * (q - p @ q), rcond=None)[0]
    return u / np.sqrt(p @ (centred @ u) ** 2)


# %%
check_24_4(best_push)

# %% [markdown]
# ## Claims checked here
#
# What RE-Control's main table {cite:p}`kong2024recontrol` says of its rivals, tested on one small plant in a decidable world: {glue:text}`n.prompts` prompts, {glue:text}`n.seeds` fitted values with a noise each; tuning on the shipped tables of the part above. The verdicts are about the sign on this plant, at the prices of the table, and stand beside the published numbers, not in their place. The table says what was checked here; the sentence of the paper that it answers, and what the estimate is of, stand at the foot of the page.

# %% tags=["hide-input"]
mine = [c for c in load_claims().values() if c.page == page.record_file.page]
compared = {
    n: tables["first"][n] for n in ("unsteered", "re-control", "dpo", "ppo")
}
for metric in ("reward", "win-rate"):
    page.samples(
        f"tuned.{metric}",
        {n: row.scores[metric] for n, row in compared.items()},
        note="shipped cells of the smallest plant, first data set; a value or an adapter for each seed",
    )  # fmt: skip
if on_almanac or real:
    where = "the tiny plant, Almanac preference" if on_almanac else lm.name
    note = f"sampled on {where}, a value for each seed, at the prices of the page's table"
    scored = {"unsteered": free} | {
        n: run[0] for n, run in runs.items() if len(run[0]) == len(free)
    }
    page.samples("preference.reward", scored, note=note)
    page.samples(
        "preference.over-base",
        {n: (x > free).astype(float) for n, x in scored.items() if n != "unsteered"},
        note=note,
    )  # fmt: skip
    page.samples(
        "iteration.reward",
        {"second": rounds["second"][0], "first": rounds["first, half the answers"][0]},
        note=note,
    )  # fmt: skip
else:
    why = f"this plant is scored on {task.labels.wanted}, not on preference"
    for claim in mine:
        if claim.metric in (
            "preference.reward",
            "preference.over-base",
            "iteration.reward",
        ):
            page.cannot_check(claim.id, why=why)


def least_of(claim, one, other):
    """What a claim's test would have found in four of five cases."""
    check = page.record_file.checks.get(claim)
    known = check.detectable if check is not None else None
    return known or metrics.detectable_effect((one - other).mean(0))


first_half = rounds["first, half the answers"][0]
least = {
    "static": least_of(
        "recontrol.t1.reward.beats-static", climbed[middle][0], runs["static-re"][0]
    ),
    "iteration": least_of(
        "recontrol.limits.a-second-iteration-helps", rounds["second"][0], first_half
    ),
}  # fmt: skip
for name, number in least.items():
    page.record(f"{name}.least", number, digits=2 if number >= 0.1 else 3)
rows = []
for claim in mine:
    check = page.record_file.checks.get(claim.id)
    if check is None:
        continue
    rows.append(
        (claim.derived or claim.says, check.verdict, estimate(check) or "–")
    )
table(rows, "claim", "here", "estimate")

# %% [markdown]
# Where nothing was found, it matters what could have been: a difference in reward of {glue:text}`static.least` from the constant push, and of {glue:text}`iteration.least` from the first iteration, would have been found in four of five cases. That RE-Control with prompting earns more than without says little for RE-Control: prompting alone changes the reward by as much as the table shows. Not entered as claims: that the expected best of $n$ from one pool rises with $n$, which is arithmetic, so that only how fast is measured; and that another tokenizer is refused, which is a check of our decoder.
#
# ## What we found

# %% tags=["hide-input"]
points = [
    f"With one and the same values, search changes the mean reward by {signed(gains['cd-prefix'])} "
    f"at {paid['cd-prefix'].value:z.2f} nats for each answer, climbing by {signed(gains['re-control'])} at "
    f"{paid['re-control'].value:z.2f}.",
    f"Best of 2, 4, 8 change it by {', '.join(f'{best_of(n).value:+z.3f}' for n in (2, 4, 8))}, at no more than "
    f"{', '.join(f'{best_of_divergence(n):.2f}' for n in (2, 4, 8))} nats.",
    f"Drawing from the {k} likeliest tokens alone changes it by {signed(gains['top'])}; over that, the value adds "
    f"{signed(change_of(runs['cd-prefix'][0], runs['top'][0]))} by search and "
    f"{signed(change_of(runs['re-control-top'][0], runs['top'][0]))} by climbing.",
    f"RE-Control's shift of the logits has a correlation of {effect['RE-Control']} with what tokens are worth; "
    f"search has 1, a shuffled value {effect['shuffled value']}.",
    f"Search computes {each[f'CD prefix, k = {k}'][1]:.1f} positions for each token, climbing "
    f"{each['RE-Control, 10 steps'][1]:.1f}.",
    f"A second policy iteration is worth {signed(steps['second iteration over first'])}, preferences in the loss "
    f"{signed(steps['preferences over plain'])}, both at equal price.",
]  # fmt: skip
points.append(
    f"Tuning the smallest plant changes its reward by {signed(against(plain, 'dpo'), 2)} (DPO) and "
    f"{signed(against(plain, 'ppo'), 2)} (PPO), RE-Control by {signed(against(plain, 're-control'), 2)}; an adapter has "
    f"{cards['dpo'][0]['parameters'] / value_size:.0f} times as many numbers as the value."
)  # fmt: skip
far = {
    key: page.record_file.values[f"toofar.{key}"].shown
    for key in (
        "reward.free",
        "coherence.free",
        "reward.priced",
        "coherence.priced",
    )
}
points.append(
    f"After {longest_dose} batches of PPO at no price the reward has changed by {far['reward.free']} and coherence by "
    f"{far['coherence.free']}; after {held_dose} at {price:g} a nat by {far['reward.priced']} and {far['coherence.priced']}."
)  # fmt: skip
if told:
    points.append(
        f"Prompting changes the reward by {signed(gains['prompting'])}; RE-Control on top of it by another "
        f"{signed(change_of(runs['re-control-prompting'][0], runs['prompting'][0]))}."
    )
page.findings(points)

# %% [markdown]
# What this does not show: what happens on a model a thousand times as large, with a reward model that can be fooled. What carries over are the propositions: everyone tilts the same distribution, a push buys what its shift of the logits has in common with the worth of tokens, and best of n is a rival that no table should be without.
#
# ## Further reading
#
# - {cite:t}`mudgal2024cd`: controlled decoding with a prefix scorer, token by token and by blocks.
# - {cite:t}`khanov2024args`: the reward model asked about every beginning.
# - {cite:t}`yang2021fudge`: the regression that most prefix scorers are.
# - {cite:t}`beirami2024bestofn`: what best of n really costs.
# - {cite:t}`hu2022lora`, {cite:t}`rafailov2023dpo`, {cite:t}`schulman2017ppo`: the adapter and the two ways to train it.
# - {cite:t}`kong2024recontrol`: the main table that is rerun here.

# %% tags=["hide-input"]
page.footer()
