"""Which parameters of a network move; the others are constants of the function."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from isoloss.errors import UsageError

# JSON-able: "trainable", "all" or the patterns.
Selection = str | list[str]


class SelectionError(UsageError, ValueError):
    """A choice of parameters that leaves none."""


def select_parameters(
    model: nn.Module, patterns: str | Sequence[str] | None
) -> tuple[list[str], Selection]:
    """Choose parameters by name.

    Args:
        model: The network, with the `requires_grad` of its user.
        patterns: None or "trainable" for those with `requires_grad`, "all", or glob patterns
            over names as in `fnmatch` (`"layer4.*"`, `"*.weight"`), frozen parameters included.
            A leading `!` excludes, in any order; exclusions alone start from the trainable ones.

    Returns:
        The names in the network's order, and the selection in the form that is stored, patterns
        sorted.

    Raises:
        SelectionError: If nothing is selected.
    """
    named = {n: p for n, p in model.named_parameters() if p.is_floating_point()}
    if not named:
        raise SelectionError(f"expected a network with parameters, {type(model).__name__} has none")
    trainable = [name for name, parameter in named.items() if parameter.requires_grad]
    given = [patterns] if isinstance(patterns, str) else list(patterns or [])
    if given in ([], ["trainable"]):
        return _refuse_none(trainable, named, "trainable"), "trainable"
    if given == ["all"]:
        return list(named), "all"
    included = [pattern for pattern in given if not pattern.startswith("!")]
    excluded = [pattern[1:] for pattern in given if pattern.startswith("!")]
    for pattern in (*included, *excluded):
        if not any(fnmatchcase(name, pattern) for name in named):
            raise SelectionError(
                f"expected a pattern that matches parameters, {pattern!r} matches none of "
                f"{len(named)}: {_some(named)}"
            )
    chosen = [name for name in named if _any(name, included)] if included else trainable
    chosen = [name for name in chosen if not _any(name, excluded)]
    return _refuse_none(chosen, named, " ".join(given)), sorted(set(given))


def _any(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _refuse_none(chosen: list[str], named: dict[str, nn.Parameter], asked: str) -> list[str]:
    if not chosen:
        raise SelectionError(
            f"expected parameters that move, {asked} leaves none of {len(named)}: {_some(named)}\n"
            "parameters with requires_grad=False are frozen: choose with parameters='all' or glob "
            "patterns (--parameters PATTERN)"
        )
    return chosen


def _some(named: dict[str, nn.Parameter]) -> str:
    names = list(named)
    return ", ".join(names[:4]) + (", .." if len(names) > 4 else "")
