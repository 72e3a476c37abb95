"""What `tune` searches: options of `train` and the range of each, as the command line gives them.

lr=loguniform:1e-4:1e-1      a number, its logarithm uniform
weight_decay=uniform:0:0.01  a number; with a third number, in steps of it
epochs=int:5:20              a whole number, both ends included; also in steps
batch_size=logint:16:512     a whole number, its logarithm uniform
optimizer=choice:sgd,sam     one of these
model_arg.dropout=uniform:0:0.5
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoloss.commands.errors import UsageError
from isoloss.commands.train_options import TrainOptions, make_options
from isoloss.registry import parse_arguments

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

KINDS = {
    "uniform": "uniform:LOW:HIGH[:STEP]",
    "loguniform": "loguniform:LOW:HIGH",
    "int": "int:LOW:HIGH[:STEP]",
    "logint": "logint:LOW:HIGH",
    "choice": "choice:A,B,..",
}
# Trials that differ in these are not measured on the same validation samples, or have no name.
FIXED = ("dataset", "fraction", "val_fraction", "split_seed")
NAMES = ("run", "label")


@dataclass(frozen=True)
class Dimension:
    """One searched option.

    Attributes:
        option: Name of the option, `model_arg.KEY` for an argument.
        text: The range as it was given.
        kind: One of `KINDS`.
        low: Lower end; None for a choice.
        high: Upper end, included; None for a choice.
        step: Distance of the values; None for any between the ends, and for a choice.
        choices: The values of a choice, as text.
    """

    option: str
    text: str
    kind: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def scale(self) -> str:
        """How an axis of it looks: "linear", "log" or "category"."""
        if self.kind == "choice":
            return "category"
        return "log" if self.kind.startswith("log") else "linear"

    def distribution(self) -> BaseDistribution:
        """Return what Optuna draws from."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        log = self.scale == "log"
        if self.kind.endswith("int"):
            return IntDistribution(int(self.low), int(self.high), log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, log, self.step)

    def value(self, drawn: Any) -> Any:
        """Return the option's value for what was drawn."""
        return _parse(drawn) if self.kind == "choice" else drawn


def parse_search(texts: Iterable[str]) -> dict[str, Dimension]:
    """Read repeated `--search OPTION=RANGE`.

    Raises:
        UsageError: For what is no option, no range, or no range for that option.
    """
    dimensions: dict[str, Dimension] = {}
    for text in texts:
        option, given = _split(text, "--search", "OPTION=RANGE, such as lr=loguniform:1e-4:1e-1")
        head = option.partition(".")[0]
        if head in FIXED:
            raise UsageError(
                f"--search: {head} decides which samples trials are judged by, so it cannot be "
                f"searched\nfix it with --set {head}=.."
            )
        if option in dimensions:
            raise UsageError(f"--search: {option} is given twice, give it once")
        dimensions[option] = _dimension(option, given)
    return dimensions


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read repeated `--set OPTION=VALUE` as `make_options` takes them.

    Raises:
        UsageError: For what is no option, or no value for it.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        option, given = _split(text, "--set", "OPTION=VALUE, such as epochs=5")
        value = _parse(given)
        _check_value(option, value, "--set")
        settings = with_value(settings, option, value)
    return settings


def with_value(settings: Mapping[str, Any], option: str, value: Any) -> dict[str, Any]:
    """Return settings with one more, `model_arg.KEY` set inside the arguments."""
    head, dot, key = option.partition(".")
    inner = {**settings.get(head, {}), key: value} if dot else value
    return {**settings, head: inner}


def trial_options(
    fixed: Mapping[str, Any], space: Mapping[str, Dimension], drawn: Mapping[str, Any], name: str
) -> TrainOptions:
    """Return the options of one trial.

    Args:
        fixed: The options that all trials share.
        space: The searched ones.
        drawn: What was drawn for each of them.
        name: Name of the run.
    """
    settings = dict(fixed)
    for option, dimension in space.items():
        settings = with_value(settings, option, dimension.value(drawn[option]))
    return make_options({**settings, "run": name})


