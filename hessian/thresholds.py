r"""Largest eigenvalues that full-batch training is stable at.

A step on the quadratic loss lambda x^2 / 2 maps x to a multiple of it (with momentum, a pair to a
pair). Up to a threshold of lambda it shrinks x, beyond it x grows. Full-batch gradient descent of
networks raises the Hessian's largest eigenvalue to that threshold and stays about it (Cohen et al.
2021, "Gradient descent on neural networks typically occurs at the edge of stability"). A step on
mini-batches has no such threshold: there it is a number for reference.

With a coupled weight decay d, which is added to the gradient, lambda is an eigenvalue of H + d I.
"""

from __future__ import annotations

import math


def gradient_descent(lr: float) -> float:
    """Return 2 / lr, of w <- w - lr g.

    Args:
        lr: Learning rate, above 0.
    """
    return 2.0 / lr


def heavy_ball(lr: float, momentum: float) -> float:
    """Return (2 + 2 b) / lr, of v <- b v + g, w <- w - lr v (Cohen et al. 2021, appendix B).

    Args:
        lr: Learning rate, above 0.
        momentum: b, in [0, 1).
    """
    return (2.0 + 2.0 * momentum) / lr


def nesterov(lr: float, momentum: float) -> float:
    """Return (2 + 2 b) / ((1 + 2 b) lr), of v <- b v + g, w <- w - lr (g + b v) (appendix B there).

    Args:
        lr: Learning rate, above 0.
        momentum: b, in [0, 1).
    """
    return (2.0 + 2.0 * momentum) / ((1.0 + 2.0 * momentum) * lr)


def sam(lr: float, rho: float, gradient_norm: float) -> float:
    r"""Return ||g|| / (2 rho) (sqrt(1 + 8 rho / (lr ||g||)) - 1), of w <- w - lr grad L(w + e).

    e = rho g / ||g|| (Long & Bartlett 2023, "Sharpness-aware minimization and the edge of
    stability", section 1). It falls with the gradient's norm, below 2 / lr, which it is for rho of
    0. Computed as (4 / lr) / (1 + sqrt(1 + 8 rho / (lr ||g||))), the same without cancellation.

    Args:
        lr: Learning rate, above 0.
        rho: Radius, 0 or more.
        gradient_norm: ||g|| at w, 0 or more.
    """
    if rho == 0:
        return gradient_descent(lr)
    if gradient_norm == 0:
        return 0.0
    return (4.0 / lr) / (1.0 + math.sqrt(1.0 + 8.0 * rho / (lr * gradient_norm)))
