"""Options that several commands share, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isoloss.experiments.options import OptionError, Options, option


@dataclass(frozen=True, kw_only=True)
class Printed(Options):
    """How a result is said."""

    as_json: bool = option(
        False, "Print the result as JSON, nothing else, to standard output.", flag="json"
    )


@dataclass(frozen=True, kw_only=True)
class Drawn(Printed):
    """Whether a result is drawn."""

    figures: bool = option(
        True, "Whether to draw figures into the run's folder.", flag="plot", off="no-figures"
    )


@dataclass(frozen=True, kw_only=True)
class Forced(Options):
    """What happens to a result that is there."""

    force: bool = option(False, "Start over where a result is there already.")


@dataclass(frozen=True, kw_only=True)
class Estimated(Options):
    """Whether a command says what it would take, and stops."""

    estimate: bool = option(False, "Measure a little, print time, memory and disk, and stop.")


@dataclass(frozen=True, kw_only=True)
class Output(Forced, Drawn, Estimated):
    """What becomes of a measurement."""

    out: Path | None = option(
        None, "File to write, ending in .h5.", otherwise="one in the run's folder"
    )


def check_out(path: Path | None) -> None:
    """Refuse a file whose companions (summary, figures) would replace it or a run's own files.

    Raises:
        OptionError: For another suffix than .h5, or a stem that a run uses itself.
    """
    if path is None:
        return
    if path.suffix != ".h5":
        raise OptionError("out", f"expected a file that ends in .h5, got {path}")
    if (
        path.stem in ("config", "facts", "run", "history", "evaluation")
        and path.parent.joinpath("config.json").exists()
    ):
        raise OptionError("out", f"{path.stem}.json is the run's own, choose another name")
