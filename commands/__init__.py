"""One file a command: each assembles the parts of the project and calls them."""

from __future__ import annotations

from isoloss.commands.compare import compare
from isoloss.commands.demo import demo
from isoloss.commands.evaluate import evaluate
from isoloss.commands.export import export
from isoloss.commands.flags import Command
from isoloss.commands.hessian import hessian
from isoloss.commands.listing import list_
from isoloss.commands.plot import plot
from isoloss.commands.reproduce import reproduce
from isoloss.commands.sharpness import sharpness
from isoloss.commands.surface import surface
from isoloss.commands.train import train
from isoloss.commands.trajectory import trajectory
from isoloss.commands.tune import tune

COMMANDS: dict[str, Command] = {
    "train": train,
    "evaluate": evaluate,
    "tune": tune,
    "surface": surface,
    "hessian": hessian,
    "sharpness": sharpness,
    "trajectory": trajectory,
    "compare": compare,
    "plot": plot,
    "export": export,
    "reproduce": reproduce,
    "list": list_,
    "demo": demo,
}
