"""Texts that break pages, cells and terminals unless they are escaped."""

HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "\"quotes\" 'single' & </style></script> {{ 7 * 7 }} {% raw %}",
    "\u202e right to left \u200f\u05e9\u05dc\u05d5\u05dd",
    "emoji \U0001f469\u200d\U0001f467 \0 \ud800 half a character",
    "words " * 2000,
    "x" * 10_000,
    "",
    " \n\t ",
]
