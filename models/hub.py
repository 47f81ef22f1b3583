"""Checkpoints on the Hugging Face Hub: hf://OWNER/NAME[@REVISION][/FILE] becomes a file in the Hub's cache.

The cache is the one that all programs share (HF_HOME). What is in it is used when there is no network.
"""

import hashlib
import re
from pathlib import Path

from cli import UserError, describe

HUB_FILE = "captioner.safetensors"  # what a repository is expected to hold; tools.export_safetensors writes it
SUFFIXES = (".safetensors", ".pth")
SHA256_DIGITS = 64  # in the names of the cache's large files; small ones are named after another hash
FORM = "Write hf://OWNER/NAME, hf://OWNER/NAME@REVISION or hf://OWNER/NAME/FILE.safetensors"
_ADDRESS = re.compile(r"hf:/([\w.-]+/[\w.-]+)(?:@(refs/\w+/[\w.-]+|[\w.-]+))?(?:/(.+))?")


def is_on_hub(named: str | Path) -> bool:
    """Whether it is an address on the Hub. ``Path`` makes one slash of the two in hf://OWNER/NAME."""
    return Path(named).as_posix().startswith("hf:/")


def download(named: str | Path) -> Path:
    """The file at an address on the Hub, downloaded unless the cache has it.

    Raises:
        UserError: the address is wrong, there is no such file, the Hub cannot be reached, or the copy is damaged.
        OSError: the disk is full, or the cache cannot be written.
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    address = Path(named).as_posix()
    shown = address.replace("hf:/", "hf://", 1)
    parts = _ADDRESS.fullmatch(address)
    if not parts or ".." in address.split("/"):
        raise UserError(f"{shown}: not an address on the Hugging Face Hub. {FORM}")
    repository, revision, file = parts[1], parts[2], parts[3] or HUB_FILE
    if not file.endswith(SUFFIXES):
        raise UserError(f"{shown}: {file} is not a checkpoint, which ends in {' or '.join(SUFFIXES)}. {FORM}")
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # of the HTTP library too, which differs between the versions of huggingface_hub
        if isinstance(error, OSError) and error.errno and error.filename:
            raise  # the disk, not the Hub
        raise UserError(f"{shown}: {_reason(error, repository, revision or 'main', file)}") from error
    _check_hash(path, shown)
    return path


def _reason(error: Exception, repository: str, revision: str, file: str) -> str:
    """Why a download failed, and what to do."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "its owner grants access one by one. Ask for it on the page of the repository, then: hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no repository {repository} on the Hub, or a private one. Check the name; to log in: hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no revision {revision} in the repository. Name a branch, a tag or a commit after the @"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "not in the cache, and the Hub cannot be reached. Check the network (HF_HUB_OFFLINE, HF_ENDPOINT)"
    if isinstance(error, errors.EntryNotFoundError):
        return f"no {file} in the repository. Name another file: hf://{repository}/FILE.safetensors"
    cause = describe(error) if isinstance(error, OSError) else str(error)
    first = next(iter(cause.strip().splitlines()), "no reason is given")
    return f"cannot be downloaded ({type(error).__name__}: {first}). Try again later"


def _check_hash(path: Path, shown: str) -> None:
    """Compare a file of the cache with the SHA-256 by which the Hub knows it: huggingface_hub checks only its size.

    The hash is the name of the file that ``path`` links to. On Windows without links, the cache does not record it.
    """
    wanted = path.readlink().name if path.is_symlink() else ""
    if len(wanted) != SHA256_DIGITS:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise UserError(
            f"{shown}: the copy in the cache is damaged (SHA-256 {found[:8]}..., on the Hub {wanted[:8]}...). "
            f"Delete it to have it downloaded again: {path.resolve()}"
        )
