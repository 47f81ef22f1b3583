"""The bundled drawings, which the demo offers next to a visitor's own photos."""

from config import Config

DRAWINGS_DIR = "data/sample/images"  # below the root of the repository


def trained_on_drawings(config: Config) -> bool:
    """Whether a model's training images were the bundled drawings, so that its captions of photos are meaningless."""
    return config.data.image_dir == DRAWINGS_DIR
