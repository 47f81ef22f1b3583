"""OnnxCaptioner: an exported captioner, run by ONNX Runtime; needs onnxruntime, Pillow and NumPy only.

Shape letters: B images, P grid positions (twice as many with ``generate.mirror``), D encoder width, S beams,
V vocabulary, T tokens, (h, w) the encoder's grid.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

from cli import UserError
from data.pixels import normalised
from deploy.description import EXPORT, NEXT, Description, read_description
from deploy.search import Hypothesis, State, beam_search

GRAPHS = ("encoder.onnx", "start.onnx", "step.onnx")
ERRORS_ONLY = 3  # ONNX Runtime's level of log messages; its warnings are about the graph, not for users


@dataclass(frozen=True)
class Candidate:
    """A caption and its log-probability (natural logarithm, summed over its words and the end)."""

    caption: str
    log_prob: float
    tokens: list[str]
    attention: np.ndarray | None = None  # (T, h, w); only of the best, and only if asked for


class OnnxCaptioner:
    """The graphs and the description in a folder that ``tools.export_onnx`` has written.

    Args:
        threads: that compute; 0: as OMP_NUM_THREADS says, else one per core.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(self, folder: Path, threads: int = 0) -> None:
        self.description: Description = read_description(folder)
        first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # OpenMP takes a list, for nested loops
        threads = threads or (int(first) if first.isdecimal() else 0)
        self._encoder, self._start, self._step = (_session(folder / name, threads) for name in GRAPHS)

    def pixels(self, image: Image.Image) -> np.ndarray:
        """RGB of any size -> what ``encode`` reads of it (3, H, W)."""
        return normalised(image, self.description.image_size, self.description.mean, self.description.std)

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """What ``pixels`` has made of B images -> features (B, P, D) in fp16, with the mirror image if it is used.

        One image at a time, which takes the least memory.
        """
        views = (slice(None), slice(None, None, -1)) if self.description.generate.mirror else (slice(None),)
        found = [
            np.concatenate(
                [_run(self._encoder, {"images": np.ascontiguousarray(image[None, ..., view])})[0] for view in views],
                axis=1,
            )
            for image in images
        ]
        return np.concatenate(found)

    def generate(
        self, features: np.ndarray, beam_size: int | None = None, *, attention: bool = False
    ) -> list[list[Candidate]]:
        """Features (B, P, D) -> the candidates of each image, the best first.

        Args:
            beam_size: None: that of the export.
            attention: also compute the attention of each best candidate, if the decoder attends.

        Raises:
            UserError: the weights are damaged.
        """
        options, start = self.description.generate, self._begin(features)
        options = replace(options, beam_size=beam_size or options.beam_size)
        shared = frozenset(self.description.memory)
        found = beam_search(self._read, start, shared, self.description.special, options)
        candidates = [[self._candidate(hypothesis) for hypothesis in beams] for beams in found]
        if attention and self.description.attends:
            weights = self._attention([beams[0].tokens for beams in found], start)
            for its, maps in zip(candidates, weights, strict=True):
                its[0] = replace(its[0], attention=maps)
        return candidates

    def caption(
        self, images: Iterable[Image.Image], beam_size: int | None = None, *, attention: bool = False
    ) -> list[list[Candidate]]:
        """RGB images of any size -> the candidates of each, the best first; see ``generate``."""
        return self.generate(self.encode([self.pixels(image) for image in images]), beam_size, attention=attention)

    def _begin(self, features: np.ndarray) -> State:
        names = self.description.state + self.description.memory
        return dict(zip(names, _run(self._start, {"features": features}, names), strict=True))

    def _read(self, tokens: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """One token further: tokens (A, S), state -> log-probabilities (A, S, V), the state of the hypotheses."""
        log_probs, *new = self._run_step("log_probs", tokens, state)
        return log_probs, dict(zip(self.description.state, new, strict=True))

    def _run_step(self, wanted: str, tokens: np.ndarray, state: State) -> list[np.ndarray]:
        return _run(
            self._step, {"tokens": tokens, **state}, [wanted, *(NEXT + name for name in self.description.state)]
        )

    def _candidate(self, hypothesis: Hypothesis) -> Candidate:
        tokens = [self.description.words[token] for token in hypothesis.tokens]
        return Candidate(self.description.blanks.join(tokens), hypothesis.log_prob, tokens)

    def _attention(self, captions: Sequence[list[int]], state: State) -> list[np.ndarray]:
        """The attention at each token (T, h, w) of one caption per image, each read once more."""
        special = self.description.special
        longest = max(map(len, captions), default=0)
        padded = np.full((len(captions), longest + 1), special.end)  # (B, T); what is read after the end is not used
        padded[:, 0] = special.start
        for row, tokens in zip(padded, captions, strict=True):
            row[1 : len(tokens) + 1] = tokens
        weights = []
        for column in range(longest):
            its_weights, *new = self._run_step("attention", padded[:, column : column + 1], state)  # (B, 1, P)
            weights.append(its_weights[:, 0])
            state = {**state, **dict(zip(self.description.state, new, strict=True))}
        if not weights:
            return [np.zeros((0, *self.description.grid), np.float32) for _ in captions]
        maps = np.stack(weights, axis=1).reshape(len(captions), longest, -1, *self.description.grid)
        upright = maps[:, :, 0] + maps[:, :, 1][..., ::-1] if maps.shape[2] > 1 else maps[:, :, 0]
        return [its_maps[: len(tokens)] for its_maps, tokens in zip(upright, captions, strict=True)]


def _session(path: Path, threads: int) -> ort.InferenceSession:
    if not path.is_file():
        raise UserError(f"{path}: no such file, but the export has one. Export it again: {EXPORT} {path.parent}")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, ERRORS_ONLY
    # Threads without work sleep: spinning, they would take the cores from other programs, and from decoding photos
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        cause = " ".join(str(error).split())[:100]
        raise UserError(f"{path}: not a graph of an exported captioner ({cause}). Export it again: {EXPORT}") from error


def _run(
    session: ort.InferenceSession, inputs: dict[str, np.ndarray], names: list[str] | None = None
) -> list[np.ndarray]:
    found: list[np.ndarray] = session.run(names, inputs)
    return found
