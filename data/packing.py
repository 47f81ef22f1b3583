"""PackedTokens: the captions of a batch without their padding, so that memory grows with the words.

Captions differ so much in length that half of a padded batch is padding, and one image may have five captions, another
two hundred. What works on each word alone (embedding, output layer, loss) gets ``rows`` (M, F); what runs along a
caption (LSTM, attention) gets them ``padded`` (N, T, F).

Shape letters: B images, R groups, S sequences per group, N = R x S sequences, T tokens, M real tokens, F features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from data.vocab import PAD_ID


@dataclass(frozen=True)
class PackedTokens:
    """N sequences of token ids, each read up to its last word, and the token that follows each of them.

    Sequences come in R groups of ``per_group``, and all sequences of a group belong to the same image. An image with
    more captions than the others has several groups, so that no image makes the others pay for its captions. The last
    group of an image may end in empty sequences (length 0).

    Example: two images, one with three captions and one with a single caption, are packed as R = 3 groups of S = 2:
    ``images`` is [0, 0, 1], and the second and third group end in one empty sequence.
    """

    tokens: torch.Tensor  # (N, T) int64, what a decoder reads: <start> w1 ... wn, then <pad>
    targets: torch.Tensor  # (M,) int64, the token after each real token: w1 ... wn <end>
    index: torch.Tensor | None  # (M,) int64, where the real tokens are among the N x T; None: all of them, in order
    lengths: torch.Tensor  # (N,) int64, on the CPU: real tokens of each sequence
    images: torch.Tensor  # (R,) int64, the image of each group: ascending, and each image has one
    per_group: int  # S

    @property
    def count(self) -> int:
        """M, the number of tokens to predict (of ``one_step``: none)."""
        return len(self.targets)

    @property
    def sequence_images(self) -> torch.Tensor:
        """The image of each sequence, (N,)."""
        return self.images.repeat_interleave(self.per_group)

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """(N, T, F) -> (M, F), without padding."""
        x = x.flatten(0, 1)
        return x if self.index is None else x.index_select(0, self.index)

    def padded(self, rows: torch.Tensor) -> torch.Tensor:
        """(M, F) -> (N, T, F), zero at the padding."""
        n, t = self.tokens.shape
        if self.index is not None:
            rows = rows.new_zeros(n * t, rows.shape[1]).index_copy(0, self.index, rows)
        return rows.view(n, t, rows.shape[1])

    def to(self, device: torch.device) -> "PackedTokens":
        """The same on ``device``; the lengths stay on the CPU, where packing an LSTM's input needs them."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor) and field.name != "lengths"
        }
        return replace(self, **moved)

    def pin_memory(self) -> "PackedTokens":
        """The same in page-locked memory; ``DataLoader(pin_memory=True)`` calls this."""
        assert self.index is not None
        pinned: dict[str, Any] = {
            name: getattr(self, name).pin_memory() for name in ("tokens", "targets", "index", "images")
        }
        return replace(self, **pinned)

    def of_images(self, first: int, end: int) -> "PackedTokens":
        """Those of the images ``first`` to ``end`` - 1, on the CPU."""
        groups = torch.searchsorted(self.images, torch.tensor([first, end]))
        start, stop = (groups * self.per_group).tolist()
        before, after = self.lengths[:start].sum(), self.lengths[:stop].sum()
        lengths = self.lengths[start:stop]
        tokens = self.tokens[start:stop, : max(1, int(lengths.max()))]
        images = self.images[groups[0] : groups[1]] - first
        return PackedTokens(tokens, self.targets[before:after], _real(lengths, tokens), lengths, images, self.per_group)

    @classmethod
    def one_step(cls, tokens: torch.Tensor) -> "PackedTokens":
        """One token for each of N open hypotheses, as decoding reads them: (N,); targets are unknown and left empty."""
        n, device = tokens.shape[0], tokens.device  # not len(), which the ONNX export would take for a constant
        return cls(
            tokens[:, None], tokens[:0], None, torch.ones(n, dtype=torch.int64), torch.arange(n, device=device), 1
        )


def pack(captions: Sequence[Sequence[Sequence[int] | np.ndarray]]) -> PackedTokens:
    """Pack the captions of B images, each ``<start> w1 ... wn [<end>]`` as ids; on the CPU.

    The group size is the mean number of captions per image, rounded up: there are at most 2 B groups, and at most
    2 N + 2 B sequences for N captions, however unevenly the captions are spread.
    """
    total = sum(map(len, captions))
    per_group = max(1, math.ceil(total / max(1, len(captions))))
    sequences: list[Sequence[int] | np.ndarray] = []
    images: list[int] = []
    for image, its_captions in enumerate(captions):
        for first in range(0, max(1, len(its_captions)), per_group):  # an image without captions has an empty group
            group = its_captions[first : first + per_group]
            sequences += [*group, *[()] * (per_group - len(group))]
            images.append(image)
    lengths = torch.tensor([max(0, len(sequence) - 1) for sequence in sequences], dtype=torch.int64)
    longest = int(lengths.max()) if len(lengths) else 0
    tokens = torch.full((len(sequences), longest), PAD_ID, dtype=torch.int64)
    for row, sequence in zip(tokens, sequences, strict=True):
        row[: max(0, len(sequence) - 1)] = torch.as_tensor(sequence[:-1], dtype=torch.int64)
    targets = torch.tensor([int(token) for sequence in sequences for token in sequence[1:]], dtype=torch.int64)
    image_of_group = torch.tensor(images, dtype=torch.int64)
    return PackedTokens(tokens, targets, _real(lengths, tokens), lengths, image_of_group, per_group)


def _real(lengths: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Where the real tokens are: lengths (N,), tokens (N, T) -> indices (M,) into the N x T."""
    return (torch.arange(tokens.shape[1]) < lengths[:, None]).flatten().nonzero()[:, 0]
