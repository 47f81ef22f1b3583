"""The interface of image encoders. How to add one: CONTRIBUTING.md, "A new encoder"."""

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from data.transforms import Transform


class Encoder(nn.Module, ABC):
    """Images (B, 3, H, W) -> grid features (B, P, D), row by row: P = rows x columns of ``grid``.

    Attributes:
        features_size: D.
        grid: (rows, columns) of the positions for an image that went through ``transform``. Attention maps are drawn
            over the image in this shape; class tokens and the like are not part of the grid.
        transform: from an RGB image to the tensor that ``forward`` reads. It is stored in the checkpoint.
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
        """What distinguishes the features of this encoder from those of others: its kind and a hash of its weights."""
        digest = hashlib.sha256()
        for name, tensor in self.state_dict().items():
            array = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            digest.update(name.encode() + array.tobytes())
        return {"encoder": type(self).__name__, "weights": digest.hexdigest()}
