"""The plain model that the benchmark compares with: a ResNet-50 and decoders as tutorials of image captioning write
them.

It has the weights of a checkpoint of this project and computes the same function, in fp32, by the usual means:
torchvision's network in PyTorch's standard memory layout, and ``nn.LSTMCell`` in a loop over the time steps, as in most
code that follows Show, Attend and Tell. Nothing in it is slower than it would be there: captions are sorted by length,
so that finished ones are no longer computed, and keys and values of attention are computed once per caption.

Shape letters: N sequences, P grid positions, D encoder width, E embedding, H hidden, V vocabulary, T time steps,
M real tokens.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
import torchvision
from torch import nn
from torch.nn import functional

from config import AttentionConfig, DecoderConfig, LSTMConfig

STAGES = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")  # of torchvision's ResNet
ENCODER_WIDTH = 2048  # D of a ResNet-50


class PlainEncoder(nn.Module):
    """torchvision's ResNet-50 without its pooling and classifier.

    Args:
        layout: "original" moves the stride of a block to its first convolution, as the bundled weights need it.
    """

    def __init__(self, layout: str) -> None:
        super().__init__()
        resnet = torchvision.models.resnet50(weights=None)
        if layout == "original":
            for block in resnet.modules():
                if isinstance(block, torchvision.models.resnet.Bottleneck):
                    block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        self.resnet = nn.Sequential()
        for name in STAGES:
            self.resnet.add_module(name, resnet.get_submodule(name))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (N, 3, S, S) -> grid features (N, P, D)."""
        features: torch.Tensor = self.resnet(images)
        return features.flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class PlainState:
    """What N sequences remember."""

    hidden: torch.Tensor  # (N, H)
    cell: torch.Tensor  # (N, H)
    keys: torch.Tensor | None = None  # (N, heads, P, H / heads), of a decoder with attention
    values: torch.Tensor | None = None

    def rows(self, index: torch.Tensor | slice) -> "PlainState":
        """The state of some of the sequences."""
        keys, values = (None if each is None else each[index] for each in (self.keys, self.values))
        return PlainState(self.hidden[index], self.cell[index], keys, values)


class PlainDecoder(nn.Module, ABC):
    """A decoder that computes one time step at a time; subclasses define how it starts and a step."""

    @abstractmethod
    def start(self, features: torch.Tensor) -> PlainState:
        """Read the image of each sequence: features (N, P, D)."""

    @abstractmethod
    def step(self, words: torch.Tensor, state: PlainState) -> tuple[torch.Tensor, PlainState]:
        """Read the last word of each sequence (N,): logits (N, V) of the next one, and the new state."""

    def forward(self, features: torch.Tensor, captions: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Teacher forcing.

        Args:
            features: (N, P, D), of the image of each caption.
            captions: (N, T), padded; sorted by falling ``lengths``.
            lengths: N numbers of words to read.

        Returns:
            logits (M, V), time step by time step.
        """
        state, logits = self.start(features), []
        for time in range(lengths[0]):
            still_open = slice(sum(length > time for length in lengths))
            step, state = self.step(captions[still_open, time], state.rows(still_open))
            logits.append(step)
        return torch.cat(logits)


class PlainLSTM(PlainDecoder):
    """Show and Tell: the mean of the grid is the first input of an LSTM."""

    def __init__(self, config: LSTMConfig, vocab_size: int, features_size: int) -> None:
        super().__init__()
        self.image = nn.Linear(features_size, config.embed_size)
        self.norm = nn.BatchNorm1d(config.embed_size)
        self.embed = nn.Embedding(vocab_size, config.embed_size)
        self.lstm = nn.LSTMCell(config.embed_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_size, vocab_size)

    def start(self, features: torch.Tensor) -> PlainState:
        """See ``PlainDecoder``."""
        return PlainState(*self.lstm(self.norm(self.image(features.mean(dim=1)))))

    def step(self, words: torch.Tensor, state: PlainState) -> tuple[torch.Tensor, PlainState]:
        """See ``PlainDecoder``."""
        hidden, cell = self.lstm(self.dropout(self.embed(words)), (state.hidden, state.cell))
        return self.output(self.dropout(hidden)), PlainState(hidden, cell)


class PlainAttention(PlainDecoder):
    """Show, Attend and Tell with the scaled dot-product attention of ``models.attention.AttentionDecoder``."""

    def __init__(self, config: AttentionConfig, vocab_size: int, features_size: int) -> None:
        super().__init__()
        embed, hidden = config.embed_size, config.hidden_size
        self.heads = config.heads
        self.grid, self.norm = nn.Linear(features_size, hidden), nn.BatchNorm1d(hidden)
        self.begin, self.memory = nn.Linear(hidden, 2 * hidden), nn.Linear(hidden, 2 * hidden)
        self.embed = nn.Embedding(vocab_size, embed)
        self.lstm = nn.LSTMCell(embed, hidden)
        self.query, self.gate = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.say_hidden, self.say_seen = nn.Linear(hidden, embed), nn.Linear(hidden, embed)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(embed, vocab_size)

    def start(self, features: torch.Tensor) -> PlainState:
        """See ``PlainDecoder``."""
        grid = self.dropout(self.norm(self.grid(features).transpose(1, 2)).transpose(1, 2))  # (N, P, H)
        hidden, cell = torch.tanh(self.begin(grid.mean(dim=1))).chunk(2, dim=1)
        keys, values = (self._split(half) for half in self.memory(grid).chunk(2, dim=2))
        return PlainState(hidden, cell, keys, values)

    def step(self, words: torch.Tensor, state: PlainState) -> tuple[torch.Tensor, PlainState]:
        """See ``PlainDecoder``."""
        assert state.keys is not None and state.values is not None
        embedded = self.dropout(self.embed(words))
        hidden, cell = self.lstm(embedded, (state.hidden, state.cell))
        query = self._split(self.query(hidden)[:, None])  # (N, heads, 1, H / heads)
        weights = functional.softmax(query @ state.keys.transpose(2, 3) / query.shape[3] ** 0.5, dim=3)
        attended = (weights @ state.values).flatten(1) * torch.sigmoid(self.gate(hidden))  # (N, H)
        deep = embedded + self.say_hidden(self.dropout(hidden)) + self.say_seen(attended)
        return self.output(self.dropout(deep)), replace(state, hidden=hidden, cell=cell)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(N, P, H) -> (N, heads, P, H / heads)."""
        n, p, h = x.shape
        return x.view(n, p, self.heads, h // self.heads).transpose(1, 2)


def plain_decoder(config: DecoderConfig, vocab_size: int, features_size: int) -> PlainDecoder:
    """A plain decoder of the kind and size that ``config`` names, randomly initialised."""
    if isinstance(config, LSTMConfig):
        return PlainLSTM(config, vocab_size, features_size)
    assert isinstance(config, AttentionConfig), config.name  # there are no others, see plain_copy.require_plain
    return PlainAttention(config, vocab_size, features_size)


class PlainModel(nn.Module):
    """An encoder and a decoder, randomly initialised.

    Args:
        layout: see ``PlainEncoder``.
        config: of the decoder.
    """

    def __init__(self, layout: str, config: DecoderConfig, vocab_size: int) -> None:
        super().__init__()
        self.encoder = PlainEncoder(layout)
        self.decoder = plain_decoder(config, vocab_size, ENCODER_WIDTH)
