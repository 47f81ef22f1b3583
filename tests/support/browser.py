"""A real browser for tests: headless Chromium. Without Chromium, tests that use these fixtures are skipped."""

import gc
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM_OPTIONS = [  # without them Chromium contacts Google's servers at every start
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """The path of Chromium, if it is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Visit:
    """An open page, with the errors and requests so far."""

    page: Page
    errors: list[str] = field(default_factory=list)  # console errors, uncaught exceptions, failed requests
    requests: list[str] = field(default_factory=list)  # addresses

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", lambda request: self.errors.append(f"{request.url}: {request.failure}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def accessibility_violations(self) -> list[str]:
        """What axe-core rates as a serious or critical violation in the page as it is, and where."""
        violations = Axe().run(self.page).response["violations"]
        return [
            f"{found['id']}: {[node['target'] for node in found['nodes']]}"
            for found in violations
            if found["impact"] in {"serious", "critical"}
        ]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One Chromium for all tests."""
    path = find_chromium()
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")
    expect.set_options(timeout=60_000)  # a busy machine is no failure
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_OPTIONS)
        yield browser
        # Processes of a DataLoader that an exception's traceback still holds have inherited the browser's pipe: as long
        # as they live, closing it waits for ever.
        gc.collect()
        browser.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Visit]]:
    """``visit(address, width=390, ...)`` opens a page with cookies of its own.

    Further options are those of Playwright's ``new_context``.
    """
    contexts = []

    def open_page(address: str, width: int = 1440, height: int = 900, **options: Any) -> Visit:
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}, **options))
        contexts[-1].set_default_timeout(120_000)  # a busy machine is no failure
        visitor = Visit(contexts[-1].new_page())
        visitor.page.goto(address)
        return visitor

    yield open_page
    for context in contexts:
        context.close()
