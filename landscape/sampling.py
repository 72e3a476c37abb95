"""Samples that stand for a split, and the standard error of a mean over them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isoloss.errors import IsolossError


class SampleError(IsolossError, ValueError):
    """A sample that does not fit the population it is drawn from."""


@dataclass(frozen=True, eq=False)
class Sample:
    """How samples were drawn from a split, without replacement.

    Attributes:
        drawn: `"all"`; `"proportional"`, each class in proportion to its share of the split, so
            that plain means estimate the split's; `"balanced"`, as many of each class as can be,
            whose means are those of balanced classes and not of the split; or `"random"`.
        size: Number of samples n.
        population: Number of samples in the split, N.
        seed: Of the draw; None for all.
        strata: (n,) int64, number of the stratum of each sample, in their order.
        strata_populations: (H,) int64, samples of each stratum in the split.
    """

    drawn: str
    size: int
    population: int
    seed: int | None
    strata: Tensor
    strata_populations: Tensor

    @classmethod
    def of(cls, targets: Tensor, whole: Tensor, *, drawn: str, seed: int | None) -> Sample:
        """Describe a sample by its targets and those of the split.

        Args:
            targets: (n, ...) of the samples.
            whole: (N, ...) of the split.
            drawn: How; `"proportional"` and `"balanced"` become `"random"` where targets are no
                class labels, that is not of integers of shape (N,), and `"all"` for all of them.
            seed: Of the draw.

        Raises:
            SampleError: If a class of the sample is not in the split, or has more samples there.
        """
        n, population = len(targets), len(whole)
        labelled = whole.ndim == 1 and not whole.is_floating_point()
        if n == population or not labelled:
            drawn = "all" if n == population else "random"
            strata, counts = torch.zeros(n, dtype=torch.int64), torch.tensor([population])
        else:
            labels, counts = whole.unique(return_counts=True)
            strata = torch.searchsorted(labels, targets).clamp(max=len(labels) - 1)
            if not torch.equal(labels[strata], targets.to(labels.dtype)):
                raise SampleError("expected classes that the split has, got others in the sample")
        sizes = strata.bincount(minlength=len(counts))
        if bool((sizes > counts).any()):
            raise SampleError(
                f"expected at most {counts.tolist()} samples by class, got {sizes.tolist()}"
            )
        return cls(drawn, n, population, None if drawn == "all" else seed, strata, counts)

    @classmethod
    def random(cls, size: int, population: int, seed: int | None = None) -> Sample:
        """Describe a simple random sample."""
        drawn = "all" if size == population else "random"
        strata, counts = torch.zeros(size, dtype=torch.int64), torch.tensor([population])
        return cls(drawn, size, population, seed, strata, counts)

    @property
    def partial(self) -> bool:
        """Whether it is a part of the split, so that a mean over it has an error."""
        return self.drawn != "all"

    def error(self, values: Tensor) -> float:
        """Return the standard error of the mean of one value a sample; see `stratified_error`.

        For a balanced sample it is that of the mean over its own mixture of classes.
        """
        if self.drawn != "balanced":
            return stratified_error(values, self.strata, self.strata_populations)
        shares = self.strata.bincount(minlength=len(self.strata_populations)) / self.size
        return stratified_error(values, self.strata, self.strata_populations, shares=shares)

    def settings(self) -> dict[str, Any]:
        """Return what identifies the draw, for files."""
        return {
            "drawn": self.drawn,
            "size": self.size,
            "population": self.population,
            "seed": self.seed,
            "strata": self.strata_populations.tolist(),
        }


def stratified_error(
    values: Tensor, strata: Tensor, population: Tensor, *, shares: Tensor | None = None
) -> float:
    r"""Return the standard error of a mean over a stratified sample, drawn without replacement.

    sqrt(sum_h W_h^2 (1 - n_h / N_h) s_h^2 / n_h) with W_h = N_h / N and s_h^2 the sample variance
    within stratum h (Cochran 1977, Sampling Techniques, section 5.3). With one stratum it is
    s / sqrt(n) sqrt(1 - n / N), that of a simple random sample. Strata with fewer than two samples
    have no variance of their own: they are collapsed into one (section 5A.12), with the smallest of
    the others where that, too, has fewer than two, which errs on the large side.

    Args:
        values: (n,) one a sample: losses, or residuals of a ratio estimate.
        strata: (n,) int64, number of each sample's stratum, from 0.
        population: (H,) int64, the N_h.
        shares: (H,) the W_h where the mean is over another mixture of the strata.

    Returns:
        The standard error; 0 where every stratum is complete, NaN for fewer than two samples of a
        larger population or values that are not finite.

    Raises:
        SampleError: If shapes do not fit.
    """
    strata, totals = strata.cpu(), population.cpu().double()
    values = values.detach().cpu().double()
    if values.ndim != 1 or values.shape != strata.shape:
        raise SampleError(
            f"expected one value a sample, shape {tuple(strata.shape)}, got {tuple(values.shape)}"
        )
    weights = totals / totals.sum() if shares is None else shares.cpu().double()
    sizes = strata.bincount(minlength=len(totals)).double()
    if len(values) == int(totals.sum()):
        return 0.0
    if len(values) < 2:
        return math.nan
    few = (sizes < 2) & (sizes < totals)
    if bool(few.any()):
        while float(sizes[few].sum()) < 2:
            few[torch.where(few, math.inf, sizes).argmin()] = True
        group = torch.where(few, len(totals), torch.arange(len(totals)))
        strata = group[strata]
        totals, weights, sizes = (
            torch.zeros(len(totals) + 1, dtype=torch.float64).index_add(0, group, column)
            for column in (totals, weights, sizes)
        )
    there = sizes.clamp(min=1)
    means = torch.zeros_like(totals).index_add(0, strata, values) / there
    squares = torch.zeros_like(totals).index_add(0, strata, (values - means[strata]).square())
    variances = squares / (sizes - 1).clamp(min=1)
    fractions = torch.where(totals > 0, 1 - sizes / totals.clamp(min=1), 0.0)
    return math.sqrt(float((weights.square() * fractions * variances / there).sum()))
