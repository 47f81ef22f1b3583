"""The schema of a run. The doc string under a field is its --help text; YAML gives the values, the command line wins."""

import copy
import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jsonargparse

from cli import UserError

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)

DEFAULT_CONFIG = Path(__file__).with_name("config.yaml")


@dataclass
class DataConfig:
    """What goes in."""

    captions_file: str = "captions.csv"
    """CSV with the columns image, caption and optionally split (train / val / test)"""
    image_dir: str = "data/sample/images"
    """folder that the image names in the CSV are relative to"""
    image_size: int = 224
    """side in pixels of the square every image is resized to; a multiple of 32, the stride of ResNet-50"""
    min_count: int = 5
    """words seen fewer times than this in the training captions become <unk>"""
    workers: int = 2
    """processes that decode images where features are not cached"""
    feature_cache: str = ".cache/features"
    """folder of the cached features of a frozen encoder; safe to delete, about 200 KB an image at 224 px"""


@dataclass
class EncoderConfig:
    """ResNet-50, the eye."""

    weights: str = "IMAGENET1K_V2"
    """IMAGENET1K_V2 or IMAGENET1K_V1 (torchvision's, downloaded once), bundled (the pretrained captioner's, fine-tuned on Flickr8k),
    none (random: learn from scratch), or a file with a ResNet-50 state_dict"""
    layout: Literal["torchvision", "original"] = "torchvision"
    """where a block halves the resolution: on its 3x3 convolution (torchvision) or on its first 1x1 (original paper, Caffe, Keras)"""


@dataclass
class DecoderConfig:
    """The tongue. Defaults are Show and Tell's (Vinyals et al. 2015) as most tutorials have it."""

    name: Literal["lstm", "attention", "transformer"] = "lstm"
    """lstm: the image is the first word the LSTM reads; attention: and a look at the grid for each word; transformer"""
    embed_size: int = 256
    """width E of word embeddings and of the projected image (transformer: hidden_size is)"""
    hidden_size: int = 512
    """width H of the LSTM, of attention, and of the transformer"""
    heads: int = 8
    """attention heads, each hidden_size / heads wide (lstm: none)"""
    layers: int = 3
    """layers of the transformer"""
    dropout: float = 0.5
    """dropout on what the decoder reads and says, and on what attention sees"""


@dataclass
class GenerateConfig:
    """How a sentence is searched for."""

    beam_size: int = 5
    """sentences kept open at each step; 1 is greedy decoding"""
    max_length: int = 30
    """longest caption, in words"""
    length_penalty: float = 0.7
    """a in score = log-probability / length**a (Wu et al. 2016 in its simple form); 0 favours short captions, 1 is the mean per word"""
    no_repeat_ngram: int = 0
    """a caption does not say the same so many words twice; 0: it may"""
    mirror: bool = False
    """look at the mirror image too: the decoder attends to twice the places, the encoder takes twice the time"""


@dataclass
class StageConfig:
    """One stretch of training with its own schedule; a run is a list of them."""

    name: str = "frozen"
    """what the log and the curve call the stage"""
    epochs: int = 20
    """passes over the training images, at most"""
    lr: float = 1e-3
    """peak learning rate of the decoder (AdamW)"""
    encoder_lr: float = 0.0
    """peak learning rate of the encoder; 0 keeps it frozen, and its features are then computed once and cached"""
    encoder_from: int = 2
    """first ResNet stage (1 to 4) that learns when encoder_lr > 0; 0 is everything, the stem included"""
    crop: float = 1.0
    """least share of a picture's area that random crops keep; 1 takes it whole. With crop, flip or jitter no features are cached"""
    flip: bool = False
    """mirror half of the pictures, but none with a caption that says left or right"""
    jitter: float = 0.0
    """change brightness, contrast and saturation by up to this share"""
    schedule: Literal["cosine", "plateau"] = "cosine"
    """cosine: fall to 1 % of the peak over the stage; plateau: halve after 2 epochs without a better validation CIDEr"""
    warmup: float = 0.03
    """share of the stage's steps in which the learning rate rises from 0"""
    label_smoothing: float = 0.1
    """share of the target probability spread over the whole vocabulary (Szegedy et al. 2016); cross-entropy only"""
    word_dropout: float = 0.0
    """share of the words a decoder reads that are hidden (<unk>), so that it looks at the picture rather than guess from the words before"""
    dropout: float | None = None
    """decoder's dropout in this stage; null: decoder.dropout"""
    samples: int = 0
    """0: learn to say each next word of people's captions (cross-entropy); 2 or more: draw so many sentences of each image and learn from their CIDEr-D (SCST)"""
    patience: int = 5
    """stop the stage after this many epochs without a better validation CIDEr"""

    @property
    def augments(self) -> bool:
        """Whether a picture looks different each time it is learnt from."""
        return self.crop < 1 or self.flip or self.jitter > 0


