"""The page of a large gallery in a real browser: what it does not hold is read from files beside it, on demand."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from gallery import page as gallery_page
from gallery.page import LIST_SIZE, Entry
from tests.support.browser import Visit
from tests.support.gallery import assert_no_errors, attention, names, save_entry, write_page

Open = Callable[..., Visit]
COUNT = 500
IN_PAGE = 60  # fewer than in truth: axe takes seconds for hundreds of cards
ODD = 377  # an image that no other resembles
MISSING = "files are missing"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of COUNT images with references and attention maps; their log-probabilities rise."""
    folder = tmp_path_factory.mktemp("large")
    one = save_entry(Image.new("RGB", (64, 48), "red"), Entry("red.png", [("a red field", -1.0)]), folder, set())
    entries = []
    for number in range(COUNT):
        file, odd = f"{number}.jpg", number == ODD
        shutil.copyfile(folder / "pictures" / one.file, folder / "pictures" / file)
        candidates = [("zebras all over" if odd else "a red field", number - 1000.0), ("red", number - 1001.0)]
        references = ["Zebras in the Serengeti ."] if odd else ["All red .", f"Red is number {number}, all of it ."]
        entries.append(Entry(file, candidates, references, file, 64, 48, attention([0, 4, 8])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery_page, "IN_PAGE", IN_PAGE)
        return write_page(folder, entries)


def card(visitor: Visit, number: int) -> Locator:
    """The card in this place of the page as it is sorted."""
    return visitor.page.locator(".card").nth(number)


def test_only_pictures_and_cards_near_the_window_are_loaded(address: str, visit: Open) -> None:
    visitor = visit(address)
    visitor.page.wait_for_load_state("networkidle")
    assert 5 < len(visitor.requests) < 70 and not any("/cards/" in request for request in visitor.requests)
    assert visitor.page.locator(".card").count() == COUNT and visitor.page.locator("img").count() == IN_PAGE
    assert visitor.page.locator("img").last.evaluate("image => image.naturalWidth") == 0
    last = card(visitor, COUNT - 1)
    last.scroll_into_view_if_needed()
    expect(last.locator("img")).to_have_js_property("naturalWidth", 64)
    expect(last.locator("bdi")).to_have_text("499.jpg")
    assert 0 < sum("/cards/" in request for request in visitor.requests) <= 3 and len(visitor.requests) < 200
    assert visitor.page.locator("img").count() < IN_PAGE + LIST_SIZE
    assert_no_errors(visitor, address)


def test_cards_that_are_loaded_later_have_attention_maps_and_follow_the_button_for_details(
    address: str, visit: Open
) -> None:
    visitor = visit(address)
    opener = visitor.page.get_by_role("button", name="Show all details")
    opener.click()
    place = card(visitor, 300)
    place.scroll_into_view_if_needed()
    expect(place.locator("details").first).to_have_attribute("open", "")
    expect(place.locator("li").last).to_have_text("Red is number 300, all of it .")
    place.locator(".frame").focus()
    visitor.page.keyboard.press("Tab")
    visitor.page.keyboard.press("ArrowRight")
    assert visitor.page.evaluate("document.activeElement.textContent") == "red"
    expect(place.locator("canvas")).to_have_count(1)
    assert visitor.page.locator("#attention-status").inner_text() == "attention: middle centre"
    opener.click()
    assert visitor.page.locator("details[open]").count() == 0
    assert_no_errors(visitor, address)


def test_the_keyboard_reaches_cards_that_were_empty(address: str, visit: Open) -> None:
    visitor = visit(address)
    link = card(visitor, IN_PAGE - 1).locator("summary").last
    link.focus()
    expect(card(visitor, IN_PAGE).locator("img")).to_have_count(1)  # filled before it is reached
    visitor.page.keyboard.press("Tab")
    assert visitor.page.evaluate("document.activeElement.getAttribute('href')") == f"{IN_PAGE}.jpg"


def test_search_and_sorting_are_over_all_images(address: str, visit: Open) -> None:
    visitor = visit(address)
    box, count = visitor.page.get_by_label("Search"), visitor.page.locator("#count")
    box.fill("serengeti")  # a word of a reference
    expect(count).to_have_text("1 of 500 shown")
    expect(card(visitor, 0).locator("bdi")).to_have_text(f"{ODD}.jpg")
    assert card(visitor, 0).bounding_box()["width"] < 400  # as wide as any other
    found = [f"{number}.jpg" for number in range(COUNT) if "49" in str(number)]
    box.fill("number 49")
    expect(count).to_have_text(f"{len(found)} of 500 shown")
    shown = visitor.page.locator(".card bdi")
    expect(shown).to_have_text(found)
    visitor.page.get_by_label("Sort by").select_option(label="log-probability, highest first")
    expect(shown).to_have_text(found[::-1])
    box.fill("")
    expect(count).to_have_text("")
    expect(card(visitor, 3).locator("bdi")).to_have_text("496.jpg")
    visitor.page.get_by_label("Sort by").select_option(label="CIDEr, lowest first")
    assert visitor.page.locator(".card").count() == COUNT
    assert_no_errors(visitor, address)


def test_on_a_phone_axe_finds_no_accessibility_violation(address: str, visit: Open) -> None:
    visitor = visit(address, width=390, color_scheme="dark")
    card(visitor, 400).scroll_into_view_if_needed()
    expect(card(visitor, 400).locator("img")).to_have_count(1)
    assert visitor.accessibility_violations() == []
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_missing_files_are_told(address: str, visit: Open, tmp_path: Path) -> None:
    page = tmp_path / "captions_result.html"
    shutil.copyfile(Path(address.removeprefix("file://")), page)
    visitor = visit(page.as_uri())
    told = visitor.page.get_by_role("alert").filter(has_text=MISSING)
    assert told.count() == 0 and len(names(visitor)) == COUNT - visitor.page.locator(".card:empty").count()
    card(visitor, COUNT - 1).scroll_into_view_if_needed()
    expect(told).to_be_visible()
    again = visit(page.as_uri())
    again.page.get_by_label("Search").fill("zebras")
    expect(again.page.get_by_role("alert").filter(has_text=MISSING)).to_be_visible()
    expect(again.page.locator("#count")).to_have_text("0 of 500 shown")


def test_without_scripts_the_first_images_are_there(address: str, visit: Open) -> None:
    visitor = visit(address, java_script_enabled=False)
    assert len(names(visitor)) == IN_PAGE and not visitor.page.locator(".card:empty").last.is_visible()
    visitor.page.locator("summary").first.click()
    assert "Red is number 0, all of it ." in card(visitor, 0).inner_text()


def test_printing_leaves_out_cards_that_are_empty(address: str, visit: Open) -> None:
    visitor = visit(address)
    visitor.page.emulate_media(media="print")
    assert len(names(visitor)) == IN_PAGE and not visitor.page.locator(".card:empty").last.is_visible()
