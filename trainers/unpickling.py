"""Torch's files read without running anything they hold.

torch's restricted unpickler (`weights_only=True`) looks every name that a file uses up in a table
and refuses what is not there. Published checkpoints name a few things beside tensors: the
`Namespace` of their arguments, numpy's scalars, default dictionaries, paths. These names are added
to the table (`torch.serialization.safe_globals`), but not the things themselves: each stands for
an object of ours that takes anything and keeps nothing. So a file can neither call a constructor
of the standard library's nor set an attribute of one; only dictionaries keep what is put in them,
as plain ones. Names are compared whole: `argparse._sys.modules` is in no table.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from isoloss.registry import undone
from isoloss.trainers.errors import CheckpointError, shown

# A number, text of fixed width, or time: what a numpy scalar or array of a checkpoint may hold.
_PLAIN_DTYPE = re.compile(r"[?biufcSUmM]\d*")


class _Ignored:
    """Stands for an object that is of no use here."""

    def __new__(cls, *_: Any) -> _Ignored:
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Take anything."""

    def __setstate__(self, _: Any) -> None:
        """Keep nothing; without this, torch would set attributes."""


class _Dtype(_Ignored):
    def __init__(self, code: Any = "", *_: Any) -> None:
        if not (isinstance(code, str) and _PLAIN_DTYPE.fullmatch(code)):
            raise _RefusedError(f"numpy.dtype({str(code)[:20]!r})")

    def __setstate__(self, state: Any) -> None:
        if any(part is not None for part in state[2:5]):  # subarray, names and types of fields
            raise _RefusedError("numpy.dtype of structures")


class _Array(_Ignored):
    def __setstate__(self, state: Any) -> None:
        if not isinstance(state[4], bytes):
            raise _RefusedError("numpy.ndarray of objects")


class _RefusedError(Exception):
    """An object whose content makes it unwelcome; the argument says which."""


def _mapping(*_: Any) -> dict[Any, Any]:
    # The factory of a defaultdict is never called: torch takes items for plain dictionaries only.
    return {}


def _allowed() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return what stands for each name, as torch takes it."""
    paths = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    sizes = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    scalars = (*sizes, "float16", "float32", "float64", "complex64", "complex128")
    ignored = [
        "argparse.Namespace",
        # Factories of default dictionaries.
        *(f"builtins.{name}" for name in ("list", "dict", "tuple", "int", "float", "str", "bool")),
        *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in paths),
        *(f"numpy.{name}" for name in (*scalars, "bool", "bool_", "str_", "bytes_", "ndarray")),
    ]
    stands: dict[str, Callable[..., Any]] = dict.fromkeys(ignored, _Ignored)
    stands |= {"collections.defaultdict": _mapping, "numpy.dtype": _Dtype}
    for core in ("numpy.core", "numpy._core"):  # before and since numpy 2
        stands |= {f"{core}.multiarray.scalar": _Ignored, f"{core}.multiarray._reconstruct": _Array}
    return [(stand, name) for name, stand in stands.items()]


def restricted_load(path: Path, file: BinaryIO, *, foreign: bool) -> Any:
    """Return what a file of torch's holds, tensors on the CPU; nothing in it is run.

    Args:
        path: Its name, for messages.
        file: The file, at its start.
        foreign: Whether the names that checkpoints of others use are passed over.

    Raises:
        CheckpointError: If the file is damaged, of another format, or names anything else.
    """
    table = _allowed() if foreign else []
    try:
        with _these_alone(table), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols, which we explain ourselves
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged bytes raise nearly anything, IndexError to AssertionError
        raise _explained(path, file, error) from error


@contextlib.contextmanager
def _these_alone(table: list[Any]) -> Iterator[None]:
    """Let the restricted unpickler know these names, and none that others of the process allowed.

    Other packages (Lightning) put classes into torch's table for good, under the same names.
    """
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with torch.serialization.safe_globals(table):
            yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def full_load(path: Path, file: BinaryIO) -> Any:
    """Return what a file of torch's holds, running whatever code it names.

    Raises:
        CheckpointError: If that fails; says with what.
    """
    try:
        with undone():
            return torch.load(file, map_location="cpu", weights_only=False)
    except (Exception, SystemExit) as error:
        text = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{path} cannot be unpickled: {type(error).__name__}: {shown(text)}\n"
            "the classes in it must be importable here, under the names they had there; or save "
            "the weights alone where they are: torch.save(model.state_dict(), FILE)"
        ) from error


def _explained(path: Path, file: BinaryIO, error: Exception) -> CheckpointError:
    """Return what is wrong with a file and what to do, from what torch or a stand-in raised."""
    old, new = (json.dumps(str(p)) for p in (path, path.with_name(f"{path.stem}-weights.pt")))
    found = re.search(r"GLOBAL (\S+)|but got <class '([^']+)'>", str(error))
    name = str(error) if isinstance(error, _RefusedError) else ""
    if found is not None:
        name = (found[1] or found[2]).rstrip(".,")
    name = shown(name)
    if _is_torchscript(file):
        return CheckpointError(
            f"{path} is a TorchScript archive, which holds a program beside the weights; refused\n"
            "save its weights alone: import torch; "
            f"torch.save(torch.jit.load({old}).state_dict(), {new})"
        )
    if not name and _magic(file, 257, 5) == b"ustar":
        return CheckpointError(
            f"{path} is of torch's first format (tar), which cannot be read without running what "
            f"it holds; refused\nif you trust it: import torch; "
            f"torch.save(torch.load({old}, weights_only=False), {new})"
        )
    if not name:
        size = path.stat().st_size
        return CheckpointError(
            f"expected a checkpoint written by torch.save, or safetensors, got {path} "
            f"({size} bytes), which is truncated or of another format"
        )
    modules = [used for used in _named(file) if used.startswith("torch.nn.modules.")]
    if not modules:
        return CheckpointError(
            f"{path} holds objects beside tensors and plain values ({name}): unpickling those "
            "runs code from the file, so it is refused\n"
            "in the program that made it, save the weights alone: torch.save(model.state_dict(), "
            "FILE); or, for a file of your own, `trust_pickle`"
        )
    return CheckpointError(
        f"{path} holds a whole pickled network ({name}): unpickling it runs code from the file, "
        "so it is refused; where its classes are, keep the weights alone (state_dict):\n"
        f"import torch; net = torch.load({old}, weights_only=False); "
        f"torch.save(net.state_dict(), {new})\n"
        'net["model"] where it is a dictionary; or, for a file of your own, `trust_pickle`'
    )


def _is_torchscript(file: BinaryIO) -> bool:
    file.seek(0)
    with contextlib.suppress(Exception), zipfile.ZipFile(file) as archive:
        return any(Path(entry).name == "constants.pkl" for entry in archive.namelist())
    return False


def _magic(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _named(file: BinaryIO) -> set[str]:
    """Return the names that the pickle in a file uses, without loading any."""
    names: set[str] = set()
    file.seek(0)
    with contextlib.suppress(Exception):
        if file.read(2) == b"PK":
            with zipfile.ZipFile(file) as archive:
                entry = next(n for n in archive.namelist() if Path(n).name == "data.pkl")
                streams: BinaryIO = io.BytesIO(archive.read(entry))
        else:
            file.seek(0)
            streams = file
        while True:  # torch's older form is several pickles, one after the other
            for opcode, argument, _ in pickletools.genops(streams):
                if opcode.name == "GLOBAL":
                    names.add(str(argument).replace(" ", "."))
    return names
