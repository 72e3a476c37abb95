"""Copies of a network that is lent: with its own weights, or with others."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from isoloss.landscape.determinism import ProblemError
from isoloss.landscape.kernels import uncompiled, uncompiled_name


def copy_of(model: nn.Module) -> nn.Module:
    """Return a copy of a network that was lent, without what `torch.compile` put around it.

    Compiled networks have no second derivatives.

    Raises:
        ProblemError: If it cannot be copied, or its weights not be replaced.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ProblemError(
            "expected a network whose weights can be replaced, got TorchScript "
            f"({type(model).__name__})\ngive the network that was scripted or traced: build it, "
            "then network.load_state_dict(scripted.state_dict())"
        )
    try:
        copied = uncompiled(copy.deepcopy(model))
    except Exception as error:
        raise ProblemError(
            f"expected a network that can be copied (it is lent and must stay unchanged), but "
            f"copying {type(model).__name__} failed\n{type(error).__name__}: {error}\n"
            "a common cause is a tensor with a gradient history kept as an attribute: detach it"
        ) from error
    for name, module in copied.named_modules():
        if not isinstance(module, nn.Embedding | nn.EmbeddingBag):
            continue
        if module.max_norm is not None:
            raise ProblemError(
                f"expected weights that stay what they are, got max_norm={module.max_norm} in "
                f"{name or 'the embedding'}, which shortens rows whenever they are looked up\n"
                "set it to None for measuring: at rows that are within it the loss is the same"
            )
        module.scale_grad_by_freq = False  # for optimizers: it makes gradients no derivatives
    return copied


def copy_with(model: nn.Module, weights: nn.Module | Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a network with other parameters and buffers, its device and dtype kept.

    Args:
        model: The network.
        weights: One of the same architecture, or a state dictionary. Of a network those buffers
            are taken, too, that no state dictionary has.

    Raises:
        ProblemError: If names or shapes differ.
    """
    twin = copy.deepcopy(model)
    given = weights.state_dict() if isinstance(weights, nn.Module) else weights
    state = {uncompiled_name(name): tensor for name, tensor in given.items()}
    try:
        twin.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise ProblemError(
            f"expected weights with the names and shapes of {type(model).__name__}'s\n"
            + "\n".join(lines)
        ) from error
    if isinstance(weights, nn.Module):
        own = dict(twin.named_buffers())
        with torch.no_grad():
            for name, buffer in weights.named_buffers():
                if name in own and name not in state:
                    own[name].copy_(buffer)
    return twin
