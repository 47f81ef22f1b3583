"""Epochs on four images: overfitting, totals, validation and divergence."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

from config import StageConfig
from data.dataset import Flickr8kDataset, collate
from evaluation.metrics import Scorer
from models.captioner import Captioner
from tests.support.stages import CAPTIONS, make_stage
from training.engine import train_one_epoch
from training.objectives import caption_loss
from training.optim import lr_factor
from training.progress import Progress
from training.stage_setup import Stage
from training.validation import predicts_finite, validate
from utils import autocast

MakeStage = Callable[..., Stage]


@pytest.fixture
def stage_of(captioner: Captioner, dataset: Flickr8kDataset) -> MakeStage:
    return lambda config, **options: make_stage(captioner, config, CAPTIONS, dataset.load, **options)


def test_four_images_are_overfitted(captioner: Captioner, dataset: Flickr8kDataset, stage_of: MakeStage) -> None:
    torch.manual_seed(0)
    one_each = {name: captions[:1] for name, captions in CAPTIONS.items()}
    batch = collate([(dataset[i][0], dataset[i][1][:1], name, None) for i, name in enumerate(CAPTIONS)])
    stage, progress = stage_of(StageConfig(epochs=80, lr=2e-2, label_smoothing=0.0)), Progress(stage="frozen")
    losses = []
    for _ in range(stage.config.epochs):
        losses.append(train_one_epoch(stage, [batch], progress)["train_loss"])
        progress.end_epoch(0.0, stage.config)
    assert losses[0] > 2 and losses[-1] < 0.1
    numbers, captions = validate(captioner, [batch], Scorer(one_each))
    assert captions == {name: references[0] for name, references in one_each.items()}
    assert numbers["val_bleu4"] > 0.99 and numbers["val_cider"] > 5 and numbers["distinct"] == 1.0


def test_validate_scores_generated_captions_and_averages_the_loss_over_words(
    captioner: Captioner, dataset: Flickr8kDataset
) -> None:
    batches = list(
        DataLoader(dataset, batch_size=3, collate_fn=collate)
    )  # batches of 3 and 1: the mean must be over words
    scorer = Scorer(CAPTIONS)
    numbers, captions = validate(captioner, batches, scorer)
    assert not captioner.training
    features = torch.stack([dataset[i][0] for i in range(4)])
    assert captions == dict(zip(CAPTIONS, [found[0].caption for found in captioner.generate(features)], strict=True))
    scores = scorer.score(captions, all_metrics=False)
    assert (numbers["val_bleu4"], numbers["val_cider"]) == (scores["BLEU-4"], scores["CIDEr"])
    assert numbers["distinct"] == len(set(captions.values())) / 4
    whole = collate([dataset[i] for i in range(4)])
    with torch.no_grad(), autocast(captioner.device, captioner.decoding_precision):
        _, loss = caption_loss(captioner(whole.visual, whole.captions), whole.captions.targets)
    exact = captioner.precision == torch.float32
    assert numbers["val_loss"] == pytest.approx(loss.item(), rel=1e-5 if exact else 1e-2)


def test_train_one_epoch_returns_the_means_of_the_whole_epoch(stage_of: MakeStage, dataset: Flickr8kDataset) -> None:
    stage, progress = stage_of(StageConfig(epochs=1, lr=1e-9, warmup=0.5), steps=2), Progress(stage="frozen")
    batches = [collate([dataset[0], dataset[1]]), collate([dataset[2], dataset[3]])]
    numbers = train_one_epoch(stage, batches, progress)
    assert set(numbers) == {"train_loss", "reward", "lr", "grad_norm", "seconds", "images_per_second"}
    assert math.isnan(numbers["reward"])
    assert (progress.step, progress.total_steps, progress.image_count) == (2, 2, 4)
    assert progress.token_count == sum(
        len(ids) - 1 for _, captions, _, _ in (dataset[i] for i in range(4)) for ids in captions
    )
    assert numbers["lr"] == pytest.approx(1e-9 * lr_factor(stage.config, 1, 2))
    assert numbers["images_per_second"] == pytest.approx(4 / numbers["seconds"])


def test_the_logged_gradient_norm_is_the_mean_before_clipping(
    captioner: Captioner, stage_of: MakeStage, dataset: Flickr8kDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captioner.config.train, "grad_clip", 1e-3)
    stage, norms = stage_of(StageConfig(epochs=1, lr=1e-9), steps=2), []
    batches = [collate([dataset[0], dataset[1]]), collate([dataset[2], dataset[3]])]
    captioner.train()
    for batch in batches:
        torch.manual_seed(len(norms))
        captioner.zero_grad()
        stage.objective(captioner, batch).loss.backward()  # type: ignore[no-untyped-call]
        grads = [p.grad for p in captioner.parameters() if p.grad is not None]
        norms.append(torch.cat([grad.flatten() for grad in grads]).norm().item())
    assert min(norms) > 1e-3
    progress = Progress(stage="frozen")
    for number, batch in enumerate(batches):  # an epoch that is interrupted after its first step
        torch.manual_seed(number)
        numbers = train_one_epoch(stage, [batch], progress)
    assert numbers["grad_norm"] == pytest.approx(sum(norms) / 2, rel=1e-4)


def test_the_ema_is_updated_after_every_step(stage_of: MakeStage, dataset: Flickr8kDataset) -> None:
    stage, progress = stage_of(StageConfig(epochs=1, lr=0.01), ema=0.7), Progress(stage="frozen")
    expected = stage.captioner.decoder.state_dict()["output.weight"].clone()
    for step in (1, 2, 3):
        progress.step = 0
        train_one_epoch(stage, [collate([dataset[0], dataset[2]])], progress)
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * stage.captioner.decoder.state_dict()["output.weight"]
    ema = stage.averaged.decoder.state_dict()["output.weight"]
    torch.testing.assert_close(ema, expected)
    assert not torch.equal(ema, stage.captioner.decoder.state_dict()["output.weight"])


@pytest.mark.parametrize("training", [True, False])
def test_checking_the_weights_changes_nothing(captioner: Captioner, dataset: Flickr8kDataset, training: bool) -> None:
    checked = copy.deepcopy(captioner).train(training)
    batch, images = collate([dataset[i] for i in range(4)]), torch.randn(4, 3, 32, 32)
    before, random = copy.deepcopy(checked.state_dict()), torch.get_rng_state()
    assert predicts_finite(checked, batch) and predicts_finite(checked, replace(batch, visual=images))
    assert checked.training == checked.decoder.training == training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in checked.state_dict().items())
    with torch.no_grad():
        next(checked.decoder.parameters())[0] = math.inf
    assert not predicts_finite(checked, batch)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_leaves_the_weights_unchanged(
    captioner: Captioner, dataset: Flickr8kDataset, stage_of: MakeStage, where: str
) -> None:
    stage = stage_of(StageConfig())
    before = {name: tensor.detach().clone() for name, tensor in captioner.decoder.named_parameters()}
    batch = collate([dataset[0], dataset[1]])
    hook = None
    if where == "loss":
        batch.visual[0, 0, 0] = math.nan
    else:
        hook = next(captioner.decoder.parameters()).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(
        FloatingPointError, match=rf"the {where} became .*epoch 1, step 1, before the weights were changed"
    ):
        train_one_epoch(stage, [batch], Progress(stage="frozen"))
    if hook:
        hook.remove()
    for name, tensor in captioner.decoder.named_parameters():
        assert torch.equal(tensor, before[name]), name
    assert not stage.optimizer.state


def test_weights_that_give_no_finite_loss_are_not_validated(captioner: Captioner, dataset: Flickr8kDataset) -> None:
    batch = collate([dataset[0]])
    batch.visual[:] = math.nan
    with pytest.raises(FloatingPointError, match="in validation"):
        validate(captioner, [batch], Scorer({"dog.jpg": CAPTIONS["dog.jpg"]}))
