"""Schedules against closed forms and torch's own plateau rule; warm-up over any of them."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import nn

from isoloss.registry import ArgumentError, UnknownNameError
from isoloss.trainers.schedules import SCHEDULES, Horizon, ScheduleError, create_schedule

HORIZON = Horizon(epochs=20, steps_per_epoch=5)


def by_epoch(name, **arguments):
    rule = create_schedule(name, HORIZON, arguments)
    values = [[rule(5 * epoch + step, []) for step in range(5)] for epoch in range(20)]
    assert all(len(set(row)) == 1 for row in values)
    return [row[0] for row in values]


BY_EPOCH = {
    "constant": ({}, [1.0] * 20),
    "halve": ({}, [1.0] * 5 + [0.5] * 5 + [0.25] * 5 + [0.125] * 5),
    # 30, 60 and 80 % of 20 epochs are reached as epochs 6, 12 and 16, counted from 0, begin.
    "step": ({}, [1.0] * 6 + [0.2] * 6 + [0.2**2] * 4 + [0.2**3] * 4),
}


@pytest.mark.parametrize("name", BY_EPOCH)
def test_closed_forms(name):
    arguments, expected = BY_EPOCH[name]
    assert by_epoch(name, **arguments) == expected


def test_arguments_of_the_schedules():
    assert by_epoch("halve", every=10) == [1.0] * 10 + [0.5] * 10
    assert by_epoch("step", factor=0.1, at=[0.5]) == [1.0] * 10 + [0.1] * 10
    assert by_epoch("step", factor=0.1, at=0.5) == [1.0] * 10 + [0.1] * 10


def test_cosine_goes_down_to_zero_by_step():
    cosine = create_schedule("cosine", Horizon(epochs=4, steps_per_epoch=5))
    values = [cosine(t, []) for t in range(20)]
    assert values[0] == 1.0
    assert cosine(10, []) == pytest.approx(0.5, abs=1e-15)
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] < 0.01


PLATEAU = [
    {},
    {"patience": 0},
    {"patience": 2, "cooldown": 3, "factor": 0.5},
    {"patience": 1, "threshold": 0.05, "least": 1e-3},
]


@pytest.mark.parametrize("arguments", PLATEAU, ids=str)
def test_plateau_is_torchs_rule(arguments):
    # The history decides alone, so the rule can be asked at any epoch without having been asked
    # before: that is what resuming needs.
    generator = random.Random(0)
    losses = [2.0 / (1 + epoch) + 0.3 * generator.random() for epoch in range(60)]
    losses[20] = math.nan
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    names = {"least": "min_lr"}
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, eps=0.0, **{names.get(k, k): v for k, v in arguments.items()}
    )
    rule = create_schedule("plateau", HORIZON, arguments)
    drops = set()
    for epoch, loss in enumerate(losses, 1):
        theirs.step(loss)
        factor = rule(5 * epoch, losses[:epoch])
        assert factor == optimizer.param_groups[0]["lr"]
        drops.add(factor)
    assert len(drops) > 1


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_warmup_multiplies_any_schedule(name):
    plain = create_schedule(name, HORIZON)
    warm = create_schedule(name, HORIZON, warmup_steps=8)
    factors = [warm(t, []) / plain(t, []) for t in range(12)]
    assert factors == pytest.approx([(t + 1) / 8 for t in range(8)] + [1.0] * 4, rel=1e-15)


def test_what_a_schedule_cannot_take_is_refused():
    with pytest.raises(UnknownNameError, match="cosine"):
        create_schedule("cosin", HORIZON)
    with pytest.raises(ArgumentError, match="every"):
        create_schedule("halve", HORIZON, {"evry": 3})
    for name, arguments, message in (
        ("halve", {"every": 0}, "1 epoch or more, got 0"),
        ("step", {"factor": 1.5}, "factor in .* got 1.5"),
        ("step", {"at": [0.3, 30]}, r"at in \(0, 1\)"),
        ("step", {"at": "x"}, r"at in \(0, 1\)"),
        ("plateau", {"factor": 0}, "factor"),
    ):
        with pytest.raises(ScheduleError, match=message):
            create_schedule(name, HORIZON, arguments)
    with pytest.raises(ScheduleError, match="warm-up"):
        create_schedule("constant", HORIZON, warmup_steps=-1)
