"""Which part of a checkpoint's content is the weights.

An entry named by the user; else the first of `WEIGHT_KEYS` that holds a state dict; else the
content itself where it is one; else the only entry that is. Entries are looked for at the top and
one level below (`{"ema": {"state_dict": ..}}`), and written with a dot: `ema.state_dict`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isoloss.trainers.errors import CheckpointError, shown

# Where other programs keep the weights, in the order they are looked for; averaged ones last.
WEIGHT_KEYS = (
    "state_dict",
    "model",
    "model_state_dict",
    "params",
    "net",
    "network",
    "weights",
    "module",
    "ema",
    "model_ema",
    "ema_state_dict",
    "state_dict_ema",
    "params_ema",
)
# Put before every name by DataParallel and DistributedDataParallel, and by torch.compile.
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
# Levels of dictionaries that weights are looked for in; a file may nest them without end.
DEEPEST = 4


@dataclass(frozen=True)
class Weights:
    """Weights found in a file, with an account of where.

    Attributes:
        tensors: By name, on the CPU, prefixes of wrappers taken off.
        key: The entry they are from; empty where the file is a state dict.
        others: Entries that could have been meant as well.
        prefix: What was taken off every name.
        summed: Whether the file has checksums, which were compared.
        digested: Whether a digest was stored beside it, which was compared.
        unpickled: Whether code from the file was run to read it.
    """

    tensors: dict[str, Any]
    key: str = ""
    others: tuple[str, ...] = ()
    prefix: str = ""
    summed: bool = False
    digested: bool = False
    unpickled: bool = False

    def not_finite(self) -> list[str]:
        """Return the names of the tensors that hold NaN or infinite values."""
        return [
            name
            for name, value in self.tensors.items()
            if isinstance(value, Tensor)
            and value.layout == torch.strided
            and not (value.is_meta or value.is_quantized)
            and (value.is_floating_point() or value.is_complex())
            and not (value if value.element_size() > 1 else value.float()).isfinite().all()
        ]


def find_weights(content: Mapping[Any, Any], path: Path, key: str | None = None) -> Weights:
    """Find the weights in what a file holds.

    Args:
        content: What the file holds; networks in it stand for their state dicts.
        path: The file, for messages.
        key: The entry to take, or what the names of the tensors to take begin with ("ema_model.").

    Raises:
        CheckpointError: If there are no weights, none of that key, or several that are meant as
            likely; names the entries that hold some.
    """
    found = _candidates(content)
    if key is not None:
        return _asked_for(found, content, path, key)
    known = [name for name in found if set(name.split(".")) & set(WEIGHT_KEYS)]
    taken = known[0] if known else "" if "" in found else next(iter(found), None)
    if taken is None:
        held = shown(*list(content)[:8]) or "nothing"
        raise CheckpointError(
            f"{path}: expected a state dict, or a dictionary with one under "
            f"{', '.join(WEIGHT_KEYS[:5])}, ..\ngot a dictionary with {held}"
        )
    if not known and taken and len(found) > 1:
        raise CheckpointError(
            f"{path} holds weights under {shown(*list(found)[:8])}: which are meant?\n"
            f"choose with `key`, such as {shown(taken)}"
        )
    names = set(_stripped(found[taken])[0])
    others = [
        o for o in found if o != taken and (o in known or set(_stripped(found[o])[0]) == names)
    ]
    return _weights(found[taken], taken, tuple(others))


def strip_prefixes(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Take the wrapper prefixes off that every name has."""
    return _stripped(weights)[0]


def is_state_dict(content: Any) -> bool:
    """Return whether something is a dictionary of tensors by name."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(
            isinstance(name, str) and (isinstance(value, Tensor) or name.endswith("_extra_state"))
            for name, value in _items(content)
        )
    )


def plain(content: Any, depth: int = DEEPEST) -> Any:
    """Return a dictionary, and those within it, as plain ones; anything else as it is.

    The methods of an `OrderedDict` from a file may be hidden by attributes of the same names, so
    they are not asked. A network becomes its state dict.
    """
    # Sparse tensors cannot be viewed so, and are refused by name later.
    if isinstance(content, Tensor) and content.layout == torch.strided:  # free of attributes, hooks
        return torch.Tensor.as_subclass(torch.Tensor.detach(content), torch.Tensor)
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, dict) or not depth:
        return content
    return {name: plain(value, depth - 1) for name, value in _items(content)}


def _items(content: dict[Any, Any]) -> Iterable[tuple[Any, Any]]:
    return OrderedDict.items(content) if isinstance(content, OrderedDict) else dict.items(content)


def _candidates(content: Mapping[Any, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the state dicts by entry: well-known names first, in their order, then the file's."""
    found: dict[str, Mapping[str, Any]] = {"": content} if is_state_dict(content) else {}
    for name, value in content.items():
        if is_state_dict(value):
            found[str(name)] = value
        elif isinstance(value, Mapping):
            within = [key for key in WEIGHT_KEYS if is_state_dict(value.get(key))]
            found |= {f"{name}.{key}": value[key] for key in within}
    rank = {name: position for position, name in enumerate(WEIGHT_KEYS)}

    def order(name: str) -> tuple[int, ...]:
        return tuple(rank.get(part, len(rank)) for part in name.split("."))

    return {name: found[name] for name in sorted(found, key=order)}


def _asked_for(
    found: Mapping[str, Mapping[str, Any]], content: Mapping[Any, Any], path: Path, key: str
) -> Weights:
    if key in found:
        return _weights(found[key], key)
    part: Any = content
    for name in key.split("."):
        part = dict.get(part, name) if isinstance(part, dict) else None
    if is_state_dict(part):
        return _weights(part, key)
    nested = [name for name in found if name.startswith(f"{key}.")]
    if nested:
        return _weights(found[nested[0]], nested[0], tuple(nested[1:]))
    beginning = key.rstrip(".") + "."
    for whole in found.values():  # an averaged network beside the plain one, in one state dict
        names = [name for name in whole if name.startswith(beginning)]
        if names:
            return _weights({name.removeprefix(beginning): whole[name] for name in names}, key)
    held = shown(*(name or "the file itself" for name in list(found)[:8])) or "none"
    state = "holds no weights" if part is not None else "is not in it"
    raise CheckpointError(
        f"{path}: `key` {shown(key)} {state}\nentries with weights: {held}; or give what the "
        "names of the tensors to take begin with"
    )


def _weights(found: Mapping[str, Any], key: str, others: tuple[str, ...] = ()) -> Weights:
    tensors, prefix = _stripped(found)
    return Weights(tensors, key, others, prefix)


def _stripped(weights: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    names, taken = dict(weights), ""
    while prefix := next((p for p in WRAPPER_PREFIXES if _all_start(names, p)), ""):
        names, taken = {n.removeprefix(prefix): v for n, v in names.items()}, taken + prefix
    return names, taken


def _all_start(names: Mapping[str, Any], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)
