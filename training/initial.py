"""``init_from``: a new run that begins with the weights, the words and the architecture of a checkpoint."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cli import ROOT, UserError, note, say
from config import Config, config_from_dict, config_to_dict
from config_parser import merge
from data.images import LearnedFrom
from data.tokenizer import CHARACTERS, TOKENIZERS, WORDS, tokenizer_of
from data.vocab import SPECIAL, Vocabulary
from models.captioner import Captioner
from models.checkpoint import load_checkpoint
from models.pretrained import checkpoint_path
from training.resume import differences, find_resume

FIXED = ("encoder.", "decoder.", "data.tokenizer")  # options that the weights and words of a checkpoint determine ...
FREE = ("decoder.dropout",)  # ... but for these


def initial_checkpoint(init_from: str) -> Path:
    """The file that ``init_from`` names; see ``models.pretrained.checkpoint_path``.

    Raises:
        UserError: there is none.
    """
    path, file = Path(init_from), checkpoint_path(init_from)
    if not file.is_file():
        there = f"There is one in the repository: --init_from {ROOT / path}. " if (ROOT / path).is_file() else ""
        raise UserError(f"--init_from {path}: no such checkpoint. {there}Name a checkpoint, or the folder of a run")
    return file


def inherit(values: dict[str, Any], typed: dict[str, Any], resume: str | None) -> dict[str, Any]:
    """``values``, which begin from a checkpoint, completed by its architecture and its options of caption generation.

    ``encoder.weights`` is the checkpoint's too, unless it is on the command line: that of a recipe says where its own
    encoder begins. A resumed run is completed by its own checkpoint instead: the one that it began from may be gone.

    Args:
        values: nested dicts, from YAML and the command line; they win.
        typed: those from the command line alone.
        resume: the value of ``--resume``.

    Raises:
        UserError: there is no such checkpoint, or it is not one of this version.
    """
    resumed = find_resume(resume, Path(str(values.get("output_dir", "."))))
    source = resumed or initial_checkpoint(str(values["init_from"]))
    checkpoint = load_checkpoint(source, keep_quantized=True)  # only its options are needed
    config = config_to_dict(config_from_dict(checkpoint["config"]))
    inherited = {name: config[name] for name in ("encoder", "decoder", "generate")}
    for name in ("encoder", "decoder"):
        section = values.get(name)
        if isinstance(section, dict) and section.get("name", config[name]["name"]) != config[name]["name"]:
            del inherited[name]  # the options of another network would only hide what ``initial_captioner`` refuses
    inherited["data"] = {name: config["data"][name] for name in ("image_size", "tokenizer")}
    values = merge(inherited, values)
    encoder = typed.get("encoder")
    is_typed = isinstance(encoder, dict) and "weights" in encoder
    if "encoder" in inherited and isinstance(values["encoder"], dict) and not is_typed:
        values["encoder"] |= {"weights": config["encoder"]["weights"]}  # they decide whether batch norm is trained
    return values


def initial_captioner(config: Config, captions: Iterable[str], learned_from: LearnedFrom) -> Captioner:
    """The captioner of a run that begins from the checkpoint ``config.init_from``, with its (averaged) weights.

    Its vocabulary is that of the checkpoint and then the other words of ``captions`` that are frequent enough: with few
    captions, most words that the model can use are missing from them, and are not forgotten so soon.

    Raises:
        UserError: the checkpoint cannot be read, or has another architecture than ``config``.
    """
    assert config.init_from is not None
    source = initial_checkpoint(config.init_from)
    before = Captioner.from_checkpoint(load_checkpoint(source), source)
    _check_architecture(before.config, config)
    tokenizer = TOKENIZERS[config.data.tokenizer]
    captions = list(captions)
    if tokenizer is CHARACTERS and tokenizer_of(captions) is WORDS:
        raise UserError(
            f"--init_from {source}: it generates characters, but these captions consist of words. Name a checkpoint "
            "that generates words, such as pretrained/flickr8k.pth, or train from the start, without --init_from"
        )
    frequent = Vocabulary.build(captions, config.data.min_count, tokenizer).words
    known = dict.fromkeys(before.vocabulary.words)
    vocabulary = Vocabulary([*known, *(word for word in frequent if word not in known)], tokenizer)
    captioner = Captioner(config, vocabulary, learned_from, load_weights=False)
    captioner.encoder.transform = replace(before.transform, image_size=config.data.image_size)
    old, new = before.state_dict(), captioner.state_dict()
    try:
        captioner.load_state_dict({name: with_new_words(old[name], tensor.shape) for name, tensor in new.items()})
    except (KeyError, RuntimeError) as error:
        raise UserError(f"--init_from {source}: its weights do not fit this model ({error})") from error
    if config.data.image_size != before.transform.image_size:
        note(
            f"note: images are scaled to {config.data.image_size} pixels (data.image_size), those of the checkpoint to "
            f"{before.transform.image_size}: the weights are best at their own size"
        )
    words = f"{len(known) - len(SPECIAL)} {tokenizer.name}"
    say(f"starting from {source}, with its {words}; new: {len(vocabulary) - len(known)}")
    return captioner


def with_new_words(weights: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Weights of ``shape``: those with a row for each word, such as embeddings (V, E), get more rows, others stay.

    A new row is drawn from the normal distribution that the rows of the known words have, column by column. So a new
    word is as likely as an average one at first (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language
    Models", https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
    """
    if weights.shape == shape:
        return weights
    std, mean = torch.std_mean(weights[len(SPECIAL) :], dim=0, correction=0)
    return torch.cat([weights, mean + std * torch.randn(shape[0] - len(weights), *shape[1:])])


def _check_architecture(before: Config, now: Config) -> None:
    """Refuse options that the weights of the checkpoint do not fit."""
    changes = dict(differences(config_to_dict(before), config_to_dict(now)))
    changes = {name: changes[name] for name in changes if name.startswith(FIXED) and name not in FREE}
    for section in ("encoder", "decoder"):
        if f"{section}.name" in changes:  # the other options are those of another network
            changes = {
                name: changes[name]
                for name in changes
                if name == f"{section}.name" or not name.startswith(f"{section}.")
            }
    if changes:
        listed = ", ".join(f"{name} ({change})" for name, change in changes.items())
        raise UserError(
            f"--init_from {now.init_from}: its weights do not fit these options: {listed}. Leave them out, then they "
            "are taken from the checkpoint; or train from the start, without --init_from"
        )
