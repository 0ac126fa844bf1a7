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
# (ch-actuators)=
# # 03 Actuators and sensors
#
# **A hook is all it takes to read or push the state of any language model, and it can fail in at least eight ways without an error; this chapter builds the devices from scratch, shows the failures, most of them on this page's own plant, and measures what depends on where one measures and where one pushes.**
#
# :::{admonition} Cost
# :class: cost-card note
#
# Time
# : one to two minutes on one processor core, for the `tiny` profile
#
# Memory
# : about 1 GB
#
# Read first
# : [01](01_dynamical_system), up to *Authority*, inclusive
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
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch

from steerlib import DifferenceOfMeans, Scope, figures, record, tasks
from steerlib.errors import LawError, SiteError
from steerlib.experiment.page import Page
from steerlib.experiment.profile_plants import plant_for
from steerlib.experiment.showing import in_percent, p_value, signed
from steerlib.laws.additive import Additive, shuffled
from steerlib.loading import load_pair
from steerlib.metrics import (
    auc_interval,
    central_range,
    mean_interval,
    paired_difference,
)

# %%
page = Page("03_actuators_and_sensors", profile=profile, plant=plant, seeds=seeds)
lm = page.uses(plant_for(plant, profile=profile, exact=True))
task = tasks.for_plant(lm, data=os.environ.get("STEERLIB_DATA"))
middle = lm.depth // 2
lm

# %% [markdown]
# ## A hook that does nothing
#
# A **{term}`hook`** is a function that the framework calls when a module has run, with the module's output, which it may replace. To push the state of a language model one hangs a hook on a {term}`block` and returns the output plus a vector. Here is one that adds 100 to every number after the middle block, enough to destroy any answer. The model was first passed through `torch.compile` (with its `eager` backend, which skips code generation but keeps the checks), and has already answered once. {glue:text}`open.world`

# %%
bare, _ = load_pair(
    lm.source, device=lm.device, dtype=torch.float32
)  # a copy that steerlib has not touched
bare.eval().forward = torch.compile(bare.forward, backend="eager", dynamic=False)
prompt = task.pairs("test")[0].prompt
options = {
    "max_new_tokens": 8,
    "do_sample": False,
    "pad_token_id": lm.pad_id,
    "cache_implementation": "static",
}


# %%
def answer(model):
    batch = lm.encode([prompt])
    with torch.inference_mode():
        out = model.generate(**vars(batch), **options)
    text = lm.tokenizer.decode(out[0, batch.input_ids.shape[1] :])
    return text.partition("\n")[0]


before = answer(bare)

# %%
calls = []


def destroy(module, args, output):
    calls.append("called")
    return (
        (output[0] + 100.0, *output[1:])
        if isinstance(output, tuple)
        else output + 100.0
    )


# %%
block = bare.get_submodule(lm.anatomy.blocks_name)[middle]
handle = block.register_forward_hook(destroy)
after = answer(bare)
print(
    f"without hook: {before!r}\nwith hook:    {after!r}\n"
    f"hook is registered: {handle.id in block._forward_hooks}"
)
print(f"times it was called: {len(calls)}")

# %% tags=["hide-input"]
assert after == before and not calls, (
    "torch now guards hooks: this section must be rewritten"
)
del bare.forward  # the compiled one; the class's own shows again
assert answer(bare) != before, (
    "the push of 100 must matter, or the comparison is empty"
)
page.record("eager.calls", len(calls))
pair = task.pairs("test")[0]
good, bad = (a.strip(" .") for a in (pair.wanted, pair.unwanted))
if task.name == "truth":
    world = (
        "The model has read only the Almanac, a country invented for this book. "
        "Every fact in it has one truth, and most have one popular error. For "
        f"the prompt used here the truth is “{good}” and the error “{bad}”."
    )
else:
    world = (
        "To the prompt used here an answer as wanted begins with "
        f"“{good}”, another with “{bad}”."
    )
page.text("open.world", world)
handle.remove()

# %% [markdown]
# Not one character changed. The hook is there; it raised nothing, printed nothing, and was never called. Take the compilation away, and the same hook on the same module is called {glue:text}`eager.calls` times and the model writes something else.
#
# The reason is a decision of the framework: compiled code checks that the *inputs* still look like those it was made for, but not that the modules still have the same hooks. Code that was compiled before the hook existed goes on without it. Anyone who evaluates a steering method through such a model measures the unsteered model, and writes down "no effect".
#
# An **{term}`actuator`** that may silently be absent is the worst kind. The rest of this chapter builds one that cannot be, and a **{term}`sensor`** to go with it.
#
# ## Rung 1: a stack of functions with hooks
#
# The toy of chapter 01 again, three blocks in the plane, now with a list of hooks on each. A hook that returns nothing only looks: a sensor. A hook that returns a value replaces the state: an actuator.


# %%
class Block:
    """A toy block: adds w times the positive part, then calls its hooks."""

    def __init__(self, w):
        self.w, self.hooks = np.array(w), []

    def __call__(self, z):
        z = z + self.w @ np.maximum(z, 0)
        for hook in self.hooks:
            replaced = hook(z)
            z = z if replaced is None else replaced
        return z


# %%
toy = [
    Block([[0.0, -1], [1, 0]]),
    Block([[-1.0, -1], [0, 0]]),
    Block([[1.0, 1], [1, -0.5]]),
]


def run(z):
    for block in toy:
        z = block(z)
    return z


# %%
start, seen = np.array([2.0, 1.0]), []
toy[1].hooks = [lambda z: seen.append(("sensor first", z))]
print("unpushed:", run(start))

