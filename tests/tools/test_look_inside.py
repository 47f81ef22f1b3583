"""tools/look_inside and docs/how_it_works.md: its numbers are measured, its code is the code."""

import ast
import re
from pathlib import Path

import pytest
import torch

from cli import UserError
from data.images import load_image
from data.vocab import SPECIAL, Vocabulary
from models.captioner import Captioner
from models.checkpoint import load_checkpoint
from models.decoding import generate
from models.pretrained import PRETRAINED
from tests.support.decoders import small_decoder
from tests.support.helpers import ROOT, read
from tools.look_inside.__main__ import IMAGE, REFERENCES, main
from tools.look_inside.look import Look, blocks, figures, look, quoted, with_blocks
from tools.look_inside.measure import attention_decoder
from tools.look_inside.search import Node, levels, search

TEXT = (ROOT / "docs/how_it_works.md").read_text("utf-8")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
TOLERANCE = {"rel": 0.03, "abs": 0.02}  # another CPU rounds differently, and texts show two or three digits


@pytest.fixture(scope="module")
def seen() -> Look:
    """The photograph of the document, followed through the pretrained captioner."""
    captioner = Captioner.from_checkpoint(load_checkpoint(PRETRAINED), PRETRAINED, "fp32").eval()
    captioner.use_reranker("off")
    return look(captioner, load_image(IMAGE), REFERENCES)


def values(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def test_the_numbers_in_the_document_are_those_that_are_measured(seen: Look) -> None:
    measured, written = blocks(seen), quoted(TEXT)
    assert written.keys() == measured.keys()
    for name, text in measured.items():
        assert NUMBER.sub("#", written[name]).split() == NUMBER.sub("#", text).split(), name
        assert values(written[name]) == pytest.approx(values(text), **TOLERANCE), name


def test_every_decimal_number_in_the_prose_is_in_a_block() -> None:
    prose = re.sub(r"```.*?```|\]\(.*?\)|\$.*?\$", "", TEXT, flags=re.DOTALL)
    measured = " ".join(quoted(TEXT).values())
    assert [number for number in re.findall(r"\d+\.\d+", prose) if number not in measured] == []


def test_the_caption_that_the_text_is_about_is_the_best(seen: Look) -> None:
    assert f'The model says "{seen.captioner.vocabulary.decode(seen.found[0].tokens)}"' in TEXT


def source_of(path: str, name: str) -> str:
    """The source of a function, class or method in a file of the repository; fails where there is none."""
    source = (ROOT / path).read_text("utf-8")
    body: list[ast.stmt] = ast.parse(source).body
    for part in name.split("."):
        (found,) = [node for node in body if getattr(node, "name", None) == part]
        assert isinstance(found, ast.FunctionDef | ast.ClassDef)
        body = found.body
    return "\n".join(source.splitlines()[found.lineno - 1 : found.end_lineno])


@pytest.mark.parametrize("excerpt", re.findall(r"^```python\n# (.*?)^```", TEXT, re.DOTALL | re.MULTILINE))
def test_the_code_is_that_of_the_function_it_names(excerpt: str) -> None:
    head, *lines = excerpt.strip().split("\n")
    path, name = head.split(", ")
    source = [line.strip() for line in source_of(path, name).split("\n")]
    places = [source.index(line.strip()) for line in lines]
    assert places == sorted(places)


def test_what_the_links_name_exists() -> None:
    links = re.findall(r"\[`([\w.]+)`\]\(\.\./([\w/]+\.py)\)", TEXT)
    assert len(links) > 8
    for name, path in links:
        assert source_of(path, name)
    for target in re.findall(r"\]\(([\w./]+?)(?:#.*?)?\)", TEXT):
        assert (ROOT / "docs" / target).exists(), target


def test_the_figures_show_something(seen: Look) -> None:
    drawn = figures(seen)
    assert drawn.keys() == set(re.findall(r"\((how_\w+\.(?:jpg|png))\)", TEXT))
    for figure in drawn.values():
        assert figure.get_axes()


def test_only_the_blocks_of_a_document_are_replaced() -> None:
    one, two = "<!-- look_inside: one -->\n```text\n", "<!-- look_inside: two -->\n```text\n"
    text = f"a\n{one}```\nb\n```text\nc\n```\n{two}d\n```\n"
    new = with_blocks(text, {"one": "1", "two": "2\n3"})
    assert new == f"a\n{one}1\n```\nb\n```text\nc\n```\n{two}2\n3\n```\n"
    assert quoted(new) == {"one": "1", "two": "2\n3"}


def test_the_tree_is_the_search() -> None:
    """Recording changes nothing, and a caption is a path whose log-probability is that of its words."""
    torch.manual_seed(0)
    decoder, features = small_decoder("attention", 12, 8), torch.randn(1, 4, 8)
    root, found = search(decoder, features, 3, max_length=6)
    assert [found] == generate(decoder, features, 3, max_length=6)
    open_after = levels(root)
    assert all(1 <= len(level) <= 3 for level in open_after)
    for hypothesis in found:
        (end,) = [node for node in open_after[len(hypothesis.tokens)] if node.tokens == hypothesis.tokens]
        assert hypothesis.log_prob <= end.log_prob
        while end.parent is not None:
            assert isinstance(end.parent, Node) and end.log_prob <= end.parent.log_prob
            end = end.parent


def test_a_photo_needs_references_and_an_attention_decoder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="also say what people would say"):
        main(["--image", str(tmp_path / "a.jpg")])
    lstm = Captioner(read("--decoder.name=lstm"), Vocabulary([*SPECIAL, "dog"]), load_weights=False)
    with pytest.raises(UserError, match=r"decoder\.name attention"):
        attention_decoder(lstm)
