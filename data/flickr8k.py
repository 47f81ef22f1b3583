"""Flickr8k: captions and splits from whichever of its text files there are, images from its archives."""

from collections.abc import Iterable
from pathlib import Path

from cli import UserError
from data.annotations import (
    CAPTION_FILES,
    KARPATHY_FILE,
    SPLIT_LISTS,
    Annotations,
    parse_caption_file,
    parse_karpathy,
    parse_split_list,
)
from data.conversion import Prepared, join, left_out_lines, write_csv
from data.download import ArchiveMember, is_image, unpack_images, walk


def read_sources(sources: Iterable[Path]) -> Annotations:
    """Captions and splits of Flickr8k from all of its text files that ``sources`` (files, folders, zips) contain.

    Raises:
        UserError: no captions, two different files with the same name, an image in two splits, or a malformed file.
    """
    texts = _find_texts(list(sources))
    annotations = Annotations()
    if KARPATHY_FILE in texts:
        annotations = parse_karpathy(*texts[KARPATHY_FILE])
    for name in CAPTION_FILES:
        if name in texts:
            annotations.captions = parse_caption_file(*texts[name])
            break
    for name, split in SPLIT_LISTS.items():
        data, place = texts.get(name, (b"", ""))
        for image in parse_split_list(data):
            annotations.assign(image, split, place)
    if not annotations.captions:
        raise UserError(
            f"--source: no captions found. One of {', '.join(CAPTION_FILES)}, {KARPATHY_FILE} or Flickr8k_text.zip is "
            "needed"
        )
    return annotations


def _find_texts(sources: list[Path]) -> dict[str, tuple[bytes, str]]:
    """The text files of Flickr8k in ``sources``: file name -> (content, path)."""
    texts: dict[str, tuple[bytes, str]] = {}
    known = {name.lower(): name for name in (*CAPTION_FILES, *SPLIT_LISTS, KARPATHY_FILE)}
    for member in walk(sources):
        name = known.get(member.name.lower())
        if name is None and Path(member.place) in sources:  # every file that the user names must be of use
            name = _name_of_source(member)
        if name is None:
            continue
        if member.problem:
            raise UserError(f"{member.place}: refused, like all {member.problem}. Pass an intact copy with --source")
        data = member.read()
        same, first = texts.setdefault(name, (data, member.place))
        if same != data:
            raise UserError(f"{first} and {member.place} differ. Pass the one to use, and the images, with --source")
    return texts


def _name_of_source(member: ArchiveMember) -> str | None:
    """The known file that an argument of ``--source`` stands for: any JSON is Karpathy's; None for an image."""
    if member.name.lower().endswith(".json"):
        return KARPATHY_FILE
    if is_image(member.name):
        return None
    raise UserError(
        f"--source {member.place}: neither a zip, an image, a .json, nor one of "
        f"{', '.join((*CAPTION_FILES, *SPLIT_LISTS))}"
    )


def prepare_flickr8k(sources: Iterable[Path], output_dir: Path) -> Prepared:
    """Write ``output_dir/images/`` and ``output_dir/captions.csv`` from the archives, folders and files in ``sources``.

    Raises:
        UserError: see ``read_sources`` and ``data.download.walk``; also if no caption has an image.
    """
    sources = list(sources)
    annotations = read_sources(sources)  # before the slow part, so that a malformed file shows at once
    image_dir = output_dir / "images"
    skipped = unpack_images(sources, image_dir)
    prepared = join(annotations, {path.name for path in image_dir.iterdir() if is_image(path.name)})
    prepared.left_out.update(skipped)
    if not prepared.rows:
        reasons = "; ".join(left_out_lines(prepared))
        raise UserError(
            f"no caption has both an image in {image_dir} and a split. Pass what is missing with --source. {reasons}"
        )
    write_csv(prepared, output_dir / "captions.csv")
    return prepared
