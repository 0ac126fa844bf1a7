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
# (ch-bellman)=
# # 21 Bellman on hidden states
#
# **The value of a state says how well an answer will end before it is written. The equation that defines it is exact; what a network makes of it depends on the training target. Six targets are derived here, solved on chains where the truth is known, and held against rollouts of the plant: they do not agree, and the one in the released code of RE-Control sees the reward through the prompt alone.**
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
# : [01](01_dynamical_system) for tokens as time and for the cache, [02](02_almanac) for the rubric of replies, [05](05_claims_on_paper) for what text and code of RE-Control say
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
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from steerlib import figures, metrics, tasks
from steerlib.control.bellman import TARGETS, bellman_loss
from steerlib.control.chains import Chain, bellman_backup
from steerlib.control.linear_values import (
    aliased,
    linear_value,
    normal_equations,
)
from steerlib.control.networks import Training
from steerlib.control.value_quality import (
    ceiling,
    quality_by_position,
    value_errors,
)
from steerlib.control.values import fit_value
from steerlib.experiment.page import Page
from steerlib.experiment.profile_plants import plant_for
from steerlib.experiment.profile_tables import task_for
from steerlib.experiment.showing import interval, percent, table
from steerlib.sampling import truncate, uniforms
from steerlib.tasks import banking
from steerlib.tasks.helpfulness import Helpfulness

pd.set_option("display.max_colwidth", None)
page = Page(
    "21_bellman_on_hidden_states", profile=profile, plant=plant, seeds=seeds
)
lm = page.uses(plant_for(plant, profile=profile, table="re_control", exact=True))
# A real model is asked for what its profile says, by that profile's reward model.
real = task_for(lm, profile=profile, alone=True)
task = real or tasks.for_plant(lm, data=os.environ.get("STEERLIB_DATA"))
if task.name == "truth":
    task = Helpfulness(lm)  # a reward for whole replies, by an exact rubric
page.words(task.labels)
lm

# %% [markdown]
# ## Half an answer, and what it is worth
#
# The plant is asked for help. Its replies are rewarded when they are whole: the rubric of the task gives one number at the end, and nothing on the way. Below is one reply, stopped at several places: of those at hand the one whose prospects change most. From each place the plant went on by itself {glue:text}`n.samples` times, and the mean of what these continuations earned, with its standard error, is in the last column. It is the **{term}`value <value function>`** of the state that the plant is in at that place, by brute force.

# %%
plan = banking.SHIPPED
bank = banking.load_bank(task, plan)
shipped = bank is not None
if not shipped:  # another plant than the one that comes with answers
    plan = banking.BankPlan(fit=160, test=80, begun=12, at=(0, 8, 24), samples=8)
    bank = banking.sample_bank(task, plan)
again = banking.sampled_again(task, bank, answers=8, beginnings=2)
assert again.same >= 0.75 and again.worth < 4, again

# %% tags=["hide-input"]
worth, held_rows = bank.worth, bank.rows
swings = [float(np.ptp(worth.mean[held_rows == i])) for i in range(plan.begun)]
shown = int(np.argmax(swings))
rows = []
for start, i, mean, error in zip(
    bank.beginnings(), held_rows, worth.mean, worth.error, strict=True
):
    if int(i) == shown:
        text = lm.tokenizer.decode(start).replace("\n", " ")
        rows.append((len(start), text, f"{mean:.2f} ± {error:.2f}"))
page.text("shown.prompt", bank.test.prompts[shown].strip().replace("\n", " "))
page.record("shown.reward", float(bank.test.rewards[shown]), digits=2)
page.record("n.fit", len(bank.fit.tokens))
page.record("n.test", len(bank.test.tokens))
page.record("n.samples", plan.samples)
page.record("n.begun", len(bank.beginnings()))
page.record("n.seeds", len(seeds))
page.record("again.same", 100 * again.same, digits=0, unit="%")
page.text(
    "bank.note",
    f"they come with the project, and {again.answers} answers and "
    f"{again.beginnings} beginnings were sampled again here: "
    f"{percent(again.same)} of the answers came out the same, token by token"
    if shipped
    else "none come with this plant, so that they were sampled here",
)
table(rows, "tokens", "the reply so far", "mean reward of continuations")

# %% [markdown]
# The request was: "{glue:text}`shown.prompt`". The whole reply earned {glue:text}`shown.reward`. The chapter uses {glue:text}`n.fit` answers to learn from, {glue:text}`n.test` to other requests to judge by, and {glue:text}`n.begun` beginnings of the latter, each continued {glue:text}`n.samples` times ({glue:text}`bank.note`).
#
# A controller that could read this number while the answer is written could act on it; that is the subject of chapter 22. This chapter is about how to get the number without writing that many answers.
#
# ## The plant as a stochastic system
#
# RE-Control {cite:p}`kong2024recontrol` reads a language model as a stochastic dynamical system whose time is the token.
#
# :::{prf:definition} States, noise, reward
# :label: bellman-system
# The **state** is $s_t = (h_t, o_t)$: $h_t$ is the key-value cache of all tokens so far and $o_t \in \mathbb{R}^d$ what the unembedding $W$ reads when token $t$ is drawn. The **noise** $g_t$ decides the draw, $y_t = \arg\max_y\, (W o_t + g_t)_y$ with independent Gumbel numbers $g_t$ (each is minus the logarithm of an exponential one), which makes $y_t$ a draw from $\pi_t = \operatorname{softmax}(W o_t)$. Given the token, the rest is certain: $s_{t+1} = f(s_t, y_t)$. The **reward** $r$ comes once, with the token that ends the answer; nothing is discounted. An input $u_t$ adds to $o_t$, and the objective is $\mathbb{E}[r] - c \sum_t \lVert u_t \rVert^2$ with a price $c > 0$ on effort (the paper's $\lambda$; here that letter is kept for TD($\lambda$)). The **zero policy** is $u = 0$: the plant as it is.
# :::
#
# That the token is the only thing left to chance can be checked: with the noise known, one pass over an answer predicts every token of it.

# %%
*_, how = banking.requests(task, plan)
prompt, tokens = bank.fit.prompts[0], list(bank.fit.tokens[0])
heads = []
head = lm.model.get_output_embeddings()
tap = head.register_forward_pre_hook(lambda _, args: heads.append(args[0]))
ids = [*lm.tokenizer(prompt).input_ids, *tokens]
with torch.no_grad():
    logits = lm.model(torch.tensor([ids], device=lm.device)).logits[0]
    states = heads[0][0, -len(tokens) - 1 : -1]
    by_hand = head(states)
tap.remove()
logits = logits[-len(tokens) - 1 : -1]

# %%
place = torch.zeros(1, dtype=torch.long)  # the first request, seed 0
predicted = []
for t, row in enumerate(logits.cpu()):
    kept = truncate(row[None] / how.temperature, top_k=how.top_k, top_p=how.top_p)
    noise = uniforms(how.seed, place, t, kept.shape[1])
    predicted.append(int((kept - torch.log(-torch.log(noise))).argmax()))
known = float(np.mean(np.array(predicted) == np.array(tokens)))
assert known > 0.95

# %% tags=["hide-input"]
cap = getattr(lm.model.config, "final_logit_softcapping", None)
expected = cap * torch.tanh(by_hand / cap) if cap else by_hand
page.record(
    "plant.logits",
    float((expected - logits).abs().max()),
    note="largest difference of a logit from the head applied to the state",
)
page.record("plant.known", 100 * known, digits=0, unit="%")

