"""The data: one source a file, delivered as splits in a fixed order."""

from __future__ import annotations

from datasets import digits as digits  # each registers its sources
from datasets import mnist as mnist
from datasets.catalogue import DATASETS, DataError, DataMissingError, DownloadError
from datasets.info import DataInfo, Normalisation
from datasets.loading import Data, default_model, load_data
from datasets.splits import Split, TensorSplit, balanced_indices, stratified_indices

__all__ = [
    "DATASETS",
    "Data",
    "DataError",
    "DataInfo",
    "DataMissingError",
    "DownloadError",
    "Normalisation",
    "Split",
    "TensorSplit",
    "balanced_indices",
    "default_model",
    "load_data",
    "stratified_indices",
]
