"""A trained run leaves the lab: every format is loaded by a process that has no lab and gives the lab's predictions."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

import mlae_lab
from benchmarks.exports import configs, loaded, random_adapter, written
from mlae_lab.core.config import RunConfig
from mlae_lab.core.export_formats import FORMATS, ExportError, missing_packages, refusal
from mlae_lab.core.patterns import allocation, fitted
from mlae_lab.exports import worker
from mlae_lab.runs import commands, exporting
from mlae_lab.runs.store import RunStore
from tests.lab import few_images, train_queued

HAS_PEFT = find_spec("peft") is not None
BACKBONE = "test_vit.random"  # six blocks of width 64, 160 pixels


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunStore, str]]:
    """A store with a run on a folder of images: one epoch, experts in the last layers of a network of timm."""
    from mlae_lab.runs import supervisor

    folder = tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLAE_LAB_DATA", str(folder / "data"))
        patch.setattr(supervisor, "ensure", train_queued)
        store = RunStore(folder / "lab")
        plan = allocation((0, 0, 0, 0, 3, 2), drop_rate=0.3)
        config = RunConfig(
            "own:few", fitted(plan, plan.targets), backbone=BACKBONE, epochs=1, device="cpu", precision="float32",
            data=str(few_images()), learning_rate=5e-3,
        )  # fmt: skip
        yield store, commands.launch(store, config).id


# Runs scripts of exports in one process, so that torch is loaded once. Each sees its folder's modules only.
_DRIVER = """
import runpy, sys
sys.modules["mlae_lab"] = None  # importing it raises ImportError
before = set(sys.modules)
for line in sys.stdin.read().splitlines():
    script, *arguments = line.split("\t")
    folder = script.rpartition("/")[0]
    sys.path.insert(0, folder)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
    sys.path.remove(folder)
    for name in ("preprocess", "network", "base", "stem"):
        sys.modules.pop(name, None)
