"""models/model.py and every decoder: shapes, frozen layers, ``forward`` against repeated ``step``."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

from cli import UserError
from config import ResNet50Config
from data.vocab import END_ID, PAD_ID, START_ID
from models.attention import AttentionDecoder
from models.interfaces import WordDecoder
from models.model import DecoderRNN, EncoderCNN
from models.weights import TORCHVISION_FILES
from tests.support.decoders import padded_logits, small_decoder
from tests.support.helpers import DECODERS
from utils import pick_precision

State = dict[str, torch.Tensor]
V, D, P = 11, 24, 6  # vocabulary, encoder width, grid positions


# ---------------------------------------------------------------------------------------------------- the encoder


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """torchvision's ResNet-50 with random weights and random batch-norm statistics."""
    torch.manual_seed(0)
    net = resnet50().train()
    with torch.no_grad():
        net(torch.randn(4, 3, 64, 64))
    return net.eval()


@pytest.fixture(scope="module")
def weights_file(resnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state_dict like the public ones: convolutions in fp16, the classifier left out."""
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    state = {
        name: tensor.half() if tensor.dim() == 4 else tensor
        for name, tensor in resnet.state_dict().items()
        if "fc." not in name
    }
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def encoder(weights_file: Path) -> EncoderCNN:
    """A pretrained encoder; tests that change weights create another."""
    return EncoderCNN(ResNet50Config(weights=str(weights_file)))


def grid_of(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The last feature map of torchvision's ResNet-50, as (B, P, D)."""
    with torch.no_grad():
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))  # type: ignore[operator]
        return net.layer4(net.layer3(net.layer2(net.layer1(x)))).flatten(2).transpose(1, 2)  # type: ignore[operator]


@pytest.mark.parametrize(("height", "width", "positions"), [(224, 224, 49), (32, 32, 1), (64, 96, 6)])
def test_grid_features_have_a_row_for_every_32_pixels(
    encoder: EncoderCNN, height: int, width: int, positions: int
) -> None:
    with torch.no_grad():
        assert encoder(torch.randn(2, 3, height, width)).shape == (2, positions, 2048)
    assert encoder.features_size == 2048


