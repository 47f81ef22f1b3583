"""SHOW: caption pictures; write an HTML gallery, captioned JPGs and captions.json.

python inference_visualize.py                            the test split of the checkpoint's own captions file
python inference_visualize.py --images holiday/ dog.jpg  own photos: files, or folders searched through
python inference_visualize.py --attention_strips         where an attention or transformer decoder looked, as JPGs for slides
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from cli import OptionParser, UserError, atomic_open, run_script
from data.captions import SPLITS, read_captions, references_of
from data.images import ImageError, find_images, load_image
from gallery.page import Entry, printable, render_page
from gallery.pictures import file_name, save_pictures
from models.captioner import Captioner
from models.pretrained import PRETRAINED, find_checkpoint
from utils import pick_device

PAGE = "captions_result.html"
BATCH_IMAGES = 16
BATCH_PIXELS = 50_000_000  # a batch of large photos is closed early: 16 of 50 megapixels would fill 2.4 GB


@dataclass(frozen=True)
class Source:
    """A picture to caption."""

    image: str  # name to show
    path: Path
    references: list[str]


def own_photos(paths: list[Path]) -> list[Source]:
    """The pictures among files and folders, named by what of their paths differs; a gallery passed on should not tell of home folders."""
    files = find_images(paths)
    parents = [str(file.parent.resolve()) for file in files]
    try:
        common = os.path.commonpath(parents)
    except ValueError:  # on Windows, two drives
        return [Source(str(file), file, []) for file in files]
    return [
        Source((Path(parent).relative_to(common) / file.name).as_posix(), file, [])
        for file, parent in zip(files, parents, strict=True)
    ]


def split_pictures(captions_file: str, image_dir: str, split: str, seed: int) -> list[Source]:
    """The images of one split, with people's captions as references."""
    references = references_of(read_captions(captions_file, seed), split)
    return [Source(image, Path(image_dir) / image, captions) for image, captions in references.items()]


def find_foreign(sources: list[Source], output_dir: Path) -> Path | None:
    """A file where a JPG is to go, though no gallery was made in ``output_dir``: what one leaves, even if killed, are two of each name."""
    if (output_dir / PAGE).exists():
        return None
    taken: set[str] = set()
    for name in [file_name(source.image, taken) for source in sources]:
        both = [path for path in (output_dir / name, output_dir / "pictures" / name) if path.exists()]
        if len(both) == 1:
            return both[0]
    return None


