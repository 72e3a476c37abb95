r"""Losses as pairs (sum, weight) a sample: L = sum_i sums_i / sum_i weights_i over all samples.

The pairs are added over batches and divided once, so that a mean over the whole data is what it
says however the data are cut. A torch loss module keeps its own normalisation:

========================================  =========================  ==============================
module                                    sum of a sample            weight of a sample
========================================  =========================  ==============================
CrossEntropyLoss, NLLLoss, class indices  class weight times loss,   class weights of the targets
                                          targets that count         that count
CrossEntropyLoss, class probabilities     over positions             number of positions
KLDivLoss(reduction="batchmean")          over elements              1
MSELoss, HuberLoss, BCEWithLogitsLoss, .. over elements              number of elements
MultiMarginLoss, MultiLabelMarginLoss, .. the value                  1
a foreign module, reduction="none"        mean over elements         1
a function, one value a sample            the value                  1
a function, (sums, weights)               as given                   as given
========================================  =========================  ==============================

torch's modules with `reduction="none"` state no normalisation and get that of `"mean"`. A subclass,
or a foreign module with a `reduction`, is taken by the row of its base (of `MSELoss` where it has
none) and compared with its own value on every batch.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from isoloss.errors import UsageError
from isoloss.landscape.terms import (
    IGNORE_INDEX,
    ClassLayout,
    LossShapeError,
    Terms,
    as_terms,
    per_sample_sum,
)

# Distributions p(target | outputs) whose -log p is the loss, but for a constant.
CATEGORICAL, BERNOULLI, GAUSSIAN = "categorical", "bernoulli", "gaussian"
LIKELIHOODS = {
    nn.CrossEntropyLoss: CATEGORICAL,
    nn.BCEWithLogitsLoss: BERNOULLI,
    nn.MSELoss: GAUSSIAN,
}
CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)
ELEMENT_LOSSES = (
    nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss,
    nn.KLDivLoss, nn.PoissonNLLLoss, nn.SoftMarginLoss, nn.HingeEmbeddingLoss,
)  # fmt: skip
SAMPLE_LOSSES = (nn.MultiMarginLoss, nn.MultiLabelMarginLoss, nn.MultiLabelSoftMarginLoss)
TORCH_LOSSES = (*CLASS_LOSSES, *ELEMENT_LOSSES, *SAMPLE_LOSSES)
# A module's own mean is in float32 where ours is: sums of up to 1e7 terms.
OWN_VALUE_TOLERANCE = 1e-4


class LossReductionError(UsageError, ValueError):
    """A loss that is no sum over samples divided by a sum of weights."""


class PerSampleLoss:
    """A loss that gives a pair (sum, weight) for each sample; see the module's table.

    Example:
        >>> loss = per_sample_loss(nn.CrossEntropyLoss(ignore_index=0))
        >>> sums, weights = loss(torch.zeros(3, 2), torch.tensor([1, 0, 1]))  # logits, targets
        >>> weights
        tensor([1., 0., 1.])
        >>> sums.sum() / weights.sum()  # what CrossEntropyLoss gives for this batch
        tensor(0.6931)

    Attributes:
        name: What it is called in errors.
        layout: Where the classes stand in logits and which targets do not count.
        likelihood: `"categorical"` of logits, `"bernoulli"` of logits or `"gaussian"`, where the
            loss is its -log p but for a constant and the mass of smoothed targets; else None.
    """

    def __init__(
        self,
        loss: Callable[[Any, Tensor], Any],
        layout: ClassLayout,
        own: nn.Module | None = None,
        likelihood: str | None = None,
    ) -> None:
        self.name = str(getattr(loss, "__name__", type(loss).__name__))
        self.layout = layout
        self._loss, self._own = loss, own
        self.likelihood = likelihood or _likelihood_of(own)
        self._compare = own is not None and type(own) not in TORCH_LOSSES

    def __call__(self, outputs: Any, targets: Tensor) -> Terms:
        """Return the pairs of a batch.

        Args:
            outputs: What the network gave.
            targets: (batch, ...).

        Returns:
            Sums and weights, (batch,) each; the weights have no gradient.

        Raises:
            LossShapeError: If outputs, targets and the loss's values do not fit together.
            LossReductionError: If a module's own mean is another one than that of the pairs.
        """
        if type(self._own) in TORCH_LOSSES and not isinstance(outputs, Tensor):
            raise LossShapeError(
                f"loss {self.name}: expected a tensor from the network, got {_describe(outputs)}\n"
                "write a function loss(outputs, targets) of the part that is meant, with one value "
                "a sample"
            )
        if isinstance(self._own, CLASS_LOSSES):
            terms = self._of_classes(outputs, targets)
        else:
            terms = self._of_elements(outputs, targets)
        if self._compare:
            self._check_own_value(outputs, targets, terms)
        return terms

    def to(self, device: torch.device | str, dtype: torch.dtype) -> PerSampleLoss:
        """Return the loss with its tensors (class weights) on a device."""
        if not isinstance(self._loss, nn.Module):
            return self
        moved = copy.copy(self)
        moved._loss = copy.deepcopy(self._loss).to(device, dtype)
        moved._own = None if self._own is None else copy.deepcopy(self._own).to(device, dtype)
        return moved

    def _of_classes(self, outputs: Any, targets: Tensor) -> Terms:
        dim = self.layout.find(outputs, targets)
        logits = outputs.movedim(dim, 1)
        if targets.is_floating_point():
            values = self._values(logits, targets.movedim(dim, 1))
            return Terms(per_sample_sum(values), per_sample_sum(torch.ones_like(values).detach()))
        values = self._values(logits, targets)
        weights = self.target_weights(targets, values.dtype)
        return Terms(per_sample_sum(values), per_sample_sum(weights))

    @property
    def linear(self) -> bool:
        """Whether the loss is known to be linear in the outputs: they are log-probabilities."""
        return isinstance(self._own, nn.NLLLoss)

    def target_weights(self, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what each class index counts for: 0 where ignored, 1 or its class's weight."""
        counted = targets != self.layout.ignore_index
        weight = getattr(self._own, "weight", None)
        if weight is None:
            return counted.to(dtype)
        # The stand-in class 0 has no part in it: its weight is not added.
        weights: Tensor = weight.to(targets.device)[targets.where(counted, 0)] * counted
        return weights

    def _of_elements(self, outputs: Any, targets: Tensor) -> Terms:
        tensor = isinstance(outputs, Tensor)
        if isinstance(self._own, ELEMENT_LOSSES) and tensor and outputs.shape != targets.shape:
            self._refuse_other_shapes(outputs, targets)
        values = self._values(outputs, targets)
        if (
            tensor
            and isinstance(values, Tensor)
            and values.numel() > max(outputs.numel(), targets.numel())
        ):
            self._refuse_other_shapes(outputs, targets)
        if self._own is None or self._own.reduction == "none":
            return as_terms(values, len(targets), f"loss {self.name}")
        mean, ones = as_terms(values, len(targets), f"loss {self.name}")
        size = values[0].numel()
        return Terms(mean * size, ones if self._own.reduction == "batchmean" else ones * size)

    def _refuse_other_shapes(self, outputs: Tensor, targets: Tensor) -> NoReturn:
        raise LossShapeError(
            f"loss {self.name}: expected outputs and targets of one shape\n"
            f"got outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}: broadcast, "
            "samples would be compared with each other\n"
            "give the targets the outputs' shape"
        )

    def _values(self, outputs: Any, targets: Tensor) -> Any:
        if isinstance(self._loss, nn.Module) and isinstance(outputs, Tensor):
            self._loss.to(outputs.device)  # predictions are scored where they are kept
        try:
            return self._loss(outputs, targets)
        except IndexError as error:
            if self._own is None:
                raise
            raise LossShapeError(
                f"loss {self.name}: expected targets among the outputs' classes\n"
                f"got outputs {tuple(outputs.shape)}: {str(error).splitlines()[0]}\n"
                "give the network an output for each class, or set the loss's ignore_index"
            ) from error

    @torch.no_grad()
    def _check_own_value(self, outputs: Any, targets: Tensor, terms: Terms) -> None:
        own = self._own
        if own is None or own.reduction == "none" or not terms.weights.any():
            return
        if isinstance(outputs, Tensor):
            own.to(outputs.device)
            if isinstance(own, CLASS_LOSSES):
                outputs = outputs.movedim(self.layout.find(outputs, targets), 1)
        expected = own(outputs, targets).double()
        found = terms.sums.double().sum() / terms.weights.double().sum()
        close = torch.isclose(found, expected, OWN_VALUE_TOLERANCE, 1e-7, equal_nan=True)
        if expected.ndim or not close:
            raise LossReductionError(
                f"loss {self.name}: expected a mean over samples or elements, got "
                f"{expected.flatten()[0]:.6g} where that mean is {found:.6g}\n"
                "write it as a function that returns (sums, weights), a pair of tensors (batch,)"
            )


