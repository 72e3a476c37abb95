"""Crafted files: none runs anything, and each is refused in words that name the file.

Every payload would leave a file (the canary) where a plain unpickler ran it; for those marked live
a test shows that it does, so that the corpus does not grow tame unnoticed.
"""

from __future__ import annotations

import io
import json
import marshal
import pickle
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from isoloss.trainers.checkpoints import CheckpointError, read_weights

# -- pickle, opcode by opcode ---------------------------------------------------------------------


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def raw(value: bytes) -> bytes:
    """Bytes as protocol 2 writes them: encoded text."""
    return name("_codecs", "encode") + b"(" + text(value.decode("latin1")) + text("latin1") + b"tR"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def stacked(module: str, attribute: str) -> bytes:
    """The opcode that follows dots in attributes."""
    return text(module) + text(attribute) + b"\x93"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def new(cls: bytes, *arguments: bytes) -> bytes:
    return cls + b"(" + b"".join(arguments) + b"t\x81"


def build(thing: bytes, state: bytes) -> bytes:
    return thing + state + b"b"


def dictionary(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def whole(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def shell(canary: str) -> bytes:
    return text(f"touch {canary}")


def python(canary: str) -> bytes:
    return text(f"open({canary!r}, 'w').close()")


def words(*values: str) -> bytes:
    return b"](" + b"".join(map(text, values)) + b"e"


def function_of_code(canary: str) -> bytes:
    code = marshal.dumps(compile(f"open({canary!r}, 'w')", "x", "exec"))
    return call(
        call(name("types", "FunctionType"), call(name("marshal", "loads"), raw(code)), b"}")
    )


class Evil:
    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self):
        return open, (self.canary, "w")


def object_array(canary: str) -> bytes:
    return pickle.dumps(np.array([Evil(canary)], dtype=object), protocol=2)[2:-1]


def imported(module: str) -> bytes:
    return call(name("builtins", "__import__"), text(module))


# What a plain unpickler would run. The protocol decides whether dots in GLOBAL are followed.
LIVE: dict[str, tuple[int, Callable[[str], bytes]]] = {
    "os.system": (2, lambda c: call(name("os", "system"), shell(c))),
    "posix.system": (2, lambda c: call(name("posix", "system"), shell(c))),
    "os.mkdir": (2, lambda c: call(name("os", "mkdir"), text(c))),
    "subprocess.call": (2, lambda c: call(name("subprocess", "call"), words("touch", c))),
    "subprocess.getoutput": (2, lambda c: call(name("subprocess", "getoutput"), shell(c))),
    "subprocess.run": (2, lambda c: call(name("subprocess", "run"), words("touch", c))),
    "eval": (2, lambda c: call(name("builtins", "eval"), python(c))),
    "exec": (2, lambda c: call(name("builtins", "exec"), python(c))),
    "eval of Python 2": (2, lambda c: call(name("__builtin__", "eval"), python(c))),
    "open": (2, lambda c: call(name("builtins", "open"), text(c), text("w"))),
    "io.open": (2, lambda c: call(name("io", "open"), text(c), text("w"))),
    "_io.FileIO": (2, lambda c: call(name("_io", "FileIO"), text(c), text("w"))),
    "codecs.open": (2, lambda c: call(name("codecs", "open"), text(c), text("w"))),
    "logging.FileHandler": (2, lambda c: call(name("logging", "FileHandler"), text(c))),
    "sqlite3.connect": (2, lambda c: call(name("sqlite3", "connect"), text(c))),
    "zipfile.ZipFile": (2, lambda c: call(name("zipfile", "ZipFile"), text(c), text("w"))),
    "numpy.savetxt": (2, lambda c: call(name("numpy", "savetxt"), text(c), b"](K\x01e")),
    "timeit.timeit": (
        2,
        lambda c: call(
            name("timeit", "timeit"), python(c), text("pass"), name("time", "time"), b"K\x01"
        ),
    ),
    "cProfile.run": (2, lambda c: call(name("cProfile", "run"), python(c))),
    "argparse.FileType": (
        2,
        lambda c: call(call(name("argparse", "FileType"), text("w")), text(c)),
    ),
    "getattr of import": (
        2,
        lambda c: call(call(name("builtins", "getattr"), imported("os"), text("system")), shell(c)),
    ),
    "importlib": (
        2,
        lambda c: call(
            call(
                name("builtins", "getattr"),
                call(name("importlib", "import_module"), text("os")),
                text("system"),
            ),
            shell(c),
        ),
    ),
    "functools.partial": (
        2,
        lambda c: call(call(name("functools", "partial"), name("os", "system"), shell(c))),
    ),
    "operator.methodcaller": (
        2,
        lambda c: call(
            call(name("operator", "methodcaller"), text("system"), shell(c)), imported("os")
        ),
    ),
    "marshalled code": (2, function_of_code),
    "nested pickle": (
        2,
        lambda c: call(name("pickle", "loads"), raw(whole(call(name("os", "system"), shell(c))))),
    ),
    "storage from bytes": (
        2,
        lambda c: call(
            name("torch.storage", "_load_from_bytes"),
            raw(legacy(whole(call(name("os", "system"), shell(c))))),
        ),
    ),
    "INST": (0, lambda c: f"(S'touch {c}'\nios\nsystem\n".encode()),
    "OBJ": (2, lambda c: b"(" + name("os", "system") + shell(c) + b"o"),
    "numpy array of objects": (2, object_array),
    "argparse._os.system, stacked": (
        4,
        lambda c: call(stacked("argparse", "_os.system"), shell(c)),
    ),
    "argparse._os.system": (4, lambda c: call(name("argparse", "_os.system"), shell(c))),
    "argparse._sys.modules": (
        4,
        lambda c: call(
            call(
                name("builtins", "getattr"),
                call(stacked("argparse", "_sys.modules.get"), text("os")),
                text("system"),
            ),
            shell(c),
        ),
    ),
    "Namespace's globals": (
        4,
        lambda c: call(
            call(
                name("builtins", "getattr"),
                call(stacked("argparse", "Namespace.__init__.__globals__.get"), text("_os")),
                text("system"),
            ),
            shell(c),
        ),
    ),
    "collections._sys.modules": (
        4,
        lambda c: call(
            call(
                name("builtins", "getattr"),
                call(stacked("collections", "_sys.modules.get"), text("os")),
                text("system"),
            ),
            shell(c),
        ),
    ),
    "Path.touch": (
        4,
        lambda c: call(stacked("pathlib", "Path.touch"), call(name("pathlib", "Path"), text(c))),
    ),
    "getattr on a path": (
        2,
        lambda c: call(
            call(name("builtins", "getattr"), call(name("pathlib", "Path"), text(c)), text("touch"))
        ),
    ),
}

NAMESPACE = new(name("argparse", "Namespace"))
SCALAR = name("numpy._core.multiarray", "scalar")
OBJECT = call(name("numpy", "dtype"), text("O8"), b"\x89", b"\x88")

# What a plain unpickler may refuse, or run to no effect; ours must refuse it, or find no weights.
OTHER: dict[str, tuple[int, Callable[[str], bytes]]] = {
    "GLOBAL with dots": (2, lambda c: call(name("argparse", "_sys.modules.get"), text("os"))),
    "pathlib.os.system": (2, lambda c: call(name("pathlib", "os.system"), shell(c))),
    "collections.abc.sys": (2, lambda c: call(name("collections.abc", "sys.exit"), b"K\x00")),
    "sys.exit": (2, lambda c: call(name("sys", "exit"), b"K\x00")),
    "os._exit": (2, lambda c: call(name("os", "_exit"), b"K\x00")),
    "dots moved": (2, lambda c: call(name("argparse.Namespace", "__init__"), text(c))),
    "no module": (2, lambda c: call(name("", "argparse.Namespace.__class__"), text(c))),
    "another alphabet": (2, lambda c: call(name("\u043es", "system"), shell(c))),
    "escape codes": (2, lambda c: call(name("os\x1b[2J", "\x1b]0;system"), shell(c))),
    "factory os.system": (
        2,
        lambda c: call(name("collections", "defaultdict"), name("os", "system")),
    ),
    "factory eval": (
        2,
        lambda c: (
            call(name("collections", "defaultdict"), name("builtins", "eval"))
            + b"("
            + python(c)
            + b"Nu"
        ),
    ),
    "factory Popen": (
        2,
        lambda c: call(name("collections", "defaultdict"), name("subprocess", "Popen")),
    ),
    "Namespace of attributes": (
        2,
        lambda c: build(
            NAMESPACE, dictionary(__class__=b"N", __setstate__=b"N", __reduce__=shell(c))
        ),
    ),
    "Namespace with slots": (
        2,
        lambda c: build(NAMESPACE, b"}" + dictionary(__class__=NAMESPACE, __dict__=b"}") + b"\x86"),
    ),
    "Namespace called": (2, lambda c: call(call(name("argparse", "Namespace")), shell(c))),
    "Namespace of evil": (
        2,
        lambda c: build(NAMESPACE, dictionary(x=call(name("os", "system"), shell(c)))),
    ),
    "Namespace filled": (2, lambda c: NAMESPACE + b"(" + text("a") + shell(c) + b"u"),
    "Namespace extended": (2, lambda c: NAMESPACE + b"(" + shell(c) + b"e"),
    "path of evil": (
        2,
        lambda c: call(name("pathlib", "PosixPath"), call(name("os", "system"), shell(c))),
    ),
    "method of a path": (2, lambda c: call(name("pathlib", "Path.touch"), text(c))),
    "scalar of objects": (
        2,
        lambda c: call(SCALAR, OBJECT, raw(whole(call(name("os", "system"), shell(c))))),
    ),
    "array of no objects": (
        2,
        lambda c: pickle.dumps(np.array([None, 3], dtype=object), protocol=2)[2:-1],
    ),
    "array of a list": (
        2,
        lambda c: build(
            call(
                name("numpy._core.multiarray", "_reconstruct"),
                name("numpy", "ndarray"),
                b"K\x00\x85",
                raw(b"b"),
            ),
            b"(K\x01K\x01\x85"
            + call(name("numpy", "dtype"), text("f8"))
            + b"\x89"
            + b"](Neb"[:-1]
            + b"t",
        ),
    ),
    "dtype with fields of objects": (
        2,
        lambda c: pickle.dumps(np.dtype([("a", "O"), ("b", "f4")]), protocol=2)[2:-1],
    ),
    "numpy.load": (2, lambda c: call(name("numpy", "load"), text(c))),
    "numpy's pickle": (2, lambda c: call(name("numpy.core._internal", "_ctypes"), text(c))),
    "torch.load": (2, lambda c: call(name("torch.serialization", "load"), text(c))),
    "torch.save": (2, lambda c: call(name("torch.serialization", "save"), b"}", text(c))),
    "torch.hub": (2, lambda c: call(name("torch.hub", "load"), text(c), text("x"))),
    "torch.jit.load": (2, lambda c: call(name("torch.jit", "load"), text(c))),
    "type of a tensor": (
        2,
        lambda c: call(
            name("torch._tensor", "_rebuild_from_type_v2"),
            name("argparse", "Namespace"),
            name("os", "system"),
            b")",
            b"}",
        ),
    ),
    "builder is no builder": (
        2,
        lambda c: call(
            name("torch._tensor", "_rebuild_from_type_v2"),
            name("argparse", "Namespace"),
            name("argparse", "Namespace"),
            b")",
            dictionary(__class__=b"N"),
        ),
    ),
    "Parameter of text": (2, lambda c: new(name("torch.nn.parameter", "Parameter"), shell(c))),
    "dictionary in disguise": (
        2,
        lambda c: build(
            call(name("collections", "OrderedDict")),
            dictionary(items=b"N", keys=b"N", get=b"N", values=b"N", __class__=b"N"),
        ),
    ),
    "dictionary in itself": (2, lambda c: b"}q\x01" + text("state_dict") + b"h\x01s"),
    "dictionaries without end": (
        2,
        lambda c: (b"}" + text("model")) * 20000 + b"N" + b"s" * 20000,
    ),
    "disguised deeply": (
        2,
        lambda c: (
            (b"}" + text("model")) * 6
            + build(call(name("collections", "OrderedDict")), dictionary(items=b"N", get=b"N"))
            + b"s" * 6
        ),
    ),
    "extension registry": (2, lambda c: b"\x82\x01"),
    "persistent text": (0, lambda c: f"P{c}\n".encode()),
    "persistent tuple": (2, lambda c: b"(" + text("module") + shell(c) + b"tQ"),
    "storage of no file": (
        2,
        lambda c: (
            b"("
            + text("storage")
            + name("torch", "FloatStorage")
            + text("../../../etc/passwd")
            + text("cpu")
            + b"K\x01tQ"
        ),
    ),
    "memo of nothing": (2, lambda c: b"h\x7f"),
    "empty stack": (2, lambda c: b"000R"),
    "mark of nothing": (2, lambda c: b"tttt"),
    "no end": (2, lambda c: b"}" * 50),
    "nested deeply": (2, lambda c: b"]" * 20000 + b"a" * 19999),
}


def archive(content: bytes, **entries: bytes) -> bytes:
    """The form that torch writes since 1.6."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for entry, data in {"data.pkl": content, "byteorder": b"little", **entries}.items():
            file.writestr(f"archive/{entry}", data)
        file.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def legacy(content: bytes) -> bytes:
    """The form before."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = (0x1950A86A20F9469CFC6C, 1001, system)
    return b"".join(pickle.dumps(part, protocol=2) for part in head) + content + b"\x80\x02]."


FORMS = {"zip": archive, "legacy": legacy, "bare": lambda content: content}


def refused(path: Path, canary: Path) -> str:
    """Return the message; nothing was run, nothing was written beside the file."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(CheckpointError) as error:
        read_weights(path)
    message = str(error.value)
    assert 1 <= len(message.splitlines()) <= 3, message
    assert str(path) in message
    assert all(c.isprintable() for line in message.splitlines() for c in line), repr(message)
    assert not canary.exists()
    assert sorted(path.parent.iterdir()) == before
    return message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", LIVE)
def test_the_corpus_is_hostile(case, tmp_path, capfd):
    protocol, make = LIVE[case]
    canary = tmp_path / "canary"
    pickle.loads(whole(make(str(canary)), protocol))
    assert canary.exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", [*LIVE, *OTHER])
def test_crafted_pickles_are_refused_and_not_run(case, form, tmp_path):
    protocol, make = {**LIVE, **OTHER}[case]
    canary, path = tmp_path / "canary", tmp_path / "theirs.pt"
    for place, body in {
        "top": make(str(canary)),
        "entry": dictionary(state_dict=make(str(canary)), epoch=b"K\x03"),
    }.items():
        path.write_bytes(FORMS[form](whole(body, protocol)))
        message = refused(path, canary)
        assert "damage" not in message, place  # the container is whole: the pickle was looked at


def test_forms_of_the_corpus_are_read(tmp_path):
    weights = dictionary(state_dict=b"}", args=build(NAMESPACE, dictionary(lr=b"K\x01")))
    for form in ("zip", "legacy"):
        (tmp_path / "x.pt").write_bytes(FORMS[form](whole(weights)))
        with pytest.raises(CheckpointError, match="got a dictionary with state_dict, args"):
            read_weights(tmp_path / "x.pt")


# -- containers -----------------------------------------------------------------------------------


def evil_pickle(canary: str) -> bytes:
    return whole(call(name("os", "system"), shell(canary)))


def script_archive(canary: str) -> bytes:
    return archive(
        evil_pickle(canary),
        **{"constants.pkl": evil_pickle(canary), "code/__torch__.py": b"import os"},
    )


def tar(canary: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for entry in ("storages", "tensors", "pickle", "../../outside"):
            info = tarfile.TarInfo(entry)
            info.size = len(evil_pickle(canary))
            file.addfile(info, io.BytesIO(evil_pickle(canary)))
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def two_pickles(canary: str) -> bytes:
    buffer = io.BytesIO(archive(whole(b"}")))
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("archive/data.pkl", evil_pickle(canary))
    return buffer.getvalue()


def bomb(canary: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("archive/data.pkl", whole(b"}"))
        file.writestr("archive/version", b"3\n")
        file.writestr("archive/data/0", bytes(2**20))
    # The directory claims 2 TiB: reading it all is what is refused.
    content = bytearray(buffer.getvalue())
    where = content.rindex(struct.pack("<I", 2**20))
    content[where : where + 4] = struct.pack("<I", 2**32 - 2)
    return bytes(content)


def tensor(size: str, stride: str, offset: bytes = b"K\x00", numel: bytes = b"K\x01") -> bytes:
    """A tensor of one stored number that claims another size."""
    storage = (
        b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + numel
    ) + b"tQ"
    shape = b"(" + b"".join(f"I{n}\n".encode() for n in size.split()) + b"t"
    return shape and call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage,
        offset,
        numbers(size),
        numbers(stride),
        b"\x89",
        call(name("collections", "OrderedDict")),
    )


def numbers(values: str) -> bytes:
    def number(value: int) -> bytes:
        encoded = pickle.encode_long(value)
        return b"\x8a" + bytes([len(encoded)]) + encoded

    return b"(" + b"".join(number(int(v)) for v in values.split()) + b"t"


def claims(size: str, stride: str, **more: bytes) -> Callable[[str], bytes]:
    content = whole(dictionary(state_dict=dictionary(weight=tensor(size, stride, **more))))
    return lambda canary: archive(content, **{"data/0": struct.pack("<f", 1.0)})


CONTAINERS: dict[str, Callable[[str], bytes]] = {
    "TorchScript": script_archive,
    "tar": tar,
    "archive in an archive": lambda c: archive(archive(evil_pickle(c))),
    "archive as the storage": lambda c: archive(whole(b"}"), **{"data/0": script_archive(c)}),
    "pickle twice": two_pickles,
    "entries outside": lambda c: archive(whole(b"}"), **{"../../../../tmp/outside": b"x"}),
    "compressed bomb": bomb,
    "no pickle": lambda c: archive(b""),
    "pickle behind an archive": lambda c: archive(whole(b"}")) + evil_pickle(c),
    "pickle before an archive": lambda c: evil_pickle(c) + archive(whole(b"}")),
    "script": lambda c: f"#!/bin/sh\ntouch {c}\n".encode(),
    "more values than stored": claims("1000", "1"),
    "far more values than stored": claims("1000000000000000", "1"),
    "one value a trillion times": claims("1000000000000", "0"),
    "beyond the storage": claims("1", "1", offset=b"M\xff\xff"),
    "negative stride": claims("4", "-1"),
    "negative size": claims("-4", "1"),
    "overflowing size": claims("9223372036854775807 9223372036854775807", "1 1"),
    "storage larger than its bytes": claims("1000", "1", numel=b"M\xe8\x03"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CONTAINERS)
def test_crafted_containers_are_refused(case, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = tmp_path / "a" / "b" / "theirs.pt"
    path.write_bytes(CONTAINERS[case](str(tmp_path / "canary")))
    began = time.monotonic()
    refused(path, tmp_path / "canary")
    assert time.monotonic() - began < 5
    assert not (tmp_path / "outside").exists()


# -- safetensors ----------------------------------------------------------------------------------

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DATA = struct.pack("<2f", 1.0, 2.0)


def safetensors(table: object, data: bytes = DATA, length: int | None = None) -> bytes:
    header = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(**changed: object) -> bytes:
    return safetensors({"weight": {**ENTRY, **changed}})


SAFETENSORS = {
    "empty": b"",
    "seven bytes": b"\x00" * 7,
    "no table": struct.pack("<Q", 0),
    "largest length": safetensors({"weight": ENTRY}, length=2**64 - 1),
    "length of 2^63": safetensors({"weight": ENTRY}, length=2**63),
    "length beyond the file": safetensors({"weight": ENTRY}, length=10**6),
    "length beyond the bound": safetensors(b"{" + b" " * 100) + bytes(100),
    "no JSON": safetensors(b"{not json at all}"),
    "no dictionary": safetensors([ENTRY]),
    "number": safetensors(3),
    "nested deeply": safetensors(b"[" * 200_000),
    "a long number": safetensors(b'{"w": ' + b"9" * 10_000 + b"}"),
    "no text": safetensors(b"{\xff\xfe}"),
    "entry of text": safetensors({"weight": "F32"}),
    "entry without dtype": safetensors({"weight": {"shape": [2], "data_offsets": [0, 8]}}),
    "name twice": safetensors(
        b'{"w": %b, "w": %b}' % (json.dumps(ENTRY).encode(), json.dumps(ENTRY).encode())
    ),
    "unknown dtype": entry(dtype="O"),
    "dtype of a list": entry(dtype=["F32"]),
    "huge shape": entry(shape=[2**40, 2**40]),
    "shape of other size": entry(shape=[3]),
    "negative shape": entry(shape=[-2]),
    "two negatives": entry(shape=[-2, -1]),
    "fractional shape": entry(shape=[2.0]),
    "boolean shape": entry(shape=[True, 2]),
    "shape of text": entry(shape="2"),
    "offsets beyond the file": safetensors(
        {"weight": {**ENTRY, "shape": [2000], "data_offsets": [0, 8000]}}
    ),
    "offsets backwards": entry(data_offsets=[8, 0]),
    "negative offsets": entry(data_offsets=[-8, 0]),
    "three offsets": entry(data_offsets=[0, 4, 8]),
    "overlap": safetensors({"a": ENTRY, "b": ENTRY}),
    "hole": safetensors({"a": ENTRY, "b": {**ENTRY, "data_offsets": [12, 20]}}, DATA + bytes(12)),
    "bytes of nobody": safetensors({"weight": ENTRY}, DATA + b"hidden"),
    "nothing in it": safetensors({}, b""),
    "escape codes": safetensors({"\x1b[2J\n\n\n": {**ENTRY, "shape": [3]}}),
}


@pytest.mark.parametrize("case", SAFETENSORS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_crafted_safetensors_are_refused(case, suffix, tmp_path):
    path = tmp_path / f"theirs{suffix}"
    path.write_bytes(SAFETENSORS[case])
    refused(path, tmp_path / "canary")


def test_a_key_leads_nowhere_in_dictionaries_without_end(tmp_path):
    path = tmp_path / "x.pt"
    for case in ("dictionary in itself", "dictionaries without end", "disguised deeply"):
        path.write_bytes(archive(whole(OTHER[case][1](""))))
        for key in ("model", ".".join(["model"] * 8), ".".join(["state_dict"] * 3000)):
            with pytest.raises(CheckpointError, match=r"x\.pt: `key`") as error:
                read_weights(path, key=key)
            assert len(str(error.value)) < 1000


def test_names_from_a_file_are_made_printable(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"\x1b[2J\n\n\nrun this": 3, "b" * 5000: 4}, path)
    assert len(refused(path, tmp_path / "canary")) < 1000
