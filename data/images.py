"""Image files of any kind -> upright RGB images, or the reason why they cannot be used; how large they may be."""

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

from cli import UserError, note
from data.file_records import FileRecords

MAX_BAD_SHARE = 0.05  # more unreadable images than this mean a wrong folder or a broken download
# A larger image is refused before it is decoded: a file of a few kilobytes can claim gigabytes ("decompression bomb").
MAX_PIXELS = 100_000_000
# Pillow's names of the formats in which people keep photos. It also reads documents, icons and films.
PHOTO_FORMATS = {"JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "HEIF"}
HEIC_SUFFIXES = {".heic", ".heif", ".hif"}
INSTALL_HEIC = "pip install -r requirements-heic.txt"

with contextlib.suppress(ImportError):  # optional: only HEIC and HEIF need it
    from pillow_heif import register_heif_opener

    register_heif_opener()

ImageSource = str | Path | Image.Image  # a file, or an image in memory


class ImageError(UserError):
    """An image that cannot be used, and why."""


def load_image(source: ImageSource | IO[bytes], formats: tuple[str, ...] | None = None) -> Image.Image:
    """Decode an image to 8-bit RGB, rotated as its EXIF tag demands; the first frame of an animation.

    Transparent pixels become white, 16-bit and floating-point greys are scaled to 8 bits. Comments and tags are
    removed, or Pillow would write them into every copy.

    Args:
        source: a file, or an image of any mode, which is not changed.
        formats: Pillow's names of the formats to accept; None: all.

    Raises:
        ImageError: not an image, damaged, truncated, or more than 100 megapixels.
    """
    name: object = source
    if not isinstance(source, str | Path):
        name = getattr(source, "name", None) or getattr(source, "filename", None) or "image"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large images; the check below decides
            with _open(source, formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    size = f"{image.width} x {image.height} pixels"
                    raise ImageError(f"{name}: {size}, more than {MAX_PIXELS // 10**6} megapixels. Scale it down")
                image.load()
                with contextlib.suppress(Exception):  # a damaged EXIF block is no reason to refuse an intact image
                    ImageOps.exif_transpose(image, in_place=True)
                rgb = _to_rgb(image)
                rgb.info = {}
                return rgb
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which it applies before the check above
        raise ImageError(f"{name}: more than {MAX_PIXELS // 10**6} megapixels. Scale it down") from error
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        if isinstance(error, UnidentifiedImageError):
            reason = _not_an_image(str(name))
        elif isinstance(error, OSError) and error.strerror:  # str(error) would repeat the path
            reason = f"cannot be read ({error.strerror})"
        else:
            reason = f"damaged image ({error})"
        raise ImageError(f"{name}: {reason}") from error


def _open(
    source: ImageSource | IO[bytes], formats: tuple[str, ...] | None
) -> contextlib.AbstractContextManager[Image.Image]:
    """The file, opened; or a copy of the image in memory."""
    if isinstance(source, Image.Image):
        return contextlib.nullcontext(source.copy())
    return Image.open(source, formats=formats)


def _not_an_image(name: str) -> str:
    if Path(name).suffix.lower() in HEIC_SUFFIXES - photo_suffixes():
        return f"HEIC needs another package: {INSTALL_HEIC}"
    return "not an image"


def _to_rgb(image: Image.Image) -> Image.Image:
    # Pillow's convert() would clip these modes at 255: all white.
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
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


def photo_suffixes() -> set[str]:
    """The suffixes of files that may be photos, such as ".jpg", as far as the installed packages can read them."""
    return {suffix for suffix, name in Image.registered_extensions().items() if name in PHOTO_FORMATS}


def load_image_bytes(data: bytes, name: str, formats: tuple[str, ...] | None = None) -> Image.Image:
    """``load_image`` for bytes that were already read; ``name`` is for error messages."""
    file = io.BytesIO(data)
    file.name = name
    return load_image(file, formats)


def find_bad_images(paths: Sequence[Path], workers: int = 2, cache_dir: Path | None = None) -> dict[Path, str]:
    """Decode every image once, before hours of training, to find those that cannot be used.

    Args:
        workers: threads; Pillow releases the GIL while it decodes.
        cache_dir: folder in which the images that could be decoded are recorded (``sound_images.json``). While they do
            not change, they are not decoded again: not by the next stage, nor when the run is resumed.

    Returns:
        file -> why it cannot be used.
    """

    def reason(path: Path) -> str | None:
        try:
            load_image(path)
        except ImageError as error:
            return str(error)
        return None

    records = FileRecords(cache_dir / "sound_images.json") if cache_dir else None
    unknown = [path for path in paths if records is None or records.recall(path) is None]
    bad: dict[Path, str] = {}
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        reasons = pool.map(reason, unknown)
        bar = tqdm(reasons, total=len(unknown), desc="checking images", unit="img", leave=False, disable=None)
        for path, text in zip(unknown, bar, strict=True):
            if text is not None:
                bad[path] = text
            elif records is not None:
                records.remember(path, "decoded")
    if records is not None:
        records.save()
    return bad


def check_image_dir(image_dir: str | Path) -> None:
    """Refuse a wrong folder before anything waits for a lock or reads a file.

    Raises:
        UserError: no such folder.
    """
    if not Path(image_dir).is_dir():
        raise UserError(f"{image_dir}: no such folder of images. Name it with --data.image_dir")


def drop_bad_images(references: dict[str, list[str]], image_dir: Path, bad: dict[Path, str]) -> dict[str, list[str]]:
    """Leave out the images in ``bad`` and print why.

    Raises:
        UserError: more than 5 % of the images are bad.
    """
    here = {name: bad[image_dir / name] for name in references if image_dir / name in bad}
    if len(here) > MAX_BAD_SHARE * len(references):
        first = next(iter(here.values()))
        raise UserError(
            f"{len(here)} of {len(references)} images cannot be used (more than {MAX_BAD_SHARE:.0%}); "
            f"the first: {first}. Check --data.image_dir or --image_dir ({image_dir})"
        )
    for reason in here.values():
        note(f"skipped: {reason}")
    return {name: captions for name, captions in references.items() if name not in here}
