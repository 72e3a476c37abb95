"""The formats, what they hold, and the writing of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from isoloss.errors import UsageError
from isoloss.records.density_pair import NODES, pair_images, pair_of
from isoloss.records.export import arrays, tables, vtk
from isoloss.records.export.contents import Content, StoredSurface, read_content, stem_of
from isoloss.records.files import FileError, explained, write_together
from isoloss.records.hdf5 import our_kind
from isoloss.records.ll.surface import directions_image, surface_image
from isoloss.records.over_training import OverTrainingData
from isoloss.records.spectra import SpectrumData

Files = dict[Path, bytes]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: The files.
        notes: What they lack, or a reader must know, a sentence each.
    """

    files: list[Path]
    notes: list[str]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: How its (first) file ends.
        surface: Makes the files and notes of a surface; None where it holds none.
        spectrum: The same of a spectrum.
        training: The same of a curvature over a training.
    """

    suffix: str
    surface: Callable[[StoredSurface, Path], tuple[Files, list[str]]] | None = None
    spectrum: Callable[[SpectrumData, Path], tuple[Files, list[str]]] | None = None
    training: Callable[[OverTrainingData, Path], tuple[Files, list[str]]] | None = None


def _vtk(surface: StoredSurface, out: Path) -> tuple[Files, list[str]]:
    return {out: vtk.surface_vtp(surface.data)}, vtk.notes(surface.data)


def _csv(surface: StoredSurface, out: Path) -> tuple[Files, list[str]]:
    return {out: tables.surface_csv(surface.data)}, []


def _npz(surface: StoredSurface, out: Path) -> tuple[Files, list[str]]:
    return {out: arrays.npz(arrays.of_surface(surface))}, []


def _ll(surface: StoredSurface, out: Path) -> tuple[Files, list[str]]:
    if not surface.ours:
        raise FileError(
            f"expected a surface of Isoloss for ll, got one of the loss-landscape code: "
            f"{surface.path}"
        )
    beside = out.with_name(f"{out.name.removesuffix('.h5')}-directions.h5")
    files = {out: surface_image(surface.data, beside.name)}
    notes = []
    if surface.data.repeats is not None:
        notes.append(f"of {surface.data.repeat} directions or planes, the first")
    if isinstance(surface.data.settings.get("selection"), list):
        notes.append("no directions: that code moves all parameters, here a part was moved")
    elif not surface.directions:
        notes.append("no directions: the file keeps their recipe only")
    else:
        files[beside] = directions_image(surface.directions)
    return files, notes


def _csv_of_spectrum(data: SpectrumData, out: Path) -> tuple[Files, list[str]]:
    files = {}
    if data.eigenpairs is not None:
        files[out] = tables.eigenvalues_csv(data)
    if data.density is not None:
        beside = out.with_name(f"{out.name.removesuffix('.csv')}-density.csv")
        files[beside] = tables.density_csv(data.density)
    return files, _notes(data)


def _npz_of_spectrum(data: SpectrumData, out: Path) -> tuple[Files, list[str]]:
    return {out: arrays.npz(arrays.of_spectrum(data))}, _notes(data)


def _npy_of_spectrum(data: SpectrumData, out: Path) -> tuple[Files, list[str]]:
    if data.density is None:
        return {}, []
    return dict(zip(pair_of(out), pair_images(data.density), strict=True)), _notes(data)


def _csv_of_training(data: OverTrainingData, out: Path) -> tuple[Files, list[str]]:
    return {out: tables.training_csv(data)}, []


def _npz_of_training(data: OverTrainingData, out: Path) -> tuple[Files, list[str]]:
    return {out: arrays.npz(arrays.of_training(data))}, []


def _notes(data: SpectrumData) -> list[str]:
    note = "" if data.density is None else str(data.density.account.get("note", ""))
    return [note] if note else []


FORMATS: Mapping[str, Format] = {
    "vtk": Format(".vtp", _vtk),
    "csv": Format(".csv", _csv, _csv_of_spectrum, _csv_of_training),
    "npz": Format(".npz", _npz, _npz_of_spectrum, _npz_of_training),
    "ll": Format(".h5", _ll),
    "npy": Format(NODES, None, _npy_of_spectrum),
}


def export(
    path: Path | str, to: str, out: Path | str | None = None, *, force: bool = False
) -> Exported:
    """Write a stored result in another format.

    Args:
        path: A surface (ours, or of the loss-landscape code), a Hessian file, a curvature over a
            training, or one of the two files of a density (`records.density_pair`).
        to: A key of `FORMATS`.
        out: The file to write, with the format's suffix; where None, beside `path`.
        force: Whether to replace files that are there.

    Returns:
        The files and what there is to say of them.

    Raises:
        FileError: If the format does not hold such a result, there is nothing to write, a file is
            there already, or it cannot be written.
        UsageError: If `out` has another suffix.
    """
    path = Path(path)
    content = read_content(path)
    files, notes = _made(content, path, to, path if out is None else Path(out), out is None)
    for file in files:
        _check_place(file, path, force)
    for file in files:
        with explained(file):
            file.parent.mkdir(parents=True, exist_ok=True)
    write_together(files)
    return Exported(list(files), notes)


def _made(
    content: Content, path: Path, to: str, out: Path, beside: bool
) -> tuple[Files, list[str]]:
    form = FORMATS[to]
    if beside:
        # The same suffix as that of a surface of ours would be its name.
        out = path.with_name(stem_of(path) + ("-ll" if to == "ll" else "") + form.suffix)
    elif not out.name.endswith(form.suffix) or out.name == form.suffix:
        raise UsageError(f"`out`: expected a file that ends in {form.suffix} for {to}, got {out}")
    if isinstance(content, StoredSurface):
        if form.surface is None:
            raise _misfit(path, to, "surface")
        return form.surface(content, out)
    if isinstance(content, OverTrainingData):
        if form.training is None:
            raise _misfit(path, to, "training")
        return form.training(content, out)
    if form.spectrum is None:
        raise _misfit(path, to, "spectrum")
    files, notes = form.spectrum(content, out)
    if not files:
        raise FileError(
            f"expected a spectrum with a density{' or eigenvalues' if to == 'csv' else ''} for "
            f"{to}, got {path} with {', '.join(content.stages) or 'nothing'}"
        )
    return files, notes


# What results are called, by the attribute of `Format` that makes files of them.
_CALLED = {
    "surface": "a surface",
    "spectrum": "a spectrum",
    "training": "a curvature over a training",
}


def _misfit(path: Path, to: str, kind: str) -> FileError:
    others = [name for name, form in FORMATS.items() if getattr(form, kind) is not None]
    fits = [called for name, called in _CALLED.items() if getattr(FORMATS[to], name) is not None]
    return FileError(
        f"expected {' or '.join(fits)} for {to}, got {_CALLED[kind]}: {path}\n"
        f"{_CALLED[kind]} goes to {', '.join(others)}"
    )


def _check_place(file: Path, source: Path, force: bool) -> None:
    """Refuse to replace what was exported, results of ours, and without `force` anything."""
    if not file.exists():
        return
    if file.is_dir() or file.samefile(source):
        raise FileError(
            f"expected another file to write than {'a folder' if file.is_dir() else 'the source'}: "
            f"{file}\nwrite to another file (`out`)"
        )
    if not force:
        raise FileError(
            f"expected no file at {file}, got one\n"
            "replace it with `force`, or write another (`out`)"
        )
    if our_kind(file) is not None:
        raise FileError(
            f"expected no result of Isoloss to replace, got one: {file}\n"
            "write to another file (`out`)"
        )
