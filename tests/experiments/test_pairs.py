"""`compare` sets accuracies side by side sample by sample, where the test samples are the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from isoloss import cli
from isoloss.evaluation.paired import mcnemar
from isoloss.evaluation.predictions import Predictions
from isoloss.evaluation.reports import write_predictions
from isoloss.experiments.comparison import compare

BEFORE = Path(__file__).resolve().parents[1] / "fixtures" / "before-the-move"
TRUTH = np.arange(60) % 10


def predict(run: Path, wrong: slice, truth=TRUTH, digest: str | None = None) -> None:
    guess = truth.copy()
    guess[wrong] = (guess[wrong] + 1) % 10
    write_predictions(run / "predictions.csv", Predictions(np.eye(10)[guess], truth))
    if digest is not None:
        scores = json.loads((run / "evaluation.json").read_text())
        (run / "evaluation.json").write_text(json.dumps({**scores, "test_digest": digest}))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    shutil.copytree(BEFORE, tmp_path / "results")
    folder = tmp_path / "results" / "runs"
    for name in ("twin", "third"):
        shutil.copytree(folder / "before", folder / name)
    return folder


def test_runs_on_the_same_test_samples_are_tested_in_pairs(runs, capsys):
    predict(runs / "before", slice(0, 12))
    predict(runs / "twin", slice(10, 14))
    results = runs.parent
    assert cli.main(["compare", "before", "twin", "--results", str(results)]) == 0
    # Wrong alone: 10 and 2 of 60.
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("twin - before"))
    assert line.startswith("twin - before: +13.33 ± ")
    assert f"McNemar p = {mcnemar(10, 2):.2g}: a difference is shown" in line
    (pair,) = json.loads((results / "comparisons/before_twin/table.json").read_text())["pairs"]
    assert (pair["a"], pair["b"], pair["only_a"], pair["only_b"]) == ("twin", "before", 10, 2)
    assert pair["difference"] == pytest.approx(8 / 60)
    assert pair["p"] == mcnemar(10, 2)


def test_other_test_samples_are_not_compared(runs):
    predict(runs / "before", slice(0, 3), digest="1")
    predict(runs / "twin", slice(0, 5), digest="2")
    found = compare(["before", "twin", "third"], runs.parent)
    assert found.pairs == []
    assert found.unpaired == [
        "accuracies not compared in pairs: twin was not scored on the test samples of before",
        "accuracies not compared in pairs: third has no predictions of classes: "
        "`evaluate` makes them",
    ]
    predict(runs / "twin", slice(0, 5), digest="1")
    assert len(compare(["before", "twin"], runs.parent).pairs) == 1
    predict(runs / "twin", slice(0, 5), TRUTH[::-1].copy(), digest="1")
    assert compare(["before", "twin"], runs.parent).pairs == []
