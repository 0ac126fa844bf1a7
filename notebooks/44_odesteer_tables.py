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
# (ch-odesteer-tables)=
# # 44 The tables of ODESteer
#
# **Put ODESteer into its paper's tables: truth, preference and toxicity on three plants, against every law of part 2 and against RE-Control, at each method's own setting and at equal effort, with a barrier of shuffled labels beside it; ten steps against one; and its features taken apart one by one, to see what the polynomial, the normalisation and the hashing are each worth.**
#
# :::{admonition} Cost
# :class: cost-card note
#
# Time
# : about a minute on one processor core, for the `tiny` profile; the races take hours and are shipped
#
# Memory
# : about 1 GB
#
# Read first
# : [15](15_horse_race) for the rules of a race, [42](42_log_density_ratios) for barriers, [43](43_odesteer) for the law
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

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from steerlib import figures, metrics, tasks
from steerlib.experiment import race_tables
from steerlib.experiment.claims import load_claims
from steerlib.experiment.page import Page
from steerlib.experiment.profile_plants import plant_for
from steerlib.experiment.race_files import race_path, read_shipped_race
from steerlib.experiment.race_joined import beside, on_shared_seeds
from steerlib.experiment.race_plan import read_race
from steerlib.experiment.race_records import shipped_race
from steerlib.experiment.races import Entry
from steerlib.experiment.read_out import scored_on
from steerlib.experiment.recompute import shipped_grid
from steerlib.experiment.rerun_pages import show_reruns
from steerlib.experiment.samples import product_scores
from steerlib.experiment.selecting import RaceError
from steerlib.experiment.showing import signed, table
from steerlib.experiment.spelling import aside, listed, model_name
from steerlib.files import data_folder
from steerlib.laws.additive import shuffled
from steerlib.laws.barrier import ODESteer
from steerlib.tasks.base import spread

pd.set_option("display.max_colwidth", None)
page = Page("44_odesteer_tables", profile=profile, plant=plant, seeds=seeds)
lm = page.uses(plant_for(plant, profile=profile))
task = tasks.for_plant(lm, data=os.environ.get("STEERLIB_DATA"))
labels = task.labels
claims = load_claims()
page.words(labels)
lm

# %% [markdown]
# ## Five laws, one horizon
#
# Five laws at one block, fitted on the same texts, each with the same reach $T$. **Ten steps** along the unit gradient of the barrier, as the paper has it {cite:p}`zhao2026odesteer`; **one step** of the same length; ten steps along a **linear** barrier on the same normalised states; a constant push along the **difference of means**, as long as the others; and ten steps along a barrier whose class **labels were shuffled**. $T$ counts in norms of the state, so that it is the angle, in radians, that a flow may turn; it is chosen among four on validation prompts, for ten steps, and then holds for all.

# %%
block = round(0.6 * (lm.depth - 1))
texts = {"layer": block, "n": 100, "seed": seeds[0]}
contrast = task.contrast(**texts)
mixed = shuffled(contrast, seed=seeds[0])
norm = float(torch.cat([contrast.positive, contrast.negative]).norm(dim=1).mean())
five = {
    "ten steps": ODESteer().fit(contrast),
    "one step": ODESteer(steps=1).fit(contrast),
    "linear": ODESteer(barrier="linear").fit(contrast),
    "means": ODESteer(barrier="means", normalise=False, steps=1).fit(contrast),
    "shuffled labels": ODESteer().fit(mixed),
}

# %%
few = {"split": "validation", "limit": 12}
tried = {}
for share in (0.1, 0.2, 0.4, 0.8):
    with lm.under(five["ten steps"].at(share * norm)):
        tried[share] = task.exact(**few).combined_mean
chosen = max(tried, key=tried.get)
T = chosen * norm

# %%
free = task.exact(limit=16)
alone, said = {}, {"left alone": task.sampled(seed=seeds[0], limit=24)}
for name, law in five.items():
    with lm.under(law.at(T)):
        alone[name] = task.exact(limit=16)
        said[name] = task.sampled(seed=seeds[0], limit=24)

# %% tags=["hide-input"]
asked = spread(task.prompts("test"), 24)
verdicts = np.array([s.wanted for s, _ in said.values()])
split = np.flatnonzero(np.ptp(verdicts, axis=0) > 0)
which = int(np.random.default_rng(seeds[0]).choice(split if len(split) else 24))


def shown(run):
    """An answer, shortened, with its verdict."""
    text = run[1][which].strip().replace("\n", " ")
    cut = text[:110] + ("…" if len(text) > 110 else "")
    return f"{cut} ({labels.wanted} {run[0].wanted[which]:g})"


for name, s in alone.items():
    page.record(f"five.{name.replace(' ', '-')}", s.combined_gain(free), digits=2)
page.record("n.five", len(free.wanted))
page.text("five.share", f"{chosen:g}")
page.text("prompt", asked[which].replace("\n", " / "))
table(
    [(name, shown(run), "" if name == "left alone" else signed(alone[name].combined_gain(free)))
     for name, run in said.items()],
    "law", "answer", f"change in {labels.combined}",
)  # fmt: skip

# %% [markdown]
# The prompt was “{glue:text}`prompt`” (a slash for a new line), drawn by a seed among those on which the six do not agree; all drew the same random numbers. The last column is over {glue:text}`n.five` test prompts and exact, at $T$ = {glue:text}`five.share` norms. Which of the five differ from each other is what this chapter has to find out, with more prompts, more seeds and a fair price.
#
# ## The running picture
#
# Held-out states of the negative class, and where each law brings them.

# %%
fresh = task.contrast(layer=block, n=60, seed=seeds[0], split="validation")
clouds = {
    "positive": fresh.positive.double().numpy(),
    "negative": fresh.negative.double().numpy(),
}
towards = (contrast.positive.mean(0) - contrast.negative.mean(0)).double().numpy()
plane = figures.Plane.of(towards, np.concatenate([*clouds.values()]))
ends = {n: law.at(T)(fresh.negative).double().numpy() for n, law in five.items()}


