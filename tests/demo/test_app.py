"""demo/page.py without a browser: what the page offers, and how it responds."""

import html
import io
import json
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from data.images import load_image
from demo import uploads
from demo.serving import Method, as_csv, as_jpeg, as_json, caption_upload, find_checkpoints
from models.captioner import Captioner
from tests.support.demo_folder import HOSTILE_WORDS, save_photo
from tests.support.helpers import ROOT

ABSENT = Path("absent.pth")


@pytest.fixture
def folder(demo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(demo_folder)
    monkeypatch.setattr("models.pretrained.PRETRAINED", ABSENT)  # these tests choose their models
    return demo_folder


def page() -> AppTest:
    found = AppTest.from_file(str(ROOT / "demo" / "page.py"), default_timeout=60).run()
    assert not found.exception
    return found


def upload(app: AppTest, *files: tuple[str, bytes]) -> AppTest:
    app.file_uploader[0].set_value([(name, data, "image/jpeg") for name, data in files]).run()
    assert not app.exception
    return app


def choose(app: AppTest, model: str) -> AppTest:
    return app.selectbox[0].select(Path(model)).run()


def captions(app: AppTest) -> list[str]:
    """The generated captions: the content of each h2."""
    return [part.split("</h2>")[0].split(">", 1)[1] for element in app.html for part in element.body.split("<h2")[1:]]


def heading(caption: str) -> str:
    return caption[:1].upper() + caption[1:]


def test_a_photo_gets_its_caption_its_candidates_and_an_attention_map_for_each_word(
    folder: Path, tmp_path: Path
) -> None:
    path = save_photo(tmp_path / "dog.jpg")
    app = upload(page(), ("dog.jpg", path.read_bytes()))
    wanted = Captioner.load("checkpoints.pth", torch.device("cpu")).caption([load_image(path)])[0]
    assert captions(app) == [heading(wanted[0].caption)]
    assert f"{wanted[0].log_prob:.2f}" in app.main.caption[0].value and " s " in app.main.caption[0].value
    shown = "".join(element.body for element in app.html)
    assert len(wanted) == 3
    assert all(f"\u2068{other.caption}\u2069 ({other.log_prob:.2f})" in shown for other in wanted[1:])
    words = app.button_group[-1]
    assert words.options == wanted[0].caption.split() and words.value is None
    assert app.code[0].value == wanted[0].caption.capitalize() + "."


def test_the_decoding_method_changes_the_caption(folder: Path, tmp_path: Path) -> None:
    path = save_photo(tmp_path / "dog.jpg")
    app = upload(page(), ("dog.jpg", path.read_bytes()))
    captioner = Captioner.load("checkpoints.pth", torch.device("cpu"))
    app.radio[0].set_value("Greedy").run()
    assert captions(app) == [heading(captioner.describe(path, 1))] and not app.slider
    app.radio[0].set_value("Beam search").run()
    app.slider[0].set_value(6).run()
    assert captions(app) == [heading(captioner.describe(path, 6))]
    app.radio[0].set_value("Sampling").run()
    app.slider[0].set_value(1.5).run()
    first = [element.body for element in app.html]
    sampled = captioner.sample([load_image(path)], 5, 1.5, 0)[0]
    assert captions(app) == [heading(sampled[0].caption) or "(empty caption)"]
    app.number_input[0].set_value(3).run()
    assert [element.body for element in app.html] != first
    app.number_input[0].set_value(0).run()
    assert [element.body for element in app.html] == first  # the same seed gives the same captions
    assert not app.exception


def test_several_images_are_shown_in_order_with_errors_in_their_places(folder: Path, tmp_path: Path) -> None:
    good = [save_photo(tmp_path / f"{seed}.jpg", seed).read_bytes() for seed in range(2)]
    app = upload(page(), ("one.jpg", good[0]), ("bad.jpg", b"<b>garbage</b>"), ("two.jpg", good[1]))
    assert len(captions(app)) == 2 and [error.value for error in app.error] == [uploads.NOT_AN_IMAGE]
    names = [name for element in app.html for name in ("one.jpg", "bad.jpg", "two.jpg") if f">{name}<" in element.body]
    assert names == ["one.jpg", "bad.jpg", "two.jpg"]
    assert all("garbage" not in element.body for element in app.html)
    app = upload(app, *[(f"{number}.jpg", good[0]) for number in range(12)])
    assert len(captions(app)) == 10 and "Only the first 10" in app.warning[0].value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xd8\xff\xe0 lies", uploads.DAMAGED),
        (b"0" * (uploads.MAX_UPLOAD_BYTES + 1), uploads.TOO_MANY_BYTES),
        (b"", uploads.NOT_AN_IMAGE),
    ],
)
def test_a_refused_upload_gets_a_fixed_message(folder: Path, data: bytes, message: str) -> None:
    app = upload(page(), ("photo.jpg", data))
    assert [error.value for error in app.error] == [message] and not captions(app) and len(app.download_button) == 0


