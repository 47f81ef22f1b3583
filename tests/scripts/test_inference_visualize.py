"""inference_visualize.py and gallery/: from pictures of any kind to a page of escaped words."""

import base64
import html
import json
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from cli import UserError
from config import Config
from data.vocab import END_ID, Vocabulary
from gallery import pictures
from gallery.page import Entry, csp_hash, render_page
from gallery.pictures import file_name, save_pictures, with_caption
from inference_visualize import main, own_photos
from models.captioner import Captioner
from tests.support.helpers import tiny_decoder
from tests.support.hostile import HOSTILE
from utils import save_checkpoint

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """What a browser would find: tags, attributes and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "inference_visualize.py", "--device", "cpu", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


def entry(image: str = "dog.jpg", caption: str = "a dog runs", **more: object) -> Entry:
    return Entry(image, [(caption, -1.5), ("a dog", -2.25)], **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("size", [(1, 1), (224, 224), (1, 3000), (3000, 1), (1600, 900)])
def test_any_text_is_drawn_under_any_picture(text: str, size: tuple[int, int]) -> None:
    result = with_caption(Image.new("RGB", size, "red"), text)
    assert pictures.STRIP_WIDTH <= result.width <= pictures.PICTURE_SIDE
    assert result.height < 2 * pictures.PICTURE_SIDE


def test_the_caption_stands_under_the_picture_and_leaves_it_alone() -> None:
    result = with_caption(Image.new("RGB", (300, 200), "red"), "a red picture")
    assert result.crop((0, 0, 300, 200)).getcolors() == [(300 * 200, (255, 0, 0))]
    strip = result.crop((0, 200, *result.size)).convert("L")
    assert strip.getextrema()[0] < 100 and strip.getpixel((0, 0)) == 255  # dark words on white


@pytest.mark.parametrize(("one", "other"), [("é", "ß"), ("Ж", "Ю"), ("Ω", "Σ"), ("א", "ש"), ("ع", "م"), ("😀", "😭")])
def test_letters_of_many_scripts_are_drawn_not_boxes(one: str, other: str) -> None:
    picture = Image.new("RGB", (224, 10))
    assert with_caption(picture, one) != with_caption(picture, other)


def test_lines_fit_the_strip() -> None:
    font = pictures.ImageFont.truetype(pictures.FONT, 16)
    text = "several short words and one " + "very" * 40 + " long one"
    lines = pictures.wrap(text, font, 200)
    assert all(font.getlength(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_file_names_are_safe_and_unique() -> None:
    taken: set[str] = set()
    names = [
        file_name(image, taken)
        for image in [
            "a/dog.jpg",
            "b/dog.png",
            "c/DOG.gif",
            "../../etc/passwd",
            "..",
            "con\0<>:?*.jpg",
            "\ud800.jpg",
            "x" * 500,
        ]
    ]
    assert names[:3] == ["dog.jpg", "dog-2.jpg", "DOG-3.jpg"]
    assert len({name.lower() for name in names}) == len(names)
    assert [file_name(image, set()) for image in ("con.png", "Lpt1.x.png", "cone.png")] == [
        "con_.jpg",
        "Lpt1.x_.jpg",
        "cone.jpg",
    ]
    assert all(name == Path(name).name and not name.startswith(".") and len(name) < 80 for name in names)


def test_hostile_words_show_as_words(tmp_path: Path) -> None:
    taken: set[str] = set()
    picture = Image.new("RGB", (40, 30))
    entries = [
        save_pictures(picture, entry(text + ".jpg", text, references=[text]), tmp_path, taken) for text in HOSTILE
    ]
    text = render_page(entries, skipped=[(HOSTILE[0], HOSTILE[1])], checkpoint=HOSTILE[0], beam_size=3)
    text.encode("utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1 and len(page.all("style")) == 1 and len(page.all("img")) == len(HOSTILE)
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(HOSTILE[0]) >= 4  # caption, reference, file name, checkpoint, skipped
    assert "{{ 7 * 7 }}" in page.text
    assert page.all("img")[0]["alt"] == HOSTILE[0]
    assert html.escape(HOSTILE[4].strip()[:500]) in text


def test_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    shown = save_pictures(Image.new("RGB", (1200, 600)), entry("my dog.jpg", references=["a dog"]), tmp_path, set())
    text = render_page([shown], [], "checkpoints.pth", 5)
    page = Page(text)
    assert "http:" not in text and "https:" not in text
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("style", "script"):  # the policy lets exactly the page's own style and script through
        content = text.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        assert f"{tag}-src '{csp_hash(content)}'" in policy
    image = page.all("img")[0]
    assert (image["src"], image["loading"], image["width"], image["height"]) == (
        "pictures/my_dog.jpg",
        "lazy",
        "640",
        "320",
    )
    for link in [image["src"], *(link["href"] for link in page.all("a") if not str(link["href"]).startswith("#"))]:
        assert link == "captions.json" or (tmp_path / str(link)).is_file()
    assert "checkpoints.pth" in page.text and "a dog runs" in page.text and "\N{MINUS SIGN}2.25" in page.text
    assert image["alt"] == "a dog runs"


def test_records_are_what_captions_json_promises() -> None:
    candidates = [{"caption": "a dog runs", "log_prob": -1.5}, {"caption": "a dog", "log_prob": -2.25}]
    expected = {"image": "dog.jpg", "caption": "a dog runs", "log_prob": -1.5, "candidates": candidates}
    assert entry().record() == expected
    assert entry(references=["one"]).record() == {**expected, "references": ["one"]}


def test_photos_are_named_by_what_differs(tmp_path: Path) -> None:
    for name in ("a/dog.png", "b/dog.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert [source.image for source in own_photos([tmp_path])] == ["a/dog.png", "b/dog.png"]
    assert [source.image for source in own_photos([tmp_path / "a" / "dog.png"])] == ["dog.png"]
    with pytest.raises(UserError, match="nowhere"):
        own_photos([tmp_path / "nowhere"])


def make_photos(folder: Path) -> None:
    """Two folders with the same names, pictures of several kinds, three corrupt ones."""
    (folder / "again").mkdir(parents=True)
    Image.new("RGB", (300, 200), "red").save(folder / "dog.jpg")
    Image.new("RGBA", (30, 60), (0, 0, 255, 90)).save(folder / "again" / "dog.png")
    Image.new("CMYK", (50, 50)).save(folder / "print.jpg")
    rotated = Image.Exif()
    rotated[274] = 6
    Image.new("RGB", (200, 100), "green").save(folder / "rotated.jpg", exif=rotated)
    (folder / "broken1.jpg").write_bytes((folder / "dog.jpg").read_bytes()[:300])
    (folder / "broken2.png").write_text("not a picture")
    (folder / "broken3.gif").write_bytes(b"")


def test_script_captions_own_photos_and_names_the_bad_ones(tmp_path: Path, tiny_checkpoint: Path) -> None:
    make_photos(tmp_path / "photos")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    result = run(
        "--checkpoint", tiny_checkpoint, "--images", tmp_path / "photos", "--output_dir", out, "--beam_size", "2"
    )
    assert result.returncode == 0, result.stderr
    assert "captioned 4 of 7 pictures" in result.stdout
    page = Page((out / "captions_result.html").read_text(encoding="utf-8"))
    for name in ("broken1.jpg", "broken2.png", "broken3.gif"):
        assert name in result.stderr and name in page.text
    records = json.loads((out / "captions.json").read_text(encoding="utf-8"))
    assert [record["image"] for record in records] == ["again/dog.png", "dog.jpg", "print.jpg", "rotated.jpg"]
    assert all(
        record["caption"] == record["candidates"][0]["caption"] and len(record["candidates"]) <= 2 for record in records
    )
    assert sorted(path.name for path in out.iterdir()) == [
        "captions.json", "captions_result.html", "dog-2.jpg", "dog.jpg", "mine.txt", "pictures", "print.jpg", "rotated.jpg",
    ]  # fmt: skip
    with Image.open(out / "pictures" / "rotated.jpg") as picture:
        assert picture.size == (100, 200)
    assert [image["src"] for image in page.all("img")] == [
        f"pictures/{name}.jpg" for name in ("dog", "dog-2", "print", "rotated")
    ]


def test_a_split_is_captioned_with_references(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["image,caption,split"]
    for number, split in enumerate(["train", "test", "test", "test"]):
        Image.new("RGB", (64, 64), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
        rows += [f'{number}.png,"<b>reference</b>, {number}",{split}', f"{number}.png,another,{split}"]
    (tmp_path / "captions.csv").write_text("\n".join(rows) + "\n")
    own = ["--captions_file", str(tmp_path / "captions.csv"), "--image_dir", str(tmp_path)]
    main(
        [
            "--checkpoint",
            str(tiny_checkpoint),
            "--device",
            "cpu",
            "--output_dir",
            str(tmp_path / "out"),
            "--limit",
            "2",
            *own,
        ]
    )
    assert "captioned 2 of 2 pictures" in capsys.readouterr().out
    records = json.loads((tmp_path / "out" / "captions.json").read_text(encoding="utf-8"))
    assert [record["references"] for record in records] == [
        [f"<b>reference</b>, {number}", "another"] for number in (1, 2)
    ]
    assert "<b>reference</b>, 1" in Page((tmp_path / "out" / "captions_result.html").read_text(encoding="utf-8")).text


def test_script_refuses_a_bad_photo_in_one_line(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "words.png").write_text("not a picture")
    result = run("--checkpoint", tiny_checkpoint, "--images", tmp_path / "words.png", "--output_dir", tmp_path / "out")
    assert result.returncode == 2
    assert (
        result.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'words.png'}: not an image")
        and "Traceback" not in result.stderr
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "broken1.jpg", "broken2.png"], "none of the 2 pictures"),
        (["--images", ".", "--output_dir", "."], "might be overwritten"),
        (["--images", "dog.jpg", "--limit", "0"], "--limit 0"),
        (["--images", "dog.jpg", "--image_dir", "."], "--images names own photos"),
        (["--images", "dog.jpg", "--checkpoint", "absent.pth"], "absent.pth"),
    ],
)
def test_mistakes_are_refused_and_nothing_is_touched(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    make_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as caught:
        main(["--checkpoint", str(tiny_checkpoint), "--device", "cpu", *options])
    assert message in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_picture_of_somebody_is_not_overwritten_but_an_earlier_gallery_is(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["--checkpoint", str(tiny_checkpoint), "--device", "cpu", "--images", "dog.jpg", "--output_dir", "out"]
    for mine in (Path("out/dog.jpg"), Path("out/pictures/dog.jpg")):
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_bytes(b"mine")
        with pytest.raises(UserError, match="not of an earlier gallery"):
            main(words)
        assert mine.read_bytes() == b"mine"
        mine.unlink()
    main(words)
    main(words)
    Path("out/captions_result.html").unlink()  # as if it had been killed
    main(words)
    assert Path("out/captions_result.html").exists()


# --------------------------------------------------------------------------------------------------- attention


def attended(caption: str, *cells: int) -> Entry:
    """An entry whose decoder looked at ``cells`` of a 3 x 3 grid, one a word."""
    weights = torch.nn.functional.one_hot(torch.tensor(cells).long(), 9) * 0.8 + 0.2 / 9
    return entry("dog.jpg", caption, attention=weights.reshape(len(cells), 9))


def looks(page: Page) -> list[bytes]:
    """The weights in the page, for each picture that has any."""
    return [base64.b64decode(str(span["data-attention"])) for span in page.all("span") if "data-attention" in span]


def test_page_holds_the_weights_of_each_word_and_the_ways_to_them(tmp_path: Path) -> None:
    shown = save_pictures(Image.new("RGB", (90, 60)), attended("a dog  runs", 0, 4, 8), tmp_path, set())
    text = render_page([shown], [], "checkpoints.pth", 5)
    (weights,) = looks(Page(text))
    assert [weights[first : first + 9].index(255) for first in (0, 9, 18)] == [0, 4, 8] and len(weights) == 27
    assert (
        "<span>a</span> <span>dog</span> <span>runs</span></span></h2>" in text
    )  # one sentence, even with styles and scripts off
    for needed in (
        "ArrowLeft",
        "Escape",
        "focusin",
        "tabIndex",
        "aria-describedby",
        'id="keys"',
        "pointerover",
        "click",
    ):
        assert needed in text, needed
    assert (
        "tabindex" not in text.split("<ul")[1].split("</ul>")[0]
    )  # no stop of the Tab key that without the script leads nowhere
    policy = next(
        str(meta["content"]) for meta in Page(text).all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    for tag in ("style", "script"):
        assert csp_hash(text.split(f"<{tag}>")[1].split(f"</{tag}>")[0]) in policy
    assert all(hole not in text for hole in ("http:", "https:", '"data:', "url(", "style="))


def test_page_without_attention_has_nothing_of_it() -> None:
    text = render_page([entry(), attended("")], [], "checkpoints.pth", 5)
    for word in ("data-attention=", "createElement", "looked", "tabIndex", "aria-label="):
        assert word not in text, word
    assert looks(Page(render_page([entry(), attended("a", 1), attended("")], [], "checkpoints.pth", 5))) != []


def test_hostile_words_show_as_words_with_attention_too(tmp_path: Path) -> None:
    taken: set[str] = set()
    entries = [attended(text, *[1] * len(text.split())) for text in HOSTILE]
    saved = [save_pictures(Image.new("RGB", (40, 30)), found, tmp_path, taken, strips=True) for found in entries]
    text = render_page(saved, [], "checkpoints.pth", 3)
    text.encode("utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1 and len(page.all("style")) == 1 and len(page.all("img")) == len(HOSTILE)
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    for caption in (HOSTILE[0], HOSTILE[1], HOSTILE[5]):
        assert caption in page.text
    assert [len(weights) // 9 for weights in looks(page)] == [
        len(caption.split()) for caption in HOSTILE if caption.strip()
    ]
    links = [str(link["href"]) for link in page.all("a") if str(link["href"]).startswith("attention/")]
    assert len(links) == len(list((tmp_path / "attention").iterdir())) == 6  # the two empty captions have none
    assert all((tmp_path / link).is_file() for link in links)


@pytest.fixture(scope="module")
def attention_checkpoint(tiny_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with attention that learned nothing, but always says something."""
    config = tiny_config(tiny_decoder("attention"), "--data.image_size=96")
    captioner = Captioner(config, Vocabulary.build(["a red circle", "one blue square"], min_count=1))
    with torch.no_grad():
        captioner.decoder.output.bias[END_ID] = -5
    path = tmp_path_factory.mktemp("attention") / "checkpoints.pth"
    save_checkpoint(path, captioner.checkpoint())
    return path


