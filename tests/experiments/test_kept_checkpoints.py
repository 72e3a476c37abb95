"""Which epochs are asked for, and up to which curvature an optimizer is stable."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isoloss.experiments.kept_checkpoints import chosen_epochs
from isoloss.experiments.options import OptionError
from isoloss.experiments.stability import stability_of
from isoloss.experiments.train_options import TrainOptions

KEPT = [0, 5, 10, 15, 20]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("all", KEPT),
        ("20,0,5,5", [0, 5, 20]),
        ("::10", [0, 10, 20]),
        ("5::10", [5, 15]),
        ("5:15", [5, 10, 15]),
        ("10:", [10, 15, 20]),
        (":10:", [0, 5, 10]),
    ],
)
def test_epochs_are_chosen_among_those_kept(asked, expected):
    assert chosen_epochs(asked, KEPT) == expected


@pytest.mark.parametrize("asked", ["", "some", "0,7", "0,", "-5", "21:", "::0", "1:4", "1:2:3:4"])
def test_other_epochs_are_refused(asked):
    with pytest.raises(OptionError, match="epochs"):
        chosen_epochs(asked, KEPT)


class HalfDecayed(nn.Linear):
    def weight_decay_names(self):
        return {"weight"}


@pytest.mark.parametrize(
    ("settings", "threshold", "shift"),
    [
        ({"optimizer": "sgd", "momentum": 0.0}, 20.0, 0),
        ({"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1}, 38.0, 0.1),
        ({"optimizer": "sgd", "momentum": 0.5, "nesterov": True}, 15.0, 0),
        ({"optimizer": "grad-shift", "base": "sgd", "momentum": 0.0, "rho": 0.2}, 20.0, 0.2),
        # ||g|| = 3, rho = 0.5: 3 (sqrt(1 + 4 / 0.3) - 1)
        ({"optimizer": "sam", "base": "sgd", "momentum": 0.0, "rho": 0.5}, 8.3578, 0),
        ({"optimizer": "sam", "base": "sgd", "momentum": 0.9, "rho": 0.5}, None, 0),
        ({"optimizer": "sam", "base": "sgd", "momentum": 0.0, "rho": 0.5, "m": 4}, None, 0),
        ({"optimizer": "asam", "base": "sgd", "momentum": 0.0, "rho": 0.5}, None, 0),
        ({"optimizer": "adam", "weight_decay": 0.1}, None, 0.1),
        ({"optimizer": "adamw", "weight_decay": 0.1}, None, 0),
        ({"optimizer": "rmsprop", "momentum": 0.0}, None, 0),
        ({"optimizer": "imported"}, None, 0),
    ],
)
def test_stability_of_each_optimizer(settings, threshold, shift):
    found = stability_of(TrainOptions(lr=0.1, **settings), nn.Linear(2, 2))
    assert found.shift == shift
    if threshold is None:
        assert found.threshold is None
        assert found.rule.startswith("none")
    else:
        assert found.threshold(0.1, 3.0) == pytest.approx(threshold, rel=1e-4)


def test_decay_of_some_parameters_is_no_shift_of_the_whole_matrix():
    options = TrainOptions(optimizer="sgd", momentum=0.0, weight_decay=0.1)
    with torch.random.fork_rng():
        found = stability_of(options, HalfDecayed(2, 2))
    assert (found.threshold, found.shift) == (None, 0.0)
    assert "some parameters" in found.rule
