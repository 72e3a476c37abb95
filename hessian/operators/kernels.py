r"""Layers whose second derivatives torch computes slowly, by the kernels of their first ones.

A convolution A(x, w) is bilinear, and so are its derivatives by x and w, applied to the gradient g
of its output: B(g, w) and C(g, x), which one call of torch's computes together. Their derivatives,
applied to u for B and W for C, are of the same three forms,

    by g: A(u, w) + A(x, W),      by x: B(g, W),      by w: C(g, u),

the last two together the backward pass of a convolution of u with W. torch's own double backward
writes B(g, W) as a transposed convolution, also where nobody needs it (of images, the x of the
first layer), and C(g, u) as one whose kernel is as large as the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.overrides import TorchFunctionMode

# Stride, padding, dilation, whether transposed, output padding, groups.
_Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]


class ProductKernels(TorchFunctionMode):
    """Computes layers so that their gradients are fast to differentiate, inside the context.

    Values and derivatives of all orders are torch's own up to rounding.
    """

    def __init__(self) -> None:
        super().__init__()
        # Read by backward passes, which may run in threads of their own: not a context variable.
        self.linear = False

    @contextmanager
    def linear_in_cotangents(self) -> Iterator[None]:
        """Let gradients taken inside be differentiated by their cotangents alone.

        They are linear in these; all else in them counts as constant, and costs nothing later.
        """
        self.linear = True
        try:
            yield
        finally:
            self.linear = False

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or what stands for it here."""
        ours = _OURS.get(function)
        if ours is not None and _plain():
            found = ours(self, *args, **(kwargs or {}))
            if found is not None:
                return found
        return function(*args, **(kwargs or {}))


def _plain() -> bool:
    """Return whether there are no transforms, whose rules ours do not follow."""
    return not torch._C._are_functorch_transforms_active() and forward_ad._current_level < 0


def _convolution(
    mode: ProductKernels,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    dims = weight.ndim - 2
    unlike = isinstance(padding, str) or input.ndim != weight.ndim or input.dtype != weight.dtype
    if unlike or torch.is_autocast_enabled(input.device.type):
        return None

    def each(value: Any) -> list[int]:
        return [value] * dims if isinstance(value, int) else list(value) * (dims // len(value))

    geometry = (each(stride), each(padding), each(dilation), False, [0] * dims, groups)
    found: Tensor = _Convolution.apply(mode, input, weight, bias, geometry)
    return found


class _Convolution(Function):
    """A(x, w), and the bias."""

    @staticmethod
    def forward(
        ctx: Any,
        mode: ProductKernels,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        geometry: _Geometry,
    ) -> Tensor:
        ctx.mode, ctx.geometry = mode, geometry
        ctx.save_for_backward(x, w)
        return torch.ops.aten.convolution(x, w, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        if ctx.mode.linear:
            x, w = x.detach(), w.detach()
        asked = [bool(needed) for needed in ctx.needs_input_grad[1:4]]
        return None, *_Gradients.apply(g, x, w, asked, ctx.geometry), None


class _Gradients(Function):
    """B(g, w), C(g, x) and the sum of g over samples and positions, those that are asked for."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, w: Tensor, asked: list[bool], geometry: _Geometry
    ) -> Any:
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, w)
        return _gradients(g, x, w, asked, geometry)

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, big_w: Tensor | None, b: Tensor | None) -> Any:
        g, x, w = ctx.saved_tensors
        needed = ctx.needs_input_grad
        by_g = by_x = by_w = None
        if needed[0]:
            for one, other in ((u, w), (x, big_w)):
                if one is None or other is None:
                    continue
                part = torch.ops.aten.convolution(one, other, b, *ctx.geometry)
                by_g, b = (part if by_g is None else by_g.add_(part)), None
            if b is not None:
                by_g = b.view(-1, *[1] * (g.ndim - 2)).expand_as(g)
        asked = [needed[1] and big_w is not None, needed[2] and u is not None, False]
        if any(asked):
            by_x, by_w, _ = _gradients(
                g, x if u is None else u, w if big_w is None else big_w, asked, ctx.geometry
            )
        return by_g, by_x, by_w, None, None


def _gradients(g: Tensor, x: Tensor, w: Tensor, asked: list[bool], geometry: _Geometry) -> Any:
    return torch.ops.aten.convolution_backward(g, x, w, [w.shape[0]], *geometry, asked)


def _batch_norm(
    mode: ProductKernels,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Normalise by running statistics as a linear map of each channel."""
    if training or running_mean is None or running_var is None:
        return None
    if not input.dtype == running_mean.dtype == running_var.dtype:
        return None
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    shift = shift if bias is None else shift + bias
    shape = [-1, *[1] * (input.ndim - 2)]
    return torch.addcmul(shift.view(shape), input, scale.view(shape))


_OURS: Mapping[Callable[..., Any], Callable[..., Tensor | None]] = {
    torch.conv1d: _convolution,
    torch.conv2d: _convolution,
    torch.conv3d: _convolution,
    nn.functional.batch_norm: _batch_norm,
}
