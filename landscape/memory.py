"""Memory: what there is, what work takes at least, and passes that go on where it runs out.

An accelerator says when its memory is full: the pass is made again with half as many samples at a
time. A CPU does not: the system ends the process. There, what work is sure to need is compared with
what there is before it begins.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor, nn

from isoloss.errors import IsolossError, is_out_of_memory
from isoloss.landscape.activations import size_of
from isoloss.landscape.batches import FixedData, Samples

P = ParamSpec("P")
R = TypeVar("R")

GIB = 2**30
LARGE = 64 * 2**20
_SYSTEM = Path("/")
_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


class MemoryShortError(IsolossError, MemoryError):
    """More memory is needed than there is."""


class Planned(Protocol):
    """Something that computes with samples, as many at a time as its plan says: a problem."""

    plan: Any
    parameters: dict[str, Tensor]
    device: torch.device
    count: int
    bn: str
    bn_batch: int
    _data: FixedData
    objective: Any
    group: Any


T = TypeVar("T", bound=Planned)


def in_smaller_batches(work: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """Decorate a pass over a problem's data: where an accelerator's memory runs out, `make_room`.

    The pass is then made again, which changes its value by rounding only.
    """

    @functools.wraps(work)
    def passed(problem: T, *args: P.args, **kwargs: P.kwargs) -> R:
        while True:
            try:
                return work(problem, *args, **kwargs)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                make_room(problem, error)

    return passed


def make_room(problem: Planned, error: Exception, *, graphs: bool = False) -> None:
    """Plan with less memory after a pass ran out of it: half the samples at a time.

    The problem's plan says so from then on.

    Args:
        problem: The loss as a function of the weights.
        error: What the pass ended with.
        graphs: Whether graphs are kept from one pass to the next: they are given up first.

    Raises:
        MemoryShortError: On a CPU, whose system ends processes before long; of several processes,
            whose passes must stay the same; with one sample at a time; and with batches that cannot
            be cut: graphs, and those that batch norm takes its statistics of under the policy
            `"train"`.
    """
    plan, largest = problem.plan, largest_batch(problem)
    of_statistics = problem.bn == "train"
    fixed = of_statistics or not all(batch.sliceable for batch in problem._data.batches)
    refused = _explained(error, largest, "bn_batch" if of_statistics else "batch_size")
    hopeless = problem.device.type == "cpu" and not isinstance(error, torch.OutOfMemoryError)
    if hopeless or problem.group.size > 1:
        raise refused from error
    if graphs:
        problem.plan = replace(plan, product_strategy="recompute")
    elif largest > 1 and not fixed:
        half = largest // 2
        micro, product = min(plan.micro_batch, half), min(plan.product_batch, half)
        problem.plan = replace(plan, micro_batch=micro, product_batch=product)
    else:
        raise refused from error
    error.with_traceback(None)  # its frames hold the tensors of the pass
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def largest_batch(problem: Planned) -> int:
    """Return how many samples the largest pass of a problem takes at a time."""
    size = max(problem.plan.micro_batch, problem.plan.product_batch)
    size = problem.bn_batch if problem.bn == "train" else size
    return max(batch.count for batch in problem._data.cut(size))


@contextmanager
def explaining(samples: int) -> Iterator[None]:
    """Raise `MemoryShortError` where memory runs out inside the context.

    Args:
        samples: How many samples are computed with at a time.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise _explained(error, samples) from error


def _explained(error: BaseException, samples: int, option: str = "batch_size") -> MemoryShortError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return MemoryShortError(
        f"out of memory with {samples:,} samples at a time: {reason[:200]}\n"
        f"compute with a smaller `{option}`, with fewer `samples`, or where there is more memory"
    )


def require(needed: int, what: str, remedy: str, device: torch.device | str = "cpu") -> None:
    """Refuse work that is sure to need more memory than there is, on a CPU.

    Args:
        needed: Bytes that it needs at least, above what is held already.
        what: What needs them, in words.
        remedy: What to do instead.
        device: Where the work is done; nothing is refused on others than CPUs.

    Raises:
        MemoryShortError: With both numbers.
    """
    there = available() if torch.device(device).type == "cpu" else None
    if there is not None and needed > there:
        raise MemoryShortError(
            f"expected memory for {what}, at least {needed / GIB:,.3g} GiB, got "
            f"{there / GIB:,.3g} GiB that are free\n{remedy}"
        )


def require_for_evaluation(problem: Planned) -> None:
    """Refuse evaluations of a problem that cannot fit: the largest output of a layer is held.

    Raises:
        MemoryShortError: With what is needed and what there is.
    """
    if problem.device.type == "cpu":
        _, largest = outputs_per_sample(problem.objective, _few(problem))
        samples = largest_batch(problem)
        what = f"the outputs of a layer for {samples:,} samples"
        require(largest * samples, what, "compute with a smaller `batch_size`")


