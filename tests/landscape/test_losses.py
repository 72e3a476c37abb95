"""Losses keep their own normalisation: torch's module on the whole data at once is the oracle."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from isoloss.hessian.operators.hessian import HessianOperator
from isoloss.landscape.determinism import ProblemError
from isoloss.landscape.losses import LossReductionError, LossShapeError, per_sample_loss
from isoloss.landscape.problem import Problem
from isoloss.landscape.sampling import Sample
from isoloss.landscape.vectors import flatten, unflatten

F64 = torch.float64
N, TOKENS, WIDTH, CLASSES = 23, 5, 3, 4
# Ragged batches that are handed over, and a micro-batch that cuts them otherwise.
CUTS = [((N,), N), ((10, 10, 3), 4), ((1, 22), 7)]


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def classes(*shape, ignore=None, share=0.5):
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(CLASSES, shape, generator=generator)
    if ignore is not None:
        targets[torch.rand(shape, generator=generator) < share] = ignore
        targets[:6] = ignore  # whole batches without a target that counts
    return targets


class Tokens(nn.Module):
    """Logits for each token: (B, S, K), or (B, K, S)."""

    def __init__(self, last, width=CLASSES):
        super().__init__()
        self.linear, self.last = nn.Linear(WIDTH, width), last

    def forward(self, x):
        logits = torch.tanh(self.linear(x)) * 2
        return logits if self.last else logits.movedim(-1, 1)


def linear(*after, outputs=CLASSES):
    return lambda: nn.Sequential(nn.Linear(WIDTH, outputs), nn.Tanh(), *after)


def tokens(last):
    return lambda: Tokens(last)


WEIGHT = torch.tensor([0.1, 1.0, 2.0, 5.0], dtype=F64)
SOFT = draw(N, CLASSES, seed=5).softmax(1)
BINARY = (draw(N, CLASSES, seed=6) > 0).double()
PADDED = classes(N, TOKENS, ignore=-100)
VECTOR, SEQUENCE = (N, WIDTH), (N, TOKENS, WIDTH)
# Network, shape of the inputs, targets, torch's module. Logits of tokens go to torch's module in
# torch's order.
CASES = {
    "cross-entropy": (linear(), VECTOR, classes(N), nn.CrossEntropyLoss()),
    "class weights": (linear(), VECTOR, classes(N), nn.CrossEntropyLoss(weight=WEIGHT)),
    "half ignored": (linear(), VECTOR, classes(N, ignore=-100), nn.CrossEntropyLoss()),
    "a class ignored": (linear(), VECTOR, classes(N), nn.CrossEntropyLoss(ignore_index=2)),
    "weights, ignored, smoothed": (
        linear(), VECTOR, classes(N, ignore=1),
        nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=1, label_smoothing=0.2),
    ),
    "no reduction stated": (
        linear(), VECTOR, classes(N, ignore=-100),
        nn.CrossEntropyLoss(weight=WEIGHT, reduction="none"),
    ),
    "probabilities": (linear(), VECTOR, SOFT, nn.CrossEntropyLoss(weight=WEIGHT)),
    "nll": (
        linear(nn.LogSoftmax(1)), VECTOR, classes(N, ignore=0), nn.NLLLoss(WEIGHT, ignore_index=0)),
    "tokens, torch's order": (tokens(False), SEQUENCE, PADDED, nn.CrossEntropyLoss(weight=WEIGHT)),
    "tokens, classes last": (tokens(True), SEQUENCE, PADDED, nn.CrossEntropyLoss(weight=WEIGHT)),
    "kl, batchmean": (
        linear(nn.LogSoftmax(1)), VECTOR, SOFT, nn.KLDivLoss(reduction="batchmean")),
    "kl, mean": (
        linear(nn.LogSoftmax(1)), VECTOR, SOFT.log(), nn.KLDivLoss(log_target=True)),
    "bce": (
        linear(), VECTOR, BINARY, nn.BCEWithLogitsLoss(weight=WEIGHT, pos_weight=3 * WEIGHT)),
    "bce of probabilities": (linear(nn.Sigmoid()), VECTOR, BINARY, nn.BCELoss(weight=WEIGHT)),
    "mse": (linear(), VECTOR, draw(N, CLASSES, seed=7), nn.MSELoss()),
    "mse of a single output": (linear(outputs=1), VECTOR, draw(N, 1, seed=7), nn.MSELoss()),
    "huber of tokens": (
        tokens(True), SEQUENCE, draw(N, TOKENS, CLASSES, seed=8), nn.HuberLoss(delta=0.7)),
    "poisson": (linear(), VECTOR, BINARY, nn.PoissonNLLLoss()),
    "multi-label": (linear(), VECTOR, BINARY, nn.MultiLabelSoftMarginLoss(weight=WEIGHT)),
}  # fmt: skip


def make(case):
    build, shape, targets, loss = CASES[case]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build().double()
    return model, draw(*shape), targets, loss


def whole(case):
    """The mean over the whole data by torch's module, as a function of the flat weights."""
    model, inputs, targets, loss = make(case)
    own = type(loss)(**{**vars_of(loss), "reduction": "mean"}) if loss.reduction == "none" else loss
    theta = {name: tensor.detach() for name, tensor in model.named_parameters()}

    def value(vector):
        outputs = functional_call(model, unflatten(vector, theta), (inputs,))
        if case == "tokens, classes last":
            outputs = outputs.reshape(-1, CLASSES)
            return own(outputs, targets.reshape(-1))
        return own(outputs, targets)

    return value, flatten(theta)