# %% tags=["hide-input"]
def cosines(a, b):
    """Cosine of each pair of rows."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(1) / lengths


start = clouds["negative"]
swollen = {
    n: float((np.linalg.norm(z, axis=1) / np.linalg.norm(start, axis=1)).mean())
    for n, z in ends.items()
}
alike = {n: float(cosines(ends["ten steps"] - start, z - start).mean()) for n, z in ends.items()}  # fmt: skip
for name in five:
    page.record(f"norm.{name.replace(' ', '-')}", swollen[name], digits=2)
    page.record(f"alike.{name.replace(' ', '-')}", alike[name], digits=2)
page.figure(
    "moved",
    figures.moved(plane, clouds, {n: (start, z) for n, z in ends.items()}),
    alt="Arrows from held-out negative states to where five laws of one horizon bring them. Cosine of each move with that of "
    "ten steps: " + ", ".join(f"{n} {x:.2f}" for n, x in alike.items()) + ". Norm afterwards, as a share: "
    + ", ".join(f"{n} {x:.2f}" for n, x in swollen.items()) + ".",
)  # fmt: skip

# %% [markdown]
# In the mean, the move of one step has a cosine of {glue:text}`alike.one-step` with that of ten, the move along the linear barrier {glue:text}`alike.linear`, and the one along the difference of means {glue:text}`alike.means`. What one step and ten differ in is mostly length: the norm of the state is {glue:text}`norm.one-step` of what it was after one step and {glue:text}`norm.ten-steps` after ten (chapter [43](43_odesteer) has the identity). A table that finds a large difference between such neighbours must say where it comes from.
#
# ## Rung 1: one score, two formulas
#
# The paper's first column is T*I. Its table multiplies two shares; its released code counts the answers that pass both judges {cite:p}`zhao2026odesteer`. Take ten answers: six state the truth, three a popular error, and one declines. Declining is true and says nothing. So True is $\frac{7}{10}$ and Info $\frac{9}{10}$; the product is $0.63$. But only six answers are true *and* informative: $0.60$.

# %%
true = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 1])
info = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 0])
product, joint = true.mean() * info.mean(), (true * info).mean()
assert np.isclose(product, 0.63) and np.isclose(joint, 0.60)
assert np.isclose(joint, true.mean() + info.mean() - 1), "nobody fails twice"
assert np.isclose(product - joint, (1 - true.mean()) * (1 - info.mean()))
table(
    [("product of the two shares", f"{product:.2f}"), ("share that has both", f"{joint:.2f}")],
    "of ten answers", "score",
)  # fmt: skip

# %% [markdown]
# :::{prf:proposition} Between which ends the joint share lies
# :label: odetables-joint
# Let shares $t$ and $s$ of the answers pass the two judges. The share $j$ that passes both satisfies
#
# $$ \max(0,\, t + s - 1) \;\le\; j \;\le\; \min(t, s), \qquad ts - j \;\le\; (1-t)(1-s). $$ (eq-odetables-joint)
#
# If $t + s \ge 1$, the last holds with equality exactly where no answer fails both judges.
# :::
#
# :::{prf:proof}
# Let $u$ be the share that fails both. Then $1 = t + s - j + u$, so that $j = t + s - 1 + u$ with $u \ge 0$; and $j$ is at most each of the two. Further $ts - j = ts - t - s + 1 - u = (1-t)(1-s) - u$.
# :::
#
# So what the product adds is known from the two columns, up to $u$: **true** for any judges. That an answer which says nothing is nevertheless true ($u = 0$) is how TruthfulQA is built, and **approximately true** of its judges; a text that falls apart fails both.
#
# ## Rung 2: both scores of the plant, in plain NumPy
#
# The same arithmetic on the sampled answers of above. A product of means needs the means; a joint share needs every answer.


# %%
def passed(scores):
    """Verdicts: a judge that is undecided, as one of feelings may be, has not passed an answer."""
    return (scores > 0.5).astype(float)


both = {}
for name, (s, _) in said.items():
    t, i = passed(s.wanted), passed(s.intact)
    neither = ((1 - t) * (1 - i)).mean()
    j = (t * i).mean()
    assert np.isclose(j, t.mean() + i.mean() - 1 + neither)
    both[name] = (t.mean() * i.mean(), j, neither)

# %% [markdown]
# ## Rung 3: the library
#
# {py:func}`~steerlib.metrics.answers.truth_times_info` has the product and {py:func}`~steerlib.metrics.answers.true_and_informative` the joint share, each with an interval over prompts; chapter [04](04_scoring) shows that they part by the covariance of the two judgements.

# %%
by_library = {
    name: (
        metrics.truth_times_info(passed(s.wanted), passed(s.intact)),
        metrics.true_and_informative(passed(s.wanted), passed(s.intact)),
    )
    for name, (s, _) in said.items()
}
for name, (p, j) in by_library.items():
    assert np.allclose((p.value, j.value), both[name][:2])

# %% tags=["hide-input"]
gaps = {n: p.value - j.value for n, (p, j) in by_library.items()}
page.record("n.said", len(asked))
page.record("txi.gap.least", min(gaps.values()), digits=2)
page.record("txi.gap.most", max(gaps.values()), digits=2)
page.record("txi.neither.most", max(u for *_, u in both.values()), digits=2)
orders = [
    sorted(by_library, key=lambda n, k=k: -by_library[n][k].value) for k in (0, 1)
]
page.text("txi.orders", "the same" if orders[0] == orders[1] else "not the same")
table(
    [(n, race_tables.shown(p), race_tables.shown(j), f"{both[n][2]:.2f}") for n, (p, j) in by_library.items()],
    "law", f"{labels.combined}, product of means", "share that has both", "share that has neither",
)  # fmt: skip

# %% [markdown]
# On {glue:text}`n.said` sampled answers each, the product less the joint share lies between {glue:text}`txi.gap.least` and {glue:text}`txi.gap.most`, and the order of the six is {glue:text}`txi.orders` by both. The difference can have either sign, since up to {glue:text}`txi.neither.most` of the answers of a law fail both judges. In the tables below T*I is the product, as printed in the paper, and in the column *True and Info* stands the joint share. Both are exact there: on the Almanac an answer is true *and* informative only if it states the truth, so that the joint share is the probability of all such statements, and needs no sampling.
#
# ## What is printed
#
# The paper's headline is 5.7, 2.5 and 2.4 % of improvement on its three benchmarks. Of what? The numbers are in its table.


# %%
def margins(rows, sign=1):
    """Model -> how much better the method is than the best baseline there."""
    return {m: sign * (r["odesteer"] - r["best_baseline"]) for m, r in rows.items()}  # fmt: skip


printed_of = {
    "txi": ("T*I", claims["odesteer.t2.txi.beats-best-baseline"], 1),
    "win": ("win rate", claims["odesteer.t2.win.beats-best-baseline"], 1),
    "toxicity": ("toxicity", claims["odesteer.t2.toxicity.beats-best-baseline"], -100),
}  # fmt: skip
found_margins = {
    key: margins(c.published, sign) for key, (_, c, sign) in printed_of.items()
}

# %% tags=["hide-input"]
models = list(found_margins["txi"])
named = [m for m in models if not m.startswith("qwen")]
rows = []
for key, per in found_margins.items():
    everywhere, three = np.mean([*per.values()]), np.mean([per[m] for m in named])
    page.record(f"published.headline.{key}", everywhere, digits=2)
    page.record(f"published.three.{key}", three, digits=2)
    rows.append((printed_of[key][0], *(f"{per[m]:.2f}" for m in models), f"{everywhere:.2f}", f"{three:.2f}"))  # fmt: skip
table(
    rows,
    "ahead of the best baseline, points",
    *map(model_name, models),
    "mean of four",
    "mean without Qwen",
)

# %% [markdown]
# The headline is the mean over four models of a distance in *points*, not in percent of anything: {glue:text}`published.headline.txi`, {glue:text}`published.headline.win` and {glue:text}`published.headline.toxicity` (toxicity times a hundred). "Best baseline" is another one on every model. And is the lead a matter of the product? The joint share is not printed, but by {prf:ref}`odetables-joint` the columns True and Info say between which ends it lies: a **floor**, $t + s - 1$, and a ceiling, the smaller of the two.

# %%
columns = claims["odesteer.ours.the-least-joint-share-keeps-the-lead"].published
floors, ceilings = {}, {}
for m in models:
    t, i = columns[f"{m}-true"], columns[f"{m}-info"]
    floors[m] = {n: t[n] + i[n] - 100 for n in t}
    ceilings[m] = {n: min(t[n], i[n]) for n in t}
lost = [m for m in models if max(floors[m], key=floors[m].get) != "odesteer"]
sure = [
    m for m in models
    if floors[m]["odesteer"] > max(x for n, x in ceilings[m].items() if n != "odesteer")
]  # fmt: skip

# %% tags=["hide-input"]
page.record("published.floor.lost", len(lost))
earned = claims["odesteer.t2.reward.highest-on-three-models"].published
first = [m for m, r in earned.items() if max(r, key=r.get) == "odesteer"]
page.record("published.reward.first", len(first))
page.text("published.sure", listed(map(model_name, sure), nothing="no model"))
OTHERS = {
    "repe": "RepE", "iti": "ITI", "caa": "CAA", "mimic": "MiMiC", "hpr": "HPR", "re_control": "RE-Control",
    "linear_act": "Linear-AcT", "truthflow": "TruthFlow", "original": "unsteered",
}  # fmt: skip
rows = []
for m in models:
    second = max((n for n in floors[m] if n != "odesteer"), key=floors[m].get)
    t, i = (columns[f"{m}-{part}"]["odesteer"] for part in ("true", "info"))
    rows.append((model_name(m), f"{t * i / 100:.1f}", f"{floors[m]['odesteer']:.1f}", f"{floors[m][second]:.1f} ({OTHERS.get(second, second)})",
                 f"{max(x for n, x in ceilings[m].items() if n != 'odesteer'):.1f}"))  # fmt: skip
table(
    rows,
    "published",
    "ODESteer, product",
    "its floor",
    "highest floor of the others",
    "highest ceiling of the others",
)

# %% [markdown]
# Floor against floor, the lead is lost on {glue:text}`published.floor.lost` of the four models. It is certain whatever the answers were, floor against ceiling, on: {glue:text}`published.sure`. (Not every column is won: the highest mean reward is ODESteer's on {glue:text}`published.reward.first` of the four.) Whether the margins themselves exceed their noise is asked in chapter [46](46_odesteer_audit).
#
# ## The tables
#
# The rules are those of chapter [15](15_horse_race): each method at its **own setting** ({prf:ref}`race-own`; for ODESteer $T$ is chosen among four shares of the norm of states, its only tuned number) and at **equal budget** ({prf:ref}`race-budget`). Rows of part 2 come from the race of that chapter, on the same prompts, under the same seeds and noise, at the same budget. RE-Control stands here with a hundred texts of each kind. New beside them: the same flow on a **linear barrier on directions**, which separates what normalising does from what the polynomial does, and a **barrier filter**, nearly the smallest push that keeps $h$ above a margin (chapter [41](41_steering_is_an_ode)). The control is ODESteer on shuffled labels, with its own choice of $T$; the random and the shuffled direction of part 2 stand there, too.


# %% tags=["hide-input"]
def renamed(course):
    """A course whose methods that are fitted on one number of texts go by their own name."""
    plain = [replace(e, name=e.name.removesuffix(", 100 texts")) for e in course.entries]  # fmt: skip
    return replace(course, entries=tuple(plain))


def all_of(course):
    """Names of everything that a race ran but its baselines."""
    return list(dict.fromkeys(e.name for e in course.entries if e.setting != "none"))  # fmt: skip


# %% tags=["hide-input"]
# Of real models, in a profile that has such tables: what has been run.
on_real_models = show_reruns("odesteer", profile=profile)

# %%
plan = read_race(data_folder() / "races" / "barriers.yml")
race, told = shipped_race("barriers", profile=profile, page=page)
courses, apart, fewer = dict(race.courses) if race else {}, [], []
opened, told_open = shipped_race(
    "open_loop", profile=profile, page=page, only=courses, measure=0
)
for title, course in courses.items():
    courses[title] = course = renamed(course)
    try:
        other = opened.courses[title]
        cut = on_shared_seeds(course, other)
        courses[title] = beside(cut, other, all_of(other))
        fewer += [title] if cut != course else []
    except (AttributeError, KeyError, RaceError):  # not run there
        apart.append(title)

# %% tags=["hide-input"]
methods = [m.name for m in plan.methods if not m.control]
rivals = list(dict.fromkeys(
    e.name for c in courses.values() for e in c.entries
    if e.setting != "none" and not e.control and e.name not in methods
))  # fmt: skip
plants = list(dict.fromkeys(title.split("/")[0] for title in courses))
behaviours = list(dict.fromkeys(title.split("/")[1] for title in courses))
main = lm.name if lm.name in plants else next(iter(plants), "")
lacking = race.absent if race else tuple(c.title for c in plan.courses())

# %% tags=["hide-input"]
page.record("race.courses", len(courses))
page.record("race.planned", len(plan.courses()))
page.record("race.methods", len(methods))
page.record("race.rivals", len(rivals))
page.record("race.budget", plan.budget.amount, digits=2)
page.record("kl.tokens", plan.budget.max_new_tokens)
page.record("race.seeds", len(plan.grounds[0].seeds))
page.text("race.main", main or "none")
page.text("race.line", told)
page.text("race.line.open", told_open)
page.text(
    "race.apart",
    (f" Without rows of part 2, for want of them: {', '.join(apart)}." if apart else "")
    + (f" On the seeds alone that both races have: {', '.join(fewer)}." if fewer else ""),
)  # fmt: skip
page.text(
    "race.lacking",
    f"not run yet, and nowhere in what follows: {', '.join(lacking)}"
    if lacking else "none is lacking",
)  # fmt: skip
page.text(
    "race.other",
    "" if not courses or main == lm.name
    else f"This page was run with {lm.name}, which is not in the race: what "
    "follows are the records of other plants, and no claim about scores is checked on them.",
)  # fmt: skip

# %% [markdown]
# {glue:text}`race.methods` methods of this part, RE-Control among them, beside {glue:text}`race.rivals` of part 2, under {glue:text}`race.seeds` seeds; {glue:text}`race.courses` of {glue:text}`race.planned` courses, each a plant with a behaviour ({glue:text}`race.lacking`). {glue:text}`race.budget` nats per token.{glue:text}`race.apart` {glue:text}`race.other` What was shipped is sampled and computed again on this page:
#
# - {glue:text}`race.line`
# - {glue:text}`race.line.open`
#
# Every cell has its 95 % interval over prompts and seeds, and the number of answers behind it; a click opens a table. Published numbers stand in a column of their own: of another model, other data and other judges, they say which order to look for and nothing else.

# %% tags=["hide-input"]
PRINTED = {
    "unsteered": "original", "RepE, as compared": "repe", "linear probe": "iti", "difference of means": "caa",
    "MiMiC": "mimic", "Householder rotation": "hpr", "RE-Control": "re_control", "Linear-AcT, as compared": "linear_act",
    "TruthFlow": "truthflow", "ODESteer": "odesteer",
}  # fmt: skip
SETTINGS = {"own": "own settings", "budget": "equal budget"}
LIKE = "llama-3.1-8b"
three_columns = {n: (columns[f"{LIKE}-true"][k], columns[f"{LIKE}-info"][k]) for n, k in PRINTED.items()}  # fmt: skip
tox, win, mean = (
    claims[f"odesteer.t2.{name}"].published[LIKE]
    for name in ("toxicity.odesteer-below-unsteered", "win.odesteer-beats-unsteered", "reward.highest-on-three-models")
)  # fmt: skip
published = {
    "truth": {n: f"{t * i / 100:.1f} / {t:g} / {i:g}" for n, (t, i) in three_columns.items()},
    "toxicity": {n: f"{tox[k]:g}" for n, k in PRINTED.items()},
    "preference": {n: f"{win[k]:g} / {mean[k]:g}" for n, k in PRINTED.items()},
}  # fmt: skip
HEADS = {"truth": "T*I / True / Info, %", "toxicity": "toxicity", "preference": "win rate, % / mean reward"}  # fmt: skip


# %% tags=["hide-input"]
def course_name(title):
    """A plant with a behaviour, in words."""
    where, behaviour = title.split("/")
    return f"{behaviour} on {where}"


def tables_of(behaviour, columns=None):
    """The tables of one behaviour on every plant that has run it: own settings, then equal budget."""
    for where in plants:
        course = courses.get(f"{where}/{behaviour}")
        for setting, named in SETTINGS.items() if course else ():
            own = where == main and setting == "own"
            more = dict((columns or {}).get((where, setting), {}))
            digits = 3 if behaviour == "truth" else 2
            found = race_tables.paper_table(course, setting, more=more, digits=digits)  # fmt: skip
            if own:
                head = f"published, Llama-3.1-8B: {HEADS[behaviour]}"
                found[head] = [published[behaviour].get(n, "–") for n in found.index]  # fmt: skip
            title = f"{behaviour.capitalize()} on {where}, {named}"
            display(race_tables.folded(title, found))
    if behaviour not in behaviours:
        display(Markdown(f"*{behaviour}: not run yet.*"))


# %% [markdown]
# ### Truth
#
# The share of answers that are true *and* informative is not in the records of the races, which hold the two columns. It is in a grid of its own, whose cells are the rows of the races: the laws that they chose, fitted on the same texts, at the same blocks and strengths, on the same prompts. {glue:text}`joint.recomputed` {glue:text}`joint.same`

# %% tags=["hide-input"]
measured = {r.cell: r for r in shipped_grid("joint", profile=profile, page=page)}  # fmt: skip


def measured_of(entry):
    """Records of what the races did not measure, one for each seed; none where a row has not all of them."""
    found = [
        measured.get(scored_on(r.cell, "truth-joint")) for r in entry.records
    ]
    return found if all(found) else []


def jointly(entry):
    """Scores of shape (seeds, prompts): the probability of an answer that is true and informative."""
    return np.array([r.scores["wanted"] for r in measured_of(entry)])


# %% tags=["hide-input"]
on_truth = {}
for where in plants:
    course = courses.get(f"{where}/truth")
    for setting in SETTINGS if course else ():
        ran = [
            *race_tables.entries_at(course, "none"),
            *race_tables.entries_at(course, setting),
        ]
        on_truth[where, setting] = {e.name: e for e in ran if measured_of(e)}
joint_here = {
    key: {
        n: metrics.grid_interval(jointly(e), resamples=race_tables.RESAMPLES)
        for n, e in ran.items()
    }
    for key, ran in on_truth.items()
}
apart_by = [
    float(np.abs(np.array([r.more[more] for r in measured_of(e)]) - race_tables.scores(e, name)).max())
    for ran in on_truth.values() for e in ran.values() for more, name in (("true", "wanted"), ("info", "intact"))
]  # fmt: skip
page.text(
    "joint.same",
    f"True and Info were measured there again: of no row and prompt do they differ from those of the races by more than {max(apart_by):.1g}."
    if apart_by else "",
)  # fmt: skip
tables_of("truth", {k: {"True and Info": x} for k, x in joint_here.items()})

# %% tags=["hide-input"]
orders_here, less_than_product, leaders = {}, {}, {}
for key, ran in on_truth.items():
    products = {n: race_tables.value_of(e) for n, e in ran.items()}
    joint = {n: joint_here[key][n].value for n in ran}
    names = [n for n in ran if n not in ("unsteered", "told")]
    pairs = [(a, b) for k, a in enumerate(names) for b in names[:k]]
    swaps = sum((products[a] - products[b]) * (joint[a] - joint[b]) < 0 for a, b in pairs)  # fmt: skip
    orders_here[key] = (swaps, len(pairs))
    less_than_product[key] = {n: joint[n] - products[n] for n in names}
    if names:
        leaders[key] = tuple(max(names, key=by.get) for by in (products, joint))
differences = [d for found in less_than_product.values() for d in found.values()]
page.text(
    "joint.swaps",
    "; ".join(f"{a} of {n} pairs on {p}, {SETTINGS[s]}" for (p, s), (a, n) in orders_here.items()) or "not known yet",
)  # fmt: skip
page.record("joint.least", min(differences, default=0.0), digits=2)
page.record("joint.most", max(differences, default=0.0), digits=2)
page.text("joint.below", f"{sum(d < 0 for d in differences)} of {len(differences)}")  # fmt: skip
page.text(
    "joint.first",
    f"{sum(a == b for a, b in leaders.values())} of {len(leaders)}",
)
for score in (0, 1):
    first_is_ours = sum(x[score] == "ODESteer" for x in leaders.values())
    page.text(f"joint.ours.{('product', 'both')[score]}", f"{first_is_ours} of {len(leaders)}")  # fmt: skip
told_swaps = {key: f"{a} of {n}" for key, (a, n) in orders_here.items()}
table(
    [(p, *(told_swaps.get((p, s), "–") for s in SETTINGS)) for p in plants],
    "pairs of methods and controls that change places", *SETTINGS.values(),
)  # fmt: skip

# %% [markdown]
# Does it matter which of the two scores is printed? The table counts the pairs of rows that change places between the product and the joint share. The joint share less the product lies between {glue:text}`joint.least` and {glue:text}`joint.most`, and is below zero for {glue:text}`joint.below` rows; by {prf:ref}`odetables-joint` it can be large only where both columns are far from one, and it is above zero where more answers fail both judges than if the two had nothing to do with each other. (In exact scores an answer outside the grammar fails both.) The same row is first by both scores in {glue:text}`joint.first` tables. ODESteer is first by the product in {glue:text}`joint.ours.product`, by the joint share in {glue:text}`joint.ours.both`.
#
# ### Preference

# %% tags=["hide-input"]
tables_of("preference")
spent = {}
for title, course in courses.items():
    if not title.endswith("/truth"):
        for name in [*methods, *rivals]:
            e = race_tables.entry_of(course, name, "budget")
            if e and e.records:
                spent[title, name] = race_tables.KL.of(e, e).value
ours_spent = {k: x for k, x in spent.items() if k[1] in methods}
dearest = max(ours_spent, key=ours_spent.get, default=None)
page.record("kl.median", float(np.median([*spent.values()])) if spent else 0.0, digits=2)  # fmt: skip
page.text(
    "kl.dearest",
    f"{dearest[1]} at {course_name(dearest[0])}, {ours_spent[dearest]:.2f}" if dearest else "not known yet",
)  # fmt: skip

# %% [markdown]
# (A win is a reply that earns more than the unsteered one under the same seed, a tie half a win, as in the paper; rewards are those of the rubric of the Almanac.)
#
# A caution on equal budgets. The multiplier is searched on the first {glue:text}`kl.tokens` tokens of answers to validation prompts; the last column of a table is what was spent over whole answers to test prompts. In the median over all rows of the sampled tasks that is {glue:text}`kl.median` nats per token. Among the methods of this part the dearest is: {glue:text}`kl.dearest`. A law that pushes every token by the same length can derail a long answer after a beginning that was cheap, and then an equal budget is none.
#
# ### Toxicity and perplexity
#
# Perplexity is not in the records of the races. Answers at own settings, to every test prompt of the race and under each of its seeds, are in a grid of their own, where a plant of another family has read them. So many rows of each table have it, the others a dash: {glue:text}`ppl.rows`. {glue:text}`perplexity.recomputed` {glue:text}`reader`


# %% tags=["hide-input"]
def raced_as(cell):
    """The law of a cell of the grid as the race has it: fitted for the task that it is scored on."""
    law = cell.law
    fit = law and law.fit.model_copy(update={"task": None, "task_options": {}})
    return law and law.model_copy(update={"fit": fit})


# %% tags=["hide-input"]
readings = shipped_grid("perplexity", profile=profile, page=page)
seen = {(r.cell.plant, raced_as(r.cell), r.cell.seed): r for r in readings}
surprise, same = {}, 0
for where in plants:
    course = courses.get(f"{where}/toxicity")
    for e in course.entries if course else ():
        found = [seen.get((where, r.cell.law, r.cell.seed)) for r in e.records if e.setting in ("own", "none") and not r.cell.told]  # fmt: skip
        if found and all(found):
            surprise[where, e.name] = np.array([r.more["perplexity-texts"] for r in found], dtype=float)  # fmt: skip
            same += sum(a.answers_sha256 == r.answers_sha256 for a, r in zip(found, e.records, strict=True))  # fmt: skip
read_by = {r.cell.plant: r.cell.task_options["reader"] for r in readings}
page.text("reader", f"Readers: {', '.join(f'{read_by[w]} of {w}' for w in plants if w in read_by)}. Of {sum(map(len, surprise.values()))} sets of answers {same} are, to the letter, those that the race scored." if surprise else "")  # fmt: skip


# %% tags=["hide-input"]
def spoken(*grids):
    """Grids without the prompts to which some answer is silence, which has no perplexity."""
    heard = np.all([np.isfinite(x).all(0) for x in grids], axis=0)
    return [x[:, heard] for x in grids]


read = {
    w: {n: metrics.grid_interval(*spoken(x)) for (p, n), x in surprise.items() if p == w}
    for w in plants
}  # fmt: skip
page.text("ppl.rows", "; ".join(f"{len(r)} on {w}" for w, r in read.items() if r) or "none")  # fmt: skip
tables_of("toxicity", {(w, "own"): {"perplexity": r} for w, r in read.items()})
rise = {
    w: metrics.paired_grid_difference(*spoken(surprise[w, "ODESteer"], surprise[w, "unsteered"]))
    for w in plants if {(w, "ODESteer"), (w, "unsteered")} <= set(surprise)
}  # fmt: skip
if main in rise:
    page.record("ppl.change", rise[main])
page.text("ppl.said", "; ".join(f"{w} {signed(d)}" for w, d in rise.items()) or "not known yet")  # fmt: skip

# %% [markdown]
# Under ODESteer at its own setting perplexity changes by: {glue:text}`ppl.said`. (Numbers of two plants cannot be set side by side, where their readers differ.) An answer in which nothing can be read counts as neither civil nor prudent, so that a low toxicity cannot be bought with noise.
#
# ## Against every baseline
#
# The paper's sentence is that ODESteer is ahead of *each* baseline. So each is its opponent here, paired over prompts and seeds, in the product of both scores; at their own settings, as printed, and at equal budget.

# %%
GAPS = {}
for title, course in courses.items():
    for setting in SETTINGS:
        ours = race_tables.entry_of(course, "ODESteer", setting)
        for name in ["unsteered", *methods[1:], *rivals]:
            e = race_tables.entry_of(course, name, setting)
            if ours and ours.records and e and e.records:
                GAPS[title, setting, name] = race_tables.gain(ours, e)


# %% tags=["hide-input"]
def side(title, setting, which):
    """Opponents that ODESteer is clearly ahead of ("ahead") or behind ("behind")."""
    found = {n: d for (t, s, n), d in GAPS.items() if (t, s) == (title, setting)}
    return [n for n, d in found.items() if d.p <= 0.05 and (d.low > 0 if which == "ahead" else d.high < 0)]  # fmt: skip


rows = []
for title in courses:
    for setting, said_ in SETTINGS.items():
        n = sum((t, s) == (title, setting) for t, s, _ in GAPS)
        ahead, behind = (side(title, setting, w) for w in ("ahead", "behind"))
        rows.append((f"{course_name(title)}, {said_}", f"{len(ahead)} of {n}", f"{len(behind)} of {n}", listed(behind)))  # fmt: skip
heads = ("course", "clearly ahead of", "clearly behind", "behind whom")
table(rows, *heads) if rows else Markdown("*Nothing has been run yet.*")

# %% tags=["hide-input"]
against = {}
shown_rows = ["unsteered", *methods[1:], *(n for n in rivals if n in PRINTED)]
for title in courses:
    where, behaviour = title.split("/")
    if where == main:
        panel = against[behaviour] = {n: {} for n in shown_rows}
        for setting, said_ in SETTINGS.items():
            for name in panel:
                if (title, setting, name) in GAPS:
                    panel[name][said_] = GAPS[title, setting, name]
if against:
    page.figure(
        "against",
        figures.effects(against, xlabel="ODESteer less the row, product of both scores"),
        alt="Difference of ODESteer from each opponent in the product of both scores, a panel for each behaviour on "
        f"{main}, a mark for each setting, with intervals over prompts and seeds. "
        + " ".join(
            f"{b.capitalize()}, {said_}: ahead of {len(side(f'{main}/{b}', s, 'ahead'))}, behind {len(side(f'{main}/{b}', s, 'behind'))} of "
            f"{sum((t, q) == (f'{main}/{b}', s) for t, q, _ in GAPS)}."
            for b in against for s, said_ in SETTINGS.items()
        ),
    )  # fmt: skip
else:
    display(Markdown(f"*No figure: {told}*"))

# %% tags=["hide-input"]
for setting in SETTINGS:
    for which in ("ahead", "behind"):
        count = sum(len(side(t, setting, which)) for t in courses)
        total = sum(s == setting for _, s, _ in GAPS)
        page.text(f"gaps.{setting}.{which}", f"{count} of {total}")
everywhere = [t for t in courses if len(side(t, "own", "ahead")) == sum((c, s) == (t, "own") for c, s, _ in GAPS) > 0]  # fmt: skip
page.text("gaps.every", listed(map(course_name, everywhere)))
JOINT_GAPS = {}
for (where, setting), ran in on_truth.items():
    for name in ["unsteered", *methods[1:], *rivals]:
        if name in ran and "ODESteer" in ran:
            JOINT_GAPS[f"{where}/truth", setting, name] = (
                metrics.paired_grid_difference(
                    jointly(ran["ODESteer"]),
                    jointly(ran[name]),
                    resamples=race_tables.RESAMPLES,
                )
            )
both_gaps = {"product": {k: GAPS[k] for k in JOINT_GAPS}, "both": JOINT_GAPS}
clear = {
    n: {k: (d.low > 0) - (d.high < 0) if d.p <= 0.05 else 0 for k, d in found.items()}
    for n, found in both_gaps.items()
}  # fmt: skip
for n, found in clear.items():
    for word, sign in (("ahead", 1), ("behind", -1)):
        page.text(f"gaps.{n}.{word}", f"{sum(x == sign for x in found.values())} of {len(found)}")  # fmt: skip
otherwise = [k for k in JOINT_GAPS if clear["product"][k] != clear["both"][k]]
page.record("gaps.otherwise", len(otherwise))

# %% [markdown]
# (The figure has the rows of the paper's table and those of this part; the table above counts all.) Over all courses ODESteer is clearly ahead in {glue:text}`gaps.own.ahead` comparisons at own settings and clearly behind in {glue:text}`gaps.own.behind`; at equal budget in {glue:text}`gaps.budget.ahead` and {glue:text}`gaps.budget.behind`. (None is corrected for their number: one in forty falls on either side by luck.) Courses on which it is ahead of *every* opponent at its own setting, as the paper has it for its own: {glue:text}`gaps.every`.
#
# Had the joint share been compared in place of the product: on the courses of truth, at both settings, ODESteer is clearly ahead in {glue:text}`gaps.both.ahead` comparisons instead of {glue:text}`gaps.product.ahead`, and clearly behind in {glue:text}`gaps.both.behind` instead of {glue:text}`gaps.product.behind`; {glue:text}`gaps.otherwise` come out otherwise.
#
# ### Who stands out
#
# Against the unsteered plant and every control ({prf:ref}`race-union`). A star says that a method does; where it does not, the opponent that comes closest.

# %%
standing = {
    (title, setting): {
        name: race_tables.stands_out(course, name, setting)
        for name in methods
        if race_tables.entry_of(course, name, setting)
    }
    for title, course in courses.items()
    for setting in SETTINGS
}


# %% tags=["hide-input"]
def cell_of(found, name):
    """A star, or the nearest opponent."""
    won, nearest, d = found.get(name, (False, "", None))
    if d is None:
        return "–"
    near = nearest.removeprefix("difference of means: ").removeprefix(
        "ODESteer, "
    )
    return f"★ {d.value:+z.3f}" if won else f"{d.value:+z.3f} ({near})"


stars = {}
for setting, said_ in SETTINGS.items():
    on = {t: f for (t, s), f in standing.items() if s == setting}
    stars[setting] = {n: sum(f.get(n, (False,))[0] for f in on.values()) for n in methods}  # fmt: skip
    rows = [(n, *(cell_of(f, n) for f in on.values())) for n in methods]
    if on:
        display(race_tables.folded(f"Who stands out, {said_}", table(rows, "method", *on)))  # fmt: skip
    page.text(
        f"stars.{setting}",
        ", ".join(f"{aside(n)} on {k}" for n, k in stars[setting].items()) if on else "nothing has been run",
    )  # fmt: skip

# %% [markdown]
# Of {glue:text}`race.courses` courses, the methods of this part stand out, at their own settings: {glue:text}`stars.own`; at equal budget: {glue:text}`stars.budget`.
#
# ## Ten steps, one step, a line
#
# The paper's ablation has three rows: a linear probe, one step of the nonlinear field, and ten. It lacks the fourth, a linear barrier on the *normalised* states, so that from its first row to its second two things change at once.

# %% tags=["hide-input"]
STAIRS = {
    "ten steps less one": ("ODESteer", "ODESteer, one step"),
    "polynomial less linear, both on directions": ("ODESteer", "linear barrier on directions"),
    "directions less states, both linear": ("linear barrier on directions", "linear probe"),
    "one step less a linear probe": ("ODESteer, one step", "linear probe"),
    "flow less constant push": ("ODESteer", "difference of means"),
    "whole length less what the filter needs": ("ODESteer", "barrier filter"),
    "barrier less a barrier of luck": ("ODESteer", "ODESteer, shuffled labels"),
}  # fmt: skip
stairs = {}
for name, (a, b) in STAIRS.items():
    for title, course in courses.items():
        for setting in SETTINGS:
            one, two = (race_tables.entry_of(course, n, setting) for n in (a, b))
            if one and two and one.records and two.records:
                stairs[name, title, setting] = race_tables.gain(one, two)


# %% tags=["hide-input"]
def stair_counts(name, setting):
    """On how many courses a step is clearly up, clearly down, and known."""
    found = [d for (n, _, s), d in stairs.items() if (n, s) == (name, setting)]
    up, down = sum(d.low > 0 and d.p <= 0.05 for d in found), sum(d.high < 0 and d.p <= 0.05 for d in found)  # fmt: skip
    return up, down, len(found)


def on_stairs(name, setting):
    """The same in a table's words."""
    up, down, n = stair_counts(name, setting)
    return f"{up} up, {down} down, of {n}" if n else "not run yet"


