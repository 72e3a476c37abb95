"""The path of a training: the checkpoints of its epochs, and the principal components of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isoloss.experiments.direction_kinds import Start
from isoloss.experiments.direction_specs import Spec
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.train_record import describe_loss
from isoloss.landscape.directions import RawDirection
from isoloss.landscape.directions.pca import (
    ComponentError,
    Components,
    Load,
    component_tensors,
    gram_matrix,
    principal_components,
    random_walk_ratios,
)
from isoloss.records.provenance import file_sha256
from isoloss.records.runs import Run
from isoloss.trainers.checkpoints import load_weights
from isoloss.trainers.errors import shown

# Checkpoints held at a time while inner products are formed: as many as fit, two at least.
HELD_BYTES = 2**30


@dataclass(frozen=True)
class EpochPath:
    """The checkpoints of a run, from the untrained network to the last epoch.

    Attributes:
        run: The run.
        epochs: Epochs trained at each.
        files: One a point.
        digests: Their SHA-256.
    """

    run: Run
    epochs: tuple[int, ...]
    files: tuple[Path, ...]
    digests: tuple[str, ...]


def epoch_path(run: Run) -> EpochPath:
    """Return the path of a run: its epoch checkpoints, and the last weights if these are later.

    Raises:
        ExperimentError: If no epochs were kept.
        RunError: For a run that is damaged.
    """
    kept = run.epoch_checkpoints()
    if not kept:
        raise ExperimentError(
            f"expected epoch checkpoints of run {run.name}, got none: its path is not known\n"
            f"keep them: train --config {run.path / 'config.json'} --checkpoint-every 1 --force"
        )
    trained = len(next(iter(run.history().values()), ()))
    if trained > max(kept):
        kept[trained] = run.checkpoint()
    digests = tuple(file_sha256(file) for file in kept.values())
    return EpochPath(run, tuple(kept), tuple(kept.values()), digests)


def refuse_other_networks(model: nn.Module, whose: str, paths: Sequence[EpochPath]) -> None:
    """Refuse paths of networks with other parameters or buffers.

    Args:
        model: The network that they should be of.
        whose: Name of its run, for the error.
        paths: Of each the last checkpoint is looked at.

    Raises:
        ExperimentError: Naming the tensors that differ.
    """
    known = _shapes(model.state_dict())
    for path in paths:
        found = _shapes(load_weights(path.files[-1]))
        other = [name for name in {**known, **found} if known.get(name) != found.get(name)]
        if other:
            sizes = [_size(shapes.get(other[0])) for shapes in (known, found)]
            raise ExperimentError(
                f"expected runs of one network, but {whose} and {path.run.name} differ in "
                f"{len(other)} tensors: {shown(*other[:3])}{', ..' if len(other) > 3 else ''}\n"
                f"{shown(other[0])} is {sizes[0]} in the one and {sizes[1]} in the other"
            )


def refuse_other_functions(first: Run, others: Sequence[Run]) -> None:
    """Refuse runs whose losses are other functions of the weights than that of the first.

    Raises:
        ExperimentError: Naming what differs: network, loss or data.
    """
    facts = _facts(first)
    for run in others:
        for what, value in _facts(run).items():
            if value != facts[what]:
                raise ExperimentError(
                    f"expected runs of one {what}, got {facts[what]} of {first.name} and {value} "
                    f"of {run.name}\ntheir losses are other functions of the weights: a path on "
                    "the surface of another function says nothing"
                )


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in state.items() if isinstance(t, Tensor)}


def _size(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {shape}"


def _facts(run: Run) -> dict[str, str]:
    """Return, in words, what must agree for two runs to be of one function of the weights."""
    config, facts = run.config(), run.facts()
    loss = describe_loss(config)
    files = {role: facts.plugins.get(role) for role in ("model", "loss", "closure")}
    return {
        "network": _said(config.get("model"), config.get("model_arg"), files["model"]),
        "loss": _said(loss["spec"], loss["arguments"], files["closure"] or files["loss"]),
        "data": _said(config.get("dataset"), config.get("dataset_arg"), facts.data_digest),
    }


def _said(spec: Any, arguments: Mapping[str, Any] | None, digest: str | None) -> str:
    given = [f"{key}={value}" for key, value in sorted((arguments or {}).items())]
    return " ".join(filter(None, [str(spec), *given, digest and f"({digest[:12]})"]))


def principal_component(spec: Spec, start: Start) -> RawDirection:
    """Return a principal component of epochs: `pca:K` of this run's, `pca:K:A,B` of several runs'.

    Raises:
        OptionError: For words that name none.
        RunError: For a run that is missing.
        ExperimentError: For runs without epochs, or of other networks.
    """
    words = re.fullmatch(r"(\d{1,9})(?::([^:]+))?", spec.argument)
    if words is None:
        raise spec.wrong("pca:K or pca:K:RUN,RUN with K from 0", repr(f"pca:{spec.argument}"))
    number, names = int(words[1]), (words[2] or "").split(",")
    paths = [epoch_path(start.run(name, spec)) for name in names]
    refuse_other_networks(start.subject.model, start.run("", spec).name, paths)
    moved = tuple(start.moved(states=False))
    analysis = _analysis(
        tuple(file for path in paths for file in path.files),
        tuple(digest for path in paths for digest in path.digests),
        tuple(len(path.files) for path in paths),
        moved,
    )
    try:
        loads = [partial(tensors_of, file, moved) for path in paths for file in path.files]
        tensors = component_tensors(loads, loads[-1](), analysis.components, number)
    except ComponentError as error:
        expected, got = str(error).removeprefix("expected ").rsplit(", got ", 1)
        remedy = (
            "keep more epochs (train --checkpoint-every 1), or take another direction: random, .."
        )
        raise spec.wrong(expected, got, remedy) from error
    explained, walk = analysis.explained(number)
    return RawDirection(
        tensors,
        "pca",
        {
            "component": number,
            "points": len(loads),
            "checkpoints_sha256": analysis.digest,
            "explained_variance_ratio": explained,
            "random_walk": walk,
            "run": ",".join(path.run.name for path in paths),
            "label": f"PC {number + 1}, {100 * explained:.1f} % (random walk {100 * walk:.1f} %)",
        },
    )


def tensors_of(file: Path, names: Sequence[str]) -> Mapping[str, Tensor]:
    """Return tensors of a checkpoint by name.

    Raises:
        CheckpointError: If the file is missing or damaged.
        ExperimentError: If it lacks one of them, or one is not finite.
    """
    held = load_weights(file)
    for name in names:
        if name not in held:
            raise ExperimentError(
                f"expected weights of one network, but {file} has no {shown(name)}\n"
                "take runs of the same network"
            )
        if not bool(torch.isfinite(held[name]).all()):
            raise ExperimentError(
                f"expected finite weights, got NaN or infinity in {name} of {file}"
            )
    return {name: held[name] for name in names}


@dataclass(frozen=True)
class _Analysis:
    """Principal components of some checkpoints beside those of as many random steps."""

    components: Components
    random_walk: np.ndarray
    digest: str

    def explained(self, number: int) -> tuple[float, float]:
        """Return explained variance ratios, of the path and of a random walk, to six digits.

        They are part of what identifies a surface: the last bits depend on the processor.
        """
        found, walk = self.components.ratios[number], self.random_walk[number]
        return float(f"{found:.6g}"), float(f"{walk:.6g}")


@lru_cache(maxsize=1)  # both axes, and the extent of a grid, are of the same one
def _analysis(
    files: tuple[Path, ...],
    digests: tuple[str, ...],
    lengths: tuple[int, ...],
    names: tuple[str, ...],
) -> _Analysis:
    loads: list[Load] = [partial(tensors_of, file, names) for file in files]
    reference = loads[-1]()
    size = sum(tensor.numel() * tensor.element_size() for tensor in reference.values())
    gram = gram_matrix(loads, reference, held=max(2, HELD_BYTES // max(1, size)))
    ends = np.cumsum(lengths)
    walks = random_walk_ratios(gram, [range(e - n, e) for e, n in zip(ends, lengths, strict=True)])
    whole = hashlib.sha256("".join(digests).encode()).hexdigest()
    return _Analysis(principal_components(gram), walks, whole)
