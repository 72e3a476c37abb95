"""A Krylov basis with full reorthogonalisation: what eigenpairs and density share.

Invariant, with V the m basis vectors, v the next one, and b the border::

    A V = V H + v b^T + W C + E,      V^T V = I,   V^T v = 0

W C is what earlier random starts left behind: their next vectors W, with borders C.
H is kept as computed, not symmetrised, so that rounding and any asymmetry of the operator stay
visible in the residuals; E is what was dropped, its columns' norms bounded by `dropped`. For a
basis grown from one vector H is tridiagonal up to rounding (Golub & Van Loan, Matrix Computations,
section 10.3); after a thick restart it has an arrow (Wu & Simon 2000, SIAM J. Matrix Anal. Appl.
22).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isoloss.hessian.operators.protocol import LinearOperator, checked_product, unit_roundoff
from isoloss.hessian.operators.vectors import norm, pieces, probe_vector, projections
from isoloss.landscape.memory import release_freed

# A new direction shorter than this many roundings of the operator's norm is rounding itself.
BREAKDOWN_ROUNDINGS = 100
COLUMNS_AT_A_TIME = 2**16


@dataclass(frozen=True)
class Ritz:
    """Rayleigh-Ritz approximations from a basis of m vectors.

    Attributes:
        values: (m,) float64, ascending.
        vectors: (m, m) float64, coefficients in the basis, one column for each value.
        residuals: (m,) float64, bounds of ||A u - theta u||, one rounding of ||A|| included.
        skews: (m,) float64, the part of them that further products do not reduce: the products'
            asymmetry as measured in the basis, and one rounding of ||A||.
        beyond: (1 + w, m) float64, the part along the next vector and along each one left behind.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    skews: Tensor
    beyond: Tensor


