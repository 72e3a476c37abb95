"""Synthetic series, graphs and images: made in a second, learnable, and no substitute for data.

All are drawn from generators of their own; the same arguments give the same samples.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isoloss.datasets.catalogue import DATASETS, DataError
from isoloss.datasets.graphs import GraphSplit
from isoloss.datasets.info import Normalisation
from isoloss.datasets.splits import stratified_indices
from isoloss.pyg import import_pyg

TEST_FRACTION = 0.2
LARGEST = 2**31  # numbers of a data set, 8 GiB
NOTE = "synthetic data: results say nothing about real {}"

# Waves (amplitude, centre in s from the R peak, width in s) of a heartbeat as a sum of Gaussians,
# after the model of McSharry et al. 2003; amplitudes are relative to R.
WAVES = {
    "N": ((0.15, -0.17, 0.025), (-0.12, -0.03, 0.010), (1.0, 0.0, 0.012), (-0.2, 0.03, 0.011),
          (0.3, 0.25, 0.045)),  # P, Q, R, S, T
    "S": ((-0.12, -0.11, 0.018), (-0.12, -0.03, 0.010), (1.0, 0.0, 0.012), (-0.2, 0.03, 0.011),
          (0.3, 0.20, 0.040)),  # early, inverted P
    "V": ((1.1, 0.0, 0.045), (-0.4, 0.11, 0.035), (-0.45, 0.28, 0.060)),  # no P, wide, T inverted
    "F": ((0.08, -0.17, 0.025), (1.0, 0.0, 0.026), (-0.3, 0.07, 0.022), (-0.1, 0.26, 0.050)),
    "Q": ((0.9, -0.07, 0.004), (-0.7, 0.02, 0.040), (0.5, 0.25, 0.060)),  # pacing spike
}  # fmt: skip


@DATASETS.register(
    "synthetic-ecg",
    "synthetic: heartbeats as sums of Gaussian waves, five classes, 187 samples at 125 Hz",
    default_model="ecg-attention",
)
def synthetic_ecg(
    data_dir: Path, samples: int = 2000, noise: float = 0.05, seed: int = 0
) -> dict[str, Any]:
    """Make beats (187, 1) in [0, 1] in the classes of `mitbih`, as many of each.

    Every wave's amplitude and width vary by 15 %, its time by 10 ms; baseline wander and white
    noise are added.

    Args:
        data_dir: not used.
        samples: of both splits together; 20 % are the test split.
        noise: standard deviation of the noise, in amplitudes of R.
        seed: of all draws.
    """
    targets, generator = _start(samples, len(WAVES), seed, 187)
    time = torch.arange(-93, 94) / 125
    series = noise * torch.randn(samples, 187, generator=generator)
    phase, depth = torch.rand(2, samples, 1, generator=generator)
    series += 0.1 * depth * torch.sin(2 * math.pi * (0.4 * time + phase))
    for label, waves in enumerate(WAVES.values()):
        of_class = targets == label
        for amplitude, centre, width in waves:
            draws = torch.randn(3, int(of_class.sum()), 1, generator=generator)
            spread = width * (1 + 0.15 * draws[1]).clamp(min=0.3)
            distance = (time - centre - 0.01 * draws[2]) / spread
            wave = amplitude * (1 + 0.15 * draws[0]) * torch.exp(-(distance**2) / 2)
            series[of_class] += wave
    low, high = series.amin(1, keepdim=True), series.amax(1, keepdim=True)
    series = ((series - low) / (high - low))[:, :, None]
    info = {
        "class_names": tuple(WAVES),
        "normalisation": Normalisation(
            (0.0,), (1.0,), "each beat scaled to [0, 1] by its own extremes", channel_axis=-1
        ),
        "notes": (NOTE.format("heartbeats"),),
    }
    return _deliver(series, targets, info, seed)


@DATASETS.register(
    "synthetic-images",
    "synthetic: noisy gratings, the class is their direction",
    default_model="fashion-cnn",
)
def synthetic_images(
    data_dir: Path,
    samples: int = 2000,
    classes: int = 10,
    channels: int = 1,
    size: int = 28,
    noise: float = 0.2,
    seed: int = 0,
) -> dict[str, Any]:
    """Make images (channels, size, size) in [0, 1].

    Class c of C is a sine wave in direction pi c / C, of 2 to 5 periods across the image, with a
    phase and a contrast of its own in each image and white noise in each channel.

    Args:
        data_dir: not used.
        samples: of both splits together; 20 % are the test split.
        classes: number of directions.
        channels: of an image.
        size: height and width.
        noise: standard deviation of the noise, where the grating goes from 0 to 1 at most.
        seed: of all draws.
    """
    if size < 1 or channels < 1:
        raise DataError(f"expected size and channels of 1 or more, got {size} and {channels}")
    targets, generator = _start(samples, classes, seed, channels * size**2)
    frequency, phase, contrast = torch.rand(3, samples, 1, 1, generator=generator)
    angle = (math.pi / classes * targets)[:, None, None]
    across = torch.linspace(0, 1, size)
    position = across * angle.cos() + across[:, None] * angle.sin()
    wave = torch.sin(2 * math.pi * ((2 + 3 * frequency) * position + phase))
    images = (0.5 + (0.25 + 0.25 * contrast) * wave)[:, None].expand(-1, channels, -1, -1)
    images = images + noise * torch.randn(images.shape, generator=generator)
    info = {
        "class_names": tuple(f"{180 * label / classes:.0f} degrees" for label in range(classes)),
        "num_classes": classes,
        "normalisation": Normalisation((0.0,), (1.0,), "grey levels from 0 to 1 as made"),
        "notes": (NOTE.format("images"),),
    }
    return _deliver(images.clamp(0, 1), targets, info, seed)


@DATASETS.register(
    "synthetic-graphs",
    "synthetic: trees with a few cycles, the class is whether two kinds of node are adjacent",
    default_model="gcn",
)
def synthetic_graphs(data_dir: Path, samples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Make graphs of 10 to 29 nodes in four kinds, one-hot as `x`.

    A random recursive tree with a tenth as many edges added. Two nodes are of kind 2 and two of
    kind 3, the others of kinds 0 and 1; in class 1 both pairs (2, 3) are adjacent, in class 0 none
    is. The kinds' frequencies are those of both classes, so one has to look at the edges.

    Args:
        data_dir: not used.
        samples: of both splits together; 20 % are the test split.
        seed: of all draws.
    """
    targets, generator = _start(samples, 2, seed, 1000)
    pyg = import_pyg()
    graphs = []
    for label in targets.tolist():
        nodes = int(torch.randint(10, 30, (1,), generator=generator))
        kinds = torch.randint(0, 2, (nodes,), generator=generator)
        parents = (torch.rand(nodes - 1, generator=generator) * torch.arange(1, nodes)).long()
        tree = torch.stack([parents, torch.arange(1, nodes)])
        extra = torch.randint(0, nodes, (2, nodes // 10), generator=generator)
        order = torch.randperm(nodes, generator=generator)
        kinds[order[:4]] = torch.tensor([2, 3, 2, 3])
        edges = torch.cat([tree, extra], 1)
        adjacent = (kinds[edges] == torch.tensor([[2], [3]])).all(0)
        adjacent |= (kinds[edges] == torch.tensor([[3], [2]])).all(0)
        edges = edges[:, ~adjacent]
        # In both classes an edge is added to either node of kind 2: to one of kind 3, or of 0 or 1.
        ends = order[[1, 3]] if label else order[[4, 5]]
        edges = torch.cat([edges, torch.stack([order[[0, 2]], ends])], 1)
        edges, _ = pyg.utils.remove_self_loops(edges)
        edges = pyg.utils.to_undirected(edges, num_nodes=nodes)
        x = torch.nn.functional.one_hot(kinds, 4).float()
        graphs.append(pyg.data.Data(x=x, edge_index=edges, y=torch.tensor([label])))
    split = GraphSplit(tuple(graphs))
    test, train = stratified_indices(targets, TEST_FRACTION, seed)
    info = {"class_names": ("apart", "adjacent"), "notes": (NOTE.format("graphs"),)}
    return {"train": split.subset(train), "test": split.subset(test), "info": info}


def _start(samples: int, classes: int, seed: int, entries: int) -> tuple[Tensor, torch.Generator]:
    """Return labels (samples,), evenly over the classes, and the generator of what follows.

    `entries` is about how many numbers a sample takes.
    """
    if classes < 2 or samples < 10 * classes:
        raise DataError(
            f"expected 2 classes or more and 10 samples of each, got {samples} samples of "
            f"{classes} classes"
        )
    if samples * entries > LARGEST:
        raise DataError(
            f"expected up to {LARGEST // entries:,} samples of this size, which are made in "
            f"memory, got {samples:,}"
        )
    return torch.arange(samples) % classes, torch.Generator().manual_seed(seed)


def _deliver(inputs: Tensor, targets: Tensor, info: dict[str, Any], seed: int) -> dict[str, Any]:
    test, train = stratified_indices(targets, TEST_FRACTION, seed)
    return {
        "train": (inputs[train], targets[train]),
        "test": (inputs[test], targets[test]),
        "info": info,
    }
