"""The page of the web demo. app.py serves it, and Streamlit runs this file again at every interaction of a visitor."""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import streamlit as st
from starlette.formparsers import MultiPartParser

from cli import ROOT
from demo.confidence import IMAGES, LOWEST, RIGHT, mean_log_prob, share_right
from demo.limits import MAX_FILES, keep_only, notice_change, recent_refusal
from demo.serving import (
    Result,
    as_csv,
    as_jpeg,
    as_json,
    caption_example,
    caption_upload,
    example_images,
    find_checkpoints,
)
from demo.settings import Choice, choose
from demo.texts import LANGUAGES, Texts
from demo.uploads import MAX_UPLOAD_BYTES, SUFFIXES, UploadError
from demo.views import choose_example, show_captions
from gallery.jpegs import file_name
from gallery.page import alt_text
from models import pretrained

MODEL_CARD = ROOT / "MODEL_CARD.md"
RELATIVE_LINK = r"\[([^]]*)\]\((?!https?:)[^)]*\)"  # of the model card; it would lead nowhere from the page
MAX_UPLOADS = 10  # images captioned for one visitor; others wait meanwhile

# Streamlit leaves an eighth of a phone's screen empty at the top, and its button for the sidebar has no name.
PAGE_STYLE = """<style>
[data-testid=stHeader] {{ height: 2.75rem; min-height: 0; }}
[data-testid=stMainBlockContainer] {{ padding-top: 3rem; padding-bottom: 3rem; }}
[data-testid=stMainBlockContainer] h1 {{ font-size: clamp(1.35rem, 4vw, 2rem); padding: 0; }}
[data-testid=stExpandSidebarButton]::after {{ content: "{settings}"; margin-left: 0.4rem; font-size: 1rem; }}
[data-testid=stExpandSidebarButton] {{ width: auto; padding: 0 0.5rem; }}
.text {{ overflow-wrap: anywhere; unicode-bidi: isolate; margin: 0; padding: 0;
        display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 6; overflow: hidden; }}
.candidates {{ width: 100%; border-collapse: collapse; }}
.candidates :is(th, td) {{ padding: 0.25rem 0 0.25rem 0.8rem; text-align: end; vertical-align: top;
        font-weight: inherit; font-variant-numeric: tabular-nums; }}
.candidates :is(th, td):first-child {{ padding-left: 0; text-align: start; }}
.candidates th {{ font-size: 0.875rem; opacity: 0.8; vertical-align: bottom; }}
</style>"""


@dataclass(frozen=True)
class Upload:
    """An image that a visitor chose."""

    name: str
    identity: str  # distinguishes images of the same name
    read: Callable[[], bytes]
    example: Path | None = None  # its file, if it is one of those that the page offers


def as_html(text: str, tag: str = "p") -> str:
    """``text`` as an HTML element, escaped and cut to six lines."""
    return f'<{tag} class="text" dir="auto">{html.escape(text)}</{tag}>'


