"""Rows of text in CSV files and the like: read within limits, written so that no spreadsheet runs a cell."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from cli import UserError
from structured import MB, check_file

MAX_TABLE_BYTES = 512 * MB  # the 3.3 million captions of Conceptual Captions take 400 MB
MAX_ROWS = 4_000_000  # of them; a row of two cells takes about 300 bytes in memory
MAX_LINE = 2**20  # characters; Python's csv reads cells of up to 131,072
MAX_COLUMNS = 1000  # tables of captions have 2 to 20
MAX_CELLS = 20_000_000  # of all rows: five in each of MAX_ROWS; an empty one takes 8 bytes in each copy of the table
# What a spreadsheet takes for the beginning of a formula, also in full width. The quotes before it let ``plain_cell``
# undo ``safe_cell`` for any text.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def safe_cell(text: str) -> str:
    """A cell to write: text that a spreadsheet would run as a formula gets a quote before it.

    Captions and file names may come from strangers. See https://owasp.org/www-community/attacks/CSV_Injection.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def plain_cell(cell: str) -> str:
    """The text that ``safe_cell`` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def read_rows(path: Path, separator: str = ",") -> dict[int, list[str]]:
    """The stripped cells of each row that is not empty, header first, by the number of its line.

    pandas.read_csv drops what follows an unquoted comma and does not report lines. In tables with ``|`` (Flickr30k's
    results.csv) double quotes are a part of the text.

    Raises:
        UserError: the file is empty, not UTF-8, has unbalanced double quotes, or is larger than the limits.
    """
    check_file(path, MAX_TABLE_BYTES)
    rows, number, count = dict[int, list[str]](), 1, 0
    quoting: Literal[0, 3] = csv.QUOTE_NONE if separator == "|" else csv.QUOTE_MINIMAL
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _lines(file, path)
            reader = csv.reader(lines, delimiter=separator, quoting=quoting, skipinitialspace=True, strict=True)
            for row in reader:
                cells = [plain_cell(cell.strip()) for cell in row]
                if len(cells) > MAX_COLUMNS:
                    raise UserError(f"{path}: row {number}: more than {MAX_COLUMNS:,} cells. Remove other columns")
                if any(cells):
                    rows[number] = cells
                count += len(cells)
                if len(rows) > MAX_ROWS or count > MAX_CELLS:
                    raise UserError(f"{path}: more than {MAX_ROWS:,} rows or {MAX_CELLS:,} cells. Split the file")
                number = reader.line_num + 1
    except UnicodeDecodeError:
        number, reason = _undecodable(path)
        raise UserError(f"{path}: row {number}: not UTF-8 ({reason}). Save the file as CSV UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: row {number}: not a readable CSV ({error}). Check the double quotes") from error
    if not rows:
        raise UserError(f"{path}: empty. The first line must name the columns: image,caption")
    return rows


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    """The lines of a text file.

    Raises:
        UserError: a line is too long, or holds a NUL, which no text and no file name does.
    """
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), ""), start=1):
        if len(line) > MAX_LINE:
            raise UserError(f"{path}: row {number}: more than {MAX_LINE:,} characters. Correct or remove it")
        if "\0" in line:
            raise UserError(f"{path}: row {number}: a NUL character, so it is no text. Save the file as CSV UTF-8")
        yield line


def _undecodable(path: Path) -> tuple[int, str]:
    """The line with the first bytes that are not UTF-8, and what is wrong with them."""
    content = path.read_bytes()
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1, error.reason
    return 1, "the file is being changed"
