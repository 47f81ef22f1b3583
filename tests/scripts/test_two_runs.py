"""Two runs in one output folder: the second is refused. Real processes, as in test_resume.py."""

import time

from tests.support.helpers import assert_same
from tests.support.process_runs import CALLS_PER_EPOCH, ENCODER_STAGE, At


def test_the_second_is_refused_until_the_first_has_ended(process_run, uninterrupted) -> None:
    """It changes nothing, and can resume as soon as the first was killed, even if the loader's workers still run."""
    run, second = (process_run(ENCODER_STAGE, "--data.workers=2") for _ in range(2))
    second.output = run.output.with_name("second.txt")  # the first may still be writing to its own
    # while workers decode images
    first = run.start(At("training.objectives.caption_loss", 3 * CALLS_PER_EPOCH + 2, "SIGSTOP"))
    deadline = time.monotonic() + 60
    while not (run.path / "loss_log.txt").exists() or (run.path / "loss_log.txt").read_text().count("\n") < 4:
        assert first.is_alive() and time.monotonic() < deadline, run.text()
        time.sleep(0.05)
    for option in ("--train.seed=1", "--resume=auto"):
        assert second.run(None, option) == 2
        assert "another run is writing there" in second.text() and second.text().count("\n") == 1
    first.kill()
    first.join()
    run.resume()
    assert not (run.path / "previous_runs").exists()
    assert_same(run.result(), uninterrupted(ENCODER_STAGE))