# %% [markdown]
# Of the tokens of this answer {glue:text}`plant.known` are predicted, and its logits are the head applied to $o_t$ (largest difference: {glue:text}`plant.logits`).
#
# :::{prf:definition} Value
# :label: bellman-value
# $V(s) = \mathbb{E}[\, r \mid s_t = s \,]$ under the zero policy.
# :::
#
# :::{prf:proposition} Bellman's equation
# :label: bellman-equation
# Let $\mathcal{E}$ be the tokens that end an answer. Then
#
# $$ V(s) = \sum_{y \notin \mathcal{E}} \pi(y \mid s)\, V(f(s, y)) + \sum_{y \in \mathcal{E}} \pi(y \mid s)\, r(s, y), $$ (eq-bellman)
#
# and $V$ is the only bounded function that satisfies it, if answers end with probability one. Along an answer the value is a martingale: $\mathbb{E}[V(s_{t+1}) \mid s_t] = V(s_t)$, with $r$ in place of $V$ once the answer has ended.
# :::
#
# :::{prf:proof}
# The first claim is the law of total expectation over $y_t$, since $s_{t+1}$ is a function of $s_t$ and $y_t$. If $V$ and $U$ both satisfy it, $D = V - U$ satisfies $D(s_t) = \mathbb{E}[D(s_{t+1})\, 1\{\text{not ended}\}]$; applied $n$ times, $|D(s_t)| \le \sup |D| \cdot P(\text{not ended after } n)$, which goes to zero.
# :::
#
# The premise that $s_t$ holds the cache is *true* of a plant and will be *false* of what the network is given. The martingale can be seen in the rollouts: from place to place single answers rise and fall, and on average nothing should move.

# %%
test_rewards = bank.test.rewards
paths = {}
for i in range(plan.begun):
    here = held_rows == i
    found = dict(
        zip(bank.at[here].tolist(), worth.mean[here].tolist(), strict=True)
    )
    paths[i] = [found.get(t, float(test_rewards[i])) for t in plan.at]
paths = np.array(list(paths.values()))
moves = [
    metrics.mean_interval(paths[:, k] - paths[:, 0])
    for k in range(1, len(plan.at))
]

# %% tags=["hide-input"]
page.figure(
    "martingale",
    figures.intervals(
        {
            f"from token 0 to token {t}": e
            for t, e in zip(plan.at[1:], moves, strict=True)
        },
        xlabel="mean change of the value by rollouts",
        zero=0.0,
    ),
    alt="Mean change of the value by rollouts between the end of the prompt and "
    "later tokens, with 95 % intervals: "
    + ", ".join(
        f"{e} at token {t}" for t, e in zip(plan.at[1:], moves, strict=True)
    )
    + ". The martingale asks for 0.",
)
page.record(
    "martingale.spread", float(np.std(paths[:, -1] - paths[:, 0])), digits=2
)
page.record("martingale.mean", moves[-1], digits=2)

# %% [markdown]
# Between the end of the prompt and the last place the value of an answer moves by {glue:text}`martingale.spread` (one standard deviation), and on average by {glue:text}`martingale.mean`. The answers are the same at all places, so that the intervals are one finding and not several.
#
# ## Rung 1: a chain by hand
#
# A reply begins politely or rudely, with equal chance. A polite one ends well (reward 1) three times of four, else badly (0). A rude one ends badly, but for one of five times, when it turns polite. So $V(\text{polite}) = 0.75$, $V(\text{rude}) = 0.2 \cdot 0.75 = 0.15$ and $V(\text{start}) = (0.75 + 0.15)/2 = 0.45$. Sweeping {eq}`eq-bellman` over the states finds these numbers after three sweeps.

# %%
moving = np.array([[0, 0.5, 0.5], [0, 0, 0], [0, 0.2, 0]])
ending = np.array([[0, 0], [0.75, 0.25], [0, 0.8]])
pays = np.array([1.0, 0.0])
V = np.zeros(3)
for _ in range(3):
    V = moving @ V + ending @ pays
assert np.allclose(V, [0.45, 0.75, 0.15])
V.round(12).tolist()

# %% [markdown]
# `steerlib` has the chain as {py:class}`~steerlib.control.chains.Chain`, solves it, and lists every path with its probability, so that averages over paths are expectations.

# %%
chain = Chain(
    torch.tensor(moving), torch.tensor(ending), torch.tensor(pays),
    torch.tensor([1.0, 0, 0], dtype=torch.float64),
)  # fmt: skip
truth = chain.values()
assert torch.allclose(truth, torch.tensor(V))
backed = bellman_backup(
    truth, chain.moves[None], (chain.exits @ chain.payoffs)[None]
)
page.record("chain.residual", float((backed - truth).abs().max()))
features, lengths, rewards, chances = chain.paths(3)
lengths.tolist(), rewards.tolist(), chances.round(decimals=3).tolist()

# %% [markdown]
# ## Six things to regress on
#
# Nobody can sweep over the states of a plant. There are sampled answers, each a path of states and one reward, and a network $V_\phi(o)$ that is trained on them. All targets below ask $V_\phi(o_t)$ to be close to something; they differ in what.
#
# :::{prf:definition} Training targets
# :label: bellman-targets
# For an answer with states $o_0 \dots o_{L-1}$ and reward $r$, the loss is a sum of squared errors.
#
# - **TD(0)** (`td0`), the paper's; TD is for {term}`temporal difference`, that of the values at successive times: $V(o_t)$ to $V(o_{t+1})$, held fixed, and $V(o_{L-1})$ to $r$. Only the first of the two values gets a gradient, hence *{term}`semi-gradient`*.
# - **Residual gradient** (`residual`) {cite:p}`baird1995residual`: the same, with gradient through both values.
# - **Released code** (`released`): gradient through both values of each pair, and $V(o_0)$, not $V(o_{L-1})$, to $r$.
# - **Monte-Carlo** (`monte-carlo`): every $V(o_t)$ to $r$.
# - **TD($\lambda$)** (`td-lambda`) {cite:p}`sutton2018rl`: a mixture of later values and $r$; TD(0) at $\lambda = 0$, Monte-Carlo at $\lambda = 1$.
# - **Prompt only** (`prompt-only`): $V(o_0)$ to $r$, and the same number for the rest of the answer. A control: it can know nothing of the continuation.
# :::
#
# Why does the code regress at the first token? It looks for the last one by `argmax` over a padded row of ones and zeros, and `argmax` answers with the first of equal numbers.

# %%
mask = (torch.arange(6) < torch.tensor([[3], [6], [1]])).int()
released_index = mask.argmax(1)
page.record("mask.index", int(released_index.max()))
released_index.tolist(), (mask.sum(1) - 1).tolist()

# %% [markdown]
# For a *linear* value $V(o) = w^\top f(o)$ nothing has to be trained. Each target stops where its mean update is zero, and this is a linear equation. From scratch, for paths of equal length:


# %%
def solved(f, r, target):
    """Features (paths, T, k), rewards (paths,) -> weights."""
    after = np.concatenate([f[:, 1:], 0 * f[:, :1]], axis=1)
    d, g = f - after, np.zeros(f.shape[:2])
    g[:, -1] = r
    if target == "released":
        d[:, -1] = f[:, 0]  # the error that has the reward is at token 0
    if target == "monte-carlo":
        d, g = f, np.repeat(r[:, None], f.shape[1], axis=1)
    p = f if target in ("td0", "monte-carlo") else d  # whose value gives way
    A = np.einsum("nti,ntj->ij", p, d)
    return np.linalg.solve(A, np.einsum("nti,nt->i", p, g))


