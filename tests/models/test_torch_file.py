"""models/torch_file.py: files that would take more memory than they have, or hold what no checkpoint does."""

import copy
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cli import UserError
from models import torch_file
from models.torch_file import read_torch
from tests.support.helpers import assert_same

PLAIN = {"model": {"w": torch.arange(6.0).view(2, 3)}, "words": ["a", "b"], "numbers": (1, 2.5, None, True)}
Change = Callable[[str, bytes], tuple[str, bytes]]


def read(path: Path) -> Any:
    return read_torch(path, path.name, "checkpoint")


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    assert len(str(caught.value)) < 290
    return str(caught.value)


def rewrite(source: Path, path: Path, change: Change, compression: int = zipfile.ZIP_STORED) -> Path:
    """A copy of a file of torch.save with changed members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        for member in old.infolist():
            new.writestr(*change(member.filename, old.read(member)))
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    torch.save(PLAIN, tmp_path / "plain.pth")
    return tmp_path / "plain.pth"


def test_what_is_plain_is_read_and_does_not_depend_on_the_file(plain: Path) -> None:
    found = read(plain)
    with plain.open("r+b") as file:  # as a program that copies over it; a mapped tensor would change
        file.write(b"\xff" * plain.stat().st_size)
    assert torch.equal(found["model"]["w"], torch.arange(6.0).view(2, 3))
    assert {**found, "model": 0} == {**PLAIN, "model": 0}


def test_types_become_plain_and_shared_tensors_stay_shared(tmp_path: Path) -> None:
    shared, buffer = torch.ones(1000), torch.arange(20.0)
    state = OrderedDict(a=shared, part=buffer[:10], rest=buffer[10:].view(2, 5), p=torch.nn.Parameter(torch.ones(1)))
    torch.save({"one": state, "two": {"a": shared}}, tmp_path / "a.pth")
    found = read(tmp_path / "a.pth")
    assert type(found["one"]) is dict and found["one"]["a"] is found["two"]["a"]
    assert torch.equal(found["one"]["rest"], buffer[10:].view(2, 5)) and not found["one"]["p"].requires_grad


def test_the_format_before_2020_is_read_if_it_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(PLAIN, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read(tmp_path / "old.pth")["model"]["w"], torch.arange(6.0).view(2, 3))
    monkeypatch.setattr(torch_file, "MAX_INDEX", 200)
    assert "not a readable checkpoint" in refusal(tmp_path / "old.pth")


def test_archives_that_unpack_to_more_than_they_are(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    zeros = rewrite(plain, path, lambda name, data: (name, bytes(10**7) if "/data/" in name else data), 8)
    assert zeros.stat().st_size < 10**5 and "compressed or encrypted" in refusal(path)
    torch.save({"x": "x" * (torch_file.MAX_INDEX + 1)}, path)
    assert "more than 3 MB besides the tensors" in refusal(path)
    torch.save({"w": torch.zeros(10**5)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
        first = next(member for member in new.infolist() if "/data/" in member.filename)
        for number in range(100):  # many members with the bytes of one
            twin = copy.copy(first)
            twin.filename = f"whole/data/{number + 1}"
            new.filelist.append(twin)
        new.NameToInfo.update({member.filename: member for member in new.filelist})
    assert "its parts overlap" in refusal(path)
    with zipfile.ZipFile(path, "w") as new:
        for number in range(40_000):
            new.writestr(f"archive/data/{number}", b"")
    assert "too many parts" in refusal(path)


def test_ends_that_two_readers_could_understand_differently(plain: Path, tmp_path: Path) -> None:
    path, content = tmp_path / "bad.pth", plain.read_bytes()
    path.write_bytes(content + b"\0")
    assert "truncated" in refusal(path)
    place = content.rindex(b"PK\6\7")
    path.write_bytes(content[: place + 8] + b"\1" + content[place + 9 :])
    assert "its list of parts is not at its end" in refusal(path)


@pytest.mark.parametrize("zip64", [True, False])
def test_lists_of_members_that_two_readers_find_at_different_places(zip64: bool, plain: Path, tmp_path: Path) -> None:
    """zipfile reads the list that ends at the record, torch the one at the offset which the record tells."""
    path = tmp_path / "bad.pth"
    if not zip64:
        plain = rewrite(plain, tmp_path / "short.pth", lambda name, data: (name, data))
        assert_same(read(plain), PLAIN)
    content = plain.read_bytes()
    assert (b"PK\6\6" in content) is zip64
    record = content.rindex(b"PK\6\6" if zip64 else b"PK\5\6")
    place, width = (record + 48, 8) if zip64 else (record + 16, 4)
    start = int.from_bytes(content[place : place + width], "little")
    moved = (start - 1).to_bytes(width, "little")
    path.write_bytes(content[:place] + moved + content[place + width :])
    assert "its list of parts is not where its end says" in refusal(path)


def test_large_files_are_refused_before_they_are_read(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "huge.pth"
    path.write_bytes(plain.read_bytes())
    os.truncate(path, torch_file.MAX_FILE + 2**30)  # a sparse file: it takes no room on the disk
    assert "huge.pth: not a readable checkpoint (9 GB, at most 8)" in refusal(path)


def test_tensors_that_are_larger_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"w": torch.zeros(1).expand(10**9)}, path)
    assert "its tensors overlap" in refusal(path)
    storage = torch.zeros(10_000)
    torch.save({str(number): storage[number:] for number in range(1000)}, path)
    assert "its tensors overlap" in refusal(path)
    torch.save({"w": torch.zeros(10**6)}, tmp_path / "whole.pth")
    rewrite(tmp_path / "whole.pth", path, lambda name, data: (name, data[:8] if "/data/" in name else data))
    assert "not a readable checkpoint" in refusal(path)


@pytest.mark.filterwarnings("ignore")  # of torch, about such kinds
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6)),
        lambda: torch.zeros(10**6, device="meta"),
        lambda: torch.zeros(2, dtype=torch.complex64),
        lambda: torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.quint8),
    ],
    ids=["sparse", "meta", "complex", "quantized"],
)
def test_tensors_of_other_kinds(make: Callable[[], torch.Tensor], tmp_path: Path) -> None:
    torch.save({"model": {"w": make()}}, tmp_path / "bad.pth")
    assert "model.w is not a plain tensor" in refusal(tmp_path / "bad.pth")


def test_numbers_must_be_finite(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for value in (torch.nan, torch.inf, -torch.inf):
            weights = torch.zeros(1000, dtype=dtype)
            weights[7] = value
            torch.save({"training": {"optimizer": {0: {"exp_avg": weights}}}}, path)
            assert "training.optimizer.0.exp_avg holds NaN or infinity" in refusal(path)
    torch.save({"w": torch.full((1000,), 3e38)}, path)  # finite, but not their sum
    assert read(path)["w"][0] == torch.tensor(3e38)
    for number in (float("nan"), float("-inf"), 2**200):
        torch.save({"scores": [number]}, path)
        assert "scores.0 is no text, finite number" in refusal(path)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def doubled(times: int) -> Any:
    value: Any = [1]
    for _ in range(times):
        value = [value, value]
    return value


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


@pytest.mark.parametrize(
    "value",
    [
        nested(100),
        doubled(9) * 2000,
        cyclic(),
        {"w" * 10**6: {str(number): 1 for number in range(1000)}, 1: {1, 2}},
        {(1, 2): 3},
        {"a": b"bytes"},
        {"a": torch.float32},
        {"a": torch.Size([1])},
        {"a": 1j},
    ],
    ids=["deep", "laughs", "cyclic", "long name", "tuple as name", "bytes", "dtype", "size", "complex"],
)
def test_values_that_no_checkpoint_holds(value: Any, tmp_path: Path) -> None:
    torch.save({"config": value}, tmp_path / "bad.pth")
    assert "bad.pth: not a readable checkpoint" in refusal(tmp_path / "bad.pth")


def test_deep_pickles_end_in_one_line(plain: Path, tmp_path: Path) -> None:
    deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    path = rewrite(plain, tmp_path / "bad.pth", lambda name, data: (name, deep if name.endswith(".pkl") else data))
    assert "levels deep" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_names_that_python_hashes_alike(zipped: bool, tmp_path: Path) -> None:
    """Each new one is compared with all before it, so that a dict of many takes quadratic time."""
    path = tmp_path / "a.pth"
    alike = {number * sys.hash_info.modulus: None for number in range(1, 200)}
    for values in (alike, {-number: None for number in alike}):
        torch.save(values, path, _use_new_zipfile_serialization=zipped)
        assert "too many long numbers" in refusal(path)
    seeds = {"seeds": [2**63 - 1 - number for number in range(50)], "sizes": [2**40 + number for number in range(500)]}
    torch.save(seeds, path, _use_new_zipfile_serialization=zipped)
    assert read(path) == seeds


def test_names_of_members_in_upper_case(tmp_path: Path) -> None:
    """Torch finds data.pkl by such a name too."""
    torch.save({number * sys.hash_info.modulus: None for number in range(1, 200)}, tmp_path / "a.pth")
    path = rewrite(
        tmp_path / "a.pth", tmp_path / "b.pth", lambda name, data: (name.replace("data.pkl", "DATA.Pkl"), data)
    )
    assert "too many long numbers" in refusal(path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("a/data.pkl", pickle.dumps({}, 2))
    assert "two of its parts have the same name" in refusal(path)


def test_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("the file ran code",))

    torch.save({"a": Malicious()}, tmp_path / "bad.pth")
    assert "not a readable checkpoint (it holds Python objects" in refusal(tmp_path / "bad.pth")
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(Malicious(), 2) * 5)
    assert "not a readable checkpoint (it holds Python objects" in refusal(tmp_path / "bad.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="all names are Unicode here")
def test_a_file_whose_name_is_not_utf_8_is_read(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    torch.save(PLAIN, path := tmp_path / "utf8.pth")
    path.rename(folder / "other.pth")
    assert_same(read(folder / "other.pth"), PLAIN)
