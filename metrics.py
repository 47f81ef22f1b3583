"""BLEU-1..4, METEOR, ROUGE-L and CIDEr as the COCO caption evaluation defines them (Chen et al. 2015), by pycocoevalcap."""

import os
import shutil
from collections.abc import Mapping, Sequence

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
            if has_java():
                scores["METEOR"] = _meteor(self.references, results)
            scores["ROUGE-L"] = float(Rouge().compute_score(self.references, results)[0])
        scores["CIDEr"] = float(Cider().compute_score(self.references, results)[0])
        return scores


def has_java() -> bool:
    """METEOR (Denkowski and Lavie 2014) only exists as a Java program; all else runs without."""
    return shutil.which("java") is not None


def _meteor(references: dict[str, list[str]], results: dict[str, list[str]]) -> float:
    from pycocoevalcap.meteor.meteor import Meteor

    # METEOR prints its numbers in the machine's language; pycocoevalcap reads only a decimal point
    os.environ["JAVA_TOOL_OPTIONS"] = "-Duser.language=en"
    return float(Meteor().compute_score(references, results)[0])
