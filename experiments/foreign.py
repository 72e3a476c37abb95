"""What names and shapes do not say of weights from elsewhere: their form, and their training split.

Weights may fit two forms of a network, which compute different things of them; and where it was
Isoloss that chose the test split, they may have been trained on samples of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoloss.datasets import DATASETS, Data, DataInfo
from isoloss.experiments.train_options import TrainOptions
from isoloss.models import create_model, forms
from isoloss.trainers.checkpoints import CheckpointError, fits


def account_of_form(
    options: TrainOptions, info: DataInfo, weights: Mapping[str, Any], source: str
) -> str:
    """Return which form of a network its weights are taken for, and which other ones they fit.

    Args:
        options: The network and its arguments.
        info: What is known of the data.
        weights: Any state dict.
        source: What to call the weights in an error, such as the file.

    Returns:
        A line; empty for a network that has one form.

    Raises:
        CheckpointError: If they fit other forms alone.
    """
    assert options.model is not None
    if not (known := forms(options.model)):
        return ""
    taken = options.model_arg.get("form", known[0])

    def fit(form: str) -> bool:
        arguments = {**options.model_arg, "form": form}
        return fits(create_model(str(options.model), arguments, info.model_context()), weights)

    others = [form for form in known if form != taken and fit(form)]
    if others and not fit(taken):
        raise CheckpointError(
            f"{source}: expected weights of {options.model} in its form {taken}, got such as fit "
            f"its form {others[0]} alone\ngive `model_arg` form={others[0]}"
        )
    text = f"{options.model} is taken in its form {taken}"
    if not others:
        return text
    return (
        f"{text}; the weights fit {' and '.join(others)} as well, which computes something else: "
        f"--model-arg form={others[0]} takes that"
    )


def caveat(name: str, options: TrainOptions, data: Data) -> str:
    """Return why scores of weights from elsewhere may be too good; empty where they are not.

    The test split is beyond doubt where its source says which samples it has, and where the user
    says what chose it.

    Args:
        name: What to call the weights.
        options: The data set and its arguments.
        data: The data.
    """
    chosen = data.provenance["source"].get("test_chosen")
    if chosen is None or {"split", "seed"} & {*options.dataset_arg}:
        return ""
    others = DATASETS.get(options.dataset).facts.get("splits", ())[1:]
    hint = " or ".join(f"split={other}" for other in others) or "seed=N"
    return (
        f"{name}: the samples it was trained on are not known, and the test split was chosen here "
        f"({chosen}): scores may be contaminated; say what chose its own, as --dataset-arg {hint}"
    )
