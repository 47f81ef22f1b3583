"""Files that ``torch.save`` has written, perhaps a stranger: their content is checked before it is used.

With ``weights_only=True`` torch runs no code of the file, but believes it otherwise: a few bytes can ask for gigabytes,
as a compressed member, as a tensor that repeats one number, or as a list that contains itself. So the zip file is
checked first, then torch maps the file into memory, which reads no numbers yet, and ``_Copy`` makes the plain values
and tensors that the callers get. What these mean, the callers check.
"""

import contextlib
import math
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from cli import UserError

MAX_FILE = 8 * 2**30  # bytes; a Transformer of 430 million weights has 7 GB with the state of its optimizer
MAX_INDEX = 3 * 2**20  # bytes of all that is no tensor: 0.1 to 0.4 MB here, 2 MB with 50,000 Thai words
MAX_DIRECTORY = 2 * 2**20  # bytes of the list of members, 60 of each: the state of training has 400 to 10,000 tensors
MAX_VALUES = 200_000  # of lists and dicts: 50,000 words, and 10,000 tensors with their names
MAX_CALLS = 40_000  # of functions that make tensors, two for each; they take 30 microseconds
CALL, CONTAINERS = ord("R"), b"](){}\x81\x8f"  # operations of a pickle: a call; what makes lists, dicts, tuples
LONG, MAX_LONGS = 2**53, 100  # longer whole numbers can all have the same hash, and a dict of such takes minutes
MAX_DEPTH = 10  # of lists and dicts in each other; the optimizer's state has five levels
MAX_WHOLE = 2**63  # greatest whole number, as in a tensor
SHOWN_NAME = 80  # characters of a tensor's name in a message
LEGACY_PICKLES = 5  # of a file before the zip format of 2020: its numbers come after them
ZIP_END, ZIP64_PLACE, ZIP64_END = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}


class _Refused(ValueError):
    """Why a file is not read, for the message."""


def read_torch(path: Path, name: str, kind: str) -> Any:
    """The content of a file of ``torch.save``: plain values, and tensors on the CPU that hold finite numbers.

    Its memory is that of the file, however the file was made.

    Args:
        path: a regular file.
        name, kind: of the file, for the messages: "runs/a/checkpoints.pth", "checkpoint".

    Raises:
        UserError: the file is damaged, too large, or holds something else than a checkpoint or a state_dict does.
    """
    with refusing(name, kind):
        size = path.stat().st_size
        check_index(0, size)
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        if zipped:
            _check_zip(path, size)
        else:
            _check_legacy(path)
        # The warnings are about kinds of tensors that are refused afterwards
        with warnings.catch_warnings(action="ignore"), utf8_path(path) as place:
            # Mapped, because torch then never reads beyond the file, whatever it claims; and it is a third faster
            content = torch.load(place, map_location="cpu", weights_only=True, mmap=zipped)
        return plain_copy(content, size)


@contextlib.contextmanager
def refusing(name: str, kind: str) -> Iterator[None]:
    """Report whatever goes wrong with a file as an error of the user, with why it is not read.

    Args:
        name, kind: of the file, for the message.

    Raises:
        UserError: something went wrong.
    """
    try:
        yield
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:  # the readers raise many types (zip, pickle, EOF): all mean "cannot be read"
        reason = str(error) if isinstance(error, _Refused) else f"{type(error).__name__}, perhaps truncated"
        if "Unsupported global" in str(error):  # torch's words for a class that only its unsafe reader would make
            reason = "it holds Python objects, not only tensors: save a state_dict"
        raise UserError(f"{name}: not a readable {kind} ({reason}). Copy it again, or name another file") from error


def check_index(index: int, size: int) -> None:
    """Refuse an empty or huge file, or one with a huge index; for use in ``refusing``.

    Args:
        index, size: bytes of all that is no tensor, and of the file.
    """
    if not size:
        raise _Refused("it is empty")
    if size > MAX_FILE:
        raise _Refused(f"{size / 2**30:.0f} GB, at most {MAX_FILE / 2**30:.0f}")
    if index > MAX_INDEX:
        raise _Refused(f"more than {MAX_INDEX / 2**20:.0f} MB besides the tensors")


def plain_copy(content: Any, size: int) -> Any:
    """A copy of what a reader has built from a file of ``size`` bytes, in plain types; for use in ``refusing``."""
    return _Copy(size).of(content)


