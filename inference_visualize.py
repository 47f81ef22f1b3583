"""SHOW: caption images; print the captions and write an HTML gallery, captioned JPGs and captions.json.

python inference_visualize.py --images holiday/ dog.jpg "*.webp"   # your own photos: files, folders, patterns
python inference_visualize.py --images holiday/ --print all        # print every caption, not only the first 20
python inference_visualize.py --images holiday/ --format csv,xmp --in_place   # a table, and XMP beside the photos
python inference_visualize.py                                      # the test split of the checkpoint's captions file
python inference_visualize.py --checkpoint runs/a --compare runs/b # captions of two models side by side
python inference_visualize.py --attention_strips                   # also a JPG of the attention maps of each caption

To continue a run that was stopped, run the same command again.
"""

import shlex
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from cli import OptionParser, UserError, note, run_script, say
from evaluation.options import add_captioner_options, add_split_options

if TYPE_CHECKING:
    from config import Config
    from gallery.page import Entry
    from gallery.photos import Photo
    from gallery.writing import Report, Target

FORMATS = ("json", "csv", "txt", "xmp")
PRINTED = 20  # captions, unless --print asks for more
MAX_COMMAND = 200  # letters of a command that is printed; a shell's * may have made thousands of names of it


def read_options(argv: list[str]) -> Namespace:
    """The command line.

    Raises:
        UserError: an option is invalid, or conflicts with another.
    """
    parser = OptionParser("inference_visualize.py", __doc__, "--images")
    add = parser.add_argument
    add_captioner_options(parser, several=False)
    add_split_options(parser)
    add("--images", nargs="+", action="extend", help="your own photos instead of a split: files, folders, patterns")
    add("--output_dir", type=Path, default=Path("outputs"), help="folder for all results (default: %(default)s)")
    add(
        "--format",
        type=formats,
        nargs="+",
        action="extend",
        metavar="FORMAT",
        help="files for the captions, separated by blanks or commas: json and csv hold all of them, txt and xmp are "
        "sidecars, one per image (default: json)",
    )
    add("--in_place", action="store_true", help="write the sidecars beside your photos, which are not changed")
    add(
        "--print",
        type=print_limit,
        metavar="N",
        default=PRINTED,
        help="captions to print: a number, all or none (default: the first %(default)s)",
    )
    add(
        "--compare",
        type=Path,
        metavar="FILE",
        help="a second model: the page shows its captions beside those of --checkpoint",
    )
    add("--attention_strips", action="store_true", help="also write attention maps for slides to attention/NAME.jpg")
    options = parser.parse_args(argv)
    options.format = frozenset[str]().union(*(options.format or [{"json"}]))
    if options.images and (options.captions_file or options.image_dir or options.split):
        raise UserError(
            "--images is for your own photos; --captions_file, --image_dir and --split select images of a data set. "
            "Use one or the other"
        )
    if options.output_dir.exists() and not options.output_dir.is_dir():
        raise UserError(f"--output_dir {options.output_dir}: is a file. Name a folder; it need not exist")
    if options.in_place and not options.images:
        raise UserError("--in_place would write into the folder of a data set. Name your own photos with --images")
    if options.in_place and not options.format & {"txt", "xmp"}:
        raise UserError(
            "--in_place writes sidecars beside the photos: name their kind with --format txt or --format xmp"
        )
    return options


def formats(text: str) -> frozenset[str]:
    """``type`` of a word of --format: some of FORMATS, separated by commas."""
    chosen = frozenset(filter(None, text.lower().replace(" ", "").split(",")))
    if not chosen or chosen - {*FORMATS}:
        raise ArgumentTypeError(f"must be some of {', '.join(FORMATS)}, separated by blanks or commas, not {text!r}")
    return chosen


def print_limit(text: str) -> float:
    """``type`` of --print: how many captions to print."""
    if text.isdecimal():
        return int(text)
    try:
        return {"all": float("inf"), "none": 0}[text]
    except KeyError:
        raise ArgumentTypeError(f"must be a number, all or none, not {text!r}") from None


def choose_photos(options: Namespace, checkpoint: Path, config: "Config") -> "list[Photo]":
    """The images of the split that the options select, with their references.

    Raises:
        UserError: there are none.
    """
    from evaluation.split import open_split
    from gallery.photos import Photo
    from models.pretrained import PRETRAINED

    captions_file = options.captions_file or config.data.captions_file
    if checkpoint == PRETRAINED and not Path(captions_file).exists():
        raise UserError(
            "the data set of the pretrained model is not here. Name your own photos with --images, "
            "or train a model with `python train.py`"
        )
    split = open_split(config, options)
    return [
        Photo(name, split.image_dir / name, texts) for name, texts in split.references_inside(options.limit).items()
    ]


