"""Functions of the weights that are functions: the same data and the same loss twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from isoloss.errors import IsolossError
from isoloss.landscape.batches import FixedData, Samples
from isoloss.landscape.evaluation import Evaluation

PROBE_SAMPLES = 1000
# Two passes over the same samples may differ by reordered sums, not by more.
PROBE_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2}


class ProblemError(IsolossError, ValueError):
    """A network, loss and data that do not make a well-defined function of the weights."""


class NotDeterministicError(ProblemError):
    """Two evaluations at the same weights gave different losses."""


def check_same_again(
    batches: Iterable[Any], items: FixedData, read: Callable[[Any], Samples]
) -> None:
    """Read the first samples a second time, where a source can change between passes.

    Args:
        batches: The source.
        items: What was read the first time.
        read: Recognises one batch.
    """
    if isinstance(batches, list | tuple) or iter(batches) is batches:
        return
    apart, count = iter(items.batches), 0
    for new in map(read, batches):
        if not new.count:
            continue
        merged = len(items.batches) == 1 and items.batches[0].sliceable
        old = items.batches[0][count : count + new.count] if merged else next(apart, None)
        kept = {} if old is None else old.tensors()
        for name, tensor in new.tensors().items():
            if name not in kept or not torch.equal(tensor, kept[name]):
                raise NotDeterministicError(
                    f"expected the same batches from two passes over the data, got other {name}\n"
                    "likely cause: a DataLoader with shuffle=True or random augmentation\n"
                    "pass it unshuffled and unaugmented, or as list(loader)"
                )
        count += new.count
        if count >= min(PROBE_SAMPLES, items.count):
            break


def check_same_loss(
    evaluate: Callable[[Iterable[Samples]], Evaluation],
    batches: Iterable[Samples],
    dtype: torch.dtype,
) -> None:
    """Evaluate the first samples twice at the same weights.

    Args:
        evaluate: Evaluates some batches.
        batches: The data.
        dtype: What is computed in.

    Raises:
        NotDeterministicError: If the losses differ.
    """
    few, count = [], 0
    for batch in batches:
        few.append(batch)
        count += batch.count
        if count >= PROBE_SAMPLES:
            break
    first, second = (evaluate(few).loss for _ in range(2))
    difference = abs(first - second) / max(abs(first), abs(second), 1e-300)
    if difference > PROBE_TOLERANCE[dtype]:
        raise NotDeterministicError(
            f"expected the same loss from two passes at the same weights, got {first:.9g} and "
            f"{second:.9g} over {count} samples\nlikely cause: random numbers in the network's "
            "forward that ignore eval mode (F.dropout without training=self.training, noise)"
        )
