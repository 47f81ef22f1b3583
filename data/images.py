"""From a file of any kind to an upright RGB picture, or the reason why it cannot be used."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from cli import UserError

MAX_BAD_SHARE = 0.05  # more bad images than this is a wrong folder or a broken download, not bad luck
MAX_PIXELS = (
    100_000_000  # more is refused before it is decoded: a few kilobytes can claim gigabytes ("decompression bomb")
)


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
    if image.mode in {"I", "F"} or image.mode.startswith(
        "I;16"
    ):  # Pillow's own convert() clips these at 255: all white
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


def load_image_bytes(data: bytes, name: str, formats: tuple[str, ...] | None = None) -> Image.Image:
    """``load_image`` for bytes already read (and hashed, say); ``name`` is for the message."""
    file = io.BytesIO(data)
    file.name = name
    return load_image(file, formats)


def find_bad_images(paths: Sequence[Path], workers: int = 2) -> dict[Path, str]:
    """Decode every image once, before hours are spent, and say which cannot be used and why."""

    def reason(path: Path) -> str | None:
        try:
            load_image(path)
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max(workers, 1)) as pool:  # Pillow decodes outside the GIL
        reasons = tqdm(
            pool.map(reason, paths), total=len(paths), desc="checking images", unit="img", leave=False, disable=None
        )
        return {path: text for path, text in zip(paths, reasons, strict=True) if text is not None}


def drop_bad_images(references: dict[str, list[str]], image_dir: Path, bad: dict[Path, str]) -> dict[str, list[str]]:
    """Leave out the images in ``bad``, each named with its reason.

    Raises:
        UserError: more than 5 % of the images are bad.
    """
    here = {name: bad[image_dir / name] for name in references if image_dir / name in bad}
    if len(here) > MAX_BAD_SHARE * len(references):
        first = next(iter(here.values()))
        raise UserError(
            f"{len(here)} of {len(references)} images cannot be used (more than {MAX_BAD_SHARE:.0%}); the first: {first}. "
            f"Check --data.image_dir, or --image_dir ({image_dir})"
        )
    for reason in here.values():
        tqdm.write(f"skipped: {reason}")
    return {name: captions for name, captions in references.items() if name not in here}
