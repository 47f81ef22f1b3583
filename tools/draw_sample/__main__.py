"""Draw the bundled sample: write data/sample/images/*.jpg and captions.csv, the same files every time.

    python -m tools.draw_sample

With this data set in the repository, training, evaluation and a gallery take minutes and need no network.
"""

import sys
from pathlib import Path

if not __package__:  # started as `python tools/draw_sample/__main__.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from cli import ROOT, OptionParser, run_script, say

IMAGES = ROOT / "data" / "sample" / "images"
CAPTIONS_FILE = ROOT / "captions.csv"


def main(argv: list[str]) -> None:
    """Write all images and captions.csv, replacing the present ones."""
    OptionParser("python -m tools.draw_sample", __doc__).parse_args(argv)
    from tools.draw_sample.draw import draw_scene, jpeg  # imports Pillow
    from tools.draw_sample.scenes import captions_csv, make_scenes

    scenes = make_scenes()
    IMAGES.mkdir(parents=True, exist_ok=True)
    for old in IMAGES.glob("sample_*.jpg"):
        old.unlink()
    for scene in scenes:
        (IMAGES / scene.image).write_bytes(jpeg(draw_scene(scene)))
    CAPTIONS_FILE.write_text(captions_csv(scenes), encoding="utf-8", newline="")
    size = sum(path.stat().st_size for path in IMAGES.glob("sample_*.jpg"))
    say(f"Wrote {len(scenes)} images ({size / 1e6:.2f} MB) to {IMAGES.relative_to(ROOT)}, and {CAPTIONS_FILE.name}")


if __name__ == "__main__":
    run_script(main)