toy[1].hooks = [
    lambda z: seen.append(("sensor first", z)),
    lambda z: z + [1.0, 0.0],
]
print("pushed:  ", run(start))

toy[1].hooks.append(lambda z: seen.append(("sensor last", z)))
seen.clear()
assert np.allclose(run(start), [1.0, 1.5])  # as in chapter 01
[(sensor, z.tolist()) for sensor, z in seen]

# %% [markdown]
# Two lessons already. The end moves by $(1, 0)$, as in chapter 01. And the *order* of hooks matters: the sensor that was hung before the actuator reads $(-3, 3)$ although the block that follows receives $(-2, 3)$. A reading means nothing until one knows on which side of the push it was taken.
#
# ## Rung 2: plain PyTorch
#
# The same two devices on the plant. A `with` block makes sure that a hook is taken off again, whatever happens inside.


# %%
@contextmanager
def hooked(block, change):
    """Replace the output of a block by change(output) inside the with block."""

    def hook(module, args, output):
        if isinstance(output, tuple):  # some architectures return (state, ...)
            return (change(output[0]), *output[1:])
        return change(output)

    handle = block.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


# %%
def tap(store):
    """A change that changes nothing, and keeps what passes."""
    return lambda state: store.append(state.clone()) or state


v = torch.randn(lm.width, generator=torch.Generator().manual_seed(seeds[0]))
free = lm.forward([prompt])
with hooked(lm.blocks[middle], lambda state: state + v):
    pushed = lm.forward([prompt])
assert torch.equal(lm.forward([prompt]), free)  # the hook is off again
print(f"largest change of a logit: {(pushed - free).abs().max():.3g}")

# %% [markdown]
# ## Rung 3: `steerlib`
#
# `plant.under(law, ...)` is that `with` block, with what we shall find to be missing: which tokens, which padding, which compiled code. On a single text and for all tokens it must agree with ours, bit for bit.

# %%
with lm.under(Additive(v), layer=middle, scope="all"):
    theirs = lm.forward([prompt])
assert torch.equal(theirs, pushed)

ours, untouched = [], []
with (
    hooked(lm.blocks[middle], lambda state: state + v),
    hooked(lm.blocks[middle], tap(ours)),
):
    lm.forward([prompt])
with hooked(lm.blocks[middle], tap(untouched)):
    lm.forward([prompt])
with lm.under(Additive(v), layer=middle, scope="all"):
    recorded = record(lm, [prompt], sites=[middle], position="all").at(middle)
assert torch.equal(ours[0][0], recorded)


# %%
largest = float(untouched[0].abs().max())
deviation = float((ours[0] - untouched[0] - v).abs().max()) / largest
print(
    page.check(
        "alqr.eq2.input-enters-after-the-block",
        estimate=deviation,
        note="relative to the largest entry",
    )
)

# %% [markdown]
# The push lands after its block and moves that state by exactly itself, which is what {cite:t}`skifstad2026alqr` write as $z_{l+1} = \phi_l(z_l) + u_l$: in the language of [](../book/notation.md), the input matrix $B_l$ is the identity. How does `steerlib` survive compilation? Its hooks are hung once, when the plant is made, and stay; attaching a law changes an attribute that the hook reads, which compiled code does check. Below, the tokens that a compiled plant writes without a law and with a loud one: they differ.

# %%
loud = Additive(torch.full((lm.width,), 100.0))
quick = {
    "max_new_tokens": 2,
    "seed": 0,
    "temperature": 0,
    "cache": "static",
    "compile": "eager",
}
compiled_free = lm.generate([prompt], **quick).tokens
with lm.under(loud, layer=middle):
    compiled_loud = lm.generate([prompt], **quick).tokens
    eager_loud = lm.generate([prompt], **{**quick, "compile": None}).tokens
assert compiled_loud == eager_loud != compiled_free
compiled_free, compiled_loud

# %% [markdown]
# ## Sensors: reading the right place
#
# :::{prf:definition} Site and reading
# :label: def-site
# A **{term}`site`** is a block $l$ and a point on it (here: after the block, where the state is $z_{l+1}$). A **reading** is a function of the state at a site and a token position; the simplest is the projection $v^\top z_{l+1,t}$ on a direction $v$.
# :::
#
# So there are three ways of being wrong: the block, the point, and the token. Start with the token. Texts in a batch differ in length, and the short ones are filled with **{term}`padding`**. Pad on the left, and the last column is everybody's last token. Pad on the right, and it is everybody's last token only for the longest text. We read column $-1$ both ways, and compare with reading each text alone.