def vars_of(loss):
    return {"weight": loss.weight, "ignore_index": loss.ignore_index}


@pytest.mark.parametrize("case", CASES)
def test_value_gradient_and_hessian_are_those_of_torchs_module_on_all_data(case):
    model, inputs, targets, loss = make(case)
    value, theta = whole(case)
    expected = value(theta), torch.func.grad(value)(theta), torch.func.hessian(value)(theta)
    assert expected[2].abs().max() > 1e-3
    for sizes, micro in CUTS:
        batches = list(zip(inputs.split(sizes), targets.split(sizes), strict=True))
        problem = Problem(model, loss, batches, dtype=F64)
        problem.plan = replace(problem.plan, micro_batch=micro, product_batch=micro)
        operator = HessianOperator(problem)
        found = (
            torch.tensor(problem.evaluate().loss, dtype=F64),
            flatten(problem.gradient()),
            operator.matmat(torch.eye(operator.size, dtype=F64)),
        )
        # Sums of some hundred float64 terms of order 1, in another order.
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=1e-13)


def test_a_module_without_second_derivatives_keeps_its_mean():
    model, inputs, targets, _ = make("cross-entropy")
    loss = nn.MultiMarginLoss(p=2, weight=WEIGHT)
    problem = Problem(model, loss, [(inputs, targets)], dtype=F64)
    loss(model(inputs), targets).backward()
    torch.testing.assert_close(problem.gradient()["0.weight"], model[0].weight.grad)


def test_sequences_of_unequal_lengths_count_by_their_tokens():
    model = Tokens(True).double()
    parts = [(draw(n, s, WIDTH, seed=s), classes(n, s)) for n, s in ((3, 5), (4, 2), (1, 7))]
    logits = torch.cat([model(x).reshape(-1, CLASSES) for x, _ in parts])
    expected = F.cross_entropy(logits, torch.cat([y.flatten() for _, y in parts]))
    evaluation = Problem(model, nn.CrossEntropyLoss(), parts, dtype=F64).evaluate()
    assert evaluation.loss == pytest.approx(expected.item(), rel=1e-13)
    assert (evaluation.count, evaluation.weight) == (8, 3 * 5 + 4 * 2 + 7)


