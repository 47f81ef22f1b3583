"""data/dataset.py: captions.csv of any make, splits, batches, and the order of an epoch."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cli import UserError
from data.captions import find_sided, read_captions, references_of
from data.dataset import Batch, EpochSampler, Flickr8kDataset, ImageLoader, collate
from data.images import ImageError, drop_bad_images, find_bad_images
from data.transforms import Augment, Transform
from data.vocab import END_ID, PAD_ID, START_ID, Vocabulary
from tests.support.helpers import draw, write_csv


def read(folder: Path, content: str | bytes) -> list[list[str]]:
    path = folder / "captions.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    table = read_captions(path)
    assert list(table.columns) == ["image", "caption", "split"]
    return [[str(cell) for cell in row] for row in table.to_numpy()]


@pytest.mark.parametrize(
    ("content", "row"),
    [
        ("image,caption,split\na.jpg,a dog,val\n", ["a.jpg", "a dog", "val"]),
        ("image,caption,split\r\na.jpg,a dog,val\r\n", ["a.jpg", "a dog", "val"]),
        ("image,caption,split\ra.jpg,a dog,val", ["a.jpg", "a dog", "val"]),
        ("\ufeffimage,caption,split\na.jpg,a dog,val\n", ["a.jpg", "a dog", "val"]),
        ('image,caption,split\n"a, b.jpg","a dog, a ""big"" one",val\n', ["a, b.jpg", 'a dog, a "big" one', "val"]),
        (" Image , CAPTION , Split \n a.jpg , a dog , val \n", ["a.jpg", "a dog", "val"]),
        ("split,id,caption,image\nval,7,a dog,a.jpg\n", ["a.jpg", "a dog", "val"]),
        (
            "image,caption,split\n\u65e5\u672c \u00e9.jpg,caf\u00e9,val\n",
            ["\u65e5\u672c \u00e9.jpg", "caf\u00e9", "val"],
        ),
        ("image,caption,split\n\na.jpg,a dog,val\n\n  \n,,\n", ["a.jpg", "a dog", "val"]),
        ("image,caption,split\na.jpg,a dog,val,,\n", ["a.jpg", "a dog", "val"]),
        ("image,caption,split\n007,NA,val\n", ["007", "NA", "val"]),
        ("image,caption,split\na.jpg,null,val\n", ["a.jpg", "null", "val"]),
        ('image,caption,split\na.jpg,a 5" plate,val\n', ["a.jpg", 'a 5" plate', "val"]),
    ],
)
def test_csv_of_any_make_is_read(tmp_path: Path, content: str, row: list[str]) -> None:
    assert read(tmp_path, content) == [row]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("image,caption\n", "no captions in it"),
        ("file,caption\na.jpg,dog\n", r"no columns named image .*file, caption.*must read image,caption"),
        ("image;caption\na.jpg;dog\n", "no columns named image"),
        ("a.jpg,a dog\nb.jpg,a cat\n", "no columns named image"),
        ("image,caption,Caption\na.jpg,a,b\n", "2 columns named caption"),
        ("image,caption,split,split\na.jpg,a,val,val\n", "2 columns named split"),
        ("image,caption\na.jpg,a dog\nb.jpg,\n", "row 3: empty caption"),
        ("image,caption\n\n\na.jpg,a dog\n\n,a dog\n", "row 6: empty image"),
        ('image,caption\na.jpg,"a\ndog"\nb.jpg,"  "\n', "row 4: empty caption"),
        ("image,caption\na.jpg,a dog, running\n", "row 2: 3 cells, the header has 2.*double quotes"),
        ("image,caption\na.jpg,a dog\nb.jpg\n", "row 3: 1 cells, the header has 2"),
        ('image,caption\na.jpg,a dog\nb.jpg,"a dog\nc.jpg,a cat\n', "row 3: .*double quotes"),
        ("image,caption,split\na.jpg,dog,train\nb.jpg,dog,dev\n", "row 3: split 'dev' must be one of train, val, test"),
        ("image,caption,split\na.jpg,dog,train\nb.jpg,dog,\n", "row 3: split '' must"),
        (
            "image,caption,split\na.jpg,dog,train\nb.jpg,dog,val\na.jpg,dog,val\n",
            "row 4: image a.jpg is in more than one split",
        ),
        ("image,caption\na.jpg,dog\nb.jpg,café\n".encode("latin-1"), "row 3: not UTF-8"),
        ("image,caption\na.jpg,dog\n".encode("utf-16"), "row 1: not UTF-8"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_row(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=rf"captions\.csv: {message}"):
        read(tmp_path, content)


def test_missing_captions_file(tmp_path: Path) -> None:
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(UserError, match=r"no such captions file.*captions_file"):
            read_captions(path)


def test_without_a_split_column_images_are_split_by_a_hash(tmp_path: Path) -> None:
    names = [f"photo_{number}.jpg" for number in range(1000)]
    rows: list[tuple[str, ...]] = [(name, caption) for name in names for caption in ("a dog", "a cat")]
    path = write_csv(tmp_path / "a.csv", rows, ("image", "caption"))
    table = read_captions(path, seed=1)
    split_of = dict(zip(table["image"], table["split"], strict=True))
    assert (table.groupby("image")["split"].nunique() == 1).all()  # images, never rows
    shares = pd.Series(split_of).value_counts(normalize=True)
    assert abs(shares["train"] - 0.8) < 0.05 and abs(shares["val"] - 0.1) < 0.04 and abs(shares["test"] - 0.1) < 0.04

    more = write_csv(tmp_path / "more.csv", [("new.jpg", "a bird"), *rows[::-1]], ("image", "caption"))
    again = read_captions(more, seed=1)
    assert {
        name: split for name, split in zip(again["image"], again["split"], strict=True) if name != "new.jpg"
    } == split_of
    other = read_captions(path, seed=2)
    assert dict(zip(other["image"], other["split"], strict=True)) != split_of


def test_references_of_keeps_file_order_and_names_the_splits_there_are(tmp_path: Path) -> None:
    rows = [("b.jpg", "one", "train"), ("a.jpg", "two", "train"), ("b.jpg", "three", "train"), ("c.jpg", "four", "val")]
    table = read_captions(write_csv(tmp_path / "c.csv", rows))
    assert list(references_of(table, "train").items()) == [("b.jpg", ["one", "three"]), ("a.jpg", ["two"])]
    with pytest.raises(
        UserError, match=r"'test' \(there are: train, val\)\. Write test into the split column .* captions file"
    ):
        references_of(table, "test")


def test_a_file_without_splits_can_stay_whole(tmp_path: Path) -> None:
    rows = [(f"{number}.jpg", "a dog") for number in range(30)]
    path = write_csv(tmp_path / "c.csv", rows, header=("image", "caption"))
    assert set(read_captions(path, seed=None)["split"]) == {"all"}
    assert set(read_captions(path)["split"]) == {"train", "val", "test"}
    assert set(read_captions(write_csv(path, [(*row, "val") for row in rows]), seed=None)["split"]) == {"val"}


def test_collate_stacks_images_and_packs_captions() -> None:
    items = [
        (torch.ones(3, 4, 4), [[START_ID, 4, END_ID], [START_ID, 4, 5, 6, END_ID]], "a.jpg"),
        (torch.zeros(3, 4, 4), [[START_ID, END_ID]], "b.jpg"),
    ]
    batch = collate(items)
    assert isinstance(batch, Batch) and batch.names == ["a.jpg", "b.jpg"]
    assert batch.visual.shape == (2, 3, 4, 4) and batch.visual[0].min() == 1 and batch.visual[1].max() == 0
    assert batch.captions.tokens.tolist() == [
        [START_ID, 4, PAD_ID, PAD_ID],
        [START_ID, 4, 5, 6],
        [START_ID, PAD_ID, PAD_ID, PAD_ID],
        [PAD_ID] * 4,
    ]
    assert batch.captions.targets.tolist() == [4, END_ID, 4, 5, 6, END_ID, END_ID]


def test_what_can_no_longer_be_read_is_left_out_of_its_batch(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", "circle", "red")
    references = {"a.png": ["a dog"], "gone.png": ["a dog", "a dog in the snow"]}
    dataset = Flickr8kDataset(references, ImageLoader(tmp_path, Transform(32)), Vocabulary.build(["a dog"], 1))
    batch = collate([dataset[0], dataset[1]])
    assert batch.names == ["a.png"] and batch.visual.shape == (1, 3, 32, 32) and batch.captions.count == 3
    assert list(batch.missing) == ["gone.png"] and batch.missing["gone.png"].endswith("gone.png: no such file")
    empty = collate([dataset[1]])
    assert empty.names == [] and empty.captions.count == len(empty.visual) == 0 and list(empty.missing) == ["gone.png"]


def test_dataset_gives_each_image_with_all_its_captions(tiny_data: Path) -> None:
    references = references_of(read_captions(tiny_data / "captions.csv"), "train")
    vocabulary = Vocabulary.build([caption for captions in references.values() for caption in captions], 1)
    dataset = Flickr8kDataset(references, ImageLoader(tiny_data / "images", Transform(32)), vocabulary)
    assert len(dataset) == 8
    picture, tokens, name = dataset[1]
    assert picture.shape == (3, 32, 32) and picture.dtype == torch.float32
    assert [vocabulary.decode(ids) for ids in tokens] == ["a red square", "there is a red square", "one square red"]
    assert name == "shape_01.jpg"
    with pytest.raises(ImageError, match="no such file"):
        ImageLoader(tiny_data / "images", Transform(32))("none.jpg")


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 60), st.integers(2, 20), st.integers(0, 2**31), st.integers(0, 50), st.data())
def test_epoch_sampler(length: int, batch_size: int, seed: int, epoch: int, data: st.DataObject) -> None:
    def batches(first_step: int) -> list[list[tuple[int, int]]]:
        sampler = EpochSampler(length, batch_size, seed)
        sampler.set_position(epoch, first_step)
        return list(sampler)

    whole = batches(0)
    assert sorted(index for batch in whole for index, _ in batch) == list(range(length))  # every image once
    assert len(whole) == len(EpochSampler(length, batch_size, seed))
    assert all(len(batch) == batch_size for batch in whole[:-1])
    assert 2 <= len(whole[-1]) <= batch_size + 1  # batch normalisation learns nothing from one image
    first_step = data.draw(st.integers(0, len(whole)))
    torch.manual_seed(first_step)  # other random numbers make no difference
    assert batches(first_step) == whole[first_step:]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = set()
    for seed in (0, 1):
        sampler = EpochSampler(50, 50, seed)
        for epoch in range(3):
            sampler.set_position(epoch, 0)
            orders.add(tuple(next(iter(sampler))))
    assert len(orders) == 6


def test_one_image_is_too_few_to_train_on() -> None:
    with pytest.raises(UserError, match="at least 2"):
        EpochSampler(1, 4, 0)


def test_images_are_augmented_in_training_only_and_by_their_seed_alone(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", "circle", "red", (64, 48))
    load = ImageLoader(tmp_path, Transform(32), Augment(0.5, flip=True))
    plain = ImageLoader(tmp_path, Transform(32))
    assert torch.equal(load("a.png"), plain("a.png", 3))  # no seed, or no augmentation: the whole picture
    before = torch.get_rng_state()
    crops = [load("a.png", seed) for seed in range(4)]
    assert torch.equal(torch.get_rng_state(), before)  # dropout's random numbers stay as they were
    assert all(torch.equal(crop, load("a.png", seed)) for seed, crop in enumerate(crops))
    assert len({crop.sum().item() for crop in crops}) == 4


def test_a_crop_of_the_whole_picture_is_the_whole_picture_however_wide() -> None:
    image = Image.new("RGB", (500, 200))
    assert all(Augment(1.0, flip=True)(image, seed).size == (500, 200) for seed in range(20))
    sizes = [Augment(0.5, flip=False)(image, seed).size for seed in range(20)]
    assert all(width * height >= 0.49 * 500 * 200 for width, height in sizes) and len(set(sizes)) > 10


def test_a_picture_whose_caption_says_left_or_right_is_never_mirrored(tmp_path: Path) -> None:
    half = Image.new("RGB", (40, 40), "white")
    half.paste("black", (0, 0, 20, 40))
    for name in ("a.png", "b.png"):
        half.save(tmp_path / name)
    references = {
        "a.png": ["a dog", "it looks to the Left."],
        "b.png": ["a bright light leftover"],
        "c.png": ["the left-hand side"],
    }
    sided = find_sided(references)
    assert sided == {"a.png", "c.png"}
    load = ImageLoader(tmp_path, Transform(32), Augment(1.0, flip=True), sided)
    plain = load("a.png")
    assert all(torch.equal(load("a.png", seed), plain) for seed in range(20))
    mirrored = sum(torch.equal(load("b.png", seed), plain.flip(2)) for seed in range(20))
    assert 4 <= mirrored <= 16


def test_the_light_changes_but_not_the_colours(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (200, 40, 40)).save(tmp_path / "red.png")
    load = ImageLoader(tmp_path, Transform(32), Augment(1.0, flip=False, jitter=0.3))
    pictures = [load("red.png", seed) for seed in range(10)]
    assert len({picture.sum().item() for picture in pictures}) > 5
    colours = [
        picture.mean(dim=(1, 2)) * torch.tensor(Transform().std) + torch.tensor(Transform().mean)
        for picture in pictures
    ]
    assert all(red > 2 * green and abs(green - blue) < 0.03 for red, green, blue in colours)


def make_images(folder: Path, count: int, bad: int) -> dict[str, list[str]]:
    """``count`` pictures of which the first ``bad`` are broken; each with a caption."""
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        if number < bad:
            (folder / name).write_bytes(b"not a picture")
        else:
            draw(folder / name, "circle", "red", (8, 8))
    return {name: ["a circle"] for name in names}


def test_a_few_bad_images_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references = make_images(tmp_path, 40, 2)  # exactly 5 %
    bad = find_bad_images([tmp_path / name for name in references], workers=3)
    assert list(bad) == [tmp_path / "0.png", tmp_path / "1.png"] and all(
        "not a picture" in reason for reason in bad.values()
    )
    good = drop_bad_images(references, tmp_path, bad)
    assert list(good) == list(references)[2:]
    out = capsys.readouterr().out
    assert "0.png: not a picture" in out and "1.png: not a picture" in out
    assert find_bad_images([tmp_path / name for name in good], workers=0) == {}


def test_many_bad_images_stop_the_run(tmp_path: Path) -> None:
    references = make_images(tmp_path, 39, 2)
    bad = find_bad_images([tmp_path / name for name in references])
    with pytest.raises(UserError, match=r"2 of 39 images cannot be used .*0\.png: not a picture.*image_dir"):
        drop_bad_images(references, tmp_path, bad)


def test_missing_images_count_as_bad(tmp_path: Path) -> None:
    bad = find_bad_images([tmp_path / "no.jpg"])
    assert "no such file" in bad[tmp_path / "no.jpg"]
