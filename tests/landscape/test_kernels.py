"""Layers that torch computes in several ways: values and derivatives are of one function."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.backends import mha
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from isoloss.datasets.splits import TensorSplit
from isoloss.evaluation.networks import predict
from isoloss.hessian import HessianOperator, sample_error
from isoloss.landscape import Problem
from isoloss.landscape.determinism import ProblemError
from isoloss.landscape.kernels import CheckpointingError
from isoloss.landscape.probing import OuterWeightsError

F64 = torch.float64


def squared(model, x):
    return model(x).square().flatten(1).mean(1)


def direction(problem):
    generator = torch.Generator().manual_seed(3)
    return {
        n: torch.randn(t.shape, generator=generator, dtype=F64)
        for n, t in problem.parameters.items()
    }


def moved(problem, v, step):
    return {name: tensor + step * v[name] for name, tensor in problem.parameters.items()}


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x):
        return self.encoder(x, src_key_padding_mask=x[..., 0] > 0.5)


class Squeezed(nn.Module):
    """The gate of MobileNetV3."""

    def __init__(self):
        super().__init__()
        self.first, self.gate = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.first(x)
        return x * nn.functional.hardsigmoid(self.gate(x), inplace=True)


class Frequent(nn.Module):
    """Rows of tokens that are looked up often; torch divides their gradients by how often."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(3, 4, scale_grad_by_freq=True)

    def forward(self, x):
        return (x + self.rows((x[..., 0] > 0).long())).tanh()


NETWORKS = {
    "embedding with frequencies": Frequent,
    "padded attention": Padded,
    "weight norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh()),
    "weight norm of columns": lambda: parametrizations.weight_norm(nn.Linear(4, 5), dim=1),
    "weight norm as a whole": lambda: parametrizations.weight_norm(nn.Linear(4, 5), dim=None),
    "hardsigmoid": Squeezed,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_derivatives_are_differences(name):
    """Of losses for gradients, of gradients for products, with errors h^2 + 1e-16 / h."""
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, dtype=F64)
    x[:, 0, 0] = -1  # no sample is padding alone
    problem = Problem(NETWORKS[name]().double(), closure=squared, batches=[x], dtype=F64)
    v, h = direction(problem), 1e-6
    flat = torch.cat([part.flatten() for part in v.values()])
    above, below = (problem.evaluate(moved(problem, v, step)).loss for step in (h, -h))
    slope = torch.cat([part.flatten() for part in problem.gradient().values()]) @ flat
    assert slope.item() == pytest.approx((above - below) / (2 * h), rel=1e-7)
    above, below = (problem.gradient(moved(problem, v, step)) for step in (h, -h))
    differences = torch.cat([((above[n] - below[n]) / (2 * h)).flatten() for n in above])
    with HessianOperator(problem) as hessian:
        product = hessian.matvec(flat)
    torch.testing.assert_close(product, differences, rtol=1e-6, atol=1e-7 * product.norm().item())


def test_predictions_are_those_of_training():
    torch.manual_seed(0)
    model, x = Padded().eval(), torch.randn(6, 3, 4)
    x[:, 0, 0] = -1
    found = predict(model, TensorSplit(x, torch.zeros(6)))
    torch.testing.assert_close(torch.from_numpy(found.outputs), model(x).detach())
    assert mha.get_fastpath_enabled()


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.block, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.reentrant = reentrant

    def forward(self, x):
        x = checkpoint(self.block, self.first(x).tanh(), use_reentrant=self.reentrant)
        return self.last(x.tanh())


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_gradient_checkpointing_is_refused(reentrant):
    problem = Problem(Checkpointed(reentrant), closure=squared, batches=[torch.randn(6, 4)])
    hessian = HessianOperator(problem)
    assert problem.evaluate().loss > 0
    with pytest.raises(CheckpointingError, match="turn it off"):
        problem.gradient()
    with pytest.raises(CheckpointingError, match="turn it off"):
        hessian.matvec(torch.ones(hessian.size))


class OfCudnn(torch.autograd.Function):
    """Refuses as cuDNN's recurrent layers do in `eval` mode, where cuDNN is not left out."""

    @staticmethod
    def forward(ctx, x):
        ctx.cudnn = torch.backends.cudnn.enabled
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if ctx.cudnn:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        return gradient


class Recurrent(nn.LSTM):
    def forward(self, x):
        return OfCudnn.apply(super().forward(x)[0])


@pytest.mark.parametrize("kind", ["loss", "closure"])
def test_recurrent_layers_are_differentiated_without_cudnn(kind):
    torch.manual_seed(0)
    model, x = Recurrent(3, 2, batch_first=True), torch.randn(6, 4, 3)
    data = (x, torch.zeros(6, 4, 2))
    problem = (
        Problem(model, nn.MSELoss(), [data])
        if kind == "loss"
        else Problem(model, closure=lambda model, batch: squared(model, batch[0]), batches=[data])
    )
    slope = problem.gradient()
    with HessianOperator(problem) as hessian:
        u = torch.ones(hessian.size) / hessian.size**0.5
        curvature = (u @ hessian.matvec(u)).item()
    outputs = nn.LSTM.forward(model, x)[0]
    expected = torch.autograd.grad(outputs.square().mean(), [*model.parameters()])
    torch.testing.assert_close(list(slope.values()), list(expected))
    assert sample_error(problem, u).value == pytest.approx(curvature, rel=1e-4)
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize(
    "change", [torch.jit.script, lambda m: torch.jit.trace(m, torch.ones(1, 4))]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_is_refused(change):
    scripted = change(nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(ProblemError, match="load_state_dict"):
        Problem(scripted, closure=squared, batches=[torch.randn(6, 4)])


def compiled_whole(model):
    return torch.compile(model, backend="eager")


def compiled_part(model):
    model[0] = torch.compile(model[0], backend="eager")
    return model


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize("compile", [compiled_whole, compiled_part, compiled_in_place])
def test_compiled_networks_are_differentiated_as_they_were_before(compile):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double(), torch.randn(6, 4, dtype=F64)
    plain = Problem(model, closure=squared, batches=[x], dtype=F64)
    names, expected = (
        list(plain.parameters),
        HessianOperator(plain).matvec(torch.ones(15, dtype=F64)),
    )
    wrapped = compile(model)
    kinds = [type(module) for module in wrapped.modules()]
    problem = Problem(wrapped, closure=squared, batches=[x], dtype=F64)
    assert list(problem.parameters) == names
    assert torch.equal(HessianOperator(problem).matvec(torch.ones(15, dtype=F64)), expected)
    assert [type(module) for module in wrapped.modules()] == kinds

    def outside(_, x):
        return squared(model, x)

    with pytest.raises(OuterWeightsError):
        Problem(wrapped, closure=outside, batches=[x], dtype=F64)


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_embeddings_that_change_their_weights_are_refused(kind):
    model = nn.Sequential(kind(9, 4, max_norm=1.0), nn.Linear(4, 2))
    with pytest.raises(ProblemError, match=r"max_norm=1\.0 in 0") as caught:
        Problem(model, closure=squared, batches=[torch.randint(9, (6, 5))])
    assert len(str(caught.value).splitlines()) <= 3
