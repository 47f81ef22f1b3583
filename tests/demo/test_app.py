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
from streamlit.testing.v1.element_tree import ButtonGroup

from data.images import load_image
from demo import EXAMPLES, EXAMPLES_DIR, uploads
from demo.serving import Method, as_csv, as_jpeg, as_json, caption_upload, find_checkpoints
from demo.texts import CHINESE, ENGLISH
from gallery import heatmap
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


def source(app: AppTest) -> ButtonGroup[str]:
    return app.button_group(key="image source")


def language(app: AppTest) -> ButtonGroup[str]:
    return app.button_group(key="language")


def choose(app: AppTest, model: str) -> AppTest:
    return app.selectbox[0].select(Path(model)).run()


def views(app: AppTest, name: str = "caption_view") -> list[dict[str, Any]]:
    """What the components of this name are given to show."""
    protos = [element.proto for element in app.get("bidi_component")]
    return [json.loads(proto.json) for proto in protos if proto.component_name == name]


def words(caption: dict[str, Any]) -> str:
    return "".join(word["text"] + word["gap"] for word in caption["words"]).strip()


def captions(app: AppTest) -> list[str]:
    """The generated captions, as joined from their words."""
    return [words(caption) for view in views(app) for caption in view["captions"]]


def log_probs(app: AppTest) -> list[str]:
    return re.findall(r"log-probability (\u2212?[\d.]+)", " ".join(text.value for text in app.main.caption))


def test_a_photo_gets_its_caption_its_candidates_and_an_attention_map_for_each_word(
    folder: Path, tmp_path: Path
) -> None:
    path = save_photo(tmp_path / "dog.jpg")
    app = upload(page(), ("dog.jpg", path.read_bytes()))
    captioner = Captioner.load("checkpoints.pth", torch.device("cpu"))
    wanted = captioner.caption([load_image(path)], attention=True)[0]
    assert captions(app) == [wanted[0].caption]
    ((view,), (caption,)) = views(app), views(app)[0]["captions"]
    assert view["alt"] == app.code[0].value == wanted[0].caption.capitalize() + "."
    assert view["image"].startswith("data:image/jpeg;base64,") and (view["width"], view["height"]) == (640, 480)
    assert [word["probability"] for word in caption["words"]] == [choice.probability for choice in wanted[0].choices]
    assert all(len(word["others"]) == 3 for word in caption["words"])
    assert caption["attention"] == heatmap.encode(wanted[0].attention) and caption["title"] == ""
    assert log_probs(app) == [f"{wanted[0].log_prob:.2f}".replace("-", "\u2212")]
    (table,) = [element.body for element in app.html if "<table" in element.body]
    cells = [html.unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall("<td>(.*?)</td>", table)]
    numbers = [(f"{each.score:.3f}", f"{each.log_prob:.2f}") for each in wanted]
    assert cells == [
        cell.replace("-", "\u2212") if cell[0] == "-" else cell
        for each, its_numbers in zip(wanted, numbers, strict=True)
        for cell in (each.caption or "(empty caption)", *its_numbers)
    ]


def test_the_decoding_method_changes_the_caption(folder: Path, tmp_path: Path) -> None:
    path = save_photo(tmp_path / "dog.jpg")
    app = upload(page(), ("dog.jpg", path.read_bytes()))
    captioner = Captioner.load("checkpoints.pth", torch.device("cpu"))
    app.radio[0].set_value("greedy").run()
    assert captions(app) == [captioner.describe(path, 1)] and not app.slider
    app.radio[0].set_value("beam").run()
    app.slider[0].set_value(6).run()
    assert captions(app) == [captioner.describe(path, 6)]
    app.radio[0].set_value("sampling").run()
    app.slider[0].set_value(1.5).run()
    first = [element.body for element in app.html]
    sampled = captioner.sample([load_image(path)], 5, 1.5, 0)[0]
    assert captions(app) == [sampled[0].caption]
    assert "Ranking score" not in "".join(first)  # samples are ranked by log-probability
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
    language(app).set_value("zh").run()
    (error,) = app.error
    assert error.value == CHINESE.messages[message] != message


def test_an_image_with_a_comment_too_long_for_a_jpeg_is_captioned(folder: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, "GIF", comment=b"x" * 70_000)
    app = upload(page(), ("long.gif", file.getvalue()))
    assert len(captions(app)) == 1 and len(app.download_button) == 3 and not app.exception


@pytest.mark.skipif(not uploads.READS_HEIC, reason="needs pillow-heif")
def test_a_photo_of_an_iphone_is_captioned_if_pillow_heif_is_installed(folder: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, "HEIF")
    app = upload(page(), ("IMG_1.HEIC", file.getvalue()))
    assert len(captions(app)) == 1 and not app.error


def test_a_camera_photo_is_captioned(folder: Path, tmp_path: Path) -> None:
    app = page()
    source(app).set_value("camera").run()
    app.camera_input[0].upload("shot.jpg", save_photo(tmp_path / "shot.jpg").read_bytes()).run()
    assert len(captions(app)) == 1 and not app.exception


