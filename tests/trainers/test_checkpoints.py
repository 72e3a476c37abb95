"""Checkpoints of every usual form load; all else is refused in words, and nothing is run."""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import pickle
import struct
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from isoloss.trainers.checkpoints import (
    CheckpointError,
    load_into,
    load_state,
    load_weights,
    match_names,
    read_weights,
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


def everything_else() -> dict:
    """What research code puts beside the weights."""
    history = defaultdict(list, {"loss": [np.float64(0.5)], "acc": [np.float32(0.9)]})
    settings = {"lr": 0.1, "out": pathlib.Path("runs") / "a", "dtype": np.dtype("float32")}
    return {
        "args": argparse.Namespace(**settings, nested=argparse.Namespace(n=np.int64(3))),
        "optimizer": torch.optim.Adam(network().parameters()).state_dict(),
        "history": history,
        "counts": defaultdict(int, {"seen": 4}),
        "sets": defaultdict(set),
        "scores": OrderedDict(top1=np.float64(71.5), done=np.bool_(True)),
        "numpy_rng": np.random.RandomState(0).get_state(),
        "kinds": (np.float32, np.int64(1), np.str_("a"), np.complex64(1j), np.datetime64("2020")),
        "windows": pathlib.PureWindowsPath("C:/runs"),
    }


FOREIGN = {
    "bare": lambda: network().state_dict(),
    "state_dict": lambda: {"state_dict": network().state_dict(), "acc": 0.9, "epoch": 3},
    "model_state_dict": lambda: {"model_state_dict": network().state_dict(), "optimizer": {}},
    "model": lambda: {"model": network().state_dict(), "settings": {"lr": 0.1}},
    "net": lambda: {"net": network().state_dict(), "acc": 92.0},
    "data parallel": lambda: {"state_dict": prefixed("module.")},
    "compiled": lambda: prefixed("_orig_mod."),
    "compiled in data parallel": lambda: prefixed("module._orig_mod."),
    "params": lambda: {"params": network().state_dict(), "iter": 3},
    "lightning": lambda: {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed("model."),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'mode': 'min'}": {"best_model_score": torch.tensor(0.3)}},
        "optimizer_states": [torch.optim.Adam(network().parameters()).state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"width": 4},
    },
    "lightning, compiled": lambda: {"state_dict": prefixed("model._orig_mod.")},
    "lightning with a loss": lambda: {
        "state_dict": {**prefixed("model."), "criterion.weight": torch.ones(3)}
    },
    "net.": lambda: prefixed("net."),
    "network.": lambda: prefixed("network."),
    "an encoder": lambda: {"encoder": prefixed("encoder.")},
    "averaged by torch": lambda: {**prefixed("module."), "n_averaged": torch.tensor(7)},
    "averaged alone": lambda: {"ema": {"state_dict": network().state_dict(), "decay": 0.99}},
    "an entry of another name": lambda: {"generator_weights": network().state_dict(), "step": 3},
    "with arguments": lambda: {"model": network().state_dict(), **everything_else()},
    "before batch counts": lambda: {
        k: v for k, v in network().state_dict().items() if "num_batches" not in k
    },
}


def put_into(model: nn.Module, weights: dict, source: str = "x.pt"):
    """What an import does."""
    named, fit = match_names(model, weights, source)
    load_into(model, named, source)
    return fit


@pytest.mark.parametrize("form", FOREIGN)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_usual_forms_load(tmp_path, form, zipped):
    path = tmp_path / "theirs.pth"
    torch.save(FOREIGN[form](), path, _use_new_zipfile_serialization=zipped)
    model = network(seed=1)
    put_into(model, load_weights(path), str(path))
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


def account(path, content, **asked):
    torch.save(content, path)
    return read_weights(path, **asked)


def scaled(factor: float, prefix: str = "") -> dict:
    return {prefix + name: factor * value for name, value in network().state_dict().items()}


SEVERAL = {"args": argparse.Namespace(), "ema": scaled(2), "net": scaled(3), "model": scaled(4)}


