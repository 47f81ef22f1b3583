"""evaluate.py --predictions with COCO's and Karpathy's JSON as references, and with captions.json."""

import json
import re
from pathlib import Path

import pytest

import evaluate
import inference_visualize
from cli import UserError
from evaluation.predictions import read_predictions
from tests.support.archives import write
from tests.support.data_formats import coco, karpathy

SAID = [{"image_id": 391895, "caption": "a man on a bike"}, {"image_id": 7, "caption": "a cat"}]


def score(*options: str | Path) -> dict:
    """metrics.json of the current folder."""
    evaluate.main([str(option) for option in options])
    return json.loads(Path("metrics.json").read_text())


NAME_ONE = re.escape('Name a JSON file with a list such as [{"image_id": "a.jpg", "caption": "A dog."}, ...]')


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no Java
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"said.json": json.dumps(SAID)})


def test_coco_results_are_scored_against_its_own_annotations() -> None:
    """The ids are those of the annotations, whatever the files are called."""
    captions = {"cat_391895.jpg": ["a cat"], "man_7.jpg": ["a man on a bike", " "]}
    ids = {"cat_391895.jpg": 7, "man_7.jpg": 391895}
    content = json.loads(coco(captions))
    for image in content["images"]:
        image["id"] = ids[image["file_name"]]
    for annotation, image in zip(content["annotations"], [7, 391895, 391895], strict=True):
        annotation["image_id"] = image
    Path("captions_val.json").write_text(json.dumps(content))
    record = score("--predictions", "said.json", "--captions_file", "captions_val.json")
    assert (record["images"], record["split"], round(record["BLEU-4"], 6)) == (2, "all", 1)
    for options, message in [
        (["--split", "val"], r"--split val: captions_val\.json has no split column\. Leave out --split"),
        (["--seed", "0"], "not a CSV with the columns image,caption"),
    ]:
        with pytest.raises(UserError, match=message):
            score("--predictions", "said.json", "--captions_file", "captions_val.json", *options)


def test_references_without_file_names_go_by_their_ids() -> None:
    images = [{"id": entry["image_id"]} for entry in SAID]
    Path("refs.json").write_text(json.dumps({"images": images, "annotations": SAID}))
    assert round(score("--predictions", "said.json", "--captions_file", "refs.json")["BLEU-4"], 6) == 1


def test_a_karpathy_json_as_references() -> None:
    images = [
        ("val2014", "COCO_val2014_000000391895.jpg", "test", ["a man on a bike"]),
        ("val2014", "COCO_val2014_000000000007.jpg", "test", ["a cat"]),
        ("train2014", "COCO_train2014_000000000009.jpg", "restval", ["a dog"]),
        ("train2014", "COCO_train2014_000000000010.jpg", "other", ["a bird"]),
    ]
    Path("dataset.json").write_text(karpathy(*images))
    record = score("--predictions", "said.json", "--captions_file", "dataset.json")
    assert (record["images"], record["split"], round(record["BLEU-4"], 6), record["copied"]) == (2, "test", 1, 0)


def test_the_captions_json_of_a_gallery_is_scored(tiny_checkpoint: Path, tiny_data: Path) -> None:
    options = ["--checkpoint", str(tiny_checkpoint), "--split", "test", "--output_dir", "outputs"]
    inference_visualize.main(options)
    record = score("--predictions", "outputs/captions.json", "--captions_file", tiny_data / "captions.csv")
    assert (record["images"], record["split"], record["system"]) == (4, "test", "captions")


def test_folders_before_a_name_are_ignored_unless_they_matter(tmp_path: Path) -> None:
    def find(image: str, *names: str) -> dict[str, str]:
        (tmp_path / "p.json").write_text(json.dumps([{"image": image, "caption": "a dog"}]))
        return read_predictions(tmp_path / "p.json", names)

    assert find("Pictures/a/1.jpg", "a/1.jpg") == {"a/1.jpg": "a dog"}
    assert find("Pictures/1.jpg", "1.jpg") == {"1.jpg": "a dog"}
    for image, name in [("b/1.jpg", "a/1.jpg"), ("b/1.png", "1.jpg")]:
        with pytest.raises(UserError, match="not among the 1 images to score"):
            find(image, name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (r'[{"image": "1.jpg", "caption": "half \ud800 a letter"}]', "half a character"),
        ("[" * 200_000, "more than 32 lists or objects in each other"),
        (" \n", rf"is empty\. {NAME_ONE}$"),
        ("image,caption\n1.jpg,a dog\n", rf"not in COCO results format\. {NAME_ONE}$"),
        ('{"1.jpg": "a dog"}', rf"not in COCO results format\. {NAME_ONE}$"),
        ('\ufeff[{"image_id": "1.jpg",\n', "not JSON: line 2, column 1"),
    ],
)
def test_unusable_predictions_are_refused(content: str, message: str) -> None:
    Path("p.json").write_text(content)
    with pytest.raises(UserError, match=rf"^--predictions p\.json: {message}"):
        read_predictions(Path("p.json"), ["1.jpg"])