def test_ignored_targets_do_not_count_for_the_accuracy():
    model, inputs, targets, loss = make("tokens, classes last")
    counted = targets != -100
    hits = (model(inputs).argmax(-1) == targets)[counted]
    accuracy = Problem(model, loss, [(inputs, targets)], dtype=F64).evaluate().accuracy
    assert accuracy == pytest.approx(hits.double().mean().item(), rel=1e-14)


@pytest.mark.parametrize("last", [True, False])
def test_as_many_tokens_as_classes_need_a_statement(last):
    inputs, targets = draw(N, CLASSES, WIDTH), classes(N, CLASSES)
    model = Tokens(last).double()
    data = [(inputs, targets)]
    with pytest.raises(LossShapeError, match="class_dim") as caught:
        Problem(model, nn.CrossEntropyLoss(), data, dtype=F64)
    assert len(str(caught.value).splitlines()) <= 3
    dim = -1 if last else 1
    stated = per_sample_loss(nn.CrossEntropyLoss(), dtype=F64, class_dim=dim)
    outputs = model(inputs).movedim(dim, 1)
    evaluation = Problem(model, stated, data, dtype=F64).evaluate()
    assert evaluation.loss == pytest.approx(F.cross_entropy(outputs, targets).item(), rel=1e-13)
    hits = (outputs.argmax(1) == targets).double().mean()
    assert evaluation.accuracy == pytest.approx(hits.item(), rel=1e-14)


def test_the_error_of_a_weighted_mean_is_that_of_repeated_samples():
    # Ratio estimator against its definition: the spread of means over many drawn samples.
    generator = torch.Generator().manual_seed(0)
    population, n, draws = 4000, 200, 2000
    logits = 2 * torch.randn(population, CLASSES, dtype=F64, generator=generator)
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    targets[torch.rand(population, generator=generator) < 0.3] = -100
    model = nn.Linear(CLASSES, CLASSES, bias=False, dtype=F64)
    nn.init.eye_(model.weight)
    loss = nn.CrossEntropyLoss(weight=WEIGHT)
    means, errors = [], []
    for _ in range(draws):
        chosen = torch.randperm(population, generator=generator)[:n]
        means.append(loss(logits[chosen], targets[chosen]).item())
        if len(errors) < 40:
            data, sample = [(logits[chosen], targets[chosen])], Sample.random(n, population)
            problem = Problem(model, loss, data, dtype=F64, sample=sample)
            errors.append(problem.evaluate().sampling_error)
    # 2000 draws know their spread to 1.6 %, 40 estimates of it each vary by some 10 %.
    claimed = math.sqrt(sum(e * e for e in errors) / len(errors))
    assert claimed == pytest.approx(torch.tensor(means).std().item(), rel=0.06)


def test_a_loss_may_give_sums_and_weights_itself():
    model, inputs, targets, loss = make("class weights")

    def pairs(outputs, targets):
        weights = WEIGHT[targets]
        return weights * F.cross_entropy(outputs, targets, reduction="none"), weights

    values = [
        Problem(model, each, [(inputs, targets)], dtype=F64).evaluate() for each in (loss, pairs)
    ]
    assert values[0].loss == pytest.approx(values[1].loss, rel=1e-14)
    assert values[0].loss_standard_deviation == pytest.approx(
        values[1].loss_standard_deviation, rel=1e-13
    )

    def moving(outputs, targets):
        return pairs(outputs, targets)[0], outputs[:, 0]

    with pytest.raises(LossShapeError, match="weights constant"):
        Problem(model, moving, [(inputs, targets)], dtype=F64).gradient()


def test_data_without_a_target_that_counts_are_refused():
    model, inputs, _, loss = make("half ignored")
    targets = torch.full((N,), -100)
    problem = Problem(model, loss, [(inputs, targets)], dtype=F64)
    assert math.isnan(problem.evaluate().loss)
    with pytest.raises(ProblemError, match="weight 0"):
        problem.gradient()


