"""What a step of training asks of an optimizer, so that the loop knows none of them by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.optim import Optimizer


@runtime_checkable
class Stepper(Protocol):
    """An optimizer that chooses where the gradients of its step are taken.

    To train with an optimizer of another kind, write a `torch.optim.Optimizer` (`OverBase` is one
    around another) with these four members besides `param_groups`, `zero_grad`, `state_dict` and
    `load_state_dict`, which schedules and checkpoints use. A step is then

        optimizer.descent_gradient(closures, shares)
        ...                            # sums over processes, finiteness, clipping
        optimizer.descent_step()

    Optimizers that step from the gradient at the weights alone, as all of `torch.optim` but LBFGS
    do, need none of it: `as_stepper` adapts them.

    Attributes:
        m: Samples of a subset where each batch is cut into subsets with a closure each; None for
            one closure over the whole batch.
        hyperparameters: Settings to lower where a training diverges, as the command line names
            them.
    """

    @property
    def m(self) -> int | None: ...  # noqa: D102

    @property
    def hyperparameters(self) -> Sequence[str]: ...  # noqa: D102

    def descent_gradient(
        self, closures: Sequence[Callable[[], Tensor]], shares: Sequence[float]
    ) -> Tensor:
        """Leave in `.grad` what `descent_step` descends with, the weights being where they were.

        Weights that were moved come back bit for bit, also after an exception in a closure.

        Args:
            closures: One a subset: each zeroes the gradients, computes the subset's mean loss at
                the current weights, calls backward and returns the loss. The first call of each is
                at the weights of the step, with buffers (running statistics) updated; later ones
                may be anywhere, and the optimizer keeps the buffers still there.
                Without `m` there is one closure, and its gradient is that of all processes'
                samples; with `m` they are this process's, one or more, and the sum over processes
                is taken of what is left in `.grad`.
            shares: Share of each subset in the batch of all processes, n_i / n; 1.0 for the one
                closure without `m`.

        Returns:
            The loss at the weights, the mean over the closures by their shares, shape ().
        """

    def descent_step(self) -> None:
        """Step from the current weights with the gradients present."""


class PlainStepper:
    """A torch optimizer that steps without a closure, as a `Stepper`: the gradient at the weights.

    Args:
        optimizer: The optimizer.
    """

    m: int | None = None
    hyperparameters: Sequence[str] = ("lr",)

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def descent_gradient(
        self, closures: Sequence[Callable[[], Tensor]], shares: Sequence[float]
    ) -> Tensor:
        """Take the gradient of the whole batch at the weights."""
        (closure,) = closures
        return closure()

    def descent_step(self) -> None:
        """Step with the gradients present."""
        self.optimizer.step()


def as_stepper(optimizer: Optimizer) -> Stepper:
    """Return the optimizer where it is a `Stepper`, else one that steps with it."""
    return optimizer if isinstance(optimizer, Stepper) else PlainStepper(optimizer)
