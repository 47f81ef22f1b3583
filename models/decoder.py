"""What all decoders have in common: teacher forcing and one step of decoding are the same reading of words."""

from typing import Any

import torch
from torch import nn


class WordDecoder(nn.Module):
    """A decoder that says how it starts from an image (``start``) and how it goes on reading words (``read``).

    The shift that teacher forcing needs is the caller's: ``tokens`` are <start> w1 ... wn, and the logits at position t
    are those of the word after tokens[t], so the targets are w1 ... wn <end>.
    """

    def start(self, features: torch.Tensor) -> Any:
        """Read the image: features (B, P, D) -> state of B sentences, before any word."""
        raise NotImplementedError

    def read(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any, torch.Tensor | None]:
        """Some words further: tokens (N, T) -> logits (N, T, V), the new state, attention (N, T, P) or None."""
        raise NotImplementedError

    def forward(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """All steps at once, by teacher forcing: (B, P, D), (B, K, T) -> logits (B, K, T, V)."""
        b, k, t = tokens.shape
        every_caption = torch.arange(b, device=tokens.device).repeat_interleave(k)  # the image is read once, not K times
        logits, _, _ = self.read(tokens.reshape(b * k, t), self.start(features).select(every_caption))
        return logits.view(b, k, t, -1)

    def step(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any, torch.Tensor | None]:
        """One word further: tokens (N,) -> logits (N, V) of the next word, the new state, and attention (N, P) or None."""
        logits, state, attention = self.read(tokens[:, None], state)
        return logits[:, 0], state, None if attention is None else attention[:, 0]
