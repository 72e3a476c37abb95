"""The curvature of the loss: Hessian operator, extreme eigenpairs, trace and spectral density.

An operator knows the network, loss and data; an estimator sees its products only:

    problem = Problem(model, nn.CrossEntropyLoss(), loader)
    with HessianOperator(problem) as hessian:
        pairs = top_eigenpairs(hessian, k=5)
        spectrum = spectral_density(hessian)
"""

from isoloss.hessian.density import Density, spectral_density
from isoloss.hessian.eigenpairs import Eigenpairs, top_eigenpairs
from isoloss.hessian.hessian_operator import HessianOperator
from isoloss.hessian.operators import LinearOperator, MatrixOperator, probe_vector
from isoloss.hessian.store import HessianData, read_hessian, write_hessian
from isoloss.hessian.trace import Trace, trace

__all__ = [
    "Density",
    "Eigenpairs",
    "HessianData",
    "HessianOperator",
    "LinearOperator",
    "MatrixOperator",
    "Trace",
    "probe_vector",
    "read_hessian",
    "spectral_density",
    "top_eigenpairs",
    "trace",
    "write_hessian",
]
