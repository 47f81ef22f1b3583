"""The intervals are those of resampled images; a paired comparison finds real differences, and only those."""

import numpy as np
import pytest

from data.captions import read_captions
from evaluation import bootstrap
from evaluation.metrics import Scorer, Scores
from tests.support.helpers import ROOT


@pytest.fixture(scope="module")
def album() -> dict[str, list[str]]:
    """Five captions each of 120 images of the bundled sample, and of one more image an empty caption."""
    table = read_captions(ROOT / "captions.csv", None)
    captions = {str(image): list(group) for image, group in table.groupby("image")["caption"]}
    return dict(list(captions.items())[:120]) | {"silent": ["", "a dog"]}


@pytest.fixture(scope="module")
def people(album: dict[str, list[str]]) -> Scores:
    """The scores of the first caption of each image against the others."""
    return score(album, {image: texts[0] for image, texts in album.items()})


def score(album: dict[str, list[str]], captions: dict[str, str]) -> Scores:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # without METEOR
        return Scorer({image: texts[1:] for image, texts in album.items()}).score_images(captions)


def random_scores(values: np.ndarray) -> Scores:
    """Scores of N images with these values (N,)."""
    return Scores(
        {"CIDEr": float(values.mean()), "BLEU-4": 0.0},
        [""] * len(values),
        {"CIDEr": values},
        np.zeros((len(values), 10)),
    )


def test_a_resample_scores_what_pycocoevalcap_gives_for_its_images(album: dict[str, list[str]], people: Scores) -> None:
    counts = bootstrap.resample_counts(len(album), resamples=3)
    found = bootstrap.resample(people, np.vstack([np.ones_like(counts[:1]), counts]))
    assert found["BLEU-4"][0] == pytest.approx(people.totals["BLEU-4"], rel=1e-9)
    for number, row in enumerate(counts.astype(int), start=1):
        again = {
            f"{copy}/{image}": texts
            for (image, texts), times in zip(album.items(), row, strict=True)
            for copy in range(times)
        }
        truth = score(again, {image: texts[0] for image, texts in again.items()})
        assert found["BLEU-4"][number] == pytest.approx(truth.totals["BLEU-4"], rel=1e-9)
        assert found["ROUGE-L"][number] == pytest.approx(truth.totals["ROUGE-L"], rel=1e-9)
        assert found["CIDEr"][number] == pytest.approx(
            np.repeat(people.images["CIDEr"], row).mean()
        )  # the document frequencies stay


def test_bleu_of_too_short_and_of_empty_captions() -> None:
    for caption in ("a dog runs on the", ""):
        references = {"1": ["a dog runs on the grass by the sea"], "2": ["a cat sits on the mat"]}
        scores = Scorer(references).score_images(dict.fromkeys(references, caption), all_metrics=False)
        assert bootstrap.corpus_bleu(scores.bleu_counts.sum(0)) == pytest.approx(scores.totals["BLEU-4"], rel=1e-9)


def test_resamples_are_seeded_and_complete() -> None:
    counts = bootstrap.resample_counts(50, resamples=20, seed=1)
    assert counts.shape == (20, 50) and (counts.sum(1) == 50).all() and len(np.unique(counts, axis=0)) == 20
    assert (counts == bootstrap.resample_counts(50, resamples=20, seed=1)).all() and (
        counts != bootstrap.resample_counts(50, resamples=20, seed=2)
    ).any()


def test_the_interval_of_a_mean_equals_the_textbook_formula() -> None:
    values = np.random.default_rng(0).exponential(size=500)
    low, high = bootstrap.intervals(bootstrap.resample(random_scores(values), bootstrap.resample_counts(500)))["CIDEr"]
    margin = 1.96 * values.std() / 500**0.5
    assert (low, high) == pytest.approx((values.mean() - margin, values.mean() + margin), abs=0.1 * margin)


def test_the_better_system_is_found(album: dict[str, list[str]], people: Scores) -> None:
    texts = [texts[0] for texts in album.values()]
    wrong = score(album, dict(zip(album, texts[1:] + texts[:1], strict=True)))
    counts = bootstrap.resample_counts(len(album))
    found, turned = bootstrap.compare(people, wrong, counts), bootstrap.compare(wrong, people, counts)
    assert found.keys() == {"BLEU-4", "ROUGE-L", "CIDEr"}
    for metric, result in found.items():
        low, high = result["interval"]
        assert low < result["difference"] == wrong.totals[metric] - people.totals[metric] < high < 0
        assert result["p"] == turned[metric]["p"] == pytest.approx(2 / 1001)
        assert turned[metric]["interval"] == pytest.approx([-high, -low])
    for result in bootstrap.compare(people, people, counts).values():
        assert result == {"difference": 0, "interval": [0, 0], "p": 1}


def test_random_differences_are_significant_once_in_twenty() -> None:
    generator, counts = np.random.default_rng(0), bootstrap.resample_counts(100, resamples=400)
    pairs = [(random_scores(generator.random(100)), random_scores(generator.random(100))) for _ in range(300)]
    significant = [bootstrap.compare(*pair, counts)["CIDEr"]["p"] < 0.05 for pair in pairs]
    assert 0.02 < np.mean(significant) < 0.09
