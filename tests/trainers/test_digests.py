"""Digests of a run's own checkpoints: what is read is what was written, wherever a kill came."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from isoloss.records.digests import expected_digests
from isoloss.records.files import FileError
from isoloss.records.provenance import file_sha256
from isoloss.trainers.checkpoints import (
    CheckpointError,
    load_state,
    load_weights,
    save_state,
    save_weights,
)

OLD_RUNS = Path(__file__).resolve().parents[1] / "fixtures" / "before-the-move" / "runs"


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((5,), value)}


def save(path, value):
    save_weights(path, weights(value), digest=True)


def test_every_flipped_bit_of_a_recorded_checkpoint_is_refused(tmp_path):
    path = tmp_path / "last.pt"
    save(path, 1.0)
    content = path.read_bytes()
    for offset in range(0, len(content), 13):
        damaged = bytearray(content)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as error:
            load_weights(path)
        expected = json.loads((tmp_path / "digests.json").read_text())["last.pt"]
        lines = str(error.value).splitlines()
        assert len(lines) <= 3
        assert str(path) in lines[0]
        assert expected[0][:12] in lines[0]
        assert file_sha256(path)[:12] in lines[0]
        assert "`force`" in lines[1]


def test_a_checkpoint_of_another_run_is_refused_though_whole(tmp_path):
    save(tmp_path / "last.pt", 1.0)
    save_weights(tmp_path / "best.pt", weights(2.0))  # nothing is known of it
    assert load_weights(tmp_path / "best.pt")["weight"][0] == 2.0
    shutil.copy(tmp_path / "best.pt", tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="another file"):
        load_weights(tmp_path / "last.pt")


def test_each_file_has_its_digest_alone(tmp_path):
    save(tmp_path / "last.pt", 1.0)
    save_state(tmp_path / "state.pt", {"epoch": 1}, digest=True)
    save(tmp_path / "last.pt", 2.0)
    stored = json.loads((tmp_path / "digests.json").read_text())
    assert stored == {
        name: [file_sha256(tmp_path / name)] for name in ("last.pt", "state.pt")
    }  # fmt: skip
    assert load_state(tmp_path / "state.pt") == {"epoch": 1}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("known", [True, False], ids=["recorded", "of an older version"])
@pytest.mark.parametrize("moment", range(4))
def test_a_kill_anywhere_leaves_a_checkpoint_that_loads(tmp_path, monkeypatch, moment, known):
    import os

    replace, path, moves = os.replace, tmp_path / "last.pt", 0

    def kill(source, target):  # digests, checkpoint, digests
        nonlocal moves
        if moves == moment:
            raise Killed
        moves += 1
        replace(source, target)

    save_weights(path, weights(1.0), digest=known)
    for repeat in range(3):  # one kill after another
        moves = 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", kill)
            if moment < 3:
                with pytest.raises(Killed):
                    save(path, 2.0 + repeat)
            else:
                save(path, 2.0 + repeat)
        found = 1.0 if moment < 2 else 2.0 + repeat
        assert torch.equal(load_weights(path)["weight"], weights(found)["weight"])
    save(path, 9.0)
    assert expected_digests(path) == [file_sha256(path)]


def test_a_run_without_digests_is_checked_by_its_evaluation(tmp_path):
    run = shutil.copytree(OLD_RUNS / "before", tmp_path / "runs" / "before")
    path = run / "checkpoints" / "last.pt"
    assert not (path.parent / "digests.json").exists()
    expected = json.loads((run / "evaluation.json").read_text())["checkpoint_sha256"]
    assert expected_digests(path) == [expected] == [file_sha256(path)]
    load_weights(path)
    # Whole, but not what was evaluated.
    save_weights(path, weights(1.0))
    with pytest.raises(CheckpointError, match=expected[:12]):
        load_weights(path)
    # A training that goes on has other weights than were evaluated.
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, "status": "interrupted"}))
    load_weights(path)
    (run / "run.json").write_text(json.dumps(manifest))
    evaluation = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(
        json.dumps({**evaluation, "checkpoint": "checkpoints/best.pt"})
    )
    load_weights(path)


def test_damaged_digests_are_named(tmp_path):
    save(tmp_path / "last.pt", 1.0)
    for damage in ('{"last.pt', "[]"):
        (tmp_path / "digests.json").write_text(damage)
        with pytest.raises(FileError, match=r"digests\.json"):
            load_weights(tmp_path / "last.pt")
