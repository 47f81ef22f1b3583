"""Print tables for MODEL_CARD.md: captions at fixed ranks from best to worst, and how they mention women and men.

python -m tools.model_card --per_image runs/flickr8k_best/per_image.csv --captions_file data/flickr8k/captions.csv
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started as `python tools/model_card.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import OptionParser, UserError, run_script, say

if TYPE_CHECKING:  # pandas takes a second to import: only the functions that compute do
    import pandas as pd

WOMEN = frozenset([
    "woman", "women", "girl", "girls", "lady", "ladies", "female", "females", "she",
    "her", "hers", "herself", "mother", "mom", "daughter", "sister", "bride", "cheerleader",
])  # fmt: skip
MEN = frozenset([
    "man", "men", "boy", "boys", "guy", "guys", "gentleman", "gentlemen", "male", "males",
    "he", "him", "his", "himself", "father", "dad", "son", "brother", "groom", "cowboy",
])  # fmt: skip
PER_IMAGE_COLUMNS = {"image": str, "caption": str, "CIDEr": float}  # those used here
MENTIONED = ("women", "men", "both", "neither")
STEPS = 10  # between the ranks of the examples, from the best caption to the worst


def gender_words(captions: Sequence[str]) -> str:
    """Whom the captions mention, taken together: "women", "men", "both" or "neither"."""
    from data.tokenizer import WORDS

    words = {word for caption in captions for word in WORDS.tokenize(caption)}
    women, men = bool(words & WOMEN), bool(words & MEN)
    return "both" if women and men else "women" if women else "men" if men else "neither"


def people(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Number of images by whom the references (row) and the caption (column) mention: women, men, both, neither."""
    import pandas as pd

    pairs = pd.DataFrame(
        {"references": gender_words(references[name]), "caption": gender_words([captions[name]])} for name in captions
    )
    counts = pd.crosstab(pairs["references"], pairs["caption"])
    return counts.reindex(index=MENTIONED, columns=MENTIONED, fill_value=0)


def examples(scored: pd.DataFrame) -> pd.DataFrame:
    """The rows of per_image.csv at equally spaced ranks by CIDEr, the best first."""
    ranked = scored.sort_values("CIDEr", ascending=False, kind="stable")
    return ranked.iloc[[round(step * (len(ranked) - 1) / STEPS) for step in range(STEPS + 1)]]


def read_scores(per_image: Path) -> pd.DataFrame:
    """The columns image, caption and CIDEr of a per_image.csv.

    Raises:
        UserError: no such file, or not one that evaluate.py wrote.
    """
    import pandas as pd

    from data.rows import plain_cell

    if not per_image.is_file():
        raise UserError(f"--per_image {per_image}: no such file. evaluate.py writes it next to its --output")
    try:
        scored = pd.read_csv(per_image, keep_default_na=False, usecols=list(PER_IMAGE_COLUMNS), dtype=PER_IMAGE_COLUMNS)
    except ValueError as error:  # a missing column, a CIDEr that is not a number, not UTF-8, empty
        raise UserError(
            f"--per_image {per_image}: not a per_image.csv of evaluate.py, with the columns image, caption and CIDEr "
            f"({error})"
        ) from error
    for column in ("image", "caption"):
        scored[column] = scored[column].map(plain_cell)
    if scored.empty:
        raise UserError(f"--per_image {per_image}: no image in it. Score at least one with evaluate.py")
    return scored


def read_references(captions_file: Path, scored: pd.DataFrame) -> dict[str, list[str]]:
    """The references of the scored images, whatever split they are in.

    Raises:
        UserError: an image is not in the captions file.
    """
    from data.captions import read_captions

    captions = read_captions(captions_file, None)
    captions = captions[captions["image"].isin(scored["image"])]
    references = {str(name): list(group) for name, group in captions.groupby("image", sort=False)["caption"]}
    unknown = [name for name in scored["image"] if name not in references]
    if unknown:
        raise UserError(f"{unknown[0]}: a scored image that is not in {captions_file}. Check --captions_file")
    return references


def main(argv: list[str]) -> None:
    """Print both tables."""
    parser = OptionParser("python -m tools.model_card", __doc__)
    parser.add_argument(
        "--per_image",
        type=Path,
        default=Path("per_image.csv"),
        metavar="FILE",
        help="scores of each image, which evaluate.py writes (default: %(default)s)",
    )
    parser.add_argument(
        "--captions_file",
        "--data.captions_file",
        type=Path,
        default=Path("captions.csv"),
        metavar="FILE",
        help="the references (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    from evaluation.report import table

    scored = read_scores(options.per_image)
    references = read_references(options.captions_file, scored)
    counts = people(dict(zip(scored["image"], scored["caption"], strict=True)), references)
    rows = [[mentioned, *map(str, counts.loc[mentioned])] for mentioned in MENTIONED]
    say(*table(["references mention", *(f"caption: {mentioned}" for mentioned in MENTIONED)], rows).split("\n"), "")
    rows = [[row.caption, row.image, f"{100 * row.CIDEr:.0f}"] for row in examples(scored).itertuples()]
    say(*table(["caption", "image", "CIDEr"], rows).split("\n"))


if __name__ == "__main__":
    run_script(main)
