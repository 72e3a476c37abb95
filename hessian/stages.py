"""The stages of one operator's spectrum: eigenpairs, trace, scale and density with their errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from isoloss.hessian.asked import CLASSES_OF, Stages, pair_limits, smallest_of, trace_method
from isoloss.hessian.class_structure import check_classes, class_structure
from isoloss.hessian.density import spectral_density
from isoloss.hessian.eigenpairs import Eigenpairs, top_eigenpairs
from isoloss.hessian.exact import ExactSpectrum, exact_spectrum
from isoloss.hessian.gradient_overlap import gradient_overlap
from isoloss.hessian.layers import layer_parameters, measure_layer
from isoloss.hessian.operators.fisher import GradientCovarianceOperator
from isoloss.hessian.operators.ggn import GGNOperator, ResidualOperator
from isoloss.hessian.operators.named import named_operator
from isoloss.hessian.operators.of_outputs import OutputsOperator
from isoloss.hessian.operators.protocol import LinearOperator, OperatorError
from isoloss.hessian.operators.scaled import ScaledOperator, filter_scale
from isoloss.hessian.sample_error import (
    PROBES,
    Curvatures,
    SampleErrorUnavailableError,
    sample_curvatures,
    sample_error,
    sampling_bias,
    trace_sample_error,
)
from isoloss.hessian.stored import (
    columns_of,
    stored_classes,
    stored_density,
    stored_eigenpairs,
    stored_scaled,
    stored_trace,
)
from isoloss.hessian.trace import Trace, trace
from isoloss.landscape import Problem
from isoloss.landscape.batches import BatchError
from isoloss.landscape.determinism import ProblemError
from isoloss.landscape.terms import Terms
from isoloss.landscape.vectors import flatten
from isoloss.records.classes import ClassData
from isoloss.records.exact_spectra import ExactData
from isoloss.records.layers import LayerData
from isoloss.records.progress import Progress
from isoloss.records.spectra import (
    DensityData,
    EigenpairsData,
    ScaledData,
    SpectrumData,
    TraceData,
)

T = TypeVar("T")
# What computes a stage, telling a callback of its products.
Computing = Callable[[Progress | None], Any]


class OperatorStages:
    """What is computed of one operator of a problem.

    Args:
        problem: The loss as a function of the weights.
        name: Of the operator, as in `hessian.operators.named`.
        wanted: What to compute.
        population: Samples of the split that the problem's are a part of, if known.

    Attributes:
        operator: The operator.
        products_of_layers: Products taken so far with single layers' blocks.

    Raises:
        OperatorError: If the problem's loss has no such matrix.
    """

    def __init__(
        self, problem: Problem, name: str, wanted: Stages, population: int | None = None
    ) -> None:
        self.problem, self.name, self.wanted = problem, name, wanted
        self.population, self.smallest = population, smallest_of(wanted)
        self.operator = named_operator(problem, name, wanted.seed)
        self._whole: ExactSpectrum | None = None
        self._vectors: Tensor | None = None
        self.products_of_layers = 0
        if wanted.classes and name == CLASSES_OF:
            check_classes(problem)

    def stages(self, found: SpectrumData | None = None) -> dict[str, Computing]:
        """Return what computes each stage that is asked for.

        Args:
            found: What was computed before.
        """
        wanted, pairs = self.wanted, None if found is None else found.eigenpairs
        classes = wanted.classes and self.name == CLASSES_OF
        stages: dict[str, tuple[int, Computing]] = {
            "exact": (int(wanted.exact), self._all),
            "eigenpairs": (wanted.top, self._eigenpairs),
            "trace": (wanted.trace_budget, self._trace),
            "scaled": (wanted.top + wanted.trace_budget, self._scaled),
            "density": (wanted.probes, self._density),
            "classes": (int(classes), functools.partial(self._classes, pairs)),
        }
        asked = {stage: compute for stage, (number, compute) in stages.items() if number}
        layers = layer_parameters(self.operator.shapes) if wanted.layers else {}
        of_layers = {
            f"layers/{layer}": functools.partial(self._layer, names)
            for layer, names in layers.items()
        }
        return {**asked, **of_layers}

    def close(self) -> None:
        """Free the dense matrix, and vectors."""
        self._whole = self._vectors = None

    def _exact(self, progress: Progress | None) -> ExactSpectrum:
        """Return the whole spectrum, computed once for all stages."""
        if self._whole is None:
            self._whole = exact_spectrum(self.operator, progress)
        return self._whole

    def _all(self, progress: Progress | None) -> ExactData:
        return self._exact(progress).stored()

    def _pairs(self, progress: Progress | None) -> Eigenpairs:
        wanted = self.wanted
        if wanted.exact:
            return self._exact(progress).pairs(wanted.top, self.smallest)
        return top_eigenpairs(
            self.operator,
            wanted.top,
            smallest=self.smallest,
            tol=wanted.tol,
            max_products=max(wanted.max_products, wanted.top + self.smallest),
            seed=wanted.seed,
            progress=progress,
            **pair_limits(wanted, wanted.top + self.smallest),
        )

    def _eigenpairs(self, progress: Progress | None) -> EigenpairsData:
        wanted, pairs = self.wanted, self._pairs(progress)
        self._vectors = pairs.eigenvectors if wanted.classes else None

        def errors(population: int | None) -> np.ndarray:
            vectors = pairs.eigenvectors.T
            of = functools.partial(sample_error, self.problem, population=population)
            found = [of(u, curvatures=self._curvatures()) for u in vectors]
            return np.array([error.standard_error for error in found])

        over_samples, account = self._over_samples(errors, np.zeros(wanted.top))
        if "reason" not in account:
            account["bias"] = self._bias(float(pairs.eigenvalues[0]))
        overlap = gradient_overlap(flatten(self.problem.gradient()), pairs.eigenvectors)
        shapes = self.operator.shapes if wanted.eigenvectors else None
        return stored_eigenpairs(pairs, shapes, over_samples, account, overlap)

    def _trace(self, progress: Progress | None) -> TraceData:
        seed = self.wanted.seed
        if self.wanted.exact:
            estimate = self._exact(progress).trace()
        else:
            estimate = self._trace_of(self.operator, progress)

        def error(population: int | None) -> float:
            found = trace_sample_error(
                self.problem, seed=seed, population=population, curvatures=self._curvatures()
            )
            return found.standard_error

        over_samples, account = self._over_samples(error, 0.0)
        return stored_trace(estimate, over_samples, {**account, "probes": PROBES})

    def _bias(self, eigenvalue: float) -> float | None:
        """Return the sampling bias of the largest eigenvalue; None without halves.

        Graphs are held in batches; of very few samples, those of a half may all have weight 0.
        """
        self.operator.close()  # the graphs of the halves take the place of the whole's
        seed = self.wanted.seed
        try:
            return sampling_bias(
                self.problem,
                eigenvalue,
                population=self.population,
                seed=seed,
                operator_of=lambda part: named_operator(part, self.name, seed),
                **pair_limits(self.wanted, 1),
            )
        except (BatchError, ProblemError):
            return None

    def _curvatures(self) -> Curvatures | None:
        """Return what gives the samples' shares in the operator; None for the Hessian's own.

        Raises:
            SampleErrorUnavailableError: If there is none.
        """
        operator = self.operator
        if isinstance(operator, GradientCovarianceOperator):
            raise SampleErrorUnavailableError("a covariance is no mean over samples")
        if isinstance(operator, ResidualOperator):
            ggn = _shares_in(GGNOperator(self.problem))
            return functools.partial(_difference, self.problem, ggn)
        return _shares_in(operator) if isinstance(operator, OutputsOperator) else None

    def _over_samples(
        self, errors: Callable[[int | None], T], none: T
    ) -> tuple[T | None, dict[str, Any]]:
        """Return errors over draws of the samples and what to store of them, a reason if none."""
        count, population = self.problem.count, self.population
        account = {"count": count, "population": population}
        if count == population:
            return none, {**account, "reason": "every sample of the split is used"}
        try:
            return errors(population), account
        except SampleErrorUnavailableError as error:
            return None, {**account, "reason": str(error)}

    def _trace_of(self, operator: LinearOperator, progress: Progress | None) -> Trace:
        wanted = self.wanted
        return trace(
            operator,
            method=trace_method(wanted, wanted.trace_budget),
            relative_error=wanted.trace_error,
            budget=wanted.trace_budget,
            seed=wanted.seed,
            progress=progress,
        )

    def _scaled(self, progress: Progress | None) -> ScaledData:
        wanted, scale = self.wanted, filter_scale(self.problem.parameters)
        if not bool(scale.any()):
            reason = "no filter has a weight other than 0 (biases and batch norm are ignored)"
            return ScaledData(None, None, None, None, {"reason": reason})
        if wanted.exact:
            top, total = self._exact(progress).scaled(scale)
            kept = (top if wanted.top else None, total if wanted.trace_budget else None)
            return stored_scaled(*kept)
        operator = ScaledOperator(self.operator, scale)
        pairs = estimate = None
        if wanted.top:
            pairs = top_eigenpairs(
                operator,
                1,
                tol=wanted.tol,
                max_products=wanted.max_products,
                seed=wanted.seed,
                progress=progress,
                **pair_limits(wanted, 1),
            )
        if wanted.trace_budget:
            estimate = self._trace_of(operator, progress)
        return stored_scaled(pairs, estimate)

    def _density(self, progress: Progress | None) -> DensityData:
        wanted = self.wanted
        if wanted.exact:
            return self._exact(progress).density()
        density = spectral_density(
            self.operator,
            probes=wanted.probes,
            steps=min(wanted.steps, wanted.basis or wanted.steps),
            seed=wanted.seed,
            progress=progress,
        )
        return stored_density(density)

    def _classes(self, before: EigenpairsData | None, progress: Progress | None) -> ClassData:
        """Return the parts by classes, also along the eigenvectors, found `before` or anew."""
        vectors = self._vectors
        if vectors is None and before is not None and before.eigenvectors:
            vectors = columns_of(before.eigenvectors)
        if vectors is None and self.wanted.top:
            vectors = self._pairs(progress).eigenvectors
        self.operator.close()  # its graphs are not needed beside the gradients'
        if vectors is None:
            vectors = torch.zeros(self.operator.size, 0)
        return stored_classes(class_structure(self.problem, progress), vectors, self.problem.count)

    def _layer(self, names: list[str], progress: Progress | None) -> LayerData:
        self.operator.close()  # its graphs are not needed beside the layer's
        with named_operator(self.problem, self.name, self.wanted.seed, names) as block:
            try:
                return measure_layer(block, self.wanted, progress)
            finally:
                self.products_of_layers += block.products


def _shares_in(operator: OutputsOperator) -> Curvatures:
    def of(vector: Tensor) -> Terms:
        try:
            return operator.sample_curvatures(vector.to(operator.dtype))
        except OperatorError as error:
            raise SampleErrorUnavailableError(str(error).splitlines()[0]) from error

    return of


def _difference(problem: Problem, ggn: Curvatures, vector: Tensor) -> Terms:
    whole, part = sample_curvatures(problem, vector), ggn(vector)
    return Terms(whole.sums - part.sums, whole.weights)
