"""What app.py does without its page: find checkpoints, caption one upload, and make the files to download."""

import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cli import printable
from demo.uploads import read_upload
from gallery.formats import captions_csv, captions_json
from gallery.jpegs import CAPTIONED_SIDE, thumbnail, with_caption
from gallery.page import Entry
from models.captioner import Candidate, Captioner

SAMPLES = 5  # captions sampled per image; the most probable is its caption


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
    image: Image.Image  # at most CAPTIONED_SIDE pixels on its longer side
    seconds: float  # to decode and caption it, without waiting for other visitors


def find_checkpoints(folder: Path, pretrained: Path) -> list[Path]:
    """The checkpoints of ``train.py`` in ``folder`` and its runs/, then the pretrained one; only those that exist."""
    candidates = [folder / "checkpoints.pth", *sorted(folder.glob("runs/*/checkpoints.pth")), pretrained]
    return [path for path in candidates if path.is_file()]


def caption_upload(captioner: Captioner, turn: threading.Lock, data: bytes, name: str, method: Method) -> Result:
    """Caption one image. ``turn`` is shared by all visitors, so that only one decoded upload at a time is in memory.

    Raises:
        UploadError: the bytes are not a usable image.
    """
    with turn:
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
    entry = Entry.from_candidates(printable(name), list(unique.values()), tokenizer=captioner.vocabulary.tokenizer)
    return Result(entry, image, seconds)


def capitalised(caption: str) -> str:
    """The caption as a heading: with a capital, as in the gallery."""
    return caption[:1].upper() + caption[1:]


def alt_text(caption: str) -> str:
    """The caption as a sentence, for the alt attribute of an image in a page."""
    sentence = capitalised(caption.strip())
    return sentence.rstrip(".") + "." if sentence else ""


def as_csv(results: Sequence[Result]) -> bytes:
    """The same format as captions.csv of inference_visualize.py."""
    return captions_csv(result.entry for result in results).encode()


def as_json(results: Sequence[Result]) -> bytes:
    """The same format as captions.json of inference_visualize.py."""
    return captions_json([result.entry for result in results]).encode()


def as_jpeg(result: Result) -> bytes:
    """The image with its caption below it."""
    file = io.BytesIO()
    with_caption(result.image, result.entry.caption).save(file, "JPEG", quality=88)
    return file.getvalue()