def _likelihood_of(own: nn.Module | None) -> str | None:
    weights = (getattr(own, "weight", None), getattr(own, "pos_weight", None))
    if isinstance(own, nn.BCEWithLogitsLoss) and any(w is not None for w in weights):
        return None  # the weights make it another distribution's, or none's
    return LIKELIHOODS.get(type(own))


def per_sample_loss(
    loss: nn.Module | Callable[[Any, Tensor], Any],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    class_dim: int | None = None,
    likelihood: str | None = None,
) -> PerSampleLoss:
    """Turn a loss into one that gives a pair (sum, weight) for each sample.

    Args:
        loss: A torch loss module, which is copied; or a callable `loss(outputs, targets)` that
            returns one value a sample, (batch,), or a pair (sums, weights) of shape (batch,) each.
            Values with further dimensions are averaged over them.
        device: Where the outputs will be; tensors of a loss module (class weights) move there.
        dtype: Floating type of the outputs.
        class_dim: Where the classes stand in logits with several positions a sample, 1 or -1;
            read off the targets' shape where None.
        likelihood: Of a function: the distribution it is -log p of, see `PerSampleLoss`.

    Returns:
        The loss; as it is (on the device) where it is a `PerSampleLoss` already.

    Raises:
        LossReductionError: If a loss module is a plain sum, has other arguments than outputs and
            targets, or weights that belong to single samples.
    """
    if isinstance(loss, PerSampleLoss):
        moved = copy.copy(loss.to(device, dtype))
        if class_dim is not None:
            moved.layout = ClassLayout(class_dim, loss.layout.ignore_index)
        return moved
    if not isinstance(loss, nn.Module) or not hasattr(loss, "reduction"):
        if isinstance(loss, nn.Module):
            loss = copy.deepcopy(loss).to(device, dtype)
        return PerSampleLoss(loss, ClassLayout(class_dim), likelihood=likelihood)
    _check_module(loss)
    own = copy.deepcopy(loss).to(device, dtype)
    if isinstance(loss, TORCH_LOSSES) and loss.reduction == "none":
        own.reduction = "mean"  # type: ignore[assignment]
    apart = copy.deepcopy(own)
    apart.reduction = "none"  # type: ignore[assignment]
    ignore = getattr(loss, "ignore_index", IGNORE_INDEX)
    layout = ClassLayout(class_dim, ignore if isinstance(ignore, int) else IGNORE_INDEX)
    return PerSampleLoss(apart, layout, own)


