"""Captioner: encoder, decoder, vocabulary and transform as one thing, loaded from one checkpoint; pictures in, sentences out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from cli import UserError
from config import Config, DecoderConfig, config_from_dict, config_to_dict
from data.features import FeatureCache
from data.transforms import Transform
from data.vocab import Vocabulary, word_of_token
from models.attention import AttentionDecoder
from models.decoding import Hypothesis, attention_per_word, generate, sample
from models.model import DecoderRNN, EncoderCNN
from models.quantize import expand
from models.transformer import TransformerDecoder
from utils import autocast, load_checkpoint, pick_precision


@dataclass(frozen=True)
class Candidate:
    """A caption and its log-probability (natural logarithm, summed over words and the end)."""

    caption: str
    log_prob: float
    attention: torch.Tensor | None = (
        None  # (words of caption.split(), P), where the decoder looked; asked for, of the best, if it has any
    )


def build_decoder(
    config: DecoderConfig, vocab_size: int, features_size: int
) -> DecoderRNN | AttentionDecoder | TransformerDecoder:
    """The decoder that ``decoder.name`` asks for."""
    if config.name == "attention":
        return AttentionDecoder(
            vocab_size, features_size, config.embed_size, config.hidden_size, config.heads, config.dropout
        )
    if config.name == "transformer":
        return TransformerDecoder(
            vocab_size, features_size, config.hidden_size, config.layers, config.heads, config.dropout
        )
    return DecoderRNN(vocab_size, features_size, config.embed_size, config.hidden_size, config.dropout)


def unmirror(attention: torch.Tensor) -> torch.Tensor:
    """Attention over a picture and its mirror image (words, 2 * P) -> over the places of the picture (words, P)."""
    picture, mirrored = attention.chunk(2, dim=1)
    side = math.isqrt(picture.shape[1])
    return picture + mirrored.reshape(-1, side, side).flip(-1).flatten(1)


class Captioner(nn.Module):
    """What is trained, saved and used.

    Args:
        config: the whole run's config; it travels in the checkpoint.
        vocabulary: the words, from the training captions.
        weights: the encoder's start, ``config.encoder.weights`` unless a checkpoint is about to fill it.
    """

    def __init__(self, config: Config, vocabulary: Vocabulary, weights: str | None = None) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.transform = Transform(config.data.image_size)
        self.encoder = EncoderCNN(config.encoder.weights if weights is None else weights, config.encoder.layout)
        self.decoder = build_decoder(config.decoder, len(vocabulary), self.encoder.features_size)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def precision(self) -> torch.dtype:
        """What the encoder computes in where it does not learn: as in training, but on a CPU what is fast there."""
        trained = self.config.train.precision
        return pick_precision("auto" if self.device.type == "cpu" and trained != "fp32" else trained, self.device)

    def encode(self, pictures: torch.Tensor, *, mirror: bool) -> torch.Tensor:
        """Pictures (B, 3, S, S) -> features (B, P, D) in fp16, without gradients: for the cache and for captioning.

        Rounded even where no cache is, so that a picture gets the same caption with and without.

        Args:
            mirror: the grid of the mirror image comes after that of the picture: (B, 2 * P, D).
        """
        pictures = pictures.to(self.device)
        views = [pictures, pictures.flip(-1)] if mirror else [pictures]
        with torch.inference_mode(), autocast(self.device, self.precision):
            return torch.cat([self.encoder(view) for view in views], dim=1).half()

    def feature_cache(self, root: str | Path, *, mirror: bool) -> FeatureCache:
        """The cache of this encoder's features below ``root``, see ``encode``; it serves as long as the encoder does not learn."""
        about = {**self.encoder.fingerprint(), "precision": str(self.precision), **({"mirror": True} if mirror else {})}
        return FeatureCache(root, partial(self.eval().encode, mirror=mirror), about, self.transform)

    def features(self, visual: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, S, S), or features (B, P, D) from the cache -> features to learn from (B, P, D), with gradients."""
        features: torch.Tensor = self.encoder(visual) if visual.dim() == 4 else visual.float()
        return features

    def forward(self, visual: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, S, S) or cached features (B, P, D), and tokens (B, K, T) -> logits (B, K, T, V)."""
        logits: torch.Tensor = self.decoder(self.features(visual), tokens)
        return logits

    def set_dropout(self, share: float) -> None:
        """Change the decoder's dropout; a stage of training may want its own."""
        for module in self.decoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = share

    def caption_features(
        self, features: torch.Tensor, beam_size: int | None = None, *, attention: bool = False
    ) -> list[list[Candidate]]:
        """Features (B, P, D) -> for each image its candidates, the best first, and if wanted with ``attention``."""
        options, features = self.config.generate, features.to(self.device).float()
        found = generate(
            self.decoder,
            features,
            beam_size or options.beam_size,
            options.max_length,
            options.length_penalty,
            options.no_repeat_ngram,
        )
        return self._candidates(found, features, attention)

    def _candidates(
        self, found: list[list[Hypothesis]], features: torch.Tensor, attention: bool
    ) -> list[list[Candidate]]:
        """Token ids -> captions, with ``attention`` also where the decoder looked at the words of each image's first."""
        candidates = [
            [Candidate(self.vocabulary.decode(h.tokens), h.log_prob) for h in hypotheses] for hypotheses in found
        ]
        looks = (
            attention_per_word(self.decoder, features, [hypotheses[0].tokens for hypotheses in found])
            if attention
            else None
        )
        for best, hypotheses, weights in zip(candidates, found, looks or [], strict=looks is not None):
            places = word_of_token([self.vocabulary.words[token] for token in hypotheses[0].tokens], best[0].caption)
            inside = (
                torch.arange(len(best[0].caption.split()))[:, None] == torch.tensor(places)
            ).float()  # (words, tokens)
            # "man's" is two tokens: where it looked is the mean of both
            mean = inside / inside.sum(dim=1, keepdim=True)
            best[0] = replace(
                best[0], attention=mean @ (unmirror(weights) if self.config.generate.mirror else weights).cpu()
            )
        return candidates

    def caption(
        self, images: Sequence[Image.Image], beam_size: int | None = None, *, attention: bool = False
    ) -> list[list[Candidate]]:
        """RGB pictures of any size -> for each its candidates, the best first, and if wanted with ``attention``."""
        return self.caption_features(self._encode_pictures(images), beam_size, attention=attention)

    def sample(
        self, images: Sequence[Image.Image], count: int, temperature: float, seed: int, *, attention: bool = False
    ) -> list[list[Candidate]]:
        """RGB pictures of any size -> for each ``count`` sentences drawn at random, the likeliest first; see ``decoding.sample``.

        Raises:
            ValueError: temperature is not above 0.
        """
        features = self._encode_pictures(images).float()
        generator = torch.Generator(self.device).manual_seed(seed)
        found = sample(self.decoder, features, count, generator, self.config.generate.max_length, temperature)
        return self._candidates(found, features, attention)

    def _encode_pictures(self, images: Sequence[Image.Image]) -> torch.Tensor:
        self.eval()
        pictures = torch.stack([self.transform(image) for image in images])
        return self.encode(pictures, mirror=self.config.generate.mirror)

    def checkpoint(self) -> dict[str, Any]:
        """Everything that captioning needs, as plain things."""
        return {
            "config": config_to_dict(self.config),
            "vocab": self.vocabulary.state(),
            "transform": self.transform.to_dict(),
            "model": self.state_dict(),
        }

    @classmethod
    def from_checkpoint(cls, checkpoint: dict[str, Any], name: str | Path = "checkpoint") -> "Captioner":
        """Build from ``checkpoint()``'s dict; needs no other file and no network.

        Raises:
            UserError: a part is missing or does not fit.
        """
        try:
            captioner = cls(config_from_dict(checkpoint["config"]), Vocabulary(checkpoint["vocab"]), weights="none")
            captioner.encoder.learns_batchnorm = captioner.config.encoder.weights == "none"
            captioner.transform = Transform.from_dict(checkpoint["transform"])
            captioner.load_state_dict(expand(checkpoint))
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise UserError(f"{name}: parts of the checkpoint are missing or do not fit together ({error})") from error
        return captioner

    @classmethod
    def load(cls, path: str | Path, device: torch.device) -> "Captioner":
        """Read a checkpoint file, ready to caption.

        Raises:
            UserError: see ``utils.load_checkpoint``.
        """
        return cls.from_checkpoint(load_checkpoint(path), path).to(device).eval()
