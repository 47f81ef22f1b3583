"""The options of a training run: types, defaults, help texts and checks. How they are read: training/options.py.

Each field is an ``option``: its default, its help text, and the interval that its value must lie in. Decoders and
encoders have options of their own, listed in DECODERS and ENCODERS. How to add one: CONTRIBUTING.md.
"""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from cli import UserError
from config_parser import build, option, section

TokenizerName = Literal["words", "characters"]  # what captions are split into
SPLITS = ("train", "val", "test")  # of a captions file
ALL = "all"  # in place of a split: all images; the only split of a captions file that is not divided
# The greatest values of what a stranger's checkpoint could ask for. They are far above what trains well:
MAX_IMAGE_SIZE = 1024  # pixels; usual are 224 to 448
MAX_WORKERS = 256  # processes
MAX_WIDTH = 4096  # of a decoder; published captioners have 512 to 2048
MAX_LAYERS = 48  # of a decoder; published captioners have 3 to 12
MAX_BEAM_SIZE = 100  # usual are 1 to 10
MAX_CAPTION = 500  # tokens; usual captions have 10 to 30, paragraphs 70 to 200
ORIGINAL_LAYOUT = ("imagenet", "bundled")  # weights in the layout of the original paper


@dataclass
class DataConfig:
    """Captions, images, and how they are read"""

    captions_file: str = option(
        "captions.csv",
        "CSV with the columns image, caption and if known split (train / val / test), or tars",
        short=True,
    )
    image_dir: str = option(
        "data/sample/images", "folder of the images that the captions file names, or of tars", short=True
    )
    image_size: int = option(
        224, "side in pixels of the square that every image is resized to", f"[1, {MAX_IMAGE_SIZE}]"
    )
    tokenizer: TokenizerName = option("words", "characters: for Chinese, Japanese, Thai and others without blanks")
    min_count: int = option(5, "words seen fewer times than this in the training captions become <unk>", "[1, inf)")
    workers: int = option(2, "processes that decode images", f"[0, {MAX_WORKERS}]")
    feature_cache: str = option(
        ".cache/features",
        "folder of cached encoder features, about 200 KB per image; python -m tools.feature_cache prunes it",
        short=True,
    )


@dataclass
class EncoderConfig:
    """The image encoder"""

    built_by: ClassVar[str]  # the class, an ``Encoder``, that takes these options
    stride: ClassVar[int] = 1  # data.image_size must be a multiple of this
    last_stage: ClassVar[int] = 0  # the greatest train.stages.encoder_from

    name: str = option("resnet50", "the network that encodes images")
    weights: str = option(
        "imagenet",
        "initial weights: imagenet (bundled, 8 bits), bundled (of the pretrained captioner), IMAGENET1K_V2 or "
        "IMAGENET1K_V1 (torchvision's, downloaded once), none (random), or a file with a state_dict",
    )

    def problems(self) -> Iterator[str]:
        """What is wrong with these options together."""
        return iter(())


@dataclass
class ResNet50Config(EncoderConfig):
    """ResNet-50 (He et al. 2015)."""

    built_by = "models.model.EncoderCNN"
    stride = 32
    last_stage = 4

    layout: Literal["auto", "torchvision", "original"] = option(
        "auto",
        "where a block halves the resolution: on its 3x3 convolution (torchvision), or on its first 1x1 (original: "
        "paper, Caffe, Keras); auto: as the weights were trained, torchvision for a file",
    )

    def __post_init__(self) -> None:
        if self.layout == "auto":
            self.layout = "original" if self.weights in ORIGINAL_LAYOUT else "torchvision"

    def problems(self) -> Iterator[str]:
        """The bundled weights have a layout."""
        if self.weights in ORIGINAL_LAYOUT and self.layout != "original":
            yield f"encoder.layout must be original (or auto) for encoder.weights {self.weights}"


@dataclass
class DecoderConfig:
    """The caption decoder"""

    built_by: ClassVar[str]  # the class, a ``WordDecoder``, that takes these options

    name: str = option("lstm", "the network that generates captions")
    hidden_size: int = option(512, "width H of the LSTM, of attention, and of the Transformer", f"[1, {MAX_WIDTH}]")
    dropout: float = option(0.5, "dropout probability on the decoder's inputs and outputs", "[0, 1)")

    def __post_init__(self) -> None:
        self.name = next((name for name, cls in DECODERS.items() if cls is type(self)), self.name)

    def problems(self) -> Iterator[str]:
        """What is wrong with these options together."""
        return iter(())


