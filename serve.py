"""SERVE WITHOUT TORCH: an HTTP API that captions pictures, with a captioner that tools.export_onnx has written.

python serve.py                                       # on this machine only: http://127.0.0.1:8000
python serve.py --host 0.0.0.0 --port 80              # for others on the network
curl --data-binary @photo.jpg http://127.0.0.1:8000/caption

Needs requirements-serve.txt only: pip install -r requirements-serve.txt -c constraints.txt
"""

import socket
from argparse import Namespace
from pathlib import Path

from cli import OptionParser, UserError, note, positive_int, run_script
from deploy.options import DEFAULT_FOLDER
from evaluation.options import beam_size

MAX_PORT = 65_535
DRAIN_SECONDS = 120  # for the requests that are under way at SIGTERM: longer than any may take, see deploy/server.py
BACKLOG = 512  # connections that the system keeps while the server is busy


def read_options(argv: list[str]) -> Namespace:
    """The command line.

    Raises:
        UserError: an option is invalid.
    """
    parser = OptionParser("serve.py", __doc__)
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="folder that `python -m tools.export_onnx` has written (default: %(default)s)",
    )
    add(
        "--beam_size",
        "--generate.beam_size",
        type=beam_size,
        metavar="K",
        help="hypotheses kept at each step of beam search; 1 is greedy search (default: the checkpoint's)",
    )
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all (default: %(default)s)")
    add("--port", type=int, default=8000, help="port to listen on; 0: any free one (default: %(default)s)")
    add("--threads", type=positive_int, default=0, metavar="N", help="that compute (default: one per core)")
    options = parser.parse_args(argv)
    if not 0 <= options.port <= MAX_PORT:
        raise UserError(f"--port {options.port}: must be in [0, {MAX_PORT}]")
    return options


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        UserError: the address is in use, or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror}. Choose others, such as --port 0") from error


def main(argv: list[str]) -> None:
    """Load the captioner and serve until Ctrl-C or SIGTERM."""
    options = read_options(argv)
    import uvicorn

    from deploy.captioner import OnnxCaptioner
    from deploy.server import create_app

    captioner = OnnxCaptioner(options.checkpoint, options.threads)
    listening = listen(options.host, options.port)
    app = create_app(captioner, options.beam_size)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    host = f"[{options.host}]" if ":" in options.host else options.host
    note(f"serving on http://{host}:{listening.getsockname()[1]} (Ctrl-C or SIGTERM: answers what it has, then stops)")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    run_script(main)
