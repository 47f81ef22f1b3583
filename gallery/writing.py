"""Caption photos and write their gallery, image by image: a run that is stopped can be continued."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from cli import UserError, note
from data.images import ImageError, load_image
from files import atomic_open, lock_folder
from gallery.formats import captions_csv, captions_json, sidecar_text
from gallery.jpegs import file_name, image_files, prepare, save_images
from gallery.page import Entry, System, render_page
from gallery.photos import Photo, sidecar_path, sidecar_paths
from gallery.records import WHOLE_GALLERY, Records, photo_key
from gallery.sidecars import write_sidecar
from models.captioner import Captioner

PAGE = "captions_result.html"
LOCK = ".gallery.lock"
BATCH_IMAGES = 16
BATCH_PIXELS = 50_000_000  # large photos make smaller batches: 16 of 50 megapixels would take 2.4 GB


@dataclass(frozen=True)
class Compared:
    """A second captioner, whose captions the page shows beside those of the first."""

    model: Captioner
    system: System
    identity: str  # of the model and its beam size


@dataclass(frozen=True)
class Target:
    """What to write, and where.

    Args:
        formats: of the captions: some of json, csv, txt and xmp.
        in_place: write the sidecars (txt, xmp) beside the photos instead of into ``folder``.
        strips: also write attention strips.
        checkpoint: name of the model, for the page.
        captioner: identity of the model and its beam size: what it has captioned is not captioned again.
        compared: the second model, if there is one.
    """

    folder: Path
    formats: frozenset[str]
    in_place: bool
    strips: bool
    checkpoint: str
    captioner: str
    beam_size: int
    compared: "Compared | None" = None

    @property
    def sidecars(self) -> list[str]:
        """The kinds of sidecars to write."""
        return sorted(self.formats & {"txt", "xmp"})

    @property
    def data_files(self) -> list[str]:
        """The names of the files with all captions."""
        return [f"captions.{kind}" for kind in ("json", "csv") if kind in self.formats]


@dataclass
class Report:
    """What a run has done."""

    entries: list[Entry] = field(default_factory=list)  # captioned images, in order
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name and reason of images that cannot be used
    kept: list[Path] = field(default_factory=list)  # tables and sidecars that hold what no run has written
    unwritable: list[tuple[Path, str]] = field(default_factory=list)  # sidecars beside photos, and why
    recalled: int = 0  # images that an earlier run has captioned
    removed: int = 0  # files of an earlier gallery
    interrupted: bool = False  # by Ctrl-C


@dataclass(frozen=True)
class _Job:
    """A photo, its place in the gallery, and what is known of it."""

    photo: Photo
    key: str
    file: str  # of its JPGs
    image: Image.Image | None  # None: all its JPGs are there
    entry: Entry | None  # None: not captioned yet
    other_key: str  # of what the second captioner says; empty without one
    other: Entry | None

    @property
    def incomplete(self) -> bool:
        """Whether the second captioner has not captioned it yet."""
        return bool(self.other_key) and self.other is None


def write_gallery(
    captioner: Captioner, photos: Sequence[Photo], target: Target, show: Callable[[Entry], None]
) -> Report:
    """Caption the photos; write the files of each, then those of the whole gallery.

    After Ctrl-C the files of the whole gallery are written too, with the images captioned so far.

    Args:
        show: called with each entry, in the order of the photos.

    Raises:
        UserError: none of the images can be used, a file of another origin would be overwritten, another run is
            writing to the folder, or it cannot be written.
    """
    with lock_folder(target.folder, LOCK):
        records, report = Records(target.folder), Report()
        files = _choose_files(photos, target, records)
        try:
            try:
                _caption(captioner, dict(zip(files, photos, strict=True)), target, records, report, show)
            except KeyboardInterrupt:
                report.interrupted = True
            if report.entries:
                _write_whole_gallery(report, target, records, len(photos))
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            raise UserError(
                f"{place}{error.strerror or error}: stopped after {len(report.entries)} of {len(photos)} images. Their "
                f"captions are in {records.path}. Fix this, then run the same command to continue"
            ) from error
        if not report.entries and not report.interrupted:
            raise _nothing_usable(report)
        return report


def _choose_files(photos: Sequence[Photo], target: Target, records: Records) -> list[str]:
    """The names of the JPGs, one per photo, always the same for the same photos.

    Raises:
        UserError: a photo lies in the output folder, or a file there that is not of an earlier gallery has such a name.
    """
    folder = target.folder.resolve()
    if inside := [photo for photo in photos if folder in photo.path.resolve().parents]:
        raise UserError(
            f"{inside[0].path}: is in --output_dir {target.folder} and might be overwritten. Choose another folder"
        )
    taken: set[str] = set()
    files = [file_name(photo.name, taken) for photo in photos]
    written = [PAGE, *target.data_files]
    for file in files:
        entry = Entry("", [], file=file, strip=target.strips)
        written += [*image_files(entry), *_sidecars_inside(entry, target)]
    foreign = [name for name in written if not records.owns(name) and (target.folder / name).exists()]
    if foreign and PAGE in foreign and records.empty:  # a gallery of version 1.0, which kept no records
        records.adopt(foreign)
    elif foreign:
        raise UserError(
            f"{target.folder / foreign[0]}: not from an earlier gallery and would be overwritten. "
            "Move it away, or choose another --output_dir"
        )
    return files


def _sidecars_inside(entry: Entry, target: Target) -> dict[str, str]:
    """The sidecars of one image in the output folder: file -> kind."""
    return {} if target.in_place else {sidecar_path(Path(entry.file), kind).name: kind for kind in target.sidecars}


def _caption(
    captioner: Captioner,
    photos: dict[str, Photo],
    target: Target,
    records: Records,
    report: Report,
    show: Callable[[Entry], None],
) -> None:
    """Caption the photos (file -> photo) that the records do not know, and write the files of each image."""
    tokenizer = captioner.vocabulary.tokenizer
    images = [photo.path for photo in photos.values()]
    beside = {kind: sidecar_paths(images, kind) for kind in target.sidecars if target.in_place}
    with tqdm(total=len(photos), desc="captioning", unit="img", disable=None) as bar:
        for batch in _batches(photos, target, records, report):
            new = [job.image for job in batch if job.image is not None and job.entry is None]
            found = iter(captioner.caption(new, target.beam_size, attention=True) if new else [])
            others = iter(_caption_again(batch, target, records))
            for job in batch:
                entry = job.entry or prepare(
                    Entry.from_candidates(job.photo.name, next(found)), job.image, job.file, strip=target.strips
                )
                entry = replace(
                    entry,
                    name=job.photo.name,
                    references=job.photo.references,
                    tokenizer=tokenizer,
                    other=next(others) if target.compared else None,
                )
                _write_image(job, entry, target, records, report)
                for kind, paths in beside.items():
                    _write_beside(paths[job.photo.path], entry.caption, kind, records.captions(job.photo.path), report)
                report.entries.append(entry)
                report.recalled += job.entry is not None
                show(entry)
            bar.update(len(report.entries) + len(report.skipped) - bar.n)


def _caption_again(batch: Sequence[_Job], target: Target, records: Records) -> list[Entry]:
    """What the second captioner says of each photo, if there is one; what is new is recorded."""
    second = target.compared
    if second is None:
        return []
    images = [job.image for job in batch if job.image is not None and job.incomplete]
    found = iter(second.model.caption(images, second.system.beam_size, attention=True) if images else [])
    entries = []
    for job in batch:
        entry = job.other
        if entry is None:
            entry = prepare(Entry.from_candidates(job.photo.name, next(found)), job.image, job.file, strip=False)
            records.add(job.other_key, [], entry)
        entries.append(replace(entry, tokenizer=second.model.vocabulary.tokenizer))
    return entries


def _batches(photos: dict[str, Photo], target: Target, records: Records, report: Report) -> Iterator[list[_Job]]:
    """The photos in batches, decoded where something is to be written.

    An unreadable image is reported on stderr, and in ``report.skipped``.
    """
    batch: list[_Job] = []
    images = pixels = 0
    for file, photo in photos.items():
        try:
            key = photo_key(photo.path, target.captioner)
            entry = records.recall(key)
            if entry is not None:
                entry = prepare(entry, None, file, strip=target.strips)
            other_key = photo_key(photo.path, target.compared.identity) if target.compared else ""
            other = records.recall(other_key) if other_key else None
            complete = entry is not None and records.has(key, image_files(entry)) and not (other_key and other is None)
            image = None if complete else load_image(photo.path)
        except (ImageError, OSError) as error:
            reason = (error.strerror or "") if isinstance(error, OSError) else str(error)
            reason = reason.replace(f"{photo.path}: ", "").replace(str(photo.path), photo.name)
            note(f"skipped: {photo.name}: {reason}")
            report.skipped.append((photo.name, reason))
            continue
        batch.append(_Job(photo, key, file, image, entry, other_key, other))
        if image is not None:
            images, pixels = images + 1, pixels + image.width * image.height
        if images == BATCH_IMAGES or pixels > BATCH_PIXELS:
            yield batch
            batch, images, pixels = [], 0, 0
    if batch:
        yield batch


def _write_image(job: _Job, entry: Entry, target: Target, records: Records, report: Report) -> None:
    """Record the caption, then write the files of one image in the output folder that are not there yet."""
    texts = {file: sidecar_text(entry.caption, kind) for file, kind in _sidecars_inside(entry, target).items()}
    if job.image is not None or not records.covers(job.key, texts):
        records.add(job.key, image_files(entry), entry, texts)
    if job.image is not None:
        save_images(job.image, entry, target.folder)
    _write_texts(texts, target, records, report)


def _write_texts(texts: Mapping[str, str], target: Target, records: Records, report: Report) -> None:
    """Write tables or sidecars in the output folder (file -> content), or report that they were edited and kept."""
    report.kept += [target.folder / file for file, content in texts.items() if not records.write_text(file, content)]


def _write_beside(path: Path, caption: str, kind: str, earlier: set[str], report: Report) -> None:
    """Write a sidecar beside a photo, or report why not: one folder that cannot be written does not end the run."""
    try:
        if not write_sidecar(path, caption, kind, earlier):
            report.kept.append(path)
    except OSError as error:
        report.unwritable.append((path, error.strerror or str(error)))


def _write_whole_gallery(report: Report, target: Target, records: Records, photos: int) -> None:
    """Write captions.json, captions.csv and the page; when all photos are done, remove what an earlier gallery left."""
    contents = {"captions.json": captions_json, "captions.csv": captions_csv}
    texts = {name: contents[name](report.entries) for name in target.data_files}
    page = render_page(
        report.entries,
        report.skipped,
        target.checkpoint,
        target.beam_size,
        missing=photos - len(report.entries) - len(report.skipped),
        data_files=target.data_files,
        compared=target.compared.system if target.compared else None,
    )
    texts |= page.files  # before the page, which reads them
    records.add(WHOLE_GALLERY, [PAGE], texts=texts)
    _write_texts(texts, target, records, report)
    with atomic_open(target.folder / PAGE) as file:
        file.write(page.html)
    if not report.interrupted:
        current = [[*image_files(entry), *_sidecars_inside(entry, target)] for entry in report.entries]
        report.removed = records.finish([*chain.from_iterable(current), PAGE, *texts])


def _nothing_usable(report: Report) -> UserError:
    if len(report.skipped) == 1:
        name, reason = report.skipped[0]
        return UserError(f"{name}: {reason}. Name another image with --images")
    return UserError(f"none of the {len(report.skipped)} images can be used (see the reasons above). Check the folder")
