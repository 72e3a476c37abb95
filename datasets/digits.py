"""scikit-learn's embedded 8x8 digits: the default, as nothing needs to be fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

from isoloss.datasets.catalogue import DATASETS, DataError
from isoloss.datasets.info import DataInfo, Normalisation
from isoloss.datasets.splits import stratified_indices

TEST_FRACTION = 0.2


@DATASETS.register(
    "digits",
    "1,797 handwritten digits of 8x8, enlarged to 28x28 (embedded in scikit-learn); size=8: as is",
    default_model="fashion-cnn",
)
def digits(data_dir: Path, seed: int = 0, size: int = 28) -> dict[str, Any]:
    """Load the digits, enlarged bilinearly to (1, size, size), in [0, 1].

    The test split of scikit-learn's UCI copy is all there is: 20 % of it, chosen by `seed` class
    by class, become our test split.

    Args:
        data_dir: not used.
        seed: of the choice of test samples.
        size: height and width of an image: 8, as they are, or more.

    Raises:
        DataError: for a size below 8.
    """
    if size < 8:
        raise DataError(f"digits: expected size 8 (the images as they are) or more, got {size}")
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import

    source = load_digits()
    images = torch.from_numpy(source.images).float()[:, None] / 16
    if size > 8:
        images = interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    labels = torch.from_numpy(source.target).long()
    test, train = stratified_indices(labels, TEST_FRACTION, seed)
    info = DataInfo(
        input_shape=(1, size, size),
        num_classes=10,
        class_names=tuple(str(digit) for digit in range(10)),
        num_features=size * size,
        normalisation=Normalisation((0.0,), (1.0,), "grey levels 0 to 16 divided by 16"),
    )
    return {
        "train": (images[train], labels[train]),
        "test": (images[test], labels[test]),
        "info": info,
        "facts": {"test_chosen": f"{100 * TEST_FRACTION:g} % of each class, seed={seed}"},
    }
