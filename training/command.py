"""Command lines to copy: what the user typed, with other options."""

import os
import shlex
from collections.abc import Collection, Mapping, Sequence


def with_options(argv: Sequence[str], options: Mapping[str, object], without: Collection[str] = ()) -> str:
    """The command line ``python train.py`` with the words ``argv``, but these values of ``options``.

    Of torchrun's own options the script knows nothing: "..." stands for them.

    Args:
        options: option name without dashes -> value.
        without: names of options to leave out.
    """
    words, keep = list[str](), True
    for word in argv:
        if word.startswith("--"):
            name = word.removeprefix("--").split("=", maxsplit=1)[0]
            keep = name not in options and name not in without
        if keep:
            words.append(word)
    added = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    start = "torchrun ..." if "TORCHELASTIC_RUN_ID" in os.environ else "python"
    return f"{start} {shlex.join(['train.py', *words, *added])}"
