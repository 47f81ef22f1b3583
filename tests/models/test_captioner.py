"""models/captioner.py: a checkpoint needs no other file, and a caption does not depend on the rest of the batch."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

from cli import UserError
from config import Config
from data.images import ImageError, load_image
from data.packing import pack
from data.vocab import SPECIAL, Vocabulary
from models.captioner import Candidate, Captioner, unmirror
from models.checkpoint import load_checkpoint, save_checkpoint
from models.decoding import Hypothesis, attention_per_word
from models.model import EncoderCNN
from tests.support.helpers import DECODERS, tiny_decoder
from utils import pick_precision

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def captioner(tiny_checkpoint: Path) -> Captioner:
    return Captioner.load(tiny_checkpoint, CPU)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> dict[str, Any]:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def images(tiny_data: Path) -> list[Image.Image]:
    return [load_image(path) for path in sorted((tiny_data / "images").iterdir())[:6]]


def assert_same(found: list[Candidate], wanted: list[Candidate]) -> None:
    assert found[0].caption == wanted[0].caption
    assert [c.log_prob for c in found] == pytest.approx([c.log_prob for c in wanted], abs=0.02)


def test_a_trained_checkpoint_captions(captioner: Captioner, images: list[Image.Image]) -> None:
    found = captioner.caption(images)
    assert len(found) == len(images)
    for candidates in found:
        assert 1 <= len(candidates) <= 2  # the run's beam size
        assert all(isinstance(c.caption, str) and c.log_prob <= 0 for c in candidates)
    assert all(len(candidates) == 1 for candidates in captioner.caption(images, beam_size=1))
    assert len(captioner.caption(images[:1], beam_size=5)[0]) == 5


def test_an_image_gets_the_same_caption_alone_and_in_a_batch(captioner: Captioner, images: list[Image.Image]) -> None:
    for image, candidates in zip(images, captioner.caption(images), strict=True):
        assert_same(captioner.caption([image])[0], candidates)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "RGBA", "LA", "I;16"])
def test_images_of_any_mode_and_size_share_a_batch(
    captioner: Captioner, images: list[Image.Image], mode: str, tmp_path: Path
) -> None:
    name = tmp_path / ("a.tif" if mode in {"CMYK", "I;16"} else "a.png")
    grey = images[0].convert("L")
    (
        grey.convert("I").point(lambda value: value * 256).convert("I;16")
        if mode == "I;16"
        else images[0].convert(mode)
    ).save(name)
    odd, opened = load_image(name), Image.open(name)
    assert captioner.describe(name) == captioner.describe(opened) == captioner.caption([odd])[0][0].caption
    assert opened.mode == mode
    together = captioner.caption([images[1], odd, Image.new("RGB", (1, 1)), Image.new("RGB", (3000, 20))])
    assert_same(captioner.caption([odd])[0], together[1])


def test_a_caption_as_text_for_a_file_and_for_a_list(captioner: Captioner, tiny_data: Path, tmp_path: Path) -> None:
    paths = sorted((tiny_data / "images").iterdir())
    wanted = [candidates[0].caption for candidates in captioner.caption(map(load_image, paths), beam_size=1)]
    assert captioner.describe(str(paths[0]), beam_size=1) == wanted[0]
    assert captioner.describe([*paths, str(paths[0])], beam_size=1) == [*wanted, wanted[0]]  # more than one batch
    assert captioner.describe([]) == []
    sideways, exif = Image.open(paths[1]).rotate(90, expand=True), Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise
    sideways.save(tmp_path / "photo.png", exif=exif)
    opened = Image.open(tmp_path / "photo.png")
    assert captioner.describe([tmp_path / "photo.png", opened], beam_size=1) == [wanted[1]] * 2
    assert opened.size == sideways.size  # the caller's image is as it was


def test_what_is_no_image_is_named(captioner: Captioner, images: list[Image.Image], tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ImageError, match=r"cut\.jpg: not an image"):
        captioner.describe([images[0], tmp_path / "cut.jpg"])
    with pytest.raises(ImageError, match=r"none\.jpg: no such file"):
        captioner.describe("none.jpg")
    with pytest.raises(TypeError, match="list of these, not tuple"):
        captioner.describe((images[0],))  # type: ignore[call-overload]


def test_captioning_changes_nothing_in_the_model(captioner: Captioner, images: list[Image.Image]) -> None:
    before = {name: tensor.clone() for name, tensor in captioner.state_dict().items()}
    captioner.train()  # someone forgot eval()
    first, second = captioner.caption(images), captioner.caption(images)
    assert first == second
    assert all(torch.equal(before[name], tensor) for name, tensor in captioner.state_dict().items())


def test_inference_in_train_mode_is_refused_and_a_cache_changes_no_mode(captioner: Captioner, tmp_path: Path) -> None:
    """With dropout on, the same features gave different captions; and opening a feature cache switched dropout off."""
    features = torch.randn(2, 1, captioner.encoder.features_size)
    captioner.train()
    captioner.feature_cache(tmp_path, mirror=False)
    assert captioner.training
    with pytest.raises(RuntimeError, match=r"generate\(\) is for inference"):
        captioner.generate(features)
    with pytest.raises(RuntimeError, match=r"encode\(\) is for inference"):
        captioner.encode(torch.randn(2, 3, 32, 32), mirror=False)
    captioner.eval()
    assert captioner.generate(features) == captioner.generate(features)


def test_a_bug_in_a_decoder_is_not_reported_as_a_damaged_checkpoint(
    checkpoint: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, *_: object) -> None:
        self.no_such_attribute  # type: ignore[attr-defined]  # noqa: B018

    monkeypatch.setattr("models.model.DecoderRNN.__init__", broken)
    with pytest.raises(AttributeError, match="no_such_attribute"):
        Captioner.from_checkpoint(checkpoint, "my.pth")


def test_the_checkpoint_needs_no_other_file(
    tiny_checkpoint: Path,
    captioner: Captioner,
    images: list[Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    os.link(tiny_checkpoint, tmp_path / "moved.pth")
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    assert_same(Captioner.load("moved.pth", CPU).caption(images[:1])[0], captioner.caption(images[:1])[0])
    assert [path.name for path in tmp_path.iterdir()] == ["moved.pth"]


def test_the_checkpoint_contains_plain_values_only(
    checkpoint: dict[str, Any], tiny_config: Callable[..., Config], tiny_data: Path
) -> None:
    assert {"format_version", "config", "vocab", "transform", "model"} <= checkpoint.keys()
    plain = {key: value for key, value in checkpoint.items() if key != "model"}
    assert json.loads(json.dumps(plain)) == plain
    assert plain["vocab"][:4] == ["<pad>", "<start>", "<end>", "<unk>"]
    assert set(plain["vocab"][4:]) == {"a", "there", "is", "one", "circle", "square", "red", "blue", "green", "yellow"}
    assert plain["config"]["data"]["captions_file"] == str(tiny_data / "captions.csv")


@pytest.mark.parametrize(("trained", "quick"), [("fp16", "auto"), ("bf16", "auto"), ("auto", "auto"), ("fp32", "fp32")])
def test_16_bit_precision_of_a_gpu_is_not_emulated_on_a_cpu(
    tiny_config: Callable[..., Config], trained: str, quick: str
) -> None:
    captioner = Captioner(tiny_config(f"--train.precision={trained}"), Vocabulary.build(["a red circle"], 1))
    assert captioner.precision == pick_precision(quick, torch.device("cpu"))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_the_named_precision_is_that_of_encoding_and_decoding(
    tiny_config: Callable[..., Config], images: list[Image.Image], name: str, precision: str, dtype: torch.dtype
) -> None:
    vocabulary = Vocabulary.build(["a red circle", "a blue square"], 1)
    made = Captioner(tiny_config(tiny_decoder(name)), vocabulary).eval()
    named = Captioner.from_checkpoint(made.checkpoint(), precision=precision).eval()
    if precision == "bf16" and name != "transformer" and pick_precision("auto", CPU) != torch.bfloat16:
        pytest.skip("oneDNN has no LSTM in bf16 for this CPU")
    used = []
    for module in named.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, inputs, result: used.append(result.dtype))
    exact, found = made.caption(images[:4]), named.caption(images[:4])
    assert [image[0].log_prob for image in found] == pytest.approx([image[0].log_prob for image in exact], rel=0.02)
    assert len(named.sample(images[:2], 3, 1.0, seed=0)) == 2
    assert set(used) == {dtype}


@pytest.mark.parametrize("name", DECODERS)
def test_round_trip_of_every_decoder(tiny_config: Callable[..., Config], images: list[Image.Image], name: str) -> None:
    vocabulary = Vocabulary.build(["a red circle", "a blue square"], 1)
    made = Captioner(tiny_config(tiny_decoder(name)), vocabulary, "drawings").eval()
    again = Captioner.from_checkpoint(made.checkpoint()).eval()
    assert again.caption(images[:2]) == made.caption(images[:2])
    assert again.config == made.config and again.transform == made.transform
    assert again.learned_from == made.learned_from == "drawings"


@pytest.mark.parametrize("name", DECODERS)
def test_attention_is_returned_for_each_word_of_the_caption(
    tiny_config: Callable[..., Config], images: list[Image.Image], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [["a", "man", "'s", "hat"], [], ["a", "hat"]]
    captioner = Captioner(
        tiny_config(tiny_decoder(name), "--data.image_size=64"), Vocabulary([*SPECIAL, "a", "man", "'s", "hat"])
    )
    found = [
        [Hypothesis([captioner.vocabulary.words.index(token) for token in caption], -1.0, -1.0)] for caption in tokens
    ]
    monkeypatch.setattr("models.captioner.generate", lambda *_: found)
    features = 3 * torch.randn(3, 4, captioner.encoder.features_size)
    best = [candidates[0] for candidates in captioner.eval().generate(features, attention=True)]
    assert [candidate.caption for candidate in best] == ["a man's hat", "", "a hat"]
    assert [len(candidate.choices) for candidate in best] == [3, 0, 2]
    plain = [candidates[0] for candidates in captioner.generate(features)]  # neither is asked for
    assert all(candidate.attention is None and candidate.choices == () for candidate in plain)
    assert [candidate.score for candidate in plain] == [-1.0] * 3
    if name == "lstm":
        assert all(candidate.attention is None for candidate in best)
        return
    attention = attention_per_word(captioner.decoder, features, [hypotheses[0].tokens for hypotheses in found])
    assert attention is not None
    wanted = [torch.stack([attention[0][0], attention[0][1:3].mean(0), attention[0][3]]), attention[1], attention[2]]
    for candidate, weights in zip(best, wanted, strict=True):
        torch.testing.assert_close(candidate.attention, weights.view(-1, 2, 2))


def test_cached_features_and_images_give_the_same_logits(captioner: Captioner, images: list[Image.Image]) -> None:
    captioner.eval()
    pixels = torch.stack([captioner.transform(image) for image in images])
    tokens = pack([[captioner.vocabulary.encode("a red circle")]] * len(images))
    with torch.no_grad():
        from_pixels = captioner(pixels, tokens)
        from_features = captioner(captioner.encoder(pixels).half(), tokens)
    torch.testing.assert_close(from_features, from_pixels, rtol=1e-2, atol=1e-2)


def test_an_image_gets_the_same_features_fresh_and_cached(
    captioner: Captioner, tiny_data: Path, tmp_path: Path
) -> None:
    """evaluate.py reads cached features, inference_visualize.py computes them: an image gets one caption."""
    paths = sorted((tiny_data / "images").iterdir())[:6]
    cache = captioner.feature_cache(tmp_path, mirror=False)
    assert cache.build(paths) == {}
    cached = torch.stack([cache[path] for path in paths])
    images = [load_image(path) for path in paths]
    assert torch.equal(
        captioner.encode(torch.stack([captioner.transform(image) for image in images]), mirror=False), cached
    )
    assert captioner.caption(images) == captioner.generate(cached)


@pytest.mark.parametrize("part", ["config", "vocab", "transform", "model"])
def test_a_checkpoint_with_a_broken_part_is_refused_by_name(checkpoint: dict[str, Any], part: str) -> None:
    missing = {key: value for key, value in checkpoint.items() if key != part}
    for broken in (missing, checkpoint | {part: None}, checkpoint | {part: {}}):
        with pytest.raises(UserError):
            Captioner.from_checkpoint(broken, "my.pth")
    with pytest.raises(UserError, match=rf"my\.pth: .*{part}"):
        Captioner.from_checkpoint(missing, "my.pth")


def test_a_checkpoint_whose_parts_do_not_fit_is_refused(checkpoint: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"my\.pth: .*do not fit together"):
        Captioner.from_checkpoint(checkpoint | {"vocab": [*checkpoint["vocab"], "extra"]}, "my.pth")
    lacking = {name: tensor for name, tensor in checkpoint["model"].items() if "decoder.output" not in name}
    with pytest.raises(UserError, match=r"(?s)my\.pth: .*decoder\.output"):
        Captioner.from_checkpoint(checkpoint | {"model": lacking}, "my.pth")


def test_damaged_weights_are_refused_by_name(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    name = "decoder.output.weight"
    for broken in ({"model": [1]}, {"scales": {name: torch.ones(3)}}, {"scales": {"nothing": torch.ones(3)}}):
        save_checkpoint(tmp_path / "my.pth", checkpoint | broken)
        with pytest.raises(UserError, match=r"my\.pth"):
            Captioner.load(tmp_path / "my.pth", CPU)


def test_a_buffer_that_no_checkpoint_holds_is_reported(
    checkpoint: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = EncoderCNN.__init__

    def with_buffer(self: EncoderCNN, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        self.register_buffer("places", torch.arange(3), persistent=False)

    monkeypatch.setattr(EncoderCNN, "__init__", with_buffer)
    with pytest.raises(RuntimeError, match=r"encoder\.places"):
        Captioner.from_checkpoint(checkpoint)


@pytest.fixture
def mirroring(checkpoint: dict[str, Any]) -> Captioner:
    """The captioner with ``generate.mirror``: it attends to the mirror image too."""
    generate = checkpoint["config"]["generate"] | {"mirror": True}
    return Captioner.from_checkpoint(checkpoint | {"config": checkpoint["config"] | {"generate": generate}}).eval()


def test_with_mirroring_an_image_and_its_mirror_image_get_the_same_caption(
    captioner: Captioner, mirroring: Captioner, images: list[Image.Image], tmp_path: Path
) -> None:
    mirrored = [ImageOps.mirror(image) for image in images]
    for one, other, plain in zip(
        mirroring.caption(images), mirroring.caption(mirrored), captioner.caption(images), strict=True
    ):
        assert_same(one, other)
        assert one[0].log_prob != plain[0].log_prob
    path = tmp_path / "a.png"
    images[0].save(path)
    caches = [mirroring.feature_cache(tmp_path / "cache", mirror=mirror) for mirror in (True, False)]
    both, alone = (cache[path] for cache in caches if cache.build([path]) == {})
    assert caches[0].folder != caches[1].folder
    assert torch.equal(both[: len(alone)], alone) and len(both) == 2 * len(alone)
    assert mirroring.caption(images[:1]) == mirroring.generate(both[None])


def test_attention_to_the_mirror_image_is_mapped_back_to_the_image() -> None:
    plain, mirrored = torch.tensor([[0.1, 0.2, 0.0, 0.0]]), torch.tensor([[0.3, 0.0, 0.0, 0.4]])  # grids of 2 x 2
    both = unmirror(torch.cat([plain, mirrored], dim=1), (2, 2))
    torch.testing.assert_close(both, torch.tensor([[[0.1, 0.5], [0.4, 0.0]]]))
