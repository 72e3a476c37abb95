"""`evaluation.json` keeps its keys and values: files of an earlier version, made again."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isoloss.evaluation.networks import score_splits
from isoloss.evaluation.predictions import Predictions
from isoloss.records.runs import write_json
from isoloss.trainers.losses import build_loss

FIXTURES = Path(__file__).parent / "fixtures"
# Keys of a split that the files of then did not have.
ADDED = (
    "clusters",
    "accuracy_binomial_error",
    "accuracy_interval",
    "loss_interval",
    "loss_interval_method",
    "half_loss_samples",
    "heaviest_samples",
)


def classes():
    """Fourteen samples; class F has none, one output of the test split is NaN, some are large."""
    logits = [[((7 * i + 3 * k * k + i * k) % 11) / 4 - 1 for k in range(4)] for i in range(14)]
    targets = np.array([(i * i + i // 3) % 3 for i in range(14)])
    train = np.array(logits, np.float32)
    test = train.copy()
    test[2, 1] = math.nan
    test[5] *= 40
    splits = {"train": Predictions(train, targets), "test": Predictions(test, targets[::-1].copy())}
    names, groups = ("N", "S", "V", "F"), (("N", "S"), ("V", "F"))
    scores = score_splits(splits, build_loss("cross-entropy", {}), names, groups)
    facts = {
        "checkpoint": "checkpoints/best.pt", "checkpoint_sha256": "00000000",
        "loss": {"spec": "cross-entropy", "arguments": {}, "sha256": None},
    }  # fmt: skip
    return dataclasses.replace(scores, facts=facts)


def regression():
    outputs = np.array([[1.0], [2.0], [4.0]], np.float32)
    splits = {"test": Predictions(outputs, np.zeros((3, 1), np.float32))}
    return score_splits(splits, build_loss("mse", {}))


def leaves(content, path=""):
    """All places and values, in order."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, item in items:
            yield from leaves(item, f"{path}/{key}")
    else:
        yield path, content


@pytest.mark.parametrize("make", [classes, regression], ids=lambda make: make.__name__)
def test_the_stored_file_is_made_again(tmp_path, make):
    write_json(tmp_path / "evaluation.json", make().to_json())
    written = json.loads((tmp_path / "evaluation.json").read_text())
    for scores in written["splits"].values():
        for key in ADDED:
            del scores[key]
    found = list(leaves(written))
    stored = list(leaves(json.loads((FIXTURES / f"{make.__name__}.json").read_text())))
    assert [path for path, _ in found] == [path for path, _ in stored]
    for (path, value), (_, expected) in zip(found, stored, strict=True):
        assert type(value) is type(expected), path
        if isinstance(expected, float):
            # Sums of fourteen terms of order 1 may be formed in another order.
            assert value == pytest.approx(expected, rel=1e-14), path
        else:
            assert value == expected, path


def test_scores_reports_and_curves_need_no_torch():
    code = (
        "import sys, numpy as np\n"
        "import isoloss.evaluation\n"
        "from isoloss.evaluation.scores import SampleTerms, score\n"
        "from isoloss.evaluation.reports import report\n"
        "from isoloss.evaluation import Predictions, roc_curves\n"
        "p = Predictions(np.eye(3), np.arange(3))\n"
        "print(report(score(p, SampleTerms(*np.ones((4, 3))))), len(roc_curves(p)))\n"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'torch']\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "macro average" in ran.stdout


def test_the_package_offers_what_it_names():
    import isoloss.evaluation as package

    assert all(hasattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
