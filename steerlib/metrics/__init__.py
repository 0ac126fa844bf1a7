"""Measures of a controlled plant, with intervals: effect, effort, fluency, side effects.

Each metric is defined once, and where papers differ each variant has a name (`METRICS`).

torchmetrics is not used: of what is here it knows the perplexity of tokens, a divergence of distributions, the area
under a curve and kappa, each a few lines on numpy; what is reported has BCa intervals over prompts and paired
differences between methods, which come from scipy and from the scores of each prompt.
"""

from steerlib.metrics.answers import (
    REFUSAL_PHRASES,
    attack_success,
    expected_maximum_toxicity,
    prevalence,
    refused,
    reward_quantile,
    toxic_share,
    true_and_informative,
    truth_times_info,
    unrefused,
    win_rate,
)
from steerlib.metrics.catalogue import METRICS, MetricInfo, metric_named
from steerlib.metrics.coherence import Embedder, SentenceEmbedder, coherence, coherence_each
from steerlib.metrics.differences import (
    Difference,
    detectable_effect,
    false_discovery,
    gap_closed,
    holm,
    paired_difference,
    paired_grid_difference,
    product_difference,
)
from steerlib.metrics.drift import Drift, Ends, drift
from steerlib.metrics.effort import (
    Divergence,
    Energy,
    Speed,
    TokenEffort,
    decoding_time,
    effort_by_token,
    input_energy,
    kl_by_token,
    kl_per_token,
    perplexity,
)
from steerlib.metrics.intervals import (
    Estimate,
    auc_interval,
    central_range,
    grid_interval,
    interval_of,
    mean_interval,
    product_interval,
)
from steerlib.metrics.text import (
    dist_n,
    diversity,
    diversity_each,
    ngrams,
    repetition,
    spaced,
    spaced_lower,
    words,
)

__all__ = [
    "Difference",
    "Divergence",
    "Drift",
    "Embedder",
    "Ends",
    "Energy",
    "Estimate",
    "METRICS",
    "MetricInfo",
    "REFUSAL_PHRASES",
    "SentenceEmbedder",
    "Speed",
    "TokenEffort",
    "attack_success",
    "auc_interval",
    "central_range",
    "coherence",
    "coherence_each",
    "decoding_time",
    "detectable_effect",
    "dist_n",
    "diversity",
    "diversity_each",
    "drift",
    "expected_maximum_toxicity",
    "false_discovery",
    "gap_closed",
    "grid_interval",
    "holm",
    "effort_by_token",
    "input_energy",
    "interval_of",
    "kl_by_token",
    "kl_per_token",
    "mean_interval",
    "metric_named",
    "ngrams",
    "paired_difference",
    "paired_grid_difference",
    "perplexity",
    "prevalence",
    "product_difference",
    "product_interval",
    "refused",
    "repetition",
    "reward_quantile",
    "spaced",
    "spaced_lower",
    "toxic_share",
    "true_and_informative",
    "truth_times_info",
    "unrefused",
    "win_rate",
    "words",
]