def test_features_equal_those_of_torchvisions_network(encoder: EncoderCNN, resnet: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder.eval()(images)
    torch.testing.assert_close(features, grid_of(resnet, images), rtol=0.02, atol=0.02)  # the file holds fp16


def test_original_layout_strides_on_the_first_convolution(encoder: EncoderCNN, weights_file: Path) -> None:
    original = EncoderCNN(ResNet50Config(weights=str(weights_file), layout="original")).eval()
    net = resnet50().eval()
    net.load_state_dict(torch.load(weights_file, weights_only=True), strict=False)
    for block in (net.layer2[0], net.layer3[0], net.layer4[0]):
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(original(images), grid_of(net, images), rtol=1e-3, atol=1e-3)
        assert not torch.allclose(original(images), encoder.eval()(images), atol=0.1)


def snapshot(encoder: EncoderCNN) -> list[State]:
    """Parameters and buffers of each stage."""
    return [{name: tensor.clone() for name, tensor in stage.state_dict().items()} for stage in encoder.stages]


def step(encoder: EncoderCNN) -> None:
    """One training step on every trainable weight."""
    encoder.train()
    features = encoder(torch.randn(4, 3, 64, 64))
    learning = [p for p in encoder.parameters() if p.requires_grad]
    if learning:
        features.square().mean().backward()
        assert all(p.grad is not None for p in learning)
        torch.optim.SGD(learning, lr=0.1).step()
        encoder.zero_grad()


def moved(before: State, after: State) -> set[str]:
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_frozen_encoder_does_not_change_in_train_mode(pretrained: bool, weights_file: Path) -> None:
    encoder = EncoderCNN(ResNet50Config(weights=str(weights_file) if pretrained else "none"))
    encoder.learn_from(None)
    nn.Sequential(encoder).train()  # as part of a captioner
    before = snapshot(encoder)
    step(encoder)
    assert [moved(b, a) for b, a in zip(before, snapshot(encoder), strict=True)] == [set()] * 5
    assert not encoder(torch.randn(1, 3, 32, 32)).requires_grad


@pytest.mark.parametrize("first", [0, 2, 4])
def test_training_starts_at_the_chosen_stage(first: int, weights_file: Path) -> None:
    encoder = EncoderCNN(ResNet50Config(weights=str(weights_file)))
    encoder.learn_from(first)
    before = snapshot(encoder)
    step(encoder)
    changes = [moved(b, a) for b, a in zip(before, snapshot(encoder), strict=True)]
    assert changes[:first] == [set()] * first
    for names in changes[first:]:
        assert any(name.endswith("weight") for name in names)
        assert not any("running" in name or "bn" in name for name in names)  # ImageNet's statistics are kept
    encoder.learn_from(None)
    assert not any(p.requires_grad for p in encoder.parameters())


def test_a_network_from_scratch_updates_its_statistics() -> None:
    encoder = EncoderCNN(ResNet50Config(weights="none"))
    encoder.learn_from(3)
    before = snapshot(encoder)
    step(encoder)
    changes = [moved(b, a) for b, a in zip(before, snapshot(encoder), strict=True)]
    assert changes[:3] == [set()] * 3
    assert all(any("running_mean" in name for name in names) for names in changes[3:])


def test_weights_with_a_classifier_or_without_counters_are_accepted(resnet: nn.Module, tmp_path: Path) -> None:
    torch.save(resnet.state_dict(), tmp_path / "whole.pth")
    torch.save(
        {name: tensor for name, tensor in resnet.state_dict().items() if "num_batches" not in name},
        tmp_path / "old.pth",
    )
    images = torch.randn(1, 3, 64, 64)
    for name in ("whole.pth", "old.pth"):
        with torch.no_grad():
            torch.testing.assert_close(
                EncoderCNN(ResNet50Config(weights=str(tmp_path / name))).eval()(images),
                grid_of(resnet, images),
                rtol=1e-3,
                atol=1e-3,
            )


def test_wrong_weight_files_are_refused_by_name(weights_file: Path, tmp_path: Path) -> None:
    state = torch.load(weights_file, weights_only=True)
    whole, path = weights_file.read_bytes(), tmp_path / "w.pth"
    wrong: dict[str, object] = {
        "missing.*layer3": {name: tensor for name, tensor in state.items() if "layer3" not in name},
        "unexpected.*extra": state | {"extra": torch.zeros(1)},
        "not a ResNet-50": state | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
        "not a state_dict": [1, 2],
        "not a readable state_dict": resnet50,  # a pickled function: loading it would run code
    }
    for message, content in wrong.items():
        torch.save(content, path)
        with pytest.raises(UserError, match=rf"(?s)encoder\.weights .*w\.pth: .*{message}"):
            EncoderCNN(ResNet50Config(weights=str(path)))
    for length in (0, 50, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"w\.pth: not a readable state_dict"):
            EncoderCNN(ResNet50Config(weights=str(path)))
    with pytest.raises(UserError, match=r"encoder\.weights imagnet: no such file.*: did you mean 'imagenet'\?"):
        EncoderCNN(ResNet50Config(weights="imagnet"))
    with pytest.raises(UserError, match=r"encoder\.weights IMAGENET1K_V3: no such file.*IMAGENET1K_V1"):
        EncoderCNN(ResNet50Config(weights="IMAGENET1K_V3"))


def test_a_damaged_download_is_detected_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / TORCHVISION_FILES["IMAGENET1K_V2"]
    path.parent.mkdir(parents=True)
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=rf"IMAGENET1K_V2: .*{path.name} is damaged .*Delete it"):
        EncoderCNN(ResNet50Config(weights="IMAGENET1K_V2"))


def test_without_internet_the_error_names_the_url_and_the_target_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # no server on this port
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError) as caught:
        EncoderCNN(ResNet50Config(weights="IMAGENET1K_V1"))
    url = ResNet50_Weights.IMAGENET1K_V1.url
    place = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[1]
    assert (
        url in str(caught.value)
        and str(place) in str(caught.value)
        and "--encoder.weights imagenet" in str(caught.value)
    )
    assert not place.exists()


# --------------------------------------------------------------------------------------------------- the decoders


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> WordDecoder:
    torch.manual_seed(0)
    return small_decoder(request.param, V, D, embed_size=16, hidden_size=32, dropout=0.5)


def random_tokens(b: int, k: int, t: int) -> torch.Tensor:
    tokens = torch.randint(4, V, (b, k, t))
    tokens[..., 0] = START_ID
    return tokens


def test_forward_and_repeated_step_give_the_same_logits(decoder: WordDecoder) -> None:
    features, tokens = torch.randn(3, P, D), random_tokens(3, 2, 7)
    tokens[0, 0, 3:] = torch.tensor([END_ID, PAD_ID, PAD_ID, PAD_ID])
    tokens[1, 1, 1:] = END_ID  # no reference is empty, but a sampled caption may be
    tokens[2, 1] = PAD_ID  # no caption: the image has only one
    ends = {(0, 0): 3, (1, 1): 1, (2, 1): 0}
    with torch.no_grad():
        logits = padded_logits(decoder, features, tokens)
        assert logits.shape == (3, 2, 7, V)
        assert all(not logits[b, k, end:].any() for (b, k), end in ends.items())
        for k in range(2):
            state = decoder.start(features)
            for t in range(7):
                step_logits, state, attention = decoder.step(tokens[:, k, t], state, attention=True)
                open_ = [b for b in range(3) if t < ends.get((b, k), 7)]
                torch.testing.assert_close(step_logits[open_], logits[open_, k, t], rtol=1e-4, atol=1e-5)
                assert attention is None or (
                    attention.shape == (3, P) and torch.allclose(attention.sum(1), torch.ones(3), atol=1e-4)
                )


