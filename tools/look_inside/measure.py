"""What happens between the pixels of one photograph and its caption, in numbers.

Shape letters: P grid positions (twice as many with ``generate.mirror``), D encoder width, T tokens, (h, w) the grid.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from cli import UserError
from data.packing import pack
from data.vocab import END_ID, START_ID
from models.attention import AttentionDecoder, attend
from models.captioner import Captioner, unmirror
from models.model import EncoderCNN

SHOWN_WORDS = 3  # the likeliest of each step


@dataclass(frozen=True)
class Pixels:
    """The photograph as the encoder reads it."""

    size: tuple[int, int]  # width and height of the photograph
    tensor: torch.Tensor  # (3, S, S), normalised
    centre: tuple[int, int, int]  # red, green and blue, 0 to 255, of the pixel in the middle of the square


@dataclass(frozen=True)
class Grid:
    """What the encoder makes of it."""

    stages: list[tuple[int, ...]]  # the shape after each of its stages
    features: torch.Tensor  # (1, P, D), as captioning reads them
    cells: torch.Tensor  # (h, w, D), of the image alone, without its mirror image

    def similarity(self, row: int, column: int) -> torch.Tensor:
        """The cosine of the angle between the features of one cell and those of each (h, w)."""
        unit = nn.functional.normalize(self.cells, dim=-1)
        return unit @ unit[row, column]


@dataclass(frozen=True)
class Step:
    """How the decoder predicts one token of a caption."""

    word: str
    probability: float
    likeliest: list[tuple[str, float]]  # the likeliest words and their probabilities
    gate: float  # mean over H of sigmoid(W_b h): how much the decoder relies on what it attends to
    heads: torch.Tensor  # (heads, h, w), attention; each sums to 1

    @property
    def attention(self) -> torch.Tensor:
        """The mean of the heads (h, w), which maps of attention show."""
        return self.heads.mean(dim=0)


def attention_decoder(captioner: Captioner) -> AttentionDecoder:
    """The decoder of ``captioner``.

    Raises:
        UserError: it is another one than the one these measurements are about.
    """
    if not isinstance(captioner.decoder, AttentionDecoder) or not isinstance(captioner.encoder, EncoderCNN):
        raise UserError("--checkpoint: not one with decoder.name attention and encoder.name resnet50. Name another")
    return captioner.decoder


def look_at_pixels(captioner: Captioner, photo: Image.Image) -> Pixels:
    """Resize and normalise ``photo`` as the captioner does."""
    side = captioner.transform.image_size
    square = np.asarray(photo.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0))  # (S, S, 3)
    red, green, blue = square[side // 2, side // 2].tolist()
    return Pixels(photo.size, captioner.transform(photo), (red, green, blue))


@torch.no_grad()
def look_at_grid(captioner: Captioner, pixels: Pixels) -> Grid:
    """Encode the image, once stage by stage for the shapes, and once as captioning does."""
    assert isinstance(captioner.encoder, EncoderCNN)
    x, shapes = pixels.tensor[None], []
    for stage in captioner.encoder.stages:
        x = stage(x)
        shapes.append(tuple(x.shape))
    features = captioner.encode(pixels.tensor[None], mirror=captioner.config.generate.mirror).float()
    rows, columns = captioner.encoder.grid
    return Grid(shapes, features, features[0, : rows * columns].view(rows, columns, -1))


@torch.no_grad()
def read_caption(captioner: Captioner, features: torch.Tensor, tokens: Sequence[int]) -> list[Step]:
    """Read a caption, word by word as in teacher forcing: how the decoder predicts each of its tokens and the end.

    Args:
        features: (1, P, D).
        tokens: of the caption, without <start> and <end>.
    """
    decoder, words = attention_decoder(captioner), captioner.vocabulary.words
    caption, state = pack([[[START_ID, *tokens, END_ID]]]), decoder.start(features)
    with results_of(decoder.query) as queries, results_of(decoder.gate) as gates:
        logits, _, _ = decoder.read(caption, state)
    _, weights = attend(caption.padded(queries[0]), state.memory)  # (1, heads, T, P)
    probabilities = logits.softmax(dim=-1)  # (T, V)
    steps = []
    for target, row, gate, heads in zip(
        caption.targets.tolist(), probabilities, gates[0].sigmoid().mean(dim=1), weights[0].unbind(dim=1), strict=True
    ):
        best = row.topk(SHOWN_WORDS)
        likeliest = [(words[token], p) for token, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
        grid = captioner.encoder.grid
        maps = unmirror(heads, grid) if captioner.config.generate.mirror else heads.view(-1, *grid)
        steps.append(Step(words[target], float(row[target]), likeliest, float(gate), maps))
    return steps


@torch.no_grad()
def shapes(captioner: Captioner, features: torch.Tensor, tokens: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    """What the decoder computes to read a caption, and its shapes.

    Args:
        features: (1, P, D).
        tokens: of the caption, without <start> and <end>.
    """
    decoder, caption = attention_decoder(captioner), pack([[[START_ID, *tokens, END_ID]]])
    with results_of(decoder.embed) as embedded, results_of(decoder.query) as queries:
        state = decoder.start(features)
        logits, _, _ = decoder.read(caption, state)
    attended, weights = attend(caption.padded(queries[0]), state.memory)
    return [
        ("tokens", tuple(caption.tokens.shape)),
        ("embedded", tuple(embedded[0].shape)),
        ("state h of the LSTM", tuple(state.lstm[0].shape)),
        ("keys, values", tuple(state.memory.keys.shape)),
        ("queries", tuple(queries[0].shape)),
        ("attention weights", tuple(weights.shape)),
        ("attended values", tuple(attended.shape)),
        ("logits", tuple(logits.shape)),
    ]


@contextmanager
def results_of(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """The results of ``module`` in this block, a list that grows with each call."""
    results: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, result: results.append(result))
    try:
        yield results
    finally:
        handle.remove()
