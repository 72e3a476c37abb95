from __future__ import annotations

import pytest
import torch
from torch import nn

from isoloss.models import ModelError, create_model, model_facts
from isoloss.registry import ArgumentError, UnknownNameError


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # conv 1*16*9+16, conv 16*32*9+32, linear 1568*128+128, linear 128*10+10
        ("fashion-cnn", 160 + 4_640 + 200_832 + 1_290),
        # conv 1*16*9+16, linear 3136*128+128, linear 128*10+10
        ("classifier", 160 + 401_536 + 1_290),
    ],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    published = {"fashion-cnn": 206_922, "classifier": 402_986}
    facts = model_facts(create_model(name))
    assert facts.parameters == facts.trainable == parameters == published[name]
    assert facts.buffers == 0


def test_facts_count_frozen_shared_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.append(model[0])
    model[0].bias.requires_grad_(False)
    facts = model_facts(model)
    assert (facts.parameters, facts.trainable, facts.buffers) == (10, 8, 5)


@pytest.mark.parametrize("name", ["fashion-cnn", "classifier"])
@pytest.mark.parametrize(
    ("shape", "classes"), [((1, 28, 28), 10), ((3, 32, 32), 100), ((1, 9, 5), 2)]
)
def test_shapes_follow_the_data(name: str, shape: tuple[int, ...], classes: int) -> None:
    context = {"in_channels": shape[0], "num_classes": classes, "input_shape": shape}
    model = create_model(name, {}, {**context, "num_features": 784})
    outputs = model(torch.zeros(2, *shape))
    assert outputs.shape == (2, classes)
    outputs.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_arguments_overrule_the_data() -> None:
    model = create_model("fashion-cnn", {"in_channels": 3}, {"input_shape": (1, 28, 28)})
    assert model(torch.zeros(1, 3, 28, 28)).shape == (1, 10)


@pytest.mark.parametrize("name", ["fashion-cnn", "classifier"])
def test_weights_come_from_the_global_seed(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = create_model(name).state_dict()
        torch.manual_seed(3)
        second = create_model(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["fashion-cnn", "classifier"])
@pytest.mark.parametrize("shape", [(187, 1), (1, 1, 28)])
def test_other_inputs_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=rf"{name} expects images .*got input_shape \({shape[0]}"):
        create_model(name, {}, {"input_shape": shape})


def test_misuse_names_what_is_valid() -> None:
    with pytest.raises(UnknownNameError, match="did you mean fashion-cnn"):
        create_model("fashion_cn")
    with pytest.raises(ArgumentError, match=r"no argument 'classes'.*num_classes=10"):
        create_model("fashion-cnn", {"classes": 3})


def test_factory_must_build_a_module(tmp_path) -> None:
    (tmp_path / "net.py").write_text("def make(): return 3")
    with pytest.raises(ModelError, match=r"expected the factory to return an nn.Module, got int"):
        create_model(f"{tmp_path}/net.py:make")
