"""The file of a curvature over a training: what is written is read, the same bytes each time."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest

from isoloss.records.files import FileError
from isoloss.records.over_training import (
    ColdStart,
    OverTrainingData,
    Row,
    over_training_summary,
    read_over_training,
    write_over_training,
)


def stored(count=3, k=2, **changes):
    rows = tuple(
        Row(
            epoch=5 * i,
            step=20 * i,
            checkpoint=f"{i}" * 64,
            learning_rate=0.5 / (i + 1),
            loss=1.0 / (i + 1),
            gradient_norm=0.1 * i,
            threshold=4.0 * (i + 1),
            eigenvalues=np.arange(k, 0, -1) + 0.25 * i,
            residuals=np.full(k, 1e-5),
            converged=i != 1,
            products=10 + i,
            **changes,
        )
        for i in range(count)
    )
    vectors = {"b": np.ones((k, 4), np.float32), "a": np.zeros((k, 2, 3), np.float32)}
    cold = ColdStart(np.arange(k, 0, -1) + 0.5, np.full(k, 1e-6), 31)
    return OverTrainingData({"run": "r", "plan": {"threads": 1}}, rows, vectors, cold)


@pytest.mark.parametrize("changes", [{}, {"trace": 3.5, "trace_standard_error": 0.25}])
def test_what_is_written_is_read(tmp_path, changes):
    data, path = stored(**changes), tmp_path / "c.h5"
    write_over_training(path, data)
    found = read_over_training(path)
    assert found.settings == data.settings
    assert list(found.eigenvectors) == ["b", "a"]  # in the order of the operator's vectors
    for name in data.eigenvectors:
        assert found.eigenvectors[name].dtype == np.float32
        np.testing.assert_array_equal(found.eigenvectors[name], data.eigenvectors[name])
    for one, other in zip(found.rows, data.rows, strict=True):
        for field in dataclasses.fields(Row):
            value = getattr(one, field.name)
            np.testing.assert_array_equal(value, getattr(other, field.name))
            assert type(value) is type(getattr(other, field.name))
    assert found.cold is not None
    assert found.cold.products == 31
    write_over_training(tmp_path / "again.h5", found)
    assert path.read_bytes() == (tmp_path / "again.h5").read_bytes()


def test_one_that_is_begun_has_no_cold_start(tmp_path):
    data = dataclasses.replace(stored(1), cold=None, eigenvectors={})
    write_over_training(tmp_path / "c.h5", data)
    found = read_over_training(tmp_path / "c.h5")
    assert found.cold is None
    assert not found.eigenvectors
    assert len(found.rows) == 1


def test_nothing_that_is_not_finite_is_in_the_summary():
    row = dataclasses.replace(
        stored(1).rows[0], loss=np.inf, gradient_norm=np.nan, eigenvalues=np.full(2, np.nan)
    )
    data = dataclasses.replace(stored(1), rows=(row,))
    text = json.dumps(over_training_summary(data), allow_nan=False)
    (found,) = json.loads(text)["rows"]
    assert (found["loss"], found["gradient_norm"], found["eigenvalues"]) == (None, None, [None] * 2)
    assert list(data.to_dataframe().columns)[-2:] == ["lambda_1", "lambda_2"]


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("losses", np.zeros(2)),
        ("eigenvalues", np.zeros((2, 2))),
        ("epochs", np.array([0, 10, 5])),
        ("epochs", np.array([0.5, 1, 2])),
        ("epochs", np.array([0, 1, 2])),
        ("epochs", np.array([0, 1, np.nan])),
        ("steps", np.array([0, 1, np.inf])),
        ("cold/products", -1.0),
        ("eigenvectors/a", np.zeros((3, 2, 3))),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, entry, value):
    path = tmp_path / "c.h5"
    write_over_training(path, stored())
    with h5py.File(path, "a") as file:
        del file[entry]
        file[entry] = value
    with pytest.raises(FileError):
        read_over_training(path)


@pytest.mark.parametrize("entry", ["epochs", "eigenvalues", "thresholds", "cold/residuals"])
def test_a_file_that_lacks_something_is_refused(tmp_path, entry):
    path = tmp_path / "c.h5"
    write_over_training(path, stored())
    with h5py.File(path, "a") as file:
        del file[entry]
    with pytest.raises(FileError, match=entry.split("/")[-1]):
        read_over_training(path)
