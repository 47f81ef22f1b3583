"""The numbers as text: the blocks of docs/how_it_works.md."""

import math
from collections.abc import Sequence

from models.captioner import Captioner
from models.decoding import Hypothesis
from tools.look_inside.measure import Grid, Pixels, Step
from tools.look_inside.search import Node, levels
from tools.look_inside.training import Losses, Sampled
from training.loss_log import LossLog

STAGES = ("stem", "conv2_x", "conv3_x", "conv4_x", "conv5_x")  # of a ResNet, as the paper names them


def pixels_block(captioner: Captioner, pixels: Pixels) -> str:
    """From the photograph to a tensor."""
    transform, middle = captioner.transform, pixels.tensor.shape[1] // 2
    normalised = pixels.tensor[:, middle, middle].tolist()
    rows = [
        f"photograph              {pixels.size[0]} x {pixels.size[1]} pixels, 8 bits each of red, green and blue",
        f"tensor                  {shape(pixels.tensor.shape)}, from {float(pixels.tensor.min()):.2f} to "
        f"{float(pixels.tensor.max()):.2f}",
        "pixel in the middle",
        *(
            f"  {name:6}                ({value} / 255 - {mean}) / {std} = {number:.3f}"
            for name, value, mean, std, number in zip(
                ("red", "green", "blue"), pixels.centre, transform.mean, transform.std, normalised, strict=True
            )
        ),
    ]
    return "\n".join(rows)


def grid_block(grid: Grid, cells: Sequence[tuple[int, int]]) -> str:
    """From the tensor to grid features."""
    rows, columns, depth = grid.cells.shape
    flat = grid.cells.flatten()
    lines = [f"{name:23} {shape(its)}" for name, its in zip(STAGES, grid.stages, strict=True)]
    lines.append(
        f"features                {shape(grid.cells.flatten(0, 1).shape)}: {rows} x {columns} cells, {depth} each"
    )
    lines.append(f"with the mirror image   {shape(grid.features.shape)}")
    lines.append(f"zeros                   {(flat == 0).float().mean():.0%} of the {flat.numel():,} numbers")
    lines.append(f"mean, largest           {flat.mean():.2f}, {flat.max():.2f}")
    for row, column in cells:
        likeness = grid.similarity(row, column)
        others = likeness.flatten().sort(descending=True).values[1:]
        lines.append(
            f"cosine, row {row + 1} column {column + 1}  {others[0]:.2f} with the cell most like it, "
            f"{others[-1]:.2f} with the least"
        )
    return "\n".join(lines)


def words_block(steps: Sequence[Step]) -> str:
    """Word by word: probability, alternatives, what is attended to."""
    lines = ["word          p   -ln p   likeliest words                                   gate   most attended cell"]
    for step in steps:
        likeliest = ", ".join(f"{word} {p:.2f}" for word, p in step.likeliest)
        row, column = divmod(int(step.attention.argmax()), step.attention.shape[1])
        lines.append(
            f"{step.word:10} {step.probability:.3f}  {-math.log(step.probability):5.2f}   {likeliest:49} "
            f"{step.gate:.2f}   row {row + 1}, column {column + 1}: {float(step.attention.max()):.3f}"
        )
    total = sum(math.log(step.probability) for step in steps)
    lines.append(f"log-probability of the caption: {total:.2f}")
    return "\n".join(lines)


def shapes_block(shapes: Sequence[tuple[str, tuple[int, ...]]]) -> str:
    """The tensors of a caption."""
    return "\n".join(f"{name:23} {shape(sizes)}" for name, sizes in shapes)


def heads_block(step: Step) -> str:
    """What each head attends to for one word."""
    lines = [f'"{step.word}", each head\'s strongest cell']
    for number, head in enumerate(step.heads, start=1):
        row, column = divmod(int(head.argmax()), head.shape[1])
        lines.append(f"head {number}   row {row + 1}, column {column + 1}: {float(head.max()):.2f}")
    return "\n".join(lines)


def beams_block(captioner: Captioner, root: Node, found: Sequence[Hypothesis], greedy: Hypothesis) -> str:
    """The candidates, and what greedy decoding generates."""
    penalty, decode = captioner.config.generate.length_penalty, captioner.vocabulary.decode
    lines = ["score   log-prob   tokens   caption"]
    for each in found:
        tokens = len(each.tokens) + 1
        lines.append(f"{each.score:5.2f}   {each.log_prob:8.2f}   {tokens:6}   {decode(each.tokens)}")
    lines.append(f"score = log-prob / tokens^{penalty}; the end counts as a token")
    lines.append(f"greedy: {greedy.score:.2f}, {greedy.log_prob:.2f}: {decode(greedy.tokens)}")
    kept = [len(level) for level in levels(root)]
    lines.append(f"in {len(kept)} steps the decoder read {sum(kept)} tokens")
    return "\n".join(lines)


def loss_block(losses: Losses, steps: Sequence[Step]) -> str:
    """The cross-entropy of the references."""
    n, t = losses.tokens.tokens.shape
    lines = [
        f"tokens                  {shape(losses.tokens.tokens.shape)}: {n} captions, padded to {t}; "
        f"{losses.tokens.count} real tokens",
        f"logits                  {shape(losses.logits)}",
        f"cross-entropy           {losses.cross_entropy:.3f} per token, "
        f"perplexity {math.exp(losses.cross_entropy):.1f}",
        f"with label smoothing    {losses.smoothed:.3f}",
        f"of a uniform guess      {losses.uniform:.3f}",
        "",
        "the first reference:",
        "  ".join(f"{step.word} {-math.log(step.probability):.2f}" for step in steps),
    ]
    return "\n".join(lines)


def samples_block(samples: Sequence[Sampled]) -> str:
    """Sampled captions, their rewards, and the step."""
    lines = ["reward   advantage   ln p before   after   sample"]
    for each in samples:
        lines.append(
            f"{100 * each.reward:6.1f}   {100 * each.advantage:+9.1f}   {each.before:11.2f}   {each.after:5.2f}   "
            f"{each.caption}"
        )
    return "\n".join(lines)


def log_block(log: LossLog) -> str:
    """A recorded run: the best epoch of each stage by CIDEr."""
    names, cider, bleu = log.text("stage"), log.numbers("val_cider"), log.numbers("val_bleu4")
    losses, reward = log.numbers("val_loss"), log.numbers("reward")
    lines = ["stage           epoch   val loss   BLEU-4   CIDEr   reward"]
    for stage in dict.fromkeys(names):
        best = max((row for row, name in enumerate(names) if name == stage), key=lambda row: cider[row])
        rewarded = "" if math.isnan(reward[best]) else f"{100 * reward[best]:.1f}"
        lines.append(
            f"{stage:15} {log.epochs[best]:5}   {losses[best]:8.2f}   {100 * bleu[best]:6.1f}   "
            f"{100 * cider[best]:5.1f}   {rewarded:>6}".rstrip()
        )
    return "\n".join(lines)


def shape(sizes: Sequence[int]) -> str:
    """A tensor's shape, such as (1, 49, 2048)."""
    return f"({', '.join(map(str, sizes))})"
