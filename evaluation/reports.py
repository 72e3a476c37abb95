"""What an evaluation leaves for people and other tools: report, predictions, ROC curves.

report.txt        scores by class, as a table
predictions.csv   index, truth, guess, confidence of each sample
roc.csv           the corners of each class's ROC curve
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from isoloss.evaluation.predictions import Predictions, class_labels
from isoloss.evaluation.roc import roc_curves, write_roc
from isoloss.evaluation.scores import Scores
from isoloss.records.files import write_csv, write_text

COLUMNS = ("precision", "recall", "f1", "iou", "auc")
HEADINGS = {"f1": "F1", "iou": "IoU", "auc": "AUC", "auc_standard_error": "± s.e."}
MISSING = "-"
# Beyond this many values a sample, a table of a regression's outputs is of no use.
LARGEST_REGRESSION = 16


def report(scores: Scores, title: str = "", notes: Sequence[str] = ()) -> str:
    """Return the classification report of a split as text.

    Averages leave out classes where a score is undefined; the weighted ones weight by support.

    Args:
        scores: Of the split; a regression has its loss alone, tokens and pixels loss and accuracy.
        title: First line.
        notes: Last lines: what a reader should know of the data.
    """
    lines = [line for line in (title, _loss_line(scores), *_carried_lines(scores)) if line]
    if not scores.classes:
        lines += [] if math.isnan(scores.accuracy) else _accuracy_lines(scores)
        return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"
    lines += [*_accuracy_lines(scores), ""]
    width = max(len("weighted average"), *(len(c.name) for c in scores.classes))
    columns = [*COLUMNS, "auc_standard_error"]
    heads = "".join(f"{HEADINGS.get(column, column):>11}" for column in columns)
    lines.append(f"{'class':{width}}{heads}{'support':>9}")
    for c in scores.classes:
        cells = "".join(_cell(getattr(c, column)) for column in columns)
        lines.append(f"{c.name:{width}}{cells}{c.support:>9}")
    lines.append("")
    support = np.array([c.support for c in scores.classes], dtype=float)
    for name, weights in (("macro", np.ones_like(support)), ("weighted", support)):
        means = [
            _average([getattr(c, column) for c in scores.classes], weights) for column in COLUMNS
        ]
        cells = "".join(map(_cell, means)) + _cell(math.nan)
        lines.append(f"{name + ' average':{width}}{cells}{scores.count:>9}")
    for group in scores.groups:
        names = ", ".join(group.classes)
        lines += ["", f"macro F1 {group.macro_f1:.4f} over {names} ({group.support} samples)"]
    lines += ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def write_predictions(
    path: Path, predictions: Predictions, class_names: Sequence[str] | None = None
) -> bool:
    """Write one line for each sample, in the order of the split.

    Classes by name with the softmax probability of the guess as its confidence; guess and
    confidence are empty where an output is not finite, truth where the target does not count. Of a
    regression the numbers themselves. Where samples have groups, the last column is that of the
    sample.

    Args:
        path: The CSV file.
        predictions: From `predict`.
        class_names: A name for each output; the indices where None.

    Returns:
        Whether it was written: not for a regression of more than 16 values a sample.
    """
    if predictions.classes:
        head = ["index", "truth", "guess", "confidence"]
        rows = _class_rows(predictions, class_names)
    else:
        count = len(predictions.targets)
        truth, guess = (
            values.reshape(count, -1) for values in (predictions.targets, predictions.outputs)
        )
        if max(truth.shape[1], guess.shape[1]) > LARGEST_REGRESSION:
            return False
        head = ["index", *_numbered("truth", truth), *_numbered("guess", guess)]
        rows = ([i, *truth[i].tolist(), *guess[i].tolist()] for i in range(count))
    if predictions.groups is not None:
        head.append("group")
        rows = ([*r, g] for r, g in zip(rows, predictions.groups.tolist(), strict=True))
    write_csv(path, head, rows)
    return True


def misclassified(predictions: Predictions, count: int) -> np.ndarray:
    """Return the indices of up to `count` wrong guesses, the most confident first.

    Samples with outputs that are not finite have no guess and are not among them.
    """
    guesses = predictions.guesses()
    targets = predictions.targets
    wrong = np.flatnonzero((guesses != targets) & (guesses >= 0) & (targets >= 0))
    confidence = predictions.probabilities()[wrong, guesses[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")[:count]]


def summary_line(scores: Scores) -> str:
    """Return the scores of a split in one line.

    The 95 % interval is beside an accuracy that is less than three standard errors from 0 or 100 %,
    where ± tells little, and beside a loss that few samples carry. 0 and 100 % have no ±.
    """
    loss = f"loss {scores.loss:.4f} ± {scores.loss_standard_error:.4f}"
    if scores.heaviest_samples:
        loss += f" (95 %: {_interval(scores.loss_interval, 4)})"
    clusters = f" in {scores.clusters:,} groups" if scores.clusters else ""
    if math.isnan(scores.accuracy):  # a regression
        return f"{loss} on {scores.count:,} samples{clusters}"
    accuracy = _percent(scores)
    if min(scores.accuracy, 1 - scores.accuracy) <= 3 * scores.accuracy_standard_error:
        accuracy += f" (95 %: {_interval(scores.accuracy_interval, 2, 100)})"
    if not scores.classes:  # tokens, pixels
        return f"accuracy {accuracy}, {loss} on {scores.count:,} samples{clusters}"
    groups = "".join(f" ({g.macro_f1:.4f} over {' '.join(g.classes)})" for g in scores.groups)
    return (
        f"accuracy {accuracy}, {loss}, macro F1 {scores.macro_f1:.4f}{groups}, "
        f"{scores.count:,} samples{clusters}"
    )


def write_reports(
    folder: Path,
    scores: Scores,
    predictions: Predictions,
    class_names: Sequence[str] | None = None,
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write `report.txt`, `predictions.csv` and `roc.csv`, as far as they apply.

    Args:
        folder: Where they go.
        scores: Of the split.
        predictions: Of the split.
        class_names: A name for each output; the indices where None.
        title: First line of the report.
        notes: Its last lines.

    Returns:
        The files that were written.
    """
    files = [folder / "report.txt"]
    if write_predictions(folder / "predictions.csv", predictions, class_names):
        files.append(folder / "predictions.csv")
    if predictions.classes:
        files.append(folder / "roc.csv")
        write_roc(files[-1], roc_curves(predictions, class_names))
    write_text(files[0], report(scores, title, notes))  # last: with it, the others are there
    return files


