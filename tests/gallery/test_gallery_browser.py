"""The gallery in a real browser: opened from disk, searched, ordered, asked where the model looked, read aloud, printed."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from playwright.sync_api import expect

from gallery.agreement import FEWEST_IMAGES
from gallery.page import Entry, printable, render_page
from gallery.pictures import save_pictures
from inference_visualize import main
from tests.support.browser import Visit
from tests.support.helpers import COLOURS, SHAPES, draw
from tests.support.hostile import HOSTILE

Open = Callable[..., Visit]
WRONG, RIGHT = (
    17,
    30,
)  # the picture whose caption has no word in common with its references, and one that says what they say


def attention(cells: Sequence[int]) -> torch.Tensor:
    """Nearly all attention on one cell of a 3 x 3 grid, for each word."""
    return torch.nn.functional.one_hot(torch.tensor(cells).long(), 9) * 0.8 + 0.2 / 9


def write_gallery(folder: Path, entries: Sequence[Entry], skipped: Sequence[tuple[str, str]] = ()) -> str:
    """Write the page; return its address."""
    page = folder / "captions_result.html"
    page.write_text(render_page(entries, skipped, "checkpoints.pth", 5), encoding="utf-8")
    return page.as_uri()


def make_entry(number: int, folder: Path, taken: set[str]) -> Entry:
    """A picture of a shape, with what a model and two people say of it."""
    colour, shape = COLOURS[number % 4], SHAPES[number // 4 % 2]
    with Image.open(draw(folder / "drawn.png", shape, colour, (200 + number, 150))) as picture:
        caption = {WRONG: "zebras everywhere", RIGHT: f"a {colour} {shape} on white"}.get(number, f"a {colour} square")
        references = [f"A {colour} {shape} on white .", f"Here is one {shape}, {colour}."]
        looked = attention([word % 9 for word in range(len(caption.split()))])
        entry = Entry(f"shape_{number:03}.png", [(caption, -(number * 7 % 60) / 10)], references, attention=looked)
        return save_pictures(picture.convert("RGB"), entry, folder, taken)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Entry]]:
    """A folder with the pictures of 60 entries, and the entries."""
    folder, taken = tmp_path_factory.mktemp("gallery"), set[str]()
    return folder, [make_entry(number, folder, taken) for number in range(60)]


@pytest.fixture
def address(entries: tuple[Path, list[Entry]]) -> str:
    """The gallery of all of them."""
    return write_gallery(*entries, skipped=[("broken.jpg", "not a picture")])


def names(visitor: Visit) -> list[str]:
    """The file names of the pictures shown, in their order."""
    return visitor.page.locator(".card:visible .name bdi").all_text_contents()


def assert_quiet(visitor: Visit, address: str) -> None:
    """No error on the console, and no request beyond the gallery's folder."""
    assert visitor.errors == []
    assert visitor.requests and all(request.startswith(address.rsplit("/", 1)[0] + "/") for request in visitor.requests)


def test_the_scripts_page_opens_from_disk(tmp_path: Path, tiny_data: Path, tiny_checkpoint: Path, visit: Open) -> None:
    main(
        [
            "--checkpoint",
            str(tiny_checkpoint),
            "--images",
            str(tiny_data / "images"),
            "--output_dir",
            str(tmp_path),
            "--device",
            "cpu",
        ]
    )
    address = (tmp_path / "captions_result.html").as_uri()
    visitor = visit(address)
    assert len(names(visitor)) == 16
    assert "CIDEr" not in visitor.page.locator("body").inner_text()  # nothing is known of what people would say
    visitor.page.locator(".frame").first.click()  # the captioned JPG
    assert_quiet(visitor, address)


def test_of_a_thousand_pictures_only_those_near_the_window_are_loaded(tmp_path: Path, visit: Open) -> None:
    shown = save_pictures(
        Image.new("RGB", (64, 48), "red"), Entry("red.png", [("a red field", -1.0)], ["All red."]), tmp_path, set()
    )
    picture = (tmp_path / "pictures" / shown.file).read_bytes()
    files = [f"{number}.jpg" for number in range(1000)]
    for file in files:
        (tmp_path / "pictures" / file).write_bytes(picture)
    page = [Entry(file, shown.candidates, shown.references, file, 64, 48, attention([0, 4, 8])) for file in files]
    address = write_gallery(tmp_path, page)
    visitor = visit(address)
    visitor.page.wait_for_load_state("networkidle")
    assert 5 < len(visitor.requests) < 100
    last = visitor.page.locator("img").last
    assert last.evaluate("image => image.naturalWidth") == 0
    last.scroll_into_view_if_needed()
    expect(last).to_have_js_property("naturalWidth", 64)
    assert len(visitor.requests) < 200
    assert_quiet(visitor, address)


