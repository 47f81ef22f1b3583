"""Python imports this at its start if the folder is on PYTHONPATH: report connections to other machines."""

import sys
from typing import Any

LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "", None)


def report(event: str, values: tuple[Any, ...]) -> None:
    """An audit hook (https://docs.python.org/3/library/audit_events.html)."""
    if event == "socket.getaddrinfo":
        host = values[0]
    elif event in {"socket.connect", "socket.sendto"} and isinstance(values[1], tuple):  # not a Unix socket
        host = values[1][0]
    else:
        return
    if host not in LOCAL:
        print(f"OUTSIDE: {event} {host}", file=sys.stderr, flush=True)


sys.addaudithook(report)
