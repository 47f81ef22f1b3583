"""Load test: twenty visitors at once, five photos each, three rounds; they get their own captions, memory is stable."""

import re
import time
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, expect

from data.images import load_image
from models.captioner import Captioner
from models.pretrained import PRETRAINED
from tests.support.browser import Visit
from tests.support.demo_folder import save_photo
from tests.support.helpers import ROOT
from tests.support.streamlit_server import command, serve

VISITORS, PHOTOS, ROUNDS = 20, 5, 3
SESSION_TTL = 5  # seconds until the server drops the session of a visitor who left


def resident(pid: int) -> float:
    """Resident memory of the process in MB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1000


@pytest.mark.slow
def test_twenty_visitors_at_once(chromium: Browser, tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to measure the memory of the server")
    if not PRETRAINED.exists():
        pytest.skip(f"needs {PRETRAINED.name}: an untrained model gives every image the same caption")
    captioner = Captioner.load(PRETRAINED, torch.device("cpu"))
    paths = [save_photo(tmp_path / f"{number}.jpg", number, (2000, 1500)) for number in range(VISITORS * PHOTOS)]
    best = [captioner.caption([load_image(path)])[0][0] for path in paths]
    wanted = [
        f"{candidate.log_prob:.2f}".replace("-", "\u2212") for candidate in best
    ]  # distinguishes images with equal captions
    assert len(set(wanted)) >= 0.7 * len(wanted)
    held = []
    (tmp_path / "empty").mkdir()
    with serve(
        tmp_path / "empty", [*command(ROOT / "app.py"), f"--server.disconnectedSessionTTL={SESSION_TTL}"]
    ) as server:
        for number in range(ROUNDS):
            start = time.monotonic()
            visitors = []
            for first in range(0, len(paths), PHOTOS):
                visitors.append(Visit(chromium.new_context().new_page()))
                visitors[-1].page.goto(server.address)
                visitors[-1].page.locator("input[type=file]").set_input_files(
                    paths[first : first + PHOTOS], timeout=120_000
                )
            for visitor, first in zip(visitors, range(0, len(paths), PHOTOS), strict=True):
                scores = visitor.page.get_by_text("· log-probability")
                expect(scores).to_have_count(PHOTOS, timeout=300_000)
                texts = "\n".join(scores.all_inner_texts())
                found = re.findall(r"log-probability (\u2212?[\d.]+)", texts)
                assert found == wanted[first : first + PHOTOS] and visitor.errors == []
            seconds = time.monotonic() - start
            for visitor in visitors:
                visitor.page.context.close()
            time.sleep(2 * SESSION_TTL)
            held.append(resident(server.process.pid))
            print(f"round {number + 1}: {seconds:.0f} s, then {held[-1]:.0f} MB")
    # Measured: 1372 to 1592 MB; with 20 x 2 photos 1176, 1276, 1214, 1447, 1264, 1286 MB after six rounds. One round
    # has 290 MB of decoded images and files: if they were kept, memory would grow by half in two more rounds.
    assert held[-1] < 1.3 * held[0]
