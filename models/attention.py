"""AttentionDecoder: an LSTM that looks at the picture again for each word.

Shape letters: B images, K captions per image, T tokens, P grid positions, D encoder width, E embedding, H hidden,
V vocabulary, N sentences, of which every image has equally many.
"""

from dataclasses import dataclass

import torch
from torch import nn

from data.vocab import PAD_ID


@dataclass
class Memory:
    """What attention looks up: keys and values (B, P, H), held once for an image however many sentences are open about it."""

    keys: torch.Tensor
    values: torch.Tensor
    sentences: int = 1  # for each image

    def select(self, index: torch.Tensor) -> "Memory":
        """The memory of the sentences ``index`` (N',). It is copied only if images were dropped or mixed up, not for more sentences."""
        return self.take(*self.plan(index))

    def plan(self, index: torch.Tensor) -> tuple[torch.Tensor | None, int]:
        """Which images the sentences ``index`` (N',) are about (None: all, in order), and how many sentences each has."""
        image = index // self.sentences  # (N',)
        images = image.unique_consecutive()  # type: ignore[no-untyped-call]
        sentences = len(image) // max(1, len(images))
        if not torch.equal(images.repeat_interleave(sentences), image):
            images, sentences = image, 1  # no pattern: a row of its own for each sentence
        everything = torch.equal(images, torch.arange(len(self.keys), device=index.device))
        return None if everything else images, sentences

    def take(self, images: torch.Tensor | None, sentences: int) -> "Memory":
        """The memory that a ``plan`` asks for."""
        if images is None:
            return Memory(self.keys, self.values, sentences)
        return Memory(self.keys[images], self.values[images], sentences)


def attend(queries: torch.Tensor, memory: Memory, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Multi-head scaled dot-product attention (Vaswani et al. 2017, eq. 1) of sentences over the grid of their image.

    Args:
        queries: (N, T, H).

    Returns:
        what was seen (N, T, H), and how much each position counted (N, T, P), the mean of the heads.
    """
    n, t, h = queries.shape
    b, p, _ = memory.keys.shape

    def split(x: torch.Tensor, length: int) -> torch.Tensor:
        return x.reshape(b, length, heads, h // heads).transpose(1, 2)  # (B, heads, length, H / heads)

    q, k, v = split(queries, n // b * t), split(memory.keys, p), split(memory.values, p)
    weights = (q @ k.transpose(2, 3) * (h // heads) ** -0.5).softmax(dim=-1)  # (B, heads, N/B*T, P)
    seen = (weights.to(v.dtype) @ v).transpose(1, 2).reshape(n, t, h)
    return seen, weights.mean(dim=1).view(n, t, p)


@dataclass
class AttentionState:
    """What N open sentences remember, hidden and cell of both LSTMs, each (1, N, H); and the pictures."""

    memory: Memory
    first: tuple[torch.Tensor, torch.Tensor]
    second: tuple[torch.Tensor, torch.Tensor]

    def select(self, index: torch.Tensor) -> "AttentionState":
        """The state of the sentences ``index`` (N',), in that order; a sentence may be taken more than once."""
        first, second = ((hidden[:, index], cell[:, index]) for hidden, cell in (self.first, self.second))
        return AttentionState(self.memory.select(index), first, second)


class AttentionDecoder(nn.Module):
    """Two LSTMs with attention in between: the first reads the words and asks, the second hears question and answer and speaks.

        h1_t = LSTM1(W_e S_t)      c_t = MultiHead(h1_t, grid)      p_t+1 = softmax(W_out LSTM2([h1_t, c_t]))

    Up-Down's two LSTMs (Anderson et al. 2018, https://arxiv.org/abs/1707.07998, eq. 1-5) without what LSTM2 tells LSTM1, so that nothing
    has to wait for the step before: each of the three runs over the whole sentence at once, as in the spatial attention of
    Lu et al. 2017 (https://arxiv.org/abs/1612.01887). LSTM1 begins with the mean of the grid, as in DecoderRNN.
    """

    def __init__(
        self,
        vocab_size: int,
        features_size: int = 2048,
        embed_size: int = 256,
        hidden_size: int = 512,
        heads: int = 8,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.heads, self.hidden_size = heads, hidden_size
        self.image, self.image_norm = nn.Linear(features_size, embed_size), nn.BatchNorm1d(embed_size)
        self.grid, self.grid_norm = nn.Linear(features_size, hidden_size), nn.BatchNorm1d(hidden_size)
        self.embed = nn.Embedding(vocab_size, embed_size, padding_idx=PAD_ID)
        self.first = nn.LSTM(embed_size, hidden_size, batch_first=True)
        self.query, self.memory = nn.Linear(hidden_size, hidden_size), nn.Linear(hidden_size, 2 * hidden_size)
        self.second = nn.LSTM(2 * hidden_size, hidden_size, batch_first=True)
        with torch.no_grad():
            for lstm in (self.first, self.second):
                lstm.get_parameter("bias_ih_l0")[hidden_size : 2 * hidden_size].fill_(2.0)  # see DecoderRNN
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, vocab_size)

    def start(self, features: torch.Tensor) -> AttentionState:
        """Read the image: features (B, P, D) -> state of B sentences, before any word."""
        image = self.image_norm(self.image(features.mean(dim=1)))  # (B, E)
        _, first = self.first(image[:, None])
        grid = self.grid(features)  # (B, P, H)
        grid = self.dropout(self.grid_norm(grid.flatten(0, 1)).view_as(grid))
        silent = torch.zeros_like(first[0])  # (1, B, H)
        return AttentionState(Memory(*self.memory(grid).chunk(2, dim=-1)), first, (silent, silent))

    def forward(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """All steps at once, by teacher forcing: (B, P, D), (B, K, T) -> logits (B, K, T, V)."""
        b, k, t = tokens.shape
        state = self.start(features).select(torch.arange(b, device=tokens.device).repeat_interleave(k))
        logits, _, _ = self.read(tokens.reshape(b * k, t), state)
        return logits.view(b, k, t, -1)

    def step(self, tokens: torch.Tensor, state: AttentionState) -> tuple[torch.Tensor, AttentionState, torch.Tensor]:
        """One word further: tokens (N,) -> logits (N, V) of the next word, the new state, and attention (N, P)."""
        logits, state, attention = self.read(tokens[:, None], state)
        return logits[:, 0], state, attention[:, 0]

    def read(self, tokens: torch.Tensor, state: AttentionState) -> tuple[torch.Tensor, AttentionState, torch.Tensor]:
        """Some words further: tokens (N, T) -> logits (N, T, V), the new state, attention (N, T, P)."""
        asked, first = self.first(self.dropout(self.embed(tokens)), state.first)  # (N, T, H)
        asked = self.dropout(asked)
        seen, attention = attend(self.query(asked), state.memory, self.heads)
        said, second = self.second(torch.cat([asked, self.dropout(seen)], dim=-1), state.second)
        logits: torch.Tensor = self.output(self.dropout(said))  # (N, T, V)
        return logits, AttentionState(state.memory, first, second), attention