for setting, said_ in SETTINGS.items():
    rows = [
        (name, *(signed(stairs[name, t, setting]) if (name, t, setting) in stairs else "–" for t in courses))
        for name in STAIRS
    ]  # fmt: skip
    if courses:
        display(race_tables.folded(f"Product of both scores, {said_}", table(rows, "worth of", *map(course_name, courses))))  # fmt: skip
summary = [(n, *(on_stairs(n, s) for s in SETTINGS)) for n in STAIRS]
table(
    summary, "courses on which it is clearly worth something", *SETTINGS.values()
)

# %% tags=["hide-input"]
for key, name in zip(("steps", "polynomial", "directions", "step", "flow", "filter", "labels"), STAIRS, strict=True):  # fmt: skip
    for setting in SETTINGS:
        page.text(f"stairs.{key}.{setting}", on_stairs(name, setting))
t3 = claims["odesteer.t3.txi.ten-steps-beat-one"].published
iti = claims["odesteer.t3.txi.one-step-beats-a-linear-probe"].published
share = {
    m: (iti[m]["one_step"] - iti[m]["iti"]) / (t3[m]["ten_steps"] - iti[m]["iti"])
    for m in t3
}
page.text("t3.share", ", ".join(f"{100 * x:.0f} %" for x in share.values()))
page.text("t3.gap", ", ".join(f"{r['ten_steps'] - r['one_step']:.1f}" for r in t3.values()))  # fmt: skip

