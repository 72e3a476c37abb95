"""Every registered network, in its smallest form, through all that is done with networks."""

from __future__ import annotations

import copy
import inspect
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.landscape.batches import as_batch
from isoloss.landscape.directions import random_directions
from isoloss.landscape.grid import Grid
from isoloss.landscape.problem import Problem
from isoloss.landscape.surface import Surface
from isoloss.models import MODELS, create_model, default_facts
from isoloss.pyg import import_pyg
from isoloss.trainers.sam import SAM

CLASSES = 3


@cache
def subject(name: str) -> SimpleNamespace:
    """The network in float64 and a batch of two samples."""
    facts = MODELS.get(name).facts
    generator = torch.Generator().manual_seed(1)
    targets = torch.tensor([0, CLASSES - 1])
    context: dict[str, Any] = {"num_classes": CLASSES}
    if facts["inputs"] == "graph":
        data = import_pyg().data
        graphs = [_ring(data, nodes, generator) for nodes in (3, 4)]
        batch = data.Batch.from_data_list(graphs)
        batch.y = targets
        context["num_features"] = 5
    else:
        shape = facts["smallest_shape"]
        batch = (torch.randn(2, *shape, generator=generator, dtype=torch.float64), targets)
        context |= {"input_shape": shape, "in_channels": shape[0], "num_features": 7}
    model = create_model(facts.get("example", name), facts["smallest"], context)
    return SimpleNamespace(model=model.double(), batch=as_batch(batch))


def _ring(data: Any, nodes: int, generator: torch.Generator) -> Any:
    to = torch.arange(nodes)
    edges = torch.stack([to, to.roll(1)])
    x = torch.randn(nodes, 5, generator=generator, dtype=torch.float64)
    return data.Data(x=x, edge_index=torch.cat([edges, edges.flip(0)], 1))


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(batch.call(model), batch.targets)


@pytest.mark.parametrize("name", MODELS.names())
def test_facts_are_complete(name: str) -> None:
    facts = MODELS.get(name).facts
    assert facts["inputs"] in ("image", "series", "graph")
    assert (facts["input_shape"] is None) == (facts["inputs"] == "graph")
    assert facts["datasets"]
    assert not MODELS.get(name).is_family or facts["example"].startswith(name)


@pytest.mark.parametrize("name", MODELS.names())
def test_arguments_have_defaults_and_are_documented(name: str) -> None:
    factory = MODELS.get(name).factory
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.name != "name" and parameter.kind is not parameter.VAR_KEYWORD:
            assert parameter.default is not parameter.empty
        assert f"{parameter.name}: " in (factory.__doc__ or "")
    default = default_facts(name)
    assert MODELS.get(name).is_family if default is None else default.parameters > 1000


@pytest.mark.parametrize("name", MODELS.names())
def test_forward_backward_and_sam_step(name: str) -> None:
    it = subject(name)
    model = copy.deepcopy(it.model).train()
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    optimizer = SAM(model, torch.optim.SGD(model.parameters(), lr=0.1), rho=0.05)

    def closure() -> Tensor:
        assert it.batch.call(model).shape == (2, CLASSES)
        loss = loss_of(model, it.batch)
        loss.backward()
        return loss

    assert optimizer.step(closure).isfinite()
    moved = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert any("weight" in key for key in moved)
    assert all(p.isfinite().all() for p in model.parameters())
    assert all(p.grad is not None for p in model.parameters()), "a parameter without effect"


@pytest.mark.parametrize("name", MODELS.names())
def test_surface_and_hessian_product(name: str) -> None:
    it = subject(name)
    # By batch statistics: with the initial running ones the deep networks without shortcuts
    # output a constant.
    problem = Problem(it.model, nn.CrossEntropyLoss(), [it.batch], dtype=torch.float64, bn="train")
    (direction,) = random_directions(problem.parameters, 1, seed=3)
    data = Surface(problem, Grid.parse("-1:1:3"), [direction]).run()
    losses = data.values["train_loss"]
    assert data.done.all()
    assert losses[1] == data.origin["train_loss"] == problem.evaluate().loss
    # Far above rounding: the direction moves every layer by its own norm.
    assert min(abs(losses[0] - losses[1]), abs(losses[2] - losses[1])) > 1e-6

    generator = torch.Generator().manual_seed(4)
    with HessianOperator(problem) as hessian:
        u, v = torch.randn(2, hessian.size, generator=generator, dtype=torch.float64)
        Hu, Hv = hessian.matvec(u), hessian.matvec(v)
    # H is symmetric: both inner products sum the same terms, in other orders.
    scale = float(u.norm() * Hv.norm() + v.norm() * Hu.norm())
    assert scale > 0
    assert float(u @ Hv) == pytest.approx(float(v @ Hu), abs=1e-11 * scale)
