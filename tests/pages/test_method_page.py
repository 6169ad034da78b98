"""Methods and recipes on the Train page, and the lab's own table on the page Methods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlae_lab.core import recipes
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense
from mlae_lab.runs import method_table
from mlae_lab.runs.method_table import Result, Start, append
from mlae_lab.runs.store import RunStore
from tests.lab import figures, html, open_page


def test_a_method_of_a_link_has_its_card_count_and_settings(lab_store: RunStore) -> None:
    at = open_page("train", set="method:ssf")
    assert not at.exception
    assert "<b>SSF</b>" in html(at)
    assert "34,304 parameters" in html(at)
    assert "34,304 in SSF" in html(at)
    assert not any(button.label.startswith("Use p =") for button in at.button)


def test_a_recipe_replaces_the_settings_and_is_named(lab_store: RunStore) -> None:
    at = open_page("train", set="method:ssf")
    recipe = next(box for box in at.selectbox if box.label == "Recipe")
    assert recipe.value == "Your own settings"
    recipe.select("SSF on VTAB-1k").run()
    values = {field.label: field.value for field in at.number_input}
    assert (values["Epochs"], values["Learning rate"], values["Weight decay"]) == (100, 5e-3, 5e-5)
    assert next(box for box in at.selectbox if box.label == "Recipe").value == "SSF on VTAB-1k"
    assert "dongzelian/SSF" in html(at)
    next(field for field in at.number_input if field.label == "Epochs").set_value(99).run()
    assert next(box for box in at.selectbox if box.label == "Recipe").value == "Your own settings"


def test_the_recipe_of_mlae_is_one_click_for_lora(lab_store: RunStore) -> None:
    at = open_page("train", set="method:lora,optimizer:sgd")
    next(box for box in at.selectbox if box.label == "Recipe").select("MLAE on VTAB-1k").run()
    values = {field.label: field.value for field in (*at.number_input, *at.selectbox)}
    assert (values["Epochs"], values["Learning rate"], values["Optimizer"]) == (500, 5e-4, "adamw")
    assert (values["Method"], values["Drop path"], values["Recipe"]) == ("lora", 0.0, "MLAE on VTAB-1k")


def test_consistency_without_a_sampled_mask_is_one_sentence(lab_store: RunStore) -> None:
    at = open_page("train", mask=dense().code)
    field = next(field for field in at.number_input if field.label == "Consistency")
    field.set_value(0.5).run()
    texts = [alert.value for alert in (*at.error, *at.warning)]
    assert any("the mask drops no expert" in text for text in texts), texts
    assert not at.exception


def test_the_page_of_a_run_names_its_recipe(lab_store: RunStore) -> None:
    config = RunConfig("digits", method="lora")
    followed = lab_store.enqueue(replace(config, **recipes.values_of(config, "mlae")), "cpu")
    assert "recipe: MLAE on VTAB-1k" in html(open_page("train", run=followed.id))
    assert "settings of no recipe" in html(open_page("train", run=lab_store.enqueue(config, "cpu").id))


@pytest.mark.parametrize("backbone", ["mixer_b16_224.goog_in21k"])
def test_a_method_that_does_not_fit_the_backbone_is_one_sentence(lab_store: RunStore, backbone: str) -> None:
    at = open_page("train", set=f"method:ssf,backbone:{backbone}")
    texts = [alert.value for alert in (*at.error, *at.warning)]
    assert any("SSF needs a vision transformer with fused qkv" in text for text in texts), texts


def test_settings_of_masked_experts_are_shown_with_them_only(lab_store: RunStore) -> None:
    def labels(method: str) -> set[str]:
        at = open_page("train", set=f"method:{method}")
        return {field.label for field in (*at.selectbox, *at.number_input)}

    own = {"Masks sampled per", "Input dropout"}
    of_all = {"Optimizer", "Drop path"}
    assert own | of_all | {"Consistency"} <= labels("mlae")
    lora = labels("lora")
    assert own.isdisjoint(lora)
    assert {"Dropout acts on", "Consistency"} | of_all <= lora


@pytest.fixture
def table_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the lab's table of methods; it does not exist yet."""
    path = tmp_path / "table.jsonl"
    monkeypatch.setattr(method_table, "FILE", path)
    return path


def test_the_table_of_the_lab_is_shown_with_what_is_missing(store: RunStore, table_file: Path) -> None:
    command = "python -m benchmarks method_table"
    append(table_file, Start(command, "2026-11-28T05:00:00Z", "abc", "AMD EPYC, 2 cores", {"torch": "2.14"}, 2, 16))
    result = Result("common", "ssf", "digits", 0, "", 90.0, 797, 34_304, 1290, 126, 9.5, 9.0, "")
    for entry in (
        result, replace(result, seed=1, accuracy=92.0), replace(result, recipe="own", accuracy=96.0),
        replace(result, method="linear", accuracy=80.0), replace(result, task="fashion", accuracy=70.0),
    ):  # fmt: skip
        append(table_file, replace(entry, hash=method_table.planned_hashes(method_table.BUDGET)[entry.key]))
    at = open_page("methods")
    assert "No finished run yet" in html(at)
    assert "Measured by the lab" in html(at)
    assert "2 epochs in batches of 16 (126 steps)" in html(at)
    assert "says nothing about the same method on one of ImageNet scale" in html(at)
    absent, planned = method_table.missing(method_table.read(table_file))
    assert planned - absent == 5
    assert f"{absent} of {planned} runs" in html(at)
    assert "AMD EPYC, 2 cores" in html(at)
    assert any(code.value == command for code in at.code)
    tasks = next(group for group in at.segmented_control if group.label == "Task")
    assert (tasks.options, tasks.value) == (["Fashion-MNIST-1k", "Digits"], "fashion")
    tasks.set_value("digits").run()
    alt = figures(at)["method-table"]
    assert "SSF, common recipe 91.0 % (2 seeds)" in alt
    assert "SSF, own recipe 96.0 % (1 seed)" in alt


def test_without_the_file_the_page_has_no_such_section(store: RunStore, table_file: Path) -> None:
    at = open_page("methods")
    assert "Measured by the lab" not in html(at)
    assert "method-table" not in figures(at)
