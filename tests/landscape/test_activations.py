"""What operations put out, counted by hand."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from isoloss.landscape import Problem
from isoloss.landscape.activations import activations
from isoloss.landscape.batches import as_batch
from isoloss.landscape.objective import HELD_OUTPUTS, objective


class Functional(nn.Module):
    """Convolution to 2 x 4 x 4, ReLU, 2 x 2 pooling to 2 x 2 x 2 with indices, a view, linear."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x):
        pooled = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.last(pooled.flatten(1).mul_(2))


class Outputs(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model(batch.inputs)


def test_functions_count_and_views_and_changes_in_place_do_not():
    batch = as_batch((torch.ones(2, 1, 4, 4), torch.zeros(2).long()))
    found = activations(Outputs(Functional()), batch)
    # float32: convolution, ReLU, pooling; its indices in int64; the linear layer.
    assert found.bytes == 4 * (32 + 32 + 8) + 8 * 8 + 4 * 3
    assert (found.largest, found.operations, found.convolutions) == (4 * 32, 4, True)


def test_a_sample_that_is_larger_than_any_output():
    batch = as_batch((torch.ones(2, 50), torch.zeros(2).long()))
    found = activations(Outputs(nn.Linear(50, 3)), batch)
    assert (found.bytes, found.largest, found.convolutions) == (12, 200, False)


def test_losses_are_compared_in_groups_with_the_values_of_single_batches():
    """Rows of outputs that fill the group several times, and more than one group."""
    width = HELD_OUTPUTS // (4 * 16)
    x, y = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 7
    torch.manual_seed(0)
    model = nn.Linear(4, width)
    asked = objective(model, nn.CrossEntropyLoss())
    batches = [asked.read((x[i : i + 3], y[i : i + 3])) for i in range(0, 50, 3)]
    state = dict(model.named_parameters())
    grouped = asked.passed(state, batches)
    assert 1 < len(grouped) < len(batches)
    with torch.no_grad():
        alone = [asked(batch, True) for batch in batches]
    for part in (0, 1):  # loss and accuracy
        for column in (0, 1):
            one, other = (
                torch.cat([every[part][column] for every in found]) for found in (grouped, alone)
            )
            assert torch.equal(one, other)


def test_samples_of_several_lengths_are_not_put_together():
    """A loss a token: outputs (batch, length, classes) of two lengths, and of one again."""
    torch.manual_seed(0)
    model = nn.Linear(2, 3)
    lengths = (4, 4, 5, 4)
    batches = [(torch.randn(2, n, 2), torch.randint(3, (2, n))) for n in lengths]
    loss = nn.CrossEntropyLoss()
    found = Problem(model, loss, batches).evaluate().loss
    rows = [model(x).flatten(0, 1) for x, _ in batches]
    expected = loss(torch.cat(rows), torch.cat([y.flatten() for _, y in batches]))
    torch.testing.assert_close(torch.tensor(found), expected.detach().double().float())
