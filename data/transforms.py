"""The preprocessing that training and inference share: RGB image -> tensor for the encoder; and augmentation."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image, ImageOps

from data.pixels import normalised


@dataclass(frozen=True)
class Transform:
    """RGB image -> normalised tensor (3, S, S). Saved in the checkpoint, so that inference does the same as training.

    The image is resized to a square rather than cropped, because captions also name what is at the edge.

    Args:
        image_size: side S of the square, in pixels.
        mean, std: of each channel, in 0-1; ImageNet's, which the encoder was trained with.
    """

    image_size: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Resize and normalise; ``image`` is RGB of any size."""
        return torch.from_numpy(normalised(image, self.image_size, self.mean, self.std))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint and for the key of the feature cache."""
        return {"resize": "squeeze, bicubic", **asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Transform":
        """The transform saved in a checkpoint."""
        return cls(values["image_size"], tuple(values["mean"]), tuple(values["std"]))


@dataclass(frozen=True)
class Augment:
    """Random crop, flip and colour jitter of training images, before the ``Transform``; they reduce overfitting.

    Args:
        smallest: smallest fraction of the area that a crop keeps; 1: no crop. Szegedy et al. (2015) use 0.08, but
            captions also name what is at the edge.
        flip: flip half of the images horizontally.
        jitter: brightness, contrast and saturation change by up to this fraction. Hue does not: captions name colours.
    """

    smallest: float
    flip: bool
    jitter: float = 0.0

    def __call__(self, image: Image.Image, seed: int, *, may_flip: bool = True) -> Image.Image:
        """Augment one image; the result depends on ``image`` and ``seed`` alone, in whichever process.

        Args:
            may_flip: False for an image whose captions mention left or right.
        """
        from torchvision.transforms import ColorJitter, RandomResizedCrop  # takes 1.5 s: not for captioning

        with torch.random.fork_rng(devices=[]):  # leaves the random numbers of dropout as they are
            torch.default_generator.manual_seed(seed)  # of the CPU only: on a GPU, dropout draws from the GPU's
            if self.smallest < 1:
                # The aspect ratio changes by up to a third; resizing to a square then stretches what is shown.
                aspect = image.width / image.height
                area, ratio = [self.smallest, 1.0], [aspect * 3 / 4, aspect * 4 / 3]
                top, left, height, width = RandomResizedCrop.get_params(image, area, ratio)
                image = image.crop((left, top, left + width, top + height))
            if self.flip and may_flip and torch.rand(()) < 0.5:
                image = ImageOps.mirror(image)
            if self.jitter > 0:
                image = ColorJitter(self.jitter, self.jitter, self.jitter)(image)
        return image
