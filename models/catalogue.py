"""The register of networks, and facts about a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from isoloss.errors import UsageError
from isoloss.models.receptive_field import receptive_field
from isoloss.registry import Registry

# Facts every entry is registered with:
#   inputs          "image" (channels, height, width), "series" (length, channels) or "graph"
#   input_shape     of a sample that suits the default arguments; None for graphs
#   datasets        the data sets it is meant for
#   smallest        arguments of its smallest form, for tests
#   smallest_shape  of a sample that form takes
#   forms           what the argument `form` chooses among, the default first; most have none
# A family also has `example`, one of its members.
MODELS: Registry[Callable[..., nn.Module]] = Registry("model")


class ModelError(UsageError, ValueError):
    """A network that cannot be built for what was asked."""


@dataclass(frozen=True)
class ModelFacts:
    """Sizes of a network.

    Attributes:
        parameters: number of scalar parameters, shared ones once.
        trainable: those that require a gradient.
        buffers: number of scalars in buffers (running statistics and the like).
        receptive_field: pixels along one side that a unit of the last feature map sees; None
            where this means nothing or is not known (see `receptive_field`).
    """

    parameters: int
    trainable: int
    buffers: int
    receptive_field: int | None


def model_facts(model: nn.Module, input_shape: Sequence[int] | None = None) -> ModelFacts:
    """Count the scalars of a network.

    Args:
        model: any network, on any device.
        input_shape: of one sample; without it there is no receptive field.
    """
    parameters = list(model.parameters())
    return ModelFacts(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        buffers=sum(b.numel() for b in model.buffers()),
        receptive_field=receptive_field(model, input_shape) if input_shape else None,
    )


def image_shape(
    what: str, input_shape: Sequence[int], in_channels: int | None, smallest: int = 1
) -> tuple[int, int, int]:
    """Return (channels, height, width) of the images a network is built for.

    Raises:
        ModelError: no images, or images below `smallest` x `smallest`.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise ModelError(
            f"{what} expects images (channels, height, width) of at least "
            f"{smallest}x{smallest}, got input_shape {tuple(input_shape)}"
        )
    channels, height, width = input_shape
    return in_channels or channels, height, width


def check_choice(what: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        ModelError: names the choices.
    """
    if value not in choices:
        raise ModelError(f"{what} is one of {', '.join(map(str, choices))}; got {value!r}")
