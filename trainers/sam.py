"""Sharpness-aware minimisation: descend with the gradient taken at the worst nearby point."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from isoloss.errors import IsolossError
from isoloss.trainers.batch_norm import frozen_batch_norm_statistics
from isoloss.trainers.over_base import OverBase

ASAM_ETA = 0.01  # of Kwon et al. 2021, section 5


class SAMError(IsolossError, RuntimeError):
    """Steps taken out of order, or parameters that do not fit together."""


def identity_scale(name: str, weight: Tensor) -> Tensor | None:
    """Return T_w = I: a Euclidean ball (Foret et al. 2021)."""
    return None


def weight_scale(name: str, weight: Tensor) -> Tensor | None:
    """Return T_w = |w| + eta for weights, 1 for all else: the ball of the ASAM authors' own code.

    As there, a weight is a parameter with "weight" in its name, batch-norm scales included.
    """
    return weight.abs().add_(ASAM_ETA) if "weight" in name else None


def elementwise_scale(name: str, weight: Tensor) -> Tensor | None:
    """Return T_w = |w| for every parameter: the ball of a widespread PyTorch version of ASAM."""
    return weight.abs()


@dataclass(frozen=True)
class PerturbationRule:
    r"""The ball a perturbation is sought in: { e : ||T_w^-1 e||_2 <= rho }, T_w diagonal.

    Attributes:
        scale: `scale(name, weight)` gives the diagonal of T_w for one parameter, in its shape, or
            None where it is 1.
        description: One line on the rule and its source.
    """

    scale: Callable[[str, Tensor], Tensor | None]
    description: str


RULES = {
    "sam": PerturbationRule(identity_scale, "e = rho g / ||g||; Foret et al. 2021, eq. 2"),
    "asam": PerturbationRule(
        weight_scale,
        "e = rho T^2 g / ||T g||, T = |w| + 0.01 on weights, 1 elsewhere; Kwon et al. 2021",
    ),
    "asam-elementwise": PerturbationRule(
        elementwise_scale,
        "e = rho T^2 g / ||T g||, T = |w| on all parameters, no eta; as in github.com/davda54/sam",
    ),
}


class SAM(OverBase):
    r"""Sharpness-aware minimisation over any base optimizer that steps without a closure.

    One step at weights w with gradient g = grad L(w) (Foret et al. 2021, Algorithm 1):

        e = rho T_w^2 g / ||T_w g||_2,        w <- base step from w with grad L(w + e)

    The norm runs over all parameters jointly. Weight decay belongs to the base optimizer, so it
    enters the descent and not the ascent. Weights return from w + e as saved copies, bit for bit.
    A zero gradient gives e = 0; a gradient that is not finite gives an e that is not finite, and
    so a loss at w + e which shows it. Batch-norm running statistics are updated at w alone.

    `state_dict`, `load_state_dict`, `zero_grad`, `param_groups` and `state` are the base's, and
    learning-rate schedulers take either object.

    Two ways to step. With a closure, which runs forward and backward at the current weights and
    returns the loss (gradients are zeroed before each of its two calls):

        optimizer.step(closure)

    Without one, for loops that need the two gradients in their own hands:

        loss_of(model(x)).backward()
        with optimizer.perturbed():              # at w + e, gradients zeroed
            loss_of(model(x)).backward()
        optimizer.base.step()                    # from w

    `ascend()` and `descend()` are the same without a block, batch norm left to the caller.
    Clipping the gradients' norm inside the closure clips the descent only, as e does not depend on
    the length of g.

    m-sharpness (section 4.1 there) finds a perturbation for each subset of m samples of the batch
    and descends with the mean of the subsets' gradients, each at its own w + e; see
    `descent_gradient`.

    Args:
        model: The network; its parameter names tell weights from biases.
        base: Optimizer of parameters of `model`. Those it does not hold stay where they are.
        rho: Radius of the ball.
        rule: A key of `RULES`.
        m: Samples of a subset for m-sharpness, None for the whole batch. `step` does not cut
            batches; a loop reads `m` and hands the subsets to `descent_gradient`.

    Raises:
        ValueError: For an unknown rule, a negative rho or an m below 1.
        SAMError: If the base optimizer holds a tensor that is no parameter of the model.
    """

    hyperparameters: Sequence[str] = ("lr", "rho")

    def __init__(
        self,
        model: nn.Module,
        base: Optimizer,
        *,
        rho: float = 0.05,
        rule: str = "sam",
        m: int | None = None,
    ) -> None:
        if rule not in RULES:
            raise ValueError(f"expected a rule among {', '.join(RULES)}, got {rule!r}")
        if not rho >= 0:
            raise ValueError(f"expected rho >= 0, got {rho}")
        if m is not None and m < 1:
            raise ValueError(f"expected m of 1 sample or more, got {m}")
        names = {parameter: name for name, parameter in model.named_parameters()}
        held = [parameter for group in base.param_groups for parameter in group["params"]]
        foreign = [tuple(parameter.shape) for parameter in held if parameter not in names]
        if foreign:
            raise SAMError(
                f"expected a base optimizer over parameters of {type(model).__name__}, got "
                f"{len(foreign)} other tensors, the first of shape {foreign[0]}\n"
                "make the base optimizer from the parameters of the model passed to SAM"
            )
        super().__init__(base)
        self.model, self.rho, self.rule, self.m = model, rho, RULES[rule], m
        self._named = [(names[parameter], parameter) for parameter in held]
        self._saved: list[tuple[Tensor, Tensor]] = []

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """Take one step.

        Args:
            closure: Computes the loss at the current weights, calls backward and returns the loss.
                An exception in it leaves the weights at w.

        Returns:
            The loss at w (not at w + e), shape ().
        """
        loss = self.descent_gradient([closure], [1.0])
        self.descent_step()
        return loss

    def descent_gradient(
        self, closures: Sequence[Callable[[], Tensor]], shares: Sequence[float]
    ) -> Tensor:
        r"""Leave in `.grad` what the base optimizer descends with, the weights being back at w.

        For subsets i of the batch with losses L_i and shares s_i: sum_i s_i grad L_i(w + e_i),
        e_i found from grad L_i(w). One subset with share 1 is plain SAM.

        Args:
            closures: One a subset; each computes the subset's mean loss at the current weights,
                calls backward and returns the loss. It is called twice.
            shares: Share of each subset in the batch, n_i / n; 1 in all.

        Returns:
            sum_i s_i L_i(w), shape ().
        """
        total: Tensor | None = None
        gradients: list[Tensor | None] = [None] * len(self._named)
        with torch.enable_grad():
            for closure, share in zip(closures, shares, strict=True):
                self.zero_grad()
                loss = closure()
                with self.perturbed():
                    closure()
                if share == 1.0:  # the whole batch: the gradients are there
                    return loss
                weighted = share * loss.detach()
                total = weighted if total is None else total + weighted
                self._accumulate(gradients, share)
        if total is None:
            raise SAMError("descent_gradient() expected one closure or more, got none")
        for (_, parameter), gradient in zip(self._named, gradients, strict=True):
            parameter.grad = gradient
        return total

    def descent_step(self) -> None:
        """Let the base optimizer step from w with the gradients present.

        Raises:
            SAMError: If the weights are perturbed.
        """
        if self._saved:
            raise SAMError("descent_step() at perturbed weights: call descend() or restore() first")
        self.base.step()

    @torch.no_grad()
    def _accumulate(self, gradients: list[Tensor | None], share: float) -> None:
        for index, (_, parameter) in enumerate(self._named):
            if parameter.grad is not None:
                found, grad = gradients[index], parameter.grad
                gradients[index] = grad * share if found is None else found.add_(grad, alpha=share)

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Be at w + e inside the context, running statistics frozen, and back at w after it."""
        self.ascend()
        try:
            with frozen_batch_norm_statistics(self.model):
                yield
        finally:
            self.restore()

    @torch.no_grad()
    def ascend(self) -> None:
        """Move to w + e by the gradients present and zero them.

        Raises:
            SAMError: If the weights are perturbed already or there is no gradient.
        """
        if self._saved:
            raise SAMError("ascend() at perturbed weights: call descend() or restore() first")
        graded = [(name, p, p.grad) for name, p in self._named if p.grad is not None]
        if not graded:
            raise SAMError("ascend() found no gradient: call loss.backward() first")
        scales = [self.rule.scale(name, parameter) for name, parameter, _ in graded]
        # e does not depend on the length of g: with its largest entry 1, no product with T and no
        # square over- or underflows. Not a branch on the value, which would wait for the device.
        largest = get_total_norm([grad for _, _, grad in graded], math.inf)
        largest = torch.where(largest == 0, torch.ones_like(largest), largest)
        scaled = [
            grad / largest.to(grad) if scale is None else scale * (grad / largest.to(grad))
            for (_, _, grad), scale in zip(graded, scales, strict=True)
        ]
        norm = _norm(scaled)
        # A NaN norm stays NaN.
        factor = torch.where(norm == 0, torch.zeros_like(norm), self.rho / norm)
        for (_, parameter, _), scale, tensor in zip(graded, scales, scaled, strict=True):
            self._saved.append((parameter, parameter.detach().clone()))
            ascent = tensor * factor.to(tensor)
            parameter.add_(ascent if scale is None else scale * ascent)
        self.zero_grad()

    @torch.no_grad()
    def restore(self) -> None:
        """Put back the weights w that `ascend` left, bit for bit; the gradients stay."""
        for parameter, saved in self._saved:
            parameter.copy_(saved)
        self._saved = []

    def descend(self) -> None:
        """Restore w and let the base optimizer step from there with the gradients present.

        Raises:
            SAMError: If the weights are not perturbed.
        """
        if not self._saved:
            raise SAMError("descend() at unperturbed weights: call ascend() first")
        self.restore()
        self.descent_step()


def _norm(tensors: list[Tensor]) -> Tensor:
    """Return the norm over all entries, shape (), in float64 where the device has it."""
    exact = torch.float32 if tensors[0].device.type == "mps" else torch.float64
    norms = [torch.linalg.vector_norm(tensor, dtype=exact) for tensor in tensors]
    return torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
