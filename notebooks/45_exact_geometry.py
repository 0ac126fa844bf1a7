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
# (ch-exact-geometry)=
# # 45 Exact geometry on the sphere
#
# **The barrier of ODESteer is, on directions, a quadratic form with known coefficients; so it can be said of every state, before anything is run, how high its budget can bring it, how small a budget would do, and what ten Euler steps leave on the table. On a trained plant that is next to nothing, and what is left over comes of turning by less than the budget, not of climbing the wrong way.**
#
# :::{admonition} Cost
# :class: cost-card note
#
# Time
# : about half a minute on one processor core, for the `tiny` profile
#
# Memory
# : about 1 GB
#
# Read first
# : [43](43_odesteer) for the method, [42](42_log_density_ratios) for what it learns
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
import math
import os
import time

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from torch.nn.functional import cosine_similarity, normalize

from steerlib import Plant, figures, tasks
from steerlib.control import barrier as barriers
from steerlib.control.barrier import AffineForm, QuadraticForm, SketchForm
from steerlib.control.density_ratio import auc, fit_ratio
from steerlib.control.ode import solve
from steerlib.control.sketch import PolynomialSketch
from steerlib.control.sphere import (
    cap_maximum,
    local_maximum,
    sphere_maximum,
)
from steerlib.experiment.claims import load_claims
from steerlib.experiment.page import Page
from steerlib.experiment.samples import product_scores
from steerlib.experiment.showing import table
from steerlib.laws.additive import shuffled
from steerlib.laws.barrier import ODESteer
from steerlib.metrics import mean_interval
from steerlib.recorder import record

pd.set_option("display.max_colwidth", None)
torch.set_grad_enabled(False)
page = Page("45_exact_geometry", profile=profile, plant=plant, seeds=seeds)
lm = page.uses(Plant.load(plant, dtype=torch.float32))
task = tasks.for_plant(lm, data=os.environ.get("STEERLIB_DATA"))
page.words(task.labels)
lm

# %% [markdown]
# ## How far would this state have to turn?
#
# ODESteer learns a {term}`barrier function` $h$ from states of both classes, and pushes a state $a$ uphill for a length $T$; where $h\ge 0$ the state is more likely one of {glue:text}`word.positive` than one of {glue:text}`word.negative`. As $h$ looks at the direction $a/\|a\|$ alone, what is spent is an angle. Here are four prompts. For each: the height at its last token, the smallest angle that can bring it to zero *by any means*, and, for a budget of {glue:text}`open.angle` radians, the greatest height that anything could reach and the one that ten Euler steps do.

# %%
layer = lm.depth // 2
here = task.contrast(layer=layer, n=200, seed=seeds[0])
held = task.contrast(layer=layer, n=100, seed=seeds[0], split="test")
law = ODESteer().fit(here)  # as in the paper: a sketch of degree two, C = 1
h = law.ratio.barrier  # in float64
form, (eigen, U) = h.quadratic(), h.quadratic().diagonal()
positive, negative = held.positive.double(), held.negative.double()
norm = float(torch.cat([*here]).norm(dim=1).mean())


# %%
def flow(states, angle, *, solver="euler", steps=10, h=form, trace=False):
    """Where ODESteer brings states with a budget of T = angle |a|, each its own."""
    r = states.norm(dim=1, keepdim=True)
    field = lambda a: r * barriers.direction(h, a)
    found = solve(field, states, angle, solver=solver, steps=steps, trace=trace)
    return found.path if trace else states + angle * found.mean


def smallest(states, halvings=20):
    """Smallest angle whose cap holds a state with h >= 0; infinite if none does."""
    low, high = torch.zeros(len(states)).double(), torch.full((len(states),), math.pi).double()  # fmt: skip
    y = states @ U
    never = cap_maximum(eigen, y, math.pi).value < 0
    for _ in range(halvings):
        middle = (low + high) / 2
        enough = cap_maximum(eigen, y, middle).value >= 0
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)  # fmt: skip
    found = torch.where(barriers.value(form, states) >= 0, 0.0, high)
    return torch.where(never, torch.inf, found)


