"""A search on disk: Optuna's study, and the table of its trials.

results/tune/<name>/
study.db            Optuna's SQLite storage: what was drawn, and what came of it
runs/trial-0001/    each trial's run
trials.csv, .png    all trials
best.json           options of the best, for `train --config`
tune.json           settings, the best trial and its scores
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.search_space import Dimension
from isoloss.experiments.trial_runs import TrialResult
from isoloss.figures.style import save_figure
from isoloss.figures.trials import Trial, trials_figure
from isoloss.records.files import write_csv

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def check_optuna() -> None:
    """Refuse to go on without Optuna.

    Raises:
        ExperimentError: If it cannot be imported.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ExperimentError(
            f"tune needs the package optuna, which cannot be imported: {error}\n"
            "install it with: pip install optuna"
        ) from error


def run_name(number: int) -> str:
    """Return the name of a trial's run; trials are counted from 1, by Optuna from 0."""
    return f"trial-{number + 1:04d}"


def ask(study: Study, space: Mapping[str, Dimension], seed: int) -> tuple[int, dict[str, Any]]:
    """Draw the options of the next trial.

    The sampler is seeded by the number of the trial, so that an interrupted search goes on as if
    it never stopped, and does not draw again what it drew at its start.
    """
    from optuna.samplers import TPESampler

    entropy = np.random.SeedSequence((seed, len(study.get_trials(deepcopy=False))))
    study.sampler = TPESampler(seed=int(entropy.generate_state(1)[0]), constant_liar=True)
    trial = study.ask({option: dimension.distribution() for option, dimension in space.items()})
    return trial.number, trial.params


def tell(study: Study, number: int, result: TrialResult) -> None:
    """Store what came of a trial."""
    from optuna.trial import TrialState

    # Attributes of the study: those of a trial that another process began cannot be set.
    study.set_user_attr(run_name(number), dataclasses.asdict(result))
    if result.state == "complete":
        study.tell(number, result.accuracy)
    else:
        study.tell(number, state=TrialState.FAIL)


def open_study(folder: Path, settings: dict[str, Any]) -> Study:
    """Return the study of a folder, begun where there is none.

    Args:
        folder: Folder of the search; the study is `study.db` in it.
        settings: JSON-able; what must not differ when a search goes on.

    Raises:
        ExperimentError: If the search was begun with other settings, and has a completed trial, or
            its file is damaged.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return _open_study(folder, settings)
    except ExperimentError:
        raise
    except Exception as error:  # SQLite, SQLAlchemy and Optuna have no root in common
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExperimentError(
            f"expected the trials of a search in {folder / 'study.db'}, cannot read or write "
            f"it: {reason}\n"
            "put a copy back, choose another `name`, or start it over with `force`"
        ) from error


def _open_study(folder: Path, settings: dict[str, Any]) -> Study:
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / 'study.db').resolve().as_posix()}")
    make = functools.partial(
        optuna.create_study,
        storage=storage,
        study_name=folder.name,
        direction="maximize",
        load_if_exists=True,
    )
    study = make()
    settings = json.loads(json.dumps(settings))  # as it will be read
    stored = study.user_attrs.get("settings", settings)
    complete = any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False))
    if stored != settings and not complete:
        optuna.delete_study(study_name=folder.name, storage=storage)
        shutil.rmtree(folder / "runs", ignore_errors=True)
        study = make()
    elif stored != settings:
        raise ExperimentError(
            f"search {folder.name} was begun with other settings: "
            f"{', '.join(_differences(stored, settings))}\n"
            "give those of the search, choose another `name`, or start it over with `force`"
        )
    study.set_user_attr("settings", settings)
    return study


def _differences(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    for part, now in settings.items():
        before = stored.get(part)
        if not isinstance(now, Mapping):
            if before != now:
                yield f"`{part}` {before} (now {now})"
            continue
        flag = f"`{part}`"
        for key in sorted({*(before or {}), *now}):
            old, new = (before or {}).get(key, "absent"), now.get(key, "absent")
            if old != new:
                yield f"{flag} {key}={old} (now {new})"


class TrialTable:
    """The trials of a search as rows: `trials.csv`, lines for people, the figure."""

    def __init__(self, study: Study, space: Mapping[str, Dimension], folder: Path) -> None:
        self.space, self.folder = space, folder
        self.trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
        results = study.user_attrs
        try:
            self.results = [
                TrialResult(**results.get(run_name(trial.number), {"state": "running"}))
                for trial in self.trials
            ]
        except TypeError as error:
            raise ExperimentError(
                f"expected results of trials in {folder / 'study.db'}, got others: {error}\n"
                "put a copy back, choose another `name`, or start it over with `force`"
            ) from error
        self.rows = [
            {
                "trial": trial.number + 1,
                "state": result.state,
                **{option: trial.params.get(option) for option in space},
                "val_accuracy": result.accuracy,
                "val_accuracy_standard_error": result.accuracy_standard_error,
                "val_loss": result.loss,
                "seconds": result.seconds,
                "run": run_name(trial.number),
                "reason": result.reason,
            }
            for trial, result in zip(self.trials, self.results, strict=True)
        ]

    def best(self) -> FrozenTrial | None:
        """Return the trial of the highest accuracy, the lower loss and earlier one at a tie."""

        def rank(trial: FrozenTrial) -> tuple[float, float, int]:
            result = self.results[trial.number]
            loss = math.inf if result.loss is None else result.loss
            return -(result.accuracy or 0.0), loss, trial.number

        complete = [t for t in self.trials if self.results[t.number].state == "complete"]
        return min(complete, key=rank, default=None)

    def write(self) -> None:
        """Write `trials.csv`."""
        write_csv(
            self.folder / "trials.csv", list(self.rows[0]), [list(r.values()) for r in self.rows]
        )

    def line(self, number: int, total: int) -> str:
        """Say what came of one trial."""
        trial, result = self.trials[number], self.results[number]
        drawn = ", ".join(f"{option} {_shown(trial.params[option])}" for option in self.space)
        head = f"trial {number + 1} of {total}: {drawn}: "
        if result.state != "complete":
            return f"{head}{result.state}, {result.reason}"
        best = self.best()
        mark = " (best so far)" if best is not None and best.number == number else ""
        return f"{head}{accuracy(dataclasses.asdict(result))}, loss {result.loss:.4f}{mark}"

    def draw(self) -> list[Path]:
        """Draw all trials to `trials.png` and `.pdf`."""
        shown = [
            Trial(trial.number + 1, result.accuracy, result.accuracy_standard_error, trial.params)
            for trial, result in zip(self.trials, self.results, strict=True)
        ]
        best = self.best()
        figure = trials_figure(
            shown,
            {option: dimension.scale for option, dimension in self.space.items()},
            best=None if best is None else best.number + 1,
            title=f"{self.folder.name}: {len(shown)} trials",
            notes=["ringed: chosen"],
        )
        return save_figure(figure, self.folder / "trials")


def accuracy(scores: Mapping[str, Any]) -> str:
    """Return an accuracy with its standard error, in percent."""
    return (
        f"accuracy {100 * scores['accuracy']:.2f} ± {100 * scores['accuracy_standard_error']:.2f} %"
    )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
