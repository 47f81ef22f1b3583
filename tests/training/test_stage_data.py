"""training/stage_data.py: the captions whose loss is computed in validation."""

from training.stage_data import some_captions


def test_the_validation_loss_is_that_of_a_limited_number_of_captions() -> None:
    references = {"a.jpg": ["1", "2", "3"], "b.jpg": ["1"], "c.jpg": ["1", "2", "3"]}
    assert some_captions(references, 100) == references
    assert some_captions(references, 6) == {"a.jpg": ["1", "2"], "b.jpg": ["1"], "c.jpg": ["3", "1"]}
    assert some_captions(references, 1) == {"a.jpg": ["1"], "b.jpg": ["1"], "c.jpg": ["3"]}
    assert some_captions({}, 1) == {}
