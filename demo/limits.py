"""How much visitors may store on the server: an upload above it is refused before it is received.

By itself, Streamlit keeps any number of files in memory for anybody who connects, until the connection ends.
"""

import contextlib
import re
import time
from collections.abc import Collection

import streamlit as st
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import runtime
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx

MAX_FILES = 20  # of one visitor: twice as many as the page captions at once
MAX_BYTES = 100_000_000  # of one visitor: ten files of the maximum size
MAX_BYTES_OF_ALL = 1_000_000_000  # of all visitors: ten at their limit; a free Space has 16 GB of memory
MAX_REQUEST_BYTES = 11 * 2**20  # the longest upload that Streamlit reads with server.maxUploadSize = 10
SHOWN_SECONDS = 60  # for how long the page says why an upload was refused

UPLOAD = re.compile(r"/_stcore/upload_file/([^/]+)/[^/]+$")  # session and file
VISITOR_FULL = (
    f"The page holds at most {MAX_FILES} photos and {MAX_BYTES // 10**6} MB. Remove some, or reload it, to add others."
)
SERVER_FULL = "The server cannot store more photos at the moment. Try again in a few minutes."

_refusals: dict[str, tuple[float, str]] = {}  # session -> when its last upload was refused, and why


class UploadLimits:
    """ASGI middleware that answers uploads above the limits: 413 or 507, and the reason in words.

    Uploads that are being received count as if they were stored.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.arriving: list[tuple[str, int]] = []  # session and size in bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        found = UPLOAD.search(scope["path"]) if scope["type"] == "http" and scope["method"] == "PUT" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        session, size = found[1], int(Headers(scope=scope).get("content-length", MAX_REQUEST_BYTES))
        if refusal := self.refusal(session, size):
            _show_refusal(session, refusal)
            await PlainTextResponse(refusal, 413 if refusal == VISITOR_FULL else 507)(scope, receive, send)
            return
        self.arriving.append((session, size))
        try:
            with contextlib.suppress(ClientDisconnect):  # nobody reads an answer
                await self.app(scope, receive, send)
        finally:
            self.arriving.remove((session, size))

    def refusal(self, session: str, size: int) -> str | None:
        """Why an upload of ``size`` bytes is refused; None: it is not."""
        storage = _manager(runtime.get_instance().uploaded_file_mgr).file_storage
        # Lists: sessions that end remove their files in other threads.
        stored = [(owner, len(file.data)) for owner, files in list(storage.items()) for file in list(files.values())]
        sizes = [stored_size for owner, stored_size in stored + self.arriving if owner == session]
        if len(sizes) >= MAX_FILES or sum(sizes) + size > MAX_BYTES:
            return VISITOR_FULL
        total = sum(stored_size for _, stored_size in stored + self.arriving) + size
        return SERVER_FULL if total > MAX_BYTES_OF_ALL else None


def _manager(manager: object) -> MemoryUploadedFileManager:
    assert isinstance(manager, MemoryUploadedFileManager)  # the only one that Streamlit has
    return manager


def _show_refusal(session: str, refusal: str) -> None:
    """Let the visitor's page run again and show the refusal: the browser shows only the number of the status."""
    now = time.monotonic()
    for old in [other for other, (then, _) in list(_refusals.items()) if now - then > SHOWN_SECONDS]:
        del _refusals[old]
    if visitor := runtime.get_instance().get_app_session(session):
        _refusals[session] = now, refusal
        visitor.request_rerun(None)


def recent_refusal(shown: Collection[str]) -> str | None:
    """Why an upload of this visitor was refused in the last minute, unless there is room since.

    Only for the page, which calls it first and ``keep_only`` last.

    Args:
        shown: the uploads that the page has now.
    """
    context = get_script_run_ctx()
    session = context.session_id if context else ""
    uploaded: set[str] = st.session_state.setdefault("uploaded", set())
    if uploaded - set(shown):
        _refusals.pop(session, None)
    uploaded.update(shown)
    then, refusal = _refusals.get(session, (0.0, ""))
    return refusal if refusal and time.monotonic() - then <= SHOWN_SECONDS else None


def notice_change(source: str) -> None:
    """Note what this visitor has uploaded when the image source is another one than in the page's last whole run.

    Some of it the page never learns of: Streamlit reports uploads when the last of them has ended. The page calls this
    before it shows ``source``, so that no upload to it is among them.
    """
    context = get_script_run_ctx()
    if context and source != st.session_state.setdefault("source", source):
        storage = _manager(context.uploaded_file_mgr).file_storage
        st.session_state["left"] = set(storage.get(context.session_id, {}))
        _refusals.pop(context.session_id, None)  # there is room since


def keep_only(shown: Collection[str], source: str) -> None:
    """Remove this visitor's uploads that the page had and no longer has; others may be on their way.

    By itself, Streamlit keeps what was uploaded when the visitor changes to another image source. The page calls this
    last: a visitor who changes back before it has run to its end still has the photos.
    """
    context = get_script_run_ctx()
    if context:
        for file in (st.session_state.get("uploaded", set()) | st.session_state.pop("left", set())) - set(shown):
            _manager(context.uploaded_file_mgr).remove_file(context.session_id, file)
    st.session_state["uploaded"], st.session_state["source"] = set(shown), source
