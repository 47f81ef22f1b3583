"""Start serve.py, let many clients ask for captions at once, stop it under load, and print what happened.

python -m tools.load_test photos/                                   # 50 clients for 30 seconds, then SIGTERM
python -m tools.load_test photos/ --clients 10 --seconds 60
"""

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import quantiles

if not __package__:  # started as `python tools/load_test.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import ROOT, OptionParser, UserError, positive_int, run_script, say
from deploy.options import DEFAULT_FOLDER

PHOTOS = 20  # different ones, whose captions are asked for one by one at first
TIMEOUT = 120.0  # seconds for a reply


def ask(port: int, data: bytes) -> tuple[int, str]:
    """Post a picture on a connection of its own: status and caption.

    Raises:
        OSError, http.client.HTTPException: there is no reply.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("POST", "/caption", data, {"Content-Type": "application/octet-stream"})
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read()).get("caption", "")
    finally:
        connection.close()


def memory(port: int) -> float:
    """The resident memory of the server in MB, as its /metrics tells; 0 where the system does not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    connection.request("GET", "/metrics")
    found = re.search(r"^process_resident_memory_bytes (\S+)", connection.getresponse().read().decode(), re.MULTILINE)
    connection.close()
    return float(found[1]) / 1e6 if found else 0.0


class Load:
    """Clients that each ask again as soon as they have a reply, until the server takes no more connections."""

    def __init__(self, port: int, photos: list[bytes], expected: list[str]) -> None:
        self.port, self.photos, self.expected = port, photos, expected
        self.seconds: list[float] = []  # of each caption
        self.other: list[str] = []  # what else was replied
        self.mixed_up = self.lost = 0

    def client(self, number: int) -> None:
        """One client."""
        while True:
            number = (number + 1) % len(self.photos)
            start = time.monotonic()
            try:
                status, caption = ask(self.port, self.photos[number])
            except ConnectionRefusedError:  # not accepted, as the server is stopping
                return
            except (OSError, http.client.HTTPException, ValueError):
                self.lost += 1
                return
            if status != http.HTTPStatus.OK:
                self.other.append(str(status))
                continue
            self.seconds.append(time.monotonic() - start)
            self.mixed_up += caption != self.expected[number]


def run(server: "subprocess.Popen[str]", photos: list[bytes], clients: int, seconds: float) -> None:
    """Ask for each caption alone, load the server, stop it, and print the result."""
    assert server.stderr is not None
    line = server.stderr.readline()
    found = re.search(r"http://\S+:(\d+)", line)
    if found is None:
        raise UserError(f"serve.py did not start: {line.strip()}")
    port = int(found[1])
    load = Load(port, photos, [ask(port, photo)[1] for photo in photos])
    threads = [threading.Thread(target=load.client, args=[number]) for number in range(clients)]
    before, start = memory(port), time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(seconds / 2)
    middle = memory(port)
    time.sleep(max(0.0, seconds - (time.monotonic() - start)))
    count, after = len(load.seconds), memory(port)
    rate = count / (time.monotonic() - start)
    server.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    cuts = quantiles(load.seconds, n=100)
    say(
        f"{clients} clients, {seconds:.0f} s: {rate:.1f} pictures a second",
        f"seconds to a caption: median {cuts[49]:.2f}, 99th percentile {cuts[98]:.2f}",
        f"memory of the server: {before:.0f} MB before, {middle:.0f} in the middle, {after:.0f} at the end",
        f"captions of another picture: {load.mixed_up} of {len(load.seconds)}; other replies: {len(load.other)}",
        f"after SIGTERM: {len(load.seconds) - count} captions still came, {load.lost} requests got no reply",
        f"serve.py: {server.stderr.read().strip()}",
    )


def main(argv: list[str]) -> None:
    """Start the server and run the clients."""
    parser = OptionParser("python -m tools.load_test", __doc__)
    parser.add_argument("images", nargs="+", metavar="PHOTO", help="files, folders, patterns")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="the exported captioner")
    parser.add_argument("--clients", type=positive_int, default=50, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=positive_int, default=30, metavar="N", help="(default: %(default)s)")
    options = parser.parse_args(argv)
    from gallery.photos import find_photos  # Pillow takes a moment to import

    photos = [photo.path.read_bytes() for photo in find_photos(options.images, None)[0][:PHOTOS]]
    command = [sys.executable, "serve.py", "--checkpoint", str(options.checkpoint.resolve()), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        try:
            run(server, photos, options.clients, options.seconds)
        finally:
            server.kill()


if __name__ == "__main__":
    run_script(main)
