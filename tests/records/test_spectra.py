from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace

import h5py
import numpy as np
import pytest
import torch

from isoloss.hessian.density import Density, spectral_density
from isoloss.hessian.eigenpairs import Eigenpairs, top_eigenpairs
from isoloss.hessian.operators.matrix import MatrixOperator
from isoloss.hessian.operators.vectors import probe_vector
from isoloss.hessian.stored import stored_density, stored_eigenpairs, stored_trace
from isoloss.hessian.trace import Trace, trace
from isoloss.records.files import FileError
from isoloss.records.spectra import SpectrumData, read_spectrum
from isoloss.records.spectra import write_spectrum as write
from isoloss.records.summary import mass_below, write_summary

SHAPES = {"conv.weight": torch.Size([2, 3]), "a.bias": torch.Size([4]), "scale": torch.Size([])}
SETTINGS = {"run": "sgd", "samples": 100, "versions": {"torch": "2"}}


@pytest.fixture(scope="module")
def stages():
    operator = MatrixOperator(torch.diag(torch.arange(-2.0, 9.0, dtype=torch.float64)))
    return {
        "eigenpairs": top_eigenpairs(operator, 3, smallest=2),
        "trace": trace(operator, budget=10),
        "density": spectral_density(operator, probes=2, steps=4, points=20),
    }


def write_spectrum(path, settings, eigenpairs=None, trace=None, density=None, shapes=None):
    """Write fresh or stored stages and the summary, as `Spectrum` does."""
    data = SpectrumData(
        settings,
        stored_eigenpairs(eigenpairs, shapes) if isinstance(eigenpairs, Eigenpairs) else eigenpairs,
        stored_trace(trace) if isinstance(trace, Trace) else trace,
        stored_density(density) if isinstance(density, Density) else density,
    )
    write(path, data)
    write_summary(path.with_suffix(".json"), data)
    return data


def same(a, b):
    """Whether two stored values are equal, through dataclasses and dictionaries of arrays."""
    if is_dataclass(a):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)
    return a == b or (a != a and b != b)


@pytest.mark.parametrize(
    "names", [(), ("eigenpairs",), ("trace",), ("eigenpairs", "density"), tuple]
)
def test_round_trip_of_any_stages(tmp_path, stages, names):
    names = tuple(stages) if names is tuple else names
    chosen = {name: stages[name] for name in names}
    written = write_spectrum(tmp_path / "h.h5", SETTINGS, **chosen, shapes=SHAPES)
    read = read_spectrum(tmp_path / "h.h5")
    assert read.stages == names
    assert same(read, written)
    assert read.settings == SETTINGS


def test_layout(tmp_path, stages):
    write_spectrum(tmp_path / "h.h5", SETTINGS, **stages, shapes=SHAPES)
    expected = {
        "eigenvalues": (3,),
        "residuals": (3,),
        "smallest_eigenvalues": (2,),
        "smallest_residuals": (2,),
        "eigenvectors/conv.weight": (3, 2, 3),
        "eigenvectors/a.bias": (3, 4),
        "eigenvectors/scale": (3,),
        "smallest_eigenvectors/conv.weight": (2, 2, 3),
        "smallest_eigenvectors/a.bias": (2, 4),
        "smallest_eigenvectors/scale": (2,),
        "trace/estimate": (),
        "trace/standard_error": (),
        "trace/samples": (),
        "density/nodes": (2, 4),
        "density/weights": (2, 4),
        **{f"density/{name}": (20,) for name in ("grid", "curve", "low", "high")},
    }
    found = {}
    with h5py.File(tmp_path / "h.h5") as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item.shape}) if isinstance(item, h5py.Dataset) else None
            )
        )
        assert file.attrs["isoloss"] == "hessian"
        top = np.concatenate([file["eigenvectors"][name][0].ravel() for name in SHAPES])
    assert found == expected
    # The eigenvector for 8, the last diagonal entry, is the last parameter's.
    assert np.argmax(top) == 10


def test_eigenvectors_keep_the_order_of_the_operator(tmp_path, stages):
    write_spectrum(tmp_path / "h.h5", SETTINGS, eigenpairs=stages["eigenpairs"], shapes=SHAPES)
    assert list(read_spectrum(tmp_path / "h.h5").eigenpairs.eigenvectors) == list(SHAPES)