def number(value: float, digits: int) -> str:
    """``value`` with a proper minus sign."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def choose_language() -> str:
    """The language of the page: that of the address (?lang=zh), else that of the browser, if the page has it."""
    wanted = [st.query_params.get("lang"), (st.context.locale or "").split("-")[0]]
    chosen = st.segmented_control(
        "Language, 语言",
        list(LANGUAGES),
        default=next((code for code in wanted if code in LANGUAGES), "en"),
        required=True,
        format_func=lambda code: LANGUAGES[code].name,
        label_visibility="collapsed",
        key="language",
        on_change=lambda: st.query_params.update(lang=st.session_state["language"]),
    )
    return chosen


def choose_images(choice: Choice, source: str, language: str, texts: Texts) -> list[Upload]:
    """Let the visitor upload photos or take one, or choose an example until then."""
    if source == "camera":
        photo = st.camera_input(texts.take, key="photo")
        return [Upload("photo.jpg", photo.file_id, photo.getvalue)] if photo else []
    files = st.file_uploader(
        texts.uploader.format(count=MAX_FILES),
        SUFFIXES,
        accept_multiple_files=True,
        key="files",
        label_visibility="collapsed",
    )
    if len(files) > MAX_UPLOADS:
        st.warning(texts.too_many.format(count=MAX_UPLOADS))
    if files:
        return [Upload(file.name, file.file_id, file.getvalue) for file in files]
    st.caption(texts.examples)
    drawings = choice.captioner.learned_from == "drawings"
    path = choose_example(example_images(drawings, choice.captioner.config.train.seed), language, texts.examples)
    return [Upload(path.name, path.name, path.read_bytes, path)]


def show(results: Sequence[Result], choices: Sequence[Choice], language: str, texts: Texts, key: str) -> None:
    """One image with its captions."""
    several = len(results) > 1
    left, right = st.columns(2, gap="medium")
    with left:
        titles = [choice.title if several else "" for choice in choices]
        show_captions(results, titles, language, texts, f"view {key}")
    with right:
        name = results[0].entry.name
        st.html(as_html(name if len(name) <= 80 else name[:79] + "…"))
        for place, (result, choice) in enumerate(zip(results, choices, strict=True)):
            if several:
                st.html(as_html(choice.title, "strong"))
            show_details(result, choice, texts, f"{key} {place}")


def show_details(result: Result, choice: Choice, texts: Texts, key: str) -> None:
    """The numbers of a caption, the other candidates, and its downloads."""
    entry = result.entry
    if choice.path == pretrained.PRETRAINED and choice.method.beam_size > 1:  # what the shares were measured with
        show_confidence(result, texts)
    took = texts.took.format(seconds=result.seconds)
    penalty = choice.captioner.config.generate.length_penalty
    about_score = texts.about_score.format(penalty=f"{penalty:g}")
    st.caption(f"{took} · {texts.log_prob.lower()} {number(entry.log_prob, 2)}", help=about_score)
    if len(result.candidates) > 1:
        st.html(candidates_table(result, texts))
        log_probs = [candidate.log_prob for candidate in result.candidates]
        if log_probs != sorted(log_probs, reverse=True):
            st.caption(texts.order, help=about_score)
    st.caption(texts.alt_text)
    long = len(entry.caption) > 300
    st.code(alt_text(entry.caption), language=None, wrap_lines=True, height=160 if long else "content")
    st.download_button(
        texts.download_image,
        partial(as_jpeg, result),  # made when the button is clicked
        file_name(entry.name, set()),
        "image/jpeg",
        key=f"jpeg {key}",
        on_click="ignore",
    )


def show_confidence(result: Result, texts: Texts) -> None:
    """How often captions were right that the model found as probable as this one."""
    share = share_right(mean_log_prob(result.entry.log_prob, result.entry.caption, result.entry.tokenizer))
    if share == LOWEST:
        st.warning(texts.unlike.format(share=share))
    else:
        text = texts.share_right if share >= 50 else texts.seldom_right
        st.caption(text.format(share=share), help=texts.about_share.format(count=IMAGES, cider=RIGHT))


def candidates_table(result: Result, texts: Texts) -> str:
    """The candidates with their log-probabilities, and with their ranking scores where these differ."""
    ranked = any(candidate.score != candidate.log_prob for candidate in result.candidates)
    heads = [texts.candidates, *[texts.score] * ranked, texts.log_prob]
    rows = [f"<tr>{''.join(f'<th>{html.escape(head)}</th>' for head in heads)}</tr>"]
    for candidate in result.candidates:
        numbers = [*[number(candidate.score, 3)] * ranked, number(candidate.log_prob, 2)]
        cells = "".join(f"<td>{text}</td>" for text in numbers)
        rows.append(f"<tr><td>{as_html(candidate.caption or texts.empty, 'div')}</td>{cells}</tr>")
    return f'<table class="candidates">{"".join(rows)}</table>'


def caption_and_show(choices: list[Choice], uploads: list[Upload], language: str, texts: Texts) -> list[Result]:
    """Caption and show each image; the first result of each.

    The visitor's session keeps the results of the images on the page, and no others.
    """
    kept: dict[object, Result | str] = st.session_state.setdefault("captioned", {})
    keys = {(choice.identity, upload.identity) for choice in choices for upload in uploads}
    for old in kept.keys() - keys:
        del kept[old]
    first = []
    for upload in uploads:
        for choice in choices:
            key = choice.identity, upload.identity
            if key not in kept:
                with st.spinner(texts.captioning):
                    kept[key] = caption(choice, upload)
        outcomes = [kept[choice.identity, upload.identity] for choice in choices]
        results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
        if results:
            show(results, choices, language, texts, upload.identity)
            first.append(results[0])
        else:
            st.html(as_html(upload.name))
            st.error(texts.message(str(outcomes[0])))
    return first


def caption(choice: Choice, upload: Upload) -> Result | str:
    """The result, or why the upload cannot be used."""
    if upload.example:
        return caption_example(choice.path, choice.modified, upload.example, choice.method)
    try:
        return caption_upload(choice.captioner, upload.read(), upload.name, choice.method)
    except UploadError as error:
        return str(error)


def show_downloads(results: Sequence[Result], texts: Texts) -> None:
    """All captions as files."""
    with st.container(horizontal=True):
        for label, content, suffix, kind in (
            (texts.download_csv, as_csv(results), "csv", "text/csv"),
            (texts.download_json, as_json(results), "json", "application/json"),
        ):
            st.download_button(label, content, f"captions.{suffix}", kind, on_click="ignore", key=suffix)


def show_foot(texts: Texts) -> None:
    """What the model cannot do, what becomes of the images, and the model card."""
    st.caption(f"{texts.disclaimer} {texts.privacy}")
    with st.expander(texts.limits):
        st.markdown(texts.about_limits)
    if MODEL_CARD.exists():
        # Its headings one level lower (the page has its own h1), without metadata, images and relative links
        card = re.sub(r"\A---\n.*?\n---\n+", "", MODEL_CARD.read_text("utf-8"), flags=re.DOTALL)
        card = re.sub(r"^!\[.*\n", "", card, flags=re.MULTILINE)
        card = re.sub("^#", "##", re.sub(RELATIVE_LINK, r"\1", card), flags=re.MULTILINE)
        with st.expander(texts.model_card):
            st.markdown(card)


def main() -> None:
    """The page from top to bottom; Streamlit runs it again at every interaction."""
    # Keep uploads in memory: by default, those over 1 MB go to a temporary file. Starlette has no option for it.
    MultiPartParser.spool_max_size = 2 * MAX_UPLOAD_BYTES
    st.set_page_config("Image captioning", "🖼️", layout="wide")
    head = st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center")
    with head:
        title = st.empty()
        language = choose_language()
        texts = LANGUAGES[language]
        title.title(texts.title, anchor=False, width="content")
    st.html(PAGE_STYLE.format(settings=texts.settings))
    paths = find_checkpoints(Path(), pretrained.PRETRAINED)
    if not paths:
        st.info(texts.no_model)
        st.code("python train.py", language=None)
        return
    with st.sidebar:
        choices = choose(paths, texts)
    names = {"upload": texts.upload, "camera": texts.camera}
    source = st.segmented_control(
        texts.source, list(names), default="upload", required=True, format_func=names.__getitem__, key="image source",
        label_visibility="collapsed",
    )  # fmt: skip
    notice_change(source)
    uploads = choose_images(choices[0], source, language, texts)
    identities = {upload.identity for upload in uploads if not upload.example}
    if refusal := recent_refusal(identities):
        st.error(texts.message(refusal))
    if any(choice.captioner.learned_from == "drawings" for choice in choices) and not all(u.example for u in uploads):
        st.warning(texts.drawings_only)
    downloads = st.container() if len(uploads) > 1 else None  # above many images, below one
    results = caption_and_show(choices, uploads[:MAX_UPLOADS], language, texts)
    if results:
        with downloads or st.container():
            show_downloads(results, texts)
    show_foot(texts)
    keep_only(identities, source)


if __name__ == "__main__":
    main()