# %% [markdown]
# Ten steps instead of one: {glue:text}`stairs.steps.own` courses at own settings, {glue:text}`stairs.steps.budget` at equal budget. Published for T*I: {glue:text}`t3.gap` points on three models, on top of a first step that already has {glue:text}`t3.share` of the whole distance from the linear probe. Polynomial features instead of a linear barrier on the same directions: {glue:text}`stairs.polynomial.budget` at equal budget. Directions instead of states, both linear: {glue:text}`stairs.directions.budget`. A push of full length instead of the one that the filter finds: {glue:text}`stairs.filter.own` at own settings. And the control, the same law on labels that mean nothing: {glue:text}`stairs.labels.budget` at equal budget.

# %% [markdown]
# ## What the features are worth
#
# The paper reports no ablation of its features. Here each is varied alone, at one block, and every variant is brought to the same divergence from the plant, anew under each seed; nothing is chosen. The figure has the difference of each from ODESteer as it is: 0 is the sketch of dimension 8,000 and degree 2, $\gamma = 0.1$, $c_0 = 1$, $C = 1$, ten steps of Euler. Variants to the left are worse.
#
# The budget is measured on a few prompts, and some variants cannot be brought to it there: where a longer horizon turns a single answer, the mean divergence jumps from below the budget to above it between two neighbouring $T$. These run a second time with the budget measured on all validation prompts, which one answer moves less, and with ODESteer beside them measured alike; each row is compared with the ODESteer of its own race.

