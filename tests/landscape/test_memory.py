"""Memory that runs out, or would: batches are halved, work is refused with both numbers."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from torch import nn

from isoloss.errors import is_out_of_memory
from isoloss.experiments import Subject
from isoloss.experiments.reporting import Reporter
from isoloss.experiments.settings import SpectrumSettings
from isoloss.hessian import HessianOperator, Spectrum
from isoloss.landscape import Grid, Surface, memory
from isoloss.landscape.memory import MemoryShortError
from isoloss.landscape.problem import Problem
from isoloss.records.spectra import read_spectrum

GIB = 2**30
F64 = torch.float64


SHARED = {"most": 1000}


class Crowded(nn.Module):
    """A network for which memory runs out above so many samples, as on an accelerator."""

    def __init__(self, most, error=torch.OutOfMemoryError):
        super().__init__()
        torch.manual_seed(0)
        self.part = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        self.most, self.error, self.seen = most, error, []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > min(self.most, SHARED["most"]):
            raise self.error("CUDA out of memory. Tried to allocate 20.00 GiB")
        return self.part(x)


def problem(most=100, error=torch.OutOfMemoryError, size=32, **options):
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(50, 6, dtype=F64, generator=generator), torch.arange(50) % 3)]
    return Problem(
        Crowded(most, error), nn.CrossEntropyLoss(), data, dtype=F64, batch_size=size, **options
    )


@pytest.mark.parametrize("most", [2, 5, 31])
def test_batches_are_halved_until_they_fit_and_values_stay(most):
    crowded, roomy = problem(most), problem()
    assert crowded.plan.micro_batch <= most
    # Sums of 50 numbers of order 1 in float64, in another order.
    assert crowded.evaluate().loss == pytest.approx(roomy.evaluate().loss, rel=1e-14)
    for name, tensor in crowded.gradient().items():
        torch.testing.assert_close(tensor, roomy.gradient()[name], rtol=1e-12, atol=1e-15)


def test_what_runs_out_later_is_halved_then():
    later = problem()
    later._model.most = 4
    before = later.plan.micro_batch, later.evaluate().loss
    assert before[0] == 32
    assert later.plan.micro_batch == later.plan.product_batch == 4
    assert before[1] == pytest.approx(problem().evaluate().loss, rel=1e-14)


def test_products_give_up_kept_graphs_and_then_halve():
    crowded, roomy = problem(), problem()
    crowded._model.most = 10
    vector = torch.ones(83, dtype=F64)
    with HessianOperator(crowded) as one, HessianOperator(roomy) as other:
        torch.testing.assert_close(one.matvec(vector), other.matvec(vector), rtol=1e-12, atol=1e-15)
        assert one.products == 1
    assert crowded.plan.product_strategy == "recompute"
    assert crowded.plan.product_batch == 8


def test_one_sample_that_does_not_fit_is_an_error():
    crowded = problem()
    crowded._model.most = 0
    with pytest.raises(MemoryShortError, match="with 1 samples at a time: CUDA out of memory"):
        crowded.evaluate()
    with pytest.raises(MemoryShortError, match="with 2 samples at a time: CUDA out of memory"):
        problem(0)


def test_batches_of_statistics_are_never_cut():
    with pytest.raises(MemoryShortError, match=r"with 25 samples at a time.*\n.*`bn_batch`"):
        problem(20, bn="train", bn_batch=25)


def test_a_cpu_that_cannot_allocate_is_an_error_with_a_remedy():
    class Large(nn.Linear):
        def forward(self, x):
            torch.empty(2**50, dtype=torch.uint8)
            return super().forward(x)

    with pytest.raises(MemoryShortError, match=r"allocate memory.*\n.*`batch_size`.*`samples`"):
        Problem(Large(6, 3), nn.CrossEntropyLoss(), [(torch.ones(4, 6), torch.zeros(4).long())],
                batch_size=4, check=False).evaluate()  # fmt: skip


def test_the_surface_goes_on_and_the_spectrum_keeps_what_it_was_made_with(tmp_path):
    crowded, roomy = problem(), problem()
    crowded._model.most = 6
    grid = Grid.parse("-1:1:3")
    one, other = (Surface(p, grid, seed=0).run() for p in (crowded, roomy))
    assert one.values["train_loss"] == pytest.approx(other.values["train_loss"], rel=1e-13)
    path, stages = tmp_path / "a.h5", SpectrumSettings(top=1, probes=0, trace_budget=0)
    crowded = problem()
    crowded._model.most = 6
    Spectrum(crowded, stages).run(path)
    settings = read_spectrum(path).settings
    assert settings["plan"]["micro_batch"] == 32
    assert settings["plan_after_running_out_of_memory"]["product_batch"] == 4
    Spectrum(problem(), stages).run(path)  # complete: the plans agree


class Filling(Reporter):
    """Somebody else takes the memory once the work has begun."""

    def __init__(self):
        self.warned = []

    def say(self, text):
        SHARED["most"] = 6

    def warn(self, text):
        self.warned.append(text)


def test_what_was_left_of_the_plan_is_told_and_stored(tmp_path, monkeypatch):
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    subject = Subject(Crowded(1000).float(), nn.CrossEntropyLoss(), train=(x, torch.arange(50) % 3))
    for name in ("surface", "spectrum"):
        monkeypatch.setitem(SHARED, "most", 1000)
        some = {"x": "-1:1:3"} if name == "surface" else {"top": 1, "probes": 0, "trace_budget": 0}
        reporter = Filling()
        getattr(subject, name)(tmp_path / f"{name}.h5", reporter, batch_size=32, **some)
        assert len(reporter.warned) == 1
        assert "memory ran out: went on with 4 samples" in reporter.warned[0]
    stored = json.loads((tmp_path / "surface.json").read_text())
    plan = stored["plan_after_running_out_of_memory"]["train"]
    assert (plan["micro_batch"], plan["product_batch"]) == (4, 4)


@pytest.fixture
def little(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1000)


def test_work_that_cannot_fit_is_refused_with_both_numbers(little, tmp_path):
    with pytest.raises(
        MemoryShortError, match=r"vectors of the size.* at least .* GiB, got .* free"
    ):
        Spectrum(problem(), SpectrumSettings(top=1)).run(tmp_path / "a.h5")
    with pytest.raises(MemoryShortError, match="a layer for 32 samples"):
        Surface(problem(), Grid.parse("-1:1:3"), seed=0).run(tmp_path / "b.h5")
    assert not list(tmp_path.glob("*.h5"))


def test_what_a_spectrum_is_sure_to_hold(monkeypatch):
    """83 float64 parameters, 2 (5 + 1) vectors against 50 steps; 8 + 8 + 3 outputs a sample."""
    needed = []
    monkeypatch.setattr(memory, "require", lambda bytes_, *_: needed.append(bytes_))
    Spectrum(problem(), SpectrumSettings(top=5, probes=1, steps=50, trace_budget=0)).run()
    assert needed == [8 * (50 * 83 + 50 * 19)]


def test_in_place_outputs_count_once():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))
    assert memory.outputs_per_sample(net, torch.ones(1, 6).as_subclass(_Counted)) == (44, 32)


def test_networks_that_cannot_be_looked_into():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer torch says that it is old
        scripted = torch.jit.script(nn.Linear(6, 3))
    for net in (scripted, torch.compile(nn.Linear(6, 3), backend="eager")):
        with memory.outputs_held(nn.Sequential(net)) as outputs:
            net(torch.ones(2, 6))
        assert not outputs


class _Counted(torch.Tensor):
    count = 1


CASES = {
    "machine": ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 3 kB\nSwapFree: 1 kB\n"}, 4096),
    "container": (
        {
            "proc/meminfo": "MemAvailable: 1000 kB\n",
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": "5000\n",
            "sys/fs/cgroup/a/memory.current": "3000\n",
            "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 100\nactive_file 10\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/b/memory.current": "3000\n",
            "sys/fs/cgroup/a/b/memory.stat": "",
        },
        2110,
    ),
    "older container": (
        {
            "proc/meminfo": "MemAvailable: 1000 kB\n",
            "proc/self/cgroup": "5:cpu:/a\n4:memory:/a\n0::/\n",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "5000\n",
            "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "4500\n",
            "sys/fs/cgroup/memory/a/memory.stat": "cache 3\n",
        },
        500,
    ),
    "unknown": ({}, None),
    "garbled": ({"proc/meminfo": "?\n\n", "proc/self/cgroup": "0::/\n"}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_memory_that_is_there(tmp_path, monkeypatch, case):
    files, expected = CASES[case]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_SYSTEM", tmp_path)
    assert memory.available() == expected


def test_memory_of_this_machine():
    there = memory.available()
    assert there is None or 0 <= there < 2**50


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
        (MemoryShortError("out of memory"), False),
    ],
)
def test_what_says_that_memory_ran_out(error, expected):
    assert is_out_of_memory(error) == expected
