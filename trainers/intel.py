"""Intel's extension for PyTorch, kept out of the process unless it is asked for and fits."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata

from torch import nn
from torch.optim import Optimizer

from isoloss.errors import IsolossError

PACKAGE, MODULE = "intel-extension-for-pytorch", "intel_extension_for_pytorch"


class IntelError(IsolossError, RuntimeError):
    """An extension that is missing or was built for another torch."""


def check_intel() -> str:
    """Return the version of the extension, after making sure that it can be imported.

    Importing one that was built for another torch can end the process without an exception, so
    the versions are read from the packages' metadata: major and minor number must agree.

    Raises:
        IntelError: If the extension is missing or does not fit.
    """
    torch_version = metadata.version("torch")
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        raise IntelError(
            f"`intel`: expected the package {PACKAGE}, which is not installed\n"
            "install the extra 'intel' (torch 2.8 with the extension): pip install -e '.[intel]'"
        ) from None
    if _series(version) != _series(torch_version):
        raise IntelError(
            f"`intel`: expected torch {_series(version)} for {PACKAGE} {version}, "
            f"got torch {torch_version}\n"
            "install the extra 'intel' in an environment of its own: pip install -e '.[intel]'"
        )
    return version


def intel_is_loaded() -> bool:
    """Return whether the extension is in this process, where it replaces kernels of torch."""
    return MODULE in sys.modules


def optimise(model: nn.Module, optimizer: Optimizer, *, fused: bool) -> Optimizer:
    """Hand a network and its optimizer to the extension.

    The network is changed in place. Its weights stay float32, also for training under bf16
    autocast: SAM's perturbation would drown in the 8 bits of bf16 weights. They keep their layout,
    too, so that checkpoints and optimizer states are those of a plain run.

    Args:
        model: The network, in training mode afterwards.
        optimizer: Over its parameters; for SAM the base.
        fused: Whether the optimizer's step is replaced by a fused one. SAM needs the plain one:
            it steps from weights that were moved and moved back.

    Returns:
        The optimizer to use.

    Raises:
        IntelError: If the extension is missing or does not fit.
    """
    check_intel()
    ipex = importlib.import_module(MODULE)

    model.train()
    _, optimised = ipex.optimize(
        model,
        optimizer=optimizer,
        inplace=True,
        weights_prepack=False,
        split_master_weight_for_bf16=False,
        fuse_update_step=fused,
    )
    return optimised


def _series(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[:2])
