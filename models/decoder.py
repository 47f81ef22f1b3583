"""What all decoders have in common: teacher forcing and one step of decoding read tokens in the same way.

Shape letters: B images, P grid positions, D encoder width, N sequences, T tokens, M real tokens, V vocabulary, H hidden.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from data.packing import PackedTokens


class State(Protocol):
    """What a decoder remembers of N sequences."""

    def select(self, index: torch.Tensor, per_image: int) -> Self:
        """The state of the sequences ``index`` (N',), in that order.

        A sequence may be taken several times. Each run of ``per_image`` sequences belongs to one image, and images
        keep their order: they may be dropped or repeated, not both at once.
        """
        ...


class WordDecoder(nn.Module, ABC):
    """A decoder defines how it starts from an image (``start``) and how it reads further tokens (``read``).

    The shift that teacher forcing needs is made in data/packing.py: a decoder reads <start> w1 ... wn, and its logits
    for a token are those of the token after it, so the targets are w1 ... wn <end>.
    """

    attends: ClassVar[bool] = False  # whether ``read`` can return attention weights

    @abstractmethod
    def start(self, features: torch.Tensor) -> Any:
        """Read the image: features (B, P, D) -> ``State`` of B sequences, before any token."""

    @abstractmethod
    def read(
        self, tokens: PackedTokens, state: Any, *, attention: bool = False
    ) -> tuple[torch.Tensor, Any, torch.Tensor | None]:
        """Read further tokens of N sequences.

        Args:
            tokens: N sequences, of one token each while decoding.
            state: the ``State`` of the N sequences.
            attention: also return the attention weights; None for a decoder that does not attend.

        Returns:
            logits of the next token (M, V), the new state, attention weights (N, T, P).
        """

    def forward(self, features: torch.Tensor, captions: PackedTokens) -> torch.Tensor:
        """All steps at once, by teacher forcing: features (B, P, D), captions of B images -> logits (M, V)."""
        state = self.start(features).select(captions.sequence_images, captions.per_group)  # an image is read once
        logits, _, _ = self.read(captions, state)
        return logits

    def step(
        self, tokens: torch.Tensor, state: Any, *, attention: bool = False
    ) -> tuple[torch.Tensor, Any, torch.Tensor | None]:
        """One token further: tokens (N,) -> logits (N, V), the new state, attention weights (N, P) or None."""
        logits, state, weights = self.read(PackedTokens.one_step(tokens), state, attention=attention)
        return logits, state, None if weights is None else weights[:, 0]


def run_lstm(
    lstm: nn.LSTM, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor], tokens: PackedTokens
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Run ``lstm`` over x (N, T, E) from ``state``, two tensors (1, N, H).

    Returns:
        hidden states (N, T, H), zero at the padding, and the state after the last token of each sequence.
    """
    if tokens.index is None:  # a single step: nothing to pack
        hidden, state = lstm(x, state)
        return hidden, state
    lengths = tokens.lengths.clamp(min=1)  # an LSTM cannot read an empty sequence; nobody reads its result
    packed, state = lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False), state)
    return pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0], state


def open_forget_gate(lstm: nn.LSTM) -> None:
    """Start ``lstm`` with its forget gate open (Gers et al. 2000; Jozefowicz et al. 2015, section 5).

    PyTorch starts it half closed: after eight words 0.4 % of what was read of the image would be left.
    """
    size = lstm.hidden_size
    with torch.no_grad():
        lstm.get_parameter("bias_ih_l0")[size : 2 * size].fill_(2.0)
