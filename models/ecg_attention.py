"""Self-attention over a time series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from isoloss.models.catalogue import MODELS, ModelError


def sinusoidal_positions(length: int, size: int) -> Tensor:
    r"""Return the positional encoding of Vaswani et al. 2017, section 3.5.

    PE(t, 2i) = sin(t / 10000^(2i / size)), PE(t, 2i + 1) = cos(the same), t the time.

    Args:
        length: number of times.
        size: of the encoding, even.

    Returns:
        Shape (length, size).
    """
    rates = torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(length, size)


class ECGAttention(nn.Module):
    """Linear embedding, positions, encoder layers, layer norm, and a head on the whole sequence.

    The encoder layers are those of Vaswani et al. 2017 (normalised after each sub-layer).

    Args:
        length: of a series.
        channels: values at each time.
        num_classes: number of logits.
        layers: of the encoder, each with weights of its own.
        heads: of each layer.
        d_model: size of the embedding.
        ffn: hidden units of each layer's feed-forward part.
        dropout: after the positions and in the encoder.
    """

    positions: Tensor

    def __init__(
        self,
        length: int,
        channels: int,
        num_classes: int,
        layers: int,
        heads: int,
        d_model: int,
        ffn: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = nn.Linear(channels, d_model)
        # No part of a checkpoint: it follows from the sizes.
        self.register_buffer("positions", sinusoidal_positions(length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(d_model, heads, ffn, dropout, batch_first=True)
                for _ in range(layers)
            )
        )
        self.norm = nn.LayerNorm(d_model)
        sizes = (length * d_model, 512, 256, 128)
        hidden: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            hidden += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.head = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map series (batch, length, channels) to logits (batch, num_classes)."""
        y = self.dropout(self.embedding(x) + self.positions)
        return self.head(self.norm(self.encoder(y)))


@MODELS.register(
    "ecg-attention",
    "transformer encoder over time and a head 512-256-128 on the whole sequence",
    optimizer="adam",
    inputs="series",
    input_shape=(187, 1),
    datasets=("mitbih", "synthetic-ecg"),
    smallest={"heads": 1, "d_model": 4, "ffn": 4},
    smallest_shape=(6, 1),
)
def ecg_attention(
    input_shape: Sequence[int] = (187, 1),
    num_classes: int = 5,
    heads: int = 2,
    d_model: int = 200,
    ffn: int = 128,
    dropout: float = 0.1,
    layers: int = 1,
) -> ECGAttention:
    """Build a transformer encoder for series; 19,528,109 parameters for 187 values and 5 classes.

    All but 213,928 of them sit in the head, as it takes the whole sequence, 187 * 200 features.

    Args:
        input_shape: (length, channels) of a series.
        num_classes: number of logits.
        heads: of the attention, a divisor of `d_model`.
        d_model: size of the embedding, even.
        ffn: hidden units of the feed-forward part.
        dropout: probability.
        layers: of the encoder.

    Raises:
        ModelError: inputs that are no series, or sizes that do not fit.
    """
    if len(input_shape) != 2:
        raise ModelError(
            f"ecg-attention expects series (length, channels), as (187, 1); "
            f"got input_shape {tuple(input_shape)}"
        )
    if min(heads, d_model, ffn, layers) < 1 or d_model % 2 or d_model % heads:
        raise ModelError(
            f"ecg-attention expects an even d_model that its heads divide and sizes of at least 1, "
            f"got d_model {d_model}, heads {heads}, ffn {ffn}, layers {layers}"
        )
    length, channels = input_shape
    return ECGAttention(length, channels, num_classes, layers, heads, d_model, ffn, dropout)


MODELS.alias("Transformer", "ecg-attention")
