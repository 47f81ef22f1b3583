"""demo/limits.py in a real server: what a visitor cannot store, and what the page says about it."""

import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from demo.limits import MAX_FILES, SERVER_FULL, VISITOR_FULL
from tests.support.helpers import ROOT
from tests.support.streamlit_client import Client, alerts
from tests.support.streamlit_server import Server, command, serve

APP = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import streamlit as st
from starlette.middleware import Middleware
from demo import limits
limits.MAX_BYTES, limits.MAX_BYTES_OF_ALL = 100_000, 250_000
app = st.App("page.py", middleware=[Middleware(limits.UploadLimits)])
"""
PAGE = """
import streamlit as st
from demo.limits import recent_refusal
if refusal := recent_refusal(()):
    st.error(refusal)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page of a few lines, because the real one imports torch. The limits of bytes are lower."""
    folder = tmp_path_factory.mktemp("limits")
    (folder / "app.py").write_text(APP)
    (folder / "page.py").write_text(PAGE)
    shutil.copytree(ROOT / ".streamlit", folder / ".streamlit")
    with serve(folder, command(folder / "app.py")) as server:
        yield server


@pytest.fixture
def visitors(site: Server) -> Iterator[list[Client]]:
    """Three visitors; what they have stored is removed at the end."""
    clients = [Client(site.address) for _ in range(3)]
    for client in clients:
        client.run()
    yield clients
    for client in clients:
        for file in range(MAX_FILES):
            client.remove(str(file))
        client.close()


def test_a_visitor_stores_20_files_and_the_page_says_why_the_next_one_is_refused(visitors: list[Client]) -> None:
    one, other, _ = visitors
    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(lambda file: one.upload(str(file), b"x" * 100), range(25)))
    refused = [number for number, answer in enumerate(answers) if answer.status_code != 204]
    assert len(refused) == 25 - MAX_FILES
    assert all((answers[number].status_code, answers[number].text) == (413, VISITOR_FULL) for number in refused)
    assert alerts(one.read_run()) == [VISITOR_FULL]
    assert other.upload("0", b"x").status_code == 204 and alerts(other.run()) == []
    stored = next(number for number in range(25) if number not in refused)
    assert one.remove(str(stored)).status_code == 204
    assert one.upload(str(stored), b"x").status_code == 204


def test_a_visitor_stores_no_more_bytes_than_allowed_and_neither_do_all_together(visitors: list[Client]) -> None:
    one, other, third = visitors
    assert [one.upload(str(file), bytes(45_000)).status_code for file in range(3)] == [204, 204, 413]
    assert [other.upload(str(file), bytes(45_000)).status_code for file in range(2)] == [204, 204]
    assert third.upload("0", bytes(45_000)).status_code == 204
    full = third.upload("1", bytes(45_000))
    assert (full.status_code, full.text) == (507, SERVER_FULL) and alerts(third.read_run()) == [SERVER_FULL]
    one.remove("0")
    assert third.upload("1", bytes(45_000)).status_code == 204


def test_uploads_that_are_being_received_count(site: Server, visitors: list[Client]) -> None:
    one = visitors[0]
    with socket.create_connection((urlsplit(site.address).hostname, urlsplit(site.address).port)) as slow:
        cookie = one.http.cookies["_streamlit_xsrf"]
        slow.sendall(
            f"PUT /_stcore/upload_file/{one.session}/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n"
            f"Content-Type: multipart/form-data; boundary=x\r\nCookie: _streamlit_xsrf={cookie}\r\n"
            f"X-Xsrftoken: {cookie}\r\n\r\n".encode()
        )
        time.sleep(0.5)
        assert one.upload("0", bytes(45_000)).status_code == 413
    time.sleep(0.5)
    assert one.upload("0", bytes(45_000)).status_code == 204


def test_an_upload_of_unknown_length_counts_as_the_longest(site: Server, visitors: list[Client]) -> None:
    path = f"{site.address}/_stcore/upload_file/{visitors[0].session}/0"
    chunked = visitors[0].http.put(path, data=iter([b"x"]), timeout=60)
    assert (chunked.status_code, chunked.text) == (413, VISITOR_FULL)


def test_an_unknown_session_stores_nothing(visitors: list[Client]) -> None:
    visitors[0].session = "unknown"
    assert visitors[0].upload("0", b"x").status_code == 400