# %% tags=["hide-input"]
asked = tasks.base.spread(task.prompts("test"), 24)
at_prompt = record(lm, asked, sites=[layer]).at(layer).double()
budget = 0.2
height = barriers.value(form, at_prompt)
most = cap_maximum(eigen, at_prompt @ U, budget).value
got = barriers.value(form, flow(at_prompt, budget))
needs = smallest(at_prompt)
order = height.argsort()[:: max(1, len(asked) // 4)][:4].tolist()
page.record("open.angle", budget, digits=1)
page.record("layer", layer)
page.record("n.held", len(negative))
table(
    [(asked[i].strip().replace("\n", " / ")[-60:], f"{float(height[i]):.2f}", f"{float(needs[i]):.2f}",
      f"{float(most[i]):.3f}", f"{float(got[i]):.3f}") for i in order],
    "prompt (its end)", "h", "smallest angle to h = 0", "most within the budget", "ten Euler steps",
)  # fmt: skip

# %% [markdown]
# The last two columns are nearly the same: whatever is wrong with following a gradient for a fixed length, it is not that it climbs badly. This chapter computes all of these columns without a search.
#
# ## The quadratic form in the sketch
#
# The features of ODESteer are a {term}`count sketch`. With $x = a/\|a\|$ and $e = (\sqrt\gamma\,x,\ \sqrt{c_0})$, a vector of $d+1$ entries, bucket $u_k(i)$ and sign $s_k(i)$ for every entry $i$ and for $k = 1, 2$, the sketches are $S_k[t] = \sum_{i:\,u_k(i)=t}s_k(i)e_i$, the features their circular convolution $\varphi(x) = S_1 * S_2$ in $D$ buckets, and $h = w^\top\varphi(x) + b$, where $b$ holds the intercept of logistic regression and the classes' sizes {cite:p}`zhao2026odesteer,pham2013tensorsketch`.
#
# :::{prf:theorem} Degree two is a quadratic form
# :label: exact-quadratic
# Let $M_{ij} = w[(u_1(i)+u_2(j)) \bmod D]\,s_1(i)s_2(j)$ for $i, j = 1, \dots, d+1$. Then, for all $x$,
#
# $$ h = x^\top Bx + m^\top x + c, $$
#
# where $B_{ij} = \tfrac\gamma2(M_{ij} + M_{ji})$, $m_i = \sqrt{\gamma c_0}\,(M_{i,d+1} + M_{d+1,i})$ for $i, j\le d$, and $c = b + c_0M_{d+1,d+1}$. On states, $\nabla h(a) = \frac1{\|a\|}(I - xx^\top)(2Bx + m)$.
# :::
#
# :::{prf:proof}
# $(S_1*S_2)[t] = \sum_{p+q\equiv t}S_1[p]S_2[q]$. Insert both sums: each pair of entries $(i,j)$ occurs once, at $t = (u_1(i)+u_2(j))\bmod D$, with $s_1(i)s_2(j)e_ie_j$. So $w^\top\varphi = \sum_{ij}M_{ij}e_ie_j = e^\top Me$. Split off the last entry of $e$, which does not depend on $x$; a quadratic form sees the symmetric part of its matrix alone. The gradient is the chain rule: $x = a/\|a\|$ has the Jacobian $(I - xx^\top)/\|a\|$.
# :::
#
# So nothing is random in $h$ once the hashes are drawn, and no sketch is needed to compute it. The hashes decided *which* quadratic form is learned.
#
# ## Rung 1: three buckets by hand
#
# Let $d = 2$, $\gamma = c_0 = 1$, $D = 3$, $u_1 = (0,1,2)$, $s_1 = (1,1,-1)$, $u_2 = (1,1,0)$, $s_2 = (1,-1,1)$. The nine pairs go to buckets $0, 1, 2$ as
#
# $$ \varphi = \big(x_2,\quad x_1^2 - x_1x_2 + x_2,\quad x_1x_2 - x_2^2 - 1\big) $$
#
# (in bucket 0, $x_1$ of the pair $(1,3)$ and $-x_1$ of $(3,1)$ have met and cancelled). With $w = (1, 2, 4)$ and $b = 0$: $h = 2x_1^2 + 2x_1x_2 - 4x_2^2 + 3x_2 - 4$.

# %%
u, s = np.array([[0, 1, 2], [1, 1, 0]]), np.array([[1, 1, -1], [1, -1, 1]])
w, D = np.array([1.0, 2, 4]), 3


def by_sketch(x):
    """w.phi(x) through Fourier transforms, as ODESteer does."""
    e, S = np.append(x, 1.0), np.zeros((2, D))
    for k in range(2):
        np.add.at(S[k], u[k], s[k] * e)
    return w @ np.fft.irfft(np.fft.rfft(S[0]) * np.fft.rfft(S[1]), n=D)


M = w[(u[0][:, None] + u[1]) % D] * np.outer(s[0], s[1])
B, m, c = (M + M.T)[:2, :2] / 2, M[:2, 2] + M[2, :2], M[2, 2]
assert np.allclose(B, [[2, 1], [1, -4]]) and np.allclose(m, [0, 3]) and c == -4
for x in np.random.default_rng(seeds[0]).normal(size=(5, 2)):
    assert np.isclose(by_sketch(x), x @ B @ x + m @ x + c)

# %% [markdown]
# ## Rung 2: the plant's barrier, in plain PyTorch
#
# The same four lines with the hashes and the weight that were fitted at the middle block of the plant: {glue:text}`sketch.dimension` buckets for states of width {glue:text}`width`. We compare gradients with those of the sketch itself, which are correlations computed by Fourier transforms, on held-out states of both classes, relative to the size of the slope.

# %%
sketch, weight = h.sketch, h.weight
e = torch.full((lm.width + 1,), sketch.gamma, dtype=torch.float64).sqrt()
e[-1] = math.sqrt(sketch.c0)
signed = sketch.signs.double() * e
M = weight[(sketch.buckets[0][:, None] + sketch.buckets[1]) % sketch.dimension]
M = M * signed[0][:, None] * signed[1]
B, m = (M + M.T)[:-1, :-1] / 2, M[:-1, -1] + M[-1, :-1]
c = h.constant + M[-1, -1]


def by_hand(a):
    """Gradient of h by the theorem."""
    r = a.norm(dim=1, keepdim=True)
    x = a / r
    g = 2 * x @ B + m
    return (g - (g * x).sum(1, keepdim=True) * x) / r


both = torch.cat([positive, negative])
plain, ours = barriers.gradient(h, both), by_hand(both)
slope = h.slope(normalize(both, dim=1)).norm(dim=1) / both.norm(dim=1)
page.record("quadratic.gradient", ((plain - ours).norm(dim=1) / slope).max())

# %% [markdown]
# ## Rung 3: three routes of one law
#
# The library takes the quadratic form from a sketch with {py:meth}`~steerlib.control.barrier.SketchForm.quadratic`, and its eigenbasis with {py:meth}`~steerlib.control.barrier.QuadraticForm.diagonal`. {py:class}`~steerlib.laws.barrier.ODESteer` has a *route*: "sketch" as in the released code, "matrix" with a product by $B$ at every look, and "eigen".
#
# :::{prf:proposition} Two products for any number of steps
# :label: exact-eigen
# Let $B = U\Lambda U^\top$ and $y = U^\top a$. The unit gradient at $a$ is $U\hat v(y)$, where $\hat v$ is the unit gradient of $\hat h(y) = \hat x^\top\Lambda\hat x + (U^\top m)^\top\hat x + c$ with $\hat x = y/\|y\|$. A solver that takes $K$ steps of any kind from $y_0 = U^\top a_0$ along $\hat v$ and returns $a_0 + U(y_K - y_0)$ returns what it would along $v$.
# :::
#
# :::{prf:proof}
# $h(a) = \hat h(U^\top a)$, because $U$ keeps lengths and inner products; so $\nabla h = U\nabla\hat h$, and both have one length. Solvers add multiples of fields to states, and $U$ is linear; where they use lengths (the geodesic step), these are the same.
# :::
#
# A look then costs as much as a norm, and $K$ looks cost the two products by $U$.

# %%
assert torch.equal(form.matrix, B) or torch.allclose(form.matrix, B, rtol=1e-13, atol=0)  # fmt: skip
torch.testing.assert_close(form.linear, m)
torch.testing.assert_close(form.constant, c)
ends = {
    "sketch": flow(negative, 0.4, h=h),
    "matrix": flow(negative, 0.4),
    "eigen": negative + (flow(negative @ U, 0.4, h=eigen) - negative @ U) @ U.T,
}
moved = (ends["sketch"] - negative).norm(dim=1)
page.record("routes.difference", max(
    float(((ends[name] - ends["sketch"]).norm(dim=1) / moved).max())
    for name in ("matrix", "eigen")
))  # fmt: skip
routes = {
    name: ODESteer(route=name, strength=0.4 * norm).hold(h) for name in ends
}
by_law = [one(held.negative) for one in routes.values()]
for one in by_law[1:]:
    torch.testing.assert_close(one, by_law[0], rtol=1e-4, atol=1e-4 * norm)

# %% tags=["hide-input"]
page.record("sketch.dimension", sketch.dimension)
page.record("width", lm.width)
page.text("quadratic.said", f"{page.record_file.values['quadratic.gradient'].value:.0e}")  # fmt: skip
page.text("routes.said", f"{page.record_file.values['routes.difference'].value:.0e}")  # fmt: skip

# %% [markdown]
# Gradients agree to {glue:text}`quadratic.said` of the slope in double precision, ten steps over 0.4 radians to {glue:text}`routes.said` of the way by all routes. What does each cost? Multiplications and additions for one state, with $\tfrac52D\log_2D$ for a real Fourier transform of length $D$, four of which a look at a sketch takes:


# %%
def operations(d, steps, D=8000):
    """Rough count for one state, by route."""
    look = 4 * 2.5 * D * math.log2(D) + 6 * D + 6 * d
    return {
        "sketch": steps * look,
        "matrix": steps * (2 * d**2 + 6 * d),
        "eigen": 4 * d**2 + steps * 9 * d,
    }


counted = {(d, k): operations(d, k, sketch.dimension) for d in (lm.width, 4096) for k in (1, 10)}  # fmt: skip

# %% [markdown]
# and the time that it takes, as a ratio, for 64 states at once and ten Euler steps, in single precision, one route after the other in the same run.


# %%
def spent(h, states, bases=None):
    """Least processor time of four goes at ten steps."""
    goes = []
    for _ in range(4):
        start = time.process_time()
        seen = states if bases is None else states @ bases
        found = solve(lambda a: barriers.direction(h, a), seen, 0.4 * norm).mean
        _ = found if bases is None else found @ bases.T
        goes.append(time.process_time() - start)
    return min(goes[1:])


single = lambda one: type(one)(*(x.float() if torch.is_tensor(x) and x.is_floating_point() else x for x in one))  # fmt: skip
many = held.negative[:64].float()
taken = {
    "sketch": spent(single(h), many),
    "matrix": spent(single(form), many),
    "eigen": spent(single(eigen), many, U.float()),
}

# %% tags=["hide-input"]
for name in ("matrix", "eigen"):
    page.record(f"speed.{name}", taken["sketch"] / taken[name], digits=0)
for (d, k), row in counted.items():
    for name in ("matrix", "eigen"):
        where = "plant" if d == lm.width else "wide"
        page.record(f"count.{where}.{k}.{name}", row["sketch"] / row[name], digits=2)  # fmt: skip
cross = math.sqrt(counted[4096, 1]["sketch"] / 2)
page.record("count.cross", cross, digits=0)
page.record("count.cross.eigen", math.sqrt(counted[4096, 10]["sketch"] / 4), digits=0)  # fmt: skip
table([(f"{d}", k, *(f"{row[name] / 1e6:.2g}" for name in row)) for (d, k), row in counted.items()],
      "width", "steps", "sketch (millions)", "matrix", "eigen")  # fmt: skip

# %% [markdown]
# On this plant, in this run, the matrix is {glue:text}`speed.matrix` times as fast as the sketch and the eigenbasis {glue:text}`speed.eigen` times; by the count it should be {glue:text}`count.plant.10.matrix` and {glue:text}`count.plant.10.eigen`. The count also says where this ends. Sketches were made to avoid $d^2$: beyond a width of about {glue:text}`count.cross` a look at $B$ has more operations than a look at the sketch, and beyond {glue:text}`count.cross.eigen` ten steps in the eigenbasis have. At 4096 the sketch has fewer ({glue:text}`count.wide.10.matrix` and {glue:text}`count.wide.10.eigen` of theirs), but scattered ones; products by matrices are what processors do best, and `steerlib bench decode_cost` measures which counts for more. What remains at every width is that the form is *known*: the rest of this chapter needs $\Lambda$ and $U$.
#
# ## The spectrum says: chance
#
# If $B$ had a few large eigenvalues, a handful of directions would do. It has not. Below, the eigenvalues of $B$ in order, those of the exact kernel's $B$ (the same logistic regression without hashing, through inner products of examples; chapter [42](42_log_density_ratios)), and a curve that knows nothing of the plant but $\|w\|$.
#
# :::{prf:proposition} What hashing alone would give
# :label: exact-semicircle
# Were the entries of $w$ independent, with mean zero and variance $\|w\|^2/D$, the entries of $B$ off the diagonal would have variance $\sigma^2 = \gamma^2\|w\|^2/(2D)$, and for large $d\le D$ its eigenvalues would fill the semicircle on $[-2\sigma\sqrt d,\ 2\sigma\sqrt d]$ {cite:p}`wigner1955`. Then {glue:text}`semicircle.share` of the rank is needed for 99 % of the energy $\sum_i\lambda_i^2$, whatever the plant, the task and $d$ are.
# :::
#
# :::{prf:proof}
# $B_{ij} = \tfrac\gamma2\big(\pm w[t] \pm w[t']\big)$ with two buckets that differ but for a collision: variance $\tfrac{\gamma^2}4\cdot2\|w\|^2/D$. On the semicircle of radius 1, with density $\tfrac2\pi\sqrt{1-x^2}$, the energy outside of $|x|>x_0$ is 99 % at $\int_0^{x_0}x^2\sqrt{1-x^2}\,dx = \tfrac{\pi}{16}\cdot\tfrac1{100}$; the share of eigenvalues there follows. (That few bits of hashing make independent entries is an approximation, and so is that $w$ is random: it was fitted.)
# :::

# %%
kernel = fit_ratio(here.positive, here.negative, "kernel").barrier
exact = torch.linalg.eigvalsh(kernel.matrix)
sigma = sketch.gamma * float(weight.norm()) / math.sqrt(2 * sketch.dimension)
edge = 2 * sigma * math.sqrt(lm.width)
x = np.linspace(-1, 1, 20_001)
below = np.cumsum(np.sqrt(1 - x**2)) / np.sqrt(1 - x**2).sum()
places = (np.arange(lm.width) + 0.5) / lm.width
chance = edge * np.interp(places, below, x)


def rank_of(values, share=0.99):
    """How many eigenvalues hold so much of the energy."""
    energy = np.sort(np.asarray(values) ** 2)[::-1].cumsum()
    return int((energy < share * energy[-1]).sum()) + 1


# %% tags=["hide-input"]
within = np.cumsum(x**2 * np.sqrt(1 - x**2) * (x > 0))
x0 = x[np.searchsorted(within, 0.01 * within[-1])]
page.record("semicircle.share", 100 * float(1 - (np.interp(x0, x, below) - np.interp(-x0, x, below))), digits=0, unit="%")  # fmt: skip
ranks = {name: rank_of(v) for name, v in (("sketch", eigen.values), ("kernel", exact), ("chance", chance))}  # fmt: skip
for name, value in ranks.items():
    page.record(f"rank.{name}", value)
page.record("edge.predicted", edge, digits=2)
page.record("edge.measured", eigen.values.abs().max(), digits=2)
page.record("edge.kernel", exact.abs().max(), digits=2)
page.record("slope.linear", form.linear.norm(), digits=1)
unit_negative = normalize(negative, dim=1)
along = lambda f: float((2 * unit_negative @ f.matrix).norm(dim=1).mean() / f.linear.norm())  # fmt: skip
page.record("bend.sketch", 100 * along(form), digits=0, unit="%")
page.record("bend.kernel", 100 * along(kernel), digits=1, unit="%")
agreed = cosine_similarity(barriers.gradient(form, negative), barriers.gradient(kernel, negative))  # fmt: skip
page.record("field.cosine", agreed.mean(), digits=3)
for name, one in (("sketch", form), ("kernel", kernel)):
    page.record(f"auc.{name}", auc(barriers.value(one, positive), barriers.value(one, negative)), digits=3)  # fmt: skip
ordered = lambda v: figures.exactly(sorted((float(y) for y in v), reverse=True))
page.figure(
    "spectrum",
    figures.over(
        [(i + 0.5) / lm.width for i in range(lm.width)],
        {"Eigenvalues of B": figures.Panel({
            "sketch": ordered(eigen.values), "semicircle of chance": ordered(chance),
            "exact kernel": ordered(exact)}, "eigenvalue")},
        xlabel="place in the order, as a share of the width", height=3.3,
    ),
    alt="Eigenvalues of B in order for the sketch, the semicircle that hashing alone would give, "
    f"and the exact kernel. The first two lie on each other, up to {float(eigen.values.abs().max()):.2f} "
    f"and {edge:.2f}; those of the kernel are near zero but for a few.",
)  # fmt: skip

# %% [markdown]
# The sketch's eigenvalues lie on the semicircle: their largest is {glue:text}`edge.measured`, chance says {glue:text}`edge.predicted`; {glue:text}`rank.sketch` of {glue:text}`width` are needed for 99 % of the energy, chance says {glue:text}`rank.chance`. The kernel that the sketch stands for has {glue:text}`rank.kernel`, and none above {glue:text}`edge.kernel`. So $B$ is noise of hashing with a little of the classes' covariance in it, and it is flat for that reason: there is no low-rank short cut, and no meaning in its eigenvectors. It does no harm because it is small: $2Bx$ is {glue:text}`bend.sketch` of $m$ in length for the sketch, {glue:text}`bend.kernel` for the kernel; the two fields have a cosine of {glue:text}`field.cosine`, and held-out AUC is {glue:text}`auc.sketch` and {glue:text}`auc.kernel`. With $\gamma = 0.1$, ODESteer's barrier is close to a linear probe on directions.
#
# ## The highest point there is
#
# :::{prf:theorem} Maximum of a quadratic form on the sphere
# :label: exact-sphere
# A unit vector $x$ maximises $x^\top Bx + m^\top x$ on the unit sphere if and only if there is $\mu\ge\lambda_1$, the largest eigenvalue of $B$, with $(\mu I - B)x = m/2$. The value there is $\mu + \tfrac12m^\top x$ {cite:p}`more1983trust,gander1989constrained`.
# :::
#
# :::{prf:proof}
# Lagrange: a maximum is stationary, $2Bx + m = 2\mu x$ for a multiplier $\mu$. With $N = \mu I - B$ this reads $m = 2Nx$. For any unit $y$, inserting $m$ and $\mu(1 - y^\top y) = 0$ gives $h(y) = \mu - y^\top Ny + 2x^\top Ny$, and so
#
# $$ h(x) - h(y) = (x-y)^\top N(x-y). $$ (eq-exact-difference)
#
# If $\mu\ge\lambda_1$, $N$ is positive semidefinite, and no $y$ is higher. If not, some $v$ has $v^\top Nv<0$, also after a small turn that makes $v^\top x\ne0$; mirror $x$ along it, $y = x - 2(v^\top x)v/\|v\|^2$, a unit vector for which {eq}`eq-exact-difference` is negative: $x$ was no maximum.
# :::
#
# In the eigenbasis $x_i = m_i/(2(\mu-\lambda_i))$, and all that is left is one number. Its {term}`secular equation` is
#
# $$ p(\mu) = \sum_i\frac{m_i^2}{4(\mu-\lambda_i)^2} = 1, $$ (eq-exact-secular)
#
# whose left side falls from infinity (at $\lambda_1$, if $m_1\ne0$) to at most one (at $\lambda_1 + \|m\|/2$): one root, found by halving. The **{term}`hard case`** is $m_1 = 0$ with $p<1$ all the way: then $\mu = \lambda_1$, and what is missing of the length goes along the top eigenvector, either way: two maxima.
#
# *By hand.* $\Lambda = \mathrm{diag}(0, 1)$, $m = (2.4, 1.6)$: $\mu = 2$ gives $x = (0.6, 0.8)$, of length one; $h = 2 + 1.36 = 3.36$. With $m = (0.5, 0)$, $p(1) = 1/16$: hard; $x = (0.25, \pm0.968)$ and $h = 1 + 1/16$.


# %%
def highest(l, m):
    """Maximum of sum l x^2 + m x on the sphere, l ascending: value, point, mu."""
    low, high = l[-1], l[-1] + np.linalg.norm(m) / 2
    held = m != 0
    p = lambda mu: np.sum((m[held] / (2 * (mu - l[held]))) ** 2)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if p(middle) > 1 else (low, middle)
    x = np.zeros_like(m)
    x[held] = m[held] / (2 * (high - l[held]))
    if (missing := 1 - x @ x) > 1e-9:  # the hard case
        x[-1] += np.sqrt(missing)
    x /= np.linalg.norm(x)
    return l @ x**2 + m @ x, x, high


# %%
l = np.array([0.0, 1.0])
value, x, mu = highest(l, np.array([2.4, 1.6]))
assert np.allclose([value, mu, *x], [3.36, 2.0, 0.6, 0.8])
assert np.isclose(highest(l, np.array([0.5, 0.0]))[0], 1 + 1 / 16)
top, lower = sphere_maximum(eigen), local_maximum(eigen)
value, x, mu = highest(eigen.values.numpy(), eigen.linear.numpy())
assert np.isclose(value + float(eigen.constant), top.value, rtol=1e-12)
x = normalize(torch.randn(64, lm.width, generator=torch.Generator().manual_seed(seeds[0])).double(), dim=1)  # fmt: skip
shift = -eigen.values[0]
for _ in range(300):  # climbs: every step of this iteration is uphill
    x = normalize(x * (eigen.values + shift) + eigen.linear / 2, dim=1)
climbs = eigen.logit(x)
page.record("sphere.excess", max(0.0, float(climbs.max()) - top.value))

# %% tags=["hide-input"]
page.record("sphere.maximum", top.value, digits=2)
page.record("sphere.missed", top.value - float(climbs.max()))
away = torch.rad2deg((unit_negative @ (U @ top.point)).clamp(-1, 1).acos())
page.record("sphere.away", away.mean(), digits=0)
page.text(
    "sphere.said",
    "so the region that is aimed at is not empty"
    if top.value >= 0
    else "so the region that is aimed at is empty, and no budget helps",
)
page.text(
    "lower.said",
    "It is the only maximum: every climb ends there"
    if lower is None
    else f"There is one more local maximum, at {lower.value:.2f}",
)

# %% [markdown]
# On the plant the maximum of $h$ is {glue:text}`sphere.maximum`, {glue:text}`sphere.said`. {glue:text}`lower.said`; a quadratic form on a sphere has at most one local maximum besides the global one {cite:p}`martinez1994local`. The held-out negatives are {glue:text}`sphere.away` degrees away from it on average.
#
# ## What a budget can reach
#
# :::{prf:theorem} Budgets are angles
# :label: exact-budget
# Let $r = \|a\|$ and $\tau = T/r$. (a) A flow of unit speed orthogonal to the state turns it within time $T$ by at most $\tau$, and every direction of the cap $\{x : x^\top a\ge r\cos\tau\}$ is reached by one. (b) $K$ Euler steps of length $T/K$ orthogonal to the state turn it, one after the other, by
#
# $$ \Theta_K = \sum_{k=0}^{K-1}\arctan\frac{\tau}{\sqrt{K^2+k\tau^2}} < \tau, \qquad \tau - \Theta_K = \frac{\tau^3}{4K} + O(K^{-2}), $$
#
# so that the end is within $\Theta_K$ of the start. (c) A single push of length $T<r$ in any direction turns by up to $\arcsin\tau > \tau$.
# :::
#
# :::{prf:proof}
# (a) Orthogonal to the state, the speed of $x = a/r$ is $1/r$ at constant $r$, and no path is shorter than the great circle, which may be followed. (b) Start, end and origin of a step make a right-angled triangle with legs $r_k$ and $T/K$, where $r_k^2 = r^2 + kT^2/K^2$ (chapter [43](43_odesteer)); so the angle is $\arctan(T/(Kr_k))$, less than $\tau/K$. Angles of a path add up to at least the angle between its ends. Expand $\arctan$ and the root: $\sum_k\tau^3k/(2K^3)$ is of order $1/K$, the rest is smaller. (c) The tangent from the origin to the ball of radius $T$ about $a$.
# :::
#
# (b) is the spiral of Theodorus, walked from its $(K/\tau)^2$-th triangle on: a chord outside of the arc. (c) says that a flow on the sphere is not the cheapest way to turn: a push that shortens the state turns further, and $r\sin\theta$ is enough for an angle of $\theta$, where Euler's one step needs $r\tan\theta$.
#
# So for each state the question *how high can it come?* has an exact answer: the maximum of $h$ over its cap.
#
# :::{prf:theorem} Maximum on a cap
# :label: exact-cap
# The maximum of $h$ on the cap of angle $\theta<\pi$ about a unit vector $p$ is a local maximum of $h$ on the sphere, or lies on the edge, at $x = \cos\theta\,p + \sin\theta\,y$ with $y\perp p$, $\|y\| = 1$ and, for some $k$ and $\mu$ not below the largest eigenvalue of $B$ on the complement of $p$,
#
# $$ (\mu I - B)\,y = \frac{2\cos\theta\,Bp + m}{2\sin\theta} + k\,p. $$
# :::
#
# :::{prf:proof}
# Inside of the cap a maximum is a local one of the sphere. The edge is a sphere of one dimension less: insert $x$ into $h$; what depends on $y$ is $\sin^2\theta\,y^\top By + \sin\theta\,(2\cos\theta\,Bp + m)^\top y$, a quadratic form on the unit sphere of the complement. Apply {prf:ref}`exact-sphere` there and divide by $\sin^2\theta$; $k\,p$ is what the complement does not see.
# :::
#
# From scratch that is a basis of the complement, one decomposition, and `highest` again. The library solves the secular equation of the edge in the eigenbasis of $B$, for all states at once, with no further decomposition ({py:func}`~steerlib.control.sphere.cap_maximum`).


# %%
def on_cap(B, m, p, angle):
    """Highest value on the cap of an angle about p (no other local maximum)."""
    cos, sin = np.cos(angle), np.sin(angle)
    Q = np.linalg.svd(p[None])[2][1:].T  # a basis of p's complement
    l, V = np.linalg.eigh(sin**2 * Q.T @ B @ Q)
    y = highest(l, V.T @ Q.T @ (sin * (2 * cos * B @ p + m)))[1]
    x = cos * p + sin * Q @ V @ y
    l, V = np.linalg.eigh(B)
    peak = V @ highest(l, V.T @ m)[1]
    x = peak if p @ peak >= cos else x
    return x @ B @ x + m @ x


few = negative[:3]
by_library = cap_maximum(eigen, few @ U, 0.4)
for p, found in zip(normalize(few, dim=1).numpy(), by_library.value, strict=True):
    by_scratch = on_cap(form.matrix.numpy(), form.linear.numpy(), p, 0.4)
    if lower is None:
        assert np.isclose(by_scratch + float(form.constant), float(found), rtol=1e-9)  # fmt: skip

# %% [markdown]
# ## Is following the gradient near the best?
#
# For held-out negatives ({glue:text}`n.held` texts on entities that no fit has seen): the highest $h$ within the cap, and where the flow comes, by Euler's method in ten steps as in the paper, in one, and by the *geodesic* step, which goes the same length along the great circle and keeps the norm to the last bit of rounding.

# %%
angles = (0.1, 0.2, 0.4, 0.8)
ways = {
    "Euler, one step": {"steps": 1},
    "Euler, ten steps": {},
    "geodesic, ten steps": {"solver": "geodesic"},
}
caps = {t: cap_maximum(eigen, negative @ U, t) for t in angles}
ends = {t: {name: flow(negative, t, **how) for name, how in ways.items()} for t in angles}  # fmt: skip
heights = {t: {name: barriers.value(form, a) for name, a in row.items()} for t, row in ends.items()}  # fmt: skip
turned = lambda a, b: cosine_similarity(a, b, dim=-1).clamp(-1, 1).acos()
theodorus = lambda t, K: sum(math.atan(t / math.sqrt(K**2 + k * t**2)) for k in range(K))  # fmt: skip
off = short = kept = over = 0.0
for t in angles:
    for K in (1, 10):
        path = flow(negative, t, steps=K, trace=True)
        total = turned(path[1:], path[:-1]).sum(0)
        off = max(off, float((total - theodorus(t, K)).abs().max()))
        short = max(short, float((turned(path[-1], path[0]) - theodorus(t, K)).max()))  # fmt: skip
    end = ends[t]["geodesic, ten steps"]
    kept = max(kept, float((end.norm(dim=1) / negative.norm(dim=1) - 1).abs().max()))  # fmt: skip
    over = max(over, max(float((v - caps[t].value).max()) for v in heights[t].values()))  # fmt: skip

# %% tags=["hide-input"]
page.record("euler.angle", off)
page.record("euler.excess", max(0.0, short))
page.record("geodesic.norm", kept)
page.record("cap.excess", max(0.0, over))
page.text("geodesic.said", f"{kept:.0e}")
page.text("euler.said", f"{off:.0e}")
page.figure(
    "reached",
    figures.reached(
        {name: (caps[0.4].value.numpy(), v.numpy()) for name, v in heights[0.4].items()},
        xlabel="highest h within the cap", ylabel="h at the end of the way",
        title="A budget of 0.4 radians, held-out negatives",
    ),
    alt="Barrier value at the end of one Euler step, ten Euler steps and ten geodesic steps of 0.4 "
    "radians in all, against the highest value in reach, for held-out negatives: all lie on the "
    f"diagonal, one step {float((caps[0.4].value - heights[0.4]['Euler, one step']).mean()):.3f} below on "
    f"average, ten steps {float((caps[0.4].value - heights[0.4]['Euler, ten steps']).mean()):.4f}.",
)  # fmt: skip

# %% [markdown]
# The points lie on the diagonal: the flow is close to the best that any path of its length could do. How close, over the budget, and why not closer?

# %% tags=["hide-input"]
gap = {t: {name: float((caps[t].value - v).mean()) for name, v in row.items()} for t, row in heights.items()}  # fmt: skip
steep = {t: float(barriers.gradient(form, ends[t]["Euler, ten steps"]).mul(ends[t]["Euler, ten steps"].norm(dim=1, keepdim=True)).norm(dim=1).mean()) for t in angles}  # fmt: skip
drawn = {name: figures.exactly(max(gap[t][name], 1e-12) for t in angles) for name in ways}  # fmt: skip
for K, name in ((1, "τ − Θ₁, times the slope"), (10, "τ − Θ₁₀, times the slope")):
    drawn[name] = figures.exactly((t - theodorus(t, K)) * steep[t] for t in angles)  # fmt: skip
gain = float((heights[0.4]["Euler, ten steps"] - barriers.value(form, negative)).mean())  # fmt: skip
page.record("gain.ten", gain, digits=2)
page.record("gap.ten", gap[0.4]["Euler, ten steps"], digits=4)
page.record("gap.one", gap[0.4]["Euler, one step"], digits=3)
page.record("gap.geodesic", gap[0.4]["geodesic, ten steps"], digits=5)
page.record("gap.share", 100 * gap[0.4]["Euler, ten steps"] / gain, digits=1, unit="%")  # fmt: skip
page.record("short.ten", 0.4 - theodorus(0.4, 10), digits=4)
page.record("short.one", 0.4 - theodorus(0.4, 1), digits=3)
page.record("gap.explained", 100 * drawn["τ − Θ₁₀, times the slope"][2].value / gap[0.4]["Euler, ten steps"], digits=0, unit="%")  # fmt: skip
page.record("gap.largest", max(float((caps[0.8].value - v).max()) for v in heights[0.8].values()), digits=2)  # fmt: skip
page.figure(
    "gaps",
    figures.over(
        angles,
        {"What is left on the table": figures.Panel(drawn, "highest h in reach − h reached", log=True)},
        xlabel="budget T / |a| (radians)", log_x=True, height=3.8,
    ),
    alt="Mean difference between the highest barrier value in reach and the one reached, against the "
    "budget, for one Euler step, ten Euler steps and ten geodesic steps, beside the angle by which "
    "Euler's steps fall short times the slope. The last lies on Euler's curves; the geodesic gap at "
    f"0.4 radians is {gap[0.4]['geodesic, ten steps']:.0e}, Euler's {gap[0.4]['Euler, ten steps']:.0e}.",
)  # fmt: skip

# %% [markdown]
# At 0.4 radians ten Euler steps raise $h$ by {glue:text}`gain.ten`, and miss {glue:text}`gap.ten` of what could be had, {glue:text}`gap.share`. Of that gap, {glue:text}`gap.explained` is the angle that chords fall short of the arc, {glue:text}`short.ten` radians by {prf:ref}`exact-budget`, times the slope: not a wrong direction but a smaller budget. Geodesic steps miss {glue:text}`gap.geodesic`. One step misses {glue:text}`gap.one`, as it turns {glue:text}`short.one` radians less. The paper's two methods, ten steps and one {cite:p}`zhao2026odesteer`, differ here in the angle that they spend, and in the norm. (The sum of turned angles agrees with $\Theta_K$ to {glue:text}`euler.said`, geodesic steps keep the norm to {glue:text}`geodesic.said`.)
#
# Near-optimality has a simple cause. $m$ outweighs $2Bx$, and for $B = 0$ the gradient's great circle runs straight to $m/\|m\|$: the flow *is* the optimum, at every budget (exercise 45.2).
#
