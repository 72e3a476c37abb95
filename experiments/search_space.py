"""What `tune` searches: options of `train` and the range of each, as the command line gives them.

lr=loguniform:1e-4:1e-1      a number, its logarithm uniform
weight_decay=uniform:0:0.01  a number; with a third number, in steps of it
epochs=int:5:20              a whole number, both ends included; also in steps
batch_size=logint:16:512     a whole number, its logarithm uniform
optimizer=choice:sgd,sam     one of these
model_arg.dropout=uniform:0:0.5
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoloss.errors import UsageError
from isoloss.experiments.options import Option, OptionError, check, declared, find, make, parse
from isoloss.experiments.train_options import TrainOptions
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
MOST_STEPS = 10**9  # of a range; more are as good as none


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
        return _value(self.option, drawn) if self.kind == "choice" else drawn


def parse_search(texts: Iterable[str]) -> dict[str, Dimension]:
    """Read repeated `--search OPTION=RANGE`.

    Raises:
        UsageError: For what is no option, no range, or no range for that option.
    """
    dimensions: dict[str, Dimension] = {}
    for text in texts:
        option, given = _split(text, "search", "OPTION=RANGE, such as lr=loguniform:1e-4:1e-1")
        head = option.partition(".")[0]
        if head in FIXED:
            raise UsageError(
                f"`search`: {head} decides which samples trials are judged by, so it cannot be "
                f"searched\nfix it with `fixed` {head}=.."
            )
        if option in dimensions:
            raise UsageError(f"`search`: {option} is given twice, give it once")
        dimensions[option] = _dimension(option, given)
    return dimensions


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read repeated `--set OPTION=VALUE` by name.

    Raises:
        UsageError: For what is no option, or no value for it.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        option, given = _split(text, "fixed", "OPTION=VALUE, such as epochs=5")
        with _naming("fixed"):
            settings = with_value(settings, option, _value(option, given))
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
    return make(TrainOptions, {**settings, "run": name})


def _split(text: str, flag: str, expected: str) -> tuple[str, str]:
    """Return the option, checked to be one, and what follows the equals sign."""
    option, equals, given = text.partition("=")
    if not equals or not given:
        raise UsageError(f"`{flag}`: expected {expected}, got {text!r}")
    head, dot, key = option.strip().partition(".")
    head = head.replace("-", "_")
    with _naming(flag):
        takes_key = dict in _declared(head).types
    if takes_key != bool(key) or (dot and not key):
        form = f"{head}.NAME=.." if takes_key else f"{head}=.."
        raise UsageError(f"`{flag}`: expected {form}, got {text!r}")
    return f"{head}{dot}{key}", given.strip()


def _dimension(option: str, text: str) -> Dimension:
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = f"; did you mean {KINDS[near[0]]}?" if near else ""
        raise UsageError(
            f"`search`: {option}: expected {', '.join(KINDS.values())}, got {text!r}{hint}"
        )
    if kind == "choice":
        choices = tuple(_split_choices(rest))
        if len(choices) < 2 or len(set(choices)) < len(choices):
            raise UsageError(
                f"`search`: {option}: expected two or more different values, "
                f"{KINDS['choice']}, got {text!r}"
            )
        with _naming("search"):
            for choice in choices:
                _value(option, choice)
        return Dimension(option, text, kind, choices=choices)
    _check_kind(option, kind, text)
    whole = kind.endswith("int")
    try:
        low, high, *steps = (int(part) if whole else float(part) for part in rest.split(":"))
        step = steps[0] if steps else None
    except ValueError:
        what = "whole numbers" if whole else "numbers"
        raise UsageError(
            f"`search`: {option}: expected {KINDS[kind]} of {what}, got {text!r}"
        ) from None
    log = kind.startswith("log")
    if len(steps) > (0 if log else 1) or not low < high or (step is not None and step <= 0):
        raise UsageError(
            f"`search`: {option}: expected {KINDS[kind]} with LOW below HIGH"
            f"{'' if log else ' and STEP above 0'}, got {text!r}"
        )
    most = 2**63 - 1 if whole else sys.float_info.max
    few = step is None or (step < math.inf and (high - low) / step <= MOST_STEPS)
    if not (-most <= low < high <= most and few):
        raise UsageError(
            f"`search`: {option}: expected finite ends, of 64 bits, and up to {MOST_STEPS:,} steps,"
            f" got {text!r}"
        )
    if log and low <= 0:
        raise UsageError(f"`search`: {option}: expected LOW above 0 on a log scale, got {text!r}")
    if "." not in option:
        with _naming("search"):
            for end in (low, high):
                check(_declared(option), end)
    return Dimension(option, text, kind, low, high, step)


def _check_kind(option: str, kind: str, text: str) -> None:
    """Refuse a range of numbers for an option that takes none, or fractions for whole numbers."""
    accepted = _declared(option).types
    if dict in accepted:  # an argument of a factory: its type is not known here
        return
    if not {int, float} & {*accepted}:
        raise UsageError(
            f"`search`: {option} is no number: expected {option}={KINDS['choice']}, got {text!r}"
        )
    if float not in accepted and not kind.endswith("int"):
        raise UsageError(
            f"`search`: {option} is a whole number: expected {option}={KINDS['int']} or "
            f"{KINDS['logint']}, got {text!r}"
        )


def _declared(option: str) -> Option:
    """Return the declaration of an option that trials may set."""
    settable = [o for o in declared(TrainOptions) if o.name not in NAMES]
    return find(settable, option.partition(".")[0])


def _value(option: str, text: str) -> Any:
    """Read one value of an option; of `model_arg.KEY` as `key=value` options do."""
    if "." in option:
        return parse_arguments([f"value={text}"])["value"]
    return parse(_declared(option), text)


@contextmanager
def _naming(flag: str) -> Iterator[None]:
    """Say which flag held a value that an option does not take."""
    try:
        yield
    except OptionError as error:
        where = f"`{flag}`: {error.option}:" if error.option else f"`{flag}`:"
        raise UsageError(f"{where} {error.problem}") from error


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
