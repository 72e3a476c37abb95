"""Directions read from files: an optimizer's state, a spectrum, directions of surface files."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from isoloss.experiments.direction_kinds import Start
from isoloss.experiments.direction_specs import Spec
from isoloss.experiments.train_options import OPTIMIZER_OPTIONS, stored_options
from isoloss.landscape.directions import DirectionError, RawDirection
from isoloss.landscape.directions.eigenvector import eigenvector_direction
from isoloss.landscape.directions.stored import stored_direction
from isoloss.landscape.directions.update import update_direction
from isoloss.records.files import FileError
from isoloss.records.hdf5 import open_hdf5
from isoloss.records.spectra import SpectrumData, read_spectrum
from isoloss.trainers.checkpoints import CheckpointError, load_into, load_state
from isoloss.trainers.optimizers import build_optimizer, resolve_optimizer


def of_update(spec: Spec, start: Start) -> RawDirection:
    """Return the last step of the run's training (`update`), from `state.pt`."""
    run = start.run("", spec)
    path = run.checkpoints / "state.pt"
    if not path.is_file():
        raise spec.wrong(
            f"the optimizer's state in run {run.name}",
            f"no {path.name}: its weights were imported, or it was not kept",
            "take `gradient`, or `to:` other weights",
        )
    state, model = load_state(path), copy.deepcopy(start.subject.model)
    if not all(isinstance(state.get(key), Mapping) for key in ("model", "optimizer")):
        raise CheckpointError(f"expected weights and an optimizer's state in {path}: it is damaged")
    load_into(model, state["model"], str(path))
    own = start.subject.model.state_dict()
    if any(not torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items()):
        raise spec.wrong(
            "the weights that the training ended with, which its optimizer's state belongs to",
            "others",
            "take `checkpoint` last",
        )
    options = stored_options(run)
    settings = resolve_optimizer(
        str(options.optimizer), **{key: getattr(options, key) for key in OPTIMIZER_OPTIONS}
    )
    optimizer = build_optimizer(settings, model)
    try:
        optimizer.load_state_dict(state["optimizer"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"expected the state of {settings.name} in {path}, got another one: {error}"
        ) from error
    named = {n: p for n, p in model.named_parameters() if n in start.problem.parameters}
    name = settings.name if settings.base is None else f"{settings.name} over {settings.base}"
    ordered = {n: named[n] for n in start.problem.parameters}
    return update_direction(
        getattr(optimizer, "base", optimizer), ordered, label=f"last step ({name})"
    )


def of_eigenvector(spec: Spec, start: Start) -> RawDirection:
    """Return a stored eigenvector (`eigen:K`, `eigen:K:FILE`) of the same weights."""
    text, _, file = spec.argument.partition(":")
    try:
        index = int(text)
    except ValueError:
        raise spec.wrong("eigen:K, K a whole number", repr(f"eigen:{spec.argument}")) from None
    path = Path(file) if file else start.run("", spec).path / "hessian.h5"
    if not path.is_file():
        raise spec.wrong(
            "eigenvectors in a file of `hessian`",
            f"no file at {path}",
            "compute them first: hessian",
        )
    spectrum = read_spectrum(path)
    if spectrum.eigenpairs is None:
        raise spec.wrong(f"eigenvectors in {path}", "none", "compute them with `top`")
    _refuse_other_weights(spec, start, spectrum, path)
    try:
        return eigenvector_direction(spectrum.eigenpairs, index, start.problem.parameters)
    except DirectionError as error:
        raise DirectionError(f"{path}: {error}") from None


def of_file(spec: Spec, start: Start) -> RawDirection:
    """Return a direction of a surface or direction file (`file:PATH`, `file:PATH:y`)."""
    name, axis = spec.argument, spec.axis
    if name[-2:] in (":x", ":y"):
        name, axis = name[:-2], name[-1]
    path = Path(name)
    if not path.is_file():
        raise spec.wrong("a surface or direction file", f"no file at {path}")
    own = dict(start.subject.model.named_parameters())
    moved = start.moved(states=True)
    theta = start.problem.parameters
    layouts: list[Mapping[str, Tensor]] = [
        theta,
        {**theta, **start.problem.buffers},
        own,
        start.subject.model.state_dict(),
    ]
    try:
        return stored_direction(
            read_direction(path, axis), layouts, moved, label=f"{axis} of {path.name}", axis=axis
        )
    except DirectionError as error:
        raise DirectionError(f"{path}: {error}") from None


def read_direction(path: Path, axis: str) -> list[np.ndarray]:
    """Return the arrays of a stored direction, in the network's order.

    Raises:
        FileError: If the file has none, or its recipe alone.
    """
    with open_hdf5(path) as file:
        name = f"{axis}direction"
        names = file.group(name).names() if name in file else []
        if not names:
            raise FileError(
                f"expected the arrays of a direction in `{name}` of {path}, got none\n"
                "directions above 64 MB are stored as their recipe: make that direction again"
            )
        return [file.group(name).array(str(number)) for number in range(len(names))]


def _refuse_other_weights(spec: Spec, start: Start, spectrum: SpectrumData, path: Path) -> None:
    """Refuse eigenvectors of a Hessian at other weights, or by others of their parameters."""
    stored, own = spectrum.settings, start.problem.identity()
    if stored.get("weights_sha256") == own["weights_sha256"]:
        return
    # Of another precision the digest is another one: then the checkpoint's tells.
    checkpoint = own.get("checkpoint_sha256")
    same = checkpoint is not None and stored.get("checkpoint_sha256") == checkpoint
    if not same or stored.get("selection") != own["selection"]:
        raise spec.wrong(
            "eigenvectors at the weights of the surface",
            f"those of other weights or `parameters` in {path}",
            "compute them for this checkpoint: hessian, with the same `checkpoint`",
        )
