"""How often a statement held, against how often it has to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm
from scipy.stats import t as student

ASKED = 0.93  # coverage of 2 standard errors and of 95 % intervals
LEVEL = 0.05  # of tests
LARGEST_RATIO = 1.5  # standard error over the root mean square of the errors
DOUBT = 2.33  # standard deviations that chance exceeds, to one side, once in 100
HEAD = (
    f"{'case':36} {'method':22} {'repeats':>7} {'share':>14} {'by t':>7} {'nominal':>8} "
    f"{'s.e./rms':>8}"
)


@dataclass(frozen=True)
class Row:
    """How often a statement held in repetitions.

    Attributes:
        case: What was estimated, or tested.
        method: By what.
        repeats: How often.
        share: Share of repeats in which the truth was covered; of a test, in which it rejected.
        nominal: What it is to be in theory.
        by_t: Share covered with the quantile of Student's t in place of 2; None where the error or
            interval has it already.
        ratio: Standard error over the root mean square of the errors; None without one.
        kind: `"error"` (2 standard errors), `"interval"` (95 %) or `"test"` (at 5 %).
        asked: Whether the row is a claim; otherwise it is there for comparison.
        note: Anything else.
    """

    case: str
    method: str
    repeats: int
    share: float
    nominal: float
    by_t: float | None = None
    ratio: float | None = None
    kind: str = "interval"
    asked: bool = True
    note: str = ""

    @property
    def verdict(self) -> str:
        """`"holds"`, or `"falls short"` where chance makes it so less than once in 100.

        A coverage (by t where that is there) below 93 % - 2.33 sqrt(0.93 0.07 / repeats), a test
        that rejects more than 5 % + 2.33 sqrt(0.05 0.95 / repeats), or a standard error above 1.5
        times the errors. A row of which nothing could be measured is `"skipped"`.
        """
        if not self.repeats:
            return "skipped"
        wanted = LEVEL if self.kind == "test" else ASKED
        reach = DOUBT * math.sqrt(wanted * (1 - wanted) / self.repeats)
        if self.kind == "test":
            good = self.share <= wanted + reach
        else:
            share = self.share if self.by_t is None else self.by_t
            good = share >= wanted - reach and (self.ratio is None or self.ratio <= LARGEST_RATIO)
        return "holds" if good else "falls short"

    def text(self) -> str:
        """Return the row of the table under `HEAD`."""
        name = f"{self.case:36} {self.method:22}"
        verdict = self.verdict if self.asked else f"({self.verdict})"
        if not self.repeats:
            return f"{name} {self.note}: {verdict}"
        doubt = math.sqrt(self.share * (1 - self.share) / self.repeats)
        by_t = "" if self.by_t is None else f"{100 * self.by_t:.1f} %"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return (
            f"{name} {self.repeats:7} {100 * self.share:6.1f} ± {100 * doubt:3.1f} % {by_t:>7} "
            f"{100 * self.nominal:6.1f} % {ratio:>8}  {self.note}{'; ' * bool(self.note)}{verdict}"
        )


def of_errors(
    case: str,
    method: str,
    errors: ArrayLike,
    claimed: ArrayLike,
    *,
    freedom: ArrayLike | None = None,
    asked: bool = True,
    note: str = "",
) -> Row:
    """Return the row of errors made and the standard errors that were given for them.

    Args:
        case: What was estimated.
        method: By what.
        errors: (repeats,) estimate minus truth.
        claimed: (repeats,) standard errors.
        freedom: Degrees of freedom of the standard errors, one or (repeats,); None where these
            allow for them already.
        asked: Whether it is a claim.
        note: Anything else.
    """
    made, given = np.abs(np.asarray(errors, float)), np.asarray(claimed, float)
    by_t, nominal = None, 1 - 2 * norm.sf(2)
    if freedom is not None:
        by_t = float(np.mean(made <= student.isf(norm.sf(2), freedom) * given))
        nominal = float(np.mean(1 - 2 * student.sf(2, freedom)))
    ratio = math.sqrt(np.mean(given**2) / np.mean(made**2))
    share = float(np.mean(made <= 2 * given))
    return Row(
        case, method, len(made), share, float(nominal), by_t, ratio, "error", asked, note
    )  # fmt: skip
