"""What a run holds beside its weights: facts, summary, samples, plug-ins, and what was said."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoloss.commands.console import Console, Progress
from isoloss.commands.provenance import (
    PLUGIN_ROLES,
    command_line,
    git_commit,
    plugin_file,
    plugin_sha256,
    versions,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from isoloss.datasets import Data
    from isoloss.trainers.distributed import Group
    from isoloss.trainers.runs import Run


class TrainingLog(Console):
    """The console of a training, which also writes what is said to the run's `log.txt`.

    Lines said before there is a run folder are kept until `open`.

    Args:
        console: Where to say it.
        speaks: Whether anything is said and written at all; not so for ranks other than 0.
    """

    def __init__(self, console: Console, speaks: bool = True) -> None:
        super().__init__(console.as_json)
        self._console, self._speaks = console, speaks
        self._file: Path | None = None
        self._kept: list[str] = []

    def open(self, run: Run) -> None:
        """Write from now on to the run's log, below what is there."""
        self._file = run.path / "log.txt"
        self.note(f"# {datetime.now(UTC).isoformat(timespec='seconds')} {command_line()}".rstrip())
        for line in self._kept:
            self.note(line)

    def note(self, text: str) -> None:
        """Write to the log alone."""
        if not self._speaks:
            return
        if self._file is None:
            self._kept.append(text)
            return
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def say(self, text: str) -> None:
        """Print a line for people, and write it to the log (also with `--json`)."""
        if self._speaks:
            self._console.say(text)
            self.note(text)

    def result(self, content: dict[str, Any]) -> None:
        """Print the result for machines; nothing without `--json`."""
        if self._speaks:
            self._console.result(content)

    @contextmanager
    def progress(self, description: str) -> Iterator[Progress | None]:
        """Show a bar, as the console does."""
        with self._console.progress(description) if self._speaks else nullcontext() as bar:
            yield bar


def training_facts(
    model: nn.Module, data: Data, device: torch.device, group: Group, intel: str | None
) -> dict[str, Any]:
    """Return what was found, as opposed to asked for, when a training began.

    Args:
        model: The network.
        data: The splits.
        device: Where it is trained.
        group: The processes.
        intel: Version of Intel's extension where it is used.
    """
    import torch

    from isoloss.models import model_facts
    from isoloss.trainers.intel import intel_is_loaded

    facts = model_facts(model, data.info.input_shape or None)
    return {
        "parameters": facts.parameters,
        "receptive_field": facts.receptive_field,
        "samples": data.provenance["samples"],
        "data_dir": data.provenance["data_dir"],
        "data_digest": data.info.digest,
        "data": data.info.to_json(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "processes": group.size,
        "intel": {"version": intel, "loaded": intel_is_loaded()},
        "command": command_line(),
        "versions": versions(),
        "git": git_commit(),
    }


def write_summary(run: Run, model: nn.Module, data: Data) -> Path:
    """Write the network layer by layer, with shapes and counts for two samples.

    The network is looked at in a copy and in evaluation mode, and torch's generators are put back,
    so that training is what it is without.
    """
    import torch
    import torchinfo

    from isoloss.evaluation.networks import placement
    from isoloss.landscape.batches import as_batch, graph_arguments
    from isoloss.landscape.files import write_text

    twin = copy.deepcopy(model)
    device, dtype = placement(twin)
    batch = as_batch(next(iter(data.train.batches(min(2, len(data.train))))))
    batch = batch.to(device, dtype, channels_last=False)
    inputs: Any = batch.inputs
    if isinstance(inputs, torch.Tensor):
        inputs = inputs.clone()  # a view would be counted with all of its storage
    elif not isinstance(inputs, dict):
        inputs = graph_arguments(twin.forward, inputs)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        summary = torchinfo.summary(
            twin,
            input_data=inputs,
            mode="eval",
            depth=4,
            col_names=("kernel_size", "output_size", "num_params", "mult_adds"),
            row_settings=("depth", "var_names"),
            verbose=0,
        )
    path = run.path / "summary.txt"
    write_text(path, f"{summary}\n")
    return path


def copy_plugins(run: Run, config: Mapping[str, Any]) -> None:
    """Keep copies of the user's files that take part."""
    for role in PLUGIN_ROLES:
        file = plugin_file(config[role])
        if file is not None:
            run.copy_plugin(file, role)


def plugin_hashes(config: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the SHA-256 of each of the user's files that take part, by role."""
    return {
        role: plugin_sha256(config[role])
        for role in PLUGIN_ROLES
        if plugin_file(config[role]) is not None
    }
