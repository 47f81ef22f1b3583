"""Image files made byte by byte: what no program writes, but a stranger may."""

import struct
import zlib


def png(width: int, height: int, pixels: bytes | None = None, extra: bytes = b"", *, bits: int = 8) -> bytes:
    """An RGB PNG, black unless ``pixels`` are given (b"": none), with ``extra`` chunks before them."""
    rows = bytes((1 + 3 * width * bits // 8) * height) if pixels is None else pixels
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def gif(width: int, height: int, body: bytes) -> bytes:
    """A GIF of two colours with a logical screen of that size; ``body`` holds its blocks and frames."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\xff\0\0\0\0\0" + body + b";"


def gif_frame(left: int, top: int, width: int, height: int) -> bytes:
    """A frame whose first pixel is of the first colour, and which ends there."""
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02\x02\x44\x01\0"


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def tiff(tags: list[tuple[int, int, int, int]], data: bytes) -> bytes:
    """A grey TIFF of 20 x 20 pixels with further tags (number, type, count, value or place); ``data`` follows them."""
    usual = [(256, 4, 1, 20), (257, 4, 1, 20), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries = sorted([*usual, (277, 3, 1, 1), (278, 4, 1, 20), (279, 4, 1, 400), *tags])
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + data


def bmp_rle(width: int, height: int, data: bytes) -> bytes:
    """A run-length encoded BMP of 256 greys."""
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078) + info + palette + data
