"""The tables of MODEL_CARD.md that no hand should fill: captions at fixed ranks, good and bad, and how people are spoken of.

python -m tools.model_card --per_image runs/flickr8k_best/per_image.csv --captions_file data/flickr8k/captions.csv --split val
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cli import OptionParser, UserError, run_script
from data.captions import SPLITS, read_captions, references_of
from data.vocab import tokenize
from evaluation.report import table

WOMEN = frozenset([
    "woman", "women", "girl", "girls", "lady", "ladies", "female", "females", "she",
    "her", "hers", "herself", "mother", "mom", "daughter", "sister", "bride", "cheerleader",
])  # fmt: skip
MEN = frozenset([
    "man", "men", "boy", "boys", "guy", "guys", "gentleman", "gentlemen", "male", "males",
    "he", "him", "his", "himself", "father", "dad", "son", "brother", "groom", "cowboy",
])  # fmt: skip
COLUMNS = {"image": str, "caption": str, "CIDEr": float}
SAID = ("women", "men", "both", "neither")
RANKS = 10  # the best, the worst, and the captions between them that part the others into so many


def gender_words(captions: Sequence[str]) -> str:
    """Whom the words of the captions, taken together, name: "women", "men", "both" or "neither"."""
    words = {word for caption in captions for word in tokenize(caption)}
    women, men = bool(words & WOMEN), bool(words & MEN)
    return "both" if women and men else "women" if women else "men" if men else "neither"


def people(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """How many images have references that name (row) and a caption that names (column) women, men, both or neither."""
    pairs = pd.DataFrame(
        {"references": gender_words(references[name]), "caption": gender_words([captions[name]])} for name in captions
    )
    return pd.crosstab(pairs["references"], pairs["caption"]).reindex(index=SAID, columns=SAID, fill_value=0)


def examples(scored: pd.DataFrame) -> pd.DataFrame:
    """The rows of per_image.csv at equal distances from the best to the worst CIDEr, the best first."""
    ranked = scored.sort_values("CIDEr", ascending=False, kind="stable")
    return ranked.iloc[[round(rank * (len(ranked) - 1) / RANKS) for rank in range(RANKS + 1)]]


def main(argv: list[str]) -> None:
    """Print both tables."""
    parser = OptionParser(
        prog="python -m tools.model_card", description="Tables for MODEL_CARD.md, from what evaluate.py wrote."
    )
    parser.add_argument(
        "--per_image", type=Path, default=Path("per_image.csv"), help="evaluate.py's scores (default: %(default)s)"
    )
    parser.add_argument("--captions_file", default="captions.csv", help="what people wrote (default: %(default)s)")
    parser.add_argument(
        "--split", choices=SPLITS, default="test", help="which images were scored (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    if not arguments.per_image.is_file():
        raise UserError(f"--per_image {arguments.per_image}: no such file; evaluate.py writes it beside its --output")
    try:
        scored = pd.read_csv(arguments.per_image, keep_default_na=False, usecols=list(COLUMNS), dtype=COLUMNS)
    except ValueError as error:  # a column is missing, CIDEr no number, not UTF-8, empty
        raise UserError(
            f"--per_image {arguments.per_image}: not the per_image.csv of evaluate.py, with columns image, caption and CIDEr ({error})"
        ) from error
    references = references_of(read_captions(arguments.captions_file, seed=0), arguments.split)
    unknown = [name for name in scored["image"] if name not in references]
    if unknown or scored.empty:
        missing = f"{unknown[0]} is not" if unknown else "no image in it is"
        raise UserError(
            f"--per_image {arguments.per_image}: {missing} in split '{arguments.split}' of {arguments.captions_file}. Check --split"
        )
    counts = people(dict(zip(scored["image"], scored["caption"], strict=True)), references)
    rows = [[row, *map(str, counts.loc[row])] for row in SAID]
    print(table(["people's captions name", *(f"caption: {said}" for said in SAID)], rows), end="\n\n")
    chosen = examples(scored)
    rows = [[row.caption, row.image, f"{100 * row.CIDEr:.0f}"] for row in chosen.itertuples()]
    print(table(["caption", "image", "CIDEr"], rows))


if __name__ == "__main__":
    run_script(main)
