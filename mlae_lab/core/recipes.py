"""Recipes: settings of a run that authors used, as data, and which of them a run follows.

Every method has its authors' recipes (`Method.recipes`); the common one and MLAE's can be used with any method, so that
a comparison need not mix a method with its recipe.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlae_lab.core import method as registry
from mlae_lab.core.config import RunConfig
from mlae_lab.core.method import COMMON_VALUES, NOT_LIKE_THE_AUTHORS, Recipe, with_texts
from mlae_lab.core.settings import ConfigError, settings_of

COMMON = Recipe(
    "what the public code of NOAH's LoRA and Adapter, FacT and RepAdapter share on VTAB-1k",
    COMMON_VALUES,
    f"{NOT_LIKE_THE_AUTHORS}; most normalise with ImageNet's mean",
)
_TITLES = {"vtab": "VTAB-1k", "fgvc": "FGVC"}


def available(name: str) -> dict[str, tuple[str, Recipe]]:
    """The recipes for a method: a name for `--recipe` to title and recipe.

    Args:
        name: Of the method; its own recipes come first, then the common one and MLAE's for VTAB-1k.
    """
    own = registry.method(name)
    recipes = {}
    for key, recipe in own.recipes.items():
        equal = [_TITLES.get(other, other) for other, known in own.recipes.items() if known.values == recipe.values]
        recipes[key] = (f"{own.title} on {' and '.join(equal)}", recipe)
    recipes["common"] = ("Common recipe", COMMON)
    mlae = registry.method("mlae")
    if name != mlae.name:
        recipes["mlae"] = ("MLAE on VTAB-1k", Recipe(mlae.recipes["vtab"].source, _of_a_run(mlae.recipes["vtab"])))
    return recipes


def values_of(config: RunConfig, name: str) -> dict[str, Any]:
    """The fields of a run that a recipe sets, with the method's own settings in `method_settings`.

    Raises:
        ConfigError: The method has no recipe of that name.
    """
    recipes = available(config.method)
    if name not in recipes:
        raise ConfigError(f"recipe is {name[:40]!r}: choose from {', '.join(recipes)} for the method {config.method}")
    recipe = recipes[name][1]
    values = _of_a_run(recipe)
    own = {key: value for key, value in recipe.values.items() if key not in values}
    if own:
        tuning = replace(with_texts(registry.method(config.method), config.method_settings), **own)
        values["method_settings"] = tuning.texts()
    return values


def followed(config: RunConfig) -> str:
    """The title of the recipe that a run follows in all settings, "" for none; of several the most specific one."""
    if config.unavailable:
        return ""
    matches = {
        title: len(recipe.values)
        for name, (title, recipe) in available(config.method).items()
        if all(getattr(config, field) == value for field, value in values_of(config, name).items())
    }
    return max(matches, key=lambda title: matches[title], default="")


def _of_a_run(recipe: Recipe) -> dict[str, Any]:
    fields = {entry.name for entry in settings_of(RunConfig)}
    return {key: value for key, value in recipe.values.items() if key in fields}
