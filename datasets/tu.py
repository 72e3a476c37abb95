"""Graph classification sets in the TU format (Morris et al. 2020), read from their text files.

The files are read here, not by `torch_geometric.datasets.TUDataset`: that one writes beside them,
names no file or line where something is wrong, and loses the last line of a file that does not
end in a newline. What comes out is the same, which a test checks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from isoloss.datasets.catalogue import DATASETS, DataError, DataMissingError
from isoloss.datasets.downloads import download_files
from isoloss.datasets.graphs import GraphSplit
from isoloss.datasets.splits import stratified_indices
from isoloss.datasets.tables import read_numbers
from isoloss.pyg import import_pyg

ADDRESS = "https://www.chrsmrrs.com/graphkerneldatasets"
SPLITS = {"stratified": 0, "sam-project": 12345}  # and the seed of each, where none is given
LARGEST_ONE_HOT = 2**30  # entries, 4 GiB


@DATASETS.register(
    "tu:",
    "graphs of any TUDataset, as tu:Mutagenicity (Morris et al. 2020)",
    default_model="gcn",
    splits=tuple(SPLITS),
)
def tu(
    data_dir: Path,
    name: str,
    node_attributes: bool = False,
    edge_attributes: bool = False,
    split: str = "stratified",
    test_fraction: float = 0.3,
    seed: int | None = None,
    download: bool = False,
) -> dict[str, Any]:
    """Load the graphs of ``data_dir/TUDataset/NAME/raw`` or ``data_dir/NAME/raw``.

    Node labels become one-hot features `x`, edge labels one-hot `edge_attr`. A set without node
    labels has x = 1 in every node: a network that sums over neighbours then counts them. Loops
    are removed and repeated edges merged. Of each class 30 %, chosen by `seed`, are the test
    split, unless told otherwise.

    Args:
        data_dir: see above; nothing is written there without `download`.
        name: of the set, "Mutagenicity".
        node_attributes: put the continuous attributes of nodes before their labels.
        edge_attributes: likewise of edges.
        split: "stratified": the same share of each class is tested on. "sam-project": all graphs
            are shuffled as after ``torch.manual_seed(12345)`` and the first 70 %, rounded down,
            are trained on, whatever their classes (3,035 and 1,302 of Mutagenicity); both splits
            keep the order of the shuffle.
        test_fraction: share of the graphs that are tested on, between 0 and 1.
        seed: of the choice; 0 unless given, of "sam-project" 12345.
        download: whether missing files may be fetched.

    Raises:
        DataMissingError: names the files, the folders and where to get them.
        DataError: names file and line, or argument, what was expected and found.
        DownloadError: asked to fetch them and could not.
    """
    if split not in SPLITS or not 0 < test_fraction < 1:
        raise DataError(
            f"tu:{name}: expected split {' or '.join(SPLITS)} and a test_fraction between 0 and 1, "
            f"got {split!r} and {test_fraction}"
        )
    seed = SPLITS[split] if seed is None else seed
    folder = _find(Path(data_dir), name, download)
    files = _Files(folder, name)
    node_graph = files.integers("graph_indicator")
    edges = files.integers("A", columns=2)
    graphs = _check_membership(files, node_graph, edges)
    targets, info = _targets(files, graphs)
    x = _features(files, "node", len(node_graph), node_attributes)
    edge_attr = _features(files, "edge", len(edges), edge_attributes)
    whole = _graphs(
        torch.from_numpy(node_graph[:, 0] - 1),
        torch.from_numpy(edges.T - 1),
        torch.ones(len(node_graph), 1) if x is None else x,
        edge_attr,
        targets,
    )
    if split == "stratified":
        test, train = stratified_indices(whole.targets, test_fraction, seed)
    else:
        train, test = _shuffled(graphs, 1 - test_fraction, seed)
    facts = {
        "folder": str(folder),
        "graphs": graphs,
        "nodes": len(node_graph),
        "edges": len(edges),
        "test_chosen": f"split={split}, test_fraction={test_fraction:g}, seed={seed}",
    }
    if x is None:
        info["notes"] = ("nodes have no labels: x = 1 in each",)
    return {"train": whole.subset(train), "test": whole.subset(test), "info": info, "facts": facts}


DATASETS.alias("Mutagenicity", "tu:Mutagenicity")


def _shuffled(count: int, train_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the first of shuffled indices and the rest, in the order of the shuffle."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    # Of whole numbers, products of fractions may fall short by a rounding: 0.7 * 90 is below 63.
    return order.tensor_split([int(count * train_fraction + 1e-9)])  # type: ignore[return-value]


class _Files:
    """The files of one set, ``NAME_what.txt``."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name

    def path(self, what: str) -> Path:
        return self.folder / f"{self.name}_{what}.txt"

    def has(self, what: str) -> bool:
        return self.path(what).is_file()

    def numbers(self, what: str, rows: int, of: str) -> NDArray[np.float64]:
        return self._counted(what, read_numbers(self.path(what)), rows, of)

    def integers(
        self, what: str, rows: int | None = None, of: str = "", columns: int | None = None
    ) -> NDArray[np.int64]:
        values = read_numbers(self.path(what), columns, whole=True)
        return self._counted(what, values, rows, of).astype(np.int64)

    def _counted(
        self, what: str, values: NDArray[np.float64], rows: int | None, of: str
    ) -> NDArray[np.float64]:
        if rows is not None and len(values) != rows:
            raise DataError(
                f"{self.path(what)}: expected {rows} lines, one for each {of}, got {len(values)}"
            )
        return values


