"""`CurvatureMonitor` as a callback of Lightning and of Hugging Face's Trainer.

Neither is a dependency: each is imported by the function that makes its callback.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from isoloss.hessian.monitor import CurvatureMonitor


def lightning_callback(
    monitor: CurvatureMonitor, network: Callable[[Any], nn.Module] | None = None
) -> Any:
    """Return a `lightning.pytorch.Callback` that measures after optimizer steps.

    Args:
        monitor: What measures; its steps are Lightning's `global_step`.
        network: Returns, of the LightningModule, the network that the monitor's problem is of,
            as `lambda module: module.net`; the module itself where None.
    """
    from lightning.pytorch import Callback

    class Curvature(Callback):
        """Measures when an optimizer has stepped: accumulated batches count once."""

        last = -1

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.global_step != self.last:
                self.last = trainer.global_step
                monitor(self.last, pl_module if network is None else network(pl_module))

    return Curvature()


def trainer_callback(
    monitor: CurvatureMonitor, network: Callable[[Any], nn.Module] | None = None
) -> Any:
    """Return a `transformers.TrainerCallback` that measures after optimizer steps.

    Args:
        monitor: What measures; its steps are the Trainer's `state.global_step`.
        network: Returns, of the Trainer's model, the network that the monitor's problem is of;
            the model itself where None.
    """
    from transformers import TrainerCallback

    class Curvature(TrainerCallback):
        """Measures at the end of each optimizer step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            model = given["model"]
            monitor(state.global_step, model if network is None else network(model))

    return Curvature()
