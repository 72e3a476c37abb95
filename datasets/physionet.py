"""Records of the MIT-BIH Arrhythmia Database, read with wfdb and checked before they are used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoloss.datasets.catalogue import DataError, DataMissingError

ADDRESS = "https://physionet.org/content/mitdb/1.0.0/"
RATE = 360  # Hz

# fmt: off
RECORDS = (
    "100", "101", "102", "103", "104", "105", "106", "107", "108", "109", "111", "112",
    "113", "114", "115", "116", "117", "118", "119", "121", "122", "123", "124", "200",
    "201", "202", "203", "205", "207", "208", "209", "210", "212", "213", "214", "215",
    "217", "219", "220", "221", "222", "223", "228", "230", "231", "232", "233", "234",
)
# fmt: on

#: Classes of ANSI/AAMI EC57 and the annotation symbols of each: N normal, left and right bundle
#: branch block, atrial and nodal escape; S atrial, aberrated, nodal and supraventricular premature;
#: V ventricular premature and escape; F fusion of ventricular and normal; Q paced, fusion of paced
#: and normal, unclassifiable.
CLASSES = {"N": "NLRej", "S": "AaJS", "V": "VE", "F": "F", "Q": "/fQ"}
#: Annotations that are no beats: rhythm and signal quality changes, artifacts, comments, waves
#: within a beat, non-conducted P waves, and the waves and bounds of ventricular flutter.
NOT_BEATS = frozenset("+~|\"sT*D=^x!()[]ptu`'@")

_BITS = {"212": 12, "16": 16}  # of a sample, by storage format; the database has 212


@dataclass(frozen=True)
class Record:
    """One lead of one record, with its annotated beats.

    Attributes:
        name: as "100".
        signal: (samples,), in units of the converter.
        lead: its name.
        has_lead: whether that is the one asked for.
        samples: of each annotated beat, ascending.
        labels: index into `CLASSES` of each.
    """

    name: str
    signal: NDArray[np.float64]
    lead: str
    has_lead: bool
    samples: NDArray[np.int64]
    labels: NDArray[np.int64]


def missing_files(folder: Path) -> list[str]:
    """Return the files of the database that are not in the folder."""
    names = (f"{record}.{part}" for record in RECORDS for part in ("hea", "dat", "atr"))
    return [name for name in names if not (folder / name).is_file()]


def fetch(temporary: Path) -> list[Path]:
    """Download the database; return its files."""
    import_wfdb().dl_database("mitdb", str(temporary), records=list(RECORDS), annotators=["atr"])
    return [temporary / f"{r}.{part}" for r in RECORDS for part in ("hea", "dat", "atr")]


def read_records(folder: Path, lead: str) -> list[Record]:
    """Read all records, in the order of `RECORDS`.

    Args:
        folder: with the .hea, .dat and .atr files.
        lead: by name; a record without it gives its first lead.

    Raises:
        DataError: a damaged file, or a lead that no record has.
    """
    wfdb = import_wfdb()
    leads: dict[str, list[str]] = {}
    records = []
    with _wfdb_quiet():
        for name in RECORDS:
            header = _read_header(wfdb, folder / name)
            leads[name] = list(header.sig_name)
            records.append(_read_record(wfdb, folder / name, header, lead))
    if not any(record.has_lead for record in records):
        known = sorted({name for names in leads.values() for name in names})
        raise DataError(f"mitbih: no record has a lead {lead!r}; valid: {', '.join(known)}")
    return records


def import_wfdb() -> Any:
    """Return the module wfdb, which takes half a second to import."""
    try:
        with _wfdb_quiet():
            import wfdb
    except ImportError as error:
        raise DataMissingError(
            f"mitbih: reading PhysioNet's records needs wfdb: {error}\n"
            "install it with pip install wfdb, or use the CSV pair"
        ) from error
    return wfdb


@contextmanager
def _wfdb_quiet() -> Iterator[None]:
    """Hide that wfdb 4.3 uses pandas as its next major version no longer allows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="wfdb")
        yield


