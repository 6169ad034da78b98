"""A run whose frozen weights were moved is pointed at them, and no other weights are accepted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import allocation
from mlae_lab.data.tasks import located
from mlae_lab.model.adapter_file import AdapterError, read_adapter, require_method, save_adapter
from mlae_lab.model.backbones import BUNDLED_WEIGHTS, build
from mlae_lab.training.loaded_run import QueryError, load_run
from mlae_lab.training.setup import prepare
from tests.data.trees import make_own


def test_a_run_is_pointed_at_its_moved_weights_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAE_LAB_DATA", str(tmp_path / "data"))
    images = make_own(tmp_path / "images", {"wren": 8, "owl": 8})
    Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(images / "owl" / "12 bits.png")
    file = Path(shutil.copy(BUNDLED_WEIGHTS, tmp_path / "mine.safetensors"))
    plan = allocation((0,) * 11 + (2,))
    config = RunConfig("own:birds", plan, device="cpu", precision="float32", weights=str(file), data=str(images))
    setup = prepare(located(config))
    adapter = tmp_path / "adapter.safetensors"
    save_adapter(adapter, setup.experts, setup.head, config.backbone, config.task, setup.expected)
    assert read_adapter(adapter).input == setup.expected
    assert (setup.expected.class_names, setup.expected.depth) == (("owl", "wren"), 12)
    moved = file.rename(tmp_path / "moved.safetensors")
    elsewhere = images.rename(tmp_path / "elsewhere")
    imported = replace(config, weights=file.name, data="")  # an archive names the file without its folder
    for missing in (config, imported):
        with pytest.raises(QueryError, match=r"mine\.safetensors, which does not exist here: name the file with"):
            load_run(missing, adapter, "abcdefgh", "cpu")
    loaded = load_run(imported, adapter, "abcdefgh", "cpu", record=setup.record, data=elsewhere, weights=moved).setup
    assert (loaded.weights, loaded.missing, len(loaded.evaluation)) == (setup.weights, "", len(setup.evaluation))
    other = tmp_path / "other.safetensors"
    with torch.no_grad():
        save_file(build("lab_vit_12x128.random", 2, seed=3).state_dict(), other)
    with pytest.raises(AdapterError, match=r"other\.safetensors has [0-9a-f]{12}: name the original file"):
        load_run(imported, adapter, "abcdefgh", "cpu", record=setup.record, data=elsewhere, weights=other)


def test_an_adapter_of_another_method_or_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    run = RunConfig(
        "digits", method="lora", method_settings=("rank=4", "targets=q+v"), device="cpu", precision="float32"
    )
    assert run.method_settings
    path, head = tmp_path / "adapter.safetensors", torch.nn.Linear(128, 10)

    def refused(method: str, settings: tuple[str, ...]) -> str:
        save_adapter(path, None, head, run.backbone, run.task, method=method, settings=settings)
        with pytest.raises(AdapterError) as caught:
            load_run(run, path, "abcdefgh", "cpu")
        return str(caught.value)

    needed = " ".join(("lora", *run.method_settings))
    assert refused("ssf", ()) == (
        f"the adapter is of the method ssf and the run of {needed}: use the run's own adapter"
    )
    assert "of the method gone x=1 and the run of lora" in refused("gone", ("x=1",))
    assert f"of the method lora rank=2 and the run of {needed}" in refused("lora", ("rank=2",))
    assert "settings that lora does not have: rank is 0" in refused("lora", ("rank=0",))
    assert "'depth=3' is not a setting of lora" in refused("lora", ("depth=3",))
    require_method(read_adapter(path), "lora", ("depth=3",))  # equal, whatever the header says
    save_adapter(
        path, None, head, run.backbone, run.task, method="lora", settings=(*run.method_settings[::-1], "alpha=0")
    )
    require_method(read_adapter(path), run.method, run.method_settings)  # another order, and a default