def test_an_image_with_a_comment_too_long_for_a_jpeg_is_captioned(folder: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, "GIF", comment=b"x" * 70_000)
    app = upload(page(), ("long.gif", file.getvalue()))
    app.button_group[-1].set_value(0).run()
    assert len(captions(app)) == 1 and len(app.download_button) == 3 and not app.exception


@pytest.mark.skipif(not uploads.READS_HEIC, reason="needs pillow-heif")
def test_a_photo_of_an_iphone_is_captioned_if_pillow_heif_is_installed(folder: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, "HEIF")
    app = upload(page(), ("IMG_1.HEIC", file.getvalue()))
    assert len(captions(app)) == 1 and not app.error


def test_a_camera_photo_is_captioned(folder: Path, tmp_path: Path) -> None:
    app = page()
    app.button_group[0].set_value("Camera").run()
    app.camera_input[0].upload("shot.jpg", save_photo(tmp_path / "shot.jpg").read_bytes()).run()
    assert len(captions(app)) == 1 and not app.exception


def test_drawings_are_offered_and_are_the_default_for_a_model_trained_on_them(folder: Path) -> None:
    app = page()
    assert app.button_group[0].value == "Upload" and not app.warning
    app.button_group[0].set_value("Drawings").run()
    assert len(captions(app)) == 1 and any("caption drawings poorly" in text.value for text in app.caption)
    choose(app, "runs/drawings/checkpoints.pth")
    assert app.button_group[0].value == "Drawings" and "trained on drawings only" in app.warning[0].value
    assert len(captions(app)) == 1 and not app.exception
    first = next(element.body for element in app.html if "sample_" in element.body)
    app.button_group[1].set_value(4).run()
    assert next(element.body for element in app.html if "sample_" in element.body) != first
    assert len(app.button_group) == 2  # its lstm decoder has no attention: there are no words to choose


def test_photos_are_captioned_by_the_pretrained_model_until_a_run_has_learnt_from_photographs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("models.pretrained.PRETRAINED", folder / "checkpoints.pth")
    own, drawings = tmp_path / "checkpoints.pth", folder / "runs/drawings/checkpoints.pth"
    for content in (drawings.read_bytes(), (folder / "runs/broken/checkpoints.pth").read_bytes()):
        own.write_bytes(content)
        app = page()
        assert app.selectbox[0].value == folder / "checkpoints.pth" and app.button_group[0].value == "Upload"
        assert not app.warning and not app.error
    own.write_bytes((folder / "checkpoints.pth").read_bytes())
    assert page().selectbox[0].value == Path("checkpoints.pth")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "x" * 10_000, "\u202egnp.live", "\n\t", ""])
def test_hostile_names_and_captions_are_escaped(folder: Path, tmp_path: Path, name: str) -> None:
    app = choose(page(), "runs/hostile/checkpoints.pth")
    upload(app, (f"{name}.jpg", save_photo(tmp_path / "dog.jpg").read_bytes()), (f"{name}.jpg", b""))
    shown = "".join(element.body for element in app.html)
    assert "<script" not in shown and "<img" not in shown
    assert all(html.escape(word) in shown and word in app.code[0].value for word in HOSTILE_WORDS)
    assert len(app.button_group[-1].options) == len(HOSTILE_WORDS) and len(app.error) == 1