def _split(text: str, flag: str, expected: str) -> tuple[str, str]:
    """Return the option, checked to be one, and what follows the equals sign."""
    option, equals, given = text.partition("=")
    if not equals or not given:
        raise UsageError(f"{flag}: expected {expected}, got {text!r}")
    head, dot, key = option.strip().partition(".")
    head = head.replace("-", "_")
    known = {f.name: f for f in dataclasses.fields(TrainOptions) if f.name not in NAMES}
    if head not in known:
        near = difflib.get_close_matches(head, known, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise UsageError(f"{flag}: no option {head!r} to set{hint} valid: {', '.join(known)}")
    takes_key = dict in _types(head)
    if takes_key != bool(key) or (dot and not key):
        form = f"{head}.NAME=.." if takes_key else f"{head}=.."
        raise UsageError(f"{flag}: expected {form}, got {text!r}")
    return f"{head}{dot}{key}", given.strip()


def _dimension(option: str, text: str) -> Dimension:
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f"; did you mean {KINDS[near[0]]}?" if near else ""
        raise UsageError(
            f"--search: {option}: expected {', '.join(KINDS.values())}, got {text!r}{hint}"
        )
    if kind == "choice":
        choices = tuple(_split_choices(rest))
        if len(choices) < 2 or len(set(choices)) < len(choices):
            raise UsageError(
                f"--search: {option}: expected two or more different values, "
                f"{KINDS['choice']}, got {text!r}"
            )
        for choice in choices:
            _check_value(option, _parse(choice), "--search")
        return Dimension(option, text, kind, choices=choices)
    _check_kind(option, kind, text)
    whole = kind.endswith("int")
    try:
        low, high, *steps = (int(part) if whole else float(part) for part in rest.split(":"))
        step = steps[0] if steps else None
    except ValueError:
        what = "whole numbers" if whole else "numbers"
        raise UsageError(
            f"--search: {option}: expected {KINDS[kind]} of {what}, got {text!r}"
        ) from None
    log = kind.startswith("log")
    if len(steps) > (0 if log else 1) or not low < high or (step is not None and step <= 0):
        raise UsageError(
            f"--search: {option}: expected {KINDS[kind]} with LOW below HIGH"
            f"{'' if log else ' and STEP above 0'}, got {text!r}"
        )
    if log and low <= 0:
        raise UsageError(f"--search: {option}: expected LOW above 0 on a log scale, got {text!r}")
    return Dimension(option, text, kind, low, high, step)


def _check_kind(option: str, kind: str, text: str) -> None:
    """Refuse a range of numbers for an option that takes none, or fractions for whole numbers."""
    accepted = _types(option)
    if dict in accepted:  # an argument of a factory: its type is not known here
        return
    if not accepted & {int, float}:
        raise UsageError(
            f"--search: {option} is no number: expected {option}={KINDS['choice']}, got {text!r}"
        )
    if float not in accepted and not kind.endswith("int"):
        raise UsageError(
            f"--search: {option} is a whole number: expected {option}={KINDS['int']} or "
            f"{KINDS['logint']}, got {text!r}"
        )


def _check_value(option: str, value: Any, flag: str) -> None:
    accepted = _types(option)
    if dict in accepted or (option == "batch_size" and value == "full"):
        return
    fits = (
        (value is None and types.NoneType in accepted)
        or (isinstance(value, bool) and bool in accepted)
        or (isinstance(value, int) and not isinstance(value, bool) and int in accepted)
        or (isinstance(value, int | float) and not isinstance(value, bool) and float in accepted)
        or (str in accepted and value is not None and not isinstance(value, bool))
    )
    if not fits:
        names = " or ".join(sorted(t.__name__ for t in accepted - {types.NoneType}))
        raise UsageError(f"{flag}: {option}: expected {names}, got {value!r}")


def _types(option: str) -> set[type]:
    """Return the types an option takes, NoneType among them where it may be left to its default."""
    hint = typing.get_type_hints(TrainOptions)[option.partition(".")[0]]
    union = isinstance(hint, types.UnionType)
    parts = typing.get_args(hint) if union else (hint,)
    return {typing.get_origin(part) or part for part in parts}


def _parse(text: str) -> Any:
    """Read one value as `key=value` options do."""
    return parse_arguments([f"value={text}"])["value"]


def _split_choices(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
