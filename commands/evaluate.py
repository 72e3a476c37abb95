"""`evaluate`: scores of a run or of weights from elsewhere, on every split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoloss.commands.console import Console
from isoloss.commands.options import (
    DEFAULT_RESULTS,
    CheckpointOption,
    DataDirOption,
    DatasetArgOption,
    DatasetOption,
    DeviceOption,
    DownloadOption,
    FiguresOption,
    JsonOption,
    LossArgOption,
    LossOption,
    ModelArgOption,
    ModelOption,
    ResultsOption,
    RunName,
    resolve_device,
)

if TYPE_CHECKING:
    from torch import nn

    from isoloss.datasets import Data
    from isoloss.landscape.losses import PerSampleLoss
    from isoloss.records.runs import Run
    from isoloss.trainers.evaluation import Predictions
    from isoloss.trainers.scores import SplitScores

SPLITS = ("train", "val", "test")
FIGURES = ("confusion", "roc", "misclassified")
PRODUCTS = (
    "report.txt",
    "predictions.csv",
    "roc.csv",
    *(f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "pdf")),
)


def evaluate(
    run: RunName = None,
    checkpoint: CheckpointOption = None,
    model: ModelOption = None,
    model_arg: ModelArgOption = None,
    dataset: DatasetOption = None,
    dataset_arg: DatasetArgOption = None,
    loss: LossOption = None,
    loss_arg: LossArgOption = None,
    device: DeviceOption = "auto",
    data_dir: DataDirOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
    download: DownloadOption = False,
    figures: FiguresOption = True,
    as_json: JsonOption = False,
) -> None:
    """Score a network: loss and accuracy with standard errors, and every class against the rest.

    Writes evaluation.json, report.txt, predictions.csv, roc.csv and figures of the confusion, the
    ROC curves and the misclassified samples into the run's folder. For example: evaluate mnist-sam
    """
    from isoloss.commands.subject import Selection, load_subject
    from isoloss.records.locks import locked_file
    from isoloss.trainers.reports import report

    console = Console(as_json)
    subject = load_subject(
        Selection(
            run, checkpoint, model, model_arg, dataset, dataset_arg, loss, loss_arg,
            data_dir, results, download,
        ),
        console,
    )  # fmt: skip
    keys = ("checkpoint", "checkpoint_sha256", "loss")
    with locked_file(subject.run.path / "evaluation.json"):
        evaluation = write_evaluation(
            subject.run,
            subject.model.to(resolve_device(device)),
            subject.loss,
            subject.data,
            console,
            facts={key: subject.provenance[key] for key in keys},
            figures=figures,
        )
    for name, split in evaluation["splits"].items():
        console.say(f"{name:5} {summary_line(split)}")
    if evaluation["splits"]["test"].classes:
        console.say("\n" + report(evaluation["splits"]["test"], "test split"))
    console.result({"run": subject.run.name, **evaluation})


def evaluate_model(
    model: nn.Module, loss: PerSampleLoss, data: Data, splits: Sequence[str] = SPLITS
) -> dict[str, Any]:
    """Return the scores of a network on every split, as `evaluation.json` holds them.

    Args:
        model: The network; its mode and weights are left as they are.
        loss: One value a sample.
        data: The splits, with what is known of the classes.
        splits: Which of them; one that the data lack is passed over.
    """
    return _scores(_predictions(model, data, splits), loss, data)


def write_evaluation(
    run: Run,
    model: nn.Module,
    loss: PerSampleLoss,
    data: Data,
    console: Console,
    *,
    facts: Mapping[str, Any] | None = None,
    figures: bool = True,
    splits: Sequence[str] = SPLITS,
) -> dict[str, Any]:
    """Score a network and leave all that `evaluate` leaves in the run's folder.

    What an earlier evaluation left there is replaced or removed, also what does not apply any
    more.

    Args:
        run: The run whose folder is written to.
        model: The network; its mode and weights are left as they are.
        loss: One value a sample.
        data: The splits, with what is known of the classes.
        console: Told what is written.
        facts: What else `evaluation.json` is to hold, such as the checkpoint.
        figures: Whether to draw.
        splits: Which splits to score. Without the test split there are the scores alone.

    Returns:
        What `evaluate_model` returns, with the facts.
    """
    predictions = _predictions(model, data, splits)
    evaluation = {**_scores(predictions, loss, data), **(facts or {})}
    for name in PRODUCTS:
        (run.path / name).unlink(missing_ok=True)
    run.write_evaluation(evaluation)
    files = [run.path / "evaluation.json"]
    if "test" in predictions:
        scores, guessed = evaluation["splits"]["test"], predictions["test"]
        files += _write_reports(run, scores, guessed, data)
        if figures:
            from isoloss.commands.drawing import draw_evaluation
            from isoloss.commands.sample_drawing import draw_misclassified

            drawn = draw_evaluation(run) + draw_misclassified(run, data, guessed, console)
            files += [path for path in drawn if path.suffix == ".png"]
    console.say(f"wrote {', '.join(path.name for path in files)} to {run.path}")
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


def _predictions(model: nn.Module, data: Data, names: Sequence[str]) -> dict[str, Predictions]:
    from isoloss.trainers.evaluation import predict

    splits = {"train": data.train, "val": data.val, "test": data.test}
    chosen = {name: splits[name] for name in SPLITS if name in names}
    return {name: predict(model, split) for name, split in chosen.items() if split is not None}


def _scores(
    predictions: Mapping[str, Predictions], loss: PerSampleLoss, data: Data
) -> dict[str, Any]:
    from isoloss.trainers.scores import score

    names, groups = data.info.class_names or None, data.info.class_groups
    scores = {name: score(part, loss, names, groups) for name, part in predictions.items()}
    return {"checkpoint": "checkpoints/last.pt", "splits": scores}


def _write_reports(
    run: Run, scores: SplitScores, predictions: Predictions, data: Data
) -> list[Path]:
    from isoloss.records.files import write_text
    from isoloss.trainers.reports import report, write_predictions
    from isoloss.trainers.roc import roc_curves, write_roc

    names = data.info.class_names or None
    files = [run.path / "report.txt"]
    write_text(files[0], report(scores, f"{run.label}, test split", data.info.notes))
    if write_predictions(run.path / "predictions.csv", predictions, names):
        files.append(run.path / "predictions.csv")
    if predictions.classes:
        files.append(run.path / "roc.csv")
        write_roc(files[-1], roc_curves(predictions, names))
    return files
