"""The fully connected network: its layers by a formula of their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from isoloss.models import ModelError, create_model, model_facts


def test_parameters_of_the_default() -> None:
    count = (784 * 200 + 200) + (200 * 200 + 200) + (200 * 10 + 10)
    assert model_facts(create_model("mlp")).parameters == count == 199_210


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_outputs_are_those_of_the_formula(activation: str) -> None:
    torch.manual_seed(0)
    arguments = {"width": 5, "depth": 2, "activation": activation}
    model = create_model("mlp", arguments, {"input_shape": (2, 3, 4), "num_classes": 3}).double()
    x = torch.randn(7, 2, 3, 4).double()
    h: Tensor = x.reshape(7, 24)
    *hidden, last = [(layer.weight, layer.bias) for layer in model if hasattr(layer, "weight")]
    functions = {"tanh": torch.tanh, "relu": torch.relu, "gelu": torch.nn.functional.gelu}
    for weight, bias in hidden:
        h = functions[activation](h @ weight.T + bias)
    assert len(hidden) == 2
    torch.testing.assert_close(model(x), h @ last[0].T + last[1])


def test_depth_0_is_linear() -> None:
    model = create_model("mlp", {"depth": 0}, {"input_shape": (1, 2, 2), "num_classes": 3}).double()
    x, y = torch.randn(2, 4, 1, 2, 2).double()
    torch.testing.assert_close(model(x + y) - model(y), model(x) - model(0 * x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "sine"}, "activation of mlp is one of tanh, relu, gelu; got 'sine'"),
        ({"width": 0}, "width of mlp: expected a number from 1, got 0"),
        ({"depth": -1}, "depth of mlp: expected a number from 0, got -1"),
        ({"input_shape": [4]}, "expects images"),
    ],
)
def test_other_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model("mlp", arguments)
