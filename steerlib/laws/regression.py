"""Push along the gradient of a linear estimate of the reward (Static RE, the baseline of Kong et al. 2024).

u(z) = w, with reward = w.z + b fitted by least squares on the state after the prompt and the reward that is expected
of the answer. The same vector at every step: RE-Control with a linear value function and without feedback.

The paper leaves layer, normalisation, penalty and strength open. Here the penalty is

    sum_i (w.(z_i - mean) - (r_i - mean))^2 + ridge * s * |w|^2,    s = mean square of (z_i - mean) * examples / width,

so that ridge counts in units of the mean eigenvalue of the states' scatter and means the same at every layer.
With ``ridge=0`` this is ordinary least squares, which has no answer where there are more features than examples, or
collinear ones: it is refused there. With a ridge the answer is always unique.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.errors import LawError
from steerlib.laws.additive import Additive
from steerlib.laws.base import Contrast, Source, norm_or_raise, one_of
from steerlib.laws.scored import Scored

RewardScale = Literal["raw", "unit"]
Rewards = Literal["expected", "labels"]


class StaticRE(Additive):
    """Add the weights of a linear regression of the expected reward on the state.

    Args:
        ridge: penalty, in units of the mean eigenvalue of the states' scatter; 0 for ordinary least squares.
        rewards: "expected" asks the source for prompts and what the plant's answers to them are expected to earn, as
            in the paper; "labels" takes a contrast, 1 for the positive class and 0 for the negative one, for behaviours
            whose bare prompts hardly differ in what they earn.
        scale: "raw" adds the weights themselves (reward per unit of state), the gradient step of the paper; "unit"
            makes strength a length.
        strength: multiplier of the vector.
    """

    explained: Float[Tensor, ""]

    def __init__(
        self,
        *,
        ridge: float = 0.1,
        rewards: Rewards = "expected",
        scale: RewardScale = "raw",
        strength: float = 1.0,
    ) -> None:
        """Choose the penalty, the rewards and the unit of strength."""
        super().__init__(strength=strength)
        if not (isinstance(ridge, (int, float)) and 0 <= ridge < float("inf")):
            raise LawError(f"ridge: got {ridge!r}, expected a number from 0 (ordinary least squares) on.")
        self.ridge = float(ridge)
        self.rewards: Rewards = one_of("rewards", rewards, Rewards)
        self.scale: RewardScale = one_of("scale", scale, RewardScale)
        self.register_buffer("explained", torch.tensor(float("nan")))

    def options(self) -> dict[str, Any]:
        """The penalty, the rewards and the unit of strength."""
        return {"ridge": self.ridge, "rewards": self.rewards, "scale": self.scale}

    def fit_from(self, source: Source) -> Self:
        """Fit on states after prompts and the rewards expected there, or on the labels of a contrast."""
        if self.rewards == "labels":
            return super().fit_from(source)
        return self.fit_scored(source.scored([source.site])[0])

    def fit(self, contrast: Contrast) -> Self:
        """Fit on a contrast as if it were rewards: 1 for the positive class, 0 for the negative one."""
        return self.fit_scored(Scored.of_classes(contrast))

    def fit_scored(self, scored: Scored) -> Self:
        """Fit the regression, in float64. The buffer `explained` keeps the share of the variance it explains there.

        Raises:
            LawError: if the rewards or the states do not vary, or there is no unique answer without a ridge.
        """
        states = scored.states.double()
        states = states - states.mean(0)
        rewards = scored.rewards.double().to(states.device)
        spread = rewards.max() - rewards.min()
        if spread <= 1e-12 * rewards.abs().max():
            raise LawError(f"rewards: all {len(rewards)} are {float(rewards[0]):g}, expected some that differ.")
        rewards = rewards - rewards.mean()
        if states.abs().max() <= 1e-12 * scored.states.abs().max():
            raise LawError("states: all are the same, expected some that differ. Likely cause: wrong token.")
        causes = ["no coordinate goes with the reward"]
        norm_or_raise(states.T @ rewards, "regression on rewards", causes, beside=float(states.norm() * rewards.norm()))
        weight = _least_squares(states, rewards, self.ridge)
        norm = norm_or_raise(weight, "regression on rewards", causes)
        self.explained = (1 - (rewards - states @ weight).square().sum() / rewards.square().sum()).float()
        self.vector = (weight / norm if self.scale == "unit" else weight).float()
        self.header = scored.header
        return self


def _least_squares(states: Tensor, rewards: Tensor, ridge: float) -> Float[Tensor, " width"]:
    """Weights of centred states, by a Cholesky factor of the smaller of the two squares of the data."""
    examples, width = states.shape
    penalty = ridge * states.square().sum() / width
    if ridge == 0 and examples <= width:
        raise LawError(
            f"regression: got {examples} examples of {width} features, where ordinary least squares has no unique "
            "answer. Fix: ridge > 0, or more examples than features."
        )
    tall = examples > width
    square = states.T @ states if tall else states @ states.T
    square.diagonal().add_(penalty)
    factor, failed = torch.linalg.cholesky_ex(square)
    edge = factor.diagonal()
    if failed or edge.min() <= 1e-7 * edge.max():
        raise LawError(
            f"regression: the features are collinear for a ridge of {ridge:g}, so the answer is not unique. "
            "Fix: a larger ridge, or more examples."
        )
    right = states.T @ rewards if tall else rewards
    found = torch.cholesky_solve(right[:, None], factor)[:, 0]
    return found if tall else states.T @ found
