"""The house: small files, floors without circles, documented functions, nothing that belongs to one machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.helpers import ROOT

MAX_LINES = 350
LAYERS = [  # the floors of the house, the ground floor first
    ("cli",),
    ("utils", "config"),
    ("data",),
    ("models",),
    ("evaluation",),
    ("training", "gallery"),
    ("demo",),
    ("train", "evaluate", "inference_visualize", "visualize_loss", "app", "tools"),
]


def repo_files() -> list[Path]:
    """What is, or is about to be, committed."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]


def python_files() -> dict[str, Path]:
    """Module name -> file; tests are no modules of the project."""
    paths = [path.relative_to(ROOT) for path in repo_files() if path.suffix == ".py"]
    return {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): ROOT / path
        for path in paths
        if path.parts[0] != "tests"
    }


def imports(path: Path, modules: set[str]) -> set[str]:
    """The project's modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & modules


def graph() -> dict[str, set[str]]:
    files = python_files()
    return {module: imports(path, set(files)) - {module} for module, path in files.items()}


def scripts() -> set[str]:
    """Modules that are run, not imported."""
    return {
        module
        for module, path in python_files().items()
        if "." not in module and 'if __name__ == "__main__"' in path.read_text("utf-8")
    }


def test_no_file_is_longer_than_a_reader_likes() -> None:
    suffixes = {".py", ".yaml", ".toml", ".j2", ".css", ".js", ".yml"}
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in repo_files()
        if path.suffix in suffixes
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def floor(module: str) -> int:
    """How high a module stands: it may import what is on its own floor or lower, but the folders of one floor do not know each other."""
    folder = module.split(".", maxsplit=1)[0]
    return next(number for number, names in enumerate(LAYERS) if folder in names)


def test_imports_run_down_the_floors_only() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, its_imports in graph().items()
        for imported in its_imports
        if floor(imported) > floor(module)
        or (floor(imported) == floor(module) and imported.split(".")[0] != module.split(".")[0])
    ]
    assert wrong == []


def test_no_import_circles() -> None:
    edges = graph()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        for imported in sorted(edges[module]):
            visit(imported, (*path, module))

    for module in edges:
        visit(module, ())


def test_every_script_can_be_imported_without_running() -> None:
    for module in scripts():
        body = ast.parse(python_files()[module].read_text("utf-8")).body
        calls = [node for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
        assert not calls, f"{module} line {calls[0].lineno} runs when imported"


def test_everything_public_has_a_doc_string() -> None:
    silent = []

    def look(owner: ast.AST, where: str) -> None:
        for node in ast.iter_child_nodes(owner):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith(
                "_"
            ):
                if ast.get_docstring(node) is None:
                    silent.append(f"{where}{node.name} (line {node.lineno})")
                if isinstance(node, ast.ClassDef):
                    look(node, f"{where}{node.name}.")

    for module, path in python_files().items():
        tree = ast.parse(path.read_text("utf-8"))
        if tree.body and ast.get_docstring(tree) is None:
            silent.append(module)
        look(tree, f"{module}.")
    assert silent == []


def test_nothing_belongs_to_one_machine() -> None:
    absolute = re.compile(r"(?<![\w.:/])/(home|Users|root|work|mnt|scratch)/\w|\b[A-Z]:\\\\?Users")
    found = []
    for path in repo_files():
        if path.suffix in {".py", ".yaml", ".yml", ".toml", ".md", ".txt", ".csv", ".j2", ".sh", ".cfg", ""}:
            text = path.read_text("utf-8", errors="replace")
            found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in absolute.finditer(text)]
    assert found == []


def test_yaml_files_are_yaml() -> None:
    for path in repo_files():
        if path.suffix in {".yaml", ".yml"}:
            assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict), path
