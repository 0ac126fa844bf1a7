"""Fine-tuning as a comparator: low-rank adapters by direct preference optimisation and by policy optimisation.

What a control law is compared with changes the plant's weights instead of its states. Both methods run through TRL and
PEFT, which are an extra (``make env EXTRAS=1``); a finished adapter is read without them (`tuned_plant`).
"""

from __future__ import annotations

from steerlib.tuning.adapters import Lora, Tuned, TuningError, linear_names, load_tuned, tuned_plant
from steerlib.tuning.policy import ppo, task_reward
from steerlib.tuning.preferences import dpo, preferences
from steerlib.tuning.running import Training
from steerlib.tuning.shipped import load_plant, recipe_of, shipped_adapters

__all__ = [
    "Lora",
    "Training",
    "Tuned",
    "TuningError",
    "dpo",
    "linear_names",
    "load_plant",
    "load_tuned",
    "ppo",
    "preferences",
    "recipe_of",
    "shipped_adapters",
    "task_reward",
    "tuned_plant",
]
