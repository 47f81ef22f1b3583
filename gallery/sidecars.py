"""Sidecars beside the photos themselves. Photos, and files that hold anything else, are never changed."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from cli import UserError
from gallery.formats import sidecar_text
from gallery.photos import sidecar_path


def write_beside(photo: Path, caption: str, kinds: Iterable[str]) -> list[Path]:
    """Write the caption to sidecars of these kinds (txt, xmp) in the photo's folder.

    An existing file may be the user's, such as the edits that darktable keeps in dog.jpg.xmp, so it is kept. There is
    no temporary file that a killed run could leave in the folder; it leaves an empty sidecar, which is written next
    time.

    Returns:
        the existing files that do not hold this caption.

    Raises:
        UserError: the folder cannot be written.
    """
    kept = []
    for kind in kinds:
        path, content = sidecar_path(photo, kind), sidecar_text(caption, kind).encode("utf-8")
        try:
            existing = path.read_bytes() if path.exists() else b""
            if not existing:
                _write(path, content)
            elif existing != content:
                kept.append(path)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}). "
                "Without --in_place, sidecars are written to --output_dir"
            ) from error
    return kept


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError:  # such as a full disk: half a sidecar would be kept as the user's
        with contextlib.suppress(OSError):
            path.unlink()
        raise
