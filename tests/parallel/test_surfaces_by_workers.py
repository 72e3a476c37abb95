"""Surfaces by several processes: the bytes of one, resumed on another number of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoloss.landscape.surface import SurfaceError
from isoloss.parallel import Processes, WorkError
from isoloss.records.surfaces import journal_path, read_surface


@pytest.fixture
def small(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import surface_recipes

    return surface_recipes.Small


def stopping(after):
    def stop(done, total):
        if done == after:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize(
    "case",
    [
        {"y": "-1:1:3", "repeat": 2},
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"y": "-1:1:3"}, marks=pytest.mark.slow),
        pytest.param({"repeat": 3}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_same_bytes_as_one_process_also_resumed_by_others(small, tmp_path, case):
    build = small(**case)
    one, parts = (tmp_path / way / "a.h5" for way in ("one", "parts"))
    build().run(one)
    with pytest.raises(KeyboardInterrupt):
        build().run(parts, stopping(3))
    counted, total = [], build().points + 1

    def count(done, of):
        counted.append((done, of))
        if done == total - 1:  # with one point left, which a worker has
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build().run(parts, count, executor=Processes(2), build=build)
    assert counted == [(done, total) for done in range(4, total)]
    assert read_surface(parts).done.mean() >= 0.5
    assert journal_path(parts).exists()
    build().run(parts)
    assert parts.read_bytes() == one.read_bytes()
    assert [p.name for p in parts.parent.iterdir()] == ["a.h5"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bytes_by_workers_alone(small, tmp_path, workers):
    build = small(y="-1:1:3", repeat=2)
    one, two = (tmp_path / way / "a.h5" for way in ("one", "two"))
    build().run(one)
    build().run(two, executor=Processes(workers), build=build)
    assert two.read_bytes() == one.read_bytes()
    # A finished one starts no worker.
    build().run(two, executor=None, build=None)
    build().run(two, executor=NoneWanted(), build=build)


class NoneWanted:
    def map(self, recipe, items, name=str):
        raise AssertionError


@pytest.mark.slow
def test_a_build_that_makes_another_surface_is_refused(small, tmp_path):
    surface = small()()
    with pytest.raises(SurfaceError, match=r"differs in directions\.x\.digest"):
        surface.run(tmp_path / "a.h5", executor=Processes(1), build=small(seed=1))
    with pytest.raises(SurfaceError, match="together with `build`"):
        surface.run(tmp_path / "a.h5", executor=Processes(1))
    with pytest.raises(WorkError, match="that can be sent to other processes, got one that cannot"):
        surface.run(tmp_path / "a.h5", executor=Processes(1), build=lambda: surface)
    assert not read_surface(tmp_path / "a.h5").done.any()
