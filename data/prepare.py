"""Convert a data set into a CSV with the columns image, caption and split, and print the command that trains with it.

python -m data.prepare flickr8k                                                    # download, verify, unpack
python -m data.prepare flickr8k --source FOLDER_OR_ZIP                             # the same from local copies
python -m data.prepare coco coco/annotations/captions_train2017.json coco/annotations/captions_val2017.json
python -m data.prepare karpathy dataset_flickr30k.json --image_dir flickr30k-images
python -m data.prepare table captions.tsv --image_dir photos                       # or .csv, .jsonl, .parquet, .token
python -m data.prepare table mine.csv --image_column photo --caption_column title
python -m data.prepare table imagefolder                          # a Hugging Face imagefolder, with metadata.jsonl
python -m data.prepare shards captions.csv --image_dir photos --output shards      # tars, for millions of images

To resume an interrupted run, run it again.
"""

import os
import shlex
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started as `python data/prepare.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import OptionParser, UserError, note, positive_int, run_script, say
from data.annotations import SPLIT_LISTS, read_json
from data.formats import COCO, KARPATHY, conversion, metadata_files

if TYPE_CHECKING:
    from data.conversion import Prepared

SHARD_MB = 500  # 5,000 to 10,000 photos of 50 to 100 KB: read in seconds, and few files for millions of images
BASE_URL = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
MD5S = {  # the small file first: a wrong address shows at once
    "Flickr8k_text.zip": "bf6c1abcb8e4a833b7f922104de18627",
    "Flickr8k_Dataset.zip": "f18a1e2920de5bd84dae7cf08ec78978",
}


def parse_args(argv: list[str]) -> Namespace:
    """Parse the command line; ``--help`` after a command lists its options.

    Raises:
        UserError: an option is wrong, or a file stands where the command belongs.
    """
    parser = OptionParser("python -m data.prepare", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{flickr8k,coco,karpathy,table,shards}")
    _add_flickr8k_options(
        commands.add_parser(
            "flickr8k",
            help="download Flickr8k, or use local copies",
            description="Download Flickr8k (1.1 GB), or use local copies of it, and write images/ and captions.csv. "
            "To resume an interrupted run, run it again.",
        )
    )
    coco = commands.add_parser(
        "coco",
        help="convert COCO's own captions JSON",
        description="Convert COCO's captions_train2017.json, captions_val2017.json, or files of that layout. With "
        "several files, the name of each must contain its split: train, val or test.",
    )
    karpathy = commands.add_parser(
        "karpathy",
        help="convert a Karpathy JSON",
        description="Convert a Karpathy JSON (dataset_coco.json, dataset_flickr30k.json ...); 'restval' counts as "
        "train.",
    )
    table = commands.add_parser(
        "table",
        help="convert a CSV, TSV, JSONL, Parquet, ... or a Hugging Face imagefolder",
        description="Convert a table with a column of image names and a column of captions: CSV with any separator, "
        "TSV, JSON lines, a JSON list, Parquet; Flickr's .token and results.csv; metadata.jsonl or metadata.csv of a "
        "Hugging Face imagefolder, or its folder. A list in a cell is several captions. With several files that have "
        "no column of splits, the name of each must contain its split: train, val or test.",
    )
    for command in (coco, karpathy, table):
        _add_file_options(command, several=command is not karpathy)
    _add_column_options(table)
    _add_shards_options(
        commands.add_parser(
            "shards",
            help="write images and captions into WebDataset tars",
            description="Write the images of a captions.csv and their captions into tars of bounded size: KEY.jpg and "
            "KEY.json, as WebDataset has them. To resume an interrupted run, run it again.",
        )
    )
    if argv and argv[0] not in commands.choices and Path(argv[0]).exists():
        raise UserError(f"{argv[0]}: a command must come before it. Run: {conversion(Path(argv[0]))}")
    return parser.parse_args(argv)


def _add_flickr8k_options(parser: OptionParser) -> None:
    """Add --source, --output_dir and --base_url."""
    parser.add_argument(
        "--source",
        type=Path,
        nargs="+",
        action="extend",
        metavar="PATH",
        help="zips, folders, caption files and split lists to use instead of downloading",
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        default=Path("data/flickr8k"),
        metavar="DIR",
        help="folder to write (default: %(default)s)",
    )
    parser.add_argument(
        "--base_url",
        default=BASE_URL,
        metavar="URL",
        help=f"web folder that contains {' and '.join(MD5S)} (default: %(default)s)",
    )


def _add_shards_options(parser: OptionParser) -> None:
    """Add the captions file, --image_dir, --output and --shard_mb."""
    add = parser.add_argument
    add("file", type=Path, metavar="CAPTIONS.csv", help="CSV with the columns image, caption and if known split")
    add("--image_dir", type=Path, required=True, metavar="DIR", help="folder that its images are relative to")
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write the tars to")
    add(
        "--shard_mb",
        type=positive_int,
        default=SHARD_MB,
        metavar="MB",
        help="size of the images in a tar (default: %(default)s)",
    )


def prepare_shards(args: Namespace) -> None:
    """Write tars, and print what was done and how to train with them."""
    from data.shard_writer import write_shards  # pandas takes a second to import

    written = write_shards(args.file, args.image_dir, args.output, args.shard_mb)
    note(*(f"left out: {error}" for error in written.left_out))
    say(f"Wrote {written.images:,} images into {len(written.tars):,} tars in {args.output}")
    command = ["python", "train.py", "--config", "configs/flickr8k_lstm.yaml", "--captions_file", str(args.output)]
    say(f"Next: {shlex.join([*command, '--image_dir', str(args.output)])}")


def _add_column_options(parser: OptionParser) -> None:
    """Add the columns of a table; those left out are known by their names."""
    parser.add_argument("--image_column", metavar="COLUMN", help="names of the images (default: image, file_name, ...)")
    parser.add_argument(
        "--caption_column",
        action="append",
        metavar="COLUMN",
        default=[],
        help="captions (default: caption, text, ...); repeat it if an image has its captions in several columns",
    )
    parser.add_argument(
        "--split_column", metavar="COLUMN", help="train, val or test (default: split, if there is such a column)"
    )


def _add_file_options(parser: OptionParser, *, several: bool) -> None:
    """Add the files to convert, --image_dir and --output."""
    files = "files" if several else "file"
    parser.add_argument("files", type=Path, nargs="+" if several else 1, metavar="FILE", help=f"the {files} to convert")
    parser.add_argument(
        "--image_dir",
        type=Path,
        metavar="DIR",
        help="folder of the images; they may be in its subfolders (default: that of FILE)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.csv",
        help="file to write (default: next to FILE, NAME_captions.csv, or all_captions.csv for several files)",
    )


def prepare_files(args: Namespace) -> "tuple[Prepared, Path, Path]":
    """Convert the files that the command line names.

    Returns:
        what was written, the CSV, and the folder of the images.

    Raises:
        UserError: see ``convert``, ``data.annotations.read_json`` and ``data.tables.parse_table``.
    """
    from data.conversion import convert  # tqdm and yaml may be missing: --help does without

    files = [file for path in args.files for file in (_metadata(path) if path.is_dir() else [path])]
    folders = list(dict.fromkeys(path if path.is_dir() else path.parent for path in args.files))
    stem = files[0].stem if len(files) == 1 else "all"
    output = args.output or folders[0] / f"{stem}_captions.csv"
    image_dir = args.image_dir or _common_folder(folders)
    if args.command == "table":
        from data.tables import Columns, parse_table  # pandas takes a second to import

        columns = Columns(args.image_column, args.caption_column, args.split_column)
        parse = partial(parse_table, columns=columns, image_dir=image_dir)
    else:
        parse = partial(read_json, expected={"coco": COCO, "karpathy": KARPATHY}[args.command])
    return convert(files, parse, image_dir, output), output, image_dir


def _common_folder(folders: list[Path]) -> Path:
    """The folder that the files to convert have in common; of COCO's annotations/, the one that also has train2017/.

    Raises:
        UserError: they have none, on Windows.
    """
    try:
        common = folders[0] if len(folders) == 1 else Path(os.path.commonpath([path.absolute() for path in folders]))
    except ValueError:
        raise UserError("the files are on different drives: name the folder of the images with --image_dir") from None
    return common.parent if common.name == "annotations" else common


def _metadata(folder: Path) -> list[Path]:
    """The files to read of a Hugging Face imagefolder."""
    if files := metadata_files(folder):
        return files
    raise UserError(f"{folder}: a folder without metadata.jsonl or metadata.csv. Name the file of captions")


def main(argv: list[str]) -> None:
    """Prepare one data set as the command line asks."""
    args = parse_args(argv)
    if args.command == "shards":
        prepare_shards(args)
        return
    from data.conversion import summary
    from data.download import download_all
    from data.flickr8k import prepare_flickr8k
    from data.tokenizer import CHARACTERS, find_unseparated

    if args.command == "flickr8k":
        sources = args.source or download_all(args.base_url, MD5S, args.output_dir / "downloads")
        prepared = prepare_flickr8k(sources, args.output_dir)
        output, image_dir = args.output_dir / "captions.csv", args.output_dir / "images"
    else:
        prepared, output, image_dir = prepare_files(args)
    say(*summary(prepared))
    if args.command == "flickr8k" and not any(split for *_, split in prepared.rows):
        say(f"Flickr8k's official splits are in {', '.join(SPLIT_LISTS)}: pass these files with --source too")
    say(f"Wrote {output}; the images are in {image_dir}")
    recipe = "coco_attention" if args.command == "coco" else "flickr8k_lstm"
    command = ["python", "train.py", "--config", f"configs/{recipe}.yaml"]
    if output != Path("data/flickr8k/captions.csv"):  # the path in the recipe
        command += ["--captions_file", str(output), "--image_dir", str(image_dir)]
    if args.command != "flickr8k":
        command += ["--output_dir", f"runs/{output.stem}"]  # the recipe's is that of Flickr8k
    if find_unseparated([caption for _, caption, _ in prepared.rows]):
        command += ["--data.tokenizer", CHARACTERS.name]
    say(f"Next: {shlex.join(command)}")


if __name__ == "__main__":
    run_script(main)
