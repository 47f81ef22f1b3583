"""gallery/formats.py: captions as JSON, as a table that spreadsheets read safely, and as sidecars."""

import csv
import io
import json
import xml.etree.ElementTree as ET

import pytest

from cli import printable
from files import encodable
from gallery.formats import captions_csv, captions_json, sidecar_text
from gallery.page import Entry
from tests.support.hostile import HOSTILE

DC, RDF, XML = (
    "{http://purl.org/dc/elements/1.1/}",
    "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}",
    "{http://www.w3.org/XML/1998/namespace}",
)


def test_captions_json_has_what_its_readers_expect() -> None:
    candidates = [("a dog runs", -1.5), ("a dog", -2.25)]
    expected = {
        "image": "dog.jpg",
        "caption": "a dog runs",
        "log_prob": -1.5,
        "candidates": [{"caption": caption, "log_prob": log_prob} for caption, log_prob in candidates],
    }
    entries = [Entry("dog.jpg", candidates), Entry("dog.jpg", candidates, ["one"])]
    assert json.loads(captions_json(entries)) == [expected, {**expected, "references": ["one"]}]
    captions_json([Entry(text, [(text, -1.0)]) for text in HOSTILE]).encode("utf-8")


def test_the_table_is_utf_8_with_a_byte_order_mark_and_runs_no_formulas() -> None:
    names = ['=HYPERLINK("x")', "+1", "\uff1d1", "a;b,c \u732b\ud800.jpg", *HOSTILE]
    text = captions_csv([Entry(name, [(f"@{name}", -1.23456)]) for name in names])
    header, *rows = csv.reader(io.StringIO(text.encode("utf-8").decode("utf-8-sig"), newline=""))
    assert header == ["image", "caption", "log_prob"] and len(rows) == len(names)
    assert [row[0].removeprefix("'") for row in rows] == [encodable(name) for name in names]
    assert all(row[0].startswith("'") for row in rows[:3]) and {row[2] for row in rows} == {"-1.2346"}
    assert all(row[1].startswith("'@") for row in rows)


@pytest.mark.parametrize("caption", ["a dog & a <cat>", "\u72d7\u5728\u8dd1", ']]> "quoted"', *HOSTILE])
def test_xmp_is_valid_xml_with_the_caption_as_description_in_the_default_language(caption: str) -> None:
    content = sidecar_text(caption, "xmp").encode("utf-8")
    (description,) = ET.fromstring(content).iter(f"{DC}description")
    (text,) = description.findall(f"{RDF}Alt/{RDF}li")
    assert text.get(f"{XML}lang") == "x-default"
    assert (text.text or "") == printable(caption)
    assert content.startswith(b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>')


def test_xmp_has_spaces_for_what_xml_does_not_allow() -> None:
    (text,) = ET.fromstring(sidecar_text("a\ufffedog\uffff", "xmp").encode("utf-8")).iter(f"{RDF}li")
    assert text.text == "a dog "


@pytest.mark.parametrize("caption", ["a dog", *HOSTILE])
def test_a_text_sidecar_is_the_caption_in_a_line(caption: str) -> None:
    content = sidecar_text(caption, "txt")
    assert content.encode("utf-8").splitlines() == [printable(caption).encode("utf-8")] and content.endswith("\n")
