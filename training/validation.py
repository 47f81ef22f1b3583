"""Validation: captions are generated and scored, and the teacher-forced loss is computed, without a gradient."""

import math
from collections.abc import Iterable

import torch
from tqdm import tqdm

from data.dataset import Batch
from distributed import ALONE, Processes
from evaluation.metrics import Scorer
from models.captioner import Captioner
from training.objectives import caption_loss
from utils import autocast


def check_finite(value: float, what: str) -> None:
    """Raise FloatingPointError unless ``value`` is a number."""
    if not math.isfinite(value):
        raise FloatingPointError(f"the {what} became {value}")


def _features(captioner: Captioner, visual: torch.Tensor) -> torch.Tensor:
    """``Batch.visual`` -> the features that captions are generated from."""
    return captioner.encode(visual, mirror=captioner.config.generate.mirror) if visual.dim() == 4 else visual


@torch.no_grad()
def validate(
    captioner: Captioner, batches: Iterable[Batch], scorer: Scorer, processes: Processes = ALONE
) -> tuple[dict[str, float], dict[str, str]]:
    """Score generated captions, one per image, and compute the teacher-forced loss.

    Each process captions its batches; the first one scores the captions of all.

    Returns:
        val_loss (cross-entropy per word), val_bleu4, val_cider, distinct (fraction of different captions); and the
        captions by image name.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    captioner.eval()
    loss_sum, words, captions = 0.0, 0, dict[str, str]()
    failure: str | None = None
    for batch in tqdm(batches, desc="validating", leave=False, disable=None):
        if not batch.names or failure:  # only other processes have more to do
            continue
        try:
            loss, its_captions = validate_batch(captioner, batch)
        except FloatingPointError as error:
            failure = str(error)
            continue
        loss_sum, words = loss_sum + loss * batch.captions.count, words + batch.captions.count
        captions |= its_captions
    found = processes.gather((failure, loss_sum, words, captions))
    if failure := next((each for each, *_ in found if each), None):
        raise FloatingPointError(f"{failure} in validation; stopped before these weights were saved")
    captions = {name: caption for *_, its_captions in found for name, caption in its_captions.items()}
    scores = processes.broadcast(scorer.score(captions, all_metrics=False) if processes.is_first else {})
    numbers = {
        "val_loss": sum(its_loss for _, its_loss, _, _ in found)
        / max(1, sum(its_words for _, _, its_words, _ in found)),
        "val_bleu4": scores["BLEU-4"],
        "val_cider": scores["CIDEr"],
        "distinct": len(set(captions.values())) / len(captions),
    }
    return numbers, captions


def validate_batch(captioner: Captioner, batch: Batch) -> tuple[float, dict[str, str]]:
    """The cross-entropy per word of a batch, and a generated caption for each of its images.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    references = batch.captions.to(captioner.device)
    features = _features(captioner, batch.visual)
    with autocast(captioner.device, captioner.decoding_precision):
        logits = captioner(features, references)
    _, cross_entropy = caption_loss(logits, references.targets)
    loss = cross_entropy.item()
    check_finite(loss, "loss")
    best = [candidates[0].caption for candidates in captioner.generate(features)]
    return loss, dict(zip(batch.names, best, strict=True))


@torch.no_grad()
def predicts_finite(captioner: Captioner, batch: Batch) -> bool:
    """Whether the model predicts finite logits for a batch; changes nothing and draws no random numbers.

    A training step checks the weights before its update only, and a resumed run cannot train diverged ones.
    """
    was_training = captioner.training
    captioner.eval()
    logits = captioner(_features(captioner, batch.visual), batch.captions)
    captioner.train(was_training)
    return bool(logits.float().log_softmax(dim=-1).isfinite().all())