class LanczosBasis:
    """A growing orthonormal basis of a Krylov space.

    Args:
        operator: The symmetric matrix A.
        capacity: Largest number of basis vectors, cut to the operator's size.
        seed: Seed of the random vectors.
        index: Number of the first random vector (see `probe_vector`); later ones follow.
        start: Vector to begin with, (n,), not 0; random where None.

    Attributes:
        count: Number m of basis vectors, those whose product is known.
        products: Products with A so far.
        norm: Largest ||A v|| seen, a lower bound of the operator's norm.
        broken: Whether the basis spans an invariant subspace, as far as rounding can tell.
    """

    def __init__(
        self,
        operator: LinearOperator,
        capacity: int,
        *,
        seed: int,
        index: int = 0,
        start: Tensor | None = None,
    ) -> None:
        self.operator = operator
        self.capacity = min(capacity, operator.size)
        self.count = 0
        self.products = 0
        self.norm = 0.0
        self.broken = False
        self._seed, self._index, self._start = seed, index, start
        # Rows: a new vector is one contiguous write, and memory is touched only as it fills.
        self._rows = torch.empty(
            self.capacity, operator.size, dtype=operator.dtype, device=operator.device
        )
        self._next: Tensor | None = None  # v, apart, so that it is not held beside a product
        self._projected = torch.zeros(self.capacity, self.capacity, dtype=torch.float64)
        self._dropped = torch.zeros(self.capacity, dtype=torch.float64)
        self._border = torch.zeros(0, dtype=torch.float64)
        self._left = torch.zeros(0, 0, dtype=torch.float64)  # C, one row for each start left
        self._left_rows = self._rows[:0].clone()  # W, as rows

    @property
    def full(self) -> bool:
        """Whether a restart is needed before the next step."""
        return self.count == self.capacity

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole space."""
        return self.count == self.operator.size

    @property
    def projected(self) -> Tensor:
        """V^T A V, symmetrised, (m, m) float64."""
        part = self._projected[: self.count, : self.count]
        return (part + part.T) / 2

    @property
    def _following(self) -> Tensor:
        """The next vector v, of a basis that is not broken."""
        assert self._next is not None
        return self._next

    def step(self) -> None:
        """Add one vector with one product: the next of the Krylov space, or a random one.

        Raises:
            NonFiniteProductError: If the product is not finite.
        """
        assert not self.full
        j = self.count
        if not j and self._start is not None:
            self._rows[j] = self._start / norm(self._start)
        elif self.broken or not j:
            self._rows[j] = self._random_direction()
        else:
            self._rows[j] = self._following
        self._next = None
        release_freed(self._rows[j].nbytes)
        product = checked_product(self.operator, self._rows[j])
        release_freed(product.nbytes)
        # Of length 1 while float32 sums are formed, so that none over- or underflows. A copy: the
        # product is the operator's.
        length = norm(product)
        rest = product / (length or 1.0)
        del product
        coefficients = self._orthogonalise(rest, j + 1) * length
        # What the new vector meets of what was left behind, and was dropped, is known again.
        border = self._border + projections(self._left_rows, self._rows[j]) @ self._left
        found = (border == 0) & (self._dropped[:j] > 0)
        self._left = torch.cat([self._left, self._left.new_zeros(len(self._left), 1)], dim=1)
        self._projected[j, :j] = torch.where(found, coefficients[:j], border)
        self._projected[: j + 1, j] = coefficients
        remaining = norm(rest)
        beta = length * remaining
        self.norm = max(self.norm, length)
        self.count, self.products = j + 1, self.products + 1
        self._border = torch.zeros(j + 1, dtype=torch.float64)
        limit = BREAKDOWN_ROUNDINGS * unit_roundoff(self.operator) * self.norm
        self.broken = beta <= limit or self.complete
        if self.broken:
            self._dropped[j] = beta
        else:
            self._border[j] = beta
            rest /= remaining
            self._next = rest

    def ritz(self) -> Ritz:
        """Return the Ritz values and vectors of the present basis with their residuals."""
        m = self.count
        values, vectors = torch.linalg.eigh(self.projected)
        skew = self._projected[:m, :m] @ vectors - vectors * values
        dropped = self._dropped[:m] @ vectors.abs()
        skews = torch.linalg.vector_norm(skew, dim=0) + unit_roundoff(self.operator) * self.norm
        beyond = (torch.cat([self._border[None], self._left]) @ vectors).abs()
        return Ritz(values, vectors, dropped + skews + beyond.sum(dim=0), skews, beyond)

    def unseen_weight(self, first: int, point: float) -> float:
        r"""Bound how much of a random start belongs to eigenvalues beyond a point.

        With q the basis vector `first`, at which the present random start began, and B the
        compression of A to the complement of the basis before it: the sum of (u^T q)^2
        over the eigenvectors u of B whose eigenvalues lie beyond `point`, seen from the start's
        Ritz values, is at most 1 / sum_j p_j(point)^2, the Christoffel number there, where p_j are
        the orthonormal polynomials of the steps since (Akhiezer 1965, The Classical Moment
        Problem, section 2.5). 1 where a Ritz value of the start reaches the point.
        """
        block = self.projected[first:, first:]
        nodes = torch.linalg.eigvalsh(block)
        if float(nodes[0]) <= point <= float(nodes[-1]):
            return 1.0
        diagonal, border = block.diagonal().tolist(), block.diagonal(1).tolist()
        previous, current, total = 0.0, 1.0, 1.0
        for j, beta in enumerate(border):
            before = border[j - 1] * previous if j else 0.0
            previous, current = current, ((point - diagonal[j]) * current - before) / beta
            total += current * current
        return 1 / total

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return V S as rows, shape (k, n), for coefficients S of shape (m, k)."""
        result = torch.empty(
            coefficients.shape[1],
            self.operator.size,
            dtype=self.operator.dtype,
            device=self.operator.device,
        )
        return self._combine_into(result, coefficients)

    def restart(self, coefficients: Tensor, *, fresh: bool = False) -> None:
        """Replace the basis by V S, so that room is left for further steps.

        Args:
            coefficients: S, shape (m, l), orthonormal columns, l < capacity: the Ritz vectors kept.
            fresh: Whether to go on from a new random vector; the next vector is left behind.
        """
        m, kept = coefficients.shape
        inside = self._projected[:m, :m] @ coefficients
        projected = coefficients.T @ inside
        lost = torch.linalg.vector_norm(inside - coefficients @ projected, dim=0)
        dropped = lost + coefficients.abs().T @ self._dropped[:m]
        border = self._border @ coefficients
        # What the basis has met of the vectors left behind is known, and stays so without it.
        for index, row in enumerate(self._left_rows):
            self._orthogonalise(row, m)
            remaining = norm(row)
            row /= remaining or 1.0
            self._left[index] *= remaining
        self._left = self._left @ coefficients
        if fresh and not self.broken:
            self._left = torch.cat([self._left, border[None]])
            self._left_rows = torch.cat([self._left_rows, self._following[None]])
            border = torch.zeros_like(border)
            self.broken, self._next = True, None
        self._combine_into(self._rows, coefficients)
        self._projected.zero_()
        self._projected[:kept, :kept] = projected
        self._dropped.zero_()
        self._dropped[:kept] = dropped
        self._border = border
        self.count = kept

    def take_up(self, index: int) -> None:
        """Go on from what an earlier start left behind; the next vector takes its place there."""
        m = self.count
        rest = self._left_rows[index].clone()
        self._orthogonalise(rest, m)
        remaining = norm(rest)
        border = self._left[index] * remaining
        if self.broken:
            others = [i for i in range(len(self._left)) if i != index]
            self._left_rows, self._left = self._left_rows[others], self._left[others]
        else:
            self._left_rows[index], self._left[index] = self._following, self._border
        limit = BREAKDOWN_ROUNDINGS * unit_roundoff(self.operator)
        self.broken = remaining <= limit
        if self.broken:
            self._dropped[:m] += border.abs()
            self._border, self._next = torch.zeros_like(border), None
        else:
            self._next, self._border = rest / remaining, border

    def _orthogonalise(self, vector: Tensor, rows: int) -> Tensor:
        """Leave of a vector what is orthogonal to the first rows; return the coefficients in them.

        Two passes of classical Gram-Schmidt give orthogonality to rounding unless the rest is
        itself rounding (Giraud et al. 2005, Numer. Math. 101): "twice is enough".
        """
        basis = self._rows[:rows]
        coefficients = torch.zeros(rows, dtype=torch.float64)
        for _ in range(2):
            part = basis @ vector
            for piece in pieces(len(vector)):
                vector[piece] -= part @ basis[:, piece]
            coefficients += part.cpu().double()
        return coefficients

    def _random_direction(self) -> Tensor:
        """Return a random unit vector orthogonal to the basis."""
        vector = probe_vector(self.operator, self._seed, self._index)
        self._index += 1
        if self.count:
            # Normalised between, because in an almost complete basis little of it is left.
            for _ in range(2):
                self._orthogonalise(vector, self.count)
                vector /= norm(vector)
        return vector

    def _combine_into(self, rows: Tensor, coefficients: Tensor) -> Tensor:
        """Write V S into the first rows, in slices of columns: `rows` may be the basis itself."""
        m, k = coefficients.shape
        factors = coefficients.T.to(self.operator.dtype).to(self.operator.device)
        for start in range(0, self.operator.size, COLUMNS_AT_A_TIME):
            part = slice(start, start + COLUMNS_AT_A_TIME)
            rows[:k, part] = factors @ self._rows[:m, part]
        return rows
