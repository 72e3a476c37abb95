"""Other weights of the same function: two layers with a ReLU between them, one scaled up, one down.

Networks of positively homogeneous activations have them (Dinh et al. 2017, section 4): a measure
that differs between such weights says something of the weights and not of the function.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isoloss.landscape.problem import Problem
from isoloss.landscape.sharpness.ball import SharpnessError

# Of losses, between the two sets of weights: rounding, and no more.
SAME = {torch.float32: 1e-5, torch.float64: 1e-10}


@dataclass(frozen=True)
class ReluPair:
    """Two layers of a network, by their names."""

    first: str
    second: str


def rescaled(model: nn.Module, pair: ReluPair, factor: float) -> dict[str, Tensor]:
    """Return the state of a network with a layer times `factor` and the next one divided by it.

    The first layer's weight and bias are multiplied, the second one's weight is divided.
    """
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name in (f"{pair.first}.weight", f"{pair.first}.bias"):
        if name in state:
            state[name] *= factor
    state[f"{pair.second}.weight"] /= factor
    return state


def find_relu_pair(model: nn.Module, problem: Problem, factor: float = 2.0) -> ReluPair:
    """Return the first two consecutive layers that can be rescaled without changing the function.

    Found by trying: the losses of all samples, their mean and their spread stay what they are, to
    rounding. Layers with batch norm between them, or with another activation, are passed over.

    Args:
        model: The network, of the problem's weights.
        problem: The loss.
        factor: To try with.

    Raises:
        SharpnessError: If there are none.
    """
    tried = []
    for pair in _neighbours(model):
        tried.append(f"{pair.first} and {pair.second}")
        if same_function(problem, problem.at(rescaled(model, pair, factor))):
            return pair
    raise SharpnessError(
        f"expected two layers with a ReLU between them, tried {', '.join(tried) or 'none'}\n"
        "rescaling them changes the function: batch norm or another activation is between them"
    )


def same_function(problem: Problem, other: Problem) -> bool:
    """Return whether two problems have the same losses over their samples, to rounding."""
    ours, theirs = problem.evaluate(), other.evaluate()
    tolerance = SAME.get(problem.compute_dtype, 1e-2)
    pairs = [
        (ours.loss, theirs.loss),
        (ours.loss_standard_deviation, theirs.loss_standard_deviation),
    ]
    return all(abs(a - b) <= tolerance * max(abs(a), abs(b)) for a, b in pairs)


def _neighbours(model: nn.Module) -> Iterator[ReluPair]:
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor) and module.weight.ndim > 1
    ]
    for first, second in itertools.pairwise(names):
        yield ReluPair(first, second)
