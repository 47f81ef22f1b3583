"""How far chance alone moves a score: resample the images with replacement, score every resample (Efron 1979).

Paired, the same resamples for two systems, it tells whether one beats the other:
Koehn 2004, "Statistical significance tests for machine translation evaluation", https://aclanthology.org/W04-3250.
The references stay those of the full set: a resample changes which images count, not CIDEr's word weights.
"""

from collections.abc import Mapping

import numpy as np

from evaluation.metrics import Scores

RESAMPLES = 1000
LEVEL = (2.5, 97.5)  # percentiles of a 95 % interval


def draw(images: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each image is in each resample, (R, N); a row sums to N."""
    generator = np.random.default_rng(seed)
    return np.stack([np.bincount(generator.integers(images, size=images), minlength=images) for _ in range(resamples)])


def corpus_bleu(counts: np.ndarray) -> np.ndarray:
    """BLEU-4 of sets of images (Papineni et al. 2002), with pycocoevalcap's guards against 0 / 0.

    Args:
        counts: (..., 10), ``Scores.bleu_counts`` summed over the images of each set.
    """
    tiny, small = 1e-15, 1e-9
    matches, ngrams, words, reference = counts[..., :4], counts[..., 4:8], counts[..., 8], counts[..., 9]
    precision: np.ndarray = ((matches + tiny) / (ngrams + small)).prod(axis=-1) ** (1 / 4)
    brevity = np.exp(np.minimum(0, 1 - (reference + small) / (words + tiny)))
    return precision * brevity


def resample(scores: Scores, draws: np.ndarray) -> dict[str, np.ndarray]:
    """BLEU-4, ROUGE-L and CIDEr of each resample, (R,).

    Args:
        scores: of N images.
        draws: (R, N), from ``draw``; the same for all systems that are to be compared.
    """
    weights = draws.astype(float)  # as floats, BLAS multiplies them
    means = {metric: weights @ values / len(values) for metric, values in scores.images.items()}
    return {**means, "BLEU-4": corpus_bleu(weights @ scores.bleu_counts)}


def intervals(resampled: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Metric -> [low, high], the middle 95 % of its resamples."""
    return {metric: np.percentile(values, LEVEL).tolist() for metric, values in resampled.items()}


def compare(first: Scores, other: Scores, draws: np.ndarray) -> dict[str, dict[str, float | list[float]]]:
    """Metric -> ``difference`` (other - first), its ``interval``, and ``p``: how often chance alone would show such a difference.

    p is two-sided: twice the share of resamples in which the difference is gone or turned round. The data counts as one more such
    resample, so that p is never 0.
    """
    ours, theirs = resample(first, draws), resample(other, draws)
    result: dict[str, dict[str, float | list[float]]] = {}
    for metric, values in theirs.items():
        differences = values - ours[metric]
        against = 1 + min((differences <= 0).sum(), (differences >= 0).sum())
        result[metric] = {
            "difference": float(other.totals[metric] - first.totals[metric]),
            "interval": np.percentile(differences, LEVEL).tolist(),
            "p": min(1.0, 2 * float(against) / (len(differences) + 1)),
        }
    return result
