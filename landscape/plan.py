"""How the work is done, apart from what is computed: batch sizes, memory format, strategies.

A plan is a pure function of the network, the shapes, the device, the thread count and the version
of torch. It is stored with a result and used again by whoever continues or repeats it, so that
the same command gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from isoloss.errors import IsolossError
from isoloss.landscape.activations import Activations, activations, size_of
from isoloss.landscape.batches import FixedData
from isoloss.landscape.memory import explaining

MIB = 2**20
# On a CPU a micro-batch is fastest while tensors that follow each other stay in cache, below the
# size at which the allocator hands memory back to the kernel: largest outputs of 3 to 8 MiB were
# within 5 % of the best on CNNs and residual networks, all outputs together made 12 to 165 MiB. On
# an accelerator a launch must instead be large enough to fill the chip.
LARGEST_OUTPUT = 6 * MIB
ACCELERATOR_BUDGET = 1024 * MIB
LARGEST_MICRO_BATCH = 8192
# Each micro-batch reads all weights: with many weights and few activations larger ones cost less.
# At a quarter of the weights a transformer of 74 MiB was as fast as with any other size.
OF_WEIGHTS = 4
# A product holds the outputs of all operations until its backward pass.
PRODUCT_BUDGET = 20 * MIB
# A gradient graph that is kept for further products holds the forward pass, the backward pass and
# what their derivatives save: 1.3 to 1.9 times the outputs of the layers, measured on small CNNs.
GRAPH_TO_ACTIVATIONS = 2
KEPT_GRAPH_BUDGET = 2048 * MIB


class PlanError(IsolossError, RuntimeError):
    """A plan that this installation cannot follow."""


@dataclass(frozen=True)
class Plan:
    """Settings that change speed and rounding, never the quantity that is computed.

    Attributes:
        micro_batch: Samples in one forward pass.
        product_batch: Samples in one Hessian-vector product pass.
        product_strategy: `"kept-graph"` (the gradient's graph is held, one backward a product) or
            `"recompute"` (a fresh graph for each micro-batch of each product).
        channels_last: Whether images are held in channels-last memory format.
        threads: CPU threads torch computes with.
        activation_bytes_per_sample: Bytes of the outputs of all operations, for one sample.
        torch_version: Version the plan was made for.
        compile: Whether values are computed by a compiled network (`landscape.compiling`);
            derivatives never are.
    """

    micro_batch: int
    product_batch: int
    product_strategy: str
    channels_last: bool
    threads: int
    activation_bytes_per_sample: int
    torch_version: str
    compile: bool = False

    @classmethod
    def choose(cls, objective: nn.Module, data: FixedData, device: torch.device) -> Plan:
        """Choose batch sizes and strategies for a network, some data and a device.

        Args:
            objective: The network with its loss, a module of a batch, already on `device` and the
                network in the mode it is evaluated in.
            data: The samples, on `device`.
            device: Where the work is done.

        Returns:
            The plan.
        """
        found = activations_of(objective, data)
        weights = sum(map(size_of, objective.parameters()))
        if device.type == "cpu":
            micro = max(LARGEST_OUTPUT, weights // OF_WEIGHTS) // max(found.largest, 1)
            product = max(PRODUCT_BUDGET, weights) // max(found.bytes, 1)
        else:
            micro = product = max(ACCELERATOR_BUDGET, weights) // max(found.bytes, 1)
        micro, product = (max(1, min(size, LARGEST_MICRO_BATCH)) for size in (micro, product))
        kept = GRAPH_TO_ACTIVATIONS * found.bytes * data.count
        return cls(
            micro_batch=micro,
            product_batch=product,
            product_strategy="kept-graph" if kept <= KEPT_GRAPH_BUDGET else "recompute",
            channels_last=data.batches[0].images,
            threads=torch.get_num_threads(),
            activation_bytes_per_sample=found.bytes,
            torch_version=torch.__version__,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Plan:
        """Rebuild a stored plan.

        Raises:
            PlanError: For a plan of another version, which has other entries.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or values.keys() != names:
            found = sorted(values) if isinstance(values, Mapping) else [type(values).__name__]
            raise PlanError(
                f"expected a plan of {', '.join(sorted(names))}, got {', '.join(map(str, found))}: "
                "stored by another version of isoloss\ngo on with that one, or start over with "
                "`force`"
            )
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)

    def apply(self) -> None:
        """Set the process-wide settings of the plan (the number of CPU threads).

        Raises:
            PlanError: If the plan was made for another version of torch, whose rounding differs.
        """
        if self.torch_version != torch.__version__:
            raise PlanError(
                f"expected torch {self.torch_version}, with which this was begun, "
                f"got {torch.__version__}\ngo on with that version, or start over with `force`"
            )
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)


def activations_of(objective: nn.Module, data: FixedData) -> Activations:
    """Return what a forward pass of the first two samples puts out."""
    batch = data.batches[0]
    if batch.sliceable:
        batch = batch[:2]
    with explaining(batch.count):
        return activations(objective, batch)
