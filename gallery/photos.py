"""The photos that --images selects among files, folders and patterns, and what they are called in a gallery."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli import UserError
from data.images import HEIC_SUFFIXES, INSTALL_HEIC, photo_suffixes

KINDS_SHOWN = 12  # of the files passed over; the rest are counted together


@dataclass(frozen=True)
class Photo:
    """An image to caption."""

    name: str  # as shown
    path: Path
    references: list[str] = field(default_factory=list)


def find_photos(arguments: Sequence[str], output_dir: Path) -> tuple[list[Photo], Counter[str]]:
    """The photos that files, folders (searched recursively) and patterns such as "*.jpg" select; each file once.

    A file named on its own is taken whatever its suffix. A name is relative to the argument: the file's own name, or
    the folder's and the path inside. Only as many more parent folders are added as tell equal names apart, so that a
    gallery does not reveal home folders.

    Args:
        output_dir: left out where it is inside a searched folder: an earlier gallery may be in it.

    Returns:
        the photos, and how many other files of each kind the folders contain; without the sidecars of the photos, and
        without macOS' "._" files.

    Raises:
        UserError: an argument selects nothing, or is a web address.
    """
    name_parts: dict[Path, int] = {}  # file -> how many of the last parts of its path are its name
    passed_over: Counter[str] = Counter()
    for path in _expand(arguments):
        if path.is_dir():
            for file in _search(path, _absolute(output_dir), passed_over):
                name_parts.setdefault(file, len(file.parts) - max(len(path.parts), 2) + 1)  # "/" has no name
        else:
            name_parts.setdefault(path, 1)
    if not name_parts:
        others = f" ({describe(passed_over)})" if passed_over else ""
        raise UserError(f"{', '.join(arguments)}: no images found{others}")
    return [Photo(name, file) for file, name in _unique_names(name_parts).items()], passed_over


def describe(passed_over: Counter[str]) -> str:
    """One line about the files that are not photos, such as "3 other files passed over: 2 .mp4, 1 .svg"."""
    kinds = sorted(passed_over.items(), key=lambda item: (item[0] not in HEIC_SUFFIXES, -item[1], item[0]))
    shown = [f"{count} {kind}" + f" ({INSTALL_HEIC})" * (kind in HEIC_SUFFIXES) for kind, count in kinds[:KINDS_SHOWN]]
    if rest := sum(count for _, count in kinds[KINDS_SHOWN:]):
        shown.append(f"{rest} of other kinds")
    total = passed_over.total()
    return f"{total} other file{'s' * (total != 1)} passed over: {', '.join(shown)}"


def sidecar_path(image: Path, kind: str) -> Path:
    """Where programs look for the sidecar of an image: dog.txt (trainers of image generators), dog.jpg.xmp.

    darktable, digiKam and Immich read dog.jpg.xmp. Lightroom's dog.xmp belongs to the raw file of that name.
    """
    return image.with_name(f"{image.name}.xmp") if kind == "xmp" else image.with_suffix(f".{kind}")


def _absolute(path: Path) -> Path:
    """Without "..", but with symbolic links as they are: ``resolve`` would show other names than the user's."""
    return Path(os.path.normpath(path.absolute()))


def _expand(arguments: Sequence[str]) -> Iterator[Path]:
    """The existing files and folders that the arguments name. Windows' shells expand no patterns, and quotes no ~."""
    for argument in arguments:
        if re.match(r"[a-z][a-z0-9+.-]+://", argument, re.IGNORECASE):
            raise UserError(f"{argument}: a web address. Download the image first, such as with a browser or curl -O")
        path = Path(argument).expanduser()
        if path.exists():
            yield _absolute(path)
        elif path.is_symlink():
            raise UserError(f"{argument}: a broken link (there is no {path.readlink()})")
        elif matches := sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 - absolute too
            yield from map(_absolute, map(Path, matches))
        else:
            kind = "no file or folder matches" if set("*?[") & set(argument) else "no such file or folder"
            raise UserError(f"{argument}: {kind}")


def _search(folder: Path, output_dir: Path, passed_over: Counter[str]) -> list[Path]:
    """The photos in ``folder`` and its subfolders, sorted; other files are added to ``passed_over``."""
    suffixes, found = photo_suffixes(), []

    def count_unreadable(error: OSError) -> None:
        passed_over["unreadable folder"] += 1

    for parent, subfolders, names in os.walk(folder, onerror=count_unreadable):
        inside = Path(parent)
        passed_over.update("linked folder" for name in subfolders if (inside / name).is_symlink())  # not followed
        subfolders[:] = [name for name in subfolders if inside / name != output_dir]
        photos = [Path(name) for name in names if Path(name).suffix.lower() in suffixes]
        sidecars = {sidecar_path(photo, kind).name for photo in photos for kind in ("txt", "xmp")}
        for file in [inside / name for name in names if not name.startswith("._") and name not in sidecars]:
            if not file.exists():
                passed_over["broken link"] += 1
            elif file.suffix.lower() in suffixes and file.is_file():
                found.append(file)
            else:
                passed_over[file.suffix.lower() or (file.name if file.name.startswith(".") else "without suffix")] += 1
    return sorted(found)


def _unique_names(name_parts: dict[Path, int]) -> dict[Path, str]:
    """File -> the last parts of its path: as many as given, or more where that is not unique."""
    while True:
        names = {file: "/".join(file.parts[-count:]) for file, count in name_parts.items()}
        times = Counter(names.values())
        if max(times.values()) == 1:
            return names
        name_parts = {file: count + (times[names[file]] > 1) for file, count in name_parts.items()}