@dataclass
class LSTMConfig(DecoderConfig):
    """Show and Tell (Vinyals et al. 2015)."""

    built_by = "models.model.DecoderRNN"

    embed_size: int = option(256, "width E of word embeddings", f"[1, {MAX_WIDTH}]")


@dataclass
class HeadsConfig(DecoderConfig):
    """Decoders with multi-head attention."""

    heads: int = option(8, "attention heads, each hidden_size / heads wide", "[1, inf)")

    def problems(self) -> Iterator[str]:
        """The heads share the hidden width."""
        if self.hidden_size % self.heads:
            yield f"decoder.hidden_size ({self.hidden_size}) must be a multiple of decoder.heads ({self.heads})"


@dataclass
class AttentionConfig(HeadsConfig):
    """Show, Attend and Tell (Xu et al. 2015)."""

    built_by = "models.attention.AttentionDecoder"

    embed_size: int = option(512, "width E of word embeddings", f"[1, {MAX_WIDTH}]")


@dataclass
class TransformerConfig(HeadsConfig):
    """Attention Is All You Need (Vaswani et al. 2017)."""

    built_by = "models.transformer.TransformerDecoder"

    layers: int = option(3, "layers", f"[1, {MAX_LAYERS}]")

    def problems(self) -> Iterator[str]:
        """The position encodings come in pairs of sine and cosine."""
        yield from super().problems()
        if self.hidden_size % 2:
            yield f"decoder.hidden_size ({self.hidden_size}) must be even for the sinusoidal position encodings"


DECODERS: dict[str, type[DecoderConfig]] = {
    "lstm": LSTMConfig,
    "attention": AttentionConfig,
    "transformer": TransformerConfig,
}
ENCODERS: dict[str, type[EncoderConfig]] = {
    "resnet50": ResNet50Config,
}


@dataclass
class GenerateConfig:
    """How captions are generated"""

    beam_size: int = option(
        5, "hypotheses kept open at each step; 1 is greedy decoding", f"[1, {MAX_BEAM_SIZE}]", short=True
    )
    max_length: int = option(30, "longest caption, in tokens (words or characters)", f"[1, {MAX_CAPTION}]")
    length_penalty: float = option(
        0.7, "a in score = log-probability / length**a (Wu et al. 2016); 0 favours short captions", "[0, 2]"
    )
    no_repeat_ngram: int = option(
        0, "block n-grams of this length that the caption already contains; 0: none", "[0, inf)"
    )
    mirror: bool = option(False, "also attend to the mirror image: the encoder takes twice the time")


@dataclass
class StageConfig:
    """One stage of training with its own schedule; these options change the last one"""

    name: str = option("frozen", "the stage's name in the log and the curve")
    epochs: int = option(20, "passes over the training images, at most", "[1, inf)")
    lr: float = option(1e-3, "peak learning rate of the decoder (AdamW)", "(0, inf)")
    encoder_lr: float = option(
        0.0, "peak learning rate of the encoder; 0: frozen, its features are computed once and cached", "[0, inf)"
    )
    encoder_from: int = option(
        2, "first encoder stage that is trained when encoder_lr > 0 (ResNet-50: 1 to 4, 0: the stem too)", "[0, inf)"
    )
    crop: float = option(
        1.0, "augment: random crops keep at least this share of an image; 1: no crops. Disables the cache", "(0, 1]"
    )
    flip: bool = option(False, "augment: flip half of the images, but none with a caption that says left or right")
    jitter: float = option(0.0, "augment: change brightness, contrast and saturation by up to this share", "[0, 1)")
    schedule: Literal["cosine", "plateau"] = option(
        "cosine", "cosine: decay to 1 % of the peak; plateau: halve after 2 epochs without a better validation CIDEr"
    )
    warmup: float = option(0.03, "share of the stage's steps in which the learning rate rises from 0", "[0, 1)")
    label_smoothing: float = option(
        0.1, "share of the target probability spread over all words (Szegedy et al. 2016); cross-entropy only", "[0, 1)"
    )
    word_dropout: float = option(
        0.0, "probability of replacing an input word by <unk>, which forces the decoder to use the image", "[0, 1)"
    )
    dropout: float | None = option(None, "the decoder's dropout in this stage; null: decoder.dropout", "[0, 1)")
    samples: int = option(
        0,
        "0: cross-entropy; 2 or more: self-critical training on the CIDEr-D of so many sampled captions per image",
        "[0, inf)",
    )
    patience: int = option(5, "stop the stage after this many epochs without a better validation CIDEr", "[1, inf)")

    @property
    def augments(self) -> bool:
        """Whether training images are augmented."""
        return self.crop < 1 or self.flip or self.jitter > 0


