"""Names for what a command line can ask for, and what stands behind them.

A `Registry` maps names to factories; `load_factory` turns what a user wrote, a registered name, a
member of a registered family as ``family:NAME``, ``path/file.py:factory`` or ``module:factory``,
into a `Factory`;
`call_with_arguments` calls it with the user's ``key=value`` pairs and with what is known of the
data. Names that differ in case, ``_`` and ``-`` alone are the same (`Registry.resolve`).
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from isoloss.errors import UsageError
from isoloss.plugins import (
    Plugin,
    PluginError,
    is_module_spec,
    load_plugin,
    undone,
)
from isoloss.specs import FAMILIES, installed_module

__all__ = [
    "ArgumentError",
    "Entry",
    "Factory",
    "PluginError",
    "Registry",
    "UnknownNameError",
    "call_with_arguments",
    "is_path",
    "is_plugin",
    "load_factory",
    "parse_arguments",
    "undone",
]

F = TypeVar("F", bound=Callable[..., Any])


class UnknownNameError(UsageError, LookupError):
    """A name that is not registered."""


class ArgumentError(UsageError, ValueError):
    """An argument that is malformed, unknown, missing or of the wrong type."""


@dataclass(frozen=True)
class Entry(Generic[F]):
    """One registered factory.

    Attributes:
        name: what the user writes; of a family, what comes before the member, ending in ":".
        factory: what is called.
        description: one line for ``list``.
        facts: anything else that was registered with it.
    """

    name: str
    factory: F
    description: str
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_family(self) -> bool:
        """Whether it stands for many things, told apart by what follows its name."""
        return self.name.endswith(":")

    @property
    def usage(self) -> str:
        """The name as lists show it: "npz:FILE" for a family with `placeholder="FILE"`."""
        return self.name + self.facts.get("placeholder", "NAME") if self.is_family else self.name


class Registry(Generic[F]):
    """Entries by name, in the order of registration.

    A name that ends in ":" registers a family: its factory has a parameter `name`, which gets
    what the user wrote after the colon. ``npz:runs/digits.npz`` calls the factory of "npz:" with
    ``name="runs/digits.npz"``; nobody else can set it. The fact `placeholder` says what is to be
    written there ("NAME" where there is none).

    Example:
        >>> SHAPES: Registry = Registry("shape")
        >>> @SHAPES.register("square", "four equal sides", corners=4)
        ... def square(side=1.0):
        ...     return side**2
        >>> SHAPES.get("square").facts["corners"]
        4

    Args:
        kind: what the entries are, in the singular, for messages: "model".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[F]] = {}
        self._aliases: dict[str, tuple[str, dict[str, Any]]] = {}

    def register(self, name: str, description: str, **facts: Any) -> Callable[[F], F]:
        """Return a decorator that registers a factory and returns it unchanged.

        Raises:
            ValueError: the name is taken.
        """

        def decorate(factory: F) -> F:
            self._refuse_taken(name)
            self._entries[name] = Entry(name, factory, description, MappingProxyType(facts))
            if name.endswith(":"):
                FAMILIES.add(name.removesuffix(":"))
            return factory

        return decorate

    def alias(self, name: str, spec: str, **arguments: Any) -> None:
        """Let another name stand for a spec of this registry.

        Args:
            name: what the user writes.
            spec: a name that is registered, or a member of a family.
            **arguments: that the name brings along; the user's own win.

        Raises:
            ValueError: the name is taken.
        """
        self._refuse_taken(name)
        self._aliases[name] = spec, arguments

    def aliases(self, entry: Entry[F]) -> list[str]:
        """Return the other names of an entry, or of a family's members, and what they stand for."""
        return [
            " ".join([f"{name} =", spec, *(f"{key}={value}" for key, value in arguments.items())])
            for name, (spec, arguments) in self._aliases.items()
            if self.get(spec) is entry
        ]

    def resolve(self, spec: str) -> tuple[str, dict[str, Any]]:
        """Return a spec as it is registered, and the arguments that its name brings along.

        A name that is written as it is registered is that one; otherwise names are the same that
        differ in case, ``_`` and ``-`` alone. What follows a family's colon stays as it is, and so
        does what is no name here (a plug-in, a slip of the pen).

        Example:
            >>> SHAPES: Registry = Registry("shape")
            >>> SHAPES.register("right-triangle", "three sides")(print)
            <built-in function print>
            >>> SHAPES.alias("Set_Square", "right-triangle", angle=45)
            >>> SHAPES.resolve("Right_Triangle"), SHAPES.resolve("setsquare")
            (('right-triangle', {}), ('right-triangle', {'angle': 45}))

        Raises:
            UnknownNameError: several names differ from it so.
        """
        head, colon, member = spec.partition(":")
        known = [*self._entries, *self._aliases]
        alike = [name for name in known if _plain(name) == _plain(head + colon)]
        if head + colon in known:
            alike = [head + colon]
        if len(alike) > 1:
            raise UnknownNameError(
                f"{self.kind} {spec!r} may be {' or '.join(alike)}, which are not the same; "
                "write the one that is meant in just this way"
            )
        if not alike:
            return spec, {}
        target, arguments = self._aliases.get(alike[0], (alike[0] + member, {}))
        return target, dict(arguments)

    def get(self, name: str) -> Entry[F]:
        """Return the entry of that name, or the family that a ``family:NAME`` belongs to.

        Raises:
            UnknownNameError: lists the near matches first, then every valid name.
        """
        family, colon, _ = self.resolve(name)[0].partition(":")
        if family + colon in self._entries:
            return self._entries[family + colon]
        valid = [*(entry.usage for entry in self), *self._aliases]
        heads = {entry.name: entry.usage for entry in self if entry.is_family}
        near = difflib.get_close_matches(family + ":", heads, n=1)
        suggestion = f"; did you mean {heads[near[0]]}? " if near else _suggest(name, valid)
        raise UnknownNameError(
            f"unknown {self.kind} {name!r}{suggestion}"
            f"valid: {', '.join(valid)}, or path/file.py:factory, module:factory"
        )

    def resembles(self, spec: str) -> bool:
        """Return whether what comes before a colon is a name of this registry, or nearly one."""
        heads = [name.removesuffix(":") for name in self._entries]
        return bool(difflib.get_close_matches(spec.partition(":")[0], heads, n=1))

    def has_family(self, spec: str) -> bool:
        """Return whether a spec is ``family:...`` of a registered family, whatever follows."""
        family, colon, _ = self.resolve(spec)[0].partition(":")
        return bool(colon) and family + colon in self._entries

    def names(self) -> list[str]:
        """Return all names, in the order of registration; those of families end in ":"."""
        return list(self._entries)

    def __iter__(self) -> Iterator[Entry[F]]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def _refuse_taken(self, name: str) -> None:
        if name in self._entries or name in self._aliases:
            raise ValueError(f"{self.kind} {name!r} is registered already")


