from __future__ import annotations

import json

import pytest
import torch

from isoloss.datasets import DataInfo, Normalisation

COLOUR = DataInfo(
    input_shape=(3, 2, 2),
    num_classes=2,
    class_names=("cat", "dog"),
    num_features=12,
    normalisation=Normalisation((0.1, 0.2, 0.3), (1.0, 2.0, 4.0), "powers of two"),
)


def test_json_round_trip() -> None:
    assert DataInfo.from_json(json.loads(json.dumps(COLOUR.to_json()))) == COLOUR


@pytest.mark.parametrize("batch", [(), (5,)])
def test_denormalise_undoes_normalise_channel_by_channel(batch: tuple[int, ...]) -> None:
    raw = torch.rand(*batch, 3, 2, 2, dtype=torch.float64)
    assert COLOUR.normalisation is not None
    inputs = COLOUR.normalisation.apply(raw)
    assert torch.equal(inputs[..., 1, :, :], (raw[..., 1, :, :] - 0.2) / 2.0)
    torch.testing.assert_close(COLOUR.denormalise(inputs), raw, rtol=0, atol=1e-15)  # 2 roundings


def test_channels_of_series_may_be_last() -> None:
    raw = torch.ones(5, 7, 2)
    normalised = Normalisation((0.0, 1.0), (1.0, 1.0), "", channel_axis=-1).apply(raw)
    assert normalised.sum((0, 1)).tolist() == [35.0, 0.0]


def test_model_context_holds_what_a_factory_may_ask_for() -> None:
    assert COLOUR.model_context() == {
        "in_channels": 3,
        "num_features": 12,
        "num_classes": 2,
        "input_shape": (3, 2, 2),
    }
    series = DataInfo((187, 1), 5, tuple("NSVFQ"), 187)
    assert series.in_channels is None


@pytest.mark.parametrize(("classes", "names"), [(2, ("a",)), (0, ()), (None, ())])
def test_class_names_must_match(classes: int | None, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        DataInfo((1,), classes, names, 1)
