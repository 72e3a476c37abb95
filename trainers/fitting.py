"""Weights put into a network: all of them or none, and what is wrong where they do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isoloss.trainers.errors import CheckpointError, shown
from isoloss.trainers.weight_search import strip_prefixes

# What programs call the network within what they save, Lightning's `model.` first: taken without
# asking, the first of these where several would fit, although other weights are left out.
KNOWN_PREFIXES = ("model.", "net.", "network.", "module.", "_orig_mod.", "_forward_module.")
EXAMPLES = 3


@dataclass(frozen=True)
class Fit:
    """How weights were matched with a network's names.

    Attributes:
        prefix: What was taken off the names in the file.
        added: What was put before them.
        left_out: Names in the file without that prefix, which are no part of the network.
        others: Prefixes that would have fitted as well.
    """

    prefix: str = ""
    added: str = ""
    left_out: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def load_into(model: nn.Module, weights: Mapping[str, Any], source: str) -> None:
    """Load weights into a network, all of them or none.

    Args:
        model: The network. Left as it is when the weights do not fit.
        weights: From `load_weights`, or any state dict.
        source: What to call the weights in an error, such as the file.

    Raises:
        CheckpointError: If names or shapes differ, or weights are of a kind that would be changed
            by loading them: integer where the network has floating point, complex, sparse, ..
    """
    own = model.state_dict()
    # Both sides without wrapper prefixes: the network may be wrapped, too.
    originals = dict(zip(strip_prefixes(own), own, strict=True))
    given = strip_prefixes(weights)
    _compare(type(model).__name__, {n: own[o] for n, o in originals.items()}, given, source)
    model.load_state_dict({originals[name]: value for name, value in given.items()})


def fits(model: nn.Module, weights: Mapping[str, Any]) -> bool:
    """Return whether weights fit a network by names and shapes, as `match_names` matches them."""
    try:
        named, _ = match_names(model, weights, "weights")
        _compare("a network", strip_prefixes(model.state_dict()), strip_prefixes(named), "weights")
    except CheckpointError:
        return False
    return True


def match_names(
    model: nn.Module, weights: Mapping[str, Any], source: str
) -> tuple[dict[str, Any], Fit]:
    """Give weights from elsewhere the names of a network, where words before them differ.

    Where all the network's names are in the file with the same words before them (`model.`,
    `encoder.`), those are taken off; where the network's names have words that the file's lack,
    they are put on. What has other words is left out beside `KNOWN_PREFIXES` alone.

    Args:
        model: The network.
        weights: Any state dict.
        source: What to call the weights in an error, such as the file.

    Returns:
        The weights, those without a match as they were, and what was done.

    Raises:
        CheckpointError: If the network fits a part of the weights that may not be the one meant.
    """
    own, given = strip_prefixes(model.state_dict()), strip_prefixes(weights)
    fit = _match(own, given, source)
    if fit.prefix:
        given = {n.removeprefix(fit.prefix): v for n, v in given.items() if n not in fit.left_out}
    return {fit.added + name: value for name, value in given.items()}, fit


def _required(names: Iterable[str]) -> list[str]:
    # Batch counts are younger than torch 1.0; torch fills them in.
    return [name for name in names if not name.endswith("num_batches_tracked")]


def _match(own: Mapping[str, Any], given: Mapping[str, Any], source: str) -> Fit:
    """Return the words to take off or to add so that names agree; none where nothing helps."""
    required, names = _required(own), _required(given)
    if not required or not names or all(name in given for name in required):
        return Fit()
    ends = [name.removesuffix(required[0]) for name in given if name.endswith(f".{required[0]}")]
    fitting = [p for p in ends if all(p + name in given for name in required)]
    for prefix in [*(known for known in KNOWN_PREFIXES if known in fitting), *fitting]:
        left_out = tuple(name for name in given if not name.startswith(prefix))
        if prefix in KNOWN_PREFIXES or not left_out:
            return Fit(prefix, "", left_out, tuple(p for p in fitting if p != prefix))
    # Part of another network, or the network itself beside a teacher: not for us to say.
    alike = [p for p in fitting if all(_shape(given[p + n]) == _shape(own[n]) for n in required)]
    if alike:
        raise CheckpointError(
            f"{source}: the network fits the weights under {shown(*alike[:8])} alone: are those "
            f"meant?\nchoose with `key`, such as {shown(alike[0])}"
        )
    for prefix in (n.removesuffix(names[0]) for n in required if n.endswith(f".{names[0]}")):
        if {prefix + name for name in names} == set(required):
            return Fit(added=prefix)
    return Fit()


def _compare(network: str, own: Mapping[str, Any], given: Mapping[str, Any], source: str) -> None:
    """Refuse weights that do not fit, saying how many do, and what is likely the reason."""
    shapes, kinds = {}, {}
    for name in own.keys() & given.keys():
        if _shape(given[name]) != _shape(own[name]):
            shapes[name] = f"{shown(name)}: expected {_shape(own[name])}, got {_shape(given[name])}"
        elif (wanted := _kind(own[name])) != (found := _kind(given[name])):
            kinds[name] = f"{shown(name)}: expected {wanted}, got {found}"
    shapes = {name: shapes[name] for name in own if name in shapes}
    kinds = {name: kinds[name] for name in own if name in kinds}
    missing = [name for name in _required(own) if name not in given]
    unexpected = [name for name in given if name not in own]
    problems = [
        *shapes.values(),
        *kinds.values(),
        *(f"{name}: missing" for name in missing),
        *(f"{shown(name)}: not in the network" for name in unexpected),
    ]
    if not problems:
        return
    more = f"; and {len(problems) - EXAMPLES} more" if len(problems) > EXAMPLES else ""
    fitting = len(own.keys() & given.keys()) - len(shapes) - len(kinds)
    raise CheckpointError(
        f"{source} does not fit {network}: {len(shapes)} other shapes, "
        + (f"{len(kinds)} of another kind, " if kinds else "")
        + f"{len(missing)} missing, {len(unexpected)} unexpected; {fitting} of {len(own)} fit\n"
        f"{'; '.join(problems[:EXAMPLES])}{more}\n"
        + _likely(own, given, list(shapes), missing, unexpected)
    )


def _likely(
    own: Mapping[str, Any],
    given: Mapping[str, Any],
    shapes: list[str],
    missing: list[str],
    unexpected: list[str],
) -> str:
    """Return what likely happened, and the remedy."""
    ordinary = "build the network the weights were trained with: same model, same arguments"
    if shapes and not missing and not unexpected:
        sides = [(_shape(own[name]) or (), _shape(given[name]) or ()) for name in shapes]
        first = {(a[:1], b[:1]) for a, b in sides}
        if len(sides) <= 2 and len(first) == 1 and all(a[1:] == b[1:] and a for a, b in sides):
            ((expected, got),) = first
            return (
                f"likely another number of classes, {got[0]} in the file and {expected[0]} here: "
                f"give the network's argument for it (`model_arg` num_classes={got[0]}), or the "
                "data the weights are of"
            )
        a, b = sides[0]
        if len(sides) == 1 and len(a) == len(b) >= 2 and (a[0], *a[2:]) == (b[0], *b[2:]):
            return (
                f"likely another number of input channels or features, {b[1]} in the file and "
                f"{a[1]} here: give the data the weights are of, or the network's argument for it"
            )
    if missing and unexpected:
        for short, long, where in ((missing, unexpected, "file"), (unexpected, missing, "network")):
            prefix = next(
                (n.removesuffix(s) for s in short[:1] for n in long if n.endswith(f".{s}")), ""
            )
            agreeing = sum(prefix + name in long for name in short) if prefix else 0
            if agreeing > len(short) / 2:
                return (
                    f"likely the same network within another: names in the {where} begin with "
                    f"{shown(prefix)}, and {len(short) - agreeing} differ beside that; {ordinary}"
                )
    return ordinary


def _kind(value: Any) -> str:
    """Return what kind of numbers a tensor holds, and how; copying would change them."""
    if not isinstance(value, Tensor):
        return "no tensor"
    if value.is_meta:
        return "a meta tensor, without values"
    if value.is_quantized:
        return "quantised numbers"
    if value.layout != torch.strided:
        return f"a tensor of layout {value.layout}"
    if value.dtype == torch.bool:
        return "booleans"
    if value.is_complex():
        return "complex numbers"
    return "floating point" if value.is_floating_point() else "integers"


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
