"""One file a command: each assembles the parts of the project and calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from commands.compare import compare
from commands.demo import demo
from commands.evaluate import evaluate
from commands.hessian import hessian
from commands.listing import list_
from commands.plot import plot
from commands.surface import surface
from commands.train import train
from commands.tune import tune

COMMANDS: dict[str, Callable[..., Any]] = {
    "train": train,
    "evaluate": evaluate,
    "tune": tune,
    "surface": surface,
    "hessian": hessian,
    "compare": compare,
    "plot": plot,
    "list": list_,
    "demo": demo,
}
