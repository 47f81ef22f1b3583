"""Measure the speed of the project: of checkpoints, against a plain loop, as sizes grow, or of the start of a run.

python -m tools.benchmark --checkpoint runs/a runs/b --split val --beam_size 5   # images encoded and captioned a second
python -m tools.benchmark --baseline                    # against a loop as tutorials write it; on the bundled sample
python -m tools.benchmark --baseline --limit 16 --repeats 1                      # the same in a minute, less exact
python -m tools.benchmark --scaling --captions_file data/flickr8k/captions.csv --image_dir data/flickr8k/images
python -m tools.benchmark --start configs/flickr8k_attention.yaml       # of train.py: time to its first step, memory

Compare only numbers from a single call: they depend on the machine and what else it does.
"""

import sys
from argparse import Namespace
from pathlib import Path

if not __package__:  # started as `python tools/benchmark/__main__.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from cli import OptionParser, UserError, positive_int, run_script, say
from evaluation.options import add_cache_option, add_captioner_options, add_split_options

OUTPUT = Path("benchmark.json")
STARTS = 2  # of a run
ON_SAMPLE = "(by default with the pretrained captioner, on all images of the bundled sample)"


def read_options(argv: list[str]) -> Namespace:
    """The command line.

    Raises:
        UserError: an option is invalid, or conflicts with another.
    """
    parser = OptionParser("python -m tools.benchmark", __doc__, "--checkpoint")
    add_captioner_options(parser, several=True)
    add_split_options(parser)
    add_cache_option(parser)
    add = parser.add_argument
    add("--baseline", action="store_true", help=f"compare with the plain loop in tools/benchmark {ON_SAMPLE}")
    add("--scaling", action="store_true", help=f"measure more images, threads, beams, words and pages {ON_SAMPLE}")
    add(
        "--start",
        type=Path,
        nargs="+",
        metavar="YAML",
        help="measure a run of train.py with these configs until its first steps are saved, twice: with the caches as "
        "they are, and with warm ones (Linux)",
    )
    add(
        "--repeats",
        type=positive_int,
        metavar="N",
        help="runs of each measurement, of which the median counts (default: 3)",
    )
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"where --baseline and --scaling write all numbers; the tables go beside it as .md (default: {OUTPUT})",
    )
    options = parser.parse_args(argv)
    compared = options.baseline or options.scaling or options.start
    for name in ("repeats", "output"):
        if getattr(options, name) is not None and not compared:
            raise UserError(f"--{name} is for --baseline and --scaling. Add one of them, or leave --{name} out")
    if compared and options.feature_cache is not None:
        raise UserError("--feature_cache: --baseline and --scaling compute all features anew. Leave it out")
    if compared and len(options.beam_size or []) > 1:
        raise UserError(
            "--beam_size: --baseline and --scaling take one value; --scaling measures 1, 3, 5 and 10 besides"
        )
    options.output = options.output or OUTPUT
    if options.output.is_dir() or options.output.suffix != ".json":  # .md is for the tables
        raise UserError(f"--output {options.output}: numbers are written as JSON. Name a .json file")
    return options


def main(argv: list[str]) -> None:
    """Measure what the command line asks for; print the results."""
    options = read_options(argv)
    if options.start:
        from tools.benchmark.report import scaling_table
        from tools.benchmark.start import by_run

        say(*scaling_table(list(by_run(options.start, options.repeats or STARTS))).split("\n"))
        return
    if options.baseline or options.scaling:
        from tools.benchmark.run import run_benchmark

        say(*run_benchmark(options).rstrip().split("\n"))
        return
    from tools.benchmark.checkpoints import report
    from utils import peak_memory

    for named in options.checkpoint or [None]:
        report(named, options)
    say(f"done{peak_memory()}")


if __name__ == "__main__":
    run_script(main)
