"""What is asked of a spectrum."""

from __future__ import annotations

from typing import Any, Protocol

from isoloss.errors import UsageError
from isoloss.hessian.eigenpairs import CONFIRM
from isoloss.hessian.operators.named import operator_names

OPTIONS = (
    "top", "smallest", "tol", "max_products", "trace_error", "trace_budget", "probes", "steps",
    "seed",
)  # fmt: skip
# Named in what identifies a computation where they are asked for: older files are those without.
SELDOM = {"exact": False, "basis": None, "eigenvectors": True}


# The operator that is taken apart by classes.
CLASSES_OF = "ggn"
# Products that two samples of a Frobenius norm take.
LEAST_OF_LAYERS = 8


class SpectrumError(UsageError, ValueError):
    """Settings that ask for nothing, or for what the problem does not have."""


class Searched(Protocol):
    """What to spend on the largest eigenvalues of a matrix, and how well.

    Attributes:
        top: Algebraically largest eigenvalues.
        tol: Residual asked of an eigenpair, relative to the eigenvalue; None for 1e-4 or what
            products of the problem's precision allow.
        max_products: Products to spend on eigenvalues.
        seed: Seed of start vectors and probes.
    """

    @property
    def top(self) -> int: ...  # noqa: D102

    @property
    def tol(self) -> float | None: ...  # noqa: D102

    @property
    def max_products(self) -> int: ...  # noqa: D102

    @property
    def seed(self) -> int: ...  # noqa: D102


class Measured(Searched, Protocol):
    """What to measure at one point of the weights: largest eigenvalues and the trace.

    `isoloss.experiments.OverTrainingSettings` holds it for each checkpoint of a training.

    Attributes:
        operator: Names of the matrices, separated by commas; one along a training.
        trace_error: Standard error asked of the trace, relative to it.
        trace_budget: Products to spend on the trace; 0 for none.
    """

    @property
    def operator(self) -> str: ...  # noqa: D102

    @property
    def trace_error(self) -> float: ...  # noqa: D102

    @property
    def trace_budget(self) -> int: ...  # noqa: D102


class Stages(Measured, Protocol):
    """What to compute of a spectrum, as `isoloss.experiments.SpectrumSettings` holds it.

    A stage is left out where its number (`top`, `trace_budget`, `probes`) is 0. What is asked for
    by `top` and `trace_budget` is also found in units of the filters, for T H T.

    Attributes:
        smallest: Algebraically smallest eigenvalues, with `top` of 1 or more; None for 1 with it.
        probes: Random probes of the density.
        steps: Lanczos steps for each probe.
        layers: Whether to measure the block of each layer, too.
        classes: Whether to take the Gauss-Newton matrix apart by classes, too.
        exact: Whether all eigenvalues of the dense matrix are computed, and the rest from them.
        basis: Vectors of the parameters' size that a Lanczos basis holds at most; None for what
            the pairs and `steps` take.
        eigenvectors: Whether eigenvectors are part of the result.
    """

    @property
    def smallest(self) -> int | None: ...  # noqa: D102

    @property
    def probes(self) -> int: ...  # noqa: D102

    @property
    def steps(self) -> int: ...  # noqa: D102

    @property
    def layers(self) -> bool: ...  # noqa: D102

    @property
    def classes(self) -> bool: ...  # noqa: D102

    @property
    def exact(self) -> bool: ...  # noqa: D102

    @property
    def basis(self) -> int | None: ...  # noqa: D102

    @property
    def eigenvectors(self) -> bool: ...  # noqa: D102


def check_stages(stages: Stages) -> None:
    """Refuse what asks for nothing.

    Raises:
        SpectrumError: If every stage is left out, `smallest` is asked for without `top`, `layers`
            with too few products for traces, `classes` without the Gauss-Newton matrix, or the
            basis has no room for the pairs.
        OperatorNameError: For operators that are not known.
    """
    names = operator_names(stages.operator)
    if stages.classes and CLASSES_OF not in names:
        raise SpectrumError(
            f"`classes`: expected `operator` with {CLASSES_OF}, which they are parts of, got "
            f"{stages.operator}"
        )
    if stages.top + stages.trace_budget + stages.probes == 0:
        raise SpectrumError("nothing to compute: `top`, `trace_budget` and `probes` are all 0")
    if stages.layers and stages.trace_budget < LEAST_OF_LAYERS:
        raise SpectrumError(
            f"`layers`: expected `trace_budget` of {LEAST_OF_LAYERS} or more with it, "
            f"got {stages.trace_budget}"
        )
    if stages.smallest and not stages.top:
        raise SpectrumError("`smallest`: expected `top` of 1 or more with it, got 0")
    least = stages.top + smallest_of(stages) + 3
    if stages.basis is not None and stages.top and stages.basis < least:
        raise SpectrumError(
            f"`basis`: expected {least} or more for `top` {stages.top} and `smallest` "
            f"{smallest_of(stages)}, got {stages.basis}"
        )


def smallest_of(stages: Stages) -> int:
    """Return how many of the smallest eigenvalues to compute: one beside the largest by default."""
    return min(1, stages.top) if stages.smallest is None else stages.smallest


def pair_limits(stages: Stages, pairs: int) -> dict[str, Any]:
    """Return the limits of a Lanczos basis for so many pairs, as `top_eigenpairs` takes them.

    A small basis has no room for the search for copies, which would cost a vector besides.
    """
    room = stages.basis is None or stages.basis >= pairs + CONFIRM
    return {"max_basis": stages.basis, "confirm": CONFIRM if room else 0}


def trace_method(stages: Stages, budget: int) -> str:
    """Return how a trace is estimated: XTrace holds a basis of half as many vectors as products."""
    large = stages.basis is not None and stages.basis < budget // 2
    return "hutchinson" if large else "xtrace"