@pytest.mark.parametrize(
    ("key", "content", "taken", "factor", "others"),
    [
        (None, SEVERAL, "model", 4, ("net", "ema")),
        ("ema", SEVERAL, "ema", 2, ()),
        (None, {"ema": scaled(2)}, "ema", 2, ()),
        (None, {"ema": {"decay": 0.9, "model": scaled(2)}}, "ema.model", 2, ()),
        ("ema.model", {"state_dict": scaled(3), "ema": {"model": scaled(2)}}, "ema.model", 2, ()),
        ("ema", {"state_dict": scaled(3), "ema": {"model": scaled(2)}}, "ema.model", 2, ()),
        ("mine", {"model": scaled(3), "mine": scaled(2)}, "mine", 2, ()),
        (None, {"model": scaled(3), "mine": scaled(2)}, "model", 3, ("mine",)),
        (None, {"model": scaled(3), "centres": {"x": torch.ones(2)}}, "model", 3, ()),
        ("ema_model", {"state_dict": {**scaled(3, "model."), **scaled(2, "ema_model.")}},
         "ema_model", 2, ()),
        ("ema_model.", scaled(2, "ema_model."), "ema_model.", 2, ()),
        (None, scaled(3), "", 3, ()),
    ],
)  # fmt: skip
def test_which_entry_is_taken(tmp_path, key, content, taken, factor, others):
    found = account(tmp_path / "x.pt", content, key=key)
    assert (found.key, found.others) == (taken, others)
    assert found.summed
    assert not found.unpickled
    model = network(seed=1)
    put_into(model, found.tensors)
    assert torch.equal(model.state_dict()["0.weight"], factor * network().state_dict()["0.weight"])


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        (None, {"first": scaled(1), "second": scaled(2)}, "under first, second: which"),
        ("emma", SEVERAL, "`key` emma is not in it\\nentries with weights: model, net, ema"),
        ("args", SEVERAL, "`key` args holds no weights"),
        ("epoch", {"epoch": 3}, "`key` epoch holds no weights\\nentries with weights: none"),
    ],
)
def test_entries_that_cannot_be_taken(tmp_path, key, content, message):
    with pytest.raises(CheckpointError, match=message):
        account(tmp_path / "x.pt", content, key=key)


def test_how_names_were_matched_is_said():
    fit = put_into(network(), {**scaled(1, "model."), "loss.weight": torch.ones(2)})
    assert (fit.prefix, fit.left_out, fit.others) == ("model.", ("loss.weight",), ())
    both = {**scaled(2, "teacher."), **scaled(3, "net.")}
    model = network(seed=1)
    fit = put_into(model, both)
    assert (fit.prefix, fit.others) == ("net.", ("teacher.",))
    assert torch.equal(model.state_dict()["0.weight"], 3 * network().state_dict()["0.weight"])
    assert put_into(model, scaled(1, "features.stem.")).prefix == "features.stem."
    assert same(model, network())
    holder = nn.ModuleDict({"backbone": network(seed=1)})
    assert put_into(holder, scaled(1)).added == "backbone."
    assert same(holder["backbone"], network())
    fit = put_into(network(), scaled(1, "module."))
    assert (fit.prefix, fit.added, fit.left_out, fit.others) == ("", "", (), ())


def test_a_part_that_may_not_be_meant_is_asked_for():
    with pytest.raises(CheckpointError, match=r"under teacher\., student\. alone: are those"):
        put_into(network(), {**scaled(2, "teacher."), **scaled(3, "student.")})
    wide = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(CheckpointError, match=r"under 1\. alone: are those meant\?\n.*such as 1\."):
        put_into(nn.Linear(4, 2), wide.state_dict())
    with pytest.raises(CheckpointError, match="does not fit Linear"):  # a layer of no such shape
        put_into(nn.Linear(3, 2), wide.state_dict())
    # What a run has written itself is never searched.
    with pytest.raises(CheckpointError, match="does not fit Sequential: 0 other shapes, 6 missing"):
        load_into(network(), scaled(1, "model."), "x.pt")


def test_values_that_are_not_finite_are_named(tmp_path):
    content = scaled(1)
    content["0.bias"][1] = float("nan")
    content["1.running_var"][0] = float("inf")
    assert account(tmp_path / "x.pt", content).not_finite() == ["0.bias", "1.running_var"]
    assert not account(tmp_path / "x.pt", scaled(1)).not_finite()
    eights = {"a": torch.tensor([1.0, float("nan")]).to(torch.float8_e4m3fn), "n": torch.ones(1)}
    assert account(tmp_path / "x.pt", eights).not_finite() == ["a"]


def safetensors(tensors: dict) -> bytes:
    """The format, written by hand: little-endian length, JSON, bytes."""
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64", torch.bool: "BOOL"}
    table: dict = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, t in tensors.items():
        content = t.contiguous().view(torch.uint8).numpy().tobytes() if t.dim() else (
            t.reshape(1).view(torch.uint8).numpy().tobytes())  # fmt: skip
        place = [len(data), len(data) + len(content)]
        table[name] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": place}
        data += content
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_load(tmp_path, name):
    (tmp_path / name).write_bytes(safetensors(network().state_dict()))
    found = read_weights(tmp_path / name)
    assert (found.summed, found.digested) == (False, False)
    model = network(seed=1)
    load_into(model, found.tensors, name)
    assert same(model, network())


def test_safetensors_of_other_dtypes_and_shapes(tmp_path):
    tensors = {
        "half": torch.tensor([1.5, -2.0, 3e38]).bfloat16(),
        "flags": torch.tensor([[True, False]]),
        "count": torch.tensor(7),
        "none": torch.empty(0, 3),
    }
    (tmp_path / "w.safetensors").write_bytes(safetensors(tensors))
    found = load_weights(tmp_path / "w.safetensors")
    assert list(found) == list(tensors)
    assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in tensors.items())