def _find(data_dir: Path, name: str, download: bool) -> Path:
    folders = [data_dir / "TUDataset" / name / "raw", data_dir / name / "raw"]
    needed = [f"{name}_{what}.txt" for what in ("A", "graph_indicator", "graph_labels")]
    needed_for = {
        folder: [file for file in needed if not (folder / file).is_file()] for folder in folders
    }
    for folder, missing in needed_for.items():
        is_regression = (folder / f"{name}_graph_attributes.txt").is_file()
        if not missing or (missing == needed[2:] and is_regression):
            return folder
    if download:

        def fetch(temporary: Path) -> dict[Path, Path]:
            import_pyg().datasets.TUDataset(str(temporary), name)
            raw = temporary / name / "raw"
            return {file: folders[0] / file.name for file in raw.iterdir()}

        archive = f"{name}.zip"
        download_files(f"tu:{name}", fetch, folders[0], files=archive, address=ADDRESS)
        return folders[0]
    # Where some files are there, that is the folder which is meant.
    folder = min(folders, key=lambda folder: len(needed_for[folder]))
    places = (
        f"{folder}" if len(needed_for[folder]) < len(needed) else " or ".join(map(str, folders))
    )
    raise DataMissingError(
        f"tu:{name}: expected {', '.join(needed_for[folder])} in {places}\n"
        f"point `data_dir` at the folder that holds TUDataset/{name}/raw, or fetch them with "
        f"`download` (from {ADDRESS}/{name}.zip)"
    )


def _check_membership(
    files: _Files, node_graph: NDArray[np.int64], edges: NDArray[np.int64]
) -> int:
    """Check that nodes lie graph by graph and edges within a graph; return how many graphs."""
    graph = node_graph[:, 0]
    steps = np.diff(graph, prepend=0)
    if ((steps < 0) | (steps > 1)).any():
        row = int(((steps < 0) | (steps > 1)).argmax())
        before = graph[row - 1] if row else 0
        raise DataError(
            f"{files.path('graph_indicator')}, line {row + 1}: expected graphs numbered from 1, "
            f"node after node, here {before} or {before + 1}, got {graph[row]}"
        )
    outside = ((edges < 1) | (edges > len(graph))).any(1)
    if outside.any():
        row = int(outside.argmax())
        raise DataError(
            f"{files.path('A')}, line {row + 1}: expected nodes from 1 to {len(graph)}, the lines "
            f"of {files.path('graph_indicator').name}, got {edges[row, 0]}, {edges[row, 1]}"
        )
    ends = graph[edges - 1]
    across = ends[:, 0] != ends[:, 1]
    if across.any():
        row = int(across.argmax())
        raise DataError(
            f"{files.path('A')}, line {row + 1}: expected an edge within a graph, got one from "
            f"node {edges[row, 0]} of graph {ends[row, 0]} to node {edges[row, 1]} of graph "
            f"{ends[row, 1]}"
        )
    return int(graph[-1])


