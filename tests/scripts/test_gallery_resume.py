"""inference_visualize.py: a run that is stopped in any way can be continued, and a folder holds one gallery."""

import errno
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import gallery.writing as gallery_writing
from cli import UserError
from files import lock_folder
from gallery.jpegs import save_images
from gallery.writing import Report
from inference_visualize import read_options, report_on
from models.captioner import Captioner
from tests.support.gallery import gallery, make_many, read_gallery
from tests.support.process_runs import At, run_process


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """Raise ``error`` where the JPGs of image ``number`` would be written."""
    calls = iter(range(10_000))

    def stop(*arguments: Any) -> None:
        if next(calls) == number:
            raise error
        save_images(*arguments)

    monkeypatch.setattr(gallery_writing, "save_images", stop)


def captioned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each call of the captioner from now on."""
    counts: list[int] = []
    caption = Captioner.caption

    def count(self: Captioner, images: list[Image.Image], *options: Any, **more: Any) -> Any:
        counts.append(len(images))
        return caption(self, images, *options, **more)

    monkeypatch.setattr(Captioner, "caption", count)
    return counts


def test_ctrl_c_leaves_a_gallery_of_what_there_is_and_the_same_command_continues(
    tmp_path: Path, attention_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names, out = make_many(tmp_path / "many", 40), tmp_path / "out"
    options = ("--checkpoint", attention_checkpoint, "--images", tmp_path / "many", "--format", "json,csv")
    whole, _ = gallery(tmp_path / "uninterrupted", *options)
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        stop_at(patch, 20, KeyboardInterrupt())
        gallery(out, *options)
    assert stopped.value.code == 130
    error = capsys.readouterr().err
    assert "interrupted: 20 of 40 images are captioned: see" in error and "To continue, run the same command" in error
    records, page = read_gallery(out)
    assert [record["image"] for record in records] == names[:20] and "not captioned yet20" in page.text
    assert len((out / "captions.csv").read_text("utf-8").splitlines()) == 21

    counts = captioned(monkeypatch)
    records, page = gallery(out, *options)
    assert records == whole and len(page.all("img")) == len(page.attention()) == 40
    assert 0 < sum(counts) < 20  # of the image that was being written, the caption was recorded already
    assert "(21 of them in an earlier run)" in capsys.readouterr().err
    assert "not captioned yet" not in page.text
    assert gallery(out, *options)[0] == whole and sum(counts) < 20
    for file in ("000.jpg", "pictures/020.jpg", "pictures/039.jpg"):
        assert (out / file).read_bytes() == (tmp_path / "uninterrupted" / file).read_bytes()


def test_the_command_that_continues_is_printed_unless_a_shell_made_it_long(capsys: pytest.CaptureFixture[str]) -> None:
    for photos, shown in (["my dog.jpg"], True), ([f"{number}.jpg" for number in range(10_000)], False):
        argv = ["--images", *photos]
        report_on(Report(interrupted=True), len(photos), read_options(argv), Path("outputs/page.html"), argv)
        error = capsys.readouterr().err
        assert "run the same command again" in error and len(error) < 200
        assert ("\npython inference_visualize.py --images 'my dog.jpg'\n" in error) == shown


def test_a_full_disk_keeps_every_caption(
    tmp_path: Path, attention_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_many(tmp_path / "many", 10)
    options = ("--checkpoint", attention_checkpoint, "--images", tmp_path / "many")
    with monkeypatch.context() as patch:
        stop_at(patch, 5, OSError(errno.ENOSPC, "No space left on device", "a.jpg"))
        with pytest.raises(
            UserError, match=r"^a\.jpg: No space left .*stopped after 5 of 10 .*run the same command to continue"
        ):
            gallery(tmp_path / "out", *options)
    counts = captioned(monkeypatch)
    assert len(gallery(tmp_path / "out", *options)[0]) == 10 and sum(counts) == 4


def test_a_killed_run_is_continued(
    tmp_path: Path, attention_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, forkserver: Any
) -> None:
    names, out = make_many(tmp_path / "many", 100), tmp_path / "out"
    options = ["--checkpoint", str(attention_checkpoint), "--images", str(tmp_path / "many"), "--device", "cpu"]
    command = ["inference_visualize.py", *options, "--output_dir", str(out)]
    killed_at = At("gallery.jpegs.save_images", 12)
    process = forkserver.Process(target=run_process, args=(command, str(tmp_path / "output.txt"), killed_at))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "output.txt").read_text()
    assert (out / "pictures" / "010.jpg").exists() and not (out / "captions.json").exists()
    counts = captioned(monkeypatch)
    records, page = gallery(out, *options)
    assert [record["image"] for record in records] == names and len(page.all("img")) == 100
    assert 0 < sum(counts) < 90 and not list(out.rglob(".*"))
    keys = [json.loads(line)["key"] for line in (out / "captions.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 101


def test_a_changed_image_or_beam_size_is_captioned_anew(
    tmp_path: Path, attention_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_many(tmp_path / "many", 5)
    options = ("--checkpoint", attention_checkpoint, "--images", tmp_path / "many")
    gallery(tmp_path / "out", *options)
    counts = captioned(monkeypatch)
    Image.new("RGB", (90, 90), "white").save(tmp_path / "many" / "002.jpg")
    gallery(tmp_path / "out", *options)
    assert counts == [1]
    with Image.open(tmp_path / "out" / "pictures" / "002.jpg") as image:
        assert image.size == (90, 90)
    gallery(tmp_path / "out", *options, "--beam_size", 3)
    assert counts == [1, 5]
    gallery(tmp_path / "out", *options, "--beam_size", 3, "--attention_strips")  # from the recorded attention
    assert counts == [1, 5] and len(list((tmp_path / "out" / "attention").iterdir())) == 5


def test_captions_are_kept_when_a_photo_is_missing_for_a_run_or_another_gallery_is_written(
    tmp_path: Path, attention_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_many(tmp_path / "many", 3)
    photo, model = tmp_path / "many" / "001.jpg", ("--checkpoint", attention_checkpoint, "--images")
    whole, _ = gallery(tmp_path / "out", *model, tmp_path / "many")
    photo.rename(tmp_path / "away")
    assert len(gallery(tmp_path / "out", *model, tmp_path / "many")[0]) == 2
    (tmp_path / "away").rename(photo)
    gallery(tmp_path / "out", *model, photo)
    counts = captioned(monkeypatch)
    assert gallery(tmp_path / "out", *model, tmp_path / "many")[0] == whole and not counts


def test_files_of_the_earlier_gallery_are_removed_and_no_others(
    tmp_path: Path, attention_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_many(tmp_path / "many", 5)
    out = tmp_path / "out"
    options = ("--checkpoint", attention_checkpoint, "--images", tmp_path / "many", "--attention_strips")
    gallery(out, *options, "--format", "csv,json")
    (out / "mine.jpg").write_bytes(b"mine")
    gallery(out, "--checkpoint", attention_checkpoint, "--images", tmp_path / "many" / "003.jpg")
    assert (
        f"files of the earlier gallery removed from {out}: 13" in capsys.readouterr().err
    )  # 4 + 4 + 5; the table stays
    left = {
        "003.jpg",
        "captions.csv",
        "captions.json",
        "captions.jsonl",
        "captions_result.html",
        "mine.jpg",
        "pictures",
    }
    assert {path.name for path in out.iterdir()} == left and len(list((out / "pictures").iterdir())) == 1


def test_what_the_user_has_edited_is_kept_and_named(
    tmp_path: Path, attention_checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names, out = make_many(tmp_path / "many", 3), tmp_path / "out"
    options = ("--checkpoint", attention_checkpoint, "--images", tmp_path / "many", "--format")
    gallery(out, *options, "json,csv,txt")
    for edited in ("captions.csv", "001.txt"):
        (out / edited).write_text("edited")
    for more in ([], ["--beam_size", "3"]):  # the same captions, and others
        gallery(out, *options, "json,csv,txt", *more)
        error = capsys.readouterr().err
        assert "kept because they hold something that no run has written: 2, such as" in error
        assert (out / "captions.csv").read_text() == (out / "001.txt").read_text() == "edited"
    records, _ = read_gallery(out)
    assert (out / "002.txt").read_text("utf-8") == f"{records[2]['caption']}\n"
    (out / "captions.csv").rename(tmp_path / "mine.csv")
    counts = captioned(monkeypatch)
    monkeypatch.setattr(gallery_writing, "load_image", None)  # for sidecars alone no image is decoded
    gallery(out, *options, "csv,xmp,txt", "--beam_size", "3")
    assert len((out / "captions.csv").read_text("utf-8").splitlines()) == 1 + len(names) and not counts
    assert len(list(out.glob("*.xmp"))) == 3 and "no run has written: 1, such as" in capsys.readouterr().err


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path, attention_checkpoint: Path) -> None:
    make_many(tmp_path / "many", 1)
    with lock_folder(tmp_path / "out", gallery_writing.LOCK), pytest.raises(UserError, match="another run is writing"):
        gallery(tmp_path / "out", "--checkpoint", attention_checkpoint, "--images", tmp_path / "many")
