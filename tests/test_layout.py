"""The layout of the repository: size limits, import layers, tests in the same tree, documented functions."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.helpers import ROOT

MAX_LINES, MAX_FUNCTION_LINES, MAX_COLUMNS = 350, 60, 120
SOURCE = {".py", ".yaml", ".yml", ".toml", ".j2", ".css", ".js"}
ROOT_FILES = {
    *("cli.py", "files.py", "config_parser.py", "config.py", "utils.py", "distributed.py"),
    *("train.py", "evaluate.py", "inference_visualize.py", "caption_many.py", "SECURITY.md"),
    *(
        "visualize_loss.py",
        "app.py",
        "README.md",
        "README.zh-CN.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "MODEL_CARD.md",
        "CITATION.cff",
    ),
    *("LICENSE", "Makefile", "captions.csv", "config.yaml", "pyproject.toml", "constraints.txt", "requirements.txt"),
    *(
        "requirements-demo.txt",
        "requirements-dev.txt",
        "requirements-export.txt",
        "requirements-heic.txt",
        "requirements-hub.txt",
        "requirements-loggers.txt",
        "requirements-onnx.txt",
        "requirements-parquet.txt",
        "requirements-ray.txt",
        "requirements-serve.txt",
        "onnx_caption.py",
        "serve.py",
        "Dockerfile",
        ".dockerignore",
        "structured.py",
        ".gitignore",
        ".pre-commit-config.yaml",
    ),
}
LAYERS = [  # a module imports only modules of its own folder and of the layers before its own
    ("cli",),
    ("files",),
    ("structured",),
    ("config_parser",),
    ("utils", "config", "distributed"),
    ("data",),
    ("models",),
    ("evaluation",),
    ("training", "gallery"),
    ("demo", "bulk"),
    ("deploy",),
    (
        *("train", "evaluate", "inference_visualize", "caption_many", "visualize_loss", "app", "tools"),
        *("onnx_caption", "serve"),
    ),
]


def repo_files(*suffixes: str) -> list[Path]:
    """The files that git knows, not a user's photos; only those with these suffixes if any are given."""
    listing = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=False, cwd=ROOT)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.splitlines()]
    return [path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes)]


def name_of(path: Path) -> str:
    """The path in the repository."""
    return path.relative_to(ROOT).as_posix()


def is_test(path: Path) -> bool:
    return path.relative_to(ROOT).parts[0] == "tests"


def python_files() -> dict[str, Path]:
    """Module name -> file, without the tests."""
    modules = {name_of(path): path for path in repo_files(".py") if not is_test(path)}
    return {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): modules[name] for name in modules}


def imported_by(path: Path) -> set[str]:
    """The names of all modules (and of what is imported from them) that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def graph() -> dict[str, set[str]]:
    """Module -> the modules of the project that it imports."""
    files = python_files()
    return {module: (imported_by(path) & files.keys()) - {module} for module, path in files.items()}


# --- size


def test_no_file_is_too_long() -> None:
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in repo_files(*SOURCE)}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_function_is_too_long() -> None:
    long = []
    for path in repo_files(".py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{name_of(path)}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_no_line_is_too_long() -> None:
    """In documents, tables and quoted licences may be wider."""
    long = [
        f"{name_of(path)}:{number}"
        for path in repo_files(*SOURCE, ".md")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if len(line) > MAX_COLUMNS and not (path.suffix == ".md" and line.startswith(("|", ">")))
    ]
    assert long == []


# --- structure


def test_the_root_folder_holds_scripts_and_documents_only() -> None:
    assert {path.name for path in repo_files() if path.parent == ROOT} - ROOT_FILES == set()


def layer(module: str) -> int:
    """The number of a module's layer in LAYERS."""
    folder = module.split(".", maxsplit=1)[0]
    return next(number for number, names in enumerate(LAYERS) if folder in names)


def test_modules_import_only_their_own_folder_and_earlier_layers() -> None:
    wrong = [
        f"{module} imports {imported}"
        for module, its_imports in graph().items()
        for imported in its_imports
        if layer(imported) > layer(module)
        or (layer(imported) == layer(module) and imported.split(".")[0] != module.split(".")[0])
    ]
    assert wrong == []


