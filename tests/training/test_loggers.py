"""training/loggers.py: the curves of TensorBoard, wandb and trackio are those of loss_log.txt, each epoch once."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.training import Interrupted, Learn, Refused, read_log
from training.loggers import curves
from training.loss_log import PLOTTED, append_row
from training.run_folder import CURVES, LOG


class Service(ModuleType):
    """In place of wandb or trackio: what both offer, ``init`` and the ``log`` and ``finish`` of what it returns."""

    def __init__(self) -> None:
        super().__init__("service")
        self.runs = list[dict[str, Any]]()
        self.sent = list[tuple[int, dict[str, float]]]()
        self.finished = 0
        self.breaks_at = 0

    def init(self, **options: Any) -> "Service":
        self.runs.append(options)
        return self

    def log(self, values: dict[str, float], *, step: int, commit: bool = True) -> None:
        if step == self.breaks_at:
            raise ConnectionError("no network")
        self.sent.append((step, values))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture(params=["wandb", "trackio"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A stand-in for one of them, which ``import`` finds."""
    found = Service()
    found.name = request.param
    monkeypatch.setitem(sys.modules, found.name, found)
    monkeypatch.delenv(f"{found.name.upper()}_PROJECT", raising=False)
    return found


def train(folder: Path, epochs: range) -> None:
    """What a run adds to its log."""
    folder.mkdir(exist_ok=True)
    for epoch in epochs:
        row = {"stage": "a", "epoch": epoch, "step": 10 * epoch, "train_loss": 1 / epoch, "val_cider": epoch / 3}
        append_row(folder / LOG, row)


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value) of every number in TensorBoard's event files, also of those that it would hide."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    found = dict[str, list[tuple[int, float]]]()
    for file in sorted((folder / CURVES).glob("events.*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, make_ndarray(value.tensor).item()))
    return found


def assert_equals_log(found: dict[str, list[tuple[int, float]]], folder: Path) -> None:
    """Every number of the log is there once, and nothing else."""
    log = read_log(folder)
    wanted = {
        column: list(zip(log["epoch"].tolist(), log[column].tolist(), strict=True))
        for column in PLOTTED
        if log[column].notna().all()
    }
    assert found.keys() == wanted.keys()
    for column, points in wanted.items():
        assert [step for step, _ in found[column]] == [step for step, _ in points]
        assert [value for _, value in found[column]] == pytest.approx([value for _, value in points], rel=1e-6)


def test_tensorboard_continues_the_curves_of_a_run_that_is_stopped_and_resumed(
    learn: Learn, interrupted: Interrupted, folder: Path
) -> None:
    pytest.importorskip("tensorboard")
    interrupted(5, "--log_to=tensorboard")  # in the second epoch; the first has 2 steps and a batch of validation
    assert_equals_log(events(folder), folder)
    learn("--log_to=tensorboard", "--resume")
    found = events(folder)
    assert len(found["val_cider"]) == 2 and "reward" not in found
    assert_equals_log(found, folder)
    learn("--log_to=tensorboard")  # a new run
    assert_equals_log(events(folder), folder)
    (previous,) = (folder / "previous_runs").iterdir()
    assert events(previous) == found


def test_a_service_gets_each_epoch_once_and_a_run_keeps_its_number(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    train(folder, range(1, 3))
    with curves(service.name, folder, {"seed": 3}) as update:
        assert [step for step, _ in service.sent] == [1, 2]  # those before --log_to was used
        train(folder, range(3, 4))
        update()
        update()
    with curves(service.name, folder, {"seed": 3}) as update:
        train(folder, range(4, 5))
        update()
    assert [step for step, _ in service.sent] == [1, 2, 3, 4] and service.finished == 2
    assert service.sent[2][1] == {"train_loss": 0.333333, "val_cider": 1}  # as in the log, without what it lacks
    first, second = service.runs
    assert first == second and first["name"].startswith("my run-") and first["config"] == {"seed": 3}
    assert first["resume"] == "allow" and first["project"] == "image-captioning"


def test_a_project_can_be_named(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{service.name.upper()}_PROJECT", "mine")
    with curves(service.name, tmp_path, {}):
        pass
    assert service.runs[0]["project"] == "mine"


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_an_error_of_the_service_is_noted_once_and_does_not_end_the_run(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(service, fails, refuse)
        with curves(service.name, tmp_path, {}) as update:
            for epoch in range(1, 4):
                train(tmp_path, range(epoch, epoch + 1))
                update()
    assert capsys.readouterr().err == (
        f"--log_to {service.name}: ConnectionError: no network. The run goes on; {tmp_path / LOG} has its numbers\n"
    )
    with curves(service.name, tmp_path, {}):  # when it is resumed, what is missing is sent
        assert [step for step, _ in service.sent] == [1, 2, 3]


def test_an_error_of_the_run_is_not_taken_for_one_of_the_service(service: Service, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), curves(service.name, tmp_path, {}) as update:
        train(tmp_path, range(1, 2))
        update()
        raise ZeroDivisionError
    assert service.finished == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's thread
@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_a_full_disk_ends_the_curves_but_not_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import resource

    pytest.importorskip("tensorboard")
    train(tmp_path, range(1, 3))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with curves("tensorboard", tmp_path, {}) as update:
            size = max(path.stat().st_size for path in (tmp_path / CURVES).iterdir())
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
            for epoch in range(3, 6):
                train(tmp_path, range(epoch, epoch + 1))
                update()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert capsys.readouterr().err.count("--log_to tensorboard: OSError: ") == 1
    assert json.loads((tmp_path / CURVES / "tensorboard.json").read_text("utf-8"))["epochs"] == 2
    assert read_log(tmp_path)["epoch"].tolist() == [1, 2, 3, 4, 5]


def test_what_is_not_installed_or_unknown_is_refused_before_training(
    refused: Refused, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.find_spec", lambda _: None)
    assert "--log_to wandb: it is not installed. Install it: pip install wandb" in refused("--log_to=wandb")
    assert "pip install -r requirements-loggers.txt" in refused("--log_to=tensorboard")
    assert "--log_to: invalid choice: 'tensorbord'" in refused("--log_to=tensorbord")
    assert not folder.exists()
