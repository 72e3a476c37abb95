"""Text files of numbers without a header, every row of which counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isoloss.datasets.catalogue import DataError


def read_numbers(
    file: Path, columns: int | None = None, *, whole: bool = False
) -> NDArray[np.float64]:
    """Read rows of comma-separated numbers, from the very first one.

    Args:
        file: to read.
        columns: how many there must be; as many as in the first row if None.
        whole: whether all must be whole numbers.

    Returns:
        (rows, columns).

    Raises:
        DataError: names the first line that does not fit, what was expected and found.
    """
    import pandas  # takes half a second to import

    try:
        table = pandas.read_csv(file, header=None, dtype=np.float64, skip_blank_lines=False)
    except pandas.errors.EmptyDataError:
        raise DataError(f"{file}: expected numbers, got an empty file") from None
    except ValueError as error:
        # Pandas says what, but not in which line. (NumPy counts rows from 0 where a cell is no
        # number, from 1 where one is missing, and empty lines not at all.)
        raise DataError(_first_bad_line(file, columns) or f"{file}: {error}") from None
    values: NDArray[np.float64] = table.to_numpy(copy=True)  # its own view is read-only
    if not np.isfinite(values).all() or values.shape[1] != (columns or values.shape[1]):
        # A row that is short has been filled up with NaN.
        raise DataError(_first_bad_line(file, columns) or f"{file}: cannot be read as numbers")
    # Above 2^53 not every whole number is a float64, and two may have become one.
    if whole and (bad := np.argwhere((values % 1 != 0) | (np.abs(values) > 2**53))).size:
        row, column = bad[0]
        raise DataError(
            f"{file}, line {row + 1}: expected whole numbers up to 2^53, got "
            f"{values[row, column]:g} in column {column + 1}"
        )
    return values


def _first_bad_line(file: Path, columns: int | None) -> str | None:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            cells = line.strip().split(",")
            columns = columns or len(cells)
            expected = f"{file}, line {number}: expected {columns} number{'s' * (columns > 1)}"
            if cells == [""]:
                return f"{expected}, got an empty line"
            if len(cells) != columns:
                return f"{expected}, got {len(cells)}"
            for column, cell in enumerate(cells, 1):
                if not _is_number(cell):
                    return f"{expected}, got {cell.strip()!r} in column {column}; mend or remove it"
    return None


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
