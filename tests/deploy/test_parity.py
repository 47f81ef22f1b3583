"""deploy/: the same candidates and log-probabilities as torch, for each decoder, at several batch sizes."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.transforms import Transform
from data.vocab import END_ID, START_ID, Vocabulary
from deploy.captioner import Candidate, OnnxCaptioner
from deploy.description import Blanks
from deploy.search import Special, beam_search
from models.decoding import NEVER, generate
from tests.support.decoders import small_decoder
from tests.support.exported import CAPTIONS, export_tiny, random_captioner
from tests.support.helpers import read
from tools.export_onnx.__main__ import blanks, compare

SLOW = pytest.mark.slow  # an export takes 10 s
CLOSE = 1e-3  # of log-probabilities


def noise(count: int) -> list[Image.Image]:
    pixels = np.random.default_rng(1).integers(0, 256, (count, 40, 50, 3), np.uint8)
    return [Image.fromarray(each) for each in pixels]


def pairs(candidates: list[Candidate]) -> tuple[list[str], list[float]]:
    return [candidate.caption for candidate in candidates], [candidate.log_prob for candidate in candidates]


@pytest.mark.parametrize("name", [pytest.param("lstm", marks=SLOW), pytest.param("transformer", marks=SLOW)])
def test_captions_of_other_decoders_are_those_of_torch(name: str, tmp_path: Path) -> None:
    export_tiny(tmp_path, name)
    assert_captions_are_those_of_torch(name, tmp_path)


def test_captions_are_those_of_torch(exported: Path) -> None:
    assert_captions_are_those_of_torch("attention", exported)


def assert_captions_are_those_of_torch(name: str, folder: Path) -> None:
    torch_captioner, captioner = random_captioner(name), OnnxCaptioner(folder)
    assert compare(torch_captioner, folder) < CLOSE
    for count in (1, 3):
        for beam_size in (1, 4):
            images = noise(count)
            wanted = torch_captioner.caption(images, beam_size, attention=True)
            found = captioner.caption(images, beam_size, attention=True)
            assert len(found) == count
            for its_wanted, its_found in zip(wanted, found, strict=True):
                # without blanks: "'s 's", which only random weights generate, is not "'s's" in nltk
                captions = [
                    [caption.replace(" ", "") for caption in each]
                    for each in (pairs(its_found)[0], [candidate.caption for candidate in its_wanted])
                ]
                assert captions[0] == captions[1]
                assert pairs(its_found)[1] == pytest.approx([c.log_prob for c in its_wanted], abs=CLOSE)
                maps = its_found[0].attention
                if not torch_captioner.decoder.attends:
                    assert maps is None
                    continue
                assert maps.shape == (len(its_found[0].tokens), 2, 2)
                assert maps.sum(axis=(1, 2)) == pytest.approx(1, abs=1e-5)
                if len(its_found[0].tokens) == len(its_found[0].caption.split()):  # a piece of a caption is a token
                    assert np.allclose(maps, its_wanted[0].attention, atol=CLOSE)


def numpy_search(
    decoder: torch.nn.Module, features: torch.Tensor, *options: str
) -> list[list[tuple[list[int], float]]]:
    """``beam_search`` with the decoder in torch: what is compared is the search alone."""
    known: list[object] = []

    def step(tokens: np.ndarray, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        last = torch.from_numpy(np.ascontiguousarray(tokens)).flatten()
        logits, new, _ = decoder.step(last, decoder_state(state))
        known.append(new)
        log_probs = logits.log_softmax(-1).unflatten(0, tokens.shape).detach().numpy()
        hidden, cell = (tensor[0].unflatten(0, tokens.shape).detach().numpy() for tensor in (new.hidden, new.cell))
        return log_probs.copy(), {"hidden": hidden, "cell": cell}

    def decoder_state(state: dict[str, np.ndarray]) -> object:
        hidden, cell = (torch.from_numpy(state[name]).flatten(0, 1)[None] for name in ("hidden", "cell"))
        return type(start)(hidden.contiguous(), cell.contiguous())

    start = decoder.start(features)
    state = {"hidden": start.hidden[0][:, None].detach().numpy(), "cell": start.cell[0][:, None].detach().numpy()}
    config = read(*options).generate
    found = beam_search(step, state, frozenset(), Special(START_ID, END_ID, NEVER), config)
    return [[(hypothesis.tokens, hypothesis.log_prob) for hypothesis in beams] for beams in found]


@pytest.mark.parametrize("beam_size", [1, 2, 5])
@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.5])
@pytest.mark.parametrize("ngram", [0, 1, 2])
def test_the_search_finds_what_torch_finds(beam_size: int, penalty: float, ngram: int) -> None:
    torch.manual_seed(beam_size)
    decoder = small_decoder("lstm", 12, 6)
    with torch.no_grad():
        decoder.output.weight.mul_(4)
    features = torch.randn(7, 4, 6)
    wanted = generate(decoder, features, beam_size, 6, penalty, ngram)
    sizes = {"beam_size": beam_size, "max_length": 6, "length_penalty": penalty, "no_repeat_ngram": ngram}
    found = numpy_search(decoder, features, *(f"--generate.{name}={value}" for name, value in sizes.items()))
    for its_wanted, its_found in zip(wanted, found, strict=True):
        assert [tokens for tokens, _ in its_found] == [hypothesis.tokens for hypothesis in its_wanted]
        assert [log_prob for _, log_prob in its_found] == pytest.approx([h.log_prob for h in its_wanted], abs=1e-4)


@pytest.mark.parametrize("texts", [CAPTIONS, ["it cannot be gonna $ 5 # 1 o'clock 50 %", "isn't it a dog's"]])
def test_tokens_are_joined_as_by_the_tokenizer(texts: list[str]) -> None:
    vocabulary = Vocabulary.build(texts, 1)
    tables = blanks(vocabulary)
    own = Blanks(
        frozenset(tables["not_before"]), frozenset(tables["not_after"]), frozenset(map(tuple, tables["not_between"]))
    )
    for text in texts:
        tokens = vocabulary.tokenizer.tokenize(text)
        assert own.join(tokens) == vocabulary.tokenizer.join(tokens)
    assert own.join([]) == ""


def test_pixels_are_those_of_the_transform(exported: Path) -> None:
    captioner = OnnxCaptioner(exported)
    for image in noise(2):
        assert np.array_equal(captioner.pixels(image), Transform(64)(image).numpy())


def test_the_graphs_freeze_no_size(exported: Path) -> None:
    """Names in place of numbers are axes whose sizes differ from call to call."""
    import onnxruntime as ort

    inputs = ort.InferenceSession(exported / "step.onnx").get_inputs()
    shapes = {value.name: value.shape for value in inputs}
    assert shapes["tokens"] == ["images", "beams"] and shapes["lstm.0"][:2] == ["images", "beams"]
    assert [size for size in shapes["memory.keys"] if isinstance(size, str)] == ["images", "positions"]
    assert not [name for name in shapes if re.search(r"[^\w.]", name)]
