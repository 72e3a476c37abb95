"""`evaluate`: scores of a run or of weights from elsewhere, on every split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from commands.console import Console
from commands.options import (
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

    from datasets import Data
    from landscape.losses import PerSampleLoss


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
    """Score a network: loss and accuracy with standard errors, a report by class, the confusion.

    Writes evaluation.json and confusion.png into the run's folder.
    """
    from commands.subject import Selection, load_subject

    console = Console(as_json)
    subject = load_subject(
        Selection(
            run, checkpoint, model, model_arg, dataset, dataset_arg, loss, loss_arg,
            data_dir, results, download,
        ),
        console,
    )  # fmt: skip
    scores = evaluate_model(subject.model.to(resolve_device(device)), subject.loss, subject.data)
    scores["checkpoint"] = subject.provenance["checkpoint"]
    subject.run.write_evaluation(scores)
    for name, split in scores["splits"].items():
        console.say(f"{name:5} {_line(split)}")
    if scores["splits"]["test"].classes:
        console.say(_report(scores["splits"]["test"]))
    if figures:
        from commands.drawing import draw_confusion

        for path in draw_confusion(subject.run):
            console.say(f"wrote {path}")
    console.result({"run": subject.run.name, **scores})


def evaluate_model(model: nn.Module, loss: PerSampleLoss, data: Data) -> dict[str, Any]:
    """Return the scores of a network on every split, as `evaluation.json` holds them."""
    from trainers.evaluation import evaluate_split

    splits = {"train": data.train, "val": data.val, "test": data.test}
    names = data.info.class_names or None
    return {
        "checkpoint": "checkpoints/last.pt",
        "splits": {
            name: evaluate_split(model, loss, split, class_names=names)
            for name, split in splits.items()
            if split is not None
        },
    }


def _line(split: Any) -> str:
    loss = f"loss {split.loss:.4f} ± {split.loss_standard_error:.4f}"
    if split.accuracy != split.accuracy:  # a regression
        return f"{loss} on {split.count:,} samples"
    accuracy = f"{100 * split.accuracy:.2f} ± {100 * split.accuracy_standard_error:.2f} %"
    return f"accuracy {accuracy}, {loss}, macro F1 {split.macro_f1:.4f}, {split.count:,} samples"


def _report(split: Any) -> str:
    width = max(len("class"), *(len(scores.name) for scores in split.classes))
    lines = [f"{'class':{width}}  precision  recall      F1  support  (test split)"]
    lines += [
        f"{c.name:{width}}  {c.precision:9.4f}  {c.recall:6.4f}  {c.f1:6.4f}  {c.support:7d}"
        for c in split.classes
    ]
    return "\n".join(lines)