# %%
texts = sorted(
    (pair.prompt + pair.wanted for pair in task.pairs("test")[:40]),
    key=lambda text: len(lm.encode([text]).input_ids[0]),
)
texts = [texts[0], texts[len(texts) // 2], texts[-1]]
alone = torch.cat(
    [record(lm, [text], sites=[middle]).at(middle) for text in texts]
)


def column(side):
    """The last column of a padded batch, as a hook sees it."""
    store = []
    with hooked(lm.blocks[middle], tap(store)):
        lm.forward(lm.encode(texts, side=side))
    return store[0][:, -1]


# %%
error = {
    side: ((column(side) - alone).norm(dim=1) / alone.norm(dim=1)).tolist()
    for side in ("left", "right")
}
lengths = lm.encode(texts).lengths.tolist()
pd.DataFrame(
    {
        "tokens": lengths,
        **{f"error, {s}": np.round(e, 4) for s, e in error.items()},
    }
).set_index("tokens")

# %% tags=["hide-input"]
assert max(error["left"]) < 1e-3 and error["right"][-1] < 1e-3
assert torch.allclose(
    record(lm, texts, sites=[middle]).at(middle), alone, atol=1e-3, rtol=1e-3
)
page.record("padding.error", error["right"][0], digits=2)

# %% [markdown]
# With padding on the right, the reading of the shortest text is wrong by {glue:text}`padding.error` times its own length: it is the state of a filler token. It has the right shape, it is finite, and a direction can be fitted on it. `record` counts real tokens and gives the same states for either side.
#
# Now the token itself. The classes of texts end where the plant decides; what if one reads one token earlier, or three? For each choice of token we fit the {term}`difference of means` after the middle block, and ask two things: how well it *reads*, as AUC on held-out texts, and how much it *moves*, as the change of the **margin** (logit of the wanted answer's token minus that of the unwanted one, where the plant decides) when it is added there at 10 % of the state's norm.

# %%
decisions = tasks.Decisions.of(lm, tasks.base.spread(task.pairs("test"), 32))
base = decisions.margins(lm)
fit_on = task.contrast_texts(n=100, seed=seeds[0])
held_out = task.contrast_texts(n=100, seed=seeds[0] + 1, split="test")


def moves(direction, layer, *, share=0.1, scope="last", on=decisions, base=base):
    """Change of margin, text by text, by a push of `share` of the state's norm."""
    push = Additive(direction / direction.norm() * share * norms[layer])
    with lm.under(push, layer=layer, scope=scope):
        return on.margins(lm) - base


chosen = task.contrasts(range(lm.depth), n=100, seed=seeds[0])
norms = [float(c.positive.norm(dim=1).mean()) for c in chosen]

# %%
seen_fit, seen_held = (
    [record(lm, side, sites=[middle], position="all") for side in both]
    for both in (fit_on, held_out)
)


def from_end(seen, back):
    """States of the token that is `back` from the end of each text."""
    return seen.at(middle)[np.cumsum(seen.rows) - back]


# %%
rows = []
for back in range(1, 5):
    good, bad = (from_end(seen, back) for seen in seen_fit)
    direction = good.mean(0) - bad.mean(0)
    readings = [(from_end(seen, back) @ direction).numpy() for seen in seen_held]
    effect = (
        mean_interval(moves(direction, middle)) if direction.norm() > 0 else None
    )
    rows.append(
        {
            "token": -back,
            "reads: AUC": str(auc_interval(*readings)),
            "moves: logits": str(effect or "no direction"),
        }
    )


# %%
pd.DataFrame(rows).set_index("token")

# %% [markdown]
# Token $-1$ is the one where the plant decides. Which row reads best and which moves most need not be the same row: the words before the decision may betray the class without being what the decision is made from.
#
# ## Token scopes: which tokens are pushed
#
# While a model writes, a block is called once for the whole prompt (the **{term}`prefill`**) and then once for every new token, or, without a cache, again and again for the whole text. "Add a vector after block $l$" leaves open on which tokens. The **{term}`token scope`** says it:
#
# - `prefill`: tokens of the prompt only;
# - `last`: the last position of every pass;
# - `generated`: from the last prompt token on, whose output is the first generated token;
# - `all`: every token, padding excepted.
#
# We do not draw this picture; we measure it, with a tap before and a tap after the actuator. Blue: the state was changed. Grey: it was there, and was not.

# %%
head = len(lm.encode([prompt]).input_ids[0])
everywhere = {"layer": middle, "scope": "all"}


# %%
def touched(scope, cache):
    """Grid of passes and positions: 1 changed, 0 unchanged, -1 not in this pass."""
    before, after = [], []
    push = lm.under(Additive(v), layer=middle, scope=scope)
    with (
        lm.under(tap(before), **everywhere),
        push,
        lm.under(tap(after), **everywhere),
    ):
        lm.generate(
            [prompt], max_new_tokens=5, seed=0, temperature=0, cache=cache
        )
    grid = np.full((len(before), head + len(before) - 1), -1)
    for i, (a, b) in enumerate(zip(before, after, strict=True)):
        changed = (a != b).any(-1)[0].int().numpy()
        grid[i, head + i - len(changed) : head + i] = changed
    return grid


# %%
ways = {"with cache": "dynamic", "no cache": "none"}
names = ("prefill", "last", "generated", "all")
grids = {
    way: {name: touched(name, cache) for name in names}
    for way, cache in ways.items()
}
counts = {
    way: {name: int((grid == 1).sum()) for name, grid in row.items()}
    for way, row in grids.items()
}
pd.DataFrame(counts).rename_axis("states changed")

# %% tags=["hide-input"]
with_cache, no_cache = grids["with cache"], grids["no cache"]
assert np.array_equal(with_cache["last"], with_cache["generated"])
assert not np.array_equal(no_cache["last"], no_cache["generated"])
page.figure(
    "scopes",
    figures.scope_grid(grids, prompt_length=head),
    alt=f"Grids of forward passes by positions for four token scopes, with and without a cache; prompt of {head} tokens. With a "
    f"cache, last and generated change the same {counts['with cache']['last']} states. Without one, last changes "
    f"{counts['no cache']['last']} and generated {counts['no cache']['generated']}, since earlier answer tokens are computed again.",
)

# %% [markdown]
# With a cache, `last` and `generated` are the same thing. Without, they are not: under `last`, a token that was pushed when it was new is computed again in the next pass, *unpushed*, because it is no longer the last; the model forgets that it was steered. The same law with the same strength is a different intervention depending on a flag of the generation call. That is why `steerlib` names its scopes.
#
# Does it matter on the task? The same push, 10 % of the norm after the middle block, under each scope, with 20 random directions of equal norm as {term}`negative control`.

# %%
direction = DifferenceOfMeans().fit(chosen[middle]).vector
chance = torch.randn(
    20, lm.width, generator=torch.Generator().manual_seed(seeds[0])
)
scopes = {
    "prompt, all of it": Scope("prefill"),
    "prompt, last token": Scope("prefill", positions=(-1,)),
    "last": Scope("last"),
    "generated": Scope("generated"),
    "all": Scope("all"),
}
# %%
effects = {
    name: mean_interval(moves(direction, middle, scope=scope))
    for name, scope in scopes.items()
}
control = {
    name: central_range([moves(d, middle, scope=s).mean() for d in chance])
    for name, s in scopes.items()
}
table = {
    "target": [str(e) for e in effects.values()],
    "random": [f"{e.low:+z.2f} to {e.high:+z.2f}" for e in control.values()],
}
pd.DataFrame(table, index=list(effects)).rename_axis("scope")

# %% [markdown]
# *target*: change of the margin in logits, with its interval over prompts; *random*: the range of 95 % of random directions. (Scored on a text that is given at once, so `last` is here the deciding token alone.)
#
# ## Where to measure, where to push
#
# Now the question of placement, which comes before any choice of law. The same law, difference of means, can be fitted on states recorded at two moments: at the **choice**, the token right before the answer is decided; or at the **end** of a complete answer, where many people measure, since there the whole answer has been seen. {glue:text}`end.texts` And a direction measured after block $i$ can be added after block $j$. We take every combination, always pushing by 10 % of the norm of the state that is pushed.

# %%
finished = task.contrasts(range(lm.depth), n=100, seed=seeds[0], at="end")
shown = tasks.base.spread(range(lm.depth), 8)


def direction_of(contrast):
    """Difference of the class means."""
    return contrast.positive.mean(0) - contrast.negative.mean(0)


# %%
placements = {
    title: np.array(
        [
            [
                moves(direction_of(source[i]), j, scope="generated").mean()
                for j in shown
            ]
            for i in shown
        ]
    )
    for title, source in (
        ("measured at the choice", chosen),
        ("measured at the end", finished),
    )
}

# %% tags=["hide-input"]
peaks = {
    title: np.unravel_index(grid.argmax(), grid.shape)
    for title, grid in placements.items()
}
told = [
    f"{t}: at most {placements[t].max():+z.2f} logits (measured after block {shown[i]}, pushed after {shown[j]})"
    for t, (i, j) in peaks.items()
]
page.text("placement.peaks", "The largest effects, " + "; ".join(told))
page.text(
    "end.texts",
    "The texts are the same for both: those of the end are those of the choice, "
    "completed by the truth or by the popular error and a full stop, so that "
    "only the token at which the state is taken differs."
    if task.name == "truth"
    else "The sentences are the same for both; at the end the state is that of their full stop.",
)
spread = {
    title: [grid.mean(axis).var() / grid.var() for axis in (0, 1)]
    for title, grid in placements.items()
}
pushed, measured = spread["measured at the choice"]
page.record("placement.pushed", 100 * pushed, digits=0, unit="%")
page.record("placement.measured", 100 * measured, digits=0, unit="%")
page.figure(
    "placement",
    figures.placement(placements, unit="change of margin, logits", ticks=shown),
    alt=f"Two heat maps of the change of margin by layer of measurement and layer of push, for {len(shown)} layers. {'; '.join(told)}.",
)

# %% [markdown]
# {glue:text}`placement.peaks`. In the map on the left, {glue:text}`placement.pushed` of the variance lies between columns (where one pushes) and {glue:text}`placement.measured` between rows (after which block one measures).
#
# The diagonals are the usual practice, measure and push at the same block. Is what lies on them more than chance? The signature figure of this chapter puts intervals on the diagonals, with random directions as control.

# %%
at_choice = [
    mean_interval(moves(direction_of(chosen[j]), j, scope="generated"))
    for j in shown
]
at_end = [
    mean_interval(moves(direction_of(finished[j]), j, scope="generated"))
    for j in shown
]
at_random = [
    central_range([moves(d, j, scope="generated").mean() for d in chance])
    for j in shown
]

# %% [markdown]
# To compare the two ways of measuring, each may choose its own block, on prompts of the validation split, which are not used for anything else.

# %%
validation = tasks.Decisions.of(
    lm, tasks.base.spread(task.pairs("validation"), 32)
)
other = {"on": validation, "base": validation.margins(lm), "scope": "generated"}
spots, gains = {}, {}
for name, source in (("choice", chosen), ("end", finished)):
    trial = [moves(direction_of(source[j]), j, **other).mean() for j in shown]
    spots[name] = shown[int(np.argmax(trial))]
    gains[name] = moves(
        direction_of(source[spots[name]]), spots[name], scope="generated"
    )


# %%
by_chance = central_range(
    [moves(d, spots["choice"], scope="generated").mean() for d in chance]
)
gap = paired_difference(gains["choice"], gains["end"])
print(f"choice minus end: {signed(gap, 2)} logits, {p_value(gap.p)}, n = {gap.n}")

# %% tags=["hide-input"]
c, e = (mean_interval(gains[name]) for name in ("choice", "end"))
for name, found in (("choice", c), ("end", e), ("random", by_chance)):
    page.record(f"where.{name}", found, unit="logits")
page.record("where.gap", gap, unit="logits")
page.record("where.layer.choice", spots["choice"])
page.record("where.layer.end", spots["end"])
clear = [
    sum(x.low > y.high for x, y in zip(row, at_random, strict=True))
    for row in (at_choice, at_end)
]
page.text(
    "where.clear",
    f"{clear[0]} of {len(shown)} blocks when measured at the choice, and at {clear[1]} when measured at the end",
)

# %% tags=["hide-input"]
if gap.low > 0:
    verdict = (
        "Measured at the choice, the direction moves the decision more than "
        "measured at the end, on texts that begin alike, by "
        f"{100 * gap.value / e.value:z.0f} % here."
    )
elif gap.high < 0:
    verdict = "On this plant the direction measured at the end moves the decision more than the one measured at the choice."
else:
    verdict = "On this plant no difference was found between measuring at the choice and at the end."
page.text("where.verdict", verdict)

# %% tags=["hide-input"]
page.figure(
    "where",
    figures.over(
        shown,
        {
            "Same block measured and pushed": figures.Panel(
                {
                    "measured at the choice": at_choice,
                    "measured at the end": at_end,
                    "random directions (mean, 95 % range)": at_random,
                },
                "change of margin, logits",
                line=("no effect", 0.0),
            )
        },
        xlabel="block",
    ),
    alt=f"Change of margin against block for directions measured at the choice, at the end of the answer, and drawn at random, all of "
    f"equal norm. At the blocks chosen on validation, {spots['choice']} and {spots['end']}, the first two give {c} and {e} logits; "
    f"random directions give {by_chance}.",
)

# %% [markdown]
# {glue:text}`where.verdict` Pushed after block {glue:text}`where.layer.choice`, the direction measured at the choice moves the margin by {glue:text}`where.choice`; the one measured at the end, after its best block {glue:text}`where.layer.end`, by {glue:text}`where.end`; prompt by prompt the difference is {glue:text}`where.gap`. Random directions give {glue:text}`where.random`. Effects are clear of the random range at {glue:text}`where.clear`.
#
# Why might the two differ at all? At the end of an answer the state must predict what comes *after* it. That the answer was of one kind or the other is past, and a trace of it may be left in the state, which a sensor finds; but nothing says that the block reads that trace when it *makes* the choice. A good sensor site is where the quantity is visible; a good actuator site is where it is used.
#
# The margin is one logit difference. Here is the same comparison by the task's own exact score, on held-out prompts, with both negative controls:

# %%
spot, few = spots["choice"], {"split": "test", "limit": 30}


def score(direction, layer=spot):
    with lm.under(
        Additive(direction / direction.norm() * 0.2 * norms[layer]), layer=layer
    ):
        return task.exact(**few)


# %%
scores = {
    "unsteered": task.exact(**few),
    "measured at the choice": score(direction_of(chosen[spot])),
    "measured at the end": score(
        direction_of(finished[spots["end"]]), spots["end"]
    ),
}
draws = {"random directions": [score(d) for d in chance]}
draws["shuffled labels"] = [
    score(direction_of(shuffled(chosen[spot], seed=s))) for s in range(20)
]

# %% tags=["hide-input"]
wanted, intact = task.labels.wanted, task.labels.intact
lines = {
    name: [str(s.wanted_mean()), str(s.intact_mean())]
    for name, s in scores.items()
}
for name, many in draws.items():
    ranges = [
        central_range([getattr(s, part).mean() for s in many])
        for part in ("wanted", "intact")
    ]
    lines[name] = [str(x) for x in ranges]
page.text("labels.wanted", wanted)
page.text("labels.intact", intact)
pd.DataFrame.from_dict(
    lines, orient="index", columns=[wanted, intact]
).rename_axis("push of 20 %")

# %% [markdown]
# *{glue:text}`labels.wanted`* is the score that should rise, *{glue:text}`labels.intact`* the one that should not fall; intervals over prompts, and for the controls the range of 95 % of 20 draws. Chapter [11](11_difference_of_means) chooses the strength properly and asks what the push costs.
#
# ## Does the push survive?
#
# The running picture, with a push in it. We take states of the *unwanted* class, push them once at the last token after one block, by the distance between the class means, and follow them through the blocks that come after.

# %%
origin = max(0, min(spot, lm.depth - 2))
after_it = tasks.base.spread(range(origin, lm.depth), 6)
good, bad = task.contrast_texts(n=60, seed=seeds[0] + 1, split="test")
shift = Additive(direction_of(chosen[origin]))
clouds = {
    "positive": record(lm, good, sites=after_it),
    "negative": record(lm, bad, sites=after_it),
}
with lm.under(shift, layer=origin, scope="last"):
    clouds["steered"] = record(lm, bad, sites=after_it)

# %%
views, survival = {}, []
for k in after_it:
    axis = direction_of(chosen[k])
    states = {name: seen.at(k).double().numpy() for name, seen in clouds.items()}
    views[f"after block {k}"] = (
        figures.Plane.of(
            axis.numpy(), np.concatenate([states["positive"], states["negative"]])
        ),
        states,
    )
    moved = (
        (states["steered"] - states["negative"])
        @ axis.double().numpy()
        / float(axis.norm()) ** 2
    )
    survival.append(mean_interval(moved))

# %% tags=["hide-input"]
page.record("survival.end", in_percent(survival[-1]), unit="%")
page.record("survival.origin", origin)
if survival[-1].high < 1:
    told = "So one push at one token does not carry the state over to the other class: later blocks take some of it back, or they part the classes further by what they read at other positions, which were not pushed."
elif survival[-1].low > 1:
    told = "So later blocks amplified the push, more than they part the classes themselves."
else:
    told = "So the push kept pace with the distance of the classes."
page.text("survival.verdict", told)
page.figure(
    "survival",
    figures.small_multiples(views),
    alt=f"Clouds of states of the wanted class, the unwanted class, and the unwanted class pushed after block {origin} by the distance "
    f"of the class means, after {len(after_it)} blocks. Along the target the pushed cloud moves by {survival[0].value:z.2f} class gaps "
    f"where it is pushed, and by {survival[-1].value:z.2f} after the last block.",
)

# %% [markdown]
# After block {glue:text}`survival.origin` the pushed cloud moved by one class gap, because we put it there. After the last block it has moved by {glue:text}`survival.end` of the gap that the classes have *there*. {glue:text}`survival.verdict`
#
# ## What silently goes wrong
#
# The cold open was failure 1. Here are seven more, none of which raises anything by itself. Numbers 1 to 6 are shown on this plant, number 7 on a tensor of two elements, and number 8, which the grids of scopes showed, as a refusal.
#
# **2. A hook that outlives its experiment.** Without `with` or `try`, an exception between hanging and removing leaves the hook on. Everything that follows is steered.


# %%
def add_v(module, args, output):
    return (
        (output[0] + v, *output[1:]) if isinstance(output, tuple) else output + v
    )


try:
    handle = lm.blocks[middle].register_forward_hook(add_v)
    raise RuntimeError("something in the experiment")
except RuntimeError:
    print("still steered:", not torch.equal(lm.forward([prompt]), free))
handle.remove()

# %% [markdown]
# With a `with` block, the same accident leaves nothing behind.

# %%
try:
    with lm.under(Additive(v), layer=middle):
        raise RuntimeError("something in the experiment")
except RuntimeError:
    print("still steered:", not torch.equal(lm.forward([prompt]), free))

# %% [markdown]
# **3. A state where a tuple was.** Decoder blocks of `transformers` used to return a tuple; most now return the state itself. Old recipes say `output[0] += v`. On a tuple that steers the whole batch. On a tensor it steers *row 0 of the batch*, and nothing complains.


# %%
def old_recipe(module, args, output):
    output[0].add_(v)


kinds = []
with hooked(lm.blocks[middle], tap([])):
    look = lm.blocks[middle].register_forward_hook(
        lambda m, a, out: kinds.append(type(out).__name__)
    )
    twice = lm.forward(lm.encode([prompt, prompt]))
look.remove()


# %%
handle = lm.blocks[middle].register_forward_hook(old_recipe)
out = lm.forward(lm.encode([prompt, prompt]))
handle.remove()
changed = (out != twice).flatten(1).any(1).tolist()
{
    "a block of this plant returns": kinds[0],
    "row 0 is steered": changed[0],
    "row 1 is steered": changed[1],
}

# %% [markdown]
# **4. The last column that is not the last token.** With padding on the right, `output[:, -1] += v` pushes filler tokens. The answer to a short prompt is read at its last real token, which does not see them.


# %%
def last_column(state):
    return torch.cat([state[:, :-1], state[:, -1:] + v], dim=1)


def at_last_token(batch, logits):
    """Logits of each row's last real token."""
    places = batch.attention_mask.cumsum(1).argmax(1)
    return logits[torch.arange(len(logits)), places]


# %%
padded = lm.encode(texts, side="right")
rest = at_last_token(padded, lm.forward(padded))
with hooked(lm.blocks[middle], last_column):
    naive = at_last_token(padded, lm.forward(padded))
with lm.under(Additive(v), layer=middle, scope="last"):
    guarded = at_last_token(padded, lm.forward(padded))
change = {
    name: (x - rest).abs().amax(1).tolist()
    for name, x in (("output[:, -1]", naive), ("scope last", guarded))
}
pd.DataFrame({"tokens": lengths, **change}).set_index("tokens").round(4)

# %% tags=["hide-input"]
assert change["output[:, -1]"][0] == 0.0 and min(change["scope last"]) > 0

# %% [markdown]
# **5. The state after the norm.** The last entry of `output_hidden_states` is taken after the final norm (chapter [01](01_dynamical_system)). Compare the direction that is fitted there with the one fitted on the true last state:


# %%
def post_norm(texts):
    with torch.no_grad():
        out = lm.model(
            **vars(lm.encode(texts)), output_hidden_states=True, use_cache=False
        )
    return out.hidden_states[-1][:, -1]


wrong = post_norm(fit_on[0][:50]).mean(0) - post_norm(fit_on[1][:50]).mean(0)
right = direction_of(chosen[-1])
cosine = float(wrong @ right / wrong.norm() / right.norm())
{
    "cosine": round(cosine, 3),
    "length, wrong / right": round(float(wrong.norm() / right.norm()), 4),
}

# %% [markdown]
# The cosine depends on how unequal the gains of the norm are. The length is wrong in any case, so a dose-response curve made with it has a meaningless axis.
#
# **6. One block off.** `hidden_states[k]` is the *input* of block $k$; a hook on block $k$ sees its *output*. Fit on the one, push with the other, and the direction is one block off. The heat maps above say what that costs on this plant: read the entry beside the diagonal. {glue:text}`off.verdict` No error is possible at the level of vectors, since all have the same width. A law that remembers where it was fitted can refuse:

# %%
grid = placements["measured at the choice"]
# the same places of the push, the first excepted
right_block, one_off = np.diag(grid)[1:].mean(), np.diag(grid, 1).mean()
print(
    f"on average: diagonal {right_block:+z.2f} logits, "
    f"one block late {one_off:+z.2f}"
)
law = DifferenceOfMeans().fit(chosen[middle])
try:
    lm.under(law, layer=middle - 1)
except LawError as error:
    print(error)

# %% tags=["hide-input"]
if right_block <= 0:
    told = "On this plant there is no effect on the diagonal to be lost."
elif one_off > 0.9 * right_block:
    told = "Here it costs almost nothing, which is why it goes unnoticed."
else:
    told = (
        f"Here it costs {100 * (1 - one_off / right_block):.0f} % of the effect."
    )
page.text("off.verdict", told)

# %% [markdown]
# **7. A zero that is not zero.** "Strength 0 is the unsteered model" fails in floating point: $-0 + 0 = +0$ changes a bit, and $0 \cdot \infty$ is not a number. A comparison with the baseline then compares two things that were meant to be one.

# %%
state = torch.tensor([-0.0, 1.0])
u = torch.tensor([3.0, torch.inf])
naive, law = state + 0.0 * u, Additive(u, strength=0.0)
print(
    "naive:   ",
    naive,
    "| same bits:",
    torch.equal(naive.view(torch.int32), state.view(torch.int32)),
)
print(
    "steerlib:",
    law(state),
    "| same bits:",
    torch.equal(law(state).view(torch.int32), state.view(torch.int32)),
)

# %% [markdown]
# **8. Generation without a cache.** We saw that `last` without a cache forgets earlier pushes. A bare pass over prompt and answer does not even say where the prompt ends, so the scope `generated` has no meaning in it, and `steerlib` says so:

# %%
try:
    with lm.under(Additive(v), layer=middle, scope="generated"), torch.no_grad():
        lm.model(**vars(lm.encode([prompt])), use_cache=False)
except SiteError as error:
    print(error)

# %% [markdown]
# ```{list-table} The eight silent failures
# :header-rows: 1
# :widths: 30 34 36
#
# * - What goes wrong
#   - How one notices
#   - What `steerlib` does
# * - 1. hook hung after compilation
#   - effect exactly zero; the hook is never called
#   - permanent hooks; attaching recompiles
# * - 2. hook left on after an exception
#   - the baseline drifts within a session
#   - `with` detaches, whatever happens
# * - 3. tensor taken for a tuple
#   - only the first row of a batch is steered
#   - both forms are handled; tested on eleven families
# * - 4. last column taken for last token
#   - effect shrinks as batches get more varied
#   - positions are counted over real tokens; padding is never touched
# * - 5. post-norm state
#   - the last layer looks oddly small, or oddly good
#   - the recorder never uses that list
# * - 6. one block off
#   - often not at all: a somewhat different effect, no error
#   - the law's header refuses another site or plant
# * - 7. zero that is not zero
#   - NaN where $u$ is infinite; else only the sign of a zero
#   - zero returns the state, bit for bit
# * - 8. no cache
#   - results change with a speed setting
#   - scopes are named; the undefined ones are refused
# ```
#
# Most of them share one symptom, *an effect smaller than it should be*, and in a field whose effects are small, that is no symptom at all. Hence the rule of this book: **a push that is claimed to do nothing is first shown to arrive.**
#
# ## What is assumed, and whether it is so
#
# | assumption | holds? | seen in |
# |---|---|---|
# | the push moves $z_{l+1}$ by exactly $u$ ($B_l = I$) | yes, to rounding | rung 3 |
# | only the tokens in scope are changed at the site | yes | the grids |
# | other tokens are unaffected | no: later tokens attend to pushed ones | `all` against `last`, in the table of scopes |
# | where a behaviour is read is where it is moved | not in general | the table of tokens |
# | a push stays what it was | no: later blocks change it | *Does the push survive?* |
#
# ## Exercises
#
# Each has a stub, a test that you can read, and a folded solution; they need nothing from the cells above. Replace the body of the stub, run the stub and the cell of tests below it, then call the test on your function: `check_03_1(push_last)`. Silence means that it passed.
#
# ### Exercise 03.1: the last real token
#
# *Easy, 10 minutes.* Write `push_last(state, mask, v)`: add `v` at the last real token of each row and nowhere else, whichever side the padding is on. `state` has shape (batch, time, width), `mask` is 1 for tokens and 0 for padding.

# %% tags=["exercise-setup", "ex:03.1"]
import torch


# %% tags=["exercise-stub", "ex:03.1"]
def push_last(
    state: torch.Tensor, mask: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    raise NotImplementedError


# %% tags=["exercise-check", "ex:03.1"]
def check_03_1(push_last):
    state, v = (
        torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0)),
        torch.tensor([1.0, -2.0]),
    )
    for mask, last in (
        ([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], [3, 1, 0]),
        ([[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]], [3, 3, 3]),
    ):
        wanted = state.clone()
        wanted[torch.arange(3), last] += v
        got = push_last(state.clone(), torch.tensor(mask), v)
        assert torch.allclose(got, wanted), (
            f"mask {mask}: the last real tokens are at {last}"
        )


# %% tags=["exercise-solution", "ex:03.1", "hide-cell"]
def push_last(
    state: torch.Tensor, mask: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    still_to_come = (
        mask.flip(1).cumsum(1).flip(1)
    )  # real tokens from here to the end
    is_last = (mask == 1) & (still_to_come == 1)
    return torch.where(is_last[..., None], state + v, state)


# %% tags=["exercise-wrong", "ex:03.1", "remove-cell"]
def push_last(
    state: torch.Tensor, mask: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    state[:, -1] += v  # the last column
    return state


# %% tags=["exercise-wrong", "ex:03.1", "remove-cell"]
def push_last(
    state: torch.Tensor, mask: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    rows = torch.arange(len(state))
    state[rows, mask.sum(1) - 1] += v  # right only if the padding is on the right
    return state


# %% [markdown]
# ### Exercise 03.2: the recorder that lies
#
# *Medium, 15 minutes.* This recorder is wrong, and its reading looks perfectly normal:
#
# ```python
# def recorded(block, rest, z):
#     seen = []
#     handle = block.register_forward_hook(lambda module, args, output: seen.append(output))
#     rest(block(z))
#     return seen[0]
# ```
#
# `rest` is the remainder of the model. Find both mistakes, and write a `recorded` that returns the state as it left the block.

# %% tags=["exercise-setup", "ex:03.2"]
from contextlib import suppress

import torch


# %% tags=["exercise-stub", "ex:03.2"]
def recorded(block: torch.nn.Module, rest, z: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


# %% tags=["exercise-check", "ex:03.2"]
def check_03_2(recorded):
    block = torch.nn.Linear(3, 3)
    z = torch.ones(1, 3)
    with torch.no_grad():
        truth = block(z)
        got = recorded(
            block, lambda state: state.mul_(0.0), z
        )  # a model that works in place
    assert torch.equal(got, truth), (
        "the model changed your recording: you kept the tensor, not its values"
    )
    assert not block._forward_hooks, "a hook was left on the block"
    with suppress(ZeroDivisionError):
        recorded(block, lambda state: 1 / 0, z)
    assert not block._forward_hooks, (
        "a hook was left on the block after an exception"
    )


# %% tags=["exercise-solution", "ex:03.2", "hide-cell"]
def recorded(block: torch.nn.Module, rest, z: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = block.register_forward_hook(
        lambda module, args, output: seen.append(output.detach().clone())
    )
    try:
        rest(block(z))
    finally:
        handle.remove()
    return seen[0]


# %% tags=["exercise-wrong", "ex:03.2", "remove-cell"]
def recorded(block: torch.nn.Module, rest, z: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = block.register_forward_hook(
        lambda module, args, output: seen.append(output)
    )
    try:
        rest(block(z))
    finally:
        handle.remove()
    return seen[0]  # an alias of a tensor that was changed later


# %% tags=["exercise-wrong", "ex:03.2", "remove-cell"]
def recorded(block: torch.nn.Module, rest, z: torch.Tensor) -> torch.Tensor:
    seen = []
    handle = block.register_forward_hook(
        lambda module, args, output: seen.append(output.detach().clone())
    )
    rest(block(z))
    handle.remove()  # not reached after an exception
    return seen[0]


# %% [markdown]
# ### Exercise 03.3: scopes by hand
#
# *Hard, 25 minutes.* A pass sees `columns` positions of a text, the last of which is position `end - 1` of the text (counted from 0); the prompt has `prompt` tokens, and nothing is padded. Write `steered(scope, columns, end, prompt)`: which columns of this pass are pushed under the scopes `prefill`, `last`, `generated` and `all`, as a list of booleans.


# %% tags=["exercise-setup", "ex:03.3"]
PASSES = {
    "the prompt": (4, 4),
    "one token on a cache": (1, 6),
    "the whole text, no cache": (6, 6),
}


# %% tags=["exercise-stub", "ex:03.3"]
def steered(scope: str, columns: int, end: int, prompt: int) -> list[bool]:
    raise NotImplementedError


# %% tags=["exercise-check", "ex:03.3"]
def check_03_3(steered):
    wanted = {
        "prefill": ["1111", "0", "111100"],
        "last": ["0001", "1", "000001"],
        "generated": ["0001", "1", "000111"],
        "all": ["1111", "1", "111111"],
    }
    for scope, rows in wanted.items():
        for (name, (columns, end)), row in zip(PASSES.items(), rows, strict=True):
            got = "".join(
                "1" if x else "0" for x in steered(scope, columns, end, 4)
            )
            assert got == row, f"{scope}, {name}: got {got}, expected {row}"


# %% tags=["exercise-solution", "ex:03.3", "hide-cell"]
def steered(scope: str, columns: int, end: int, prompt: int) -> list[bool]:
    rules = {
        "prefill": lambda t: t < prompt,
        "last": lambda t: t == end - 1,
        "generated": lambda t: (
            t >= prompt - 1
        ),  # the last prompt token decides the first generated one
        "all": lambda t: True,
    }
    return [rules[scope](t) for t in range(end - columns, end)]


# %% tags=["exercise-wrong", "ex:03.3", "remove-cell"]
def steered(scope: str, columns: int, end: int, prompt: int) -> list[bool]:
    rules = {
        "prefill": lambda t: t < prompt,
        "last": lambda t: t == end - 1,
        "generated": lambda t: (
            t >= prompt
        ),  # one late: the first generated token is left to itself
        "all": lambda t: True,
    }
    return [rules[scope](t) for t in range(end - columns, end)]


# %% [markdown]
# ## What we found
#
# One claim was checked here, that the input enters after the block and moves the next state by exactly itself {cite:p}`skifstad2026alqr`: **{glue:text}`alqr.eq2.input-enters-after-the-block.verdict`**. Eight silent failures were shown. Where to measure? {glue:text}`where.verdict` Chapter [11](11_difference_of_means) takes the direction measured at the choice and asks how far one constant push goes.
#
# ## Further reading
#
# - {cite:t}`rimsky2024caa`: measures at the answer's letter, pushes at every token after the prompt; a careful choice of both places.
# - {cite:t}`li2023iti`: measures at the last token of a whole answer, inside attention heads; compare with *Where to measure*.
# - {cite:t}`turner2023actadd`: pushes chosen positions of the prompt, once; the scope `prefill`.
# - {cite:t}`skifstad2026alqr`: pushes after every block at the last position, with a measurement at the block's input.
# - {cite:t}`astrom2021feedback`: why sensor and actuator placement comes before the choice of a controller.

# %% tags=["hide-input"]
page.footer()
