"""The lightbox of the gallery page in a real browser: keyboard, buttons, swipes, and where the focus is."""

from collections.abc import Callable

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from gallery import page as gallery_page
from gallery.page import Entry
from tests.support.browser import Visit
from tests.support.gallery import assert_no_errors, attention, save_entry, write_page

Open = Callable[..., Visit]
COUNT = 70  # more than one list of cards


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of COUNT images whose last ones it reads from a file; the third is narrow."""
    folder, taken = tmp_path_factory.mktemp("lightbox"), set[str]()
    entries = []
    for number in range(COUNT):
        size = (60, 900) if number == 2 else (900, 600)
        entry = Entry(f"{number:02}.png", [(f"dog {number}", -number / 10)], ["A dog ."], attention=attention([0, 4]))
        entries.append(save_entry(Image.new("RGB", size, (number, 90, 90)), entry, folder, taken))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery_page, "IN_PAGE", gallery_page.LIST_SIZE)
        return write_page(folder, entries)


def caption(page: Page) -> str:
    return page.locator("dialog h2").inner_text()


def test_an_image_opens_large_and_the_keys_lead_to_the_others(address: str, visit: Open) -> None:
    visitor = visit(address)
    page, keyboard = visitor.page, visitor.page.keyboard
    page.locator(".frame").first.focus()
    keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()
    expect(page.locator("dialog .large")).to_have_js_property("naturalWidth", 900)
    frame, view = page.locator("dialog .frame").bounding_box(), page.locator(".view").bounding_box()
    assert frame["width"] > 900 and frame["width"] / frame["height"] == pytest.approx(1.5, abs=0.01)
    assert frame["width"] == pytest.approx(view["width"], abs=1) or frame["height"] == pytest.approx(
        view["height"], abs=1
    )
    assert caption(page) == "dog 0" and page.locator("#place").inner_text() == f"1 of {COUNT}"
    assert page.get_by_role("button", name="Previous image").is_disabled()
    for key, text in (("ArrowRight", "dog 1"), ("ArrowRight", "dog 2"), ("ArrowLeft", "dog 1"), ("ArrowLeft", "dog 0")):
        keyboard.press(key)
        expect(page.locator("dialog h2")).to_have_text(text)
    keyboard.press("ArrowLeft")  # there is none before the first
    assert caption(page) == "dog 0"
    page.get_by_role("button", name="Next image").click()
    expect(page.locator("dialog h2")).to_have_text("dog 1")
    keyboard.press("Escape")
    expect(page.locator("dialog")).not_to_be_visible()
    assert page.evaluate("document.activeElement.getAttribute('href')") == "01.jpg"  # the focus follows
    assert_no_errors(visitor, address)


def test_the_focus_stays_inside_and_words_have_their_maps_there(address: str, visit: Open) -> None:
    visitor = visit(address)
    page, keyboard = visitor.page, visitor.page.keyboard
    page.locator(".frame").first.click()
    for _ in range(12):
        keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    word = page.locator("dialog [data-attention] > *").first
    word.click()
    expect(page.locator("dialog .frame canvas")).to_have_count(1)
    canvas, frame = page.locator("dialog canvas").bounding_box(), page.locator("dialog .frame").bounding_box()
    assert canvas == frame
    keyboard.press("ArrowRight")  # to the next word, not to the next image
    assert page.evaluate("document.activeElement.textContent") == "0" and caption(page) == "dog 0"
    assert page.locator("#attention-status").inner_text() == "attention: middle centre"
    assert visitor.accessibility_violations() == []
    assert_no_errors(visitor, address)


def test_a_narrow_image_is_shown_without_the_margins_of_its_captioned_jpg(address: str, visit: Open) -> None:
    page = visit(address).page
    page.locator(".frame").nth(2).click()
    expect(page.locator("dialog .frame img")).to_have_js_property("naturalHeight", 640)
    page.wait_for_load_state("networkidle")
    assert page.locator("dialog .large").count() == 0


def test_it_follows_search_and_order_and_fills_cards_that_were_empty(address: str, visit: Open) -> None:
    visitor = visit(address)
    page = visitor.page
    page.get_by_label("Sort by").select_option(label="log-probability, lowest first")
    page.get_by_label("Search").fill("dog 6")
    expect(page.locator("#count")).to_have_text("16 of 70 shown")
    expect(page.locator(".card .frame").first).to_be_visible()
    page.locator(".frame").first.click()
    for number in (69, 68, 67, 66):
        expect(page.locator("dialog h2")).to_have_text(f"dog {number}")
        page.keyboard.press("ArrowRight")
    expect(page.locator("#place")).to_have_text("5 of 16")
    assert_no_errors(visitor, address)


def test_swipes_on_a_phone(address: str, visit: Open) -> None:
    visitor = visit(address, width=390, height=844, has_touch=True, is_mobile=True)
    page = visitor.page
    page.locator(".frame").first.tap()
    expect(page.locator("dialog h2")).to_have_text("dog 0")
    swipe = """([from, to]) => {
        const view = document.querySelector("dialog .frame"), finger = (x, y) =>
            new Touch({ identifier: 1, target: view, clientX: x, clientY: y });
        view.dispatchEvent(new TouchEvent("touchstart", { touches: [finger(...from)] }));
        view.dispatchEvent(new TouchEvent("touchend", { changedTouches: [finger(...to)] }));
    }"""
    for start, end, text in (
        ((300, 300), (100, 310), "dog 1"),  # to the left: the next one
        ((300, 300), (280, 300), "dog 1"),  # a tap
        ((300, 100), (200, 400), "dog 1"),  # scrolling
        ((100, 300), (300, 310), "dog 0"),
    ):
        page.evaluate(swipe, [start, end])
        expect(page.locator("dialog h2")).to_have_text(text)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visitor.accessibility_violations() == []
    page.get_by_role("button", name="Close").tap()
    expect(page.locator("dialog")).not_to_be_visible()
    assert_no_errors(visitor, address)
