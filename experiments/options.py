"""Options declared once: a dataclass field holds type, default, bounds and words of a setting.

The command line, configuration files, the ranges of a search and the tables of the documentation
are made from the declarations, and `check` is the one judge of values, wherever they come from.

Example:
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Baking(Options):
    ...     minutes: int = option(30, "Time in the oven.", low=1)
    >>> make(Baking, {"minutes": 45})
    Baking(minutes=45)
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, TypeVar

from isoloss.errors import UsageError
from isoloss.registry import ArgumentError, parse_arguments

T = TypeVar("T", bound="Options")

# Of a seed: torch takes less than 2^64, and every program reads this much from JSON.
LARGEST_SEED = 2**53
# Of epochs, samples and the like: more than any computer gets done, and what is no slip of a key.
LARGEST_EPOCHS = 10**6
LARGEST_COUNT = 10**9

_KEY = "option"


class OptionError(UsageError):
    """A value that an option does not take, or a name that is no option.

    Args:
        option: Name of the option; empty where none of that name exists.
        problem: What was expected and what was got.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(option, problem)
        self.option, self.problem = option, problem

    def __str__(self) -> str:
        return f"`{self.option}`: {self.problem}" if self.option else self.problem


@dataclass(frozen=True)
class Option:
    """One declared option.

    Attributes:
        name: The field's name.
        types: What its values are, None apart: int, float, bool, str, Path, dict or tuple (of
            strings).
        optional: Whether None is a value.
        default: What it is where nothing is given; `dataclasses.MISSING` where it must be given.
        help: One sentence or two for people.
        low: Smallest value.
        above: A value must be larger than this.
        high: Largest value, where there is a smallest one or `above`.
        choices: The strings it takes; empty for any.
        none: The word that stands for None where None has a meaning of its own, such as "full".
        otherwise: What decides where nothing is given, in words, when the default does not say it.
        metavar: Stands for the value in a list of options.
        aliases: Other names on the command line.
        flag: Its name on the command line, where that is not the field's.
        off: Name of its opposite on the command line, for a bool.
        positional: Whether its place on the command line says what it is.
        env: Environment variable that gives it.
        paths: Whether its strings are names of files, which need not be text.
        convert: Applied to a value that comes from a command line or a file.
    """

    name: str
    types: tuple[type, ...]
    optional: bool
    default: Any
    help: str
    low: float | None = None
    above: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    none: str = ""
    otherwise: str = ""
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    flag: str = ""
    off: str = ""
    positional: bool = False
    env: str = ""
    paths: bool = False
    convert: Callable[[Any], Any] | None = None

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is MISSING

    @property
    def kinds(self) -> str:
        """What its values are: "float", "int or full", "train, val, test"."""
        if self.types == (str,) and self.choices:
            return ", ".join(self.choices)
        named = [t.__name__ for t in self.types if t is not str or not self.choices]
        return " or ".join([*named, *filter(None, (*self.choices, self.none))])

    @property
    def bounds(self) -> str:
        """Its bounds: "0 to 1", "1 or more", "above 0"; empty where it has none."""
        if self.low is not None:
            return f"{self.low} or more" if self.high is None else f"{self.low} to {self.high}"
        if self.above is None:
            return ""
        return f"above {self.above}" + ("" if self.high is None else f", up to {self.high}")


def option(default: Any = MISSING, help: str = "", **declaration: Any) -> Any:
    """Declare an option as a dataclass field.

    Args:
        default: A plain value; a dict is copied for each instance.
        help: One sentence or two.
        **declaration: Any other attribute of `Option` after these.
    """
    metadata = {_KEY: {"help": help, **declaration}}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def redeclared(cls: type, name: str, default: Any, **changes: Any) -> Any:
    """Declare an option that another class has already, with another default.

    Args:
        cls: The class that has it.
        name: Its name there, and here.
        default: The default here.
        **changes: Attributes of `Option` that differ, too.
    """
    (field,) = (field for field in dataclasses.fields(cls) if field.name == name)
    declaration = {**field.metadata[_KEY], **changes}
    return option(default, declaration.pop("help"), **declaration)


class Options:
    """Base of dataclasses of options: values are checked also where Python gives them."""

    def __post_init__(self) -> None:
        for option in declared(type(self)):
            object.__setattr__(self, option.name, check(option, getattr(self, option.name)))


