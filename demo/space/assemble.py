"""Build a folder that can be uploaded as a Hugging Face Space.

python -m demo.space.assemble FOLDER                       # with the pretrained model
python -m demo.space.assemble FOLDER --checkpoint runs/a   # with your own model
hf upload NAME/SPACE FOLDER . --repo-type space            # upload it
"""

import shutil
import sys
from pathlib import Path

if not __package__:  # started as `python demo/space/assemble.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from cli import ROOT, OptionParser, UserError, run_script, say
from demo import DRAWINGS_DIR, EXAMPLES_DIR
from files import atomic_open, without_folders
from models.pretrained import PRETRAINED, checkpoint_path

NEEDED = [  # patterns below ROOT; of a folder that the demo imports, all modules
    *("app.py", "cli.py", "config.py", "config_parser.py", "files.py", "structured.py", "utils.py"),
    *("data/*.py", "models/*.py", "evaluation/*.py", "gallery/*"),
    *("demo/*.py", "demo/*.js", "demo/*.css", f"{EXAMPLES_DIR}/*"),
    *("config.yaml", "captions.csv", f"{DRAWINGS_DIR}/*.jpg", ".streamlit/config.toml"),
    *("requirements.txt", "requirements-demo.txt", "constraints.txt", "LICENSE"),
]
LARGE_FILES = "*.pth filter=lfs diff=lfs merge=lfs -text\n"  # Spaces require Git LFS for files over 10 MB


def assemble(folder: Path, checkpoint: Path = PRETRAINED) -> list[Path]:
    """Copy everything the demo needs into ``folder``, which is created; return the files written.

    Raises:
        UserError: the folder is not empty, or the checkpoint cannot be read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: already exists. Name a new or an empty folder")
    if not checkpoint.is_file():
        raise UserError(
            f"{checkpoint}: no such checkpoint. Name one with --checkpoint, such as the checkpoints.pth of train.py"
        )
    from models.checkpoint import load_checkpoint, save_checkpoint  # torch takes seconds to import

    paths = [path for pattern in NEEDED for path in ROOT.glob(pattern) if path.is_file()]
    own = None
    if checkpoint == PRETRAINED:
        paths += [PRETRAINED, ROOT / "MODEL_CARD.md"]
    else:
        own = load_checkpoint(checkpoint, keep_quantized=True)
        own["config"] = without_folders(own["config"])  # a Space is public
    sources = {path.relative_to(ROOT): path for path in paths}
    sources |= {Path(name): ROOT / "demo" / "space" / name for name in ("Dockerfile", "README.md")}
    for name, source in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    if own:
        save_checkpoint(folder / "checkpoints.pth", own)
    with atomic_open(folder / ".gitattributes") as file:
        file.write(LARGE_FILES)
    return [path for path in folder.rglob("*") if path.is_file()]


def main(argv: list[str]) -> None:
    """Build the folder, and print the command that uploads it."""
    parser = OptionParser("python -m demo.space.assemble", __doc__)
    parser.add_argument("folder", type=Path, help="folder to create; it may exist if it is empty")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=PRETRAINED,
        metavar="FILE",
        help="the model: a file, the folder of its run, or hf://OWNER/NAME on the Hub (default: the pretrained model)",
    )
    arguments = parser.parse_args(argv)
    files = assemble(arguments.folder, checkpoint_path(arguments.checkpoint))
    size = sum(path.stat().st_size for path in files) / 1e6
    upload = f"hf upload NAME/SPACE {arguments.folder} . --repo-type space"
    say(f"wrote {len(files)} files, {size:.0f} MB: upload them with `{upload}`")


if __name__ == "__main__":
    run_script(main)
