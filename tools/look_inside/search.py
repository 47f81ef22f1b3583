"""Beam search as a tree: what ``models.decoding.generate`` kept open at each step, noted by the decoder it asks."""

from dataclasses import dataclass, field
from typing import Any

import torch

from data.packing import PackedTokens
from data.vocab import START_ID
from models.decoding import Hypothesis, generate
from models.interfaces import WordDecoder


@dataclass
class Node:
    """A token that the search kept open."""

    token: int
    parent: "Node | None"
    log_prob: float  # of the caption up to this token
    depth: int  # 0 is <start>
    children: "list[Node]" = field(default_factory=list)
    following: torch.Tensor | None = None  # (V,) log-probability of each token after this one

    @property
    def tokens(self) -> list[int]:
        """The caption up to this token, without <start>."""
        return [] if self.parent is None else [*self.parent.tokens, self.token]


@dataclass
class _State:
    """A decoder's state, and the node that each of its sequences has reached."""

    state: Any
    nodes: list[Node]

    def select(self, index: torch.Tensor, per_group: int) -> "_State":
        """See ``models.interfaces.State``."""
        return _State(self.state.select(index, per_group), [self.nodes[place] for place in index.tolist()])


class Recorder(WordDecoder):
    """Passes everything on to ``decoder`` and notes in ``root`` the tokens it is asked to read, for one image."""

    def __init__(self, decoder: WordDecoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.root = Node(START_ID, None, 0.0, 0)

    def start(self, features: torch.Tensor) -> _State:
        """See ``WordDecoder``."""
        return _State(self.decoder.start(features), [self.root])

    def read(
        self, tokens: PackedTokens, state: _State, *, attention: bool = False
    ) -> tuple[torch.Tensor, _State, torch.Tensor | None]:
        """See ``WordDecoder``; one token further."""
        logits, following, weights = self.decoder.read(tokens, state.state, attention=attention)
        log_prob = logits.float().log_softmax(dim=-1)
        nodes = []
        for before, token, row in zip(state.nodes, tokens.tokens[:, 0].tolist(), log_prob, strict=True):
            node = self.root if before.following is None else self._after(before, token)
            node.following = row
            nodes.append(node)
        return logits, _State(following, nodes), weights

    @staticmethod
    def _after(before: Node, token: int) -> Node:
        assert before.following is not None
        node = Node(token, before, before.log_prob + float(before.following[token]), before.depth + 1)
        before.children.append(node)
        return node


def search(
    decoder: WordDecoder, features: torch.Tensor, beam_size: int, **options: Any
) -> tuple[Node, list[Hypothesis]]:
    """Beam search over one image: all that it kept open, and the hypotheses it ended with.

    Args:
        features: (1, P, D).
        options: of ``generate``.
    """
    recorder = Recorder(decoder)
    (found,) = generate(recorder, features, beam_size, **options)
    return recorder.root, found


def levels(root: Node) -> list[list[Node]]:
    """The open hypotheses after each step, the best first; the first level holds <start> alone."""
    found, level = [], [root]
    while level:
        found.append(sorted(level, key=lambda node: -node.log_prob))
        level = [child for node in level for child in node.children]
    return found
