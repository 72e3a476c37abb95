"""`plot` and `export` on files of other programs: what is drawn, written and said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from isoloss import cli

BEFORE = Path(__file__).resolve().parents[1] / "fixtures" / "before-the-move" / "runs" / "before"
LL_NAME = "model.t7_weights_xignore=biasbn_xnorm=filter.h5_[-1.0,1.0,5]x[-1.0,1.0,5].h5"


def ll_surface(path, pending=True):
    axis = np.linspace(-1, 1, 5)
    with h5py.File(path, "w") as file:
        file["dir_file"] = "directions.h5"
        file["xcoordinates"] = file["ycoordinates"] = axis
        loss = 1 + axis[:, None] ** 2 + 2 * axis**2
        if pending:
            loss[0, 0] = -1
        file["train_loss"], file["train_acc"] = loss, np.where(loss < 0, -1, 90 - loss)


def directions(path, principal=False):
    with h5py.File(path, "w") as file:
        for axis in "xy":
            for number, shape in enumerate([(300, 4), (300,)]):
                file[f"{axis}direction/{number}"] = np.ones(shape, "f4")
        if principal:
            file["explained_variance_ratio_"] = [0.7, 0.2]


def projection(path):
    with h5py.File(path, "w") as file:
        file["proj_xcoord"] = file["proj_ycoord"] = np.arange(31.0)


def pair(folder, name, scale, whole=True):
    matrix = np.random.default_rng(0).normal(size=(8, 8)) * scale
    nodes, vectors = np.linalg.eigh(matrix + matrix.T)
    np.save(folder / f"{name}_eigen.npy", nodes[None].astype("c8"))
    stored = vectors**2 if whole else vectors[0] ** 2
    np.save(folder / f"{name}_weight.npy", stored[None].astype("c8"))


def history(path, runs=1):
    lines = [
        {"step_type": kind, "loss": 1 / (epoch + 1), "accuracy": 0.5, "epoch": epoch}
        for _ in range(runs)
        for epoch in range(4)
        for kind in ("train", "test")
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """One file of each kind, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(BEFORE / "hessian.h5", "hessian.h5")
    shutil.copy(BEFORE / "surface-2d.h5", "surface-2d.h5")
    ll_surface(tmp_path / LL_NAME)
    directions(tmp_path / "directions.h5")
    directions(tmp_path / "pca.h5", principal=True)
    projection(tmp_path / "pca.h5_proj_cos.h5")
    pair(tmp_path, "gcn_adam", 2.0)
    pair(tmp_path, "gcn_sam", 0.5, whole=False)
    history(tmp_path / "my_train_gcn_SAM_0.1.dat", runs=2)
    history(tmp_path / "my_train_gcn_ADAM.dat")
    return tmp_path


def new_files(folder, before):
    return {path.name for path in folder.iterdir()} - before


DRAWN = {
    LL_NAME: [f"{LL_NAME[:-3]}-{kind}" for kind in ("contour", "filled", "heatmap", "3d", "curve")],
    "gcn_adam_eigen.npy": ["gcn_adam-density"],
    "gcn_sam_weight.npy": ["gcn_sam-density"],
    "my_train_gcn_SAM_0.1.dat": ["my_train_gcn_SAM_0.1"],
    "hessian.h5 gcn_adam_eigen.npy gcn_sam_eigen.npy": ["hessian-several"],
    "gcn_sam_eigen.npy hessian.h5": ["gcn_sam-several"],
    "my_train_gcn_ADAM.dat my_train_gcn_SAM_0.1.dat": ["my_train_gcn_ADAM-several"],
}


@pytest.mark.parametrize("files", DRAWN, ids=lambda files: files[:30])
def test_files_of_others_are_drawn_beside_them(folder, files, capsys):
    before = {path.name for path in folder.iterdir()}
    assert cli.main(["plot", *files.split(" ")]) == 0
    made = {f"{stem}.{suffix}" for stem in DRAWN[files] for suffix in ("png", "pdf")}
    assert new_files(folder, before) == made
    assert all((folder / name).stat().st_size > 5000 for name in made)


