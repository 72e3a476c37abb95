"""Two and three processes that share the samples equal one."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from isoloss.parallel.ranks import Group, process_group

F64 = torch.float64
COUNT, CLASSES = 23, 3
KINDS = (
    "hessian", "ggn", "residual", "fisher", "empirical-fisher", "gradient-covariance"
)  # fmt: skip


class Graphs:
    """A few graphs, as PyTorch Geometric batches them."""

    def __init__(self, x: Tensor, batch: Tensor, y: Tensor) -> None:
        self.x, self.batch, self.y, self.num_graphs = x, batch, y, len(y)

    def clone(self) -> Graphs:
        return copy.copy(self)

    def apply(self, change) -> Graphs:
        self.x, self.batch, self.y = map(change, (self.x, self.batch, self.y))
        return self

    def to_dict(self) -> dict[str, Tensor]:
        return {"x": self.x, "batch": self.batch, "y": self.y}

    def keys(self) -> list[str]:
        return ["x", "batch", "y"]


class OfGraphs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor, batch: Tensor) -> Tensor:
        sums = torch.zeros(int(batch.max()) + 1, CLASSES, dtype=x.dtype)
        return torch.tanh(sums.index_add(0, batch, torch.tanh(self.layer(x))))


def network(norm: bool = False) -> nn.Module:
    layers = [nn.Linear(4, 5), *([nn.BatchNorm1d(5)] if norm else []), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(5, CLASSES))


def problem(case: str, group: Group | None):
    from isoloss.landscape import Problem

    torch.manual_seed(3)
    x, y = torch.randn(COUNT, 4), torch.randint(0, CLASSES, (COUNT,))
    settings = {"dtype": F64, "group": group, "bn_batch": 5}
    loss = nn.CrossEntropyLoss()
    if case == "weights":
        loss = nn.CrossEntropyLoss(torch.tensor([0.1, 1.0, 5.0]), ignore_index=1)
    if case == "graphs":
        edges = [Graphs(torch.randn(2 * n, 4), torch.arange(2 * n) // 2, y[:n]) for n in (5, 2, 9)]
        return Problem(OfGraphs(), loss, edges, **settings)
    if case in ("train", "recalibrate"):
        return Problem(network(norm=True), loss, [(x, y)], bn=case, **settings)
    return Problem(network(), loss, [(x[:9], y[:9]), (x[9:], y[9:])], batch_size=4, **settings)


CASES = ("plain", "weights", "graphs", "train", "recalibrate")


def results_of(case: str, group: Group | None) -> dict[str, Tensor]:
    from isoloss.hessian.class_structure import class_structure
    from isoloss.hessian.operators.named import named_operator
    from isoloss.hessian.sample_error import sample_curvatures, sampling_bias

    own = problem(case, group)
    seen = own.evaluate()
    kinds = ("hessian",) if case == "train" else KINDS
    operators = {kind: named_operator(own, kind) for kind in kinds}
    vector = torch.linspace(-1, 1, operators["hessian"].size, dtype=F64)
    found = {kind: operator.matvec(vector) for kind, operator in operators.items()}
    found["loss"] = torch.tensor([seen.loss, seen.accuracy, seen.loss_standard_deviation])
    found["counts"] = torch.tensor([float(own.count), seen.weight])
    found["gradient"] = torch.cat([g.flatten() for g in own.gradient().values()])
    if case in ("plain", "weights"):
        found["curvatures"] = sample_curvatures(own, vector).sums
        found["shares"] = operators["ggn"].sample_curvatures(vector).sums
        found["classes"] = class_structure(own).of_class
        found["bias"] = torch.tensor(sampling_bias(own, 1.0))
    found["own"] = torch.tensor(own._data.count)
    assert own.digest == problem(case, None).digest
    return found


def spectrum(group: Group | None, path: Path):
    from isoloss.experiments.settings import SpectrumSettings
    from isoloss.hessian import Spectrum

    wanted = SpectrumSettings(top=2, probes=2, steps=10, operator="hessian,ggn", layers=True)
    return Spectrum(problem("plain", group), wanted).run(path)


def worker(rank: int, size: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    with process_group(torch.device("cpu")) as group:
        results = {case: results_of(case, group) for case in CASES}
        data = spectrum(group, Path(folder) / f"rank{rank}" / "hessian.h5")
        results["eigenvalues"] = torch.from_numpy(data.eigenpairs.eigenvalues)
    torch.save(results, Path(folder) / f"{rank}.pt")


@pytest.fixture(scope="module", params=[2, 3])
def several(request, tmp_path_factory) -> tuple[Path, list[dict]]:
    size, folder = request.param, tmp_path_factory.mktemp("ranks")
    (folder / "rank0").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        subprocess.Popen([sys.executable, __file__, *map(str, (rank, size, port, folder))])
        for rank in range(size)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0] * size
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_processes_equal_one(several, case):
    ranks = [results[case] for results in several[1]]
    alone = results_of(case, None)
    held = [int(rank.pop("own")) for rank in ranks]
    assert sum(held) == alone.pop("own")
    assert min(held) > 0
    assert len(set(held)) > 1 or case == "graphs"
    for name, expected in alone.items():
        for rank in ranks:
            torch.testing.assert_close(rank[name], expected, rtol=1e-10, atol=1e-12)
        assert all(torch.equal(rank[name], ranks[0][name]) for rank in ranks)


@pytest.mark.slow
def test_a_spectrum_is_that_of_one_process_and_written_once(several, tmp_path):
    from isoloss.records.spectra import read_spectrum

    folder, results = several
    alone = spectrum(None, tmp_path / "hessian.h5")
    for rank in results:
        expected = torch.from_numpy(alone.eigenpairs.eigenvalues)
        torch.testing.assert_close(rank["eigenvalues"], expected, rtol=1e-9, atol=1e-11)
    together = read_spectrum(folder / "rank0" / "hessian.h5")
    assert together.trace.estimate == pytest.approx(alone.trace.estimate, rel=1e-9)
    assert together.layers.keys() == alone.layers.keys()
    assert not (folder / "rank1").exists()


def test_shares_are_consecutive_and_keep_batches_of_statistics_whole():
    from isoloss.landscape.batches import BatchError, FixedData, as_batch
    from isoloss.landscape.shares import Share

    x = torch.arange(23.0)
    data = FixedData([as_batch((x[:, None], x))])
    shares = [Share.of(data, Group(rank, 3), 5) for rank in range(3)]
    parts = [share.own(data) for share in shares]
    assert [part.count for part in parts] == [5, 10, 8]
    assert torch.cat([part.batches[0].targets for part in parts]).equal(x)
    assert [share.before for share in shares] == [0, 5, 15]
    with pytest.raises(BatchError, match="expected batches of 5 samples for each of 6 processes"):
        Share.of(data, Group(0, 6), 5)


def test_drawn_targets_want_one_process():
    from isoloss.hessian.operators.fisher import FisherOperator
    from isoloss.hessian.operators.protocol import OperatorError

    own = problem("plain", None)
    own.group = Group(0, 2)
    with pytest.raises(OperatorError, match="expected one process for drawn targets"):
        FisherOperator(own, draws=1)


@pytest.mark.slow
def test_the_command_under_torchrun(tmp_path):
    cli = str(Path(__file__).resolve().parents[2] / "cli.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*arguments: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
        prefix = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        start = [*prefix, "--", cli] if processes > 1 else [cli]
        line = [sys.executable, *start, *arguments]
        return subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True)

    assert run("train", "--model", "mnist-baseline", "--run", "a", "--epochs", "1").returncode == 0
    options = ("--samples", "101", "--dtype", "float64", "--top", "1", "--max-products", "8")
    options += ("--smallest", "0", "--probes", "0", "--trace-budget", "0", "--json")
    alone = run("hessian", "a", *options, "--out", "alone.h5")
    three = run("hessian", "a", *options, "--out", "three.h5", processes=3)
    assert three.returncode == alone.returncode == 0, three.stderr
    found, expected = (json.loads(done.stdout[done.stdout.index("{") :]) for done in (three, alone))
    assert found["eigenvalues"][0] == pytest.approx(expected["eigenvalues"][0], rel=1e-6)
    refused = run("surface", "a", "--x=-1:1:3", processes=2)
    assert "expected one process, got WORLD_SIZE=2" in refused.stderr


if __name__ == "__main__":
    worker(*map(int, sys.argv[1:4]), sys.argv[4])