def require_for_products(problem: Planned, vectors: int) -> None:
    """Refuse Hessian-vector products that cannot fit.

    Args:
        problem: The loss as a function of the weights.
        vectors: How many vectors of the size of the parameters are held at once, at least.

    Raises:
        MemoryShortError: With what is needed and what there is.
    """
    if problem.device.type != "cpu":
        return
    moved = problem.parameters.values()
    basis = vectors * sum(map(size_of, moved))
    outputs, _ = outputs_per_sample(problem.objective, _few(problem))
    kept = problem.plan.product_strategy == "kept-graph"
    samples = problem.count if kept else largest_batch(problem)
    require(
        basis + outputs * samples,
        f"{vectors:,} vectors of the size of the parameters ({basis / GIB:,.3g} GiB) and the "
        f"graphs of {samples:,} samples ({outputs * samples / GIB:,.3g} GiB)",
        "compute with smaller `top` and `steps`, a smaller `batch_size`, or fewer `parameters`",
    )


def release_freed(size: int) -> None:
    """Give memory of tensors that were freed back to the system, where the C library is glibc's.

    It keeps what was below 32 MiB, in pieces that other sizes do not fit into: of the tensors of a
    backward pass about as much as a network's weights. 0.1 to 0.3 s per GiB.

    Args:
        size: Bytes of the weights that were worked with; for less than `LARGE`, nothing is done.
    """
    trim = getattr(_C_LIBRARY, "malloc_trim", None)
    if trim is not None and size >= LARGE:
        trim(0)


def _few(problem: Planned) -> Any:
    batch = problem._data.batches[0]
    return batch[:2] if batch.sliceable else batch


def available() -> int | None:
    """Return the bytes this process may still take; None where the system does not tell.

    Memory and swap that are free or hold copies of files, within the limits of the process's
    control group (of a container, or of Slurm).
    """
    known = [part for part in (_of_machine(), *_of_groups()) if part is not None]
    return max(0, min(known)) if known else None


def _of_machine() -> int | None:
    try:
        lines = (_SYSTEM / "proc/meminfo").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
        return sizes["MemAvailable"] + sizes.get("SwapFree", 0)
    except (OSError, ValueError, LookupError):  # not Linux, or an old one
        return None


def _of_groups() -> list[int | None]:
    """Return what each control group above the process leaves of its limit."""
    try:
        lines = (_SYSTEM / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        root = _SYSTEM / "sys/fs/cgroup" / kinds
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        inside = root / path.lstrip("/")
        for folder in (inside, *inside.parents):
            if folder.is_relative_to(root):
                found.append(_left(folder, *(names if kinds else ("memory.max", "memory.current"))))
    return found


def _left(group: Path, limit: str, usage: str) -> int | None:
    try:
        most, held = (int((group / name).read_text(encoding="ascii")) for name in (limit, usage))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        # Copies of files count as used, and are given up first.
        files = sum(int(line.split()[1]) for line in lines if line.split()[0] in _FILES)
    except (OSError, ValueError, LookupError):  # "max", or none of its own
        return None
    return most - held + files


_FILES = ("inactive_file", "active_file")


def outputs_per_sample(objective: nn.Module, batch: Samples) -> tuple[int, int]:
    """Return the bytes of the outputs of all leaf modules, and of the largest, for each sample.

    A pass for derivatives holds at least the former, one without the latter.

    Args:
        objective: The network with its loss, a module of a batch.
        batch: Samples to send through it; two are enough.
    """
    with torch.no_grad(), outputs_held(objective) as outputs:
        objective(batch)
    sizes = [size_of(tensor) // batch.count for tensor in outputs.values()]
    return sum(sizes), max(sizes, default=0)


@contextmanager
def outputs_held(module: nn.Module) -> Iterator[dict[int, Tensor]]:
    """Yield the outputs of leaf modules by where they are.

    Those that share memory, as the outputs of in-place activations, are one. Of TorchScript there
    are none, and of compiled networks, which looking on would compile another time.
    """
    outputs: dict[int, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, Tensor) and tensor.numel():
                outputs[tensor.untyped_storage().data_ptr()] = tensor

    parts = list(module.modules())
    compiled = any(hasattr(part, "_orig_mod") for part in parts)
    leaves = [part for part in parts if not (compiled or list(part.children()))]
    scripted = torch.jit.ScriptModule
    hooks = [leaf.register_forward_hook(keep) for leaf in leaves if not isinstance(leaf, scripted)]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
