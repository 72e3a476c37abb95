"""The trials of a search as training runs: one after another, or several processes at once."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from isoloss.errors import UsageError
from isoloss.experiments.errors import ExperimentError
from isoloss.experiments.train_options import TrainOptions
from isoloss.experiments.training import train
from isoloss.parallel import end_with_parent
from isoloss.records.runs import Run

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

TRIAL_SPLITS = ("train", "val")  # the test split is not looked at before the end


@dataclass(frozen=True)
class Place:
    """Where and how trials are run.

    Attributes:
        folder: Folder of the search; runs go to `runs/` in it.
        device: As on the command line.
        data_dir: Folder of the data; the default where None.
        download: Whether missing data may be fetched.
    """

    folder: Path
    device: str = "cpu"
    data_dir: Path | None = None
    download: bool = False


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial.

    Attributes:
        state: "complete"; "failed" where training diverged, ran out of memory, or its process was
            ended; "refused" where the options do not go together; "interrupted"; or "broken" for
            any other error of a process of its own.
        reason: Why it is not complete.
        accuracy: On the validation split, a fraction.
        accuracy_standard_error: Of that, as in `Scores`.
        loss: Mean over the validation split.
        seconds: Time taken.
    """

    state: str
    reason: str = ""
    accuracy: float | None = None
    accuracy_standard_error: float | None = None
    loss: float | None = None
    seconds: float | None = None


def run_trial(options: TrainOptions, place: Place) -> TrialResult:
    """Train as the options say and measure on the validation split.

    Raises:
        ExperimentError: If the data have no validation split, or are no classification.
        Exception: Whatever else ends a training, but for what makes a trial "failed", "refused"
            or "interrupted".
    """
    assert options.run is not None
    run = Run(place.folder / "runs" / options.run)
    began = time.monotonic()
    try:
        train(
            options,
            results=place.folder,
            data_dir=place.data_dir,
            device=place.device,
            download=place.download,
            figures=False,
            force=True,
            splits=TRIAL_SPLITS,
        )
    except UsageError as error:
        return TrialResult("refused", str(error))
    except (MemoryError, torch.OutOfMemoryError) as error:
        return TrialResult("failed", f"out of memory: {error}".splitlines()[0])
    except RuntimeError as error:
        # As it was written: whatever else ended the training is no interruption.
        status = run.manifest().get("status") if (run.path / "run.json").is_file() else ""
        if status not in ("diverged", "interrupted"):
            raise
        state = "failed" if status == "diverged" else "interrupted"
        return TrialResult(state, str(error).splitlines()[0])
    scores = run.evaluation()["splits"].get("val")
    if scores is None:
        raise ExperimentError(
            "expected a validation split to judge trials by, got none: raise it with "
            "`fixed` val_fraction=0.1"
        )
    if scores["accuracy"] is None:
        raise ExperimentError(
            "expected a classification, as trials are judged by their validation accuracy, got "
            f"data without class labels: {options.dataset}"
        )
    if scores["loss"] is None:  # NaN or infinite
        return TrialResult("failed", "the validation loss is not finite")
    (run.checkpoints / "state.pt").unlink(missing_ok=True)  # nothing to resume
    return TrialResult(
        "complete",
        accuracy=scores["accuracy"],
        accuracy_standard_error=scores["accuracy_standard_error"],
        loss=scores["loss"],
        seconds=time.monotonic() - began,
    )


def run_trials(
    next_trial: Callable[[], tuple[int, TrainOptions] | None], place: Place, jobs: int
) -> Iterator[tuple[int, TrialResult]]:
    """Run trials until there is no next one.

    Args:
        next_trial: Returns number and options of the next trial, None where there is none.
        place: Where and how.
        jobs: Trials at once. One is run in this process; more, each in a process of its own with
            its share of the threads.

    Yields:
        Number and result of each trial, as they end. Those still running are ended where the
        caller stops asking.
    """
    if jobs == 1:
        while (trial := next_trial()) is not None:
            yield trial[0], run_trial(trial[1], place)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")  # a fork would share the threads' locks
    running: dict[Connection, tuple[int, SpawnProcess]] = {}
    try:
        while True:
            while len(running) < jobs and (trial := next_trial()) is not None:
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(
                    target=_work, args=(sender, trial[1], place, threads), daemon=True
                )
                process.start()
                sender.close()  # so that the end of the process is the end of the pipe
                running[receiver] = (trial[0], process)
            if not running:
                return
            ended = wait(list(running))
            for receiver in [receiver for receiver in running if receiver in ended]:
                number, process = running.pop(receiver)
                yield number, _receive(receiver, process)
    finally:
        for receiver, (_, process) in running.items():
            process.terminate()
            process.join()
            receiver.close()


def _receive(receiver: Connection, process: SpawnProcess) -> TrialResult:
    try:
        result: TrialResult = receiver.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        result = TrialResult("failed", f"its process was ended by {how}")
    process.join()
    receiver.close()
    return result


def _work(sender: Connection, options: TrainOptions, place: Place, threads: int) -> None:
    """Run one trial in a process of its own."""
    end_with_parent()
    torch.set_num_threads(threads)
    try:
        result = run_trial(options, place)
    except KeyboardInterrupt:
        result = TrialResult("interrupted")
    except Exception as error:
        result = TrialResult("broken", f"{type(error).__name__}: {error}")
    sender.send(result)