# %% [markdown]
# {py:func}`~steerlib.control.linear_values.linear_value` does the same for all six, with paths of any length and probability. On the chain, with one coordinate for each state, a linear value is a table, so that the three numbers are what any network would end with that can represent them and comes to rest.

# %%
known_to_all = partial(linear_value, features, lengths, chances=chances)
tables = {
    target: known_to_all(rewards, target=target)
    for target in TARGETS
    if target != "prompt-only"  # it says of every state what it says of the start
}
blurred = torch.full_like(rewards, 0.45)  # each reward replaced by E[r | start]
blind = known_to_all(blurred, target="released")

# %% tags=["hide-input"]
page.record("chain.td0", float((tables["td0"] - truth).abs().max()))
page.record("chain.blind", float((tables["released"] - blind).abs().max()))
page.record(
    "chain.residual-off",
    float((tables["residual"] - truth).abs().max()),
    digits=2,
)
page.record(
    "chain.released-off",
    float((tables["released"] - truth).abs().max()),
    digits=2,
)
pd.DataFrame(
    [truth.numpy(), *(t.numpy() for t in tables.values())],
    index=["exact", *tables],
    columns=["start", "polite", "rude"],
).round(3)

# %% [markdown]
# TD(0), TD($\lambda$) and Monte-Carlo are exact. The residual gradient is off by up to {glue:text}`chain.residual-off`. The released target gives every state the value of the start: it is off by {glue:text}`chain.released-off`.
#
# :::{prf:theorem} Where the targets lead if the state is Markov
# :label: bellman-markov
# Let the future depend on the past through $o_t$ alone, let every $V$ be representable, by one free number for each state, and let answers end with probability one. Then TD(0), TD($\lambda$) and Monte-Carlo each have the true value as their only limit on the states that occur. The residual gradient minimises
#
# $$ \sum_t \mathbb{E}\big[(V(o_t) - \mathbb{E}[V(o_{t+1}) \mid o_t])^2\big] + \sum_t \mathbb{E}\big[\operatorname{Var}(V(o_{t+1}) \mid o_t)\big], $$ (eq-residual-gradient)
#
# with $r$ for the value after the end: Bellman's error and a penalty on values that chance can move.
# :::
#
# :::{prf:proof}
# With one free number for each state, the mean TD(0) update at $o$ is zero if and only if $V(o)$ is the mean of what follows, which is {eq}`eq-bellman` read for $o$; its solution is unique by {prf:ref}`bellman-equation`. Regression on $r$ ends at $\mathbb{E}[r \mid o] = V(o)$. The target of TD($\lambda$) at $V$ has mean $V$ by the martingale, so $V$ is a limit, and the difference $D$ of two limits is at $o_t$ the mean of $(1-\lambda)\sum_{k \ge 1} \lambda^{k-1} D(o_{t+k})$, with $D = 0$ after the end, whose only bounded solution is zero as before. For the last claim, $\mathbb{E}[(a - X)^2] = (a - \mathbb{E}X)^2 + \operatorname{Var}X$ given $o_t$.
# :::
#
# :::{prf:theorem} What the released target sees of the reward
# :label: bellman-released
# On any data, Markov or not, the minimisers of the released loss depend on the rewards only through $m(o_0) = \mathbb{E}[r \mid o_0]$. If the network can represent $m(o_0)$ as a function that is constant along every answer, that function is a minimiser, and all that is left of the loss is the variance of $r$ about $m$: nothing else is asked of $V$.
# :::
#
# :::{prf:proof}
# The reward occurs in one term, $\mathbb{E}[(V(o_0) - r)^2]$. It is the sum of $\mathbb{E}[(V(o_0) - m(o_0))^2]$ and $\mathbb{E}[\operatorname{Var}(r \mid o_0)]$, and the second holds no parameter. The function named makes all other terms zero.
# :::
#
# *Markov* is **false** of $o_t$ (see *Break it*). *Representable* is **approximate**. That the data are so many that averages are expectations is **false**: a large network can tell single answers apart and memorise what they earned, which gives the released target more than the theorem grants it. How much is measured below. In numbers on the chain: replacing each reward by $m$ changes the released solution by {glue:text}`chain.blind`.
#
# ## A state that hides the past
#
# Now the world that the plant is closer to.
#
# :::{prf:definition} The aliased chain
# :label: bellman-aliased
# $x_0, \dots, x_{T-1}$ are independent fair signs, $r = x_0 + \dots + x_{T-1}$, and the state at time $t$ shows $x_t$ only.
# :::
#
# :::{prf:theorem} Limits on the aliased chain
# :label: bellman-aliased-limits
# Every function of a sign is linear in it, so let $V(x) = wx$ (a constant has limit 0 by symmetry). Then
#
# $$ \begin{aligned} w_{\text{TD(0)}} &= \frac1T, \\ w_{\text{residual}} = w_{\text{released}} &= \frac{1}{2T-1}, \\ w_{\text{Monte-Carlo}} &= 1, \\ w_{\text{TD}(\lambda)} &= \frac{1-\lambda^T}{(1-\lambda)\,T} \quad (\lambda < 1). \end{aligned} $$
#
# :::
#
# :::{prf:proof}
# Signs at different times are uncorrelated. *TD(0)*: the mean update is $\sum_{t<T-1}\mathbb{E}[x_t(w x_t - w x_{t+1})]$ and $\mathbb{E}[x_{T-1}(w x_{T-1} - r)]$ together, which is $wT - 1$. *Residual*: the loss is $2(T-1)w^2 + (w-1)^2 + T - 1$, least at $w(2T - 1) = 1$; with the reward at the first token the same numbers stand. *Monte-Carlo*: $T\,((w-1)^2 + T - 1)$. *TD($\lambda$)*: $\mathbb{E}[x_t G_t] = \lambda^{T-1-t}\,\mathbb{E}[x_t r]$, since later values are uncorrelated with $x_t$, so $wT = 1 + \lambda + \dots + \lambda^{T-1}$.
# :::
#
# $\mathbb{E}[r \mid x_t] = x_t$: given what it is shown, Monte-Carlo is right. TD(0) passes the reward from state to state, and each state hides what it was told by the one before; of $T$ tokens the last alone learns something, and shares it with the others.

# %%
lam, worst, rows = 0.9, {}, []
for T in (2, 4, 8):
    f, sizes, r = aliased(T)
    exact = dict.fromkeys(("residual", "released"), 1 / (2 * T - 1))
    exact |= {"td0": 1 / T, "monte-carlo": 1.0}
    exact["td-lambda"] = (1 - lam**T) / ((1 - lam) * T)
    for target, w in exact.items():
        found = float(linear_value(f, sizes, r, target=target, lam=lam)[0])
        if target != "td-lambda":
            assert np.isclose(found, solved(f.numpy(), r.numpy(), target)[0])
        worst[target] = max(worst.get(target, 0), abs(found / w - 1))
    rows.append((T, *(f"{exact[k]:.3f}" for k in exact)))

# %% tags=["hide-input"]
for target, off in worst.items():
    page.record(
        f"aliased.{target}",
        off,
        note="largest relative deviation from the theorem",
    )
table(rows, "T", *exact)

# %% [markdown]
# The solutions, from scratch and by the library, agree with the theorem to {glue:text}`aliased.td0` for TD(0) and {glue:text}`aliased.residual` for the residual gradient. The plant's answers have {glue:text}`length` states on average. If its $o_t$ were as forgetful as these signs, the paper's target would make the value about as many times too small and lose nothing of its *direction*; whether $o_t$ forgets is a question for the plant, which *Solved, not trained* answers.
#
# ## Rung 2: the plant, in plain PyTorch
#
# States of an answer, by the hook above, are those that the library reads off; and the losses of three targets, written as loops, are those of {py:func}`~steerlib.control.bellman.bellman_loss`.

