"""Two processes equal one: the same samples a step, the same gradients, the same decisions."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from isoloss.parallel.ranks import Group, local_device, process_group

F64 = torch.float64
# Samples 50 = 3 * 16 + 2 and 49 = 3 * 16 + 1: two ranks get uneven shards, the last one is empty.
CASES = {
    "sgd": {"name": "sgd", "count": 50},
    "adam, ragged to an empty shard": {"name": "adam", "count": 49},
    "sam": {"name": "sam", "count": 49},
    "asam, clipped": {"name": "asam", "count": 50, "clip": 0.3},
    "sam, m 5": {"name": "sam", "count": 50, "m": 5},
    "sam, m 16: one rank without a subset": {"name": "sam", "count": 49, "m": 16},
    "class weights, one ignored": {"name": "sgd", "count": 49, "weighted": True},
    "sam, m 5, weighted": {"name": "sam", "count": 49, "m": 5, "weighted": True},
    "plateau and early stopping": {
        "name": "sgd", "count": 50, "epochs": 30, "schedule": "plateau", "lr": 1.0, "patience": 4,
        "schedule_arguments": {"patience": 0},
    },
}  # fmt: skip


class Pairs:
    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.randint(0, 3, (count,), generator=generator)
        noise = torch.randn(count, 6, generator=generator, dtype=F64)
        self.inputs = noise + self.targets.unsqueeze(1)

    def subset(self, indices: Tensor) -> Pairs:
        part = copy.copy(self)
        part.inputs, part.targets = self.inputs[indices], self.targets[indices]
        return part

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self)) if order is None else order
        for part in order.split(size):
            yield self.inputs[part], self.targets[part]


class Network(nn.Module):
    """With a parameter that takes no part, which must stay without a gradient on every rank."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8, dtype=F64), nn.Linear(8, 3, dtype=F64)
        self.unused = nn.Parameter(torch.ones(2, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


def run_case(case: str, group: Group, folder: Path | None = None) -> dict[str, object]:
    from isoloss.landscape.losses import per_sample_loss
    from isoloss.trainers.loop import train
    from isoloss.trainers.losses import build_loss
    from isoloss.trainers.optimizers import build_optimizer, resolve_optimizer
    from isoloss.trainers.settings import TrainingSettings
    from isoloss.trainers.trainer import Trainer

    options = dict(CASES[case])
    name, count = options.pop("name"), options.pop("count")
    loss = build_loss("cross-entropy", {}, dtype=F64)
    if options.pop("weighted", False):
        weight = torch.tensor([0.1, 1.0, 5.0], dtype=F64)
        loss = per_sample_loss(nn.CrossEntropyLoss(weight, ignore_index=1), dtype=F64)
    optimizer_options = {k: options.pop(k) for k in ("m", "lr") if k in options}
    torch.manual_seed(group.rank)  # other weights on other ranks, until rank 0's are taken over
    model = Network()
    # Weight decay must not touch what has no gradient.
    settings = resolve_optimizer(name, weight_decay=0.01, **optimizer_options)
    trainer = Trainer(
        model,
        loss,
        build_optimizer(settings, model),
        Pairs(count),
        Pairs(21, seed=1),
        TrainingSettings(**{"epochs": 3, "batch_size": 16, "seed": 7, **options}),
        group=group,
    )
    train(trainer, folder)
    return {
        "weights": {name: p.detach().clone() for name, p in model.named_parameters()},
        "losses": [[r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy]
                   for r in trainer.history],
        "lrs": [r.lr for r in trainer.history],
    }  # fmt: skip


def worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    with process_group(torch.device("cpu")) as group:
        results = {case: run_case(case, group, Path(folder) / f"rank{rank}") for case in CASES}
        model = nn.BatchNorm1d(2)
        model.running_mean += rank
        group.average_buffers(model)
        results["buffers"] = model.running_mean.tolist()
    torch.save(results, Path(folder) / f"{rank}.pt")
    assert not torch.distributed.is_initialized()


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # This file is their script: the name it has under pytest cannot be imported elsewhere.
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(port), str(folder)])
        for rank in (0, 1)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(pair, case):
    first, second = (results[case] for results in pair[1])
    alone = run_case(case, Group())
    assert first["losses"] == second["losses"]
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name])
        # A dozen steps of float64 sums formed in another order; curvature amplifies little here.
        torch.testing.assert_close(weight, alone["weights"][name], rtol=0, atol=1e-11)
    assert torch.equal(first["weights"]["unused"], torch.ones(2, dtype=F64))
    assert len(first["losses"]) == len(alone["losses"])
    assert first["lrs"] == alone["lrs"]
    for ours, theirs in zip(first["losses"], alone["losses"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-10)


@pytest.mark.slow
def test_the_stopping_case_stops_and_drops_the_rate(pair):
    result = pair[1][0]["plateau and early stopping"]
    assert len(result["losses"]) < 30
    assert len(set(result["lrs"])) > 1


@pytest.mark.slow
def test_only_rank_0_writes(pair):
    folder, _ = pair
    assert (folder / "rank0" / "state.pt").is_file()
    assert not (folder / "rank1").exists()


@pytest.mark.slow
def test_running_statistics_are_averaged(pair):
    assert [results["buffers"] for results in pair[1]] == [[0.5, 0.5]] * 2


def test_one_process_alone_communicates_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(torch.device("cpu")) as group:
        assert (group.rank, group.size, group.main) == (0, 1, True)
        assert not torch.distributed.is_initialized()
        items = torch.arange(5)
        assert torch.equal(group.shard(items), items)
        assert group.sum([1.5, 2.0]) == [1.5, 2.0]


def test_shards_cover_all_items_once():
    parts = [Group(rank, 3).shard(torch.arange(7)) for rank in range(3)]
    assert torch.cat(parts).tolist() == list(range(7))
    assert [len(part) for part in parts] == [3, 2, 2]


def test_each_process_takes_its_own_accelerator(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device(torch.device("cuda")) == torch.device("cuda", 3)
    assert local_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert local_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert local_device(torch.device("cuda")) == torch.device("cuda")


if __name__ == "__main__":
    worker(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
