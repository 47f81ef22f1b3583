"""Sidecars beside the photos themselves. Photos, and files that hold anything else, are never changed."""

from collections.abc import Iterable
from pathlib import Path

from files import atomic_open
from gallery.formats import sidecar_text


def write_sidecar(path: Path, caption: str, kind: str, earlier: Iterable[str] = ()) -> bool:
    """Write the caption to a sidecar (txt or xmp), unless the file holds something other than a caption of ours.

    An existing file may be the user's, such as the edits that darktable keeps in dog.jpg.xmp, so it is kept. Half a
    sidecar would be kept too, so it is written atomically; an empty one is filled.

    Args:
        earlier: captions that were generated for the photo before: a file with one of them is replaced.

    Returns:
        whether the file now holds the caption; False if it was kept.

    Raises:
        OSError: the file cannot be read or written.
    """
    content, *replaceable = [sidecar_text(text, kind).encode("utf-8") for text in (caption, *earlier)]
    existing = path.read_bytes() if path.exists() else b""
    if existing == content:
        return True
    if existing and existing not in replaceable:
        return False
    with atomic_open(path, "wb") as file:
        file.write(content)
    return True
