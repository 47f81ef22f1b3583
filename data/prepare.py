"""Turn the public copies of Flickr8k, or a Karpathy JSON, into the CSV layout this repo trains on.

    python -m data.prepare flickr8k                            download, check, unpack
    python -m data.prepare flickr8k --source FOLDER_OR_ZIP     the same from local copies
    python -m data.prepare karpathy dataset_coco.json --image_dir coco/images

The result is a ``captions.csv`` with the columns image, caption, split. An interrupted run goes on when it is run again.
"""

import argparse
import csv
import io
import json
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cli import OptionParser, UserError, atomic_open, run_script
from data.download import Entry, download_all, is_image, unpack_images, walk

BASE_URL = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
MD5S = {  # the small one first: a wrong address shows at once
    "Flickr8k_text.zip": "bf6c1abcb8e4a833b7f922104de18627",
    "Flickr8k_Dataset.zip": "f18a1e2920de5bd84dae7cf08ec78978",
}
SPLIT_LISTS = {
    "Flickr_8k.trainImages.txt": "train",
    "Flickr_8k.devImages.txt": "val",
    "Flickr_8k.testImages.txt": "test",
}
CAPTION_FILES = ("Flickr8k.token.txt", "captions.txt")  # the first one found is used: they hold the same captions
KARPATHY_FILE = "dataset_flickr8k.json"
# COCO's "restval" is the part of its validation images that everybody trains on.
KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}


@dataclass
class Annotations:
    """What the caption files and split lists say, before any image is looked at."""

    captions: list[tuple[str, str]] = field(default_factory=list)  # (image, caption), in file order
    splits: dict[str, str] = field(default_factory=dict)  # image -> train, val or test


@dataclass
class Prepared:
    """What was written, for the summary."""

    rows: list[tuple[str, str, str]]  # (image, caption, split); split is "" throughout when no split is known
    left_out: dict[str, list[str]]  # reason -> the images concerned, one entry for each thing left out


