"""data/features.py: features are computed once, are right, and survive interruptions, changes and a second run."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from PIL import Image

from cli import UserError
from data.features import FeatureCache
from data.images import load_image
from data.transforms import Transform
from models.model import EncoderCNN
from tests.support.helpers import ROOT, draw

MANY = 400  # pictures; enough for the index to be written several times on the way


class CountingEncoder:
    """A small real encoder, (B, 3, S, S) -> the means of a 2 x 2 grid (B, 4, 3), that counts the pictures it has seen."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.seen, self.fail_after = 0, fail_after

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        self.seen += len(pictures)
        if self.fail_after is not None and self.seen > self.fail_after:
            raise KeyboardInterrupt
        return torch.nn.functional.adaptive_avg_pool2d(pictures, 2).flatten(2).transpose(1, 2)


@pytest.fixture
def cache(tmp_path: Path) -> Callable[..., FeatureCache]:
    """``cache(encoder)``: a cache as a new process would open it; all of a test share one folder."""

    def make(encode: Any, fingerprint: str = "weights 1", transform: Transform | None = None) -> FeatureCache:
        return FeatureCache(tmp_path / "cache", encode, {"weights": fingerprint}, transform or Transform(32))

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    colours = ("red", "blue", "green", "yellow", "black")
    return [
        draw(tmp_path / f"{number}.jpg", "circle", colour, (40 + number, 30)) for number, colour in enumerate(colours)
    ]


