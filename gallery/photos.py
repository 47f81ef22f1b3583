"""The photos that --images selects among files, folders and patterns, and what they are called in a gallery."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli import UserError, did_you_mean, similar_files
from data.images import HEIC_SUFFIXES, INSTALL_HEIC, photo_suffixes

KINDS_SHOWN = 12  # of the files passed over; the rest are counted together


@dataclass(frozen=True)
class Photo:
    """An image to caption."""

    name: str  # as shown
    path: Path
    references: list[str] = field(default_factory=list)


def find_photos(arguments: Sequence[str], output_dir: Path | None) -> tuple[list[Photo], Counter[str]]:
    """The photos that files, folders (searched recursively) and patterns such as "*.jpg" select; each file once.

    A file named on its own is taken whatever its suffix, unless it is a sidecar of another one. A name is relative to
    the argument: the file's own name, or the folder's and the path inside. Only as many more parent folders are added
    as tell equal names apart, so that a gallery does not reveal home folders.

    Args:
        output_dir: left out, with all that is in it: an earlier gallery may be there. None: there is no such folder.

    Returns:
        the photos, and how many other files of each kind the folders and patterns select; without the sidecars of the
        photos, and without macOS' "._" files.

    Raises:
        UserError: an argument selects nothing, or is a web address; or there are photos in ``output_dir`` only.
    """
    name_parts: dict[Path, int] = {}  # file -> how many of the last parts of its path are its name
    passed_over: Counter[str] = Counter()
    gallery = _absolute(output_dir) if output_dir else None
    for paths, is_pattern in map(_expand, arguments):
        outside = [path for path in paths if gallery is None or not path.is_relative_to(gallery)]
        passed_over["in --output_dir"] += len(paths) - len(outside)
        files = [path for path in outside if not path.is_dir()]
        for file in _photos_among(files, passed_over) if is_pattern else files:
            name_parts.setdefault(file, 1)
        for folder in [path for path in outside if path.is_dir()]:
            for file in _search(folder, gallery, passed_over):
                name_parts.setdefault(file, len(file.parts) - max(len(folder.parts), 2) + 1)  # "/" has no name
    passed_over = +passed_over  # without those that are 0
    sidecars = _sidecars_of(name_parts)  # a shell's * selects them too
    name_parts = {file: count for file, count in name_parts.items() if file not in sidecars}
    if not name_parts:
        if passed_over["in --output_dir"]:
            raise UserError(
                f"--images: all are in --output_dir {output_dir} and might be overwritten. Choose another folder"
            )
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
    return _sidecar_candidates(image, kind)[0]


def sidecar_paths(images: Iterable[Path], kind: str) -> dict[Path, Path]:
    """The sidecar of each image: ``sidecar_path``, but dog.jpg.txt if dog.txt is that of an earlier one (dog.heic)."""
    paths: dict[Path, Path] = {}
    taken: set[str] = set()  # in lower case: for macOS and Windows, dog.txt and DOG.txt are the same file
    for image in images:
        first, *others = _sidecar_candidates(image, kind)
        paths[image] = others[0] if others and str(first).lower() in taken else first
        taken.add(str(paths[image]).lower())
    return paths


def _sidecar_candidates(image: Path, kind: str) -> list[Path]:
    """The sidecars that an image may have, the usual one first."""
    whole = image.with_name(f"{image.name}.{kind}")
    return [whole] if kind == "xmp" else [image.with_suffix(f".{kind}"), whole]


def _absolute(path: Path) -> Path:
    """Without "..", but with symbolic links as they are: ``resolve`` would show other names than the user's."""
    return Path(os.path.normpath(path.absolute()))


def _expand(argument: str) -> tuple[list[Path], bool]:
    """The existing files and folders that an argument names, and whether it is a pattern.

    Windows' shells expand no patterns, and no shell expands a quoted ~.
    """
    if re.match(r"[a-z][a-z0-9+.-]+://", argument, re.IGNORECASE):
        raise UserError(f"{argument}: a web address. Download the image first, such as with a browser or curl -O")
    path = Path(os.path.expanduser(argument))  # noqa: PTH111 - Path.expanduser fails for a file "~b.jpg"
    if path.exists():
        return [_absolute(path)], False
    if path.is_symlink():
        raise UserError(f"{argument}: a broken link (there is no {path.readlink()})")
    if matches := sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 - absolute too
        return [*map(_absolute, map(Path, matches))], True
    if set("*?[") & set(argument):
        raise UserError(f"{argument}: no file or folder matches")
    near = did_you_mean(similar_files(path))
    raise UserError(f"{argument}: no such file or folder{f': {near}' if near else ''}")


def _search(folder: Path, output_dir: Path | None, passed_over: Counter[str]) -> list[Path]:
    """The photos in ``folder`` and its subfolders, sorted; other files are added to ``passed_over``."""
    found: list[Path] = []

    def count_unreadable(error: OSError) -> None:
        passed_over["unreadable folder"] += 1

    for parent, subfolders, names in os.walk(folder, onerror=count_unreadable):
        inside = Path(parent)
        passed_over.update("linked folder" for name in subfolders if (inside / name).is_symlink())  # not followed
        subfolders[:] = [name for name in subfolders if inside / name != output_dir]
        found += _photos_among([inside / name for name in names], passed_over)
    return sorted(found)


def _photos_among(files: Sequence[Path], passed_over: Counter[str]) -> list[Path]:
    """The files with a photo's suffix; others but their sidecars and macOS' "._" files are added to ``passed_over``."""
    suffixes, sidecars, found = photo_suffixes(), _sidecars_of(files), []
    for file in files:
        if file.name.startswith("._") or file in sidecars:
            continue
        if not file.exists():
            passed_over["broken link"] += 1
        elif file.suffix.lower() in suffixes and file.is_file():
            found.append(file)
        else:
            passed_over[file.suffix.lower() or (file.name if file.name.startswith(".") else "without suffix")] += 1
    return found


def _sidecars_of(files: Iterable[Path]) -> set[Path]:
    """Where the photos among ``files`` may have sidecars."""
    suffixes = photo_suffixes() | HEIC_SUFFIXES
    photos = [file for file in files if file.suffix.lower() in suffixes]
    return {path for kind in ("txt", "xmp") for photo in photos for path in _sidecar_candidates(photo, kind)}


def _unique_names(name_parts: dict[Path, int]) -> dict[Path, str]:
    """File -> the last parts of its path: as many as given, or more where that is not unique."""
    while True:
        names = {file: "/".join(file.parts[-count:]) for file, count in name_parts.items()}
        times = Counter(names.values())
        if max(times.values()) == 1:
            return names
        name_parts = {file: count + (times[names[file]] > 1) for file, count in name_parts.items()}
