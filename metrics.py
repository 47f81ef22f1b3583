"""BLEU-1..4, METEOR, ROUGE-L and CIDEr as the COCO caption evaluation defines them (Chen et al. 2015), by pycocoevalcap."""

import contextlib
import inspect
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from data.vocab import tokenize
from utils import UserError


class Scorer:
    """Scores captions against references, which are tokenised once.

    Args:
        references: image name -> its reference captions, as people wrote them.

    All scores are fractions: CIDEr 0.55 is what tables print as 55. CIDEr's word weights come from the references given
    here, so scores on different sets of images cannot be compared.
    """

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        self.references = {name: [" ".join(tokenize(caption)) for caption in captions] for name, captions in references.items()}

    def score(self, captions: Mapping[str, str], *, all_metrics: bool = True) -> dict[str, float]:
        """One caption for each image of the references -> {"BLEU-1": ..., "CIDEr": ...}.

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
        bleu, _ = Bleu(4).compute_score(self.references, results, verbose=0)
        scores = {f"BLEU-{order}": float(value) for order, value in enumerate(bleu, start=1)}
        if all_metrics:
            with contextlib.suppress(OSError, ValueError):  # no Java, or one that does not work
                scores["METEOR"] = _meteor(self.references, results)
            scores["ROUGE-L"] = float(Rouge().compute_score(self.references, results)[0])
        scores["CIDEr"] = float(Cider().compute_score(self.references, results)[0])
        return scores


def _meteor(references: Mapping[str, Sequence[str]], results: Mapping[str, Sequence[str]]) -> float:
    """METEOR (Denkowski and Lavie 2014) only exists as a Java program: ask it by the line protocol of its -stdio mode.

    pycocoevalcap's wrapper of the same program hangs for ever where Java fails.

    Raises:
        OSError, ValueError: Java cannot be started, or ends without a score.
    """
    jar = Path(inspect.getfile(Bleu)).parents[1] / "meteor" / "meteor-1.5.jar"
    # METEOR prints its numbers as the machine's language does; only a decimal point can be read
    english = ["-Duser.language=en", "-Duser.language.format=en", "-Duser.country=US", "-Duser.country.format=US"]
    command = ["java", *english, "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8") as java:
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
