"""The settings of a training: as options, in a configuration file, and in the run to resume."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from isoloss.commands.errors import CommandError, UsageError
from isoloss.records.provenance import PLUGIN_ROLES, absolute_spec


@dataclass(frozen=True)
class TrainOptions:
    """All settings of a training, as stored in a run's `config.json` and read by `--config`.

    None stands for a default that another setting decides (the data set's network, the
    optimizer's learning rate); a stored configuration has all of them resolved.
    """

    run: str | None = None
    label: str | None = None
    model: str | None = None
    model_arg: dict[str, Any] = field(default_factory=dict)
    dataset: str = "digits"
    dataset_arg: dict[str, Any] = field(default_factory=dict)
    fraction: float = 1.0
    val_fraction: float = 0.1
    split_seed: int = 0
    augment: str | None = None
    optimizer: str | None = None
    base: str | None = None
    rho: float | None = None
    m: int | None = None
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    nesterov: bool | None = None
    schedule: str = "constant"
    schedule_arg: dict[str, Any] = field(default_factory=dict)
    warmup: str = "0"
    epochs: int = 5
    patience: int | None = None
    checkpoint_every: int | None = None
    batch_size: int | None = 128
    clip: float | None = None
    amp: str | None = None
    intel: bool = False
    loss: str = "cross-entropy"
    loss_arg: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


OPTIMIZER_OPTIONS = ("base", "rho", "m", "lr", "momentum", "weight_decay", "nesterov")
# What may differ when a run goes on.
FREE = ("run", "epochs")


def make_options(values: dict[str, Any]) -> TrainOptions:
    """Return the options of some values by name.

    Raises:
        UsageError: For a name that is no option, or a batch size that is none.
    """
    known = {f.name: f for f in dataclasses.fields(TrainOptions)}
    unknown = [key for key in values if key not in known]
    if unknown:
        import difflib

        near = difflib.get_close_matches(unknown[0], list(known), 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"--config: no option {unknown[0]!r}{hint} valid: {', '.join(known)}")
    size = values.get("batch_size", 128)
    if size == "full" or size is None:
        values = {**values, "batch_size": None}
    elif str(size).isdigit():
        values = {**values, "batch_size": int(size)}
    else:
        raise UsageError(f"--batch-size: expected a number or full, got {size!r}")
    for role in PLUGIN_ROLES:  # a later command may be given in another folder
        if values.get(role) is not None:
            values = {**values, role: absolute_spec(values[role])}
    if "warmup" in values:  # a number in a file
        values = {**values, "warmup": str(values["warmup"])}
    _check_types(values)
    return TrainOptions(**values)


def _check_types(values: dict[str, Any]) -> None:
    """Refuse values of a configuration file that are not of their option's type."""
    hints = get_type_hints(TrainOptions)
    for name, value in values.items():
        types = [get_origin(t) or t for t in get_args(hints[name]) or [hints[name]]]
        if get_origin(hints[name]) is dict:
            types = [dict]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (type(value) in types or (whole and float in types)):
            names = " or ".join(t.__name__ for t in types if t is not type(None))
            raise UsageError(f"--config: {name} expects {names}, got {value!r}")


def read_config(path: Path) -> dict[str, Any]:
    """Return the options in a TOML or JSON file by name, a run's facts left out.

    Raises:
        UsageError: For a file that cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise UsageError(f"--config: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--config: {path} is neither TOML nor JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config: expected options by name in {path}, got a list")
    return {key.replace("-", "_"): value for key, value in content.items() if key != "facts"}


def stored_options(
    results: Path, name: str | None, given: dict[str, Any], data_dir: Path | None
) -> tuple[dict[str, Any], Path | None]:
    """Return the options of the run to resume, and the folder of its data.

    Args:
        results: Folder of all results.
        name: Name of the run; the newest where None.
        given: Options on the command line, by name.
        data_dir: Folder of the data, the run's own where None.

    Raises:
        UsageError: If options on the command line differ from the run's, the number of epochs
            apart.
        CommandError: If there is no run.
    """
    from isoloss.records.runs import find_run, newest_run

    run = find_run(results, name) if name is not None else newest_run(results)
    if run is None:
        raise CommandError(f"expected a run to resume in {results}, got none")
    config = run.config()
    facts = config.pop("facts", {})
    stored, asked = make_options(config), make_options(given)
    differing = [
        f"--{key.replace('_', '-')} {getattr(stored, key)} (now {getattr(asked, key)})"
        for key in given
        if key not in FREE and getattr(stored, key) != getattr(asked, key)
    ]
    if differing:
        raise UsageError(
            f"--resume goes on with the settings of run {run.name}: {', '.join(differing)}"
        )
    return config, data_dir or (Path(facts["data_dir"]) if "data_dir" in facts else None)
