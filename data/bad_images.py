"""Images that cannot be used: find them before hours of training, leave out a few, stop if there are many."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from cli import UserError, listed, note
from data.file_records import FileRecords
from data.images import ImageError, load_image
from data.shards import find_shards

MAX_BAD_SHARE = 0.05  # more unreadable images than this mean a wrong folder or a broken download


def find_bad_images(paths: Sequence[Path], workers: int = 2, cache_dir: Path | None = None) -> dict[Path, ImageError]:
    """Decode every image once, before hours of training, to find those that cannot be used.

    Args:
        workers: threads; Pillow releases the GIL while it decodes.
        cache_dir: folder in which the images that could be decoded are recorded (``sound_images.json``). While they do
            not change, they are not decoded again: not by the next stage, nor when the run is resumed.

    Returns:
        file -> why it cannot be used.
    """

    def check(path: Path) -> ImageError | None:
        try:
            load_image(path)
        except ImageError as error:
            return error
        return None

    records = FileRecords(cache_dir / "sound_images.json") if cache_dir else None
    unknown = [path for path in paths if records is None or records.recall(path) is None]
    bad: dict[Path, ImageError] = {}
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        errors = pool.map(check, unknown)
        bar = tqdm(errors, total=len(unknown), desc="checking images", unit="img", leave=False, disable=None)
        for path, error in zip(unknown, bar, strict=True):
            if error is not None:
                bad[path] = error
            elif records is not None:
                records.remember(path, "decoded")
    if records is not None:
        records.save()
    return bad


def check_image_dir(image_dir: str | Path) -> None:
    """Refuse a wrong folder before anything waits for a lock or reads a file. A tar is a folder; see ``data.shards``.

    Raises:
        UserError: no such folder.
    """
    if not Path(image_dir).is_dir() and not find_shards(Path(image_dir)):
        what = "a file, not a folder of images" if Path(image_dir).exists() else "no such folder of images"
        raise UserError(f"{image_dir}: {what}. Name it with --image_dir")


def drop_bad_images(
    references: dict[str, list[str]], image_dir: Path, bad: Mapping[Path, ImageError]
) -> dict[str, list[str]]:
    """Leave out the images in ``bad`` and print why.

    Raises:
        UserError: more than 5 % of the images are bad.
    """
    if not bad:  # as usual; then no path has to be made of 118,000 names
        return references
    here = {name: bad[image_dir / name] for name in references if image_dir / name in bad}
    if len(here) > MAX_BAD_SHARE * len(references):
        kinds = Counter(error.kind for error in here.values()).most_common()
        raise UserError(
            f"{len(here)} of {len(references)} images cannot be used (more than {MAX_BAD_SHARE:.0%}): "
            f"{', '.join(f'{count} {kind}' for kind, count in kinds)} ({listed(list(here))}). "
            f"Check --data.image_dir or --image_dir ({image_dir})"
        )
    note(*(f"skipped: {error}" for error in here.values()))
    return {name: captions for name, captions in references.items() if name not in here}