def test_what_a_reader_must_know_is_said(folder, capsys):
    assert cli.main(["plot", "gcn_adam_eigen.npy"]) == 0
    assert "squares of whole eigenvectors" in capsys.readouterr().out
    assert cli.main(["plot", "gcn_sam_eigen.npy"]) == 0
    assert "squares" not in capsys.readouterr().out
    assert cli.main(["plot", "my_train_gcn_SAM_0.1.dat"]) == 0
    assert "holds 2 runs, one after the other: the last is drawn" in capsys.readouterr().out
    assert cli.main(["plot", "gcn_adam_eigen.npy", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "files": ["gcn_adam_eigen.npy"],
        "figures": ["gcn_adam-density.png", "gcn_adam-density.pdf"],
    }


REFUSED = {
    "plot directions.h5": ["direction file", "x and y, 2 arrays of 1,500 numbers"],
    "plot pca.h5": ["direction file", "70 % and 20 %"],
    "plot pca.h5_proj_cos.h5": ["projection file", "31 checkpoints"],
    "plot gcn_eigen.npy": ["no file at", "gcn_eigen.npy"],
    "plot weights.npy": ["NAME_eigen.npy", "NAME_weight.npy"],
    "plot lone_eigen.npy": ["no file at", "lone_weight.npy"],
    "plot pickled_eigen.npy": ["unpickled", "code"],
    "plot missing.dat": ["no file at", "missing.dat"],
    "plot hessian.h5 surface-2d.h5": ["several spectra", "surface-2d.h5"],
    "plot hessian.h5 my_train_gcn_ADAM.dat": ["several spectra", "my_train_gcn_ADAM.dat"],
    "plot text.h5": ["truncated or of another format"],
    "export directions.h5 --to csv": ["a surface or a spectrum", "direction file"],
    "export surface-2d.h5 --to npy": ["to vtk, csv, npz, ll"],
    "export hessian.h5 --to vtk": ["to csv, npz, npy"],
    "export gcn_adam_eigen.npy --to npy": ["than the source"],
    "export text.h5 --to csv": ["truncated or of another format"],
}


@pytest.mark.parametrize("line", REFUSED)
def test_refusals_name_what_the_file_is_and_advise_no_deletion(folder, line, capsys):
    np.save("lone_eigen.npy", np.ones((1, 3)))
    np.save("pickled_eigen.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.save("pickled_weight.npy", np.ones((1, 1)))
    (folder / "text.h5").write_text("no HDF5")
    before = {path.name for path in folder.iterdir()}
    # What does not go together is wrong usage, what a file holds is a failure.
    assert cli.main(line.split()) == (2 if line.startswith("plot hessian.h5 ") else 1)
    error = capsys.readouterr().err
    assert 1 <= len(error.splitlines()) <= 3, error
    assert "delete" not in error
    for text in REFUSED[line]:
        assert text in error
    assert not new_files(folder, before)


def test_wrong_usage_of_export(folder, capsys):
    for line, named in (
        ("export surface-2d.h5", "--to"),
        ("export surface-2d.h5 --to vtp", "vtk, csv, npz, ll, npy"),
        ("export surface-2d.h5 --to vtk --out a.h5", "--out: expected a file that ends in .vtp"),
    ):
        assert cli.main(line.split()) == 2
        assert named in capsys.readouterr().err


def test_exports_are_made_beside_the_file_and_replaced_on_demand(folder, capsys):
    before = {path.name for path in folder.iterdir()}
    for to in ("vtk", "csv", "npz", "ll"):
        assert cli.main(["export", "surface-2d.h5", "--to", to]) == 0
    assert cli.main(["export", LL_NAME, "--to", "vtk"]) == 0
    assert cli.main(["export", "hessian.h5", "--to", "npy"]) == 0
    assert new_files(folder, before) == {
        "surface-2d.vtp", "surface-2d.csv", "surface-2d.npz", "surface-2d-ll.h5",
        "surface-2d-ll-directions.h5", LL_NAME[:-3] + ".vtp",
        "hessian_eigen.npy", "hessian_weight.npy",
    }  # fmt: skip
    assert "1 of 25 points are pending" in capsys.readouterr().out
    assert cli.main(["export", "surface-2d.h5", "--to", "csv"]) == 1
    assert "--force" in capsys.readouterr().err
    assert cli.main(["export", "surface-2d.h5", "--to", "csv", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": "surface-2d.h5", "to": "csv", "files": ["surface-2d.csv"], "notes": []
    }  # fmt: skip
