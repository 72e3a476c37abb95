"""Results as short tables: what a notebook prints of them, and data frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def aligned(table: Sequence[Mapping[str, str]]) -> str:
    """Return rows with the same keys in columns of equal width."""
    heads = list(table[0])
    widths = [max(len(head), *(len(row[head]) for row in table)) for head in heads]
    rows = [heads] + [[row[head] for head in heads] for row in table]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def data_frame(rows: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> pd.DataFrame:
    """Return rows, or columns, as a pandas data frame."""
    import pandas as pd  # half a second, which what is stored is read without

    return pd.DataFrame(rows)


def eigenvalue_rows(
    largest: tuple[Iterable[Any], Iterable[Any]],
    smallest: tuple[Iterable[Any] | None, Iterable[Any] | None],
    errors: Iterable[Any] | None = None,
) -> list[dict[str, Any]]:
    """Return eigenvalues with residuals, a row each.

    Args:
        largest: Eigenvalues, descending, and their residuals.
        smallest: Eigenvalues, ascending, and their residuals; None where not asked.
        errors: Standard errors of the largest over draws of the samples.

    Returns:
        Rows of `end` ("largest", "smallest"), `eigenvalue`, `residual`, and
        `sample_standard_error` where there are such (NaN for the smallest).
    """
    rows = []
    for end, (values, residuals) in (("largest", largest), ("smallest", smallest)):
        if values is not None and residuals is not None:
            pairs = zip(values, residuals, strict=True)
            rows += [{"end": end, "eigenvalue": float(v), "residual": float(r)} for v, r in pairs]
    if errors is not None:
        known = [float(error) for error in errors]
        for row, error in zip(rows, known + [math.nan] * (len(rows) - len(known)), strict=True):
            row["sample_standard_error"] = error
    return rows


def eigenvalue_text(rows: Sequence[Mapping[str, Any]], converged: bool, reason: str) -> str:
    """Return rows of `eigenvalue_rows` as a table, and below it whether they converged."""
    digits = {"eigenvalue": 7}
    table = [
        {
            name: value if isinstance(value, str) else f"{value:.{digits.get(name, 2)}g}"
            for name, value in row.items()
        }
        for row in rows
    ]
    return f"{aligned(table)}\n{'converged' if converged else 'NOT converged'}: {reason}"
