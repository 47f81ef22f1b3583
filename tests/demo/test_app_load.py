"""Twenty visitors at once, five photographs each, three times over: everybody gets their own captions, and memory does not grow."""

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
from tests.support.demo_folder import photograph
from tests.support.helpers import ROOT
from tests.support.streamlit_server import command, serve

VISITORS, PHOTOGRAPHS, ROUNDS = 20, 5, 3
FORGET = 5  # seconds after which the server forgets a visitor who has gone


def resident(pid: int) -> float:
    """Megabytes of RAM that the process holds."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1000


@pytest.mark.slow
def test_twenty_visitors_at_once(chromium: Browser, tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc, to see how much memory the server holds")
    if not PRETRAINED.exists():
        pytest.skip(f"needs {PRETRAINED.name}: an untrained model says the same of every picture")
    captioner = Captioner.load(PRETRAINED, torch.device("cpu"))
    paths = [photograph(tmp_path / f"{number}.jpg", number, (2000, 1500)) for number in range(VISITORS * PHOTOGRAPHS)]
    best = [captioner.caption([load_image(path)])[0][0] for path in paths]
    wanted = [f"{candidate.log_prob:.2f}" for candidate in best]  # tells pictures apart where captions are alike
    assert len(set(wanted)) >= 0.7 * len(wanted)
    held = []
    (tmp_path / "empty").mkdir()
    with serve(tmp_path / "empty", [*command(ROOT / "app.py"), f"--server.disconnectedSessionTTL={FORGET}"]) as server:
        for number in range(ROUNDS):
            start = time.monotonic()
            visitors = []
            for first in range(0, len(paths), PHOTOGRAPHS):
                visitors.append(Visit(chromium.new_context().new_page()))
                visitors[-1].page.goto(server.address)
                visitors[-1].page.locator("input[type=file]").set_input_files(
                    paths[first : first + PHOTOGRAPHS], timeout=120_000
                )
            for visitor, first in zip(visitors, range(0, len(paths), PHOTOGRAPHS), strict=True):
                scores = visitor.page.get_by_text("· log-probability")
                expect(scores).to_have_count(PHOTOGRAPHS, timeout=300_000)
                found = [re.search(r"log-probability (-?[\d.]+)", text)[1] for text in scores.all_inner_texts()]  # type: ignore[index]
                assert found == wanted[first : first + PHOTOGRAPHS] and visitor.errors == []
            seconds = time.monotonic() - start
            for visitor in visitors:
                visitor.page.context.close()
            time.sleep(2 * FORGET)
            held.append(resident(server.process.pid))
            print(f"round {number + 1}: {seconds:.0f} s, then {held[-1]:.0f} MB")
    # Measured: 1372 to 1592 MB; of 20 x 2 photographs, round by round, 1176, 1276, 1214, 1447, 1264, 1286. What a round brings, 100 decoded
    # pictures and their files, is 290 MB: kept, it would be half as much again after two more.
    assert held[-1] < 1.3 * held[0]
