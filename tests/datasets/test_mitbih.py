from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from isoloss.datasets import DataError, DataMissingError, DownloadError, TensorSplit, load_data
from isoloss.datasets.mitbih import DS1, DS2
from isoloss.datasets.physionet import RECORDS

# wfdb 4.3 with pandas 3.1
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

SYMBOLS = "NVLS+FN/"  # of the annotations of each record, in turn; + is no beat
BEATS = 12  # annotations of a record
TIMES = 288 * np.arange(1, BEATS + 1)  # one every 0.8 s at 360 Hz


def row(label: int, index: int = 0) -> str:
    values = [*np.round(np.linspace(0, 1, 187) ** (1 + index), 4), label]
    return ",".join(map(str, values))


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """The CSV pair: 40 and 10 beats."""
    folder = tmp_path / "mitbih"
    folder.mkdir()
    for name, count in (("mitbih_train.csv", 40), ("mitbih_test.csv", 10)):
        (folder / name).write_text("\n".join(row(i % 5, i) for i in range(count)) + "\n")
    return folder


def test_csv_keeps_the_first_row(pair: Path, tmp_path: Path) -> None:
    data = load_data("mitbih", data_dir=tmp_path, val_fraction=0)
    assert isinstance(data.train, TensorSplit)
    assert isinstance(data.test, TensorSplit)
    assert (len(data.train), len(data.test), data.info.input_shape) == (40, 10, (187, 1))
    assert torch.equal(data.train.targets, torch.arange(40) % 5)
    first = torch.tensor([float(value) for value in row(0).split(",")[:-1]])
    assert torch.equal(data.train.inputs[0, :, 0], first)
    assert data.info.class_names == tuple("NSVFQ")
    assert data.info.class_groups == (tuple("NSVF"),)
    assert data.provenance["source"]["beats"]["test"] == dict.fromkeys("NSVFQ", 2)
    assert "mitbih_train.csv has 40 beats, the published file 87,554" in data.provenance["notes"]
    for file in pair.iterdir():
        file.rename(tmp_path / file.name)
    again = load_data("mitbih", {"source": "csv"}, tmp_path, val_fraction=0)
    assert again.info.digest == data.info.digest


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (3, row(1).split(",", 1)[1], "line 3: expected 188 numbers, got 187"),
        (3, row(1) + ",0", "line 3: expected 188 numbers, got 189"),
        (1, row(1) + ",0", "line 1: expected 188 numbers, got 189"),
        (3, "", "line 3: expected 188 numbers, got an empty line"),
        (3, row(1).replace("1.0,", "x,"), "line 3: expected 188 numbers, got 'x' in column 187"),
        (3, row(1).replace("1.0,", ","), "line 3: expected 188 numbers, got '' in column 187"),
        (3, row(1).replace("1.0,", "nan,"), "line 3: expected 188 .* 'nan' in column 187; mend"),
        (3, row(1).replace("1.0,", "inf,"), "line 3: expected 188 .* 'inf' in column 187; mend"),
        (3, row(1).replace("1.0,", "1.5,"), "line 3: expected amplitudes .* got 1.5 in column 187"),
        (3, row(5), "line 3: expected a label from 0 to 4 in the last column, got 5"),
        (3, row(-1), "line 3: expected a label from 0 to 4 in the last column, got -1"),
        (3, row(0) + ".5", "line 3: expected a label from 0 to 4 in the last column, got 0.5"),
        (1, ",".join(map(str, range(187))) + ",label", "line 1: expected 188 numbers, got 'label'"),
    ],
)
def test_csv_rows_that_do_not_fit(
    pair: Path, tmp_path: Path, line: int, text: str, message: str
) -> None:
    file = pair / "mitbih_train.csv"
    lines = file.read_text().splitlines()
    lines[line - 1] = text
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=message) as caught:
        load_data("mitbih", data_dir=tmp_path)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("balance", "expected"), [(True, [3] * 5), (4, [4, 4, 4, 4, 3]), (99, [10, 9, 9, 9, 3])]
)
def test_balanced_train_beats(
    pair: Path, tmp_path: Path, balance: bool | int, expected: list[int]
) -> None:
    labels = [0] * 10 + [1] * 9 + [2] * 9 + [3] * 9 + [4] * 3
    (pair / "mitbih_train.csv").write_text("\n".join(map(row, labels)) + "\n")
    data = load_data("mitbih", {"balance": balance}, tmp_path, val_fraction=0)
    assert data.train.targets.bincount().tolist() == expected
    assert len(data.test) == 10
    assert data.provenance["source"]["balance"] == (3 if balance is True else balance)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "patient"}, "expected split random or inter-patient, got 'patient'"),
        ({"cut": "r-peak"}, "expected cut annotation or kachuee, got 'r-peak'"),
        ({"source": "wfdb"}, "expected source auto or records or csv, got 'wfdb'"),
        ({"split": "inter-patient"}, "'inter-patient' needs the records, .*cut and split already"),
        ({"lead": "V1"}, "'V1' needs the records"),
        ({"balance": 0}, "expected balance true or a number from 1, got 0"),
        ({"balance": "yes"}, "expected balance true or a number from 1, got 'yes'"),
    ],
)
def test_arguments_that_do_not_fit(
    pair: Path, tmp_path: Path, arguments: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_data("mitbih", arguments, tmp_path)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 48 records, 12 s each: an upright peak in MLII, one upside down in the other lead."""
    import wfdb

    folder = tmp_path_factory.mktemp("physionet") / "mitdb"
    folder.mkdir()
    grid = np.arange(12 * 360)
    beats = sum(np.exp(-(((grid - time) / 12) ** 2)) for time in TIMES)
    for number, name in enumerate(RECORDS):
        leads = {"102": ["V5", "V2"], "104": ["V5", "V2"], "114": ["V5", "MLII"]}
        names = leads.get(name, ["MLII", "V5"])
        signs = [1.0 if lead == "MLII" else -1.0 for lead in names]
        signal = np.stack([sign * (beats + number / 100) for sign in signs], 1)
        wfdb.wrsamp(name, fs=360, units=["mV", "mV"], sig_name=names, p_signal=signal,
                    fmt=["212", "212"], adc_gain=[200, 200], baseline=[0, 0],
                    write_dir=str(folder))  # fmt: skip
        symbols = [SYMBOLS[(number + k) % len(SYMBOLS)] for k in range(BEATS)]
        wfdb.wrann(name, "atr", TIMES, symbols, write_dir=str(folder))
    return folder.parent


@pytest.fixture
def records(written: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(written / "mitdb", tmp_path / "mitdb")
    return tmp_path / "mitdb"


def test_records_are_cut_and_counted(written: Path) -> None:
    data = load_data("mitbih", data_dir=written, val_fraction=0)
    source = data.provenance["source"]
    # Of 12 annotations a record, each an eighth of the symbols: 6 records of each phase. The first
    # is at 100 samples of 125 Hz and fits; the last, at 1200 of 1500, fits as well.
    symbols = [SYMBOLS[(n + k) % 8] for n in range(48) for k in range(BEATS)]
    counts = {
        name: sum(symbol in of for symbol in symbols)
        for name, of in (("N", "NL"), ("S", "S"), ("V", "V"), ("F", "F"), ("Q", "/"))
    }
    assert source["annotated_beats"] == sum(counts.values()) == len(symbols) * 7 / 8
    assert source["left_out"] == {"window passes an end of the record": 0}
    assert len(data.train) + len(data.test) == source["cut_beats"] == source["annotated_beats"]
    for name, count in counts.items():
        shares = {split: source["beats"][split][name] for split in ("train", "test")}
        assert sum(shares.values()) == count
        assert abs(shares["test"] - 0.2 * count) < 1
    assert source["other_leads"] == {"102": "V5", "104": "V5"}
    assert "no lead MLII in 102, 104: their first lead, V5, is used" in data.provenance["notes"]
    everything = torch.cat([data.train.inputs, data.test.inputs])[:, :, 0]
    assert ((everything.amin(1) == 0) & (everything.amax(1) == 1)).all()
    upright = everything[:, 93] == 1  # the two records without MLII are upside down
    without = [symbols[RECORDS.index(name) * BEATS :][:BEATS] for name in ("102", "104")]
    expected = sum(symbol != "+" for of_record in without for symbol in of_record)
    assert int((everything[:, 93] == 0).sum()) == expected == len(everything) - int(upright.sum())
    # 72 samples at 360 Hz are 25 at 125 Hz: the pulse is analytic, the converter has steps of
    # 1/200 of its height
    pulse = np.exp(-((np.arange(-30, 31) * 72 / 25 / 12) ** 2))
    torch.testing.assert_close(
        everything[upright][:, 63:124],
        torch.from_numpy(pulse).float().expand(int(upright.sum()), -1),
        rtol=0, atol=0.02,
    )  # fmt: skip


def test_inter_patient_split_shares_no_record(written: Path) -> None:
    assert len({*DS1, *DS2}) == 44
    assert {*RECORDS} - {*DS1, *DS2} == {"102", "104", "107", "217"}
    data = load_data("mitbih", {"split": "inter-patient"}, written, val_fraction=0)
    beats = [
        sum(SYMBOLS[(RECORDS.index(name) + k) % 8] != "+" for name in group for k in range(BEATS))
        for group in (DS1, DS2)
    ]
    assert [len(data.train), len(data.test)] == beats
    assert data.provenance["source"]["records"] == {"train": list(DS1), "test": list(DS2)}
    assert any("102, 104, 107, 217 are left out" in note for note in data.provenance["notes"])
    patients = [{int(name) for name in records} for records in (DS1, DS2)]
    assert data.train.groups.unique().tolist() == sorted(patients[0])
    # Record 202 was taken from the tape of 201.
    assert data.test.groups.unique().tolist() == sorted(patients[1] - {202} | {201})
    assert data.test.groups.bincount()[201] == sum(
        SYMBOLS[(RECORDS.index("202") + k) % 8] != "+" for k in range(BEATS)
    )


def test_validation_is_of_other_patients_where_the_test_split_is(written: Path) -> None:
    data = load_data("mitbih", {"split": "inter-patient"}, written)
    assert not torch.isin(data.val.groups, data.train.groups).any()
    assert data.provenance["groups"] == {"test": 22, "train": 20, "val": 2}
    mixed = load_data("mitbih", {"balance": 5}, written)
    assert mixed.provenance["groups"]["test"] <= 47
    assert torch.isin(mixed.val.groups, mixed.test.groups).any()


def test_kachuee_cut_of_the_records(written: Path) -> None:
    data = load_data("mitbih", {"cut": "kachuee"}, written, val_fraction=0)
    source = data.provenance["source"]
    assert source["annotated_beats"] == source["cut_beats"] + sum(source["left_out"].values())
    # T is 100 samples, so a beat is 120 from its peak on; of the upright leads
    upright = data.train.inputs[data.train.inputs[:, 0, 0] == 1][:, :, 0]
    assert len(upright) > 0.7 * len(data.train)
    assert not upright[:, 120:].any()
    next_peak = upright[:, 100] > 0.97
    assert (next_peak | (upright[:, 100] < 0.01)).all()  # a record's last beat has none
    assert next_peak.float().mean() > 0.8


def test_lead_by_name(written: Path) -> None:
    data = load_data("mitbih", {"lead": "V5"}, written, val_fraction=0)
    assert (data.train.inputs[:, 93] == 0).all()
    assert data.provenance["source"]["other_leads"] == {}
    with pytest.raises(DataError, match="no record has a lead 'II'; valid: MLII, V2, V5"):
        load_data("mitbih", {"lead": "II"}, written)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3000] ^= 8
    path.write_bytes(bytes(content))


def edit(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(path.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (
            "103.dat",
            cut_off,
            "103.dat: expected 12960 bytes for 2 signals of 4320 samples, got 129",
        ),
        ("103.dat", flip_bit, "103.dat: expected the samples of .* modulo 65536 as 103.hea says"),
        ("103.atr", cut_off, "103.atr: expected annotations that end with a zero word"),
        ("103.hea", edit(" 360 ", " 250 "), "103.hea: expected signals of 360 samples a second"),
        ("103.hea", lambda path: path.write_text("nonsense"), "103.hea: expected a WFDB header"),
        ("103.hea", lambda path: path.write_text(""), "103.hea: expected a WFDB header"),
        (
            "103.hea",
            lambda path: path.write_text("103 2 360 4000\n103.dat 212\n103.dat 21"),
            "103.hea: expected file, format and name of each of 2 signals",
        ),
        ("103.hea", edit("103.dat", "999.dat"), "signal file beside it, got '999.dat'"),
        ("103.hea", edit("103.dat", "../103.dat"), "expected a (WFDB header|signal file)"),
    ],
)
def test_damaged_records_are_named(
    records: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(records / name)
    with pytest.raises(DataError, match=message) as caught:
        load_data("mitbih", data_dir=records.parent)
    assert str(records) in str(caught.value)


@pytest.mark.parametrize(
    ("samples", "symbols", "message"),
    [
        ([400, 500], ["N", "B"], "annotation 1 at sample 500: expected one of the beats N L"),
        ([400, 5000], ["N", "N"], "annotation 1: expected a sample below 4320, got 5000"),
        ([400, 500], ["+", "+"], "103.atr: expected annotated beats, got none"),
    ],
)
def test_annotations_that_do_not_fit(
    records: Path, samples: list[int], symbols: list[str], message: str
) -> None:
    import wfdb

    wfdb.wrann("103", "atr", np.array(samples), symbols, write_dir=str(records))
    with pytest.raises(DataError, match=message):
        load_data("mitbih", data_dir=records.parent)


def test_missing_files_and_library(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataMissingError) as caught:
        load_data("mitbih", data_dir=tmp_path / "nowhere")
    expected = ["100.hea, 100.dat, 100.atr and 141 more in", "mitbih_train.csv and mitbih_test.csv"]
    expected += [str(tmp_path / "nowhere" / "mitdb"), "physionet.org", "kaggle.com", "`download`"]
    assert all(text in str(caught.value) for text in expected)
    assert len(str(caught.value).splitlines()) <= 3
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(DataMissingError, match=r"needs wfdb: .*\ninstall it with pip install"):
        load_data("mitbih", data_dir=tmp_path)
    (records / "234.dat").unlink()
    with pytest.raises(DataMissingError, match=f"expected 234.dat in {records}"):
        load_data("mitbih", data_dir=tmp_path)


def test_some_records_are_not_passed_over_for_the_csv_pair(records: Path, pair: Path) -> None:
    (records / "234.dat").unlink()
    with pytest.raises(
        DataMissingError, match=r"expected 234\.dat in .*\nor take the CSV pair with source=csv"
    ):
        load_data("mitbih", data_dir=records.parent)
    assert len(load_data("mitbih", {"source": "csv"}, records.parent).test) == 10


def test_download(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wfdb

    def fetch(name: str, folder: str, records: list[str], annotators: list[str]) -> None:
        assert (name, records, annotators) == ("mitdb", list(RECORDS), ["atr"])
        for file in (written / "mitdb").iterdir():
            shutil.copy(file, folder)

    monkeypatch.setattr(wfdb, "dl_database", fetch)
    data = load_data("mitbih", data_dir=tmp_path / "new", download=True)
    assert data.info.digest == load_data("mitbih", data_dir=written).info.digest
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mitdb"]

    def fail(*args: object, **keywords: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(wfdb, "dl_database", fail)
    with pytest.raises(DownloadError, match=r"48 records\nfrom https://physio.*: no route to host"):
        load_data("mitbih", data_dir=tmp_path / "other", download=True)
    assert not (tmp_path / "other").exists()


def test_real_records(data_dir: Path) -> None:
    if not (data_dir / "mitdb").is_dir():
        pytest.skip(f"needs mitdb in {data_dir}")
    data = load_data("mitbih", data_dir=data_dir, fraction=0.1)
    source = data.provenance["source"]
    beats = {name: sum(s[name] for s in source["beats"].values()) for name in "NSVFQ"}
    # annotated: N 90,631, S 2,781, V 7,236, F 803, Q 8,043; 92 are too near to an end
    assert source["annotated_beats"] == 109_494
    assert source["left_out"] == {"window passes an end of the record": 92}
    assert beats == {"N": 90_552, "S": 2_780, "V": 7_233, "F": 802, "Q": 8_035}
    assert sum(beats.values()) == 109_494 - 92
    assert source["other_leads"] == {"102": "V5", "104": "V5"}
    # a tenth of train, as balanced as there are beats: all of F, the others alike
    counts = data.train.targets.bincount().tolist()
    assert sum(counts) == 7_877
    assert counts[3] == 578
    assert max(counts[:3] + counts[4:]) - min(counts[:3] + counts[4:]) <= 1


def test_real_records_between_patients(data_dir: Path) -> None:
    if not (data_dir / "mitdb").is_dir():
        pytest.skip(f"needs mitdb in {data_dir}")
    arguments = {"split": "inter-patient"}
    source = load_data("mitbih", arguments, data_dir, val_fraction=0).provenance["source"]
    # de Chazal et al. 2004, table III: DS1 45,866 N, 944 S, 3,788 V, 415 F, 8 Q and DS2 44,259 N,
    # 1,837 S, 3,221 V, 388 F, 7 Q, less what is too near to an end
    assert source["beats"] == {
        "train": {"N": 45_828, "S": 943, "V": 3_787, "F": 414, "Q": 8},
        "test": {"N": 44_218, "S": 1_837, "V": 3_219, "F": 388, "Q": 7},
    }
