"""Take screenshots of the demo and of a gallery for docs/.

python -m tools.screenshots                 # or: make screenshots
python -m tools.screenshots --images a.jpg b.jpg --output_dir shots

By default they show the photographs of demo/examples, which anyone may publish, captioned by the pretrained model. Do
not publish images whose licence does not allow it.
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
from demo import EXAMPLES, EXAMPLES_DIR
from models.pretrained import PRETRAINED

if TYPE_CHECKING:  # playwright and the helpers of the tests take seconds to import
    from playwright.sync_api import Browser, Page, ViewportSize

WORD = 2  # of the first caption, whose attention map is shown: "shepherd"
DEVICES: dict[str, ViewportSize] = {
    "desktop": {"width": 1440, "height": 900},
    "phone": {"width": 390, "height": 844},
}
TIMEOUT = 120_000  # milliseconds: a busy machine is no failure
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)


def open_page(browser: Browser, address: str, device: str, scheme: Scheme) -> Page:
    """A page in a session of its own."""
    phone = device == "phone"
    page = browser.new_page(viewport=DEVICES[device], color_scheme=scheme, has_touch=phone, is_mobile=phone)
    page.goto(address)
    return page


def screenshot_app(browser: Browser, images: list[Path], output_dir: Path) -> list[Path]:
    """The demo with the attention map of a word: app_desktop_light.png and so on. Returns the files.

    Args:
        images: to upload; none: the page shows its first example.
    """
    written = []
    from tests.support.streamlit_server import serve

    # The empty folder has no checkpoint, so the demo uses the pretrained one.
    with tempfile.TemporaryDirectory() as empty, serve(Path(empty)) as server:
        for device in DEVICES:
            for scheme in SCHEMES:
                page = open_page(browser, server.address, device, scheme)
                page.locator(".strip button").first.wait_for(timeout=TIMEOUT)
                if images:
                    page.locator("input[type=file]").set_input_files(images)
                    page.locator(".strip").wait_for(state="detached", timeout=TIMEOUT)
                page.locator(".word").nth(WORD).click(timeout=TIMEOUT)
                page.mouse.move(0, 0)
                page.wait_for_timeout(1000)  # Streamlit fades new elements in
                written.append(output_dir / f"app_{device}_{scheme}.png")
                save_whole_page(page, written[-1], "[data-testid=stMain]")
    return written


def screenshot_gallery(browser: Browser, images: list[Path], output_dir: Path) -> list[Path]:
    """A gallery of the images with the attention map of a word: gallery_desktop_light.png and so on.

    Returns:
        the files.
    """
    written = []
    with tempfile.TemporaryDirectory() as folder:
        options = ["--checkpoint", str(PRETRAINED), "--images", *map(str, images), "--output_dir", folder]
        subprocess.run([sys.executable, "inference_visualize.py", *options], check=True, cwd=ROOT)
        for device in DEVICES:
            for scheme in SCHEMES:
                page = open_page(browser, (Path(folder) / "captions_result.html").as_uri(), device, scheme)
                page.locator(".card").first.locator("[data-attention] > *").nth(WORD).focus()
                page.evaluate("scrollTo(0, 0)")
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
    parser.add_argument(
        "--images", type=Path, nargs="+", default=[], metavar="FILE", help="other photographs (default: the examples)"
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
        images = [path.resolve() for path in options.images]
        written = screenshot_app(browser, images, options.output_dir)
        examples = [ROOT / EXAMPLES_DIR / name for name in EXAMPLES]
        written += screenshot_gallery(browser, images or examples, options.output_dir)
        browser.close()
    say(f"wrote {', '.join(path.name for path in written)} to {options.output_dir}")


if __name__ == "__main__":
    run_script(main)
