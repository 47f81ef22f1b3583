"""models/hub.py: checkpoints from the Hugging Face Hub, against a server on localhost that speaks its protocol."""

import json
import pickle
import sys
from pathlib import Path

import pytest

import cli
import inference_visualize
from cli import UserError
from models.captioner import Captioner
from models.hub import HUB_FILE, is_on_hub
from models.pretrained import checkpoint_path, find_checkpoint
from tests.support.helpers import assert_same
from tests.support.hub_server import COMMITS, GATED, Hub
from tools.export_safetensors import main as export
from training.initial import initial_checkpoint

pytest_plugins = ["tests.support.hub_server"]
REPOSITORY = "owner/my-captioner_1.0"


@pytest.fixture
def captioner_file(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """captioner.safetensors of the tiny run."""
    pytest.importorskip("safetensors")
    export([str(tiny_checkpoint), str(tmp_path / "exported" / HUB_FILE)])
    return tmp_path / "exported" / HUB_FILE


@pytest.fixture
def small(hub: Hub) -> Hub:
    """A server with two revisions of files that are no checkpoints."""
    hub.files |= {(REPOSITORY, "main", HUB_FILE): b"new", (REPOSITORY, "v1", HUB_FILE): b"old"}
    return hub


def refusal(named: str) -> str:
    """Why there is no such checkpoint."""
    with pytest.raises(UserError) as caught:
        find_checkpoint(named, photos=False)
    return str(caught.value)


def test_a_photo_is_captioned_by_a_model_on_the_hub_then_without_network(
    hub: Hub,
    captioner_file: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.files[REPOSITORY, "main", HUB_FILE] = captioner_file.read_bytes()
    monkeypatch.chdir(tmp_path)
    photos = [str(path) for path in sorted((tiny_data / "images").iterdir())[:4]]

    def captions(named: str, output: str) -> list[str]:
        words = ["--checkpoint", named, "--images", *photos, "--device", "cpu", "--output_dir", output]
        inference_visualize.main(words)
        found = json.loads((tmp_path / output / "captions.json").read_text("utf-8"))
        return [each["caption"] for each in found]

    local, online = captions(str(captioner_file), "local"), captions(f"hf://{REPOSITORY}", "online")
    downloads = [line for line in hub.requests if line.startswith("GET /bytes")]
    assert online == local and len(downloads) == 1
    assert captions(f"hf://{REPOSITORY}", "again") == local  # from the cache
    assert [line for line in hub.requests if line.startswith("GET /bytes")] == downloads
    hub.stop()
    assert captions(f"hf://{REPOSITORY}", "offline") == local
    assert Captioner.load(f"hf://{REPOSITORY}", "cpu").describe(photos) == local
    hub.start()
    assert "Traceback" not in capsys.readouterr().err


def test_revisions_files_and_finetuning(small: Hub, tiny_checkpoint: Path) -> None:
    small.files[REPOSITORY, "main", "deep/other.pth"] = tiny_checkpoint.read_bytes()
    assert checkpoint_path(f"hf://{REPOSITORY}").read_bytes() == b"new"
    assert checkpoint_path(f"hf://{REPOSITORY}@v1").read_bytes() == b"old"
    assert COMMITS["v1"] in str(checkpoint_path(Path(f"hf://{REPOSITORY}@v1")))  # as an option has it: one slash
    path, content = find_checkpoint(f"hf://{REPOSITORY}/deep/other.pth", photos=False)
    assert_same(content, find_checkpoint(tiny_checkpoint, photos=False)[1])
    assert initial_checkpoint(f"hf://{REPOSITORY}@main/deep/other.pth") == path  # train.py --init_from


def test_what_is_wrong_is_told_in_a_line(small: Hub) -> None:
    for named, reason in (
        ("hf://owner", "not an address on the Hugging Face Hub. Write hf://OWNER/NAME"),
        (f"hf://{REPOSITORY}@", "not an address"),
        (f"hf://{REPOSITORY}/../../secret.pth", "not an address"),
        (f"hf://{REPOSITORY}/README.md", "README.md is not a checkpoint"),
        ("hf://owner/nothing", "no repository owner/nothing on the Hub, or a private one"),
        ("hf://-owner/--", "cannot be downloaded (HFValidationError"),
        (f"hf://owner/{GATED}", "grants access"),
        (f"hf://{REPOSITORY}@v9", "no revision v9 in the repository"),
        (f"hf://{REPOSITORY}/other.safetensors", "no other.safetensors in the repository"),
    ):
        assert refusal(named).startswith(f"{named}: ") and reason in refusal(named)
    assert not is_on_hub("hf/owner/name") and not is_on_hub(Path("runs/a"))


def test_no_network_and_nothing_in_the_cache(small: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not in the cache, and the Hub cannot be reached. Check the network" in refusal(f"hf://{REPOSITORY}")


def test_a_damaged_file_is_found_by_its_hash(small: Hub) -> None:
    small.damage = b"!"
    message = refusal(f"hf://{REPOSITORY}")
    assert "the copy in the cache is damaged" in message
    blob = Path(message.rsplit(": ", maxsplit=1)[1])
    small.damage = b""
    assert refusal(f"hf://{REPOSITORY}") == message  # not trusted later either
    blob.unlink()
    assert checkpoint_path(f"hf://{REPOSITORY}").read_bytes() == b"new"


def test_a_hostile_file_is_checked_as_any_checkpoint(small: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("the checkpoint ran code",))

    for name, content in (
        ("a.pth", pickle.dumps(Malicious(), 2)),
        ("b.safetensors", pickle.dumps(Malicious(), 2)),
        ("c.safetensors", b"\xff" * 7 + b"\0{" + b"x" * 100),
    ):
        small.files[REPOSITORY, "main", name] = content
        assert "not a" in refusal(f"hf://{REPOSITORY}/{name}")
    assert "ran code" not in capsys.readouterr().out


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        checkpoint_path("hf://owner/name")
    assert "pip install -r requirements-hub.txt" in str(cli.missing_package(caught.value)).replace(f"{cli.ROOT}/", "")
