"""Write images and captions into WebDataset tars of bounded size, which ``data.shards`` reads."""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tqdm import tqdm

from cli import UserError
from config import ALL
from data.captions import read_captions
from data.images import ImageError, open_file
from data.shards import IMAGE_SUFFIXES, file_state, open_shard
from files import atomic_open, make_folder

MB = 10**6  # bytes
NAME_DIGITS = 9  # of KEY, the number of the image in the captions file, as img2dataset has it


@dataclass(frozen=True)
class Sample:
    """An image of the captions file."""

    key: str
    path: Path
    captions: list[str]
    split: str  # "all" if the captions file is not divided

    @property
    def member(self) -> str:
        """The name of the image in its tar."""
        return f"{self.key}{self.path.suffix.lower()}"

    @property
    def record(self) -> bytes:
        """KEY.json."""
        split = {} if self.split == ALL else {"split": self.split}
        text = json.dumps({"image": self.path.name, "captions": self.captions, **split}, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace")


@dataclass
class Written:
    """What ``write_shards`` has done."""

    tars: list[Path] = field(default_factory=list)
    images: int = 0
    left_out: list[ImageError] = field(default_factory=list)


def write_shards(captions_file: Path, image_dir: Path, folder: Path, shard_mb: int) -> Written:
    """Write ``folder``/00000.tar, 00001.tar, ... with the images of a captions file, in its order.

    Which images a tar holds depends on the input alone, and a tar appears whole or not at all. So a call that was
    interrupted is repeated: tars that are there are kept.

    Args:
        shard_mb: a tar is closed when its images have so many MB.

    Raises:
        UserError: the captions file cannot be read, none of the images exists, or there is a tar of other content.
    """
    make_folder(folder)
    written = Written()
    samples = list(_samples(captions_file, image_dir))
    with tqdm(total=len(samples), desc="writing shards", unit="img", disable=None) as bar:
        for number, group in enumerate(_grouped(samples, shard_mb * MB, written.left_out)):
            tar = folder / f"{number:05}.tar"
            if not tar.exists():
                with atomic_open(tar, "wb") as file:
                    _write(file, group)
            elif not _holds(tar, group):
                raise UserError(f"{tar}: exists and has other content. Name another --output, or move it away")
            written.tars.append(tar)
            written.images += len(group)
            bar.update(len(group))
    if not written.tars:
        why = f" ({written.left_out[0]})" if written.left_out else ""
        raise UserError(f"--image_dir {image_dir}: none of the images can be read{why}. Name their folder")
    if (more := folder / f"{len(written.tars):05}.tar").exists():
        raise UserError(f"{more}: is left of other data and would be trained on too. Move it away, then run this again")
    return written


def _samples(captions_file: Path, image_dir: Path) -> Iterator[Sample]:
    rows = read_captions(captions_file, None)
    captions: dict[str, list[str]] = {}
    splits = dict(zip(rows["image"], rows["split"], strict=True))
    for image, caption in zip(rows["image"], rows["caption"], strict=True):
        captions.setdefault(image, []).append(" ".join(caption.split()))
    for number, (image, its_captions) in enumerate(captions.items()):
        yield Sample(f"{number:0{NAME_DIGITS}}", image_dir / image, its_captions, splits[image])


def _grouped(samples: list[Sample], size: int, left_out: list[ImageError]) -> Iterator[list[Sample]]:
    """The samples of each tar; files that are no images, as far as their names and sizes tell, are left out."""
    group: list[Sample] = []
    total = 0
    for sample in samples:
        try:
            with open_file(sample.path):
                length, _ = file_state(sample.path)
            if sample.path.suffix.lower() not in IMAGE_SUFFIXES:
                raise ImageError(sample.path, "not the suffix of an image")
        except ImageError as error:
            left_out.append(error)
            continue
        if group and total + length > size:
            yield group
            group, total = [], 0
        group.append(sample)
        total += length
    if group:
        yield group


def _write(file: IO[bytes], group: list[Sample]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in group:
            with open_file(sample.path) as image:
                data = image.read()
            for name, content in ((sample.member, data), (f"{sample.key}.json", sample.record)):
                info = tarfile.TarInfo(name)  # without times and owners: the same input gives the same bytes
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def _holds(tar: Path, group: list[Sample]) -> bool:
    """Whether a tar holds images of these names and sizes, with these captions and splits."""
    shard = open_shard(tar)
    sizes = {name: size for name, (_, size) in shard.images.items()}
    return (
        sizes == {sample.member: file_state(sample.path)[0] for sample in group}
        and shard.captions == {sample.member: sample.captions for sample in group}
        and shard.splits == {sample.member: sample.split for sample in group if sample.split != ALL}
    )
