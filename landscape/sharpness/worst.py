"""The largest rise of the loss in a ball: SAM's one step, and a search from several starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from isoloss.landscape.problem import Problem
from isoloss.landscape.sharpness.ball import Ball, SharpnessError, Tensors, random_direction
from isoloss.landscape.vectors import norm
from isoloss.records.progress import Progress


@dataclass(frozen=True)
class WorstRise:
    """The largest rise that was found in a ball: a lower bound on the largest there is.

    Attributes:
        value: max over the starts, in the loss's unit.
        of_starts: What each start found; the first one starts at SAM's step.
        evaluations: Passes over the data, a gradient counted as one.
        diverged: Points tried where the loss is not finite; they are passed over.
    """

    value: float
    of_starts: tuple[float, ...]
    evaluations: int
    diverged: int


def one_step_rise(problem: Problem, ball: Ball) -> float:
    r"""Return L(theta0 + rho T^2 g / ||T g||_2) - L(theta0), g the gradient of L at theta0.

    The maximum of L's first-order expansion over the ball is taken there (Foret et al. 2021, eq. 2;
    Kwon et al. 2021, section 3). Where g is 0 it is 0.
    """
    step = ball.on_sphere(ball.scaled(problem.gradient()))
    origin = problem.parameters
    return problem.evaluate(ball.displaced(origin, step)).loss - problem.evaluate().loss


def worst_rise(
    problem: Problem,
    ball: Ball,
    *,
    starts: int = 4,
    steps: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> WorstRise:
    r"""Search max { L(theta0 + T u) - L(theta0) : ||u||_2 <= rho } by projected gradient ascent.

    A step goes from u to the point of the ball nearest to u + a T g / ||T g||, g the gradient of L
    at theta0 + T u. a is 2 rho at first, which on a convex loss alone climbs without fail (the
    generalised power method; Journee et al. 2010, section 2), and halved where the loss would fall;
    only rises are taken. The first start is at SAM's step, the others at random on the sphere.

    Args:
        problem: The loss.
        ball: The set.
        starts: Starts, 1 or more.
        steps: Points that are tried from each start, 0 or more.
        seed: Of the random starts.
        progress: Called as `progress(done, total)` after each point.

    Raises:
        SharpnessError: For numbers out of range, or a loss at theta0 that is not finite.
    """
    if starts < 1 or steps < 0:
        raise SharpnessError(
            f"expected 1 start or more and 0 steps or more, got {starts} and {steps}"
        )
    search = _Search(problem, ball, starts * (steps + 1), progress)
    found = []
    for start in range(starts):
        if start == 0:
            begin = ball.scaled(problem.gradient())
            search.evaluations += 1
        else:
            begin = random_direction(problem.parameters, seed, start)
        found.append(search.climb(ball.on_sphere(begin), steps))
    return WorstRise(max(found), tuple(found), search.evaluations, search.diverged)


class _Search:
    def __init__(self, problem: Problem, ball: Ball, total: int, progress: Progress | None) -> None:
        self.problem, self.ball, self.total, self.progress = problem, ball, total, progress
        self.loss = problem.evaluate().loss
        if not math.isfinite(self.loss):
            raise SharpnessError(f"expected a finite loss at the weights, got {self.loss}")
        self.evaluations, self.diverged, self.tried = 1, 0, 0

    def climb(self, u: Tensors, steps: int) -> float:
        """Return the largest rise on the way from a point of the ball."""
        origin, ball = self.problem.parameters, self.ball
        value, length, ascent = self.rise(u), 2 * ball.radius, None
        for _ in range(steps):
            if ascent is None:
                gradient = ball.scaled(self.problem.gradient(ball.displaced(origin, u)))
                self.evaluations += 1
                size = norm(gradient)
                if not (size and math.isfinite(size)):
                    self.pass_over(steps)
                    break
                ascent = {name: part / size for name, part in gradient.items()}
            candidate = ball.inside({name: u[name] + length * ascent[name] for name in u})
            if (higher := self.rise(candidate)) > value:
                u, value, ascent = candidate, higher, None
            else:
                length /= 2
        return value

    def rise(self, u: Tensors) -> float:
        """Return the rise at a point; -inf where the loss is not finite."""
        rise = self.problem.evaluate(self.ball.displaced(self.problem.parameters, u)).loss
        rise -= self.loss
        self.evaluations += 1
        self.tried += 1
        if self.progress is not None:
            self.progress(min(self.tried, self.total), self.total)
        if not math.isfinite(rise):
            self.diverged += 1
            return -math.inf
        return rise

    def pass_over(self, steps: int) -> None:
        """Count the points of a climb that has ended."""
        left = -self.tried % (steps + 1)
        self.tried += left
        if self.progress is not None:
            self.progress(self.tried, self.total)
