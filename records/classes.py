"""What means over classes make up of a Gauss-Newton matrix, as files of spectra hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from isoloss.records.stored_group import StoredGroup

PARTS = ("class", "cross", "same", "within")


@dataclass(frozen=True)
class ClassData:
    """Parts of G = G_class + G_cross + G_same + G_within (`hessian.class_structure`), C classes.

    Attributes:
        weights: Share of the loss's weight of class c predicted as class k, (C, C).
        of_class: Eigenvalues of G_class, (C,) descending.
        of_cross: The C (C - 2) eigenvalues of G_cross that need not be 0, descending.
        of_same: Eigenvalues of G_same, (C,) descending.
        along: u^T A u, A each of these three, of the eigenvectors u of the largest eigenvalues
            of G, (3, k).
        account: From how many samples, and how.
    """

    weights: np.ndarray
    of_class: np.ndarray
    of_cross: np.ndarray
    of_same: np.ndarray
    along: np.ndarray
    account: dict[str, Any]

    def __repr__(self) -> str:
        largest = ", ".join(f"{value:.4g}" for value in self.of_class[:3])
        return f"ClassData({len(self.weights)} classes, largest of G_class {largest})"


def shares_of_eigenvalues(classes: ClassData, eigenvalues: np.ndarray) -> dict[str, np.ndarray]:
    """Return which share of each eigenvalue of G each of `PARTS` makes up, (k,) each.

    What the means leave is within the classes; shares add up to 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = classes.along / eigenvalues
    return dict(zip(PARTS, [*shares, 1 - shares.sum(axis=0)], strict=True))


def shares_of_trace(
    classes: ClassData, trace: float, standard_error: float
) -> dict[str, tuple[float, float]]:
    """Return which share of the trace of G each of `PARTS` makes up, with its standard error.

    The traces of the means are exact: the error is that of the whole, s |d| / T of a share s.
    """
    if not (np.isfinite(trace) and trace):
        return dict.fromkeys(PARTS, (float("nan"), float("nan")))
    found = [
        float(part.sum()) / trace for part in (classes.of_class, classes.of_cross, classes.of_same)
    ]
    relative = abs(standard_error / trace)
    shares = [(share, abs(share) * relative) for share in found]
    rest = 1 - sum(found)
    return dict(zip(PARTS, [*shares, (rest, abs(sum(found)) * relative)], strict=True))


def class_summary(
    classes: ClassData, eigenvalues: np.ndarray | None, trace: tuple[float, float] | None
) -> dict[str, Any]:
    """Return the numbers for people: eigenvalues of the parts, and shares in those of G.

    Args:
        classes: Of G.
        eigenvalues: Largest ones of G, (k,), if known.
        trace: Of G with its standard error, if known.
    """
    found: dict[str, Any] = {
        "classes": len(classes.weights),
        "of_class": classes.of_class,
        "of_cross": classes.of_cross,
        "of_same": classes.of_same,
    }
    if eigenvalues is not None:
        shares = shares_of_eigenvalues(classes, eigenvalues)
        columns = zip(*shares.values(), strict=True)
        found["shares_of_eigenvalues"] = [dict(zip(shares, row, strict=True)) for row in columns]
    if trace is not None:
        found["shares_of_trace"] = {
            part: {"value": value, "standard_error": error}
            for part, (value, error) in shares_of_trace(classes, *trace).items()
        }
    return {**found, **classes.account}


def read_classes(group: StoredGroup) -> ClassData:
    """Read the group `classes` of a file."""
    weights = group.array("weights", (None, None))
    count = len(weights)
    of: Mapping[str, np.ndarray] = {
        "weights": group.array("weights", (count, count)),
        "of_class": group.array("of_class", (count,)),
        "of_cross": group.array("of_cross", (max(count * (count - 2), 0),)),
        "of_same": group.array("of_same", (count,)),
        "along": group.array("along", (3, None)),
    }
    return ClassData(**of, account=group.json("account", {}))
