"""The gallery page in a real browser: opened from disk, searched, sorted, with attention maps, accessible, printed."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from playwright.sync_api import expect

from files import encodable
from gallery import heatmap
from gallery.agreement import MIN_IMAGES
from gallery.page import Entry
from inference_visualize import main
from tests.support.browser import Visit
from tests.support.gallery import assert_no_errors, attention, names, save_entry, write_page
from tests.support.helpers import COLOURS, SHAPES, draw
from tests.support.hostile import HOSTILE

Open = Callable[..., Visit]
WRONG = 17  # the image whose caption shares no word with its references
RIGHT = 30  # an image whose caption equals one of its references


def make_entry(number: int, folder: Path, taken: set[str]) -> Entry:
    """An image of a coloured shape, with a caption and two references."""
    colour, shape = COLOURS[number % 4], SHAPES[number // 4 % 2]
    with Image.open(draw(folder / "drawn.png", shape, colour, (200 + number, 150))) as image:
        caption = {WRONG: "zebras everywhere", RIGHT: f"a {colour} {shape} on white"}.get(number, f"a {colour} square")
        references = [f"A {colour} {shape} on white .", f"Here is one {shape}, {colour}."]
        weights = attention([word % 9 for word in range(len(caption.split()))])
        entry = Entry(f"shape_{number:03}.png", [(caption, -(number * 7 % 60) / 10)], references, attention=weights)
        return save_entry(image.convert("RGB"), entry, folder, taken)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Entry]]:
    """A folder with the images of 60 entries, and the entries."""
    folder, taken = tmp_path_factory.mktemp("gallery"), set[str]()
    return folder, [make_entry(number, folder, taken) for number in range(60)]


@pytest.fixture
def address(entries: tuple[Path, list[Entry]]) -> str:
    """A page with all of them."""
    return write_page(*entries, skipped=[("broken.jpg", "not an image")])


def test_the_page_of_the_script_opens_from_disk(
    tmp_path: Path, tiny_data: Path, tiny_checkpoint: Path, visit: Open
) -> None:
    options = {"--checkpoint": tiny_checkpoint, "--images": tiny_data / "images", "--output_dir": tmp_path}
    main(["--device", "cpu", *(str(word) for option in options.items() for word in option)])
    address = (tmp_path / "captions_result.html").as_uri()
    visitor = visit(address)
    assert len(names(visitor)) == 16
    assert "CIDEr" not in visitor.page.locator("body").inner_text()  # there are no references
    visitor.page.locator(".frame").first.click(modifiers=["Control"])  # opens the captioned JPG in a tab
    assert_no_errors(visitor, address)


def test_search_finds_words_and_file_names(address: str, visit: Open) -> None:
    visitor = visit(address)
    box, count = visitor.page.get_by_label("Search"), visitor.page.locator("#count")
    box.fill("ZEBRAS")
    expect(count).to_have_text("1 of 60 shown")
    assert names(visitor) == [f"shape_{WRONG:03}.png"]
    box.fill("here 02")  # a word of a reference, and part of a file name
    expect(count).to_have_text("11 of 60 shown")
    box.fill("in no caption")
    expect(visitor.page.get_by_text("No image matches")).to_be_visible()
    expect(count).to_have_text("0 of 60 shown")
    assert names(visitor) == []
    box.fill("")
    expect(count).to_have_text("")
    assert len(names(visitor)) == 60
    assert_no_errors(visitor, address)


def test_sorting_also_search_results(address: str, visit: Open) -> None:
    visitor = visit(address)
    order, given = visitor.page.get_by_label("Sort by"), names(visitor)
    order.select_option(label="CIDEr, lowest first")
    assert names(visitor)[0] == f"shape_{WRONG:03}.png" and f"shape_{RIGHT:03}.png" in names(visitor)[-10:]
    shown = [
        float(text.split("CIDEr ")[1]) for text in visitor.page.locator("summary", has_text="CIDEr").all_text_contents()
    ]
    assert shown[0] == 0 and shown == sorted(shown) and shown[-1] > 100
    order.select_option(label="CIDEr, highest first")
    assert names(visitor)[-1] == f"shape_{WRONG:03}.png"
    order.select_option(label="log-probability, highest first")
    assert names(visitor) == sorted(given, key=lambda name: int(name[6:9]) * 7 % 60)
    visitor.page.get_by_label("Search").fill("01")
    expect(visitor.page.locator("#count")).to_have_text("11 of 60 shown")
    order.select_option(label="log-probability, lowest first")
    assert names(visitor) == sorted(
        (name for name in given if "01" in name), key=lambda name: -(int(name[6:9]) * 7 % 60)
    )
    order.select_option(label="original order")
    assert names(visitor) == [name for name in given if "01" in name]
    assert_no_errors(visitor, address)


def test_few_images_have_no_cider_and_the_page_explains_why(entries: tuple[Path, list[Entry]], visit: Open) -> None:
    page = visit(write_page(entries[0], entries[1][: MIN_IMAGES - 1])).page
    orders = page.get_by_label("Sort by").locator("option").all_inner_texts()
    assert orders == ["original order", "log-probability, lowest first", "log-probability, highest first"]
    footer = re.sub(r"\s+", " ", page.locator("footer").inner_text())
    assert (
        f"CIDEr is not shown: it weights words by how rare they are, which takes at least {MIN_IMAGES} images" in footer
    )
    assert page.locator("summary", has_text="CIDEr").count() == 0


def test_a_single_image_is_large_and_has_nothing_to_search(entries: tuple[Path, list[Entry]], visit: Open) -> None:
    page = visit(write_page(entries[0], entries[1][:1])).page
    assert page.locator(".frame").first.bounding_box()["width"] == 640 and not page.locator(".tools").is_visible()
    assert page.locator(".text h2").first.bounding_box()["x"] > 640 and page.locator("table").is_visible()


def test_three_images_fill_a_row_and_a_search_result_does_not(entries: tuple[Path, list[Entry]], visit: Open) -> None:
    page = visit(write_page(entries[0], entries[1][:3])).page
    boxes = [card.bounding_box() for card in page.locator(".card").all()]
    assert len({box["y"] for box in boxes}) == 1 and boxes[2]["x"] + boxes[2]["width"] > 1390
    page = visit(write_page(*entries)).page
    page.get_by_label("Search").fill("zebras")
    expect(page.locator("#count")).to_have_text("1 of 60 shown")
    assert page.locator(".card").bounding_box()["width"] < 400


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
    assert "In none of them: zebras, everywhere" in cards.nth(WRONG).inner_text()  # for screen readers


def peak(visitor: Visit, rows: int = 3, columns: int = 3) -> tuple[int, int] | None:
    """Row and column of the cell where the heat map on the page is yellowest; None if there is no heat map."""
    if visitor.page.locator(".frame canvas").count() == 0:
        return None
    colours = colours_at_centres(visitor, rows, columns)
    red = [colour[0] for colour in colours]
    return divmod(red.index(max(red)), columns)


def colours_at_centres(visitor: Visit, rows: int, columns: int) -> list[list[int]]:
    """Red, green, blue and alpha of the heat map at the centre of each cell, row by row."""
    colours: list[list[int]] = visitor.page.evaluate(
        """([rows, columns]) => {
            const canvas = document.querySelector(".frame canvas");
            const pen = canvas.getContext("2d");
            const colours = [];
            for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) {
                const x = Math.floor((column + 0.5) / columns * canvas.width);
                const y = Math.floor((row + 0.5) / rows * canvas.height);
                colours.push([...pen.getImageData(x, y, 1, 1).data]);
            }
            return colours;
        }""",
        [rows, columns],
    )
    return colours


def test_arrow_keys_move_between_words_and_show_their_attention(address: str, visit: Open) -> None:
    visitor = visit(address)
    keyboard, announced = visitor.page.keyboard, visitor.page.locator("#attention-status")
    visitor.page.locator(".frame").first.focus()
    assert peak(visitor) is None
    keyboard.press("Tab")
    assert visitor.page.evaluate("document.activeElement.textContent") == "a"
    assert peak(visitor) == (0, 0) and announced.inner_text() == "attention: top left"
    keyboard.press("ArrowRight")
    assert visitor.page.evaluate("document.activeElement.textContent") == "red"
    assert peak(visitor) == (0, 1) and announced.inner_text() == "attention: top centre"
    for _ in range(5):  # the third word is the last
        keyboard.press("ArrowRight")
    assert peak(visitor) == (0, 2) and announced.inner_text() == "attention: top right"
    keyboard.press("ArrowLeft")
    assert peak(visitor) == (0, 1)
    box, frame = visitor.page.locator("canvas").bounding_box(), visitor.page.locator(".frame").first.bounding_box()
    assert box == frame
    keyboard.press("Escape")
    assert peak(visitor) is None and announced.inner_text() == ""
    keyboard.press("Tab")  # a caption is one stop; next are the references
    assert visitor.page.evaluate("document.activeElement.tagName") == "SUMMARY"
    keyboard.press("Enter")
    assert visitor.page.locator("details").first.evaluate("details => details.open")
    assert_no_errors(visitor, address)


def test_a_grid_need_not_be_square(entries: tuple[Path, list[Entry]], visit: Open) -> None:
    folder, (entry, *_) = entries
    weights = attention([0, 4, 6, 9], (2, 5))
    wide = replace(entry, candidates=[("one two three four", -1.0)], attention=weights)
    tall = replace(wide, attention=weights.transpose(1, 2))
    address = write_page(folder, [wide, tall])
    visitor = visit(address)
    words, announced = visitor.page.locator("[data-attention] > *"), visitor.page.locator("#attention-status")
    places = [((0, 0), "top left"), ((0, 4), "top right"), ((1, 1), "bottom left"), ((1, 4), "bottom right")]
    for number, (cell, place) in enumerate(places):
        words.nth(number).focus()
        assert peak(visitor, 2, 5) == cell and announced.inner_text() == f"attention: {place}"
    for number, (row, column) in enumerate(cell for cell, _ in places):
        words.nth(4 + number).focus()
        assert peak(visitor, 5, 2) == (column, row)
    assert_no_errors(visitor, address)


def test_uniform_attention_is_announced_as_spread(entries: tuple[Path, list[Entry]], visit: Open) -> None:
    folder, (entry, *_) = entries
    uniform = replace(entry, candidates=[("everything", -1.0)], attention=torch.full((1, 2, 5), 0.1))
    visitor = visit(write_page(folder, [uniform]))
    visitor.page.locator("[data-attention] > *").first.focus()
    assert visitor.page.locator("#attention-status").inner_text() == "attention: spread over the whole image"
    for colour in colours_at_centres(visitor, 2, 5):  # the hottest colour of heatmap.py, as opaque as there
        assert colour == pytest.approx([*heatmap.HOT, 255 * heatmap.OPACITY], abs=2)


def test_mouse_and_touch_show_attention_too(address: str, visit: Open) -> None:
    mouse = visit(address)
    mouse.page.locator("[data-attention] > *").nth(2).hover()
    assert peak(mouse) == (0, 2)
    mouse.page.get_by_role("heading", level=1).hover()
    assert peak(mouse) is None
    phone = visit(address, width=390, has_touch=True, is_mobile=True)
    phone.page.locator("[data-attention] > *").nth(1).tap()
    assert peak(phone) == (0, 1)
    phone.page.locator(".name").first.tap()
    assert peak(phone) is None
    for visitor in (mouse, phone):
        assert_no_errors(visitor, address)


def test_in_a_right_to_left_caption_the_left_arrow_moves_forward(
    entries: tuple[Path, list[Entry]], visit: Open
) -> None:
    folder, (entry, *_) = entries
    hebrew = replace(entry, candidates=[("כלב אדום רץ", -1.0)], attention=attention([0, 4, 8]))
    visitor = visit(write_page(folder, [hebrew]))
    visitor.page.locator("[data-attention] > *").first.focus()
    visitor.page.keyboard.press("ArrowLeft")
    assert peak(visitor) == (1, 1)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_axe_finds_no_accessibility_violation(address: str, visit: Open, width: int, scheme: str) -> None:
    visitor = visit(address, width=width, color_scheme=scheme)
    dark = visitor.page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]) < 128")
    assert dark == (scheme == "dark")
    assert visitor.accessibility_violations() == []
    visitor.page.get_by_role("button", name="Show all details").click()
    visitor.page.locator("[data-attention] > *").first.focus()
    assert visitor.accessibility_violations() == []
    assert_no_errors(visitor, address)


def test_the_head_of_a_phone_leaves_room_for_the_first_image(address: str, visit: Open) -> None:
    page = visit(address, width=390, height=844).page
    assert page.locator(".card").first.bounding_box()["y"] < 345
    assert page.locator(".totals").inner_text().split("\n")[-1] == "1"  # skipped


def test_hostile_texts_are_shown_as_text(tmp_path: Path, visit: Open) -> None:
    taken: set[str] = set()
    entries = [Entry(text + ".jpg", [(text, -1.0)], [text, f"a {text}"]) for text in HOSTILE]
    found = [save_entry(Image.new("RGB", (40, 30)), entry, tmp_path, taken) for entry in entries]
    address = write_page(tmp_path, found, [(text, text) for text in HOSTILE])
    visitor = visit(address, width=390)
    visitor.page.get_by_role("button", name="Show all details").click()
    for part, expected in [
        ("h2[data-search]", HOSTILE),
        ("li li:first-child", HOSTILE),
        (".name bdi", [text + ".jpg" for text in HOSTILE]),
    ]:
        texts = visitor.page.locator(part).all_text_contents()
        readable = [encodable(text).replace("\0", "").split() for text in expected]  # browsers drop null characters
        assert [text.split() for text in texts] == [
            words or ["(empty", "caption)"] * (part[:2] == "h2") for words in readable
        ], part
    assert visitor.page.evaluate("[document.scripts.length, document.images.length]") == [1, len(HOSTILE)]
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390
    cut = "cards => cards.filter((card) => card.scrollWidth > card.clientWidth).length"
    assert visitor.page.locator(".words").evaluate_all(cut) == 0  # long words are wrapped
    assert_no_errors(visitor, address)


def test_without_scripts_all_content_is_there(address: str, visit: Open) -> None:
    visitor = visit(address, java_script_enabled=False)
    assert visitor.page.locator(".card").count() == len(names(visitor)) == 60
    assert not visitor.page.locator(".tools, #attention-help").first.is_visible()
    visitor.page.locator("summary").first.click()
    assert "Here is one circle, red." in visitor.page.locator(".card").first.inner_text()


def test_printing_shows_every_image_on_white(address: str, visit: Open) -> None:
    visitor = visit(address, color_scheme="dark")
    pdf = visitor.page.pdf(format="A4")
    assert len(re.findall(rb"/Subtype\s*/Image", pdf)) == 60  # also those not scrolled to yet
    visitor.page.emulate_media(media="print")
    assert visitor.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not visitor.page.locator(".tools").is_visible() and len(names(visitor)) == 60
    assert_no_errors(visitor, address)
