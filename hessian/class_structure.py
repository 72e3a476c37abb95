"""The part of the Gauss-Newton matrix that is made of means over classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isoloss.hessian.operators.of_outputs import batches_of, loss_of, outputs_of
from isoloss.hessian.operators.protocol import OperatorError
from isoloss.landscape.batches import Batch
from isoloss.landscape.losses import CATEGORICAL
from isoloss.landscape.memory import require
from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import flatten
from isoloss.records.progress import Progress

# Copies of the means that are held at once: themselves, weighted, and in an SVD.
_HELD = 4


@dataclass(frozen=True)
class ClassStructure:
    r"""Means over classes in G, of C classes and n parameters.

    With p_i the predicted probabilities and d_ik = J_i^T (p_i - e_k),

        G = 1/W sum_i w_i sum_k p_ik d_ik d_ik^T = G_class + G_cross + G_same + G_within,

    where samples are taken together by their class c and by the class k that they are compared
    with. Of weights w_ck = sum_{i in c} w_i p_ik / W and means d_ck over those, and of the mean d_c
    over k other than c, of weight w_c,

        G_class = sum_c w_c d_c d_c^T                                 (rank C at most)
        G_cross = sum_c sum_{k != c} w_ck (d_ck - d_c)(d_ck - d_c)^T  (rank C (C - 2) at most)
        G_same  = sum_c w_cc d_cc d_cc^T;  G_within: the covariances within each (c, k).

    Attributes:
        weights: w_ck, (C, C) float64.
        means: d_ck, (C, C, n), 0 where the weight is; float64 on the CPU.
    """

    weights: Tensor
    means: Tensor

    @property
    def of_class(self) -> Tensor:
        """Columns (n, C) whose outer products add up to G_class."""
        weights, means = self._by_class()
        return (weights.sqrt()[:, None] * means).T

    @property
    def of_cross(self) -> Tensor:
        """Columns (n, C C) whose outer products add up to G_cross."""
        _, means = self._by_class()
        apart = self._off_diagonal().sqrt()[:, :, None] * (self.means - means[:, None])
        return apart.flatten(0, 1).T

    @property
    def of_same(self) -> Tensor:
        """Columns (n, C) whose outer products add up to G_same."""
        index = torch.arange(len(self.weights))
        return (self.weights.diagonal().sqrt()[:, None] * self.means[index, index]).T

    def parts_along(self, vectors: Tensor) -> Tensor:
        """Return u^T G_class u, u^T G_cross u and u^T G_same u of vectors u, (3, k).

        Of a unit eigenvector of G they are what the means make up of its eigenvalue.

        Args:
            vectors: Columns u, (n, k).
        """
        columns = vectors.detach().cpu().double().contiguous()
        parts = (self.of_class, self.of_cross, self.of_same)
        return torch.stack([(part.T @ columns).square().sum(0) for part in parts])

    def _off_diagonal(self) -> Tensor:
        return self.weights - torch.diag(self.weights.diagonal())

    def _by_class(self) -> tuple[Tensor, Tensor]:
        """Return w_c, (C,), and d_c, (C, n)."""
        weights = self._off_diagonal()
        whole = weights.sum(1)
        return whole, _divided(torch.einsum("ck,ckn->cn", weights, self.means), whole)


def check_classes(problem: Problem) -> None:
    """Refuse a problem whose Gauss-Newton matrix has no such parts.

    Raises:
        OperatorError: Unless the loss is cross-entropy of logits, under batch norm `"eval"`.
    """
    loss = loss_of(problem)
    if loss.likelihood != CATEGORICAL or problem.bn != "eval":
        raise OperatorError(
            "expected cross-entropy of logits and batch norm under `eval`, got "
            f"{loss.name} and {problem.bn!r}"
        )


def class_structure(problem: Problem, progress: Progress | None = None) -> ClassStructure:
    """Return the means over classes of which the outliers of G are made (Papyan 2020, section 4).

    In the networks of that paper, trained to the end, G_class has nearly the largest C eigenvalues
    of G, and G_cross the bump of C (C - 2) below them: compare
    `eigenvalues_of(structure.of_class)` with those stored for `ggn`. Exact, by C gradients of each
    sample (of graphs C^2: a batch of them is not cut by class); C^2 n numbers are held.

    Args:
        problem: Cross-entropy of logits (samples, C) with one class index a sample; batch norm
            under `"eval"`.
        progress: Called as `progress(samples, all of them)`.

    Raises:
        OperatorError: For another loss, other outputs or targets, or coupled samples.
        MemoryShortError: If there is no memory for the means.
    """
    check_classes(problem)
    loss, done = loss_of(problem), 0
    leaves = {name: t.detach().requires_grad_() for name, t in problem.parameters.items()}
    size = sum(leaf.numel() for leaf in leaves.values())
    buffers, sums, weights = problem.buffers_at(problem.parameters), Tensor(), Tensor()
    for batch in batches_of(problem):
        for part in _by_class(batch):
            with torch.enable_grad():
                outputs = outputs_of(problem, buffers | leaves, part)
            _check_outputs(outputs, part.targets)
            classes = outputs.shape[1]
            if not len(sums):
                require(
                    _HELD * 8 * classes**2 * size,
                    f"means over {classes} x {classes} classes of {size:,} parameters",
                    "choose fewer `parameters`, or leave `classes` out",
                )
                sums = torch.zeros(classes, classes, size, dtype=torch.float64)
                weights = torch.zeros(classes, classes, dtype=torch.float64)
            predicted = outputs.detach().softmax(1)
            counted = loss.target_weights(part.targets, predicted.dtype)
            for c in range(classes):
                of_class = counted * (part.targets == c)
                if not of_class.any():
                    continue
                for k in range(classes):
                    share = of_class * predicted[:, k]
                    difference = predicted.clone()
                    difference[:, k] -= 1
                    found = torch.autograd.grad(
                        outputs,
                        list(leaves.values()),
                        share[:, None] * difference,
                        retain_graph=True,
                        materialize_grads=True,
                    )
                    sums[c, k] += flatten(dict(zip(leaves, found, strict=True))).cpu().double()
                    weights[c, k] += share.double().sum().cpu()
        done += batch.count
        if progress is not None:
            progress(done, problem.count)
    for total in (sums, weights):
        problem.group.add_up(total)
    return ClassStructure(weights / problem.total_weight, _divided(sums, weights))


def eigenvalues_of(columns: Tensor) -> Tensor:
    """Return the eigenvalues of X X^T other than those that are 0 for want of columns, descending.

    Args:
        columns: X, (n, m).
    """
    return torch.linalg.svdvals(columns).square()


def _divided(sums: Tensor, weights: Tensor) -> Tensor:
    """Return means; 0 where the weight is."""
    return torch.where(weights[..., None] > 0, sums / weights[..., None], 0.0)


def _by_class(batch: Batch) -> list[Batch]:
    """Return the samples of each class apart, which spares the others' passes, where that goes."""
    targets = batch.targets
    if not batch.sliceable or targets.ndim != 1 or targets.is_floating_point():
        return [batch]
    return [batch[torch.nonzero(targets == c).flatten()] for c in targets.unique()]


def _check_outputs(outputs: Tensor, targets: Tensor) -> None:
    if outputs.ndim != 2 or targets.shape != outputs.shape[:1] or targets.is_floating_point():
        raise OperatorError(
            "expected logits (samples, classes) and one class index a sample, got outputs "
            f"{tuple(outputs.shape)} and targets {tuple(targets.shape)} of {targets.dtype}"
        )
