"""A small vision transformer (Dosovitskiy et al., 2020, arXiv:2010.11929) with LayerScale.

LayerScale: Touvron et al., 2021, arXiv:2103.17239. Sized for 32x32.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks.rounding import kept_blocks, scaled

AttentionKind = Literal["qkv", "multihead"]


class Attention(nn.Module):
    """Self-attention with one linear layer for queries, keys and values."""

    def __init__(self, embedding: int, heads: int, *, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = head_dim
        self.qkv = nn.Linear(embedding, 3 * heads * head_dim)
        self.proj = nn.Linear(heads * head_dim, embedding)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, tokens, embedding), as `x`."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))
        return out


class MultiheadAttention(nn.Module):
    """`torch.nn.MultiheadAttention` as self-attention, also where heads and embedding part.

    torch's class wants heads x head_dim to be the embedding. A narrower network keeps whole heads
    and may not meet that: then the same parameters, under the same names, are applied here.
    """

    def __init__(self, embedding: int, heads: int, *, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = head_dim
        self.attention = (
            nn.MultiheadAttention(embedding, heads, batch_first=True)
            if embedding == heads * head_dim
            else _UnevenMultihead(embedding, heads, head_dim=head_dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, tokens, embedding), as `x`."""
        if isinstance(self.attention, nn.MultiheadAttention):
            out: Tensor = self.attention(x, x, x, need_weights=False)[0]
        else:
            out = self.attention(x)
        return out


class _UnevenMultihead(nn.Module):
    """Attention whose heads are not the embedding cut up, with torch's parameter names."""

    def __init__(self, embedding: int, heads: int, *, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = head_dim
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * heads * head_dim, embedding))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * heads * head_dim))
        self.out_proj = nn.Linear(heads * head_dim, embedding)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        parts = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        query, key, value = (
            part.reshape(batch, tokens, self.heads, self.head_dim).transpose(1, 2) for part in parts
        )
        scores = query @ key.transpose(-2, -1) / self.head_dim**0.5
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, tokens, -1)
        out: Tensor = self.out_proj(mixed)
        return out


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, embedding: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embedding, hidden)
        self.fc2 = nn.Linear(hidden, embedding)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, tokens, embedding), as `x`."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class TransformerBlock(nn.Module):
    """Attention and MLP, each behind a LayerNorm and scaled before it is added."""

    def __init__(self, embedding: int, attention: nn.Module, *, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embedding)
        self.attn = attention
        self.scale1 = nn.Parameter(torch.ones(embedding))
        self.norm2 = nn.LayerNorm(embedding)
        self.mlp = Mlp(embedding, hidden)
        self.scale2 = nn.Parameter(torch.ones(embedding))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, tokens, embedding), as `x`."""
        x = x + self.scale1 * self.attn(self.norm1(x))
        out: Tensor = x + self.scale2 * self.mlp(self.norm2(x))
        return out


class VisionTransformer(nn.Module):
    """Patches of 4x4, a class token, learned positions, pre-norm blocks; 0.14 M parameters.

    A narrower network keeps fewer embedding channels, fewer heads of the same width and fewer
    hidden channels; LayerNorm sees the kept channels only.

    Args:
        num_blocks: transformer blocks.
        heads: heads of a block.
        num_classes: outputs.
        embedding: channels of a token.
        head_dim: channels of a head, in every width.
        attention: one linear layer for q, k, v, or `torch.nn.MultiheadAttention`, which needs
            embedding = heads x head_dim in the full network.
        width: width multiplier of embedding, heads and hidden channels.
        depth: blocks kept, as (blocks,), None for all.
        divisor: see `scaled`.
    """

    def __init__(
        self,
        num_blocks: int = 4,
        heads: int = 4,
        *,
        num_classes: int = 10,
        embedding: int = 64,
        head_dim: int = 16,
        attention: AttentionKind = "qkv",
        width: float = 1.0,
        depth: tuple[int, ...] | None = None,
        divisor: int = 8,
    ) -> None:
        super().__init__()
        channels = scaled(embedding, width, divisor=divisor)
        hidden = scaled(2 * embedding, width, divisor=divisor)
        kept_heads = scaled(heads * head_dim, width, divisor=divisor, unit=head_dim) // head_dim
        attend = Attention if attention == "qkv" else MultiheadAttention
        self.patch = nn.Conv2d(3, channels, 4, stride=4)
        self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.positions = nn.Parameter(torch.zeros(1, 65, channels))
        self.blocks = nn.Sequential()
        (count,) = kept_blocks(depth, (num_blocks,))
        for index in range(count):
            block = TransformerBlock(
                channels, attend(channels, kept_heads, head_dim=head_dim), hidden=hidden
            )
            self.blocks.add_module(str(index), block)
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, 3, 32, 32)."""
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        first = self.class_token.expand(x.shape[0], -1, -1)
        tokens = torch.cat([first, tokens], dim=1) + self.positions
        tokens = self.norm(self.blocks(tokens))
        logits: Tensor = self.head(tokens[:, 0])
        return logits
