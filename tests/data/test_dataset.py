"""data/dataset.py: images with their captions, batches, and the order of an epoch."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cli import UserError
from data.captions import find_left_right, read_captions, references_of
from data.dataset import Batch, EpochSampler, Flickr8kDataset, ImageLoader, collate, shard_lengths
from data.images import ImageError
from data.transforms import Augment, Transform
from data.vocab import END_ID, PAD_ID, START_ID, Vocabulary
from distributed import Processes
from tests.support.helpers import draw


def test_collate_stacks_images_and_packs_captions() -> None:
    items = [
        (torch.ones(3, 4, 4), [[START_ID, 4, END_ID], [START_ID, 4, 5, 6, END_ID]], "a.jpg", 7),
        (torch.zeros(3, 4, 4), [[START_ID, END_ID]], "b.jpg", 8),
    ]
    batch = collate(items)
    assert isinstance(batch, Batch) and batch.names == ["a.jpg", "b.jpg"] and batch.seeds == [7, 8]
    first, second = batch.split(2)
    assert (first.names, second.names, second.seeds) == (["a.jpg"], ["b.jpg"], [8]) and not second.visual.any()
    assert first.captions.targets.tolist() == [4, END_ID, 4, 5, 6, END_ID] and second.captions.count == 1
    assert batch.visual.shape == (2, 3, 4, 4) and batch.visual[0].min() == 1 and batch.visual[1].max() == 0
    assert batch.captions.tokens.tolist() == [
        [START_ID, 4, PAD_ID, PAD_ID],
        [START_ID, 4, 5, 6],
        [START_ID, PAD_ID, PAD_ID, PAD_ID],
        [PAD_ID] * 4,
    ]
    assert batch.captions.targets.tolist() == [4, END_ID, 4, 5, 6, END_ID, END_ID]


def test_images_that_can_no_longer_be_read_are_left_out_of_their_batch(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", "circle", "red")
    references = {"a.png": ["a dog"], "gone.png": ["a dog", "a dog in the snow"]}
    dataset = Flickr8kDataset(references, ImageLoader(tmp_path, Transform(32)), Vocabulary.build(["a dog"], 1))
    batch = collate([dataset[0], dataset[1]])
    assert batch.names == ["a.png"] and batch.visual.shape == (1, 3, 32, 32) and batch.captions.count == 3
    assert list(batch.missing) == ["gone.png"] and batch.missing["gone.png"].endswith("gone.png: no such file")
    empty = collate([dataset[1]])
    assert empty.names == [] and empty.captions.count == len(empty.visual) == 0 and list(empty.missing) == ["gone.png"]


def test_dataset_returns_each_image_with_all_its_captions(tiny_data: Path) -> None:
    references = references_of(read_captions(tiny_data / "captions.csv", seed=0), "train")
    vocabulary = Vocabulary.build([caption for captions in references.values() for caption in captions], 1)
    dataset = Flickr8kDataset(references, ImageLoader(tiny_data / "images", Transform(32)), vocabulary)
    assert len(dataset) == 8
    image, tokens, name, _ = dataset[1]
    assert image.shape == (3, 32, 32) and image.dtype == torch.float32
    assert [vocabulary.decode(ids) for ids in tokens] == ["a red square", "there is a red square", "one square red"]
    assert name == "shape_01.jpg"
    with pytest.raises(ImageError, match="no such file"):
        ImageLoader(tiny_data / "images", Transform(32))("none.jpg")


@settings(max_examples=100)
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
    assert 2 <= len(whole[-1]) <= batch_size + 1  # batch normalisation needs more than one image
    first_step = data.draw(st.integers(0, len(whole)))
    torch.manual_seed(first_step)  # the order does not depend on torch's random state
    assert batches(first_step) == whole[first_step:]


def test_each_epoch_and_seed_has_its_own_order() -> None:
    orders = set()
    for seed in (0, 1):
        sampler = EpochSampler(50, 50, seed)
        for epoch in range(3):
            sampler.set_position(epoch, 0)
            orders.add(tuple(next(iter(sampler))))
    assert len(orders) == 6


@settings(max_examples=50)
@given(st.integers(2, 60), st.integers(5, 20), st.integers(2, 5))
def test_the_shares_of_all_processes_are_the_batch(length: int, batch_size: int, size: int) -> None:
    whole = list(EpochSampler(length, batch_size, 0))
    samplers = [EpochSampler(length, batch_size, 0, processes=Processes(rank, size)) for rank in range(size)]
    assert all(len(sampler) == len(whole) for sampler in samplers)
    for step, (batch, *shares) in enumerate(zip(whole, *samplers, strict=True)):
        if samplers[0].copies(step) == 1:
            assert [item for share in shares for item in share] == batch
            assert max(map(len, shares)) - min(map(len, shares)) <= 1 and min(map(len, shares)) > 0
        else:
            assert len(batch) < samplers[0].copies(step) == size and shares == [batch] * size


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(UserError, match=r"--train\.batch_size 2: the 3 processes share each batch"):
        EpochSampler(50, 2, 0, processes=Processes(0, 3))


def test_one_image_is_too_few_to_train_on() -> None:
    with pytest.raises(UserError, match="at least 2"):
        EpochSampler(1, 4, 0)


def test_images_are_augmented_in_training_only_and_depend_on_the_seed_only(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", "circle", "red", (64, 48))
    load = ImageLoader(tmp_path, Transform(32), Augment(0.5, flip=True))
    plain = ImageLoader(tmp_path, Transform(32))
    assert torch.equal(load("a.png"), plain("a.png", 3))  # no seed, or no augmentation: the whole image
    before = torch.get_rng_state()
    crops = [load("a.png", seed) for seed in range(4)]
    assert torch.equal(torch.get_rng_state(), before)  # dropout's random numbers stay as they were
    assert all(torch.equal(crop, load("a.png", seed)) for seed, crop in enumerate(crops))
    assert len({crop.sum().item() for crop in crops}) == 4


def test_an_image_whose_caption_mentions_left_or_right_is_never_mirrored(tmp_path: Path) -> None:
    half = Image.new("RGB", (40, 40), "white")
    half.paste("black", (0, 0, 20, 40))
    for name in ("a.png", "b.png"):
        half.save(tmp_path / name)
    references = {
        "a.png": ["a dog", "it looks to the Left."],
        "b.png": ["a bright light leftover"],
        "c.png": ["the left-hand side"],
    }
    left_right = find_left_right(references)
    assert left_right == {"a.png", "c.png"}
    load = ImageLoader(tmp_path, Transform(32), Augment(1.0, flip=True), left_right)
    plain = load("a.png")
    assert all(torch.equal(load("a.png", seed), plain) for seed in range(20))
    mirrored = sum(torch.equal(load("b.png", seed), plain.flip(2)) for seed in range(20))
    assert 4 <= mirrored <= 16


def test_jitter_changes_the_brightness_but_not_the_colours(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (200, 40, 40)).save(tmp_path / "red.png")
    load = ImageLoader(tmp_path, Transform(32), Augment(1.0, flip=False, jitter=0.3))
    images = [load("red.png", seed) for seed in range(10)]
    assert len({image.sum().item() for image in images}) > 5
    colours = [
        image.mean(dim=(1, 2)) * torch.tensor(Transform().std) + torch.tensor(Transform().mean) for image in images
    ]
    assert all(red > 2 * green and abs(green - blue) < 0.03 for red, green, blue in colours)


def test_images_in_tars_are_shuffled_in_windows_of_tars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.dataset.WINDOW", 2)
    lengths = [3, 1, 4, 2, 5]
    tar_of = [tar for tar, length in enumerate(lengths) for _ in range(length)]
    assert shard_lengths(f"{tar:05}.tar/{image}.jpg" for image, tar in enumerate(tar_of)) == lengths
    sampler = EpochSampler(15, 4, seed=0, shards=lengths)
    orders = []
    for epoch in range(5):
        sampler.set_position(epoch, 0)
        orders.append([index for batch in sampler for index, _ in batch])
        assert sorted(orders[-1]) == list(range(15))
        tars = [tar_of[index] for index in orders[-1]]
        spans = [(tars.index(tar), len(tars) - 1 - tars[::-1].index(tar)) for tar in range(5)]
        open_at_once = [sum(first <= place <= last for first, last in spans) for place in range(15)]
        assert max(open_at_once) == 2
    assert len({tuple(order) for order in orders}) == 5
    sampler.set_position(3, 2)
    assert [index for batch in sampler for index, _ in batch] == orders[3][8:]


def test_files_and_a_single_tar_are_shuffled_as_one() -> None:
    assert shard_lengths(["a.jpg", "b/c.jpg"]) == shard_lengths(["0.tar/a.jpg", "0.tar/b.jpg"]) == []
    assert list(EpochSampler(9, 2, seed=1, shards=[])) == list(EpochSampler(9, 2, seed=1))
