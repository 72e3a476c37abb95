"""The loss of a network as a function of its weights, over fixed data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from isoloss.errors import IsolossError
from isoloss.landscape.batch_norm import (
    check_layers,
    check_policy,
    estimating_statistics,
    explain_single_sample,
    use_batch_statistics,
)
from isoloss.landscape.batches import Batch, FixedData, as_batch
from isoloss.landscape.losses import per_sample_loss
from isoloss.landscape.metrics import no_metric, top1
from isoloss.landscape.plan import Plan
from isoloss.landscape.vectors import digest

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
PROBE_SAMPLES = 1000
# Two passes over the same samples may differ by reordered sums, not by more.
PROBE_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2}

Metric = Callable[[Any, Tensor], Tensor]


class ProblemError(IsolossError, ValueError):
    """A network, loss and data that do not make a well-defined function of the weights."""


class NotDeterministicError(ProblemError):
    """Two evaluations at the same weights gave different losses."""


@dataclass(frozen=True)
class Evaluation:
    """The loss at one point.

    Attributes:
        loss: Mean over samples, nats for a cross-entropy.
        accuracy: Mean of the metric over samples, a fraction; NaN where there is no metric.
        count: Number of samples.
        loss_standard_deviation: Of the per-sample losses (population form, divisor `count`).
    """

    loss: float
    accuracy: float
    count: int
    loss_standard_deviation: float


class Problem:
    r"""L(theta) = 1/N sum_i loss(f(theta, x_i), y_i), the data fixed and theta free.

    The lent model is copied once and never changed. Sums run in float64 and are divided once by
    N, so that cutting the same data into other batches changes nothing but rounding. Everything
    is evaluated in `eval` mode (no dropout) but for batch norm, whose policy is stated:

    - `"eval"`: the running statistics stored in the network;
    - `"train"`: the statistics of each batch of `bn_batch` samples, in the order of the data,
      never cut further;
    - `"recalibrate"`: running statistics estimated anew at each point in a pass over the data in
      batches of `bn_batch`, then held constant.

    The loss excludes weight decay.

    Args:
        model: Any network. Called as `model(x)`, `model(**inputs)` for dictionaries, or with the
            fields of a graph batch that its `forward` names.
        loss: A torch loss module, or `loss(outputs, targets)` with one value a sample.
        batches: Batches of the same samples at every iteration: pairs of tensors, dictionaries
            or graph batches (see `landscape.batches`). They are read once and held on `device`.
        metric: `metric(outputs, targets) -> (batch,)`, averaged as the accuracy. `"auto"` is the
            top-1 hit for integer targets and outputs of shape (batch, classes), otherwise None.
        bn: Batch-norm policy.
        bn_batch: Samples of one statistics batch; used by `"train"` and `"recalibrate"`.
        device: Where to compute.
        dtype: float32 or float64; bfloat16 means autocast over float32 weights.
        plan: Batch sizes and strategies; chosen from the network and the data where None.
        batch_size: Samples of one pass, instead of the plan's; changes speed and rounding only.
        about: What network, loss and data are, JSON-able; part of `identity`.
        check: Whether to evaluate twice and refuse what is not deterministic.

    Raises:
        ProblemError: If model, data, dtype and policy do not fit together.
        NotDeterministicError: If two passes differ.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module | Callable[[Any, Tensor], Tensor],
        batches: Iterable[Any],
        *,
        metric: Metric | str | None = "auto",
        bn: str = "eval",
        bn_batch: int = 128,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        plan: Plan | None = None,
        batch_size: int | None = None,
        about: Mapping[str, Any] | None = None,
        check: bool = True,
    ) -> None:
        check_policy(bn, bn_batch)
        if dtype not in DTYPES:
            raise ProblemError(f"expected a dtype among {', '.join(map(str, DTYPES))}, got {dtype}")
        self.bn, self.bn_batch, self.compute_dtype = bn, bn_batch, dtype
        self._about = dict(about or {})
        self.device = torch.device(device)
        self.dtype = torch.float32 if dtype == torch.bfloat16 else dtype
        # Apple's GPUs have no float64: sums are formed on the CPU there.
        self._sums = torch.device("cpu") if self.device.type == "mps" else self.device
        self._model = _copy_of(model).to(self.device, self.dtype).eval().requires_grad_(False)
        self._loss = per_sample_loss(loss, self.device, self.dtype)
        check_layers(self._model, bn)
        with torch.random.fork_rng(devices=[]):  # a DataLoader draws a seed from the caller's
            items = FixedData(map(as_batch, batches))
            if check:
                _check_same_again(batches, items)
        self.count, self.digest = items.count, items.digest()
        data = items.to(self.device, self.dtype, channels_last=False).detached_from(items)
        self.plan = plan or Plan.choose(self._model, data, self.device)
        if batch_size is not None:
            self.plan = replace(self.plan, micro_batch=batch_size, product_batch=batch_size)
        self._data = (
            data.to(self.device, self.dtype, channels_last=True)
            if self.plan.channels_last
            else data
        )
        self.buffers_digest = digest(dict(self._model.named_buffers()))
        if bn == "train":
            use_batch_statistics(self._model)
        self._metric = _choose_metric(metric)
        self.parameters: dict[str, Tensor] = {
            name: tensor.detach() for name, tensor in self._model.named_parameters()
        }
        if not self.parameters:
            raise ProblemError(
                f"expected a network with parameters, {type(model).__name__} has none"
            )
        if check:
            self._check_deterministic()

    def evaluate(self, parameters: Mapping[str, Tensor] | None = None) -> Evaluation:
        """Evaluate loss and metric over all samples.

        Args:
            parameters: A tensor for each name of `self.parameters`; theta0 where None.

        Returns:
            The evaluation. NaN and infinite losses stay what they are.
        """
        point = self.parameters if parameters is None else parameters
        return self._evaluate(point, self.micro_batches())

    def micro_batches(self, size: int | None = None) -> Iterator[Batch]:
        """Yield the samples in batches of at most `size`, the plan's micro-batch where None.

        Under the `"train"` policy the batches are the statistics batches instead: cutting them
        would change the function.
        """
        if self.bn == "train":
            return self._data.cut(self.bn_batch)
        return self._data.cut(size or self.plan.micro_batch)

    def product_batches(self) -> Iterator[Batch]:
        """Yield the samples in the plan's batches for Hessian-vector products.

        Images are laid out channels first: double backward through convolutions was 1.4x slower
        channels last, where a plain forward pass is 2x faster.
        """
        for batch in self.micro_batches(self.plan.product_batch):
            yield batch.to(self.device, self.dtype, channels_last=False)

    def loss_sum(
        self,
        parameters: Mapping[str, Tensor],
        batch: Batch,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Sum of the losses of a batch, differentiable in the parameters.

        Args:
            parameters: A tensor for each name of `self.parameters`.
            batch: One of `micro_batches`.
            buffers: Constants from `buffers_at`; the network's own where None.

        Returns:
            A 0-d tensor in the compute dtype.
        """
        losses, _ = self._losses(parameters, batch, buffers)
        return losses.sum()

    def buffers_at(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the buffers to hold constant near a point.

        They are the network's own, but for the batch-norm statistics under `"recalibrate"`, which
        are estimated at `parameters` in one pass over the data.
        """
        buffers = dict(self._model.named_buffers())
        if self.bn != "recalibrate":
            return buffers
        buffers = {name: tensor.clone() for name, tensor in buffers.items()}
        seen = 0
        with torch.no_grad(), estimating_statistics(self._model) as layers:
            for batch in self._data.cut(self.bn_batch):
                seen += batch.count
                for layer in layers:
                    layer.momentum = batch.count / seen
                self._outputs(parameters, batch, buffers)
        return buffers

    def gradient(self, parameters: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Gradient of L, accumulated in float64.

        Args:
            parameters: The point; theta0 where None.

        Returns:
            A tensor of the compute dtype for each parameter, zero where L does not depend on it.
        """
        point = self.parameters if parameters is None else parameters
        buffers = self.buffers_at(point)
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in point.items()}
        total = {
            name: torch.zeros(t.shape, dtype=torch.float64, device=self._sums)
            for name, t in leaves.items()
        }
        for batch in self.micro_batches():
            loss = self.loss_sum(leaves, batch, buffers)
            parts = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            for name, part in zip(leaves, parts, strict=True):
                if part is not None:
                    total[name] += part.to(self._sums)
        return {
            name: (tensor / self.count).to(self.device, self.dtype)
            for name, tensor in total.items()
        }

    def identity(self) -> dict[str, Any]:
        """Return what is computed, JSON-able: all that two results must share to be compared.

        How it is computed (plan, device) is no part of it.
        """
        return {
            **self._about,
            "weights_sha256": digest(self.parameters),
            "buffers_sha256": self.buffers_digest,
            "samples": self.count,
            "digest": self.digest,
            "bn": self.bn,
            "bn_batch": self.bn_batch if self.bn != "eval" else None,
            "dtype": str(self.compute_dtype).removeprefix("torch."),
        }

    def _outputs(
        self,
        parameters: Mapping[str, Tensor],
        batch: Batch,
        buffers: Mapping[str, Tensor] | None,
    ) -> Any:
        state = {**(buffers or {}), **parameters}
        try:
            with self._autocast():
                outputs = batch.call(_Bound(self._model, state))
        except ValueError as error:
            raise explain_single_sample(error) or error from error
        if self.compute_dtype == torch.bfloat16 and isinstance(outputs, Tensor):
            outputs = outputs.float()
        return outputs

    def _losses(
        self,
        parameters: Mapping[str, Tensor],
        batch: Batch,
        buffers: Mapping[str, Tensor] | None,
    ) -> tuple[Tensor, Any]:
        outputs = self._outputs(parameters, batch, buffers)
        return self._loss(outputs, batch.targets), outputs

    def _evaluate(self, point: Mapping[str, Tensor], batches: Iterable[Batch]) -> Evaluation:
        with torch.no_grad():
            buffers = self.buffers_at(point)
            total = torch.zeros(3, dtype=torch.float64, device=self._sums)
            count = 0
            for batch in batches:
                losses, outputs = self._losses(point, batch, buffers)
                losses = losses.to(self._sums).double()
                hits = self._metric(outputs, batch.targets).to(self._sums).double()
                total += torch.stack([losses.sum(), losses.square().sum(), hits.sum()])
                count += batch.count
            loss, square, accuracy = (total / count).tolist()
        variance = square - loss * loss
        deviation = math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.nan
        return Evaluation(loss, accuracy, count, deviation)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.compute_dtype == torch.bfloat16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _check_deterministic(self) -> None:
        batches, count = [], 0
        for batch in self.micro_batches():
            batches.append(batch)
            count += batch.count
            if count >= PROBE_SAMPLES:
                break
        first, second = (self._evaluate(self.parameters, batches).loss for _ in range(2))
        difference = abs(first - second) / max(abs(first), abs(second), 1e-300)
        if difference > PROBE_TOLERANCE[self.compute_dtype]:
            raise NotDeterministicError(
                f"expected the same loss from two passes at the same weights, got {first:.9g} and "
                f"{second:.9g} over {count} samples\nlikely cause: random numbers in the network's "
                "forward that ignore eval mode (F.dropout without training=self.training, noise)"
            )


class _Bound:
    """A network with its state replaced: calling it is `functional_call`, nothing is mutated."""

    def __init__(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        self._model, self._state = model, dict(state)
        self.forward = model.forward  # its signature names the fields of a graph batch

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self._model, self._state, args, kwargs)


def _copy_of(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise ProblemError(
            f"expected a network that can be copied (it is lent and must stay unchanged), but "
            f"copying {type(model).__name__} failed\n{type(error).__name__}: {error}\n"
            "a common cause is a tensor with a gradient history kept as an attribute: detach it"
        ) from error


def _choose_metric(metric: Metric | str | None) -> Metric:
    if callable(metric):
        return metric
    if metric == "auto":
        return top1
    if metric is None:
        return no_metric
    raise ProblemError(f"expected a metric function, 'auto' or None, got {metric!r}")


def _check_same_again(batches: Iterable[Any], items: FixedData) -> None:
    """Read the first samples a second time, where a source can change between passes."""
    if isinstance(batches, list | tuple) or iter(batches) is batches:
        return
    again, count = [], 0
    for batch in map(as_batch, batches):
        again.append(batch)
        count += batch.count
        if count >= min(PROBE_SAMPLES, items.count):
            break
    for old, new in zip(items.cut(items.count), FixedData(again).batches, strict=False):
        kept = old[: new.count] if old.sliceable else old
        for name, tensor in new.tensors().items():
            if not torch.equal(tensor, kept.tensors()[name]):
                raise NotDeterministicError(
                    f"expected the same batches from two passes over the data, got other {name}\n"
                    "likely cause: a DataLoader with shuffle=True or random augmentation\n"
                    "pass it unshuffled and unaugmented, or as list(loader)"
                )
