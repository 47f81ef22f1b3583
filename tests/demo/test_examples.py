"""demo/examples: photographs that may be published, each with its source, licence and what the captioner says."""

import re

from PIL import Image

from models.captioner import Captioner
from models.checkpoint import load_checkpoint
from models.pretrained import PRETRAINED
from tests.support.helpers import ROOT

FOLDER = ROOT / "demo/examples"
PHOTOS = sorted(FOLDER.glob("*.jpg"))
ROW = re.compile(r"^\| `([\w.]+)` \| (.*?) \| (.*?) \|(?: (.*?) \|)?$", re.MULTILINE)
ROWS = ROW.findall((FOLDER / "README.md").read_text("utf-8"))
MAX_BYTES = 60_000  # of a photo: it is loaded in the browser, and is part of every clone


def test_each_photo_has_a_source_and_a_free_licence() -> None:
    sources = {name: (licence, source) for name, _, licence, source in ROWS if source}
    assert sources.keys() == {path.name for path in PHOTOS}
    for licence, source in sources.values():
        assert licence in {"public domain", "CC0 1.0"} and ("commons.wikimedia.org" in source or "skimage" in source)


def test_photos_are_small_and_carry_no_metadata() -> None:
    for path in PHOTOS:
        with Image.open(path) as image:
            assert path.stat().st_size <= MAX_BYTES and max(image.size) <= 640 and not image.getexif()


def test_the_captions_in_the_readme_are_what_the_pretrained_captioner_says() -> None:
    captions = {name: caption for name, caption, _, source in ROWS if not source}
    captioner = Captioner.from_checkpoint(load_checkpoint(PRETRAINED), PRETRAINED, "fp32").eval()
    said = captioner.describe([str(FOLDER / name) for name in captions])
    assert dict(zip(captions, said, strict=True)) == captions
