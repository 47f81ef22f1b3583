"""The systems that evaluate.py scores: checkpoints with their beam sizes, a baseline, or files of captions."""

from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch
from tqdm import tqdm

from cli import UserError, note
from data.features import FeatureCache
from data.tokenizer import TOKENIZERS, WORDS, Tokenizer, find_unseparated, tokenizer_of
from distributed import ALONE, Processes
from evaluation.nearest import nearest_captions, pooled_features
from evaluation.options import cache_folder
from evaluation.predictions import read_predictions
from evaluation.split import Split, open_references, open_split, usable_images
from models.captioner import Captioner
from models.pretrained import find_checkpoint
from utils import use_device

MAX_SHOWN = 40  # characters of a reference in a message
DECODE_BATCH = 64  # images decoded at once; the caption of an image does not depend on the others


@dataclass(frozen=True)
class System:
    """Anything that generates captions."""

    name: str
    checkpoint: Path | None = None
    beam_size: int | None = None
    predictions: Path | None = None  # the file with its captions, if it is not run here


@dataclass(frozen=True)
class Task:
    """What all systems are scored on."""

    split: str
    references: Mapping[str, Sequence[str]]  # image name -> captions written by people
    training: Collection[str]  # training captions; empty if the captions file has none
    tokenizer: Tokenizer  # of all captions
    skipped: int = 0  # images that could not be read
    limit: int | None = None  # number of images asked for, if the split has more


@dataclass(frozen=True)
class CheckpointRun:
    """A checkpoint to be run with one beam size."""

    system: System
    captioner: Captioner
    cache: FeatureCache  # of its encoder
    beam_size: int


class PredictionFiles:
    """The captions of ``--predictions``, with references from ``--captions_file``.

    Args:
        options: evaluate.py's.
    """

    def __init__(self, options: Namespace) -> None:
        self.split = open_references(options.captions_file, options.split, options.seed)
        self.named = options.tokenizer
        paths = options.predictions
        self.systems = [System(name, predictions=path) for name, path in zip(short_names(paths), paths, strict=True)]

    def captions(self) -> tuple[Task, list[dict[str, str]]]:
        """Read the files: the task, and for each system image name -> caption."""
        references = self.split.references()
        paths = [system.predictions for system in self.systems if system.predictions]
        captions = [read_predictions(path, references, self.split.ids) for path in paths]
        return Task(self.split.name, references, self.split.training_captions(), self._tokenizer(references)), captions

    def _tokenizer(self, references: Mapping[str, Sequence[str]]) -> Tokenizer:
        """The one that the options name, or else the one that suits the references."""
        if self.named:
            return TOKENIZERS[self.named]
        return tokenizer_of(_all_captions(references))


class Checkpoints:
    """A split captioned with every checkpoint and beam size, and by the baseline.

    Captions file, images and feature cache are those of the first checkpoint's config, unless the options name others.

    Args:
        options: evaluate.py's.
        processes: those that share the images.

    Raises:
        UserError: a checkpoint cannot be read, or the checkpoints have different splits or tokenizers.
    """

    def __init__(self, options: Namespace, processes: Processes = ALONE) -> None:
        self.processes = processes
        device = use_device(processes.device_name(options.device), options.precision)
        found = [find_checkpoint(path, photos=False) for path in options.checkpoint or [None]]
        paths = [path for path, _ in found]
        captioners = [
            Captioner.from_checkpoint(content, path, options.precision).to(device).eval() for path, content in found
        ]
        for captioner in captioners:
            captioner.use_reranker(options.rerank)
        splits = [open_split(captioner.config, options) for captioner in captioners]
        self.split = splits[0]
        self.references = _common_references(paths, splits)
        self.tokenizer = _common_tokenizer(paths, captioners)
        self.limit = options.limit if options.limit and options.limit < len(self.references) else None
        self.lendable = Split("train", self.split.table, self.split.image_dir).references() if options.baseline else {}
        root = cache_folder(options.feature_cache, captioners[0].config.data.feature_cache)
        self.runs = _plan_runs(paths, captioners, root, options.beam_size)
        self.systems = [run.system for run in self.runs]
        if options.baseline:
            self.systems.append(System(options.baseline, paths[0]))

    def captions(self) -> tuple[Task, list[dict[str, str]]]:
        """Caption the images: the task, and for each system image name -> caption.

        Raises:
            UserError: more than 5 % of the images cannot be read.
        """
        chosen = self.split.references(self.limit)
        if self.tokenizer is WORDS and (found := find_unseparated(_all_captions(chosen))):
            note(
                f"warning: the references have no blanks between words, such as '{found[:MAX_SHOWN]}', but this model "
                "generates words: the scores will be about 0. Train with --data.tokenizer characters"
            )
        caches = list(dict.fromkeys(run.cache for run in self.runs))  # each once: runs with the same encoder share one
        with self.processes.first_of_machine_first():
            references = usable_images(chosen, self.split.image_dir, caches)
        self.processes.check_equal([*references], "The usable images are")
        images = {name: self.split.image_dir / name for name in references}
        captions = caption_images(images, self.runs, self.processes)
        if len(self.systems) > len(self.runs) and self.processes.is_first:
            captions.append(self._borrow(images))
        skipped = len(chosen) - len(references)
        training = self.split.training_captions()
        return Task(self.split.name, references, training, self.tokenizer, skipped, self.limit), captions

    def _borrow(self, images: Mapping[str, Path]) -> dict[str, str]:
        """The baseline's captions, with the features of the first checkpoint's encoder."""
        cache = self.runs[0].cache
        training = usable_images(self.lendable, self.split.image_dir, [cache])
        known = pooled_features(cache, [self.split.image_dir / name for name in training])
        wanted, captions = pooled_features(cache, list(images.values())), list(training.values())
        borrowed = nearest_captions(wanted, known, captions, self.tokenizer)
        return dict(zip(images, borrowed, strict=True))