@pytest.mark.parametrize("strips", [False, True])
def test_script_shows_where_the_model_looked(tmp_path: Path, attention_checkpoint: Path, strips: bool) -> None:
    make_photos(tmp_path / "photos")
    out = tmp_path / "out"
    options = ["--attention_strips"] if strips else []
    main(
        [
            "--checkpoint",
            str(attention_checkpoint),
            "--images",
            str(tmp_path / "photos"),
            "--output_dir",
            str(out),
            *options,
        ]
    )
    records = json.loads((out / "captions.json").read_text(encoding="utf-8"))
    assert all(record.keys() == {"image", "caption", "log_prob", "candidates"} for record in records)
    page = Page((out / "captions_result.html").read_text(encoding="utf-8"))
    assert [len(weights) for weights in looks(page)] == [9 * len(record["caption"].split()) for record in records]
    names = ["dog-2.jpg", "dog.jpg", "print.jpg", "rotated.jpg"] if strips else []
    assert sorted(path.name for path in out.glob("attention/*")) == names
    assert sorted(str(link["href"]) for link in page.all("a") if "attention" in str(link["href"])) == [
        f"attention/{name}" for name in names
    ]


def test_a_decoder_that_looks_nowhere_has_no_strips(tmp_path: Path, tiny_checkpoint: Path) -> None:
    make_photos(tmp_path)
    with pytest.raises(UserError, match="--attention_strips"):
        main(
            [
                "--checkpoint",
                str(tiny_checkpoint),
                "--images",
                str(tmp_path),
                "--output_dir",
                str(tmp_path / "out"),
                "--attention_strips",
            ]
        )
    assert not (tmp_path / "out").exists()
