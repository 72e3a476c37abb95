"""How the work is done, apart from what is computed: batch sizes, memory format, strategies.

A plan is a pure function of the network, the shapes, the device, the thread count and the version
of torch. It is stored with a result and used again by whoever continues or repeats it, so that
the same command gives the same bytes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isoloss.errors import IsolossError
from isoloss.landscape.batches import FixedData
from isoloss.landscape.memory import explaining

MIB = 2**20
# On a CPU a micro-batch is fastest while its activations stay in cache and under the size at which
# the allocator hands memory back to the kernel: 100 samples of a small CNN (0.16 MiB of outputs
# each) beat 1,000 by 3x. On an accelerator a launch must instead be large enough to fill the chip.
ACTIVATION_BUDGET = {"cpu": 16 * MIB}
ACCELERATOR_BUDGET = 1024 * MIB
LARGEST_MICRO_BATCH = 8192
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
        activation_bytes_per_sample: Bytes of all layer outputs of one sample.
        torch_version: Version the plan was made for.
    """

    micro_batch: int
    product_batch: int
    product_strategy: str
    channels_last: bool
    threads: int
    activation_bytes_per_sample: int
    torch_version: str

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
        activation_bytes = activation_bytes_per_sample(objective, data)
        weights = sum(p.numel() * p.element_size() for p in objective.parameters())
        # Each micro-batch reads all weights, and a product writes a gradient of their size: with
        # many weights and few activations, larger ones cost less.
        budget = max(ACTIVATION_BUDGET.get(device.type, ACCELERATOR_BUDGET), weights)
        micro_batch = max(1, min(budget // max(activation_bytes, 1), LARGEST_MICRO_BATCH))
        kept = GRAPH_TO_ACTIVATIONS * activation_bytes * data.count
        return cls(
            micro_batch=micro_batch,
            product_batch=micro_batch,
            product_strategy="kept-graph" if kept <= KEPT_GRAPH_BUDGET else "recompute",
            channels_last=data.batches[0].images,
            threads=torch.get_num_threads(),
            activation_bytes_per_sample=activation_bytes,
            torch_version=torch.__version__,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Plan:
        """Rebuild a stored plan."""
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


def activation_bytes_per_sample(objective: nn.Module, data: FixedData) -> int:
    """Return the bytes of the outputs of all leaf modules in a forward pass, for each sample."""
    total = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, Tensor):
                total += tensor.numel() * tensor.element_size()

    leaves = [module for module in objective.modules() if not any(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    batch = data.batches[0]
    if batch.sliceable:
        batch = batch[:2]
    try:
        with torch.no_grad(), explaining(batch.count):
            objective(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return -(-total // batch.count)
