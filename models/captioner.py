"""Captioner: encoder, decoder, vocabulary and transform as one model in one checkpoint; images in, captions out.

Shape letters: B images, P grid positions (twice as many with ``generate.mirror``), D encoder width, M real tokens,
V vocabulary, (h, w) the encoder's grid.
"""

import math
import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from PIL import Image
from torch import nn

from cli import UserError
from config import Config, DecoderConfig, config_to_dict
from data.features import FeatureCache
from data.images import ImageSource, LearnedFrom, load_image
from data.packing import PackedTokens
from data.transforms import Transform
from data.vocab import Vocabulary
from models.checkpoint_schema import misfits, read_parts
from models.choices import Choice, piece_choices, token_choices
from models.decoding import Hypothesis, generate, random_numbers, read_again, sample
from models.interfaces import Encoder, WordDecoder
from models.pretrained import find_checkpoint
from models.rerank import Reranker
from models.unset import without_values
from utils import autocast, pick_device, pick_precision

DESCRIBE_BATCH = 16  # images; more are hardly faster, and take more memory
Source = TypeVar("Source", bound=ImageSource)


@dataclass(frozen=True)
class Candidate:
    """A caption and its log-probability (natural logarithm, summed over its words and the end)."""

    caption: str
    log_prob: float
    attention: torch.Tensor | None = None  # (pieces of the caption, h, w); only of the best, and only if asked for
    choices: tuple[Choice, ...] = ()  # of the pieces of the caption; only of the best, and only with ``attention``
    score: float = 0.0  # what candidates are ranked by, see ``Hypothesis``


def build_decoder(config: DecoderConfig, vocab_size: int, features_size: int) -> WordDecoder:
    """The decoder that ``decoder.name`` selects, see ``config.DECODERS``."""
    decoder = pkgutil.resolve_name(config.built_by)(config, vocab_size, features_size)
    assert isinstance(decoder, WordDecoder)
    return decoder


def build_encoder(config: Config, *, load_weights: bool) -> Encoder:
    """The encoder that ``encoder.name`` selects, see ``config.ENCODERS``."""
    make = pkgutil.resolve_name(config.encoder.built_by)
    encoder = make(config.encoder, config.data.image_size, load_weights=load_weights)
    assert isinstance(encoder, Encoder)
    return encoder


