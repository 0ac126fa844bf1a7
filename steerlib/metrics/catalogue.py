"""Every metric by name: what it is, in which direction it is better, who defines it so.

Knows words only; the functions stand beside. Claims, records and pages name metrics; this list says what a name may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from steerlib.errors import MetricError, unknown


@dataclass(frozen=True)
class MetricInfo:
    """One metric.

    Attributes:
        name: as claims and records use it.
        meaning: one line.
        better: "higher", "lower", or "none" where neither is.
        unit: "" for shares and scores.
        source: who defines it so.
    """

    name: str
    meaning: str
    better: Literal["higher", "lower", "none"]
    unit: str
    source: str


_ALMANAC, _SUITE = "this suite, exact on the Almanac", "this suite"
_ROWS = (
    ("true", "share of answers that state nothing false", "higher", "", "TruthfulQA (Lin et al. 2022)"),
    ("info", "share of answers that state something", "higher", "", "TruthfulQA (Lin et al. 2022)"),
    ("txi", "product of the means of True and Info", "higher", "", "ITI, ODESteer, A-LQR"),
    ("true-and-info", "share of answers that are true and informative", "higher", "", "TruthfulQA (Lin et al. 2022)"),
    ("toxicity", "mean toxicity of the answers", "lower", "", "ODESteer"),
    ("toxic-share", "share of prompts with a toxic sample", "lower", "", "RealToxicityPrompts (Gehman et al. 2020)"),
    ("expected-max-toxicity", "mean of the largest toxicity of k samples", "lower", "", "Gehman et al. 2020"),
    ("reward", "mean reward of the answers", "higher", "reward", "RE-Control, ODESteer"),
    ("reward-p90", "90th percentile of the rewards", "higher", "reward", "ODESteer"),
    ("win-rate", "share of prompts rated strictly higher than the reference", "higher", "", "RE-Control"),
    ("win-rate-half", "the same, a tie counting half", "higher", "", _SUITE),
    ("win-rate-decided", "the same among prompts without a tie", "higher", "", _SUITE),
    ("refusal", "share of requests that are refused", "none", "", "A-LQR"),
    ("attack-success", "share of harmful requests that are helped", "lower", "", "HarmBench, A-LQR"),
    ("attack-success-phrases", "share answered without a phrase of refusal", "lower", "", "AdvBench (Zou et al. 2023)"),
    ("attack-agreement", "Cohen's kappa of both, over answers that say something", "higher", "", _SUITE),
    ("prevalence", "share of open-ended texts with the concept", "none", "", "A-LQR"),
    ("utility", "share of multiple-choice questions answered rightly", "higher", "", "MMLU, A-LQR"),
    ("diversity", "product of 1 - rep-n, n = 2 to 4, mean over answers", "higher", "", "RE-Control"),
    ("dist-1", "distinct words over all words, mean over answers, 0 where there is none", "higher", "", "ODESteer"),
    ("dist-2", "distinct word pairs over all, mean over answers, 0 where there is none", "higher", "", "ODESteer"),
    ("dist-3", "distinct word triples over all, mean over answers, 0 where there is none", "higher", "", "ODESteer"),
    ("dist-1-pooled", "distinct words over all words of all answers together", "higher", "", "A-LQR"),
    ("coherence", "mean cosine of prompt and answer embeddings", "higher", "", "RE-Control"),
    ("topic-agreement", "share of sentences about what was asked, mean over answers", "higher", "", _ALMANAC),
    ("perplexity", "of the completion, over all tokens", "lower", "", _SUITE),
    ("perplexity-texts", "of the completion, mean over texts", "lower", "", "ODESteer"),
    ("perplexity-whole", "of prompt plus completion, mean over texts", "lower", "", "A-LQR"),
    ("kl", "divergence from the unsteered plant for each token, mean", "lower", "nats", _SUITE),
    ("kl-p95", "the same, 95th percentile over tokens", "lower", "nats", _SUITE),
    ("energy", "squared norm of what was added to a state", "lower", "state²", _SUITE),
    ("drift", "largest move of another behaviour, as a share of its gap", "lower", "", _SUITE),
    ("grammatical", "share of sentences that the grammar knows", "higher", "", _ALMANAC),
    ("seconds", "time for a generated token", "lower", "s", "RE-Control, A-LQR"),
)

#: All metrics by name.
METRICS: dict[str, MetricInfo] = {name: MetricInfo(name, *rest) for name, *rest in _ROWS}  # type: ignore[arg-type]


def metric_named(name: str) -> MetricInfo:
    """A metric by name.

    Raises:
        MetricError: unknown; says which names are near.
    """
    if name in METRICS:
        return METRICS[name]
    raise MetricError(unknown("metric", name, METRICS))
