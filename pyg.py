"""PyTorch Geometric, imported when graphs are asked for and without the Intel extension.

Importing torch_geometric imports intel_extension_for_pytorch wherever that is installed. This is
slow, and the extension replaces kernels of torch, so that the same run would give other numbers
on a machine that happens to have it. Whoever wants the extension imports it first: what is loaded
already stays.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

from isoloss.errors import IsolossError

EXTENSION = "intel_extension_for_pytorch"


class PygError(IsolossError, ImportError):
    """PyTorch Geometric cannot be imported."""


def import_pyg() -> Any:
    """Return the module torch_geometric, its subpackages (nn, data, datasets, ..) loaded.

    Raises:
        PygError: it is missing or broken.
    """
    # None in the table of modules makes Python refuse the import, which torch_geometric allows for.
    keep_out = EXTENSION not in sys.modules
    if keep_out:
        sys.modules[EXTENSION] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            # That torch_geometric uses torch.jit is nothing a user could change.
            warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            return importlib.import_module("torch_geometric")
    except ImportError as error:
        raise PygError(
            f"graph networks and graph data need torch-geometric: {error}\n"
            "install it with: pip install torch-geometric"
        ) from error
    finally:
        if keep_out:
            del sys.modules[EXTENSION]
