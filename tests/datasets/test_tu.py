from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isoloss.datasets import DataError, DataMissingError, DownloadError, default_model, load_data
from isoloss.datasets.tu import _shuffled
from isoloss.pyg import import_pyg

SIZES = [4, 3, 5] * 7  # nodes of each graph
README = (
    "Class labels were converted to integer values using this map:\n\n\t-1\tno\n\t1\tyes it is\n"
)


def write(folder: Path, name: str, lines: list[Any]) -> None:
    text = [", ".join(map(str, line)) if isinstance(line, tuple) else str(line) for line in lines]
    (folder / f"SMALL_{name}.txt").write_text("\n".join(text) + "\n")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A set with everything the format has, also loops and repeated edges."""
    folder = tmp_path / "TUDataset" / "SMALL" / "raw"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    edges, first = [], 1
    for size in SIZES:
        pairs = torch.randint(first, first + size, (6, 2), generator=generator).tolist()
        edges += [tuple(pair) for pair in [*pairs, pairs[0]]]
        first += size
    nodes = range(sum(SIZES))
    write(folder, "A", edges)
    write(folder, "graph_indicator", [g + 1 for g, size in enumerate(SIZES) for _ in range(size)])
    write(folder, "graph_labels", [1 - 2 * (g % 2) for g in range(len(SIZES))])
    write(folder, "node_labels", [(2 + i % 3, i % 2) for i in nodes])
    write(folder, "node_attributes", [(i / 4, -i) for i in nodes])
    write(folder, "edge_labels", [5 + i % 2 for i in range(len(edges))])
    write(folder, "edge_attributes", [i / 8 for i in range(len(edges))])
    return folder


def everything(data: Any) -> list[Any]:
    """The graphs of all splits, in the order of the file (found by their attributes)."""
    parts = [*data.train.graphs, *data.test.graphs]
    return sorted(parts, key=lambda graph: float(graph.x[0, 0]))


@pytest.mark.parametrize("newline", [True, False])
def test_same_graphs_as_torch_geometric(raw: Path, tmp_path: Path, newline: bool) -> None:
    # The other reader needs a newline at the end of a file and writes beside it.
    (tmp_path / "theirs" / "SMALL").mkdir(parents=True)
    (tmp_path / "theirs" / "SMALL" / "raw").symlink_to(raw)
    theirs = import_pyg().datasets.TUDataset(
        str(tmp_path / "theirs"), "SMALL", use_node_attr=True, use_edge_attr=True
    )
    if not newline:
        for file in raw.glob("*.txt"):
            file.write_text(file.read_text().rstrip("\n"))
    before = sorted(tmp_path.rglob("*"))
    arguments = {"node_attributes": True, "edge_attributes": True}
    data = load_data("tu:SMALL", arguments, tmp_path, val_fraction=0)
    assert sorted(tmp_path.rglob("*")) == before
    assert (len(data.train), len(data.test), len(theirs)) == (15, 6, 21)  # 30 % of 21 is 6.3
    for ours, other in zip(everything(data), theirs, strict=True):
        for name in ("x", "edge_index", "edge_attr", "y"):
            assert torch.equal(ours[name], other[name]), name
    assert data.info.num_features == 2 + 3 + 2


def test_splits_names_and_layouts(raw: Path, tmp_path: Path) -> None:
    data = load_data("tu:SMALL", data_dir=tmp_path)
    assert (data.info.class_names, data.info.num_features) == (("-1", "1"), 5)
    assert data.test.targets.bincount().tolist() == [3, 3]
    assert load_data("tu:SMALL", {"seed": 1}, tmp_path).test.digest() != data.test.digest()
    write(raw, "label_readme", [README])
    os.rename(tmp_path / "TUDataset" / "SMALL", tmp_path / "SMALL")
    moved = load_data("tu:SMALL", data_dir=tmp_path)
    assert (moved.info.class_names, moved.info.num_classes) == (("no", "yes it is"), 2)
    assert moved.provenance["digests"] == data.provenance["digests"]
    assert default_model("tu:SMALL") == "gcn"


def test_split_of_the_sam_project(raw: Path, tmp_path: Path) -> None:
    sam = {"split": "sam-project", "node_attributes": True}
    data = load_data("tu:SMALL", sam, tmp_path, val_fraction=0)
    whole = everything(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)  # what their code does, with the generator of the process
        order = torch.randperm(21).tolist()
    expected = [float(whole[index].x[0, 0]) for index in order]
    found = [float(g.x[0, 0]) for g in (*data.train.graphs, *data.test.graphs)]
    assert found == expected
    assert len(data.train) == 21 * 70 // 100 == 14  # rounded down; of each class it is 15
    assert "sam-project" in data.provenance["source"]["test_chosen"]
    other = load_data("tu:SMALL", {**sam, "seed": 3}, tmp_path, val_fraction=0)
    assert other.train.digest() != data.train.digest()
    smaller = load_data("tu:SMALL", {**sam, "test_fraction": 0.5}, tmp_path, val_fraction=0)
    assert [float(g.x[0, 0]) for g in smaller.train.graphs] == expected[:10]
    for wrong in ({"split": "random"}, {"test_fraction": 1.0}):
        with pytest.raises(DataError, match="expected split stratified or sam-project and a test_"):
            load_data("tu:SMALL", wrong, tmp_path)


@pytest.mark.parametrize("count", [10, 30, 90, 188, 600, 1113, 4337])
def test_seventy_percent_are_rounded_down_as_whole_numbers_are(count: int) -> None:
    train, test = _shuffled(count, 1 - 0.3, 0)
    assert len(train) == count * 70 // 100
    assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(count))


def test_mutagenicity_is_split_as_the_sam_project_does(data_dir: Path) -> None:
    data = load_data("Mutagenicity", {"split": "sam-project"}, data_dir, val_fraction=0)
    assert (len(data.train), len(data.test)) == (3035, 1302)


def test_without_labels_and_with_values_to_predict(raw: Path, tmp_path: Path) -> None:
    for name in ("node_labels", "edge_labels", "graph_labels"):
        (raw / f"SMALL_{name}.txt").unlink()
    write(raw, "graph_attributes", [g / 2 for g in range(len(SIZES))])
    data = load_data("tu:SMALL", data_dir=tmp_path)
    assert (data.info.task, data.info.num_features) == ("regression", 1)
    assert all((graph.x == 1).all() and graph.edge_attr is None for graph in data.train.graphs)
    assert "x = 1" in data.provenance["notes"][0]


def drop_last(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def replace(line: int, text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        lines = path.read_text().splitlines()
        lines[line - 1] = text
        path.write_text("\n".join(lines) + "\n")

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("node_labels", drop_last, "node_labels.txt: expected 84 lines, one for each node, got 83"),
        ("edge_labels", drop_last, "expected 147 lines, one for each edge, got 146"),
        ("graph_labels", drop_last, "expected 21 lines, one for each graph, got 20"),
        ("A", drop_last, "edge_labels.txt: expected 146 lines, one for each edge, got 147"),
        ("A", replace(9, "1, 85"), "A.txt, line 9: expected nodes from 1 to 84, .*got 1, 85"),
        ("A", replace(9, "0, 1"), "A.txt, line 9: expected nodes from 1 to 84, .*got 0, 1"),
        ("A", replace(9, "4, 5"), "line 9: .* edge within .* 4 of graph 1 .* 5 of graph 2"),
        ("A", replace(9, "4"), "A.txt, line 9: expected 2 numbers, got 1"),
        ("A", replace(9, "4, 4, 4"), "A.txt, line 9: expected 2 numbers, got 3"),
        ("A", replace(1, "4, 4, 4"), "A.txt, line 1: expected 2 numbers, got 3"),
        ("A", replace(9, "4, x"), "A.txt, line 9: expected 2 numbers, got 'x' in column 2"),
        ("A", replace(9, "4, 3.5"), "line 9: expected whole numbers .*, got 3.5 in column 2"),
        # Two such labels may be one and the same number; or they take all memory as features.
        ("graph_labels", replace(2, "1e300"), "line 2: expected whole numbers .*, got 1e.300 in"),
        ("node_labels", replace(3, "9000000000, 1"), "too many for one-hot features"),
        ("edge_labels", replace(3, "-9000000000"), "too many for one-hot features"),
        ("node_labels", replace(3, ""), "line 3: expected 2 numbers, got an empty line"),
        ("node_attributes", replace(3, "nan, 1"), "line 3: expected 2 numbers, got 'nan'"),
        ("graph_labels", replace(2, "one"), "labels.txt, line 2: expected 1 number, got 'one'"),
        ("graph_indicator", replace(5, "3"), "line 5: expected graphs numbered .* 1 or 2, got 3"),
        ("graph_indicator", replace(6, "1"), "line 6: expected graphs numbered .* 2 or 3, got 1"),
        ("graph_indicator", lambda path: path.write_text(""), "expected numbers, got an empty"),
    ],
)  # fmt: skip
def test_file_and_line_of_what_is_wrong(
    raw: Path, tmp_path: Path, name: str, change: Callable[[Path], None], message: str
) -> None:
    change(raw / f"SMALL_{name}.txt")
    with pytest.raises(DataError, match=message) as caught:
        load_data("tu:SMALL", {"node_attributes": True}, tmp_path)
    assert str(raw) in str(caught.value)


def test_missing_files(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(DataMissingError) as caught:
        load_data("tu:OTHER", data_dir=tmp_path)
    expected = ["OTHER_A.txt, OTHER_graph_indicator.txt, OTHER_graph_labels.txt", "OTHER.zip"]
    expected += [str(tmp_path / "TUDataset" / "OTHER" / "raw"), str(tmp_path / "OTHER" / "raw")]
    assert all(text in str(caught.value) for text in [*expected, "`download`", "http"])
    assert len(str(caught.value).splitlines()) <= 3
    (raw / "SMALL_A.txt").unlink()
    with pytest.raises(DataMissingError, match=f"expected SMALL_A.txt in {raw}\n"):
        load_data("tu:SMALL", data_dir=tmp_path)
    (raw / "SMALL_edge_attributes.txt").unlink()
    write(raw, "A", [(1, 2)])
    with pytest.raises(DataMissingError, match=r"edge_attributes=true expects .*; leave it"):
        load_data("tu:SMALL", {"edge_attributes": True}, tmp_path)


def test_download(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = import_pyg().datasets
    expected = load_data("tu:SMALL", data_dir=tmp_path).info.digest

    def fetch(root: str, name: str) -> None:
        target = Path(root) / name / "raw"
        target.mkdir(parents=True)
        for file in raw.iterdir():
            (target / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(datasets, "TUDataset", fetch)
    new = tmp_path / "new" / "data"
    assert load_data("tu:SMALL", data_dir=new, download=True).info.digest == expected
    assert [path.name for path in new.iterdir()] == ["TUDataset"]

    def fail(root: str, name: str) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(datasets, "TUDataset", fail)
    with pytest.raises(DownloadError, match=r"could not download OTHER.zip\nfrom http.*timed out"):
        load_data("tu:OTHER", data_dir=new, download=True)


def test_real_data(data_dir: Path) -> None:
    if not (data_dir / "TUDataset" / "Mutagenicity").is_dir():
        pytest.skip(f"needs TUDataset/Mutagenicity/raw in {data_dir}")
    data = load_data("tu:Mutagenicity", data_dir=data_dir, val_fraction=0)
    assert (len(data.train), len(data.test)) == (3036, 1301)  # 70 % of 4,337
    assert (data.info.num_features, data.info.class_names) == (14, ("mutagen", "nonmutagen"))
    graphs = [*data.train.graphs, *data.test.graphs]
    # counts of Kazius et al.'s set as published with it
    assert sum(graph.num_nodes for graph in graphs) == 131_488
    assert sum(graph.num_edges for graph in graphs) == 266_894
    assert all(bool((graph.x.sum(1) == 1).all()) for graph in graphs)
    targets = torch.cat([data.train.targets, data.test.targets])
    assert targets.bincount().tolist() == [2401, 1936]
