"""The web demo."""

DRAWINGS_DIR = "data/sample/images"  # the bundled drawings, which it offers; below the root of the repository