@dataclass
class TrainConfig:
    """How it learns."""

    seed: int = 0
    """seed of the weights, the order of the images, dropout and the split (where the CSV has none)"""
    batch_size: int = 32
    """images a step; each brings all its captions"""
    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay, on matrices only"""
    grad_clip: float = 5.0
    """largest norm of the gradient"""
    ema: float = 0.999
    """decay of the weights' moving average, which is validated and saved: at most, early on it covers the last ninth of the steps; 0: none"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: fp16 or bf16 autocast on CUDA, bf16 on a CPU with native bf16 instructions, else fp32"""
    save_every: float = 120.0
    """seconds between saves of checkpoints_last.pth within an epoch: what a power cut can cost"""
    stages: list[StageConfig] = field(default_factory=lambda: [StageConfig()])
    """the stages, one after the other; --train.stages.KEY changes the last one"""


@dataclass
class Config:
    """A whole run."""

    data: DataConfig = field(default_factory=DataConfig)
    """What goes in."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The eye: ResNet-50."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """The tongue."""
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    """How a sentence is searched for."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How it learns."""
    output_dir: str = "."
    """folder that the checkpoints, loss_log.txt and resolved_config.yaml are written to"""
    device: str = "auto"
    """auto (CUDA, else MPS, else CPU), or cpu, cuda, cuda:1, mps"""


def check(config: Config) -> Config:
    """Return ``config`` if its values make sense together.

    Raises:
        UserError: all problems at once, each with the option's name.
    """
    problems = []

    def need(condition: bool, problem: str) -> None:
        if not condition:
            problems.append(problem)

    need(config.data.image_size >= 32 and config.data.image_size % 32 == 0, "data.image_size must be a multiple of 32")
    need(config.data.min_count >= 1, "data.min_count must be 1 or more")
    need(0 <= config.train.seed < 2**32, "train.seed must be in [0, 2**32)")
    need(config.data.workers >= 0, "data.workers must be 0 or more")
    bundled = config.encoder.weights == "bundled"
    need(
        not bundled or config.encoder.layout == "original",
        "encoder.weights bundled needs encoder.layout original: it was trained in it",
    )
    need(
        config.decoder.embed_size >= 1 and config.decoder.hidden_size >= 1,
        "decoder.embed_size and decoder.hidden_size must be 1 or more",
    )
    name, heads, layers = config.decoder.name, config.decoder.heads, config.decoder.layers
    need(heads >= 1 and layers >= 1, "decoder.heads and decoder.layers must be 1 or more")
    need(
        name == "lstm" or config.decoder.hidden_size % max(1, heads) == 0,
        "decoder.heads must divide decoder.hidden_size",
    )
    need(
        name != "transformer" or config.decoder.hidden_size % 2 == 0,
        "decoder.hidden_size must be even for the sines of its positions",
    )
    need(0 <= config.decoder.dropout < 1, "decoder.dropout must be in [0, 1)")
    need(config.generate.beam_size >= 1, "generate.beam_size must be 1 or more")
    need(config.generate.max_length >= 1, "generate.max_length must be 1 or more")
    need(0 <= config.generate.length_penalty <= 2, "generate.length_penalty must be in [0, 2]")
    need(config.generate.no_repeat_ngram >= 0, "generate.no_repeat_ngram must be 0 or more")
    need(config.train.batch_size >= 2, "train.batch_size must be 2 or more")
    need(config.train.grad_clip > 0, "train.grad_clip must be more than 0")
    need(0 <= config.train.ema < 1, "train.ema must be in [0, 1)")
    need(config.train.weight_decay >= 0, "train.weight_decay must be 0 or more")
    need(config.train.save_every > 0, "train.save_every must be more than 0")
    need(len(config.train.stages) > 0, "train.stages must have at least one stage")
    names = [stage.name for stage in config.train.stages]
    need(len(set(names)) == len(names), f"train.stages: names must differ, got {names}")
    for stage in config.train.stages:
        where = f"train.stages {stage.name!r}"
        need(
            not re.search(r"[\x00-\x1f]", stage.name),
            f"{where}: no tab, line break or other control character in a name, the log would tear",
        )
        need(stage.epochs >= 1, f"{where}: epochs must be 1 or more")
        need(stage.lr > 0, f"{where}: lr must be more than 0")
        need(stage.encoder_lr >= 0, f"{where}: encoder_lr must be 0 or more")
        need(0 <= stage.encoder_from <= 4, f"{where}: encoder_from must be 0 to 4")
        need(0 < stage.crop <= 1, f"{where}: crop must be in (0, 1]")
        need(0 <= stage.jitter < 1, f"{where}: jitter must be in [0, 1)")
        need(0 <= stage.warmup < 1, f"{where}: warmup must be in [0, 1)")
        need(0 <= stage.label_smoothing < 1, f"{where}: label_smoothing must be in [0, 1)")
        need(0 <= stage.word_dropout < 1, f"{where}: word_dropout must be in [0, 1)")
        need(stage.dropout is None or 0 <= stage.dropout < 1, f"{where}: dropout must be in [0, 1)")
        need(
            stage.samples == 0 or stage.word_dropout == 0,
            f"{where}: word_dropout hides words of people's captions; with samples there are none",
        )
        need(
            stage.samples == 0 or stage.samples >= 2,
            f"{where}: samples must be 0, or 2 or more: each is judged against the others",
        )
        need(stage.patience >= 1, f"{where}: patience must be 1 or more")
    if problems:
        raise UserError("; ".join(problems))
    return config


