"""Samples that belong together, such as the beats of a patient, set aside together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from isoloss.split import Split

ORDERS = 64  # seeded orders that are tried
PASSES = 4  # of toggling groups; three have always been enough to come to rest


def mixes_groups(train: Split, test: Split) -> bool:
    """Return whether most test samples belong to groups that are trained on.

    A validation split is to ask what the test split asks: where that has the patients of the train
    split (a random split of beats), validation is drawn by sample, too.
    """
    if train.groups is None or test.groups is None:
        return False
    return bool(torch.isin(test.groups, train.groups).double().mean() > 0.5)


def grouped_indices(
    targets: Tensor, groups: Tensor, fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Set whole groups aside, in all about a share `fraction` of the samples and of each class.

    With n_c samples of class c, of which a_c are set aside, groups are put in and taken out one
    after the other, in a seeded order, as long as

        sum_c (a_c - fraction n_c)^2 / n_c + (a - fraction n)^2 / n

    falls (Pearson's statistic for the classes, and once more for all samples); the best of
    `ORDERS` orders is taken. Few large groups cannot meet every share. Targets that are no class
    labels have the second term alone.

    Args:
        targets: (N,) class labels, or anything (N, ...).
        groups: (N,) int64, what each sample belongs to.
        fraction: from 0 to below 1.
        seed: of a generator of its own.

    Returns:
        Indices set aside and indices left, both ascending; at least one group each where there are
        two and round(fraction N) is not 0, else nothing is set aside.
    """
    everything = torch.arange(len(targets))
    members = groups.unique(return_inverse=True)[1]
    count = int(members.max()) + 1
    if count < 2 or round(fraction * len(targets)) == 0:
        return everything[:0], everything
    table = _class_counts(targets, members, count)
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(ORDERS)])
    aside = torch.from_numpy(_choose(table.numpy(), orders.numpy(), fraction))[members]
    return aside.nonzero().flatten(), (~aside).nonzero().flatten()


def _class_counts(targets: Tensor, members: Tensor, count: int) -> Tensor:
    """Return samples of each class and of all, (groups, classes + 1), float64."""
    if targets.ndim > 1 or targets.is_floating_point():
        return members.bincount(minlength=count).double()[:, None]
    labels, index = targets.unique(return_inverse=True)
    table = torch.bincount(members * len(labels) + index, minlength=count * len(labels))
    table = table.view(count, len(labels)).double()
    return torch.cat([table, table.sum(1, keepdim=True)], 1)


def _choose(
    table: NDArray[np.float64], orders: NDArray[np.int64], fraction: float
) -> NDArray[np.bool_]:
    """Return which groups (groups,) are set aside, from the best of the orders (orders, groups)."""
    total = table.sum(0)
    rows = np.arange(len(orders))
    chosen = np.zeros(orders.shape, bool)
    excess = np.tile(-fraction * total, (len(orders), 1))
    taken = np.zeros(len(orders), int)
    for _ in range(PASSES):
        before = chosen.copy()
        for group in orders.T:
            sign = 1 - 2 * chosen[rows, group]
            other = excess + sign[:, None] * table[group]
            better = ((other - excess) * (other + excess)) @ (1 / total) < 0
            # Neither side may be left without a group; the first is taken whatever its size.
            better |= taken == 0
            better &= (taken + sign > 0) & (taken + sign < len(table))
            chosen[rows, group] ^= better
            taken += sign * better
            excess = np.where(better[:, None], other, excess)
        distances = excess**2 @ (1 / total)
        # At rest, or no share further off than a sample.
        if np.array_equal(before, chosen) or distances.min() <= (1 / total).sum():
            break
    return chosen[distances.argmin()]
