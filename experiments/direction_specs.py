"""What an axis of a surface may be, in words: `random`, `to:RUN`, `eigen:0`, .. No torch here."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from isoloss.experiments.options import OptionError


@dataclass(frozen=True)
class Kind:
    """A kind of direction.

    Attributes:
        argument: What stands after the colon; empty where nothing does.
        words: What it is, for people.
    """

    argument: str
    words: str


KINDS = {
    "random": Kind("", "a Gaussian draw"),
    "to": Kind("RUN", "to another checkpoint: RUN, RUN@epoch-3, @epoch-0 (of this run) or a FILE"),
    "eigen": Kind(
        "K",
        "eigenvector K of the run's hessian.h5, 0 the largest, -1 the smallest, or eigen:K:FILE",
    ),
    "gradient": Kind("", "that of the loss"),
    "pca": Kind(
        "K",
        "principal component K, from 0, of the run's epochs, or pca:K:RUN,RUN of those of several",
    ),
    "update": Kind("", "the last step of the run's optimizer"),
    "file": Kind("PATH", "the same axis of a surface or direction file; PATH:x or PATH:y"),
}

HELP = "; ".join(
    f"{name}{':' * bool(kind.argument)}{kind.argument} ({kind.words})"
    for name, kind in KINDS.items()
)


@dataclass(frozen=True)
class Spec:
    """What was asked for of an axis.

    Attributes:
        kind: A key of `KINDS`.
        argument: What stood after the colon; empty where nothing did.
        option: `xdir` or `ydir`, for errors.
    """

    kind: str
    argument: str
    option: str

    @property
    def axis(self) -> str:
        """`"x"` or `"y"`."""
        return self.option[0]

    def wrong(self, expected: str, got: str, remedy: str = "") -> OptionError:
        """Return the error that says what the axis expected."""
        advice = f"\n{remedy}" if remedy else ""
        return OptionError(self.option, f"expected {expected}, got {got}{advice}")


def parse_direction(text: str, option: str) -> Spec:
    """Read `kind` or `kind:argument`.

    Args:
        text: The words.
        option: `xdir` or `ydir`.

    Raises:
        OptionError: For an unknown kind, an argument that lacks or is one too many.
    """
    name, colon, argument = text.partition(":")
    spec = Spec(name, argument, option)
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"towards another run it is to:{text}"
        known = ", ".join(f"{k}{':' * bool(v.argument)}{v.argument}" for k, v in KINDS.items())
        raise spec.wrong(f"one of {known}", repr(text), hint)
    kind = KINDS[name]
    if kind.argument and not argument:
        raise spec.wrong(f"{name}:{kind.argument}, {kind.words}", repr(text))
    if colon and not kind.argument:
        raise spec.wrong(f"{name} alone", repr(text))
    return spec


def absolute_direction(text: str) -> str:
    """Return the same words with the path of a file that they name made absolute."""
    kind, colon, argument = text.partition(":")
    head, sep, last = argument.partition(":") if kind == "eigen" else ("", "", argument)
    end = re.search(r":[xy]$", last) if kind == "file" else None
    tail = end[0] if end else ""
    path = Path(last.removesuffix(tail))
    if not last or not path.is_file():
        return text
    return f"{kind}{colon}{head}{sep}{path.resolve()}{tail}"


def slug(text: str) -> str:
    """Return the words fit to be a part of a file's name: `to:b@epoch-3` as `to-b-epoch-3`."""
    parts = [Path(part).stem if "/" in part else part for part in text.split(":")]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(filter(None, parts))).strip("-.")
