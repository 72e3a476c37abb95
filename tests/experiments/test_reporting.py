"""What long work says of its length: measured as it runs, once, and only where it is long."""

from __future__ import annotations

import io

import pytest

from isoloss.experiments import reporting
from isoloss.experiments.reporting import Bars, Reporter, announcing, heard_by
from isoloss.records import progress as bars
from isoloss.records.progress import bar, shown, stage_bars


class Heard(Reporter):
    def __init__(self):
        self.expected = []

    def expect(self, unit, text):
        self.expected.append((unit, text))


def run(monkeypatch, seconds, total, *, first=10.0, done=0, units=None):
    """Do `total` units of some seconds each, the first call after `first` seconds."""
    clock = [0.0]
    monkeypatch.setattr(reporting.time, "perf_counter", lambda: clock[0])
    heard, seen = Heard(), []
    report = announcing(heard, lambda *at: seen.append(at), "points", "fewer with `samples`", units)
    clock[0] = first
    for index in range(done + 1, total + 1):
        report(index, total)
        clock[0] += seconds
    assert seen == [(index, total) for index in range(done + 1, total + 1)]
    return heard.expected


@pytest.mark.parametrize(
    ("seconds", "total", "text"),
    [
        (0.5, 441, "about 4 min: 440 points of 0.5 s; fewer with `samples`"),
        (0.05, 2001, "about 2 min: 2,000 points of 50 ms; fewer with `samples`"),
        (90, 101, "about 2.5 h: 100 points of 2 min; fewer with `samples`"),
    ],
)
def test_long_work_is_announced_once_from_its_first_units(monkeypatch, seconds, total, text):
    # The first unit, which sets buffers up and here takes 10 s, is not what all are judged by.
    assert run(monkeypatch, seconds, total) == [("points", text)]


def test_short_work_is_not_announced(monkeypatch):
    assert run(monkeypatch, 0.1, 500) == []
    assert run(monkeypatch, 100.0, 1) == []


def test_what_is_done_already_does_not_count(monkeypatch):
    assert run(monkeypatch, 1.0, 1000, done=980) == []
    ((_, text),) = run(monkeypatch, 1.0, 1000, done=899)
    assert text.startswith("about 2 min: 100 points")


def test_units_may_be_known_otherwise(monkeypatch):
    ((_, text),) = run(monkeypatch, 1.0, 50, units=700)
    assert text.startswith("about 12 min: 700 points of 1 s")


def test_a_bar_off_a_terminal_is_a_line_that_ends(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(bars.sys, "stderr", stream)
    with bar("surface") as report:
        for done in range(1, 6):
            report(done, 5)
    text = stream.getvalue()
    assert "surface: 5/5" in text
    assert text.endswith("\n")


def test_the_last_state_of_work_that_ends_early_is_shown(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(bars.sys, "stderr", stream)
    with bar("eigenpairs") as report:
        report(12, 300)
    assert "eigenpairs: 12/300" in stream.getvalue()
    with bar("nothing"):
        pass
    assert "nothing" not in stream.getvalue()


def test_progress_is_a_callback_a_bar_or_nothing(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(bars.sys, "stderr", stream)

    def own(done, total): ...

    with shown(own, "a") as report:
        assert report is own
    for none in (None, False):
        with shown(none, "a") as report:
            assert report is None
    with shown(True, "a") as report:
        report(1, 1)
    assert "a: 1/1" in stream.getvalue()


def test_each_stage_has_a_bar_of_its_own(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(bars.sys, "stderr", stream)
    with stage_bars(bar) as report:
        report("trace", 2, 2)
        report("density", 3, 3)
    assert [line.strip().split(",")[0] for line in stream.getvalue().splitlines() if line] == [
        "trace: 2/2", "density: 3/3",
    ]  # fmt: skip


def test_a_reporter_goes_before_progress():
    own = Heard()
    assert heard_by(own, True) is own
    assert isinstance(heard_by(None, True), Bars)
    assert type(heard_by(None, False)) is Reporter
