"""Screenshots of the demo and of a gallery, from the real thing, into docs/: `make screenshots`.

All pictures are the bundled drawings, which anybody may publish: for the demo one that even the pretrained captioner, which knows photographs,
describes well, for the gallery those of the test split. Publish no others whose licence does not allow it.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.browser import QUIET, find_chromium
from tests.support.streamlit_server import ROOT, serve

DRAWINGS = ROOT / "data/sample/images"
WIDTHS = {"desktop": (1440, 900), "phone": (390, 844)}


def open_page(browser: Browser, address: str, device: str, scheme: str) -> Page:
    """A new visitor's page."""
    width, height = WIDTHS[device]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(address)
    return page


def app(browser: Browser, photographs: list[Path], output_dir: Path) -> None:
    """The demo with a word chosen: app_desktop_light.png and so on."""
    with (
        tempfile.TemporaryDirectory() as empty,
        serve(Path(empty)) as server,
    ):  # no checkpoint of your own there: the pretrained one
        for device in WIDTHS:
            for scheme in ("light", "dark"):
                page = open_page(browser, server.address, device, scheme)
                page.locator("input[type=file]").set_input_files(photographs)
                page.locator("h2.caption").nth(len(photographs) - 1).wait_for()
                words = page.get_by_test_id("stButtonGroup").filter(has_text="Where it looked").first
                words.get_by_role("radio").nth(1).click()
                page.get_by_role("img", name="where the model looked").wait_for()
                page.wait_for_timeout(1000)  # Streamlit fades what is new in
                whole(page, output_dir / f"app_{device}_{scheme}.png", "[data-testid=stMain]")


def gallery(browser: Browser, checkpoint: Path, output_dir: Path) -> None:
    """The page of inference_visualize.py, worst caption first, with one of its words chosen: gallery_desktop_light.png and so on."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["inference_visualize.py", "--checkpoint", str(checkpoint), "--output_dir", folder]
        command += ["--captions_file", str(ROOT / "captions.csv"), "--image_dir", str(DRAWINGS)]
        subprocess.run([sys.executable, *command], check=True, cwd=ROOT)
        for device in WIDTHS:
            for scheme in ("light", "dark"):
                page = open_page(browser, (Path(folder) / "captions_result.html").as_uri(), device, scheme)
                page.get_by_label("Order").select_option(label="worst CIDEr first")
                page.locator("[data-attention] > u").nth(0).focus()
                page.wait_for_timeout(500)
                page.screenshot(path=output_dir / f"gallery_{device}_{scheme}.png")
                page.close()


def whole(page: Page, path: Path, scrolled: str) -> None:
    """A screenshot of the whole page, however long ``scrolled`` is, but no longer than three windows."""
    size = page.viewport_size
    assert size
    height = page.evaluate("selector => document.querySelector(selector).scrollHeight", scrolled)
    page.set_viewport_size({"width": size["width"], "height": min(max(size["height"], height), 3 * size["height"])})
    page.evaluate("selector => document.querySelector(selector).scrollTo(0, 0)", scrolled)
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    page.close()


def main() -> None:
    """Both, in light and dark, on a desk and on a phone."""
    parser = argparse.ArgumentParser(description="Screenshots of the demo and of a gallery, into docs/.")
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[DRAWINGS / "sample_0081.jpg"],
        help="for the demo (default: a drawing)",
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=ROOT / "checkpoints.pth", help="for the gallery, made by `make demo`"
    )
    parser.add_argument("--output_dir", type=Path, default=ROOT / "docs")
    arguments = parser.parse_args()
    chromium = find_chromium()
    if chromium is None:
        sys.exit("error: screenshots need a browser. Install chromium")
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        app(browser, [path.resolve() for path in arguments.images], arguments.output_dir)
        if arguments.checkpoint.exists():
            gallery(browser, arguments.checkpoint, arguments.output_dir)
        else:
            print(f"no {arguments.checkpoint}: no screenshot of a gallery. Run `make demo` first")
        browser.close()
    print(
        f"wrote {', '.join(sorted(path.name for path in arguments.output_dir.glob('*_*_*.png')))} into {arguments.output_dir}"
    )


if __name__ == "__main__":
    main()