def test_captions_and_images_of_a_batch_do_not_affect_each_other(decoder: WordDecoder) -> None:
    features, tokens = torch.randn(3, P, D), random_tokens(3, 2, 5)
    with torch.no_grad():
        logits = padded_logits(decoder, features, tokens)
        for b in range(3):
            for k in range(2):
                alone = padded_logits(decoder, features[b : b + 1], tokens[b : b + 1, k : k + 1])
                torch.testing.assert_close(alone[0, 0], logits[b, k], rtol=1e-4, atol=1e-5)


def test_padding_changes_neither_logits_nor_gradients(decoder: WordDecoder) -> None:
    features, tokens = torch.randn(3, P, D), random_tokens(3, 2, 6)
    tokens[0, 0, 3:] = PAD_ID
    found = []
    for padded in (tokens, torch.nn.functional.pad(tokens, (0, 9), value=PAD_ID)):
        decoder.zero_grad()
        logits = padded_logits(decoder, features, padded)[:, :, :6]
        logits.square().sum().backward()
        found.append(
            [
                logits.detach(),
                *(parameter.grad.clone() for parameter in decoder.parameters() if parameter.grad is not None),
            ]
        )
    for short, long in zip(*found, strict=True):
        torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-5)


def test_a_token_is_predicted_from_the_tokens_before_it_only(decoder: WordDecoder) -> None:
    features, tokens = torch.randn(2, P, D), random_tokens(2, 1, 6)
    changed = tokens.clone()
    changed[..., 3:] = (changed[..., 3:] - 4 + 1) % (V - 4) + 4
    with torch.no_grad():
        before, after = padded_logits(decoder, features, tokens), padded_logits(decoder, features, changed)
    torch.testing.assert_close(before[..., :3, :], after[..., :3, :])
    assert not torch.allclose(before[..., 3:, :], after[..., 3:, :])


def test_state_select_repeats_and_reorders_sequences(decoder: WordDecoder) -> None:
    features, index = torch.randn(3, P, D), torch.tensor([2, 0, 0, 1])
    words = torch.tensor([4, 5, 6, 7])
    with torch.no_grad():
        _, state, _ = decoder.step(torch.tensor([4, 5, 6]), decoder.start(features))
        picked, _, _ = decoder.step(words, state.select(index, 1))
        logits = padded_logits(
            decoder, features[index], torch.stack([torch.tensor([4, 5, 6])[index], words], dim=1)[:, None]
        )
    torch.testing.assert_close(picked, logits[:, 0, 1], rtol=1e-4, atol=1e-5)


def test_the_gradient_reaches_every_weight_and_the_image(decoder: WordDecoder) -> None:
    features = torch.randn(2, P, D, requires_grad=True)
    padded_logits(decoder.train(), features, random_tokens(2, 2, 6)).square().sum().backward()
    assert features.grad is not None and bool((features.grad.abs().sum(dim=-1) > 0).all())  # every grid position
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_full_precision_and_trainable(decoder: WordDecoder, dtype: torch.dtype) -> None:
    if dtype == torch.float16 and isinstance(decoder, DecoderRNN | AttentionDecoder):
        pytest.skip("fp16 LSTMs are not supported on CPU")
    if (
        dtype == torch.bfloat16
        and isinstance(decoder, DecoderRNN | AttentionDecoder)
        and pick_precision("auto", torch.device("cpu")) != dtype
    ):
        pytest.skip("this CPU has no bf16 instructions, which oneDNN's LSTM needs")
    features, tokens = torch.randn(3, P, D), random_tokens(3, 2, 6)
    full = padded_logits(decoder, features, tokens)
    with torch.autocast("cpu", dtype):
        half = padded_logits(decoder, features, tokens)
        state = decoder.start(features)
        for t in range(6):
            logits, state, _ = decoder.step(tokens[:, 0, t], state)
            torch.testing.assert_close(logits.float(), full[:, 0, t], rtol=0.1, atol=0.1)
    torch.testing.assert_close(half.float(), full, rtol=0.1, atol=0.1)
    half.float().square().sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_dropout_is_off_in_eval_and_on_in_train(decoder: WordDecoder) -> None:
    features, tokens = torch.randn(2, P, D), random_tokens(2, 1, 4)
    with torch.no_grad():
        assert torch.equal(padded_logits(decoder, features, tokens), padded_logits(decoder, features, tokens))
        decoder.train()
        assert not torch.equal(padded_logits(decoder, features, tokens), padded_logits(decoder, features, tokens))
