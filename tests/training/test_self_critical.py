"""Self-critical training makes captions with higher rewards more probable, and no others."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from config import Config, StageConfig
from data.dataset import Batch
from data.packing import pack
from data.tokenizer import WORDS
from data.vocab import END_ID, Vocabulary
from evaluation.cider import CiderReward
from models.captioner import Captioner
from models.decoding import random_numbers, sample
from tests.support.helpers import DECODERS, tiny_decoder
from tests.support.stages import make_stage
from training.engine import train_one_epoch
from training.progress import Progress
from training.self_critical import self_critical
from training.stage_setup import Stage

CAPTIONS = {
    "dog.jpg": ["a brown dog runs", "the dog is running fast"],
    "cat.jpg": ["a white cat sleeps", "a cat asleep"],
    "sea.jpg": ["two boats on the sea", "boats at sea"],
}


def make(tiny_config: Callable[..., Config], name: str) -> tuple[Captioner, Batch]:
    torch.manual_seed(0)
    config = tiny_config(tiny_decoder(name, embed_size=16, hidden_size=32), "--generate.max_length=6")
    vocabulary = Vocabulary.build([c for captions in CAPTIONS.values() for c in captions], min_count=1)
    captioner = Captioner(config, vocabulary)
    captioner.set_dropout(0.0)
    features = torch.randn(3, 4, captioner.encoder.features_size)
    return captioner, Batch(features, pack([[]]), list(CAPTIONS), seeds=[0, 1, 2])  # the references are not read


def stage_of(captioner: Captioner, batch: Batch, config: StageConfig, steps: int = 1) -> Stage:
    visual = dict(zip(batch.names, batch.visual, strict=True))
    return make_stage(captioner, config, CAPTIONS, lambda name, _seed: visual[name], steps=steps)


def mean_reward(captioner: Captioner, batch: Batch) -> float:
    reward, words = CiderReward(CAPTIONS), captioner.vocabulary.words
    sampled = sample(captioner.eval().decoder, batch.visual, random_numbers([7, 8, 9], 200, 6))
    values = [
        reward(name, [words[token] for token in s.tokens])
        for name, hypotheses in zip(batch.names, sampled, strict=True)
        for s in hypotheses
    ]
    return sum(values) / len(values)


@pytest.mark.parametrize("name", DECODERS)
def test_reward_rises(tiny_config: Callable[..., Config], name: str) -> None:
    captioner, batch = make(tiny_config, name)
    before = mean_reward(captioner, batch)
    stage = StageConfig(epochs=1, lr=1e-2, samples=20)
    batches = [replace(batch, seeds=[step, 100 + step, 200 + step]) for step in range(60)]
    numbers = train_one_epoch(stage_of(captioner, batch, stage, steps=60), batches, Progress(stage="scst"))
    assert captioner.decoder.training
    after = mean_reward(captioner, batch)
    assert after > 2 * before
    assert (
        before < numbers["reward"] < after and numbers["train_loss"] != numbers["train_loss"]
    )  # NaN: there is no teacher forcing


def test_captions_cut_off_at_the_maximum_length_give_no_gradient_to_the_end_token(
    tiny_config: Callable[..., Config],
) -> None:
    captioner, batch = make(tiny_config, "lstm")
    captioner.train()
    with torch.no_grad():  # <end> is never sampled
        captioner.decoder.output.bias[END_ID] = -1e4
    self_critical(CAPTIONS, WORDS, 5, torch.float32)(captioner, batch).loss.backward()  # type: ignore[no-untyped-call]
    gradient = captioner.decoder.output.bias.grad
    assert gradient is not None and gradient.any() and gradient[END_ID] == 0.0
    reward = CiderReward(CAPTIONS)
    assert reward("dog.jpg", ["a", "brown", "dog", "runs"], ended=False) < reward(
        "dog.jpg", ["a", "brown", "dog", "runs"]
    )


def test_infinite_logits_stop_training(tiny_config: Callable[..., Config]) -> None:
    captioner, batch = make(tiny_config, "lstm")
    batch.visual[0] = torch.inf
    stage = StageConfig(epochs=1, samples=2)
    with pytest.raises(FloatingPointError, match="logits are not finite; stopped at epoch 1, step 1"):
        train_one_epoch(stage_of(captioner, batch, stage), [batch], Progress(stage="scst"))


def test_captions_with_equal_rewards_give_no_gradient(tiny_config: Callable[..., Config]) -> None:
    captioner, batch = make(tiny_config, "lstm")
    captioner.train()
    with torch.no_grad():  # all sampled captions are the same: equal rewards, which are not zero
        captioner.decoder.output.weight.zero_()
        captioner.decoder.output.bias.fill_(-1e4)
        captioner.decoder.output.bias[captioner.vocabulary.words.index("dog")] = 1e4
    step = self_critical(CAPTIONS, WORDS, 5, torch.float32)(captioner, batch)
    step.loss.backward()  # type: ignore[no-untyped-call]
    assert step.shown > 0.0 and step.count == 15
    assert all(not parameter.grad.any() for parameter in captioner.decoder.parameters() if parameter.grad is not None)
