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
    moved = start.moved(states=True)
    if not start.settings.parameters and start.settings.dir_type is None:
        _refuse_held(spec, start, other, moved)
    return towards(
        moved,
        other.state_dict(keep_vars=True),
        label,
        run=label,
        checkpoint_sha256=file_sha256(path),
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
        return f"{name}@{which}", run.checkpoint(which)
    there = run.epoch_checkpoints()
    if int(epoch[1]) not in there:
        kept = ", ".join(map(str, there)) or "none"
        raise spec.wrong(
            f"an epoch of run {run.name} that was kept ({kept})",
            which,
            "train it with `checkpoint_every` to keep epochs" if not there else "",
        )
    return f"{name}@epoch-{int(epoch[1])}", there[int(epoch[1])]


def _refuse_held(spec: Spec, start: Start, other: nn.Module, moved: Mapping[str, Tensor]) -> None:
    """Refuse another checkpoint that differs in what the direction leaves as it is."""
    own = start.subject.model
    held = {n: t for n, t in own.named_parameters() if n not in moved}
    theirs = dict(other.named_parameters())
    differing = [name for name, tensor in held.items() if not torch.equal(tensor, theirs[name])]
    if differing:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise OptionError(
            "parameters",
            f"expected frozen parameters alike in both checkpoints of {spec.option}, but "
            f"{differing[0]}{more} differ and would not move\n"
            "give `parameters` all to move them, or trainable to leave them as they are",
        )
