"""Checkpoints of every usual form load; all else is refused in words, and nothing is run."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from isoloss.trainers.checkpoints import (
    CheckpointError,
    load_into,
    load_state,
    load_weights,
    save_weights,
)


def network(seed: int = 0, width: int = 4) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    values = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in values)


def prefixed(prefix: str) -> OrderedDict:
    return OrderedDict((prefix + name, value) for name, value in network().state_dict().items())


FOREIGN = {
    "bare": lambda: network().state_dict(),
    "state_dict": lambda: {"state_dict": network().state_dict(), "acc": 0.9, "epoch": 3},
    "model_state_dict": lambda: {"model_state_dict": network().state_dict(), "optimizer": {}},
    "model": lambda: {"model": network().state_dict(), "settings": {"lr": 0.1}},
    "net": lambda: {"net": network().state_dict(), "acc": 92.0},
    "data parallel": lambda: {"state_dict": prefixed("module.")},
    "compiled": lambda: prefixed("_orig_mod."),
    "compiled in data parallel": lambda: prefixed("module._orig_mod."),
    "before batch counts": lambda: {
        k: v for k, v in network().state_dict().items() if "num_batches" not in k
    },
}


@pytest.mark.parametrize("form", FOREIGN)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_usual_forms_load(tmp_path, form, zipped):
    path = tmp_path / "theirs.pth"
    torch.save(FOREIGN[form](), path, _use_new_zipfile_serialization=zipped)
    model = network(seed=1)
    load_into(model, load_weights(path), str(path))
    assert same(model, network())


def test_network_whose_own_names_look_wrapped(tmp_path):
    class Wrapper(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.module = network(seed)

    save_weights(tmp_path / "w.pt", Wrapper(0).state_dict())
    model = Wrapper(1)
    load_into(model, load_weights(tmp_path / "w.pt"), "w.pt")
    assert same(model, Wrapper(0))


def test_saved_files_are_equal_bytes_whatever_the_name_and_layout(tmp_path):
    model = network().to(memory_format=torch.channels_last)
    save_weights(tmp_path / "one.pt", model.state_dict())
    save_weights(tmp_path / "two.pt", network().state_dict())
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()
    assert all(t.is_contiguous() for t in load_weights(tmp_path / "one.pt").values())


class Malicious:
    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path(MARK).touch()".replace("MARK", repr(MARK)),)


MARK = ""


def test_objects_that_need_unpickling_are_refused_and_not_run(tmp_path):
    global MARK
    MARK = str(tmp_path / "executed")
    torch.save({"state_dict": network().state_dict(), "hook": Malicious()}, tmp_path / "bad.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Malicious(), protocol=2))
    torch.save(network(), tmp_path / "module.pt")
    for name in ("bad.pt", "bare.pt", "module.pt"):
        with pytest.raises(CheckpointError, match="state_dict") as error:
            load_weights(tmp_path / name)
        assert len(str(error.value).splitlines()) <= 3
    assert not (tmp_path / "executed").exists()


def whole_file() -> bytes:
    buffer = io.BytesIO()
    torch.save(network().state_dict(), buffer)
    return buffer.getvalue()


BROKEN = {
    "empty": lambda: b"",
    "text": lambda: b"hello, this is no checkpoint\n",
    "half": lambda: whole_file()[: len(whole_file()) // 2],
    "end missing": lambda: whole_file()[:-30],
    "hdf5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files(tmp_path, kind):
    path = tmp_path / "x.pt"
    path.write_bytes(BROKEN[kind]())
    with pytest.raises(CheckpointError, match="truncated or of another format"):
        load_weights(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_cut_anywhere_is_refused(tmp_path, zipped):
    path = tmp_path / "x.pt"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            load_weights(path)


def test_a_flipped_bit_anywhere_is_refused_or_changes_no_weight(tmp_path):
    path = tmp_path / "x.pt"
    save_weights(path, network().state_dict())
    content, weights = path.read_bytes(), load_weights(path)
    refused = 0
    for offset in range(0, len(content), 11):  # prime to the alignment of the entries
        damaged = bytearray(content)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        try:
            found = load_weights(path)
        except CheckpointError:
            refused += 1
            continue
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert refused > len(content) / 11 / 4


def test_every_flipped_bit_of_a_weight_is_refused_by_name(tmp_path):
    path = tmp_path / "x.pt"
    save_weights(path, network().state_dict())
    content = bytearray(path.read_bytes())
    first = content.index(network().state_dict()["0.weight"].numpy().tobytes())
    for bit in range(0, 8 * 36 * 4, 37):
        content[first + bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"damage in archive/data/0: .*\n.*copy"):
            load_weights(path)
        content[first + bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_files_without_checksums_load(tmp_path, zipped):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(network().state_dict(), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    finally:
        torch.serialization.set_crc32_options(before)
    model = network(seed=1)
    load_into(model, load_weights(tmp_path / "x.pt"), "x.pt")
    assert same(model, network())


KINDS = {
    "integers": lambda t: t.long(),
    "booleans": lambda t: t > 0,
    "complex numbers": lambda t: t.to(torch.complex64),
    "layout torch.sparse_coo": lambda t: t.to_sparse(),
    "layout torch.sparse_csr": lambda t: t.reshape(4, -1).to_sparse_csr(),
    "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "meta tensor": lambda t: t.to("meta"),
}


@pytest.mark.filterwarnings("ignore")  # torch's own, of sparse and quantised tensors
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_another_kind_are_refused_by_name(tmp_path, kind):
    def flat():
        return nn.Sequential(nn.Linear(9, 4), nn.BatchNorm1d(4))

    model = flat()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    torch.save({**before, "0.weight": KINDS[kind](before["0.weight"])}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as error:
        load_into(model, load_weights(tmp_path / "x.pt"), "x.pt")
    assert "1 of another kind" in str(error.value)
    assert "0.weight: expected floating point, got" in str(error.value)
    assert kind in str(error.value)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_weights_of_another_precision_load(dtype):
    model = network(seed=1)
    weights = {
        name: t.to(dtype) if t.is_floating_point() else t.int()
        for name, t in network().state_dict().items()
    }
    load_into(model, weights, "x.pt")
    assert torch.equal(model.state_dict()["0.weight"], weights["0.weight"].float())


def test_counts_that_would_be_rounded_are_refused():
    weights = {**network().state_dict(), "1.num_batches_tracked": torch.tensor(2.5)}
    with pytest.raises(CheckpointError, match="expected integers, got floating point"):
        load_into(network(), weights, "x.pt")


def test_missing_file_and_files_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match="no file"):
        load_weights(tmp_path / "none.pt")
    for content, message in [
        ({"epoch": 3}, "epoch"),
        ([1, 2], "list"),
        ({}, "nothing"),
        (torch.ones(2), "Tensor"),
    ]:
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match=message):
            load_weights(tmp_path / "x.pt")


def test_other_network_is_refused_whole(tmp_path):
    model = network()
    weights = dict(network(seed=1, width=8).state_dict())
    weights["extra"] = weights.pop("1.bias")
    with pytest.raises(CheckpointError) as error:
        load_into(model, weights, "theirs.pt")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "theirs.pt does not fit Sequential: 5 other shapes, 1 missing, 1 unexpected" in lines[0]
    assert "0.weight: expected (4, 1, 3, 3), got (8, 1, 3, 3)" in lines[1]
    assert "4 more" in lines[1]
    assert same(model, network())


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.pt"
    save_weights(path, network().state_dict())
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_weights(path, {"weight": lambda: None})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.pt"]
    assert load_state(path).keys() == network().state_dict().keys()
