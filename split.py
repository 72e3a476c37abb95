"""Samples in a fixed order: what trainers and evaluation ask of data, whatever the samples are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Split(Protocol):
    """One split of a data set.

    `targets` are (N, ...), in the order of the samples; (N, 0) where there are none. `groups` are
    (N,) int64, what each sample belongs to where some belong together (the patient of a beat), else
    None; `subset` and `balanced` carry them along. `subset` keeps the given order of indices.
    `batches` yields what a Problem takes, in the structure the data came in, at most `size` samples
    each (without an order the nodes of a graph come at once). `input_shape` is of one sample of the
    first input, () where samples differ in size; `num_features` are the scalars in it, or in one
    node of a graph. `handover_batch` is a size of batch in which samples may be handed to a
    Problem, which cuts what it can cut.
    """

    @property
    def targets(self) -> Tensor: ...  # noqa: D102

    @property
    def groups(self) -> Tensor | None: ...  # noqa: D102

    @property
    def input_shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def num_features(self) -> int: ...  # noqa: D102

    @property
    def handover_batch(self) -> int: ...  # noqa: D102

    def __len__(self) -> int: ...

    def subset(self, indices: Tensor | Sequence[int]) -> Split: ...  # noqa: D102

    def balanced(self, count: int, seed: int) -> Split: ...  # noqa: D102

    def stratified(self, count: int, seed: int) -> Split: ...  # noqa: D102

    def batches(  # noqa: D102
        self, size: int, order: Tensor | Sequence[int] | None = None, drop_last: bool = False
    ) -> Iterator[Any]: ...

    def digest(self) -> str: ...  # noqa: D102