def test_searching(address: str, visit: Open) -> None:
    visitor = visit(address)
    box, count = visitor.page.get_by_label("Search"), visitor.page.locator("#count")
    box.fill("ZEBRAS")
    expect(count).to_have_text("1 of 60 shown")
    assert names(visitor) == [f"shape_{WRONG:03}.png"]
    box.fill("here 02")  # a word of a reference, and part of a file name
    expect(count).to_have_text("11 of 60 shown")
    box.fill("nobody says this")
    expect(visitor.page.get_by_text("No picture matches")).to_be_visible()
    expect(count).to_have_text("0 of 60 shown")
    assert names(visitor) == []
    box.fill("")
    expect(count).to_have_text("")
    assert len(names(visitor)) == 60
    assert_quiet(visitor, address)


def test_ordering_also_what_was_searched_for(address: str, visit: Open) -> None:
    visitor = visit(address)
    order, given = visitor.page.get_by_label("Order"), names(visitor)
    order.select_option(label="worst CIDEr first")
    assert names(visitor)[0] == f"shape_{WRONG:03}.png" and f"shape_{RIGHT:03}.png" in names(visitor)[-10:]
    shown = [
        float(text.split("CIDEr ")[1]) for text in visitor.page.locator("summary", has_text="CIDEr").all_text_contents()
    ]
    assert shown[0] == 0 and shown == sorted(shown) and shown[-1] > 100
    order.select_option(label="best CIDEr first")
    assert names(visitor)[-1] == f"shape_{WRONG:03}.png"
    order.select_option(label="most probable first")
    assert names(visitor) == sorted(given, key=lambda name: int(name[6:9]) * 7 % 60)
    visitor.page.get_by_label("Search").fill("01")
    expect(visitor.page.locator("#count")).to_have_text("11 of 60 shown")
    order.select_option(label="least probable first")
    assert names(visitor) == sorted(
        (name for name in given if "01" in name), key=lambda name: -(int(name[6:9]) * 7 % 60)
    )
    order.select_option(label="as captioned")
    assert names(visitor) == [name for name in given if "01" in name]
    assert_quiet(visitor, address)


def test_few_pictures_have_no_cider_and_the_page_says_why(entries: tuple[Path, list[Entry]], visit: Open) -> None:
    visitor = visit(write_gallery(entries[0], entries[1][: FEWEST_IMAGES - 1]))
    assert visitor.page.get_by_label("Order").locator("option").all_inner_texts() == [
        "as captioned", "least probable first", "most probable first",
    ]  # fmt: skip
    assert (
        f"No CIDEr: it weighs each word by how few pictures' references have it, and fewer than {FEWEST_IMAGES} pictures cannot tell"
        in (re.sub(r"\s+", " ", visitor.page.locator("footer").inner_text()))
    )
    assert visitor.page.locator("summary", has_text="CIDEr").count() == 0


def test_words_that_differ_are_marked_and_not_by_colour_alone(address: str, visit: Open) -> None:
    page = visit(address).page
    cards = page.locator(".card")
    assert cards.nth(0).locator("h2 u").all_text_contents() == ["square"]  # of a red circle
    assert cards.nth(4).locator("h2 u").count() == 0  # of a red square
    assert cards.nth(WRONG).locator("h2 u").all_text_contents() == ["zebras", "everywhere"]
    assert cards.nth(RIGHT).locator("mark").all_text_contents() == ["A green square on white", "square, green."]
    assert page.locator("h2 u").first.evaluate("word => getComputedStyle(word).textDecorationStyle") == "dotted"
    weights = page.locator("mark").evaluate_all(
        "marks => marks.map((mark) => Number(getComputedStyle(mark).fontWeight))"
    )
    assert min(weights) >= 600
    cards.nth(WRONG).locator("summary").first.click()
    assert "In none of them: zebras, everywhere" in cards.nth(WRONG).inner_text()  # for those who hear the page


def hottest(visitor: Visit) -> list[int] | None:
    """Column and row, of 3 x 3, where the heat map on the page is yellowest; None where there is no heat map."""
    return visitor.page.evaluate(  # type: ignore[no-any-return]
        """() => {
            const canvas = document.querySelector(".frame canvas");
            if (!canvas) return null;
            let best = [0, 0, -1];
            for (const row of [0, 1, 2]) for (const column of [0, 1, 2]) {
                const at = [column, row].map((cell, i) => Math.floor((cell + 0.5) / 3 * [canvas.width, canvas.height][i]));
                const red = canvas.getContext("2d").getImageData(...at, 1, 1).data[0];
                if (red > best[2]) best = [column, row, red];
            }
            return best.slice(0, 2);
        }"""
    )


