"""SCORE: caption a split and compare with captions written by people, or score the captions of any system.

python evaluate.py                                                # caption the test split with checkpoints.pth
python evaluate.py --checkpoint runs/a runs/b --beam_size 1 3 5   # compare six systems
python evaluate.py --baseline nearest                             # score captions of similar training images too
python evaluate.py --predictions results.json --captions_file references.csv      # score anybody's captions

The scores: BLEU-1 to BLEU-4, METEOR (if Java is installed), ROUGE-L and CIDEr, each with a confidence interval.
"""

from argparse import Namespace
from pathlib import Path
from typing import get_args

from cli import OptionParser, UserError, run_script, say
from config import TokenizerName
from evaluation.options import add_cache_option, add_captioner_options, add_split_options


def read_options(argv: list[str]) -> Namespace:
    """Parse the command line.

    Raises:
        UserError: invalid options, or options that do not go together.
    """
    parser = OptionParser("evaluate.py", __doc__, "--checkpoint")
    add_captioner_options(parser, several=True)
    add_split_options(parser)
    add_cache_option(parser)
    parser.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="score the captions in these files (in COCO results format, or a captions.json of inference_visualize.py) "
        "instead of a model's; several are compared; --captions_file may then be COCO's or Karpathy's JSON",
    )
    parser.add_argument(
        "--seed",
        type=int,
        help="with --predictions and --split: the train.seed that divided a file without split column",
    )
    parser.add_argument(
        "--tokenizer",
        choices=get_args(TokenizerName),
        help="with --predictions: what captions are split into (default: characters if the references have no blanks "
        "between words, as in Chinese, Japanese or Thai)",
    )
    parser.add_argument(
        "--baseline", choices=("nearest",), help="also score captions of similar training images (Devlin et al. 2015)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("metrics.json"),
        metavar="FILE.json",
        help="file for the scores; tables and captions go to the same folder (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    _check(options)
    return options


def _check(options: Namespace) -> None:
    for name in ("checkpoint", "predictions", "beam_size"):
        values = getattr(options, name) or []
        if len({value.resolve() if isinstance(value, Path) else value for value in values}) < len(values):
            raise UserError(f"--{name} {' '.join(map(str, values))}: the same value twice. Give each once")
    if options.output.suffix != ".json":  # .md is for the tables, and a .pth or .csv may be a model or data
        raise UserError(f"--output {options.output}: scores are written as JSON. Name a .json file")
    if options.baseline and options.split in ("train", "all"):
        raise UserError(
            f"--baseline {options.baseline} borrows captions of training images, so it cannot be scored on "
            f"--split {options.split}. Use val or test"
        )
    if not options.predictions:
        if options.seed is not None:
            raise UserError("--seed is for --predictions; a checkpoint knows its seed. Leave it out")
        if options.tokenizer is not None:
            raise UserError("--tokenizer is for --predictions; a checkpoint knows its tokenizer. Leave it out")
        return
    for name in ("checkpoint", "image_dir", "feature_cache", "beam_size", "baseline", "limit"):
        if getattr(options, name) is not None:
            raise UserError(f"--predictions scores captions from files, so --{name} has no effect. Leave it out")
    if options.captions_file is None:
        raise UserError("--predictions needs the references: add --captions_file FILE (captions.csv, or COCO's JSON)")


def main(argv: list[str]) -> None:
    """Score as the command line asks; print the tables."""
    options = read_options(argv)
    from distributed import joined  # torch takes seconds to import
    from evaluation.run import run_evaluation

    with joined() as processes:
        say(*run_evaluation(options, processes).rstrip().split("\n"))


if __name__ == "__main__":
    run_script(main)
