"""data/features.py: features are computed once, correctly, in parallel, and errors name what to do."""

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from cli import UserError
from config import ResNet50Config
from data.dataset import Flickr8kDataset, collate
from data.features import FeatureCache
from data.images import load_image
from data.transforms import Transform
from data.vocab import Vocabulary
from files import atomic_open
from models.model import EncoderCNN
from tests.support.features import CountingEncoder, assert_right
from tests.support.helpers import draw


def test_features_of_the_real_encoder_are_those_of_the_cache(
    cache: Callable[..., FeatureCache], images: list[Path]
) -> None:
    encoder = EncoderCNN(ResNet50Config(weights="none")).eval()
    made = cache(torch.inference_mode()(encoder), transform=Transform(64))
    assert made.build(images) == {}
    load = made.loader(images[0].parent)
    with torch.inference_mode():
        for path in images:
            fresh = encoder(Transform(64)(load_image(path))[None])[0]
            assert load(path.name, None).shape == fresh.shape == (4, 2048)
            torch.testing.assert_close(load(path.name, 7).float(), fresh, rtol=2e-3, atol=2e-3)


def test_a_second_build_computes_nothing(cache: Callable[..., FeatureCache], images: list[Path]) -> None:
    first, second = CountingEncoder(), CountingEncoder()
    one = cache(first)
    one.build(images)
    assert first.seen == len(images)
    one.build(images)
    assert first.seen == len(images)
    again = cache(second)
    again.build(images[::-1])
    assert second.seen == 0
    assert_right(again, images)


def test_new_images_are_added_and_old_ones_stay_readable(
    cache: Callable[..., FeatureCache], images: list[Path]
) -> None:
    old = cache(CountingEncoder())
    old.build(images[:2])
    encoder = CountingEncoder()
    more = cache(encoder)
    more.build(images)
    assert encoder.seen == 3
    assert_right(more, images)
    assert_right(old, images[:2])  # a run that is still reading does not notice


def test_only_a_changed_image_is_computed_again(cache: Callable[..., FeatureCache], images: list[Path]) -> None:
    cache(CountingEncoder()).build(images)
    draw(images[2], "square", "black", (50, 50))
    encoder = CountingEncoder()
    changed = cache(encoder)
    changed.build(images)
    assert encoder.seen == 1
    assert_right(changed, images)


def test_the_same_image_under_two_names_is_computed_once(
    cache: Callable[..., FeatureCache], images: list[Path]
) -> None:
    copy = images[0].with_name("copy.jpg")
    copy.write_bytes(images[0].read_bytes())
    encoder = CountingEncoder()
    both = cache(encoder)
    both.build([images[0], copy])
    assert encoder.seen == 1
    assert torch.equal(both[copy], both[images[0]])


def test_each_encoder_and_transform_has_its_own_features(
    cache: Callable[..., FeatureCache], images: list[Path]
) -> None:
    cache(CountingEncoder()).build(images)
    for options in (
        {"fingerprint": "weights 2"},
        {"transform": Transform(64)},
        {"transform": Transform(32, mean=(0.5, 0.5, 0.5))},
    ):
        encoder = CountingEncoder()
        other = cache(encoder, **options)
        other.build(images)
        assert encoder.seen == len(images)
        assert_right(other, images)
    assert len([path for path in (images[0].parent / "cache").iterdir() if path.is_dir()]) == 4


def test_the_encoders_fingerprint_depends_on_weights_and_layout() -> None:
    torch.manual_seed(0)
    encoder = EncoderCNN(ResNet50Config(weights="none"))
    before = encoder.fingerprint()
    torch.manual_seed(0)
    assert EncoderCNN(ResNet50Config(weights="none")).fingerprint() == before
    torch.manual_seed(0)
    assert EncoderCNN(ResNet50Config(weights="none", layout="original")).fingerprint() != before
    with torch.no_grad():
        next(encoder.parameters())[0, 0, 0, 0] += 1e-3
    assert encoder.fingerprint() != before


def test_bad_images_are_reported_and_the_rest_is_built(
    cache: Callable[..., FeatureCache], images: list[Path], many_images: list[Path]
) -> None:
    images[1].write_bytes(images[1].read_bytes()[:300])
    images[3].write_bytes(b"text")
    twin = images[3].with_name("twin.jpg")
    twin.write_bytes(b"text")
    gone = images[0].with_name("gone.jpg")
    for _ in range(2):  # the second time from the cache
        made = cache(CountingEncoder())
        bad = made.build([*images, twin, gone, *many_images[:40]])
        assert set(bad) == {images[1], images[3], twin, gone}
        assert all(str(error).startswith(f"{path}: ") for path, error in bad.items())
        assert [bad[path].kind for path in (images[1], twin, gone)] == ["damaged image", "not an image", "no such file"]
        assert_right(made, [images[0], images[2], images[4], *many_images[:40]])


def test_nothing_but_bad_images(cache: Callable[..., FeatureCache], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"text")
    assert list(cache(CountingEncoder()).build([tmp_path / "a.jpg"])) == [tmp_path / "a.jpg"]
    assert cache(CountingEncoder()).build([]) == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"shards": 3}',
        '{"shards": [["a", "b", "c", "d", "e", "f"]]}',
        '{"shards": [[], []]}',
    ],
)
def test_a_damaged_index_is_reported_with_its_folder(
    cache: Callable[..., FeatureCache], images: list[Path], content: str
) -> None:
    made = cache(CountingEncoder())
    made.build(images)
    (made.folder / "index.json").write_text(content)
    with pytest.raises(UserError, match=rf"{made.folder.name}: damaged feature cache .*Delete the folder"):
        cache(CountingEncoder()).build(images)


