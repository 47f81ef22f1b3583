"""EncoderCNN, the eye (ResNet-50), and DecoderRNN, the tongue (the LSTM of Show and Tell).

Shape letters: B images, K captions per image, T tokens, P grid positions, D encoder width, E embedding, H hidden,
V vocabulary, N = B x beams.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchvision.models import resnet50

from data.vocab import PAD_ID
from models.decoder import WordDecoder, Words
from models.weights import _load_backbone, bundled_encoder


class EncoderCNN(nn.Module):
    """ResNet-50 (He et al. 2015, https://arxiv.org/abs/1512.03385) up to its last convolution: a grid of features.

    Args:
        weights: IMAGENET1K_V2, IMAGENET1K_V1, none, a file with a ResNet-50 state_dict in torchvision's names, or bundled: the pretrained
            captioner's, of the layout "original".
        layout: "torchvision" halves the resolution on a block's 3x3 convolution, "original" on its first 1x1.

    Raises:
        UserError: the weights cannot be had, are damaged, or belong to another network.
    """

    def __init__(self, weights: str = "none", layout: str = "torchvision") -> None:
        super().__init__()
        # Blocks that begin as the identity make a net from scratch learn sooner (Goyal et al. 2017); loaded weights overwrite it.
        net = resnet50(zero_init_residual=True)
        if weights not in ("none", "bundled"):
            _load_backbone(net, weights)
        if layout == "original":
            for stage in (net.layer2, net.layer3, net.layer4):
                stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
        self.layout = layout
        self.features_size: int = net.fc.in_features  # D = 2048
        # stages[0] is the stem, stages[1] to stages[4] are what the paper calls conv2_x to conv5_x
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = nn.ModuleList([stem, net.layer1, net.layer2, net.layer3, net.layer4])
        # Batch statistics of a dozen photographs are worse than those of ImageNet; only a net from scratch has to find its own.
        self.learns_batchnorm = weights == "none"
        if weights == "bundled":
            self.load_state_dict(bundled_encoder())
        self.to(memory_format=torch.channels_last)  # what convolutions on CPUs and tensor cores read fastest
        self.freeze()

    def freeze(self) -> None:
        """Nothing learns."""
        self.learn_from(len(self.stages))

    def learn_from(self, first: int) -> None:
        """Let the stages from ``first`` on learn (0: all, the stem included); those before are frozen."""
        self.first_learning = first
        for number, stage in enumerate(self.stages):
            stage.requires_grad_(number >= first)
        if not self.learns_batchnorm:
            for module in self._batchnorms(0):
                module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "EncoderCNN":
        """As in any module, but frozen parts stay in eval mode: their batch-norm statistics never move."""
        super().train(mode)
        for number, stage in enumerate(self.stages):
            if number < self.first_learning:
                stage.eval()
        if not self.learns_batchnorm:
            for module in self._batchnorms(0):
                module.eval()
        return self

    def _batchnorms(self, first: int) -> Iterator[nn.BatchNorm2d]:
        return (
            module for stage in self.stages[first:] for module in stage.modules() if isinstance(module, nn.BatchNorm2d)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, S, S), normalised -> grid features (B, P, D); P = (S / 32)^2, D = 2048."""
        grid = images.contiguous(memory_format=torch.channels_last)
        for number, stage in enumerate(self.stages):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.first_learning):
                grid = stage(grid)  # last: (B, D, S/32, S/32)
        return grid.flatten(2).transpose(1, 2)  # (B, P, D)

    def fingerprint(self) -> dict[str, Any]:
        """What tells this encoder's features from another's: layout and a hash of the weights."""
        digest = hashlib.sha256()
        for name, tensor in self.state_dict().items():
            digest.update(
                name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            )
        return {"layout": self.layout, "weights": digest.hexdigest()}


@dataclass
class LSTMState:
    """What the LSTM remembers of N open sentences: hidden and cell, each (1, N, H)."""

    hidden: torch.Tensor
    cell: torch.Tensor

    def select(self, index: torch.Tensor) -> "LSTMState":
        """The state of the sentences ``index`` (N',), in that order; a sentence may be taken more than once."""
        return LSTMState(self.hidden.index_select(1, index), self.cell.index_select(1, index))


class DecoderRNN(WordDecoder):
    """Show and Tell (Vinyals et al. 2015, https://arxiv.org/abs/1411.4555, eq. 10-12): the image is the first word read.

    x_-1 = BatchNorm(W_img mean(features)),   x_t = W_e S_t  with S_0 = <start>,   p_t+1 = softmax(W_out LSTM(x_t))
    """

    def __init__(
        self,
        vocab_size: int,
        features_size: int = 2048,
        embed_size: int = 256,
        hidden_size: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.image = nn.Linear(features_size, embed_size)
        # Without it all pictures look nearly alike to a fresh LSTM, and for epochs it says the same of each (measured).
        self.norm = nn.BatchNorm1d(embed_size)
        self.embed = nn.Embedding(vocab_size, embed_size, padding_idx=PAD_ID)
        self.lstm = nn.LSTM(embed_size, hidden_size, batch_first=True)
        # PyTorch's forget gates begin half closed: what was seen of the image would be down to 0.4 % after eight words. Open them
        # (Gers et al. 2000; Jozefowicz et al. 2015).
        with torch.no_grad():
            self.lstm.get_parameter("bias_ih_l0")[hidden_size : 2 * hidden_size].fill_(2.0)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, vocab_size)

    def start(self, features: torch.Tensor) -> LSTMState:
        """Read the image: features (B, P, D) -> state of B sentences, before any word."""
        image = self.norm(self.image(features.mean(dim=1)))  # (B, E)
        _, (hidden, cell) = self.lstm(image[:, None])  # each (1, B, H)
        return LSTMState(hidden, cell)

    def read(self, tokens: torch.Tensor, state: LSTMState) -> tuple[torch.Tensor, LSTMState, None]:
        """Some words further: tokens (N, T) -> logits (N, T, V), the new state, and no attention."""
        words = Words(tokens)
        hidden, lstm = words.through(
            self.lstm, self.dropout(self.embed(tokens)), (state.hidden, state.cell)
        )  # (N, T, H)
        logits = self.output(self.dropout(words.rows(hidden)))  # (M, V)
        return words.padded(logits), LSTMState(*lstm), None
