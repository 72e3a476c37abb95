"""Compiled networks: the same function, chosen by sizes alone, stored, never silently dropped."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from isoloss.experiments import Subject
from isoloss.experiments.reporting import Reporter
from isoloss.experiments.settings import SurfaceSettings
from isoloss.experiments.surfaces import SurfaceExperiment
from isoloss.figures.fields import field
from isoloss.landscape import Grid, Problem, Surface, compiled
from isoloss.landscape.autotune import autotune
from isoloss.landscape.compiled import NoCompilationError
from isoloss.landscape.compiling import compile_networks, compile_seconds, obstacle, pays
from isoloss.landscape.plan import Plan, PlanError
from isoloss.records.identity import SettingsDifferError
from isoloss.records.surfaces import read_surface

F64 = torch.float64


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(1, 2, 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.conv(x)).flatten(1))


def data(count=11):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(count, 1, 4, 4, generator=generator), torch.arange(count) % 3)]


def problem(count=11, batch_size=4, **options):
    return Problem(Small(), nn.CrossEntropyLoss(), data(count), batch_size=batch_size, **options)


@pytest.fixture
def traced(monkeypatch):
    """What torch.compile traces, run as it is: fast, and needs no C++ compiler."""
    made = []
    compile = torch.compile

    def by_eager(function, **options):
        made.append(function)
        return compile(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", by_eager)
    return made


def test_a_compiled_network_has_the_losses_of_its_network_at_every_point(traced):
    """Eleven samples in batches of four: the last one takes a sample of the one before along."""
    plain, fast = problem(), problem()
    assert compile_networks([fast], 1, asked=True) is None
    assert fast.plan == replace(plain.plan, compile=True)
    assert compile_seconds(fast) > 0
    grid = Grid.parse("-1:1:3", "-1:1:3")
    one, other = (Surface(p, grid, seed=0).run() for p in (fast, plain))
    for name, values in one.values.items():
        assert (values == other.values[name]).all()
    assert len(traced) == 1


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="no C++ compiler")
def test_compiled_losses_are_those_of_float64():
    fast, exact = problem(), problem(dtype=F64)
    assert compile_networks([fast], 1, asked=True) is None
    surfaces = [Surface(p, Grid.parse("-1:1:5"), seed=0) for p in (fast, exact)]
    one, other = (surface.run().values["train_loss"] for surface in surfaces)
    assert (abs(one - other) <= 1e-6 * other).all()


def test_the_rule_is_one_of_sizes():
    small = problem()
    assert not pays([small], 51 * 51)
    assert pays([small], 10**12)
    assert not pays([small, small], 0)
    mlp = Problem(nn.Linear(6, 3), nn.CrossEntropyLoss(), [(torch.ones(4, 6), torch.arange(4) % 3)])
    assert not pays([mlp], 10**12)  # no convolutions: nothing was gained by it


def test_what_is_never_compiled():
    graphs = problem(bn="train", bn_batch=4)
    assert "batch norm" in obstacle(graphs)
    closure = Problem(Small(), closure=lambda m, b: m(b[0]).square().sum(1), batches=data())
    assert "closure" in obstacle(closure)
    shapes = [(torch.ones(2, 1, 4, 4), torch.zeros(2).long()), (torch.ones(2, 1, 4, 4, dtype=F64),
              torch.zeros(2, 1).long()[:, 0].int())]  # fmt: skip
    assert obstacle(Problem(Small(), nn.CrossEntropyLoss(), shapes[:1])) is None
    for one in (graphs, closure):
        assert not pays([one], 10**12)
        assert compile_networks([one], 1, asked=True) == obstacle(one)
        assert not one.plan.compile


class Branching(Small):
    def forward(self, x):
        outputs = super().forward(x)
        return outputs if outputs.sum() > -math.inf else -outputs  # depends on values


def test_networks_that_cannot_be_traced_go_on_as_they_are(traced):
    branching = Problem(Branching(), nn.CrossEntropyLoss(), data())
    assert compile_networks([branching], 1, asked=True)
    assert not branching.plan.compile
    assert branching.evaluate().loss == problem().evaluate().loss


class Heard(Reporter):
    def __init__(self):
        self.warned = []

    def warn(self, text):
        self.warned.append(text)


def broken(*args, **kwargs):
    def function(*args, **kwargs):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nlong story")

    return function


def subject():
    return Subject(Small(), nn.CrossEntropyLoss(), train=data()[0])


def test_without_a_compiler_one_line_is_said_and_the_plan_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", broken)
    heard = Heard()
    subject().surface(tmp_path / "a.h5", heard, x="-1:1:3", compile=True)
    (line,) = heard.warned
    assert line.startswith("went on without compiling: RuntimeError: InvalidCxxCompiler")
    assert "\n" not in line
    assert read_surface(tmp_path / "a.h5").settings["plan"]["compile"] is False


def test_a_compiled_surface_is_resumed_compiled_or_not_at_all(tmp_path, monkeypatch, traced):
    whole, part = tmp_path / "whole.h5", tmp_path / "part.h5"

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    fast = problem(batch_size=None)
    compile_networks([fast], 1, asked=True)
    surface = Surface(fast, Grid.parse("-1:1:5"), seed=0)
    with pytest.raises(KeyboardInterrupt):
        surface.run(part, stop)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", broken)
        other = problem(batch_size=None, plan=fast.plan)
        with pytest.raises(NoCompilationError, match=r"expected .* got RuntimeError.*\n.*`force`"):
            Surface(other, Grid.parse("-1:1:5"), seed=0).run(part)
    made = len(traced)
    other = problem(batch_size=None, plan=fast.plan)
    resumed = Surface(other, Grid.parse("-1:1:5"), seed=0).run(part)
    assert len(traced) == made + 1
    in_one = Surface(fast, Grid.parse("-1:1:5"), seed=0).run()
    assert (resumed.values["train_loss"] == in_one.values["train_loss"]).all()
    # What is complete is neither compiled again nor taken for something else.
    subject().surface(whole, x="-1:1:5", compile=True)
    made = len(traced)
    subject().surface(whole, x="-1:1:5", compile=True)
    assert len(traced) == made
    with pytest.raises(SettingsDifferError, match=r"plan.compile \(stored true, now false\)"):
        subject().surface(whole, x="-1:1:5", compile=False)


def test_compiling_is_told_apart_from_evaluating(tmp_path, traced):
    for compile, name in ((True, "a"), (None, "b")):
        path = tmp_path / f"{name}.h5"
        experiment = SurfaceExperiment(
            subject(), SurfaceSettings(x="-1:1:3", compile=compile), path
        )
        summary = experiment.run().summary()
        assert (
            summary.get("compile_seconds", 0) > 0 if compile else "compile_seconds" not in summary
        )
        assert bool(experiment.cost().compile_seconds) == bool(compile)


def test_nothing_else_is_computed_by_a_compiled_network(traced):
    fast = problem()
    compile_networks([fast], 1, asked=True)
    for one in (fast.at(Small()), fast.part(torch.arange(3)), fast.uncompiled()):
        assert not one.plan.compile
        one.evaluate()
    assert len(traced) == 1
    torch.testing.assert_close(fast.gradient(), problem().gradient())


def test_compiled_networks_are_silenced_only_while_they_are_made(traced):
    import logging

    levels = [logging.getLogger(name).level for name in compiled.LOGGERS]
    compile_networks([problem()], 1, asked=True)
    assert [logging.getLogger(name).level for name in compiled.LOGGERS] == levels


def test_trials_choose_among_sizes_and_the_plan_is_stored(tmp_path, monkeypatch, traced):
    tried = problem(count=40)
    assert autotune([tried], 10) is None
    assert tried.plan.micro_batch in (1, 2, 4, 8, 16)
    never, always = problem(count=40), problem(count=40)
    autotune([never], 10**12, asked=False)
    autotune([always], 1, asked=True)
    assert (never.plan.compile, always.plan.compile) == (False, True)
    statistics = problem(bn="train", bn_batch=4)
    autotune([statistics], 10)
    assert statistics.plan.micro_batch == 4  # nothing is cut under this policy
    path = tmp_path / "a.h5"
    subject().surface(path, x="-1:1:3", autotune=True)
    before = path.read_bytes()
    subject().surface(path, x="-1:1:3", autotune=True)
    assert path.read_bytes() == before


def test_how_far_bfloat16_is_off_is_stored_and_drawn(tmp_path):
    data = subject().surface(tmp_path / "a.h5", x="-1:1:3", dtype="bfloat16")
    exact = problem(dtype=F64).evaluate().loss
    error = abs(data.origin["train_loss"] - exact) / exact
    assert 1e-6 < error < 1e-2  # 8 bits of mantissa
    assert data.settings["half_error"]["train"] == pytest.approx(error, rel=1e-6)
    (note,) = field(data, "train_loss").notes()[:1]
    assert note == f"bfloat16: {error:.1g} of the loss off float64 at the origin"
    subject().surface(tmp_path / "a.h5", x="-1:1:3", dtype="bfloat16")  # it goes on as it was
    assert "half_error" not in subject().surface(x="-1:1:3").settings


@pytest.mark.parametrize(
    "change", [lambda plan: plan.pop("threads"), lambda plan: plan.update(more=1)]
)
def test_a_plan_of_another_version_is_an_error(change):
    stored = problem().plan.to_json()
    assert Plan.from_json(dict(stored)) == problem().plan
    change(stored)
    with pytest.raises(PlanError, match=r"expected a plan of .*\n.*`force`"):
        Plan.from_json(stored)
    with pytest.raises(PlanError, match="got str"):
        Plan.from_json("fast")