def load_batches(sources: list[Source], skipped: list[tuple[str, str]]) -> Iterator[list[tuple[Source, Image.Image]]]:
    """Yield pictures in batches; one that cannot be used is named on stderr and added to ``skipped`` with its reason."""
    batch: list[tuple[Source, Image.Image]] = []
    pixels = 0
    for source in sources:
        try:
            picture = load_image(source.path)
        except ImageError as error:
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            skipped.append((source.image, str(error).removeprefix(f"{source.path}: ")))
            continue
        batch.append((source, picture))
        pixels += picture.width * picture.height
        if len(batch) == BATCH_IMAGES or pixels > BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def caption_all(
    captioner: Captioner, sources: list[Source], output_dir: Path, beam_size: int, strips: bool
) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Caption each picture and write its JPGs; return what was captioned, and (name, reason) of what was skipped.

    Raises:
        UserError: not one picture can be used.
    """
    entries: list[Entry] = []
    skipped: list[tuple[str, str]] = []
    taken: set[str] = set()
    with tqdm(total=len(sources), desc="captioning", unit="img", disable=None) as bar:
        for batch in load_batches(sources, skipped):
            candidates = captioner.caption([picture for _, picture in batch], beam_size, attention=True)
            for (source, picture), found in zip(batch, candidates, strict=True):
                ranked = [(candidate.caption, candidate.log_prob) for candidate in found]
                entry = Entry(source.image, ranked, source.references, attention=found[0].attention)
                entries.append(save_pictures(picture, entry, output_dir, taken, strips))
            bar.update(len(entries) + len(skipped) - bar.n)
    if not entries and len(skipped) == 1:
        raise UserError(f"{sources[0].path}: {skipped[0][1]}. Name another picture with --images")
    if not entries:
        raise UserError(
            f"none of the {len(skipped)} pictures can be used (each is listed above with its reason). Check the folder"
        )
    return entries, skipped


def main(argv: list[str]) -> None:
    """Choose the pictures, caption them, write the gallery."""
    parser = OptionParser(prog="inference_visualize.py", description="Caption pictures and show them in a gallery.")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="the model (default: checkpoints.pth, or if there is none the pretrained captioner)",
    )
    parser.add_argument(
        "--images", type=Path, nargs="+", action="extend", help="own photos, files or folders, instead of a split"
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("outputs"), help="what is written goes here (default: %(default)s)"
    )
    parser.add_argument("--captions_file", help="another captions.csv than the checkpoint was trained with")
    parser.add_argument("--image_dir", help="another folder of images than the checkpoint was trained with")
    parser.add_argument("--split", choices=SPLITS, help="which images of the captions file (default: test)")
    parser.add_argument(
        "--beam_size", type=int, help="sentences kept open at each step; 1 is greedy (default: the checkpoint's)"
    )
    parser.add_argument(
        "--attention_strips",
        action="store_true",
        help="for slides: where the model looked at each word, as attention/NAME.jpg",
    )
    parser.add_argument("--limit", type=int, help="caption only the first so many pictures")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    arguments = parser.parse_args(argv)
    for option in ("beam_size", "limit"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UserError(f"--{option} {value}: must be 1 or more")
    if arguments.images and (arguments.captions_file or arguments.image_dir or arguments.split):
        raise UserError(
            "--images names own photos, --captions_file, --image_dir and --split those of a data set. Use one or the other"
        )

    checkpoint = find_checkpoint(arguments.checkpoint)
    captioner = Captioner.load(checkpoint, pick_device(arguments.device))
    config = captioner.config
    if arguments.attention_strips and config.decoder.name == "lstm":
        raise UserError(
            f"--attention_strips: the lstm decoder of {checkpoint} looks at no place in particular. Leave it out"
        )
    if arguments.images:
        sources = own_photos(arguments.images)
    else:
        captions_file = arguments.captions_file or config.data.captions_file
        if checkpoint == PRETRAINED and not Path(captions_file).exists():
            raise UserError(
                "the pretrained captioner brings no pictures of its own: name yours with --images, or train one with `python train.py`"
            )
        sources = split_pictures(
            captions_file, arguments.image_dir or config.data.image_dir, arguments.split or "test", config.train.seed
        )
    sources = sources[: arguments.limit]
    inside = [source.path for source in sources if arguments.output_dir.resolve() in source.path.resolve().parents]
    if inside:  # a captioned JPG could take the place of somebody's only copy
        raise UserError(
            f"{inside[0]}: lies in --output_dir {arguments.output_dir} and might be overwritten. Choose another output folder"
        )

    if foreign := find_foreign(sources, arguments.output_dir):
        raise UserError(
            f"{foreign}: is not of an earlier gallery and would be overwritten. Choose another --output_dir"
        )

    beam_size = arguments.beam_size or config.generate.beam_size
    entries, skipped = caption_all(captioner, sources, arguments.output_dir, beam_size, arguments.attention_strips)
    with atomic_open(arguments.output_dir / "captions.json") as file:
        file.write(printable(json.dumps([entry.record() for entry in entries], ensure_ascii=False, indent=2)))
    page = arguments.output_dir / PAGE
    with atomic_open(page) as file:
        file.write(render_page(entries, skipped, checkpoint.name, beam_size))
    print(f"captioned {len(entries)} of {len(sources)} pictures: open {page}")


if __name__ == "__main__":
    run_script(main)
