"""Laws, tasks, judges and decoders by name, so that an experiment can be written down as data.

Knows names and where they live; imports nothing until it is asked. A new law, task, judge or decoder is one line here.
"""

from __future__ import annotations

import importlib
from typing import Any

from steerlib.errors import SteerlibError, unknown

#: Laws that are fitted on a contrast: name -> class.
LAWS: dict[str, str] = {
    "a-lqr": "steerlib.laws.lqr.ALQR",
    "actadd": "steerlib.laws.actadd.ActAdd",
    "angular-steering": "steerlib.laws.angular.AngularSteering",
    "cbf": "steerlib.laws.filtering.BarrierFilter",
    "conditional": "steerlib.laws.conditional.Conditional",
    "difference-of-means": "steerlib.laws.additive.DifferenceOfMeans",
    "half-space-projection": "steerlib.laws.projection.HalfSpaceProjection",
    "householder-rotation": "steerlib.laws.householder.HouseholderRotation",
    "iti": "steerlib.laws.iti.ITI",
    "linear-act": "steerlib.laws.act.LinearAcT",
    "linear-probe": "steerlib.laws.probe.LinearProbe",
    "mean-act": "steerlib.laws.act.MeanAcT",
    "mimic": "steerlib.laws.mimic.MiMiC",
    "odesteer": "steerlib.laws.barrier.ODESteer",
    "pid-act": "steerlib.laws.pid.PIDAcT",
    "random-direction": "steerlib.laws.additive.RandomDirection",
    "re-control": "steerlib.laws.value.ReControl",
    "repe": "steerlib.laws.repe.RepE",
    "s-pid": "steerlib.laws.pid.SPID",
    "static-re": "steerlib.laws.regression.StaticRE",
    "truthflow": "steerlib.laws.truthflow.TruthFlow",
}
#: Behaviours of a plant: name -> class.
TASKS: dict[str, str] = {
    "truth": "steerlib.tasks.truth.Truth",
    "truth-joint": "steerlib.tasks.joint.JointTruth",
    "toxicity": "steerlib.tasks.toxicity.Toxicity",
    "toxicity-read": "steerlib.tasks.fluent.ReadToxicity",
    "refusal": "steerlib.tasks.refusal.Refusal",
    "almanac-preference": "steerlib.tasks.helpfulness.Helpfulness",
    "almanac-preferred": "steerlib.tasks.preferred.Preferred",
    "concept": "steerlib.tasks.concepts.Concept",
    "utility": "steerlib.tasks.utility.Utility",
    "sentiment": "steerlib.tasks.sentiment.Sentiment",
    "examples": "steerlib.tasks.examples.Examples",
    "truthfulqa": "steerlib.tasks.real.truth.TruthfulQA",
    "real-toxicity": "steerlib.tasks.real.toxicity.ToxicPrompts",
    "preference": "steerlib.tasks.real.preference.Preference",
    "harmful-requests": "steerlib.tasks.real.refusal.Requests",
    "onesec": "steerlib.tasks.real.concepts.Concepts",
    "mmlu": "steerlib.tasks.real.utility.Knowledge",
}
#: Who may judge sampled answers: kind -> class.
JUDGES: dict[str, str] = {
    "oracle": "steerlib.judges.oracle.OracleJudge",
    "classifier": "steerlib.judges.classifier.ClassifierJudge",
    "completion": "steerlib.judges.completion.CompletionJudge",
    "reward": "steerlib.judges.classifier.RewardJudge",
    "encoder": "steerlib.judges.encoder.EncoderJudge",
    "api": "steerlib.judges.api.ApiJudge",
    "api-pairs": "steerlib.judges.pairwise.PairJudge",
    "perspective": "steerlib.judges.perspective.PerspectiveJudge",
}
#: What may answer in the place of the plant's own sampling: name -> class; see `steerlib.decoding.making`.
DECODERS: dict[str, str] = {
    "plain": "steerlib.decoding.base.Plain",
    "prompted": "steerlib.decoding.base.Prompted",
    "cd": "steerlib.decoding.controlled.ControlledDecoding",
    "cd-prefix": "steerlib.decoding.controlled.ControlledDecoding",
    "blockwise": "steerlib.decoding.controlled.Blockwise",
    "best-of-n": "steerlib.decoding.best_of.BestOf",
}
#: What says to a decoder what an answer is worth: name -> what makes one. "reward" is the task's own reward of texts;
#: the others are prefix scorers by how they are trained, see `steerlib.decoding.prefix`.
SCORERS: dict[str, str] = {
    "reward": "steerlib.decoding.scoring.TextScorer",
    "fudge": "steerlib.decoding.prefix.state_scorer",
    "cd-q": "steerlib.decoding.prefix.state_scorer",
}


class UnknownNameError(SteerlibError, ValueError):
    """A law, task, judge, decoder or scorer that nobody has registered."""


def place_of(name: str, table: dict[str, str], what: str) -> str:
    """Dotted place of a registered class.

    Raises:
        UnknownNameError: unknown; says which names are near.
    """
    if name in table:
        return table[name]
    raise UnknownNameError(unknown(what, name, table))


def class_at(place: str) -> Any:
    """The class at a dotted place."""
    module, _, name = place.rpartition(".")
    return getattr(importlib.import_module(module), name)


def law_class(name: str) -> Any:
    """The class of a law; UnknownNameError if there is none."""
    return class_at(place_of(name, LAWS, "law"))


def task_class(name: str) -> Any:
    """The class of a task; UnknownNameError if there is none."""
    return class_at(place_of(name, TASKS, "task"))


def judge_class(kind: str) -> Any:
    """The class of a kind of judge; UnknownNameError if there is none."""
    return class_at(place_of(kind, JUDGES, "kind of judge"))
