"""Put together a folder that is ready to be pushed as a Hugging Face Space.

python -m demo.space.assemble FOLDER                  with the pretrained captioner
python -m demo.space.assemble FOLDER --checkpoint F   with one of your own
hf upload NAME/SPACE FOLDER . --repo-type space   then push it
"""

import shutil
from pathlib import Path
from typing import Any

from cli import OptionParser, UserError, atomic_open, run_script
from models.pretrained import PRETRAINED
from utils import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
NEEDED = [
    *("app.py", "cli.py", "config.py", "config.yaml", "utils.py", "demo/*.py", "gallery/*", "evaluation/*.py"),
    *("data/*.py", "models/*.py", "captions.csv", "data/sample/images/*.jpg", ".streamlit/config.toml", "LICENSE"),
    *("requirements.txt", "requirements-demo.txt", "constraints.txt"),
]
LARGE_FILES = "*.pth filter=lfs diff=lfs merge=lfs -text\n"  # Spaces take nothing over 10 MB into plain git


def assemble(folder: Path, checkpoint: Path = PRETRAINED) -> list[Path]:
    """Copy what the demo needs into ``folder``, which is made; return the files written.

    Raises:
        UserError: there is something in the folder already, or no checkpoint that can be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already. Name an empty folder, or one that is to be made")
    if not checkpoint.is_file():
        raise UserError(
            f"{checkpoint}: no such checkpoint. Name one with --checkpoint, such as the checkpoints.pth of `python train.py`"
        )
    sources = {path.relative_to(ROOT): path for pattern in NEEDED for path in sorted(ROOT.glob(pattern))}
    sources |= {Path(name): ROOT / "demo" / "space" / name for name in ("Dockerfile", "README.md")}
    if checkpoint == PRETRAINED:
        sources |= {path.relative_to(ROOT): path for path in (PRETRAINED, ROOT / "MODEL_CARD.md")}
        own = None
    else:
        own = without_paths(load_checkpoint(checkpoint))
    for name, source in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    if own:
        save_checkpoint(folder / "checkpoints.pth", own)
    with atomic_open(folder / ".gitattributes") as file:
        file.write(LARGE_FILES)
    return [path for path in folder.rglob("*") if path.is_file()]


def without_paths(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint with no path in its config that begins at the root: the world need not know where somebody's data lie."""

    def last_part(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: last_part(inner) for key, inner in value.items()}
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    return {**checkpoint, "config": last_part(checkpoint["config"])}


def main(argv: list[str]) -> None:
    """Assemble, and say how to go on."""
    parser = OptionParser(
        prog="python -m demo.space.assemble", description="Put together a folder that is ready to be pushed as a Space."
    )
    parser.add_argument("folder", type=Path, help="is made; an empty one will do")
    parser.add_argument(
        "--checkpoint", type=Path, default=PRETRAINED, help="the model (default: the pretrained captioner)"
    )
    arguments = parser.parse_args(argv)
    files = assemble(arguments.folder, arguments.checkpoint)
    size = sum(path.stat().st_size for path in files) / 1e6
    print(
        f"wrote {len(files)} files, {size:.0f} MB: push them with `hf upload NAME/SPACE {arguments.folder} . --repo-type space`"
    )


if __name__ == "__main__":
    run_script(main)
