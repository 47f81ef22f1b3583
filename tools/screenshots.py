"""Take screenshots of the demo and of a gallery for docs/.

python -m tools.screenshots                 # or: make screenshots
python -m tools.screenshots --images a.jpg --output_dir shots

All images in them are the bundled drawings, which anyone may publish: in the demo one that the pretrained model, which
was trained on photos, describes well; in the gallery those of the test split. Do not publish images whose licence does
not allow it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if not __package__:  # started as `python tools/screenshots.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import ROOT, OptionParser, UserError, run_script, say
from demo import DRAWINGS_DIR
from evaluation.options import checkpoint_file

if TYPE_CHECKING:  # playwright and the helpers of the tests take seconds to import
    from playwright.sync_api import Browser, Page, ViewportSize

GALLERY_RUN = "configs/sample_attention.yaml"  # its captions have attention maps, which those of config.yaml lack
DRAWINGS = ROOT / DRAWINGS_DIR
DEVICES: dict[str, ViewportSize] = {
    "desktop": {"width": 1440, "height": 900},
    "phone": {"width": 390, "height": 844},
}
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


def open_page(browser: Browser, address: str, device: str, scheme: Scheme) -> Page:
    """A page in a session of its own."""
    page = browser.new_page(viewport=DEVICES[device], color_scheme=scheme)
    page.goto(address)
    return page


def screenshot_app(browser: Browser, images: list[Path], output_dir: Path) -> list[Path]:
    """The demo with the attention map of a word: app_desktop_light.png and so on. Returns the files."""
    written = []
    from tests.support.streamlit_server import serve

    # The empty folder has no checkpoint, so the demo uses the pretrained one.
    with tempfile.TemporaryDirectory() as empty, serve(Path(empty)) as server:
        for device in DEVICES:
            for scheme in SCHEMES:
                page = open_page(browser, server.address, device, scheme)
                page.locator("input[type=file]").set_input_files(images)
                page.locator("h2.caption").nth(len(images) - 1).wait_for()
                words = page.get_by_test_id("stButtonGroup").filter(has_text="attention map").first
                words.get_by_role("radio").nth(1).click()
                page.get_by_role("img", name="attention map").wait_for()
                page.wait_for_timeout(1000)  # Streamlit fades new elements in
                written.append(output_dir / f"app_{device}_{scheme}.png")
                save_whole_page(page, written[-1], "[data-testid=stMain]")
    return written


def screenshot_gallery(browser: Browser, options: list[str], output_dir: Path) -> list[Path]:
    """A gallery, worst caption first, with the attention map of a word: gallery_desktop_light.png and so on.

    Args:
        options: for inference_visualize.py.

    Returns:
        the files.
    """
    written = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "inference_visualize.py", *options, "--output_dir", folder]
        subprocess.run(command, check=True, cwd=ROOT)
        for device in DEVICES:
            for scheme in SCHEMES:
                page = open_page(browser, (Path(folder) / "captions_result.html").as_uri(), device, scheme)
                page.get_by_label("Sort by").select_option(label="CIDEr, lowest first")
                page.locator("[data-attention] > u").nth(0).focus()
                page.wait_for_timeout(500)
                written.append(output_dir / f"gallery_{device}_{scheme}.png")
                page.screenshot(path=written[-1])
                page.close()
    return written


def save_whole_page(page: Page, path: Path, scrolling: str) -> None:
    """Take a screenshot with the window enlarged to fit the element ``scrolling``, up to three times its height."""
    size = page.viewport_size
    assert size
    height = page.evaluate("selector => document.querySelector(selector).scrollHeight", scrolling)
    page.set_viewport_size({"width": size["width"], "height": min(max(size["height"], height), 3 * size["height"])})
    page.evaluate("selector => document.querySelector(selector).scrollTo(0, 0)", scrolling)
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    page.close()


def main(argv: list[str]) -> None:
    """Both pages on a desktop and a phone, in light and dark."""
    parser = OptionParser("python -m tools.screenshots", __doc__)
    drawing = DRAWINGS / "sample_0081.jpg"
    parser.add_argument(
        "--images", type=Path, nargs="+", default=[drawing], metavar="FILE", help="for the demo (default: a drawing)"
    )
    parser.add_argument(
        "--checkpoint",
        type=checkpoint_file,
        default=ROOT / "runs/sample_attention/checkpoints.pth",
        metavar="FILE",
        help=f"for the gallery; its decoder must attend (default: that of {GALLERY_RUN})",
    )
    parser.add_argument(
        "--output_dir", type=Path, default=ROOT / "docs", metavar="DIR", help="folder for the PNGs (default: docs)"
    )
    options = parser.parse_args(argv)
    from playwright.sync_api import sync_playwright

    from tests.support.browser import CHROMIUM_OPTIONS, find_chromium

    chromium = find_chromium()
    if chromium is None:
        raise UserError("screenshots need a browser. Install chromium")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        written = screenshot_app(browser, [path.resolve() for path in options.images], options.output_dir)
        if options.checkpoint.exists():
            data = ["--captions_file", str(ROOT / "captions.csv"), "--image_dir", str(DRAWINGS)]
            gallery = ["--checkpoint", str(options.checkpoint.resolve()), *data]
            written += screenshot_gallery(browser, gallery, options.output_dir)
        else:
            say(
                f"no {options.checkpoint}: no screenshot of a gallery. "
                f"First run `python train.py --config {GALLERY_RUN}`, or name another with --checkpoint"
            )
        browser.close()
    say(f"wrote {', '.join(path.name for path in written)} to {options.output_dir}")


if __name__ == "__main__":
    run_script(main)
