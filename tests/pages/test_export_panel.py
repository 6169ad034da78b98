"""The panel "Export the network" on the page of a finished run."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlae_lab.runs import exporting
from mlae_lab.runs.store import RunStore
from tests.lab import finished_run, html, open_page


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunStore, str]:
    store, run = finished_run(tmp_path / "lab")
    monkeypatch.setenv("MLAE_LAB_STORE", str(store.folder))
    return store, run


def test_formats_are_offered_started_once_and_downloaded(
    run: tuple[RunStore, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlae_lab.exports import worker

    store, name = run
    started: list[str] = []
    monkeypatch.setattr(exporting.supervisor, "spawn", lambda module, words, *others: started.append(words[2]))
    at = open_page("train", run=name)
    formats = at.radio(key=f"export_format_{name}")
    assert formats.options[-1] == "timm model"  # what the run cannot have comes last
    at.radio(key=f"export_format_{name}").set_value("timm").run()
    assert any("use peft, safetensors, onnx or torch" in warning.value for warning in at.warning)
    at.radio(key=f"export_format_{name}").set_value("safetensors").run()
    assert any(f"export {name} {name}-safetensors --to safetensors" in code.value for code in at.code)
    at.button(key=f"export_start_{name}").click().run()
    assert not at.exception
    assert started == ["safetensors"]
    # that process ended without a result
    assert any("ended before it was done: try again" in warning.value for warning in at.warning)

    folder = store.paths(name).exports
    exporting.keep(folder, "safetensors", worker.export(store, name, "safetensors", folder))
    at = open_page("train", {f"export_format_{name}": "safetensors"}, run=name)
    assert not at.exception
    assert "evaluation images differ from the lab" in html(at)
    assert any("##### Accuracy" in text.value and "95 % interval" in text.value for text in at.markdown)
    assert any("pipeline_tag: image-classification" in code.value for code in at.code)
    assert [key for key in (button.proto.label for button in at.get("download_button")) if "Download, " in key]
