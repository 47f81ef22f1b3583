"""Convert public data sets into this project's CSV: Flickr8k from its archives, others from a Karpathy JSON.

    python -m data.prepare flickr8k                            download, verify, unpack
    python -m data.prepare flickr8k --source FOLDER_OR_ZIP     the same from local copies
    python -m data.prepare karpathy dataset_coco.json --image_dir coco/images

The result is a ``captions.csv`` with the columns image, caption and split. To resume an interrupted run, run it again.
"""

import argparse
import csv
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cli import OptionParser, UserError, atomic_open, run_script
from data.annotations import (
    CAPTION_FILES,
    KARPATHY_FILE,
    SPLIT_LISTS,
    Annotations,
    parse_caption_file,
    parse_karpathy,
    parse_split_list,
)
from data.download import ArchiveMember, download_all, is_image, unpack_images, walk

BASE_URL = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
MD5S = {  # the small file first: a wrong address shows at once
    "Flickr8k_text.zip": "bf6c1abcb8e4a833b7f922104de18627",
    "Flickr8k_Dataset.zip": "f18a1e2920de5bd84dae7cf08ec78978",
}


@dataclass
class Prepared:
    """The rows written to the CSV, and what is missing from it."""

    rows: list[tuple[str, str, str]]  # (image, caption, split); every split is "" if none is known
    left_out: dict[str, list[str]]  # reason -> the image of each caption or image that was left out


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
            other = annotations.splits.setdefault(image, split)
            if other != split:  # the model would be tested on a training image
                raise UserError(f"{place}: {image} is in {split} here, but in {other} elsewhere. Remove one of the two")
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


def join(annotations: Annotations, images: set[str]) -> Prepared:
    """Keep the captions whose image exists (is in ``images``) and, if any splits are known, has a split."""
    splits, left_out = annotations.splits, defaultdict(list)
    rows, captioned, unsplit = [], set(), set()
    for image, caption in annotations.captions:
        if not caption:
            left_out["empty captions"].append(image)
        elif image not in images:
            left_out["captions without an image"].append(image)
        else:
            captioned.add(image)
            if splits and image not in splits:
                unsplit.add(image)
            else:
                rows.append((image, caption, splits.get(image, "")))
    left_out["images without a caption"] = sorted(images - captioned)
    left_out["images in no split"] = sorted(unsplit)
    for image, split in splits.items():
        if image not in images:
            left_out[f"images of the {split} split that do not exist"].append(image)
    return Prepared(rows, {reason: names for reason, names in left_out.items() if names})


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
        reasons = "; ".join(_left_out_lines(prepared))
        raise UserError(
            f"no caption has both an image in {image_dir} and a split. Pass what is missing with --source. {reasons}"
        )
    write_csv(prepared, output_dir / "captions.csv")
    return prepared


