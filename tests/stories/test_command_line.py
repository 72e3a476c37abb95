"""The same networks by the command alone: files of one's own, and modules that are installed."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from isoloss import cli
from isoloss.experiments.subject import Subject
from isoloss.records.spectra import read_spectrum
from isoloss.records.surfaces import read_surface

LANGUAGE = """
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel


    def samples(count, labels):
        generator = torch.Generator().manual_seed(count)
        lengths = torch.randint(3, 7, (count, 1), generator=generator)
        mask = (torch.arange(6) < lengths).long()
        ids = torch.randint(1, 20, (count, 6), generator=generator) * mask
        labels = ids.where(mask == 1, -100) if labels == "tokens" else ids[:, 0] % 3
        columns = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return [{name: column[i] for name, column in columns.items()} for i in range(count)]


    def load(data_dir, labels="classes"):
        return {split: samples(n, labels) for split, n in (("train", 24), ("val", 8), ("test", 9))}


    def bert():
        return BertForSequenceClassification(BertConfig(
            vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=12, max_position_embeddings=8, num_labels=3, initializer_range=0.3,
        ))


    def gpt2():
        return GPT2LMHeadModel(GPT2Config(
            vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, initializer_range=0.3
        ))


    def shifted(logits, targets):
        wanted = targets[:, 1:]
        losses = cross_entropy(logits[:, :-1].transpose(1, 2), wanted, reduction="none")
        return losses.sum(1), (wanted != -100).sum(1)
    """
IMAGES = """
    import torch


    def load(data_dir):
        x = torch.randn(24, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        y = torch.arange(24) % 3
        return {"train": (x[:8], y[:8]), "val": (x[8:16], y[8:16]), "test": (x[16:], y[16:])}
    """


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    (tmp_path / "language.py").write_text(textwrap.dedent(LANGUAGE))
    (tmp_path / "images.py").write_text(textwrap.dedent(IMAGES))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ours(capsys, *arguments):
    code = cli.main([*arguments, "--device", "cpu", "--no-figures"])
    captured = capsys.readouterr()
    assert code == 0, captured.err


def batches(split):
    return {name: torch.stack([sample[name] for sample in split]) for name in split[0]}


LARGEST = ["--top", "1", "--smallest", "0", "--trace-budget", "0", "--probes", "0"]
STORIES = {
    "bert": (["--loss", "cross-entropy"], "classes"),
    "gpt2": (["--loss", "language.py:shifted"], "tokens"),
}


@pytest.mark.parametrize("name", STORIES)
def test_language_models(check, theirs, capsys, name):
    pytest.importorskip("transformers", reason="needs the extra `stories`")
    loss, labels = STORIES[name]
    network = ["--model", f"language.py:{name}", "--dataset", "language.py:load"]
    ours(capsys, "train", *network, "--dataset-arg", f"labels={labels}", *loss, "--epochs", "1",
         "--batch-size", "8", "--optimizer", "adam", "--lr", "0.001", "--run", name)  # fmt: skip
    ours(capsys, "surface", name, "--x=-0.5:0.5:3")
    ours(capsys, "hessian", name, *LARGEST)
    subject = Subject.from_run(name)

    def own_loss(model, data):
        logits = model(input_ids=data["input_ids"], attention_mask=data["attention_mask"]).logits
        if labels == "tokens":
            return cross_entropy(logits[:, :-1].flatten(0, 1), data["labels"][:, 1:].flatten())
        return cross_entropy(logits, data["labels"])

    (data,) = subject.split("train").batches(100)
    assert len(data["input_ids"]) == 24
    compare_files(name, *check(subject, subject.model, own_loss, data))


def compare_files(name, losses, largest):
    """The files of the commands hold what was found by hand."""
    run = Path("results/runs") / name
    surface, spectrum = read_surface(run / "surface-1d.h5"), read_spectrum(run / "hessian.h5")
    np.testing.assert_allclose(surface.values["train_loss"], losses, rtol=1e-6)
    assert spectrum.eigenpairs.eigenvalues[0] == pytest.approx(largest, rel=1e-4)


def test_a_network_of_timm(check, theirs, capsys):
    pytest.importorskip("timm", reason="needs the extra `stories`")
    arguments = {
        "model_name": "test_vit",
        "in_chans": 1,
        "num_classes": 3,
        "img_size": 16,
        "depth": 1,
    }
    given = [
        word for name, value in arguments.items() for word in ("--model-arg", f"{name}={value}")
    ]
    ours(capsys, "train", "--model", "timm:create_model", *given, "--dataset", "images.py:load",
         "--epochs", "1", "--run", "vit")  # fmt: skip
    ours(capsys, "surface", "vit", "--x=-0.5:0.5:3")
    ours(capsys, "hessian", "vit", *LARGEST)
    subject = Subject.from_run("vit")

    def own_loss(model, data):
        return cross_entropy(model(data[0]), data[1])

    (data,) = subject.split("train").batches(100)
    compare_files("vit", *check(subject, subject.model, own_loss, data))
