"""The description of the HTTP API in OpenAPI 3.1, which clients and their generators read."""

from typing import Any

from demo.uploads import MAX_UPLOAD_BYTES, NAMES

_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}
_CANDIDATE = {
    "type": "object",
    "required": ["caption", "log_prob"],
    "properties": {
        "caption": _TEXT,
        "log_prob": {**_NUMBER, "description": "natural logarithm, summed over the words and the end"},
    },
}
_ATTENTION = {
    "type": "object",
    "required": ["token", "weights"],
    "properties": {
        "token": {**_TEXT, "description": "a word, or a part of one: man, 's"},
        "weights": {
            "type": "array",
            "description": "rows of the grid over the picture, from its top; all weights of a token add up to 1",
            "items": {"type": "array", "items": _NUMBER},
        },
    },
}
_CAPTIONED = {
    "type": "object",
    "required": ["caption", "candidates"],
    "properties": {
        "caption": {**_TEXT, "description": "the best candidate"},
        "candidates": {"type": "array", "items": _CANDIDATE, "description": "the best first"},
        "attention": {
            "type": "array",
            "items": _ATTENTION,
            "description": "with ?attention=1, where the model attends",
        },
    },
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}
_ERRORS = {
    "400": "a form without a file",
    "408": "the picture took too long to arrive",
    "413": f"more than {MAX_UPLOAD_BYTES // 10**6} MB, or too many pixels",
    "415": f"no {NAMES}",
    "422": "a damaged picture",
    "503": "too many pictures are waiting; the header Retry-After has the seconds to wait",
    "504": "captioning took too long",
}


def _json(schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _plain(text: str, kind: str) -> dict[str, Any]:
    return {"get": {"summary": text, "responses": {"200": {"description": text, "content": {kind: {}}}}}}


_FORM = {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
_ANSWERS = {
    "200": _json(_CAPTIONED, "the caption"),
    **{status: _json(_ERROR, text) for status, text in _ERRORS.items()},
}
OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Image captioning", "version": "1"},
    "paths": {
        "/caption": {
            "post": {
                "summary": "Caption a picture",
                "operationId": "caption",
                "parameters": [
                    {
                        "name": "attention",
                        "in": "query",
                        "description": "1: also return the attention of each word",
                        "schema": {"type": "string", "enum": ["0", "1"], "default": "0"},
                    }
                ],
                "requestBody": {
                    "required": True,
                    "description": f"{NAMES}: the bytes of the file, or a form with the file",
                    "content": {
                        "image/*": {},
                        "application/octet-stream": {},
                        "multipart/form-data": {"schema": _FORM},
                    },
                },
                "responses": _ANSWERS,
            }
        },
        "/health": _plain("whether the server runs", "application/json"),
        "/metrics": _plain("counters for Prometheus", "text/plain"),
    },
}