def build_parser(prog: str | None = None) -> jsonargparse.ArgumentParser:
    """The command line of a training run: one option for every field of ``Config``, plus --config."""
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        exit_on_error=False,
        allow_abbrev=False,
        description=f"Without --config, the values of a run come from {DEFAULT_CONFIG.name}. What a YAML file leaves out takes the default shown here.",
    )
    parser.add_argument("--config", action="config", help="YAML file with the values of the run")
    parser.add_class_arguments(Config, as_group=False)
    return parser


def read_config(parser: jsonargparse.ArgumentParser, argv: Sequence[str]) -> tuple[Config, jsonargparse.Namespace]:
    """Parse YAML, then the command line, which wins wherever it stands.

    Returns:
        the checked config, and the namespace with the script's own options.

    Raises:
        UserError: an unknown key (the nearest valid name is given), a wrong type, values that do not fit together.
    """
    words, files = _split_config(argv)
    if not files:
        files = [str(DEFAULT_CONFIG)]
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"--config {file}: no such file")
    try:
        namespace = parser.parse_args([*(f"--config={file}" for file in files), *words])
    except Exception as error:
        if type(error).__name__ != "ArgumentError" and not isinstance(error, TypeError | ValueError | KeyError):
            raise
        raise UserError(_explain(parser, str(error), files)) from error
    return _from_namespace(parser, namespace), namespace


def config_from_dict(values: dict[str, Any]) -> Config:
    """The config stored in a checkpoint, checked like one that was typed.

    Raises:
        UserError: a key or a value this version does not know.
    """
    parser = build_parser()
    try:
        return _from_namespace(parser, parser.parse_object(copy.deepcopy(values)))  # which it would change
    except Exception as error:
        raise UserError(f"the checkpoint's config does not fit this version: {error}") from error


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dicts, lists, strings and numbers: what a checkpoint stores."""
    return dataclasses.asdict(config)


def _from_namespace(parser: jsonargparse.ArgumentParser, namespace: jsonargparse.Namespace) -> Config:
    problems = list(_holes(namespace.as_dict(), Config(), ""))
    if problems:
        raise UserError("; ".join(problems))
    built = parser.instantiate(namespace)
    return check(Config(**{f.name: built[f.name] for f in dataclasses.fields(Config)}))


def _holes(values: Any, example: Any, name: str) -> Iterator[str]:
    """What jsonargparse lets through from YAML: null for an option, or a lone value where a section should be."""
    if dataclasses.is_dataclass(example):
        if isinstance(values, dict):
            for f in dataclasses.fields(example):
                yield from _holes(values.get(f.name), getattr(example, f.name), f"{name}.{f.name}".lstrip("."))
        else:
            yield f"{name} must be a section of options, got {values}"
    elif values is None and example is not None:
        yield f"{name} has no value"
    elif isinstance(example, list) and example:
        for value in values:
            yield from _holes(value, example[0], name)


def _split_config(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take ``--config FILE`` out of the command line, so that its place there does not matter."""
    words, files = list[str](), list[str]()
    rest = iter(argv)
    for word in rest:
        if word == "--config":
            files.append(next(rest, ""))
        elif word.startswith("--config="):
            files.append(word.removeprefix("--config="))
        else:
            words.append(word)
    return words, files


def _explain(parser: jsonargparse.ArgumentParser, message: str, files: Sequence[str]) -> str:
    """Add the nearest valid name to jsonargparse's complaint about an unknown one."""
    if message.startswith("Unexpected config"):
        return f"--config {', '.join(files)}: not a mapping of options to values, such as 'train: {{seed: 3}}'"
    unknown = re.search(
        r"(?:Group '(?P<group>[\w.]+)' does not accept o|O)ption '(?P<key>.+?)'|unrecognized arguments: -*(?P<word>[^\s=]+)",
        message,
    )
    if unknown is None:
        message = re.sub(r"<class '(\w+)'>", r"\1", message).replace("Parser key", "option").replace("typing.", "")
        return f"{message} (values from {', '.join(files)} and the command line)"
    name = ".".join(part for part in unknown.group("group", "key", "word") if part)
    stage_keys = [f.name for f in dataclasses.fields(StageConfig)]
    valid = [word.lstrip("-") for action in parser._actions for word in action.option_strings]
    valid = sorted(
        {*valid, *(f"train.stages.{key}" for key in stage_keys), *stage_keys, *(word.split(".")[-1] for word in valid)}
    )
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else "see --help for the valid names"
    return f"unknown option '{name}' on the command line or in {', '.join(files)}: {hint}"