def unmirror(attention: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Attention over an image and its mirror image (words, 2 * P) -> over the positions of the image (words, h, w)."""
    image, mirrored = attention.view(len(attention), 2, *grid).unbind(dim=1)
    return image + mirrored.flip(-1)


class Captioner(nn.Module):
    """The model that is trained, saved and used.

    Args:
        config: of the whole run; it is stored in the checkpoint.
        vocabulary: the words, from the training captions.
        learned_from: what its training images are; None: not recorded, as in a checkpoint of an earlier version.
        precision: of inference: auto, fp32 or bf16. See the property.
        load_weights: whether to load the encoder's initial weights; False where a checkpoint is loaded afterwards.
    """

    def __init__(
        self,
        config: Config,
        vocabulary: Vocabulary,
        learned_from: LearnedFrom | None = None,
        *,
        precision: str = "auto",
        load_weights: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.vocabulary, self.learned_from = config, vocabulary, learned_from
        self.named_precision = precision
        self.reranker: Reranker | None = None  # chooses among the captions of a beam, see models/rerank.py
        self.encoder = build_encoder(config, load_weights=load_weights)
        self.decoder = build_decoder(config.decoder, len(vocabulary), self.encoder.features_size)

    @property
    def transform(self) -> Transform:
        """From an RGB image to the tensor that ``encode`` reads."""
        return self.encoder.transform

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def precision(self) -> torch.dtype:
        """What inference computes in, a frozen encoder's in training too. auto: as in training, but on a CPU what is
        fast there."""
        name = self.named_precision
        if name == "auto" and (self.device.type != "cpu" or self.config.train.precision == "fp32"):
            name = self.config.train.precision
        return pick_precision(name, self.device)

    @property
    def decoding_precision(self) -> torch.dtype:
        """What captions are generated and validated in: fp32 instead of fp16, in which logits may be infinite."""
        return torch.float32 if self.precision == torch.float16 else self.precision

    def features(self, visual: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W), or cached features (B, P, D) -> features to train on (B, P, D), with gradients."""
        visual = visual.to(self.device, non_blocking=True)
        features: torch.Tensor = self.encoder(visual) if visual.dim() == 4 else visual.float()
        return features

    def forward(self, visual: torch.Tensor, captions: PackedTokens) -> torch.Tensor:
        """Images (B, 3, H, W) or features (B, P, D), and their captions -> logits (M, V), by teacher forcing."""
        logits: torch.Tensor = self.decoder(self.features(visual), captions.to(self.device))
        return logits

    def encode(self, images: torch.Tensor, *, mirror: bool) -> torch.Tensor:
        """Images (B, 3, H, W) -> features (B, P, D) in fp16, without gradients: for the cache and for captioning.

        Rounded even where no cache is used, so that an image gets the same caption with and without.

        Args:
            mirror: append the grid of the mirror image to that of the image: (B, 2 * P, D).

        Raises:
            RuntimeError: in train mode; call ``eval()`` first.
        """
        self._check_eval("encode")
        images = images.to(self.device)
        views = [images, images.flip(-1)] if mirror else [images]
        with torch.inference_mode(), autocast(self.device, self.precision):
            return torch.cat([self.encoder(view) for view in views], dim=1).half()

    def feature_cache(self, root: str | Path, *, mirror: bool) -> FeatureCache:
        """The cache of this encoder's features below ``root``; valid while the encoder is frozen. See ``encode``."""
        about = {
            **self.encoder.fingerprint(),
            "precision": str(self.precision),
            **({"mirror": True} if mirror else {}),
        }
        encode = partial(self.encode, mirror=mirror)
        return FeatureCache(root, encode, about, self.transform, self.config.data.workers)

    def set_dropout(self, probability: float) -> None:
        """Change the decoder's dropout; a training stage may have its own."""
        for module in self.decoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability

    def generate(
        self, features: torch.Tensor, beam_size: int | None = None, *, attention: bool = False
    ) -> list[list[Candidate]]:
        """Features (B, P, D), from ``encode`` or the cache -> the candidates of each image, the best first.

        Args:
            beam_size: None: ``beams``. Of reranked hypotheses, the best ``generate.beam_size`` are returned.
            attention: also compute the attention and the word choices of each best candidate.

        Raises:
            RuntimeError: in train mode; call ``eval()`` first.
        """
        self._check_eval("generate")
        options, features = self.config.generate, features.to(self.device).float()
        beam_size = self.beams if beam_size is None else beam_size
        search = (beam_size, options.max_length, options.length_penalty, options.no_repeat_ngram)
        with autocast(self.device, self.decoding_precision):
            found = generate(self.decoder, features, *search)
        if self.reranker is not None and beam_size > 1:
            ranked = self.reranker.rank(features[:, : math.prod(self.encoder.grid)], found)
            found = [its_beams[: options.beam_size] for its_beams in ranked]
        return self._candidates(found, features, attention)

    @property
    def beams(self) -> int:
        """The hypotheses that ``generate`` keeps if not told otherwise."""
        return self.reranker.beams if self.reranker else self.config.generate.beam_size

    def use_reranker(self, choice: str | None) -> None:
        """What ``--rerank`` asks for: on, off, or None: if the checkpoint can.

        Raises:
            UserError: "on", but the checkpoint has nothing to rerank by.
        """
        if choice == "on" and self.reranker is None:
            raise UserError("--rerank on: the checkpoint cannot. Extend it: python -m tools.fit_rerank --help")
        if choice == "off":
            self.reranker = None

    @overload
    def describe(self, images: ImageSource, beam_size: int | None = None) -> str: ...

    @overload
    def describe(self, images: list[Source], beam_size: int | None = None) -> list[str]: ...

    def describe(self, images: ImageSource | list[Source], beam_size: int | None = None) -> str | list[str]:
        """The caption of an image, or those of a list of images. Files are read in batches, so the list may be long.

        Args:
            images: file names, or Pillow images of any mode.
            beam_size: None: ``beams``.

        Raises:
            ImageError: an image cannot be used; the message names the file.
            TypeError: something other than an image.
        """
        if not isinstance(images, list):
            return self.describe([images], beam_size)[0]
        if wrong := [type(image).__name__ for image in images if not isinstance(image, ImageSource)]:
            raise TypeError(f"describe() takes file names, Pillow images, or a list of these, not {wrong[0]}")
        captions: list[str] = []
        for first in range(0, len(images), DESCRIBE_BATCH):
            found = self.caption(map(load_image, images[first : first + DESCRIBE_BATCH]), beam_size)
            captions += [candidates[0].caption for candidates in found]
        return captions

    def caption(
        self, images: Iterable[Image.Image], beam_size: int | None = None, *, attention: bool = False
    ) -> list[list[Candidate]]:
        """RGB images of any size -> the candidates of each, the best first; see ``generate``."""
        return self.generate(self._encode_images(images), beam_size, attention=attention)

    def sample(
        self, images: Iterable[Image.Image], count: int, temperature: float, seed: int, *, attention: bool = False
    ) -> list[list[Candidate]]:
        """RGB images of any size -> ``count`` sampled captions of each, the most likely first; see ``decoding.sample``.

        Raises:
            ValueError: temperature is not above 0.
        """
        features = self._encode_images(images).float()
        numbers = random_numbers(
            [seed + image for image in range(len(features))], count, self.config.generate.max_length
        )
        with autocast(self.device, self.decoding_precision):
            found = sample(self.decoder, features, numbers, temperature)
        return self._candidates(found, features, attention)

    def _encode_images(self, images: Iterable[Image.Image]) -> torch.Tensor:
        self.eval()
        return self.encode(torch.stack([self.transform(image) for image in images]), mirror=self.config.generate.mirror)

    def _check_eval(self, method: str) -> None:
        if self.training:  # dropout would make the result random
            raise RuntimeError(f"Captioner.{method}() is for inference: call eval() first")

    def _candidates(
        self, found: list[list[Hypothesis]], features: torch.Tensor, attention: bool
    ) -> list[list[Candidate]]:
        """Token ids -> captions, with ``attention`` also that and the word choices of each image's first."""
        candidates = [
            [Candidate(self.vocabulary.decode(h.tokens), h.log_prob, score=h.score) for h in beams] for beams in found
        ]
        if not attention:
            return candidates
        best = [beams[0].tokens for beams in found]
        for its_candidates, tokens, (logits, weights) in zip(
            candidates, best, read_again(self.decoder, features, best), strict=True
        ):
            its_candidates[0] = self._explain(its_candidates[0], tokens, logits, weights)
        return candidates

    def _explain(
        self, candidate: Candidate, tokens: Sequence[int], logits: torch.Tensor, weights: torch.Tensor | None
    ) -> Candidate:
        """The candidate with its word choices, and its attention if the decoder attends."""
        words = [self.vocabulary.words[token] for token in tokens]
        places = self.vocabulary.tokenizer.piece_of_token(words, candidate.caption)
        return replace(
            candidate,
            choices=piece_choices(token_choices(logits, tokens, self.vocabulary), places),
            attention=None if weights is None else self._word_attention(candidate.caption, places, weights),
        )

    def _word_attention(self, caption: str, places: Sequence[int], weights: torch.Tensor) -> torch.Tensor:
        """Attention per token (tokens, P) -> per piece of the caption (pieces, h, w), on the CPU."""
        pieces = torch.arange(len(self.vocabulary.tokenizer.pieces(caption)))
        inside = (pieces[:, None] == torch.tensor(places)).float()  # (pieces, tokens)
        mean = inside / inside.sum(dim=1, keepdim=True)  # "man's" is two tokens: the mean of both
        per_word = mean @ weights.cpu()
        grid = self.encoder.grid
        return unmirror(per_word, grid) if self.config.generate.mirror else per_word.view(-1, *grid)

    def checkpoint(self) -> dict[str, Any]:
        """Everything that captioning needs, as plain values and tensors."""
        return {
            "config": config_to_dict(self.config),
            "vocab": self.vocabulary.state(),
            "transform": self.transform.to_dict(),
            "learned_from": self.learned_from,
            **({"rerank": self.reranker.state()} if self.reranker else {}),
            "model": self.state_dict(),
        }

    @classmethod
    def from_checkpoint(
        cls, checkpoint: dict[str, Any], name: str | Path = "checkpoint", precision: str = "auto"
    ) -> "Captioner":
        """Build from the dict of ``checkpoint()``; needs no other file and no network.

        Raises:
            UserError: a part is missing, out of range, or does not fit the others.
        """
        parts = read_parts(checkpoint, name)
        with without_values():  # they are about to be loaded
            captioner = cls(parts.config, parts.vocabulary, parts.learned_from, precision=precision, load_weights=False)
        if parts.transform.image_size != captioner.transform.image_size:
            size = captioner.transform.image_size
            raise UserError(f"{name}: transform: image_size must be {size}, got {parts.transform.image_size}")
        captioner.encoder.transform = parts.transform
        wanted = captioner.state_dict()
        if why := misfits(parts.weights, wanted):
            raise UserError(f"{name}: parts of the checkpoint do not fit together ({why}). Copy it again, or retrain")
        weights = {key: parts.weights[key].to(tensor.dtype) for key, tensor in wanted.items()}
        captioner.load_state_dict(weights, assign=True)
        if unset := [key for key, buffer in captioner.named_buffers() if buffer.is_meta]:
            raise RuntimeError(f"buffers that a checkpoint does not hold: {', '.join(unset)}. Make them persistent")
        captioner.encoder.to(memory_format=torch.channels_last)  # a quantized file's weights come in the usual format
        if parts.rerank is not None:
            captioner.reranker = Reranker.from_state(parts.rerank, captioner.encoder.features_size, name)
        return captioner

    @classmethod
    def load(cls, path: str | Path | None = None, device: str | torch.device = "auto") -> "Captioner":
        """Read a checkpoint file, ready to caption.

        Args:
            path: None: a run's or the pretrained one, see ``find_checkpoint``.
            device: see ``utils.pick_device``.

        Raises:
            UserError: the file cannot be read (``models.checkpoint.load_checkpoint``), or the device is not available.
        """
        path, checkpoint = find_checkpoint(path, photos=path is None)
        return cls.from_checkpoint(checkpoint, path).to(pick_device(str(device))).eval()
