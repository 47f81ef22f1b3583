"""Print how often captions are right, by their mean log-probability: the constants of demo/confidence.py.

python inference_visualize.py --split val --output_dir outputs/val     # writes captions.json, with the references
python -m tools.confidence outputs/val/captions.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started as `python tools/confidence.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import OptionParser, UserError, run_script, say

if TYPE_CHECKING:
    import numpy as np

GROUPS = 5  # of images: with 1,000 images, the share of a group of 200 is known to within 7 points


def read_means(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean log-probability of a token, and CIDEr (x 100), of each image of a captions.json (N,).

    Raises:
        UserError: it is not a captions.json of images with references, or has fewer images than groups.
    """
    import numpy as np

    from data.tokenizer import tokenizer_of
    from demo.confidence import mean_log_prob
    from evaluation.metrics import Scorer
    from structured import read_json

    try:
        entries = [
            (str(entry["image"]), str(entry["caption"]), float(entry["log_prob"]), list(map(str, entry["references"])))
            for entry in read_json(path, f"{path}")
        ]
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: not a captions.json of images with references. "
            "Write one with: python inference_visualize.py --split val"
        ) from None
    if len(entries) < GROUPS:
        raise UserError(f"{path}: {len(entries)} images. At least {GROUPS} are needed")
    tokenizer = tokenizer_of([reference for *_, references in entries for reference in references])
    scorer = Scorer({name: references for name, _, _, references in entries}, tokenizer)
    scores = scorer.score_images({name: caption for name, caption, *_ in entries}, all_metrics=False)
    means = [mean_log_prob(log_prob, caption, tokenizer) for _, caption, log_prob, _ in entries]
    return np.array(means), 100 * scores.images["CIDEr"]


def main(argv: list[str]) -> None:
    """Print the table."""
    parser = OptionParser("python -m tools.confidence", __doc__)
    parser.add_argument("captions", type=Path, metavar="FILE", help="captions.json of a gallery of a split")
    options = parser.parse_args(argv)
    import numpy as np

    from demo.confidence import RIGHT
    from evaluation.report import table

    means, ciders = read_means(options.captions)
    order = np.argsort(-means, kind="stable")
    rows = []
    for group in np.array_split(order, GROUPS):
        right = (ciders[group] > RIGHT).mean()
        rows.append([f"{means[group].min():.3f}", str(len(group)), f"{ciders[group].mean():.1f}", f"{100 * right:.0f}"])
    say(*table(["mean log-probability from", "images", "CIDEr", f"CIDEr > {RIGHT}, %"], rows).split("\n"))


if __name__ == "__main__":
    run_script(main)
