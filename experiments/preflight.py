"""What is tried before a training begins, so that its faults are found before a run is made."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from isoloss.errors import IsolossError
from isoloss.evaluation.networks import placement
from isoloss.experiments.errors import ExperimentError
from isoloss.landscape.activations import size_of
from isoloss.landscape.memory import explaining, outputs_held, require
from isoloss.landscape.objective import objective
from isoloss.trainers.stepper import as_stepper
from isoloss.trainers.trainer import Trainer


def check_parameters(model: nn.Module) -> None:
    """Refuse a network that has nothing to train, or not yet, and one that switched gradients off.

    Raises:
        ExperimentError: Saying which.
    """
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ExperimentError(
            f"expected a network whose parameters have their shapes, got lazy ones: {lazy[0]}\n"
            "name the sizes, or send one batch through the network where it is made"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ExperimentError(
            f"expected a network with parameters to train, got {type(model).__name__} with none "
            "(requires_grad)"
        )
    if not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        raise ExperimentError(
            "expected gradients to be computed, but making network or data switched them off\n"
            "use `with torch.no_grad():` there, in place of torch.set_grad_enabled(False)"
        )


def check_step(trainer: Trainer) -> None:
    """Send two samples through network and loss, which are left as they are.

    Raises:
        ExperimentError: If the network cannot take them, the loss does not depend on its
            parameters, or a batch of one sample meets a batch norm that cannot take it.
        IsolossError: If the loss cannot take the outputs.
        MemoryShortError: If there is less memory than the steps need.
    """
    outputs = _try(trainer, 2, trainer.model, training=False)
    _check_memory(trainer, outputs)
    alone = 1 in (trainer.batch_size, len(trainer.train) % trainer.batch_size)
    if alone and any(isinstance(module, _BatchNorm) for module in trainer.model.modules()):
        try:
            _try(trainer, 1, copy.deepcopy(trainer.model), training=True)
        except ExperimentError as error:
            raise ExperimentError(
                "expected batches of two samples or more for this network's batch norm, got one "
                f"of {len(trainer.train)} samples in batches of {trainer.batch_size}\n"
                "choose another `batch_size`"
            ) from error


def _check_memory(trainer: Trainer, outputs: int) -> None:
    """Refuse steps that cannot fit: the outputs of all layers, and a gradient of each parameter."""
    device, _ = placement(trainer.model)
    share = -(-trainer.batch_size // trainer.group.size)
    samples = min(share, as_stepper(trainer.optimizer).m or share)
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in parameters)
    require(
        outputs * samples // (2 if trainer.settings.amp else 1) + gradients,
        f"the gradient of a step of {samples:,} samples",
        "train with a smaller `batch_size`",
        device,
    )


def _try(trainer: Trainer, count: int, model: nn.Module, *, training: bool) -> int:
    """Return the bytes of the outputs of layers for each sample; 0 where samples share them."""
    device, dtype = placement(model)
    modes = {module: module.training for module in model.modules()}
    asked = objective(model, trainer.loss, device=device, dtype=dtype)
    order = torch.arange(min(count, len(trainer.train)))
    item = next(iter(trainer.train.batches(len(order), order=order)))
    batch = asked.read(item).to(device, dtype, channels_last=True)
    try:
        model.train(training)
        with (
            torch.random.fork_rng(devices=[]),
            outputs_held(asked) as outputs,
            explaining(batch.count),
        ):
            terms, _ = asked(batch, metric=False)
    except IsolossError:
        raise
    except Exception as error:  # of other people's code, which raises anything
        text = " ".join(str(error).split()) or "no reason given"
        raise ExperimentError(
            f"expected a network for samples of shape {_shape(item)}, {type(model).__name__} "
            f"ended with {type(error).__name__}: {text[:200]}\n"
            "build it for the data: mind the sizes of its input and output"
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not terms.sums.requires_grad:
        raise ExperimentError(
            "expected a loss with a gradient, got one that does not depend on the parameters: "
            f"{terms.sums.dtype} without\n"
            "a loss of integers or comparisons, or one under no_grad or detach, cannot be trained"
        )
    return sum(map(size_of, outputs.values())) // batch.count if batch.sliceable else 0


def _shape(item: object) -> str:
    inputs = item[0] if isinstance(item, tuple | list) and item else item
    shape = getattr(inputs, "shape", None)
    return "of their own kind" if shape is None else str(tuple(shape[1:]))