# %%
train = bank.fit.trajectories(lm)
test = bank.test.trajectories(lm)
first = train.take(torch.tensor([0]))
# Weights held in 8 bits round what they multiply as well, by the batch it is in.
near = 0.2 if getattr(lm.model, "is_quantized", False) else 2e-3
torch.testing.assert_close(first.states, states.cpu(), atol=near, rtol=near)
probe = torch.randn(lm.width, generator=torch.Generator().manual_seed(0))
v, r = first.states @ probe, float(first.rewards[0])


# %%
def loss(v, r, target):
    """The loss of one answer, token by token."""
    total, last = 0.0, len(v) - 1
    for t in range(len(v)):
        if target == "td0":
            aim = v[t + 1].detach() if t < last else r
        elif target == "monte-carlo":
            aim = r
        else:  # released: pairs, and the reward at the first token
            aim = v[t + 1] if t < last else v[last] - v[0] + r
        total = total + (v[t] - aim) ** 2
    return total


# %%
for target in ("td0", "monte-carlo", "released"):
    ours = v.clone().requires_grad_()
    loss(ours, r, target).backward()
    theirs = v.clone().requires_grad_()
    bellman_loss(
        theirs[None], first.lengths, first.rewards, target=target
    ).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)

# %% [markdown]
# ## Rung 3: fitted values
#
# {py:func}`~steerlib.control.values.fit_value` trains the paper's network, linear layers with ReLU between them, here with one hidden layer. Every target gets the same answers, number of updates ({glue:text}`passes` passes over the answers, where the paper makes a hundred), rate and seeds, and none was tuned; a last one gets its rewards **shuffled** among the answers, in another order for each seed, as a negative control. Whether so few passes decide anything is asked below, by training {glue:text}`long.passes` of them.

# %%
updates = Training(steps=240, batch=24, rate=2e-3, floor=0.1, held_out=0.0)
fit = partial(fit_value, hidden=32, how=updates)


def mixed(seed):
    """The same answers, with the rewards in another order."""
    chance = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train), generator=chance)
    return train.with_rewards(train.rewards[order])


# %%
fitted = {k: [fit(train, target=k, seed=s) for s in seeds] for k in TARGETS}
fitted["shuffled"] = [fit(mixed(s), target="monte-carlo", seed=s) for s in seeds]
values = {
    k: torch.stack([one.predict(test) for one in ones])
    for k, ones in fitted.items()
}  # (seeds, answers, tokens)

# %% [markdown]
# ## How much does a value know?
#
# At each token, over held-out answers: the **correlation** of $V(o_t)$ with the reward that the answer will have. It says what the value knows, whatever its scale. What could be known is bounded. The true value of the whole state, cache included, explains the share $\operatorname{Var} V / \operatorname{Var} r$ of the rewards, and its correlation is the root of that share. The rollouts give this **ceiling**, with the scatter of their means taken off.

# %% tags=["hide-input"]
page.record("passes", updates.steps * updates.batch / len(train), digits=0)
names = {
    "td0": "TD(0), the paper",
    "residual": "residual gradient",
    "released": "released code",
    "monte-carlo": "Monte-Carlo",
    "td-lambda": "TD(0.9)",
    "prompt-only": "prompt only",
    "shuffled": "shuffled rewards",
}

# %%
final = test.rewards
every = range(0, int(torch.quantile(test.lengths.double(), 0.6)), 4)


def correlations(v):
    """Position -> correlation with the final reward, mean and range over seeds."""
    found = [quality_by_position(one, final) for one in v]
    rows = {t: [q[t].correlation for q in found] for t in every}
    return {
        t: metrics.Estimate(float(np.mean(c)), min(c), max(c), len(c))
        for t, c in rows.items()
        if np.isfinite(c).all()
    }


# %%
curves = {k: correlations(v) for k, v in values.items()}
best = {}
for t in plan.at:
    here = bank.at == t
    if int(here.sum()) >= 8:
        best[t] = ceiling(
            worth.mean[here], worth.error[here], samples=plan.samples
        )

