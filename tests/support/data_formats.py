"""The same captions in the formats of other data sets, as files that data.prepare converts."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

Row = tuple[str, str, str]  # image, caption, split


def karpathy(*images: tuple[str, str, str | None, list[str]]) -> str:
    """JSON from (filepath, filename, split, captions)."""
    return json.dumps(
        {
            "dataset": "coco",
            "images": [
                {"filename": name, "split": split, "sentences": [{"raw": raw, "tokens": []} for raw in raws]}
                | ({"filepath": path} if path else {})
                for path, name, split, raws in images
            ],
        }
    )


def coco(captions: dict[str, list[str]], first_id: int = 1) -> str:
    """COCO's own captions JSON from image -> captions; the ids are numbered from ``first_id``."""
    ids = {name: number for number, name in enumerate(captions, start=first_id)}
    return json.dumps(
        {
            "info": {"description": "tiny"},
            "images": [{"id": ids[name], "file_name": name, "height": 30} for name in captions],
            "annotations": [
                {"id": number, "image_id": ids[name], "caption": f"{caption}\n"}
                for name, texts in captions.items()
                for number, caption in enumerate(texts)
            ],
        }
    )


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """A row for each caption."""
    return pd.DataFrame(rows, columns=["image", "caption", "split"])


def by_image(rows: Sequence[Row]) -> pd.DataFrame:
    """A row for each image, with a list of captions."""
    return table(rows).groupby("image", sort=False).agg({"caption": list, "split": "first"}).reset_index()


def coco_files(folder: Path, rows: Sequence[Row]) -> list[str]:
    """annotations/captions_train2017.json, ..., beside train2017/, ..., as COCO is unpacked."""
    words = ["coco"]
    (folder / "annotations").mkdir()
    for number, (split, part) in enumerate(by_image(rows).groupby("split")):
        file = folder / "annotations" / f"captions_{split}2017.json"
        file.write_text(coco(dict(zip(part["image"], part["caption"], strict=True)), first_id=100 * number))
        (folder / f"{split}2017").mkdir()
        for name in part["image"]:
            (folder / name).rename(folder / f"{split}2017" / name)
        words.append(str(file))
    return words


def karpathy_file(folder: Path, rows: Sequence[Row]) -> list[str]:
    """dataset.json, beside the images."""
    images = [("", name, split, captions) for name, captions, split in by_image(rows).to_numpy()]
    (folder / "dataset.json").write_text(karpathy(*images))
    return ["karpathy", str(folder / "dataset.json")]


def semicolons(folder: Path, rows: Sequence[Row]) -> list[str]:
    """As a German Excel saves it, with columns of other names."""
    names = {"image": "Foto", "caption": "Titel", "split": "Teil"}
    table(rows).rename(columns=names).to_csv(folder / "mine.csv", sep=";", index=False, encoding="utf-8-sig")
    columns = ["--image_column", "Foto", "--caption_column", "titel", "--split_column", "Teil"]
    return ["table", str(folder / "mine.csv"), *columns]


def tsv(folder: Path, rows: Sequence[Row]) -> list[str]:
    """With other names for the splits."""
    splits = {"train": "Training", "val": "dev", "test": "TEST"}
    table(rows).replace({"split": splits}).to_csv(folder / "mine.tsv", sep="\t", index=False)
    return ["table", str(folder / "mine.tsv")]


def flickr30k_results(folder: Path, rows: Sequence[Row]) -> list[str]:
    """Flickr30k's results.csv: image_name| comment_number| comment. It has no splits."""
    lines = [f"{image}| 0| {caption}" for image, caption, _ in rows]
    (folder / "results.csv").write_text("\n".join(["image_name| comment_number| comment", *lines]))
    return ["table", str(folder / "results.csv")]


def flickr8k_token(folder: Path, rows: Sequence[Row]) -> list[str]:
    """name.jpg#0<TAB>caption. It has no splits."""
    (folder / "Flickr8k.token").write_text("".join(f"{image}#0\t{caption}\n" for image, caption, _ in rows))
    return ["table", str(folder / "Flickr8k.token")]


def json_lines(folder: Path, rows: Sequence[Row]) -> list[str]:
    """A line for each image, with a list of captions."""
    by_image(rows).to_json(folder / "mine.jsonl", orient="records", lines=True)
    return ["table", str(folder / "mine.jsonl")]


def json_list(folder: Path, rows: Sequence[Row]) -> list[str]:
    """A list of objects."""
    table(rows).to_json(folder / "mine.json", orient="records")
    return ["table", str(folder / "mine.json")]


def parquet(folder: Path, rows: Sequence[Row]) -> list[str]:
    """The names of the images, with a list of captions."""
    by_image(rows).to_parquet(folder / "mine.parquet")
    return ["table", str(folder / "mine.parquet")]


def parquet_with_images(folder: Path, rows: Sequence[Row]) -> list[str]:
    """A file for each split that contains the images, as data sets on Hugging Face have them."""
    words = ["table"]
    for split, part in by_image(rows).groupby("split"):
        file = folder / f"{split}-00000-of-00001.parquet"
        images = [{"bytes": (folder / name).read_bytes(), "path": name} for name in part["image"]]
        part.assign(image=images).drop(columns="split").to_parquet(file)
        words.append(str(file))
    for image in folder.glob("*.jpg"):
        image.unlink()
    return words


def imagefolder(folder: Path, rows: Sequence[Row]) -> list[str]:
    """Hugging Face's: train/metadata.jsonl beside its images, numbered from 0 in each split."""
    for split, part in by_image(rows).groupby("split"):
        home = folder / {"val": "validation"}.get(split, split)
        home.mkdir()
        for number, name in enumerate(part["image"]):
            (folder / name).rename(home / f"{number}.jpg")
        captions = part["caption"].reset_index(drop=True)
        metadata = [{"file_name": f"{number}.jpg", "text": texts} for number, texts in captions.items()]
        (home / "metadata.jsonl").write_text("\n".join(map(json.dumps, metadata)))
    return ["table", str(folder)]


def imagefolder_csv(folder: Path, rows: Sequence[Row]) -> list[str]:
    """Hugging Face's: one metadata.csv, with the images in a subfolder."""
    (folder / "photos").mkdir()
    for image in folder.glob("*.jpg"):
        shutil.move(image, folder / "photos")
    lines = [f'photos/{image},"{caption}",{split}' for image, caption, split in rows]
    (folder / "metadata.csv").write_text("\n".join(["file_name,text,split", *lines]))
    return ["table", str(folder / "metadata.csv")]


# Write the rows in a format into the folder of the images; the words that data.prepare needs to convert it.
FORMATS: dict[str, Callable[[Path, Sequence[Row]], list[str]]] = {
    writer.__name__: writer
    for writer in (
        *(coco_files, karpathy_file, semicolons, tsv, flickr30k_results, flickr8k_token, json_lines, json_list),
        *(parquet, parquet_with_images, imagefolder, imagefolder_csv),
    )
}
