"""app.py in a real browser: what a visitor sees, and what hostile files and texts cannot do."""

import csv
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from demo import EXAMPLES, uploads
from demo.limits import MAX_FILES, VISITOR_FULL
from demo.texts import CHINESE, ENGLISH
from tests.support.browser import Visit
from tests.support.demo_folder import HOSTILE_NAME, HOSTILE_WORDS, save_photo
from tests.support.streamlit_server import Server, serve

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def site(demo_folder: Path, chromium: object) -> Iterator[Server]:  # without a browser, no server is started
    with serve(demo_folder) as server:
        yield server


def upload(page: Page, *files: Path | dict[str, object]) -> None:
    page.locator("input[type=file]").set_input_files(list(files), timeout=60_000)  # type: ignore[arg-type]


def captions(page: Page) -> Locator:
    return page.locator("h2.caption")


def shown(page: Page, name: str) -> Locator:
    """The name beside a captioned photo: until one is uploaded, an example is shown."""
    return page.locator("p.text", has_text=name)


def assert_no_errors(visitor: Visit, site: Server) -> None:
    """No error on the console, and no request to another server."""
    assert visitor.errors == [] and visitor.page.get_by_test_id("stException").count() == 0
    assert [address for address in visitor.requests if not address.startswith((site.address, "data:", "blob:"))] == []


def choose_model(page: Page, name: str) -> None:
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name=name).click()


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_a_visitor_captions_a_photo_and_sees_its_attention_maps(
    site: Server,
    visit: Open,
    tmp_path: Path,
    width: int,
    scheme: str,
) -> None:
    visitor = visit(site.address, width=width, color_scheme=scheme)
    page = visitor.page
    expect(captions(page)).to_have_count(1)  # of the first example
    upload(page, save_photo(tmp_path / "dog.jpg"))
    expect(shown(page, "dog.jpg")).to_be_visible()
    expect(captions(page)).to_have_count(1)  # the example has gone
    assert captions(page).inner_text() and page.locator(".strip").count() == 0
    box = page.locator(".play").bounding_box()
    assert box["y"] + box["height"] <= 900  # photo, caption and button are in the first screen
    words, told = page.locator(".word"), page.locator(".told")
    for number in range(2):
        words.nth(number).click()
        expect(page.locator(".frame canvas")).to_have_count(1)
        expect(told).to_have_text(re.compile(rf"^{words.nth(number).inner_text()} .*% · Instead: .*%"))
    page.keyboard.press("ArrowLeft")
    assert words.nth(0).evaluate("word => word.getRootNode().activeElement === word")
    page.keyboard.press("Escape")
    expect(page.locator(".frame canvas")).to_have_count(0)
    play = page.locator(".play")
    play.click()
    for word in words.all():  # one after the other
        expect(word).to_have_class("word shown")
    expect(play).to_have_text("▶ Play all words")  # ended
    expect(page.get_by_text("The model guesses")).to_be_visible()
    page.wait_for_timeout(1000)  # Streamlit fades new elements in; until then axe reports low contrast
    assert visitor.accessibility_violations() == [] and fits(page)
    assert_no_errors(visitor, site)


def test_unusable_files_get_a_fixed_message_while_other_visitors_are_served(
    site: Server,
    visit: Open,
    tmp_path: Path,
) -> None:
    one, other = visit(site.address), visit(site.address)
    huge = tmp_path / "huge.png"
    Image.new("1", (10_000, 5_001)).save(huge)
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(save_photo(tmp_path / "whole.jpg").read_bytes()[:-2000])
    lying = tmp_path / "lying.jpg"
    lying.write_bytes(b"<script>alert('garbage')</script>")
    upload(one.page, lying, huge, cut)
    upload(other.page, save_photo(tmp_path / "dog.jpg", 1))
    expect(shown(other.page, "dog.jpg")).to_be_visible()
    for message in (uploads.NOT_AN_IMAGE, uploads.TOO_MANY_PIXELS, uploads.DAMAGED):
        expect(one.page.get_by_text(message)).to_be_visible()
    expect(captions(one.page)).to_have_count(0)
    assert "garbage" not in one.page.content()
    for visitor in (one, other):
        assert_no_errors(visitor, site)


