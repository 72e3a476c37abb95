"""The command line of a command, made from the options that its settings declare.

    @command(SurfaceSettings, Selection, Output)
    def surface(settings: SurfaceSettings, selection: Selection, output: Output) -> None: ..

The command line holds no default: what is not given is left to the dataclass.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import typer

from isoloss.errors import IsolossError, UsageError, is_out_of_memory
from isoloss.experiments.options import Option, Options, declared, make, parse


class CommandError(Exception):
    """What a command prints instead of a result.

    Attributes:
        exit_code: 2 where the command line is wrong, 1 for everything else.
    """

    def __init__(self, error: IsolossError, options: Mapping[str, Option]) -> None:
        super().__init__(with_flags(str(error), options))
        self.exit_code = 2 if isinstance(error, UsageError) else 1


@dataclass(frozen=True)
class Given:
    """Asks for the options that are given, by name, where a file may hold the others."""

    options: type[Options]


class Command(Protocol):
    """A function of texts, one for each option, with the dataclasses that declare them."""

    groups: list[type[Options]]
    __call__: Callable[..., None]


def command(
    *groups: type[Options] | Given, torchrun: bool = False
) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function of instances of dataclasses of options.

    Args:
        *groups: The dataclasses, in the order of the function's arguments; `Given(cls)` hands a
            dictionary of those options of `cls` that are on the command line.
        torchrun: Whether several processes that torchrun started may work on it together.

    Returns:
        A decorator. The command's signature is what typer makes the options of.
    """
    classes = [group.options if isinstance(group, Given) else group for group in groups]
    options = {option.name: option for cls in classes for option in declared(cls)}
    if len(options) < sum(len(declared(cls)) for cls in classes):
        raise TypeError(f"expected each option once, in {', '.join(c.__name__ for c in classes)}")

    def decorate(function: Callable[..., None]) -> Command:
        def run(**texts: Any) -> None:
            try:
                if not torchrun:
                    refuse_several_processes()
                given = {
                    name: parse(options[name], text)
                    for name, text in texts.items()
                    if text not in (None, [], ())
                }
                with _printing(given.get("as_json", False)):
                    function(*(_fill(group, given) for group in groups))
            except IsolossError as error:
                raise CommandError(error, options) from error
            except SystemExit as error:
                raise CommandError(_left(error), options) from error
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise CommandError(_out_of_memory(error, options), options) from error

        made: Any = functools.update_wrapper(run, function)
        made.__signature__ = inspect.Signature([_parameter(o) for o in options.values()])
        made.__annotations__ = {}
        made.groups = classes
        return cast(Command, made)

    return decorate


def refuse_several_processes() -> None:
    """Raise `UsageError` where torchrun started several."""
    if (size := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise UsageError(
            f"expected one process, got WORLD_SIZE={size}: each would write the same files\n"
            "torchrun starts `train` and, at one checkpoint, `hessian`; start the others plainly"
        )


def _fill(group: type[Options] | Given, given: dict[str, Any]) -> Any:
    cls = group.options if isinstance(group, Given) else group
    own = {option.name: given[option.name] for option in declared(cls) if option.name in given}
    return own if isinstance(group, Given) else make(cls, own)


def _printing(as_json: bool) -> AbstractContextManager[None]:
    """Return what holds while a command runs: under `--json`, results alone are printed."""
    if not as_json:
        return nullcontext()
    from isoloss.commands.console import results_alone

    return results_alone()


def _left(error: SystemExit) -> IsolossError:
    """Return what to say of code of the user's that would end the process, whatever the status."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return IsolossError(
        f"expected a result, got an end of the program: sys.exit({error.code!r}) was called "
        f"[{place.filename}, line {place.lineno}: {place.line}]\n"
        "a network, loss or data set raises an error or returns; it does not leave the program"
    )


def _out_of_memory(error: Exception, options: Mapping[str, Option]) -> IsolossError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    smaller = [f"`{name}`" for name in ("batch_size", "samples", "fraction") if name in options]
    remedy = f"with a smaller {' or '.join(smaller)}, " if smaller else ""
    return IsolossError(f"out of memory: {reason[:200]}\ntry {remedy}or a larger machine")


def with_flags(text: str, options: Mapping[str, Option]) -> str:
    """Write the options that a text names in backticks as the command line does."""

    def written(match: re.Match[str]) -> str:
        option = options.get(match[1])
        return match[0] if option is None else spelling(option)[0]

    return re.sub(r"`([a-z_]+)`", written, text)


def dashed(name: str) -> str:
    """Return an option's name as it is declared: `_` may be written for each `-`."""
    return name.replace("_", "-")


def spelling(option: Option) -> list[str]:
    """Return how an option is written: "--loss", "--loss-name"; or "RUN" by its place."""
    if option.positional:
        return [option.name.upper()]
    names = (option.flag or option.name, *option.aliases)
    return list(dict.fromkeys(f"--{dashed(name)}" for name in names))


def stand_in(option: Option) -> str:
    """Return what stands for the value: "<int>", "train|test"; empty for a bool."""
    if option.metavar or bool in option.types:
        return option.metavar
    if dict in option.types:
        return "K=V"
    kinds = [f"<{t.__name__.lower()}>" for t in option.types if t is not str or not option.choices]
    return "|".join([*kinds, *option.choices, *filter(None, [option.none])])


def facts(option: Option) -> str:
    """Return default, bounds and environment variable in words: "5; 0 or more"."""
    default = option.otherwise
    if not default and isinstance(option.default, bool):
        default = ("no", "yes")[option.default] if option.off else ""
    elif not default and isinstance(option.default, int | float | str | Path):
        default = f"{option.default:g}" if option.types == (float,) else str(option.default)
    environment = f"env {option.env}" if option.env else ""
    return "; ".join(filter(None, [default, option.bounds, environment]))


def described(option: Option) -> str:
    """Return the help of an option: "Passes over the training split. [5; 0 or more]"."""
    return f"{option.help} [{found}]" if (found := facts(option)) else option.help


def _parameter(option: Option) -> inspect.Parameter:
    """Return the parameter of a function that typer makes the option of."""
    texts: dict[str, Any] = {"help": described(option), "show_default": False}
    if option.env:
        texts |= {"envvar": option.env, "show_envvar": False}
    kind: Any = str | None
    if bool in option.types:
        kind = bool | None
    else:
        texts["metavar"] = stand_in(option)
    if dict in option.types or tuple in option.types:
        kind = list[str] | None
    info: Any = typer.Option(*_declarations(option), **texts)
    if option.positional:
        info = typer.Argument(**texts)
    default = ... if option.required else None
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, info],
    )


def _declarations(option: Option) -> list[str]:
    first, *aliases = spelling(option)
    if option.off:
        first = f"{first}/--{option.off}"
    return [first, *aliases]
