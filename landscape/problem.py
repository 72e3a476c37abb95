"""The loss of a network as a function of its weights, over fixed data."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from isoloss.landscape.batch_norm import (
    check_layers,
    check_policy,
    differentiable_statistics,
    explaining_single_samples,
    movable_buffers,
    use_batch_statistics,
)
from isoloss.landscape.batches import FixedData, Samples
from isoloss.landscape.compiled import CompiledNetwork
from isoloss.landscape.determinism import ProblemError, check_same_again, check_same_loss
from isoloss.landscape.evaluation import Evaluation
from isoloss.landscape.gradients import mean_gradient
from isoloss.landscape.memory import in_smaller_batches
from isoloss.landscape.objective import Loss, Metric, Objective, OfOutputs, objective, one_of
from isoloss.landscape.plan import Plan
from isoloss.landscape.probing import check_second_point, few_of, keeping
from isoloss.landscape.recalibration import Recalibration
from isoloss.landscape.sampling import Sample
from isoloss.landscape.selection import select_parameters
from isoloss.landscape.shares import Share
from isoloss.landscape.terms import Terms
from isoloss.landscape.vectors import digest
from isoloss.landscape.weights import copy_of, copy_with
from isoloss.parallel.ranks import Group

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


class Problem:
    r"""L(theta) = sum_i loss_i(f(theta, x_i), y_i) / sum_i weight_i, the data fixed, theta free.

    The weights are 1, or what a torch loss module divides by: it keeps its own normalisation (see
    `landscape.losses`). The lent model is copied once and never changed. Sums run in float64 and
    are divided once by the total weight, so that cutting the same data into other batches changes
    nothing but rounding. Everything is evaluated in `eval` mode (no dropout) but for batch norm,
    whose policy is stated:

    - `"eval"`: the running statistics stored in the network;
    - `"train"`: the statistics of each batch of `bn_batch` samples, in the order of the data,
      never cut further;
    - `"recalibrate"`: running statistics s(theta) estimated anew at each point in a pass over the
      data in batches of `bn_batch`. Derivatives are those of L(theta, s(theta)).

    The loss excludes weight decay.

    A *point* is a mapping from names to tensors: all of `parameters`, and beside them any of
    `buffers`, which then take the place of the network's own. Derivatives are by parameters alone.

    Args:
        model: Any network. Called as `model(x)`, `model(**inputs)` for dictionaries, `model(x, z)`
            for tuples of inputs, or with the fields of a graph batch that its `forward` names.
        loss: A torch loss module, `loss(outputs, targets)` with one value a sample, or a
            `PerSampleLoss`. None where there is a closure.
        batches: Batches of the same samples at every iteration: pairs and longer tuples of tensors,
            dictionaries or graph batches (see `landscape.batches`), of any structure for a closure
            (`landscape.contents`). They are read once and held on `device`.
        closure: `closure(model, batch) -> (batch,)`, one value a sample, or a pair (sums,
            weights): the loss where a function of outputs and targets cannot say it. The model is
            the network with the weights it is evaluated at, gradients are enabled
            (`torch.autograd.grad` with `create_graph=True` for derivatives by inputs).
        metric: `metric(outputs, targets) -> (batch,)`, or a pair (sums, weights), averaged as the
            accuracy. `"auto"` counts top-1 hits for integer targets, token by token where there
            are several a sample and without those the loss ignores; otherwise None. With a
            closure it is `metric(model, batch)`, and `"auto"` None.
        parameters: Which parameters are theta: None for the trainable ones (`requires_grad`),
            "all", or glob patterns over names, `!` excluding (see `landscape.selection`). The
            others stay what they are in the network.
        bn: Batch-norm policy.
        bn_batch: Samples of one statistics batch; used by `"train"` and `"recalibrate"`.
        device: Where to compute.
        dtype: float32 or float64; bfloat16 means autocast over float32 weights.
        plan: Batch sizes and strategies; chosen from the network and the data where None.
        batch_size: Samples of one pass, instead of the plan's; changes speed and rounding only.
        sample: How the data was drawn, where it is a part of a split.
        about: What network, loss and data are, JSON-able; part of `identity`.
        group: Several processes, each of which makes this problem and holds a part of the samples:
            their sums are those of all samples, on each of them. Under `"train"` and
            `"recalibrate"` batches of statistics stay whole.
        check: Whether to evaluate twice and refuse what is not deterministic, and at a second
            point to refuse a loss that sees other weights than its own (see `landscape.probing`).

    Attributes:
        objective: Network and loss, as a module of a batch.
        parameters: theta0, the tensors that move, by name.
        selection: How they were chosen, JSON-able: "trainable", "all" or the patterns.
        count: Number of samples, of all processes.
        digest: SHA-256 of the data.
        group: The processes that hold the samples; one alone by default.
        recalibration: s(theta) under `"recalibrate"`, otherwise None.
        buffers_digest: SHA-256 of all that is held constant: buffers and other parameters.
        compiled: What values are computed by where the plan says so (`landscape.compiling`).

    Raises:
        ProblemError: If model, data, dtype and policy do not fit together.
        SelectionError: If no parameter is left to move.
        LossShapeError: If outputs, targets and loss do not fit together, or a mean is divided by
            what depends on theta.
        LossReductionError: If the loss is no mean over samples.
        NotDeterministicError: If two passes differ.
        OuterWeightsError: If the loss uses the lent model instead of what it is given.
        CoupledSamplesError: If a closure's losses depend on how the data are cut.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | None = None,
        batches: Iterable[Any] = (),
        *,
        closure: Callable[[Any, Any], Any] | None = None,
        metric: Metric | str | None = "auto",
        parameters: str | Sequence[str] | None = None,
        bn: str = "eval",
        bn_batch: int = 128,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        plan: Plan | None = None,
        batch_size: int | None = None,
        sample: Sample | None = None,
        about: Mapping[str, Any] | None = None,
        group: Group | None = None,
        check: bool = True,
    ) -> None:
        check_policy(bn, bn_batch)
        if dtype not in DTYPES:
            raise ProblemError(f"expected a dtype among {', '.join(map(str, DTYPES))}, got {dtype}")
        self.bn, self.bn_batch, self.compute_dtype = bn, bn_batch, dtype
        self._about, self.sample, self.group = dict(about or {}), sample, group or Group()
        self.device = torch.device(device)
        self.dtype = torch.float32 if dtype == torch.bfloat16 else dtype
        # Apple's GPUs have no float64: sums are formed on the CPU there.
        self._sums = torch.device("cpu") if self.device.type == "mps" else self.device
        self._model = copy_of(model).to(self.device, self.dtype).eval()
        names, self.selection = select_parameters(self._model, parameters)
        self._model.requires_grad_(False)
        loss = one_of(loss, closure)
        put_together = functools.partial(
            objective, self._model, loss, metric, self.device, self.dtype, dtype == torch.bfloat16
        )
        self.objective = put_together()
        check_layers(self._model, bn)
        with torch.random.fork_rng(devices=[]):  # a DataLoader draws a seed from the caller's
            items = FixedData(map(self.objective.read, batches))
            if check:
                check_same_again(batches, items, self.objective.read)
        self.count, self.digest = items.count, items.digest()
        if sample is not None and sample.size != self.count:
            raise ProblemError(
                f"expected data of the {sample.size} samples that were drawn, got {self.count}"
            )
        self._share = Share.of(items, self.group, 1 if bn == "eval" else bn_batch)
        items = self._share.own(items)
        data = items.to(self.device, self.dtype, channels_last=False).detached_from(items)
        with keeping(model):
            self.plan = self.group.share(plan or Plan.choose(self.objective, data, self.device))
        if batch_size is not None:
            self.plan = replace(self.plan, micro_batch=batch_size, product_batch=batch_size)
        last = self.plan.channels_last
        self._data = data.to(self.device, self.dtype, channels_last=True) if last else data
        if bn == "train":
            use_batch_statistics(self._model)
        self._begin_at(names)
        self._total_weight: float | None = None
        self.compiled: CompiledNetwork | None = None
        if check:
            with keeping(model):
                self._check_points(model, put_together)

    def _begin_at(self, names: Iterable[str]) -> None:
        """Take theta0, and what is held constant, from the network."""
        tensors = dict(self._model.named_parameters())
        self.parameters: dict[str, Tensor] = {name: tensors.pop(name).detach() for name in names}
        self.buffers_digest = digest({**dict(self._model.named_buffers()), **tensors})
        self.recalibration: Recalibration | None = None
        if self.bn == "recalibrate":
            self.recalibration = Recalibration(
                self._model, self.loss_terms, self._data, self.bn_batch, self._sums, self.group
            )

    def __repr__(self) -> str:
        moved = sum(tensor.numel() for tensor in self.parameters.values())
        return (
            f"Problem({type(self._model).__name__}, {moved:,} parameters moved, "
            f"{self.count:,} samples, bn={self.bn!r}, {self.compute_dtype}, {self.device})"
        )

    def at(self, weights: nn.Module | Mapping[str, Tensor]) -> Problem:
        """Return the same function (data, loss, plan) with other weights for theta0.

        Nothing is read, checked or planned again: at every epoch of a training it is cheap.

        Args:
            weights: A network of the same architecture, copied as it is now, or a state dictionary.

        Raises:
            ProblemError: If names or shapes differ.
        """
        twin = self.uncompiled()
        twin._model = copy_with(self._model, weights)
        twin.objective = self.objective.over(twin._model)
        twin._about = {k: v for k, v in self._about.items() if k != "checkpoint_sha256"}
        twin._begin_at(self.parameters)
        return twin

    def uncompiled(self) -> Problem:
        """Return the same function, computed by the network as it is."""
        twin = copy.copy(self)
        if self.plan.compile:
            twin.plan, twin.compiled = replace(self.plan, compile=False), None
        return twin

    @property
    def buffers(self) -> dict[str, Tensor]:
        """The network's buffers that a point may give, by name (see `movable_buffers`)."""
        return movable_buffers(self._model, self.bn)

    @in_smaller_batches
    def evaluate(
        self, point: Mapping[str, Tensor] | None = None, metrics: Sequence[Metric] = ()
    ) -> Evaluation:
        """Evaluate loss and metric over all samples; what is NaN or infinite stays what it is.

        Args:
            point: theta, buffers that move among it; theta0 where None.
            metrics: Further metrics to average in the same pass.
        """
        point = self.parameters if point is None else point
        evaluation = self._evaluate(point, self.micro_batches(), metrics, self.network())
        self._total_weight = evaluation.weight
        return evaluation

    @property
    def total_weight(self) -> float:
        """sum_i weight_i over all samples, what sums of losses are divided by.

        It does not depend on the weights of the network; found in the first evaluation.

        Raises:
            ProblemError: If it is 0: no target counts.
        """
        if self._total_weight is None:
            self.evaluate()
        if not self._total_weight:
            raise ProblemError(
                f"expected targets that count, all of {self.count} samples have weight 0\n"
                "check the loss's ignore_index and class weights"
            )
        return self._total_weight

    @property
    def has_outputs(self) -> bool:
        """Whether L is a loss of the network's outputs, apart from each other: not of a closure."""
        return self.objective.has_outputs

    def micro_batches(self, size: int | None = None) -> Iterator[Samples]:
        """Yield the samples in batches of at most `size`, the plan's micro-batch where None.

        Under the `"train"` policy the batches are the statistics batches instead: cutting them
        would change the function.
        """
        if self.bn == "train":
            return self._data.cut(self.bn_batch)
        return self._data.cut(size or self.plan.micro_batch)

    def product_batches(self) -> Iterator[Samples]:
        """Yield the samples in the plan's batches for Hessian-vector products.

        Images are laid out channels first: double backward through convolutions was 1.4x slower
        channels last, where a plain forward pass is 2x faster.
        """
        for batch in self.micro_batches(self.plan.product_batch):
            yield batch.to(self.device, self.dtype, channels_last=False)

    def loss_sum(
        self,
        parameters: Mapping[str, Tensor],
        batch: Samples,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Sum of the (weighted) losses of a batch, differentiable in the parameters.

        Sums over all batches, divided by `total_weight`, make L.

        Args:
            parameters: A tensor for each name of `self.parameters`.
            batch: One of `micro_batches`.
            buffers: From `buffers_at`; the network's own where None. Batch-norm statistics that
                require a gradient are differentiated by, too.

        Returns:
            A 0-d tensor in the compute dtype.
        """
        return self.loss_terms(parameters, batch, buffers).sums.sum()

    def loss_terms(
        self,
        parameters: Mapping[str, Tensor],
        batch: Samples,
        buffers: Mapping[str, Tensor] | None = None,
    ) -> Terms:
        """Loss and weight of each sample of a batch, (batch,), as `loss_sum` adds them up."""
        state = {**(buffers or {}), **parameters}
        moving = any(tensor.requires_grad for tensor in (buffers or {}).values())
        statistics = differentiable_statistics(self._model) if moving else nullcontext()
        with explaining_single_samples(), statistics:
            return self.objective.at(state, batch)

    def buffers_at(self, point: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the buffers at a point, without a graph.

        They are those of the point, and of the network where it has none. Batch-norm statistics
        under `"recalibrate"` are estimated at its parameters in one pass over the data.
        """
        buffers = dict(self._model.named_buffers())
        buffers |= {name: tensor for name, tensor in point.items() if name in buffers}
        if self.recalibration is not None:
            buffers |= self.recalibration.estimate({n: point[n] for n in self.parameters})
        return buffers

    @in_smaller_batches
    def gradient(self, point: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Gradient of L by the parameters, accumulated in float64.

        Args:
            point: theta, buffers that move among it; theta0 where None.

        Returns:
            A tensor of the compute dtype for each parameter, zero where L does not depend on it.
        """
        return mean_gradient(self, self.parameters if point is None else point, self._sums)

    def identity(self) -> dict[str, Any]:
        """Return what is computed, JSON-able: all that two results must share to be compared.

        How it is computed (plan, device) is no part of it.
        """
        return {
            **self._about,
            **self.objective.identity(),
            "weights_sha256": digest(self.parameters),
            "buffers_sha256": self.buffers_digest,
            "selection": self.selection,
            "samples": self.count,
            "digest": self.digest,
            **({} if self.sample is None else {"sample": self.sample.settings()}),
            "bn": self.bn,
            "bn_batch": self.bn_batch if self.bn != "eval" else None,
            "dtype": str(self.compute_dtype).removeprefix("torch."),
        }

    def part(self, samples: Tensor) -> Problem:
        """Return the same function over the samples at some positions (indices), under `eval`."""
        if self.bn != "eval":
            raise ProblemError(f"expected batch norm under 'eval' for a part, got {self.bn!r}")
        part = self.uncompiled()
        part._data, part._total_weight = self._share.choose(self._data, samples), None
        part.count, alone = len(samples), self.group.size == 1
        part.digest = part._data.digest() if alone else digest({f"of {self.digest}": samples})
        return part

    def _evaluate(
        self,
        point: Mapping[str, Tensor],
        batches: Iterable[Samples],
        metrics: Sequence[Metric] = (),
        compiled: CompiledNetwork | None = None,
    ) -> Evaluation:
        with torch.no_grad(), explaining_single_samples():
            state = {**self.buffers_at(point), **{name: point[name] for name in self.parameters}}
            network = None if compiled is None else compiled.at(state)
            columns = []
            for every in self.objective.passed(state, batches, metrics, network):
                parts = [part.to(self._sums).double() for terms in every if terms for part in terms]
                columns.append(torch.stack(parts))
        return Evaluation.of(self.group.side_by_side(torch.cat(columns, dim=1)), self.sample)

    def network(self) -> CompiledNetwork | None:
        """Return the compiled network where the plan has one, made when it is first needed."""
        if not (self.plan.compile and isinstance(self.objective, OfOutputs)):
            return None
        whole = self._data.batches[0]
        size = min(self.plan.micro_batch, whole.count)
        if self.compiled is None or self.compiled.size != size:
            self.compiled = CompiledNetwork(self.objective, self._model, whole, size)
        return self.compiled

    @in_smaller_batches
    def _check_points(self, lent: nn.Module, put_together: Callable[[], Objective]) -> None:
        losses = functools.partial(self._evaluate, self.parameters)
        check_same_loss(losses, self.micro_batches(), self.compute_dtype)

        def afresh() -> Callable[..., Terms]:
            twin = copy.copy(self)
            twin.objective = put_together()
            return twin.loss_terms

        check_second_point(
            lent,
            self.parameters,
            few_of(next(self.micro_batches())),
            self.loss_terms,
            afresh,
            dtype=self.compute_dtype,
            cuts=not self.has_outputs and self.bn != "train",
        )