@pytest.fixture(scope="module")
def many_pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("many")
    paths = [folder / f"{number}.png" for number in range(MANY)]
    for number, path in enumerate(paths):
        Image.new("RGB", (2, 2), (number % 256, number // 256, 0)).save(path)
    return paths


def assert_right(cache: FeatureCache, paths: list[Path]) -> None:
    """What the cache says is what the encoder says."""
    fresh = CountingEncoder()(torch.stack([cache.transform(load_image(path)) for path in paths]))
    cached = torch.stack([cache[path] for path in paths])
    assert cached.dtype == torch.float16 and cached.shape == fresh.shape
    torch.testing.assert_close(cached.float(), fresh, rtol=1e-3, atol=1e-3)


def test_features_of_the_real_encoder_are_those_of_the_cache(
    cache: Callable[..., FeatureCache], pictures: list[Path]
) -> None:
    encoder = EncoderCNN("none").eval()
    made = cache(torch.inference_mode()(encoder), transform=Transform(64))
    assert made.build(pictures) == {}
    load = made.loader(pictures[0].parent)
    with torch.inference_mode():
        for path in pictures:
            fresh = encoder(Transform(64)(load_image(path))[None])[0]
            assert load(path.name, None).shape == fresh.shape == (4, 2048)
            torch.testing.assert_close(load(path.name, 7).float(), fresh, rtol=2e-3, atol=2e-3)


def test_a_second_build_computes_nothing(cache: Callable[..., FeatureCache], pictures: list[Path]) -> None:
    first, second = CountingEncoder(), CountingEncoder()
    one = cache(first)
    one.build(pictures)
    assert first.seen == len(pictures)
    one.build(pictures)
    assert first.seen == len(pictures)
    again = cache(second)
    again.build(pictures[::-1])
    assert second.seen == 0
    assert_right(again, pictures)


def test_new_pictures_are_added_and_old_ones_stay_readable(
    cache: Callable[..., FeatureCache], pictures: list[Path]
) -> None:
    old = cache(CountingEncoder())
    old.build(pictures[:2])
    encoder = CountingEncoder()
    more = cache(encoder)
    more.build(pictures)
    assert encoder.seen == 3
    assert_right(more, pictures)
    assert_right(old, pictures[:2])  # a run that is still reading does not notice


def test_only_a_changed_picture_is_computed_again(cache: Callable[..., FeatureCache], pictures: list[Path]) -> None:
    cache(CountingEncoder()).build(pictures)
    draw(pictures[2], "square", "black", (50, 50))
    encoder = CountingEncoder()
    changed = cache(encoder)
    changed.build(pictures)
    assert encoder.seen == 1
    assert_right(changed, pictures)


def test_the_same_picture_under_two_names_is_computed_once(
    cache: Callable[..., FeatureCache], pictures: list[Path]
) -> None:
    copy = pictures[0].with_name("copy.jpg")
    copy.write_bytes(pictures[0].read_bytes())
    encoder = CountingEncoder()
    both = cache(encoder)
    both.build([pictures[0], copy])
    assert encoder.seen == 1
    assert torch.equal(both[copy], both[pictures[0]])


def test_another_encoder_or_transform_has_features_of_its_own(
    cache: Callable[..., FeatureCache], pictures: list[Path]
) -> None:
    cache(CountingEncoder()).build(pictures)
    for options in (
        {"fingerprint": "weights 2"},
        {"transform": Transform(64)},
        {"transform": Transform(32, mean=(0.5, 0.5, 0.5))},
    ):
        encoder = CountingEncoder()
        other = cache(encoder, **options)
        other.build(pictures)
        assert encoder.seen == len(pictures)
        assert_right(other, pictures)
    assert len([path for path in (pictures[0].parent / "cache").iterdir() if path.is_dir()]) == 4


def test_the_encoders_fingerprint_tells_weights_and_layout() -> None:
    torch.manual_seed(0)
    encoder = EncoderCNN("none")
    before = encoder.fingerprint()
    torch.manual_seed(0)
    assert EncoderCNN("none").fingerprint() == before
    torch.manual_seed(0)
    assert EncoderCNN("none", "original").fingerprint() != before
    with torch.no_grad():
        next(encoder.parameters())[0, 0, 0, 0] += 1e-3
    assert encoder.fingerprint() != before


def test_bad_pictures_are_reported_and_the_rest_is_built(
    cache: Callable[..., FeatureCache], pictures: list[Path], many_pictures: list[Path]
) -> None:
    pictures[1].write_bytes(pictures[1].read_bytes()[:300])
    pictures[3].write_bytes(b"text")
    twin = pictures[3].with_name("twin.jpg")
    twin.write_bytes(b"text")
    gone = pictures[0].with_name("gone.jpg")
    for _ in range(2):  # the second time from the cache
        made = cache(CountingEncoder())
        bad = made.build([*pictures, twin, gone, *many_pictures[:40]])
        assert set(bad) == {pictures[1], pictures[3], twin, gone}
        assert all(str(path) in reason for path, reason in bad.items())
        assert "damaged" in bad[pictures[1]] and "not a picture" in bad[twin] and "No such file" in bad[gone]
        assert_right(made, [pictures[0], pictures[2], pictures[4], *many_pictures[:40]])


def test_nothing_but_bad_pictures(cache: Callable[..., FeatureCache], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"text")
    assert list(cache(CountingEncoder()).build([tmp_path / "a.jpg"])) == [tmp_path / "a.jpg"]
    assert cache(CountingEncoder()).build([]) == {}


def test_an_interrupted_build_goes_on_where_it_was(
    cache: Callable[..., FeatureCache], many_pictures: list[Path]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(CountingEncoder(fail_after=MANY - 30)).build(many_pictures)
    encoder = CountingEncoder()
    resumed = cache(encoder)
    resumed.build(many_pictures)
    assert 0 < encoder.seen < MANY // 2
    assert_right(resumed, many_pictures)


BUILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
from data.features import FeatureCache
from data.transforms import Transform

seen = 0
def slow(pictures):
    global seen
    seen += len(pictures)
    time.sleep({sleep})
    return torch.nn.functional.adaptive_avg_pool2d(pictures, 2).flatten(2).transpose(1, 2)

paths = [Path({folder!r}) / f"{{number}}.png" for number in range({many})]
assert FeatureCache({cache!r}, slow, {{"weights": "weights 1"}}, Transform(32)).build(paths) == {{}}
print(seen)
"""


def start_build(folder: Path, cache_folder: Path, sleep: float) -> subprocess.Popen[str]:
    code = BUILD.format(root=str(ROOT), folder=str(folder), cache=str(cache_folder), many=MANY, sleep=sleep)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_a_killed_build_goes_on_where_it_was(
    cache: Callable[..., FeatureCache], many_pictures: list[Path], tmp_path: Path
) -> None:
    process = start_build(many_pictures[0].parent, tmp_path / "cache", sleep=0.05)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cache").glob("*/index.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    encoder = CountingEncoder()
    resumed = cache(encoder)
    resumed.build(many_pictures)
    assert 0 < encoder.seen < MANY
    assert_right(resumed, many_pictures)


def test_two_builds_at_once_share_the_work(
    cache: Callable[..., FeatureCache], many_pictures: list[Path], tmp_path: Path
) -> None:
    processes = [start_build(many_pictures[0].parent, tmp_path / "cache", sleep=0.01) for _ in range(2)]
    outputs = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum(int(out) for out, _ in outputs) == MANY
    encoder = CountingEncoder()
    both = cache(encoder)
    both.build(many_pictures)
    assert encoder.seen == 0
    assert_right(both, many_pictures)


def test_a_run_that_waits_for_another_says_so(
    many_pictures: list[Path], tmp_path: Path, cache: Callable[..., FeatureCache]
) -> None:
    folder = cache(CountingEncoder()).folder
    folder.mkdir(parents=True)
    with FileLock(folder / "lock"):
        process = start_build(many_pictures[0].parent, tmp_path / "cache", sleep=0)
        assert (
            process.stderr
            and process.stderr.readline()
            == f"another run computes these features, waiting for it ({folder / 'lock'})\n"
        )
    out, _ = process.communicate(timeout=90)
    assert int(out) == MANY


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
def test_a_damaged_index_is_told_by_folder(
    cache: Callable[..., FeatureCache], pictures: list[Path], content: str
) -> None:
    made = cache(CountingEncoder())
    made.build(pictures)
    (made.folder / "index.json").write_text(content)
    with pytest.raises(UserError, match=rf"{made.folder.name}: damaged feature cache .*Delete the folder"):
        cache(CountingEncoder()).build(pictures)


@pytest.mark.parametrize("length", [0, 10, 200])
def test_a_damaged_shard_is_told_by_folder(
    cache: Callable[..., FeatureCache], pictures: list[Path], length: int
) -> None:
    made = cache(CountingEncoder())
    made.build(pictures)
    shard = made.folder / "features-0.npy"
    content = shard.read_bytes()
    shard.unlink()  # not written over: the old map is still open
    shard.write_bytes(content[:length])
    with pytest.raises(UserError, match="damaged feature cache"):
        cache(CountingEncoder()).build(pictures)


def test_features_outside_fp16_are_refused(cache: Callable[..., FeatureCache], pictures: list[Path]) -> None:
    for factor in (1e6, float("nan")):
        with pytest.raises(UserError, match=r"outside fp16.*encoder\.weights"):
            cache(lambda batch, factor=factor: CountingEncoder()(batch) * factor, f"times {factor}").build(pictures)


def test_a_full_disk_is_told_before_the_work(
    cache: Callable[..., FeatureCache], pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"the disk has .*feature_cache"):
        cache(CountingEncoder()).build(pictures)
