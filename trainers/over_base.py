"""An optimizer around another one, whose parameters, settings and state are that one's."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer


class OverBase(Optimizer):
    """What wrappers of an optimizer share; `step` is theirs.

    `state_dict`, `load_state_dict`, `zero_grad`, `param_groups` and `state` are the base's, so that
    schedules and checkpoints need not know of the wrapper.

    Args:
        base: The optimizer underneath.
    """

    def __init__(self, base: Optimizer) -> None:
        super().__init__(base.param_groups, base.defaults)
        self.base = base
        self._adopt_base()

    def _adopt_base(self) -> None:
        # The very objects, so that a learning rate set on either is set on both.
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Zero the gradients of the base optimizer's parameters."""
        self.base.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of the base optimizer."""
        self.base.load_state_dict(state_dict)
        self._adopt_base()
