"""How far to trust a caption of the pretrained model: how often captions that it found as probable were right.

Measured on the validation split of Flickr8k, which the model was not trained on. For the table and the constants::

    python inference_visualize.py --checkpoint pretrained/flickr8k.pth --split val --output_dir outputs/val \
        --captions_file data/flickr8k/captions.csv --image_dir data/flickr8k/images
    python -m tools.confidence outputs/val/captions.json
"""

from collections.abc import Sequence

from data.tokenizer import Tokenizer

IMAGES = 1000  # of the validation split
RIGHT = 50  # CIDEr (x 100) above which a caption counts as right
# Mean log-probability of a token from which on captions are as often right: in per cent, for each fifth of the images.
# What is unlike all photographs that the model knows, such as noise, text and most cats, is among the last fifth.
SHARES = ((-0.436, 74), (-0.527, 62), (-0.588, 48), (-0.660, 42), (float("-inf"), 32))
LOWEST = SHARES[-1][1]


def mean_log_prob(log_prob: float, caption: str, tokenizer: Tokenizer) -> float:
    """The log-probability of a caption, divided by the number of its tokens and the end."""
    return log_prob / (len(tokenizer.tokenize(caption)) + 1)


def share_right(mean: float, shares: Sequence[tuple[float, int]] = SHARES) -> int:
    """How many per cent of the captions with such a mean log-probability were right."""
    return next(share for bound, share in shares if mean >= bound)
