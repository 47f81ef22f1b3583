"""bulk.on_ray: how captioners are placed; and a cluster of three machines, one of which is lost."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bulk.captioning import Reader, Settings
from bulk.inputs import Source
from bulk.on_ray import CaptionActor, captioners, read
from bulk.parts import Batch
from cli import UserError
from inference_visualize import main as gallery
from tests.support.gallery import make_many
from tests.support.helpers import ROOT

COUNT = 2000


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([{"CPU": 2}], (1, {"num_cpus": 1})),
        ([{"CPU": 16}], (12, {"num_cpus": 1})),
        ([{"CPU": 2}] * 3, (3, {"num_cpus": 1})),  # without one machine, a CPU of four is left to read
        ([{"CPU": 1}] * 2, (1, {"num_cpus": 1})),
        ([{"CPU": 64}] * 10, (480, {"num_cpus": 1})),
        ([{"CPU": 64}, {}, {"CPU": 0}], (48, {"num_cpus": 1})),  # one is gone, and one takes no work
        ([{"CPU": 8, "GPU": 2}, {"CPU": 4}], (2, {"num_gpus": 1})),
    ],
)
def test_captioners_leave_cpus_to_read(nodes: list[dict[str, float]], expected: tuple[int, dict[str, int]]) -> None:
    assert captioners(nodes) == expected


def test_one_cpu_is_too_few() -> None:
    with pytest.raises(UserError, match="the Ray cluster has 1 CPU: it needs 2"):
        captioners([{"CPU": 1}])


def test_the_two_steps_in_this_process(attention_checkpoint: Path, tmp_path: Path) -> None:
    make_many(tmp_path / "photos", 2)
    actor = CaptionActor(Settings(attention_checkpoint, 2, False, "auto", "cpu"))
    batch = Batch(3, 16, [Source("photos/000.jpg"), Source("photos/gone.jpg"), Source("photos/001.jpg")])
    images = read({"data": pickle.dumps(batch)}, Reader(actor.captioner.transform, tmp_path))
    part, first, rows = pickle.loads(actor(images)["data"])
    assert (part, first) == (3, 16)
    assert [(row["image"], row["error"]) for row in rows] == [
        ("photos/000.jpg", None),
        ("photos/gone.jpg", "no such file"),
        ("photos/001.jpg", None),
    ]
    assert all(len(row["candidates"]) == 2 for row in (rows[0], rows[2]))


@pytest.mark.slow
def test_a_cluster_that_loses_a_machine_captions_every_image_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    make_many(tmp_path / "photos", 20)
    for number in range(20, COUNT):
        os.link(tmp_path / "photos" / f"{number % 20:03}.jpg", tmp_path / "photos" / f"{number:04}.jpg")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    lost = [cluster.add_node(num_cpus=2) for _ in range(2)][1]
    cluster.wait_for_nodes()
    words = ["photos", "--output", "out", "--part_size", "100", "--checkpoint", str(tiny_checkpoint)]
    try:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "caption_many.py"), *words, "--ray", cluster.address], cwd=tmp_path
        )
        while len(list((tmp_path / "out").glob("part-*"))) < 3:  # all machines are at work
            assert process.poll() is None
            time.sleep(0.05)
        cluster.remove_node(lost, allow_graceful=False)
        before = len(list((tmp_path / "out").glob("part-*")))
        assert process.wait(500) == 0
    finally:
        cluster.shutdown()
    assert before < COUNT // 100, "the machine was lost too late"
    rows = [json.loads(line) for part in (tmp_path / "out").glob("part-*") for line in part.open()]
    print(f"{before} of {COUNT // 100} parts were written when the machine was lost; {len(rows)} rows at the end")
    found = {row["image"]: row for row in rows}
    assert len(rows) == len(found) == COUNT
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        gallery(["--images", "photos", "--output_dir", "g", "--checkpoint", str(tiny_checkpoint), "--print", "none"])
    for entry in json.loads((tmp_path / "g" / "captions.json").read_text("utf-8")):
        row = found.pop(entry["image"])
        assert [each["caption"] for each in row["candidates"]] == [each["caption"] for each in entry["candidates"]]
        assert row["log_prob"] == pytest.approx(entry["log_prob"], abs=1e-3)
    assert not found
