"""The register of data sources, and what can be wrong with data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from isoloss.errors import IsolossError
from isoloss.registry import Registry

#: factory(data_dir, **arguments) -> {"train": D, "test": D, "val": D?, "info": DataInfo?};
#: the fact `default_model` names the network to train where the user names none, `splits` what the
#: argument `split` may be. Its "facts" say under "test_chosen" what chose the test split, where the
#: source does not say which samples are in it.
DATASETS: Registry[Callable[..., Mapping[str, Any]]] = Registry("data set")


class DataError(IsolossError, ValueError):
    """Data that cannot be used as they are."""


class DataMissingError(IsolossError, FileNotFoundError):
    """Files that are not where they were looked for."""


class DownloadError(IsolossError, ConnectionError):
    """Files that could not be fetched."""
