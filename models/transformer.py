"""TransformerDecoder: every token attends to all tokens before it, and to the image.

Shape letters: B images, P grid positions, D encoder width, N sequences, T tokens, M real tokens, E embedding = hidden
width, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from config import TransformerConfig
from data.packing import PackedTokens
from data.vocab import PAD_ID
from models.attention import Memory, attend, mean_of_heads
from models.interfaces import WordDecoder

KeysValues = tuple[torch.Tensor, torch.Tensor]  # (N, heads, T, E / heads) each


@dataclass
class TransformerState:
    """What N sequences remember, in each layer: the image, and the keys and values of the tokens read so far."""

    memories: list[Memory]  # one per layer
    cache: list[KeysValues]  # one per layer

    @property
    def length(self) -> int:
        """T, tokens read so far."""
        return self.cache[0][0].shape[2]

    def select(self, index: torch.Tensor, per_group: int) -> "TransformerState":
        """The state of the sequences ``index`` (N',); see ``models.interfaces.State``."""
        cache = [(keys[index], values[index]) for keys, values in self.cache]
        return TransformerState([memory.select(index, per_group) for memory in self.memories], cache)


class Layer(nn.Module):
    """Self-attention, cross-attention, feed-forward; each with pre-normalization (Xiong et al. 2020) and a residual."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.self_norm, self.cross_norm, self.feed_norm = nn.LayerNorm(size), nn.LayerNorm(size), nn.LayerNorm(size)
        self.query_key_value, self.self_output = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.query, self.memory = nn.Linear(size, size), nn.Linear(size, 2 * size)
        self.cross_output = nn.Linear(size, size)
        self.feed = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))
        self.dropout = nn.Dropout(dropout)

    def remember(self, grid: torch.Tensor) -> Memory:
        """The projected grid (B, P, E) as this layer's cross-attention reads it."""
        return Memory.of(self.memory(grid), self.heads)

    def forward(
        self, x: torch.Tensor, tokens: PackedTokens, memory: Memory, cache: KeysValues
    ) -> tuple[torch.Tensor, KeysValues, torch.Tensor]:
        """Rows (M, E), the image, cached keys and values -> rows (M, E), new keys and values, attention weights."""
        n, t = tokens.tokens.shape
        query_key_value = tokens.padded(self.query_key_value(self.self_norm(x)))  # (N, T, 3 * E)
        q, k, v = query_key_value.view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (N, heads, T, E / heads)
        k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)  # (N, heads, earlier + T, E / heads)
        assert t == 1 or cache[0].shape[2] == 0, "several tokens can only be read at the start"  # is_causal below
        # Causal only where several tokens are read at once; padding needs no mask, it comes after all real tokens
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        x = x + self.dropout(self.self_output(tokens.rows(attended.transpose(1, 2).flatten(2))))
        attended, weights = attend(tokens.padded(self.query(self.cross_norm(x))), memory)
        x = x + self.dropout(self.cross_output(tokens.rows(attended)))
        return x + self.dropout(self.feed(self.feed_norm(x))), (k, v), weights


def positions(first: int, count: int, size: int, device: torch.device) -> torch.Tensor:
    """Sinusoidal position encodings (Vaswani et al. 2017, section 3.5) of ``count`` positions: (count, size)."""
    place = torch.arange(first, first + count, device=device)[:, None]  # (T, 1)
    angle = place * torch.exp(torch.arange(0, size, 2, device=device) * (-math.log(10_000) / size))  # (T, E / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (T, E)


class TransformerDecoder(WordDecoder):
    """The decoder of "Attention Is All You Need" (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).

    With pre-normalization (Xiong et al. 2020, https://arxiv.org/abs/2002.04745); its cross-attention reads the grid
    where a translator reads the source sentence.
    """

    attends = True

    def __init__(self, config: TransformerConfig, vocab_size: int, features_size: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.heads
        self.grid = nn.Sequential(nn.Linear(features_size, size), nn.LayerNorm(size))
        self.embed = nn.Embedding(vocab_size, size, padding_idx=PAD_ID)
        self.layers = nn.ModuleList(Layer(size, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(size, vocab_size)

    def start(self, features: torch.Tensor) -> TransformerState:
        """Read the image: features (B, P, D) -> state of B sequences, before any token."""
        grid = self.dropout(self.grid(features))  # (B, P, E)
        memories = [layer.remember(grid) for layer in self.layers if isinstance(layer, Layer)]
        empty = memories[0].keys.new_zeros(features.shape[0], self.heads, 0, self.embed.embedding_dim // self.heads)
        return TransformerState(memories, [(empty, empty)] * len(memories))

    def read(
        self, tokens: PackedTokens, state: TransformerState, *, attention: bool = False
    ) -> tuple[torch.Tensor, TransformerState, torch.Tensor | None]:
        """Read the first T tokens at once, or one token further: logits (M, V), the new state, and if asked for the
        attention weights of the last layer (N, T, P)."""
        embedded = self.embed(tokens.tokens)  # (N, T, E)
        place = positions(state.length, embedded.shape[1], embedded.shape[2], embedded.device)
        x = tokens.rows(self.dropout(embedded + place))  # (M, E)
        cache = []
        for layer, memory, earlier in zip(self.layers, state.memories, state.cache, strict=True):
            x, keys_values, weights = layer(x, tokens, memory, earlier)
            cache.append(keys_values)
        logits = self.output(self.dropout(self.norm(x)))  # (M, V)
        return logits, TransformerState(state.memories, cache), mean_of_heads(weights, tokens) if attention else None
