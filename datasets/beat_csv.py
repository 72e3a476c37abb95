"""The CSV form of the MIT-BIH beats: one beat a row, 187 amplitudes and the label, no header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from isoloss.datasets.catalogue import DataError
from isoloss.datasets.tables import read_numbers

ADDRESS = "https://www.kaggle.com/datasets/shayanfazeli/heartbeat"
ROWS = {"mitbih_train.csv": 87_554, "mitbih_test.csv": 21_892}  # as published


def read_beats(file: Path, length: int, classes: int) -> tuple[Tensor, Tensor]:
    """Read one file, from its very first row.

    Args:
        file: a row for each beat: `length` amplitudes in [0, 1], then the label as a number.
        length: amplitudes of a beat.
        classes: number of classes; labels count from 0.

    Returns:
        Series (beats, length, 1) float32 and labels (beats,) int64.

    Raises:
        DataError: names the first line that is not such a row.
    """
    values = read_numbers(file, length + 1)
    series, labels = values[:, :-1], values[:, -1]
    outside = (series < 0) | (series > 1)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise DataError(
            f"{file}, line {row + 1}: expected amplitudes from 0 to 1, got "
            f"{series[row, column]:g} in column {column + 1}"
        )
    unknown = ~np.isin(labels, np.arange(classes))
    if unknown.any():
        row = int(unknown.argmax())
        raise DataError(
            f"{file}, line {row + 1}: expected a label from 0 to {classes - 1} in the last "
            f"column, got {labels[row]:g}"
        )
    return torch.from_numpy(series).float()[:, :, None], torch.from_numpy(labels).long()
