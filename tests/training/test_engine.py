"""Loss, learning rate, optimizer, and an epoch on four images."""

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from config import Config, StageConfig, TrainConfig
from data.dataset import Batch, Flickr8kDataset, collate
from data.vocab import END_ID, PAD_ID, START_ID, UNK_ID, Vocabulary
from evaluation.metrics import Scorer
from models.captioner import Captioner
from training.engine import check_weights, train_one_epoch, validate
from training.objectives import caption_loss, hide_words, teacher_forcing
from training.optim import build_optimizer, lr_factor, update_average
from training.progress import Progress

CAPTIONS = {
    "dog.jpg": ["a brown dog runs", "the dog is running fast"],
    "cat.jpg": ["a white cat sleeps"],
    "sea.jpg": ["two boats on the sea", "boats at sea", "three men look at two boats"],
    "car.jpg": ["a red car in front of a house"],
}


@pytest.fixture(scope="module")
def captioner(tiny_config: Callable[..., Config]) -> Captioner:
    torch.manual_seed(0)
    config = tiny_config(
        "--decoder.embed_size=32", "--decoder.hidden_size=64", "--decoder.dropout=0.1", "--generate.beam_size=3"
    )
    return Captioner(config, Vocabulary.build([c for captions in CAPTIONS.values() for c in captions], min_count=1))


@pytest.fixture
def dataset(captioner: Captioner) -> Flickr8kDataset:
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.randn(4, captioner.encoder.features_size, generator=generator).half() for name in CAPTIONS}
    return Flickr8kDataset(CAPTIONS, lambda name, _seed: features[name], captioner.vocabulary)


def learn(
    captioner: Captioner, batches: list[Batch], optimizer: torch.optim.Optimizer, stage: StageConfig, progress: Progress
):
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    objective = teacher_forcing(stage, torch.float32)
    return train_one_epoch(
        captioner, captioner, objective, batches, len(batches), optimizer, scaler, stage, TrainConfig(), progress
    )


