"""`evaluate`: scores of a run or of weights from elsewhere, on every split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
    from isoloss.evaluation.predictions import Predictions
    from isoloss.evaluation.scores import NetworkScores
    from isoloss.landscape.losses import PerSampleLoss
    from isoloss.trainers.runs import Run

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
    from isoloss.evaluation.reports import report, summary_line

    console = Console(as_json)
    subject = load_subject(
        Selection(
            run, checkpoint, model, model_arg, dataset, dataset_arg, loss, loss_arg,
            data_dir, results, download,
        ),
        console,
    )  # fmt: skip
    evaluation = write_evaluation(
        subject.run,
        subject.model.to(resolve_device(device)),
        subject.loss,
        subject.data,
        console,
        facts={key: subject.provenance[key] for key in ("checkpoint", "checkpoint_sha256", "loss")},
        figures=figures,
    )
    for name, split in evaluation.splits.items():
        console.say(f"{name:5} {summary_line(split)}")
    if evaluation.splits["test"].classes:
        console.say("\n" + report(evaluation.splits["test"], "test split"))
    console.result({"run": subject.run.name, **evaluation.to_json()})


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
) -> NetworkScores:
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
        The scores, with the facts.
    """
    from isoloss.evaluation.networks import score_splits
    from isoloss.evaluation.reports import write_reports

    predictions = _predictions(model, data, splits)
    names = data.info.class_names or None
    scores = score_splits(predictions, loss, names, data.info.class_groups)
    evaluation = dataclasses.replace(scores, facts=dict(facts or {}))
    for name in PRODUCTS:
        (run.path / name).unlink(missing_ok=True)
    run.write_evaluation(evaluation.to_json())
    files = [run.path / "evaluation.json"]
    if "test" in predictions:
        guessed = predictions["test"]
        files += write_reports(
            run.path,
            evaluation.splits["test"],
            guessed,
            names,
            title=f"{run.label}, test split",
            notes=data.info.notes,
        )
        if figures:
            from isoloss.commands.drawing import draw_evaluation
            from isoloss.commands.sample_drawing import draw_misclassified

            drawn = draw_evaluation(run) + draw_misclassified(run, data, guessed, console)
            files += [path for path in drawn if path.suffix == ".png"]
    console.say(f"wrote {', '.join(path.name for path in files)} to {run.path}")
    return evaluation


def _predictions(model: nn.Module, data: Data, names: Sequence[str]) -> dict[str, Predictions]:
    from isoloss.evaluation.networks import predict

    splits = {"train": data.train, "val": data.val, "test": data.test}
    chosen = {name: splits[name] for name in SPLITS if name in names}
    return {name: predict(model, split) for name, split in chosen.items() if split is not None}
