"""inference_visualize.py: captions own photos or a split, and refuses what it cannot do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from cli import UserError
from config import Config
from data.vocab import END_ID, Vocabulary
from inference_visualize import main, own_photos
from models.captioner import Captioner
from tests.support.helpers import assert_refused, run_script, tiny_decoder, write_csv
from tests.support.html_page import HtmlPage
from utils import save_checkpoint


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


def gallery(output_dir: Path, *options: str | Path) -> tuple[list[dict[str, object]], HtmlPage]:
    """Run the script in this process; return captions.json and the page."""
    main(["--device", "cpu", "--output_dir", str(output_dir), *map(str, options)])
    return read_gallery(output_dir)


def read_gallery(output_dir: Path) -> tuple[list[dict[str, object]], HtmlPage]:
    records = json.loads((output_dir / "captions.json").read_text(encoding="utf-8"))
    return records, HtmlPage((output_dir / "captions_result.html").read_text(encoding="utf-8"))


def test_own_photos_are_captioned_and_unreadable_ones_reported(tmp_path: Path, tiny_checkpoint: Path) -> None:
    make_photos(tmp_path / "photos")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    words = ("--checkpoint", tiny_checkpoint, "--images", tmp_path / "photos", "--output_dir", out, "--beam_size", "2")
    result = run_script("inference_visualize.py", "--device", "cpu", *words)
    assert result.returncode == 0, result.stderr
    assert "captioned 4 of 7 images" in result.stdout
    records, page = read_gallery(out)
    for name in ("broken1.jpg", "broken2.png", "broken3.gif"):
        assert name in result.stderr and name in page.text
    assert [record["image"] for record in records] == ["again/dog.png", "dog.jpg", "print.jpg", "rotated.jpg"]
    for record in records:
        candidates = record["candidates"]
        assert isinstance(candidates, list) and 1 <= len(candidates) <= 2
        assert record["caption"] == candidates[0]["caption"]
    names = ["dog-2.jpg", "dog.jpg", "print.jpg", "rotated.jpg"]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*names, "captions.json", "captions_result.html", "mine.txt", "pictures"]
    )
    with Image.open(out / "pictures" / "rotated.jpg") as image:
        assert image.size == (100, 200)
    shown = [image["src"] for image in page.all("img")]
    assert shown == ["pictures/dog.jpg", "pictures/dog-2.jpg", "pictures/print.jpg", "pictures/rotated.jpg"]


def test_a_split_is_captioned_with_references(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[tuple[str, ...]] = []
    for number, split in enumerate(["train", "test", "test", "test"]):
        Image.new("RGB", (64, 64), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
        rows += [(f"{number}.png", f"<b>reference</b>, {number}", split), (f"{number}.png", "another", split)]
    own = ("--captions_file", write_csv(tmp_path / "captions.csv", rows), "--image_dir", tmp_path, "--limit", "2")
    records, page = gallery(tmp_path / "out", "--checkpoint", tiny_checkpoint, *own)
    assert "captioned 2 of 2 images" in capsys.readouterr().out
    assert [record["references"] for record in records] == [
        ["<b>reference</b>, 1", "another"],
        ["<b>reference</b>, 2", "another"],
    ]
    assert "<b>reference</b>, 1" in page.text


def test_photos_are_named_relative_to_their_common_folder(tmp_path: Path) -> None:
    for name in ("a/dog.png", "b/dog.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert [photo.name for photo in own_photos([tmp_path])] == ["a/dog.png", "b/dog.png"]
    assert [photo.name for photo in own_photos([tmp_path / "a" / "dog.png"])] == ["dog.png"]
    with pytest.raises(UserError, match="nowhere"):
        own_photos([tmp_path / "nowhere"])


def test_an_unreadable_photo_is_refused_without_a_traceback(tmp_path: Path, tiny_checkpoint: Path) -> None:
    bad = tmp_path / "words.png"
    bad.write_text("not an image")
    words = ("--checkpoint", tiny_checkpoint, "--images", bad, "--output_dir", tmp_path / "out")
    result = run_script("inference_visualize.py", "--device", "cpu", *words)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"error: {bad}: not a")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "broken1.jpg", "broken2.png"], "none of the 2 images"),
        (["--images", ".", "--output_dir", "."], "might be overwritten"),
        (["--images", "dog.jpg", "--checkpoint", "absent.pth"], "absent.pth"),
        (["--images", "dog.jpg", "--attention_strips"], "the lstm decoder of"),
    ],
)
def test_errors_leave_all_files_unchanged(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    make_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as caught:
        main(["--checkpoint", str(tiny_checkpoint), "--device", "cpu", *options])
    assert message in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--limit", "0"], ["--limit", "1 or more"]),
        (["--images", "dog.jpg", "--beam_size", "-1"], ["--beam_size", "1 or more"]),
        (["--images", "dog.jpg", "--image_dir", "."], ["--images is for your own photos"]),
        (["--images", "dog.jpg", "--split", "test"], ["--images is for your own photos"]),
        (["--image", "dog.jpg"], ["did you mean '--images'"]),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_loaded(
    tmp_path: Path, options: list[str], parts: list[str]
) -> None:
    result = run_script("inference_visualize.py", "--checkpoint", "absent.pth", *options, cwd=tmp_path)
    assert_refused(result, *parts)


def test_foreign_images_are_not_overwritten_but_an_earlier_gallery_is(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = ("--checkpoint", tiny_checkpoint, "--images", "dog.jpg")
    for mine in (Path("out/dog.jpg"), Path("out/pictures/dog.jpg")):
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_bytes(b"mine")
        with pytest.raises(UserError, match="not from an earlier gallery"):
            gallery(Path("out"), *options)
        assert mine.read_bytes() == b"mine"
        mine.unlink()
    gallery(Path("out"), *options)
    gallery(Path("out"), *options)
    Path("out/captions_result.html").unlink()  # as after a killed run
    gallery(Path("out"), *options)
    assert Path("out/captions_result.html").exists()


@pytest.fixture(scope="module")
def attention_checkpoint(tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained attention decoder whose captions are never empty."""
    config = tiny_config(tiny_decoder("attention"), "--data.image_size=96")
    captioner = Captioner(config, Vocabulary.build(["a red circle", "one blue square"], min_count=1))
    with torch.no_grad():
        captioner.decoder.output.bias[END_ID] = -5
    path = tmp_path_factory.mktemp("attention") / "checkpoints.pth"
    save_checkpoint(path, captioner.checkpoint())
    return path


@pytest.mark.parametrize("strips", [False, True])
def test_the_page_has_attention_maps_and_strips_are_written_on_request(
    tmp_path: Path, attention_checkpoint: Path, strips: bool
) -> None:
    make_photos(tmp_path / "photos")
    out, options = tmp_path / "out", ["--attention_strips"] if strips else []
    records, page = gallery(out, "--checkpoint", attention_checkpoint, "--images", tmp_path / "photos", *options)
    assert all(record.keys() == {"image", "caption", "log_prob", "candidates"} for record in records)
    attention = page.attention()
    assert {(rows, columns) for rows, columns, _ in attention} == {(3, 3)}
    assert [len(weights) for *_, weights in attention] == [
        9 * len(str(record["caption"]).split()) for record in records
    ]
    names = ["dog-2.jpg", "dog.jpg", "print.jpg", "rotated.jpg"] if strips else []
    assert sorted(path.name for path in out.glob("attention/*")) == names
    links = sorted(str(link["href"]) for link in page.all("a") if str(link["href"]).startswith("attention/"))
    assert links == [f"attention/{name}" for name in names]
