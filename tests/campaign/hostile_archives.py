"""Archives that explode, leave their folder, hide their sizes, or are damaged."""

import io
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.campaign.attack import Attack, Make, writes
from tests.campaign.mutations import mutate
from tests.support.archives import tokens

FILE = "bad.zip"
UNPACK = ("data.prepare", ("flickr8k", "--source", FILE, "texts", "--output_dir=out"))
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4
MEGABYTES = 49  # of a member, just below the limit for one file
FAR = "../" * 8 + "outside.jpg"

NAMES = {  # of a member
    "traversal": "../../outside.jpg",
    "traversal by backslashes": "..\\..\\outside.jpg",
    "far away": FAR,
    "absolute": "/tmp/outside.jpg",
    "a drive": "C:\\outside.jpg",
    "248 letters": "n" * 244 + ".jpg",
    "255 letters": "n" * 251 + ".jpg",
    "300 letters": "n" * 296 + ".jpg",
    "60000 letters": "n" * 60_000 + ".jpg",
    "255 letters of three bytes": "\u732b" * 251 + ".jpg",
    "escape sequences": "\x1b[2J\x1b[31m.jpg",
    "a line end": "a\nerror: fake.jpg",
    "half a letter": "caf\u00e9\u0301.jpg",
    "a reserved name": "CON.jpg",
    "a stream": "a.jpg:stream.jpg",
    "only dots": "...jpg",
    "a captions file": "captions.csv",
    "deep folders": "d/" * 2000 + "a.jpg",
}


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip; a name may be there twice."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def archive(content: bytes | Callable[[random.Random], bytes]) -> Make:
    """The zip, and captions of its images."""

    def make(folder: Path, rng: random.Random) -> None:
        data = content if isinstance(content, bytes) else content(rng)
        writes(FILE, data)(folder, rng)
        writes("texts/Flickr8k.token.txt", tokens("a.jpg", "b.jpg", *(f"{n}.jpg" for n in range(8))))(folder, rng)

    return make


def bomb(rng: random.Random) -> bytes:
    """Eight images of 49 MB, none of which is one."""
    return packed({f"{n}.jpg": bytes(MEGABYTES * 2**20) for n in range(8)})


def one_huge(rng: random.Random) -> bytes:
    return packed({"a.jpg": JPEG, "b.jpg": bytes(400 * 2**20)})


def lies_about_its_size(rng: random.Random) -> bytes:
    """The directory says 1 KB, but 200 MB come out."""
    data = bytearray(packed({"a.jpg": bytes(200 * 2**20)}))
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<I", data, data.rfind(signature) + offset, 1024)
    return bytes(data)


def overlapping(rng: random.Random) -> bytes:
    """Many members that share the bytes of the first (Fifield 2019)."""
    data = packed({"0.jpg": bytes(20 * 2**20)})
    start = data.rfind(b"PK\x01\x02")
    entry, end = data[start : data.rfind(b"PK\x05\x06")], bytearray(data[data.rfind(b"PK\x05\x06") :])
    entries = b"".join(entry.replace(b"0.jpg", f"{n % 10}.jpg".encode()) for n in range(200))
    struct.pack_into("<HHI", end, 8, 200, 200, len(entries))
    return data[:start] + entries + bytes(end)


def encrypted(rng: random.Random) -> bytes:
    data = bytearray(packed({"a.jpg": JPEG}))
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.rfind(signature) + offset] |= 1
    return bytes(data)


def unknown_method(rng: random.Random) -> bytes:
    data = bytearray(packed({"a.jpg": JPEG}))
    for signature, offset in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        struct.pack_into("<H", data, data.rfind(signature) + offset, 99)
    return bytes(data)


def link(rng: random.Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("a.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
        archive.writestr("b.jpg", JPEG)
    return file.getvalue()


def damaged_codec(method: int, rng: random.Random) -> bytes:
    """The members' own bytes are noise."""
    data = bytearray(packed({"a.jpg": JPEG * 20, "b.jpg": JPEG * 30}, method))
    for at in range(60, data.find(b"PK\x01\x02") - 20, 37):
        data[at] = rng.randrange(256)
    return bytes(data)


def mutated(method: int, rng: random.Random) -> bytes:
    return mutate(packed({"a.jpg": JPEG, "x/b.jpg": JPEG * 9, "Flickr_8k.trainImages.txt": b"a.jpg\n"}, method), rng)


MADE: dict[str, bytes | Callable[[random.Random], bytes]] = {
    "many that are no images": bomb,
    "one beyond the limit": one_huge,
    "overlapping members": overlapping,
    "a link": link,
    "60000 members": lambda _: packed({f"{n}.txt": b"" for n in range(60_000)}, zipfile.ZIP_STORED),
    "an archive in an archive": packed({"a.zip": packed({"b.zip": packed({"a.jpg": JPEG})})}),
    "the same name twice": packed({"x/a.jpg": JPEG, "y/a.jpg": JPEG * 2}),
    "a folder called image": packed({"a.jpg/": b"", "a.jpg/b.jpg": JPEG}),
}
BROKEN: dict[str, bytes | Callable[[random.Random], bytes]] = {
    "lies about its size": lies_about_its_size,
    "encrypted": encrypted,
    "an unknown method": unknown_method,
    "empty": b"",
    "no zip": b"PK\x03\x04" + bytes(100),
    "only an end": b"PK\x05\x06" + b"\xff" * 18,
    "text": b"<html>404</html>",
}
METHODS = {"stored": 0, "deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


def attacks() -> Iterator[Attack]:
    for name, member in NAMES.items():
        yield Attack(f"archive: name, {name}", *UNPACK, archive(packed({member: JPEG, "a.jpg": JPEG})), accepted=True)
    for name, content in MADE.items():
        yield Attack(f"archive: {name}", *UNPACK, archive(content), accepted=True)
    for name, content in BROKEN.items():
        yield Attack(f"archive: {name}", *UNPACK, archive(content))
    for name, method in METHODS.items():
        yield Attack(f"archive: damaged {name}", *UNPACK, archive(partial(damaged_codec, method)))
        for number in range(4):
            yield Attack(f"archive: mutated {name} {number}", *UNPACK, archive(partial(mutated, method)), accepted=True)
