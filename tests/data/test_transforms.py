"""data/transforms.py: RGB image -> normalised tensor, and augmentation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.images import load_image
from data.transforms import Augment, Transform

RED = (255, 0, 0)


def test_transform_normalises_as_imagenet_and_is_saved_as_plain_values() -> None:
    transform = Transform(64)
    tensor = transform(Image.new("RGB", (300, 100), RED))
    assert tensor.shape == (3, 64, 64) and tensor.dtype == torch.float32 and tensor.is_contiguous()
    wanted = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    assert torch.allclose(tensor.amax(dim=(1, 2)), torch.tensor(wanted), atol=1e-5)
    assert Transform.from_dict(transform.to_dict()) == transform


def test_transform_does_not_crop_the_edges() -> None:
    pixels = np.zeros((100, 400, 3), np.uint8)
    pixels[:, :50] = 255
    tensor = Transform(32)(Image.fromarray(pixels))
    assert tensor[:, :, 0].min() > 1.5 and tensor[:, :, 16].max() < 0


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_tiny_and_narrow_images(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    tensor = Transform(32)(load_image(tmp_path / "a.png"))
    assert tensor.shape == (3, 32, 32)
    assert torch.allclose(tensor[0], tensor[0, 0, 0]) and tensor[0, 0, 0] > 2


def test_images_of_50_megapixels_are_accepted(tmp_path: Path) -> None:
    Image.new("P", (10_000, 5_000), 1).save(tmp_path / "a.png")
    assert Transform(32)(load_image(tmp_path / "a.png")).shape == (3, 32, 32)


def test_a_crop_of_the_whole_image_is_the_whole_image_however_wide() -> None:
    image = Image.new("RGB", (500, 200))
    assert all(Augment(1.0, flip=True)(image, seed).size == (500, 200) for seed in range(20))
    sizes = [Augment(0.5, flip=False)(image, seed).size for seed in range(20)]
    assert all(width * height >= 0.49 * 500 * 200 for width, height in sizes) and len(set(sizes)) > 10
