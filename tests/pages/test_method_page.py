"""Methods and recipes on the Train page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlae_lab.core import recipes
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import dense
from mlae_lab.runs.store import RunStore
from tests.lab import html, open_page


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
