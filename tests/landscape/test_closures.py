"""Closures: physics-informed, variational and other losses against torch.func and plain torch."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from isoloss.experiments.subject import Subject
from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.hessian.sample_error import sample_curvatures
from isoloss.landscape import Direction, Grid, Plan, Surface, random_directions
from isoloss.landscape.batches import BatchError
from isoloss.landscape.contents import as_content
from isoloss.landscape.determinism import NotDeterministicError, ProblemError
from isoloss.landscape.losses import LossShapeError
from isoloss.landscape.problem import Problem
from isoloss.landscape.vectors import flatten, unflatten

F64 = torch.float64
Pair = namedtuple("Pair", "first second")


@dataclass(frozen=True)
class Record:
    x: torch.Tensor
    name: str


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def dense(problem):
    """The Hessian by products with unit vectors."""
    with HessianOperator(problem) as operator:
        return operator.matmat(torch.eye(operator.size, dtype=F64))


def oracle(model, mean_loss):
    """Value, gradient and dense Hessian of `mean_loss(call)` by torch.func on the flat vector."""
    theta = dict(model.named_parameters())

    def flat_loss(vector):
        return mean_loss(lambda *a: functional_call(model, unflatten(vector, theta), a))

    at = flatten(theta)
    return flat_loss(at), torch.func.grad(flat_loss)(at), torch.func.hessian(flat_loss)(at)


def assert_same(problem, expected):
    value, gradient, hessian = expected
    assert problem.evaluate().loss == pytest.approx(float(value), rel=1e-12)
    # Sums of some 20 float64 terms in another order.
    torch.testing.assert_close(flatten(problem.gradient()), gradient, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(dense(problem), hessian, rtol=1e-10, atol=1e-10)


def recut(problem, size):
    plan = copy.copy(problem.plan)
    object.__setattr__(plan, "micro_batch", size)
    object.__setattr__(plan, "product_batch", size)
    return plan


def tanh_network(inputs=1, outputs=1):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


def residual(model, x):
    """(u'' - sin x)^2 of each point, as a PINN is written."""
    x.requires_grad_()
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return (curvature - torch.sin(x)).square().squeeze(1)


def physics(model, batch):
    points, boundary = batch
    return residual(model, points) + model(boundary).square().mean()


def test_the_example_of_the_documents_runs(capsys):
    text = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    blocks = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "physics" in b]
    assert len(blocks) == 2
    space = {}
    for block in blocks:
        exec(block, space)
    loss, size = capsys.readouterr().out.split()
    model, batch = space["model"].double(), (space["points"].double(), space["boundary"].double())
    assert float(loss) == pytest.approx(physics(model, batch).mean().item(), rel=1e-4)
    assert int(size) == 16 + 16 + 16 + 1


@pytest.mark.parametrize("strategy", ["kept-graph", "recompute"])
def test_a_physics_informed_loss_is_that_of_torch_func(strategy):
    model, x = tanh_network(), torch.linspace(-2, 2, 23, dtype=F64)[:, None]
    boundary = torch.tensor([[-2.0], [2.0]], dtype=F64)

    def mean_loss(call):
        second = torch.func.vmap(torch.func.grad(torch.func.grad(lambda t: call(t[None])[0])))
        interior = (second(x[:, 0]) - torch.sin(x[:, 0])).square().mean()
        return interior + call(boundary).square().mean()

    expected = oracle(model, mean_loss)
    whole = Problem(model, closure=physics, batches=[(x, boundary)], dtype=F64)
    assert whole.count == 23
    assert not whole.has_outputs
    assert_same(whole, expected)
    plan = recut(whole, 7)
    object.__setattr__(plan, "product_strategy", strategy)
    batches = [(part, boundary) for part in x.split([2, 20, 1])]  # 2 is the boundary's, too
    other = Problem(model, closure=physics, batches=batches, dtype=F64, plan=plan)
    assert other.digest == whole.digest
    assert_same(other, expected)
    u = draw(16, seed=5)
    curvatures = sample_curvatures(other, u).sums
    torch.testing.assert_close(curvatures.mean(), u @ expected[2] @ u, rtol=1e-10, atol=0)
    assert not any(t.requires_grad for batch in other._data.batches for t in batch.content)


def test_transforms_of_torch_func_inside_a_closure():
    model, x = tanh_network(), torch.linspace(-2, 2, 9, dtype=F64)[:, None]

    def transformed(model, x):
        second = torch.func.vmap(torch.func.grad(torch.func.grad(lambda t: model(t[None])[0])))
        return (second(x[:, 0]) - torch.sin(x[:, 0])).square()

    one = Problem(model, closure=residual, batches=[x], dtype=F64)
    other = Problem(model, closure=transformed, batches=[x], dtype=F64)
    assert other.evaluate().loss == pytest.approx(one.evaluate().loss, rel=1e-12)
    torch.testing.assert_close(dense(other), dense(one), rtol=1e-10, atol=1e-11)


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(2, 4)
        self.double()

    def forward(self, x):
        raise AssertionError("the closure calls the parts")

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=1)


def variational(model, x):
    """Negative evidence bound at the mean of the code, Gaussian decoder of unit variance."""
    mean, log_variance = model.encode(x)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return 0.5 * (model.decoder(mean.tanh()) - x).square().sum(1) + divergence


def test_a_variational_autoencoder_by_its_parts_is_plain_torch():
    torch.manual_seed(0)
    model, x = Autoencoder(), draw(21, 4)
    problem = Problem(model, closure=variational, batches=DataLoader(x, 8), dtype=F64)
    theta = dict(model.named_parameters())

    def flat_loss(vector):
        w = unflatten(vector, theta)
        mean, log_variance = (x @ w["encoder.weight"].T + w["encoder.bias"]).chunk(2, dim=1)
        out = mean.tanh() @ w["decoder.weight"].T + w["decoder.bias"]
        parts = (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        return (0.5 * (out - x).square().sum() + 0.5 * parts) / 21

    at = flatten(theta)
    expected = flat_loss(at), torch.func.grad(flat_loss)(at), torch.func.hessian(flat_loss)(at)
    assert_same(problem, expected)


class Siamese(nn.Module):
    """Returns its output in a dictionary, as an object with fields would."""

    def __init__(self):
        super().__init__()
        self.head = tanh_network(3, 2)

    def forward(self, a):
        return {"code": self.head(a), "logits": None}


def similarity(model, batch):
    a, b, near = batch
    distance = (model(a)["code"] - model(b)["code"]).square().sum(1)
    return torch.where(near, distance, (1 - distance).relu())


def test_sums_over_several_inputs_with_outputs_in_a_dictionary():
    model, a, b = Siamese(), draw(19, 3), draw(19, 3, seed=1)
    near = torch.arange(19) % 2 == 0

    def mean_loss(call):
        distance = (call(a)["code"] - call(b)["code"]).square().sum(1)
        return torch.where(near, distance, (1 - distance).relu()).mean()

    data = DataLoader(TensorDataset(a, b, near), 6)
    problem = Problem(model, closure=similarity, batches=data, dtype=F64)
    assert_same(problem, oracle(model, mean_loss))


def weighted(model, batch):
    w = batch["weight"]
    return (model(batch["x"]) - batch["y"]).square().sum(1) * w, w


def test_weighted_losses_are_divided_once_however_the_data_are_cut():
    model, x, y = tanh_network(3, 2), draw(25, 3), draw(25, 2, seed=1)
    w = torch.arange(25, dtype=F64) % 4

    def mean_loss(call):
        return ((call(x) - y).square().sum(1) * w).sum() / w.sum()

    whole = {"x": x, "y": y, "weight": w, "scale": 2.0, "name": "all"}
    expected = oracle(model, mean_loss)
    for sizes, size in (([25], 25), ([10, 10, 5], 4), ([1] * 25, 3)):
        pieces = [
            {k: v.split(sizes)[i] if torch.is_tensor(v) else v for k, v in whole.items()}
            for i in range(len(sizes))
        ]
        problem = Problem(model, closure=weighted, batches=pieces, dtype=F64, batch_size=size)
        assert problem.count == 25
        assert problem.total_weight == float(w.sum())
        assert_same(problem, expected)


def test_the_plain_protocol_is_the_closure_that_calls_model_and_loss():
    model, x = tanh_network(4, 3), draw(31, 4)
    y = torch.arange(31) % 3

    def entropy(model, batch):
        inputs, targets = batch
        return nn.functional.cross_entropy(model(inputs), targets, reduction="none")

    def hits(model, batch):
        return (model(batch[0]).argmax(1) == batch[1]).double()

    plain = Problem(model, nn.CrossEntropyLoss(), [(x, y)], dtype=F64)
    own = Problem(model, closure=entropy, batches=[(x, y)], metric=hits, dtype=F64)
    assert own.evaluate() == plain.evaluate()
    assert plain.has_outputs
    assert torch.equal(dense(own), dense(plain))
    bare = Problem(model, closure=entropy, batches=[(x, y)], dtype=F64)
    assert bare.evaluate().accuracy != bare.evaluate().accuracy  # NaN: there is no metric
    assert "entropy" in bare.identity()["closure"]
    assert "closure" not in plain.identity()


@pytest.mark.parametrize("policy", ["train", "recalibrate"])
def test_batch_norm_policies_hold_in_closures(policy):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2)).double()
    x, y = draw(30, 4), draw(30, 2, seed=1)

    def squared(model, batch):
        return (model(batch[0]) - batch[1]).square()

    options = {"dtype": F64, "bn": policy, "bn_batch": 12}
    plain = Problem(model, nn.MSELoss(), [(x, y)], **options)
    own = Problem(model, closure=squared, batches=[(x, y)], **options)
    assert own.evaluate().loss == pytest.approx(plain.evaluate().loss, rel=1e-13)
    torch.testing.assert_close(dense(own), dense(plain), rtol=1e-11, atol=1e-12)


def test_three_points_of_a_surface_are_those_of_a_copy_moved_by_hand():
    torch.manual_seed(0)
    model, x = Autoencoder(), draw(12, 4)
    problem = Problem(model, closure=variational, batches=[x], dtype=F64)
    (direction,) = random_directions(problem.parameters, 1, seed=0)
    assert isinstance(direction, Direction)
    data = Surface({"train": problem}, Grid.parse("-1:1:3"), [direction]).run()
    for step, found in zip((-1.0, 0.0, 1.0), data.values["train_loss"], strict=True):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                parameter += step * direction.tensors[name]
            assert found == pytest.approx(variational(moved, x).mean().item(), rel=1e-12)


def test_parameters_read_in_a_closure_are_those_that_move():
    model, x = tanh_network(2, 2), draw(9, 2)

    def ridge(model, x):
        penalty = sum(p.square().sum() for p in model.parameters())
        return model(x).square().sum(1) + 0.1 * penalty + model[0].weight.sum()

    problem = Problem(model, closure=ridge, batches=[x], dtype=F64)
    twice = {name: 1.5 * tensor for name, tensor in problem.parameters.items()}
    moved = copy.deepcopy(model)
    moved.load_state_dict(twice)
    assert problem.evaluate(twice).loss == pytest.approx(ridge(moved, x).mean().item(), rel=1e-13)


STRUCTURES = {
    "tensor": lambda x: x,
    "list": lambda x: [x, x + 1],
    "nested": lambda x: {"a": (x, [x]), "b": {"c": x}},
    "named tuple": lambda x: Pair(x, x),
    "ordered": lambda x: OrderedDict(x=x, constant=torch.ones(3)),
    "mapping": lambda x: UserDict(x=x),
    "dataclass": lambda x: Record(x, "a"),
    "strings": lambda x: (x, [f"sample {i}" for i in range(len(x))]),
    "None": lambda x: (None, x, 3),
}


@pytest.mark.parametrize("case", STRUCTURES)
def test_batches_of_any_structure_keep_it(case):
    build, x = STRUCTURES[case], draw(10, 2)
    seen = []

    def closure(model, batch):
        assert type(batch) is type(build(x))
        content = as_content(batch)
        seen.append(content.count)
        values = next(t for t in content.tensors().values() if t.shape == (content.count, 2))
        if case == "strings":
            assert len(batch[1]) == content.count
        if case == "ordered":
            assert batch["constant"].shape == (3,)
        return model(values)

    model = tanh_network(2, 1)
    problem = Problem(model, closure=closure, batches=[build(x)], dtype=F64, batch_size=4)
    assert problem.evaluate().loss == pytest.approx(model(x).mean().item(), rel=1e-12)
    assert seen[-3:] == [4, 4, 2]
    parts = [build(part) for part in x.split(7)]
    if case != "strings":  # their numbers start again
        other = Problem(model, closure=closure, batches=parts, dtype=F64)
        assert other.digest == problem.digest
    part = problem.part(torch.tensor([9, 0, 3]))
    assert part.evaluate().loss == pytest.approx(model(x[[9, 0, 3]]).mean().item(), rel=1e-12)


def test_what_is_alike_in_batches_of_its_own_length_is_not_cut():
    """Class weights of length 10 with a last batch of 10."""
    model, x, w = tanh_network(2, 10), draw(110, 2), torch.arange(10, dtype=F64)

    def closure(model, batch):
        assert batch[1].shape == (10,)
        return model(batch[0]) @ batch[1]

    def batches():
        return [(part, w) for part in x.split(25)]

    class Source:
        def __iter__(self):
            return iter(batches())

    problem = Problem(model, closure=closure, batches=Source(), dtype=F64, batch_size=4)
    assert problem.evaluate().loss == pytest.approx((model(x) @ w).mean().item(), rel=1e-12)


def test_graph_batches_are_handed_over_whole():
    data = pytest.importorskip("torch_geometric.data")
    graphs = [data.Data(x=draw(n, 3, seed=n), y=draw(1, seed=n)) for n in (2, 5, 3)]
    model = tanh_network(3, 1)

    def closure(model, graphs):
        sums = torch.zeros(graphs.num_graphs, 1, dtype=F64)
        return (sums.index_add(0, graphs.batch, model(graphs.x))[:, 0] - graphs.y).square()

    batch = data.Batch.from_data_list(graphs)
    problem = Problem(model, closure=closure, batches=[batch], dtype=F64)
    expected = sum((model(g.x).sum() - g.y).square().item() for g in graphs) / 3
    assert problem.evaluate().loss == pytest.approx(expected, rel=1e-12)
    with pytest.raises(BatchError, match="from_data_list"):
        Problem(model, closure=closure, batches=[graphs[0]], dtype=F64)


def test_low_precision_and_images():
    torch.manual_seed(0)
    model, x = nn.Conv2d(3, 2, 3), draw(5, 3, 8, 8).float()

    def closure(model, x):
        return model(x).square()

    full = Problem(model, closure=closure, batches=[x])
    assert full.plan.channels_last
    assert full.evaluate().loss == pytest.approx(model(x).square().mean().item(), rel=1e-5)
    half = Problem(model, closure=closure, batches=[x], dtype=torch.bfloat16)
    assert half.evaluate().loss == pytest.approx(full.evaluate().loss, rel=2e-2)  # 8 bits


def test_a_subject_in_a_notebook_takes_a_closure():
    model, x = tanh_network(2, 2).float(), draw(30, 2).float()

    def closure(model, batch):
        return (model(batch[0]) - batch[1]).square().sum(1)

    subject = Subject(model, closure=closure, train=(x, x))
    data = subject.surface(x="-1:1:3")
    assert data.origin["train_loss"] == pytest.approx(
        closure(model, (x, x)).mean().item(), rel=1e-5
    )


def scalar(model, x):
    return model(x).mean()


def noisy(model, x):
    return model(x).squeeze(1) + torch.randn(len(x), dtype=F64)


def fine(model, x):
    return model(x)


BAD = {
    "scalar": ([draw(8, 2)], scalar, {}, LossShapeError, "one value a sample"),
    "noise": ([draw(8, 2)], noisy, {}, NotDeterministicError, "likely cause"),
    "no tensor": ([["a"], ["b"]], fine, {}, BatchError, "dimension 0"),
    "only scalars": ([{"a": torch.tensor(1.0), "b": 3}], fine, {}, BatchError, "batch.a"),
    "arrays": ([(draw(8, 2).numpy(), draw(8, 2))], fine, {}, BatchError, "as_tensor"),
    "empty": ([], fine, {}, BatchError, "at least one sample"),
    "a loss as well": ([draw(8, 2)], fine, {"loss": nn.MSELoss()}, ProblemError, "both"),
    "neither": ([draw(8, 2)], None, {}, ProblemError, "neither"),
    "metric": ([draw(8, 2)], fine, {"metric": "top5"}, ProblemError, "metric"),
    "shuffled": (
        DataLoader(draw(64, 2), 8, shuffle=True), fine, {}, NotDeterministicError, "shuffle"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_refused_with_a_remedy(case):
    batches, closure, options, error, words = BAD[case]
    with pytest.raises(error, match=words) as caught:
        Problem(tanh_network(2, 1), closure=closure, batches=batches, dtype=F64, **options)
    assert 1 <= len(str(caught.value).splitlines()) <= 3


def test_the_plan_counts_what_a_closure_calls():
    x = draw(10, 2)
    plain = Problem(tanh_network(2, 2), nn.MSELoss(), [(x, x)], dtype=F64).plan
    own = Problem(
        tanh_network(2, 2), closure=lambda m, b: (m(b) - b).square(), batches=[x], dtype=F64
    ).plan
    assert isinstance(own, Plan)
    assert own.activation_bytes_per_sample == plain.activation_bytes_per_sample
