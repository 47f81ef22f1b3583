"""What a decoder chose the words of a caption from: the probability of each, and the most probable other words."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from data.vocab import END_ID, Vocabulary
from models.decoding import NEVER

OTHERS = 3  # words beside the chosen one: further ones are seldom probable


@dataclass(frozen=True)
class Choice:
    """The choice of a token, or of a piece of a caption: a word, or a character of scripts without blanks."""

    probability: float  # under the model, given the image and all tokens before it
    others: tuple[tuple[str, float], ...]  # other tokens, the most probable first; "" is the end of the caption


def token_choices(logits: torch.Tensor, tokens: Sequence[int], vocabulary: Vocabulary) -> list[Choice]:
    """The choice of each token of a caption.

    Args:
        logits: of the tokens and of the end after them (tokens + 1, V), as ``decoding.read_again`` returns them.
    """
    probabilities = logits[: len(tokens)].float().softmax(dim=-1).cpu()  # (tokens, V)
    chosen = torch.tensor(tokens, dtype=torch.int64)[:, None]
    own = probabilities.gather(1, chosen)[:, 0].tolist()
    probabilities[:, NEVER] = 0.0  # as in decoding
    best, ids = probabilities.scatter(1, chosen, 0.0).topk(min(OTHERS, probabilities.shape[1]))
    return [
        Choice(probability, tuple((_text(i, vocabulary), p) for i, p in zip(row, its_best, strict=True) if p > 0))
        for probability, row, its_best in zip(own, ids.tolist(), best.tolist(), strict=True)
    ]


def piece_choices(choices: Sequence[Choice], places: Sequence[int]) -> tuple[Choice, ...]:
    """The choices of pieces: "man's" is two tokens, whose probabilities are multiplied; others are those of the first.

    Args:
        places: the piece that each token is part of, as ``Tokenizer.piece_of_token`` returns them.
    """
    parts: dict[int, list[Choice]] = {}
    for place, choice in zip(places, choices, strict=True):
        parts.setdefault(place, []).append(choice)
    return tuple(Choice(prod(part.probability for part in piece), piece[0].others) for piece in parts.values())


def _text(token: int, vocabulary: Vocabulary) -> str:
    return "" if token == END_ID else vocabulary.words[token]
