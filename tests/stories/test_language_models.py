"""Hugging Face's networks: batches are dictionaries, outputs are objects with `logits`."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from isoloss.landscape import Problem

transformers = pytest.importorskip("transformers", reason="needs the extra `stories`")

KERNELS = ("eager", "sdpa")


def tokens(count=10, length=6, words=20):
    """Token numbers, the mask of those that are no padding, and their number in each sample."""
    lengths = torch.randint(3, length + 1, (count, 1))
    mask = (torch.arange(length) < lengths).long()
    return torch.randint(1, words, (count, length)) * mask, mask


def bert(kernel, **settings):
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=12, max_position_embeddings=8, initializer_range=0.3,
        attn_implementation=kernel, **settings,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def gpt2(kernel="sdpa"):
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=8, n_embd=8, n_layer=2, n_head=2, initializer_range=0.3,
        attn_implementation=kernel,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


@pytest.mark.parametrize("kernel", KERNELS)
def test_bert_classifies_dictionaries(check, kernel):
    ids, mask = tokens()
    data = {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(10) % 3}
    model = bert(kernel, num_labels=3)
    batches = [{name: part[i : i + 4] for name, part in data.items()} for i in (0, 4, 8)]
    problem = Problem(model, nn.CrossEntropyLoss(), batches)
    check(problem, model, lambda model, data: model(**data).loss, data)
    assert 0 <= problem.evaluate().accuracy <= 1


def test_bert_regresses_one_number(check):
    ids, mask = tokens()
    data = {"input_ids": ids, "attention_mask": mask, "labels": torch.randn(10, 1)}
    model = bert("sdpa", num_labels=1)
    problem = Problem(model, nn.MSELoss(), [data])
    check(problem, model, lambda model, data: model(**data).loss, data)


def shifted(logits, targets):
    """Sum and number of the tokens of each sample that are predicted from those before."""
    wanted = targets[:, 1:]
    losses = cross_entropy(logits[:, :-1].transpose(1, 2), wanted, reduction="none")
    return losses.sum(1), (wanted != -100).sum(1)


def by_hand(model, data):
    """The mean over tokens as Hugging Face computes it, which goes through float32 there."""
    logits = model(input_ids=data["input_ids"], attention_mask=data["attention_mask"]).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), data["labels"][:, 1:].flatten())


@pytest.mark.parametrize("kernel", KERNELS)
def test_gpt2_predicts_the_next_token(check, kernel):
    ids, mask = tokens()
    labels = ids.where(mask == 1, -100)
    data = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    model = gpt2(kernel)
    batches = [{name: part[i : i + 4] for name, part in data.items()} for i in (0, 4, 8)]
    problem = Problem(model, shifted, batches)
    check(problem, model, by_hand, data)
    theirs = model.eval()(**data).loss.item()
    assert problem.evaluate().loss == pytest.approx(theirs, rel=1e-6)
    assert problem.total_weight == (labels[:, 1:] != -100).sum()


def test_gpt2_with_a_closure(check):
    ids, mask = tokens()
    data = {"input_ids": ids, "attention_mask": mask, "labels": ids.where(mask == 1, -100)}
    model = gpt2()

    def closure(model, batch):
        outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return shifted(outputs.logits, batch["labels"])

    problem = Problem(model, closure=closure, batches=[data])
    check(problem, model, by_hand, data)


def test_a_tokenizers_batch_encoding(check):
    """What `tokenizer(.., return_tensors="pt")` and data collators return."""
    ids, mask = tokens()
    data = {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(10) % 2}
    model = bert("sdpa", num_labels=2)
    problem = Problem(model, nn.CrossEntropyLoss(), [transformers.BatchEncoding(data)])
    check(problem, model, lambda model, data: model(**data).loss, data)