def test_no_import_cycles() -> None:
    edges = graph()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        for imported in sorted(edges[module]):
            visit(imported, (*path, module))

    for module in edges:
        visit(module, ())


def test_images_are_opened_in_one_place() -> None:
    """Image files may come from strangers: only data/images.py applies the limits for them."""
    callers = set()
    for path in python_files().values():
        tree = ast.parse(path.read_text("utf-8"))
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        if any(call.endswith("Image.open") for call in calls) or "PIL.Image.open" in imported_by(path):
            callers.add(name_of(path))
    assert callers == {"data/images.py"}


def test_tests_mirror_the_source_folders_and_share_code_through_support_only() -> None:
    tests = [path for path in repo_files(".py") if is_test(path)]
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in tests if path.parent != ROOT / "tests"}
    assert {name for name in folders - {"campaign", "scripts", "support"} if not (ROOT / name).is_dir()} == set()
    wrong = [
        f"{name_of(path)} imports {module}"
        for path in tests
        for module in imported_by(path)
        if any(part.startswith("test_") for part in module.split(".")[:-1]) or module.startswith("test_")
    ]
    assert wrong == []


def test_importing_a_script_does_not_run_it() -> None:
    scripts = {module: path for module, path in python_files().items() if "__main__" in path.read_text("utf-8")}
    for module, path in scripts.items():
        body = ast.parse(path.read_text("utf-8")).body
        calls = [node for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
        assert not calls, f"{module} line {calls[0].lineno} runs when imported"


# --- what each file holds


def test_everything_public_has_a_doc_string() -> None:
    undocumented = []

    def check(owner: ast.AST, where: str) -> None:
        for node in ast.iter_child_nodes(owner):
            definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            overload = definition and any(ast.unparse(each) == "overload" for each in node.decorator_list)
            if definition and not overload and not node.name.startswith("_"):
                if ast.get_docstring(node) is None:
                    undocumented.append(f"{where}{node.name} (line {node.lineno})")
                if isinstance(node, ast.ClassDef):
                    check(node, f"{where}{node.name}.")

    for module, path in python_files().items():
        tree = ast.parse(path.read_text("utf-8"))
        if tree.body and ast.get_docstring(tree) is None:
            undocumented.append(module)
        check(tree, f"{module}.")
    assert undocumented == []


def test_one_function_prints() -> None:
    """Names from files, and encodings that lack their letters, can break only what does not go through ``cli.say``."""
    prints = re.compile(r"print\((?!.*file=process\.stdin)|(tqdm|sys\.stdout|sys\.stderr)\.write\(")
    found = []
    for module, path in python_files().items():
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        found += [f"{module} line {call.lineno}" for call in calls if prints.match(ast.unparse(call))]
    (in_cli,) = found  # which refuses an old Python
    assert in_cli.startswith("cli line")


def test_no_check_is_switched_off() -> None:
    """No ``type: ignore`` in source, and no import in a test that ruff would call unused or redefined."""
    found = []
    for path in repo_files(".py"):
        pattern = r"#\s*noqa: (F401|F811)" if is_test(path) else r"#\s*type: ignore"
        lines = path.read_text("utf-8").splitlines()
        found += [f"{name_of(path)}:{number}" for number, line in enumerate(lines, start=1) if re.search(pattern, line)]
    assert found == []


def test_no_absolute_paths() -> None:
    absolute = re.compile(r"(?<![\w.:/])/(home|Users|root|work|mnt|scratch)/\w|\b[A-Z]:\\\\?Users")
    found = []
    for path in repo_files(*SOURCE, ".md", ".txt", ".csv", ".sh", ".cfg", ".cff", ""):
        text = path.read_text("utf-8", errors="replace")
        found += [f"{name_of(path)}: {match.group()}" for match in absolute.finditer(text)]
    assert found == []


def test_no_placeholder_is_left_in_a_document() -> None:
    """``{{...}}`` stands for a number that has not been measured yet."""
    left = [
        f"{name_of(path)}:{number}"
        for path in repo_files(".md")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if "{{" in line
    ]
    assert left == []


def test_yaml_files_are_valid() -> None:
    for path in repo_files(".yaml", ".yml"):
        assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict), path
