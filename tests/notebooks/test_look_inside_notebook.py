"""notebooks/look_inside.ipynb: it runs from top to bottom, and is committed without its outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.helpers import ROOT

NOTEBOOK = ROOT / "notebooks/look_inside.ipynb"
SECONDS = 900  # for one cell, on a machine that does other work too; the whole notebook takes about 2 minutes


def test_it_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert NOTEBOOK.stat().st_size < 30_000


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, so that the runs/ of the user stay as they are."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # on a busy machine two threads wait for each other
    for path in ROOT.iterdir():
        if path.name not in {"runs", ".cache", "notebooks", ".git"}:
            (tmp_path / path.name).symlink_to(path)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "a german shepherd is running in the grass" in shown
    assert "captions differ" in shown and "with <end>" in shown
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 7  # the photograph, three figures, two curves, a drawing