def test_arrow_keys_go_from_word_to_word_and_show_where_the_model_looked(address: str, visit: Open) -> None:
    visitor = visit(address)
    keyboard, where = visitor.page.keyboard, visitor.page.locator("#where")
    visitor.page.locator(".frame").first.focus()
    assert hottest(visitor) is None
    keyboard.press("Tab")
    assert visitor.page.evaluate("document.activeElement.textContent") == "a"
    assert hottest(visitor) == [0, 0] and where.inner_text() == "looked at: top left"
    keyboard.press("ArrowRight")
    assert visitor.page.evaluate("document.activeElement.textContent") == "red"
    assert hottest(visitor) == [1, 0] and where.inner_text() == "looked at: top centre"
    for _ in range(5):  # the third word is the last
        keyboard.press("ArrowRight")
    assert hottest(visitor) == [2, 0] and where.inner_text() == "looked at: top right"
    keyboard.press("ArrowLeft")
    assert hottest(visitor) == [1, 0]
    box, frame = visitor.page.locator("canvas").bounding_box(), visitor.page.locator(".frame").first.bounding_box()
    assert box == frame
    keyboard.press("Escape")
    assert hottest(visitor) is None and where.inner_text() == ""
    keyboard.press("Tab")  # one stop for all words: next come the references
    assert visitor.page.evaluate("document.activeElement.tagName") == "SUMMARY"
    keyboard.press("Enter")
    assert visitor.page.locator("details").first.evaluate("details => details.open")
    assert_quiet(visitor, address)


def test_pointing_and_tapping_show_it_too(address: str, visit: Open) -> None:
    mouse = visit(address)
    mouse.page.locator("[data-attention] > *").nth(2).hover()
    assert hottest(mouse) == [2, 0]
    mouse.page.get_by_role("heading", level=1).hover()
    assert hottest(mouse) is None
    finger = visit(address, width=390, has_touch=True, is_mobile=True)
    finger.page.locator("[data-attention] > *").nth(1).tap()
    assert hottest(finger) == [1, 0]
    finger.page.locator(".name").first.tap()
    assert hottest(finger) is None
    for visitor in (mouse, finger):
        assert_quiet(visitor, address)


def test_in_a_caption_from_right_to_left_the_left_arrow_goes_on(entries: tuple[Path, list[Entry]], visit: Open) -> None:
    folder, (entry, *_) = entries
    hebrew = Entry("he.png", [("כלב אדום רץ", -1.0)], [], entry.file, entry.width, entry.height, attention([0, 4, 8]))
    visitor = visit(write_gallery(folder, [hebrew]))
    visitor.page.locator("[data-attention] > *").first.focus()
    visitor.page.keyboard.press("ArrowLeft")
    assert hottest(visitor) == [1, 1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_no_barrier(address: str, visit: Open, width: int, scheme: str) -> None:
    visitor = visit(address, width=width, color_scheme=scheme)
    dark = visitor.page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]) < 128")
    assert dark == (scheme == "dark")
    assert visitor.barriers() == []
    visitor.page.get_by_role("button", name="Open all details").click()
    visitor.page.locator("[data-attention] > *").first.focus()
    assert visitor.barriers() == []
    assert_quiet(visitor, address)


def test_hostile_words_show_as_words(tmp_path: Path, visit: Open) -> None:
    taken: set[str] = set()
    found = [
        save_pictures(
            Image.new("RGB", (40, 30)), Entry(text + ".jpg", [(text, -1.0)], [text, f"a {text}"]), tmp_path, taken
        )
        for text in HOSTILE
    ]
    address = write_gallery(tmp_path, found, [(text, text) for text in HOSTILE])
    visitor = visit(address, width=390)
    visitor.page.get_by_role("button", name="Open all details").click()
    for part, expected in [
        ("h2[data-search]", HOSTILE),
        ("li li:first-child", HOSTILE),
        (".name bdi", [text + ".jpg" for text in HOSTILE]),
    ]:
        texts = visitor.page.locator(part).all_text_contents()
        readable = [printable(text).replace("\0", "").split() for text in expected]  # browsers show no null character
        assert [text.split() for text in texts] == [
            words or ["(no", "words)"] * (part[:2] == "h2") for words in readable
        ], part
    assert visitor.page.evaluate("[document.scripts.length, document.images.length]") == [1, len(HOSTILE)]
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390
    cut = "cards => cards.filter((card) => card.scrollWidth > card.clientWidth).length"
    assert visitor.page.locator(".words").evaluate_all(cut) == 0  # long words are broken
    assert_quiet(visitor, address)


def test_without_scripts_everything_is_there(address: str, visit: Open) -> None:
    visitor = visit(address, java_script_enabled=False)
    assert visitor.page.locator(".card").count() == len(names(visitor)) == 60
    assert not visitor.page.locator(".tools, #looks").first.is_visible()
    visitor.page.locator("summary").first.click()
    assert "Here is one circle, red." in visitor.page.locator(".card").first.inner_text()


def test_printing_shows_every_picture_on_white(address: str, visit: Open) -> None:
    visitor = visit(address, color_scheme="dark")
    pdf = visitor.page.pdf(format="A4")
    assert len(re.findall(rb"/Subtype\s*/Image", pdf)) == 60  # also those that the window has not come to
    visitor.page.emulate_media(media="print")
    assert visitor.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not visitor.page.locator(".tools").is_visible() and len(names(visitor)) == 60
    assert_quiet(visitor, address)
