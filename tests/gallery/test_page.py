"""gallery/page.py: the HTML, without a browser (test_page_browser.py has one)."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from files import encodable
from gallery import heatmap
from gallery import page as gallery_page
from gallery.agreement import MIN_IMAGES
from gallery.page import IN_PAGE, LIST_SIZE, Entry, Page, alt_text, csp_hash, render_page
from models.captioner import Candidate
from tests.support.gallery import save_entry
from tests.support.hostile import HOSTILE
from tests.support.html_page import HtmlPage


def entry(name: str = "dog.jpg", caption: str = "a dog runs", **more: Any) -> Entry:
    return Entry(name, [(caption, -1.5), ("a dog", -2.25)], **more)


def attended(caption: str, *cells: int, grid: tuple[int, int] = (3, 3)) -> Entry:
    """An entry whose decoder attends mostly to one cell of the grid for each word."""
    area = grid[0] * grid[1]
    weights = torch.nn.functional.one_hot(torch.tensor(cells).long(), area) * 0.8 + 0.2 / area
    return entry(caption=caption, attention=weights.reshape(len(cells), *grid))


def render(*entries: Entry) -> str:
    return render_page(entries, skipped=[], checkpoint="checkpoints.pth", beam_size=5).html


def test_hostile_texts_are_escaped(tmp_path: Path) -> None:
    taken: set[str] = set()
    image = Image.new("RGB", (40, 30))
    entries = [save_entry(image, entry(text + ".jpg", text, references=[text]), tmp_path, taken) for text in HOSTILE]
    text = render_page(entries, skipped=[(HOSTILE[0], HOSTILE[1])], checkpoint=HOSTILE[0], beam_size=3).html
    text.encode("utf-8")
    page = HtmlPage(text)
    assert len(page.all("script")) == 1 and len(page.all("style")) == 1 and len(page.all("img")) == len(HOSTILE)
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(HOSTILE[0]) >= 4  # caption, reference, file name, checkpoint, skipped
    assert "{{ 7 * 7 }}" in page.text
    assert page.all("img")[0]["alt"] == f"{HOSTILE[0]}."
    assert html.escape(HOSTILE[4].strip()[:500]) in text


def test_hostile_texts_are_escaped_in_captions_with_attention(tmp_path: Path) -> None:
    taken: set[str] = set()
    entries = [attended(text, *[1] * len(text.split())) for text in HOSTILE]
    saved = [save_entry(Image.new("RGB", (40, 30)), found, tmp_path, taken, strip=True) for found in entries]
    text = render(*saved)
    text.encode("utf-8")
    page = HtmlPage(text)
    assert len(page.all("script")) == 1 and len(page.all("style")) == 1 and len(page.all("img")) == len(HOSTILE)
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    for caption in (HOSTILE[0], HOSTILE[1], HOSTILE[5]):
        assert caption in page.text
    words = [len(caption.split()) for caption in HOSTILE if caption.strip()]
    assert [len(weights) // 9 for _, _, weights in page.attention()] == words
    links = [str(link["href"]) for link in page.all("a") if str(link["href"]).startswith("attention/")]
    assert len(links) == len(list((tmp_path / "attention").iterdir())) == 6  # the two empty captions have none
    assert all((tmp_path / link).is_file() for link in links)


def test_the_page_needs_no_network_and_its_policy_allows_only_its_own_style_and_script(tmp_path: Path) -> None:
    plain = save_entry(Image.new("RGB", (1200, 600)), entry("my dog.jpg", references=["a dog"]), tmp_path, set())
    with_attention = save_entry(Image.new("RGB", (90, 60)), attended("a dog", 0, 4), tmp_path, set())
    for shown in (plain, with_attention):
        text = render(shown)
        policy = HtmlPage(text).policy()
        assert "default-src 'none'" in policy and "unsafe" not in policy
        for tag in ("style", "script"):
            assert f"{tag}-src '{csp_hash(text.split(f'<{tag}>')[1].split(f'</{tag}>')[0])}'" in policy
        assert all(leak not in text for leak in ("http:", "https:", '"data:', "url(", "style="))


def test_the_page_shows_images_captions_and_candidates_and_its_links_lead_to_files(tmp_path: Path) -> None:
    shown = save_entry(Image.new("RGB", (1200, 600)), entry("my dog.jpg", references=["a dog"]), tmp_path, set())
    page = HtmlPage(render(shown))
    (image,) = page.all("img")
    assert (image["src"], image["loading"]) == ("pictures/my_dog.jpg", "lazy")
    assert (image["width"], image["height"], image["alt"]) == ("640", "320", "A dog runs.")
    for link in [image["src"], *(link["href"] for link in page.all("a") if not str(link["href"]).startswith("#"))]:
        assert link == "captions.json" or (tmp_path / str(link)).is_file()
    assert "checkpoints.pth" in page.text and "a dog runs" in page.text and "\N{MINUS SIGN}2.25" in page.text


def test_the_page_of_a_split_has_its_totals_and_one_of_photos_has_none() -> None:
    entries = [entry(f"{number}.jpg", references=["a dog runs ."]) for number in range(MIN_IMAGES)]
    text = " ".join(HtmlPage(render(*entries)).text.split())
    assert re.search(r"CIDEr ?[\d.]+ BLEU-4 ?[\d.]+ different captions ?1 ", text)
    assert "BLEU-4" not in HtmlPage(render(*entries[1:], entry())).text.split(":root")[0]


def test_the_page_of_a_stopped_run_says_how_many_images_are_missing() -> None:
    assert "not captioned yet" not in HtmlPage(render(entry())).text
    data_files = ["captions.json", "captions.csv"]
    page = render_page([entry()], [], "checkpoints.pth", 5, missing=1200, data_files=data_files).html
    assert "not captioned yet1,200" in HtmlPage(page).text
    links = [str(link["href"]) for link in HtmlPage(page).all("a")]
    assert links[-3:] == ["captions.json", "captions.csv", "#images"]


@pytest.mark.parametrize("grid", [(3, 3), (2, 5), (5, 2), (1, 9)])
def test_the_page_has_the_weights_of_each_word_and_the_shape_of_the_grid(tmp_path: Path, grid: tuple[int, int]) -> None:
    shown = save_entry(Image.new("RGB", (90, 60)), attended("a dog  runs", 0, 4, 8, grid=grid), tmp_path, set())
    text, area = render(shown), grid[0] * grid[1]
    ((rows, columns, weights),) = HtmlPage(text).attention()
    assert (rows, columns) == grid and len(weights) == 3 * area
    assert [weights[first : first + area].index(255) for first in (0, area, 2 * area)] == [0, 4, 8]
    # One sentence, even without styles and scripts.
    assert "<span>a</span> <span>dog</span> <span>runs</span></span></h2>" in text
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
    # Without the script, words are not focusable.
    assert "tabindex" not in text.split("<ul")[1].split("</ul>")[0]


def test_a_page_without_attention_does_not_mention_it() -> None:
    text = render(entry(), attended(""))
    for word in ("data-attention=", "canvas = ", "ttention map", "tabIndex", "aria-describedby"):
        assert word not in text, word
    assert HtmlPage(render(entry(), attended("a", 1), attended(""))).attention() != []


def test_the_script_gets_its_colours_from_the_heat_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heatmap, "HOT", (1, 2, 3))
    (main,) = HtmlPage(render(attended("a", 1))).all("main")
    expected = {"cold": list(heatmap.COLD), "hot": [1, 2, 3], "opacity": heatmap.OPACITY}
    assert json.loads(str(main["data-colours"])) == expected


def many(count: int, **more: Any) -> list[Entry]:
    return [entry(f"{number}.jpg", f"dog {number}", file=f"{number}.jpg", **more) for number in range(count)]


def contents(page: Page) -> list[list[str]]:
    """What the files of a page hand to its script, in the order in which the page names them."""
    named = next(str(found["data-files"]) for found in HtmlPage(page.html).all("div") if "data-files" in found)
    return [
        json.loads(page.files[file].removeprefix("document.currentScript.content = ")[:-2])
        for file in json.loads(named)
    ]


def test_a_gallery_is_one_file_until_it_has_too_many_images() -> None:
    page = render_page(many(IN_PAGE), [], "c.pth", 5)
    assert page.files == {} and len(HtmlPage(page.html).all("img")) == IN_PAGE
    assert (
        "strict-dynamic" not in page.html and "noscript" not in page.html and "hidden>" not in page.html.split("<ul")[1]
    )


def test_a_large_gallery_has_each_image_once_in_the_page_or_in_a_file() -> None:
    entries = many(IN_PAGE + 2 * LIST_SIZE + 1, references=["A big dog ."])
    page = render_page(entries, [], "c.pth", 5)
    texts, *cards = contents(page)
    assert [len(found) for found in cards] == [LIST_SIZE, LIST_SIZE, 1] and len(page.files) == 4
    pieces = [page.html, *(card for found in cards for card in found)]
    shown = [str(image["src"]) for piece in pieces for image in HtmlPage(piece).all("img")]
    assert shown == [f"pictures/{found.file}" for found in entries]
    assert texts == [f"{found.caption}\nA big dog .\n{found.name}" for found in entries[IN_PAGE:]]
    parsed = HtmlPage(page.html)
    assert sum(found.get("class") == "card" for found in parsed.all("li")) == len(entries)
    assert sum("data-cider" in found for found in parsed.all("li")) == len(entries)
    assert "shows only the first 300 images" in parsed.text  # without scripts
    policy = parsed.policy()
    assert "'strict-dynamic'" in policy and "unsafe" not in policy and "default-src 'none'" in policy


def test_an_image_after_the_first_ones_takes_a_few_bytes_of_the_page() -> None:
    attended = {"attention": torch.rand(2, 7, 7), "references": ["A big dog ."] * 5}
    few, more = (
        len(render_page(many(count, **attended), [], "c.pth", 5).html) for count in (IN_PAGE + 1, IN_PAGE + 61)
    )
    assert (more - few) / 60 < 100  # 10,000 images: 1 MB, and 1 to 2 MB for the first 300


def test_files_of_equal_cards_keep_their_names_and_others_get_new_ones() -> None:
    before = render_page(many(IN_PAGE + LIST_SIZE + 5), [], "c.pth", 5).files
    after = render_page(many(IN_PAGE + LIST_SIZE + 6), [], "c.pth", 5).files
    assert len(before.keys() & after.keys()) == 1 and len(before) == len(after) == 3
    assert all(before[file] == after[file] for file in before.keys() & after.keys())


def test_hostile_texts_are_escaped_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery_page, "IN_PAGE", 0)
    page = render_page([entry(text + ".jpg", text, references=[text]) for text in HOSTILE], [], "c.pth", 5)
    texts, cards = contents(page)
    assert all(content.isascii() for content in page.files.values()) and len(texts) == len(cards) == len(HOSTILE)
    own = {tag for tag, _ in HtmlPage(Path(gallery_page.__file__).with_name("card.html.j2").read_text()).tags}
    for text, card in zip(HOSTILE, cards, strict=True):
        parsed = HtmlPage(card)
        assert {tag for tag, _ in parsed.tags} <= own
        assert all(not name.startswith("on") for _, attributes in parsed.tags for name in attributes)
        assert "".join(encodable(text).split()).replace("\0", "") in "".join(parsed.text.split()).replace("\0", "")


def test_an_entry_takes_captions_and_attention_from_the_candidates() -> None:
    plain = Entry.from_candidates("dog.jpg", [Candidate("a dog", -1.0), Candidate("", -2.0)], ["one"])
    assert plain == Entry("dog.jpg", [("a dog", -1.0), ("", -2.0)], ["one"]) and plain.words == []
    assert (plain.caption, plain.log_prob) == ("a dog", -1.0)
    attention = torch.rand(2, 2, 5)
    shown = Entry.from_candidates("dog.jpg", [Candidate("a dog", -1.0, attention)])
    assert shown.attention is not None and shown.attention.shape == (2, 2, 5) and shown.words == ["a", "dog"]
    assert Entry.from_candidates("dog.jpg", [Candidate("", -1.0, torch.rand(0, 2, 5))]).words == []


@pytest.mark.parametrize(
    ("caption", "sentence"),
    [
        ("a dog", "A dog."),
        ("a dog .", "A dog."),
        (" ", ""),
        ("\u4e00\u53ea\u72d7", "\u4e00\u53ea\u72d7\u3002"),  # Chinese
        ("\u30dc\u30fc\u30eb", "\u30dc\u30fc\u30eb\u3002"),  # Japanese
        ("\u0e2b\u0e21\u0e32", "\u0e2b\u0e21\u0e32"),  # Thai has no full stop
    ],
)
def test_the_alt_text_is_a_sentence_of_its_language(caption: str, sentence: str) -> None:
    assert alt_text(caption) == sentence
