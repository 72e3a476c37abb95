r"""Losses that are functions of the weights they are given: probed at a second point.

A loss that reads the caller's own network (closed over, or held by a loss module) instead of the
one it is handed is right at theta0 and constant elsewhere: surfaces are flat, curvatures 0. A loss
whose samples depend on which others are in the batch changes with how the data are cut. Both are
seen at theta' near theta0, on a few samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from isoloss.landscape.batches import Samples
from isoloss.landscape.determinism import PROBE_TOLERANCE, ProblemError
from isoloss.landscape.kernels import uncompiled_name
from isoloss.landscape.terms import LossShapeError, Terms

FEW = 32
# Every weight grows by 0 to 10 %: far above rounding, and signs stay, on which logarithms and roots
# of weights depend. Weights of 0 get up to 0.01.
STEP, START = 0.1, 0.01
# Other cuts change sums by rounding alone, but residuals that nearly cancel magnify it.
CUT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1}


class OuterWeightsError(ProblemError):
    """A loss that depends on other weights of the network than those it is given."""


class CoupledSamplesError(ProblemError):
    """A loss of a sample that depends on the others in its batch."""


def check_second_point(
    lent: nn.Module,
    parameters: Mapping[str, Tensor],
    batch: Samples,
    losses: Callable[[Mapping[str, Tensor], Samples], Terms],
    afresh: Callable[[], Callable[[Mapping[str, Tensor], Samples], Terms]],
    *,
    dtype: torch.dtype,
    cuts: bool,
) -> None:
    """Refuse what is no function of the weights it is given, or of each sample alone.

    Nothing can be said, and nothing is refused, where the loss cannot be computed at theta'.

    Args:
        lent: The caller's network; changed, for who calls this to put it back (`keeping`).
        parameters: theta0.
        batch: A few samples.
        losses: `losses(point, batch)`, what each sample adds to the loss.
        afresh: Returns the same with what the loss module holds (copied before) taken anew.
        dtype: What is computed in.
        cuts: Whether samples must have the same losses in other batches.

    Raises:
        OuterWeightsError: If the loss changes with the lent network.
        CoupledSamplesError: If the losses of samples depend on the others in the batch.
        LossShapeError: If the weights of samples are others at theta'.
    """
    point = second_point(parameters)
    with torch.no_grad():
        try:
            given = losses(point, batch)
        except (RuntimeError, ValueError, ArithmeticError):
            return
        overwrite(lent, point)
        everywhere = afresh()(point, batch)
        refuse_outer_weights(given, everywhere, dtype)
        if gap(losses(parameters, batch).weights, given.weights) > PROBE_TOLERANCE[dtype]:
            raise LossShapeError(
                "expected a pair (sums, weights), the weights constant, got others where the "
                "network's parameters are moved\nlet them depend on the data alone, or multiply "
                "the losses by them and return the products alone"
            )
        if cuts and batch.sliceable and batch.count > 1:
            cut = max(1, batch.count // 3)  # halves may have the same classes
            parts = [losses(point, batch[:cut]), losses(point, batch[cut:])]
            refuse_coupled(given, parts, dtype)


def few_of(batch: Samples) -> Samples:
    """Return the first samples of a batch, all of one that cannot be cut."""
    return batch[:FEW] if batch.sliceable else batch


def second_point(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return theta', seeded, near theta0 and other than it in every entry."""
    moved = {}
    for seed, (name, tensor) in enumerate(parameters.items()):
        generator = torch.Generator(tensor.device).manual_seed(seed)
        share = 1 - torch.rand(tensor.shape, generator=generator, device=tensor.device)  # (0, 1]
        share = share.to(tensor.dtype)
        moved[name] = torch.where(tensor == 0, START * share, tensor * (1 + STEP * share))
    return moved


@contextmanager
def keeping(model: nn.Module) -> Iterator[None]:
    """Put parameters and buffers of a network back, bit for bit, whatever happens inside."""
    held = [(t, t.detach().clone()) for t in [*model.parameters(), *model.buffers()]]
    try:
        yield
    finally:
        for tensor, value in held:
            _overwrite(tensor, value)


def overwrite(model: nn.Module, point: Mapping[str, Tensor]) -> None:
    """Give the network itself other weights."""
    for name, tensor in model.named_parameters():
        if (own := uncompiled_name(name)) in point:
            _overwrite(tensor, point[own])


def _overwrite(tensor: Tensor, value: Tensor) -> None:
    try:
        # Through `data`: a graph of the caller's that saved the tensor can still be differentiated.
        tensor.data.copy_(value)
    except RuntimeError:  # an expanded tensor, or one of inference mode, keeps its value
        return


def refuse_outer_weights(given: Terms, everywhere: Terms, dtype: torch.dtype) -> None:
    """Raise `OuterWeightsError` where the caller's own network has a part in the loss.

    Args:
        given: Of a few samples at theta', the caller's network at theta0.
        everywhere: Of the same, the caller's network at theta', too.
        dtype: What was computed in.
    """
    if max(map(gap, given, everywhere)) > PROBE_TOLERANCE[dtype]:
        values = (float(terms.sums.double().mean()) for terms in (given, everywhere))
        raise OuterWeightsError(
            "expected a loss of the weights it is given, got {:.6g} near theta0 and {:.6g} where "
            "the network that was passed in is moved as well\n".format(*values)
            + "likely cause: the loss uses that network, or its parameters, from outside\n"
            "write it as closure(model, batch), of that model alone; for constant weights keep a "
            "copy.deepcopy"
        )


def refuse_coupled(whole: Terms, parts: list[Terms], dtype: torch.dtype) -> None:
    """Raise `CoupledSamplesError` where samples have other losses in other batches.

    Args:
        whole: Of a few samples at theta' in one batch.
        parts: Of the same, in order, in several.
        dtype: What was computed in.
    """
    apart = [torch.cat(each) for each in zip(*parts, strict=True)]
    if max(map(gap, whole, apart)) > CUT_TOLERANCE[dtype]:
        raise CoupledSamplesError(
            f"expected losses of single samples, got others in a batch of {len(whole.sums)} than "
            f"in {len(parts)} parts of it (mean {float(whole.sums.mean()):.6g} and "
            f"{float(apart[0].mean()):.6g})\n"
            "return each sample's own loss, before means; noise of samples belongs in the data\n"
            "samples that belong together (as in contrastive losses) are one: (groups, members, ..)"
        )


def gap(first: Tensor, second: Tensor) -> float:
    """Return sum |a - b| / sum max(|a|, |b|); equal infinities and two NaN differ by 0."""
    a, b = first.cpu().double(), second.cpu().double()
    same = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(same, 0.0, (a - b).abs()).sum()
    scale = torch.maximum(a.abs(), b.abs())
    gap = float(difference / scale[scale.isfinite()].sum().clamp(min=1e-300))
    return math.inf if math.isnan(gap) else gap
