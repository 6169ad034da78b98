"""The examples of CONTRIBUTING.md run: what a reader copies from it works as described."""

from __future__ import annotations

import ast
import json
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mlae_lab.core.catalog import backbone
from mlae_lab.core.config import RunConfig
from mlae_lab.core.export_formats import ExportError
from mlae_lab.core.patterns import allocation
from mlae_lab.core.settings import ConfigError
from mlae_lab.runs.store import RunStore
from mlae_lab.training.evaluation import evaluate
from tests.lab import open_page
from tests.test_docs import blocks, text_of


def example(start: str) -> str:
    """The code block after the paragraph that starts with a bold phrase."""
    section = text_of("CONTRIBUTING.md").partition(f"**{start}**")[2]
    assert section, start
    return blocks(section, "python")[0]


def run(code: str, names: dict) -> dict:
    """The names that a code block leaves behind, given those that it may use."""
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return RunConfig(
        "digits", allocation((0,) * 11 + (2,)), backbone="lab_vit_12x128.random", device="cpu", precision="float32"
    )


def test_a_method_of_another_package_is_trained_and_loaded(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registered by its entry point, as pip installs it."""
    from mlae_lab.core import method
    from mlae_lab.core.events import Evaluation
    from mlae_lab.model.adapter_file import save_adapter
    from mlae_lab.training.loaded_run import load_run
    from mlae_lab.training.setup import prepare
    from mlae_lab.training.trainer import fit

    section = text_of("CONTRIBUTING.md").partition("**A method.**")[2]
    description, layers = blocks(section, "python")[:2]
    package, installed = tmp_path / "my_package", tmp_path / "my_package-1.0.dist-info"
    for folder in (package, installed):
        folder.mkdir()
    (package / "__init__.py").write_text(description)
    (package / "layers.py").write_text(layers)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    entry = blocks(section, "toml")[0].replace('"', "").replace("project.entry-points.", "")
    (installed / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    method._registered.cache_clear()
    try:
        assert method.names()[-1] == "feature_scale"
        wanted = replace(config, method="feature_scale", method_settings=("dropout=0.5",), epochs=1)
        assert wanted.tuning.parameters(backbone(wanted.backbone)) == 128
        setup = prepare(wanted)
        evaluation = [event for event in fit(setup) if isinstance(event, Evaluation)][-1]
        assert not torch.equal(setup.adapter.state()["norm.factor"], torch.ones(128))
        file = tmp_path / "adapter.safetensors"
        save_adapter(
            file, setup.adapter, setup.head, wanted.backbone, wanted.task, setup.expected, wanted.method,
            wanted.method_settings,
        )  # fmt: skip
        loaded = load_run(wanted, file)
        assert evaluate(loaded.setup).accuracy == evaluation.accuracy
    finally:
        method._registered.cache_clear()
        method.method.cache_clear()


def test_an_entry_point_that_is_not_a_method_is_one_sentence(
    tmp_path: Path, lab_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlae_lab.core import method

    installed = tmp_path / "other-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[mlae_lab.methods]\nmissing = no_such_package:Method\nwrong = json:JSONDecoder\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    method._registered.cache_clear()
    try:
        with pytest.raises(ConfigError, match="the method missing cannot be loaded"):
            method.method("missing")
        with pytest.raises(ConfigError, match="the entry point wrong is not a Method of that name"):
            method.method("wrong")
        methods, problems = method.available()
        assert (set(methods), len(problems)) == (set(method.BUILT_IN), 2), "the others can still be used"
        assert not open_page("train").exception
    finally:
        method._registered.cache_clear()


def test_the_page_extends_a_section_of_the_navigation() -> None:
    from mlae_lab.ui.navigation import _SECTIONS

    ((section, entries),) = ast.literal_eval("{" + example("A page.") + "}").items()
    current = _SECTIONS[section]
    added = {name: entry for name, entry in entries.items() if name not in current}
    assert list(added) == ["report"]
    assert {name: current[name] for name in entries if name in current} == {
        name: entry for name, entry in entries.items() if name not in added
    }


def test_the_query_answers(config: RunConfig, tmp_path) -> None:
    from mlae_lab.training.loaded_run import LoadedRun
    from mlae_lab.training.setup import prepare

    queries = run(example("An analysis."), {})["QUERIES"]
    setup = prepare(config)
    setup.head.weight.data.fill_(0.5)
    answer = queries["head_norm"](LoadedRun(setup, tmp_path), {}, lambda done, total: None)
    assert json.loads(json.dumps(answer)) == {"norm": pytest.approx(0.5 * setup.head.weight.numel() ** 0.5)}


def test_the_statistic_is_recorded(config: RunConfig) -> None:
    from mlae_lab.training import statistics
    from mlae_lab.training.setup import prepare

    added = run(example("A statistic"), dict(vars(statistics)))["STATISTICS"][-1]
    setup = prepare(config)
    setup.head.weight.data.fill_(0.5)
    event = statistics.collect([*statistics.STATISTICS, added], setup, epoch=1, step=13)
    assert event is not None
    assert event.values["head_norm"] == pytest.approx(0.5 * setup.head.weight.numel() ** 0.5, rel=1e-5)
    assert event.labels["head_norm"] == ("Norm of the head", "")
    assert "update_norm" in event.values


def test_the_setting_is_described_and_checked() -> None:
    from mlae_lab.core import settings

    code = "from dataclasses import dataclass, field\nfrom mlae_lab.core.settings import setting\n"
    code += "@dataclass(frozen=True)\nclass Example:\n" + textwrap.indent(example("A setting."), "    ")
    described = run(code, {"__name__": __name__})["Example"]
    (entry,) = settings.settings_of(described)
    assert (entry.option, entry.kind, entry.initial) == ("logit-scale", float, 0.0)
    assert entry.group in settings.form_groups(RunConfig)
    assert settings.hashed_values(described(), "mlae") == {}
    assert settings.hashed_values(described(0.1), "mlae") == {"logit_scale": 0.1}
    with pytest.raises(
        settings.ConfigError, match=r"logit scale is 700\.0: it must be a number from 0 and at most 100"
    ):
        entry.check(700.0)


def test_the_reader_lists_images_that_the_census_accepts(tmp_path: Path) -> None:
    from mlae_lab.data.census import census
    from tests.data.trees import write_image

    lines = ["path,class,split"]
    for number, split in enumerate(("train", "train", "val", "test")):
        write_image(tmp_path / f"{number}.png", number)
        lines.append(f"{number}.png,{'cat' if number % 2 else 'dog'},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    listing = run(example("A dataset layout."), {})["read_csv"](tmp_path)
    assert listing.class_names == ("cat", "dog")
    assert listing.splits["train"] == (("0.png", 1), ("1.png", 0))
    result = census(listing, None, decode=True)
    assert (result.counts, result.problems) == ({"train": 2, "val": 1, "test": 1}, ())


def test_the_exported_updates_are_those_of_the_network(config: RunConfig, tmp_path: Path) -> None:
    from benchmarks.exports import loaded, random_adapter

    config = replace(config, plan=replace(config.plan, expert_rank=2, coefficient_init=0.5))
    random_adapter(config, tmp_path / "adapter.safetensors")
    export = loaded(config, tmp_path / "adapter.safetensors")
    check = run(example("An export."), {})["write"](export, tmp_path)
    assert check.difference < 1e-5
    export.factors.popitem()
    with pytest.raises(ExportError, match="was not kept"):
        run(example("An export."), {})["write"](export, tmp_path)
