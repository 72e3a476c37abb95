"""hessian-eigenthings (noahgolmant/pytorch-hessian-eigenthings), release 1.0.

Its Lanczos takes as many steps as it is told, and none more for a tolerance: 50, the most for which
it reorthogonalises by default. It averages batches equally, which are of one size here.
"""

from __future__ import annotations

from torch import nn

from benchmarks.hessian.subject import COUNT, LANCZOS_STEPS, TOLERANCE, Product, Settings

STEPS = 50


def products(settings: Settings) -> dict[str, Product]:
    """Return products by kind."""
    import hessian_eigenthings as he

    model, loss, batches = settings.network(), nn.CrossEntropyLoss(), settings.batches
    of_outputs = he.supervised_loss_of_output(loss)
    found = {
        "hessian": he.HessianOperator(model, batches, he.supervised_loss(loss)),
        "ggn": he.GGNOperator(model, batches, he.supervised_forward, of_outputs),
        "empirical-fisher": he.EmpiricalFisherOperator(
            model, batches, he.supervised_per_sample_loss(loss)
        ),
    }
    return {kind: operator.matvec for kind, operator in found.items()}


def eigenvalues(settings: Settings) -> tuple[list[float], int]:
    """Return five eigenvalues by its Lanczos, and the products that they took."""
    import hessian_eigenthings as he

    operator = he.HessianOperator(
        settings.network(), settings.batches, he.supervised_loss(nn.CrossEntropyLoss())
    )
    found = he.lanczos(operator, k=COUNT, max_iter=STEPS, tol=TOLERANCE, which="LA", seed=0)
    return found.eigenvalues.tolist(), found.iterations


def density(settings: Settings) -> tuple[list[float], int]:
    """Return the largest node of one probe's quadrature, and its products."""
    import hessian_eigenthings as he
    import torch

    operator = he.HessianOperator(
        settings.network(), settings.batches, he.supervised_loss(nn.CrossEntropyLoss())
    )
    start = torch.randn(operator.size, generator=torch.Generator().manual_seed(0))
    found = he.lanczos_tridiagonal(operator, start, LANCZOS_STEPS)
    matrix = torch.diag(found.alphas)
    matrix += torch.diag(found.betas[: found.iterations - 1], 1)
    matrix += torch.diag(found.betas[: found.iterations - 1], -1)
    return [float(torch.linalg.eigvalsh(matrix)[-1])], found.iterations
