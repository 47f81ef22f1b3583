"""What all decoders have in common: teacher forcing and one step of decoding are the same reading of words."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from data.vocab import END_ID, PAD_ID


class Words:
    """Which of the tokens (N, T) are read: M in all, those before <end>.

    Captions differ so much in length that half of a batch is padding. What works on each word alone gets ``rows`` (M, F) without it,
    what looks along a sentence gets them ``padded`` (N, T, F).
    """

    def __init__(self, tokens: torch.Tensor) -> None:
        self.n, self.t = tokens.shape
        self.index: torch.Tensor | None = None  # a single step has nothing to leave out
        if self.t > 1:
            read = ((tokens == END_ID) | (tokens == PAD_ID)).cumsum(dim=1) == 0  # (N, T)
            read[:, 0] = True  # an image with fewer captions than another has some that are padding throughout
            self.index = read.flatten().nonzero()[:, 0]  # (M,)
            self.lengths = read.sum(dim=1).cpu()  # (N,)

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """(N, T, F) -> (M, F)."""
        x = x.flatten(0, 1)
        return x if self.index is None else x[self.index]

    def padded(self, rows: torch.Tensor) -> torch.Tensor:
        """(M, F) -> (N, T, F), 0 where no word is."""
        if self.index is not None:
            rows = rows.new_zeros(self.n * self.t, rows.shape[1]).index_copy(0, self.index, rows)
        return rows.view(self.n, self.t, -1)

    def through(
        self, lstm: nn.LSTM, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Run ``lstm`` from ``state`` over x (N, T, E) -> hidden (N, T, H), and its state after each sentence's last word."""
        if self.index is None:
            hidden, state = lstm(x, state)
            return hidden, state
        packed, state = lstm(pack_padded_sequence(x, self.lengths, batch_first=True, enforce_sorted=False), state)
        return pad_packed_sequence(packed, batch_first=True, total_length=self.t)[0], state


class WordDecoder(nn.Module, ABC):
    """A decoder that says how it starts from an image (``start``) and how it goes on reading words (``read``).

    The shift that teacher forcing needs is the caller's: ``tokens`` are <start> w1 ... wn, and the logits at position t
    are those of the word after tokens[t], so the targets are w1 ... wn <end>.
    """

    @abstractmethod
    def start(self, features: torch.Tensor) -> Any:
        """Read the image: features (B, P, D) -> state of B sentences, before any word."""

    @abstractmethod
    def read(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any, torch.Tensor | None]:
        """Some words further: tokens (N, T) -> logits (N, T, V), 0 from <end> on, the new state, attention (N, T, P) or None."""

    def forward(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """All steps at once, by teacher forcing: (B, P, D), (B, K, T) -> logits (B, K, T, V)."""
        b, k, t = tokens.shape
        every_caption = torch.arange(b, device=tokens.device).repeat_interleave(
            k
        )  # the image is read once, not K times
        logits, _, _ = self.read(tokens.reshape(b * k, t), self.start(features).select(every_caption))
        return logits.view(b, k, t, -1)

    def step(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any, torch.Tensor | None]:
        """One word further: tokens (N,) -> logits (N, V) of the next word, the new state, and attention (N, P) or None."""
        logits, state, attention = self.read(tokens[:, None], state)
        return logits[:, 0], state, None if attention is None else attention[:, 0]
