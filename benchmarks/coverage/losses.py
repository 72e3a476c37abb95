"""Standard errors of sampled losses: stratified draws against the whole split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.coverage.judgement import Row, of_errors
from isoloss.datasets import load_data, proportional_indices
from isoloss.datasets.catalogue import DataMissingError
from isoloss.datasets.splits import TensorSplit
from isoloss.experiments.settings import DEFAULT_DATA_DIR, LARGEST_SAMPLE
from isoloss.landscape import Sample

REPEATS = 2000
CLASS_SIZES = (5000, 400, 150, 60, 40)
CLASS_MEANS = (0.1, 0.5, 1.0, 2.0, 4.0)
STEPS, BATCH, LR = 1500, 128, 1e-3


def synthetic() -> tuple[Tensor, Tensor]:
    """Return classes and losses, (5650,): exponential, the larger the rarer a class."""
    draw = np.random.default_rng(0)
    targets = draw.permutation(np.repeat(np.arange(len(CLASS_SIZES)), CLASS_SIZES))
    losses = draw.exponential(np.array(CLASS_MEANS)[targets])
    return torch.from_numpy(targets), torch.from_numpy(losses)


def heartbeats(folder: Path) -> tuple[Tensor, Tensor]:
    """Return classes and losses of a small network over the beats it was trained on.

    The inter-patient split of MIT-BIH, 187-32-5 units, 1,500 steps of Adam.

    Raises:
        DataMissingError: If the records are not in the folder.
    """
    split = load_data("mitbih", {"split": "inter-patient"}, folder, val_fraction=0.0).train
    assert isinstance(split, TensorSplit)
    inputs, targets = split.inputs.flatten(1), split.targets
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(187, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        part = torch.randint(len(targets), (BATCH,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[part]), targets[part]).backward()
        optimizer.step()
    with torch.no_grad():
        return targets, F.cross_entropy(model(inputs), targets, reduction="none").double()


def effective_freedom(values: Tensor, sample: Sample) -> float:
    """Return the effective degrees of freedom of a stratified standard error.

    (sum_h v_h)^2 / sum_h v_h^2 / (n_h - 1) of the variances v_h that the strata contribute
    (Satterthwaite; Cochran 1977, section 5.4). Strata of a single sample count as one.
    """
    sizes = sample.strata.bincount(minlength=len(sample.strata_populations))
    strata = torch.where(sizes[sample.strata] < 2, -1, sample.strata)
    parts = []
    for stratum in strata.unique().tolist():
        of_it = strata == stratum
        population = int(sample.strata_populations[sample.strata[of_it].unique()].sum())
        n = int(of_it.sum())
        if 1 < n < population:
            share = population / sample.population
            variance = float(values[of_it].var()) / n
            parts.append((share**2 * (1 - n / population) * variance, n - 1))
    return sum(v for v, _ in parts) ** 2 / sum(v**2 / freedom for v, freedom in parts)


def loss_row(case: str, targets: Tensor, losses: Tensor, size: int, repeats: int) -> Row:
    """Return what draws of `size` samples, seeds 0 to `repeats` - 1, say of their errors."""
    exact, found = float(losses.mean()), []
    for seed in range(repeats):
        chosen = proportional_indices(targets, size, seed)
        sample = Sample.of(targets[chosen], targets, drawn="proportional", seed=seed)
        error = float(losses[chosen].mean()) - exact
        freedom = effective_freedom(losses[chosen], sample)
        found.append((error, sample.error(losses[chosen]), freedom))
    errors, claimed, freedom = np.array(found).T
    return of_errors(
        case,
        f"{size:,} of {len(targets):,}",
        errors,
        claimed,
        freedom=freedom,
        note=f"loss {exact:.3g}, s.e. {np.mean(claimed):.2g}, {np.median(freedom):.0f} d.o.f.",
    )


def rows(repeats: int | None = None) -> Iterator[Row]:
    """Yield a row a population and size of the sample."""
    for size in (100, 500):
        yield loss_row("synthetic, five classes", *synthetic(), size, repeats or REPEATS)
    folder = Path(os.environ.get("ISOLOSS_DATA") or DEFAULT_DATA_DIR)
    case = "MIT-BIH, inter-patient"
    try:
        beats = heartbeats(folder)
    except DataMissingError:
        note = f"no records in {folder / 'mitdb'} (point ISOLOSS_DATA at the data)"
        yield Row(case, "", 0, 0.0, 0.0, note=note)
        return
    for size in (1000, LARGEST_SAMPLE):
        yield loss_row(case, *beats, size, repeats or REPEATS)
