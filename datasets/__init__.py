"""The data: one source a file, delivered as splits in a fixed order."""

from __future__ import annotations

from datasets import cifar as cifar  # each registers its sources
from datasets import digits as digits
from datasets import mitbih as mitbih
from datasets import mnist as mnist
from datasets import npz as npz
from datasets import synthetic as synthetic
from datasets import tu as tu
from datasets.augment import AUGMENTATIONS, Augmentation, create_augmentation
from datasets.catalogue import DATASETS, DataError, DataMissingError, DownloadError
from datasets.graphs import GraphSplit
from datasets.info import DataInfo, Normalisation
from datasets.loading import Data, default_model, load_data
from datasets.splits import Split, TensorSplit, balanced_indices, stratified_indices

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "Augmentation",
    "Data",
    "DataError",
    "DataInfo",
    "DataMissingError",
    "DownloadError",
    "GraphSplit",
    "Normalisation",
    "Split",
    "TensorSplit",
    "balanced_indices",
    "create_augmentation",
    "default_model",
    "load_data",
    "stratified_indices",
]
