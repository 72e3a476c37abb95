"""Scores of a network on every split, and what an evaluation leaves in a run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from isoloss.datasets import DataInfo, Split
from isoloss.experiments.devices import resolve_device
from isoloss.experiments.drawing import draw_evaluation
from isoloss.experiments.reporting import Reporter
from isoloss.experiments.sample_drawing import draw_misclassified
from isoloss.experiments.trained import Trained
from isoloss.landscape.losses import PerSampleLoss
from isoloss.records.files import write_text
from isoloss.records.runs import Run
from isoloss.trainers.evaluation import Predictions, predict
from isoloss.trainers.reports import report, write_predictions
from isoloss.trainers.roc import roc_curves, write_roc
from isoloss.trainers.scores import SplitScores, score

SPLITS = ("train", "val", "test")
__all__ = ["evaluate", "report", "summary_line", "write_evaluation"]

FIGURES = ("confusion", "roc", "misclassified")
PRODUCTS = (
    "report.txt",
    "predictions.csv",
    "roc.csv",
    *(f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "pdf")),
)


def evaluate(
    trained: Trained,
    reporter: Reporter | None = None,
    *,
    device: str = "auto",
    figures: bool = True,
) -> dict[str, Any]:
    """Score a run on all its splits; see `write_evaluation`."""
    assert trained.run is not None
    facts = {
        "checkpoint": trained.notes["checkpoint"],
        **{key: trained.about[key] for key in ("checkpoint_sha256", "loss")},
    }
    return write_evaluation(
        trained.run,
        trained.model.to(resolve_device(device)),
        trained.loss,
        trained.splits,
        trained.info,
        reporter,
        facts=facts,
        figures=figures,
    )


def write_evaluation(
    run: Run,
    model: nn.Module,
    loss: PerSampleLoss,
    splits: Mapping[str, Split],
    info: DataInfo,
    reporter: Reporter | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    figures: bool = True,
) -> dict[str, Any]:
    """Score a network and leave all that `evaluate` leaves in the run's folder.

    What an earlier evaluation left there is replaced or removed, also what does not apply any
    more.

    Args:
        run: The run whose folder is written to.
        model: The network; its mode and weights are left as they are.
        loss: One value a sample.
        splits: Those to score, by name. Without the test split there are the scores alone.
        info: What is known of the classes.
        reporter: Told what is written.
        facts: What else `evaluation.json` is to hold, such as the checkpoint.
        figures: Whether to draw.

    Returns:
        The scores of each split, as `evaluation.json` holds them, and the facts.
    """
    reporter = reporter or Reporter()
    predictions = {name: predict(model, splits[name]) for name in SPLITS if name in splits}
    names, groups = info.class_names or None, info.class_groups
    scores = {name: score(part, loss, names, groups) for name, part in predictions.items()}
    evaluation = {"checkpoint": "checkpoints/last.pt", "splits": scores, **(facts or {})}
    for name in PRODUCTS:
        (run.path / name).unlink(missing_ok=True)
    run.write_evaluation(evaluation)
    files = [run.path / "evaluation.json"]
    if "test" in predictions:
        guessed = predictions["test"]
        files += _write_reports(run, scores["test"], guessed, info)
        if figures:
            drawn = draw_evaluation(run)
            drawn += draw_misclassified(run, splits["test"], info, guessed, reporter)
            files += [path for path in drawn if path.suffix == ".png"]
    reporter.say(f"wrote {', '.join(path.name for path in files)} to {run.path}")
    return evaluation


def summary_line(split: SplitScores) -> str:
    """Return the scores of a split in one line."""
    loss = f"loss {split.loss:.4f} ± {split.loss_standard_error:.4f}"
    if not split.classes:  # a regression
        return f"{loss} on {split.count:,} samples"
    accuracy = f"{100 * split.accuracy:.2f} ± {100 * split.accuracy_standard_error:.2f} %"
    groups = "".join(f" ({g.macro_f1:.4f} over {' '.join(g.classes)})" for g in split.groups)
    return (
        f"accuracy {accuracy}, {loss}, macro F1 {split.macro_f1:.4f}{groups}, "
        f"{split.count:,} samples"
    )


def _write_reports(
    run: Run, scores: SplitScores, predictions: Predictions, info: DataInfo
) -> list[Path]:
    names = info.class_names or None
    files = [run.path / "report.txt"]
    write_text(files[0], report(scores, f"{run.label}, test split", info.notes))
    if write_predictions(run.path / "predictions.csv", predictions, names):
        files.append(run.path / "predictions.csv")
    if predictions.classes:
        files.append(run.path / "roc.csv")
        write_roc(files[-1], roc_curves(predictions, names))
    return files