def _read_header(wfdb: Any, path: Path) -> Any:
    file = path.with_suffix(".hea")
    try:
        header = wfdb.rdheader(str(path))
    except Exception as error:  # wfdb lets whatever goes wrong while parsing through
        raise DataError(f"{file}: expected a WFDB header, cannot read it: {error}") from error
    names, files, formats = (list(x or ()) for x in (header.sig_name, header.file_name, header.fmt))
    if header.fs != RATE or not header.sig_len or not names:
        raise DataError(
            f"{file}: expected signals of {RATE} samples a second and their length, got "
            f"{header.fs} and {header.sig_len} for {header.sig_name}"
        )
    if not len(names) == len(files) == len(formats) == header.n_sig or None in names + files:
        raise DataError(
            f"{file}: expected file, format and name of each of {header.n_sig} signals, got "
            f"{files}, {formats} and {names}"
        )
    for name in set(files):
        if Path(name).name != name or not (path.parent / name).is_file():
            raise DataError(f"{file}: expected a signal file beside it, got {name!r}")
    if len(set(formats)) == 1 and formats[0] in _BITS and len(set(files)) == 1:
        data = path.parent / files[0]
        expected = ceil(header.sig_len * header.n_sig * _BITS[formats[0]] / 8)
        got = data.stat().st_size
        if got < expected:
            raise DataError(
                f"{data}: expected {expected} bytes for {header.n_sig} signals of "
                f"{header.sig_len} samples, got {got}; the file is truncated, fetch it again "
                f"from {ADDRESS}"
            )
    return header


def _read_record(wfdb: Any, path: Path, header: Any, lead: str) -> Record:
    has_lead = lead in header.sig_name
    channel = header.sig_name.index(lead) if has_lead else 0
    data = path.parent / header.file_name[channel]
    try:
        record = wfdb.rdrecord(str(path), channels=[channel], physical=False)
    except Exception as error:
        raise DataError(f"{data}: expected a WFDB signal file, cannot read it: {error}") from error
    signal = record.d_signal[:, 0]
    stated, found = record.checksum[0], int(signal.sum())
    if stated is not None and (stated - found) % 2**16:
        raise DataError(
            f"{data}: expected the samples of {header.sig_name[channel]} to sum up to "
            f"{stated % 2**16} modulo 65536 as {path.name}.hea says, got {found % 2**16}; "
            f"the file is damaged, fetch it again from {ADDRESS}"
        )
    # The lowest value of a format means that a sample is missing.
    bits = _BITS.get(record.fmt[0])
    invalid = np.flatnonzero(signal == -(2 ** (bits - 1))) if bits else np.empty(0)
    if len(invalid):
        raise DataError(
            f"{data}: {len(invalid)} samples of {header.sig_name[channel]} are marked as missing, "
            f"the first at {invalid[0]}; expected none"
        )
    samples, labels = _read_beats(wfdb, path, len(signal))
    return Record(
        path.name,
        signal.astype(np.float64),
        header.sig_name[channel],
        has_lead,
        samples,
        labels,
    )


def _read_beats(wfdb: Any, path: Path, length: int) -> tuple[NDArray, NDArray]:
    file = path.with_suffix(".atr")
    content = file.read_bytes()
    if len(content) % 2 or content[-2:] != b"\0\0":
        raise DataError(
            f"{file}: expected annotations that end with a zero word, got {len(content)} bytes "
            f"without one; the file is truncated, fetch it again from {ADDRESS}"
        )
    try:
        annotations = wfdb.rdann(str(path), "atr")
    except Exception as error:
        raise DataError(f"{file}: expected WFDB annotations, cannot read them: {error}") from error
    label_of = {symbol: k for k, symbols in enumerate(CLASSES.values()) for symbol in symbols}
    symbols: Sequence[str] = annotations.symbol
    for number, (symbol, sample) in enumerate(zip(symbols, annotations.sample, strict=True)):
        if symbol not in label_of and symbol not in NOT_BEATS:
            raise DataError(
                f"{file}: annotation {number} at sample {sample}: expected one of the beats "
                f"{' '.join(label_of)}, got {symbol!r}"
            )
        if not 0 <= sample < length:
            raise DataError(
                f"{file}: annotation {number}: expected a sample below {length}, got {sample}"
            )
    if not label_of.keys() & set(symbols):
        raise DataError(f"{file}: expected annotated beats, got none")
    is_beat = np.array([symbol in label_of for symbol in symbols], dtype=bool)
    labels = [label_of[symbol] for symbol in symbols if symbol in label_of]
    return annotations.sample[is_beat], np.array(labels, dtype=np.int64)
