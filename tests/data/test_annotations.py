"""data/annotations.py: both layouts of Flickr8k's caption files. Karpathy's JSON is tested with data.prepare."""

import pytest

from cli import UserError
from data.annotations import parse_caption_file


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a.jpg#0\tA dog .\nb.jpg#12\t A cat . \n", [("a.jpg", "A dog ."), ("b.jpg", "A cat .")]),
        (b"\xef\xbb\xbfa.jpg#0\tA dog .\r\n\r\na.jpg#1\tA\ttab\r\n", [("a.jpg", "A dog ."), ("a.jpg", "A\ttab")]),
        ("a.jpg#0\tA café .\n".encode(), [("a.jpg", "A café .")]),
        ("a.jpg#0\tA café .\n".encode("latin-1"), [("a.jpg", "A café .")]),
        (b"p.jpg.1#0\tA man .", [("p.jpg.1", "A man .")]),
        (b"a.jpg#0\t\n", [("a.jpg", "")]),
        (b'\xef\xbb\xbfimage,caption\r\na.jpg,"A "" sign "" , red ."\r\n', [("a.jpg", 'A " sign " , red .')]),
        (b'"image","caption"\n"a.jpg","  A dog . "\n\n', [("a.jpg", "A dog .")]),
        (b"id, Caption ,image\n1,A dog .,a.jpg\n", [("a.jpg", "A dog .")]),
        ("image,caption\na.jpg,A café .\n".encode("latin-1"), [("a.jpg", "A café .")]),
        (b"", []),
    ],
)
def test_parse_caption_file(data: bytes, expected: list[tuple[str, str]]) -> None:
    assert parse_caption_file(data, "captions.txt") == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"image,caption\na.jpg,A dog .\nb.jpg,A dog , running .\n", "captions.txt, line 3: a row must have 2 columns"),
        (b'image,caption\na.jpg,"A dog .\nb.jpg,A cat .\n', "captions.txt, line 3: .* be on one line"),
        (b"image,caption\na.jpg\n", "captions.txt, line 2"),
        (b'image,caption\na.jpg,"' + b"x" * 200_000, "captions.txt, line 2: field larger"),
        (b"a.jpg#0\tA dog .\na.jpg A cat .\n", "captions.txt, line 2: 'a.jpg A cat .'"),
        (b"\x00\xff" * 100_000, "captions.txt, line 1"),
        (b"name,text\na.jpg,A dog .\n", "line 1: .*write 'image,caption' as the first line"),
    ],
)
def test_malformed_caption_files_are_refused_by_line(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_caption_file(data, "captions.txt")