def declared(cls: type) -> tuple[Option, ...]:
    """Return the options of a dataclass, its own before those it inherits."""
    return _declared(cls)


@functools.cache
def _declared(cls: Any) -> tuple[Option, ...]:
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    ordered = dict.fromkeys(name for c in cls.__mro__ for name in inspect.get_annotations(c))
    found = []
    for field in (fields[name] for name in ordered if name in fields):
        hint = hints[field.name]
        parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = tuple(typing.get_origin(part) or part for part in parts)
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        found.append(
            Option(
                field.name,
                tuple(kind for kind in kinds if kind is not types.NoneType),
                types.NoneType in kinds,
                default,
                **field.metadata[_KEY],
            )
        )
    return tuple(found)


def find(options: Iterable[Option], name: str) -> Option:
    """Return the option of a name.

    Raises:
        OptionError: If there is none; names the near matches.
    """
    known = {option.name: option for option in options}
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        raise OptionError("", f"no option {name!r} to set{hint} valid: {', '.join(known)}")
    return known[name]


def check(option: Option, value: Any) -> Any:
    """Return a value as the option holds it: None for its word, a path for its text.

    Raises:
        OptionError: For another type, a number out of bounds, or none of the choices.
    """
    if value is None or (option.none and value == option.none):
        if not option.optional:
            raise OptionError(option.name, f"expected {option.kinds}, got {value!r}")
        return None
    if not _fits(option, value):
        raise OptionError(option.name, f"expected {option.kinds}, got {value!r}")
    if isinstance(value, int | float) and not (
        (option.low is None or value >= option.low)
        and (option.above is None or value > option.above)
        and (option.high is None or value <= option.high)
    ):
        # Python writes no whole number of 5,000 digits.
        got = value if abs(value) < 2**63 or isinstance(value, float) else "one beyond 64 bits"
        raise OptionError(option.name, f"expected {option.bounds}, got {got}")
    _check_plain(option, value)
    if Path in option.types:
        return Path(value)
    if tuple in option.types:
        return tuple(value)
    return value


def _fits(option: Option, value: Any) -> bool:
    if isinstance(value, bool):
        return bool in option.types
    if isinstance(value, str):
        named = not option.choices or value in option.choices
        return (str in option.types and named) or Path in option.types
    if isinstance(value, list | tuple):
        return tuple in option.types and all(isinstance(part, str) for part in value)
    if isinstance(value, int) and float in option.types:
        return True
    return isinstance(value, option.types)


def _check_plain(option: Option, value: Any) -> None:
    """Refuse text that no file can hold, and whole numbers that no array can."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_plain(option, key)
            _check_plain(option, inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_plain(option, inner)
    elif isinstance(value, str | Path):
        # The name of a file need not be UTF-8; a label or an argument is written to ones that are.
        text, is_path = str(value), option.paths or Path in option.types
        if "\0" in text or not (is_path or text.isascii() or _is_unicode(text)):
            raise OptionError(option.name, f"expected text in UTF-8 without \\0, got {text!r}")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise OptionError(option.name, "expected a whole number of 64 bits, got a larger one")


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, or bytes that were no text
        return False
    return True


def parse(option: Option, given: str | bool | list[str]) -> Any:
    """Return the value of an option from its text; that of a repeated one from all its texts.

    Raises:
        OptionError: As `check` does, and for a `key=value` that is none.
    """
    try:
        if dict in option.types and isinstance(given, list):
            return check(option, parse_arguments(given))
        words = str in option.types and not (option.choices and len(option.types) > 1)
        if isinstance(given, str) and not words and Path not in option.types:
            given = parse_arguments([f"value={given}"])["value"]
    except ArgumentError as error:
        raise OptionError(option.name, str(error)) from error
    return check(option, given)


def make(cls: type[T], values: Mapping[str, Any]) -> T:
    """Return options with values that come from a command line or a file.

    Raises:
        OptionError: For a name that is no option, a value it does not take, or one that lacks.
    """
    options = declared(cls)
    held = {}
    for name, value in values.items():
        option = find(options, name)
        held[name] = check(option, value)
        if option.convert is not None and held[name] is not None:
            held[name] = option.convert(held[name])
    for lacking in (o for o in options if o.required and o.name not in held):
        raise OptionError(lacking.name, "expected a value, got none")
    return cls(**held)
