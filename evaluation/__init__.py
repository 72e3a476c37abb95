"""How good a network is: predictions, scores with standard errors, ROC curves, reports.

Names are imported where they are first used, so that readers of scores need no torch:
`networks` alone imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isoloss.evaluation.networks import evaluate_split, predict, score_splits
    from isoloss.evaluation.paired import PairedDifference, paired_differences
    from isoloss.evaluation.predictions import Predictions, ScoresError
    from isoloss.evaluation.roc import RocCurve, auc, roc_curves
    from isoloss.evaluation.scores import ClassScores, GroupScores, NetworkScores, Scores, score

__all__ = [
    "ClassScores",
    "GroupScores",
    "NetworkScores",
    "PairedDifference",
    "Predictions",
    "RocCurve",
    "Scores",
    "ScoresError",
    "auc",
    "evaluate_split",
    "paired_differences",
    "predict",
    "roc_curves",
    "score",
    "score_splits",
]

_HOMES = {
    "networks": ("evaluate_split", "predict", "score_splits"),
    "paired": ("PairedDifference", "paired_differences"),
    "predictions": ("Predictions", "ScoresError"),
    "roc": ("RocCurve", "auc", "roc_curves"),
    "scores": ("ClassScores", "GroupScores", "NetworkScores", "Scores", "score"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"isoloss.evaluation.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
