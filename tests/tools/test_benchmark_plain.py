"""The plain loop of the benchmark computes what the project computes: features, captions and training loss."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from cli import UserError
from config import Config, EncoderConfig, GenerateConfig
from data.images import load_image
from data.packing import pack
from data.vocab import END_ID, Vocabulary
from models.captioner import Captioner
from models.checkpoint import save_checkpoint
from models.decoding import generate
from tests.support.helpers import tiny_decoder
from tools.benchmark import plain_photo
from tools.benchmark.__main__ import main
from tools.benchmark.limits import count_parts
from tools.benchmark.plain_copy import plain_captioner, plain_copy, save_plain
from tools.benchmark.plain_search import beam_search, repeating_words
from tools.benchmark.plain_training import loss_of, make_batch, train_step
from training.objectives import caption_loss

CAPTIONS = ["a red circle", "one blue square on a green square", "there is a yellow circle here"]
Make = Callable[..., Captioner]


@pytest.fixture
def make(tiny_config: Callable[..., Config]) -> Make:
    """``make("lstm", ...)``: a captioner with random weights and a whole ResNet-50, in fp32."""

    def build(decoder: str, *options: str) -> Captioner:
        torch.manual_seed(0)
        config = tiny_config(tiny_decoder(decoder, hidden_size=16), "--train.precision=fp32", *options)
        captioner = Captioner(config, Vocabulary.build(CAPTIONS, min_count=1)).eval()
        for norm in captioner.modules():  # statistics as training leaves them
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.running_mean.uniform_(-0.1, 0.1)
                norm.running_var.uniform_(0.5, 1.5)
        return captioner

    return build


@pytest.mark.parametrize("layout", ["torchvision", "original"])
def test_the_plain_encoder_gives_the_same_features(make: Make, layout: str) -> None:
    captioner = make("lstm", f"--encoder.layout={layout}")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain_copy(captioner).encoder(images), captioner.encoder(images))


@pytest.mark.parametrize("name", ["lstm", "attention"])
@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("no_repeat_ngram", [0, 2])
def test_the_plain_search_finds_the_same_captions(make: Make, name: str, beam_size: int, no_repeat_ngram: int) -> None:
    captioner = make(name)
    with torch.no_grad():
        for weight in captioner.decoder.parameters():
            weight.mul_(4)  # captions that differ
        captioner.decoder.output.bias[END_ID] = -1
    features = 3 * torch.randn(12, 4, 2048)
    options = GenerateConfig(max_length=8, length_penalty=0.7, no_repeat_ngram=no_repeat_ngram)
    plain = plain_copy(captioner)
    found = [beam_search(plain.decoder, each[None], options, beam_size) for each in features]
    expected = generate(captioner.decoder, features, beam_size, 8, 0.7, no_repeat_ngram)
    assert [each.tokens for each in found] == [beams[0].tokens for beams in expected]
    assert len({tuple(each.tokens) for each in found}) > 3
    if beam_size == 1:
        assert [each.read for each in found] == [len(each.tokens) + 1 for each in found]


@pytest.mark.parametrize("name", ["lstm", "attention"])
def test_the_plain_training_loss_is_the_same(make: Make, name: str) -> None:
    captioner = make(name)
    images, captions = torch.rand(2, 3, 64, 64), [CAPTIONS, CAPTIONS[:1]]
    ids = [[captioner.vocabulary.encode(text) for text in its_captions] for its_captions in captions]
    packed = pack(ids)
    with torch.no_grad():
        expected, _ = caption_loss(captioner(images, packed), packed.targets, label_smoothing=0.1)
        batch = make_batch(images, ids)
        loss = loss_of(plain_copy(captioner), batch, label_smoothing=0.1)
    assert len(batch.images) == 4 and batch.lengths == sorted(batch.lengths, reverse=True)
    assert sum(batch.lengths) == len(batch.targets) == packed.count
    torch.testing.assert_close(loss, expected)


def test_the_plain_training_learns(make: Make) -> None:
    plain = plain_copy(make("attention"))
    plain.decoder.train()
    vocabulary = Vocabulary.build(CAPTIONS, min_count=1)
    batch = make_batch(torch.rand(2, 3, 32, 32), [[vocabulary.encode(CAPTIONS[number])] for number in (0, 1)])
    before = {name: value.clone() for name, value in plain.encoder.state_dict().items()}
    optimizer = torch.optim.AdamW(plain.decoder.parameters(), lr=0.03)
    losses = [train_step(plain, optimizer, batch, label_smoothing=0, clip=5) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in plain.encoder.state_dict().items())


def test_photos_get_the_same_captions_from_files_on(
    make: Make, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captioner = make("attention", "--generate.mirror=true", "--data.image_size=64")
    paths = sorted((tiny_data / "images").iterdir())[:3]
    expected = captioner.describe([str(path) for path in paths], beam_size=3)
    save_plain(captioner, tmp_path / "model.pth", beam_size=3)
    plain_photo.main([str(tmp_path / "model.pth"), "cpu", *map(str, paths)])
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: {caption}" for path, caption in zip(paths, expected, strict=True)
    ]
    plain = plain_captioner(captioner)
    image = plain.read(paths[0])
    torch.testing.assert_close(image[0], captioner.transform(load_image(paths[0])), atol=0.05, rtol=0)
    assert plain.encode(image).shape == (1, 8, 2048)


def test_the_operations_are_those_of_the_shapes(make: Make) -> None:
    captioner = make("lstm")
    parts = count_parts(plain_copy(captioner), torch.rand(1, 3, 224, 224), views=2)
    assert parts.encoder == pytest.approx(2 * 4.09e9, rel=0.01)  # He et al. 2015: 3.8 billion multiply-adds
    lstm, vocab_size = 2 * (8 + 16) * 4 * 16, len(captioner.vocabulary)
    assert parts.start == 2 * 2048 * 8 + lstm and parts.step == lstm + 2 * 16 * vocab_size
    assert parts.caption(7) == parts.start + 7 * parts.step
    assert parts.train(2, 7) == 3 * (2 * parts.start + 7 * parts.step)


def test_words_that_repeat_an_ngram() -> None:
    assert repeating_words([5, 6, 7, 5], 2) == [6]
    assert repeating_words([5, 6, 5], 1) == [5, 6, 5]
    assert repeating_words([5, 6, 7, 5, 6], 3) == [7]
    assert repeating_words([5], 2) == repeating_words([5, 5], 0) == []


def test_other_models_are_refused_before_anything_is_measured(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "transformer.pth"
    save_checkpoint(path, make("transformer").checkpoint())
    with pytest.raises(UserError, match="no plain loop for the transformer decoder"):
        main(["--baseline", f"--checkpoint={path}", "--device=cpu", f"--output={tmp_path / 'a.json'}"])
    assert capsys.readouterr() == ("", "") and {*tmp_path.iterdir()} == {path}
    captioner = make("lstm")
    captioner.config = replace(captioner.config, encoder=EncoderConfig(name="own"))
    with pytest.raises(UserError, match="no plain loop for the encoder own"):
        plain_copy(captioner)
