"""Signals wait for the end of a block, and are answered by whoever answered them before."""

from __future__ import annotations

import os
import signal
import threading

import h5py
import numpy as np
import pytest

from isoloss.records import hdf5
from isoloss.records.interrupts import waiting

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_waits_for_the_end(name):
    number, done = getattr(signal, name), []

    def answer(number, frame):
        raise KeyboardInterrupt

    def work(error=None):
        with waiting():
            os.kill(os.getpid(), number)
            done.append(error)
            if error is not None:
                raise error

    before = signal.signal(number, answer)
    try:
        for error in (None, OSError()):  # which does not hide it
            with pytest.raises(KeyboardInterrupt):
                work(error)
            assert done[-1] is error
        assert len(done) == 2
        assert signal.getsignal(number) is answer
    finally:
        signal.signal(number, before)


def test_other_threads_change_nothing():
    found = []

    def work():
        with waiting():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]


def test_a_file_is_written_whole_before_the_signal_is_answered(tmp_path):
    path = tmp_path / "a.h5"

    def fill(file):
        os.kill(os.getpid(), signal.SIGINT)
        file.create_dataset("x", data=np.arange(3.0))

    # Whoever started the tests may have them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            hdf5.write_hdf5(path, "surface", {}, fill, 24)
    finally:
        signal.signal(signal.SIGINT, before)
    with h5py.File(path) as file:
        assert file["x"][:].tolist() == [0, 1, 2]
