"""SHOW WITHOUT TORCH: print the captions of photos, with a captioner that tools.export_onnx has written.

python onnx_caption.py photo.jpg holiday/ "*.webp"        # files, folders, patterns
python onnx_caption.py holiday/ --format jsonl            # with all candidates and their log-probabilities

It takes the most probable caption of a beam, as --rerank off does. Needs requirements-onnx.txt only:
pip install -r requirements-onnx.txt -c constraints.txt
"""

import json
from argparse import Namespace
from pathlib import Path

from cli import OptionParser, UserError, note, run_script, say
from deploy.options import DEFAULT_FOLDER
from evaluation.options import beam_size

BATCH = 8  # photos whose captions are searched for together


def read_options(argv: list[str]) -> Namespace:
    """The command line.

    Raises:
        UserError: an option is invalid.
    """
    parser = OptionParser("onnx_caption.py", __doc__)
    add = parser.add_argument
    add("images", nargs="+", metavar="PHOTO", help="files, folders, patterns")
    add(
        "--checkpoint",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="folder that `python -m tools.export_onnx` has written (default: %(default)s)",
    )
    add(
        "--beam_size",
        "--generate.beam_size",
        type=beam_size,
        metavar="K",
        help="hypotheses kept at each step of beam search; 1 is greedy search (default: the checkpoint's)",
    )
    add("--format", choices=("txt", "jsonl"), default="txt", help="of the output (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Find the photos, load the captioner, print a line for each photo."""
    options = read_options(argv)
    from data.images import ImageError, load_image
    from deploy.captioner import Candidate, OnnxCaptioner
    from gallery.photos import describe, find_photos

    def show(name: str, candidates: list[Candidate]) -> None:
        if options.format == "txt":
            say(f"{name}: {candidates[0].caption}")
            return
        found = [{"caption": candidate.caption, "log_prob": candidate.log_prob} for candidate in candidates]
        say(json.dumps({"image": name, "caption": found[0]["caption"], "candidates": found}, ensure_ascii=False))

    photos, passed_over = find_photos(options.images, None)
    if passed_over:
        note(describe(passed_over))
    captioner, captioned = OnnxCaptioner(options.checkpoint), 0
    if captioner.description.learned_from == "drawings":
        note(f"warning: {options.checkpoint} was trained on drawings: its captions of photos will be wrong")
    for first in range(0, len(photos), BATCH):
        usable = {}
        for photo in photos[first : first + BATCH]:
            try:
                usable[photo.name] = captioner.pixels(load_image(photo.path))
            except ImageError as error:
                note(f"left out: {error}")
        if usable:
            features = captioner.encode(list(usable.values()))
            for name, candidates in zip(usable, captioner.generate(features, options.beam_size), strict=True):
                show(name, candidates)
        captioned += len(usable)
    if captioned < len(photos):
        note(f"captioned {captioned} of {len(photos)} images")
    if not captioned:
        raise UserError("none of the images can be used; the lines above say why")


if __name__ == "__main__":
    run_script(main)
