"""A study made of existing runs: what differs between them becomes the arms, their seeds become its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig, differences
from mlae_lab.core.nearest_pattern import nearest
from mlae_lab.core.settings import ConfigError, setting_of
from mlae_lab.core.study import Arm, Study
from mlae_lab.core.study_file import proposed_title


def study_of(configs: Sequence[RunConfig], title: str = "") -> Study:
    """The study that these runs belong to: every arm with every seed, so that some of its runs may be missing.

    Args:
        configs: Of the runs.
        title: "" for one from what differs.

    Raises:
        ConfigError: No runs, or a study of them would break a rule.
    """
    if not configs:
        raise ConfigError("there are no runs to make a study of: select at least one")
    seeds = tuple(sorted({config.seed for config in configs}))
    by_settings = {config.canonical("seed"): config for config in reversed(configs)}
    chosen = [replace(config, seed=seeds[0]) for config in reversed(by_settings.values())]
    varying = [name for config in chosen[1:] for name in differences(chosen[0], config)]
    names = list(dict.fromkeys(name for name in varying if name not in ("seed", "data")))
    known: dict[str, int] = {}
    arms = []
    for config in chosen:
        values = tuple(pair for name in names for pair in _texts(config, name))
        # a mask names the method, too
        shown = [field for field in names if not (field == "method" and "plan" in names and config.has_mask)]
        name = ", ".join(_shown(config, field) for field in shown if _shown(config, field)) or config.what
        known[name] = known.get(name, 0) + 1
        arms.append(Arm(name if known[name] == 1 else f"{name} ({known[name]})", values, config))
    factors = {"mask" if name == "plan" else name: [str(number) for number in range(len(arms))] for name in names}
    return Study(title or proposed_title(chosen[0], factors, arms), tuple(arms), seeds)


def _texts(config: RunConfig, name: str) -> list[tuple[str, str]]:
    """The values of a setting in an arm, each with its name."""
    if name == "method_settings":
        return [(text.partition("=")[0], text.partition("=")[2]) for text in config.method_settings]
    if name == "plan":
        return [("mask", config.plan.code)] if config.has_mask else []
    return [(name, setting_of(RunConfig, name).to_text(getattr(config, name)))]


def _shown(config: RunConfig, name: str) -> str:
    """A setting in the name of an arm, "" where it has no meaning for the method."""
    if name in ("task", "method"):
        return catalog.task(config.task).title if name == "task" else config.tuning.title
    if name == "plan":
        pattern = nearest(config.plan)
        return "" if not config.has_mask else pattern.title if pattern.same else f"mask {config.plan.hash[:6]}"
    if name == "method_settings":
        return ", ".join(text.replace("=", " = ") for text in config.method_settings)
    entry = setting_of(RunConfig, name)
    return "" if entry.method not in ("", config.method) else f"{entry.noun} = {entry.shown(getattr(config, name))}"
