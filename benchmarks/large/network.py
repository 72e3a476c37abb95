"""A decoder of the shape of GPT-2 (Radford et al. 2019), with random weights, and random tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of the weights; of the last layer of each branch over the root of twice the layers (section 2.3).
DEVIATION = 0.02


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder; those of GPT-2 small where not given."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 50257
    context: int = 1024


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); attention to what came before alone."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projections, self.attended = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the shape of x, (batch, tokens, width)."""
        parts = self.projections(self.before_attention(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attended(mixed.transpose(1, 2).flatten(-2))
        return x + self.narrow(F.gelu(self.widen(self.before_mlp(x)), approximate="tanh"))


class Decoder(nn.Module):
    """Logits of the next token, (batch, tokens, vocabulary), of tokens (batch, tokens)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.layers))
        self.last = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                branch = name.endswith(("attended.weight", "narrow.weight"))
                share = (2 * shape.layers) ** -0.5 if branch else 1.0
                nn.init.normal_(parameter, std=DEVIATION * share)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.last(x))


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy over the tokens of each sequence, (batch,), nats."""
    return F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(1)


def decoder(shape: Shape, seed: int = 0) -> Decoder:
    """Return the decoder with weights drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Decoder(shape)


def sequences(shape: Shape, count: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random tokens and those that follow them, (count, length) each."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, shape.vocabulary, (count, length + 1), generator=generator)
    return drawn[:, :-1], drawn[:, 1:]
