"""Heartbeats of the MIT-BIH Arrhythmia Database, from its records or from the published CSV pair.

Moody and Mark 2001; the CSV pair is by Kachuee, Fazeli and Sarrafzadeh 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isoloss.datasets import beat_csv, physionet
from isoloss.datasets.catalogue import DATASETS, DataError, DataMissingError
from isoloss.datasets.downloads import download_files
from isoloss.datasets.heartbeats import LENGTH, RATE, cut_at_annotations, cut_like_kachuee
from isoloss.datasets.info import DataInfo, Normalisation
from isoloss.datasets.splits import TensorSplit, balanced_indices, stratified_indices

CUTS = {"annotation": cut_at_annotations, "kachuee": cut_like_kachuee}
TEST_FRACTION = 0.2
CLASSES = tuple(physionet.CLASSES)

# De Chazal, O'Dwyer and Reilly 2004, table III: no record is in both, the four records with paced
# beats are in neither.
# fmt: off
DS1 = ("101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122", "124", "201",
       "203", "205", "207", "208", "209", "215", "220", "223", "230")
DS2 = ("100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210", "212", "213",
       "214", "219", "221", "222", "228", "231", "232", "233", "234")
# fmt: on
# 48 records of 47 patients: 202 was taken from the same tape as 201, says its header.
SAME_PATIENT = {"202": "201"}


@dataclass
class _Splits:
    train: TensorSplit
    test: TensorSplit
    facts: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@DATASETS.register(
    "mitbih",
    "109,494 heartbeats in five AAMI classes, 187 samples at 125 Hz (MIT-BIH Arrhythmia Database)",
    default_model="ecg-attention",
    splits=("random", "inter-patient"),
)
def mitbih(
    data_dir: Path,
    source: str = "auto",
    lead: str | None = None,
    cut: str | None = None,
    split: str = "random",
    balance: bool | int = False,
    seed: int = 0,
    download: bool = False,
) -> dict[str, Any]:
    """Load beats (187, 1) in [0, 1], of classes N, S, V, F, Q.

    From the records in ``data_dir/mitdb``: one lead, brought from 360 to 125 samples a second
    (polyphase filter, 25/72), cut by one of the rules in `datasets.heartbeats`; beats come in the
    order of record and time, and the number of its record is the group of each (201 for 202, which
    is of the same patient). From ``mitbih_train.csv`` and ``mitbih_test.csv`` in
    ``data_dir/mitbih`` or ``data_dir``: as they were cut and split by their authors.

    Args:
        data_dir: see above.
        source: "records", "csv", or "auto" for whichever is there, the records first.
        lead: name of the lead of the records, MLII unless given; records without it (102 and 104
            have no MLII) give their first lead.
        cut: "annotation" (unless given) or "kachuee", how beats are cut from the records.
        split: "random": 20 % of each class chosen by `seed` are the test split (the CSV pair has
            its own), so that beats of one patient are in both; "inter-patient": records DS1
            against DS2 of de Chazal et al. 2004, which share one patient (records 201 and 202).
        balance: true keeps as many train beats of each class as the rarest has, a number up to so
            many, both chosen by `seed`. The test split is left as it is.
        seed: of these choices.
        download: whether missing records may be fetched from PhysioNet.

    Raises:
        DataMissingError: names the files, the folders and where to get them.
        DataError: damaged files, or arguments that fit no data.
        DownloadError: asked to fetch them and could not.
    """
    for name, value, valid in (
        ("source", source, ("auto", "records", "csv")),
        ("cut", cut or "annotation", tuple(CUTS)),
        ("split", split, ("random", "inter-patient")),
    ):
        if value not in valid:
            raise DataError(f"mitbih: expected {name} {' or '.join(valid)}, got {value!r}")
    found = _find(Path(data_dir), source, download)
    if isinstance(found, Path):
        splits = _from_records(found, lead or "MLII", cut or "annotation", split, seed)
    else:
        for given in (lead, cut, split if split != "random" else None):
            if given is not None:
                raise DataError(
                    f"mitbih: {given!r} needs the records, as the CSV pair in {found[0].parent} "
                    f"is cut and split already; put them into {Path(data_dir) / 'mitdb'} "
                    f"(from {physionet.ADDRESS})"
                )
        splits = _from_csv(found)
    if balance is not False:
        splits.train = _balance(splits, balance, seed)
    splits.facts["beats"] = {
        name: dict(
            zip(CLASSES, part.targets.bincount(minlength=len(CLASSES)).tolist(), strict=True)
        )
        for name, part in (("train", splits.train), ("test", splits.test))
    }
    info = DataInfo(
        input_shape=(LENGTH, 1),
        num_classes=len(CLASSES),
        class_names=CLASSES,
        num_features=LENGTH,
        normalisation=Normalisation(
            (0.0,), (1.0,), "each beat scaled to [0, 1] by its own extremes", channel_axis=-1
        ),
        notes=tuple(splits.notes),
        class_groups=(CLASSES[:4],),  # Q is what is left over, and inter-patient almost empty
    )
    return {"train": splits.train, "test": splits.test, "info": info, "facts": splits.facts}


def _find(data_dir: Path, source: str, download: bool) -> Path | tuple[Path, ...]:
    """Return the folder of the records, or the two CSV files."""
    records = data_dir / "mitdb"
    folders = (data_dir / "mitbih", data_dir)
    pairs = [tuple(folder / name for name in beat_csv.ROWS) for folder in folders]
    pair = next((pair for pair in pairs if all(file.is_file() for file in pair)), None)
    missing = physionet.missing_files(records)
    partly = len(missing) < 3 * len(physionet.RECORDS)  # then somebody means the records
    if source != "csv" and not missing:
        return records
    if pair is not None and (source == "csv" or (source == "auto" and not partly)):
        return pair
    if download and source != "csv":

        def fetch(temporary: Path) -> dict[Path, Path]:
            return {file: records / file.name for file in physionet.fetch(temporary)}

        files = f"{len(physionet.RECORDS)} records"
        download_files("mitbih", fetch, records, files=files, address=physionet.ADDRESS)
        return records
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
    wanted = {
        "records": f"{shown} in {records} ({physionet.ADDRESS}, or `download`)",
        "csv": f"{' and '.join(beat_csv.ROWS)} in {folders[0]} or {data_dir} ({beat_csv.ADDRESS})",
    }
    if pair is not None:
        wanted["csv"] = "take the CSV pair with source=csv"
    names = ["records", "csv"] if source == "auto" else [source]
    raise DataMissingError("mitbih: expected " + "\nor ".join(wanted[name] for name in names))


def _from_records(folder: Path, lead: str, cut: str, split: str, seed: int) -> _Splits:
    from scipy.signal import resample_poly  # takes a while to import

    records = physionet.read_records(folder, lead)
    scale = RATE / physionet.RATE
    series, labels, owners = [], [], []
    annotated, unlabelled = 0, 0
    left_out: dict[str, int] = {}
    for number, record in enumerate(records):
        # The median continues the signal at its ends; zeros would ring into the first samples.
        signal = resample_poly(record.signal, 25, 72, padtype="median")
        beats = CUTS[cut](signal, record.samples * scale)
        series.append(beats.series)
        labels.append(record.labels[beats.index])
        owners.append(np.full(len(beats.index), number))
        annotated += len(record.samples)
        unlabelled += beats.unlabelled
        for reason, count in beats.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    inputs = torch.from_numpy(np.concatenate(series))[:, :, None]
    targets = torch.from_numpy(np.concatenate(labels))
    owner = np.concatenate(owners)
    facts: dict[str, Any] = {
        "source": "records",
        "folder": str(folder),
        "lead": lead,
        "other_leads": {r.name: r.lead for r in records if not r.has_lead},
        "cut": cut,
        "split": split,
        "annotated_beats": annotated,
        "cut_beats": len(inputs),
        "left_out": left_out,
        "peaks_without_annotation": unlabelled,
    }
    notes = [
        f"{annotated:,} annotated beats in {len(records)} records, {len(inputs):,} cut "
        f"({cut}); left out: "
        + ", ".join(f"{count:,} ({reason})" for reason, count in left_out.items())
    ]
    if unlabelled:
        notes.append(f"{unlabelled:,} detected peaks belong to no annotated beat: left out")
    for other in sorted(set(facts["other_leads"].values())):
        without = [name for name, used in facts["other_leads"].items() if used == other]
        notes.append(f"no lead {lead} in {', '.join(without)}: their first lead, {other}, is used")
    if split == "random":
        test, train = stratified_indices(targets, TEST_FRACTION, seed)
        facts["test_chosen"] = f"split=random, seed={seed}"
        notes.append("random split: train and test have beats of the same patients")
    else:
        groups = {"train": DS1, "test": DS2}
        paced = [r.name for r in records if r.name not in DS1 + DS2]
        names = np.array([record.name for record in records])[owner]
        train, test = (
            torch.from_numpy(np.flatnonzero(np.isin(names, group))) for group in (DS1, DS2)
        )
        facts["records"] = {name: list(group) for name, group in groups.items()}
        notes.append(
            f"inter-patient split: DS1 against DS2; the paced records {', '.join(paced)} are left "
            f"out ({len(inputs) - len(train) - len(test):,} beats) and nearly all of Q with them"
        )
        notes.append("records 201 (train) and 202 (test) are of one patient")
    patients = torch.tensor([int(SAME_PATIENT.get(record.name, record.name)) for record in records])
    notes.append("groups are patients, by the number of their record")
    whole = TensorSplit(inputs, targets, patients[owner])
    return _Splits(whole.subset(train), whole.subset(test), facts, notes)


def _from_csv(files: tuple[Path, ...]) -> _Splits:
    train, test = (TensorSplit(*beat_csv.read_beats(file, LENGTH, len(CLASSES))) for file in files)
    rows = {file.name: len(part) for file, part in zip(files, (train, test), strict=True)}
    facts = {"source": "csv", "folder": str(files[0].parent), "rows": rows}
    notes = ["cut and split by the authors of the CSV files: beats of one patient are in both"]
    notes += [
        f"{name} has {count:,} beats, the published file {beat_csv.ROWS[name]:,}"
        for name, count in rows.items()
        if count != beat_csv.ROWS[name]
    ]
    return _Splits(train, test, facts, notes)


def _balance(splits: _Splits, balance: bool | int, seed: int) -> TensorSplit:
    targets = splits.train.targets
    sizes = targets.bincount(minlength=len(CLASSES))
    if not isinstance(balance, int) or (balance is not True and balance < 1):
        raise DataError(f"mitbih: expected balance true or a number from 1, got {balance!r}")
    limit = int(sizes[sizes > 0].min()) if balance is True else balance
    chosen = balanced_indices(targets, int(sizes.clamp(max=limit).sum()), seed)
    short = [f"{name} {size}" for name, size in zip(CLASSES, sizes, strict=True) if size < limit]
    splits.facts["balance"] = limit
    splits.notes.append(
        f"train balanced to {limit:,} beats a class, {len(chosen):,} of {len(targets):,} kept"
        + (f"; there are fewer of {', '.join(short)}" if short else "")
    )
    return splits.train.subset(chosen)
