"""EncoderCNN (ResNet-50) and DecoderRNN (the LSTM of Show and Tell).

Shape letters: B images, P grid positions, D encoder width, N sequences, T tokens, M real tokens, E embedding, H hidden,
V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from config import LSTMConfig, ResNet50Config
from data.packing import PackedTokens
from data.transforms import Transform
from data.vocab import PAD_ID
from models.interfaces import Encoder, WordDecoder
from models.resnet import ResNet50
from models.weights import load_resnet50


class EncoderCNN(Encoder):
    """ResNet-50 (He et al. 2015, https://arxiv.org/abs/1512.03385) up to its last convolution.

    Args:
        config: where the weights come from, and the layout: "torchvision" halves the resolution on a block's 3x3
            convolution, "original" (the paper, Caffe, Keras) on its first 1x1.
        image_size: side of the square images in pixels.
        load_weights: False where a checkpoint is loaded afterwards.

    Raises:
        UserError: the weights cannot be found or downloaded, are damaged, or belong to another network.
    """

    def __init__(self, config: ResNet50Config, image_size: int = 224, *, load_weights: bool = True) -> None:
        super().__init__()
        assert config.layout != "auto"  # the config has chosen
        net = ResNet50(config.layout)
        if load_weights and config.weights != "none":
            load_resnet50(net, config)
        self.layout = config.layout
        self.features_size: int = net.fc.in_features  # D = 2048
        self.grid = (image_size // config.stride, image_size // config.stride)
        self.transform = Transform(image_size)
        self.stages = nn.ModuleList(net.stages())  # 0: the stem, 1 to 4: what the paper calls conv2_x to conv5_x
        # The statistics of a small batch are worse than ImageNet's; only a network trained from scratch needs its own
        self.train_batchnorm = config.weights == "none"
        self.to(memory_format=torch.channels_last)  # the fastest layout for convolutions on CPUs and tensor cores
        self.learn_from(None)

    def learn_from(self, first: int | None) -> None:
        """Train the stages from ``first`` on (0: the stem too); None freezes everything. See ``Encoder``."""
        self.first_trained = len(self.stages) if first is None else first
        for number, stage in enumerate(self.stages):
            stage.requires_grad_(number >= self.first_trained)
        for module in self._fixed_batchnorms():
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "EncoderCNN":
        """As in any module, but frozen parts stay in eval mode: their batch-norm statistics never move."""
        super().train(mode)
        for stage in self.stages[: self.first_trained]:
            stage.eval()
        for module in self._fixed_batchnorms():
            module.eval()
        return self

    def _fixed_batchnorms(self) -> list[nn.BatchNorm2d]:
        if self.train_batchnorm:
            return []
        return [module for module in self.stages.modules() if isinstance(module, nn.BatchNorm2d)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (B, 3, S, S) -> grid features (B, P, D); P = (S / 32)^2, D = 2048."""
        grid = images.contiguous(memory_format=torch.channels_last)
        for number, stage in enumerate(self.stages):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.first_trained):
                grid = stage(grid)  # after the last stage (B, D, S/32, S/32)
        return grid.flatten(2).transpose(1, 2)  # (B, P, D)

    def fingerprint(self) -> dict[str, Any]:
        """The layout and a hash of the weights; see ``Encoder``."""
        return {"layout": self.layout, "weights": super().fingerprint()["weights"]}


@dataclass
class LSTMState:
    """What the LSTM remembers of N sequences: hidden and cell, each (1, N, H)."""

    hidden: torch.Tensor
    cell: torch.Tensor

    def select(self, index: torch.Tensor, per_group: int) -> "LSTMState":
        """The state of the sequences ``index`` (N',); see ``models.interfaces.State``."""
        return LSTMState(self.hidden.index_select(1, index), self.cell.index_select(1, index))


class DecoderRNN(WordDecoder):
    """Show and Tell (Vinyals et al. 2015, https://arxiv.org/abs/1411.4555, eq. 10-12): the image is the first input.

    x_-1 = BatchNorm(W_img mean(features)),   x_t = W_e S_t  with S_0 = <start>,   p_t+1 = softmax(W_out LSTM(x_t))
    """

    def __init__(self, config: LSTMConfig, vocab_size: int, features_size: int) -> None:
        super().__init__()
        self.image = nn.Linear(features_size, config.embed_size)
        # Without it all images look alike to a fresh LSTM, which generates one caption for all, for epochs (measured)
        self.norm = nn.BatchNorm1d(config.embed_size)
        self.embed = nn.Embedding(vocab_size, config.embed_size, padding_idx=PAD_ID)
        self.lstm = nn.LSTM(config.embed_size, config.hidden_size, batch_first=True)
        open_forget_gate(self.lstm)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_size, vocab_size)

    def start(self, features: torch.Tensor) -> LSTMState:
        """Read the image: features (B, P, D) -> state of B sequences, before any token."""
        image = self.norm(self.image(features.mean(dim=1)))  # (B, E)
        _, (hidden, cell) = self.lstm(image[:, None])  # each (1, B, H)
        return LSTMState(hidden, cell)

    def read(
        self, tokens: PackedTokens, state: LSTMState, *, attention: bool = False
    ) -> tuple[torch.Tensor, LSTMState, None]:
        """Read further tokens: logits (M, V), the new state, no attention."""
        embedded = self.dropout(self.embed(tokens.tokens))  # (N, T, E)
        hidden, lstm = run_lstm(self.lstm, embedded, (state.hidden, state.cell), tokens)  # (N, T, H)
        return self.output(self.dropout(tokens.rows(hidden))), LSTMState(*lstm), None


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
