"""Directions: norms in closed form, orthogonality after normalisation, seeds."""

from __future__ import annotations

import pytest
import torch

from isoloss.landscape.directions import cosine, random_directions
from isoloss.landscape.normalisation import NORMALISATIONS, NormalisationError, normalise
from isoloss.landscape.vectors import flatten, inner, norm, unflatten

F64 = torch.float64


def weights(seed=0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv": (5, 3, 3, 3), "linear": (4, 20), "bias": (4,), "scale": ()}
    return {k: torch.randn(s, generator=generator, dtype=F64).to(dtype) for k, s in shapes.items()}


def rows(tensor):
    return tensor.reshape(1, -1) if tensor.ndim <= 1 else tensor.flatten(1)


# For each rule: what must equal what, for every tensor w and its normalised direction d.
CLOSED_FORMS = {
    "filter": lambda d, w: (rows(d).norm(dim=1), rows(w).norm(dim=1)),
    "layer": lambda d, w: (d.norm(), w.norm()),
    "dfilter": lambda d, w: (rows(d).norm(dim=1), torch.ones(len(rows(d)), dtype=F64)),
    "dlayer": lambda d, w: (d.norm(), torch.tensor(1.0, dtype=F64)),
}


@pytest.mark.parametrize("rule", CLOSED_FORMS)
def test_norms_of_filters_and_layers(rule):
    w, d = weights(0), weights(1)
    result = normalise(d, w, rule, ignore="none")
    for name in w:
        got, expected = CLOSED_FORMS[rule](result[name], w[name])
        torch.testing.assert_close(got, expected, rtol=1e-14, atol=0)
        # Scaling keeps each filter's direction.
        a, b = rows(result[name]), rows(d[name])
        torch.testing.assert_close(
            (a * b).sum(1), a.norm(dim=1) * b.norm(dim=1), rtol=1e-14, atol=0
        )


def test_entrywise_whole_and_no_normalisation():
    w, d = weights(0), weights(1)
    by_weight = normalise(d, w, "weight", ignore="none")
    assert all(torch.equal(by_weight[k], d[k] * w[k].abs()) for k in w)
    assert norm(normalise(d, w, "model", ignore="none")) == pytest.approx(norm(w), rel=1e-14)
    assert all(torch.equal(normalise(d, w, "none", ignore="none")[k], d[k]) for k in w)


@pytest.mark.parametrize("rule", NORMALISATIONS)
def test_ignored_entries_are_zero_and_zero_filters_stay(rule):
    w, d = weights(0), weights(1)
    w["conv"][2] = 0
    d["linear"][1] = 0
    result = normalise(d, w, rule, ignore="biasbn")
    assert not result["bias"].any()
    assert not result["scale"].any()
    assert not result["linear"][1].any()
    assert all(tensor.isfinite().all() for tensor in result.values())
    if rule == "filter":
        assert not result["conv"][2].any()
    if rule == "model":
        assert norm(result) == pytest.approx(norm(w), rel=1e-14)


@pytest.mark.parametrize("rule", NORMALISATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_pairs_are_orthogonal_after_normalisation(rule, dtype):
    w = weights(0, dtype)
    x, y = random_directions(w, 2, seed=3, normalisation=rule)
    # A root to float64 rounding; in float32 the entries are rounded once more.
    assert abs(cosine(x, y)) < (1e-12 if dtype == F64 else 1e-7)
    plain_x, plain_y = random_directions(w, 2, seed=3, normalisation=rule, orthogonal=False)
    assert all(torch.equal(plain_x.tensors[k], x.tensors[k]) for k in w)
    assert abs(cosine(plain_x, plain_y)) > 1e-4
    # Still normalised: orthogonality must not cost the norms.
    if rule == "filter":
        for name in ("conv", "linear"):
            torch.testing.assert_close(rows(y.tensors[name]).norm(dim=1), rows(w[name]).norm(dim=1))


def test_axes_may_follow_different_rules():
    w = weights(0)
    x, y = random_directions(w, 2, normalisation=("filter", "none"), ignore=("biasbn", "none"))
    assert abs(cosine(x, y)) < 1e-12
    assert not x.tensors["bias"].any()
    assert y.tensors["bias"].all()


def test_seeds_give_the_same_or_other_directions():
    w = weights(0)
    first, again, other = (random_directions(w, 2, seed=seed) for seed in (4, 4, 5))
    for a, b, c in zip(first, again, other, strict=True):
        assert a.recipe() == b.recipe()
        assert abs(cosine(a, c)) < 0.6  # independent Gaussians in 215 dimensions
    single = random_directions(weights(0, torch.float32), 1, seed=4)[0]
    expected = {k: t.float() for k, t in first[0].tensors.items()}
    # float32 weights are rounded before they give the norms: 2^-24 relative.
    assert all(torch.allclose(single.tensors[k], expected[k], rtol=1e-6) for k in w)


def test_refusals():
    only_bias = {"bias": torch.ones(3)}
    with pytest.raises(NormalisationError, match="other than 0"):
        random_directions(only_bias, 1)
    with pytest.raises(NormalisationError, match="among filter, layer"):
        random_directions(weights(), 1, normalisation="filters")
    with pytest.raises(NormalisationError, match="among biasbn, none"):
        random_directions(weights(), 1, ignore="bias")
    with pytest.raises(ValueError, match="seed"):
        random_directions(weights(), 2, seed=-1)


def test_flat_vectors_and_tensors_are_the_same():
    w = weights(0)
    vector = flatten(w)
    parts = unflatten(vector, w)
    assert all(torch.equal(parts[k], w[k]) for k in w)
    assert inner(w, w) == pytest.approx(float(vector @ vector), rel=1e-14)
    with pytest.raises(ValueError, match="expected a vector of shape"):
        unflatten(vector[:-1], w)
