"""Recognise the format of a captions file by its first bytes, and name the command that converts it."""

import codecs
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structured
from cli import UserError

HEAD = 1 << 16  # bytes to look at
NOT_TEXT = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"PK\x03\x04", b"%PDF")  # how such files begin
SEPARATORS = "\t;|,"
IMAGE_COLUMNS = (  # of other people's tables, the likeliest first
    *("image", "file_name", "filename", "image_name", "image_file", "image_filename", "image_path", "img", "img_path"),
    *("file", "file_path", "filepath", "path", "photo", "picture"),
)
CAPTION_COLUMNS = ("caption", "captions", "text", "raw", "sentence", "sentences", "comment", "description")
SPLIT_COLUMNS = ("split",)
METADATA_FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # of a Hugging Face imagefolder
# What other data sets call the splits. COCO's "restval" are the validation images that are commonly trained on.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SUFFIX = r"\.(jpe?g|png|gif|bmp|webp|tiff?)"
_IMAGE_NAME = rf"[^\t]+{_SUFFIX}"


@dataclass(frozen=True)
class Format:
    """A format of captions files.

    Args:
        command: the command of data.prepare that reads it.
        text: the format in words, for messages.
        separator: the character between the cells of a row.
    """

    command: str
    text: str
    separator: str = ""


COCO = Format("coco", "COCO captions (JSON)")
KARPATHY = Format("karpathy", "a Karpathy JSON")
JSON_LIST = Format("table", "a JSON list")
JSON_LINES = Format("table", "JSON lines")
BY_IMAGE = Format("table", "a JSON object with the names of the images as its keys")
PARQUET = Format("table", "a Parquet file")
TOKEN = Format("table", "lines of the form 'name.jpg#0<TAB>caption'")
COMMAS = Format("table", "a CSV", ",")


def recognise(path: Path) -> Format:
    """The format of a file. One that looks like nothing else is a CSV.

    Raises:
        UserError: it begins like an image, a zip archive (as spreadsheets are) or a PDF, or is UTF-16.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(NOT_TEXT):
        raise UserError(
            f"{path}: an image, a spreadsheet or another file that is not text. Name a CSV with the columns "
            "image,caption; save a spreadsheet as CSV UTF-8"
        )
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path}: text in UTF-16, not UTF-8. Save the file as UTF-8 (in a spreadsheet: CSV UTF-8)")
    if head.startswith(b"PAR1"):
        return PARQUET
    text = head.decode("utf-8-sig", "replace").lstrip("\r\n ")
    if text.startswith("["):
        return JSON_LIST
    if text.startswith("{"):
        return _json_format(text)
    first = re.split(r"[\r\n]", text, maxsplit=1)[0]
    if re.match(rf"([^\t]+#\d+|{_IMAGE_NAME})\t", first, re.IGNORECASE):
        return TOKEN
    separator = max(SEPARATORS[::-1], key=first.count)  # the comma if there is none
    if separator == ",":
        return COMMAS
    shown = "tabs" if separator == "\t" else repr(separator)
    return Format("table", f"a table with {shown} between the columns", separator)


def _json_format(text: str) -> Format:
    """The format of a file that begins with ``text``, an opening brace."""
    if re.match(rf'\{{\s*"[^"]+{_SUFFIX}"\s*:', text, re.IGNORECASE):
        return BY_IMAGE
    try:
        record = structured.parse_json(text.partition("\n")[0], "")
        whole = any(isinstance(record.get(key), list) for key in ("images", "annotations"))
    except UserError:  # it has several lines, or is cut off
        whole = '"images"' in text or '"annotations"' in text
    if not whole:
        return JSON_LINES
    return KARPATHY if '"sentences"' in text else COCO


def is_image_name(text: str) -> bool:
    """Whether a cell is the file name of an image, so that its row is not a header."""
    return re.fullmatch(_IMAGE_NAME, text, re.IGNORECASE) is not None


def find_column(columns: Iterable[str], names: Sequence[str]) -> str | None:
    """The column with the first of the ``names`` that is there, in upper or lower case; None if there is none."""
    by_name = {column.strip().lower(): column for column in columns}
    return next((by_name[name] for name in names if name in by_name), None)


def conversion(path: Path, columns: Sequence[str] | None = None) -> str:
    """The command that converts ``path``, to be copied.

    Args:
        columns: those of a table. Options are added for those that data.prepare does not find by their names.
    """
    command = "table" if path.is_dir() else recognise(path).command
    words = ["python", "-m", "data.prepare", command, str(path)]
    if columns is not None:
        for option, names in (("--image_column", IMAGE_COLUMNS), ("--caption_column", CAPTION_COLUMNS)):
            if find_column(columns, names) is None:
                words += [option, "COLUMN"]
    return shlex.join(words)


def metadata_files(folder: Path) -> list[Path]:
    """The metadata files of a Hugging Face imagefolder: one in the folder, or one in each of its subfolders."""
    return sorted(path for name in METADATA_FILES for place in (name, f"*/{name}") for path in folder.glob(place))


def split_in_name(path: Path) -> str | None:
    """The split that a file's name gives: train of captions_train2017.json; None if it gives none.

    The metadata file of a Hugging Face imagefolder is named by its folder: train/metadata.jsonl.
    """
    return split_of_words(path.absolute().parent.name if path.name in METADATA_FILES else path.stem)


def split_of_words(name: str) -> str | None:
    """The split that is a word of a name; None if none is, or several are."""
    found = {SPLIT_NAMES.get(word) for word in re.findall("[a-z]+", name.lower())} - {None}
    return found.pop() if len(found) == 1 else None