@pytest.mark.parametrize("length", [0, 10, 200])
def test_a_damaged_shard_is_reported_with_its_folder(
    cache: Callable[..., FeatureCache], images: list[Path], length: int
) -> None:
    made = cache(CountingEncoder())
    made.build(images)
    shard = made.folder / "features-0.npy"
    content = shard.read_bytes()
    shard.unlink()  # not written over: the old map is still open
    shard.write_bytes(content[:length])
    with pytest.raises(UserError, match="damaged feature cache"):
        cache(CountingEncoder()).build(images)


def test_features_outside_fp16_are_refused(cache: Callable[..., FeatureCache], images: list[Path]) -> None:
    for factor in (1e6, float("nan")):
        with pytest.raises(UserError, match=r"outside the range of fp16.*encoder\.weights"):
            cache(lambda batch, factor=factor: CountingEncoder()(batch) * factor, f"times {factor}").build(images)


def test_a_full_disk_is_reported_before_the_work(
    cache: Callable[..., FeatureCache], images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"need 0\.0 MB, but the disk has 0\.0 MB left .*feature_cache"):
        cache(CountingEncoder()).build(images)


def large(batch: torch.Tensor) -> torch.Tensor:
    """Features that take 2 MB for five images."""
    return torch.ones(len(batch), 2, 100_000)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="tests a disk that fills during the computation")
@pytest.mark.parametrize("has_call", [True, False])
def test_features_that_find_no_room_are_an_error(
    cache: Callable[..., FeatureCache], images: list[Path], monkeypatch: pytest.MonkeyPatch, has_call: bool
) -> None:
    """A memory-mapped file gets its room page by page: the one that finds none would kill the process."""
    import resource

    if not has_call:
        monkeypatch.delattr(os, "posix_fallocate")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    made = cache(large)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(UserError, match=rf"{made.folder.name}: the features need 2\.0 MB, .*feature_cache"):
            made.build(images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(made.folder.glob("*.npy"))
    assert made.build(images) == {}


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="POSIX")
@pytest.mark.parametrize("has_call", [True, False])
def test_the_room_of_features_is_reserved_before_they_are_computed(
    cache: Callable[..., FeatureCache], images: list[Path], monkeypatch: pytest.MonkeyPatch, has_call: bool
) -> None:
    if not has_call:
        monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr("data.features.ENCODE_BATCH", 1)
    reserved = []

    def encode(batch: torch.Tensor) -> torch.Tensor:
        reserved.extend(512 * path.stat().st_blocks for path in made.folder.glob("*.npy"))
        return large(batch)

    made = cache(encode)
    made.build(images)
    assert len(reserved) == 4 and min(reserved) >= 2_000_000  # from the second image on
    assert torch.equal(made.batch(images), large(torch.empty(5)).half())


def age(path: Path) -> None:
    """Make a file look old and unchanged, whatever was written to it."""
    os.utime(path, (1e9, 1e9))


def test_unchanged_images_are_not_read_again(cache: Callable[..., FeatureCache], images: list[Path]) -> None:
    for path in images:
        age(path)
    cache(CountingEncoder()).build(images)
    images[2].write_bytes(bytes(images[2].stat().st_size))  # no image any more,
    age(images[2])  # but it looks unchanged
    assert cache(CountingEncoder()).build(images) == {}
    os.utime(images[2])
    assert list(cache(CountingEncoder()).build(images)) == [images[2]]


def test_the_index_is_not_written_more_often_the_more_images_there_are(
    cache: Callable[..., FeatureCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write is as long as the index, so one per so many images would take quadratic time."""
    paths = [tmp_path / f"{number}.bmp" for number in range(2500)]
    for number, path in enumerate(paths):
        Image.new("RGB", (1, 1), (number % 256, number // 256, 0)).save(path)
    written = []
    monkeypatch.setattr("data.features.ENCODE_BATCH", 1)
    monkeypatch.setattr("data.features.atomic_open", lambda path: (written.append(path), atomic_open(path))[1])
    cache(CountingEncoder(), transform=Transform(2)).build(paths)
    assert 40 <= len(written) <= 60


def test_the_loader_is_small_and_reads_the_same_in_other_processes(
    cache: Callable[..., FeatureCache], images: list[Path]
) -> None:
    made = cache(CountingEncoder())
    made.build(images)
    loader = made.loader(images[0].parent)
    pickled = pickle.dumps(loader)
    assert len(pickled) < 2000  # neither the encoder nor the features
    for load in (loader, pickle.loads(pickled)):
        assert all(torch.equal(load(path.name, None), made[path]) for path in images)
    references = {path.name: ["a dog"] for path in images}
    dataset = Flickr8kDataset(references, loader, Vocabulary.build(["a dog"], 1))
    batches = list(DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=collate))
    assert torch.equal(torch.cat([batch.visual for batch in batches]), torch.stack([made[path] for path in images]))


def test_the_folder_shows_when_it_was_last_used(cache: Callable[..., FeatureCache], images: list[Path]) -> None:
    made = cache(CountingEncoder())
    made.build(images)
    os.utime(made.folder, (1e9, 1e9))
    cache(CountingEncoder()).build(images)
    assert time.time() - made.folder.stat().st_mtime < 600