# %%
features, features_told = shipped_race(
    "barrier_features", profile=profile, page=page
)
steady, steady_told = shipped_race(
    "barrier_features_steady", profile=profile, page=page, measure=0
)
variants, steadied = (
    next(iter(found.courses.values())) if found else None
    for found in (features, steady)
)
base = race_tables.entry_of(variants, "ODESteer", "budget") if variants else None
GROUPS = {
    "hashing": ["dimension 64", "dimension 256", "dimension 1024", "other hashes 1", "other hashes 2", "exact kernel"],
    "kernel": ["degree 1", "degree 3", "gamma 1", "gamma 10", "gamma 1 and c0 0.1"],
    "classifier": ["C 0.01", "C 100"],
    "another barrier": ["linear on directions", "Fourier features", "Gaussian ratio", "neural ratio"],
    "no normalising": ["polynomial without normalising", "linear", "difference of means"],
    "steps": ["1 step", "2 steps", "5 steps", "20 steps"],
    "solver and field": ["midpoint", "RK4", "geodesic", "gradient field"],
    "controls": ["shuffled labels", "random direction"],
}  # fmt: skip


# %%
def at_budget(name):
    """A variant at the budget, and ODESteer in the same race."""
    for course in (variants, steadied):
        both = [race_tables.entry_of(course, n, "budget") for n in (name, "ODESteer")] if course else []  # fmt: skip
        if both and all(e and e.records for e in both):
            return *both, course is steadied
    return None


matched = {
    n: f for names in GROUPS.values() for n in names if (f := at_budget(n))
}
worth = {n: race_tables.gain(e, other) for n, (e, other, _) in matched.items()}

# %% tags=["hide-input"]
drawn = {g: {n: worth[n] for n in names if n in worth} for g, names in GROUPS.items()}  # fmt: skip
drawn = {g: row for g, row in drawn.items() if row}
on = course_name(next(iter(features.courses))) if features and features.courses else "no plant"  # fmt: skip
page.text("features.line", features_told)
page.text("features.steady", listed([n for n, (*_, late) in matched.items() if late], nothing="no row"))  # fmt: skip
page.text("features.steady.line", steady_told)
page.record("features.few", read_race(data_folder() / "races" / "barrier_features.yml").budget.prompts)  # fmt: skip
page.record("features.all", read_race(data_folder() / "races" / "barrier_features_steady.yml").budget.prompts)  # fmt: skip
page.text("features.on", on)
if drawn:
    page.figure(
        "features",
        figures.ablations(drawn, xlabel="T*I less that of ODESteer, equal budget", controls=GROUPS["controls"]),
        alt="Difference of each variant from ODESteer in T*I at equal divergence, grouped by what is varied, with intervals "
        "over prompts and seeds. The least and the most by group: " + "; ".join(
            f"{g} {min(d.value for d in row.values()):+z.2f} to {max(d.value for d in row.values()):+z.2f}" for g, row in drawn.items()
        ) + ".",
    )  # fmt: skip
else:
    display(Markdown(f"*No figure: {features_told}*"))

# %% tags=["hide-input"]
rows = []
for group, names in GROUPS.items():
    for name in names:
        e = race_tables.entry_of(variants, name, "budget") if base else None
        if name in worth:
            e, _, late = matched[name]
            laws = [r.cell.law.strength for r in e.records]
            d = worth[name]
            rows.append((f"{name}, budget on more prompts" if late else name, group, f"{np.mean(laws):.3g}", race_tables.shown(race_tables.combined(e)), signed(d), f"{d.p:.3f}"))  # fmt: skip
        elif base:
            rows.append((name, group, "–", "–", f"not run: {e.note.split('. ')[0] if e else ''}", "–"))  # fmt: skip
if base and base.records:
    laws = [r.cell.law.strength for r in base.records]
    rows.insert(0, ("ODESteer", "–", f"{np.mean(laws):.3g}", race_tables.shown(race_tables.combined(base)), "0", "–"))  # fmt: skip
heads = (
    "variant",
    "what is varied",
    "T at the budget",
    "T*I",
    "less ODESteer",
    "p",
)
display(
    race_tables.folded(f"Features: {on}, equal budget", table(rows, *heads))
) if rows else None

# %% tags=["hide-input"]
unsteered = race_tables.entry_of(variants, "unsteered", "none") if base else None
gained = race_tables.gain(base, unsteered) if base and base.records else None
page.text("features.gain", signed(gained) if gained else "not known yet")


def moved_by(names):
    """Which of some variants differ clearly from ODESteer, and the largest that any does."""
    found = {n: worth[n] for n in names if n in worth}
    if not found:
        return "not known yet"
    clear = [f"{n} {d.value:+z.2f}" for n, d in found.items() if d.p <= 0.05 and (d.low > 0 or d.high < 0)]  # fmt: skip
    most = max(abs(d.value) for d in found.values())
    which = f"{len(clear)} of {len(found)} clearly different" + (f" ({', '.join(clear)})" if clear else "")  # fmt: skip
    return f"{which}, none farther off than {most:.2f}"


for key, names in GROUPS.items():
    page.text(f"features.{key.replace(' ', '-')}", moved_by(names))

# %% [markdown]
# On {glue:text}`features.on`, ODESteer itself changes T*I by {glue:text}`features.gain`. Variants of it, and how far each is from that:
#
# - **Hashing**: {glue:text}`features.hashing`. Two other draws of the same hashes say what luck in them does, and the exact kernel what their absence does.
# - **Kernel**: {glue:text}`features.kernel`. *Degree 1* has no polynomial at all.
# - **The classifier's weight of data**: {glue:text}`features.classifier`.
# - **Other barriers in the same slot**: {glue:text}`features.another-barrier`. A linear one on the same directions is the control that the paper's ablation lacks.
# - **Without normalising**: {glue:text}`features.no-normalising`.
# - **The number of steps**: {glue:text}`features.steps`.
# - **Solver and field**: {glue:text}`features.solver-and-field`.
# - **Controls**: {glue:text}`features.controls`.
#
# What these numbers rest on:
#
# - The budget was measured on {glue:text}`features.few` prompts, for these variants on {glue:text}`features.all`: {glue:text}`features.steady`.
# - {glue:text}`features.line`
# - {glue:text}`features.steady.line`

# %% tags=["hide-input"]
PARTS = {
    "the polynomial": ("exact kernel", "linear on directions"),
    "the normalisation": ("linear on directions", "linear"),
    "the hashing": ("ODESteer", "exact kernel"),
    "one other draw of hashes": ("other hashes 1", "ODESteer"),
    "another draw": ("other hashes 2", "ODESteer"),
    "ten steps": ("ODESteer", "1 step"),
    "the flow": ("ODESteer", "difference of means"),
}
parts = {}
for part, names in PARTS.items():
    one, two = (race_tables.entry_of(variants, n, "budget") if base else None for n in names)  # fmt: skip
    if one and two and one.records and two.records:
        parts[part] = race_tables.gain(one, two)
if states := matched.get("polynomial without normalising"):
    parts["normalising a polynomial"] = race_tables.gain(states[1], states[0])


# %% tags=["hide-input"]
def worth_of(part):
    """What a part is worth, in words."""
    if part not in parts:
        return "is not known yet"
    d = parts[part]
    if d.p > 0.05 or d.low <= 0 <= d.high:
        return f"is not told from nothing ({signed(d)})"
    return f"{'is worth something' if d.value > 0 else 'does harm'} ({signed(d)})"


luck_of_hashes = [abs(parts[p].value) for p in ("one other draw of hashes", "another draw") if p in parts]  # fmt: skip
page.record("features.luck", max(luck_of_hashes, default=0.0), digits=3)
for key in ("polynomial", "normalisation", "hashing"):
    page.text(f"worth.{key}", worth_of(f"the {key}"))
page.text("worth.curved", worth_of("normalising a polynomial"))
page.text("features.verdict", "; ".join(f"{p} {worth_of(p)}" for p in list(PARTS)[:3]))  # fmt: skip
rows = [(p, f"{a} less {b}", signed(parts[p]) if p in parts else "not run", f"{parts[p].p:.3f}" if p in parts else "–") for p, (a, b) in PARTS.items()]  # fmt: skip
table(rows, "what is it worth", "by", "T*I", "p") if base else Markdown("*Not run yet.*")  # fmt: skip

# %% [markdown]
# So is it the polynomial, the normalisation, or hashing noise? At this budget, on this plant: the normalisation, with a linear barrier on both sides, {glue:text}`worth.normalisation`, and with a polynomial one on both, {glue:text}`worth.curved`; the polynomial, as the exact kernel against the linear barrier, {glue:text}`worth.polynomial`; and the hashing, as the sketch against the exact kernel, {glue:text}`worth.hashing`. For scale: two other draws of the hashes differ from the first by up to {glue:text}`features.luck`, with nothing changed but their seed. That a polynomial could matter little was to be expected: with $\gamma = 0.1$ and $c_0 = 1$ the kernel of two unit vectors is $(0.1\,x^\top y + 1)^2 = 1 + 0.2\,x^\top y + 0.01\,(x^\top y)^2$.
#
# :::{prf:proposition} How curved the paper's kernel can be
# :label: odetables-kernel
# On unit vectors $k(x, y) = (\gamma x^\top y + c_0)^2$ has a linear part of slope $2\gamma c_0$ and a quadratic part $\gamma^2 (x^\top y)^2$, whose slope is nowhere larger than $2\gamma^2$. So the quadratic part never has more than the share $\gamma/c_0$ of the linear part's slope.
# :::
#
# :::{prf:proof}
# Expand the square; $|x^\top y| \le 1$, so that the quadratic part has slope $2\gamma^2 |x^\top y| \le 2\gamma^2$ in $x^\top y$, and $2\gamma^2 / 2\gamma c_0 = \gamma/c_0$.
# :::
#
# With the settings of the text that is a tenth; with the defaults of the released *class*, where $\gamma$ and $c_0$ have changed places, it is ten. The proposition bounds the kernel, not what a classifier makes of it, so the figure has both settings.