def decode(data: bytes) -> str:
    """Text in UTF-8 (with or without a BOM) or, failing that, Latin-1."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_captions(data: bytes, place: str) -> list[tuple[str, str]]:
    """(image, caption) pairs of a caption file in either public layout, told apart by the first line.

    ``captions.txt`` is a CSV with the header ``image,caption``; a line of ``Flickr8k.token.txt`` is ``name.jpg#0<TAB>caption``.

    Raises:
        UserError: a line that is neither; ``place`` and the line are named.
    """
    text = decode(data)
    first = text.partition("\n")[0][:1000]  # cut: what is no text at all may have no line ends
    header = [name.strip().lower() for name in next(csv.reader([first]), [])]
    if "image" in header and "caption" in header:
        return read_csv(text, place, header.index("image"), header.index("caption"))
    captions = []
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):  # newline=None: CRLF reads as \n
        match = re.fullmatch(r"([^\t]+?)(?:#\d+)?\t(.*)\s*", line)
        if match:
            captions.append((match[1].strip(), match[2].strip()))
        elif line.strip():
            raise UserError(
                f"{place}, line {number}: {line.strip()[:60]!r} is not of the form 'name.jpg#0<TAB>caption'. Correct it, "
                "or write 'image,caption' as the first line if the file is a CSV"
            )
    return captions


def read_csv(text: str, place: str, image: int, caption: int) -> list[tuple[str, str]]:
    """(image, caption) pairs of a CSV whose header is at hand; ``image`` and ``caption`` are column numbers."""
    captions: list[tuple[str, str]] = []
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        width = len(next(reader))
        for row in reader:
            if row and (len(row) != width or "\n" in row[caption]):
                raise UserError(
                    f"{place}, line {reader.line_num}: a row must have {width} columns and be on one line. "
                    'Put quotes around a caption with a comma, and write a quote inside them as ""'
                )
            if row:
                captions.append((row[image].strip(), row[caption].strip()))
    except csv.Error as error:
        raise UserError(f"{place}, line {reader.line_num}: {error}. Correct the quotes there") from error
    return captions


def read_karpathy(data: bytes, place: str) -> Annotations:
    """Captions and splits of a Karpathy JSON; an image is named ``filepath/filename`` where ``filepath`` is given.

    Images of a split other than train, restval, val and test are in no split.

    Raises:
        UserError: not JSON, or not of that layout; ``place`` and the image's position are named.
    """
    try:
        images = list(json.loads(data)["images"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place}: not a Karpathy JSON, which is an object with a list 'images' ({error!r})") from error
    found = Annotations()
    for index, image in enumerate(images):
        try:
            name = f"{image['filepath']}/{image['filename']}" if image.get("filepath") else str(image["filename"])
            found.captions += [(name, sentence["raw"].strip()) for sentence in image["sentences"]]
            split = KARPATHY_SPLITS.get(image["split"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{place}: images[{index}] lacks a field or has one of the wrong type ({error!r})"
            ) from error
        if split:
            found.splits[name] = split
    return found


def read_sources(sources: Iterable[Path]) -> Annotations:
    """Captions and splits of Flickr8k from whatever of its text files ``sources`` (files, folders, zips) hold.

    Raises:
        UserError: no captions, two different files of one name, an image in two splits, or a malformed file.
    """
    sources = list(sources)
    texts: dict[str, tuple[bytes, str]] = {}  # file name -> (content, place)
    known = {name.lower(): name for name in (*CAPTION_FILES, *SPLIT_LISTS, KARPATHY_FILE)}
    for entry in walk(sources):
        name = known.get(entry.name.lower())
        if name is None and Path(entry.place) in sources:  # named by the user, so every file of it must be of use
            name = name_of_source(entry)
        if name is None:
            continue
        if entry.problem:
            raise UserError(f"{entry.place}: refused, like all {entry.problem}. Name a sound copy with --source")
        data = entry.read()
        same, first = texts.setdefault(name, (data, entry.place))
        if same != data:
            raise UserError(f"{first} and {entry.place} differ. Name the one to use, and the images, with --source")

    annotations = Annotations()
    if KARPATHY_FILE in texts:
        annotations = read_karpathy(*texts[KARPATHY_FILE])
    for name in CAPTION_FILES:
        if name in texts:
            annotations.captions = read_captions(*texts[name])
            break
    for name, split in SPLIT_LISTS.items():
        data, place = texts.get(name, (b"", ""))
        for image in filter(None, map(str.strip, decode(data).splitlines())):
            other = annotations.splits.setdefault(image, split)
            if other != split:  # it would be trained on and then tested on
                raise UserError(
                    f"{place}: {image} is in {split} here but in {other} elsewhere. Remove it from one of them"
                )
    if not annotations.captions:
        raise UserError(
            f"--source: no captions found. One of {', '.join(CAPTION_FILES)}, {KARPATHY_FILE} (or Flickr8k_text.zip) is needed"
        )
    return annotations


def name_of_source(entry: Entry) -> str | None:
    """What a file given by ``--source`` is taken for: any JSON for Karpathy's, an image for none of the texts."""
    if entry.name.lower().endswith(".json"):
        return KARPATHY_FILE
    if is_image(entry.name):
        return None
    raise UserError(
        f"--source {entry.place}: neither a zip, an image, a .json, nor one of {', '.join((*CAPTION_FILES, *SPLIT_LISTS))}"
    )


def join(annotations: Annotations, images: set[str]) -> Prepared:
    """Keep what has an image (``images``: those that exist), a caption and, where splits are known at all, a split."""
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
            left_out[f"images of the {split} split that are not there"].append(image)
    return Prepared(rows, {reason: names for reason, names in left_out.items() if names})


def prepare_flickr8k(sources: Iterable[Path], output_dir: Path) -> Prepared:
    """Write ``output_dir/images/`` and ``output_dir/captions.csv`` from archives, folders and text files in ``sources``.

    Raises:
        UserError: see ``read_sources`` and ``data.download.walk``; also when no caption has an image.
    """
    sources = list(sources)
    annotations = read_sources(sources)  # before the long part: a malformed file shows at once
    image_dir = output_dir / "images"
    skipped = unpack_images(sources, image_dir)
    prepared = join(annotations, {path.name for path in image_dir.iterdir() if is_image(path.name)})
    prepared.left_out.update(skipped)
    if not prepared.rows:
        reasons = "; ".join(left_out_lines(prepared))
        raise UserError(
            f"no caption has both an image in {image_dir} and a split; add what is missing with --source. {reasons}"
        )
    write_csv(prepared, output_dir / "captions.csv")
    return prepared


