"""Bootstrap confidence intervals: resample the images with replacement, score every resample (Efron 1979).

With the same resamples for two systems (paired), it tests whether one is better than the other:
Koehn 2004, "Statistical significance tests for machine translation evaluation", https://aclanthology.org/W04-3250.
The references stay those of the full set: a resample changes how often each image counts, not CIDEr's document
frequencies. N images, R resamples.
"""

from collections.abc import Mapping

import numpy as np

from evaluation.metrics import Scores

RESAMPLES = 1000
INTERVAL = (2.5, 97.5)  # percentiles of a 95 % interval


def resample_counts(images: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each image occurs in each resample, (R, N): floats (BLAS multiplies them), each row sums to N."""
    generator = np.random.default_rng(seed)
    counts = np.empty((resamples, images))
    for row in counts:
        row[:] = np.bincount(generator.integers(images, size=images), minlength=images)
    return counts


def corpus_bleu(statistics: np.ndarray) -> np.ndarray:
    """BLEU-4 of sets of images (Papineni et al. 2002), with pycocoevalcap's guards against 0 / 0.

    Args:
        statistics: (..., 10), ``Scores.bleu_counts`` summed over the images of each set.
    """
    tiny, small = 1e-15, 1e-9
    matches, ngrams = statistics[..., :4], statistics[..., 4:8]
    words, reference = statistics[..., 8], statistics[..., 9]
    precision: np.ndarray = ((matches + tiny) / (ngrams + small)).prod(axis=-1) ** (1 / 4)
    brevity = np.exp(np.minimum(0, 1 - (reference + small) / (words + tiny)))
    return precision * brevity


def resample(scores: Scores, counts: np.ndarray) -> dict[str, np.ndarray]:
    """BLEU-4, ROUGE-L and CIDEr of each resample, (R,).

    Args:
        scores: of N images.
        counts: (R, N), from ``resample_counts``; the same for all systems to be compared.
    """
    means = {metric: counts @ values / len(values) for metric, values in scores.images.items()}
    return {**means, "BLEU-4": corpus_bleu(counts @ scores.bleu_counts)}


def intervals(resampled: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Metric -> [low, high], the 95 % interval of its resamples."""
    return {metric: np.percentile(values, INTERVAL).tolist() for metric, values in resampled.items()}


def compare(first: Scores, other: Scores, counts: np.ndarray) -> dict[str, dict[str, float | list[float]]]:
    """Metric -> ``difference`` (other - first), its 95 % ``interval``, and its p-value ``p``.

    p is two-sided: twice the fraction of resamples in which the difference is zero or has the opposite sign. The
    original data counts as one more such resample, so p is never 0.

    Args:
        counts: (R, N), from ``resample_counts``.
    """
    ours, theirs = resample(first, counts), resample(other, counts)
    result: dict[str, dict[str, float | list[float]]] = {}
    for metric, values in theirs.items():
        differences = values - ours[metric]
        against = 1 + min((differences <= 0).sum(), (differences >= 0).sum())
        result[metric] = {
            "difference": float(other.totals[metric] - first.totals[metric]),
            "interval": np.percentile(differences, INTERVAL).tolist(),
            "p": min(1.0, 2 * float(against) / (len(differences) + 1)),
        }
    return result
