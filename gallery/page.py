"""What inference_visualize.py shows: captioned JPGs, and one HTML page that opens from disk.

The page shows plain pictures from ``pictures/`` and links each to its captioned JPG. Showing the captioned JPGs themselves would say every
caption twice, once as pixels that cannot be searched, enlarged or read aloud; and a plain picture half the size makes the page lighter.

Where the decoder looked as it said each word (heatmap.py) is kept in the page as numbers, a byte each, and drawn when a word is asked about;
not in captions.json, which it would make many times as long. The strips, pictures of the same for slides, are written if wanted.

Captions, references and file names come from models and from strangers: the page is rendered by Jinja2 with autoescape on, and its
Content-Security-Policy runs no script but the template's own.
"""

import base64
import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import torch

from gallery import heatmap
from gallery.agreement import FEWEST_IMAGES, image_cider, mark_shared, mark_unsaid


@dataclass(frozen=True)
class Entry:
    """One captioned picture."""

    image: str  # name to show
    candidates: list[tuple[str, float]]  # (caption, log-probability), best first
    references: list[str] = field(default_factory=list)
    file: str = ""  # name of the captioned JPG, and of the plain one in pictures/
    width: int = 1  # of the plain one, in pixels
    height: int = 1
    attention: torch.Tensor | None = None  # (words of caption.split(), P), if the decoder has any
    strip: bool = False  # there is a strip of it in attention/

    @property
    def words(self) -> list[str]:
        """The caption's words, if it is known where the decoder looked as it said them."""
        return [] if self.attention is None else self.caption.split()

    @property
    def caption(self) -> str:
        """The best candidate's words."""
        return self.candidates[0][0]

    @property
    def log_prob(self) -> float:
        """The best candidate's log-probability."""
        return self.candidates[0][1]

    def record(self) -> dict[str, Any]:
        """What captions.json holds of this picture."""
        candidates = [{"caption": caption, "log_prob": log_prob} for caption, log_prob in self.candidates]
        known = {"references": self.references} if self.references else {}
        return {
            "image": self.image,
            "caption": self.caption,
            "log_prob": self.log_prob,
            "candidates": candidates,
            **known,
        }


def printable(text: str) -> str:
    """``text`` with what UTF-8 cannot hold (half characters of file names in an old encoding) shown as question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def render_page(entries: Sequence[Entry], skipped: Sequence[tuple[str, str]], checkpoint: str, beam_size: int) -> str:
    """The gallery as one HTML page. ``skipped`` names each picture that could not be used, with its reason."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "csp_hash": csp_hash,
        "weights": heatmap.encode,
        "mark_shared": mark_shared,
        "mark_unsaid": mark_unsaid,
    }
    environment.filters["score"] = lambda value: f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
    # One shape of frame for all, the typical picture's, so that rows align; others stand in it whole, with margins.
    ratios = [entry.width / entry.height for entry in entries]
    ratio = min(max(statistics.median(ratios), 0.75), 1.78) if ratios else 1.0
    page = environment.get_template("page.html.j2").render(
        entries=entries,
        compared=any(entry.references for entry in entries),
        ciders=image_cider([entry.caption for entry in entries], [entry.references for entry in entries]),
        fewest=FEWEST_IMAGES,
        attended=any(entry.words for entry in entries),
        heatmap=heatmap,
        skipped=skipped,
        checkpoint=checkpoint,
        beam_size=beam_size,
        ratio=round(ratio, 3),
    )
    return printable(page)


def csp_hash(text: str) -> str:
    """The hash by which a Content-Security-Policy lets one inline style or script through."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
