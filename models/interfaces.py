"""The interfaces of encoders and decoders. How to add one of either: CONTRIBUTING.md.

Shape letters: B images, P grid positions, D encoder width, N sequences, T tokens, M real tokens, V vocabulary.
"""

import hashlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import nn

from data.packing import PackedTokens
from data.transforms import Transform


class Encoder(nn.Module, ABC):
    """Images (B, 3, H, W) -> grid features (B, P, D), row by row: P = rows x columns of ``grid``.

    Attributes:
        features_size: D.
        grid: (rows, columns) of the positions for an image that went through ``transform``. Attention maps are drawn
            over the image in this shape; class tokens and the like are not part of the grid.
        transform: from an RGB image to the tensor that ``forward`` reads: a ``Transform`` with its own size, mean and
            std, which are stored in the checkpoint.

    A checkpoint is loaded into a model that was built on the meta device, without values: keep whatever ``forward``
    needs in parameters and persistent buffers.
    """

    features_size: int
    grid: tuple[int, int]
    transform: Transform

    @abstractmethod
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (B, 3, H, W) -> features (B, P, D)."""

    @abstractmethod
    def learn_from(self, first: int | None) -> None:
        """Train the stages from ``first`` on (0: everything) and freeze those before it; None freezes everything.

        A frozen part stays in eval mode when the captioner is set to train mode.
        """

    def fingerprint(self) -> dict[str, Any]:
        """What distinguishes the features of this encoder from those of others: its kind, its grid and a hash of its
        weights. Override it where an option changes the features but none of these."""
        digest = hashlib.sha256()
        for name, tensor in self.state_dict().items():
            array = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            digest.update(name.encode() + array.tobytes())
        return {"encoder": type(self).__name__, "grid": list(self.grid), "weights": digest.hexdigest()}


class State(Protocol):
    """What a decoder remembers of N sequences."""

    def select(self, index: torch.Tensor, per_group: int) -> Self:
        """The state of the sequences ``index`` (N',), in that order.

        A sequence may be taken several times. Each run of ``per_group`` sequences belongs to one image, and images
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