class Focal(nn.Module):
    """Somebody's module: a mean over samples."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs, targets):
        values = F.cross_entropy(outputs, targets, reduction="none") ** 2
        return values if self.reduction == "none" else values.mean()


class SquareRoot(Focal):
    """Somebody's module: no mean."""

    def forward(self, outputs, targets):
        values = super().forward(outputs, targets)
        return values if self.reduction == "none" else values.sqrt()


class Half(nn.CrossEntropyLoss):
    def forward(self, outputs, targets):
        return super().forward(outputs, targets) / 2


class Unweighted(nn.CrossEntropyLoss):
    """Divides by the number of samples whatever their weights."""

    def forward(self, outputs, targets):
        values = F.cross_entropy(outputs, targets, self.weight, reduction="none")
        return values if self.reduction == "none" else values.mean()


@pytest.mark.parametrize("loss", [Focal(), Half(weight=WEIGHT)])
def test_modules_of_others_are_taken_where_they_are_means(loss):
    model, inputs, targets, _ = make("cross-entropy")
    batches = list(zip(inputs.split(7), targets.split(7), strict=True))
    problem = Problem(model, loss, batches, dtype=F64)
    assert problem.evaluate().loss == pytest.approx(loss(model(inputs), targets).item(), rel=1e-13)


REFUSED = {
    "a sum": (nn.MSELoss(reduction="sum"), "MSELoss.*reduction='sum'"),
    "ctc": (nn.CTCLoss(), "CTCLoss.*log_probs, targets, input_lengths, target_lengths"),
    "gaussian": (nn.GaussianNLLLoss(), r"GaussianNLLLoss.*\(input, target, var\)"),
    "triplet": (nn.TripletMarginLoss(), "TripletMarginLoss.*anchor"),
    "a weight for each sample": (nn.BCELoss(weight=torch.ones(N, 1)), "weight for each sample"),
    "a root of a mean": (SquareRoot(), "SquareRoot.*mean over samples"),
    "another divisor": (Unweighted(weight=WEIGHT), "Unweighted.*mean over samples"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_split_is_refused_by_name(case):
    loss, message = REFUSED[case]
    model, inputs, targets, _ = make("cross-entropy")
    with pytest.raises(LossReductionError, match=message) as caught:
        Problem(model, loss, [(inputs, targets)], dtype=F64)
    assert len(str(caught.value).splitlines()) <= 3


SHAPES = {
    "float labels": (classes(N).double(), nn.CrossEntropyLoss()),
    "a column of labels": (classes(N, 1), nn.CrossEntropyLoss()),
    "a class the network lacks": (classes(N) + 1, nn.CrossEntropyLoss()),
    "a column of numbers": (draw(N, 1), nn.MSELoss()),
}


@pytest.mark.parametrize("case", SHAPES)
def test_unfit_targets_are_refused_in_three_lines(case):
    targets, loss = SHAPES[case]
    model, inputs, *_ = make("cross-entropy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of the column
        with pytest.raises(LossShapeError) as caught:
            Problem(model, loss, [(inputs, targets)], dtype=F64)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("outputs", [{"out": torch.ones(3, 2)}, (torch.ones(3, 2), 0), [], None])
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.MSELoss()])
def test_outputs_in_several_parts_ask_for_a_function(loss, outputs):
    with pytest.raises(LossShapeError, match="write a function") as caught:
        per_sample_loss(loss)(outputs, torch.ones(3, 2))
    assert type(outputs).__name__ in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.L1Loss()])
def test_a_missing_dimension_is_named_before_torch_broadcasts_it(loss):
    with pytest.raises(LossShapeError, match=r"outputs \(5, 1\) and targets \(5,\)"):
        per_sample_loss(loss)(torch.zeros(5, 1), torch.zeros(5))
