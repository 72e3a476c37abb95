"""All eigenvalues of a dense matrix, as the HDF5 file of a spectrum holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isoloss.records.stored_group import StoredGroup


@dataclass(frozen=True)
class ExactData:
    """All eigenvalues of a dense matrix (see `hessian.exact`).

    Attributes:
        eigenvalues: (n,) descending.
        account: converged, reason, products, and the asymmetry of the products.
    """

    eigenvalues: np.ndarray
    account: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"ExactData({len(self.eigenvalues)} eigenvalues from "
            f"{self.eigenvalues.min():.4g} to {self.eigenvalues.max():.4g})"
        )


def read_exact(group: StoredGroup) -> ExactData:
    """Read the group `exact` of a file."""
    account = group.json("account", {"converged": (bool,), "reason": (str,)})
    return ExactData(group.array("eigenvalues", (None,)), account)
