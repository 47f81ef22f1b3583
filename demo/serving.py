"""What app.py does without its page: find checkpoints, caption one upload, and make the files to download."""

import gc
import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from cli import ROOT, printable
from data.captions import read_captions, references_of
from demo import DRAWINGS_DIR, EXAMPLES, EXAMPLES_DIR
from demo.uploads import read_upload
from gallery.formats import captions_csv, captions_json
from gallery.jpegs import CAPTIONED_SIDE, PAGE_SIDE, thumbnail, with_caption
from gallery.page import Entry
from models.captioner import Candidate, Captioner
from utils import use_device

SAMPLES = 5  # captions sampled per image; the most probable is its caption
MAX_MODELS = 4  # kept loaded; four take less than 1 GB
MAX_EXAMPLES = 64  # results that are kept: ten images by several models and methods; each takes up to 3 MB

# Shared by all visitors. Not in Streamlit's caches, which any visitor can clear with one message to the server.
_loading = threading.Lock()
_turn = threading.Lock()


@dataclass(frozen=True)
class Method:
    """How captions are decoded: by beam search (greedily with a beam of 1), or sampled if there is a temperature."""

    beam_size: int = 1
    temperature: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """A captioned image, and what the page shows of it."""

    entry: Entry
    candidates: tuple[Candidate, ...]  # of the entry: the first has the choices of its words
    image: Image.Image  # at most CAPTIONED_SIDE pixels on its longer side
    preview: bytes  # a JPEG of at most PAGE_SIDE pixels
    preview_size: tuple[int, int]
    seconds: float  # to decode and caption it, without waiting for other visitors


def find_checkpoints(folder: Path, pretrained: Path) -> list[Path]:
    """The checkpoints of ``train.py`` in ``folder`` and its runs/, then the pretrained one; only those that exist."""
    candidates = [folder / "checkpoints.pth", *sorted(folder.glob("runs/*/checkpoints.pth")), pretrained]
    return [path for path in candidates if path.is_file()]


def load(path: Path, modified: int) -> Captioner:
    """The captioner, shared by all visitors; a new ``modified`` time loads the file again.

    Raises:
        UserError, OSError: the file cannot be read.
    """
    with _loading:  # visitors who ask for the same model at the same time wait for one of them to load it
        captioner = _load(path, modified)
        if not gc.get_freeze_count():
            # Streamlit collects garbage after each run of the page. For the 500,000 objects of torch and pandas this
            # takes 0.2 s, in which the server answers nobody; frozen objects are left out.
            gc.collect()
            gc.freeze()
    return captioner


@lru_cache(MAX_MODELS)
def _load(path: Path, modified: int) -> Captioner:
    return Captioner.load(path, use_device())


@lru_cache(MAX_MODELS)
def example_images(drawings: bool, seed: int) -> tuple[Path, ...]:
    """Images to try a model with: photographs; for a model that knows only drawings, six of its test split."""
    if not drawings:
        return tuple(ROOT / EXAMPLES_DIR / name for name in EXAMPLES)
    names = list(references_of(read_captions(ROOT / "captions.csv", seed), "test"))
    return tuple(ROOT / DRAWINGS_DIR / name for name in names[:: len(names) // 6][:6])


def caption_upload(captioner: Captioner, data: bytes, name: str, method: Method) -> Result:
    """Caption one image; other visitors wait meanwhile, so that only one decoded upload at a time is in memory.

    Raises:
        UploadError: the bytes are not a usable image.
    """
    with _turn:
        start = time.perf_counter()
        image = read_upload(data)
        if method.temperature is None:
            found = captioner.caption([image], method.beam_size, attention=True)[0]
        else:
            found = captioner.sample([image], SAMPLES, method.temperature, method.seed, attention=True)[0]
        image = thumbnail(image, CAPTIONED_SIDE)
        seconds = time.perf_counter() - start
    unique: dict[str, Candidate] = {}  # the same caption may be sampled twice
    for candidate in found:
        unique.setdefault(candidate.caption, candidate)
    candidates = tuple(unique.values())
    entry = Entry.from_candidates(printable(name), candidates, tokenizer=captioner.vocabulary.tokenizer)
    preview = thumbnail(image, PAGE_SIDE)
    return Result(entry, candidates, image, encode_jpeg(preview), preview.size, seconds)


@lru_cache(MAX_EXAMPLES)
def caption_example(checkpoint: Path, modified: int, image: Path, method: Method) -> Result:
    """An image that the page offers, captioned once for all visitors by the checkpoint that ``load`` loads."""
    return caption_upload(load(checkpoint, modified), image.read_bytes(), image.name, method)


def as_csv(results: Sequence[Result]) -> bytes:
    """The same format as captions.csv of inference_visualize.py."""
    return captions_csv(result.entry for result in results).encode()


def as_json(results: Sequence[Result]) -> bytes:
    """The same format as captions.json of inference_visualize.py."""
    return captions_json([result.entry for result in results]).encode()


def as_jpeg(result: Result) -> bytes:
    """The image with its caption below it."""
    return encode_jpeg(with_caption(result.image, result.entry.caption))


def encode_jpeg(image: Image.Image) -> bytes:
    """The image as a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    return file.getvalue()