# %% tags=["hide-input"]
COUNTS = {1: "1 step", 2: "2 steps", 5: "5 steps", 10: "ODESteer", 20: "20 steps"}
stepped = {
    n: e for n, name in COUNTS.items()
    if base and (e := race_tables.entry_of(variants, name, "budget")) and e.records
}  # fmt: skip
if len(stepped) == len(COUNTS):
    values = [race_tables.combined(e) for e in stepped.values()]
    page.figure(
        "steps",
        figures.over(
            [*stepped], {on: figures.Panel({"equal budget": values}, "T*I", line=("unsteered", race_tables.combined(unsteered).value))},
            xlabel="number of steps", log_x=True,
        ),
        alt="T*I at equal divergence against the number of Euler steps, with intervals: "
        + ", ".join(f"{e.value:.3f} with {n}" for n, e in zip(stepped, values, strict=True)) + ".",
    )  # fmt: skip
    page.text("steps.said", ", ".join(f"{e.value:.3f} with {n}" for n, e in zip(stepped, values, strict=True)))  # fmt: skip
else:
    page.text("steps.said", "not known yet")
    display(Markdown(f"*No figure: {features_told}*"))

# %% tags=["hide-input"]
for key, part, stair, rival in (
    ("flow", "the flow", "flow less constant push", "difference of means"),
    ("steps", "ten steps", "ten steps less one", "ODESteer, one step"),
):
    raced = stairs.get((stair, f"{main}/truth", "budget"))
    chosen_by = [race_tables.entry_of(courses[f"{main}/truth"], n, "budget") for n in ("ODESteer", rival)] if raced else []  # fmt: skip
    where = " and ".join(e.records[0].cell.law.place for e in chosen_by)
    page.text(
        f"choice.{key}",
        (f"in the race {signed(raced)} (at {where}), " if raced else "in the race not known yet, ")
        + (f"at one block {signed(parts[part])}" if part in parts else "at one block not known yet"),
    )  # fmt: skip

# %% [markdown]
# T*I against the number of steps, at equal divergence: {glue:text}`steps.said`. At equal $T$, as in the paper's figure, more steps also mean a *shorter* way from where the state began, since the norm no longer grows ($\|a_K\|^2 = \|a_0\|^2 + T^2/K$); at equal budget that is taken out.
#
# One caution. Here all act at one block, while in the race each has chosen between two on validation prompts, so that the same comparison can come out otherwise. ODESteer less the push along the difference of means, at equal budget: {glue:text}`choice.flow`. Ten steps less one: {glue:text}`choice.steps`.
#
# ## How far, and where
#
# Now $T$ itself, which is the law's one knob: T*I and Info against $T$ in norms of the state, at the block of the features above, for ten steps and for one. {glue:text}`barrier_doses.recomputed`


# %% tags=["hide-input"]
swept = read_shipped_race(race_path("layers", profile="tiny"))
lengths = swept.courses["almanac-llama/truth"].norms
NORMS = {k: lengths[f"resid_post {k} choice"] for k in range(len(lengths))}
records = shipped_grid("barrier_doses", profile=profile, page=page)


def at(task_name, **wanted):
    """Records of one setting, by the seed of the fit; wanted: layer, share, options, labels."""
    found = {}
    for r in records:
        law = r.cell.law
        known = law and {"layer": law.layer, "share": round(law.strength / NORMS[law.layer], 3),
                         "options": dict(law.options), "labels": law.fit.labels}  # fmt: skip
        if r.cell.task == task_name and law and all(known[k] == v for k, v in wanted.items()):  # fmt: skip
            found[law.fit.seed] = r
    return Entry("", "own", records=tuple(found[s] for s in sorted(found)))


# %%
SHARES, ONE = (0.1, 0.2, 0.4, 0.8, 1.6), {"steps": 1}
PUSH = {"barrier": "means", "normalise": False, "steps": 1}
curves = {
    name: [
        at("truth", layer=3, share=s, options=o, labels="true") for s in SHARES
    ]
    for name, o in (("ten steps", {}), ("one step", ONE))
}
layers = {
    name: [
        at("truth", layer=k, share=0.4, options=o, labels="true") for k in NORMS
    ]
    for name, o in (("ODESteer", {}), ("difference of means", PUSH))
}


# %% tags=["hide-input"]
further = shipped_grid("barrier_layers", profile=profile, page=page)


def at_block(where, layer, options, labels, task_name="truth", among=further):
    """Records of a block from the second grid, which has one T for each, by the seed of the fit."""
    found, wanted = {}, (task_name, where, layer, options, labels)
    for r in among:
        law = r.cell.law
        if law and (r.cell.task, r.cell.plant, law.layer, dict(law.options), law.fit.labels) == wanted:  # fmt: skip
            found[law.fit.seed] = r
    return Entry("", "own", records=tuple(found[s] for s in sorted(found)))


# %%
depths = {p: sorted({r.cell.law.layer for r in further if r.cell.law and r.cell.plant == p})
          for p in sorted({r.cell.plant for r in further}, key=lambda p: (p != "almanac-llama", p))}  # fmt: skip
by_plant = {
    where: {
        "ODESteer": [at_block(where, k, {}, "true") for k in blocks],
        "difference of means": [at_block(where, k, PUSH, "true") for k in blocks],
        "shuffled labels": [at_block(where, k, {}, "shuffled") for k in blocks],
    }
    for where, blocks in depths.items()
}
if "almanac-llama" in by_plant:
    by_plant["almanac-llama"] |= layers
bare = {t: [r for r in records if r.cell.task == t and r.cell.law is None] for t in ("truth", "utility")}  # fmt: skip
whole = bool(records) and all(e.records for es in (*curves.values(), *layers.values()) for e in es)  # fmt: skip

# %% tags=["hide-input"]
if whole:
    seeds_ = len(curves["ten steps"][0].records)
    calm = Entry("unsteered", "none", records=tuple(bare["truth"][:1] * seeds_))
    level = race_tables.combined(calm).value
    by = {n: [race_tables.combined(e) for e in es] for n, es in curves.items()}
    kept = {n: [metrics.grid_interval(race_tables.scores(e, "intact")) for e in es] for n, es in curves.items()}  # fmt: skip
    page.figure(
        "strength",
        figures.over(
            SHARES, {"": figures.Panel(by, "T*I", line=("unsteered", level)), " ": figures.Panel(kept, "Info")},
            xlabel="strength T, in norms", log_x=True,
        ),
        alt=f"T*I and Info against the horizon T in norms of the state, unsteered T*I {level:.2f}. " + " ".join(
            f"{n.capitalize()}: T*I " + ", ".join(f"{e.value:.2f}" for e in es) + "; Info " + ", ".join(f"{e.value:.2f}" for e in kept[n]) + "."
            for n, es in by.items()
        ),
    )  # fmt: skip
else:
    display(Markdown("*Not run yet.*"))


# %% tags=["hide-input"]
def best_at(name):
    """The share at which a curve is highest, and its value."""
    k = int(np.argmax([e.value for e in by[name]]))
    return f"{by[name][k].value:.2f} at {SHARES[k]:g}"


apart_by = {}
if whole:
    apart_by = {s: race_tables.gain(a, b) for s, a, b in zip(SHARES, *curves.values(), strict=True)}  # fmt: skip
page.text("strength.best", "; ".join(f"{n} {best_at(n)}" for n in curves) if whole else "not known yet")  # fmt: skip
page.text(
    "strength.apart",
    "; ".join(f"{s:g}: {signed(d)}" for s, d in apart_by.items())
    or "not known yet",
)
page.text("strength.far", ", ".join(f"{n} {es[-1].value:.2f}" for n, es in by.items()) if whole else "not known yet")  # fmt: skip
page.record("turn.one", np.arctan(0.8), digits=2)
nothing = at("truth", layer=3, share=0.4, labels="shuffled")
luck = race_tables.gain(nothing, calm) if whole and nothing.records else None
page.text("strength.luck", signed(luck) if luck else "not known yet")
page.record("n.strength", curves["ten steps"][0].records[0].scores["wanted"].__len__() if whole else 0)  # fmt: skip

# %% [markdown]
# On {glue:text}`n.strength` test prompts under each seed of the fit. Highest T\*I: {glue:text}`strength.best`; at the longest horizon it is {glue:text}`strength.far`. Ten steps less one, by $T$: {glue:text}`strength.apart`. (At an equal $T$ the two do not turn a state equally far: one step leaves along a tangent and turns by $\arctan(T/\|a\|)$, at 0.8 norms {glue:text}`turn.one` radians, while a flow may turn by all of $T/\|a\|$. Ten steps are the stronger dose, for good where more is better and for bad where it is too much.) A barrier of shuffled labels at 0.4 changes T\*I by {glue:text}`strength.luck`.
#
# And the block. The paper takes it from a sweep of the *difference of means*, and says that ODESteer's own best is a neighbour of that. Here on three plants, at a $T$ of 0.4 of the norm of states *at each block of each plant*; a push along the difference of means that is as long; and, as a control, ODESteer on a barrier of shuffled labels. {glue:text}`barrier_layers.recomputed`

# %% tags=["hide-input"]
bare_on = {r.cell.plant: r for r in (*further, *bare["truth"]) if r.cell.law is None and r.cell.task == "truth"}  # fmt: skip
swept_all = {
    where: rows
    for where, rows in by_plant.items()
    if where in bare_on and all(e.records for es in rows.values() for e in es)
}

# %% tags=["hide-input"]
sweeps, calm_on = {}, {}
for where, rows in swept_all.items():
    n_fits = len(rows["ODESteer"][0].records)
    calm_on[where] = Entry("unsteered", "none", records=(bare_on[where],) * n_fits)  # fmt: skip
    sweeps[where] = {
        n: [race_tables.combined(e) for e in es] for n, es in rows.items()
    }
peaks = {
    where: {n: int(np.argmax([e.value for e in es])) for n, es in rows.items()}
    for where, rows in sweeps.items()
}

# T as the grid has it, beside the norms of the race, which knows two blocks of each plant.
for title, course in read_shipped_race(race_path("barriers", profile="tiny")).courses.items():  # fmt: skip
    where, behaviour = title.split("/")
    for name, r in course.norms.items() if behaviour == "truth" else ():
        k = int(name.split()[1])
        if where in swept_all:
            T_there = swept_all[where]["ODESteer"][k].records[0].cell.law.strength
            assert np.isclose(T_there, 0.4 * r), f"{where}, block {k}"

# %% tags=["hide-input"]
if sweeps:
    level_on = {w: race_tables.combined(e).value for w, e in calm_on.items()}
    page.figure(
        "layers",
        figures.over(
            [*NORMS], {w: figures.Panel(rows, "T*I", line=("unsteered", level_on[w])) for w, rows in sweeps.items()},
            xlabel="block (from 0)",
        ),
        alt="T*I against the block at T = 0.4 norms, one panel for each plant. " + " ".join(
            f"On {w}, unsteered {level_on[w]:.2f}, the highest is " + "; ".join(
                f"{max(e.value for e in es):.2f} at block {peaks[w][n]} ({n})" for n, es in rows.items()
            ) + "." for w, rows in sweeps.items()
        ),
    )  # fmt: skip
