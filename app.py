"""TRY: a page that captions your photographs and shows where the model looked.

pip install -r requirements-demo.txt
streamlit run app.py
"""

import html
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

try:
    import streamlit as st
    from starlette.formparsers import MultiPartParser
except ModuleNotFoundError:
    sys.exit("error: app.py needs streamlit. Install it with: pip install -r requirements-demo.txt")

from cli import UserError
from data.captions import read_captions, references_of
from demo.serving import (
    Method,
    Result,
    alt_text,
    as_csv,
    as_jpeg,
    as_json,
    caption_upload,
    find_checkpoints,
    knows_drawings_only,
)
from demo.uploads import MAX_BYTES, UploadError
from gallery import heatmap
from gallery.pictures import PAGE_SIDE, file_name, shrink
from models.captioner import Captioner
from models.pretrained import PRETRAINED
from utils import pick_device

ROOT = Path(__file__).parent
MODEL_CARD = ROOT / "MODEL_CARD.md"
DRAWINGS = ROOT / "data/sample/images"
RELATIVE_LINK = r"\[([^]]*)\]\((?!https?:)[^)]*\)"  # leads nowhere from the page
MOST = 10  # photographs captioned at a time: others wait for their turn meanwhile

ISOLATE = "\u2068", "\u2069"  # whatever direction is set between them ends with them

STYLE = """<style>
.shown { overflow-wrap: anywhere; unicode-bidi: isolate; margin: 0; padding: 0;
         display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 6; overflow: hidden; }
.caption { font-size: 2rem; line-height: 1.25; font-weight: 600; }
.others { margin: 0; padding-left: 1.5rem; }
</style>"""

LIMITS = """
The model guesses, and says wrong things as fluently as right ones. It describes best what it was trained on: people and dogs outdoors, if it
is the pretrained one. It **cannot** read text, tell who somebody is, count beyond a few or know what is outside the picture, and it guesses
genders and ages from looks. Check every caption, and use none where a wrong one could hurt somebody.
"""


@dataclass(frozen=True)
class Source:
    """A picture that a visitor chose."""

    name: str
    identity: str  # tells it from others of the same name
    read: Callable[[], bytes]


@st.cache_resource(max_entries=4, show_spinner="Loading the model …")
def load(path: Path, modified: int) -> Captioner:
    """The captioner, once for all visitors; ``modified`` makes a file that was trained anew another one. Four take less than 1 GB."""
    return Captioner.load(path, pick_device())


@st.cache_resource
def turn() -> threading.Lock:
    """Held for the visitor whose picture is being captioned."""
    return threading.Lock()


