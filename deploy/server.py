"""The HTTP API: POST /caption, /health, /metrics, and a page that describes it."""

import asyncio
import contextlib
import math
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cli import ROOT, note
from demo import uploads
from demo.uploads import MAX_UPLOAD_BYTES, UploadError, read_upload
from deploy.batches import Batches
from deploy.captioner import Candidate, OnnxCaptioner
from deploy.metrics import Metrics
from deploy.openapi import OPENAPI

MAX_BODY_BYTES = MAX_UPLOAD_BYTES + 2**20  # room for the headers of a form
MAX_WAITING = 64  # requests without a reply: their bodies take 0.7 GB if all are as large as allowed
BODY_SECONDS = 30.0  # for an upload: 10 MB at 3 Mbit/s take 27
CAPTION_SECONDS = 60.0  # from then to the caption: who waits longer has given up
MAX_FIELDS = 8  # of a form, besides the picture
DIGITS = 4  # of an attention weight
YES = {"1", "true", "yes"}  # of ?attention=
STATUS_OF = {  # of the messages about uploads
    uploads.TOO_MANY_BYTES: 413,
    uploads.TOO_MANY_PIXELS: 413,
    uploads.NOT_AN_IMAGE: 415,
    uploads.DAMAGED: 422,
}
# The page needs its own style and script only.
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                "connect-src 'self'; img-src blob:; frame-ancestors 'none'"}  # fmt: skip

Found = TypeVar("Found")


class Refusal(Exception):
    """A request that gets no caption: status, reason and headers of the reply."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status, self.headers = status, headers


class Service:
    """What the routes share."""

    def __init__(self, captioner: OnnxCaptioner, beam_size: int | None = None) -> None:
        self._captioner, self.metrics = captioner, Metrics()
        self._batches = Batches(captioner, beam_size, self.metrics)
        self._decoding = ThreadPoolExecutor(1, "decoding")  # one decoded upload at a time is in memory
        self._waiting = self._answered = self._cut_off = 0

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """From before the first request to after the reply to the last."""
        async with self._batches.running():
            yield
        self._decoding.shutdown()
        note(f"stopped: {self._answered} requests answered, {self._waiting + self._cut_off} without an answer")

    async def post_caption(self, request: Request) -> Response:
        """POST /caption."""
        start = time.monotonic()
        self._waiting += 1
        self.metrics.waiting.set(self._waiting)
        try:
            reply = await self._reply(request)
            self._answered += 1
        except asyncio.CancelledError:  # the time to answer what was accepted is over
            self._cut_off += 1
            raise
        finally:
            self._waiting -= 1
            self.metrics.waiting.set(self._waiting)
        self.metrics.replies.labels(str(reply.status_code)).inc()
        self.metrics.seconds.observe(time.monotonic() - start)
        return reply

    async def _reply(self, request: Request) -> Response:
        try:
            return JSONResponse(await self._caption(request))
        except Refusal as refusal:
            return JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)
        except UploadError as error:
            return JSONResponse({"error": str(error)}, STATUS_OF[str(error)])
        except ClientDisconnect:  # nobody reads the reply
            return Response(status_code=499)
        except Exception:  # a fault of the server, such as memory that is full: it goes on with other pictures
            traceback.print_exc()
            return JSONResponse({"error": "Captioning failed."}, 500)

    async def _caption(self, request: Request) -> dict[str, Any]:
        if self._waiting > MAX_WAITING:
            seconds = math.ceil(self._waiting * self._batches.seconds)
            raise Refusal(503, "Too many pictures are waiting. Try again later.", **{"Retry-After": str(seconds)})
        data = await _within(BODY_SECONDS, _picture(request), 408, "The picture took too long to arrive. Try again.")
        attention = request.query_params.get("attention", "").lower() in YES
        late = "Captioning took too long. Try again later."
        found = await _within(CAPTION_SECONDS, self._candidates(data, attention=attention), 504, late)
        return _as_json(found, attention=attention)

    async def _candidates(self, data: bytes, *, attention: bool) -> list[Candidate]:
        loop = asyncio.get_running_loop()
        pixels = await loop.run_in_executor(self._decoding, self._pixels, data)
        return await self._batches.caption(pixels, attention=attention)

    def _pixels(self, data: bytes) -> np.ndarray:
        return self._captioner.pixels(read_upload(data))


async def _within(seconds: float, work: Awaitable[Found], status: int, reason: str) -> Found:
    """What ``work`` returns; a refusal if it takes longer."""
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        raise Refusal(status, reason) from None


async def _picture(request: Request) -> bytes:
    """The bytes of the uploaded file: the body, or the first file of a form."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BODY_BYTES:
        raise Refusal(413, uploads.TOO_MANY_BYTES)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Refusal(413, uploads.TOO_MANY_BYTES)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return bytes(body)

    async def whole() -> AsyncGenerator[bytes, None]:
        yield bytes(body)

    parser = MultiPartParser(request.headers, whole(), max_files=1, max_fields=MAX_FIELDS)
    parser.spool_max_size = MAX_BODY_BYTES  # in memory: the disk may be read-only
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:  # KeyError: without a boundary
        raise Refusal(400, f"This form cannot be read: {getattr(error, 'message', 'it has no boundary')}") from error
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    if not files:
        raise Refusal(400, "The form has no file. Send the picture as a file: curl -F image=@photo.jpg")
    return await files[0].read()


def _as_json(found: list[Candidate], *, attention: bool) -> dict[str, Any]:
    reply: dict[str, Any] = {
        "caption": found[0].caption,
        "candidates": [{"caption": candidate.caption, "log_prob": candidate.log_prob} for candidate in found],
    }
    if attention and found[0].attention is not None:
        maps = found[0].attention.astype(float).round(DIGITS).tolist()
        pairs = zip(found[0].tokens, maps, strict=True)
        reply["attention"] = [{"token": token, "weights": weights} for token, weights in pairs]
    return reply


def create_app(captioner: OnnxCaptioner, beam_size: int | None = None) -> Starlette:
    """The application.

    Args:
        beam_size: None: that of the export.
    """
    service = Service(captioner, beam_size)
    page = (ROOT / "deploy" / "page.html").read_text("utf-8")

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(_: Request) -> Response:
        return JSONResponse(OPENAPI)

    async def describe(_: Request) -> Response:
        return HTMLResponse(page, headers=PAGE_HEADERS)

    routes = [
        Route("/caption", service.post_caption, methods=["POST"]),
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/openapi.json", openapi),
        Route("/", describe),
    ]
    return Starlette(routes=routes, lifespan=service.lifespan)