def caption_printer(limit: float) -> "Callable[[Entry], None]":
    """A function that prints an entry to stdout as "image: caption", but no more than ``limit`` entries."""
    numbers = count(1)

    def show(entry: "Entry") -> None:
        if next(numbers) <= limit:
            say(f"{entry.name}: {entry.caption}")

    return show


def report_on(report: "Report", photos: int, options: Namespace, page: Path, argv: list[str]) -> None:
    """Print to stderr what was done, and after Ctrl-C how to continue."""
    captioned = len(report.entries)
    if 0 < options.print < captioned:
        note(f"the first {options.print} of {captioned} captions are printed above; --print all prints all of them")
    if report.kept:
        note(
            f"tables and sidecars kept because they hold something that no run has written: {len(report.kept)}, "
            f"such as {report.kept[0]}. Move them away and run the command again to have new ones"
        )
    if report.unwritable:
        path, reason = report.unwritable[0]
        note(
            f"sidecars that cannot be written: {len(report.unwritable)}, such as {path} ({reason}). "
            f"Without --in_place, sidecars are written to {options.output_dir}"
        )
    if report.removed:
        note(f"files of the earlier gallery removed from {options.output_dir}: {report.removed}")
    earlier = f" ({report.recalled} of them in an earlier run)" if report.recalled else ""
    if not report.interrupted:
        note(f"captioned {captioned} of {photos} images{earlier}: open {page}")
        return
    see = f": see {page}" if captioned else ""
    note(f"interrupted: {captioned} of {photos} images are captioned{see}. To continue, run the same command again")
    command = shlex.join(["python", "inference_visualize.py", *argv])
    if len(command) <= MAX_COMMAND:
        note(command)


def with_second(target: "Target", checkpoint: Path, options: Namespace) -> "Target":
    """The target with the model of --compare.

    Raises:
        UserError: it cannot be read, or it is that of --checkpoint.
    """
    from gallery.page import System
    from gallery.records import captioner_identity
    from gallery.writing import Compared
    from models.captioner import Captioner
    from models.pretrained import find_checkpoint
    from utils import use_device

    path, content = find_checkpoint(options.compare, photos=False)
    device = use_device(options.device, options.precision)
    model = Captioner.from_checkpoint(content, path, options.precision).to(device).eval()
    if options.rerank == "off":  # "on" is for --checkpoint: the other one may not be able to
        model.use_reranker("off")
    beam_size = options.beam_size or model.beams
    identity = captioner_identity(path, beam_size, model.precision, reranks=model.reranker is not None)
    if identity == target.captioner:
        raise UserError(f"--compare {options.compare}: the same model as --checkpoint {checkpoint}. Name another one")
    first, second = distinct_names(checkpoint, path)
    return replace(target, checkpoint=first, compared=Compared(model, System(second, beam_size), identity))


def distinct_names(first: Path, second: Path) -> tuple[str, str]:
    """File names of two checkpoints, with their folders if they are equal: every run has a checkpoints.pth."""
    if first.name != second.name:
        return first.name, second.name
    one, other = (f"{path.absolute().parent.name}/{path.name}" for path in (first, second))
    return one, other


def main(argv: list[str]) -> None:
    """Choose the images, load the model, write the gallery."""
    options = read_options(argv)
    photos: list[Photo] = []
    if options.images:
        from gallery.photos import describe, find_photos

        found, passed_over = find_photos(options.images, options.output_dir)
        photos = found[: options.limit]
        if passed_over:
            note(describe(passed_over))

    from gallery.records import captioner_identity  # torch takes seconds to import
    from gallery.writing import PAGE, Target, write_gallery
    from models.captioner import Captioner
    from models.pretrained import find_checkpoint
    from utils import use_device

    checkpoint, content = find_checkpoint(options.checkpoint, photos=bool(options.images))
    device = use_device(options.device, options.precision)
    captioner = Captioner.from_checkpoint(content, checkpoint, options.precision).to(device).eval()
    captioner.use_reranker(options.rerank)
    if options.attention_strips and not captioner.decoder.attends:
        name = captioner.config.decoder.name
        raise UserError(f"--attention_strips: the {name} decoder of {checkpoint} has no attention. Omit the option")
    photos = photos or choose_photos(options, checkpoint, captioner.config)
    beam_size = options.beam_size or captioner.beams
    target = Target(
        options.output_dir,
        options.format,
        in_place=options.in_place,
        strips=options.attention_strips,
        checkpoint=checkpoint.name,
        captioner=captioner_identity(
            checkpoint, beam_size, captioner.precision, reranks=captioner.reranker is not None
        ),
        beam_size=beam_size,
    )
    if options.compare:
        target = with_second(target, checkpoint, options)
    report = write_gallery(captioner, photos, target, caption_printer(options.print))
    report_on(report, len(photos), options, options.output_dir / PAGE, argv)
    if report.interrupted:
        sys.exit(130)


if __name__ == "__main__":
    run_script(main)
