"""The curvature of the loss: Hessian operator, extreme eigenpairs, trace and spectral density.

An operator knows the network, loss and data; an estimator sees its products only:

    problem = Problem(model, nn.CrossEntropyLoss(), loader)
    with HessianOperator(problem) as hessian:
        pairs = top_eigenpairs(hessian, k=5)
        spectrum = spectral_density(hessian)
"""

from isoloss.hessian.class_structure import ClassStructure, class_structure, eigenvalues_of
from isoloss.hessian.density import Density, spectral_density
from isoloss.hessian.diagonal import Diagonal, diagonal
from isoloss.hessian.eigenpairs import Eigenpairs, top_eigenpairs, warm_start
from isoloss.hessian.frobenius import FrobeniusNorm, frobenius_norm
from isoloss.hessian.gradient_overlap import GradientOverlap, gradient_overlap
from isoloss.hessian.layers import layer_parameters
from isoloss.hessian.monitor import CurvatureMonitor, Measurement
from isoloss.hessian.operators.combined import ShiftedOperator, SquaredOperator, SumOperator
from isoloss.hessian.operators.fisher import (
    EmpiricalFisherOperator,
    FisherOperator,
    GradientCovarianceOperator,
)
from isoloss.hessian.operators.ggn import GGNOperator, ResidualOperator
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.operators.protocol import LinearOperator
from isoloss.hessian.operators.scaled import ScaledOperator, filter_scale
from isoloss.hessian.operators.vectors import probe_vector
from isoloss.hessian.operators.views import as_scipy, dense, to_curvlinops
from isoloss.hessian.sample_error import (
    SampleError,
    sample_error,
    sampling_bias,
    trace_sample_error,
)
from isoloss.hessian.spectrum import Spectrum
from isoloss.hessian.trace import Trace, trace
from isoloss.records.spectra import SpectrumData, read_spectrum

__all__ = [
    "ClassStructure",
    "CurvatureMonitor",
    "Density",
    "Diagonal",
    "Eigenpairs",
    "EmpiricalFisherOperator",
    "FisherOperator",
    "FrobeniusNorm",
    "GGNOperator",
    "GradientCovarianceOperator",
    "GradientOverlap",
    "HessianOperator",
    "LinearOperator",
    "MatrixOperator",
    "Measurement",
    "ResidualOperator",
    "SampleError",
    "ScaledOperator",
    "ShiftedOperator",
    "Spectrum",
    "SpectrumData",
    "SquaredOperator",
    "SumOperator",
    "Trace",
    "as_scipy",
    "class_structure",
    "dense",
    "diagonal",
    "eigenvalues_of",
    "filter_scale",
    "frobenius_norm",
    "gradient_overlap",
    "layer_parameters",
    "probe_vector",
    "read_spectrum",
    "sample_error",
    "sampling_bias",
    "spectral_density",
    "to_curvlinops",
    "top_eigenpairs",
    "trace",
    "trace_sample_error",
    "warm_start",
]