def test_safetensors_agree_with_their_library(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    library.save_file(network().state_dict(), tmp_path / "w.safetensors", {"format": "pt"})
    found = load_weights(tmp_path / "w.safetensors")
    expected = library.load_file(tmp_path / "w.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="beyond the file"):
        load_weights(tmp_path / "w.safetensors")


def test_a_whole_network_is_refused_with_the_lines_that_convert_it(tmp_path):
    path = tmp_path / "theirs.pt"
    torch.save(network(), path)
    with pytest.raises(CheckpointError) as error:
        read_weights(path)
    first, lines, last = str(error.value).splitlines()
    assert "theirs.pt holds a whole pickled network" in first
    assert "`trust_pickle`" in last
    exec(lines)  # as it is printed
    model = network(seed=1)
    load_into(model, load_weights(tmp_path / "theirs-weights.pt"), "x.pt")
    assert same(model, network())


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused_with_the_lines_that_convert_it(tmp_path):
    path = tmp_path / "theirs.pt"
    torch.jit.script(network()).save(path)
    with pytest.raises(CheckpointError, match="TorchScript") as error:
        read_weights(path)
    exec(str(error.value).splitlines()[1].partition(": ")[2])
    model = network(seed=1)
    load_into(model, load_weights(tmp_path / "theirs-weights.pt"), "x.pt")
    assert same(model, network())


@pytest.mark.parametrize("form", ["network", "entry", "state dict"])
def test_a_trusted_file_is_unpickled_only_where_it_must_be(tmp_path, form):
    content = {
        "network": network(),
        "entry": {"model": network(), "epoch": 3, "hook": complex},
        "state dict": {"model": network().state_dict()},
    }[form]
    found = account(tmp_path / "x.pt", content, trust_pickle=True)
    assert found.unpickled == (form != "state dict")
    model = network(seed=1)
    load_into(model, found.tensors, "x.pt")
    assert same(model, network())


def test_a_trusted_file_whose_classes_are_not_here(tmp_path):
    content = io.BytesIO()
    torch.save(network(), content)
    damaged = content.getvalue().replace(
        b"torch.nn.modules.container", b"torch.nn.modules.kontainer"
    )
    path = tmp_path / "x.pt"
    path.write_bytes(b"\x80\x02cno_such_module\nNet\n)\x81.")
    with pytest.raises(CheckpointError, match=r"x.pt cannot be unpickled: .*\nthe classes in it"):
        read_weights(path, trust_pickle=True)
    path.write_bytes(damaged)  # checksums come first, also in trusted files
    with pytest.raises(CheckpointError, match="damage in"):
        read_weights(path, trust_pickle=True)


def test_a_runs_own_state_names_no_foreign_objects(tmp_path):
    torch.save({"args": argparse.Namespace()}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace"):
        load_state(tmp_path / "state.pt")


class Classifier(nn.Module):
    def __init__(self, classes: int = 10, channels: int = 3, width: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)


MISFITS = {
    "classes": (Classifier(100).state_dict(), "7 of 9", "num_classes=100"),
    "channels": (Classifier(channels=1).state_dict(), "8 of 9", "1 in the file and 3 here"),
    "width": (Classifier(width=6).state_dict(), "2 of 9", "same model, same arguments"),
    "within another": (
        {f"encoder.{n}": v for n, v in list(Classifier().state_dict().items())[:-1]},
        "0 of 9",
        "names in the file begin with encoder., and 1 differ",
    ),
    "another network": (network().state_dict(), "0 of 9", "same model, same arguments"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_likely_happened(case):
    weights, fitting, likely = MISFITS[case]
    with pytest.raises(CheckpointError, match=f"x.pt does not fit Classifier: .*; {fitting}") as e:
        load_into(Classifier(), weights, "x.pt")
    lines = str(e.value).splitlines()
    assert len(lines) == 3
    assert likely in lines[2]
    assert len(lines[1].split("; ")) <= 4


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


def test_what_other_packages_allow_is_neither_needed_nor_granted(tmp_path):
    """Lightning puts defaultdict into torch's table for good; anybody may put anything there."""
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return pathlib.Path.touch, (ran,)

    torch.save(FOREIGN["with arguments"](), tmp_path / "theirs.pth")
    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    before = torch.serialization.get_safe_globals()
    table = [*before, defaultdict, (pathlib.Path.touch, "pathlib.Path.touch")]
    try:
        torch.serialization.add_safe_globals(table)
        load_weights(tmp_path / "theirs.pth")
        with pytest.raises(CheckpointError):
            load_weights(tmp_path / "evil.pth")
        assert defaultdict in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
    assert not ran.exists()
