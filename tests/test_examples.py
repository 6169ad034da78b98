"""The code of the example notebook runs against a small store and gives the numbers of that store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.core.study import Arm, Study
from mlae_lab.runs.store import RunStore
from tests.lab import measured


def test_the_notebook_reads_a_store(store: RunStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig("digits", uniform(0.5), epochs=4)
    runs = [
        measured(store, store.enqueue(RunConfig("digits", uniform(0.5), epochs=4, seed=seed), "cpu"), 50.0, 80.0 + seed)
        for seed in range(2)
    ]
    probe = measured(store, store.enqueue(RunConfig("fashion", method="linear", epochs=2), "cpu"), 60.0)
    store.enqueue(RunConfig("digits"), "cpu")
    store.annotate(probe.id, "The probe", add=["paper"])
    study = store.add_study(Study("Two seeds", (Arm("p = 0.5", (), config),), (0, 1)))
    store.set_study_cells(study.id, {("p = 0.5", seed): run.id for seed, run in enumerate(runs)})
    monkeypatch.setenv("MLAE_LAB_STORE", str(store.folder))
    cells = json.loads((root / "examples" / "runs.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    values: dict = {}
    for number, source in enumerate(code):
        exec(compile(source, f"cell {number}", "exec"), values)
    by_id = values["runs"].set_index("id")
    assert list(by_id["accuracy"].dropna()) == [80.0, 81.0, 60.0]
    assert by_id.loc[probe.id, "tags"] == ["paper"]
    assert dict(zip(values["summary"]["method"], values["summary"]["mean"], strict=True)) == {
        "mlae": 80.5,
        "linear": 60.0,
    }
    assert set(values["chosen"]["id"]) == {run.id for run in runs}
    assert len(values["figure"].data) == 3
    assert values["cells"]["accuracy"].tolist() == [80.0, 81.0]
