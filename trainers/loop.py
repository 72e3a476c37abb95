"""The training loop: epoch after epoch, with checkpoints that it goes on from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from isoloss.records.progress import Progress, shown
from isoloss.trainers.checkpoints import load_state, save_state, save_weights
from isoloss.trainers.settings import EpochRecord
from isoloss.trainers.trainer import Trainer


def train(
    trainer: Trainer,
    folder: Path | None = None,
    *,
    checkpoint_every: int | None = None,
    progress: Progress | bool | None = None,
    on_epoch: Callable[[Sequence[EpochRecord]], None] | None = None,
) -> Sequence[EpochRecord]:
    """Train to the end, leaving checkpoints after every epoch.

    Args:
        trainer: At its start, or where `resume` put it.
        folder: Where `last.pt`, `best.pt` and `state.pt` go, with their digests; nothing is
            written where None, and by other ranks than 0.
        checkpoint_every: Also keep the weights after every so many epochs, and the initial ones:
            `epoch-0000.pt`, ...
        progress: Called as progress(steps done, steps in all); True for a bar.
        on_epoch: Called with the whole history after each epoch, checkpoints being written.

    Returns:
        The history.

    Raises:
        TrainingDiverged: If the loss has exploded, or a loss or weight is not finite; the
            checkpoints stay those of the last finished epoch (of the initial weights before the
            first).
    """
    epochs = trainer.settings.epochs
    steps = epochs * trainer.steps_per_epoch

    if not trainer.group.main:
        folder = None
    if folder is not None:  # later it must be there: one that is deleted is not made again
        folder.mkdir(parents=True, exist_ok=True)
    trainer.group.broadcast(trainer.model)
    if folder is not None and trainer.epoch == 0:
        _save(trainer, folder, checkpoint_every)
    with shown(progress, "training") as report:

        def after_step(done: int) -> None:
            if report is not None:
                report(done, steps)

        while not trainer.finished:
            trainer.train_epoch(after_step)
            if folder is not None:
                _save(trainer, folder, checkpoint_every)
            if on_epoch is not None:
                on_epoch(trainer.history)
    return trainer.history


def resume(trainer: Trainer, folder: Path) -> None:
    """Put a trainer where the training that wrote `state.pt` stood.

    Args:
        trainer: Made as for that training.
        folder: The folder given to `train`.

    Raises:
        CheckpointError: If there is no such file, or it is of another network.
        TrainingError: If it is of a training with other settings.
    """
    path = folder / "state.pt"
    trainer.load_state_dict(load_state(path), str(path))


def _save(trainer: Trainer, folder: Path, every: int | None) -> None:
    # The state last: until it is there, resuming repeats the epoch and writes the same again.
    weights = trainer.model.state_dict()
    if every is not None and trainer.epoch % every == 0:
        save_weights(folder / f"epoch-{trainer.epoch:04d}.pt", weights, digest=True)
    if trainer.best_epoch == trainer.epoch:
        save_weights(folder / "best.pt", weights, digest=True)
    save_weights(folder / "last.pt", weights, digest=True)
    save_state(folder / "state.pt", trainer.state_dict(), digest=True)
