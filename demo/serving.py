"""What app.py does for a visitor, without the page: which checkpoints there are, captioning one upload, the files to download."""

import csv
import io
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from demo.uploads import read_picture
from gallery.page import Entry, printable
from gallery.pictures import PICTURE_SIDE, shrink, with_caption
from models.captioner import Captioner

DRAWN = 5  # sentences drawn at random for a picture; the likeliest is its caption
SAMPLE_IMAGES = "data/sample/images"


@dataclass(frozen=True)
class Method:
    """How a sentence is searched for: by a beam (of 1: greedily), or if there is a temperature drawn at random."""

    beam_size: int = 1
    temperature: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """A captioned picture, and what the page shows of it."""

    entry: Entry
    picture: Image.Image  # at most PICTURE_SIDE on its longer side
    seconds: float  # to decode and caption it; not the wait for the visitors before


def find_checkpoints(folder: Path, pretrained: Path) -> list[Path]:
    """The checkpoints that ``train.py`` left in ``folder`` and its runs/, then the pretrained one: those that exist."""
    candidates = [folder / "checkpoints.pth", *sorted(folder.glob("runs/*/checkpoints.pth")), pretrained]
    return [path for path in candidates if path.is_file()]


def knows_drawings_only(captioner: Captioner) -> bool:
    """Whether it has learned from the bundled drawings, and so knows nothing of photographs."""
    return captioner.config.data.image_dir == SAMPLE_IMAGES


def caption_upload(captioner: Captioner, turn: threading.Lock, data: bytes, name: str, method: Method) -> Result:
    """Caption one picture; visitors take turns, so that one decoded photograph at a time is in memory, however many are uploaded.

    Raises:
        UploadError: the bytes are no picture that can be used.
    """
    with turn:
        start = time.perf_counter()
        picture = read_picture(data)
        if method.temperature is None:
            found = captioner.caption([picture], method.beam_size, attention=True)[0]
        else:
            found = captioner.sample([picture], DRAWN, method.temperature, method.seed, attention=True)[0]
        picture = shrink(picture, PICTURE_SIDE)
        seconds = time.perf_counter() - start
    different = {candidate.caption: candidate.log_prob for candidate in found}  # the same sentence may be drawn twice
    return Result(Entry(printable(name), list(different.items()), attention=found[0].attention), picture, seconds)


def alt_text(caption: str) -> str:
    """The caption as a sentence, for the alt attribute of a picture in a page."""
    sentence = caption.strip()
    return sentence[:1].upper() + sentence[1:].rstrip(".") + "." if sentence else ""


def as_csv(results: Sequence[Result]) -> bytes:
    """image, caption, log_prob: a row a picture, with the mark by which Excel knows UTF-8."""
    file = io.StringIO()
    writer = csv.writer(
        file, quoting=csv.QUOTE_ALL
    )  # or where lists are parted by semicolons, one in a name would begin a new cell
    writer.writerow(["image", "caption", "log_prob"])
    for result in results:
        entry = result.entry
        writer.writerow([_no_formula(entry.image), _no_formula(entry.caption), f"{entry.log_prob:.4f}"])
    return file.getvalue().encode("utf-8-sig")


def _no_formula(text: str) -> str:
    """A spreadsheet computes a cell that begins like this, and a file's name can be chosen to harm whoever opens the table."""
    return (
        f"'{text}" if text.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")) else text
    )  # the last four are full-width ones


def as_json(results: Sequence[Result]) -> bytes:
    """The same as inference_visualize.py's captions.json."""
    return json.dumps([result.entry.record() for result in results], ensure_ascii=False, indent=2).encode()


def as_jpeg(result: Result) -> bytes:
    """The picture with its caption under it."""
    file = io.BytesIO()
    with_caption(result.picture, result.entry.caption).save(file, "JPEG", quality=88)
    return file.getvalue()
