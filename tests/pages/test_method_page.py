"""Methods and recipes on the Train page."""

from __future__ import annotations

import pytest

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
    assert own <= labels("mlae")
    assert own.isdisjoint(labels("lora"))
    assert "Dropout acts on" in labels("lora")
