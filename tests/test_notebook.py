"""The Colab notebook runs from top to bottom, with small settings, on a CPU."""

import pathlib
import shutil

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Jupyter's own
def test_the_notebook_runs_and_shows_the_video(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for name in ("train.py", "evaluate.py", "maskrl", "notebooks", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    monkeypatch.setenv("MASKRL_STEPS", "200")
    monkeypatch.setenv("MASKRL_FLAGS", "--groups 2 --actors-per-group 2 --unroll-length 4")
    monkeypatch.setenv("MASKRL_GAMES", "2")
    notebook = nbformat.read(tmp_path / "notebooks" / "colab.ipynb", as_version=4)
    interrupted = nbformat.v4.new_code_cell('(RUN / "explain").mkdir()')  # a first attempt
    notebook.cells.insert(-1, interrupted)
    nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [data for cell in notebook.cells for data in cell.get("outputs", [])]
    assert any("video/mp4" in str(output.get("data", "")) for output in shown)
