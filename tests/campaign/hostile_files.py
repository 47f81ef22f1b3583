"""Photos whose contents or names are hostile, galleries of strangers, and options that are names."""

import io
import json
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tests.campaign.attack import CANARY, Attack, Content, Make, writes

SHOW = "inference_visualize"
OPTIONS = ("--checkpoint=../world/model", "--output_dir=out", "--device=cpu")


EXIF_LOOP = b"MM\0*\0\0\0\x08" + b"\0\1" + b"\x87\x69" + b"\0\4" + b"\0\0\0\1" + b"\0\0\0\x08" + bytes(4)


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "JPEG")
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, data: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def gif_of_many_frames() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("P", (300, 300), number % 256) for number in range(500)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


PHOTOS: dict[str, Content] = {
    "40000 x 40000 pixels": lambda: png(40_000, 40_000, data=zlib.compress(bytes(10**8))),
    "2 billion pixels wide": png(2**31 - 1, 1),
    "no pixels": png(0, 0),
    "a text of 500 MB, compressed": lambda: png(
        8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(500 * 2**20), 1)), data=zlib.compress(bytes(8 * 25))
    ),
    "a colour profile of 500 MB, compressed": lambda: png(
        8, 8, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(500 * 2**20), 1)), data=zlib.compress(bytes(8 * 25))
    ),
    "500 frames": gif_of_many_frames,
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(" + CANARY.encode() + b") run\n",
    "a PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "an icon": b"\0\0\1\0\1\0\1\1\0\0\1\0\x20\0\x30\0\0\0\x16\0\0\0" + bytes(48),
    "a portable pixmap of text": b"P3 30000 30000 255 1 2 3",
    "a film": b"\0\0\0\x20ftypisom" + bytes(200),
    "EXIF that points at itself": b"\xff\xd8\xff\xe1\0\x2eExif\0\0MM\0*\0\0\0\x08\0\x01\x87\x69\0\4\0\0\0\1\0\0\0\x08"
    + jpeg()[2:],
    "a TIFF that points at itself": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
}
FILE_NAMES: dict[str, bytes] = {
    "escape sequences": b"\x1b[2J\x1b]0;title\x07.jpg",
    "a line end": b"a\nerror: fake.jpg",
    "not UTF-8": b"caf\xe9.jpg",
    "markup": b"<img src=x onerror=alert(1)>.jpg",
    "quotes": b"\"';&.jpg",
    "a command": b"$(touch owned).jpg",
    "an option": b"-rf.jpg",
    "a reserved name": b"CON.jpg",
    "255 letters": b"n" * 251 + b".jpg",
    "turned around": "\u202egpj.jpg".encode(),
    "many marks": ("Z" + "\u0335" * 100 + ".jpg").encode(),
    "C1 control characters": "\x9b2J.jpg".encode(),
    "a pattern": b"[a-z]*.jpg",
    "the page": b"captions_result.html.jpg",
    "half an emoji": b"\xf0\x9f\x98.jpg",
}
RECORDS: dict[str, Content] = {
    "nested": '{"key":' * 100_000 + "1" + "}" * 100_000,
    "names far away": json.dumps({"key": "k", "files": ["../outside.jpg", "/etc/x", "pictures/../../outside.jpg"]}),
    "other kinds": '5\n"x"\n[]\n{"key": 5, "files": 7}\n{"key": "a", "files": [1, null]}\n{}\nnull\n',
    "half a character": '{"key": "\\ud800", "files": ["\\ud800"]}\n',
    "bytes": bytes(range(256)) * 100,
    "a line of 50 MB": lambda: b"x" * 50_000_000,
}
WORDS: dict[str, list[str]] = {
    "an output folder that is not UTF-8": ["--output_dir=caf\udce9/\udcff", "--images=photo.jpg"],
    "an output folder of 300 letters": [f"--output_dir={'o' * 300}", "--images=photo.jpg"],
    "an output folder of escape sequences": ["--output_dir=\x1b[2J", "--images=photo.jpg"],
    "an image of 100000 letters": [f"--images={'i' * 100_000}"],
    "an image of escape sequences": ["--images=\x1b[2J\x1b[31m"],
    "null": ["--images=a\0b"],
    "a pattern that never ends": [f"--images={'*a' * 40}"],
    "all of a recursive pattern": ["--images=**/**/**/*.jpg"],
}


def named(name: bytes, content: bytes) -> Make:
    """A photo of that name in a folder."""

    def make(folder: Path, _: random.Random) -> None:
        (folder / "photos").mkdir()
        with open(os.fsencode(folder / "photos") + b"/" + name, "wb") as file:
            file.write(content)

    return make


def gallery_with(records: Content) -> Make:
    """The records of a stranger's gallery, and a photo for it."""

    def make(folder: Path, rng: random.Random) -> None:
        writes("out/captions.jsonl", records)(folder, rng)
        writes("photo.jpg", jpeg)(folder, rng)

    return make


def attacks() -> Iterator[Attack]:
    one = (*OPTIONS, "--images", "photo.jpg")
    for name, content in PHOTOS.items():
        accepted = any(word in name for word in ("frames", "EXIF", "MB"))
        yield Attack(f"photo: {name}", SHOW, one, writes("photo.jpg", content), accepted)
    for name, file_name in FILE_NAMES.items():
        options = (*OPTIONS, "--images", "photos", "--format=json,csv,txt,xmp")
        yield Attack(f"name: {name}", SHOW, options, named(file_name, jpeg()), accepted=True)
        yield Attack(f"name: {name}, damaged", SHOW, options, named(file_name, b"no image"))
    for name, records in RECORDS.items():
        yield Attack(f"gallery: {name}", SHOW, one, gallery_with(records), accepted=True)
    for name, words in WORDS.items():
        accepted = "folder" in name or "pattern" in name
        yield Attack(f"options: {name}", SHOW, [*OPTIONS, *words], writes("photo.jpg", jpeg), accepted)
