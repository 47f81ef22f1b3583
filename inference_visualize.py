"""SHOW: caption images; write an HTML gallery, captioned JPGs and captions.json.

python inference_visualize.py                            the test split of the checkpoint's captions file
python inference_visualize.py --images holiday/ dog.jpg  your own photos: files, or folders that are searched for images
python inference_visualize.py --attention_strips         also write the attention maps of each caption as a JPG
"""

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from cli import OptionParser, UserError, atomic_open, run_script
from config import Config
from data.images import ImageError, find_images, load_image
from evaluation.options import add_captioner_options, add_split_options
from evaluation.split import open_split
from gallery.jpegs import file_name, save_images
from gallery.page import Entry, captions_json, render_page
from models.captioner import Captioner
from models.pretrained import PRETRAINED, find_checkpoint
from utils import use_device

PAGE = "captions_result.html"
BATCH_IMAGES = 16
BATCH_PIXELS = 50_000_000  # large photos make smaller batches: 16 of 50 megapixels would take 2.4 GB


@dataclass(frozen=True)
class Photo:
    """An image to caption."""

    name: str  # as shown
    path: Path
    references: list[str]


def read_options(argv: list[str]) -> Namespace:
    """The command line.

    Raises:
        UserError: an option is invalid, or conflicts with another.
    """
    parser = OptionParser(
        prog="inference_visualize.py",
        description="Caption images and show them in a gallery. Without a checkpoint, the pretrained model captions.",
    )
    add = parser.add_argument
    add_captioner_options(parser, several=False)
    add_split_options(parser)
    add("--images", type=Path, nargs="+", action="extend", help="your own photos, files or folders, instead of a split")
    add("--output_dir", type=Path, default=Path("outputs"), help="folder for all results (default: %(default)s)")
    add("--attention_strips", action="store_true", help="also write attention maps for slides to attention/NAME.jpg")
    options = parser.parse_args(argv)
    if options.images and (options.captions_file or options.image_dir or options.split):
        raise UserError(
            "--images is for your own photos; --captions_file, --image_dir and --split select images of a data set. "
            "Use one or the other"
        )
    return options


def own_photos(paths: list[Path]) -> list[Photo]:
    """The images among files and folders.

    Their names are relative to their common folder, so that a gallery does not reveal home folders.
    """
    files = find_images(paths)
    parents = [str(file.parent.resolve()) for file in files]
    try:
        common = os.path.commonpath(parents)
    except ValueError:  # two drives on Windows
        return [Photo(str(file), file, []) for file in files]
    return [
        Photo((Path(parent).relative_to(common) / file.name).as_posix(), file, [])
        for file, parent in zip(files, parents, strict=True)
    ]


def choose_photos(options: Namespace, checkpoint: Path, config: Config) -> list[Photo]:
    """The images that the options select; those of a split come with their references.

    Raises:
        UserError: there are none.
    """
    if options.images:
        return own_photos(options.images)[: options.limit]
    captions_file = options.captions_file or config.data.captions_file
    if checkpoint == PRETRAINED and not Path(captions_file).exists():
        raise UserError(
            "the data set of the pretrained model is not here. Name your own photos with --images, "
            "or train a model with `python train.py`"
        )
    split = open_split(config, options)
    return [Photo(name, split.image_dir / name, texts) for name, texts in split.references(options.limit).items()]


def check_overwriting(photos: list[Photo], output_dir: Path) -> None:
    """Protect images that are not from an earlier gallery.

    Raises:
        UserError: a photo lies in ``output_dir``, or a JPG to be written would replace a file of another origin.
    """
    folder = output_dir.resolve()
    if inside := [photo.path for photo in photos if folder in photo.path.resolve().parents]:
        raise UserError(f"{inside[0]}: is in --output_dir {output_dir} and might be overwritten. Choose another folder")
    if (output_dir / PAGE).exists():
        return
    taken: set[str] = set()
    for name in [file_name(photo.name, taken) for photo in photos]:
        existing = [path for path in (output_dir / name, output_dir / "pictures" / name) if path.exists()]
        if len(existing) == 1:  # an interrupted run leaves both
            raise UserError(
                f"{existing[0]}: not from an earlier gallery and would be overwritten. Choose another --output_dir"
            )


def load_batches(photos: list[Photo], skipped: list[tuple[str, str]]) -> Iterator[list[tuple[Photo, Image.Image]]]:
    """Yield decoded images in batches.

    An unreadable image is reported on stderr; its name and the reason are added to ``skipped``.
    """
    batch: list[tuple[Photo, Image.Image]] = []
    pixels = 0
    for photo in photos:
        try:
            image = load_image(photo.path)
        except ImageError as error:
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            skipped.append((photo.name, str(error).removeprefix(f"{photo.path}: ")))
            continue
        batch.append((photo, image))
        pixels += image.width * image.height
        if len(batch) == BATCH_IMAGES or pixels > BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def write_gallery(
    captioner: Captioner, photos: list[Photo], output_dir: Path, beam_size: int, checkpoint: str, strips: bool
) -> int:
    """Caption the photos; write their JPGs (with ``strips`` attention strips too), captions.json and the page.

    Args:
        checkpoint: name of the model, for the page.

    Returns:
        How many images were captioned; unreadable ones are skipped.

    Raises:
        UserError: none of the images can be used.
    """
    entries: list[Entry] = []
    skipped: list[tuple[str, str]] = []
    taken: set[str] = set()
    with tqdm(total=len(photos), desc="captioning", unit="img", disable=None) as bar:
        for batch in load_batches(photos, skipped):
            found = captioner.caption([image for _, image in batch], beam_size, attention=True)
            for (photo, image), candidates in zip(batch, found, strict=True):
                entry = Entry.from_candidates(photo.name, candidates, photo.references)
                entries.append(save_images(image, entry, output_dir, taken, strips))
            bar.update(len(entries) + len(skipped) - bar.n)
    if not entries and len(skipped) == 1:
        raise UserError(f"{photos[0].path}: {skipped[0][1]}. Name another image with --images")
    if not entries:
        raise UserError(f"none of the {len(skipped)} images can be used (see the reasons above). Check the folder")
    with atomic_open(output_dir / "captions.json") as file:
        file.write(captions_json(entries))
    with atomic_open(output_dir / PAGE) as file:
        file.write(render_page(entries, skipped, checkpoint, beam_size))
    return len(entries)


def main(argv: list[str]) -> None:
    """Load the model, choose the images, write the gallery."""
    options = read_options(argv)
    checkpoint, content = find_checkpoint(options.checkpoint, photos=bool(options.images))
    captioner = Captioner.from_checkpoint(content, checkpoint).to(use_device(options.device)).eval()
    if options.attention_strips and not captioner.decoder.attends:
        name = captioner.config.decoder.name
        raise UserError(f"--attention_strips: the {name} decoder of {checkpoint} has no attention. Omit the option")
    photos = choose_photos(options, checkpoint, captioner.config)
    check_overwriting(photos, options.output_dir)
    beam_size = options.beam_size or captioner.config.generate.beam_size
    count = write_gallery(
        captioner, photos, options.output_dir, beam_size, checkpoint.name, strips=options.attention_strips
    )
    print(f"captioned {count} of {len(photos)} images: open {options.output_dir / PAGE}")


if __name__ == "__main__":
    run_script(main)
