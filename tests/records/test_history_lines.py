"""Histories of lines of JSON, against records written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from isoloss.records.files import FileError
from isoloss.records.history_lines import read_history_lines


def line(kind, loss, accuracy, epoch):
    loss = "null" if loss is None else loss
    return f'{{"step_type":"{kind}","loss":{loss},"accuracy":{accuracy},"epoch":{epoch}}}\n'


# Three runs in one file: one that diverged, one that was stopped, one of three epochs, the last
# test of which says the epoch before.
LINES = (
    line("test", 9.0, 0.9, 7)
    + line("train", None, 0.07, 0) + line("test", None, 0.04, 0)
    + line("train", 0.7, 0.5, 0)
    + line("train", 0.72, 0.56, 0) + line("test", 0.53, 0.68, 0)
    + line("train", 0.47, 0.73, 1) + line("test", 0.44, 0.76, 0) + line("test", 0.43, 0.765, 0)
    + "\n"
    + line("train", 0.27, 0.86, 2) + line("test", 1, 1, 1)
)  # fmt: skip


def test_runs_and_their_epochs_are_told_apart(tmp_path):
    path = tmp_path / "my_train_mitbih_SGD_1.dat"
    path.write_text(LINES)
    first, second, third = read_history_lines(path)
    assert third.label == "my_train_mitbih_SGD_1"
    expected = {
        "epoch": [1, 2, 3], "train_loss": [0.72, 0.47, 0.27], "train_accuracy": [0.56, 0.73, 0.86],
        "test_loss": [0.53, 0.43, 1], "test_accuracy": [0.68, 0.765, 1],
    }  # fmt: skip
    assert {name: column.tolist() for name, column in third.history().items()} == expected
    assert np.isnan(first.history()["test_loss"]).all()
    assert first.history()["test_accuracy"].tolist() == [0.04]
    assert "test_loss" not in second.history()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n\n", b"1 2 3\n", b"[1]\n", b"\x80\x04pickle", b"\xff\xfe", b"{}\n", b'{"a": ',
        line("val", 1, 1, 0).encode(), line("train", 1, 1, -1).encode(),
        line("train", 1, 1, 0.5).encode(), line("train", '"1"', 1, 0).encode(),
        line("train", 1, "true", 0).encode(), line("train", 1, 1, 10**400).encode(),
        line("test", 1, 1, 0).encode(), b'{"step_type":"train","loss":1}\n', b"[" * 99_999,
    ],
    ids=lambda content: repr(content[:40]),
)  # fmt: skip
def test_what_is_no_history_is_refused(tmp_path, content):
    path = tmp_path / "a.dat"
    path.write_bytes(content)
    with pytest.raises(FileError, match=str(path)) as caught:
        read_history_lines(path)
    assert len(str(caught.value).splitlines()) <= 3
    assert "delete" not in str(caught.value)


def test_numbers_beyond_all_floats_are_not_finite(tmp_path):
    (tmp_path / "a.dat").write_text(line("train", 10**400, "1e999", 0))
    (run,) = read_history_lines(tmp_path / "a.dat")
    assert np.isnan(run.history()["train_loss"]).all()
    with pytest.raises(FileError, match="no file at"):
        read_history_lines(tmp_path / "b.dat")
