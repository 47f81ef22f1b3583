"""Ctrl-C and SIGTERM, noticed between two steps of training instead of in the middle of one."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self


class Interrupted(Exception):
    """Ctrl-C or SIGTERM, noticed between two steps."""


class StopRequest:
    """Inside the block, turns Ctrl-C and SIGTERM into a flag, so that a step is never cut in two; a second one stops at once."""

    def __init__(self) -> None:
        self.wanted = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other
            self.before = {name: signal.signal(name, self._note) for name in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self.before.items():
            signal.signal(name, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        os.write(2, b"\nstopping after this step (again: at once) ...\n")  # print() must not be entered twice at once


def leave_signals_to_main(worker: int) -> None:
    """For the loaders' workers: Ctrl-C reaches them too, and one that fails of it would end the step that main wants to finish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # also how they are ended with main
