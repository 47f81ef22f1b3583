"""tools/environment.py: what a bug report needs, also from a broken installation, and nothing private."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from cli import UserError
from files import without_folders
from tests.support.helpers import ROOT
from tools.environment import main, torch_devices

PRIVATE = "/srv/joe doe/secret"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The output folder of a run of somebody whose paths are private."""
    images = f"D:\\joe\\{'long name ' * 12}\\photos"
    config = {
        "data": {"captions_file": f"{PRIVATE}/captions.csv", "image_dir": images},
        "train": {"stages": [{"name": "one"}, {"file": f"{PRIVATE}/x"}]},
        "init_from": "runs/a",
    }
    (tmp_path / "resolved_config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    rows = [f"one\t{epoch}\t0.5" for epoch in range(1, 20_000)]
    (tmp_path / "loss_log.txt").write_text("\n".join(["stage\tepoch\tval_loss", *rows, ""]), encoding="utf-8")
    return tmp_path


def test_versions_device_options_and_the_last_epochs_are_printed(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    main(["--run", str(run)])
    text = capsys.readouterr().out
    lines = text.splitlines()
    for line in ("OMP_NUM_THREADS: 1", "    captions_file: captions.csv", "    image_dir: photos"):
        assert line in lines
    for start in ("code: ", "Python: 3.", "system: ", "CPU: ", "torch: 2", "numpy: ", "device: ", "CUDA: "):
        assert any(line.startswith(start) for line in lines), start
    assert lines[-6:] == ["  stage  epoch  val_loss", *(f"  one  {epoch}  0.5" for epoch in range(19_995, 20_000))]
    for private in ("joe", "secret", str(Path.home()), str(ROOT)):
        assert private not in text


def test_it_works_without_any_package(tmp_path: Path, run: Path) -> None:
    """A real Python without packages; the run has no log yet."""
    (run / "loss_log.txt").unlink()
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    command = [python, ROOT / "tools" / "environment.py", "--run", run]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0 and result.stderr == ""
    for line in ("torch: not installed", "torch: does not work (ModuleNotFoundError: No module named 'torch')"):
        assert line in result.stdout.splitlines()
    assert "cannot be shown: No module named 'yaml'" in result.stdout and "joe" not in result.stdout


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("raise OSError('/srv/joe/x/lib/libtorch.so: cannot open shared object file')", "(OSError: "),
        ("import os; os._exit(9)", "its process ended with status 9"),
        ("import time; time.sleep(60)", "does not start within 1 seconds"),
    ],
)
def test_a_broken_torch_is_described(monkeypatch: pytest.MonkeyPatch, code: str, shown: str) -> None:
    monkeypatch.setattr("tools.environment.ASK_TORCH", code)
    monkeypatch.setattr("tools.environment.TORCH_TIMEOUT", 1 if "sleep" in code else 60)
    (line,) = torch_devices()
    assert line.startswith("torch: ") and shown in line and "joe" not in line


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"holds no resolved_config\.yaml and no loss_log\.txt"):
        main(["--run", str(tmp_path)])
    assert capsys.readouterr().out == ""


def test_relative_paths_and_other_values_are_kept() -> None:
    value = {"a": ["runs/a", "/a/b", "C:\\a\\b.csv", 1, None], "b": {"c": "hf://owner/name"}}
    assert without_folders(value) == {"a": ["runs/a", "b", "b.csv", 1, None], "b": {"c": "hf://owner/name"}}
