"""Print what a bug report needs: versions, device, and the options and last log lines of a run.

python -m tools.environment
python -m tools.environment --run runs/flickr8k_best

It works where packages are missing or broken, and shows no folders but those of the repository.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

if not __package__:  # started as `python tools/environment.py` instead of `python -m ...`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cli import ROOT, OptionParser, UserError, run_script, say
from files import without_folders

VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_ENABLE_MPS_FALLBACK", "HF_HUB_OFFLINE")
FILES = ("resolved_config.yaml", "loss_log.txt")  # of a run
LOG_LINES = 5  # epochs
MAX_READ = 2**16  # bytes of a log's end, which are 500 epochs
TORCH_TIMEOUT = 180  # seconds; importing torch takes 3, and a minute from a slow network drive
MAX_REASON = 300  # characters of why torch does not work
# In a process of its own, which a broken torch may end
ASK_TORCH = """
import torch
import utils
device = utils.pick_device()
precision = str(utils.pick_precision("auto", device)).removeprefix("torch.")
print(f"device: {device}, {precision}, {torch.get_num_threads()} threads")
print(f"CUDA: {torch.version.cuda or torch.version.hip or 'not built in'}, cuDNN {torch.backends.cudnn.version()}")
for number in range(torch.cuda.device_count()):
    gpu = torch.cuda.get_device_properties(number)
    print(f"GPU {number}: {gpu.name}, {gpu.total_memory / 2**30:.0f} GB, capability {gpu.major}.{gpu.minor}")
"""


def system() -> Iterator[str]:
    """Lines about the code, Python and the machine."""
    (version,) = re.findall(r'^version: "(.*)"', (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    commit, changed = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    edited = f", {len(changed.splitlines())} files changed" if changed else ""
    yield f"code: {version}, {f'commit {commit}{edited}' if commit else 'no git checkout'}"
    yield f"Python: {platform.python_version()} ({platform.python_implementation()}), encoding {sys.stdout.encoding}"
    yield f"system: {platform.platform()}"
    yield f"CPU: {_cpu()}, {os.cpu_count()} cores{_memory()}"
    yield from (f"{name}: {os.environ[name]}" for name in VARIABLES if name in os.environ)


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):  # git is not installed, or waits for a network drive
        return ""
    return done.stdout.strip()


def _cpu() -> str:
    try:
        names = re.findall(r"^model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB of RAM"
    except (AttributeError, ValueError, OSError):  # Windows
        return ""


def packages() -> Iterator[str]:
    """The versions of the packages in requirements*.txt: of all that are installed or needed."""
    needed = _named_in(ROOT / "requirements.txt")
    others = {name for path in sorted(ROOT.glob("requirements-*.txt")) for name in _named_in(path)}
    for name in [*needed, *sorted(others - {*needed})]:
        try:
            yield f"{name}: {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            if name in needed:
                yield f"{name}: not installed"


def _named_in(path: Path) -> list[str]:
    return re.findall(r"^([A-Za-z][\w-]*)", path.read_text("utf-8"), re.MULTILINE)


def torch_devices() -> Iterator[str]:
    """Lines about the device, from torch; why it does not work if it is broken."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", ASK_TORCH],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=TORCH_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        yield f"torch: does not start within {TORCH_TIMEOUT} seconds"
        return
    yield from done.stdout.splitlines()
    if done.returncode:
        reason = (done.stderr.strip() or f"its process ended with status {done.returncode}").splitlines()[-1]
        yield f"torch: does not work ({_without_folders_in_text(reason)[:MAX_REASON]})"


def _without_folders_in_text(text: str) -> str:
    """A message with only the last parts of its absolute paths."""
    text = text.replace(str(Path.home()), "~")
    return re.sub(
        r"(?:~|\b[A-Za-z]:)?(?:[/\\][^/\\\s'\":,;()]+){2,}", lambda path: re.split(r"[/\\]", path[0])[-1], text
    )


def run_of(folder: Path) -> Iterator[str]:
    """The options and the last log lines of the run in ``folder``, as far as it has them."""
    options, log = (folder / name for name in FILES)
    if options.is_file():
        yield f"{options.name}:"
        yield from (f"  {line}" for line in _options(options))
    if log.is_file():
        with log.open("rb") as file:
            header = file.readline(MAX_READ)
            file.seek(max(file.tell(), log.stat().st_size - MAX_READ))
            rows = file.read().splitlines()[-LOG_LINES:]
        yield f"{log.name}:"
        for line in (header, *rows):
            yield "  " + line.decode("utf-8", "replace").rstrip().replace("\t", "  ")


def _options(path: Path) -> list[str]:
    try:
        import yaml

        import structured

        text: str = yaml.safe_dump(without_folders(structured.read_yaml(path)), sort_keys=False)
    except (UserError, OSError, ModuleNotFoundError) as error:
        return [f"cannot be shown: {_without_folders_in_text(str(error))}"]
    return text.rstrip().split("\n")


def main(argv: list[str]) -> None:
    """Print the lines."""
    parser = OptionParser("python -m tools.environment", __doc__, "--run")
    parser.add_argument("--run", type=Path, metavar="DIR", help="the output folder of a run (default: the current one)")
    folder = parser.parse_args(argv).run
    if folder and not any((folder / name).is_file() for name in FILES):
        raise UserError(f"--run {folder}: holds no {' and no '.join(FILES)}. Name the output_dir of a run")
    for lines in (system(), packages(), torch_devices(), run_of(folder or Path())):
        for line in lines:
            say(line)


if __name__ == "__main__":
    run_script(main)
