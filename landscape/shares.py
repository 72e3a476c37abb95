"""The samples that one of several processes holds."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from isoloss.landscape.batches import BatchError, FixedData
from isoloss.parallel.ranks import Group


@dataclass(frozen=True)
class Share:
    """One process's consecutive samples of some data; the ranks' shares in order are all of it.

    Attributes:
        group: The processes.
        slices: The samples of each batch that has any here, by the batch's number.
        before: Number of samples of the ranks before.
    """

    group: Group
    slices: dict[int, slice] = field(default_factory=dict)
    before: int = 0

    @classmethod
    def of(cls, data: FixedData, group: Group, unit: int = 1) -> Share:
        """Return this process's share, as large as those of the others but for one unit.

        Args:
            data: All samples.
            group: The processes.
            unit: Samples that stay together, as `FixedData.cut` has them; graph batches stay whole.

        Raises:
            BatchError: If there are fewer units than processes.
        """
        if group.size == 1:
            return cls(group)
        pieces = [
            (index, start, min(start + step, batch.count))
            for index, batch in enumerate(data.batches)
            for step in [unit if batch.sliceable else batch.count]
            for start in range(0, batch.count, step)
        ]
        if len(pieces) < group.size:
            what = "samples, or graph batches," if unit == 1 else f"batches of {unit} samples"
            raise BatchError(
                f"expected {what} for each of {group.size} processes, got {len(pieces)}\n"
                "start fewer processes, or make the batches smaller"
            )
        first, last = (len(pieces) * rank // group.size for rank in (group.rank, group.rank + 1))
        slices: dict[int, slice] = {}
        for index, start, stop in pieces[first:last]:
            known = slices.get(index)
            slices[index] = slice(start if known is None else known.start, stop)
        return cls(group, slices, sum(stop - start for _, start, stop in pieces[:first]))

    def own(self, data: FixedData) -> FixedData:
        """Return this process's samples of the data that the share was made for."""
        if self.group.size == 1:
            return data
        found = []
        for index, part in self.slices.items():
            batch = data.batches[index]
            whole = part.stop - part.start == batch.count
            found.append(batch if whole else batch[part])
        return FixedData(found)

    def choose(self, own: FixedData, samples: Tensor) -> FixedData:
        """Return those of this process's samples that are among some, in the order of these.

        Args:
            own: This process's samples.
            samples: Positions among all samples, (count,).

        Raises:
            BatchError: If samples cannot be chosen among, or a process would have none; the same
                in all processes.
        """
        if self.group.size == 1:
            return own.choose(samples)
        here = samples[(samples >= self.before) & (samples < self.before + own.count)]
        held = torch.tensor([[float(len(here) if own.choosable else 0)]], dtype=torch.float64)
        if not self.group.side_by_side(held).all():
            raise BatchError(
                f"expected samples of one shape, some of them in each of {self.group.size} "
                "processes, got a process without\nstart fewer processes"
            )
        return own.choose(here - self.before)
