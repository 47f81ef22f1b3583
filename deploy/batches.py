"""Batches: pictures that wait are captioned together, by one thread at a time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from deploy.captioner import Candidate, OnnxCaptioner
from deploy.metrics import Metrics

MAX_BATCH = 4  # pictures: a lone one waits at most for a batch, and larger ones would let it wait longer


@dataclass(frozen=True)
class _Picture:
    pixels: np.ndarray
    attention: bool
    found: "asyncio.Future[list[Candidate]]"


class Batches:
    """The pictures that wait, and the task that captions them."""

    def __init__(self, captioner: OnnxCaptioner, beam_size: int | None, metrics: Metrics) -> None:
        self._captioner, self._beam_size, self._metrics = captioner, beam_size, metrics
        self._waiting: asyncio.Queue[_Picture] = asyncio.Queue()  # its length is limited by that of requests
        self.seconds = 1.0  # that a picture takes, of late; a guess before the first

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Caption what is put in until the end of the block."""
        with ThreadPoolExecutor(1, "captioning") as thread:
            task = asyncio.create_task(self._run(thread))
            yield
            task.cancel()

    async def caption(self, pixels: np.ndarray, *, attention: bool) -> list[Candidate]:
        """The candidates of a picture, the best first; see ``OnnxCaptioner``. A caller that gives up is left out."""
        found: asyncio.Future[list[Candidate]] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Picture(pixels, attention, found))
        return await found

    async def _run(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < MAX_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [picture for picture in batch if not picture.found.done()]
            if not batch:
                continue
            self._metrics.batches.observe(len(batch))
            start = loop.time()
            try:
                results = await loop.run_in_executor(thread, self._caption, batch)
            except Exception as error:  # each request reports it; the others go on
                results = [error] * len(batch)
            self.seconds += 0.2 * ((loop.time() - start) / len(batch) - self.seconds)
            for picture, result in zip(batch, results, strict=True):
                if picture.found.done():
                    continue
                if isinstance(result, Exception):
                    picture.found.set_exception(result)
                else:
                    picture.found.set_result(result)

    def _caption(self, batch: list[_Picture]) -> "list[list[Candidate] | Exception]":
        features = self._captioner.encode([picture.pixels for picture in batch])
        attention = any(picture.attention for picture in batch)
        return [*self._captioner.generate(features, self._beam_size, attention=attention)]
