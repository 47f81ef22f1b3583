"""MANY: caption folders, tars and lists of images, up to millions, into JSON lines or Parquet; stop and go on any time.

python caption_many.py photos/ --output captions                        # a folder; add --mirror off for twice the speed
python caption_many.py shards/ --output captions --format parquet       # WebDataset tars, read in place
python caption_many.py list.csv --output captions --beam_size 1         # the paths in its column "image"
python caption_many.py shards/ --output captions --ray auto             # on all machines of a Ray cluster

To continue a run that was stopped, run the same command again: images that have a row are not captioned again.
"""

import hashlib
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cli import OptionParser, note, positive_int, run_script, say
from evaluation.options import add_captioner_options

if TYPE_CHECKING:
    from bulk.captioning import Settings
    from bulk.inputs import Source
    from bulk.parts import Parts, Row
    from models.captioner import Captioner

LOCK = ".bulk.lock"
LOCK_WAIT = 15.0  # seconds: the readers of a run that was killed hold its lock until they notice, within 5 s
PART_SIZE = 1024  # rows: what a killed run loses at most, half a minute on two cores; 3 million images make 3,000 parts


def read_options(argv: list[str]) -> Namespace:
    """The command line.

    Raises:
        UserError: an option is invalid.
    """
    parser = OptionParser("caption_many.py", __doc__)
    add = parser.add_argument
    add("inputs", nargs="+", type=Path, metavar="INPUT", help="folders, .tar, lists of paths (.csv, .parquet), images")
    add("--output", "--output_dir", type=Path, required=True, metavar="DIR", help="folder of the parts with the rows")
    add("--format", choices=("jsonl", "parquet"), default="jsonl", help="of the parts (default: %(default)s)")
    add("--part_size", type=positive_int, default=PART_SIZE, metavar="N", help="rows of a part (default: %(default)s)")
    add_captioner_options(parser, several=False)
    add(
        "--mirror",
        "--generate.mirror",
        choices=("on", "off"),
        help="also read the mirror image of each: better captions at half the speed (default: the checkpoint's)",
    )
    add(
        "--workers",
        type=positive_int,
        metavar="N",
        help="processes that decode images on this machine (default: one for each core but one)",
    )
    add("--ray", metavar="ADDRESS", help="caption on a Ray cluster: auto, HOST:PORT, or local to start Ray here")
    return parser.parse_args(argv)


def caption_all(
    captioner: "Captioner", sources: "list[Source]", parts: "Parts", settings: "Settings", options: Namespace
) -> "Iterator[tuple[int, int, list[Row]]]":
    """The rows of the batches of all parts, as they come in: part, first row, rows."""
    from bulk.captioning import Reader
    from bulk.local import caption_here
    from bulk.on_ray import caption_on_ray

    reader, batches = Reader(captioner.transform, Path.cwd()), list(parts.plan(sources))
    if options.ray:
        return caption_on_ray(options.ray, batches, reader, settings)
    workers = min(options.workers or max(1, (os.cpu_count() or 2) - 1), len(batches))
    return caption_here(captioner, batches, reader, settings, workers)


def write_parts(captioner: "Captioner", sources: "list[Source]", settings: "Settings", options: Namespace) -> None:
    """Caption the images that have no row yet, and write their parts."""
    from tqdm import tqdm

    from bulk.parts import Parts
    from files import encodable

    parts = Parts(options.output, options.format, options.part_size)
    with settings.checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    chosen = {"beam_size": settings.beam_size, "mirror": settings.mirror, "precision": settings.precision}
    parts.begin({"checkpoint": digest, **chosen, "rerank": captioner.reranker is not None})
    done = parts.captioned()
    new = [source for source in sources if encodable(source.name) not in done]
    if len(new) < len(sources):
        note(f"captioned in an earlier run: {len(sources) - len(new):,} of {len(sources):,} images")
    start, bad = time.monotonic(), 0
    with tqdm(total=len(new), desc="captioning", unit="img", disable=None, smoothing=0.05) as bar:
        for part, first, rows in caption_all(captioner, new, parts, settings, options) if new else ():
            parts.add(part, first, rows)
            bad += sum(row["error"] is not None for row in rows)
            bar.update(len(rows))
    seconds = time.monotonic() - start
    errors = f"; {bad:,} of them cannot be used, see the column error" if bad else ""
    rate = f" in {seconds:.0f} s ({len(new) / seconds:.1f} a second)" if new else ""
    say(f"{options.output}: rows of {len(new):,} images added{rate}{errors}")


def main(argv: list[str]) -> None:
    """Load the model, find the images, write their captions."""
    options = read_options(argv)
    if options.format == "parquet":
        import_module("pyarrow")  # before anything takes time, like Ray
    if options.ray:
        import_module("ray")
    from bulk.inputs import find_sources
    from gallery.photos import describe

    sources, passed_over = find_sources(options.inputs, options.output)
    if passed_over:
        note(describe(passed_over))

    from bulk.captioning import Settings  # torch takes seconds to import
    from files import lock_folder
    from models.captioner import Captioner
    from models.pretrained import find_checkpoint
    from utils import use_device

    checkpoint, content = find_checkpoint(options.checkpoint, photos=True)
    device = use_device(options.device, options.precision)
    captioner = Captioner.from_checkpoint(content, checkpoint, options.precision).to(device).eval()
    captioner.use_reranker(options.rerank)
    generate = captioner.config.generate
    settings = Settings(
        checkpoint.absolute(),
        options.beam_size or captioner.beams,
        generate.mirror if options.mirror is None else options.mirror == "on",
        options.precision,
        options.device,
        options.rerank,
    )
    try:
        with lock_folder(options.output, LOCK, wait=LOCK_WAIT):
            write_parts(captioner, sources, settings, options)
    except KeyboardInterrupt:
        note("interrupted: the parts in the folder are complete. To continue, run the same command again")
        sys.exit(130)


if __name__ == "__main__":
    run_script(main)