def prepare_karpathy(file: Path, image_dir: Path, output: Path) -> Prepared:
    """Write the captions of a Karpathy JSON whose images exist under ``image_dir`` to ``output``.

    Raises:
        UserError: no such file or folder, not a Karpathy JSON, or none of its images is there.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    if not image_dir.is_dir():
        raise UserError(f"--image_dir {image_dir}: no such folder")
    annotations = read_karpathy(file.read_bytes(), str(file))
    names = dict.fromkeys([*annotations.splits, *(image for image, _ in annotations.captions)])
    prepared = join(annotations, {name for name in names if (image_dir / name).is_file()})
    if not prepared.rows:
        example = next(iter(names), "none named")
        raise UserError(
            f"--image_dir {image_dir}: of {len(names):,} images in {file}, none with a caption and a split is there ({example})"
        )
    write_csv(prepared, output)
    return prepared


def write_csv(prepared: Prepared, path: Path) -> None:
    """Write the rows atomically; without any split the column is left out, and training splits the images itself."""
    columns = 3 if any(split for *_, split in prepared.rows) else 2
    with atomic_open(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "caption", "split")[:columns])
        writer.writerows(row[:columns] for row in prepared.rows)


def left_out_lines(prepared: Prepared) -> list[str]:
    """One line for each reason: how many were left out and up to three names."""
    lines = []
    for reason, names in prepared.left_out.items():
        shown = list(dict.fromkeys(names))
        lines.append(f"left out: {len(names):,} {reason} ({', '.join(shown[:3])}{', ...' if len(shown) > 3 else ''})")
    return lines


def summary(prepared: Prepared) -> str:
    """Images and captions, in all and of each split, then what was left out."""
    captions = Counter(split for *_, split in prepared.rows)
    images = Counter(split for split, _ in {(split, image) for image, _, split in prepared.rows})
    lines = [f"{'all':<6}{images.total():>8,} images {captions.total():>8,} captions"]
    if captions[""]:
        lines.append(
            f"no split list found: train.py will split the images itself. The official lists are {', '.join(SPLIT_LISTS)}"
        )
    else:
        lines += [
            f"{split:<6}{images[split]:>8,} images {captions[split]:>8,} captions" for split in SPLIT_LISTS.values()
        ]
    return "\n".join(lines + left_out_lines(prepared))


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line; ``--help`` after a command lists its options."""
    parser = OptionParser(prog="python -m data.prepare", description="Get a data set into the CSV layout.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{flickr8k,karpathy}")

    text = "Download Flickr8k (1.1 GB), or take local copies of it, and write images/ and captions.csv. Interrupted? Run it again."
    flickr8k = commands.add_parser("flickr8k", help="download Flickr8k, or use local copies", description=text)
    add = flickr8k.add_argument
    add(
        "--source",
        type=Path,
        nargs="+",
        action="extend",
        metavar="PATH",
        help="zips, folders, caption files and split lists to use instead of downloading",
    )
    add(
        "--output_dir",
        type=Path,
        default=Path("data/flickr8k"),
        metavar="DIR",
        help="where to write (default: data/flickr8k)",
    )
    add(
        "--base_url",
        default=BASE_URL,
        metavar="URL",
        help=f"web folder that holds {' and '.join(MD5S)} (default: {BASE_URL})",
    )

    text = "Write the captions of a Karpathy JSON (dataset_coco.json, dataset_flickr30k.json ...) as a CSV; 'restval' counts as train."
    karpathy = commands.add_parser("karpathy", help="convert a Karpathy JSON", description=text)
    add = karpathy.add_argument
    add("file", type=Path, metavar="FILE.json", help="the JSON")
    add(
        "--image_dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="where the JSON's filepath/filename, or else filename, is found",
    )
    add(
        "--output",
        type=Path,
        metavar="FILE.csv",
        help="where to write (default: beside FILE.json, with the ending .csv)",
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Prepare one data set as the command line asks."""
    args = parse(argv)
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
    if output != Path("data/flickr8k/captions.csv"):  # the place that the recipe expects
        command += ["--data.captions_file", str(output), "--data.image_dir", str(image_dir)]
    print(f"Next: {shlex.join(command)}")


if __name__ == "__main__":
    run_script(main)
