"""The matrices of a problem by the names that settings and files give them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from isoloss.errors import UsageError
from isoloss.hessian.operators.fisher import (
    EmpiricalFisherOperator,
    FisherOperator,
    GradientCovarianceOperator,
)
from isoloss.hessian.operators.ggn import GGNOperator, ResidualOperator
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.of_problem import ProblemOperator
from isoloss.landscape.problem import Problem

Names = Iterable[str] | None

OPERATORS: dict[str, Callable[[Problem, int, Names], ProblemOperator[Any]]] = {
    "hessian": lambda problem, seed, names: HessianOperator(problem, names),
    "ggn": lambda problem, seed, names: GGNOperator(problem, names),
    "residual": lambda problem, seed, names: ResidualOperator(problem, names),
    "fisher": lambda problem, seed, names: FisherOperator(problem, names),
    "mc-fisher": lambda problem, seed, names: FisherOperator(problem, names, draws=1, seed=seed),
    "empirical-fisher": lambda problem, seed, names: EmpiricalFisherOperator(problem, names),
    "gradient-covariance": lambda problem, seed, names: GradientCovarianceOperator(problem, names),
}


class OperatorNameError(UsageError, ValueError):
    """A list of operators that are not known, or named twice."""


def operator_names(text: str) -> tuple[str, ...]:
    """Return the names in a list such as "hessian,ggn,residual".

    Raises:
        OperatorNameError: For a name that is not known, or given twice, or none.
    """
    names = tuple(name.strip() for name in text.split(","))
    wrong = [name for name in names if name not in OPERATORS]
    if wrong or len(set(names)) < len(names):
        got = repr(wrong[0]) if wrong else f"{text!r}, which names one twice"
        raise OperatorNameError(
            f"expected operators among {', '.join(OPERATORS)}, separated by commas, got {got}"
        )
    return names


def named_operator(
    problem: Problem, name: str, seed: int = 0, parameters: Names = None
) -> ProblemOperator[Any]:
    """Return an operator of a problem by its name.

    Args:
        problem: The loss as a function of the weights.
        name: One of `OPERATORS`.
        seed: Of targets that are drawn, for `mc-fisher`.
        parameters: Names of the parameters to differentiate by; all where None.

    Raises:
        OperatorError: If the problem's loss has no such matrix.
    """
    return OPERATORS[name](problem, seed, parameters)
