"""TruthFlow: a correction of one's own for each question, sampled once by a rectified flow and held while answering.

The flow leads from the state h at the last token of a question to the correction of its answer: the mean state over
the tokens of a right answer minus that of a wrong one (Wang et al. 2025). While the plant answers, every token gets

    z + strength * P c(h),    c(h) = x(1),   d x / d t = v(x, t),   x(0) = h,

where v is learned (`steerlib.control.flow`) and P projects on the leading right singular vectors of the corrections
seen in fitting. In the control view: feedforward from one measurement, then open loop. What the flow can find of a
dependence on the question has a limit of its own, which `steerlib.control.flow` states.

Where released code and this file differ; its settings are given where they have a name here.

- Both ends are brought to mean zero and mean square one before the flow is learned (`scaled=True`). States of a plant
  are many times as long as corrections, and a flow between them spends its accuracy on getting rid of the question;
  corrections that are all alike are then met exactly. `scaled=False` is as released.
- At width 4096 the network is a quarter as wide; it has no batch normalisation, a path past its narrow layers
  (`control.flow.Velocity`), a time embedding of 64 numbers (released: 128), and takes more updates on few questions
  (`updates`; released: 40 passes over 400 questions in batches of 136, 120 updates of which 100 warm up, rate 1e-4);
  the weights that are best on held-out questions are kept.
- Euler steps by default; released: midpoint rule on 15 steps (`solver="midpoint", steps=15`).
- The code adds the correction to every token, the question's included: that is scope "all"; "generated" is the text.
- The code measures at the input of the block at whose output it adds, one block earlier; here both are one site.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.actuator import Pass, prompt_ends
from steerlib.control.flow import Solver, Velocity, integrate, straight_loss
from steerlib.control.networks import History, Training, frozen, seeded, train
from steerlib.control.spectra import leading_axes
from steerlib.errors import ContrastError, LawError
from steerlib.laws.answers import Answers
from steerlib.laws.base import Contrast, Law, Source, one_of

#: As released: updates of rising rate, share below which it does not fall, questions in an update, weight decay.
WARM_UP, FLOOR, BATCH, DECAY = 100, 0.7, 136, 0.01
#: Inner layers are twice as wide as the states, within these limits; size of the time embedding.
SIZES, TIME = (128, 512), 64
#: Singular values below this share of the largest belong to rounding.
RANK = 1e-5


class TruthFlow(Law):
    """Add a correction that a flow finds from the question, once for each answer.

    As a plain function (`law(states)`) every state is taken for a question of its own. On a plant it looks once, at the
    last token of each row's prompt, and adds what it found to every token that its scope names.

    Args:
        k: leading right singular vectors of the corrections to project on; fewer where they have a lower rank.
        scaled: learn the flow between standardised ends; see the module's text.
        depth: halvings of the network.
        rate: highest learning rate.
        updates: most updates.
        held_out: share of the questions that is not trained on and decides which weights are kept.
        steps: of the solver.
        solver: "euler" or "midpoint".
        seed: of initial weights, order, times and held-out questions.
        strength: multiplier of the correction (released: 1.5).

    Attributes:
        history: what training did; None for a law that was loaded.
    """

    sees_pass = True
    axes: Float[Tensor, "k width"]
    start: Float[Tensor, " width"]
    end: Float[Tensor, " width"]
    sizes: Float[Tensor, " ends"]

    def __init__(
        self,
        *,
        k: int = 20,
        scaled: bool = True,
        depth: int = 4,
        rate: float = 1e-3,
        updates: int = 1500,
        held_out: float = 0.1,
        steps: int = 20,
        solver: Solver = "euler",
        seed: int = 0,
        strength: float = 1.0,
    ) -> None:
        """Choose the flow and how it is learned."""
        super().__init__(strength=strength)
        for name, got in (("k", k), ("depth", depth), ("updates", updates), ("steps", steps)):
            if got < 1:
                raise LawError(f"{name}: got {got}, expected at least 1.")
        one_of("solver", solver, Solver)
        Training(steps=1, batch=1, rate=rate, held_out=held_out)  # refuses what cannot be meant
        self.k, self.scaled, self.depth, self.rate, self.updates = k, scaled, depth, rate, updates
        self.held_out, self.steps, self.seed = held_out, steps, seed
        self.solver: Solver = solver
        for name, shape in (("axes", (0, 0)), ("start", (0,)), ("end", (0,)), ("sizes", (2,))):
            self.register_buffer(name, torch.zeros(shape))
        # A place for the weights, which a fit or a file brings.
        self.velocity: Velocity = frozen(seeded(lambda: self._network(1), seed=seed))
        self.history: History | None = None
        self._held: Tensor | None = None

    def options(self) -> dict[str, Any]:
        """The flow and how it is learned."""
        names = ("k", "scaled", "depth", "rate", "updates", "held_out", "steps", "solver", "seed")
        return {name: getattr(self, name) for name in names}

    def _network(self, width: int) -> Velocity:
        return Velocity(width, size=min(max(SIZES[0], 2 * width), SIZES[1]), depth=self.depth, time=TIME)

    # While running

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The projected correction of each state, taken for a question; in float32.

        Raises:
            LawError: if the law has not been fitted, or was fitted for another width.
        """
        if self.start.shape[0] != state.shape[-1]:
            held = f"a flow of width {self.start.shape[0]}" if len(self.start) else "no flow: it is not fitted"
            raise LawError(f"TruthFlow: holds {held}; the state has width {state.shape[-1]}. Fix: fit it.")
        at_start = (state.float() - self.start) / self.sizes[0]
        found = self.end + self.sizes[1] * integrate(self.velocity, at_start, steps=self.steps, solver=self.solver)
        return (found @ self.axes.T) @ self.axes

    def during(self, state: Float[Tensor, "batch time width"], now: Pass) -> Float[Tensor, "batch time width"]:
        """Look at the end of each prompt when it passes, and push by what was found from then on.

        Raises:
            LawError: if a pass continues answers whose prompts the law has not seen.
        """
        if not now.decoding:
            ends = prompt_ends(now, (state.shape[0], state.shape[1]), state.device)
            self._held = self.input(state[torch.arange(len(state), device=state.device), ends])
        held = self._held
        if held is None or held.shape[0] != state.shape[0]:
            got = "no prompt" if held is None else f"{held.shape[0]} prompts"
            raise LawError(
                f"TruthFlow: got a pass that continues {state.shape[0]} answers after {got}. "
                "Fix: attach the law before the prompts are read."
            )
        return self.moved(state, held[:, None])

    # Fitting

    def fit(self, contrast: Contrast) -> Self:
        """Refused: two classes of states do not say what was asked.

        Raises:
            ContrastError: always.
        """
        raise ContrastError(
            f"TruthFlow: got {len(contrast.positive)} positive and {len(contrast.negative)} negative states, expected "
            "questions with a right and a wrong answer. Fix: fit_from(source) or fit_answers(Answers(...))."
        )

    def fit_from(self, source: Source) -> Self:
        """Fit on the source's questions and answers."""
        return self.fit_answers(source.answers([source.site])[0])

    @torch.inference_mode(False)
    def fit_answers(self, answers: Answers) -> Self:
        """Learn the flow.

        Raises:
            LawError: if right and wrong answers are the same everywhere, or training does not converge.
        """
        device = answers.query.device
        query, correction = (s.detach().cpu().double().clone() for s in (answers.query, answers.correction))
        axes = leading_axes(correction, self.k, rank=RANK)
        if not len(axes):
            raise LawError("TruthFlow: got corrections that are all zero. Likely cause: right and wrong are the same.")
        (start, near, first), (end, far, second) = (self._standardised(s) for s in (query, correction))
        network = seeded(lambda: self._network(query.shape[1]), seed=self.seed)
        chance = torch.Generator().manual_seed(self.seed)

        def loss(rows: Tensor, held_out: bool) -> Tensor:
            # Held-out questions are looked at at the same times each time, so that looks can be compared.
            even = (torch.arange(len(rows)) + 0.5) / len(rows)
            times = even if held_out else torch.rand(len(rows), generator=chance)
            return straight_loss(network, first[rows], second[rows], times)

        how = Training(
            steps=self.updates, batch=BATCH, rate=self.rate, warm_up=min(WARM_UP, self.updates // 2),
            schedule="cosine", floor=FLOOR, decay=DECAY, held_out=self.held_out, patience=self.updates,
        )  # fmt: skip
        self.history = train(network, loss, rows=len(query), how=how, seed=self.seed)
        self.velocity = frozen(network).to(device)
        self.axes, self.start, self.end = (t.float().to(device) for t in (axes, start, end))
        self.sizes = torch.tensor([near or 1.0, far]).to(device)
        self.header, self._held = answers.header, None
        return self

    def _standardised(self, states: Float[Tensor, "n width"]) -> tuple[Tensor, float, Float[Tensor, "n width"]]:
        """Mean and size of one end of the flow, and the states without them."""
        if not self.scaled:
            return torch.zeros_like(states[0]), 1.0, states.float()
        mean = states.mean(0)
        size = float((states - mean).square().mean().sqrt())
        # States that are all alike differ by rounding only: nothing that a flow should learn.
        if size <= RANK * float(mean.abs().max()):
            return mean, 0.0, torch.zeros_like(states).float()
        return mean, size, ((states - mean) / size).float()

    def __getstate__(self) -> dict[str, Any]:
        """A copy has seen no prompt."""
        return self.__dict__ | {"_held": None}
