"""demo/space/: the assembled folder runs on its own, as another user and on a read-only disk."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import expect

from cli import UserError
from demo.space.assemble import main
from models.checkpoint import load_checkpoint
from tests.support.browser import Visit
from tests.support.demo_folder import save_photo
from tests.support.helpers import ROOT
from tests.support.streamlit_server import serve

NOBODY = 65534
# The interpreter may be in a home folder, so this user may read everything, but write nothing.
BECOME = [
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *(
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
        "--bounding-set=-all,+dac_read_search",
    ),
]


@pytest.fixture(scope="module")
def space(demo_folder: Path) -> Iterator[Path]:
    """An assembled folder that other users can read, unlike pytest's temporary folders."""
    parent = Path(tempfile.mkdtemp())
    main([str(parent / "space"), "--checkpoint", str(demo_folder / "checkpoints.pth")])
    yield parent / "space"
    shutil.rmtree(parent)


def start(space: Path) -> list[str]:
    """The command of the Dockerfile's CMD."""
    lines = (space / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    line = next(line for line in lines if line.startswith("CMD"))
    python, *words = json.loads(line.removeprefix("CMD"))
    assert python == "python"
    return [sys.executable, *words]


def test_the_dockerfile_and_front_matter_are_what_spaces_expects(space: Path) -> None:
    front = yaml.safe_load((space / "README.md").read_text("utf-8").split("---")[1])
    assert (front["sdk"], front["app_port"]) == ("docker", 8501) and len(front["short_description"]) <= 60
    dockerfile = (space / "Dockerfile").read_text()
    assert "USER 1000" in dockerfile and "/_stcore/health" in dockerfile and "EXPOSE 8501" in dockerfile
    assert "--server.xsrfCookieSameSite=none" in start(space) and "--server.port=8501" in start(space)
    assert "*.pth filter=lfs" in (space / ".gitattributes").read_text()
    copied = [line.split()[1:-1] for line in dockerfile.splitlines() if line.startswith("COPY")]
    assert all((space / name).exists() for names in copied for name in names)
    assert not any((space / name).exists() for name in ("train.py", "tests", "training", "demo/space"))
    assert not list(space.rglob("__pycache__"))


def test_the_space_captions_a_photo_as_another_user_on_a_read_only_disk(
    space: Path,
    visit: Callable[..., Visit],
    tmp_path: Path,
) -> None:
    if (
        shutil.which("setpriv") is None
        or subprocess.run([*BECOME, sys.executable, "-c", ""], check=False).returncode != 0
    ):
        pytest.skip("cannot become another user: needs root and setpriv")
    for path in [space.parent, space, *space.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(space.rglob("*"))
    with serve(space, [*BECOME, *start(space)], env={"HOME": "/nonexistent"}) as server:
        assert Path(f"/proc/{server.process.pid}").stat().st_uid == NOBODY
        visitor = visit(server.address)
        visitor.page.locator("input[type=file]").set_input_files(save_photo(tmp_path / "dog.jpg"))
        expect(visitor.page.locator("p.text", has_text="dog.jpg")).to_be_visible(timeout=60_000)
        assert visitor.errors == [] and all(
            address.startswith((server.address, "data:", "blob:")) for address in visitor.requests
        )
        cookies = {cookie["name"]: cookie for cookie in visitor.page.context.cookies()}
        # Such a cookie is also sent inside another site's iframe.
        assert any(cookie["sameSite"] == "None" and cookie["secure"] for cookie in cookies.values())
    assert sorted(space.rglob("*")) == before


def test_an_own_checkpoint_is_published_without_absolute_paths_and_without_the_pretrained_models_card(
    space: Path, tmp_path: Path
) -> None:
    config = load_checkpoint(space / "checkpoints.pth")["config"]
    assert (
        not Path(config["data"]["image_dir"]).is_absolute() and not Path(config["data"]["captions_file"]).is_absolute()
    )
    assert not (space / "MODEL_CARD.md").exists() and not (space / "pretrained").exists()
    main([str(tmp_path / "space")])
    assert all((tmp_path / "space" / name).exists() for name in ("pretrained/flickr8k.pth", "MODEL_CARD.md"))


def test_a_folder_that_is_not_empty_and_an_unusable_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    new = str(tmp_path / "new")
    for words, reason in (
        ([str(tmp_path / "full")], "already exists"),
        ([new, "--checkpoint", "missing.pth"], "no such checkpoint"),
        ([new, "--checkpoint", str(ROOT / "README.md")], "not a checkpoint"),
    ):
        with pytest.raises(UserError, match=reason):
            main(words)
    assert not (tmp_path / "new").exists()
