"""What the trace estimators sample: values whose mean estimates tr A, grown as needed."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.special import ndtr, stdtrit  # scipy.stats takes a second to import
from torch import Tensor

from isoloss.errors import IsolossError
from isoloss.hessian.operators.protocol import LinearOperator, checked_product, unit_roundoff
from isoloss.hessian.operators.vectors import inner, norm, probe_vector, projections, sign_vector
from isoloss.records.progress import Progress

# What a product adds beyond the basis is rounding below this many roundings of its length.
RANK_ROUNDINGS = 100


class RankReachedError(IsolossError, ArithmeticError):
    """The range of A is spanned: nothing is left to sample."""

    def __init__(self, value: float, rank: int) -> None:
        super().__init__(f"a basis of {rank} vectors spans the operator's range")
        self.value, self.rank = value, rank


class CountedOperator:
    """Products that are checked, counted and reported."""

    def __init__(self, operator: LinearOperator, budget: int, progress: Progress | None) -> None:
        self.operator, self.products = operator, 0
        self._budget, self._progress = budget, progress

    def product(self, vector: Tensor) -> Tensor:
        """Return A v."""
        self.products += 1
        result = checked_product(self.operator, vector)
        if self._progress is not None:
            self._progress(self.products, self._budget)
        return result


class Range:
    """An orthonormal basis Q of products A w, with R = Q^T A W and H = Q^T A Q.

    Only Q is held: products with it are used once, for H.
    """

    def __init__(self, counted: CountedOperator) -> None:
        self.counted = counted
        n, dtype, device = counted.operator.size, counted.operator.dtype, counted.operator.device
        self.rows = torch.empty(0, n, dtype=dtype, device=device)
        self.R = torch.zeros(0, 0, dtype=torch.float64)
        self.H = torch.zeros(0, 0, dtype=torch.float64)

    def extend(self, images: list[Tensor]) -> list[Tensor]:
        """Add products A w to the range; return A q for each new basis vector q.

        Raises:
            RankReachedError: If a product lies in the range already.
        """
        old, new = len(self.rows), len(images)
        rows = self.rows.new_empty(old + new, self.rows.shape[1])
        rows[:old] = self.rows
        R, H = (torch.zeros(old + new, old + new, dtype=torch.float64) for _ in range(2))
        R[:old, :old], H[:old, :old] = self.R, self.H
        products = []
        for j, image in enumerate(images, start=old):
            # Of length 1 while float32 sums are formed, so that none over- or underflows.
            length = norm(image)
            rest = image / (length or 1.0)
            for _ in range(2):
                part = rows[:j] @ rest
                rest = rest - part @ rows[:j]
                R[:j, j] += part.cpu().double() * length
            remaining = norm(rest)
            if remaining <= RANK_ROUNDINGS * unit_roundoff(self.counted.operator):
                raise RankReachedError(float(H[:j, :j].trace()), j)
            R[j, j] = length * remaining
            rows[j] = rest / remaining
            products.append(self.counted.product(rows[j]))
            H[: j + 1, j] = projections(rows[: j + 1], products[-1])
            H[j, :j] = H[:j, j]
        self.rows, self.R, self.H = rows, R, H
        return products


class XTrace:
    """Leave-one-out estimates; see `trace`."""

    cost = 2

    def __init__(self, counted: CountedOperator, seed: int) -> None:
        self._range, self._seed = Range(counted), seed
        self._n = counted.operator.size
        self._W = torch.zeros(0, 0, dtype=torch.float64)  # Q^T Omega
        self._forms: list[float] = []  # w_i^T A w_i

    def grow(self, count: int) -> None:
        """Use test vectors up to the given number, uniform on the sphere of radius sqrt(n)."""
        old, counted = len(self._forms), self._range.counted
        images = []
        for index in range(old, count):
            test = self._test_vector(index)
            images.append(counted.product(test))
            self._forms.append(inner(test, images[-1]))
        self._range.extend(images)
        W = torch.zeros(count, count, dtype=torch.float64)
        W[:old, :old] = self._W
        for index in range(count):
            # Drawn again rather than held: the basis is the only thing of size n times samples.
            rows = self._range.rows[old if index < old else 0 :]
            W[count - len(rows) :, index] = projections(rows, self._test_vector(index))
        self._W = W

    def estimate(self, pilot: int = 0) -> tuple[float, float]:
        r"""Return the mean of the leave-one-out values after a pilot's, and its standard error.

        Each value t_i has the mean tr A whatever the other test vectors are, but shares them with
        the other values, so that these are correlated. With t_ij the value i without vector j,
        too, (t_i - t_ij) (t_j - t_ji) has exactly the covariance of t_i and t_j as its mean, since
        t_ij does not depend on w_j, nor t_ji on w_i. With c its mean over all pairs (0 where that
        is negative) and s^2 the sample variance, the error squared is s^2 / m + c.
        """
        R, H, W = self._range.R, self._range.H, self._W
        k = len(R)
        forms = torch.tensor(self._forms, dtype=torch.float64)
        values = self._leave_one_out(R, H, W, forms)
        m = k - pilot
        # For each j an orthonormal basis (m, k, k - 1) of what is left of the range without it.
        U = torch.linalg.qr(left_out(R).T[pilot:, :, None], mode="complete").Q[:, :, 1:]
        others = torch.tensor([[i for i in range(k) if i != j] for j in range(pilot, k)])
        columns = (part[:, others].movedim(0, 1) for part in (R, W))
        R_, W_ = (U.mT @ part for part in columns)
        without = self._leave_one_out(R_, U.mT @ H @ U, W_, forms[others])
        differences = torch.zeros(m, k, dtype=torch.float64)
        differences.scatter_(1, others, values[others] - without)
        differences = differences[:, pilot:]
        pairs = (differences * differences.T).sum() / (m * (m - 1))
        return _mean_and_error(values[pilot:], float(pairs.clamp(min=0)))

    def _leave_one_out(self, R: Tensor, H: Tensor, W: Tensor, forms: Tensor) -> Tensor:
        """Return t_i = tr Q_i^T A Q_i + the rest's form, Q_i the basis without test vector i.

        Without it, the basis spans Q (I - s_i s_i^T), where s_i is the normalised i-th column of
        R^-T; the rest of w_i beside it is Q-coordinates x_i short of w_i, and is scaled to the
        norm sqrt(n - k + 1) that it has on average ("resphering"). R, H and W (.., k, k).
        """
        S = left_out(R)
        X = W - S * (S * W).sum(-2, keepdim=True)
        rest = forms - 2 * (X * R).sum(-2) + (X * (H @ X)).sum(-2)
        scale = (self._n - R.shape[-1] + 1) / (self._n - X.square().sum(-2))
        whole = H.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None]
        return whole - (S * (H @ S)).sum(-2) + rest * scale

    def _test_vector(self, index: int) -> Tensor:
        return probe_vector(self._range.counted.operator, self._seed, index) * math.sqrt(self._n)


class HutchPlusPlus:
    """A deflating basis and samples of what it leaves; see `trace`."""

    cost = 3

    def __init__(self, counted: CountedOperator, seed: int) -> None:
        self._range, self._seed = Range(counted), seed
        self._forms: list[float] = []  # g^T A g
        self._G = torch.zeros(0, 0, dtype=torch.float64)  # Q^T G
        self._AG = torch.zeros(0, 0, dtype=torch.float64)  # Q^T A G

    def grow(self, count: int) -> None:
        """Use pairs of a basis vector and a sample up to the given number."""
        old, counted = len(self._forms), self._range.counted
        tests = [sign_vector(counted.operator, self._seed, 2 * i) for i in range(old, count)]
        products = self._range.extend([counted.product(test) for test in tests])
        G, AG = (torch.zeros(count, count, dtype=torch.float64) for _ in range(2))
        G[:old, :old], AG[:old, :old] = self._G, self._AG
        for index in range(count):
            sample = sign_vector(counted.operator, self._seed, 2 * index + 1)
            if index < old:
                G[old:, index] = projections(self._range.rows[old:], sample)
                # q^T A g = (A q)^T g: the product A g need not be held.
                forms = [inner(product, sample) for product in products]
                AG[old:, index] = torch.tensor(forms, dtype=torch.float64)
            else:
                image = counted.product(sample)
                self._forms.append(inner(sample, image))
                G[:, index] = projections(self._range.rows, sample)
                AG[:, index] = projections(self._range.rows, image)
        self._G, self._AG = G, AG

    def estimate(self, pilot: int = 0) -> tuple[float, float]:
        """Return tr H plus the mean of g^T (I - QQ^T) A (I - QQ^T) g, and its standard error.

        The samples g of a pilot are left out, its part of the basis is not.
        """
        H, G = self._range.H, self._G
        forms = torch.tensor(self._forms, dtype=torch.float64)
        values = forms - 2 * (G * self._AG).sum(0) + (G * (H @ G)).sum(0)
        return _mean_and_error(H.trace() + values[pilot:])


class Hutchinson:
    """Independent samples z^T A z; see `trace`."""

    cost = 1

    def __init__(self, counted: CountedOperator, seed: int) -> None:
        self._counted, self._seed = counted, seed
        self._forms: list[float] = []

    def grow(self, count: int) -> None:
        """Draw samples up to the given number."""
        for index in range(len(self._forms), count):
            sample = sign_vector(self._counted.operator, self._seed, index)
            self._forms.append(inner(sample, self._counted.product(sample)))

    def estimate(self, pilot: int = 0) -> tuple[float, float]:
        """Return the mean of the samples after a pilot's and its standard error."""
        return _mean_and_error(torch.tensor(self._forms[pilot:], dtype=torch.float64))


Sampler = XTrace | HutchPlusPlus | Hutchinson
METHODS: dict[str, Callable[[CountedOperator, int], Sampler]] = {
    "xtrace": XTrace,
    "hutch++": HutchPlusPlus,
    "hutchinson": Hutchinson,
}


def left_out(R: Tensor) -> Tensor:
    """Return the normalised columns of R^-T: s_i is orthogonal to all columns of R but the i-th."""
    S = torch.linalg.inv(R).mT
    return S / torch.linalg.vector_norm(S, dim=-2, keepdim=True)


def _mean_and_error(values: Tensor, covariance: float = 0.0) -> tuple[float, float]:
    """Return the mean and its standard error, so that 2 of it cover what they do of a Gaussian.

    The square root of s^2 / m + covariance, times t / 2 with t the quantile of Student's
    distribution with m - 1 degrees of freedom beyond which 4.55 % lie: s is an estimate, too.
    """
    m = len(values)
    factor = float(stdtrit(m - 1, ndtr(2))) / 2
    return float(values.mean()), factor * math.sqrt(float(values.var()) / m + covariance)