@st.cache_data
def drawings(seed: int) -> list[str]:
    """Names of six bundled drawings that training never showed."""
    names = list(references_of(read_captions(ROOT / "captions.csv", seed), "test"))
    return names[:: len(names) // 6][:6]


def label(text: str) -> str:
    """``text`` for a place that Streamlit reads as Markdown, shown as it is; the word joiner keeps ``:dog:`` from becoming a picture."""
    shown = text if len(text) <= 40 else text[:39] + "…"
    return re.sub(r"([!-/:-@\[-`{-~])", "\\\\\\1\N{WORD JOINER}", shown)


def shown(text: str, tag: str = "p", kind: str = "") -> str:
    """``text`` as HTML, shown as it is, six lines of it at most."""
    return f'<{tag} class="shown {kind}" dir="auto">{html.escape(text)}</{tag}>'


def choose_model(paths: list[Path]) -> tuple[Captioner, Path, int]:
    """Let the visitor choose a checkpoint; load it, or say that it cannot be."""
    path = st.selectbox(
        "Model", paths, format_func=lambda path: "pretrained on Flickr8k" if path == PRETRAINED else path.as_posix()
    )
    try:
        modified = path.stat().st_mtime_ns
        captioner = load(path, modified)
    except (UserError, OSError):
        st.error(
            "This checkpoint cannot be read: it is damaged, or made by another version. Choose another, or train it again."
        )
        st.stop()
    config = captioner.config
    st.caption(
        f"{config.decoder.name} decoder, {len(captioner.vocabulary):,} words, pictures of {captioner.transform.image_size} pixels"
    )
    return captioner, path, modified


def choose_method(usual_beam: int) -> Method:
    """Let the visitor choose how a sentence is searched for."""
    kind = st.radio("Search", ["Beam", "Greedy", "Sampling"], horizontal=True)
    if kind == "Greedy":
        st.caption("The likeliest word each time: fast, and a single sentence.")
        return Method()
    if kind == "Beam":
        beam_size = st.slider("Beam size", 2, 10, min(max(usual_beam, 2), 10))
        st.caption("So many sentences are kept open at each word. Longer ones are allowed a lower log-probability.")
        return Method(beam_size)
    temperature = st.slider("Temperature", 0.1, 1.5, 0.7, 0.1)
    seed = st.number_input("Seed", 0, 9999, help="The same seed draws the same sentences again.")
    st.caption("Five sentences drawn word by word, the hotter the more surprising; the likeliest comes first.")
    return Method(temperature=temperature, seed=seed)


def choose_pictures(captioner: Captioner) -> list[Source]:
    """Let the visitor upload photographs, take one, or pick a drawing; first what the model knows."""
    ways = ["Upload", "Camera", "Drawings"]
    if drawings_only := knows_drawings_only(captioner):
        st.warning("This model has learned from the bundled drawings only: what it says of photographs is nonsense.")
    way = st.segmented_control("Pictures from", ways, default="Drawings" if drawings_only else "Upload", required=True)
    if way == "Drawings":
        if not drawings_only:
            st.caption("This model has learned from photographs. It has never seen a drawing, so do not expect much.")
        names = drawings(captioner.config.train.seed)
        with st.container(horizontal=True, gap="small"):
            for number, name in enumerate(names, 1):
                st.image(DRAWINGS / name, caption=str(number), width=96, alt=f"drawing {number}")
        number = st.pills("Drawing", range(1, len(names) + 1), default=1, required=True)
        return [Source(names[number - 1], names[number - 1], (DRAWINGS / names[number - 1]).read_bytes)]
    if way == "Camera":
        photo = st.camera_input("Take a photograph")
        return [Source("photograph.jpg", photo.file_id, photo.getvalue)] if photo else []
    files = st.file_uploader(
        "Photographs, up to 10 MB and 50 megapixels each",
        ["jpg", "jpeg", "png", "webp", "gif"],
        accept_multiple_files=True,
    )
    if len(files) > MOST:
        st.warning(f"Only the first {MOST} are captioned. Remove some of them to see the others.")
    return [Source(file.name, file.file_id, file.getvalue) for file in files[:MOST]]


@st.fragment  # choosing a word draws this picture anew, not the whole page
def show(result: Result, key: str) -> None:
    """One picture with its captions; a chosen word shows where the model looked as it said it."""
    entry, picture = result.entry, shrink(result.picture, PAGE_SIDE)
    name = entry.image if len(entry.image) <= 80 else entry.image[:79] + "…"
    left, right = st.columns(2, gap="medium")
    with right:
        st.html(shown(name) + shown(entry.caption or "(the model says nothing)", "h2", "caption"))
        st.caption(f"{result.seconds:.1f} s · log-probability {entry.log_prob:.2f} (the nearer to 0, the surer)")
        word = None
        if entry.words:
            places = range(len(entry.words))
            word = st.pills(
                "Where it looked: choose a word",
                places,
                format_func=lambda place: label(entry.words[place]),
                key=f"word{key}",
                wrap=True,
            )
        if others := entry.candidates[1:]:
            items = "".join(
                f"<li>{shown(f'{ISOLATE[0]}{caption}{ISOLATE[1]} ({log_prob:.2f})', 'div')}</li>"
                for caption, log_prob in others
            )
            st.html(f'Other candidates, best first <ul class="others">{items}</ul>')
        st.caption("As alt text, to copy once you have checked it")
        st.code(
            alt_text(entry.caption),
            language=None,
            wrap_lines=True,
            height=160 if len(entry.caption) > 300 else "content",
        )
        jpeg = partial(as_jpeg, result)  # drawn when it is asked for
        st.download_button(
            "Captioned picture", jpeg, file_name(entry.image, set()), "image/jpeg", key=f"jpeg{key}", on_click="ignore"
        )
    with left:
        if word is None or entry.attention is None:
            st.image(picture, alt=alt_text(entry.caption), width="stretch")
        else:
            looked = f"{name}: where the model looked as it said {entry.words[word]}"
            st.image(heatmap.overlay(picture, entry.attention[word]), alt=looked, width="stretch")


def caption_all(captioner: Captioner, model: tuple[Path, int], sources: list[Source], method: Method) -> list[Result]:
    """Caption and show each picture; what this visitor has seen already is kept, and nothing else."""
    kept: dict[object, Result | str] = st.session_state.setdefault("captioned", {})
    keys = [(model, source.identity, method) for source in sources]
    for old in kept.keys() - set(keys):
        del kept[old]
    for key, source in zip(keys, sources, strict=True):
        if key not in kept:
            with st.spinner("Captioning …"):
                try:
                    kept[key] = caption_upload(captioner, turn(), source.read(), source.name, method)
                except UploadError as error:
                    kept[key] = str(error)
        outcome = kept[key]
        if isinstance(outcome, Result):
            show(outcome, str(hash(key)))
        else:
            st.html(shown(source.name))
            st.error(outcome)
    return [outcome for outcome in map(kept.get, keys) if isinstance(outcome, Result)]


def main() -> None:
    """The page, from top to bottom; Streamlit runs it anew at every touch."""
    MultiPartParser.spool_max_size = 2 * MAX_BYTES  # or the server writes uploads of more than 1 MB to a temporary file
    st.set_page_config("Image captioning", "🖼️", layout="wide")
    st.html(STYLE)
    st.title("What is in the picture?", anchor=False)
    paths = find_checkpoints(Path(), PRETRAINED)
    if not paths:
        st.info("There is no model here yet. This trains one on the bundled drawings, in about a minute on two cores:")
        st.code("python train.py", language=None)
        return
    with st.sidebar:
        captioner, path, modified = choose_model(paths)
        method = choose_method(captioner.config.generate.beam_size)
    sources = choose_pictures(captioner)
    st.markdown(LIMITS)
    results = caption_all(captioner, (path, modified), sources, method)
    if results:
        with st.container(horizontal=True):
            st.download_button("All captions as CSV", as_csv(results), "captions.csv", "text/csv", on_click="ignore")
            st.download_button(
                "All captions as JSON", as_json(results), "captions.json", "application/json", on_click="ignore"
            )
    st.caption(
        "Your pictures stay in this server's memory while the page is open. They are neither stored nor passed on."
    )
    if MODEL_CARD.exists():
        with st.expander("Model card of the pretrained captioner"):
            card = re.sub(r"\A---\n.*?\n---\n+", "", MODEL_CARD.read_text("utf-8"), flags=re.DOTALL)  # metadata
            card = re.sub(r"^!\[.*\n", "", card, flags=re.MULTILINE)
            card = re.sub("^#", "##", re.sub(RELATIVE_LINK, r"\1", card), flags=re.MULTILINE)  # the page has its title
            st.markdown(card)


if __name__ == "__main__":
    main()