def test_hidden_words_are_a_share_of_the_words_and_of_nothing_else() -> None:
    torch.manual_seed(0)
    tokens = torch.tensor([START_ID, *range(4, 104), END_ID, PAD_ID]).repeat(20, 5, 1)
    hidden = hide_words(tokens, 0.3)
    changed = hidden != tokens
    assert (hidden[changed] == UNK_ID).all()
    assert 0.27 < changed[..., 1:-2].float().mean() < 0.33
    assert not changed[..., 0].any() and not changed[..., -2:].any()
    assert torch.equal(hide_words(tokens, 0.0), tokens)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_loss_is_torchs_cross_entropy_without_the_padding(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 2, 5, 11, generator=generator)
    targets = torch.randint(1, 11, (3, 2, 5), generator=generator)
    targets[0, 1] = PAD_ID  # an image with fewer captions than another
    targets[1, 0, 3:] = PAD_ID  # a short caption
    flat, words = logits.flatten(0, 2), targets.flatten()
    loss, cross_entropy = caption_loss(logits, targets, smoothing)
    expected = functional.cross_entropy(flat, words, ignore_index=PAD_ID, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(cross_entropy, functional.cross_entropy(flat, words, ignore_index=PAD_ID))


def test_each_word_is_asked_for_the_next_one(
    captioner: Captioner, dataset: Flickr8kDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teacher forcing: the decoder reads <start> w1 .. wn and is to say w1 .. wn <end>."""
    seen = []
    monkeypatch.setattr(
        "training.objectives.caption_loss",
        lambda logits, targets, *_: (seen.append(targets), caption_loss(logits, targets))[1],
    )
    read: list[torch.Tensor] = []
    hook = captioner.decoder.register_forward_pre_hook(lambda _, inputs: read.append(inputs[1]))
    stage = StageConfig()
    learn(captioner, [collate([dataset[1], dataset[3]])], build_optimizer(captioner, stage, 0.0), stage, Progress())
    hook.remove()
    (_, ids, _) = dataset[1]
    length = len(ids[0]) - 1  # the second image's caption is longer
    assert read[0][0, 0, :length].tolist() == ids[0][:-1] and ids[0][0] == START_ID
    assert seen[0][0, 0].tolist() == [*ids[0][1:], *[PAD_ID] * (seen[0].shape[-1] - length)] and ids[0][-1] == END_ID


def test_average_is_the_mean_of_the_weights_with_fading_memory(captioner: Captioner, dataset: Flickr8kDataset) -> None:
    learner, averaged = copy.deepcopy(captioner), copy.deepcopy(captioner)
    stage, progress = StageConfig(lr=0.01), Progress()
    optimizer = build_optimizer(learner, stage, 0.0)
    expected = {name: weight.clone() for name, weight in learner.state_dict().items()}
    for step in range(1, 31):
        batches, scaler = [collate([dataset[0], dataset[2]])], torch.amp.GradScaler("cpu", enabled=False)
        progress.epoch = progress.step = 0
        objective = teacher_forcing(stage, torch.float32)
        train_one_epoch(
            learner, averaged, objective, batches, 1, optimizer, scaler, stage, TrainConfig(ema=0.7), progress
        )
        decay = min(0.7, (1 + step) / (10 + step))
        for name, _ in learner.decoder.named_parameters(prefix="decoder"):
            expected[name] = decay * expected[name] + (1 - decay) * learner.state_dict()[name]
    for name, _ in averaged.decoder.named_parameters(prefix="decoder"):
        torch.testing.assert_close(averaged.state_dict()[name], expected[name])
        assert name == "decoder.image.bias" or not torch.equal(averaged.state_dict()[name], learner.state_dict()[name])
    for (name, mean), (_, buffer) in zip(averaged.named_buffers(), learner.named_buffers(), strict=True):
        assert torch.equal(mean, buffer), name  # batch-norm statistics are those of the learner


def test_average_of_frozen_weights_stays_exactly_what_they_are(captioner: Captioner) -> None:
    learner, averaged = copy.deepcopy(captioner), copy.deepcopy(captioner)
    learner.encoder.freeze()
    before = {name: weight.clone() for name, weight in averaged.encoder.state_dict().items()}
    for step in range(1, 20):
        update_average(averaged, learner, 0.99, step)
    assert all(torch.equal(weight, before[name]) for name, weight in averaged.encoder.state_dict().items())


def test_warm_up_then_cosine() -> None:
    stage = StageConfig(epochs=10, warmup=0.1)
    factors = [lr_factor(stage, step, 20) for step in range(200)]
    assert factors[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert factors[20] == pytest.approx(1.0) and factors[110] == pytest.approx(0.01 + 0.99 / 2)
    assert all(after < before for before, after in itertools.pairwise(factors[20:]))
    assert 0.01 < factors[-1] < 0.0102


def test_plateau_is_flat_but_for_its_scale() -> None:
    stage = StageConfig(epochs=10, warmup=0.1, schedule="plateau")
    assert [lr_factor(stage, step, 20, lr_scale=0.25) for step in (20, 100, 199)] == [0.25] * 3
    assert lr_factor(stage, 0, 20) == 1 / 20


@pytest.mark.parametrize("stage", [StageConfig(epochs=1, warmup=0.0), StageConfig(epochs=1, warmup=0.99)])
def test_one_step_stages_learn_at_the_full_rate(stage: StageConfig) -> None:
    assert lr_factor(stage, 0, 1) == 1.0


def test_optimizer_of_a_frozen_encoder(captioner: Captioner) -> None:
    optimizer = build_optimizer(captioner, StageConfig(lr=3e-4), weight_decay=0.02)
    learning = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert learning == {id(p) for p in captioner.decoder.parameters()}
    assert {group["peak"] for group in optimizer.param_groups} == {3e-4}
    assert not any(p.requires_grad for p in captioner.encoder.parameters())


def test_weight_decay_is_for_matrices_only(captioner: Captioner) -> None:
    optimizer = build_optimizer(captioner, StageConfig(), weight_decay=0.02)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    embedding = next(module for module in captioner.decoder.modules() if isinstance(module, nn.Embedding))
    for name, parameter in captioner.decoder.named_parameters():
        plain = parameter.dim() == 1 or parameter is embedding.weight
        assert decay[id(parameter)] == (0.0 if plain else 0.02), name


@pytest.mark.parametrize("first", [0, 3, 4])
def test_optimizer_of_a_learning_encoder(captioner: Captioner, first: int) -> None:
    optimizer = build_optimizer(captioner, StageConfig(encoder_lr=1e-5, encoder_from=first), weight_decay=0.02)
    peak = {id(p): group["peak"] for group in optimizer.param_groups for p in group["params"]}
    for number, stage in enumerate(captioner.encoder.stages):
        for parameter in stage.parameters():
            assert peak.get(id(parameter)) == (1e-5 if number >= first else None)
            assert parameter.requires_grad == (number >= first)
    assert {peak[id(p)] for p in captioner.decoder.parameters()} == {StageConfig().lr}


def test_four_images_are_learnt_by_heart(captioner: Captioner, dataset: Flickr8kDataset) -> None:
    torch.manual_seed(0)
    one_each = {name: captions[:1] for name, captions in CAPTIONS.items()}
    batch = collate([(dataset[i][0], dataset.tokens[i][:1], name) for i, name in enumerate(CAPTIONS)])
    stage = StageConfig(epochs=80, lr=2e-2, label_smoothing=0.0)
    optimizer, progress = build_optimizer(captioner, stage, 0.0), Progress()
    losses = []
    for _ in range(stage.epochs):
        losses.append(learn(captioner, [batch], optimizer, stage, progress)["train_loss"])
        progress.epoch, progress.step, progress.loss_sum, progress.token_count = progress.epoch + 1, 0, 0.0, 0
    assert losses[0] > 2 and losses[-1] < 0.1
    numbers, captions = validate(captioner, [batch], Scorer(one_each))
    assert captions == {name: sentences[0] for name, sentences in one_each.items()}
    assert numbers["val_bleu4"] > 0.99 and numbers["val_cider"] > 5 and numbers["distinct"] == 1.0


def test_validate_scores_what_is_generated_and_the_loss_of_every_word(
    captioner: Captioner, dataset: Flickr8kDataset
) -> None:
    batches = list(
        DataLoader(dataset, batch_size=3, collate_fn=collate)
    )  # batches of 3 and 1: the mean must be over words
    scorer = Scorer(CAPTIONS)
    numbers, captions = validate(captioner, batches, scorer)
    assert not captioner.training
    features = torch.stack([dataset[i][0] for i in range(4)])
    assert captions == dict(
        zip(CAPTIONS, [found[0].caption for found in captioner.caption_features(features)], strict=True)
    )
    scores = scorer.score(captions, all_metrics=False)
    assert (numbers["val_bleu4"], numbers["val_cider"]) == (scores["BLEU-4"], scores["CIDEr"])
    assert numbers["distinct"] == len(set(captions.values())) / 4
    whole = collate([dataset[i] for i in range(4)])
    with torch.no_grad():
        _, loss = caption_loss(captioner(whole.visual, whole.tokens[..., :-1]), whole.tokens[..., 1:])
    assert numbers["val_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_train_one_epoch_returns_the_numbers_of_the_whole_epoch(captioner: Captioner, dataset: Flickr8kDataset) -> None:
    stage, progress = StageConfig(epochs=1, lr=1e-9, warmup=0.5), Progress()
    batches = [collate([dataset[0], dataset[1]]), collate([dataset[2], dataset[3]])]
    torch.manual_seed(0)
    numbers = learn(captioner, batches, build_optimizer(captioner, stage, 0.0), stage, progress)
    assert set(numbers) == {"train_loss", "reward", "lr", "seconds", "images_per_second"} and math.isnan(
        numbers["reward"]
    )
    assert (progress.step, progress.total_steps, progress.image_count) == (2, 2, 4)
    assert progress.token_count == sum(len(ids) - 1 for captions in dataset.tokens for ids in captions)
    assert numbers["lr"] == pytest.approx(1e-9 * lr_factor(stage, 1, 2))
    assert numbers["images_per_second"] == pytest.approx(4 / numbers["seconds"])


@pytest.mark.parametrize("learning", [True, False])
def test_a_look_at_the_weights_changes_nothing(captioner: Captioner, dataset: Flickr8kDataset, learning: bool) -> None:
    looked_at, pictures = copy.deepcopy(captioner).train(learning), torch.randn(6, 3, 32, 32)
    before, random = copy.deepcopy(looked_at.state_dict()), torch.get_rng_state()
    batch = collate([dataset[i] for i in range(4)])
    check_weights(looked_at, batch)
    check_weights(looked_at, Batch(pictures, batch.tokens[[0, 1, 2, 3, 0, 1]], ["a.jpg"] * 6))
    assert looked_at.training == looked_at.decoder.training == learning and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in looked_at.state_dict().items())
    with torch.no_grad():
        next(looked_at.decoder.parameters())[0] = math.inf
    with pytest.raises(FloatingPointError, match="before these weights were saved"):
        check_weights(looked_at, batch)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_the_step(captioner: Captioner, dataset: Flickr8kDataset, where: str) -> None:
    stage = StageConfig()
    optimizer = build_optimizer(captioner, stage, 0.0)
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
        learn(captioner, [batch], optimizer, stage, Progress())
    if hook:
        hook.remove()
    for name, tensor in captioner.decoder.named_parameters():
        assert torch.equal(tensor, before[name]), name
    assert not optimizer.state


def test_weights_that_give_no_finite_loss_are_not_validated(captioner: Captioner, dataset: Flickr8kDataset) -> None:
    batch = collate([dataset[0]])
    batch.visual[:] = math.nan
    with pytest.raises(FloatingPointError, match="in validation"):
        validate(captioner, [batch], Scorer({"dog.jpg": CAPTIONS["dog.jpg"]}))
