"""data/packing.py: packing loses no token, and memory grows with the number of words."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from config import AttentionConfig
from data.packing import PackedTokens, pack
from data.vocab import END_ID, PAD_ID, START_ID
from models.attention import AttentionDecoder
from training.objectives import caption_loss

captions = st.lists(st.integers(4, 20), max_size=6).map(lambda words: [START_ID, *words, END_ID])
batches = st.lists(st.lists(captions, max_size=9), min_size=1, max_size=5)


@given(batches)
def test_every_token_is_read_and_predicted_once_in_order(batch: list[list[list[int]]]) -> None:
    packed = pack(batch)
    sequences = [caption for image in batch for caption in image]
    read = packed.rows(packed.tokens[..., None])[:, 0].tolist()
    assert read == [token for caption in sequences for token in caption[:-1]]
    assert packed.targets.tolist() == [token for caption in sequences for token in caption[1:]]
    assert packed.count == len(read) == int(packed.lengths.sum())
    back = packed.padded(torch.tensor(read)[:, None])[..., 0]
    assert torch.equal(back, packed.tokens.masked_fill(packed.tokens == PAD_ID, 0))


@given(batches)
def test_each_sequence_belongs_to_its_image_and_few_are_empty(batch: list[list[list[int]]]) -> None:
    packed = pack(batch)
    owners = packed.sequence_images[packed.lengths > 0].tolist()
    assert owners == [image for image, its in enumerate(batch) for _ in its]
    assert packed.images.tolist() == sorted(packed.images.tolist())
    assert len(packed.images) <= 2 * len(batch)
    assert len(packed.tokens) <= 2 * sum(map(len, batch)) + 2 * len(batch)


@given(batches.filter(lambda batch: len(batch) > 1))
def test_a_part_of_the_images_has_their_tokens_and_no_others(batch: list[list[list[int]]]) -> None:
    middle = len(batch) // 2
    for first, end in ((0, middle), (middle, len(batch))):
        part, expected = pack(batch).of_images(first, end), pack(batch[first:end])
        assert torch.equal(part.targets, expected.targets)
        read = [tokens.rows(tokens.tokens[..., None])[:, 0].tolist() for tokens in (part, expected)]
        assert read[0] == read[1]
        owners = [tokens.sequence_images[tokens.lengths > 0].tolist() for tokens in (part, expected)]
        assert owners[0] == owners[1]


def test_equally_many_captions_leave_no_empty_sequence() -> None:
    packed = pack([[[START_ID, 4, END_ID]] * 5] * 3)
    assert packed.per_group == 5 and packed.images.tolist() == [0, 1, 2] and len(packed.tokens) == 15


def test_an_image_without_captions_keeps_its_place() -> None:
    """Otherwise the images after it would get the wrong index."""
    packed = pack([[[START_ID, 4, END_ID], [START_ID, 5, END_ID]], [], [[START_ID, 6, END_ID]]])
    assert set(packed.images.tolist()) == {0, 1, 2} and packed.targets.tolist() == [4, END_ID, 5, END_ID, 6, END_ID]


def test_an_empty_batch_can_be_packed() -> None:
    assert pack([]).count == 0 and pack([[]]).count == 0


def test_one_step_of_decoding_has_no_padding() -> None:
    packed = PackedTokens.one_step(torch.tensor([5, 6, 7]))
    rows = torch.randn(3, 2)
    assert torch.equal(packed.rows(packed.padded(rows)), rows) and packed.tokens.shape == (3, 1)


def memory_of_a_step(counts: list[int]) -> int:
    """Bytes kept for the backward pass of a training step; image i has ``counts[i]`` captions of 12 words."""
    torch.manual_seed(0)
    decoder = AttentionDecoder(AttentionConfig(hidden_size=64, embed_size=64), 2543, 64)
    batch = pack([[[START_ID, *range(4, 15), END_ID]] * count for count in counts])
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        caption_loss(decoder(torch.randn(len(counts), 49, 64), batch), batch.targets)
    return sum(kept.values())


def test_one_image_with_200_captions_costs_less_than_twice_the_memory_of_the_same_words() -> None:
    """Padded to the image with most captions it cost ten times as much."""
    uneven, even = memory_of_a_step([200, *[5] * 15]), memory_of_a_step([*[18] * 3, *[17] * 13])
    assert uneven < 2 * even