def _all_captions(references: Mapping[str, Sequence[str]]) -> list[str]:
    return [caption for captions in references.values() for caption in captions]


def _common_references(paths: Sequence[Path], splits: Sequence[Split]) -> dict[str, list[str]]:
    """The references of the split, which all checkpoints must have in common."""
    references = splits[0].references()
    for path, split in zip(paths[1:], splits[1:], strict=True):
        if split.references() != references:  # another file, or a file without a split column and another train.seed
            raise UserError(
                f"--checkpoint {path}: its split '{split.name}' differs from that of {paths[0]}. "
                "Name one --captions_file, with a split column, for both"
            )
    return references


def _common_tokenizer(paths: Sequence[Path], captioners: Sequence[Captioner]) -> Tokenizer:
    """The tokenizer of all checkpoints."""
    first, *others = [captioner.vocabulary.tokenizer for captioner in captioners]
    for path, tokenizer in zip(paths[1:], others, strict=True):
        if tokenizer.name != first.name:
            raise UserError(
                f"--checkpoint {path}: its captions consist of {tokenizer.name}, those of {paths[0]} of {first.name}. "
                "Evaluate each, then compare their predictions.json: --predictions A B --tokenizer characters"
            )
    return first


def _plan_runs(
    paths: Sequence[Path], captioners: Sequence[Captioner], root: str | Path, beam_sizes: Sequence[int] | None
) -> list[CheckpointRun]:
    """A run for each checkpoint and beam size, those of the options or the checkpoint's own."""
    caches: dict[Path, FeatureCache] = {}  # checkpoints with the same encoder share a cache
    runs = []
    for name, path, captioner in zip(short_names(paths), paths, captioners, strict=True):
        cache = captioner.feature_cache(root, mirror=captioner.config.generate.mirror)
        cache = caches.setdefault(cache.folder, cache)
        for beam_size in beam_sizes or [captioner.beams]:
            reranked = ", reranked" if captioner.reranker and beam_size > 1 else ""
            system = System(f"{name}, beam {beam_size}{reranked}", path, beam_size)
            runs.append(CheckpointRun(system, captioner, cache, beam_size))
    return runs


def caption_images(
    images: Mapping[str, Path], runs: Sequence[CheckpointRun], processes: Processes = ALONE
) -> list[dict[str, str]]:
    """For each run, image name -> best caption. Runs with the same encoder share the features of an image.

    Args:
        images: image name -> file; the cache of each run has been built with these files.
        processes: those that share the images; each gets all captions.
    """
    captions: list[dict[str, str]] = [{} for _ in runs]
    names = processes.share(list(images))
    with tqdm(total=len(names) * len(runs), desc="captioning", unit="img", disable=None) as bar:
        for first in range(0, len(names), DECODE_BATCH):
            batch = names[first : first + DECODE_BATCH]
            features: dict[Path, torch.Tensor] = {}  # (B, P, D) of each encoder
            for run, its_captions in zip(runs, captions, strict=True):
                folder = run.cache.folder
                if folder not in features:
                    features[folder] = run.cache.batch([images[name] for name in batch])
                candidates = run.captioner.generate(features[folder], run.beam_size)
                its_captions |= {name: ranked[0].caption for name, ranked in zip(batch, candidates, strict=True)}
                bar.update(len(batch))
    return [
        {name: caption for its_captions in shares for name, caption in its_captions.items()}
        for shares in zip(*processes.gather(captions), strict=True)
    ]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names of files in a table: without suffix, and only with the folders in which they differ."""
    # Of the path itself, only its folder: a file of the Hub's cache is a link to one whose name is a hash
    stems = [(path.parent.resolve() / path.name).with_suffix("") for path in paths]
    levels = zip(*(stem.parent.parts for stem in stems), strict=False)
    shared = len(list(takewhile(lambda folders: len(set(folders)) == 1, levels)))
    return ["/".join(stem.parts[shared:]) for stem in stems]
