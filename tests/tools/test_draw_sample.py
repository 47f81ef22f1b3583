"""tools/draw_sample: the bundled sample is what the program draws, and has the properties that its README states."""

import io
import re
from collections import Counter

import pytest
from PIL import Image, ImageChops, ImageStat

from tools.draw_sample.__main__ import CAPTIONS_FILE, IMAGES
from tools.draw_sample.draw import SIDE, draw_scene, jpeg
from tools.draw_sample.scenes import (
    ACTIONS,
    COLOURS,
    THINGS,
    canonical,
    captions,
    captions_csv,
    make_scenes,
    names_main_thing,
)

SAMPLE = make_scenes()
TRAIN = [scene for scene in SAMPLE if scene.split == "train"]
HELD_OUT = [scene for scene in SAMPLE if scene.split != "train"]


def words(caption):
    return re.findall(r"[a-z]+", caption.lower())


def triple(scene):
    return scene.thing, scene.colour, scene.place


def one(**facts):
    return next(scene for scene in SAMPLE if all(getattr(scene, name) == value for name, value in facts.items()))


def test_bundled_captions_are_those_that_the_program_writes():
    assert CAPTIONS_FILE.read_bytes().decode("utf-8") == captions_csv(make_scenes())


def test_same_seed_same_scenes_and_another_seed_others():
    assert make_scenes(0) == SAMPLE
    assert make_scenes(1) != SAMPLE


@pytest.mark.parametrize("thing", THINGS)
def test_bundled_images_are_those_that_the_program_draws(thing):
    scene = one(thing=thing)
    image = draw_scene(scene)
    assert image.tobytes() == draw_scene(scene).tobytes()
    bundled = Image.open(IMAGES / scene.image)
    assert bundled.size == image.size == (SIDE, SIDE)
    again = Image.open(io.BytesIO(jpeg(image)))
    # Another release of Pillow or libjpeg may round a pixel differently, but must not move a shape.
    assert max(ImageStat.Stat(ImageChops.difference(bundled, again)).mean) < 1.5


def test_every_scene_has_its_file_and_every_file_its_scene():
    assert sorted(path.name for path in IMAGES.glob("*.jpg")) == [scene.image for scene in SAMPLE]


def test_size_budget():
    assert sum(path.stat().st_size for path in IMAGES.glob("*.jpg")) <= 2.3e6


def test_all_images_differ():
    assert len({path.read_bytes() for path in IMAGES.glob("*.jpg")}) == len(SAMPLE)


def test_splits_have_the_documented_sizes_and_are_disjoint():
    sizes = Counter(scene.split for scene in SAMPLE)
    assert 700 <= sizes["train"] <= 760
    assert 70 <= sizes["val"] <= 110
    assert 70 <= sizes["test"] <= 110
    assert len({scene.image for scene in SAMPLE}) == len(SAMPLE)


def test_held_out_combinations_also_occur_in_other_training_images():
    assert {triple(scene) for scene in HELD_OUT} <= {triple(scene) for scene in TRAIN}
    for name in ("thing", "colour", "place", "action", "relation", "count"):
        counts = Counter(getattr(scene, name) for scene in TRAIN)
        assert {getattr(scene, name) for scene in HELD_OUT} <= set(counts)
        assert min(counts.values()) >= 12, (name, counts)


def test_test_split_covers_every_thing_and_colour():
    test = [scene for scene in SAMPLE if scene.split == "test"]
    assert {scene.thing for scene in test} == set(THINGS)
    assert {scene.colour for scene in test} == set(COLOURS)


def test_five_different_captions_each_naming_the_main_thing():
    for scene in SAMPLE:
        five = captions(scene)
        assert len(set(five)) == 5
        assert all(names_main_thing(caption, scene) for caption in (*five, canonical(scene))), five


def test_captions_are_capitalised_punctuated_and_agree_in_number():
    for scene in SAMPLE:
        for caption in captions(scene):
            assert re.fullmatch(r"[A-Z][a-z]*( [a-z]+,?)* [a-z]+\.", caption), caption
            plural = scene.count > 1
            assert (" is " in caption) <= (not plural), caption
            assert (" are " in caption) <= plural, caption


def test_the_vocabulary_is_small_and_every_held_out_word_occurs_in_training():
    trained = Counter(word for scene in TRAIN for caption in captions(scene) for word in words(caption))
    assert len(trained) <= 120
    for scene in HELD_OUT:
        assert min(trained[word] for word in words(" ".join(captions(scene)))) >= 5  # Vocabulary's usual threshold


def test_places_fit_the_things():
    for scene in SAMPLE:
        assert scene.action in ACTIONS[scene.thing][scene.place]


def test_names_main_thing():
    dog = one(thing="dog", colour="red")
    assert names_main_thing("a red dog runs on the grass", dog)
    assert names_main_thing("Two red dogs are sitting.", dog)
    assert not names_main_thing("a red bird runs on the grass", dog)
    assert not names_main_thing("a blue dog runs on the grass", dog)
    assert not names_main_thing("a dog runs on the grass", dog)
    assert not names_main_thing("a red dog next to a red bird", dog)
    assert not names_main_thing("a red and blue dog", dog)
    assert not names_main_thing("a red hotdog", dog)
    assert not names_main_thing("", dog)
    assert names_main_thing("the yellow sailboat is on the water", one(thing="boat", colour="yellow"))
    assert names_main_thing("two blue fish", one(thing="fish", colour="blue"))


def test_the_captions_of_an_image_agree_in_most_words_but_not_in_all():
    """BLEU-4 of each caption against the other four of its image, and of the canonical caption against all five."""
    from nltk.translate.bleu_score import corpus_bleu

    some = SAMPLE[::4]  # all would take four times as long
    everything = [[words(caption) for caption in captions(scene)] for scene in some]
    others = [[c for j, c in enumerate(five) if j != k] for five in everything for k in range(5)]
    assert 0.6 <= corpus_bleu(others, [c for five in everything for c in five]) <= 0.75
    assert corpus_bleu(everything, [words(canonical(scene)) for scene in some]) >= 0.75