def test_stages_are_added_from_what_was_read(tmp_path, stages):
    write_spectrum(tmp_path / "a.h5", SETTINGS, eigenpairs=stages["eigenpairs"], shapes=SHAPES)
    before = read_spectrum(tmp_path / "a.h5")
    write_spectrum(
        tmp_path / "a.h5", SETTINGS, before.eigenpairs, stages["trace"], stages["density"]
    )
    write_spectrum(tmp_path / "b.h5", SETTINGS, **stages, shapes=SHAPES)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_same_content_same_bytes(tmp_path, stages):
    for name in ("a.h5", "b.h5"):
        write_spectrum(tmp_path / name, SETTINGS, **stages, shapes=SHAPES)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.json", "b.h5", "b.json"]


def test_summary_gives_every_number_its_uncertainty(tmp_path, stages):
    write_spectrum(tmp_path / "h.h5", SETTINGS, **stages)
    summary = json.loads((tmp_path / "h.json").read_text())
    assert [pair["value"] for pair in summary["eigenvalues"]] == pytest.approx([8, 7, 6])
    assert all("residual" in pair for pair in summary["smallest_eigenvalues"])
    assert summary["trace"]["estimate"] == stages["trace"].value
    assert summary["trace"]["standard_error"] == stages["trace"].standard_error
    density = stages["density"]
    negative = summary["density"]["negative_mass"]
    assert negative["threshold"] == pytest.approx(-10 * 2.0**-23 * float(density.nodes.abs().max()))
    masses = (density.weights * (density.nodes < negative["threshold"])).sum(1)
    assert negative["share_below"] == pytest.approx(float(masses.mean()))
    assert negative["standard_error"] == pytest.approx(float(masses.std()) / math.sqrt(2))
    low, high = negative["bounds"]
    assert 0 <= low <= negative["share_below"] <= high <= 1
    assert summary["settings"] == SETTINGS


@pytest.mark.parametrize("threshold", [-2.0, -0.01, 0.0, 0.005, 1.0, 40.0])
def test_bounds_of_a_mass_hold_the_exact_one(threshold):
    """A spectrum whose quadrature of 8 steps is coarse; the mass of a probe is known exactly."""
    generator = torch.Generator().manual_seed(3)
    bulk = 0.01 * torch.randn(300, generator=generator, dtype=torch.float64)
    eigenvalues = torch.cat([bulk, torch.tensor([-1.0, 5.0, 30.0], dtype=torch.float64)])
    operator = MatrixOperator(torch.diag(eigenvalues))
    for index in range(5):
        density = stored_density(spectral_density(operator, probes=1, steps=8, seed=index))
        probe = probe_vector(operator, index, 0)
        exact = float(probe.square()[eigenvalues < threshold].sum() / probe.square().sum())
        mass = mass_below(density, threshold)
        assert mass.lowest - 1e-12 <= exact <= mass.highest + 1e-12
        assert mass.lowest - 1e-12 <= mass.share <= mass.highest + 1e-12
        assert mass.standard_error is None


def test_nan_is_stored_as_nan_and_summarised_as_null(tmp_path, stages):
    lost = replace(stages["trace"], value=math.nan, standard_error=math.inf)
    write_spectrum(tmp_path / "h.h5", SETTINGS, trace=lost)
    stored = read_spectrum(tmp_path / "h.h5").trace
    assert math.isnan(stored.estimate)
    assert math.isinf(stored.standard_error)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    summary = json.loads((tmp_path / "h.json").read_text(), parse_constant=refuse)
    assert summary["trace"]["estimate"] is None


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_files_are_refused(tmp_path, stages, kept):
    path = tmp_path / "h.h5"
    write_spectrum(path, SETTINGS, **stages, shapes=SHAPES)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(FileError, match="expected an HDF5 file"):
        read_spectrum(path)


def test_files_of_another_kind_are_refused(tmp_path):
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.attrs["isoloss"] = "surface"
    with pytest.raises(FileError, match="expected a hessian file"):
        read_spectrum(tmp_path / "s.h5")


def test_a_missing_entry_is_named(tmp_path, stages):
    path = tmp_path / "h.h5"
    write_spectrum(path, SETTINGS, **stages)
    with h5py.File(path, "r+") as file:
        del file["density/curve"]
    with pytest.raises(FileError, match=r"`density/curve`: expected .* got none"):
        read_spectrum(path)


def test_shapes_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, stages):
    with pytest.raises(ValueError, match="expected eigenvectors of 4 entries for 1 parameters"):
        write_spectrum(
            tmp_path / "h.h5", SETTINGS, eigenpairs=stages["eigenpairs"], shapes={"a": (4,)}
        )
    assert not list(tmp_path.iterdir())
