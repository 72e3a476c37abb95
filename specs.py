"""What a spec of a plug-in means, and what identifies it, without importing anything.

``path/file.py:attribute`` is a file; it is identified by its SHA-256. ``module:attribute`` is an
installed module; it is identified by the version of the distribution that it comes from. A prefix
that a registry knows wins over a module of that name: ``torchvision:resnet18`` is a registered
network, ``torchvision.models:resnet18`` a module's.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# What comes before the colon of registered families; `Registry.register` adds to it.
FAMILIES: set[str] = set()

_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_MODULE_SPEC = re.compile(f"{_NAME}:{_NAME}")


def is_module_spec(spec: str) -> bool:
    """Return whether a spec is ``module:attribute``, and not of a file or a registered family."""
    family = spec.partition(":")[0]
    return bool(_MODULE_SPEC.fullmatch(spec)) and ".py:" not in spec and family not in FAMILIES


def installed_module(spec: str) -> ModuleSpec | None:
    """Return where the module of ``module:attribute`` is; None where it is not, and for others."""
    if not is_module_spec(spec):
        return None
    try:
        return find_spec(spec.partition(":")[0])
    except (ImportError, ValueError):  # a parent that is not there, or is no package
        return None


def plugin_file(spec: str) -> Path | None:
    """Return the file of a plug-in ``path/file.py:attribute``; None for a registered name."""
    file, separator, _ = spec.rpartition(".py:")
    return Path(f"{file}.py") if separator else None


def absolute_spec(spec: str) -> str:
    """Return a spec that means the same from any folder."""
    file = plugin_file(spec)
    try:
        return spec if file is None else f"{file.resolve()}:{spec.rpartition(':')[2]}"
    except (OSError, ValueError, RuntimeError):  # no path: `load_plugin` says so
        return spec


def plugin_sha256(spec: str) -> str | None:
    """Return the SHA-256 of a plug-in's file; None for a registered name."""
    file = plugin_file(spec)
    try:
        if file is None or not file.is_file():
            return None
    except (OSError, ValueError):  # no path: `load_plugin` says so
        return None
    return hashlib.sha256(file.read_bytes()).hexdigest()


def plugin_version(spec: str) -> str | None:
    """Return what a module's code is known by; None for other specs and where it is not installed.

    That is the version of its distribution, as ``timm==1.0.19``; of code that changes without a
    new version (an editable installation, a module on the path) the SHA-256 of the module's file.
    """
    found = installed_module(spec)
    if found is None:
        return None
    names = _distributions(found.name.partition(".")[0])
    pinned = sorted(f"{name}=={importlib.metadata.version(name)}" for name in names)
    if pinned and not any(map(_is_editable, names)):
        return ", ".join(pinned)
    file = Path(found.origin or "")
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "unknown"
    return ", ".join([*pinned, f"sha256:{digest}"])


def plugin_identity(spec: str) -> str | None:
    """Return the SHA-256 of a file or the version of a module; None where there is neither."""
    return plugin_version(spec) if is_module_spec(spec) else plugin_sha256(spec)


def describe_plugin(spec: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what identifies a network or loss: spec, arguments, and hash or version if any."""
    known = {"spec": spec, "arguments": arguments, "sha256": plugin_sha256(spec)}
    return {**known, "version": plugin_version(spec)} if is_module_spec(spec) else known


def _distributions(top: str) -> set[str]:
    """Return the distributions that a top-level module comes from."""
    # Most have its name; reading what all distributions hold takes a third of a second.
    try:
        own = importlib.metadata.distribution(top)
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        if any(file.parts[0] == top for file in own.files or ()):
            return {own.metadata["Name"]}
    return set(importlib.metadata.packages_distributions().get(top, ()))


def _is_editable(name: str) -> bool:
    stated = importlib.metadata.distribution(name).read_text("direct_url.json")  # PEP 610
    return bool(stated and json.loads(stated).get("dir_info", {}).get("editable"))
