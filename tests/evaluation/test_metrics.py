"""The scores are those of the COCO caption evaluation, with or without Java."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import UserError
from data.captions import read_captions
from data.tokenizer import WORDS
from evaluation.metrics import Scorer, caption_statistics
from tests.support.helpers import ROOT

METRICS = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="METEOR and the PTB tokenizer need Java")
METEOR = 0.480607  # of the test below by pycocoevalcap 1.2's own Meteor(), a second Java program of 10 s
GERMAN = "-Duser.language=de -Duser.country=DE -Duser.language.format=de -Duser.country.format=DE"
TRAPS = [
    "A \"big\" dog (a poodle), isn't running -- it's asleep...",
    "Two-year-old boy's T-shirt: red/blue & #1!",
    "a man in washington d.c. can't go; he gonna wait [here]?",
    "The dogs' ball costs $5.50, i.e. 50% off...",
    ".",
]


@pytest.fixture(scope="module")
def captions() -> dict[str, list[str]]:
    """Every caption of the bundled sample, by image, and a few that are hard to tokenize."""
    table = read_captions(ROOT / "captions.csv", None)
    images = {str(image): list(group) for image, group in table.groupby("image")["caption"]}
    assert sum(map(len, images.values())) >= 1000
    return images | {"traps": [*TRAPS, TRAPS[0]], "silent": ["", "a dog"]}


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine whose only programs are those that a test puts into the returned folder."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.process
@needs_java
def test_scores_equal_pycocoevalcaps_with_its_java_tokeniser(
    captions: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    some = [*sorted(captions)[::4], "traps", "silent"]  # METEOR takes 10 ms for a caption
    candidates = {image: captions[image][0] for image in some}
    references = {image: captions[image][1:] for image in some}
    ptb = PTBTokenizer()
    gts = ptb.tokenize({image: [{"caption": text} for text in texts] for image, texts in references.items()})
    res = ptb.tokenize({image: [{"caption": text}] for image, text in candidates.items()})
    bleu, _ = Bleu(4).compute_score(gts, res, verbose=0)
    rouge, _ = Rouge().compute_score(gts, res)
    cider, _ = Cider().compute_score(gts, res)
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", GERMAN)  # METEOR then prints 0,25
    scores = Scorer(references).score(candidates)
    expected = [*bleu, METEOR, rouge, cider]
    assert scores == pytest.approx(dict(zip(METRICS, expected, strict=True)), abs=1e-5)


@needs_java
def test_tokens_are_those_of_the_java_tokeniser(captions: dict[str, list[str]]) -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = sorted({text for image in captions.values() for text in image if text})
    (tokens,) = PTBTokenizer().tokenize({0: [{"caption": text} for text in texts]}).values()
    assert [" ".join(WORDS.tokenize(text)) for text in texts] == tokens


def test_without_java_all_scores_but_meteor(no_java: Path) -> None:
    scores = Scorer({"1": ["a dog runs fast today", "dogs"], "2": ["the cat"]}).score(
        {"1": "A dog runs fast today.", "2": "the cat"}
    )
    assert list(scores) == [metric for metric in METRICS if metric != "METEOR"]
    assert scores["BLEU-4"] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.skipif(os.name == "nt", reason="shell scripts stand in for Java")
@pytest.mark.parametrize(
    "script", ["exit 1", "echo 0,25; read line; read line", "while read line; do echo nonsense; done"]
)
def test_a_failing_java_counts_as_none(no_java: Path, script: str) -> None:
    """pycocoevalcap's own wrapper waits forever in such a case."""
    program = no_java / "java"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert "METEOR" not in Scorer({"1": ["a dog"], "2": ["a cat"]}).score({"1": "a dog", "2": "a cat"})