def test_a_file_of_the_maximum_size_is_accepted_and_a_larger_one_is_not(
    site: Server, visit: Open, tmp_path: Path
) -> None:
    """The server of these tests cannot write files, so the 10 MB stay in memory."""
    visitor = visit(site.address)
    data = save_photo(tmp_path / "dog.jpg").read_bytes()
    full = {
        "name": "full.jpg",
        "mimeType": "image/jpeg",
        "buffer": data + os.urandom(uploads.MAX_UPLOAD_BYTES - len(data)),
    }
    upload(visitor.page, full)
    expect(shown(visitor.page, "full.jpg")).to_be_visible()
    upload(visitor.page, full | {"buffer": bytes(uploads.MAX_UPLOAD_BYTES + 1), "name": "over.jpg"})
    expect(visitor.page.get_by_text("10.0MB or smaller")).to_be_visible()
    expect(captions(visitor.page)).to_have_count(1)
    assert_no_errors(visitor, site)


def test_photos_above_the_limit_are_refused_in_words_until_there_is_room(
    site: Server, visit: Open, tmp_path: Path
) -> None:
    page = visit(site.address).page
    photos = [save_photo(tmp_path / f"{number}.jpg", number, (80, 60)) for number in range(MAX_FILES + 1)]
    upload(page, *photos)
    expect(page.get_by_text(VISITOR_FULL)).to_be_visible()
    sources = page.get_by_test_id("stButtonGroup").nth(1)
    sources.get_by_text("Camera", exact=True).click()
    expect(page.get_by_test_id("stCameraInput")).to_be_visible()
    expect(page.get_by_test_id("stFileUploader")).to_have_count(0)
    sources.get_by_text("Upload", exact=True).click()
    expect(page.get_by_test_id("stFileUploader")).to_be_visible()
    expect(page.get_by_text(VISITOR_FULL)).to_have_count(0)
    upload(page, *photos[:MAX_FILES])
    expect(captions(page)).to_have_count(10)
    expect(page.get_by_test_id("stFileChip")).to_have_count(MAX_FILES)
    expect(page.get_by_text(VISITOR_FULL)).to_have_count(0)
    expect(page.get_by_test_id("stFileUploader").get_by_role("alert")).to_have_count(0)


def test_photos_that_were_left_before_all_had_arrived_leave_room_for_others(
    site: Server, visit: Open, tmp_path: Path
) -> None:
    page = visit(site.address).page
    photos = [save_photo(tmp_path / f"{number}.jpg", number, (80, 60)) for number in range(MAX_FILES + 1)]
    slow: list[Route] = []  # the first upload does not end, so the page never learns of the others
    page.route("**/upload_file/**", lambda route: slow.extend([route]), times=1)
    upload(page, *photos, save_photo(tmp_path / "last.jpg"))
    expect(page.get_by_text(VISITOR_FULL)).to_be_visible()
    sources = page.get_by_test_id("stButtonGroup").nth(1)
    sources.get_by_text("Camera", exact=True).click()
    expect(page.get_by_test_id("stFileUploader")).to_have_count(0)
    assert slow
    slow[0].continue_()
    sources.get_by_text("Upload", exact=True).click()
    expect(page.get_by_test_id("stFileUploader")).to_be_visible()
    expect(page.get_by_text(VISITOR_FULL)).to_have_count(0)
    upload(page, *photos[:MAX_FILES])
    expect(page.get_by_test_id("stFileChip")).to_have_count(MAX_FILES)
    expect(captions(page)).to_have_count(10)
    expect(page.get_by_text(VISITOR_FULL)).to_have_count(0)