def _targets(files: _Files, graphs: int) -> tuple[Tensor, dict[str, Any]]:
    if files.has("graph_attributes"):
        values = files.numbers("graph_attributes", graphs, "graph")
        return torch.from_numpy(values).float(), {"task": "regression"}
    labels = files.integers("graph_labels", graphs, "graph", columns=1)[:, 0]
    known, targets = np.unique(labels, return_inverse=True)
    names = _class_names(files)
    return torch.from_numpy(targets), {
        "class_names": tuple(names.get(int(label), str(label)) for label in known)
    }


def _class_names(files: _Files) -> dict[int, str]:
    """Return names by label, where the readme beside the files has a table of them."""
    file = files.path("label_readme")
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    _, _, table = text.partition("Class labels were converted to integer values using this map:")
    return {int(n): name for n, name in re.findall(r"^[ \t]+(-?\d+)[ \t]+(\S.*?)\s*$", table, re.M)}


def _features(files: _Files, of: str, rows: int, attributes: bool) -> Tensor | None:
    """Return attributes, then one-hot labels, of all nodes or edges; None if there are none."""
    parts: list[Tensor] = []
    if attributes:
        if not files.has(f"{of}_attributes"):
            raise DataMissingError(
                f"tu:{files.name}: {of}_attributes=true expects "
                f"{files.path(f'{of}_attributes')}, which is not there; leave it out"
            )
        parts.append(torch.from_numpy(files.numbers(f"{of}_attributes", rows, of)).float())
    if files.has(f"{of}_labels"):
        labels = torch.from_numpy(files.integers(f"{of}_labels", rows, of))
        for column in labels.unbind(1):
            low, high = int(column.min()), int(column.max())
            if (high - low + 1) * max(rows, 2**14) > LARGEST_ONE_HOT:
                raise DataError(
                    f"{files.path(f'{of}_labels')}: expected labels that number kinds of {of}, got "
                    f"{low} to {high} for {rows} of them, too many for one-hot features"
                )
            parts.append(one_hot(column - low).float())
    return torch.cat(parts, 1) if parts else None


def _graphs(
    node_graph: Tensor, edges: Tensor, x: Tensor, edge_attr: Tensor | None, targets: Tensor
) -> GraphSplit:
    pyg = import_pyg()
    edges, edge_attr = pyg.utils.remove_self_loops(edges, edge_attr)
    edges, edge_attr = pyg.utils.coalesce(edges, edge_attr, len(x))  # sorts, so graph by graph
    count = len(targets)
    nodes = torch.bincount(node_graph, minlength=count)
    sizes = nodes.tolist(), torch.bincount(node_graph[edges[0]], minlength=count).tolist()
    first = (nodes.cumsum(0) - nodes).tolist()
    parts = {
        "x": x.split(sizes[0]),
        "edge_index": edges.split(sizes[1], 1),
        "edge_attr": [None] * count if edge_attr is None else edge_attr.split(sizes[1]),
        "y": targets.split(1),
    }
    graphs = []
    for index in range(count):
        fields = {name: part[index] for name, part in parts.items()}
        fields["edge_index"] = fields["edge_index"] - first[index]
        graphs.append(pyg.data.Data(**fields))
    return GraphSplit(tuple(graphs))
