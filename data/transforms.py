"""The one preprocessing: from a file of any kind to the tensor the encoder reads, in training and in inference alike."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms import ColorJitter, RandomResizedCrop

from utils import UserError

MAX_PIXELS = 100_000_000  # more is refused before it is decoded: a few kilobytes can claim gigabytes ("decompression bomb")
SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}


class ImageError(UserError):
    """A picture that cannot be used, and why."""


def load_image(source: str | Path | IO[bytes], formats: tuple[str, ...] | None = None) -> Image.Image:
    """Decode any picture to 8-bit RGB, upright as its EXIF tag says; the first frame of an animation.

    Transparent pixels are laid on white, 16-bit and floating-point greys are scaled to 8 bits. Comments and tags are left behind, or Pillow
    would write them into every copy.

    Args:
        formats: Pillow's names of those that are read; None: all.

    Raises:
        ImageError: not a picture, damaged, cut short, or more than 100 megapixels.
    """
    name = source if isinstance(source, str | Path) else getattr(source, "name", "picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; the check below decides
            with Image.open(source, formats=formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(
                        f"{name}: {image.width} x {image.height} pixels, more than {MAX_PIXELS // 10**6} megapixels. Scale it down"
                    )
                image.load()
                with contextlib.suppress(Exception):  # a broken EXIF block is no reason to refuse a sound picture
                    ImageOps.exif_transpose(image, in_place=True)
                picture = _to_rgb(image)
                picture.info = {}
                return picture
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, met before the size is known here
        raise ImageError(f"{name}: more than {MAX_PIXELS // 10**6} megapixels. Scale it down") from error
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        if isinstance(error, UnidentifiedImageError):
            reason = "not a picture"
        elif isinstance(error, OSError) and error.strerror:  # its text would tell the path again
            reason = f"cannot be read ({error.strerror})"
        else:
            reason = f"damaged picture ({error})"
        raise ImageError(f"{name}: {reason}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):  # Pillow's own convert() clips these at 255: all white
        grey = np.asarray(image, dtype=np.float32)
        if image.mode.startswith("I;16") or (image.mode == "I" and grey.max(initial=0) > 255):
            grey = grey / 257.0
        elif image.mode == "F" and grey.max(initial=0) <= 1:
            grey = grey * 255.0
        return Image.fromarray(np.nan_to_num(grey).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The picture files among ``paths``: files as they are named, folders searched through, sorted, each file once.

    Raises:
        UserError: a path that does not exist, or no picture at all.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            found.update(dict.fromkeys(inside))
        elif path.is_file():
            found[path] = None
        else:
            raise UserError(f"{path}: no such file or folder")
    if not found:
        raise UserError(f"{', '.join(map(str, paths))}: no picture there (looked for {', '.join(sorted(SUFFIXES))})")
    return list(found)


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
                shape = image.width / image.height  # a crop's differs by up to a third: squeezed to a square, things get wider or taller
                top, left, height, width = RandomResizedCrop.get_params(image, [self.smallest, 1.0], [shape * 3 / 4, shape * 4 / 3])
                image = image.crop((left, top, left + width, top + height))
            if self.flip and may_flip and torch.rand(()) < 0.5:
                image = ImageOps.mirror(image)
            if self.jitter > 0:
                image = ColorJitter(self.jitter, self.jitter, self.jitter)(image)
        return image


def load_image_bytes(data: bytes, name: str, formats: tuple[str, ...] | None = None) -> Image.Image:
    """``load_image`` for bytes already read (and hashed, say); ``name`` is for the message."""
    file = io.BytesIO(data)
    file.name = name
    return load_image(file, formats)