"""


def run_scripts(folder: Path, *calls: tuple[Path | str, ...]) -> list[dict[str, float]]:
    """The classes with their probabilities of each line that the scripts print, in a process without the lab."""
    lines = "\n".join("\t".join(map(str, call)) for call in calls)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", _DRIVER], input=lines, cwd=folder, capture_output=True, text=True,
        env=environment | {"HF_HUB_OFFLINE": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = []
    for line in done.stdout.splitlines():
        _, *classes = line.split("\t")
        rows.append({word.rpartition(" ")[0]: float(word.rpartition(" ")[2]) for word in classes})
    return rows


def unpacked(store: RunStore, run: str, name: str, folder: Path) -> tuple[Path, exporting.Exported]:
    exported = worker.export(store, run, name, folder)
    exporting.copy_to(exporting.zip_file(folder, name), folder / name)
    return folder / name, exported


def test_exports_give_the_labs_predictions_where_there_is_no_lab(trained: tuple[RunStore, str], tmp_path: Path) -> None:
    store, run = trained
    images = few_images() / "test"
    files = sorted(images.rglob("*.png"))
    assert len(files) == 20
    model = mlae_lab.load(run, store.folder)
    expected = [dict(prediction.top) for prediction in model.predict(files)]
    assert len({round(row["owl"], 3) for row in expected}) > 5  # not one answer for everything

    bundle, exported = unpacked(store, run, "bundle", tmp_path)
    onnx, _ = unpacked(store, run, "onnx", tmp_path)
    assert sorted(path.name for path in bundle.iterdir()) == ["README.md", "mask.svg", "peft", "timm", "torch"]
    assert "8 evaluation images differ from the lab's by" in exported.check
    rows = run_scripts(
        tmp_path, *((folder / "classify.py", images) for folder in (bundle / "torch", bundle / "timm", onnx)),
        *((
            (bundle / "peft" / "classify.py", images),
            (bundle / "peft" / "side_by_side.py", files[0], bundle / "peft", bundle / "peft"),
        ) if HAS_PEFT else ()),
    )  # fmt: skip
    of_peft = [*expected, expected[0], expected[0]] if HAS_PEFT else []
    assert len(rows) == 3 * len(files) + len(of_peft)
    for row, wanted in zip(rows, [*expected * 3, *of_peft], strict=True):
        assert row == pytest.approx(wanted, abs=2e-5)

    card = ModelCard.load(bundle / "timm" / "README.md")
    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"]) == ("timm", "image-classification")
    (result,) = data["model-index"][0]["results"]
    accuracy = result["metrics"][0]["value"]
    for text in (f"**{100 * accuracy:.1f} %** top-1 on 20", "Wilson", "run `" + run, "mask.svg", "python -m mlae_lab"):
        assert text in card.text
    svg = (bundle / "mask.svg").read_text()
    assert svg.startswith("<svg")


def test_peft_folder_has_only_what_exists(tmp_path: Path) -> None:
    """Absent experts are not there, an empty layer is no target, λ is in B; peft loads it without a warning."""
    import timm

    config = configs(BACKBONE)["mixed, empty layers"]
    random_adapter(config, tmp_path / "adapter.safetensors")
    export = loaded(config, tmp_path / "adapter.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        check = written(export, "peft", tmp_path / "peft")
    assert check.by.startswith("peft" if HAS_PEFT else "the lab")
    assert check.difference < 1e-5
    tensors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    ranks = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): len(value)
        for name, value in tensors.items()
        if name.endswith("lora_A.weight")
    }
    kept = dict(zip(config.plan.targets, config.plan.kept, strict=True))
    assert ranks == {target: count for target, count in kept.items() if count}
    assert 0 in kept.values()
    assert timm.create_model("test_vit", num_classes=5).get_submodule("head").weight.shape == (
        tensors["base_model.model.head.weight"].shape
    )


@pytest.mark.parametrize(
    ("method", "settings"), [("lora", ("rank=3", "targets=q+v", "alpha=6")), ("dora", ("rank=2",)), ("adalora", ())]
)
def test_other_methods_that_peft_knows(
    method: str, settings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(
        "digits", method=method, method_settings=settings, backbone=BACKBONE, device="cpu", precision="float32"
    )
    random_adapter(config, tmp_path / "adapter.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check = written(loaded(config, tmp_path / "adapter.safetensors"), "peft", tmp_path / "a")
        assert check.by.startswith("peft" if HAS_PEFT else "the lab")
    monkeypatch.setattr("mlae_lab.exports.peft_folder.find_spec", lambda name: None)
    read_back = written(loaded(config, tmp_path / "adapter.safetensors"), "peft", tmp_path / "b")
    assert read_back.by == "the lab, as peft is not installed here"
    assert read_back.difference < 1e-5


@pytest.mark.parametrize("backbone", ["lab_vit_12x128.random", "test_convnext.random"])
def test_merged_weights_of_four_runs(backbone: str, tmp_path: Path) -> None:
    for number, config in enumerate(configs(backbone).values()):
        file = tmp_path / f"{number}.safetensors"
        random_adapter(config, file)
        for name in ("safetensors", "timm"):
            if name == "timm" and backbone.startswith("lab"):
                continue
            assert written(loaded(config, file), name, tmp_path / f"{number}{name}").difference < 1e-5


@pytest.mark.parametrize(
    ("backbone", "size", "name"),
    [("lab_vit_12x128", 64, "peft"), (BACKBONE, 96, "timm"), (BACKBONE, 96, "safetensors")],
)
def test_another_image_size(backbone: str, size: int, name: str, tmp_path: Path) -> None:
    config = replace(configs(backbone)["dense"], image_size=size)
    random_adapter(config, tmp_path / "adapter.safetensors")
    export = loaded(config, tmp_path / "adapter.safetensors")
    assert export.images.shape[-1] == size
    assert written(export, name, tmp_path / "out").difference < 1e-5


def test_a_wrong_export_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configs(BACKBONE)["dense"]
    random_adapter(config, tmp_path / "adapter.safetensors")
    export = loaded(config, tmp_path / "adapter.safetensors")
    export.factors.pop("blocks.2.attn.qkv")
    monkeypatch.setattr("mlae_lab.exports.peft_folder.find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"was not kept: loaded with the lab, .* differ from the lab's by"):
        written(export, "peft", tmp_path / "peft")


def test_refusals_name_what_can_be_used() -> None:
    def why(name: str, method: str, backbone: str = BACKBONE) -> str:
        return refusal(name, RunConfig("digits", method=method, backbone=backbone))

    assert why("timm", "lora") == ""
    assert why("timm", "lora", "lab_vit_12x128") == (
        "timm has no name for the convolutional stem of the bundled backbone: use peft, safetensors, onnx or torch"
    )
    assert why("peft", "ssf") == "peft has no form for SSF: use timm, safetensors, onnx or torch"
    assert why("peft", "linear").startswith("Linear probe trains the head alone")
    assert why("timm", "vpt_deep").endswith("cannot be written as merged weights: use onnx or torch")
    assert all(why("bundle", method) == "" for method in ("linear", "vpt_deep"))
    assert missing_packages("peft") == ""
    assert set(FORMATS) == {"peft", "timm", "safetensors", "onnx", "torch", "bundle"}


def test_a_method_that_cannot_be_merged_becomes_a_graph(tmp_path: Path) -> None:
    config = RunConfig("digits", method="adaptformer", backbone=BACKBONE, device="cpu", precision="float32")
    random_adapter(config, tmp_path / "adapter.safetensors")
    export = loaded(config, tmp_path / "adapter.safetensors")
    assert written(export, "torch", tmp_path / "torch").difference < 1e-5
    assert not export.is_merged


def test_safetensors_of_two_runs_with_different_classes_side_by_side(tmp_path: Path) -> None:
    from mlae_lab.data.input_steps import InputSteps

    folders, expected = [], []
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(image)
    for classes in (3, 5):
        config, file = configs("lab_vit_12x128")["dense"], tmp_path / f"{classes}.safetensors"
        random_adapter(config, file, classes)
        export = loaded(config, file)
        folders.append(tmp_path / str(classes))
        steps = export.network.steps
        assert isinstance(steps, InputSteps)
        logits = export.network.logits(export.network.inputs([steps.stored(image)]))
        expected.append(logits.softmax(1)[0].topk(3).values.tolist())
        written(export, "safetensors", folders[-1])
    rows = run_scripts(tmp_path, (folders[0] / "side_by_side.py", image, *folders))
    assert [[*row.values()] for row in rows] == [pytest.approx(values, abs=2e-5) for values in expected]


def test_an_archive_of_zip_members_is_whole(trained: tuple[RunStore, str], tmp_path: Path) -> None:
    store, run = trained
    exporting.copy_to(_safetensors(store, run, tmp_path), tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as packed:
        assert packed.testzip() is None
        assert f"{run}-safetensors/model.safetensors" in packed.namelist()


def _safetensors(store: RunStore, run: str, folder: Path) -> Path:
    worker.export(store, run, "safetensors", folder)
    return exporting.zip_file(folder, "safetensors")
