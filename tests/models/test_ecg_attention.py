from __future__ import annotations

import math

import pytest
import torch

from isoloss.models import ModelError, create_model
from isoloss.models.ecg_attention import sinusoidal_positions

SMALL = {"d_model": 8, "heads": 2, "ffn": 4, "input_shape": (7, 1)}


def small(**arguments: object) -> torch.nn.Module:
    return create_model("ecg-attention", {**SMALL, **arguments}).double().eval()


def test_positions_by_the_formula() -> None:
    encoding = sinusoidal_positions(50, 6)
    for t in (0, 1, 49):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            pair = (math.sin(angle), math.cos(angle))
            # Angles up to 49 in float32 carry an error of up to 49 * 6e-8.
            assert encoding[t, 2 * i : 2 * i + 2].tolist() == pytest.approx(pair, abs=1e-5)


def test_positions_are_of_time_not_of_the_batch() -> None:
    model = small()
    x = torch.randn(3, 7, 1, dtype=torch.float64)
    y = model(x)
    # Each sample for itself, whatever its place in the batch; sums in another order.
    torch.testing.assert_close(model(x.flip(0)), y.flip(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model(x[1:2]), y[1:2], rtol=1e-12, atol=1e-12)
    same = model.embedding(torch.ones(1, 7, 1, dtype=torch.float64)) + model.positions
    assert len({tuple(row) for row in same[0].tolist()}) == 7


def test_checkpoint_holds_weights_only() -> None:
    assert "positions" not in small().state_dict()


def test_layers_start_from_weights_of_their_own() -> None:
    first, second = (dict(layer.named_parameters()) for layer in small(layers=2).encoder)
    assert not torch.equal(first["linear1.weight"], second["linear1.weight"])


def test_dropout_everywhere() -> None:
    model = small(dropout=0.3)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (1, 28, 28)}, r"expects series \(length, channels\).*\(1, 28, 28\)"),
        ({"heads": 3}, "heads divide.*heads 3"),
        ({"d_model": 9, "heads": 3}, "even d_model"),
        ({"layers": 0}, "at least 1.*layers 0"),
    ],
)
def test_misuse(arguments: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        small(**arguments)