@dataclass
class TrainConfig:
    """How the model is trained"""

    seed: int = option(
        0, "seed of weights, order of images, dropout, and of the split where the CSV has none", "[0, 4294967296)"
    )
    batch_size: int = option(
        32, "images per step, each with all its captions; several processes share each batch", "[2, inf)"
    )
    accumulate: int = option(
        1,
        "pieces that a batch is computed in, one after another, where it does not fit into memory at once",
        "[1, inf)",
    )
    weight_decay: float = option(1e-2, "AdamW's decoupled weight decay, on matrices only", "[0, inf)")
    grad_clip: float = option(5.0, "largest norm of the gradient", "(0, inf)")
    ema: float = option(
        0.999,
        "decay of the exponential moving average (EMA) of the weights, which is validated and saved; ramps up as "
        "(1 + t) / (10 + t); 0 disables it",
        "[0, 1)",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "auto: bf16 or fp16 autocast on CUDA, bf16 on a CPU with native bf16 instructions, else fp32"
    )
    save_every: float = option(
        120.0, "seconds between saves of checkpoints_last.pth within an epoch: what a power cut can cost", "(0, inf)"
    )
    stages: list[StageConfig] = field(
        default_factory=lambda: [StageConfig()],
        metadata={"help": "the stages as a list, such as '[{epochs: 5}]', which replaces that of the YAML file"},
    )


@dataclass
class Config:
    """A whole run"""

    data: DataConfig = section(DataConfig)
    encoder: EncoderConfig = section(ResNet50Config, ENCODERS)
    decoder: DecoderConfig = section(LSTMConfig, DECODERS)
    generate: GenerateConfig = section(GenerateConfig)
    train: TrainConfig = section(TrainConfig)
    init_from: str | None = option(
        None,
        "begin with the weights, words and architecture of this checkpoint (a file, the folder of a run, or "
        "hf://OWNER/NAME) in place of encoder.weights; without --config, configs/finetune.yaml gives the other values",
    )
    output_dir: str = option(".", "folder of the checkpoints, loss_log.txt and resolved_config.yaml")
    device: str = option("auto", "auto (CUDA, else MPS, else CPU), or cpu, cuda, cuda:1, mps")


def check(config: Config) -> list[str]:
    """What is wrong with options that depend on each other."""
    stride, last = config.encoder.stride, config.encoder.last_stage
    problems = [*config.encoder.problems(), *config.decoder.problems()]
    if config.data.image_size % stride:
        size = f"data.image_size ({config.data.image_size})"
        problems.append(f"{size} must be a multiple of {stride}, the stride of {config.encoder.name}")
    names = [stage.name for stage in config.train.stages]
    if not names or len(set(names)) < len(names):
        problems.append(f"train.stages must be at least one stage, and names must differ, got {names}")
    for stage in config.train.stages:
        where = f"train.stages {stage.name!r}:"
        if re.search(r"[\x00-\x1f]", stage.name):
            problems.append(f"{where} no tab, line break or other control character in a name, it would break the log")
        if stage.encoder_lr > 0 and stage.encoder_from > last:
            problems.append(f"{where} encoder_from must be 0 to {last} for {config.encoder.name}")
        if stage.samples == 1:
            problems.append(f"{where} samples must be 0, or 2 or more: each is compared with the others")
        if stage.samples and stage.word_dropout:
            problems.append(f"{where} word_dropout is for reference captions; with samples there are none")
    return problems


def config_from_dict(values: dict[str, Any]) -> Config:
    """The config stored in a checkpoint, checked like one that was typed.

    Older versions stored the options of all decoders; those that the chosen one does not have are left out.

    Raises:
        UserError: an option or a value that this version does not know.
    """
    decoder = values.get("decoder") if isinstance(values, dict) else None
    if isinstance(decoder, dict) and (chosen := DECODERS.get(str(decoder.get("name", "lstm")))):
        own, every = (
            {f.name for cls in each for f in dataclasses.fields(cls)} for each in ([chosen], DECODERS.values())
        )
        values = {**values, "decoder": {key: value for key, value in decoder.items() if key in own or key not in every}}
    config: Config
    config, problems = build(Config, values)
    if problems := [*problems, *check(config)]:
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"the checkpoint's config does not fit this version: {problems[0]}{others}")
    return config


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dicts, lists, strings and numbers: what a checkpoint stores."""
    return dataclasses.asdict(config)
