"""Cross-entropy with label smoothing, word dropout, and the inputs and targets of teacher forcing."""

import pytest
import torch
from torch.nn import functional

from config import StageConfig
from data.dataset import Flickr8kDataset, collate
from data.packing import PackedTokens
from data.vocab import END_ID, PAD_ID, START_ID, UNK_ID
from models.captioner import Captioner
from training.objectives import caption_loss, drop_words, teacher_forcing


def test_word_dropout_replaces_words_but_no_special_tokens() -> None:
    torch.manual_seed(0)
    tokens = torch.tensor([START_ID, *range(4, 104), END_ID, PAD_ID]).repeat(100, 1)
    dropped = drop_words(tokens, 0.3)
    changed = dropped != tokens
    assert (dropped[changed] == UNK_ID).all()
    assert 0.27 < changed[:, 1:-2].float().mean() < 0.33
    assert not changed[:, 0].any() and not changed[:, -2:].any()
    assert torch.equal(drop_words(tokens, 0.0), tokens)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_loss_equals_torchs_cross_entropy(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(30, 11, generator=generator)
    targets = torch.randint(1, 11, (30,), generator=generator)
    loss, cross_entropy = caption_loss(logits, targets, smoothing)
    torch.testing.assert_close(loss, functional.cross_entropy(logits, targets, label_smoothing=smoothing))
    torch.testing.assert_close(cross_entropy, functional.cross_entropy(logits, targets))


@pytest.mark.parametrize("word_dropout", [0.0, 1 - 1e-6])
def test_teacher_forcing_predicts_each_next_token(
    captioner: Captioner, dataset: Flickr8kDataset, monkeypatch: pytest.MonkeyPatch, word_dropout: float
) -> None:
    """The decoder reads <start> w1 .. wn (<unk> for each word with word dropout) and predicts w1 .. wn <end>."""
    seen = []
    monkeypatch.setattr(
        "training.objectives.caption_loss",
        lambda logits, targets, *_: (seen.append(targets), caption_loss(logits, targets))[1],
    )
    read: list[PackedTokens] = []
    hook = captioner.decoder.register_forward_pre_hook(lambda _, inputs: read.append(inputs[1]))
    objective = teacher_forcing(StageConfig(word_dropout=word_dropout), torch.float32)
    step = objective(captioner, collate([dataset[1], dataset[3]]))
    hook.remove()
    captions = [ids for index in (1, 3) for ids in dataset[index][1]]
    assert seen[0].tolist() == [token for ids in captions for token in ids[1:]]
    inputs = read[0].rows(read[0].tokens[..., None]).flatten().tolist()
    expected = [
        token for ids in captions for token in [ids[0], *([UNK_ID] * len(ids[1:-1]) if word_dropout else ids[1:-1])]
    ]
    assert inputs == expected and step.count == len(inputs)
