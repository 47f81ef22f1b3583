"""How the options of a run (config.py) are read: YAML gives the values, the command line wins."""

import dataclasses
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from cli import ROOT, OptionParser, UserError, say
from config import Config, check, config_to_dict
from config_parser import add_options, build, leaves, merge, nested, read_yaml

DEFAULT_CONFIG = ROOT / "config.yaml"
FINETUNE_CONFIG = ROOT / "configs" / "finetune.yaml"  # the default with --init_from


def build_parser(prog: str = "train.py", description: str | None = None) -> OptionParser:
    """The command line of a training run: an option for every field of ``Config``, --config and --print_config."""
    usage = f"{prog} [--config FILE] [--SECTION.OPTION VALUE ...]"
    parser = OptionParser(prog, description, "--config", usage=usage)
    parser.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help="YAML file with options; of several, the later ones win. What it leaves out takes the default below, and "
        f"the command line wins (default: {DEFAULT_CONFIG.name})",
    )
    parser.add_argument("--print_config", action="store_true", help="print the options of the run as YAML, then exit")
    add_options(parser, Config)
    return parser


def read_config(parser: OptionParser, argv: Sequence[str]) -> tuple[Config, Namespace]:
    """Read YAML, then the command line, which wins wherever it stands.

    What both leave out in a run that begins from a checkpoint (``init_from``) is taken from that checkpoint, as far as
    it belongs to the model; see ``training.initial.inherit``.

    Returns:
        the checked config, and the namespace with the script's own options.

    Raises:
        UserError: an unknown option (the nearest valid name is given), a wrong type, values that do not fit together.
    """
    parsed = parser.parse_args(argv)
    files = parsed.config or [str(FINETUNE_CONFIG if getattr(parsed, "init_from", None) else DEFAULT_CONFIG)]
    values: dict[str, Any] = {"train": {"stages": [{}]}}
    for file in files:
        values = merge(values, read_yaml(file))
    names = {leaf.name for leaf in leaves(Config)} | {f.name for f in dataclasses.fields(Config)}
    options = {name: value for name, value in vars(parsed).items() if name in names}
    if isinstance(options.get("train"), dict):
        options["train"].setdefault("stages", [{}])
    values = nested(options, values)
    if values.get("init_from"):
        from training.initial import inherit  # torch takes seconds to import

        values = inherit(values, nested(options, {}), getattr(parsed, "resume", None))
    config, problems = build(Config, values)
    if problems := [*problems, *check(config)]:
        raise UserError(f"{'; '.join(problems)} (options are read from {', '.join(files)} and the command line)")
    if parsed.print_config:
        import yaml

        say(*yaml.safe_dump(config_to_dict(config), sort_keys=False).rstrip().split("\n"))
        sys.exit(0)
    return config, parsed