@contextlib.contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """The path for readers that open no file whose name is not UTF-8: that one goes by its number."""
    if str(path).encode("utf-8", "ignore").decode() == str(path):
        yield str(path)
    else:
        with path.open("rb") as file:
            yield f"/dev/fd/{file.fileno()}"


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether it holds neither NaN nor infinity."""
    if not tensor.is_floating_point():
        return True
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())  # large numbers may have an infinite sum


def _check_zip(path: Path, size: int) -> None:
    """Refuse what torch would unpack to more than the file is."""
    if _directory_size(path, size) > MAX_DIRECTORY:
        raise _Refused("too many parts")
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
        _check_members(members, size)
        for member in members:
            if member.filename.lower().endswith(".pkl"):
                _check_pickles(file.read(member))


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    if len({member.filename.lower() for member in members}) < len(members):  # torch finds data.pkl as DATA.PKL too
        raise _Refused("two of its parts have the same name")
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        raise _Refused("it is compressed or encrypted, and torch.save does neither")
    if sum(member.file_size for member in members) > size:
        raise _Refused("its parts overlap")
    check_index(sum(member.file_size for member in members if "/data/" not in member.filename), size)


def _directory_size(path: Path, size: int) -> int:
    """Bytes of the list of members as the end of the file tells it, before all of it is read.

    Raises:
        _Refused: the file does not end as torch.save ends it, so that another reader might find other members.
    """
    ends = ZIP64_END.size + ZIP64_PLACE.size + ZIP_END.size
    with path.open("rb") as file:
        file.seek(max(0, size - ends))
        tail = file.read(ends).rjust(ends, b"\0")
    zip64, place, end = tail[: ZIP64_END.size], tail[ZIP64_END.size : -ZIP_END.size], tail[-ZIP_END.size :]
    signature, *_, short_size, short_start, comment = ZIP_END.unpack(end)
    if signature != b"PK\5\6" or comment:
        raise _Refused("its end is missing: it is truncated")
    signature, _, offset, _ = ZIP64_PLACE.unpack(place)
    if signature != b"PK\6\7":
        directory, start, stop = short_size, short_start, size - ZIP_END.size
    elif offset == size - ends and zip64[:4] == b"PK\6\6":
        (*_, directory, start), stop = ZIP64_END.unpack(zip64), offset
    else:
        raise _Refused("its list of parts is not at its end")
    if start + directory != stop:  # zipfile then reads the list that ends there, and torch the one that begins there
        raise _Refused("its list of parts is not where its end says")
    return int(directory)


def _check_legacy(path: Path) -> None:
    """Refuse a file in the format before 2020 whose pickles are large or damaged."""
    with path.open("rb") as file:
        start = BytesIO(file.read(MAX_INDEX))
    _check_pickles(start.getvalue(), LEGACY_PICKLES)


def _check_pickles(content: bytes, number: int = 1) -> None:
    """Refuse pickles, one behind the other, that make millions of objects or many long whole numbers.

    Torch's own files have none of these numbers, and those before 2020 one.
    """
    if content.count(CALL) > MAX_CALLS or sum(content.count(operation) for operation in CONTAINERS) > MAX_VALUES:
        raise _Refused("its index makes too many objects")
    stream, longs = BytesIO(content), 0
    for _ in range(number):
        for _, value, _ in pickletools.genops(stream):
            longs += isinstance(value, int) and abs(value) > LONG
            if longs > MAX_LONGS:
                raise _Refused("its index has too many long numbers")


class _Copy:
    """Copies the content of a file, in plain types; refuses what none of torch's files of this project holds.

    Args:
        size: of the file in bytes; its tensors cannot have more, unless they overlap.
    """

    def __init__(self, size: int) -> None:
        self.bytes_left, self.values_left = size, MAX_VALUES
        self.tensors: dict[object, torch.Tensor] = {}  # the weights of a frozen encoder are in two state_dicts

    def of(self, value: Any, name: tuple[object, ...] = ()) -> Any:
        """A copy of ``value``, whose name is such as ("training", "optimizer", "state", 0, "exp_avg").

        Raises:
            _Refused: it is too large, nested too deeply, not finite, or of a type that is not for data.
        """
        self.values_left -= 1
        if self.values_left < 0 or len(name) > MAX_DEPTH:
            raise _Refused(f"more than {MAX_VALUES:,} values, or nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, torch.Tensor):
            return self._tensor(value, name)
        if isinstance(value, dict):
            if not all(type(key) in (str, int) for key in value):
                raise _Refused(f"the names in {_shown(name)} are not texts or numbers")
            return {key: self.of(each, (*name, key)) for key, each in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.of(each, (*name, number)) for number, each in enumerate(value))
        if value is None or type(value) in (str, bool) or (type(value) is int and abs(value) < MAX_WHOLE):
            return value
        if type(value) is float and math.isfinite(value):
            return value
        raise _Refused(f"{_shown(name)} is no text, finite number, list, dict or tensor")

    def _tensor(self, tensor: torch.Tensor, name: tuple[object, ...]) -> torch.Tensor:
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and tensor.dtype in DTYPES
        if not plain or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise _Refused(f"{_shown(name)} is not a plain tensor")
        same = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if same not in self.tensors:
            self.bytes_left -= tensor.numel() * tensor.element_size()
            if self.bytes_left < 0:
                raise _Refused("its tensors overlap")
            copy = tensor.detach().clone()
            if not is_finite(copy):
                raise _Refused(f"{_shown(name)} holds NaN or infinity")
            self.tensors[same] = copy
        return self.tensors[same]


def _shown(name: tuple[object, ...]) -> str:
    return ".".join(str(part)[:SHOWN_NAME] for part in name)[:SHOWN_NAME] or "the content"
