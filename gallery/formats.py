"""Captions as data: captions.json and captions.csv for a whole gallery, .txt and .xmp sidecars for each image."""

import csv
import io
import json
import re
from collections.abc import Iterable
from xml.sax.saxutils import escape

from cli import printable
from data.rows import safe_cell
from files import encodable
from gallery.page import Entry

# XMP (ISO 16684-1) is RDF in XML. The packet header and the byte order mark in it belong to the format.
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
  <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
    <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
      <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{caption}</rdf:li></rdf:Alt></dc:description>
    </rdf:Description>
  </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""
NOT_XML = re.compile("[\ufffe\uffff]")  # what XML 1.0 has no way to write, but for control characters


def captions_json(entries: Iterable[Entry]) -> str:
    """The content of captions.json: a list of ``Entry.record()``."""
    return encodable(json.dumps([entry.record() for entry in entries], ensure_ascii=False, indent=2))


def captions_csv(entries: Iterable[Entry]) -> str:
    """Columns image, caption, log_prob; one row per image, with the byte order mark that Excel needs for UTF-8.

    With a second captioner also compared_caption and compared_log_prob.
    """
    file, entries = io.StringIO(), list(entries)
    # Where the separator is a semicolon, a semicolon in an unquoted name would begin a new cell.
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    compared = any(entry.other for entry in entries)
    writer.writerow(["image", "caption", "log_prob", *["compared_caption", "compared_log_prob"] * compared])
    for entry in entries:
        row = [safe_cell(entry.name)]
        for said in filter(None, (entry, entry.other)):
            row += [safe_cell(said.caption), f"{said.log_prob:.4f}"]
        writer.writerow(row)
    return "\ufeff" + encodable(file.getvalue())


def sidecar_text(caption: str, kind: str) -> str:
    """The content of a sidecar: the caption in a line, or as XMP's dc:description in the default language."""
    line = printable(caption)
    return XMP.format(caption=escape(NOT_XML.sub(" ", line))) if kind == "xmp" else f"{line}\n"