else:
    display(Markdown("*Not run yet.*"))


# %% tags=["hide-input"]
def paid_on(where):
    """What the block of the difference of means costs ODESteer on a plant."""
    own, theirs = (peaks[where][n] for n in ("ODESteer", "difference of means"))
    if own == theirs:
        return "nothing: one best block"
    rows = swept_all[where]["ODESteer"]
    return signed(race_tables.gain(rows[own], rows[theirs]))


def ahead_of_means(where):
    """ODESteer less the difference of means at ODESteer's best block."""
    k = peaks[where]["ODESteer"]
    ours, theirs = (swept_all[where][n][k] for n in ("ODESteer", "difference of means"))  # fmt: skip
    return signed(race_tables.gain(ours, theirs))


def by_luck(where):
    """What a barrier of shuffled labels changes at the block where it is best."""
    rows = swept_all[where]["shuffled labels"]
    return signed(race_tables.gain(rows[peaks[where]["shuffled labels"]], calm_on[where]))  # fmt: skip


told_of = {
    "layers.best": lambda w: f"ODESteer {peaks[w]['ODESteer']}, difference of means {peaks[w]['difference of means']}",
    "layers.paid": paid_on,
    "layers.ahead": ahead_of_means,
    "layers.luck": by_luck,
}  # fmt: skip
for key, of in told_of.items():
    page.text(key, "; ".join(f"{w}: {of(w)}" for w in sweeps) or "not known yet")
near = [
    abs(p["ODESteer"] - p["difference of means"]) <= 1 for p in peaks.values()
]
page.text("layers.near", f"{sum(near)} of {len(near)}")
rows = [
    (w, peaks[w]["ODESteer"], peaks[w]["difference of means"], paid_on(w), ahead_of_means(w), by_luck(w))
    for w in sweeps
]  # fmt: skip
heads = ("best block of ODESteer", "of the difference of means", "price of the latter for ODESteer",
         "ODESteer less that push, at its best block", "shuffled labels at theirs")  # fmt: skip
table(rows, "plant", *heads) if rows else Markdown("*Not run yet.*")

# %% [markdown]
# The best block at $T = 0.4$ norms is the same for both, or a neighbour, on {glue:text}`layers.near` plants. The table has what choosing the block by the difference of means costs ODESteer in T*I (the largest of six estimates is partly luck, so that this is a price on these prompts, not a promise); what the flow is worth at its best block, against a constant push as long; and, for scale, what a barrier of shuffled labels changes from no control at the block where that does best.
#
# ## What else it moves
#
# Laws that were fitted for truth, and questions that have nothing to do with it: the share of multiple-choice questions about undisputed facts whose likeliest option is right. On three plants, where the paper has one, and beside a barrier of shuffled labels.

# %% tags=["hide-input"]
ASKED = {"ODESteer": ({}, "true"), "difference of means": (PUSH, "true"), "shuffled labels": ({}, "shuffled")}  # fmt: skip
knows_on = {}
for where in by_plant:
    free = [r for r in (*records, *further) if r.cell.task == "utility" and r.cell.plant == where and r.cell.law is None]  # fmt: skip
    ran = {n: at_block(where, 3, *how, "utility", (*records, *further)) for n, how in ASKED.items()}  # fmt: skip
    if free and all(e.records for e in ran.values()):
        before = Entry("unsteered", "none", records=tuple(free[:1] * len(ran["ODESteer"].records)))  # fmt: skip
        knows_on[where] = {n: race_tables.scores(e, "wanted") for n, e in {"unsteered": before, **ran}.items()}  # fmt: skip
knows = knows_on.get("almanac-llama", {})
changed = {
    w: {n: metrics.paired_grid_difference(x, found["unsteered"]) for n, x in found.items() if n != "unsteered"}
    for w, found in knows_on.items()
}  # fmt: skip
page.text("knows.said", "; ".join(f"{w}: " + ", ".join(f"{n} {signed(d)}" for n, d in on_it.items()) for w, on_it in changed.items()) or "not known yet")  # fmt: skip
llama = claims["odesteer.t8.knowledge-falls"].published
published_change = {k.split("-")[-1].upper(): r["odesteer"] - r["original"] for k, r in llama.items()}  # fmt: skip
page.text("knows.published", ", ".join(f"{k} {x:+z.1f}" for k, x in published_change.items()))  # fmt: skip
rows = [
    (w, n, race_tables.shown(metrics.grid_interval(x)), signed(changed[w][n]) if n in changed[w] else "")
    for w, found in knows_on.items() for n, x in found.items()
]  # fmt: skip
table(rows, "plant", "law, fitted for truth", "questions answered rightly", "change") if rows else Markdown("*Not run yet.*")  # fmt: skip

# %% [markdown]
# Change in knowledge at $T = 0.4$ norms of the states at block 3: {glue:text}`knows.said`. Published for Llama-3.1-8B, in points: {glue:text}`knows.published`.
#
# ## What a token costs
#
# Counted, as multiplications and additions for one token at one block. A look at the gradient by the sketch takes four real Fourier transforms of its dimension (chapter [43](43_odesteer)), and every step is a look; as a quadratic form a look is one product with a $d\times d$ matrix; in the eigenbasis there are two products for any number of steps (chapter [45](45_exact_geometry)).

# %%
d, D, K = lm.width, 8000, 10
block_cost = 2 * sum(p.numel() for p in lm.blocks[0].parameters())
costs = {
    "ten looks by the sketch": K * 4 * 2.5 * D * np.log2(D),
    "ten looks by the matrix": K * 2 * d**2,
    "the eigenbasis, any number": 2 * 2 * d**2 + K * 6 * d,
    "a constant push": d,
}

# %% tags=["hide-input"]
for key, name in zip(("sketch", "matrix", "eigen"), costs, strict=False):
    page.record(f"cost.{key}", 100 * costs[name] / block_cost, digits=0, unit="%")
speed = claims["odesteer.t7.speed-kept"].published[LIKE]
page.record("cost.published", 100 * speed["odesteer"] / speed["original"], digits=0, unit="%")  # fmt: skip
table([(n, f"{c:.3g}", f"{c / block_cost:.2g}") for n, c in costs.items()], "route", "operations", "share of the block's own")  # fmt: skip

# %% [markdown]
# On a plant this small ten looks by the sketch are {glue:text}`cost.sketch` of the block's own arithmetic, by the matrix {glue:text}`cost.matrix`, in the eigenbasis {glue:text}`cost.eigen`; the first does not grow with the width of the model, the others do as the block does. Published for Llama-3.1-8B: {glue:text}`cost.published` of the unsteered speed is kept, with a sketch at every step. Counts are not times. The rows of the paper's table of speeds are on the page [What it costs](#what-it-costs): the share of the unsteered speed that each law leaves, eager and compiled, at three sizes of batch, each with its interval, and what the papers print below. `python benchmarks/barrier.py` has the fit and the tokens per second of every route of this law in one run.

# %% tags=["remove-cell"]
if profile in claims["odesteer.t7.speed-kept"].profiles:
    import time

    def speed_of(prompt, under=None):
        """Tokens per second of the answer to one prompt."""
        start = time.perf_counter()
        if under is None:
            out = lm.generate([prompt], max_new_tokens=32, seed=seeds[0])
        else:
            with lm.under(under):
                out = lm.generate([prompt], max_new_tokens=32, seed=seeds[0])
        return len(out.tokens[0]) / (time.perf_counter() - start)

    law = five["ten steps"].at(T)
    runs = {"unsteered": None, "odesteer": law}
    timed = {n: [[speed_of(p, u) for p in asked]] for n, u in runs.items()}
    page.samples("tokens-per-second", timed)

# %% [markdown]
# ## Break it
#
# *Too far.* The horizon is a length, and the law does not ask whether it is needed: a state that is inside already is pushed as far as one that is not. The row *barrier filter* of the tables asks; its push is nearly the shortest, and what it leaves undone is the difference of the two ({glue:text}`stairs.filter.budget` at equal budget, where the filter must be multiplied until it costs as much).
#
# *One $T$ for all plants.* Norms of states differ from plant to plant and from block to block, so that a $T$ that is copied is an angle that is not. Norms of almanac-llama, from the race of layers, and what the $T$ that turns by 0.4 in the middle may turn by elsewhere:

# %%
T_middle = 0.4 * NORMS[3]
angles = {k: T_middle / r for k, r in NORMS.items()}
table([(k, r, f"{a:.2f}") for (k, r), a in zip(NORMS.items(), angles.values(), strict=True)],
    "block", "mean norm of states", "largest angle at one T, rad")  # fmt: skip

# %% [markdown]
# From the first block to the last the angle falls by a factor of {glue:text}`angle.factor`.
#
# *A lead over a weak field.* The paper's rows of RepE, ITI and CAA are at strengths that were swept for some and not for others; at equal budget that excuse is gone. And what a choice can give by itself: over all courses, the chosen candidate stands above the median of its candidates by {glue:text}`curse.methods` for the methods of this part, and by {glue:text}`curse.controls` for their control, which has nothing to find.

# %% tags=["hide-input"]
page.record("angle.factor", max(angles.values()) / min(angles.values()), digits=1)
flattered = {"methods": [], "controls": []}
for course in courses.values():
    for e in course.entries:
        mine_ = e.name in methods or e.name == "ODESteer, shuffled labels"
        if mine_ and e.records and e.selection and e.setting == "own" and len(e.selection.scores) > 1:  # fmt: skip
            typical = float(np.median(e.selection.scores))
            flattered["controls" if e.control else "methods"].append(e.selection.score - typical)  # fmt: skip
for kind, values in flattered.items():
    page.record(
        f"curse.{kind}", float(np.mean(values)) if values else 0.0, digits=3
    )

# %% [markdown]
# **In control words.** ODESteer has a state-dependent field but no reference and no error: the input's length is set beforehand, whatever the state. It is a feedforward of constant power whose *direction* looks at the state. What feedback could add, a push that ends when the aim is reached, is the filter's, and the races above say what it is worth at an own setting and at an equal price.
#
# ## Exercises
#
# Replace the body of the stub, run the stub and the cell of tests below it, then call the test on your function, for example `check_44_1(joint_between)`. Silence means that it passed. Each exercise stands alone; run `import numpy as np` first. Solutions are folded; open one by a click.
#
# ### Exercise 44.1: what two columns say of the third
#
# *Easy, 8 minutes.* `n` answers; `true` of them pass the first judge and `informative` the second, whole numbers. Return the least and the largest *number* of answers that can pass both, and the product of the two shares times `n`.

# %% tags=["exercise-setup", "ex:44.1", "ex:44.2"]
import numpy as np


