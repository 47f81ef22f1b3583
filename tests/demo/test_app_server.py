"""app.py under visitors who misuse the server: others do not notice."""

import os
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import InvalidStatus

from demo.limits import MAX_FILES
from tests.support.streamlit_client import Client
from tests.support.streamlit_server import Server, serve


@pytest.fixture(scope="module")
def folder(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model, which the tests may damage."""
    found = tmp_path_factory.mktemp("server")
    shutil.copy(demo_folder / "checkpoints.pth", found)
    return found


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Server]:
    with serve(folder) as server:
        with Client(server.address) as client:
            client.run()
        yield server


def model(messages: list[ForwardMsg]) -> list[str]:
    """What the page says about the model it uses: nothing if there is none."""
    texts = [message.delta.new_element.markdown.body for message in messages if message.HasField("delta")]
    return [text for text in texts if "vocabulary of" in text]


def slowest_answer(address: str, action: Callable[[], object], seconds: float) -> float:
    """Seconds that the health endpoint takes at most during ``action`` and the ``seconds`` after it."""
    worst, done = 0.0, threading.Event()

    def poll() -> None:
        nonlocal worst
        while not done.is_set():
            start = time.monotonic()
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=60).close()
            worst = max(worst, time.monotonic() - start)
            time.sleep(0.02)

    poller = threading.Thread(target=poll)
    poller.start()
    action()
    time.sleep(seconds)
    done.set()
    poller.join()
    return worst


@pytest.mark.parametrize("message", [{}, {"stop_script": True}])
def test_the_server_answers_within_two_seconds_while_a_visitor_runs_the_page_30_times(
    site: Server, message: dict[str, bool]
) -> None:
    """Each `stop_script` makes Streamlit run the page in a new thread."""
    with Client(site.address) as client:
        client.run()

        def flood() -> None:
            for _ in range(30):
                if message:
                    client.send(**message)
                client.send(rerun_script={})

        # With a full collection of garbage after each run it took 37 s.
        assert slowest_answer(site.address, flood, seconds=3) < 2


def test_a_message_that_clears_the_caches_does_not_load_the_model_again(site: Server, folder: Path) -> None:
    path = folder / "checkpoints.pth"
    modified = path.stat().st_mtime_ns
    path.write_bytes(b"damaged")
    os.utime(path, ns=(modified, modified))
    with Client(site.address) as one, Client(site.address) as other:
        before = model(one.run())
        one.send(clear_cache=True)
        assert model(one.run()) == model(other.run()) == before
        os.utime(path, ns=(modified + 1, modified + 1))
        assert model(other.run()) != before  # now it is loaded again: the page offers the pretrained model instead


def test_pages_of_other_sites_cannot_connect_and_are_not_looked_up(site: Server) -> None:
    """``serve`` checks that the server connects to no other machine, neither now nor at its start."""
    with pytest.raises(InvalidStatus, match="403"):
        Client(site.address, origin="https://example.com")


def test_the_server_listens_on_this_machine_only(site: Server) -> None:
    sockets = Path("/proc/net/tcp"), Path("/proc/net/tcp6")
    if not sockets[0].exists():
        pytest.skip("needs /proc")
    port = f":{int(site.address.rpartition(':')[2]):04X}"
    rows = [row.split() for path in sockets if path.exists() for row in path.read_text().splitlines()]
    assert {row[1].removesuffix(port) for row in rows if row[1].endswith(port) and row[3] == "0A"} <= {
        "0100007F",  # 127.0.0.1
        "00000000000000000000000001000000",  # ::1
    }


def test_the_limits_of_uploads_are_in_force(site: Server) -> None:
    with Client(site.address) as client:
        client.run()
        answers = [client.upload(str(number), b"x").status_code for number in range(MAX_FILES + 1)]
        assert answers == [204] * MAX_FILES + [413]
