"""What visitors choose in the sidebar: models, how captions are decoded, and whether to compare two captions."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from cli import UserError
from demo.serving import SAMPLES, Method, load
from demo.texts import Texts
from models import pretrained
from models.captioner import Captioner

BEAMS = 2, 20  # smallest and largest beam; larger ones are slower, and seldom better


@dataclass(frozen=True)
class Choice:
    """A model and how it captions."""

    captioner: Captioner
    path: Path
    modified: int  # of the checkpoint, in nanoseconds
    method: Method
    title: str  # as shown where two captions are compared

    @property
    def identity(self) -> tuple[Path, int, Method]:
        """What distinguishes its captions from others."""
        return self.path, self.modified, self.method


def choose(paths: Sequence[Path], texts: Texts) -> list[Choice]:
    """Let the visitor choose one model and decoding, or two to compare."""
    first = _choose(paths, texts, "first")
    if not st.toggle(texts.compare, key="compare", help=texts.about_compare):
        return [first]
    st.subheader(texts.second, anchor=False, divider="gray")
    return [first, _choose(paths, texts, "second")]


def _choose(paths: Sequence[Path], texts: Texts, key: str) -> Choice:
    captioner, path, modified = _choose_model(paths, texts, key)
    method = _choose_method(captioner.beams, texts, key)
    return Choice(captioner, path, modified, method, f"{model_name(path, texts)} · {_method_name(method, texts)}")


def model_name(path: Path, texts: Texts) -> str:
    """A checkpoint, as shown."""
    return texts.pretrained if path == pretrained.PRETRAINED else path.as_posix()


def _method_name(method: Method, texts: Texts) -> str:
    if method.temperature is not None:
        return f"{texts.sampling} {method.temperature:g}"
    return texts.greedy if method.beam_size == 1 else f"{texts.beam} {method.beam_size}"


def _first_choice(paths: Sequence[Path]) -> Path:
    """The checkpoint that ``find_checkpoint`` chooses for photos."""
    if pretrained.DEFAULT_CHECKPOINT in paths:
        with contextlib.suppress(UserError, OSError):
            own = load(pretrained.DEFAULT_CHECKPOINT, pretrained.DEFAULT_CHECKPOINT.stat().st_mtime_ns)
            if own.learned_from == "photographs":
                return pretrained.DEFAULT_CHECKPOINT
    return pretrained.PRETRAINED if pretrained.PRETRAINED in paths else paths[0]


def _choose_model(paths: Sequence[Path], texts: Texts, key: str) -> tuple[Captioner, Path, int]:
    """A captioner, its path and modification time. If it cannot be read, the page shows an error and ends there."""
    path = st.selectbox(
        texts.model,
        paths,
        index=paths.index(_first_choice(paths)),
        format_func=lambda path: model_name(path, texts),
        key=f"model {key}",
    )
    try:
        modified = path.stat().st_mtime_ns
        with st.spinner(texts.loading):
            captioner = load(path, modified)
    except (UserError, OSError):
        st.error(texts.unreadable)
        st.stop()
    st.caption(
        texts.about_model.format(
            decoder=captioner.config.decoder.name,
            words=len(captioner.vocabulary),
            size=captioner.transform.image_size,
        )
    )
    return captioner, path, modified


def _choose_method(default_beam: int, texts: Texts, key: str) -> Method:
    names = {"beam": texts.beam, "greedy": texts.greedy, "sampling": texts.sampling}
    # A second caption is greedy until the visitor chooses, or it would be the first one again.
    index = 0 if key == "first" else 1
    kind = st.radio(
        texts.decoding, list(names), index, format_func=names.__getitem__, horizontal=True, key=f"decoding {key}"
    )
    if kind == "greedy":
        st.caption(texts.about_greedy)
        return Method()
    if kind == "beam":
        smallest, largest = BEAMS
        default = min(max(default_beam, smallest), largest)
        beam_size = st.slider(texts.beam_size, smallest, largest, default, key=f"beam {key}")
        st.caption(texts.about_beam)
        return Method(beam_size)
    temperature = st.slider(texts.temperature, 0.1, 1.5, 0.7, 0.1, key=f"temperature {key}")
    seed = st.number_input(texts.seed, 0, 9999, help=texts.same_seed, key=f"seed {key}")
    st.caption(texts.about_sampling.format(count=SAMPLES))
    return Method(temperature=temperature, seed=seed)
