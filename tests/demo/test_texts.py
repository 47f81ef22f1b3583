"""demo/texts.py: both languages say the same."""

import re
from dataclasses import asdict

import pytest

from demo import limits, texts, uploads
from demo.texts import CHINESE, ENGLISH, LANGUAGES

CHINESE_LETTER = re.compile("[\u4e00-\u9fff]")
SAME = {"name", "messages"}


def test_every_text_is_there_in_every_language_with_the_same_blanks() -> None:
    english = asdict(ENGLISH)
    for language in LANGUAGES.values():
        own = asdict(language)
        assert own.keys() == english.keys()
        for name in english.keys() - SAME:
            for text, other in zip(
                *([each] if isinstance(each, str) else each for each in (own[name], english[name])), strict=True
            ):
                blanks = [sorted(re.findall(r"{[^}]*}", each)) for each in (text, other)]
                assert text and blanks[0] == blanks[1], name


def test_no_text_was_left_in_english() -> None:
    chinese = asdict(CHINESE)
    left = [name for name in chinese.keys() - {"messages", "places"} if not CHINESE_LETTER.search(chinese[name])]
    assert left == []


@pytest.mark.parametrize(
    "message",
    [
        limits.VISITOR_FULL, limits.SERVER_FULL,
        uploads.TOO_MANY_BYTES, uploads.TOO_MANY_PIXELS, uploads.NOT_AN_IMAGE, uploads.DAMAGED,
    ],
)  # fmt: skip
def test_what_the_server_answers_is_translated(message: str) -> None:
    translated = CHINESE.message(message)
    assert CHINESE_LETTER.search(translated) and ENGLISH.message(message) == message
    digits = [set(re.findall(r"\d+", text)) for text in (message, translated)]
    assert digits[0] == digits[1] or message == uploads.TOO_MANY_PIXELS  # 50 megapixels are 5000 wan pixels


def test_the_names_in_the_chinese_message_are_those_of_the_formats() -> None:
    assert all(name in CHINESE.message(uploads.NOT_AN_IMAGE) for name in re.findall(r"[A-Z]\w+", texts.NAMES))
