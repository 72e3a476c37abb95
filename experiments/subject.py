"""What one looks at in a notebook: a run, or a network, loss and data of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from torch import nn

from isoloss.datasets import DataInfo
from isoloss.datasets.conversion import convert
from isoloss.experiments.over_training import OverTrainingExperiment
from isoloss.experiments.reporting import Reporter
from isoloss.experiments.selection import select
from isoloss.experiments.settings import (
    OverTrainingSettings,
    Selection,
    SpectrumSettings,
    SurfaceSettings,
)
from isoloss.experiments.spectra import SpectrumExperiment
from isoloss.experiments.spreading_settings import Spreading
from isoloss.experiments.surfaces import SurfaceExperiment
from isoloss.experiments.trained import Trained
from isoloss.landscape.objective import one_of
from isoloss.records.over_training import OverTrainingData
from isoloss.records.spectra import SpectrumData
from isoloss.records.surfaces import SurfaceData


class Subject(Trained):
    """A trained network with its data and loss, and what can be asked of it.

    Example:
        >>> import torch
        >>> x, y = torch.randn(30, 4), torch.arange(30) % 3
        >>> iris = Subject(torch.nn.Linear(4, 3), torch.nn.CrossEntropyLoss(), train=(x, y))
        >>> iris.surface(x="-1:1:3").values["train_loss"].shape
        (3,)

    Args:
        model: The network; lent, never changed.
        loss: A torch loss module, or `loss(outputs, targets)` with one value a sample; None where
            there is a closure.
        train: A pair of tensors or arrays (inputs, targets), a longer tuple, a dictionary, a
            map-style dataset of such samples, a list of graphs, or one graph with masks.
        val: The same, or None.
        test: The same, or None.
        info: What is known of the data, a `DataInfo` or some of its fields; inferred where None.
        label: What figures call it; the network's class where empty.
        closure: In place of the loss, `closure(model, batch)` with one value a sample.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Any = None,
        *,
        train: Any,
        val: Any = None,
        test: Any = None,
        info: DataInfo | dict[str, Any] | None = None,
        label: str = "",
        closure: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        loss = one_of(loss, closure)
        given = {"train": train, "val": val, "test": train if test is None else test}
        splits, known = convert({**given, "info": info}, label or "the data")
        if test is None:
            del splits["test"]
        super().__init__(model, loss, splits, known, label or type(model).__name__)

    @classmethod
    def from_run(
        cls, name: str | None = None, reporter: Reporter | None = None, **selection: Any
    ) -> Self:
        """Load a run.

        Args:
            name: Its name; the newest run where None.
            reporter: Told what is chosen.
            **selection: Options of `Selection`, such as `results`, `checkpoint` and `data_dir`.

        Raises:
            RunError: For a run that is missing or damaged.
            CheckpointError: For weights that cannot be read or do not fit the network.
            SelectionError: For data or files of the user's that changed since.
        """
        trained = select(Selection(run=name, **selection), reporter)
        subject = cls.__new__(cls)
        Trained.__init__(subject, **vars(trained))
        return subject

    def surface(
        self,
        path: Path | str | None = None,
        reporter: Reporter | None = None,
        *,
        progress: bool = False,
        workers: int | str | None = None,
        cluster: str | None = None,
        **settings: Any,
    ) -> SurfaceData:
        """Evaluate the loss on a line or plane through the weights.

        Args:
            path: An .h5 file to stream to and to resume from; in the run's folder where None, and
                in memory only where there is no run.
            reporter: Told what happens.
            progress: Whether to show a bar where there is no reporter.
            workers: Processes that share the points, or "auto"; this one alone where None. A
                network that is no run is sent to them: it has to be of a module's class.
            cluster: Address of a Ray cluster, or "auto", in place of processes.
            **settings: Options of `SurfaceSettings`, such as `x="-1:1:51"`, `y` and `samples`.
        """
        spreading = Spreading(workers=workers, cluster=cluster)
        experiment = SurfaceExperiment(self, SurfaceSettings(**settings), path, spreading=spreading)
        return experiment.run(reporter, progress=progress).data

    def spectrum(
        self,
        path: Path | str | None = None,
        reporter: Reporter | None = None,
        *,
        progress: bool = False,
        **settings: Any,
    ) -> SpectrumData:
        """Compute eigenvalues, trace and spectral density of the Hessian at the weights.

        Args:
            path: An .h5 file to write and to resume from; in the run's folder where None, and in
                memory only where there is no run.
            reporter: Told what happens.
            progress: Whether to show bars where there is no reporter.
            **settings: Options of `SpectrumSettings`, such as `top` and `samples`.
        """
        experiment = SpectrumExperiment(self, SpectrumSettings(**settings), path)
        return experiment.run(reporter, progress=progress).data

    def over_training(
        self,
        path: Path | str | None = None,
        reporter: Reporter | None = None,
        *,
        progress: bool = False,
        **settings: Any,
    ) -> OverTrainingData:
        """Compute the largest eigenvalues at the checkpoints that a run kept of its epochs.

        Args:
            path: An .h5 file to write and to resume from; in the run's folder where None.
            reporter: Told what happens.
            progress: Whether to show a bar where there is no reporter.
            **settings: Options of `OverTrainingSettings`, such as `epochs="::5"` and `top`.

        Raises:
            ExperimentError: Without a run, or with one that kept no such checkpoints.
        """
        experiment = OverTrainingExperiment(self, OverTrainingSettings(**settings), path)
        return experiment.run(reporter, progress=progress).data
