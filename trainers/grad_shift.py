"""The rule g + rho w: weight decay, which has been called sharpness-aware minimisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from isoloss.trainers.over_base import OverBase


class GradientShift(OverBase):
    r"""Adds rho w to the gradient of every parameter before the base optimizer steps.

    This rule has been described as sharpness-aware minimisation. It is not: no gradient is taken
    anywhere but at w, and rho w is the gradient of the penalty rho/2 ||w||^2. So it is

    - with SGD, `weight_decay=rho`, bit for bit, momentum included;
    - with Adam, Adam's coupled decay `weight_decay=rho` (not AdamW's).

    It is kept so that results obtained with it can be reproduced and compared. For sharpness-aware
    minimisation see `trainers.sam.SAM`.

    `state_dict`, `load_state_dict`, `zero_grad`, `param_groups` and `state` are the base's.

    Args:
        base: Any optimizer that steps without a closure.
        rho: The coefficient.

    Raises:
        ValueError: For a negative rho.
    """

    m: int | None = None
    hyperparameters: Sequence[str] = ("lr", "rho")

    def __init__(self, base: Optimizer, rho: float) -> None:
        if not rho >= 0:
            raise ValueError(f"expected rho >= 0, got {rho}")
        super().__init__(base)
        self.rho = rho

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Take one step with the gradients present, or with those that a closure computes.

        Args:
            closure: Computes the loss, calls backward and returns the loss.

        Returns:
            The closure's loss, None without one.
        """
        loss = None if closure is None else self.descent_gradient([closure], [1.0])
        self.descent_step()
        return loss

    def descent_gradient(
        self, closures: Sequence[Callable[[], Tensor]], shares: Sequence[float]
    ) -> Tensor:
        """Take the gradient g of the whole batch at the weights."""
        (closure,) = closures
        with torch.enable_grad():
            self.zero_grad()
            return closure()

    @torch.no_grad()
    def descent_step(self) -> None:
        """Let the base step with g + rho w, g being the gradients present."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    # A new tensor, as weight decay does it: the gradient may be in use.
                    parameter.grad = parameter.grad.add(parameter, alpha=self.rho)
        self.base.step()
