"""The notebook of the lecture, executed by `pytest -m slow`: in short, and as it stands."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

LECTURE = Path(__file__).parent.parent / "examples" / "lecture.ipynb"


def execute(notebook, folder):
    NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()


@pytest.fixture
def lecture():
    return nbformat.read(LECTURE, 4)


def test_each_cell_was_executed_in_order_when_it_was_committed(lecture):
    cells = [cell for cell in lecture.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 8
    assert LECTURE.stat().st_size < 1_000_000


@pytest.mark.slow
def test_it_runs_on_other_data_and_for_one_epoch(lecture, here):
    (parameters,) = [cell for cell in lecture.cells if "parameters" in cell.metadata.get("tags", ())]
    assert parameters.source.startswith('DATA = "mnist-5k"') and "EPOCHS = None" in parameters.source
    parameters.source = 'DATA = "digits"\nEPOCHS = 1'
    execute(lecture, here)
    assert {info.name for info in (here / "mlruns" / "aelab").iterdir() if info.is_dir()}


@pytest.mark.slow
def test_it_runs_as_it_stands(lecture, here):
    execute(lecture, here)
    text = "".join(output.get("text", "") for cell in lecture.cells for output in cell.get("outputs", ()))
    ours, pca = map(float, re.search(r"per image: ([\d.]+), with PCA ([\d.]+)", text).groups())
    assert ours == pytest.approx(pca, rel=0.02), "a linear autoencoder is PCA"
