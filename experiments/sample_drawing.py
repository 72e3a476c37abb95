"""Samples with their classes, as figures: of training, and of the test split with its guesses.

Inputs are shown as they were before normalisation. Graphs, tokens and rows of a table have no
picture; there is no figure of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from isoloss.datasets import DataInfo, Split
from isoloss.evaluation.predictions import Predictions
from isoloss.evaluation.reports import misclassified
from isoloss.experiments.reporting import Reporter
from isoloss.figures.formatting import number
from isoloss.figures.samples import samples_figure
from isoloss.figures.style import save_figure
from isoloss.records.runs import Run
from isoloss.structure import inputs_and_targets

IMAGES = 32  # in one figure
SERIES = 12
LARGEST_SERIES = 12  # channels; more are no series that one could read
LONGEST_NAME = 14  # characters that fit above a sample


def draw_guesses(
    run: Run, split: Split, info: DataInfo, predictions: Predictions, reporter: Reporter
) -> list[Path]:
    """Draw the first samples of the test split and the most confident errors on it.

    Inputs are shown as they were before normalisation, above each its class and what it was taken
    for.

    Args:
        run: The run whose folder is written to.
        split: The test split.
        info: What is known of the data.
        predictions: Of the test split.
        reporter: Told why there is no figure, for samples that are neither images nor series.

    Returns:
        The files; none where there is nothing to draw.
    """
    if not predictions.classes:
        return []
    guesses = predictions.guesses()
    right = (guesses == predictions.targets) | (predictions.targets < 0)  # or it does not count
    first = np.arange(min(_room(info), len(guesses)))
    which = f"the first {len(first)} of {len(guesses):,}"
    title = f"{run.label}, test split: {which} samples"
    stem = run.path / "predictions"
    drawn = _draw_titled(stem, first, split, info, predictions, title, mark=True)
    if drawn is None:
        reporter.say("no figures of predictions: samples are neither images nor series")
        return []
    chosen = misclassified(predictions, _room(info))
    if not len(chosen):
        reporter.say("no figure of misclassified samples: no sample is")
        return drawn
    wrong = int((~right).sum())
    kind = f"the {len(chosen)} most confident of {wrong}" if wrong > len(chosen) else f"all {wrong}"
    title = f"{run.label}, test split: {kind} misclassified samples"
    stem = run.path / "misclassified"
    return drawn + (_draw_titled(stem, chosen, split, info, predictions, title) or [])


def _draw_titled(
    stem: Path,
    indices: np.ndarray,
    split: Split,
    info: DataInfo,
    predictions: Predictions,
    title: str,
    mark: bool = False,
) -> list[Path] | None:
    """Draw samples under true class, guess and its probability; None where they have no picture.

    Where asked, the wrong ones are marked.
    """
    shown = _shown(split, info, torch.from_numpy(indices))
    if shown is None:
        return None
    samples, notes = shown
    names = info.class_names or range(predictions.outputs.shape[1])
    confidence = predictions.probabilities().max(1)
    guesses, targets = predictions.guesses(), predictions.targets
    titles = []
    for i in indices:
        truth = _short(names[targets[i]]) if targets[i] >= 0 else "no class"
        guess = f"{_short(names[guesses[i]])} {100 * confidence[i]:.0f} %"
        titles.append(f"{truth} →\n{guess if guesses[i] >= 0 else 'not finite'}")
    marked = (guesses != targets)[indices] & (targets[indices] >= 0) if mark else None
    said = ["above each: true class → guess and its probability"]
    if marked is not None and marked.any():
        said.append("red where they differ")
    notes = [*said, *notes]
    figure = samples_figure(samples, titles, title=title, notes=notes, marked=marked)
    return save_figure(figure, stem)


def draw_samples(run: Run, split: Split, info: DataInfo) -> list[Path]:
    """Draw a few training samples of each class, as they were before normalisation.

    Args:
        run: The run whose folder is written to.
        split: The training split.
        info: What is known of the data.

    Returns:
        The files; none for samples that are neither images nor series.
    """
    indices = _some_of_each(split.targets, _room(info))
    shown = _shown(split, info, indices)
    if shown is None:
        return []
    samples, notes = shown
    titles = [_title(target, info) for target in split.targets[indices]]
    title = f"{run.label}: samples of the training split"
    return save_figure(
        samples_figure(samples, titles, title=title, notes=notes), run.path / "samples"
    )


def _room(info: DataInfo) -> int:
    """How many samples a figure has room for."""
    return SERIES if len(info.input_shape) == 2 else IMAGES


def _some_of_each(targets: Tensor, count: int) -> Tensor:
    """Return indices of the first samples of each class, as many of each, sorted by class."""
    if targets.ndim != 1 or targets.is_floating_point():
        return torch.arange(min(count, len(targets)))
    labels = targets.unique().tolist()
    places = [(targets == label).nonzero().flatten() for label in labels]
    each = max(1, count // len(labels))
    return torch.cat([place[:each] for place in places])[:count]


def _shown(split: Split, info: DataInfo, indices: Tensor) -> tuple[np.ndarray, list[str]] | None:
    """Return some samples as figures take them, with notes; None where they cannot be drawn."""
    inputs = inputs_and_targets(next(iter(split.subset(indices).batches(len(indices))))).inputs
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return None
    if inputs.ndim == 3 and inputs.shape[2] <= LARGEST_SERIES:
        return info.denormalise(inputs).numpy(), []
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
        return None
    images = info.denormalise(inputs).numpy()
    low, high = float(np.nanmin(images)), float(np.nanmax(images))
    # Rounding of normalising and back is far below a thousandth of a grey level's range.
    if low >= -1e-3 and high <= 1 + 1e-3:
        return images, []
    scaled = (images - low) / ((high - low) or 1.0)
    return scaled, [f"black is {number(low)}, white is {number(high)}"]


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def _title(target: Tensor, info: DataInfo) -> str:
    """Return class or value of a sample; nothing for several, or a class that does not count."""
    if target.numel() != 1:
        return ""
    if not info.class_names:
        return number(float(target))
    return _short(info.class_names[int(target)]) if target >= 0 else ""
