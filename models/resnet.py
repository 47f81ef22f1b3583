"""The network of ResNet-50 (He et al. 2015, https://arxiv.org/abs/1512.03385), with torchvision's names of its parts.

torchvision has the same network, but importing torchvision takes longer than captioning a photo: it imports PyTorch's
compiler for its detection operators. The tests hold both networks equal, random weights from a seed included.
"""

from typing import Literal

import torch
from torch import nn

Layout = Literal["torchvision", "original"]
EXPANSION = 4  # channels of a block's output per channel of its 3x3 convolution


class Bottleneck(nn.Module):
    """Three convolutions whose result is added to their input (figure 5, right): 1x1 to few channels, 3x3, 1x1 to many.

    Args:
        channels: of the input.
        width: channels of the 3x3 convolution; the output has ``EXPANSION`` times as many.
        out: channels of the output.
        stride: 2 halves the resolution.
        layout: which convolution does that, see ``ResNet50``.
    """

    def __init__(self, channels: int, width: int, out: int, stride: int, layout: Layout) -> None:
        super().__init__()
        downsample = None
        if stride != 1 or channels != out:  # the input cannot be added as it is
            downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        first, second = (stride, 1) if layout == "original" else (1, stride)
        self.conv1 = nn.Conv2d(channels, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, H, W) -> (B, out, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        result: torch.Tensor = self.relu(y)
        return result


class ResNet50(nn.Module):
    """A stem, four stages of blocks (conv2_x to conv5_x in the paper's table 1) and a classifier, randomly initialised.

    Args:
        layout: where a block halves the resolution: on its 3x3 convolution ("torchvision"), or on its first 1x1
            ("original": the paper, Caffe, Keras).
        blocks: per stage.
        width: channels of the 3x3 convolutions in the first stage; each further stage has twice as many.
    """

    def __init__(self, layout: Layout = "torchvision", blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        for stage, count in enumerate(blocks):
            out = 64 * EXPANSION << stage
            layer = []
            for block in range(count):
                stride = 2 if block == 0 and stage > 0 else 1
                layer.append(Bottleneck(channels, width << stage, out, stride, layout))
                channels = out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layer))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 1000)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, https://arxiv.org/abs/1502.01852, section 2.2
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            # Blocks that start as the identity help a network trained from scratch (Goyal et al. 2017, section 5.1)
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    def stages(self) -> list[nn.Module]:
        """What makes features: the stem and the four stages, each a module that reads the result of the one before."""
        stem = nn.Sequential(self.conv1, self.bn1, self.relu, self.maxpool)
        return [stem, *(module for name, module in self.named_children() if name.startswith("layer"))]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images (B, 3, H, W) -> logits of ImageNet's classes (B, 1000)."""
        x = images
        for stage in self.stages():
            x = stage(x)
        logits: torch.Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits
