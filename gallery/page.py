"""The gallery page that inference_visualize.py writes: an HTML file that opens from disk.

The page holds the first IN_PAGE images; a larger gallery has the others in files in ``cards/``, which the page reads
when their cards come near the window (loading.js) or are searched. So it stays small, whatever the number of images.
Their names are hashes of their contents: an earlier page never shows cards of a later run that was killed.

The page shows the plain images in ``pictures/``, each linked to its captioned JPG in the output folder. Showing the
captioned JPGs instead would repeat every caption as pixels that cannot be searched, enlarged or read aloud.

Attention (heatmap.py) is embedded as one byte per weight and drawn by attention.js on demand. It is not in
captions.json, which it would make many times larger.

Captions, references and file names are untrusted: Jinja2 renders the page with autoescape on, and its
Content-Security-Policy allows no script but the template's own, and those that it loads.
"""

import base64
import hashlib
import json
import statistics
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import torch

from data.tokenizer import WORDS, Tokenizer
from files import encodable
from gallery import heatmap
from gallery.agreement import MIN_IMAGES, mark_shared, mark_unmatched, score
from models.captioner import Candidate

if TYPE_CHECKING:
    from evaluation.metrics import Scores

FULL_STOPS = {"CJK": "\u3002", "HIRAGANA": "\u3002", "KATAKANA": "\u3002", "THAI": "", "LAO": ""}  # of other scripts
FRAME_RATIOS = 0.75, 1.78  # narrowest and widest frame of an image in the page, as width / height
# Images in one list and in one file: a list off the screen is not laid out, so the fewer, the faster a page scrolls.
# Divisible by 1 to 6, so that the last row of a list is full. Their file has 0.2 MB, and is read in a few milliseconds.
LIST_SIZE = 60
FEW = 4  # images that fill the width of the page together: as many as a row has at most on a usual screen
IN_PAGE = 5 * LIST_SIZE  # images in the page itself, at 3 to 5 KB each: about 1 MB, shown in 0.2 s


@dataclass(frozen=True)
class Entry:
    """One captioned image."""

    name: str  # as shown
    candidates: list[tuple[str, float]]  # (caption, log-probability), best first
    references: list[str] = field(default_factory=list)
    file: str = ""  # name of the captioned JPG, and of the plain one in pictures/
    width: int = 1  # of the plain JPG, in pixels
    height: int = 1
    attention: torch.Tensor | None = None  # (pieces of the caption, h, w), if the decoder has attention
    strip: bool = False  # whether attention/ has a JPG of it
    tokenizer: Tokenizer = WORDS  # the captioner's
    other: "Entry | None" = None  # what a second captioner says, of which only captions and attention are used

    @classmethod
    def from_candidates(
        cls, name: str, candidates: Sequence[Candidate], references: Sequence[str] = (), tokenizer: Tokenizer = WORDS
    ) -> "Entry":
        """An entry for what a captioner returned for one image, best candidate first."""
        ranked = [(candidate.caption, candidate.log_prob) for candidate in candidates]
        return cls(name, ranked, list(references), attention=candidates[0].attention, tokenizer=tokenizer)

    @property
    def words(self) -> list[str]:
        """The words (or characters) of the caption that have an attention map: all or none."""
        return [] if self.attention is None else [piece.text for piece in self.tokenizer.pieces(self.caption)]

    @property
    def caption(self) -> str:
        """The best candidate's caption."""
        return self.candidates[0][0]

    @property
    def log_prob(self) -> float:
        """The best candidate's log-probability."""
        return self.candidates[0][1]

    def record(self) -> dict[str, Any]:
        """The image's object in captions.json."""
        candidates = [{"caption": caption, "log_prob": log_prob} for caption, log_prob in self.candidates]
        known: dict[str, Any] = {"references": self.references} if self.references else {}
        if self.other:
            known["compared"] = {name: self.other.record()[name] for name in ("caption", "log_prob", "candidates")}
        return {
            "image": self.name,
            "caption": self.caption,
            "log_prob": self.log_prob,
            "candidates": candidates,
            **known,
        }


@dataclass(frozen=True)
class System:
    """What captioned the images, as shown."""

    checkpoint: str
    beam_size: int


@dataclass(frozen=True)
class Summary:
    """A system, and the scores of its captions."""

    system: System
    distinct: int  # different captions
    scores: "Scores | None"

    @classmethod
    def of(cls, system: System, entries: Sequence[Entry], references: Sequence[Sequence[str]]) -> "Summary":
        """Score the captions, if there are enough with references."""
        captions = [entry.caption for entry in entries]
        tokenizer = entries[0].tokenizer if entries else WORDS
        return cls(system, len(set(captions)), score(captions, references, tokenizer))

    @property
    def ciders(self) -> list[float] | None:
        """The CIDEr of each image."""
        return None if self.scores is None else list(map(float, self.scores.images["CIDEr"]))


class Page(NamedTuple):
    """A gallery page."""

    html: str
    files: dict[str, str]  # what it reads on demand: path relative to the page -> content


def capitalised(caption: str) -> str:
    """The caption as a heading: with a capital."""
    return caption[:1].upper() + caption[1:]


def alt_text(caption: str) -> str:
    """The caption as a sentence, for the alt attribute of an image in a page."""
    sentence = capitalised(caption.strip().rstrip(" .\u3002"))
    if not sentence:
        return ""
    script = unicodedata.name(sentence[-1], "").partition(" ")[0].partition("-")[0]
    return sentence + FULL_STOPS.get(script, ".")


def render_page(
    entries: Sequence[Entry],
    skipped: Sequence[tuple[str, str]],
    checkpoint: str,
    beam_size: int,
    *,
    missing: int = 0,
    data_files: Sequence[str] = ("captions.json",),
    compared: System | None = None,
) -> Page:
    """The gallery as an HTML page, with the files of the images after the first IN_PAGE.

    Args:
        skipped: name and reason of each image that could not be used.
        checkpoint: name of the model, as shown.
        missing: how many images are not captioned yet, as after Ctrl-C.
        data_files: the files to link to that have all captions.
        compared: what captioned the ``other`` of each entry.
    """
    ratios = [entry.width / entry.height for entry in entries]
    # All frames have the median image's shape, so that rows align; other images are shown whole, with margins.
    ratio = min(max(statistics.median(ratios), FRAME_RATIOS[0]), FRAME_RATIOS[1]) if ratios else 1.0
    references = [entry.references for entry in entries]
    summaries = [Summary.of(System(checkpoint, beam_size), entries, references)]
    if compared:
        summaries.append(Summary.of(compared, [entry.other for entry in entries if entry.other], references))
    unknown: list[float | None] = [None] * len(entries)
    scores = list(zip(*(summary.ciders or unknown for summary in summaries), strict=True))
    environment = _environment()
    template = environment.get_template("card.html.j2")
    cards = [
        template.render(entry=entry, ciders=ciders, systems=[summary.system for summary in summaries])
        for entry, ciders in zip(entries, scores, strict=True)
    ]
    files = _files(entries[IN_PAGE:], cards[IN_PAGE:])
    html = environment.get_template("page.html.j2").render(
        entries=entries,
        cards=cards[:IN_PAGE],
        files=[file for file, _ in files],
        list_size=LIST_SIZE,
        few=FEW,
        has_references=any(entry.references for entry in entries),
        summaries=summaries,
        ciders=scores if summaries[0].scores else None,
        min_images=MIN_IMAGES,
        has_attention=any(entry.words for entry in entries),
        colours={"cold": heatmap.COLD, "hot": heatmap.HOT, "opacity": heatmap.OPACITY},
        skipped=skipped,
        missing=missing,
        data_files=data_files,
        ratio=round(ratio, 3),
    )
    return Page(encodable(html), dict(files))


def _files(entries: Sequence[Entry], cards: Sequence[str]) -> list[tuple[str, str]]:
    """Name and content of each file for loading.js: first the texts to search for, then the cards of a list each."""
    texts = [
        "\n".join([entry.caption, *([entry.other.caption] if entry.other else []), *entry.references, entry.name])
        for entry in entries
    ]
    contents = [texts, *(cards[first : first + LIST_SIZE] for first in range(0, len(cards), LIST_SIZE))]
    return [_file(content) for content in contents] if entries else []


def _file(texts: Sequence[str]) -> tuple[str, str]:
    """Name and content of a script that hands ``texts`` to loading.js."""
    # Escaped to ASCII, it needs no declaration of its encoding.
    script = f"document.currentScript.content = {json.dumps([encodable(text) for text in texts])};\n"
    return f"cards/{hashlib.sha256(script.encode('ascii')).hexdigest()[:16]}.js", script


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "alt_text": alt_text,
        "count": lambda number, noun: f"{number:,} {noun}{'' if number == 1 else 's'}",
        "csp_hash": csp_hash,
        "encode_attention": heatmap.encode,
        "log_prob": lambda value: f"{value:.2f}".replace("-", "\N{MINUS SIGN}"),
        "mark_shared": mark_shared,
        "mark_unmatched": mark_unmatched,
    }
    return environment


def csp_hash(text: str) -> str:
    """The hash that allows one inline style or script in a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
