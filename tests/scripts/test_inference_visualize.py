"""inference_visualize.py: captions own photos or a split, and refuses what it cannot do."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from cli import UserError
from inference_visualize import main
from tests.support.gallery import gallery, make_many, make_photos, read_gallery
from tests.support.helpers import run_script, write_csv


def test_own_photos_are_captioned_and_unreadable_ones_reported(tmp_path: Path, tiny_checkpoint: Path) -> None:
    make_photos(tmp_path / "photos")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    words = ("--checkpoint", tiny_checkpoint, "--images", tmp_path / "photos", "--output_dir", out, "--beam_size", "2")
    result = run_script("inference_visualize.py", "--device", "cpu", *words)
    assert result.returncode == 0, result.stderr
    assert f"captioned 4 of 7 images: open {out / 'captions_result.html'}" in result.stderr
    records, page = read_gallery(out)
    assert result.stdout.splitlines() == [f"{record['image']}: {record['caption']}" for record in records]
    for name in ("broken1.jpg", "broken2.png", "broken3.gif"):
        assert f"skipped: photos/{name}: " in result.stderr and name in page.text
    assert str(tmp_path) not in page.text + json.dumps(records) + (out / "captions.jsonl").read_text()
    names = ["again/dog.png", "dog.jpg", "print.jpg", "rotated.jpg"]
    assert [record["image"] for record in records] == [f"photos/{name}" for name in names]
    for record in records:
        candidates = record["candidates"]
        assert isinstance(candidates, list) and 1 <= len(candidates) <= 2
        assert record["caption"] == candidates[0]["caption"]
    names = ["dog-2.jpg", "dog.jpg", "print.jpg", "rotated.jpg"]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*names, "captions.json", "captions.jsonl", "captions_result.html", "mine.txt", "pictures"]
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
    assert "captioned 2 of 2 images" in capsys.readouterr().err
    assert [record["references"] for record in records] == [
        ["<b>reference</b>, 1", "another"],
        ["<b>reference</b>, 2", "another"],
    ]
    assert "<b>reference</b>, 1" in page.text


def test_a_split_shows_no_image_from_outside_its_folder(tmp_path: Path, tiny_checkpoint: Path) -> None:
    photo = tmp_path / "photos" / "1.png"
    photo.parent.mkdir()
    Image.new("RGB", (64, 64)).save(photo)
    (tmp_path / "other").mkdir()
    words = ("--checkpoint", tiny_checkpoint, "--captions_file", tmp_path / "captions.csv")
    for name in (str(photo), "../photos/1.png"):
        write_csv(tmp_path / "captions.csv", [(name, "A photo", "test")])
        with pytest.raises(UserError, match=r"1\.png is not in --image_dir .*other, .*Name a folder that contains all"):
            gallery(tmp_path / "out", *words, "--image_dir", tmp_path / "other")
    write_csv(tmp_path / "captions.csv", [(str(photo), "A photo", "test")])
    records, _ = gallery(tmp_path / "out", *words, "--image_dir", tmp_path / "other" / ".." / "photos")
    assert len(records) == 1


def test_an_unreadable_photo_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "words.png").write_text("not an image")
    with pytest.raises(UserError, match=r"^words\.png: not an image\. Name another image with --images"):
        gallery(tmp_path / "out", "--checkpoint", tiny_checkpoint, "--images", tmp_path / "words.png")
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
        (["--images", "https://example.com/dog.jpg"], ["https://example.com/dog.jpg: a web address"]),
        (["--images", "nowhere"], ["nowhere: no such file"]),
        (["--format", "json,pdf"], ["--format", "some of json, csv, txt, xmp"]),
        (["--format", "json", "pdf"], ["--format", "separated by blanks or commas, not 'pdf'"]),
        (["--output_dir", "file.jpg"], ["--output_dir file.jpg: is a file. Name a folder"]),
        (["--in_place", "--format", "txt"], ["--in_place", "with --images"]),
        (["--images", "file.jpg", "--in_place"], ["--in_place", "--format txt"]),
        (["--print", "some"], ["--print", "a number, all or none"]),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.jpg").touch()
    with pytest.raises(UserError) as refused:
        main(["--checkpoint", "absent.pth", *options])
    assert all(part in str(refused.value) for part in parts), refused.value


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


def test_captions_are_printed_to_stdout_as_many_as_wanted(
    tmp_path: Path, attention_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = make_many(tmp_path / "a\nb", 23)
    options = ("--checkpoint", attention_checkpoint, "--images", tmp_path / "a\nb")
    for wanted, printed in ([], 20), (["--print", "all"], 23), (["--print", "none"], 0), (["--print", "3"], 3):
        gallery(tmp_path / "out", *options, *wanted)
        output = capsys.readouterr()
        lines = output.out.splitlines()
        assert [line.split(": ")[0] for line in lines] == [name.replace("\n", r"\n") for name in names[:printed]]
        assert ("--print all" in output.err) == (0 < printed < 23)
        assert "captioned 23 of 23 images" in output.err


def test_all_formats_are_written_and_sidecars_beside_the_photos_on_request(
    tmp_path: Path, attention_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_photos(tmp_path / "photos")
    photos = {path: path.read_bytes() for path in (tmp_path / "photos").rglob("*") if path.is_file()}
    out, dog = tmp_path / "out", tmp_path / "photos" / "dog.jpg"
    options = ("--checkpoint", attention_checkpoint, "--images", tmp_path / "photos", "--format", "json,csv", "txt")
    options += ("--format", "xmp")
    records, page = gallery(out, *options)
    table = (out / "captions.csv").read_text("utf-8-sig").splitlines()
    assert len(table) == 5 and table[1].startswith(f'"photos/again/dog.png","{records[0]["caption"]}",')
    assert (out / "dog-2.txt").read_text("utf-8") == f"{records[1]['caption']}\n"
    assert len(list(out.glob("*.jpg.xmp"))) == len(list(out.glob("*.txt"))) == 4
    assert {link["href"] for link in page.all("a")} >= {"captions.csv", "captions.json"}
    assert {path: path.read_bytes() for path in (tmp_path / "photos").rglob("*") if path.is_file()} == photos

    (dog.parent / "dog.jpg.xmp").write_text("mine")
    capsys.readouterr()
    gallery(out, *options, "--in_place")
    assert len(list(out.glob("*.txt"))) == 4 and (dog.parent / "again" / "dog.png.xmp").exists()
    assert dog.with_suffix(".txt").read_text("utf-8") == f"{records[1]['caption']}\n"
    assert (dog.parent / "dog.jpg.xmp").read_text() == "mine"
    assert "kept because they hold something that no run has written: 1, such as" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in photos} == photos


def test_sidecars_follow_a_new_model_and_one_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, attention_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_many(tmp_path / "many", 3)
    Image.new("RGB", (60, 40)).save(tmp_path / "many" / "000.png")
    (tmp_path / "many" / "001.txt").mkdir()
    options = ("--images", tmp_path / "many", "--format", "json,txt", "--in_place", "--checkpoint")
    content = torch.load(attention_checkpoint, weights_only=True)
    content["vocab"] = [word if word.startswith("<") else word.upper() for word in content["vocab"]]
    torch.save(content, tmp_path / "other.pth")
    texts = []
    for checkpoint in (attention_checkpoint, tmp_path / "other.pth"):
        records, _ = gallery(tmp_path / "out", *options, checkpoint)
        error = capsys.readouterr().err
        assert "captioned 4 of 4" in error and "cannot be written: 1, such as" in error and "kept because" not in error
        names = ("000.txt", "000.png.txt", "002.txt")
        texts.append([(tmp_path / "many" / name).read_text() for name in names])
        assert texts[-1] == [f"{records[number]['caption']}\n" for number in (0, 1, 3)]
    assert texts[0] != texts[1]
