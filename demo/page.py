"""The page of the web demo. app.py serves it, and Streamlit runs this file again at every interaction of a visitor."""

import contextlib
import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import streamlit as st
from starlette.formparsers import MultiPartParser

from cli import ROOT, UserError
from demo import DRAWINGS_DIR
from demo.limits import MAX_FILES, keep_only, notice_change, recent_refusal
from demo.serving import (
    SAMPLES,
    Method,
    Result,
    as_csv,
    as_jpeg,
    as_json,
    caption_upload,
    drawings,
    find_checkpoints,
    load,
)
from demo.uploads import MAX_UPLOAD_BYTES, SUFFIXES, UploadError
from gallery import heatmap
from gallery.jpegs import PAGE_SIDE, file_name, thumbnail
from gallery.page import alt_text, capitalised
from models.captioner import Captioner
from models.pretrained import DEFAULT_CHECKPOINT, PRETRAINED

MODEL_CARD = ROOT / "MODEL_CARD.md"
RELATIVE_LINK = r"\[([^]]*)\]\((?!https?:)[^)]*\)"  # of the model card; it would lead nowhere from the page
MAX_UPLOADS = 10  # images captioned for one visitor; others wait meanwhile

ISOLATE = "\u2068", "\u2069"  # a change of text direction inside ends with the second one

PAGE_STYLE = """<style>
.text { overflow-wrap: anywhere; unicode-bidi: isolate; margin: 0; padding: 0;
        display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 6; overflow: hidden; }
.caption { font-size: 2rem; line-height: 1.25; font-weight: 600; }
.others { margin: 0; padding-left: 1.5rem; }
</style>"""

LIMITS = """
The model guesses, and a wrong caption reads as fluently as a right one. It works best on images like those it was
trained on; for the pretrained model, photos of people and dogs outdoors. It **cannot** read text, recognise people,
count beyond a few or know what is outside the frame, and it infers gender and age from appearance. Check every
caption, and do not rely on captions where a mistake could cause harm.
"""

LOG_PROBABILITY = """
The natural logarithm of the caption's probability under the model: the nearer to 0, the more probable. Every word
lowers it, so compare captions of about the same length. It does not tell whether a caption is right.
"""


@dataclass(frozen=True)
class Upload:
    """An image that a visitor chose."""

    name: str
    identity: str  # distinguishes images of the same name
    read: Callable[[], bytes]


def label(text: str) -> str:
    """``text`` for a place where Streamlit renders Markdown; the word joiner keeps ``:dog:`` from becoming an emoji."""
    short = text if len(text) <= 40 else text[:39] + "…"
    return re.sub(r"([!-/:-@\[-`{-~])", "\\\\\\1\N{WORD JOINER}", short)


def as_html(text: str, tag: str = "p", style: str = "") -> str:
    """``text`` as an HTML element, escaped and cut to six lines."""
    return f'<{tag} class="text {style}" dir="auto">{html.escape(text)}</{tag}>'


def first_choice(paths: list[Path]) -> Path:
    """The checkpoint that ``find_checkpoint`` chooses for photos."""
    if DEFAULT_CHECKPOINT in paths:
        with contextlib.suppress(UserError, OSError):
            own = load(DEFAULT_CHECKPOINT, DEFAULT_CHECKPOINT.stat().st_mtime_ns)
            if own.learned_from == "photographs":
                return DEFAULT_CHECKPOINT
    return PRETRAINED if PRETRAINED in paths else paths[0]


def choose_model(paths: list[Path]) -> tuple[Captioner, Path, int]:
    """Let the visitor choose a checkpoint; return its captioner, path and modification time.

    If it cannot be read, the page shows an error and ends there.
    """
    path = st.selectbox(
        "Model",
        paths,
        index=paths.index(first_choice(paths)),
        format_func=lambda path: "pretrained on Flickr8k" if path == PRETRAINED else path.as_posix(),
    )
    try:
        modified = path.stat().st_mtime_ns
        with st.spinner("Loading the model …"):
            captioner = load(path, modified)
    except (UserError, OSError):
        st.error(
            "This checkpoint cannot be read: it is damaged, or from an incompatible version. "
            "Choose another one, or train it again."
        )
        st.stop()
    size = captioner.transform.image_size
    st.caption(
        f"{captioner.config.decoder.name} decoder, vocabulary of {len(captioner.vocabulary):,} tokens, "
        f"input of {size} x {size} pixels"
    )
    return captioner, path, modified


