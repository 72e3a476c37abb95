"""One entry: from a name or a plug-in to splits that are ready for training and evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isoloss.datasets.catalogue import DATASETS, DataError
from isoloss.datasets.conversion import convert
from isoloss.datasets.grouping import grouped_indices, mixes_groups
from isoloss.datasets.info import DataInfo
from isoloss.datasets.splits import stratified_indices
from isoloss.registry import call_with_arguments, is_plugin, load_factory, undone
from isoloss.split import Split


@dataclass(frozen=True)
class Data:
    """The splits of a data set.

    Attributes:
        train: what is trained on.
        val: what choices are made on; None if none was asked for.
        test: always whole.
        info: facts of the data.
        provenance: JSON-able: what `load_data` was given, where the validation split is from,
            sizes, numbers of groups and digests of the splits, the source's own facts (which
            files, what was left out and why), file and SHA-256 of a plug-in.
    """

    train: Split
    val: Split | None
    test: Split
    info: DataInfo
    provenance: dict[str, Any]


def load_data(
    spec: str,
    arguments: Mapping[str, Any] | None = None,
    data_dir: str | Path = "data",
    *,
    fraction: float = 1.0,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    download: bool = False,
) -> Data:
    """Load a data set.

    Where the source has no validation split, `val_fraction` of the train split is set aside, the
    same share of each class; whole groups where samples belong together, unless the test split has
    those of the train split (`mixes_groups`). That comes first, `fraction` second, and both depend
    on `split_seed` alone: runs of any training seed share their samples, and what a small fraction
    validates or trains on is part of what a larger one does.

    Example:
        >>> data = load_data("digits", fraction=0.5)
        >>> len(data.train), len(data.val), len(data.test)
        (647, 72, 359)

    Args:
        spec: a name of `DATASETS` or ``path/file.py:factory``.
        arguments: the user's, by name.
        data_dir: the folder files are looked for in.
        fraction: share of train and val to keep, in (0, 1], with the same number of samples from
            each class as far as there are enough. The test split is kept whole, so that figures of
            different fractions compare.
        val_fraction: in [0, 1).
        split_seed: of both choices.
        download: whether missing files may be fetched.

    Raises:
        DataError: fractions out of range, or data that cannot be used.
        DataMissingError: files that are not there.
        DownloadError: files that could not be fetched.
        UnknownNameError: no such data set.
        ArgumentError: unknown or missing arguments.
        PluginError: a plug-in that cannot be loaded or fails.
    """
    if not 0 < fraction <= 1:
        raise DataError(f"expected a fraction above 0 and up to 1, got {fraction}")
    if not 0 <= val_fraction < 1:
        raise DataError(f"expected a validation fraction from 0 to below 1, got {val_fraction}")
    what = f"data set {spec!r}"
    factory = load_factory(spec, DATASETS)
    with undone():  # a plug-in's data may be drawn while they are read
        returned = call_with_arguments(
            factory, arguments or {}, {"download": download}, what, positional=(Path(data_dir),)
        )
        splits, info = convert(returned, what)
    val_from = "source"
    if "val" not in splits:
        train = splits["train"]
        if train.groups is None or mixes_groups(train, splits["test"]):
            aside, rest = stratified_indices(train.targets, val_fraction, split_seed)
        else:
            aside, rest = grouped_indices(train.targets, train.groups, val_fraction, split_seed)
        if len(aside):
            splits["val"], splits["train"] = train.subset(aside), train.subset(rest)
        val_from = "train" if len(aside) else "none"
    for name in ("train", "val"):
        if name in splits:
            count = max(1, round(fraction * len(splits[name])))
            splits[name] = splits[name].balanced(count, split_seed)
    digests = {name: splits[name].digest() for name in sorted(splits)}
    grouped = {name: split.groups for name, split in splits.items() if split.groups is not None}
    provenance = {
        "spec": spec,
        "arguments": dict(arguments or {}),
        "data_dir": str(Path(data_dir).resolve()),
        "fraction": fraction,
        "val_fraction": val_fraction,
        "val_from": val_from,
        "split_seed": split_seed,
        "samples": {name: len(splits[name]) for name in sorted(splits)},
        "groups": {name: len(grouped[name].unique()) for name in sorted(grouped)},
        "digests": digests,
        "source": dict(returned.get("facts", {})),
        "notes": list(info.notes),
        "plugin_file": str(factory.file) if factory.file else None,
        "plugin_sha256": factory.sha256,
    }
    digest = hashlib.sha256("".join(f"{n} {d}\n" for n, d in digests.items()).encode()).hexdigest()
    return Data(
        splits["train"], splits.get("val"), splits["test"], replace(info, digest=digest), provenance
    )


def default_model(spec: str) -> str | None:
    """Return the network a data set is trained with unless one is named; None for a plug-in."""
    if is_plugin(spec, DATASETS):
        return None
    return DATASETS.get(spec).facts["default_model"]