def test_errors_that_are_not_javas_are_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They were reported as "METEOR needs Java"."""
    scorer = Scorer({"1": ["a dog"], "2": ["a cat"]})
    captions = {"1": "a dog", "2": "a cat"}
    with monkeypatch.context() as patch:
        patch.setattr("evaluation.metrics.METEOR_JAR", tmp_path / "meteor-1.5.jar")
        with pytest.raises(UserError, match=r"meteor-1\.5\.jar: missing.*Reinstall pycocoevalcap"):
            scorer.score(captions)

    def bug(*_: object, **__: object) -> None:
        raise ValueError("a bug of ours")

    monkeypatch.setattr("evaluation.metrics.subprocess.Popen", bug)
    with pytest.raises(ValueError, match="a bug of ours"):
        scorer.score(captions)


def test_validation_computes_fewer_metrics(no_java: Path) -> None:
    scores = Scorer({"1": ["a dog"], "2": ["a cat"]}).score({"1": "a dog", "2": "a dog"}, all_metrics=False)
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr"]


def test_each_images_scores_are_pycocoevalcaps(no_java: Path, captions: dict[str, list[str]]) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    scorer = Scorer({image: texts[1:] for image, texts in captions.items()})
    scores = scorer.score_images({image: texts[0] for image, texts in captions.items()})
    results = {image: [" ".join(WORDS.tokenize(texts[0]))] for image, texts in captions.items()}
    assert scores.names == list(captions)
    assert scores.images["BLEU-4"].tolist() == Bleu(4).compute_score(scorer.references, results, verbose=0)[1][3]
    for metric, of_each in (("ROUGE-L", Rouge()), ("CIDEr", Cider())):
        assert scores.images[metric].tolist() == list(of_each.compute_score(scorer.references, results)[1])
        assert scores.images[metric].mean() == pytest.approx(scores.totals[metric])


def test_caption_statistics() -> None:
    found = caption_statistics(["A dog.", "a dog", "a big black cat", "a dog"], ["A big, black cat!", "a doggy"])
    assert found == {"words": 2.5, "vocabulary": 5, "distinct": 0.75, "copied": 0.25}
    assert caption_statistics(["a dog"], [])["copied"] is None


def test_case_punctuation_and_order_of_the_images_do_not_matter(no_java: Path) -> None:
    references = {"1": ["A dog, running."], "2": ["Two cats!"], "3": ["the sea"]}
    plain = Scorer(references).score({"1": "a dog running", "2": "two cats", "3": "a sea"})
    other = Scorer(dict(reversed(references.items()))).score({"2": "Two cats.", "3": "A sea", "1": "A DOG RUNNING ..."})
    assert other == pytest.approx(plain)


@pytest.mark.parametrize("caption", ["", "...", " "])
def test_an_empty_caption_scores_zero_without_an_error(no_java: Path, caption: str) -> None:
    scores = Scorer({"1": ["a dog"], "2": ["a cat"]}).score({"1": caption, "2": caption})
    assert all(score == pytest.approx(0, abs=1e-6) for score in scores.values())


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ({"1": "a dog"}, "1 images have no caption .* such as 2"),
        ({"1": "a dog", "2": "a cat", "3": "a cow"}, "1 captions have no image .* such as 3"),
    ],
)
def test_captions_and_references_must_be_of_the_same_images(captions: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Scorer({"1": ["a dog"], "2": ["a cat"]}).score(captions)


def test_nothing_is_printed_and_importing_needs_no_java(tmp_path: Path) -> None:
    references, captions = {"1": ["a dog"], "2": ["a cat"]}, {"1": "a dog", "2": "a cat"}
    code = f"from evaluation.metrics import Scorer; Scorer({references}).score({captions})"
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    assert (result.stdout, result.stderr) == ("", "")


def test_a_thousand_images_take_seconds(no_java: Path, captions: dict[str, list[str]]) -> None:
    images = dict(list(captions.items())[:500])
    references = {f"{copy}/{image}": texts for copy in (1, 2) for image, texts in images.items()}
    began = time.perf_counter()
    Scorer(references).score({image: texts[0] for image, texts in references.items()})
    assert time.perf_counter() - began < 15  # 1.5 s on two quiet cores