def _check_module(loss: nn.Module) -> None:
    name = type(loss).__name__
    if loss.reduction == "sum":
        raise LossReductionError(
            f"loss {name}: expected a mean over samples, got reduction='sum', whose value and "
            "curvature grow with the number of samples\n"
            "use reduction='mean'; for another scale, a function that multiplies its values"
        )
    parameters = inspect.signature(loss.forward).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty]
    if len(required) > 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise LossReductionError(
            f"loss {name}: expected loss(outputs, targets), got ({', '.join(required)}), which "
            "cannot be split into samples\nwrite it as a function of (outputs, targets) that "
            "returns one value a sample, or a pair (sums, weights)"
        )
    weight = getattr(loss, "weight", None)
    binary = isinstance(loss, nn.BCELoss | nn.BCEWithLogitsLoss)
    if binary and isinstance(weight, Tensor) and weight.ndim > 1 and weight.shape[0] > 1:
        raise LossReductionError(
            f"loss {name}: expected a weight for each output, got shape {tuple(weight.shape)}, "
            "a weight for each sample of one batch\n"
            "put the weights beside the targets and write a function (outputs, targets)"
        )


def _describe(outputs: Any) -> str:
    kind = type(outputs).__name__
    if isinstance(outputs, Mapping):
        return f"{kind} with {', '.join(map(str, outputs))}"
    return f"{kind} of {len(outputs)}" if isinstance(outputs, tuple | list) else kind
