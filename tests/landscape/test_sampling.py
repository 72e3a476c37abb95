"""Standard errors of means over stratified samples, against many draws from known populations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from isoloss.datasets import balanced_indices, load_data, proportional_indices
from isoloss.landscape.sampling import Sample, SampleError, stratified_error

SIZES = (5000, 400, 150, 60, 40)
DRAWS = 600


def population():
    """Imbalanced classes, shuffled; the rarer a class the larger and more spread its losses."""
    draw = np.random.default_rng(0)
    targets = draw.permutation(np.repeat(np.arange(5), SIZES))
    losses = draw.exponential(np.array([0.1, 0.5, 1.0, 2.0, 4.0])[targets])
    return torch.from_numpy(targets), torch.from_numpy(losses)


def test_a_proportional_sample_estimates_the_mean_and_its_error():
    targets, losses = population()
    exact, n = float(losses.mean()), 500
    errors, claimed = [], []
    for seed in range(DRAWS):
        chosen = proportional_indices(targets, n, seed)
        sample = Sample.of(targets[chosen], targets, drawn="proportional", seed=seed)
        errors.append(float(losses[chosen].mean()) - exact)
        claimed.append(sample.error(losses[chosen]))
    errors, claimed = np.array(errors), np.array(claimed)
    # What is rounded in the shares moves the mean by a known, small amount.
    means = np.array([float(losses[targets == c].mean()) for c in range(5)])
    quotas = targets[chosen].bincount().numpy()
    rounding = float((quotas / n - np.array(SIZES) / sum(SIZES)) @ means)
    assert abs(rounding) < 0.2 * errors.std()
    assert abs(errors.mean() - rounding) < 4 * errors.std() / math.sqrt(DRAWS)
    # Fewer than this cover once in 100 where 93 % or more do.
    assert (np.abs(errors) <= 2 * claimed).sum() >= stats.binom.ppf(0.01, DRAWS, 0.93)
    # The root mean square over 600 draws is known to 3 %.
    assert np.sqrt(np.mean(claimed**2)) == pytest.approx(errors.std(), rel=0.12)
    # The draw as if it were simple has a larger error, a balanced one another mean.
    simple = stratified_error(
        losses[chosen], torch.zeros(n, dtype=torch.int64), torch.tensor([5650])
    )
    assert claimed[-1] < 0.9 * simple
    balanced = losses[balanced_indices(targets, n, 0)].mean()
    assert float(balanced) - exact > 10 * claimed.max()


def test_the_error_of_a_balanced_sample_is_that_of_its_own_mixture():
    targets, losses = population()
    values, claimed = [], []
    for seed in range(300):
        chosen = balanced_indices(targets, 100, seed)
        sample = Sample.of(targets[chosen], targets, drawn="balanced", seed=seed)
        values.append(float(losses[chosen].mean()))
        claimed.append(sample.error(losses[chosen]))
    # 300 draws: known to 4 %.
    assert np.sqrt(np.mean(np.square(claimed))) == pytest.approx(np.std(values), rel=0.16)


def test_one_stratum_is_a_simple_random_sample():
    values = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = float(values.std()) / math.sqrt(30) * math.sqrt(1 - 30 / 120)
    strata = torch.zeros(30, dtype=torch.int64)
    assert stratified_error(values, strata, torch.tensor([120])) == pytest.approx(expected)
    assert stratified_error(values, strata, torch.tensor([30])) == 0.0
    assert math.isnan(stratified_error(values[:1], strata[:1], torch.tensor([30])))
    values[3] = math.nan
    assert math.isnan(stratified_error(values, strata, torch.tensor([120])))


def test_the_formula_by_hand():
    values = torch.tensor([1.0, 3.0, 10.0, 14.0, 12.0])
    strata = torch.tensor([0, 0, 1, 1, 1])
    # N = 30: W = 1/3, 2/3; s^2 = 2, 4; 1 - n/N = 0.8, 0.85.
    expected = math.sqrt((1 / 9) * 0.8 * 2 / 2 + (4 / 9) * 0.85 * 4 / 3)
    assert stratified_error(values, strata, torch.tensor([10, 20])) == pytest.approx(expected)


def test_strata_without_a_variance_of_their_own_are_collapsed():
    values = torch.tensor([1.0, 3.0, 5.0, 9.0, 2.0, 2.5])
    # One sample each of classes 1 and 2, none of 3: together one stratum of 2 of 14 + 6.
    strata = torch.tensor([0, 0, 1, 2, 0, 0])
    sizes = torch.tensor([80, 10, 4, 6])
    together = stratified_error(values, strata.clamp(max=1), torch.tensor([80, 20]))
    assert stratified_error(values, strata, sizes) == pytest.approx(together)
    # A single one alone joins the smallest of the others.
    strata = torch.tensor([0, 0, 1, 2, 2, 0])
    joined = stratified_error(values, torch.tensor([0, 0, 1, 1, 1, 0]), torch.tensor([80, 20]))
    assert stratified_error(values, strata, torch.tensor([80, 10, 10])) == pytest.approx(joined)
    # A class that is there completely, with one sample, adds no error.
    complete = stratified_error(values, torch.tensor([0, 0, 0, 1, 0, 0]), torch.tensor([80, 1]))
    shares = 80 / 81
    alone = stratified_error(values[[0, 1, 2, 4, 5]], torch.zeros(5).long(), torch.tensor([80]))
    assert complete == pytest.approx(shares * alone)


def test_what_a_sample_says_of_itself():
    targets = torch.tensor([7, 7, 7, 3, 3, 7])
    sample = Sample.of(targets[:4], targets, drawn="proportional", seed=5)
    assert sample.strata.tolist() == [1, 1, 1, 0]
    assert sample.settings() == {
        "drawn": "proportional", "size": 4, "population": 6, "seed": 5, "strata": [2, 4]
    }  # fmt: skip
    assert Sample.of(targets, targets, drawn="proportional", seed=5).drawn == "all"
    assert Sample.of(torch.rand(3), torch.rand(9), drawn="proportional", seed=5).drawn == "random"
    with pytest.raises(SampleError, match="classes that the split has"):
        Sample.of(torch.tensor([4]), targets, drawn="proportional", seed=5)
    with pytest.raises(SampleError, match="one value a sample"):
        sample.error(torch.rand(3))


@pytest.mark.slow
def test_heartbeats_of_a_sample_stand_for_all(data_dir):
    if not (data_dir / "mitdb").is_dir():
        pytest.skip("needs the MIT-BIH records in mitdb")
    data = load_data("mitbih", {"split": "inter-patient"}, data_dir, val_fraction=0.0).train
    inputs, targets = data.inputs.flatten(1), data.targets
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(187, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1500):
        part = torch.randint(len(targets), (128,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[part]), targets[part]).backward()
        optimizer.step()
    with torch.no_grad():
        losses = nn.functional.cross_entropy(model(inputs), targets, reduction="none").double()
    exact, errors, claimed = float(losses.mean()), [], []
    for seed in range(400):
        chosen = proportional_indices(targets, 10_000, seed)
        sample = Sample.of(targets[chosen], targets, drawn="proportional", seed=seed)
        errors.append(abs(float(losses[chosen].mean()) - exact))
        claimed.append(sample.error(losses[chosen]))
    covered = np.array(errors) <= 2 * np.array(claimed)
    assert covered.sum() >= stats.binom.ppf(0.01, 400, 0.93)
    balanced = float(losses[balanced_indices(targets, 10_000, 0)].mean())
    print(f"all {exact:.4f}, proportional +- {claimed[0]:.4f} ({covered.mean():.3f} covered), "
          f"balanced {balanced:.4f}")  # fmt: skip
    assert balanced > 2 * exact