# %% tags=["exercise-stub", "ex:44.1"]
def joint_between(true, informative, n):
    """Three counts -> (least, largest, product of shares times n)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:44.1"]
def check_44_1(joint_between):
    assert np.allclose(joint_between(7, 9, 10), (6, 7, 6.3))
    assert np.allclose(joint_between(2, 3, 10), (0, 2, 0.6)), "never negative"
    assert np.allclose(joint_between(10, 4, 10), (4, 4, 4)), "one column is full"
    rng = np.random.default_rng(0)
    for _ in range(200):
        t, i = (rng.random(12) < rng.random() for _ in range(2))
        low, high, product = joint_between(t.sum(), i.sum(), 12)
        assert low <= (t & i).sum() <= high
        assert low <= product + 1e-9 and product <= high + 1e-9


# %% tags=["exercise-wrong", "ex:44.1", "remove-cell"]
def joint_between(true, informative, n):  # forgets that a count has a floor
    product = true * informative / n
    return true + informative - n, min(true, informative), product


# %% tags=["exercise-solution", "ex:44.1", "hide-cell"]
def joint_between(true, informative, n):
    low = max(0, true + informative - n)
    return low, min(true, informative), true * informative / n


# %%
check_44_1(joint_between)

# %% [markdown]
# ### Exercise 44.2: the best of eight
#
# *Medium, 10 minutes.* `ours` has one score for each model, `rivals` one row for each baseline, higher is better. Return two margins, each a mean over models: over the best baseline *of each model*, as a headline has it; and over the *one* baseline that is best on the mean over models. Which of the two is larger?


# %% tags=["exercise-stub", "ex:44.2"]
def two_margins(ours, rivals):
    """Arrays (models,), (baselines, models) -> (per model, one baseline)."""
    raise NotImplementedError


# %% tags=["exercise-check", "ex:44.2"]
def check_44_2(two_margins):
    ours, rivals = np.array([5.0, 5.0]), np.array([[4.0, 1.0], [2.0, 4.5]])
    assert np.allclose(two_margins(ours, rivals), (0.75, 1.75))
    rng = np.random.default_rng(0)
    for _ in range(50):
        ours, rivals = rng.normal(size=4), rng.normal(size=(8, 4))
        per, one = two_margins(ours, rivals)
        assert per <= one + 1e-12, "the best of each model is the harder opponent"
        assert np.isclose(per, np.mean(ours - rivals.max(0)))


# %% tags=["exercise-wrong", "ex:44.2", "remove-cell"]
def two_margins(ours, rivals):  # takes the mean baseline for the best one
    return float((ours - rivals.max(0)).mean()), float((ours - rivals.mean(0)).mean())  # fmt: skip


# %% tags=["exercise-solution", "ex:44.2", "hide-cell"]
def two_margins(ours, rivals):
    one = rivals[rivals.mean(1).argmax()]
    return float((ours - rivals.max(0)).mean()), float((ours - one).mean())


# %%
check_44_2(two_margins)

# %% [markdown]
# (So the headline is the more modest of the two: whoever reports the distance from the best baseline of each model has let the opponents choose after the fact.)
#
# ## Claims checked here
#
# What ODESteer's tables and figures say {cite:p}`zhao2026odesteer`, tested on one small plant in a decidable world: rows of the race at the methods' own settings, as the paper ran them; features, steps and solvers at equal divergence; horizons and blocks from the grid. Those without a published number are ours: controls that no table of the paper has.

# %% tags=["hide-input"]
KEYS = {
    "unsteered": "unsteered", "RepE, as compared": "repe", "linear probe": "iti", "difference of means": "caa",
    "MiMiC": "mimic", "Householder rotation": "hpr", "Linear-AcT, as compared": "linear-act", "TruthFlow": "truthflow",
    "RE-Control": "re-control", "ODESteer": "odesteer", "ODESteer, one step": "odesteer-one-step",
    "linear barrier on directions": "linear-barrier", "ODESteer, shuffled labels": "shuffled",
}  # fmt: skip


def of_race(behaviour, setting, of):
    """Scores of every row that ran, by the keys of the claims."""
    course = courses.get(f"{lm.name}/{behaviour}")
    if course is None:
        return {}
    bare_ = race_tables.entry_of(course, "unsteered", "none")
    ran = {n: race_tables.entry_of(course, n, setting) for n in KEYS}
    return {KEYS[n]: of(e, bare_) for n, e in ran.items() if e and e.records}


def txi(e, _=None):
    """Product of both scores, answer by answer."""
    return product_scores(race_tables.scores(e, "wanted"), race_tables.scores(e, "intact"))  # fmt: skip


def part_of(name, turn=lambda x: x):
    """One score of an entry."""
    return lambda e, _: turn(race_tables.scores(e, name))


# %% tags=["hide-input"]
VARIED = {
    "ODESteer": "odesteer", "RK4": "rk4", "linear on directions": "linear-on-directions",
    "linear": "linear", "exact kernel": "exact-kernel",
}  # fmt: skip
ran = (
    {n: race_tables.entry_of(variants, n, "budget") for n in VARIED}
    if base
    else {}
)
STEADY = {
    "ODESteer": "odesteer", "polynomial without normalising": "polynomial-on-states",
    "Gaussian ratio": "gaussian", "shuffled labels": "shuffled",
}  # fmt: skip
steadily = {n: race_tables.entry_of(steadied, n, "budget") for n in STEADY if steadied}  # fmt: skip
dosed = {f"share-{s:g}": e for s, e in zip(SHARES, curves["ten steps"], strict=True)}  # fmt: skip
gathered = {
    "truth.txi": of_race("truth", "own", txi),
    "truth.true": of_race("truth", "own", part_of("wanted")),
    "truth.info": of_race("truth", "own", part_of("intact")),
    "truth.at-budget": of_race("truth", "budget", txi),
    "truth.joint": {k: x for k, x in of_race("truth", "own", lambda e, _: jointly(e)).items() if x.size},
    "toxicity.mean": of_race("toxicity", "own", part_of("wanted", lambda x: 1 - x)),
    "preference.win-rate": of_race("preference", "own", race_tables.wins),
    "preference.reward": of_race("preference", "own", part_of("reward")),
    "features.txi": {VARIED[n]: txi(e) for n, e in ran.items() if e and e.records},
    "features.steady": {STEADY[n]: txi(e) for n, e in steadily.items() if e and e.records},
    "features.steps": {f"steps-{n}": txi(e) for n, e in stepped.items()},
    "doses.txi": {k: txi(e) for k, e in dosed.items() if e.records},
    "utility.knowledge": {{"ODESteer": "odesteer"}.get(n, n): x for n, x in knows.items()},
}  # fmt: skip
if lm.name != "almanac-llama":  # grid and features are those of another plant
    gathered = {m: {} if m.split(".")[0] in ("features", "doses", "utility") else x for m, x in gathered.items()}  # fmt: skip

# %% tags=["hide-input"]
mine = [
    c for c in claims.values()
    if c.page == page.record_file.page and profile in c.profiles
]  # fmt: skip
for metric, scores in gathered.items():
    waiting = [c for c in mine if c.metric == metric]
    for claim in waiting:
        if without := [k for k in claim.keys if k not in scores]:
            page.cannot_check(claim.id, why=f"no row on {lm.name}: {', '.join(without)}")  # fmt: skip
    used = {k for c in waiting for k in c.keys} & set(scores)
    if used and any(c.id not in page.record_file.checks for c in waiting):
        page.samples(metric, {k: x for k, x in scores.items() if k in used})
for claim in mine:
    absent = claim.metric == "ppl.change" or claim.figure
    if absent and claim.id not in page.record_file.checks:
        page.cannot_check(claim.id, why=f"not measured on {lm.name}: {claim.metric or claim.figure}")  # fmt: skip
checks = page.record_file.checks
table([(c.says, str(checks[c.id].verdict)) for c in mine if c.id in checks], "claim", "here")  # fmt: skip

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
told_by = page.record_file.texts


def better(name, setting, than):
    """On how many courses a step is clearly worth something, in a sentence's words."""
    up, down, n = stair_counts(name, setting)
    return f"clearly better than {than} on {up} of {n} courses and clearly worse on {down}"


points = [
    f"The printed margins over the best baseline of each model are {listed(f'{np.mean([*per.values()]):.2f}' for per in found_margins.values())} "
    f"points in the mean over four models. Floor against floor of the joint share, the lead is lost on {len(lost)} of {len(models)}.",
    "On the small plants the joint share is known exactly: of the courses of truth, at both settings, the same row is first by it "
    f"and by the product in {told_by['joint.first']} tables, and {len(otherwise)} of "
    f"{len(JOINT_GAPS)} comparisons of ODESteer come out otherwise.",
    f"{len(courses)} of {len(plan.courses())} courses have been run. ODESteer is clearly ahead of an opponent in "
    f"{told_by['gaps.own.ahead']} comparisons at own settings and clearly behind in {told_by['gaps.own.behind']}; at equal budget "
    f"in {told_by['gaps.budget.ahead']} and {told_by['gaps.budget.behind']}.",
    f"At equal budget ten steps are {better('ten steps less one', 'budget', 'one')}. ODESteer is "
    f"{better('barrier less a barrier of luck', 'budget', 'its own control of shuffled labels')}.",
    f"A push of full length is {better('whole length less what the filter needs', 'own', 'the one that the filter finds')} at own "
    f"settings; at equal budget it is {better('whole length less what the filter needs', 'budget', 'that')}.",
    "At equal budget a linear barrier that looks at directions is "
    f"{better('directions less states, both linear', 'budget', 'one that looks at states')}.",
    "Of the features, " + told_by["features.verdict"] + ".",
    f"Over T the highest T*I is {listed(f'{best_at(n)} norms with {n}' for n in curves)}. "
    f"ODESteer's best block is that of the difference of means, or next to it, on {told_by['layers.near']} plants."
    if whole else "How T*I follows the distance and the block has not been run.",
    f"Laws that were fitted for truth change the share of questions of knowledge answered rightly: {told_by['knows.said']}.",
]  # fmt: skip
page.findings(points)

# %% [markdown]
# What this does not show: how the rows stand on a model of thirty blocks, with judges that are models, and with a $T$ that was tuned for each of them by whoever wrote the paper. What the text and the released code leave open is the subject of chapter [46](46_odesteer_audit).
#
# ## Further reading
#
# - {cite:t}`zhao2026odesteer`: the tables that are rerun here; its appendix has the ranges of $T$.
# - {cite:t}`kong2024recontrol`: RE-Control, whose value is a barrier of another training.
# - {cite:t}`pham2013tensorsketch`: the sketch, and how its noise falls with its dimension.
# - {cite:t}`rimsky2024caa`: the sweep over layers that others take their layer from.
# - {cite:t}`ames2019cbf`: the filter, where $h$ is designed and not learned.

# %% tags=["hide-input"]
page.footer()
