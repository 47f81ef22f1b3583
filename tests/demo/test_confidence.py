"""demo/confidence.py: what is told of a caption."""

import pytest

from data.tokenizer import WORDS
from demo.confidence import LOWEST, SHARES, mean_log_prob, share_right


def test_the_mean_counts_the_end_of_the_caption() -> None:
    assert mean_log_prob(-3.0, "a dog", WORDS) == -1.0
    assert mean_log_prob(-2.0, "a man's hat", WORDS) == -0.4  # "man's" is two tokens
    assert mean_log_prob(-0.5, "", WORDS) == -0.5


@pytest.mark.parametrize(("mean", "share"), [(0.0, 74), (-0.436, 74), (-0.44, 62), (-0.6, 42), (-9.0, LOWEST)])
def test_the_more_probable_the_more_often_right(mean: float, share: int) -> None:
    assert share_right(mean) == share
    assert sorted(SHARES, reverse=True) == sorted(SHARES, key=lambda pair: -pair[1]) == list(SHARES)
