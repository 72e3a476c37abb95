# ruff: noqa: RUF001  (signs as they are printed)
from __future__ import annotations

import math

import pytest

from isoloss.figures.formatting import number, with_error


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.03124, "0.0312"),
        (136.12, "136"),
        (12345.6, "12300"),
        (99.96, "100"),
        (-1.5, "\u22121.5"),
        (2.34e-4, "2.34×10⁻⁴"),
        (1e7, "10⁷"),
        (9.999e-4, "0.001"),  # the rounded value decides
        (math.nan, "nan"),
        (-math.inf, "\u2212inf"),
        (None, "\u2013"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (98.7612, 0.1134, "98.76 ± 0.11"),
        (1234.5, 56.7, "1234 ± 57"),
        (1234.5, 567.0, "1230 ± 570"),
        (24.3, 0.0996, "24.30 ± 0.10"),
        (2.5e6, 3.1e4, "(2.500 ± 0.031)×10⁶"),
        (0.0, 0.02, "0.000 ± 0.020"),
        (100.0, 0.0, "100"),
        (513.2, None, "513.2"),
        (math.nan, 1.0, "nan"),
        (None, 1.0, "\u2013"),
    ],
)
def test_with_error(value: float | None, error: float | None, text: str) -> None:
    assert with_error(value, error) == text
