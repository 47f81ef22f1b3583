"""A training step as tutorials write it: the image goes through the encoder for each of its captions, in every epoch.

It trains the decoder on a frozen encoder in fp32. The images are in memory already: reading them is not counted.

Shape letters: B images, N captions, T time steps, M real tokens, S pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from data.vocab import PAD_ID
from tools.benchmark.plain_model import PlainModel


@dataclass(frozen=True)
class PlainBatch:
    """N pairs of an image and a caption, sorted by falling length."""

    images: torch.Tensor  # (N, 3, S, S): an image is there once for each of its captions
    captions: torch.Tensor  # (N, T), what is read: <start> w1 ... wn, then <pad>
    targets: torch.Tensor  # (M,), the words to predict, time step by time step
    lengths: list[int]  # N numbers of words that are read


def make_batch(images: torch.Tensor, captions: Sequence[Sequence[Sequence[int]]]) -> PlainBatch:
    """Pair the images (B, 3, S, S) with their captions, each ``<start> w1 ... wn <end>`` as ids."""
    pairs = [(number, list(tokens)) for number, its_captions in enumerate(captions) for tokens in its_captions]
    pairs.sort(key=lambda pair: -len(pair[1]))
    lengths = [len(tokens) - 1 for _, tokens in pairs]
    padded = pad_sequence([torch.tensor(tokens) for _, tokens in pairs], batch_first=True, padding_value=PAD_ID)
    targets = [padded[: sum(length > time for length in lengths), time + 1] for time in range(lengths[0])]
    repeated = images[torch.tensor([number for number, _ in pairs])]
    device = images.device
    return PlainBatch(repeated, padded[:, :-1].to(device), torch.cat(targets).to(device), lengths)


def loss_of(model: PlainModel, batch: PlainBatch, label_smoothing: float) -> torch.Tensor:
    """Cross-entropy per word; gradients flow into the decoder only."""
    with torch.no_grad():
        features = model.encoder(batch.images)
    logits = model.decoder(features, batch.captions, batch.lengths)
    return functional.cross_entropy(logits, batch.targets, label_smoothing=label_smoothing)


def train_step(
    model: PlainModel, optimizer: torch.optim.Optimizer, batch: PlainBatch, label_smoothing: float, clip: float
) -> float:
    """Update the decoder once; return the loss.

    Args:
        clip: largest norm of the gradient.
    """
    loss = loss_of(model, batch, label_smoothing)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(model.decoder.parameters(), clip)
    optimizer.step()
    return loss.item()
