"""What a run holds beside its weights: facts, summary, samples, plug-ins, and what was said."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from isoloss.datasets import Data
from isoloss.evaluation.networks import placement
from isoloss.experiments.reporting import Reporter
from isoloss.landscape.batches import as_batch, graph_arguments
from isoloss.models import model_facts
from isoloss.parallel.ranks import Group
from isoloss.plugins import (
    PLUGIN_ROLES,
    describe_plugin,
    is_module_spec,
    plugin_file,
    plugin_identity,
)
from isoloss.records.facts import Facts
from isoloss.records.files import explained, write_text
from isoloss.records.progress import Progress
from isoloss.records.provenance import command_line, git_commit, versions
from isoloss.records.runs import Run
from isoloss.structure import is_graph
from isoloss.trainers.intel import intel_is_loaded


class TrainingLog(Reporter):
    """What a training says, also written to the run's `log.txt`.

    Lines said before there is a run folder are kept until `open`.

    Args:
        reporter: Where to say it.
        speaks: Whether anything is said and written at all; not so for ranks other than 0.
    """

    def __init__(self, reporter: Reporter, speaks: bool = True) -> None:
        self._reporter, self._speaks = reporter, speaks
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
        path = self._file
        with (
            explained(path),
            open(path, "a", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write(text + "\n")

    def say(self, text: str) -> None:
        """Tell the reporter, and write to the log."""
        if self._speaks:
            self._reporter.say(text)
            self.note(text)

    def warn(self, text: str) -> None:
        """Warn the reporter, and write to the log."""
        if self._speaks:
            self._reporter.warn(text)
            self.note(f"warning: {text}")

    def expect(self, unit: str, text: str) -> None:
        """Tell the reporter what the training will take."""
        if self._speaks:
            self._reporter.expect(unit, text)

    @contextmanager
    def progress(self, description: str) -> Iterator[Progress | None]:
        """Accompany a piece of work as the reporter does."""
        with self._reporter.progress(description) if self._speaks else nullcontext() as bar:
            yield bar


def training_facts(
    model: nn.Module,
    data: Data,
    device: torch.device,
    group: Group,
    intel: str | None,
    config: Mapping[str, Any],
) -> Facts:
    """Return what was found, as opposed to asked for, when a training began.

    Args:
        model: The network.
        data: The splits.
        device: Where it is trained.
        group: The processes.
        intel: Version of Intel's extension where it is used.
        config: The resolved options.
    """
    facts = model_facts(model, data.info.input_shape or None)
    return Facts(
        parameters=facts.parameters,
        receptive_field=facts.receptive_field,
        samples=data.provenance["samples"],
        data_dir=data.provenance["data_dir"],
        data_digest=data.info.digest,
        data=data.info.to_json(),
        device=device.type,
        threads=torch.get_num_threads(),
        processes=group.size,
        intel={"version": intel, "loaded": intel_is_loaded()},
        command=command_line(),
        versions=versions(),
        git=git_commit(),
        plugins=plugin_hashes(config),
    )


def write_summary(run: Run, model: nn.Module, data: Data) -> Path:
    """Write the network layer by layer, with shapes and counts for two samples.

    With a closure, which alone knows how to call the network, there are counts of weights alone, as
    for a network that cannot be followed.

    The network is looked at in a copy and in evaluation mode, and torch's generators are put back,
    so that training is what it is without.
    """
    twin = copy.deepcopy(model)
    device, dtype = placement(twin)
    inputs: Any = None
    if run.config().get("closure") is None:
        batch = as_batch(next(iter(data.train.batches(min(2, len(data.train))))))
        # Clones: a view would be counted with all of its storage.
        inputs = batch.to(device, dtype, channels_last=False).map(torch.clone).inputs
        if is_graph(inputs):
            inputs = graph_arguments(twin.forward, inputs)
    try:
        summary = _summary(twin, inputs, device)
    except RuntimeError:  # torchinfo's, of outputs it cannot read; a network's fault shows later
        summary = _summary(twin, None, device)
    path = run.path / "summary.txt"
    write_text(path, f"{summary}\n")
    return path


def _summary(model: nn.Module, inputs: Any, device: torch.device) -> Any:
    import torchinfo  # takes a third of a second to import

    columns = ("kernel_size", "output_size", "num_params", "mult_adds")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        return torchinfo.summary(
            model,
            input_data=inputs,
            mode="eval",
            depth=4,
            col_names=("num_params",) if inputs is None else columns,
            row_settings=("depth", "var_names"),
            verbose=0,
        )


def copy_plugins(run: Run, config: Mapping[str, Any]) -> None:
    """Keep copies of the user's files that take part."""
    for role, file in _plugin_files(config).items():
        run.copy_plugin(file, role)


def plugin_hashes(config: Mapping[str, Any]) -> dict[str, str | None]:
    """Return SHA-256 or version of each of the user's files and modules, by role."""
    specs = {role: config[role] for role in PLUGIN_ROLES if config.get(role)}
    return {
        role: plugin_identity(spec)
        for role, spec in specs.items()
        if plugin_file(spec) is not None or is_module_spec(spec)
    }


def describe_loss(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies the loss of some options: spec, arguments, and the file's hash if any.

    Args:
        config: The options `loss`, `closure` and `loss_arg` by name.
    """
    closure = config.get("closure")
    if closure is None:
        return describe_plugin(config["loss"], config["loss_arg"])
    return {**describe_plugin(closure, config["loss_arg"]), "closure": True}


def _plugin_files(config: Mapping[str, Any]) -> dict[str, Path]:
    specs = {role: config[role] for role in PLUGIN_ROLES if config.get(role)}
    files = {role: plugin_file(spec) for role, spec in specs.items()}
    return {role: file for role, file in files.items() if file is not None}
