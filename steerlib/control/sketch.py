"""Random features whose inner products are kernels: polynomial count sketch, and random Fourier features.

**Count sketch.** Each coordinate i of a vector e gets a bucket u(i) in 0 .. D-1 and a sign s(i), both at random, and

    S(e)[t] = sum over i with u(i) = t of s(i) e_i.

A product of p independent sketches under circular convolution is a sketch of the p-fold products of coordinates (Pham
and Pagh 2013, TensorSketch): with e(x) = (sqrt(gamma) x, sqrt(c0)),

    phi(x) = S_1(e) * ... * S_p(e),        E <phi(x), phi(y)> = <e(x), e(y)>^p = (gamma x.y + c0)^p,

and a convolution is a product of Fourier transforms: O(d + D log D) in place of d^p.

**Variance.** With q = <e(x), e(y)>, N = |e(x)|^2 |e(y)|^2 - sum_i e_i(x)^2 e_i(y)^2, M = q^2 - sum_i e_i(x)^2 e_i(y)^2,
and A_k the circular cross-correlation of S_k(e(x)) and S_k(e(y)), fully random hashes give

    E A(t) A(t') = q^2 [t = t' = 0] + (N [t = t'] + M [t = -t'] ) / D,

whose double Fourier transform at frequencies (a, b) is q^2 + N [a = -b] + M [a = b]. <phi(x), phi(y)> sums the products
A_1(t_1) .. A_p(t_p) with t_1 + .. + t_p = 0, so its second moment is the mean over (a, b) of the p-th power of that
(`PolynomialSketch.variance`; for p = 1 it is the (N + M) / D of a count sketch).

**Gradient.** w.phi(x) is linear in each S_k, with coefficients that are the circular correlation of w with the product
of the others: what stands at the bucket of coordinate i, times its sign, is the derivative by e_i. No autograd.

**Degree two** is a quadratic form in disguise (`PolynomialSketch.quadratic`): coordinate pairs (i, j) go to one bucket,
so w.phi(x) = sum_ij w[u_1(i) + u_2(j) mod D] s_1(i) s_2(j) e_i e_j.

Knows tensors; knows nothing about classes, plants or laws.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
from jaxtyping import Complex, Float, Int, Int8
from torch import Tensor

from steerlib.errors import LawError

_ROWS = 256  # of a stream: some tens of megabytes at the paper's dimension


class PolynomialSketch(NamedTuple):
    """A drawn feature map for the kernel (gamma x.y + c0)^degree.

    Attributes:
        buckets: u_k(i), the last column that of the constant.
        signs: s_k(i).
        dimension: D, how many features.
        gamma: weight of the inner product, positive.
        c0: the constant, not negative.
    """

    buckets: Int[Tensor, "degree width_and_one"]
    signs: Int8[Tensor, "degree width_and_one"]
    dimension: int
    gamma: float
    c0: float

    @classmethod
    def draw(
        cls, width: int, *, dimension: int = 8000, degree: int = 2, gamma: float = 0.1, c0: float = 1.0, seed: int = 0
    ) -> Self:
        """Draw the hashes. The defaults are ODESteer's (Zhao et al. 2026); its class has other ones.

        Args:
            width: d, size of x.
            dimension: D.
            degree: p.
            gamma: see the class.
            c0: see the class.
            seed: of the hashes.

        Raises:
            LawError: if a number has no meaning, or the dimension is so small that an inner product is noise: below
                3^degree its standard deviation may exceed what it estimates.
        """
        for name, got in (("width", width), ("degree", degree)):
            if isinstance(got, bool) or not isinstance(got, int) or got < 1:
                raise LawError(f"sketch: got {name}={got!r}, expected a whole number of at least 1.")
        for name, got, least in (("gamma", gamma, "positive"), ("c0", c0, "non-negative")):
            if not (math.isfinite(got) and (got > 0 or (got == 0 and least == "non-negative"))):
                raise LawError(f"sketch: got {name}={got!r}, expected a {least} number.")
        if not isinstance(dimension, int) or dimension < 3**degree:
            raise LawError(
                f"sketch: got dimension {dimension!r}, expected at least 3^degree = {3**degree}: with fewer features "
                "the noise of an inner product may be larger than itself. Fix: a larger dimension; the paper has 8000."
            )
        generator = torch.Generator().manual_seed(seed)
        shape = (degree, width + 1)
        buckets = torch.randint(dimension, shape, generator=generator)
        signs = 2 * torch.randint(2, shape, generator=generator) - 1
        return cls(buckets, signs.to(torch.int8), dimension, float(gamma), float(c0))

    @property
    def degree(self) -> int:
        """The power p of the kernel."""
        return self.buckets.shape[0]

    @property
    def width(self) -> int:
        """Size of x."""
        return self.buckets.shape[1] - 1

    # Features

    def features(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch dimension"]:
        """The features phi(x)."""
        return torch.fft.irfft(self.spectrum(x), n=self.dimension)

    def spectrum(self, x: Float[Tensor, "*batch width"]) -> Complex[Tensor, "*batch frequencies"]:
        """Fourier transform of phi(x), the half of it that a real vector has."""
        first, *others = self._sketches(self._extended(x))
        for one in others:
            first = first * one
        return first

    def table(self, rows: Float[Tensor, "n width"]) -> Float[Tensor, "n columns"]:
        """Features of many rows in an orthonormal basis of frequencies, without the way back; made piece by piece.

        Lengths and inner products, and so a fit with a quadratic penalty, are those of phi; `weight_of` leads back.
        """
        scale = self._scale(rows)
        out = rows.new_empty(len(rows), 2 * len(scale))
        for start in range(0, len(rows), _ROWS):
            part = torch.view_as_real(self.spectrum(rows[start : start + _ROWS]))
            torch.mul(part, scale[:, None], out=out[start : start + _ROWS].view(part.shape))
        return out

    def weight_of(self, found: Float[Tensor, " columns"]) -> Float[Tensor, " dimension"]:
        """The weight of phi that gives what a weight of `table` gives."""
        pairs = torch.view_as_complex(found.reshape(-1, 2).contiguous())
        return torch.fft.irfft(pairs / self._scale(found), n=self.dimension)

    # With a weight w

    def logit(self, x: Float[Tensor, "*batch width"], weight: Float[Tensor, " dimension"]) -> Float[Tensor, "*batch"]:
        """w.phi(x)."""
        return self.features(x) @ weight

    def gradient(
        self, x: Float[Tensor, "*batch width"], weight: Float[Tensor, " dimension"]
    ) -> Float[Tensor, "*batch width"]:
        """Gradient of w.phi(x) by x, in closed form (for each factor, the correlation of w with the others)."""
        sketches, towards = self._sketches(self._extended(x)), torch.fft.rfft(weight)
        total = torch.zeros_like(x)
        for k in range(self.degree):
            others = towards
            for j in range(self.degree):
                others = others * sketches[j].conj() if j != k else others
            slopes = torch.fft.irfft(others, n=self.dimension)
            total = total + slopes[..., self.buckets[k, :-1]] * self.signs[k, :-1].to(x.dtype)
        return math.sqrt(self.gamma) * total

    def pushed(
        self, x: Float[Tensor, "*batch width"], tangent: Float[Tensor, "*batch width"]
    ) -> Float[Tensor, "*batch dimension"]:
        """Jacobian of phi at x times a tangent."""
        sketches = self._sketches(self._extended(x))
        moved = self._sketches(torch.nn.functional.pad(math.sqrt(self.gamma) * tangent, (0, 1)))
        total = torch.zeros_like(moved[0])
        for k in range(self.degree):
            term = moved[k]
            for j in range(self.degree):
                term = term * sketches[j] if j != k else term
            total = total + term
        return torch.fft.irfft(total, n=self.dimension)

    def quadratic(
        self, weight: Float[Tensor, " dimension"]
    ) -> tuple[Float[Tensor, "width width"], Float[Tensor, " width"], Float[Tensor, ""]]:
        """B, m and c with w.phi(x) = x.B x + m.x + c exactly, for degree 1 or 2; B is symmetric.

        Raises:
            LawError: for a higher degree, which is no quadratic form.
        """
        sizes = weight.new_tensor([math.sqrt(self.gamma)] * self.width + [math.sqrt(self.c0)])
        signed = self.signs.to(weight.dtype) * sizes
        if self.degree == 1:
            linear = weight[self.buckets[0]] * signed[0]
            return weight.new_zeros(self.width, self.width), linear[:-1], linear[-1]
        if self.degree != 2:
            raise LawError(f"sketch: degree {self.degree} is no quadratic form, expected 1 or 2. Fix: route='sketch'.")
        both = weight[(self.buckets[0][:, None] + self.buckets[1]) % self.dimension]
        both *= signed[0][:, None]
        both *= signed[1]
        inner = both[:-1, :-1]
        return (inner + inner.T) / 2, both[:-1, -1] + both[-1, :-1], both[-1, -1].clone()

    # The kernel

    def kernel(self, x: Float[Tensor, "*batch width"], y: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """(gamma x.y + c0)^degree: what inner products of features are on average over seeds."""
        return (self.gamma * (x * y).sum(-1) + self.c0) ** self.degree

    def variance(self, x: Float[Tensor, "*batch width"], y: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """Variance of an inner product of features over seeds, exact; see the module's text."""
        ex, ey, size, p = self._extended(x), self._extended(y), self.dimension, self.degree
        shared = (ex * ey).square().sum(-1)
        q2 = (ex * ey).sum(-1).square()
        n, m = ex.square().sum(-1) * ey.square().sum(-1) - shared, q2 - shared
        both = 2 - size % 2  # frequencies that are their own opposite: 0, and D / 2 if D is even
        second = (q2 + n) ** p * (size - both) + (q2 + m) ** p * (size - both) + (q2 + n + m) ** p * both
        return (second - q2**p * (2 * size - both)) / size**2

    # Parts

    def _extended(self, x: Tensor) -> Float[Tensor, "*batch width_and_one"]:
        if x.shape[-1] != self.width:
            raise LawError(f"sketch: drawn for width {self.width}, got states of width {x.shape[-1]}.")
        return torch.nn.functional.pad(math.sqrt(self.gamma) * x, (0, 1), value=math.sqrt(self.c0))

    def _sketches(self, e: Float[Tensor, "*batch width_and_one"]) -> list[Complex[Tensor, "*batch frequencies"]]:
        """Fourier transform of each S_k(e)."""
        found = []
        for k in range(self.degree):
            empty = e.new_zeros(*e.shape[:-1], self.dimension)
            signed = e * self.signs[k].to(e.dtype)
            found.append(torch.fft.rfft(empty.scatter_add(-1, self.buckets[k].expand(e.shape), signed)))
        return found

    def _scale(self, like: Tensor) -> Float[Tensor, " frequencies"]:
        """What makes the frequencies an orthonormal basis: every frequency stands for itself and its opposite."""
        size = self.dimension
        scale = like.new_full((size // 2 + 1,), math.sqrt(2 / size))
        scale[0] = math.sqrt(1 / size)
        if size % 2 == 0:
            scale[-1] = math.sqrt(1 / size)
        return scale


class FourierFeatures(NamedTuple):
    """Random Fourier features of the Gaussian kernel exp(-|x - y|^2 / (2 sigma^2)) (Rahimi and Recht 2007).

    phi(x) = sqrt(2 / D) cos(Omega x + beta), with rows of Omega drawn from N(0, I / sigma^2) and beta uniform.

    Attributes:
        frequencies: Omega.
        phases: beta.
    """

    frequencies: Float[Tensor, "dimension width"]
    phases: Float[Tensor, " dimension"]

    @classmethod
    def draw(cls, width: int, *, dimension: int = 8000, sigma: float = 1.0, seed: int = 0) -> Self:
        """Draw the features, in float64.

        Args:
            width: d, size of x.
            dimension: D.
            sigma: width of the kernel, in units of x.
            seed: of the features.

        Raises:
            LawError: if a number has no meaning.
        """
        if dimension < 1 or not (math.isfinite(sigma) and sigma > 0):
            raise LawError(f"features: got dimension={dimension}, sigma={sigma}; expected positive numbers.")
        generator = torch.Generator().manual_seed(seed)
        frequencies = torch.randn(dimension, width, generator=generator, dtype=torch.float64) / sigma
        phases = 2 * math.pi * torch.rand(dimension, generator=generator, dtype=torch.float64)
        return cls(frequencies, phases)

    def features(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch dimension"]:
        """The features phi(x)."""
        return math.sqrt(2 / len(self.phases)) * (x @ self.frequencies.T + self.phases).cos()

    def logit(self, x: Float[Tensor, "*batch width"], weight: Float[Tensor, " dimension"]) -> Float[Tensor, "*batch"]:
        """w.phi(x)."""
        return self.features(x) @ weight

    def gradient(
        self, x: Float[Tensor, "*batch width"], weight: Float[Tensor, " dimension"]
    ) -> Float[Tensor, "*batch width"]:
        """Gradient of w.phi(x) by x."""
        slopes = weight * (x @ self.frequencies.T + self.phases).sin()
        return -math.sqrt(2 / len(self.phases)) * (slopes @ self.frequencies)


def median_bandwidth(rows: Float[Tensor, "n width"], *, most: int = 500, seed: int = 0) -> float:
    """Median distance between rows, over sqrt(2): the sigma of ODESteer's released code, on at most so many rows.

    Raises:
        LawError: if the rows are all the same.
    """
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most]
    apart = torch.nn.functional.pdist(rows[chosen.to(rows.device)].double())
    found = float(apart.median()) / math.sqrt(2) if len(apart) else 0.0
    if not found > 0:
        raise LawError("features: got rows that are all the same, which have no distance. Fix: more texts.")
    return found
