"""Galleries of the script and of single entries, photos to caption, and a checkpoint that is made in no time."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from config import Config
from data.vocab import END_ID, Vocabulary
from gallery.jpegs import file_name, prepare, save_images
from gallery.page import Entry, render_page
from inference_visualize import main
from models.captioner import Captioner
from models.checkpoint import save_checkpoint
from tests.support.browser import Visit
from tests.support.helpers import tiny_decoder
from tests.support.html_page import HtmlPage
from tests.support.training import thin_resnet50


def save_entry(image: Image.Image, entry: Entry, folder: Path, taken: set[str], strip: bool = False) -> Entry:
    """Write the JPGs of an entry under a name that is not in ``taken``; return it as the page needs it."""
    prepared = prepare(entry, image, file_name(entry.name, taken), strip=strip)
    save_images(image, prepared, folder)
    return prepared


def make_photos(folder: Path) -> None:
    """Two folders with a name in common, images of several kinds, and three unreadable files."""
    (folder / "again").mkdir(parents=True)
    Image.new("RGB", (300, 200), "red").save(folder / "dog.jpg")
    Image.new("RGBA", (30, 60), (0, 0, 255, 90)).save(folder / "again" / "dog.png")
    Image.new("CMYK", (50, 50)).save(folder / "print.jpg")
    rotated = Image.Exif()
    rotated[274] = 6
    Image.new("RGB", (200, 100), "green").save(folder / "rotated.jpg", exif=rotated)
    (folder / "broken1.jpg").write_bytes((folder / "dog.jpg").read_bytes()[:300])
    (folder / "broken2.png").write_text("not an image")
    (folder / "broken3.gif").write_bytes(b"")


def make_many(folder: Path, count: int) -> list[str]:
    """``count`` photos in ``folder``; returns their names in a gallery."""
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (60 + number, 40), (number, 0, 0)).save(folder / f"{number:03}.jpg")
    return [f"{folder.name}/{number:03}.jpg" for number in range(count)]


def gallery(output_dir: Path, *options: str | Path) -> tuple[list[dict[str, object]], HtmlPage]:
    """Run the script in this process; return captions.json and the page."""
    main(["--device", "cpu", "--output_dir", str(output_dir), *map(str, options)])
    return read_gallery(output_dir)


def read_gallery(output_dir: Path) -> tuple[list[dict[str, object]], HtmlPage]:
    records = json.loads((output_dir / "captions.json").read_text(encoding="utf-8"))
    return records, HtmlPage((output_dir / "captions_result.html").read_text(encoding="utf-8"))


def write_page(folder: Path, entries: Sequence[Entry], skipped: Sequence[tuple[str, str]] = ()) -> str:
    """Write the page and its files; return its address."""
    html, files = render_page(entries, skipped, "checkpoints.pth", 5)
    page = folder / "captions_result.html"
    page.write_text(html, encoding="utf-8")
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(content, encoding="ascii")
    return page.as_uri()


def attention(cells: Sequence[int], grid: tuple[int, int] = (3, 3)) -> torch.Tensor:
    """For each word, nearly all attention on one cell, counted row by row: (words, h, w)."""
    area = grid[0] * grid[1]
    weights = torch.nn.functional.one_hot(torch.tensor(cells).long(), area) * 0.8 + 0.2 / area
    return weights.reshape(len(cells), *grid)


def names(visitor: Visit) -> list[str]:
    """The file names of the images shown, in order."""
    return visitor.page.locator(".card:visible .name bdi").all_text_contents()


def assert_no_errors(visitor: Visit, address: str) -> None:
    """No error on the console, and no request outside the gallery's folder."""
    assert visitor.errors == []
    assert visitor.requests and all(request.startswith(address.rsplit("/", 1)[0] + "/") for request in visitor.requests)


@pytest.fixture(scope="session")
def thin_attention(tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of ``attention_checkpoint``."""
    config = tiny_config(tiny_decoder("attention"), "--data.image_size=96")
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr("models.model.ResNet50", thin_resnet50)
        captioner = Captioner(config, Vocabulary.build(["a red circle", "one blue square"], min_count=1))
        captioner.decoder.output.bias[END_ID] = -5
    path = tmp_path_factory.mktemp("attention") / "checkpoints.pth"
    save_checkpoint(path, captioner.checkpoint())
    return path


@pytest.fixture
def attention_checkpoint(thin_resnet: None, thin_attention: Path) -> Path:
    """An untrained attention decoder with a thin ResNet, whose captions are never empty."""
    return thin_attention
