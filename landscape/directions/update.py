r"""The last step of an optimizer, derived from the state it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from isoloss.landscape.directions.direction import DirectionError, RawDirection


def update_direction(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], **source: object
) -> RawDirection:
    """Return theta_after - theta_before of the optimizer's last step, at theta_after.

    x = -1 is the weights before that step, x = 1 the same step once more. See `last_update`.

    Args:
        optimizer: With its state, the parameters being those after the step.
        parameters: What moves, by name; what the optimizer does not hold stays.
        **source: What to store of it, JSON-able, as `Direction.source`.

    Raises:
        DirectionError: If the state does not say what the last step was.
    """
    settings = {p: group for group in optimizer.param_groups for p in group["params"]}
    if not any(optimizer.state.get(p) for p in settings):
        raise _unknown(optimizer, "keeps nothing of its last step")
    moved = {
        name: last_update(optimizer, p, settings[p])
        if optimizer.state.get(p)
        else torch.zeros(p.shape, dtype=torch.float64)
        for name, p in parameters.items()
    }
    return RawDirection(moved, "update", {"label": "last step of the optimizer", **source})


def last_update(optimizer: Optimizer, parameter: nn.Parameter, group: Mapping[str, Any]) -> Tensor:
    r"""Return the last update of one parameter, float64 on the CPU.

    - Adam (Kingma and Ba 2015, algorithm 1): -lr m_hat / (sqrt(v_hat) + eps), with
      m_hat = m / (1 - beta_1^t), v_hat = v / (1 - beta_2^t); coupled weight decay is in m and v.
    - AdamW (Loshchilov and Hutter 2019, algorithm 2): theta' = (1 - lr w) theta + that. From
      theta' follows theta, and so theta' - theta.
    - SGD with heavy-ball momentum, RMSprop with momentum: -lr b, b the momentum buffer.

    Nesterov's step, and those without momentum, need the last gradient, which no state keeps.

    Args:
        optimizer: One of torch's, for errors.
        parameter: The parameter after the step.
        group: Its settings, those of the last step.

    Raises:
        DirectionError: If the state does not say what the last step was.
    """
    state = optimizer.state[parameter]
    lr = float(group["lr"])
    if "exp_avg_sq" in state and "exp_avg" in state:
        beta1, beta2 = (float(beta) for beta in group["betas"])
        step = float(state["step"])
        v = _double(state.get("max_exp_avg_sq", state["exp_avg_sq"])) / (1 - beta2**step)
        m = _double(state["exp_avg"]) / (1 - beta1**step)
        update = -lr * m / (v.sqrt() + group["eps"])
        if group.get("decoupled_weight_decay") and group["weight_decay"]:
            after = _double(parameter)
            return after - (after - update) / (1 - lr * float(group["weight_decay"]))
        return update
    if state.get("momentum_buffer") is None:
        raise _unknown(optimizer, "without momentum keeps nothing of its last step")
    if group.get("nesterov"):
        raise _unknown(optimizer, "with Nesterov momentum does not keep its last gradient")
    return -lr * _double(state["momentum_buffer"])


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double().cpu()


def _unknown(optimizer: Optimizer, why: str) -> DirectionError:
    return DirectionError(
        f"expected an optimizer whose state says what its last step was, got one that {why}: "
        f"{type(optimizer).__name__}\ntake `gradient`, or `to:` the weights of an earlier epoch"
    )
