"""`evaluate`: scores of a run or of weights from elsewhere, on every split."""

from __future__ import annotations

from isoloss.commands.console import Console
from isoloss.commands.flags import command
from isoloss.commands.options import Drawn
from isoloss.experiments.settings import Machine, Selection


@command(Selection, Machine, Drawn)
def evaluate(selection: Selection, machine: Machine, output: Drawn) -> None:
    """Score a network: loss and accuracy with standard errors, and every class against the rest.

    Writes evaluation.json, report.txt, predictions.csv, roc.csv and figures of the confusion, the
    ROC curves, the first samples with what they were taken for and the misclassified ones into the
    run's folder. For example: evaluate mnist-sam
    """
    from isoloss.experiments.scoring import evaluate as score
    from isoloss.experiments.scoring import lines
    from isoloss.experiments.selection import select

    console = Console(output.as_json)
    trained = select(selection, console)
    evaluation = score(trained, console, device=machine.device, figures=output.figures)
    for line in lines(evaluation):
        console.say(line)
    console.result({"run": trained.notes["run"], **evaluation.to_json()})
