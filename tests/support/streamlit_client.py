"""A visitor of a Streamlit page without a browser, who may send what no browser would."""

import time
from typing import Any

import requests
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect


class Client:
    """A session of the server at ``address``; ``options`` are those of websockets' ``connect``."""

    def __init__(self, address: str, **options: Any) -> None:
        self.address = address
        stream = f"{address.replace('http', 'ws', 1)}/_stcore/stream"
        self.socket = connect(stream, max_size=None, **options).__enter__()  # websockets 17 warns without a context
        self.http = requests.Session()
        self.http.get(f"{address}/_stcore/health", timeout=60)  # sets the cookie that uploads need
        self.session = ""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the page."""
        self.socket.close()

    def send(self, **message: Any) -> None:
        """Send one message, such as ``rerun_script={}`` or ``clear_cache=True``."""
        self.socket.send(BackMsg(**message).SerializeToString())

    def read_run(self, timeout: float = 60) -> list[ForwardMsg]:
        """Wait until the page has run to its end; the messages until then."""
        end = time.monotonic() + timeout
        messages: list[ForwardMsg] = []
        while not messages or not messages[-1].HasField("script_finished") or messages[-1].script_finished:
            messages.append(ForwardMsg.FromString(self.socket.recv(timeout=end - time.monotonic())))
            if messages[-1].HasField("new_session"):
                self.session = messages[-1].new_session.initialize.session_id
        return messages

    def run(self, **state: Any) -> list[ForwardMsg]:
        """Run the page; its messages."""
        self.send(rerun_script=state)
        return self.read_run()

    def upload(self, file: str, data: bytes) -> requests.Response:
        """Store a file directly, without the widget."""
        return self.http.put(
            f"{self.address}/_stcore/upload_file/{self.session}/{file}",
            files={"file": (f"{file}.jpg", data, "image/jpeg")},
            headers={"X-Xsrftoken": self.http.cookies.get("_streamlit_xsrf", "")},
            timeout=60,
        )

    def remove(self, file: str) -> requests.Response:
        """Remove a stored file."""
        return self.http.delete(
            f"{self.address}/_stcore/upload_file/{self.session}/{file}",
            headers={"X-Xsrftoken": self.http.cookies.get("_streamlit_xsrf", "")},
            timeout=60,
        )


def alerts(messages: list[ForwardMsg]) -> list[str]:
    """The texts of the errors, warnings and so on in the messages."""
    elements = [message.delta.new_element for message in messages if message.HasField("delta")]
    return [element.alert.body for element in elements if element.HasField("alert")]
