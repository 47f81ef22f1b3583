"""Rows of embeddings and output layer for words that a checkpoint does not know."""

import torch

from training.initial import with_new_words


def test_rows_of_known_words_stay_and_new_ones_are_drawn_as_those_are_distributed() -> None:
    torch.manual_seed(0)
    known = torch.randn(104, 3) * torch.tensor([1.0, 0.1, 0.0]) + torch.tensor([5.0, 0.0, -2.0])
    known[:4] = 100.0  # special tokens do not count
    extended = with_new_words(known, torch.Size([5104, 3]))
    assert torch.equal(extended[:104], known)
    new = extended[104:]
    torch.testing.assert_close(new.mean(dim=0), known[4:].mean(dim=0), rtol=0.02, atol=0.01)
    torch.testing.assert_close(new.std(dim=0), known[4:].std(dim=0), rtol=0.05, atol=0.001)
    assert with_new_words(known, known.shape) is known


def test_biases_are_rows_too() -> None:
    assert with_new_words(torch.full((9,), 2.0), torch.Size([11])).tolist() == [2.0] * 11
