"""Which of torch's kernels compute a network: those that make values and derivatives agree.

torch computes some layers in several ways, and not all of them are the layer:

- `nn.TransformerEncoder` and `nn.MultiheadAttention` in `eval` mode and without gradients put out
  zeros at padded places, where with gradients (in training, in Hessians) they put out values;
- the fused kernel of weight normalisation takes the norms for constants in its second derivative,
  which is wrong without an error, as differences of gradients show (torch 2.15);
- the fused kernels of attention and `hardsigmoid` have no second derivative, and say so; cuDNN's
  recurrent layers have none either, and in `eval` mode no first one.

Gradient checkpointing computes a part of the network again in the backward pass, when the weights
it was called with are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointError

from isoloss.errors import IsolossError


class CheckpointingError(IsolossError, RuntimeError):
    """Derivatives through a network that computes parts of it again in its backward pass."""


COMPILED = "_orig_mod"  # where `torch.compile` keeps what it wraps, and what it adds to names


def uncompiled(model: nn.Module) -> nn.Module:
    """Return a network without what `torch.compile` put around it or its parts, in place.

    What it compiles has no second derivatives.
    """
    for module in list(model.modules()):
        for name, part in module.named_children():
            if hasattr(part, COMPILED):
                setattr(module, name, getattr(part, COMPILED))
    own: nn.Module = getattr(model, COMPILED, model)
    return own


def uncompiled_name(name: str) -> str:
    """Return the name that a parameter has in the network without what `torch.compile` adds."""
    return ".".join(part for part in name.split(".") if part != COMPILED)


@contextmanager
def same_without_gradients() -> Iterator[None]:
    """Compute without gradients what is computed with them."""
    allowed = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(allowed)


@contextmanager
def second_derivatives() -> Iterator[None]:
    """Compute networks by functions that can be differentiated twice and more."""
    with sdpa_kernel(SDPBackend.MATH), _PlainFormulas():
        yield


@contextmanager
def derivatives(model: nn.Module, *, second: bool) -> Iterator[None]:
    """Compute a network in `eval` mode by functions that can be differentiated, once or more.

    Raises:
        CheckpointingError: For gradient checkpointing.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with (
        without_cudnn() if recurrent else nullcontext(),
        second_derivatives() if second else nullcontext(),
        no_checkpointing(),
    ):
        yield


def without_cudnn() -> AbstractContextManager[None]:
    """Leave cuDNN out: torch's own kernels have the derivatives."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=False)
    return flags


def is_of_cudnn_recurrence(error: Exception) -> bool:
    """Return whether torch says that cuDNN's recurrent layers lack a derivative."""
    return "cudnn rnn" in str(error).lower()


@contextmanager
def no_checkpointing() -> Iterator[None]:
    """Say what to do where a network saves memory by gradient checkpointing.

    Raises:
        CheckpointingError: In place of torch's errors.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, CheckpointError) and "use_reentrant" not in text:
            raise
        raise CheckpointingError(
            "expected a network that keeps what its derivatives need, got gradient checkpointing\n"
            "turn it off (transformers: model.gradient_checkpointing_disable(), timm: "
            "model.set_grad_checkpointing(False))\nand bound the memory by `batch_size`"
        ) from error


class _PlainFormulas(TorchFunctionMode):
    """Replaces fused functions by formulas of functions that have all derivatives."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return FORMULAS.get(function, function)(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    output = nn.functional.relu6(input + 3) / 6
    return input.copy_(output) if inplace else output


FORMULAS: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch._weight_norm: _weight_norm,
    nn.functional.hardsigmoid: _hardsigmoid,
}
