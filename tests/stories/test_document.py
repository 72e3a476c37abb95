"""docs/plugins.md: its sections are found by their links, and their examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from isoloss.landscape import Problem

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
EXAMPLES = {
    title: "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    for title, text in SECTIONS.items()
    if "```python" in text
}


def test_every_section_is_linked():
    links = dict(re.findall(r"^- \[(.*)\]\(#(.*)\)$", TEXT, re.MULTILINE))
    assert list(links) == list(SECTIONS)
    for title, target in links.items():
        assert target == re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_examples_of_a_section_run(title, capsys):
    if "transformers" in EXAMPLES[title]:
        pytest.importorskip("transformers", reason="needs the extra `stories`")
    names = {}
    exec(compile(EXAMPLES[title], title, "exec"), names)
    if "dictionaries" in title:
        ours, theirs = map(float, re.findall(r"\d+\.\d+", capsys.readouterr().out)[:2])
        assert ours == pytest.approx(theirs, abs=1e-4)  # printed with four digits


def test_parameters_without_second_derivatives_are_left_out(check):
    """As the table says of `nn.EmbeddingBag`."""
    model = nn.Sequential(nn.EmbeddingBag(9, 4), nn.Tanh(), nn.Linear(4, 3))
    data = torch.randint(9, (12, 5)), torch.arange(12) % 3
    problem = Problem(model, nn.CrossEntropyLoss(), [data], parameters=["!0.*"])
    model[0].requires_grad_(False)

    def own_loss(model, data):
        return nn.functional.cross_entropy(model(data[0]), data[1])

    check(problem, model, own_loss, data)
