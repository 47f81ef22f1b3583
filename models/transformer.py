"""TransformerDecoder: every word looks back at all words before it, and at the picture.

Shape letters: B images, K captions per image, T tokens, P grid positions, D encoder width, E embedding = hidden width,
V vocabulary, N sentences, of which every image has equally many, M words of all sentences without padding.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from data.vocab import PAD_ID
from models.attention import Memory, attend
from models.decoder import WordDecoder, Words


@dataclass
class TransformerState:
    """What N open sentences have said, as each layer sees it: keys and values (N, heads, T, E / heads); and the pictures."""

    memories: list[Memory]  # one a layer
    words: list[tuple[torch.Tensor, torch.Tensor]]  # one pair a layer; the key/value cache
    length: int = 0  # T

    def select(self, index: torch.Tensor) -> "TransformerState":
        """The state of the sentences ``index`` (N',), in that order; a sentence may be taken more than once."""
        words = [(keys[index], values[index]) for keys, values in self.words]
        plan = self.memories[0].plan(index)  # the same for all layers
        return TransformerState([memory.take(*plan) for memory in self.memories], words, self.length)


class Layer(nn.Module):
    """Self-attention, cross-attention and feed-forward, each normalised before (Xiong et al. 2020) and added to what came in."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.self_norm, self.cross_norm, self.feed_norm = nn.LayerNorm(size), nn.LayerNorm(size), nn.LayerNorm(size)
        self.query_key_value, self.self_output = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.query, self.memory, self.cross_output = (
            nn.Linear(size, size),
            nn.Linear(size, 2 * size),
            nn.Linear(size, size),
        )
        self.feed = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), nn.Linear(4 * size, size))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, words: Words, memory: Memory, before: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Rows (M, E), pictures, keys and values of the words before -> rows (M, E), keys and values, attention (N, T, P)."""
        query_key_value = words.padded(self.query_key_value(self.self_norm(x)))  # (N, T, 3 * E)
        q, k, v = query_key_value.view(words.n, words.t, 3, self.heads, -1).permute(
            2, 0, 3, 1, 4
        )  # each (N, heads, T, E / heads)
        k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)  # (N, heads, T before + T, E / heads)
        assert words.t == 1 or before[0].shape[2] == 0  # or is_causal would count from the wrong end
        # causal only when many words come at once; padding needs no mask: it comes after all real words
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=words.t > 1)
        x = x + self.dropout(self.self_output(words.rows(seen.transpose(1, 2).flatten(2))))
        seen, attention = attend(words.padded(self.query(self.cross_norm(x))), memory)
        x = x + self.dropout(self.cross_output(words.rows(seen)))
        return x + self.dropout(self.feed(self.feed_norm(x))), (k, v), attention


def positions(first: int, count: int, size: int, device: torch.device) -> torch.Tensor:
    """Where a word stands, as sines and cosines (Vaswani et al. 2017, section 3.5): (count, size). Knows no longest sentence."""
    place = torch.arange(first, first + count, device=device)[:, None]  # (T, 1)
    angle = place * torch.exp(torch.arange(0, size, 2, device=device) * (-math.log(10_000) / size))  # (T, E / 2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (T, E)


class TransformerDecoder(WordDecoder):
    """The decoder of "Attention Is All You Need" (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), normalised before each
    block (Xiong et al. 2020, https://arxiv.org/abs/2002.04745), reading the grid where translation reads the source sentence.
    """

    def __init__(
        self,
        vocab_size: int,
        features_size: int = 2048,
        hidden_size: int = 512,
        layers: int = 3,
        heads: int = 8,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.grid = nn.Sequential(nn.Linear(features_size, hidden_size), nn.LayerNorm(hidden_size))
        self.embed = nn.Embedding(vocab_size, hidden_size, padding_idx=PAD_ID)
        self.layers = nn.ModuleList(Layer(hidden_size, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, vocab_size)

    def start(self, features: torch.Tensor) -> TransformerState:
        """Read the image: features (B, P, D) -> state of B sentences, before any word."""
        grid = self.dropout(self.grid(features))  # (B, P, E)
        memories = [Memory.of(layer.memory(grid), self.heads) for layer in self.layers]  # type: ignore[operator]
        nothing = memories[0].keys.new_zeros(len(features), self.heads, 0, self.embed.embedding_dim // self.heads)
        return TransformerState(memories, [(nothing, nothing)] * len(self.layers))

    def read(
        self, tokens: torch.Tensor, state: TransformerState
    ) -> tuple[torch.Tensor, TransformerState, torch.Tensor]:
        """The first T words at once, or one word further: tokens (N, T) -> logits (N, T, V), the new state, attention of the last layer (N, T, P)."""
        words = Words(tokens)
        embedded = self.embed(tokens)  # (N, T, E)
        x = words.rows(
            self.dropout(embedded + positions(state.length, words.t, embedded.shape[2], tokens.device))
        )  # (M, E)
        cache = []
        for layer, memory, before in zip(self.layers, state.memories, state.words, strict=True):
            x, keys_values, attention = layer(x, words, memory, before)
            cache.append(keys_values)
        logits = self.output(self.dropout(self.norm(x)))  # (M, V)
        return words.padded(logits), TransformerState(state.memories, cache, state.length + words.t), attention
