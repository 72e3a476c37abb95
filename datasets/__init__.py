"""The data: one source a file, delivered as splits in a fixed order."""

from __future__ import annotations

from isoloss.datasets import cifar as cifar  # each registers its sources
from isoloss.datasets import digits as digits
from isoloss.datasets import mitbih as mitbih
from isoloss.datasets import mnist as mnist
from isoloss.datasets import npz as npz
from isoloss.datasets import synthetic as synthetic
from isoloss.datasets import tu as tu
from isoloss.datasets.augment import AUGMENTATIONS, Augmentation, create_augmentation
from isoloss.datasets.catalogue import DATASETS, DataError, DataMissingError, DownloadError
from isoloss.datasets.graphs import GraphSplit
from isoloss.datasets.grouping import grouped_indices
from isoloss.datasets.info import DataInfo, Normalisation
from isoloss.datasets.loading import Data, default_model, load_data
from isoloss.datasets.nodes import NodeSplit
from isoloss.datasets.splits import (
    TensorSplit,
    balanced_indices,
    proportional_indices,
    stratified_indices,
)
from isoloss.datasets.structures import StructureSplit
from isoloss.split import Split

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
    "NodeSplit",
    "Normalisation",
    "Split",
    "StructureSplit",
    "TensorSplit",
    "balanced_indices",
    "create_augmentation",
    "default_model",
    "grouped_indices",
    "load_data",
    "proportional_indices",
    "stratified_indices",
]
