"""docs/trust.md says what its commands find."""

from __future__ import annotations

import re
import sys

import pytest

from tests.faults.kills import SCENARIOS
from tests.fuzz.every import NAMES
from tests.trust import hostile
from tests.trust.__main__ import put, stored


@pytest.mark.skipif(sys.platform == "win32", reason="times of last access of POSIX")
def test_hostile_files_are_refused_and_counted_as_the_document_says() -> None:
    rows = hostile.read_all()
    assert [what for row in rows for what in [*row.executed, *row.elsewhere]] == []
    assert [row.name for row in rows if not row.clean] == []
    assert stored("hostile") == hostile.table(rows)


def test_what_would_be_seen_is_seen(tmp_path) -> None:
    watch = hostile._Watch()
    (tmp_path / "other").touch()
    with watch.of(tmp_path):
        open(tmp_path / "other").close()
        exec(compile("1", "theirs", "exec"))
    assert watch.opened == [str(tmp_path / "other")]
    assert len(watch.executed) == 1
    never = hostile._never_read(tmp_path / "other")
    (tmp_path / "other").write_text("x")
    never = hostile._never_read(tmp_path / "other")
    (tmp_path / "other").read_text()
    if hostile._time(tmp_path / "other") == never:
        pytest.skip("this file system keeps no times of last access")


@pytest.mark.parametrize(
    ("part", "names"), [("kills", [one.name for one in SCENARIOS]), ("fuzz", NAMES)]
)
def test_the_tables_have_a_row_for_each_and_no_fault(part, names) -> None:
    rows = re.findall(r"^\| `?([^|`]+?)`? \|(.*)\|$", stored(part), re.MULTILINE)
    counts = {name: numbers.split("|") for name, numbers in rows}
    assert set(names) <= counts.keys()
    faults = -5 if part == "fuzz" else -6  # columns of what may not happen
    for name in names:
        assert [int(number) for number in counts[name][faults:]] == [0] * -faults, name


def test_a_part_is_replaced_and_the_rest_stays(tmp_path) -> None:
    document = tmp_path / "d.md"
    document.write_text("a\n<!-- begin kills -->\nold\n<!-- end kills -->\nz\n")
    for content in ("new\n", "newer\n"):
        put("kills", content, document)
        assert stored("kills", document) == content
    assert document.read_text() == "a\n<!-- begin kills -->\n\nnewer\n\n<!-- end kills -->\nz\n"
