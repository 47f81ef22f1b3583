"""docs/security.md names the limits by which strangers' input is refused."""

import re

from tests.support.helpers import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")


def test_every_limit_of_the_table_is_defined_where_it_says() -> None:
    rows = re.findall(r"^\| (`[^|]*) \| `([^`|]+)` \|", PAGE, flags=re.MULTILINE)
    assert len(rows) >= 8
    wrong = [
        f"{name} in {file}"
        for names, file in rows
        for name in re.findall(r"`(\w+)`", names)
        if not (ROOT / file).is_file() or not re.search(rf"^{name}\b.* = ", (ROOT / file).read_text("utf-8"), re.M)
    ]
    assert wrong == []


def test_the_page_at_the_root_points_to_it() -> None:
    assert "(docs/security.md)" in (ROOT / "SECURITY.md").read_text("utf-8") and "## Report a hole" in PAGE
