"""The search for extreme eigenpairs in a growing basis: when they count as found, and copies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from isoloss.hessian.lanczos import LanczosBasis, Ritz
from isoloss.hessian.operators.protocol import unit_roundoff
from isoloss.hessian.operators.vectors import largest_entry, norm

# Residuals below this many roundings of the norm are noise: no eigenvalue is asked for better.
ROUNDINGS = 10
# Residual asked for where no tolerance is given, relative to the eigenvalue,
DEFAULT_TOL = 1e-4
# of the smallest relative to the norm (their neighbours are near, what they are asked for is sign
# and size),
OF_THE_NORM = 1e-5
# and the largest asymmetry of products, in roundings of the norm, that then passes for rounding.
ATTAINABLE_ROUNDINGS = 10_000
# A start's component along a given direction is below this many of its root mean square, 1/sqrt(n),
# once in 1000: the chance that a search overlooks a copy.
OVERLOOKED = 0.00125
DISTINCT = "distinct eigenvalues: copies were not searched for"


@dataclass(frozen=True)
class _Found:
    """Converged pairs: what they are, and what they are within."""

    values: Tensor
    residuals: Tensor
    limits: Tensor
    within: str


class Search:
    """The state of a search: a basis, the pairs wanted from it, and those found.

    Once the wanted pairs have converged they become the first rows of the basis, and stay there
    unchanged while a new random start looks for copies of them in their complement.
    """

    def __init__(
        self, basis: LanczosBasis, k: int, smallest: int, tol: float | None, confirm: int
    ) -> None:
        self.basis = basis
        self._k, self._smallest, self._tol, self._confirm = k, smallest, tol, confirm
        self._found: _Found | None = None  # what a new random start is to confirm
        self._began = 0  # row of the basis at which that start began
        self._ritz: Ritz | None = None
        self.converged = False
        self.copies_searched = False
        self.reason = ""

    def advance(self) -> None:
        """Spend one product, making room first where the basis is full."""
        if self.basis.full:
            self._restart()
        self.basis.step()

    def finished(self, max_products: int) -> bool:
        """Decide whether to stop, and begin a new start where one is due."""
        basis = self.basis
        if basis.count < min(self._k + self._smallest, basis.operator.size):
            return False
        ritz = self._ritz = basis.ritz()
        chosen = self._chosen(ritz)
        values, residuals, skews = (x[chosen] for x in (ritz.values, ritz.residuals, ritz.skews))
        limits = self._limits(values, skews)
        if basis.complete:
            self._found, self.converged, self.copies_searched = None, True, True
            self.reason = "the basis spans the whole space: the spectrum is exact to rounding"
            return True
        if self._found is not None:
            changes = (values - self._found.values).abs()
            if bool((changes <= self._found.residuals + limits).all()):
                return self._confirmed(max_products)
            self._found = None  # copies show: on until they, too, have converged
        met = residuals <= limits
        self.converged = bool(met.all())
        within = self._accuracy(values, residuals)
        if not self.converged and bool((met | (residuals < 2 * skews)).all()):
            self.reason = (
                f"the products are symmetric only to {float(skews.max()):.1g}, which tol = "
                f"{self._tol or DEFAULT_TOL:g} is below\nraise tol, or compute in float64"
            )
            return True
        if self.converged and not self._confirm:
            self.reason = f"{within}; {DISTINCT}, as asked"
            return True
        if basis.products >= max_products:
            self.reason = (
                f"{within}; {DISTINCT}, as max_products left none"
                if self.converged
                else f"{int(met.sum())} of {len(met)} pairs converged within {max_products} "
                "products\nraise max_products or tol, or ask for fewer pairs (those inside a "
                "dense bulk of eigenvalues converge slowly)"
            )
            return True
        # A new start leaves the residuals as they are: half of the tolerance is kept for what the
        # copies that it finds add to them.
        if bool((residuals <= torch.maximum(limits / 2, 2 * skews).minimum(limits)).all()):
            self._found = _Found(values, residuals, limits, within)
            self._start_anew(ritz, chosen)
            return False
        # On from where the residuals that are still too large point: an earlier start, perhaps.
        along = ritz.beyond[:, chosen[residuals > limits / 2]].square().sum(dim=1)
        if int(along.argmax()):
            basis.take_up(int(along.argmax()) - 1)
        return False

    def _confirmed(self, max_products: int) -> bool:
        """Stop where the present start has shown that there are no copies, or has had its share."""
        assert self._found is not None
        basis, values = self.basis, self._found.values
        # What lies within the limits of the last value wanted would not change the list.
        ends = [float((values + self._found.limits)[self._k - 1])]
        if self._tol is not None:  # else they are known to less, and not searched for copies
            ends += (values - self._found.limits)[self._k :][-1:].tolist()
        unseen = max(basis.unseen_weight(self._began, end) for end in ends)
        spent = basis.count - self._began
        if basis.broken or unseen <= OVERLOOKED**2 / (basis.operator.size - self._began):
            self.copies_searched = True
            largest = " of the largest" if self._smallest and self._tol is None else ""
            self.reason = (
                f"{self._found.within}, and a new random start found no further ones{largest}"
            )
            return True
        if spent < self._confirm and not basis.full and basis.products < max_products:
            return False
        self.reason = (
            f"{self._found.within}; {DISTINCT}, as {spent} products were too few for "
            "it\nraise confirm and max_basis where copies matter"
        )
        return True

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pairs found, or else those of the last check: largest first, then smallest.

        Returns:
            Values (k + s,), residuals (k + s,), and unit vectors (n, k + s), the entry of largest
            magnitude positive.
        """
        assert self._ritz is not None
        if self._found is None:
            chosen = self._chosen(self._ritz)
            values, residuals = self._ritz.values[chosen], self._ritz.residuals[chosen]
            coefficients = self._ritz.vectors[:, chosen]
        else:
            values, residuals = self._found.values, self._found.residuals
            coefficients = torch.eye(self.basis.count, len(values), dtype=torch.float64)
        rows = self.basis.combine(coefficients)
        for row in rows:
            row /= norm(row) * (math.copysign(1, largest_entry(row)))
        return values, residuals, rows.T

    def _limits(self, values: Tensor, skews: Tensor) -> Tensor:
        """Residuals at which the values count as converged."""
        rounding = unit_roundoff(self.basis.operator) * self.basis.norm
        limits = ((self._tol or DEFAULT_TOL) * values.abs()).clamp(min=ROUNDINGS * rounding)
        if self._tol is not None:
            return limits
        limits[self._k :] = limits[self._k :].clamp(min=OF_THE_NORM * self.basis.norm)
        return limits.maximum((2 * skews).clamp(max=ATTAINABLE_ROUNDINGS * rounding))

    def _accuracy(self, values: Tensor, residuals: Tensor) -> str:
        """Say in words what converged residuals are within."""
        tol = self._tol or DEFAULT_TOL
        over = residuals > tol * values.abs()
        within = f"every residual is within {tol:g} |lambda|"
        if self._tol is None and bool(over[self._k :].any()):
            over[self._k :] = False
            within += f", of the smallest within {OF_THE_NORM:g} of the norm"
        if not bool(over.any()):
            return within
        noise = ROUNDINGS * unit_roundoff(self.basis.operator) * self.basis.norm
        if float(residuals[over].max()) <= noise:
            return f"{within} or {ROUNDINGS} roundings of the norm"
        dtype = str(self.basis.operator.dtype).removeprefix("torch.")
        relative = float((residuals / values.abs())[over].max())
        return f"converged to what {dtype} products allow: {relative:.1g} |lambda|"

    def _chosen(self, ritz: Ritz) -> Tensor:
        """Positions of the wanted values: the k largest, descending, then the smallest ones."""
        m = len(ritz.values)
        return torch.cat([torch.arange(m - 1, m - 1 - self._k, -1), torch.arange(self._smallest)])

    def _start_anew(self, ritz: Ritz, chosen: Tensor) -> None:
        """Go on from a random vector, the found pairs and as many others as fit kept.

        What else the old start has found is of use: it does not hide from the new one what it
        looks for (copies are orthogonal to all of the old basis), and it is out of its way.
        """
        basis, wanted = self.basis, self._k + self._smallest
        room = min(self._confirm, basis.capacity - wanted)
        others = [i for i in range(basis.count) if i not in set(chosen.tolist())]
        ends = sorted(others, key=lambda i: min(basis.count - i, i if self._smallest else math.inf))
        kept = [*chosen.tolist(), *ends[: basis.capacity - room - wanted]]
        basis.restart(ritz.vectors[:, kept], fresh=True)
        self._began = basis.count

    def _restart(self) -> None:
        """Keep the wanted Ritz vectors and half of the others, next to the wanted ends."""
        ritz = self.basis.ritz()
        m = self.basis.count
        spare = max(0, min((m - self._k - self._smallest) // 2, m - self._k - self._smallest - 2))
        low = self._smallest + (spare // 2 if self._smallest else 0)
        high = self._k + spare - (low - self._smallest)
        kept = torch.cat([torch.arange(low), torch.arange(m - high, m)])
        self.basis.restart(ritz.vectors[:, kept])
