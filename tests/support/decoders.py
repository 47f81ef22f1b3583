"""Small decoders, and what they predict for padded tokens."""

import json

import torch

import config
from data.packing import pack
from data.vocab import END_ID, PAD_ID
from models.captioner import build_decoder
from models.interfaces import WordDecoder
from tests.support.helpers import tiny_decoder


def small_decoder(name: str, vocab_size: int, features_size: int, **options: float) -> WordDecoder:
    """A decoder with random weights, in eval mode."""
    values = json.loads(tiny_decoder(name, **options).removeprefix("--decoder="))
    return build_decoder(config.DECODERS[name](**values), vocab_size, features_size).eval()


def padded_logits(decoder: WordDecoder, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Features (B, P, D), tokens (B, K, T) up to <end> or <pad> -> logits (B, K, T, V), zero behind the end.

    A caption of padding only is skipped: its image has fewer captions.
    """
    ended = ((tokens == END_ID) | (tokens == PAD_ID)).int().cumsum(dim=2) > 0  # (B, K, T)
    lengths = (~ended).sum(dim=2)
    captions = [
        [[*row[:length].tolist(), END_ID] for row, length in zip(its, its_lengths, strict=True) if length > 0]
        for its, its_lengths in zip(tokens, lengths, strict=True)
    ]
    rows = decoder(features, pack(captions))  # (M, V)
    return rows.new_zeros(*tokens.shape, rows.shape[1]).masked_scatter(~ended[..., None], rows)
