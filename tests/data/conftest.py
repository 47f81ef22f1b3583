"""Images and feature caches for the tests of the feature cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data.features import FeatureCache
from data.transforms import Transform
from tests.support.features import MANY
from tests.support.helpers import draw


@pytest.fixture
def cache(tmp_path: Path) -> Callable[..., FeatureCache]:
    """``cache(encoder)``: a cache as a new process would open it; those of one test share a folder."""

    def make(
        encode: Any, fingerprint: str = "weights 1", transform: Transform | None = None, workers: int = 2
    ) -> FeatureCache:
        return FeatureCache(tmp_path / "cache", encode, {"weights": fingerprint}, transform or Transform(32), workers)

    return make


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    colours = ("red", "blue", "green", "yellow", "black")
    return [
        draw(tmp_path / f"{number}.jpg", "circle", colour, (40 + number, 30)) for number, colour in enumerate(colours)
    ]


@pytest.fixture(scope="module")
def many_images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("many")
    paths = [folder / f"{number}.png" for number in range(MANY)]
    for number, path in enumerate(paths):
        Image.new("RGB", (2, 2), (number % 256, number // 256, 0)).save(path)
    return paths
