"""The parts of the page that Streamlit lacks: a photo with captions whose words are buttons, and clickable examples.

Both run in the visitor's browser: choosing a word asks nothing of the server. Texts reach them as data, which their
scripts only ever show as text.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import streamlit as st

from cli import ROOT
from data.images import load_image
from demo.serving import Result, encode_jpeg
from demo.texts import Texts
from gallery import heatmap
from gallery.jpegs import thumbnail
from gallery.page import alt_text

FOLDER = Path(__file__).parent
THUMBNAIL_SIDE = 192  # pixels: twice the height in examples.css, for fine screens
COLOURS = {"cold": heatmap.COLD, "hot": heatmap.HOT, "opacity": heatmap.OPACITY}


def _read(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


_caption_view = st.components.v2.component(
    "caption_view",
    html='<div class="view"></div>',
    css=_read("caption_view.css"),
    js=(ROOT / "gallery" / "words.js").read_text("utf-8") + _read("caption_view.js"),
)
_examples = st.components.v2.component(
    "examples", html='<div class="strip" role="group"></div>', css=_read("examples.css"), js=_read("examples.js")
)


def show_captions(results: Sequence[Result], titles: Sequence[str], language: str, texts: Texts, key: str) -> None:
    """One image with its captions; ``titles`` distinguish them if there are several."""
    first = results[0]
    data = {
        "language": language,
        "image": as_url(first.preview),
        "width": first.preview_size[0],
        "height": first.preview_size[1],
        "alt": alt_text(first.entry.caption) or texts.empty,
        "colours": COLOURS,
        "captions": [
            _caption(result, title, "" if place else _hint(result, texts))  # once is enough
            for place, (result, title) in enumerate(zip(results, titles, strict=True))
        ],
        "texts": {
            name: getattr(texts, name) for name in ("play", "stop", "instead", "end", "places", "spread", "empty")
        },
    }
    identity = hashlib.sha256(json.dumps(data).encode()).hexdigest()
    _caption_view(key=key, data=data | {"id": identity})


def _hint(result: Result, texts: Texts) -> str:
    """What words can be chosen for."""
    choose = texts.choose_word if result.entry.attention is None else texts.choose_attention
    return f"{choose} {texts.about_bars}"


def _caption(result: Result, title: str, hint: str) -> dict[str, Any]:
    """What caption_view.js needs of one caption."""
    attention = result.entry.attention
    rows, columns = (0, 0) if attention is None else attention.shape[1:]
    pieces = result.entry.tokenizer.pieces(result.entry.caption)
    return {
        "title": title,
        "hint": hint,
        "attention": "" if attention is None else heatmap.encode(attention),
        "rows": rows,
        "columns": columns,
        "words": [
            {"text": piece.text, "gap": piece.gap, "probability": choice.probability, "others": choice.others}
            for piece, choice in zip(pieces, result.candidates[0].choices, strict=True)
        ],
    }


def choose_example(paths: Sequence[Path], language: str, label: str) -> Path:
    """Let the visitor click one of the images; the first is chosen until then."""
    names = [path.name for path in paths]
    chosen = st.session_state.get("examples", {}).get("chosen")
    chosen = chosen if chosen in names else names[0]
    images = [{"name": path.name, "source": _thumbnail(path), "alt": path.stem.replace("_", " ")} for path in paths]
    data = {"language": language, "label": label, "images": images, "chosen": chosen}
    found = _examples(key="examples", data=data, default={"chosen": chosen}, on_chosen_change=lambda: None)
    return paths[names.index(found.chosen)] if found.chosen in names else paths[0]


@lru_cache(64)  # the examples of all models
def _thumbnail(path: Path) -> str:
    return as_url(encode_jpeg(thumbnail(load_image(path), THUMBNAIL_SIDE)))


def as_url(jpeg: bytes) -> str:
    """A JPEG file as an address, so that it needs no request."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