def prepare_karpathy(file: Path, image_dir: Path, output: Path) -> Prepared:
    """Write to ``output`` the captions in a Karpathy JSON whose images exist in ``image_dir``.

    Raises:
        UserError: no such file or folder, not a Karpathy JSON, or none of its images exists.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    if not image_dir.is_dir():
        raise UserError(f"--image_dir {image_dir}: no such folder")
    annotations = parse_karpathy(file.read_bytes(), str(file))
    names = dict.fromkeys([*annotations.splits, *(image for image, _ in annotations.captions)])
    prepared = join(annotations, {name for name in names if (image_dir / name).is_file()})
    if not prepared.rows:
        example = next(iter(names), "none named")
        raise UserError(
            f"--image_dir {image_dir}: of {len(names):,} images in {file}, none with a caption and a split "
            f"exists there ({example})"
        )
    write_csv(prepared, output)
    return prepared


def write_csv(prepared: Prepared, path: Path) -> None:
    """Write the rows atomically. If no split is known the column is omitted, and train.py splits the images itself."""
    columns = 3 if any(split for *_, split in prepared.rows) else 2
    with atomic_open(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "caption", "split")[:columns])
        writer.writerows(row[:columns] for row in prepared.rows)


def summary(prepared: Prepared) -> str:
    """Images and captions in total and per split, then what was left out."""
    captions = Counter(split for *_, split in prepared.rows)
    images = Counter(split for split, _ in {(split, image) for image, _, split in prepared.rows})
    lines = [f"{'all':<6}{images.total():>8,} images {captions.total():>8,} captions"]
    if captions[""]:
        official = ", ".join(SPLIT_LISTS)
        lines.append(f"no split list found: train.py will split the images itself. The official lists are {official}")
    else:
        lines += [
            f"{split:<6}{images[split]:>8,} images {captions[split]:>8,} captions" for split in SPLIT_LISTS.values()
        ]
    return "\n".join(lines + _left_out_lines(prepared))


def _left_out_lines(prepared: Prepared) -> list[str]:
    """One line per reason: how many were left out, and up to three names."""
    lines = []
    for reason, names in prepared.left_out.items():
        shown = list(dict.fromkeys(names))
        lines.append(f"left out: {len(names):,} {reason} ({', '.join(shown[:3])}{', ...' if len(shown) > 3 else ''})")
    return lines


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; ``--help`` after a command lists its options."""
    parser = OptionParser(prog="python -m data.prepare", description="Convert a data set into captions.csv and images.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{flickr8k,karpathy}")

    flickr8k = commands.add_parser(
        "flickr8k",
        help="download Flickr8k, or use local copies",
        description="Download Flickr8k (1.1 GB), or use local copies of it, and write images/ and captions.csv. "
        "To resume an interrupted run, run it again.",
    )
    flickr8k.add_argument(
        "--source",
        type=Path,
        nargs="+",
        action="extend",
        metavar="PATH",
        help="zips, folders, caption files and split lists to use instead of downloading",
    )
    flickr8k.add_argument(
        "--output_dir",
        type=Path,
        default=Path("data/flickr8k"),
        metavar="DIR",
        help="folder to write (default: %(default)s)",
    )
    flickr8k.add_argument(
        "--base_url",
        default=BASE_URL,
        metavar="URL",
        help=f"web folder that contains {' and '.join(MD5S)} (default: %(default)s)",
    )

    karpathy = commands.add_parser(
        "karpathy",
        help="convert a Karpathy JSON",
        description="Write the captions of a Karpathy JSON (dataset_coco.json, dataset_flickr30k.json ...) as a CSV; "
        "'restval' counts as train.",
    )
    karpathy.add_argument("file", type=Path, metavar="FILE.json", help="the JSON file")
    karpathy.add_argument(
        "--image_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that filepath/filename (or filename) in the JSON is relative to",
    )
    karpathy.add_argument(
        "--output",
        type=Path,
        metavar="FILE.csv",
        help="file to write (default: next to FILE.json, with the suffix .csv)",
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Prepare one data set as the command line asks."""
    args = parse_args(argv)
    if args.command == "flickr8k":
        sources = args.source or download_all(args.base_url, MD5S, args.output_dir / "downloads")
        prepared = prepare_flickr8k(sources, args.output_dir)
        output, image_dir = args.output_dir / "captions.csv", args.output_dir / "images"
    else:
        output, image_dir = args.output or args.file.with_suffix(".csv"), args.image_dir
        prepared = prepare_karpathy(args.file, image_dir, output)
    print(summary(prepared))
    print(f"Wrote {output}; the images are in {image_dir}")
    command = ["python", "train.py", "--config", "configs/flickr8k_lstm.yaml"]
    if output != Path("data/flickr8k/captions.csv"):  # the path in the recipe
        command += ["--data.captions_file", str(output), "--data.image_dir", str(image_dir)]
    print(f"Next: {shlex.join(command)}")


if __name__ == "__main__":
    run_script(main)
