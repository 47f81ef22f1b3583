"""An HTML page as a browser would parse it, for tests that need no browser."""

import base64
from html.parser import HTMLParser


class HtmlPage(HTMLParser):
    """The tags with their attributes, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each element of this name."""
        return [attributes for name, attributes in self.tags if name == tag]

    def policy(self) -> str:
        """The Content-Security-Policy."""
        return next(str(meta["content"]) for meta in self.all("meta") if "http-equiv" in meta)

    def attention(self) -> list[tuple[int, int, bytes]]:
        """Rows, columns and the weights of all words, for each caption that has attention maps."""
        return [
            (int(str(span["data-rows"])), int(str(span["data-columns"])), base64.b64decode(str(span["data-attention"])))
            for span in self.all("span")
            if "data-attention" in span
        ]
