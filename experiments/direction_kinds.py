"""Directions made of a run's files: what each kind of a spec needs beside the weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from isoloss.experiments.direction_specs import Spec
from isoloss.experiments.options import OptionError
from isoloss.experiments.settings import SUFFIXES, SurfaceSettings
from isoloss.experiments.trained import Trained
from isoloss.landscape import Problem
from isoloss.landscape.batch_norm import movable_buffers
from isoloss.landscape.directions import RawDirection
from isoloss.landscape.directions.between import towards
from isoloss.landscape.directions.gradient import gradient_direction
from isoloss.records.provenance import file_sha256
from isoloss.records.runs import CHECKPOINTS, Run, find_run
from isoloss.trainers.checkpoints import load_into, load_weights, match_names


@dataclass(frozen=True)
class Start:
    """Where directions start, and what they may be made from.

    Attributes:
        subject: The network with its data and loss.
        problem: The loss of the first split.
        settings: What surface is asked for.
    """

    subject: Trained
    problem: Problem
    settings: SurfaceSettings

    def run(self, name: str, spec: Spec) -> Run:
        """Return the run of a name, beside the subject's; the subject's own for no name.

        Raises:
            OptionError: For a network that is in memory only.
            RunError: If there is none of that name.
        """
        own = self.subject.run
        if own is None:
            raise spec.wrong("a network that is a run", "one that is in memory only")
        return find_run(own.path.parent.parent, name) if name else own

    def moved(self, *, states: bool) -> Mapping[str, Tensor]:
        """Return what a direction moves: the parameters, and the buffers by `dir_type`.

        Args:
            states: Whether buffers move where `dir_type` is not given.
        """
        if self.settings.dir_type is not None:
            states = self.settings.dir_type == "states"
        return {**self.problem.parameters, **(self.problem.buffers if states else {})}


def to_checkpoint(spec: Spec, start: Start) -> RawDirection:
    """Return the direction to another checkpoint (`to:RUN`), buffers among it."""
    label, path = find_checkpoint(spec, start)
    other = copy.deepcopy(start.subject.model)
    load_into(other, match_names(other, load_weights(path), str(path))[0], str(path))
    moved, end = start.moved(states=True), _named(other)
    apart = _left_apart(start, end, moved)
    if apart and not start.settings.parameters and start.settings.dir_type is None:
        more = f" and {len(apart) - 1} more" if len(apart) > 1 else ""
        raise OptionError(
            "parameters",
            f"expected what does not move alike in both checkpoints of `{spec.option}`, but "
            f"{apart[0]}{more} differ: frozen parameters or whole numbers\n"
            "give `parameters` all to move what is frozen, or trainable to leave it as it is",
        )
    return towards(
        moved,
        end,
        label,
        run=label,
        checkpoint_sha256=file_sha256(path),
        reaches=not apart,  # whether 1 is the other checkpoint, so that it may be marked
    )


def of_gradient(spec: Spec, start: Start) -> RawDirection:
    """Return the gradient of the loss that the surface is of (`gradient`)."""
    return gradient_direction(start.problem)


def find_checkpoint(spec: Spec, start: Start) -> tuple[str, Path]:
    """Return the label and the path of RUN, RUN@best, RUN@epoch-3, @epoch-0 or a FILE.

    Raises:
        OptionError: For a file that is not there, or words that are no checkpoint.
        RunError: For a run or checkpoint that is missing.
    """
    file = Path(spec.argument)
    if file.suffix in SUFFIXES and file.is_file():
        return file.stem, file
    if "/" in spec.argument or file.suffix in SUFFIXES:
        raise spec.wrong("a run or a file of weights", f"no file at {file}")
    name, at, which = spec.argument.partition("@")
    run = start.run(name, spec)
    if not at:
        return name, run.checkpoint()
    epoch = re.fullmatch(r"epoch-(\d+)", which)
    if epoch is None:
        if which not in CHECKPOINTS:
            raise spec.wrong(f"{name}@ {', '.join(CHECKPOINTS)} or epoch-N", repr(which))
        return f"{name}@{which}" if name else which, run.checkpoint(which)
    there = run.epoch_checkpoints()
    if int(epoch[1]) not in there:
        kept = ", ".join(map(str, there)) or "none"
        raise spec.wrong(
            f"an epoch of run {run.name} that was kept ({kept})",
            which,
            "train it with `checkpoint_every` to keep epochs" if not there else "",
        )
    number = int(epoch[1])
    return f"{name}@epoch-{number}" if name else f"epoch {number}", there[number]


def _left_apart(start: Start, end: Mapping[str, Tensor], moved: Mapping[str, Tensor]) -> list[str]:
    """Name what differs in another checkpoint and would stay as it is, batch counts apart."""
    model = start.subject.model
    stored = model.state_dict().keys()
    computed = movable_buffers(model, "eval").keys() - start.problem.buffers.keys()
    return [
        name
        for name, tensor in _named(model).items()
        if name in stored and not (name in moved or name in computed)
        if not name.endswith("num_batches_tracked") and not torch.equal(tensor, end[name])
    ]


def _named(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, those that are shared under one name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
