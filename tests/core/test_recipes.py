"""Recipes as data, and which one a run follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlae_lab.core import method as registry
from mlae_lab.core import recipes
from mlae_lab.core.config import RunConfig
from mlae_lab.core.settings import ConfigError


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_every_recipe_gives_a_run_that_follows_it(name: str) -> None:
    for key, (title, recipe) in recipes.available(name).items():
        task = "cub" if key == "fgvc" else "digits"
        config = RunConfig(task, method=name)
        used = replace(config, **recipes.values_of(config, key))
        assert recipe.source
        same = [other for other, (_, known) in recipes.available(name).items() if known.values == recipe.values]
        assert recipes.followed(used) in [recipes.available(name)[other][0] for other in same], title


def test_a_run_with_one_other_setting_follows_none() -> None:
    config = RunConfig("digits", method="ssf")
    used = replace(config, **recipes.values_of(config, "vtab"))
    assert (used.learning_rate, used.epochs, recipes.followed(used)) == (5e-3, 100, "SSF on VTAB-1k")
    assert recipes.followed(replace(used, epochs=99)) == ""


def test_the_recipe_of_mlae_with_another_method() -> None:
    config = RunConfig("digits", method="ssf", epochs=3)
    used = replace(config, **recipes.values_of(config, "mlae"))
    assert (used.method, used.epochs, used.normalisation) == ("ssf", 500, "half")


def test_an_unknown_recipe() -> None:
    with pytest.raises(ConfigError, match="recipe is 'best': choose from vtab, fgvc, common, mlae for the method ssf"):
        recipes.values_of(RunConfig("digits", method="ssf"), "best")


def test_the_authors_of_vpt_train_prompts_with_sgd_and_most_others_drop_paths() -> None:
    used = replace(
        RunConfig("cub", method="vpt_deep"), **recipes.values_of(RunConfig("cub", method="vpt_deep"), "fgvc")
    )
    assert (used.optimizer, used.learning_rate, used.drop_path, used.preprocessing) == ("sgd", 0.25, 0.0, "fgvc-crop")
    assert recipes.followed(used) == "VPT-Deep on FGVC", "and not the less specific one on VTAB-1k"
    rates = {name: registry.method(name).recipes["vtab"].values["drop_path"] for name in ("lora", "fact_tk", "glora")}
    assert rates == {"lora": 0.1, "fact_tk": 0.1, "glora": 0.1}


def test_lora_with_the_recipe_of_mlae_has_its_optimizer_and_schedule() -> None:
    lora = RunConfig("digits", method="lora", optimizer="sgd", drop_path=0.2)
    used = replace(lora, **recipes.values_of(lora, "mlae"))
    own = replace(RunConfig("digits"), **recipes.values_of(RunConfig("digits"), "vtab"))
    assert replace(used, method="mlae") == own
    assert recipes.followed(used) == "MLAE on VTAB-1k"
