"""What the commands do, for Python as well: runs, measurements, comparisons, in a notebook.

    train(TrainOptions(dataset="digits", optimizer="sam", run="digits-sam"))
    subject = Subject.from_run("digits-sam")
    subject.surface(x="-1:1:21", y="-1:1:21")
    subject.spectrum(top=5)
    compare(["digits-sgd", "digits-sam"]).figure()

Names are imported where they are used: a comparison of stored results needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isoloss.experiments.comparison import Comparison, compare
    from isoloss.experiments.settings import SampleSettings, SpectrumSettings, SurfaceSettings
    from isoloss.experiments.subject import Subject
    from isoloss.experiments.train_options import TrainOptions
    from isoloss.experiments.training import train
    from isoloss.experiments.tuning import tune

_HOMES = {
    "Comparison": "comparison",
    "SampleSettings": "settings",
    "SpectrumSettings": "settings",
    "Subject": "subject",
    "SurfaceSettings": "settings",
    "TrainOptions": "train_options",
    "compare": "comparison",
    "train": "training",
    "tune": "tuning",
}
__all__ = [
    "Comparison",
    "SampleSettings",
    "SpectrumSettings",
    "Subject",
    "SurfaceSettings",
    "TrainOptions",
    "compare",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
