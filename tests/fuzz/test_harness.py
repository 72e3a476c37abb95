"""What counts as a finding is found: else a hundred quiet inputs would say nothing."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
from hypothesis import strategies as st

from isoloss.errors import UsageError
from tests.fuzz import harness
from tests.fuzz.harness import Finding, Reader, campaign, read_one


def _fail(drawn, folder):
    raise {"traceback": ValueError("x"), "unexpected": UsageError("a\nb\nc\nd")}[drawn]


def _hang(drawn, folder):
    began = time.process_time()
    while time.process_time() < began + 5:
        pass


def _claim(drawn, folder):
    np.ones(harness.MEMORY // 4)  # twice of it


READERS = {"traceback": _fail, "unexpected": _fail, "hang": _hang, "memory": _claim}


@pytest.mark.skipif(sys.platform != "linux", reason="limits of time and memory are those of Linux")
@pytest.mark.parametrize("kind", READERS)
def test_findings(monkeypatch, kind):
    monkeypatch.setattr(harness, "SECONDS", 0.2)
    with pytest.raises(Finding) as caught:
        read_one(Reader("bad", st.just(kind), READERS[kind]), kind)
    assert caught.value.kind == kind


def test_a_campaign_counts_and_does_not_stop():
    def read(drawn, folder):
        if drawn % 3 == 0:
            raise UsageError("no")
        if drawn % 3 == 1:
            raise KeyError(drawn)

    tally = campaign(Reader("thirds", st.integers(0, 5000), read), 200, 4)
    assert tally.inputs == 200
    assert tally.refused > 20
    assert tally.counts["traceback"] > 20
    assert len(tally.findings) == 1
