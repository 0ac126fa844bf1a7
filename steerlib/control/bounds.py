"""How far a closed loop over depth can stray from a nominal trajectory: what is known afterwards, and what beforehand.

A nominal trajectory zbar_{k+1} = phi_k(zbar_k) is followed by z_{k+1} = phi_k(z_k) - K_k e_k, where e_k = z_k - zbar_k.
With A_k the Jacobian of phi_k at zbar_k and H_k = A_k - K_k,

    e_{k+1} = H_k e_k + rho_k,        rho_k = phi_k(z_k) - phi_k(zbar_k) - A_k e_k.                                 (1)

Errors are weighed by P_l = I, P_k = H_k' P_{k+1} H_k + I, |x|_P^2 = x' P x. If the Jacobian of phi_k is Lipschitz with
constant L_k in these weights, |rho_k| <= L_k |e_k|^2 / 2 in P_{k+1} and P_k (Taylor). Unrolling (1), with
Phi(k, i) = H_{k-1} .. H_i and its norm from P_i to P_k,

    |e_k| <= |Phi(k, 0)| |e_0| + sum_{i < k} |Phi(k, i + 1)| (L_i / 2) |e_i|^2.                                      (2)

`posterior_bound` is (2) with the errors that were measured on its right side, as the authors plot it: it explains an
error, and certifies nothing. `certificate` puts the bound itself in their place, b_i for |e_i|, and so needs |e_0| and
L alone. A fact that keeps both in proportion: as H' P H = P - I, one step contracts by exactly
sqrt(1 - 1 / lambda_max(P)), below one for every H, even where nothing is controlled and errors grow: the weights hold
the growth. So a bound says something only beside the same bound at K = 0, in one norm: at the last layer that is the
plain one, as P_l = I.

Source: Theorem 4.2 of A-LQR (Skifstad, Yang and Chou, ICML 2026), in a wording of ours.

Knows tensors; knows nothing about plants or laws. Takes every layer's matrix at once: for plants that are not large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.errors import LawError, unknown

Route = Literal["products", "steps"]
#: What the authors' script does otherwise than (2); see `released_bound`.
Defect = Literal["product", "weight", "largest", "norm"]


def lyapunov_weights(closed: Float[Tensor, "layers width width"]) -> Float[Tensor, "layers_and_one width width"]:
    """P_k of the text above, for k = 0 .. l; in float64.

    Args:
        closed: H_k = A_k - K_k.

    Raises:
        LawError: if it is not one square matrix for each layer, or a matrix or weight is not finite.
    """
    if closed.ndim != 3 or closed.shape[1] != closed.shape[2] or not len(closed):
        raise LawError(
            f"bounds: got closed loops of shape {tuple(closed.shape)}, expected (layers, width, width). "
            "Fix: the Jacobians less the gains, stacked."
        )
    eye = torch.eye(closed.shape[1], dtype=torch.float64, device=closed.device)
    found = [eye]
    for step in closed.detach().double().flip(0):
        weight = step.mT @ found[-1] @ step
        found.append((weight + weight.mT) / 2 + eye)
    if not bool(torch.isfinite(found[-1]).all()):
        raise LawError("bounds: got closed loops whose weights are not finite. Fix: look at the Jacobians' norms.")
    return torch.stack(found[::-1])


def weighted_norm(vectors: Float[Tensor, "*n width"], weight: Float[Tensor, "width width"]) -> Float[Tensor, "*n"]:
    """|x|_P; in float64.

    Args:
        vectors: x.
        weight: P, positive definite.

    Raises:
        LawError: if P is not positive definite.
    """
    return (vectors.double() @ _factor(weight)).norm(dim=-1)


def operator_norm(
    matrix: Float[Tensor, "width width"], before: Float[Tensor, "width width"], after: Float[Tensor, "width width"]
) -> Tensor:
    """The most by which a matrix makes a vector longer, measured by P before and by P' after; in float64.

    Args:
        matrix: M.
        before: weight P of M's input.
        after: weight P' of M's output.

    Raises:
        LawError: if a weight is not positive definite.
    """
    return torch.linalg.matrix_norm(_between(matrix.double(), _factor(before), _factor(after)), 2)


def transition_norms(
    closed: Float[Tensor, "layers width width"], weights: Float[Tensor, "layers_and_one width width"]
) -> Float[Tensor, "layers_and_one layers_and_one"]:
    """Entry (k, i) is the norm of Phi(k, i) from P_i to P_k, for i <= k; 1 where k = i, 0 above.

    Args:
        closed: H_k.
        weights: P_k; those of `lyapunov_weights`, or any positive definite ones, such as the costs S_k of a regulator.

    Raises:
        LawError: if a weight is not positive definite.
    """
    layers = len(closed)
    factors = [_factor(weight) for weight in weights]
    found = torch.eye(layers + 1, dtype=torch.float64, device=closed.device)
    for start in range(layers):
        passed = torch.eye(closed.shape[1], dtype=torch.float64, device=closed.device)
        for end in range(start + 1, layers + 1):
            passed = closed[end - 1].double() @ passed
            found[end, start] = torch.linalg.matrix_norm(_between(passed, factors[start], factors[end]), 2)
    return found


def contractions(weights: Float[Tensor, "layers_and_one width width"]) -> Float[Tensor, " layers"]:
    """The norm of each step H_k from P_k to P_{k+1}, for the weights of `lyapunov_weights`.

    It is sqrt(1 - 1 / lambda_max(P_k)): an identity, not a bound: H' P H = P - I. The paper has it as an inequality.

    Args:
        weights: P_k.
    """
    return (1 - 1 / torch.linalg.eigvalsh(weights[:-1].double())[:, -1]).sqrt()


def remainders(
    errors: Float[Tensor, "n layers_and_one width"], closed: Float[Tensor, "layers width width"]
) -> Float[Tensor, "n layers width"]:
    """rho_k of (1), from the errors of closed loops: what the linear model did not say.

    Args:
        errors: e_0 .. e_l.
        closed: H_k.
    """
    errors = errors.double()
    return errors[:, 1:] - torch.einsum("kij,nkj->nki", closed.double(), errors[:, :-1])


def error_sizes(
    errors: Float[Tensor, "n layers_and_one width"], weights: Float[Tensor, "layers_and_one width width"]
) -> Float[Tensor, "n layers_and_one"]:
    """|e_k| in P_k at every layer.

    Args:
        errors: e_0 .. e_l.
        weights: P_k.
    """
    return torch.stack([weighted_norm(errors[:, k], weight) for k, weight in enumerate(weights)], dim=1)


def curvatures(
    errors: Float[Tensor, "n layers_and_one width"],
    closed: Float[Tensor, "layers width width"],
    weights: Float[Tensor, "layers_and_one width width"],
) -> Float[Tensor, "n layers"]:
    """2 |rho_k| / |e_k|^2, the least L_k that explains what each trajectory did; nan where it had no error.

    The authors put its largest value over the trajectories that they plot in the place of L_k. That is a maximum over a
    sample, not over the set of states that a certificate would speak about.

    Args:
        errors: e_0 .. e_l.
        closed: H_k.
        weights: P_k.
    """
    rest = remainders(errors, closed)
    sizes = torch.stack([weighted_norm(rest[:, k], weight) for k, weight in enumerate(weights[1:])], dim=1)
    return 2 * sizes / error_sizes(errors, weights)[:, :-1].square()


def weighted_curvature(
    plain: Float[Tensor, " layers"], weights: Float[Tensor, "layers_and_one width width"]
) -> Float[Tensor, " layers"]:
    """A Lipschitz constant in the weights from one in plain norms: L_k sqrt(lambda_max(P_{k+1})), because P_k >= I.

    Args:
        plain: the Lipschitz constant of the Jacobian of phi_k in plain norms.
        weights: P_k of `lyapunov_weights`.
    """
    return plain.double() * torch.linalg.eigvalsh(weights[1:].double())[:, -1].sqrt()


def posterior_bound(
    closed: Float[Tensor, "layers width width"],
    weights: Float[Tensor, "layers_and_one width width"],
    errors: Float[Tensor, "n layers_and_one width"],
    *,
    curvature: Float[Tensor, "*n layers"] | None = None,
    norms: Float[Tensor, "layers_and_one layers_and_one"] | None = None,
) -> Float[Tensor, "n layers_and_one"]:
    """The right side of (2) with the errors that were measured.

    Args:
        closed: H_k.
        weights: P_k.
        errors: e_0 .. e_l of trajectories.
        curvature: L_k. By default the least that explains each trajectory by itself, so that |rho_i| stands in (2).
        norms: those of `transition_norms`, if they are there already; they take most of the time.

    Raises:
        LawError: if a weight is not positive definite.
    """
    sizes = error_sizes(errors, weights)
    if curvature is None:
        rest = remainders(errors, closed)
        added = torch.stack([weighted_norm(rest[:, k], weight) for k, weight in enumerate(weights[1:])], dim=1)
    else:
        added = curvature.double() / 2 * sizes[:, :-1].square()
    return torch.cat([sizes[:, :1], added], dim=1) @ (transition_norms(closed, weights) if norms is None else norms).mT


def certificate(
    closed: Float[Tensor, "layers width width"],
    weights: Float[Tensor, "layers_and_one width width"],
    start: Float[Tensor, " n"],
    curvature: Float[Tensor, " layers"],
    *,
    radius: Float[Tensor, " layers"] | None = None,
    route: Route = "products",
    norms: Float[Tensor, "layers_and_one layers_and_one"] | None = None,
) -> Float[Tensor, "n layers_and_one"]:
    """What |e_k| in P_k cannot exceed, from |e_0| and L alone: (2) with the bound in place of the errors.

    Args:
        closed: H_k.
        weights: P_k.
        start: |e_0| in P_0.
        curvature: L_k, on the ball of `radius` around the nominal state.
        radius: of the ball, in P_k, on which L_k holds; everywhere by default. From the layer on at which the bound
            leaves it nothing is certified, and the bound is infinite.
        route: "products" is (2); "steps" multiplies the contractions of single layers instead, b_{k+1} = g_k b_k +
            L_k b_k^2 / 2, which is never smaller.
        norms: those of `transition_norms`, if they are there already.

    Raises:
        LawError: unknown route, a start that is negative or not finite, or a weight that is not positive definite.
    """
    if route not in get_args(Route):
        raise LawError(f"bounds: {unknown('route', route, get_args(Route))}")
    if not bool((torch.isfinite(start) & (start >= 0)).all()):
        raise LawError(f"bounds: got a start of {float(start.min()):.4g}, expected finite norms of errors, at least 0.")
    norms = transition_norms(closed, weights) if norms is None else norms
    reach = torch.full_like(norms[0, 1:], torch.inf) if radius is None else radius.double()
    found, sources = [start.double()], [start.double()]
    for k in range(len(closed)):
        added = torch.where(found[-1] <= reach[k], curvature[k].double() / 2 * found[-1].square(), torch.inf)
        if route == "steps":
            found.append(norms[k + 1, k] * found[-1] + added)
        else:
            sources.append(added)
            found.append(torch.stack(sources, dim=1) @ norms[k + 1, : k + 2])
    return torch.stack(found, dim=1)


def released_bound(
    closed: Float[Tensor, "layers width width"],
    weights: Float[Tensor, "layers_and_one width width"],
    errors: Float[Tensor, "n layers_and_one width"],
    *,
    defects: Sequence[Defect] = get_args(Defect),
) -> Float[Tensor, "n layers_and_one"]:
    """What the authors' script computes in the place of (2), as it was read; no bound of anything.

    It differs in four things. "product": the first product lacks its last factor H_{k-1}. "weight": remainders are
    measured in P_k instead of P_{k+1}. "largest": L_k is the largest ratio over the trajectories given, which alone
    would do no harm. "norm": a norm is taken from the eigenvalues of P_i^-1 M' P_k M by a solver for symmetric
    matrices, which reads the lower half; for a single step that matrix is I - 1/P, symmetric, but not for products.

    Args:
        closed: H_k.
        weights: P_k.
        errors: e_0 .. e_l of the trajectories that are plotted.
        defects: which of the four; with none it is `posterior_bound`.

    Raises:
        LawError: unknown defect, or a weight that is not positive definite.
    """
    for defect in defects:
        if defect not in get_args(Defect):
            raise LawError(f"bounds: {unknown('defect', defect, get_args(Defect))}")
    rest, layers, sizes = remainders(errors, closed), len(closed), error_sizes(errors, weights)
    later = 0 if "weight" in defects else 1
    least = torch.stack([weighted_norm(rest[:, k], weights[k + later]) for k in range(layers)], dim=1)
    if "largest" in defects:
        least = (least / sizes[:, :-1].square()).amax(0) * sizes[:, :-1].square()
    norm = _released_norm if "norm" in defects else operator_norm
    lacking = 1 if "product" in defects else 0
    found = [sizes[:, 0]]
    for k in range(1, layers + 1):
        total = norm(_product(closed, k - lacking, 0), weights[0], weights[k]) * sizes[:, 0]
        for i in range(k):
            total = total + norm(_product(closed, k, i + 1), weights[i + 1], weights[k]) * least[:, i]
        found.append(total)
    return torch.stack(found, dim=1)


def _factor(weight: Tensor) -> Tensor:
    """C of P = C C'."""
    factor, failed = torch.linalg.cholesky_ex(weight.double())
    if int(failed):
        raise LawError(
            "bounds: got a weight that is not positive definite to rounding. Fix: weights of `lyapunov_weights`; if it "
            "is one, the closed loop's norms span more than float64 holds."
        )
    return factor


def _between(matrix: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """C_after' M C_before^-T, whose plain norm is the weighted one."""
    return torch.linalg.solve_triangular(before.mT, after.mT @ matrix, upper=True, left=False)


def _product(closed: Tensor, end: int, start: int) -> Tensor:
    """Phi(end, start)."""
    passed = torch.eye(closed.shape[1], dtype=torch.float64, device=closed.device)
    for k in range(start, end):
        passed = closed[k].double() @ passed
    return passed


def _released_norm(matrix: Tensor, before: Tensor, after: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(torch.linalg.solve(before, matrix.mT @ after @ matrix))[-1].clamp(min=0).sqrt()
