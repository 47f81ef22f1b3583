"""BLEU-1..4, METEOR, ROUGE-L and CIDEr of the COCO caption evaluation (Chen et al. 2015), by pycocoevalcap."""

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
from data.tokenizer import WORDS, Tokenizer, Words

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")


METEOR_JAR = Path(inspect.getfile(BleuScorer)).parents[1] / "meteor" / "meteor-1.5.jar"  # part of pycocoevalcap


@dataclass(frozen=True)
class Scores:
    """Scores of N images, as fractions.

    Args:
        totals: of all images together: {"BLEU-1": ..., "CIDEr": ...}; without METEOR where Java is missing or fails,
            or where captions are not split into words.
        names: the N images, in the order of the references.
        images: "BLEU-4", "ROUGE-L", "CIDEr" -> the score of each image (N,). The totals of ROUGE-L and CIDEr are means
            of these; BLEU's is not.
        bleu_counts: (N, 10) the statistics whose sum gives the BLEU of any set of these images: clipped matches of
            n-grams (orders 1 to 4), n-grams (orders 1 to 4), words, words of the reference closest in length.
    """

    totals: dict[str, float]
    names: list[str]
    images: dict[str, np.ndarray]
    bleu_counts: np.ndarray


class Scorer:
    """Scores captions against references, which are tokenized once.

    Args:
        references: image name -> its reference captions, not tokenized.
        tokenizer: of references and captions. Without words there is no METEOR, which stems English words.

    All scores are fractions: CIDEr 0.55 is what tables print as 55. CIDEr's document frequencies come from these
    references, so scores on different sets of images cannot be compared.
    """

    def __init__(self, references: Mapping[str, Sequence[str]], tokenizer: Tokenizer = WORDS) -> None:
        self.tokenizer = tokenizer
        self.references = {name: list(map(self._tokens, captions)) for name, captions in references.items()}

    def _tokens(self, caption: str) -> str:
        """The tokens with blanks between them, as pycocoevalcap reads them."""
        return " ".join(self.tokenizer.tokenize(caption))

    def score(self, captions: Mapping[str, str], *, all_metrics: bool = True) -> dict[str, float]:
        """Only the ``totals`` of ``score_images``: all that validation needs."""
        return self.score_images(captions, all_metrics=all_metrics).totals

    def score_images(self, captions: Mapping[str, str], *, all_metrics: bool = True) -> Scores:
        """Score one caption for each image of the references.

        Args:
            captions: image name -> caption.
            all_metrics: False computes only BLEU and CIDEr, which is faster; True also ROUGE-L and METEOR (with Java).

        Raises:
            UserError: an image without a caption, a caption of an unknown image, or an incomplete pycocoevalcap.
        """
        missing, unknown = self.references.keys() - captions.keys(), captions.keys() - self.references.keys()
        if missing or unknown:
            raise UserError(
                f"{len(missing)} images have no caption and {len(unknown)} captions have no image in the references, "
                f"such as {min(missing or unknown)}"
            )
        results = {name: [self._tokens(captions[name])] for name in self.references}
        bleu = BleuScorer(n=4)
        for name, references in self.references.items():
            bleu += (results[name][0], references)
        of_all, of_each = bleu.compute_score(option="closest")
        totals = {f"BLEU-{order}": float(value) for order, value in enumerate(of_all, start=1)}
        images = {"BLEU-4": np.array(of_each[3])}
        if all_metrics:
            meteor = _meteor(self.references, results) if isinstance(self.tokenizer, Words) else None
            if meteor is not None:
                totals["METEOR"] = meteor
            rouge, images["ROUGE-L"] = Rouge().compute_score(self.references, results)
            totals["ROUGE-L"] = float(rouge)
        cider, images["CIDEr"] = Cider().compute_score(self.references, results)
        totals["CIDEr"] = float(cider)
        return Scores(totals, list(self.references), images, np.array([_bleu_counts(image) for image in bleu.ctest]))


def caption_statistics(
    captions: Collection[str], training: Collection[str], tokenizer: Tokenizer = WORDS
) -> dict[str, float | int | None]:
    """Properties of captions that the scores do not show.

    Args:
        captions: at least one.
        training: the training captions.
        tokenizer: splits captions into what is counted as words.

    Returns:
        ``words`` per caption (mean), ``vocabulary`` (different words in all captions), and two fractions: ``distinct``
        (different captions) and ``copied`` (captions that are in ``training``; None if ``training`` is empty).
    """
    words = [tokenizer.tokenize(caption) for caption in captions]
    known = {_normalize(caption) for caption in training}
    return {
        "words": sum(map(len, words)) / len(words),
        "vocabulary": len({word for caption in words for word in caption}),
        "distinct": len(set(captions)) / len(words),
        "copied": sum(_normalize(caption) in known for caption in captions) / len(words) if known else None,
    }


def _normalize(caption: str) -> str:
    """The letters and digits in lower case; to tokenize would take seconds for a whole training set."""
    return "".join(re.findall(r"\w+", caption.lower()))


def _bleu_counts(image: Mapping[str, Any]) -> list[int]:
    """A row of ``Scores.bleu_counts`` from pycocoevalcap's statistics of an image."""
    words = image["testlen"]
    closest = min(image["reflen"], key=lambda length: (abs(length - words), length))
    return [*image["correct"], *image["guess"], words, closest]


def _meteor(references: Mapping[str, Sequence[str]], results: Mapping[str, Sequence[str]]) -> float | None:
    """METEOR (Denkowski and Lavie 2014), which exists only as a Java program; None if Java is missing or fails.

    pycocoevalcap's own wrapper of the program waits forever if Java fails.

    Raises:
        UserError: the program is missing from the installed pycocoevalcap.
    """
    if not METEOR_JAR.is_file():
        raise UserError(f"{METEOR_JAR}: missing, so METEOR cannot be computed. Reinstall pycocoevalcap")
    requests = []
    for name, captions in references.items():
        fields = [caption.replace("|||", "") for caption in (*captions, results[name][0])]
        requests.append(" ||| ".join(["SCORE", *fields]))
    output = _ask_meteor(requests).split()
    with contextlib.suppress(IndexError, ValueError):  # no output, or an error message instead of a number
        return float(output[-1])  # the scores of the images come first, then the total
    return None


def _ask_meteor(requests: Sequence[str]) -> str:
    """Talk METEOR's line protocol (-stdio): each SCORE request returns statistics, EVAL turns all of them into scores.

    Returns:
        all scores as text; "" if Java is missing or stops working.
    """
    # METEOR formats numbers in the locale of the machine; only a decimal point can be parsed
    locale = ["-Duser.language=en", "-Duser.language.format=en", "-Duser.country=US", "-Duser.country.format=US"]
    java = ["java", *locale, "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", str(METEOR_JAR)]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(
            [*java, "-", "-", "-stdio", "-l", "en", "-norm"],
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            statistics = []
            for request in requests:
                print(request, file=process.stdin, flush=True)
                statistics.append(process.stdout.readline().strip())
            print("EVAL", *statistics, sep=" ||| ", file=process.stdin, flush=True)
            process.stdin.close()  # ends the program
            return process.stdout.read()
    except OSError:  # no such program, or a broken pipe
        return ""
