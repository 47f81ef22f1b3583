"""What captions are like beyond their scores: words, length, whom they mention, and how often they tell the truth.

python -m tools.probe_captions predictions_a.json predictions_b.json --captions_file captions.csv --split val
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if not __package__:  # started as `python tools/probe_captions.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import OptionParser, run_script, say
from config import ALL, SPLITS
from evaluation.options import DEFAULT_SPLIT

DANGLING = frozenset(["a", "an", "the", "in", "on", "of", "at", "to", "with", "and", "by", "for", "from", "into"])


def describe(captions: Mapping[str, str], training: Sequence[str]) -> dict[str, str]:
    """The properties of captions, as the cells of a table."""
    from data.tokenizer import WORDS
    from evaluation.metrics import caption_statistics
    from tools.model_card import gender_words

    statistics = caption_statistics(list(captions.values()), training)
    gender = [gender_words([caption]) for caption in captions.values()]
    last = [words[-1] for caption in captions.values() if (words := WORDS.tokenize(caption))]
    copied = statistics["copied"]
    return {
        "words per caption": f"{statistics['words']:.1f}",
        "different words": str(statistics["vocabulary"]),
        "distinct captions": f"{statistics['distinct']:.0%}",
        "copied from training": "" if copied is None else f"{copied:.0%}",
        "end in an article or preposition": str(sum(word in DANGLING for word in last)),
        "mention only women": f"{gender.count('women') / len(gender):.0%}",
        "mention only men": f"{gender.count('men') / len(gender):.0%}",
    }


def rows_of(
    captions: Sequence[Mapping[str, str]], references: Mapping[str, Sequence[str]], training: Sequence[str]
) -> list[list[str]]:
    """The rows of the table: a property, and its value for each system; probes with the interval of the difference."""
    from evaluation.bootstrap import resample_counts
    from evaluation.probes import PROBES, difference, probe

    properties = [describe(its, training) for its in captions]
    rows = [[name, *(each[name] for each in properties)] for name in properties[0]]
    probes = [probe(its, references) for its in captions]
    counts = resample_counts(len(references))
    for kind in PROBES:
        cells = [f"{100 * its[kind].precision:.1f} % of {its[kind].mentioned.sum()}" for its in probes]
        for place, its in enumerate(probes[1:], start=1):
            low, high = difference(probes[0][kind], its[kind], counts)
            cells[place] += f" ({100 * low:+.1f} to {100 * high:+.1f})"
        rows.append([f"{kind} words that are right", *cells])
    return rows


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = OptionParser("python -m tools.probe_captions", __doc__)
    parser.add_argument(
        "predictions",
        type=Path,
        nargs="+",
        help="captions, as evaluate.py writes them; others are compared with the first, in points of per cent",
    )
    parser.add_argument(
        "--captions_file",
        "--data.captions_file",
        type=Path,
        default=Path("captions.csv"),
        metavar="FILE",
        help="the references (default: %(default)s)",
    )
    parser.add_argument("--split", choices=(*SPLITS, ALL), help=f"the captioned images (default: {DEFAULT_SPLIT})")
    options = parser.parse_args(argv)
    from evaluation.predictions import read_predictions
    from evaluation.report import table
    from evaluation.split import open_references

    split = open_references(options.captions_file, options.split, None)
    references = split.references()
    captions = [read_predictions(path, references, split.ids) for path in options.predictions]
    header = ["", *(path.stem for path in options.predictions)]
    say(*table(header, rows_of(captions, references, split.training_captions())).split("\n"))


if __name__ == "__main__":
    run_script(main)