# %% tags=["hide-input"]
middle = sorted(every)[len(every) // 2]
late = max(best)
page.record("settled.at", late)
settled = float((worth.error[bank.at == late] < 1e-6).double().mean())
page.record("settled.share", 100 * settled, digits=0, unit="%")
said = ", ".join(
    f"{names[k]} {c[middle].value:z.2f}" for k, c in curves.items() if middle in c
)
page.figure(
    "correlation",
    figures.by_position(
        {
            "The reward enters at the end": [
                "td0",
                "residual",
                "td-lambda",
                "monte-carlo",
            ],
            "Released code and controls": [
                "released",
                "prompt-only",
                "shuffled",
                "monte-carlo",
            ],
        },
        curves,
        best,
        names=names,
        ylabel="correlation of V with the final reward",
    ),
    alt="Correlation of the value of the state with the final reward against the "
    "token, on held-out answers, mean and range over seeds, in two panels: "
    "targets with the reward at the end, and the released code beside the "
    f"controls. At token {middle}: {said}. Black marks show the ceiling by "
    "rollouts from the state.",
)

# %% [markdown]
# The bands are the range over {glue:text}`n.seeds` seeds of the network, on one set of answers; the table below has intervals over answers. A value that follows the answer rises with the ceiling; one that knows the prompt alone changes only with which answers are still going on. At token {glue:text}`settled.at` the continuations of {glue:text}`settled.share` of the beginnings all earn the same: as far as {glue:text}`n.samples` samples tell, their reward is decided, and the whole state, cache included, knows it.
#
# What the *last hidden state* still knows of it is what the curves show: $o_t$ is made to choose the next token, and not to remember what was earned. The released value has {glue:text}`knows.released.first` at the first token, where it meets the reward, and {glue:text}`knows.released.middle` at token {glue:text}`middle`. {prf:ref}`bellman-released` lets it know of the reward what the prompt tells, which at this token is worth {glue:text}`knows.prompt-only.middle` to the value of the prompt: what is missing from that, the released value does not find in $o_t$. The same row is the one to hold Monte-Carlo against, {glue:text}`knows.monte-carlo.middle` there: a value of one hidden state may know less than the request alone tells, if the state no longer shows the request.
#
# ## Against the truth
#
# Correlation forgives any scale. The **value error** does not: the mean of $(V(o_t) - V^{\text{MC}}(s_t))^2$ over the beginnings, where $V^{\text{MC}}$ is the mean over rollouts, less the square of its standard error, so that the true value has error 0 on average. And the **calibration slope**, of the regression of $r$ on $V(o_t)$, is 1 if answers whose values differ by some amount earn, on average, so much more or less; between 0 and 1 the value is too sure, above 1 too timid, and below 0 it ranks answers the wrong way.

# %%
rows_of, at_of = bank.rows, bank.at


def errors(v):
    """Value error of each seed and answer: (seeds, answers)."""
    return np.stack([
        value_errors(one[rows_of, at_of], worth.mean, worth.error, rows_of).numpy()
        for one in v
    ])  # fmt: skip


constant = train.rewards.mean().expand(1, len(test), int(test.lengths.max()))
lasting = torch.arange(constant.shape[-1]) < test.lengths[:, None]
off = {k: errors(v) for k, v in values.items()} | {"constant": errors(constant)}
off_of = {k: metrics.grid_interval(e) for k, e in off.items()}


# %%
def held(v, t):
    """Values (seeds, answers) at a token, or (-1) at the last one; rewards."""
    there = test.lengths > max(t, 0)
    last = int(test.lengths.max())
    at = (test.lengths - 1).clamp(max=t if t >= 0 else last)[there]
    return v[:, there, at].double().numpy(), final[there].numpy()


def averaged(r, *v):
    """Correlation with r, averaged over seeds; reduces the last axis."""
    r = r - r.mean(-1, keepdims=True)
    v = np.stack([one - one.mean(-1, keepdims=True) for one in v])
    return ((v * r).mean(-1) / (v.std(-1) * r.std(-1) + 1e-12)).mean(0)


# %% tags=["hide-input"]
def slope(r, *v):
    """Slope of r on V, averaged over seeds."""
    return float(np.mean([np.polyfit(one, r, 1)[0] for one in v]))


places = {"first": 0, "middle": middle, "last": -1}
knows, slopes = {}, {}
for k, v in values.items():
    for where, position in places.items():
        found, r = held(v, position)
        knows[k, where] = metrics.interval_of(averaged, r, *found)
        slopes[k, where] = slope(r, *found)
        page.record(f"knows.{k}.{where}", knows[k, where])
    page.record(f"error.{k}", off_of[k])
    page.record(f"slope.{k}", slopes[k, "middle"], digits=2)
page.record("error.constant", off_of["constant"])
found, r = held(values["shuffled"], 0)
by_shuffle = [float(averaged(r, one)) for one in found]
page.text("shuffled.range", f"{min(by_shuffle):.2f} to {max(by_shuffle):.2f}")
page.record("middle", middle)
rows = [
    (names[k], str(off_of[k]), *(str(knows[k, w]) for w in places),
     *(f"{slopes[k, w]:z.2f}" for w in places))
    for k in names
]  # fmt: skip
rows.append(("a constant", str(off_of["constant"]), *[""] * 6))
table(
    rows, "target", "value error", "correlation, first token",
    f"token {middle}", "last token", "slope, first", f"token {middle}", "last",
)  # fmt: skip

# %% [markdown]
# Intervals are over answers (95 %), averaged over seeds. The chance of the training answers is not in them: {ref}`the limits below <bellman-limits>` have it. A value without meaning can line up with the reward, or against it, by a chance that these intervals count in part only, since they average over the shuffles: {glue:text}`knows.shuffled.first` at the first token, with {glue:text}`shuffled.range` from shuffle to shuffle. The last token of an answer is the one that ends it, or the last that is allowed.
#
# ## Trained for longer
#
# Do the targets differ, or have some not arrived? The paper's and the one that did best are trained again, for as many passes as the paper makes, {glue:text}`long.passes`, on three quarters of the answers. On the way they are held against the others: by the squared distance of $V(o_t)$ from the reward, averaged over all states.

# %%
rows = round(0.75 * len(train))
long = replace(
    updates, steps=100 * rows // updates.batch, held_out=0.25, check=75
)
longer = {
    k: fit_value(train, target=k, hidden=32, how=long, seed=seeds[0])
    for k in ("td0", "monte-carlo")
}
looks = {k: f.history.looks for k, f in longer.items()}
unseen = train.take(longer["td0"].held_out)
off_mean = (unseen.rewards - train.rewards.mean()).square()
flat = float((off_mean * unseen.lengths).sum() / unseen.lengths.sum())

# %% tags=["hide-input"]
later = {}
for k, f in longer.items():
    found, r = held(f.predict(test)[None], middle)
    later[k] = metrics.interval_of(averaged, r, *found)
    page.record(f"long.{k}", later[k])
    page.record(f"long.{k}.error", looks[k][-1].error, digits=2)
page.record("long.constant", flat, digits=2)
page.record("long.passes", long.steps * long.batch / rows, digits=0)
page.record("long.times", long.steps / updates.steps, digits=1)
page.figure(
    "longer",
    figures.over(
        [look.step for look in looks["td0"]],
        {
            "": figures.Panel(
                {
                    names[k]: [
                        metrics.Estimate(*3 * (x.error,), 1) for x in found
                    ]
                    for k, found in looks.items()
                },
                ylabel="squared distance from the reward",
                line=("a constant", flat),
            )
        },
        xlabel="updates",
    ),
    alt="Squared distance of two values from the reward on answers that were held "
    "out, against the number of updates, one fit each. At the last update: "
    + ", ".join(f"{names[k]} {found[-1].error:.2f}" for k, found in looks.items())
    + f"; a constant has {flat:.2f}.",
)

# %% [markdown]
# After {glue:text}`long.times` times as many updates the correlation at token {glue:text}`middle` of the test answers is {glue:text}`long.td0` for TD(0), where it was {glue:text}`knows.td0.middle`, and {glue:text}`long.monte-carlo` for Monte-Carlo, where it was {glue:text}`knows.monte-carlo.middle`. The last distances from the reward are {glue:text}`long.td0.error` and {glue:text}`long.monte-carlo.error`; a constant has {glue:text}`long.constant`. So the fits of the table are short, and Monte-Carlo could be had somewhat better; what separates the two is still there when both have stopped to move. Where they are bound to stop can be computed.
#
# (bellman-limits)=
# ## Solved, not trained
#
# A linear value needs no updates. Here are the limits of all targets on the plant, from {py:func}`~steerlib.control.linear_values.linear_value`, with the {glue:text}`n.kept` largest principal components of the states as features, scaled to variance 1, and a constant. The equations of an answer add up over answers ({py:func}`~steerlib.control.linear_values.normal_equations`), so that they are made once, and then solved for {glue:text}`n.draws` draws of the training answers with replacement: the chance of the training answers, which no table above has.

# %%
pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
own, other = (x.take(torch.arange(len(x))) for x in (train, test))
centre = own.states.double().mean(0)
size, axes = torch.linalg.eigh(torch.cov((own.states.double() - centre).T))


def seen_as(batch, keep):
    """Features of right-padded rows: principal components and a constant."""
    f = (batch.states.double() - centre) @ (axes[:, -keep:] / size[-keep:].sqrt())
    f = torch.cat([f, torch.ones(len(f), 1).double()], dim=1)
    return pad(f.split(batch.lengths.tolist()))


def equations(f, target):
    """A and b of every answer alone."""
    rows = zip(
        f.split(1), train.lengths.split(1), train.rewards.split(1), strict=True
    )
    each = [normal_equations(x[:, :n], n, r, target=target) for x, n, r in rows]
    return [torch.stack(part) for part in zip(*each, strict=True)]


# %%
keep = min(64, lm.width // 2)
RIDGE = dict.fromkeys(TARGETS, 0.0) | {"prompt-only": 0.05}
chance = torch.Generator().manual_seed(seeds[0])
even = torch.full((1, len(train)), 1 / len(train)).double()
draws = torch.multinomial(even[0], 100 * len(train), True, generator=chance)
drawn = (
    torch.nn.functional.one_hot(draws.view(100, -1), len(train)).double().mean(1)
)


def solutions(f, target, share):
    """Weights (draws, features) for shares (draws, answers)."""
    A, b = (torch.einsum("sn,n...->s...", share, x) for x in equations(f, target))
    A = A + RIDGE[target] * torch.eye(A.shape[-1]).double()
    return torch.linalg.solve(A, b), float(torch.linalg.cond(A[0]))


# %%
learn, judge = seen_as(own, keep), seen_as(other, keep)
limits, condition = {}, {}
for target in TARGETS:
    w, condition[target] = solutions(learn, target, torch.cat([even, drawn]))
    found = (judge @ w.T).movedim(-1, 0)  # (1 + draws, answers, tokens)
    if target == "prompt-only":
        found = found[:, :, :1].expand_as(found)
    limits[target] = found
    again = linear_value(
        learn, train.lengths, train.rewards, target=target, ridge=RIDGE[target]
    )
    torch.testing.assert_close(w[0], again)

# %% [markdown]
# How much too small is a value? By the theorem on aliased states TD(0) is Monte-Carlo's value divided by $T$, so that the spread (standard deviation) of Monte-Carlo's value over the states of test answers, divided by that of another, is the factor to read beside {prf:ref}`bellman-aliased-limits`; and the correlation of the two over these states says whether a factor is all that parts them.


# %%
def beside(found):
    """Spread of Monte-Carlo's value over another's, and their correlation, by draw."""
    one, mc = (
        x[:, lasting] - x[:, lasting].mean(1, True)
        for x in (found, limits["monte-carlo"])
    )
    ratio = mc.std(1) / one.std(1)
    return ratio.numpy(), ((one * mc).mean(1) / (mc.std(1) * one.std(1))).numpy()


def drawn_interval(x):
    """What the whole set says, and where 95 % of its draws lie."""
    ends = np.quantile(x[1:], [0.025, 0.975])
    return metrics.Estimate(
        float(x[0]), min(*ends, x[0]), max(*ends, x[0]), len(train)
    )


# %% tags=["hide-input"]
rows, shrunk, alike = [], {}, {}
for k, v in limits.items():
    found = {w: held(v[:1], t) for w, t in places.items() if w != "last"}
    known = [str(metrics.interval_of(averaged, r, *x)) for x, r in found.values()]
    shrunk[k], alike[k] = (drawn_interval(x) for x in beside(v))
    if k not in ("monte-carlo", "prompt-only"):
        page.record(f"shrunk.{k}", shrunk[k], digits=0)
        page.record(f"alike.{k}", alike[k])
    shown_too = "" if k == "monte-carlo" else interval(shrunk[k], 1)
    away = metrics.grid_interval(errors(v[:1]))
    rows.append(
        (
            names[k],
            shown_too,
            "" if k == "monte-carlo" else str(alike[k]),
            *known,
            str(away),
        )
    )
length = float(train.lengths.double().mean())
page.record("n.kept", keep)
page.record("n.draws", len(drawn))
page.record(
    "ridge.condition",
    max(c for k, c in condition.items() if k != "prompt-only"),
    digits=0,
)
page.record("length", length, digits=0)
page.record("length.twice", 2 * length - 1, digits=0)
table(
    rows, "target", "times too small", "correlation with Monte-Carlo",
    "with the reward, first token", f"token {middle}", "value error",
)  # fmt: skip

# %% [markdown]
# (Intervals of the first two columns are over training answers, of the others over test answers.) The answers have {glue:text}`length` states on average. If the states remembered nothing, TD(0) would be too small by that factor, and the residual gradient by {glue:text}`length.twice`; they are too small by {glue:text}`shrunk.td0` and {glue:text}`shrunk.residual`, and correlate with Monte-Carlo's value by {glue:text}`alike.td0` and {glue:text}`alike.residual`. So $o_t$ forgets, and not everything; and these are limits, so that no number of updates mends them. Nor are they the work of a ridge, a penalty on large weights. None was needed (the equations have condition numbers up to {glue:text}`ridge.condition`) but for the value of the prompt: an answer has one state of the prompt, and in most features that state hardly differs from request to request.
#
# A small value need not point the wrong way: an ascent step of another size makes up for a factor. What it cannot make up for is a correlation below one.
#
# What the number of features does, in the first column for TD(0):

# %%
by_size = {}
for n in sorted({max(2, keep // 2), keep, min(2 * keep, lm.width - 1)}):
    f, g = seen_as(own, n), seen_as(other, n)
    by_target = {
        k: linear_value(f, train.lengths, train.rewards, target=k)
        for k in ("td0", "monte-carlo")
    }
    td, mc = (float((g @ w)[lasting].std()) for w in by_target.values())
    by_size[n] = mc / td
page.text("by.size", ", ".join(f"{x:.0f} with {n}" for n, x in by_size.items()))
{n: round(x, 1) for n, x in by_size.items()}

# %% [markdown]
# The factor is {glue:text}`by.size` components.
#
# ## Does it follow the answer?
#
# That the value follows the answer as it is written is why it could be worth ascending at every step. The score of a fitted network on an answer is minus the mean of $(V(o_t) - r)^2$ over its tokens.


# %%
def score(v):
    """Minus the squared distance from the reward, (seeds, answers)."""
    away = torch.where(lasting, (v - final[None, :, None]).square(), 0.0)
    return -(away.sum(-1) / test.lengths).numpy()


scores = {k: score(v) for k, v in values.items()}
against = {
    k: metrics.paired_difference(scores[k].mean(0), scores["prompt-only"].mean(0))
    for k in scores
    if k != "prompt-only"
}

# %% tags=["hide-input"]
mine = (
    "recontrol.value.learns-the-continuation",
    "recontrol.value.text-beats-code",
    "recontrol.code.value-beats-prompt",
    "recontrol.value.beats-shuffled",
)
if not (real or isinstance(task, Helpfulness)):
    for name in mine:
        page.cannot_check(
            name, why=f"this plant has no preference task, only {task.name}"
        )
else:
    page.samples(
        "value.score",
        scores,
        note=f"held-out answers of {lm.name}, rewards by the profile's model"
        if real
        else "held-out answers of the tiny plant, rewards by the Almanac's rubric",
    )
page.figure(
    "against",
    figures.intervals(
        {names[k]: e for k, e in against.items()},
        xlabel="gain over the prompt-only value, in squared reward",
        zero=0.0,
    ),
    alt="Gain in squared distance from the final reward over a value that knows the "
    "prompt only, with 95 % intervals over held-out answers: "
    + ", ".join(f"{names[k]} {e.value:+z.2f}" for k, e in against.items())
    + ".",
)

# %% tags=["hide-input"]
for k, e in against.items():
    page.record(f"against.{k}", e)

# %% [markdown]
# In squared reward and averaged over all tokens, TD(0) gains over a value that knows the prompt only (below zero: it loses) {glue:text}`against.td0`, Monte-Carlo {glue:text}`against.monte-carlo`, TD(0.9) {glue:text}`against.td-lambda`, the residual gradient {glue:text}`against.residual` and the released code {glue:text}`against.released`; with shuffled rewards it is {glue:text}`against.shuffled`.
#
# ## The running picture
#
# Held-out states at the middle token, in the plane of the mean gradient of the Monte-Carlo value and what varies most otherwise. Answers that end in the best and in the worst third of rewards can in part be told apart along the gradient, before either is finished. To move along it is chapter 22.

# %%
network = fitted["monte-carlo"][0].network
there = test.lengths > middle
batch = test.take(torch.nonzero(there)[:, 0])
starts = batch.lengths.cumsum(0) - batch.lengths
seen = batch.states[starts + middle].float().clone().requires_grad_()
(gradient,) = torch.autograd.grad(network(seen).sum(), seen)
low, high = np.quantile(batch.rewards.numpy(), [1 / 3, 2 / 3])
shots, ends = seen.detach().numpy(), batch.rewards.numpy()
clouds = {
    "positive: best third": shots[ends >= high],
    "negative: worst third": shots[ends <= low],
}

# %% tags=["hide-input"]
plane = figures.Plane.of(gradient.mean(0).numpy().astype(float), shots)
gap = metrics.auc_interval(*(c @ plane.target for c in clouds.values()))
page.record("plane.auc", gap)
page.figure(
    "plane",
    figures.draw(
        plane,
        clouds,
        xlabel="along the mean gradient of V",
        title=f"States at token {middle}",
    ),
    alt="Held-out states at the middle of an answer, in the plane of the mean "
    "gradient of the Monte-Carlo value and the largest other variation: answers of "
    f"the best and of the worst third of rewards, told apart with AUC {gap}.",
)

# %% [markdown]
# Read along this one direction, a state of the best third lies beyond one of the worst with probability {glue:text}`plane.auc`.
#
# ## Break it
#
# ### Without the cache the state is not Markov
#
# If $o_t$ were a Markov state, nothing from before $t$ could help the best prediction of the reward. Linear predictions are tried here, so that what the past adds could also be what a line does not read in $o_t$. Three ridge regressions of $r$, at every fourth token: on $o_t$; on $o_t$ and the state of the prompt $o_0$; on these and the mean of all states so far. The penalty is the same.


# %%
def memory(batch):
    """States, prompt states and running means; rewards; owners. Every 4th token."""
    own, start, mean, r, who = [], [], [], [], []
    for i, s in enumerate(batch.states.double().split(batch.lengths.tolist())):
        t = torch.arange(0, len(s), 4)
        own.append(s[t])
        start.append(s[:1].expand(len(t), -1))
        mean.append((s.cumsum(0) / torch.arange(1, len(s) + 1)[:, None])[t])
        r.append(batch.rewards[i].expand(len(t)))
        who.append(torch.full((len(t),), i))
    return [torch.cat(x).numpy() for x in (own, start, mean, r, who)]


parts = [memory(x.take(torch.arange(len(x)))) for x in (train, test)]


# %%
def missed(columns):
    """Squared error on held-out answers, answer by answer."""
    (x, r), (z, q) = [(np.hstack([p[c] for c in columns]), p[3]) for p in parts]
    scale, shift = x.std(0) + 1e-9, x.mean(0)
    x, z = (x - shift) / scale, (z - shift) / scale
    ridge = 0.1 * len(x) * np.eye(x.shape[1])
    w = np.linalg.solve(x.T @ x + ridge, x.T @ (r - r.mean()))
    off, who = (z @ w + r.mean() - q) ** 2, parts[1][4]
    return np.bincount(who, off) / np.bincount(who)


# %%
with_past = {
    "and the prompt's state": missed([0, 1]),
    "and the mean of all states so far": missed([0, 1, 2]),
}
alone = missed([0])
helps = {k: metrics.paired_difference(alone, e) for k, e in with_past.items()}

# %% tags=["hide-input"]
keys = ("prompt", "past")
for key, e in zip(keys, helps.values(), strict=True):
    page.record(f"memory.{key}", e)
page.record("memory.alone", float(alone.mean()), digits=2)
verdict = (
    "is not" if any(e.low > 0 for e in helps.values()) else "cannot be told from"
)
page.text("markov.verdict", verdict)
page.figure(
    "memory",
    figures.intervals(
        {f"state {k}": e for k, e in helps.items()},
        xlabel="squared error saved, against the state alone",
        zero=0.0,
    ),
    alt="Squared error of the predicted reward that is saved by giving a regression "
    "the past beside the state, with 95 % intervals over held-out answers: "
    + ", ".join(f"{k} {e.value:+z.3f}" for k, e in helps.items())
    + ".",
)

# %% [markdown]
# The state alone misses by {glue:text}`memory.alone`. The prompt's state saves {glue:text}`memory.prompt` of it, the past as a whole {glue:text}`memory.past`. By this test, for a linear reader, $o_t$ {glue:text}`markov.verdict` a Markov state. Where it is not, the theorem on aliasing bites: what TD(0) passes from token to token is lost where $o_t$ does not carry it, and Monte-Carlo, which asks every state for itself, has nothing to lose.
#
# ### One sample of the future, used twice
#
# The residual gradient fails on the chain although the chain is Markov. In {eq}`eq-residual-gradient` the second sum is the fault: the error at $o_t$ is multiplied with itself, and both factors hold the *same* sampled successor. With two independent successors $o', o''$ of the same state, the product $(V(o) - V(o'))(V(o) - V(o''))$ has the mean $(V(o) - \mathbb{E}V(o'))^2$, and the bias is gone. A simulator of a chain can do that; so can the plant, by drawing two tokens from one state, at twice the price. A set of answers cannot.

# %%
follow = np.hstack([moving, ending])  # next states, then the two endings
visits = np.array([1, 0.5 + 0.5 * 0.2, 0.5])  # mean visits of a walk


def least(double):
    """Minimiser of the mean product of two errors."""
    A, b = np.zeros((3, 3)), np.zeros(3)
    for s, chance in enumerate(follow):
        e = [np.eye(3)[s] - (np.eye(5)[k][:3]) for k in range(5)]
        g = np.array([0, 0, 0, *pays])
        for i, j in np.ndindex(5, 5):
            p = chance[i] * (chance[j] if double else float(i == j))
            A += visits[s] * p * np.outer(e[i], e[j])
            b += visits[s] * p * e[i] * g[j]
    return np.linalg.solve((A + A.T) / 2, b)


# %% tags=["hide-input"]
once, twice = least(double=False), least(double=True)
assert np.allclose(once, tables["residual"].numpy(), atol=1e-6)
page.record("double.off", float(abs(twice - truth.numpy()).max()))
pd.DataFrame(
    [truth.numpy(), once, twice],
    index=["exact", "residual, one successor", "residual, two successors"],
    columns=["start", "polite", "rude"],
).round(3)

# %% [markdown]
# With two successors the residual gradient is exact, to {glue:text}`double.off`.
#
# **In control words.** A value function is a *soft sensor*: it reports a quantity that cannot be measured yet from one that can. Its calibration curve is the slope; its bandwidth is how soon it reports a change, and a value of the prompt has none. Learning it from one hidden state is output feedback with a static estimator. Where the output is not the state, the estimator needs memory, or a target that does not pretend.
#
# ## Exercises
#
# Replace the body of the stub, run the stub and the cell of tests below it, then call the test on your function, for example `check_21_1(backup)`. Silence means that it passed. Each exercise stands alone; run `import numpy as np` first. Solutions are folded; open one by a click.
#
# ### Exercise 21.1: a backup over tokens
#
# *Easy, 5 minutes.* From the logits of a state, the value of the state that each token leads to, and for tokens that end the answer the reward, compute the value of the state by {eq}`eq-bellman`.

# %% tags=["exercise-setup", "ex:21.1", "ex:21.2", "ex:21.3", "ex:21.4"]
import numpy as np


# %% tags=["exercise-stub", "ex:21.1"]
def backup(logits, after, ends, reward):
    """Logits, next values, ends (bool), rewards, each (tokens,) -> V."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:21.1"]
def check_21_1(backup):
    after, reward = np.array([2.0, 4, 9]), np.array([7.0, 7, 1])
    ends = np.array([False, False, True])
    even = backup(np.zeros(3), after, ends, reward)
    assert np.isclose(even, (2 + 4 + 1) / 3), "token 2 ends: its reward counts"
    logits = np.log([0.5, 0.25, 0.25]) + 3
    assert np.isclose(backup(logits, after, ends, reward), 1 + 1 + 0.25)


# %% tags=["exercise-wrong", "ex:21.1", "remove-cell"]
def backup(logits, after, ends, reward):  # the best token: another policy
    return np.where(ends, reward, after).max()


# %% tags=["exercise-solution", "ex:21.1", "hide-cell"]
def backup(logits, after, ends, reward):
    p = np.exp(logits - logits.max())
    return (p / p.sum()) @ np.where(ends, reward, after)


# %%
check_21_1(backup)

# %% [markdown]
# ### Exercise 21.2: the last token of a padded row
#
# *Easy, 5 minutes.* Rows of ones, padded on the right by zeros. Return the index of the last one in each row. The released code returns something else.


# %% tags=["exercise-stub", "ex:21.2"]
def last_token(mask):
    """Mask (rows, time) of 0 and 1 -> indices (rows,)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:21.2"]
def check_21_2(last_token):
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    assert list(last_token(mask)) == [2, 0, 3]
    long = (np.arange(300) < 290)[None].astype(np.int8)
    assert list(last_token(long)) == [289], "small integers must not overflow"


# %% tags=["exercise-wrong", "ex:21.2", "remove-cell"]
def last_token(mask):  # the first of equal numbers, as released
    return mask.argmax(axis=1)


# %% tags=["exercise-solution", "ex:21.2", "hide-cell"]
def last_token(mask):
    return mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)


# %%
check_21_2(last_token)

# %% [markdown]
# ### Exercise 21.3: TD(λ) backwards
#
# *Medium, 10 minutes.* $G_{L-1} = r$ and $G_t = (1-\lambda)\,V_{t+1} + \lambda\,G_{t+1}$. Return all of $G$ for one answer.


# %% tags=["exercise-stub", "ex:21.3"]
def returns(values, reward, lam):
    """Values (L,), reward, lambda -> targets (L,)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:21.3"]
def check_21_3(returns):
    v = np.array([1.0, 2, 4])
    assert np.allclose(returns(v, 8.0, 1.0), 8), "Monte-Carlo"
    assert np.allclose(returns(v, 8.0, 0.0), [2, 4, 8]), "TD(0)"
    assert np.allclose(returns(v, 8.0, 0.5), [4, 6, 8])
    assert np.allclose(returns(v, 8.0, 0.25), [2.75, 5, 8])


# %% tags=["exercise-wrong", "ex:21.3", "remove-cell"]
def returns(values, reward, lam):  # lambda and 1 - lambda exchanged
    out = [reward]
    for v in values[:0:-1]:
        out.insert(0, lam * v + (1 - lam) * out[0])
    return np.array(out)


# %% tags=["exercise-solution", "ex:21.3", "hide-cell"]
def returns(values, reward, lam):
    out = [reward]
    for v in values[:0:-1]:
        out.insert(0, (1 - lam) * v + lam * out[0])
    return np.array(out)


# %%
check_21_3(returns)

# %% [markdown]
# ### Exercise 21.4: how much does a forgetful state cost?
#
# *Medium, 15 minutes.* On the aliased chain of {prf:ref}`bellman-aliased`, let the state keep what it was: it shows the running sum $S_t = x_0 + \dots + x_t$ with probability $q$ for the *whole* answer, and only $x_t$ otherwise, with a flag that says which. What weight does TD(0) give the shown number in answers of the first kind, and in those of the second? Return both.


# %% tags=["exercise-stub", "ex:21.4"]
def weights_of_td(T, q):
    """Length T, share q of answers that remember -> (remembering, forgetful)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:21.4"]
def check_21_4(weights_of_td):
    assert np.allclose(weights_of_td(8, 0.5), (1, 1 / 8))
    assert np.allclose(weights_of_td(3, 0.1), (1, 1 / 3)), "q plays no part"


# %% tags=["exercise-wrong", "ex:21.4", "remove-cell"]
def weights_of_td(T, q):  # the flag tells them apart: nothing is mixed
    return q + (1 - q) / T, q + (1 - q) / T


# %% tags=["exercise-solution", "ex:21.4", "hide-cell"]
def weights_of_td(T, q):
    # Each kind is a chain of its own. The running sum is Markov and its value
    # is itself: weight 1. The other is the aliased chain: 1 / T.
    return 1.0, 1 / T


# %%
check_21_4(weights_of_td)

# %% [markdown]
# ## Claims checked here
#
# What text and released code of RE-Control {cite:p}`kong2024recontrol` say of the value and its training, checked on chains exactly and on one small plant by samples. A verdict about the plant is about its sign there, and does not stand for models of seven billion parameters. Of the exact ones, that a fitted value is the value function is {glue:text}`recontrol.text.td-finds-the-value.verdict` where the state is Markov; of the sampled ones, that the paper's target makes a value that follows the answer better than the prompt does is {glue:text}`recontrol.value.learns-the-continuation.verdict`, and the same of the released code is {glue:text}`recontrol.code.value-beats-prompt.verdict`. All verdicts stand in the table at the foot of the page.
#
# ## What we found

# %% tags=["hide-input"]
at_mid = {k: knows[k, "middle"] for k in names}
reached = max(t for t in best if t <= max(middle, min(best)))
top = best[reached]
past = helps["and the mean of all states so far"]
points = [
    "On a chain with known values TD(0), TD(λ) and Monte-Carlo are exact; the "
    "residual gradient is biased by reusing one sample; the released target gives "
    "every state the value of its prompt, as the theorem says.",
    "On states that hide the past, TD(0) keeps 1/T of the value, the residual "
    "gradient and the released code 1/(2T - 1), Monte-Carlo all of it.",
    f"On the plant, at token {middle}, the correlation of a value with the final reward is "
    + "; ".join(f"{e} for {names[k]}" for k, e in at_mid.items())
    + f". The ceiling, at token {reached}, is {top}.",
    f"Solved as linear values, so that training plays no part, TD(0) is "
    f"{interval(shrunk['td0'], 0)} times smaller than Monte-Carlo, the residual gradient "
    f"{interval(shrunk['residual'], 0)} times, and TD(0) "
    f"correlates with Monte-Carlo by {alike['td0']}; answers have {length:.0f} states.",
    f"Trained for {long.steps / updates.steps:.1f} times as long, TD(0) has a correlation of {later['td0']} at token "
    f"{middle}, Monte-Carlo {later['monte-carlo']}.",
    f"Value error against rollouts: TD(0) {off_of['td0']}, Monte-Carlo "
    f"{off_of['monte-carlo']}, released code {off_of['released']}, prompt only "
    f"{off_of['prompt-only']}, a constant {off_of['constant']}.",
    f"Given the past beside the state, a regression saves "
    f"{interval(past, 3)} of a squared error of {alone.mean():.2f}.",
]
page.findings(points)

# %% [markdown]
# What this does not show: how the targets compare with 161,000 answers, states of width 4096 and networks of 33 million parameters, trained for a hundred passes. A large model's last state may remember far more of its answer than this plant's; a large network can memorise single answers, which the theorems do not cover. The limits on chains hold at any size, and the test of memory in *Break it* needs nothing of a model but states and rewards.
#
# ## Further reading
#
# - {cite:t}`kong2024recontrol`: the method; read the sections on the value function beside {prf:ref}`bellman-targets`.
# - {cite:t}`sutton2018rl`: chapters 6, 9 and 11 have TD(0), its semi-gradient, and why the residual gradient learns something else.
# - {cite:t}`baird1995residual`: the residual gradient, with double sampling as the remedy.
# - {cite:t}`mudgal2024cd`: a prefix scorer is the same value on texts; its two targets are two of the six.

# %% tags=["hide-input"]
page.footer()
