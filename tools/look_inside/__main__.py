"""Follow one photograph from pixels to caption: print the numbers, and draw what happens as figures.

python -m tools.look_inside                    # draws docs/how_* and writes the numbers in docs/how_it_works.md again
python -m tools.look_inside --image mine.jpg --reference "a cat sleeps on a sofa" --output_dir looks      # your photo
"""

import sys
from pathlib import Path

if not __package__:  # started as `python tools/look_inside/__main__.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from cli import ROOT, OptionParser, UserError, run_script, say
from evaluation.options import checkpoint_file
from models.pretrained import PRETRAINED

IMAGE = ROOT / "demo/examples/shepherd.jpg"
REFERENCES = [  # written for it, in the manner of Flickr8k's annotators
    "a german shepherd is standing in the grass",
    "a brown and black dog with its tongue out stands in a field",
    "a german shepherd with a collar is standing in a grassy field",
    "a large dog stands on dry grass",
    "a black and brown dog is panting in the sun",
]
DOCUMENT = "how_it_works.md"


def main(argv: list[str]) -> None:
    """Measure, print, draw."""
    parser = OptionParser("python -m tools.look_inside", __doc__, "--image")
    add = parser.add_argument
    add("--image", type=Path, default=IMAGE, metavar="FILE", help="the photograph (default: the one of the document)")
    add(
        "--reference",
        nargs="+",
        action="extend",
        metavar="CAPTION",
        help="what people would say about it, needed with --image: for the loss and the reward",
    )
    add(
        "--checkpoint",
        type=checkpoint_file,
        default=PRETRAINED,
        metavar="FILE",
        help="a captioner with the attention decoder (default: the pretrained one)",
    )
    add(
        "--output_dir",
        type=Path,
        default=ROOT / "docs",
        metavar="DIR",
        help=f"folder for the figures; in a {DOCUMENT} that is there the numbers are replaced (default: docs)",
    )
    options = parser.parse_args(argv)
    if options.image != IMAGE and not options.reference:
        raise UserError("--image: also say what people would say about it, such as --reference 'a cat on a sofa'")
    from data.images import load_image
    from models.captioner import Captioner
    from models.checkpoint import load_checkpoint
    from tools.look_inside.figures import save
    from tools.look_inside.look import blocks, figures, look, update

    photo = load_image(options.image)
    # fp32 everywhere, so that another computer prints the same numbers
    captioner = Captioner.from_checkpoint(load_checkpoint(options.checkpoint), options.checkpoint, "fp32").eval()
    captioner.use_reranker("off")  # the document follows plain beam search
    seen = look(captioner, photo, options.reference or REFERENCES)
    measured = blocks(seen)
    for name, text in measured.items():
        say(f"--- {name}", *text.split("\n"), "")
    for name, figure in figures(seen).items():
        save(figure, options.output_dir / name)
        say(f"wrote {options.output_dir / name}")
    if (options.output_dir / DOCUMENT).exists():
        update(options.output_dir / DOCUMENT, measured)
        say(f"wrote the numbers in {options.output_dir / DOCUMENT}")


if __name__ == "__main__":
    run_script(main)
