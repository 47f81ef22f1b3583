"""structured.py: JSON and YAML from strangers are refused by size, nesting and text before they can do harm."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import structured
from cli import UserError
from structured import check_values, parse_json, parse_yaml, read_file, read_json, read_json_lines

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n"
for one, other in zip("abcdefgh", "bcdefghi", strict=True):
    LAUGHS += f"{other}: &{other} [{', '.join([f'*{one}'] * 9)}]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, r"x\.yaml: line 2: an alias \(\*a\)\. Write out the value"),
        ("a: &a {<<: [*a, *a]}", "line 1: an alias"),
        ("a: &a\n  b: *a\n", "line 2: an alias"),
        ("a: *unknown", "line 1: an alias"),
        ("{a: " * 5000 + "1" + "}" * 5000, "line 1: more than 32 lists or objects in each other"),
        ("[" * 20_000, "line 1: more than 32 lists"),
        ("\n".join(" " * depth + "a:" for depth in range(300)), "line 33: more than 32 lists"),
        ("- " * 20_000, "line 1: more than 32 lists"),
        ("x" * 70_000, "more than 64 KB"),
        (f"a: 0x{'f' * 100}", "an integer of more than 64 bits"),
        (f"a: {'9' * 5000}", "not YAML: Exceeds the limit"),
        (r'a: "\ud800"', r"half a character \(a lone surrogate\) in '\\ud800'"),
        ("a: !!python/object/apply:os.system [id]", r"line 1: a tag \(tag:.*apply:os\), which options never have"),
        ("a: 1\nb:\n  c: 2\n  d: 3\n  c: 4", "line 5: 'c' is in line 3 already. Remove one of them"),
        ("- a: 1\n- {b: 1, b: 2}", "line 2: 'b' is in line 2 already"),
        ("a: 1\nb: !!bool maybe", "line 2: a tag"),
        ("a: =", "line 1, column 4: a special character"),
        ("a: !!timestamp x", "line 1: a tag"),
        ("a: !!set {b}", "line 1: a tag"),
        (f"a: {':'.join(['1'] * 200)}:1.0", "not YAML: int too large"),
        ("a: 1\n---\nb: 2", "line 2, column 1: a second document"),
        ("train:\n  seed: 3\n batch_size: 4\n", "line 3, column 2: indented otherwise than the lines it belongs to"),
        ("- a\nb: 3\n", "line 2, column 1: indented otherwise"),
        ("train:\n  seed: 3\n   lr: 4\n", "line 3, column 6: a colon that belongs to no option"),
        ("a: 1\nb\n", "line 3, column 1: no colon. Write 'option: value'"),
        ("a: %x", "line 1, column 4: a special character. Put the value in quotes"),
        ("a: 'x", "the end of the file in a quoted text"),
        ("train: {seed: 3}}", "line 1, column 17: expected <block end>, but found '}'"),
        ("a: 2024-13-01", "month must be in 1..12. Put such a text in quotes"),
        ("\x07", "special characters are not allowed"),
    ],
)
def test_yaml_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_yaml(text, "x.yaml")
    assert str(caught.value).startswith("x.yaml: ") and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, r"x\.json: more than 32 lists or objects"),
        ("[" * 40 + "]" * 40, "more than 32 lists"),
        ('{"a":' * 200_000, "more than 32 lists"),
        ("9" * 5000, "a number of more than 4,300 digits"),
        ("99999999999999999999", "an integer of more than 64 bits"),
        (r'[{"caption": "a dog \ud83d on grass"}]', r"half a character .* in 'a dog \\ud83d on grass'"),
        (r'{"\udc00.jpg": 1}', "half a character"),
        (b"\xff", "not JSON in UTF-8"),
        ('{"a": 1', "not JSON: line 1, column 8: Expecting ',' delimiter"),
        ("", "not JSON: line 1, column 1"),
        ("[" * 3_000_001, "more than 3,000,000 lists and objects or 12,000,000 values"),
        ("," * 12_000_001, "more than 3,000,000 lists and objects or 12,000,000 values"),
    ],
)
def test_json_that_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_json(text, "x.json")
    assert str(caught.value).startswith("x.json: ") and len(str(caught.value)) < 300


def test_what_is_not_refused() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": [1.5, null, "\xe7\x8b\x97", "\\ud83d\\ude00"]}', "") == {
        "a": [1.5, None, "狗", "😀"]
    }
    assert parse_json("[" * 32 + "]" * 32, "")
    assert parse_json("18446744073709551615", "") == 2**64 - 1
    assert parse_json(r'"caf\udce9.jpg"', "") == os.fsdecode(b"caf\xe9.jpg")
    assert parse_yaml("train: {stages: [{lr: 1}]}\n", "") == {"train": {"stages": [{"lr": 1}]}}
    assert parse_yaml("a: &a [1]\n", "") == {"a": [1]}


def cyclic() -> Any:
    value: dict[str, Any] = {}
    value["itself"] = [value]
    return value


def shared() -> Any:
    value: list[Any] = ["x"] * 10
    for _ in range(9):
        value = [value] * 10
    return value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cyclic, "more than 32 lists or objects in each other"),
        (shared, "more than 1,000 values"),
        (lambda: list(range(1001)), "more than 1,000 values"),
        (lambda: {"a": ({"b": [-(2**70)]},)}, "an integer of more than 64 bits"),
        (lambda: {("a", "\ud800"): 1}, "half a character"),
    ],
)
def test_values_that_another_reader_has_built(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"c\.pth: {message}"):
        check_values(make(), "c.pth", max_values=1000)
    check_values({"a": [1, 2.5, True, None, "é", b"bytes", {3}], 4: ()}, "c.pth", max_values=12)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(b"x" * 11)
    for name, message in [
        ("pipe", "a device, a pipe or a socket, not a file"),
        ("zero", "a device, a pipe or a socket, not a file"),
        (".", r"a folder, not a file\. Name a file"),
        ("nowhere", "no such file"),
        ("a\0b", "no such file"),
        ("large", "more than 0 KB"),
    ]:
        with pytest.raises(UserError, match=message):
            read_file(tmp_path / name, 10)
    assert read_file(tmp_path / "large", 11) == b"x" * 11
    with pytest.raises(UserError, match=r"^--config my\.yaml: more than 0 KB"):
        read_file(tmp_path / "large", 10, "--config my.yaml")


@pytest.mark.parametrize(
    ("typed", "meant"), [("lstm", "lstm.yaml"), ("lstn.yaml", "lstm.yaml"), ("lstm.yml", "lstm.yaml")]
)
def test_a_mistyped_file_gets_the_nearest_one(tmp_path: Path, typed: str, meant: str) -> None:
    (tmp_path / "lstm.yaml").touch()
    (tmp_path / "other.txt").touch()
    with pytest.raises(UserError) as caught:
        read_file(tmp_path / typed, 10, f"--config {typed}")
    assert str(caught.value) == f"--config {typed}: no such file: did you mean '{tmp_path / meant}'?"
    for unlike in ("unlike", "no folder/lstm", "a\0/lstm"):
        with pytest.raises(UserError, match=r"no such file$"):
            read_file(tmp_path / unlike, 10)


def test_json_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n[2]\r\n')
    assert list(read_json_lines(path)) == [(1, {"a": 1}), (3, [2])]
    path.write_text('{"a": 1}\n{"b"\n')
    with pytest.raises(UserError, match=r"a\.jsonl: line 2: not JSON"):
        list(read_json_lines(path))
    path.write_text('{"a": 1}\n' * 6)
    monkeypatch.setattr(structured, "MAX_CONTAINERS", 5)
    with pytest.raises(UserError, match=r"a\.jsonl: more than 5 lists and objects"):
        list(read_json_lines(path))
    monkeypatch.setattr(structured, "MAX_LINE_BYTES", 20)
    path.write_text(f'{{"a": 1}}\n"{"b" * 20}"\n')
    with pytest.raises(UserError, match=r"a\.jsonl: line 2: more than 0 KB"):
        list(read_json_lines(path))
    with pytest.raises(UserError, match=r"a\.jsonl: not JSON: line 2"):
        read_json(path)