def test_hostile_names_and_captions_are_shown_as_text(site: Server, visit: Open, tmp_path: Path) -> None:
    names = [HOSTILE_NAME, "x" * 2_000, "words " * 300, "\u202egnp.live"]  # servers do not accept longer names
    visitor = visit(site.address, width=390)
    page = visitor.page
    page.on("dialog", lambda dialog: visitor.errors.append(f"a script ran: {dialog.message}"))
    page.get_by_test_id("stExpandSidebarButton").click()
    choose_model(page, "runs/hostile")
    page.get_by_test_id("stSidebarCollapseButton").click()
    data = save_photo(tmp_path / "dog.jpg").read_bytes()
    upload(page, *[{"name": f"{name}.jpg", "mimeType": "image/jpeg", "buffer": data} for name in names])
    expect(captions(page)).to_have_count(len(names))
    for number in range(len(names)):
        captions(page).nth(number).locator(".word").first.click()
        expect(page.locator(".frame canvas")).to_have_count(number + 1)
        text = captions(page).nth(number).text_content() or ""
        assert all(word in text for word in HOSTILE_WORDS)
    # Only the model card has links.
    assert page.locator("[data-testid=stMain] :is(script, a[href]):not([data-testid=stExpander] *)").count() == 0
    assert page.locator(".text *").count() == 0
    assert page.locator(".word *").count() == 0 and page.locator(".told :not(b, .hidden)").count() == 0
    assert fits(page)
    assert_no_errors(visitor, site)


def test_captions_are_downloaded_and_copied(site: Server, visit: Open, tmp_path: Path) -> None:
    visitor = visit(site.address, permissions=["clipboard-read", "clipboard-write"])
    page = visitor.page
    upload(page, save_photo(tmp_path / "my dog.jpg"))
    expect(shown(page, "my dog.jpg")).to_be_visible()
    expect(captions(page)).to_have_count(1)
    found = {}
    for button in (ENGLISH.download_csv, ENGLISH.download_json, ENGLISH.download_image):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        found[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert list(found) == ["captions.csv", "captions.json", "my_dog.jpg"]
    rows = list(csv.DictReader(io.StringIO(found["captions.csv"].decode("utf-8-sig"))))
    assert [row["image"] for row in rows] == ["my dog.jpg"]
    assert rows[0]["caption"] == captions(page).text_content()
    assert Image.open(io.BytesIO(found["my_dog.jpg"])).width == 640
    page.get_by_test_id("stCode").first.hover()
    page.get_by_test_id("stCode").first.get_by_role("button").click()
    assert page.evaluate("navigator.clipboard.readText()") == rows[0]["caption"].capitalize() + "."
    assert_no_errors(visitor, site)


def test_a_click_chooses_an_example_and_the_page_speaks_chinese(site: Server, visit: Open) -> None:
    visitor = visit(f"{site.address}/?lang=zh", width=390, height=844)
    page = visitor.page
    expect(page.get_by_role("heading", name=CHINESE.title)).to_be_visible()
    expect(shown(page, EXAMPLES[0])).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    chosen = page.locator(".strip button").nth(1)
    chosen.click()
    expect(shown(page, EXAMPLES[1])).to_be_visible()
    expect(page.locator(".strip button").nth(1)).to_have_attribute("aria-pressed", "true")
    page.get_by_test_id("stButtonGroup").first.get_by_text("English", exact=True).click()
    expect(page.get_by_role("heading", name=ENGLISH.title)).to_be_visible()
    expect(page).to_have_url(f"{site.address}/?lang=en")
    expect(shown(page, EXAMPLES[1])).to_be_visible()  # nothing is lost
    page.wait_for_timeout(1000)  # Streamlit fades new elements in
    assert visitor.accessibility_violations() == [] and fits(page)
    assert_no_errors(visitor, site)