def choose_method(default_beam: int) -> Method:
    """Let the visitor choose how captions are decoded."""
    kind = st.radio("Decoding", ["Beam search", "Greedy", "Sampling"], horizontal=True)
    if kind == "Greedy":
        st.caption("Takes the most probable word at each step: fast, and a single caption.")
        return Method()
    if kind == "Beam search":
        beam_size = st.slider("Beam size", 2, 10, min(max(default_beam, 2), 10))
        st.caption(
            "Keeps this many candidates after each word. They are ranked by log-probability relative to length, "
            "so a long caption may come before a shorter one that is more probable."
        )
        return Method(beam_size)
    temperature = st.slider("Temperature", 0.1, 1.5, 0.7, 0.1)
    seed = st.number_input("Seed", 0, 9999, help="The same seed gives the same captions.")
    st.caption(
        f"Samples {SAMPLES} captions word by word and shows the most probable one first. "
        "A higher temperature gives more varied captions."
    )
    return Method(temperature=temperature, seed=seed)


def choose_source(drawings_only: bool) -> str:
    """Let the visitor choose where images come from."""
    if drawings_only:
        st.warning("This model was trained on drawings only: its captions of photos will be wrong. Choose another one.")
    sources, default = ["Upload", "Camera", "Drawings"], "Drawings" if drawings_only else "Upload"
    return st.segmented_control("Image source", sources, default=default, required=True)


def choose_images(captioner: Captioner, source: str) -> list[Upload]:
    """Let the visitor upload photos, take one, or choose a drawing."""
    if source == "Drawings":
        if captioner.learned_from != "drawings":
            st.caption("Models that were trained on photos caption drawings poorly.")
        return [choose_drawing(drawings(captioner.config.train.seed))]
    if source == "Camera":
        photo = st.camera_input("Take a photo")
        return [Upload("photo.jpg", photo.file_id, photo.getvalue)] if photo else []
    files = st.file_uploader(
        f"Photos, up to 10 MB and 50 megapixels each, at most {MAX_FILES}", SUFFIXES, accept_multiple_files=True
    )
    if len(files) > MAX_UPLOADS:
        st.warning(f"Only the first {MAX_UPLOADS} photos are captioned. Remove some to caption the others.")
    return [Upload(file.name, file.file_id, file.getvalue) for file in files]


def choose_drawing(names: list[str]) -> Upload:
    """Let the visitor choose one of the bundled drawings."""
    folder = ROOT / DRAWINGS_DIR
    with st.container(horizontal=True, gap="small"):
        for number, name in enumerate(names, 1):
            st.image(folder / name, caption=str(number), width=96, alt=f"drawing {number}")
    number = st.pills("Drawing", range(1, len(names) + 1), default=1, required=True)
    name = names[number - 1]
    return Upload(name, name, (folder / name).read_bytes)


@st.fragment  # choosing a word updates this image only, not the whole page
def show(result: Result, key: str) -> None:
    """One image with its captions, and the attention map of the chosen word."""
    entry, image = result.entry, thumbnail(result.image, PAGE_SIDE)
    name = entry.name if len(entry.name) <= 80 else entry.name[:79] + "…"
    left, right = st.columns(2, gap="medium")
    with right:
        st.html(as_html(name) + as_html(capitalised(entry.caption) or "(empty caption)", "h2", "caption"))
        st.caption(f"{result.seconds:.1f} s · log-probability {entry.log_prob:.2f}", help=LOG_PROBABILITY)
        word = None
        if entry.words:
            word = st.pills(
                "Choose a word to see its attention map",
                range(len(entry.words)),
                format_func=lambda place: label(entry.words[place]),
                key=f"word{key}",
                wrap=True,
            )
        if others := entry.candidates[1:]:
            texts = [f"{ISOLATE[0]}{caption}{ISOLATE[1]} ({log_prob:.2f})" for caption, log_prob in others]
            items = "".join(f"<li>{as_html(text, 'div')}</li>" for text in texts)
            st.html(f'Other candidates, best first, with their log-probabilities <ul class="others">{items}</ul>')
        st.caption("Alt text (check it before you use it)")
        long = len(entry.caption) > 300
        st.code(alt_text(entry.caption), language=None, wrap_lines=True, height=160 if long else "content")
        jpeg = partial(as_jpeg, result)  # made when the button is clicked
        st.download_button(
            "Download captioned image",
            jpeg,
            file_name(entry.name, set()),
            "image/jpeg",
            key=f"jpeg{key}",
            on_click="ignore",
        )
    with left:
        if word is None or entry.attention is None:
            st.image(image, alt=alt_text(entry.caption), width="stretch")
        else:
            alt = f"{name}: attention map of the word {entry.words[word]}"
            st.image(heatmap.overlay(image, entry.attention[word]), alt=alt, width="stretch")


