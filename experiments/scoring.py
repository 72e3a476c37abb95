"""Scores of a network on every split, and what an evaluation leaves in a run's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from isoloss.datasets import DataInfo
from isoloss.evaluation.networks import has_rows, predict, score_splits, score_terms
from isoloss.evaluation.reports import report, summary_line, write_reports
from isoloss.evaluation.scores import NetworkScores
from isoloss.experiments.devices import resolve_device
from isoloss.experiments.reporting import Reporter
from isoloss.experiments.trained import Trained
from isoloss.landscape.losses import PerSampleLoss
from isoloss.landscape.objective import Closure
from isoloss.records.files import write_text
from isoloss.records.locks import locked_file
from isoloss.records.runs import Run
from isoloss.split import Split

SPLITS = ("train", "val", "test")
FIGURES = ("confusion", "roc", "predictions", "misclassified")
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
) -> NetworkScores:
    """Score a run on all its splits; see `write_evaluation`."""
    assert trained.run is not None
    facts = {
        "checkpoint": trained.notes["checkpoint"],
        **{key: trained.about[key] for key in ("checkpoint_sha256", "loss")},
    }
    info = trained.info
    if text := trained.notes.get("caveat"):
        facts["caveat"] = text
        info = dataclasses.replace(info, notes=(*info.notes, text))
    with locked_file(trained.run.path / "evaluation.json"):
        return write_evaluation(
            trained.run,
            trained.model.to(resolve_device(device)),
            trained.loss,
            trained.splits,
            info,
            reporter,
            facts=facts,
            figures=figures,
        )


def is_whole(run: Run) -> bool:
    """Return whether a run has scores and, of the test split, all that goes with them.

    A kill may have come between the two; figures are not looked at.
    """
    if not (run.path / "evaluation.json").is_file():
        return False
    return "test" not in run.evaluation()["splits"] or (run.path / "report.txt").is_file()


def write_evaluation(
    run: Run,
    model: nn.Module,
    loss: PerSampleLoss | Closure,
    splits: Mapping[str, Split],
    info: DataInfo,
    reporter: Reporter | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    figures: bool = True,
) -> NetworkScores:
    """Score a network and leave all that `evaluate` leaves in the run's folder.

    What an earlier evaluation left there is replaced or removed, also what does not apply any
    more.

    Args:
        run: The run whose folder is written to.
        model: The network; its mode and weights are left as they are.
        loss: One value a sample. Of a closure there are mean losses alone, as it has no outputs;
            of outputs with positions (tokens, pixels) means alone, as they fill the memory.
        splits: Those to score, by name. Without the test split there are the scores alone.
        info: What is known of the classes.
        reporter: Told what is written.
        facts: What else `evaluation.json` is to hold, such as the checkpoint.
        figures: Whether to draw.

    Returns:
        The scores, with the facts.
    """
    reporter = reporter or Reporter()
    chosen = {name: splits[name] for name in SPLITS if name in splits}
    names = info.class_names or None
    predictions = {}
    if isinstance(loss, Closure) or not all(has_rows(model, split) for split in chosen.values()):
        scores = score_terms(model, loss, chosen)
    else:
        predictions = {name: predict(model, split) for name, split in chosen.items()}
        scores = score_splits(predictions, loss, names, info.class_groups)
    known = dict(facts or {})
    if "test" in chosen:  # by which `compare` knows that runs share their test samples
        known["test_digest"] = splits["test"].digest()
    evaluation = dataclasses.replace(scores, facts=known)
    run.write_evaluation(evaluation.to_json())  # first: on a full disk nothing is lost
    for name in PRODUCTS:
        (run.path / name).unlink(missing_ok=True)
    files = [run.path / "evaluation.json"]
    if not predictions and "test" in chosen:
        text = report(scores.splits["test"], f"{run.label}, test split", info.notes)
        write_text(run.path / "report.txt", text)
        files.append(run.path / "report.txt")
    if "test" in predictions:
        guessed = predictions["test"]
        files += write_reports(
            run.path,
            evaluation.splits["test"],
            guessed,
            names,
            title=f"{run.label}, test split",
            notes=info.notes,
        )
        if figures:
            from isoloss.experiments.drawing import draw_evaluation
            from isoloss.experiments.sample_drawing import draw_guesses

            drawn = draw_evaluation(run)
            drawn += draw_guesses(run, splits["test"], info, guessed, reporter)
            files += [path for path in drawn if path.suffix == ".png"]
    reporter.say(f"wrote {', '.join(path.name for path in files)} to {run.path}")
    return evaluation


def lines(evaluation: NetworkScores) -> list[str]:
    """Return the scores for people: a line a split, the report of the test split, any caveat."""
    caveat = [evaluation.facts["caveat"]] if "caveat" in evaluation.facts else []
    said = [f"{name:5} {summary_line(split)}" for name, split in evaluation.splits.items()]
    test = evaluation.splits.get("test")
    if test and test.classes:
        said.append("\n" + report(test, "test split"))
    return [*said, *caveat]
