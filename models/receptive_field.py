"""The receptive field of a convolutional network."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

_ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POINTWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh,
    nn.Identity, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d,
)  # fmt: skip
_POINTWISE_FUNCTIONS: set[Callable[..., Any] | str] = {F.relu, F.pad, torch.relu, "relu"}
_JOINING: set[Callable[..., Any] | str] = {operator.add, operator.iadd, torch.add, torch.cat, "add"}
_FLATTENING: set[Callable[..., Any] | str] = {torch.flatten, "flatten"}


def receptive_field(model: nn.Module, input_shape: Sequence[int]) -> int | None:
    r"""Return the pixels along one side of an image that a unit of the last feature map depends on.

    Through each convolution or pooling of kernel k, stride s and dilation d,

        r <- r + (k - 1) d j,        j <- j s,        from r = j = 1,

    j being the distance in pixels between neighbouring units. Where branches join, the widest
    counts. An adaptive pool that divides its map evenly is the pool of that kernel and stride. The
    last feature map is the one that is flattened; a linear layer after that sees all of it. Image
    borders are left out of account, so that the field can exceed the image.

    Args:
        model: any network; it stays as it is.
        input_shape: (channels, height, width).

    Returns:
        The larger of height and width of the field. None where there is no such thing
        (attention, gates over the whole image, graphs, fields that differ along the branches'
        strides) or the network's forward cannot be followed symbolically.
    """
    if len(input_shape) != 3:
        return None
    try:
        # Wrapped, as tracing goes inside the outermost module even if it is a single convolution.
        traced = fx.symbolic_trace(nn.Sequential(copy.deepcopy(model).to("meta").eval()))
        follower = _Follower(traced)
        follower.run(torch.empty(1, *input_shape, device="meta"))
    except Exception:  # whatever a foreign network's forward raises under tracing
        return None
    field = follower.fields.get(follower.last)
    return max(field.size) if field is not None and max(field.size) > 1 else None


@dataclass(frozen=True)
class _Field:
    size: tuple[int, int] = (1, 1)  # r, along height and width
    jump: tuple[int, int] = (1, 1)  # j

    def through(self, kernel: Any, stride: Any, dilation: Any) -> _Field:
        k, s, d = _pair(kernel), _pair(stride), _pair(dilation)
        r, j = self.size, self.jump
        return _Field(
            (r[0] + (k[0] - 1) * d[0] * j[0], r[1] + (k[1] - 1) * d[1] * j[1]),
            (j[0] * s[0], j[1] * s[1]),
        )


class _NoFieldError(Exception):
    """An operation that has no field."""


class _Follower(fx.Interpreter):
    """Runs a traced network on tensors without data and follows the field of each value."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced, garbage_collect_values=False)
        self.fields: dict[fx.Node, _Field] = {}
        self.last = next(node for node in traced.graph.nodes if node.op == "output")

    def run_node(self, n: fx.Node) -> Any:
        """Run one operation and note the field of what it returns."""
        result = super().run_node(n)
        fields = [self.fields[node] for node in n.all_input_nodes if node in self.fields]
        if n.op == "placeholder":
            self.fields[n] = _Field()
        elif n.op == "output" or (fields and not _is_image(self.env[n.all_input_nodes[0]])):
            self.fields[n] = fields[0]
        elif fields:
            self.fields[n] = self._field(n, fields)
        return result

    def _field(self, node: fx.Node, fields: list[_Field]) -> _Field:
        field, target = fields[0], node.target
        if node.op == "call_module":
            return _through(self.fetch_attr(str(target)), field, self.env[node.all_input_nodes[0]])
        if target in _POINTWISE_FUNCTIONS or target in _FLATTENING:
            return field
        if target in _JOINING and len({f.jump for f in fields}) == 1:
            heights, widths = zip(*(f.size for f in fields), strict=True)
            return _Field((max(heights), max(widths)), field.jump)
        raise _NoFieldError(str(target))


def _through(module: nn.Module, field: _Field, inputs: Tensor) -> _Field:
    if isinstance(module, nn.Conv2d | nn.MaxPool2d):
        return field.through(module.kernel_size, module.stride, module.dilation)
    if isinstance(module, nn.AvgPool2d):
        return field.through(module.kernel_size, module.stride, 1)
    if isinstance(module, _ADAPTIVE):
        sizes = [
            (size, size if to is None else to)
            for size, to in zip(inputs.shape[-2:], _pair(module.output_size), strict=True)
        ]
        if all(size % to == 0 for size, to in sizes):
            window = tuple(size // to for size, to in sizes)
            return field.through(window, window, 1)
    if isinstance(module, (*_POINTWISE, nn.Flatten)):
        return field
    raise _NoFieldError(type(module).__name__)


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4


def _pair(value: Any) -> tuple[Any, Any]:
    return tuple(value) if isinstance(value, Sequence) else (value, value)