def _class_rows(
    predictions: Predictions, class_names: Sequence[str] | None
) -> Iterable[list[object]]:
    names = class_labels(predictions.outputs.shape[1], class_names)
    confidences = predictions.probabilities().max(1).tolist()
    truths, guesses = predictions.targets.tolist(), predictions.guesses().tolist()
    for i, (truth, guess, confidence) in enumerate(zip(truths, guesses, confidences, strict=True)):
        known = guess >= 0
        label = names[truth] if truth >= 0 else ""
        yield [i, label, names[guess] if known else "", f"{confidence:.6f}" if known else ""]


def _loss_line(scores: Scores) -> str:
    line = f"loss {scores.loss:.6g} ± {scores.loss_standard_error:.2g}, {scores.count} samples"
    lost = f", {scores.not_finite} with outputs that are not finite" if scores.not_finite else ""
    return line + lost


def _carried_lines(scores: Scores) -> list[str]:
    """Say which few samples carry the loss, and its interval."""
    if not scores.heaviest_samples:
        return []
    shown = ", ".join(map(str, scores.heaviest_samples))
    more = ", .." if scores.half_loss_samples > len(scores.heaviest_samples) else ""
    return [
        f"half of the loss is carried by {scores.half_loss_samples:,} of {scores.count:,} samples "
        f"(index {shown}{more}); 95 %: {_interval(scores.loss_interval, 6)} "
        f"({scores.loss_interval_method})"
    ]


def _accuracy_lines(scores: Scores) -> list[str]:
    line = f"accuracy {_percent(scores)}"
    if scores.accuracy_standard_error > 0:
        line += " (± is one standard error)"
    lines = [f"{line}, 95 %: {_interval(scores.accuracy_interval, 2, 100)}"]
    if scores.clusters:
        lines.append(
            f"errors are clustered over {scores.clusters:,} groups of samples; as if all samples "
            f"were independent ± {100 * scores.accuracy_binomial_error:.2f} %"
        )
    return lines


def _percent(scores: Scores) -> str:
    accuracy, error = 100 * scores.accuracy, 100 * scores.accuracy_standard_error
    return f"{accuracy:.2f} %" if error == 0 else f"{accuracy:.2f} ± {error:.2f} %"


def _interval(bounds: tuple[float, float], digits: int, scale: float = 1) -> str:
    return " to ".join(f"{scale * bound:.{digits}f}" for bound in bounds)


def _cell(value: float) -> str:
    return f"{MISSING if math.isnan(value) else f'{value:.4f}':>11}"


def _average(values: Sequence[float], weights: np.ndarray) -> float:
    known = ~np.isnan(values)
    total = weights[known].sum()
    return float(np.array(values)[known] @ weights[known] / total) if total > 0 else math.nan


def _numbered(name: str, values: np.ndarray) -> list[str]:
    size = values.shape[1]
    return [name] if size == 1 else [f"{name}_{k}" for k in range(size)]