def test_examples_are_offered_and_the_first_is_captioned(folder: Path) -> None:
    app = page()
    (strip,) = views(app, "examples")
    assert [image["name"] for image in strip["images"]] == list(EXAMPLES) and strip["chosen"] == EXAMPLES[0]
    assert all((ROOT / EXAMPLES_DIR / name).is_file() for name in EXAMPLES)
    assert len(captions(app)) == 1 and not app.warning
    choose(app, "runs/drawings/checkpoints.pth")
    (strip,) = views(app, "examples")
    assert all(image["name"].startswith("sample_") for image in strip["images"]) and len(strip["images"]) == 6
    assert len(captions(app)) == 1 and not app.warning and not app.exception
    ((caption,),) = [view["captions"] for view in views(app)]
    assert caption["attention"] == "" and "looked" not in caption["hint"]  # its lstm decoder does not attend


def test_photos_for_a_model_that_knows_only_drawings_are_warned_of(folder: Path, tmp_path: Path) -> None:
    app = choose(page(), "runs/drawings/checkpoints.pth")
    upload(app, ("dog.jpg", save_photo(tmp_path / "dog.jpg").read_bytes()))
    assert "trained on drawings only" in app.warning[0].value and not views(app, "examples")


def test_two_models_or_methods_side_by_side(folder: Path, tmp_path: Path) -> None:
    path = save_photo(tmp_path / "dog.jpg")
    app = upload(page(), ("dog.jpg", path.read_bytes()))
    app.toggle[0].set_value(True).run()
    captioner = Captioner.load("checkpoints.pth", torch.device("cpu"))
    (view,) = views(app)
    assert captions(app) == [captioner.describe(path), captioner.describe(path, 1)]  # the second is greedy at first
    titles = [caption["title"] for caption in view["captions"]]
    assert titles == ["checkpoints.pth · Beam search 3", "checkpoints.pth · Greedy"]
    assert [bool(caption["hint"]) for caption in view["captions"]] == [True, False]
    app.selectbox[1].select(Path("runs/hostile/checkpoints.pth")).run()
    other = Captioner.load("runs/hostile/checkpoints.pth", torch.device("cpu"))
    assert captions(app)[1] == other.describe(path, 1) and len(log_probs(app)) == 2 and not app.exception


def test_how_often_captions_are_right_is_told_for_the_pretrained_model_and_beam_search(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(app: AppTest) -> list[str]:
        texts = [*app.main.caption, *app.warning]
        return [text.value for text in texts if "were right for" in text.value]

    assert told(page()) == []
    monkeypatch.setattr("models.pretrained.PRETRAINED", Path("checkpoints.pth"))
    assert len(told(page())) == 1
    app = page()
    app.radio[0].set_value("greedy").run()
    assert told(app) == [] and not app.exception


def test_the_page_in_chinese(folder: Path, tmp_path: Path) -> None:
    app = AppTest.from_file(str(ROOT / "demo" / "page.py"), default_timeout=60)
    app.query_params["lang"] = "zh"
    app.run()
    assert app.title[0].value == CHINESE.title and CHINESE.disclaimer in app.main.caption[-1].value
    (view,) = views(app)
    assert view["language"] == "zh" and view["texts"]["play"] == CHINESE.play
    upload(app, ("dog.jpg", save_photo(tmp_path / "dog.jpg").read_bytes()))
    before = captions(app)
    language(app).set_value("en").run()
    assert app.query_params["lang"] in ("en", ["en"])
    assert app.title[0].value == ENGLISH.title and captions(app) == before  # nothing is lost
    assert not app.exception


def test_photos_are_captioned_by_the_pretrained_model_until_a_run_has_learnt_from_photographs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("models.pretrained.PRETRAINED", folder / "checkpoints.pth")
    own, drawings = tmp_path / "checkpoints.pth", folder / "runs/drawings/checkpoints.pth"
    for content in (drawings.read_bytes(), (folder / "runs/broken/checkpoints.pth").read_bytes()):
        own.write_bytes(content)
        app = page()
        assert app.selectbox[0].value == folder / "checkpoints.pth"
        assert not app.error and not any("drawings only" in warning.value for warning in app.warning)
    own.write_bytes((folder / "checkpoints.pth").read_bytes())
    assert page().selectbox[0].value == Path("checkpoints.pth")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "x" * 10_000, "\u202egnp.live", "\n\t", ""])
def test_hostile_names_and_captions_are_escaped(folder: Path, tmp_path: Path, name: str) -> None:
    app = choose(page(), "runs/hostile/checkpoints.pth")
    upload(app, (f"{name}.jpg", save_photo(tmp_path / "dog.jpg").read_bytes()), (f"{name}.jpg", b""))
    shown = "".join(element.body for element in app.html)
    assert "<script" not in shown and "<img" not in shown
    assert all(html.escape(word) in shown and word in app.code[0].value for word in HOSTILE_WORDS)
    ((caption,),) = [view["captions"] for view in views(app)]
    assert {word["text"] for word in caption["words"]} == set(HOSTILE_WORDS) and len(app.error) == 1


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
    assert ENGLISH.disclaimer in app.main.caption[-1].value
    limits, card_of_model = app.expander
    assert "**cannot** read text" in limits.markdown[0].value
    (card,) = card_of_model.markdown
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