@dataclass(frozen=True)
class Factory(Generic[F]):
    """What a spec stands for: call it as the function itself.

    Attributes:
        spec: as it is registered, or as the user wrote it.
        function: the bare callable, whose signature counts; of a family, with `name` filled in,
            of an alias with the arguments that it brings along.
        entry: the registered entry, None for a plug-in.
        plugin: the plug-in, None for a registered name.
    """

    spec: str
    function: F
    entry: Entry[F] | None = None
    plugin: Plugin | None = None

    @property
    def file(self) -> Path | None:
        """The plug-in's file."""
        return self.plugin.file if self.plugin else None

    @property
    def sha256(self) -> str | None:
        """Of the plug-in's file."""
        return self.plugin.sha256 if self.plugin else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what the spec stands for; a plug-in with its modules in place."""
        return (self.plugin or self.function)(*args, **kwargs)


def is_path(spec: str) -> bool:
    """Return whether a spec means a file: it then never stands for a name."""
    return ".py:" in spec or spec.endswith(".py") or "/" in spec or os.sep in spec


def is_plugin(spec: str, registry: Registry[Any]) -> bool:
    """Return whether a spec means a plug-in, not what follows the colon of a family."""
    return (is_path(spec) or is_module_spec(spec)) and not registry.has_family(spec)


def load_factory(spec: str, registry: Registry[F]) -> Factory[F]:
    """Find what ``name``, ``family:NAME``, ``path/file.py:factory`` or ``module:factory`` means.

    Raises:
        UnknownNameError: no such name, several of which differ from it in case, ``_`` and ``-``
            alone, or a family without a member.
        PluginError: the file or its attribute cannot be had; says what was expected and found.
    """
    if is_plugin(spec, registry):
        if is_module_spec(spec) and installed_module(spec) is None and registry.resembles(spec):
            registry.get(spec)  # a slip of the pen, rather than a module that is not installed
        plugin = load_plugin(spec)
        return Factory(spec, plugin.function, plugin=plugin)  # type: ignore[arg-type]
    entry = registry.get(spec)
    spec, arguments = registry.resolve(spec)
    function: Any = entry.factory
    if entry.is_family:
        if not (member := spec.removeprefix(entry.name)):
            raise UnknownNameError(
                f"{spec} lacks what follows the colon; write it as {entry.usage}"
            )
        function = _member(function, member)
    if arguments:
        function = functools.partial(function, **arguments)
    return Factory(spec, function, entry=entry)


def _member(factory: F, name: str) -> F:
    """Return the factory with its parameter `name` filled in and out of sight."""

    def build(*args: Any, **kwargs: Any) -> Any:
        if "name" in kwargs:
            raise ArgumentError("the argument 'name' is what follows the colon; leave it out")
        return factory(*args, name=name, **kwargs)

    signature = inspect.signature(factory)
    visible = [p for p in signature.parameters.values() if p.name != "name"]
    build.__signature__ = signature.replace(parameters=visible)  # type: ignore[attr-defined]
    return build  # type: ignore[return-value]


def call_with_arguments(
    factory: Callable[..., Any],
    arguments: Mapping[str, Any],
    context: Mapping[str, Any],
    what: str,
    positional: tuple[Any, ...] = (),
) -> Any:
    """Call ``factory(*positional, **keywords)``.

    Args:
        factory: a `Factory` or any callable.
        arguments: what the user gave; each must be an argument of the factory.
        context: what is known without the user; those the signature names are passed, unless the
            user gave them or they are None.
        what: for messages, as "model 'fashion-cnn'".
        positional: passed first.

    Raises:
        ArgumentError: an unknown or missing argument, or one that is not the int, float or bool
            its annotation asks for; names the valid ones.
    """
    function = factory.function if isinstance(factory, Factory) else factory
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some C callables have no signature
        return factory(*positional, **arguments)
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [p.name for p in parameters if p.kind in by_position][: len(positional)]
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {p.name: p for p in parameters if p.kind in by_name and p.name not in taken}
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    valid = ", ".join(str(p.replace(annotation=p.empty)) for p in named.values()) or "none"
    for name, value in arguments.items():
        if name not in named and (not open_ended or name in taken):
            raise ArgumentError(
                f"{what} has no argument {name!r}{_suggest(name, named)}valid: {valid}"
            )
        if name in named:
            _check_type(named[name], value, what)
    known = {k: v for k, v in context.items() if k in named and v is not None}
    keywords = {**known, **arguments}
    missing = [n for n, p in named.items() if p.default is p.empty and n not in keywords]
    if missing:
        raise ArgumentError(
            f"{what} needs a value for {', '.join(missing)}; give it as {missing[0]}=VALUE"
        )
    return factory(*positional, **keywords)


def parse_arguments(pairs: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs: true, false, none, numbers and lists; anything else is a string.

    Example:
        >>> parse_arguments(["depth=16", "widths=[8, 12]", "pool=none", "head=gap"])
        {'depth': 16, 'widths': [8, 12], 'pool': None, 'head': 'gap'}

    Raises:
        ArgumentError: no ``=``, a key that is no name, or one given twice.
    """
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ArgumentError(f"expected key=value, got {pair!r}")
        if key in arguments:
            raise ArgumentError(f"argument {key!r} is given twice; give it once")
        arguments[key] = _parse_value(text)
    return arguments


def _parse_value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's grammar, as in '\\d' or 0in
            return ast.literal_eval(text)
    # A list as a key; brackets nested deeper than Python reads.
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _check_type(parameter: inspect.Parameter, value: Any, what: str) -> None:
    annotation = str(getattr(parameter.annotation, "__name__", parameter.annotation))
    kind = annotation.removesuffix(" | None")
    fits = {
        # Beyond 64 bits no generator takes a seed, and no array a size.
        "int": type(value) is int and -(2**63) <= value < 2**63,
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "bool": isinstance(value, bool),
    }.get(kind, True)
    if not (fits or (value is None and kind != annotation)):
        raise ArgumentError(f"{what}: {parameter.name} expects {annotation}, got {value!r}")


def _plain(name: str) -> str:
    """Return what is left of a name where case, ``_`` and ``-`` do not count."""
    return name.casefold().replace("_", "").replace("-", "")


def _suggest(name: str, names: Iterable[str]) -> str:
    alike: dict[str, list[str]] = {}
    for valid in names:
        alike.setdefault(_plain(valid), []).append(valid)
    near = [n for m in difflib.get_close_matches(_plain(name), alike, n=3) for n in alike[m]]
    return f"; did you mean {' or '.join(near)}? " if near else "; "
