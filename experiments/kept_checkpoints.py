"""The checkpoints of epochs that a training kept, and a network at one of them."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.options import OptionError
from isoloss.experiments.trained import Trained
from isoloss.records.provenance import file_sha256
from isoloss.records.runs import Run
from isoloss.trainers.checkpoints import load_into, load_weights

_RANGE = re.compile(r"(\d{0,9}):(\d{0,9})(?::(\d{0,9}))?")


def kept_checkpoints(run: Run, asked: str) -> dict[int, Path]:
    """Return the checkpoints of a run that are asked for, by epoch.

    Args:
        run: The run.
        asked: As of `chosen_epochs`.

    Raises:
        ExperimentError: If the run kept none.
        OptionError: As `chosen_epochs`.
    """
    kept = run.epoch_checkpoints()
    if not kept:
        raise ExperimentError(
            f"expected checkpoints of epochs in {run.checkpoints}, got none\n"
            f"train {run.name} again with `checkpoint_every` N, which keeps those of every N-th"
        )
    return {epoch: kept[epoch] for epoch in chosen_epochs(asked, list(kept))}


def chosen_epochs(asked: str, kept: Sequence[int]) -> list[int]:
    """Return the epochs that a text names among those there are, ascending.

    Args:
        asked: `"all"`; epochs as `"0,5,10"`; or `"START:STOP:STEP"`, both ends included, each of
            which may be left out: `"::5"`, `"100:"`.
        kept: The epochs there are, ascending, one or more.

    Raises:
        OptionError: For another text, or epochs that are not there.
    """
    if asked == "all":
        return list(kept)
    shown = ", ".join(map(str, kept[:6])) + (f", .. {kept[-1]}" if len(kept) > 6 else "")
    if found := _RANGE.fullmatch(asked):
        start, stop = int(found[1] or 0), int(found[2] or kept[-1])
        step = int(found[3] or 1)
        chosen = [e for e in kept if start <= e <= stop and step and (e - start) % step == 0]
        if not chosen:
            raise OptionError("epochs", f"expected some of those kept, {shown}; got {asked}")
        return chosen
    if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", asked):
        raise OptionError(
            "epochs", f"expected all, epochs as 0,5,10 or START:STOP:STEP as ::5, got {asked!r}"
        )
    chosen = sorted({int(part) for part in asked.split(",")})
    if missing := [epoch for epoch in chosen if epoch not in kept]:
        raise OptionError("epochs", f"expected some of those kept, {shown}; got {missing[0]}")
    return chosen


def network_at(model: nn.Module, checkpoint: Path) -> nn.Module:
    """Return a copy of a network with the weights of a checkpoint."""
    twin = copy.deepcopy(model)
    load_into(twin, load_weights(checkpoint), str(checkpoint))
    return twin


def subject_at(subject: Trained, checkpoint: Path) -> Trained:
    """Return a run's network, data and loss at another of its checkpoints."""
    assert subject.run is not None
    held = {field.name: getattr(subject, field.name) for field in dataclasses.fields(Trained)}
    held["model"] = network_at(subject.model, checkpoint)
    held["about"] = {**subject.about, "checkpoint_sha256": file_sha256(checkpoint)}
    place = str(checkpoint.relative_to(subject.run.path))
    held["notes"] = {**subject.notes, "checkpoint": place}
    return Trained(**held)


def rates_after(run: Run, epochs: Sequence[int], otherwise: float) -> list[float]:
    """Return the learning rate of the step that leaves the weights of each epoch.

    That is the first step of the next epoch; at the end of the training, the last epoch's.

    Args:
        run: The run.
        epochs: Epochs trained.
        otherwise: What it is without a history.
    """
    stored = run.history() if (run.path / "history.json").is_file() else {}
    history = stored.get("lr", np.empty(0))
    if not len(history):
        return [otherwise] * len(epochs)
    return [float(history[min(epoch, len(history) - 1)]) for epoch in epochs]