def show_captions(captioner: Captioner, model: tuple[Path, int], uploads: list[Upload], method: Method) -> list[Result]:
    """Caption and show each image. The visitor's session keeps the results of the images on the page, and no others."""
    kept: dict[object, Result | str] = st.session_state.setdefault("captioned", {})
    keys = [(model, upload.identity, method) for upload in uploads]
    for old in kept.keys() - set(keys):
        del kept[old]
    for key, upload in zip(keys, uploads, strict=True):
        if key not in kept:
            with st.spinner("Captioning …"):
                try:
                    kept[key] = caption_upload(captioner, upload.read(), upload.name, method)
                except UploadError as error:
                    kept[key] = str(error)
        outcome = kept[key]
        if isinstance(outcome, Result):
            show(outcome, str(hash(key)))
        else:
            st.html(as_html(upload.name))
            st.error(outcome)
    return [outcome for outcome in map(kept.get, keys) if isinstance(outcome, Result)]


def show_model_card() -> None:
    """The model card with its headings one level lower, without metadata, images and relative links."""
    card = re.sub(r"\A---\n.*?\n---\n+", "", MODEL_CARD.read_text("utf-8"), flags=re.DOTALL)
    card = re.sub(r"^!\[.*\n", "", card, flags=re.MULTILINE)
    card = re.sub("^#", "##", re.sub(RELATIVE_LINK, r"\1", card), flags=re.MULTILINE)  # the page has its own h1
    with st.expander("Model card of the pretrained model"):
        st.markdown(card)


def main() -> None:
    """The page from top to bottom; Streamlit runs it again at every interaction."""
    # Keep uploads in memory: by default, those over 1 MB go to a temporary file. Starlette has no option for it.
    MultiPartParser.spool_max_size = 2 * MAX_UPLOAD_BYTES
    st.set_page_config("Image captioning", "🖼️", layout="wide")
    st.html(PAGE_STYLE)
    st.title("Caption your own photos", anchor=False)
    paths = find_checkpoints(Path(), PRETRAINED)
    if not paths:
        st.info("There is no model here yet. Train one on the bundled drawings (about a minute on two CPU cores):")
        st.code("python train.py", language=None)
        return
    with st.sidebar:
        captioner, path, modified = choose_model(paths)
        method = choose_method(captioner.config.generate.beam_size)
    source = choose_source(captioner.learned_from == "drawings")
    notice_change(source)
    uploads = choose_images(captioner, source)
    identities = {upload.identity for upload in uploads}
    if refusal := recent_refusal(identities):
        st.error(refusal)
    st.markdown(LIMITS)
    results = show_captions(captioner, (path, modified), uploads[:MAX_UPLOADS], method)
    if results:
        with st.container(horizontal=True):
            st.download_button("All captions as CSV", as_csv(results), "captions.csv", "text/csv", on_click="ignore")
            st.download_button(
                "All captions as JSON", as_json(results), "captions.json", "application/json", on_click="ignore"
            )
    st.caption("Your images stay in this server's memory while the page is open. They are not stored or shared.")
    if MODEL_CARD.exists():
        show_model_card()
    keep_only(identities, source)


if __name__ == "__main__":
    main()
