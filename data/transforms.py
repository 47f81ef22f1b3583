"""The one preprocessing: from a file of any kind to the tensor the encoder reads, in training and in inference alike."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import ColorJitter, RandomResizedCrop


@dataclass(frozen=True)
class Transform:
    """RGB picture -> normalised tensor (3, size, size). Travels inside the checkpoint, so that inference cannot differ.

    The picture is squeezed to a square rather than cropped: what stands at the edge is worth a word too.
    """

    image_size: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of ImageNet, which the encoder was trained on
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Resize and normalise; ``image`` is RGB of any size."""
        square = image.resize((self.image_size, self.image_size), Image.Resampling.BICUBIC, reducing_gap=2.0)
        pixels = torch.from_numpy(np.asarray(square, dtype=np.float32) / 255.0)  # (S, S, 3)
        return ((pixels - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(2, 0, 1).contiguous()  # (3, S, S)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint and for the key of the feature cache."""
        return {"resize": "squeeze, bicubic", **asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Transform":
        """The transform stored in a checkpoint."""
        return cls(values["image_size"], tuple(values["mean"]), tuple(values["std"]))


@dataclass(frozen=True)
class Augment:
    """Random crop, mirror image and light before the ``Transform``: a picture that is never the same twice is hard to learn by heart.

    Args:
        smallest: least share of the picture's area that a crop keeps (Szegedy et al. 2015 use 0.08; captions name what is at the edge).
        flip: also mirror half the pictures.
        jitter: brightness, contrast and saturation change by up to this share; the hue does not, captions name colours.
    """

    smallest: float
    flip: bool
    jitter: float = 0.0

    def __call__(self, image: Image.Image, seed: int, *, may_flip: bool = True) -> Image.Image:
        """The same ``seed`` gives the same picture, whichever process asks. ``may_flip``: no caption says left or right."""
        with torch.random.fork_rng(devices=[]):  # dropout's random numbers stay as they were
            torch.default_generator.manual_seed(seed)  # the CPU's alone: GPUs have dropout's
            if self.smallest < 1:
                shape = (
                    image.width / image.height
                )  # a crop's differs by up to a third: squeezed to a square, things get wider or taller
                top, left, height, width = RandomResizedCrop.get_params(
                    image, [self.smallest, 1.0], [shape * 3 / 4, shape * 4 / 3]
                )
                image = image.crop((left, top, left + width, top + height))
            if self.flip and may_flip and torch.rand(()) < 0.5:
                image = ImageOps.mirror(image)
            if self.jitter > 0:
                image = ColorJitter(self.jitter, self.jitter, self.jitter)(image)
        return image