def test_a_broken_checkpoint_gets_a_fixed_message(folder: Path) -> None:
    app = choose(page(), "runs/broken/checkpoints.pth")
    assert not app.exception and len(app.error) == 1
    assert "cannot be read" in app.error[0].value and "secret" not in app.error[0].value


def test_a_changed_checkpoint_is_loaded_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = page()
    assert "no model here yet" in app.info[0].value and app.code[0].value == "python train.py" and not app.file_uploader
    path = tmp_path / "checkpoints.pth"
    path.write_bytes((folder / "checkpoints.pth").read_bytes())
    data = save_photo(tmp_path / "dog.jpg").read_bytes()
    app = upload(app.run(), ("dog.jpg", data))
    before = captions(app)
    path.write_bytes((folder / "runs/drawings/checkpoints.pth").read_bytes())
    os.utime(path, ns=(1, 1))
    assert captions(app.run()) != before and "lstm" in app.sidebar.caption[0].value
    assert [str(found) for found in find_checkpoints(folder, path)][-1] == str(path)  # the pretrained model comes last


def test_the_page_states_the_limits_and_shows_the_model_card(folder: Path) -> None:
    app = page()
    assert any("cannot" in text.value and "read text" in text.value for text in app.markdown)
    (card,) = app.expander[0].markdown
    assert "## Scores" in card.value and "](docs/" not in card.value and "docs/flickr8k_best_log.txt" in card.value
    assert "![" not in card.value and card.value.startswith("## Model card")  # no image, no second h1


def test_downloads(folder: Path, tmp_path: Path) -> None:
    captioner = Captioner.load("checkpoints.pth", torch.device("cpu"))
    data = save_photo(tmp_path / "dog.jpg").read_bytes()
    result = caption_upload(captioner, data, '=HYPERLINK("x"),\u202e\U0001f469', Method(2))
    header, row = as_csv([result]).decode("utf-8-sig").splitlines()
    assert header == '"image","caption","log_prob"'
    assert row.startswith('"\'=HYPERLINK(""x""),\\u202e\U0001f469",')
    record: dict[str, Any] = json.loads(as_json([result]))[0]
    assert record["image"].startswith("=HYPERLINK") and record["candidates"]
    assert record["caption"] == result.entry.caption
    assert Image.open(io.BytesIO(as_jpeg(result))).height > result.image.height


def test_clearing_streamlits_caches_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any visitor can do it, with one message to the server."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoints.pth"
    path.write_bytes((folder / "checkpoints.pth").read_bytes())
    data = save_photo(tmp_path / "dog.jpg").read_bytes()
    before = captions(upload(page(), ("dog.jpg", data)))
    modified = path.stat().st_mtime_ns
    path.write_bytes(b"damaged")
    os.utime(path, ns=(modified, modified))
    st.cache_resource.clear()
    st.cache_data.clear()
    app = upload(page(), ("dog.jpg", data))
    assert captions(app) == before and not app.error  # the model was not loaded again
    os.utime(path, ns=(modified + 1, modified + 1))
    assert "cannot be read" in app.run().error[0].value


@pytest.mark.parametrize(
    ("modules", "advice"),
    [
        ({"streamlit": None}, r"streamlit is not installed in .*requirements-demo\.txt"),  # cannot be imported
        ({}, r"streamlit run .*app\.py \(after pip install -r requirements-demo\.txt -c constraints\.txt\)"),
    ],
)
def test_python_app_py_says_in_one_line_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], modules: dict[str, None], advice: str
) -> None:
    monkeypatch.setattr(sys, "prefix", str(ROOT / ".venv"))  # the environment is active
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert re.fullmatch(rf"error: .*{advice}.*\n", printed.err) and printed.out == ""
