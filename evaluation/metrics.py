"""BLEU-1..4, METEOR, ROUGE-L and CIDEr as the COCO caption evaluation defines them (Chen et al. 2015), by pycocoevalcap."""

import contextlib
import inspect
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from cli import UserError
from data.vocab import tokenize

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")


@dataclass(frozen=True)
class Scores:
    """Scores of N images, as fractions.

    Args:
        totals: of all images together: {"BLEU-1": ..., "CIDEr": ...}; without METEOR where Java does not work.
        names: the N images, in the order of the references.
        images: "BLEU-4", "ROUGE-L", "CIDEr" -> the score of each image (N,). The totals of ROUGE-L and CIDEr are their means,
            that of BLEU is not.
        bleu_counts: (N, 10), what sums up to the BLEU of any set of these images: matching n-grams of orders 1 to 4 (clipped),
            n-grams of orders 1 to 4, words, words of the reference nearest in length.
    """

    totals: dict[str, float]
    names: list[str]
    images: dict[str, np.ndarray]
    bleu_counts: np.ndarray


class Scorer:
    """Scores captions against references, which are tokenised once.

    Args:
        references: image name -> its reference captions, as people wrote them.

    All scores are fractions: CIDEr 0.55 is what tables print as 55. CIDEr's word weights come from the references given
    here, so scores on different sets of images cannot be compared.
    """

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        self.references = {
            name: [" ".join(tokenize(caption)) for caption in captions] for name, captions in references.items()
        }

    def score(self, captions: Mapping[str, str], *, all_metrics: bool = True) -> dict[str, float]:
        """``score_images(...).totals``: {"BLEU-1": ..., "CIDEr": ...}."""
        return self.score_images(captions, all_metrics=all_metrics).totals

    def score_images(self, captions: Mapping[str, str], *, all_metrics: bool = True) -> Scores:
        """Score one caption for each image of the references.

        Args:
            captions: image name -> caption.
            all_metrics: also ROUGE-L and, where Java is installed, METEOR; without, BLEU and CIDEr only, which is quicker.

        Raises:
            UserError: an image without a caption, or a caption for an unknown image.
        """
        missing, unknown = self.references.keys() - captions.keys(), captions.keys() - self.references.keys()
        if missing or unknown:
            example = min(missing or unknown)
            raise UserError(
                f"{len(missing)} images have no caption and {len(unknown)} captions have no image in the references, such as {example}"
            )
        results = {name: [" ".join(tokenize(captions[name]))] for name in self.references}
        bleu = BleuScorer(n=4)
        for name, references in self.references.items():
            bleu += (results[name][0], references)
        of_all, of_each = bleu.compute_score(option="closest")
        totals = {f"BLEU-{order}": float(value) for order, value in enumerate(of_all, start=1)}
        images = {"BLEU-4": np.array(of_each[3])}
        if all_metrics:
            with contextlib.suppress(OSError, ValueError):  # no Java, or one that does not work
                totals["METEOR"] = _meteor(self.references, results)
            rouge, images["ROUGE-L"] = Rouge().compute_score(self.references, results)
            totals["ROUGE-L"] = float(rouge)
        cider, images["CIDEr"] = Cider().compute_score(self.references, results)
        totals["CIDEr"] = float(cider)
        return Scores(totals, list(self.references), images, np.array([_bleu_counts(image) for image in bleu.ctest]))


def describe(captions: Collection[str], training: Collection[str]) -> dict[str, float | int | None]:
    """What the scores do not tell of captions: ``words`` in a caption (mean), ``vocabulary`` (different words in all of them), and two shares,
    ``distinct`` (different captions) and ``copied`` (word for word in ``training``; None where there are no training captions)."""
    words = [tokenize(caption) for caption in captions]
    known = {_letters(caption) for caption in training}
    return {
        "words": sum(map(len, words)) / len(words),
        "vocabulary": len({word for caption in words for word in caption}),
        "distinct": len(set(captions)) / len(words),
        "copied": sum(_letters(caption) in known for caption in captions) / len(words) if known else None,
    }


def _letters(caption: str) -> str:
    """The words without case and punctuation; ``tokenize`` would take seconds for the training captions of Flickr8k."""
    return " ".join(re.findall(r"\w+", caption.lower()))


def _bleu_counts(image: Mapping[str, Any]) -> list[int]:
    """A row of ``Scores.bleu_counts`` from pycocoevalcap's statistics of an image."""
    words = image["testlen"]
    closest = min(image["reflen"], key=lambda length: (abs(length - words), length))
    return [*image["correct"], *image["guess"], words, closest]


def _meteor(references: Mapping[str, Sequence[str]], results: Mapping[str, Sequence[str]]) -> float:
    """METEOR (Denkowski and Lavie 2014) only exists as a Java program: ask it by the line protocol of its -stdio mode.

    pycocoevalcap's wrapper of the same program hangs for ever where Java fails.

    Raises:
        OSError, ValueError: Java cannot be started, or ends without a score.
    """
    jar = Path(inspect.getfile(BleuScorer)).parents[1] / "meteor" / "meteor-1.5.jar"
    # METEOR prints its numbers as the machine's language does; only a decimal point can be read
    english = ["-Duser.language=en", "-Duser.language.format=en", "-Duser.country=US", "-Duser.country.format=US"]
    command = [
        "java",
        *english,
        "-Dfile.encoding=UTF-8",
        "-Xmx2G",
        "-jar",
        str(jar),
        "-",
        "-",
        "-stdio",
        "-l",
        "en",
        "-norm",
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as java:
        to_java, from_java = java.stdin, java.stdout
        assert to_java is not None and from_java is not None

        def tell(*parts: str) -> None:
            print(*(part.replace("|||", "") for part in parts), sep=" ||| ", file=to_java, flush=True)

        statistics = []
        for name, captions in references.items():
            tell("SCORE", *captions, results[name][0])
            statistics.append(from_java.readline().strip())
        tell("EVAL", *statistics)
        to_java.close()  # ends the program
        *_, total = from_java.read().split()  # the score of each image, then of all
        return float(total)
