"""A study as a YAML or JSON text that a person writes.

    title: Which p?
    task: digits
    epochs: 8                        # any setting of a run, a method or a mask that all arms share
    seeds: 3                         # a number, or a list
    factors:
      method: [mlae, lora]
      drop_rate: [0, 0.3, 0.5]
    reference: LoRA                  # name of an arm; margin, question and notes may be given, too

In place of `factors`, `arms` may list them, each with the settings in which it differs and, if wanted, a name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlae_lab.core import catalog
from mlae_lab.core import method as methods
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.settings import ConfigError, proposed_values, settings_of
from mlae_lab.core.study import MAX_SEEDS, MAX_TITLE, PLAN_FACTORS, Arm, Study, check_factor, configured, product, shown
from mlae_lab.locations import PROGRAM

RESERVED = ("title", "question", "notes", "seeds", "seed", "reference", "margin", "factors", "arms", "data", "weights")
MAX_CHARACTERS = 1_000_000  # of a description
_MANY = 10_000  # characters of a value
_DIGITS = 18  # of a whole number
_SHOWN = 60  # of them in a message


def read_study(
    text: str, complete: Callable[[RunConfig], RunConfig] = lambda config: config
) -> tuple[Study, tuple[str, ...]]:
    """The study that a text describes, and one sentence for each thing that was left out.

    Args:
        text: YAML or JSON.
        complete: As of `core.study.product`.

    Raises:
        ConfigError: The text is not such a description; the message names the entry.
    """
    return described(parsed(text), complete)


def parsed(text: str) -> dict[str, Any]:
    """The mapping that a YAML text holds.

    Aliases are refused, because a short text with them can stand for a huge one, and so are repeated names, of which
    YAML would use the last.

    Raises:
        ConfigError: The text is not such YAML.
    """
    import yaml

    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"the file has {len(text):,} characters: a study takes at most {MAX_CHARACTERS:,}")

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it has an alias (*name): write the value out")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if repeated := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{str(repeated)[:_SHOWN]!r} is given twice: give it once")
            return super().construct_mapping(node, deep)

    def number(loader: Loader, node: yaml.ScalarNode) -> Any:
        """A number; but what YAML 1.1 would read as another one, 1:30 as 90 or 010 as 8, stays a text."""
        if ":" in node.value or re.match(r"[-+]?0[0-7_]", node.value):
            return node.value
        is_whole = node.tag.endswith(":int")
        return loader.construct_yaml_int(node) if is_whole else loader.construct_yaml_float(node)

    for tag in ("int", "float"):
        Loader.add_constructor(f"tag:yaml.org,2002:{tag}", number)
    try:
        data = yaml.load(text, Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"the file is not YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(data, dict):
        raise ConfigError("the file is not a mapping of settings: write `task: digits` and `factors:` in it")
    _check_plain(data)
    return {str(name): value for name, value in data.items()}


def _check_plain(value: Any) -> None:
    """Raise ConfigError for anything but mappings and lists of numbers and texts of a sensible size."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_plain(name)
            _check_plain(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner)
    elif isinstance(value, int) and abs(value) >= 10**_DIGITS:
        raise ConfigError(f"a number has more than {_DIGITS} digits: write a smaller one")
    elif isinstance(value, str) and len(value) > _MANY:
        raise ConfigError(f"a text has {len(value):,} characters, {value[:20]!r}…: it may have at most {_MANY:,}")
    elif value is not None and not isinstance(value, (int, float, str)):
        raise ConfigError(f"a value is a {type(value).__name__}: write a number or a text in quotes")


def described(
    data: Mapping[str, Any], complete: Callable[[RunConfig], RunConfig] = lambda config: config
) -> tuple[Study, tuple[str, ...]]:
    """The study that plain data describes; arguments and errors as of `read_study`."""
    words = {name: _words(data, name) for name in ("title", "question", "reference", "notes", "data", "weights")}
    shared = {str(name): value for name, value in data.items() if name not in RESERVED}
    if "task" not in shared:
        raise ConfigError("the study names no task: add `task:` with a name that the command `tasks` lists")
    base = base_config(_text("task", shared.pop("task")), _seed(data), words["data"], words["weights"])
    for name, value in shared.items():
        check_factor(name, (_text(name, value),))
    base, used = configured(base, {name: _text(name, value) for name, value in shared.items()})
    later = {name: _text(name, value) for name, value in shared.items() if name not in used}  # for some methods only
    if "arms" in data and "factors" in data:
        raise ConfigError("the study has both factors and arms: give one of them")
    notes: tuple[str, ...] = ()
    factors: dict[str, list[str]] = {}
    if "arms" in data:
        arms = listed(base, data["arms"], complete, later)
        check_factor("protocol", sorted({arm.config.protocol for arm in arms}))
        check_factor("folds", sorted({str(arm.config.folds) for arm in arms}))
    else:
        factors = _factors(data.get("factors") or {})
        arms, notes = product(base, factors | {name: [value] for name, value in later.items()}, complete)
    for name in later:
        if not any(name in dict(arm.values) for arm in arms):
            raise ConfigError(f"{name} has no meaning for any arm: leave it out")
    study = Study(
        title=words["title"] or proposed_title(base, factors, arms),
        arms=arms,
        seeds=_seeds(data.get("seeds", 1), base.seed),
        question=words["question"],
        reference=words["reference"],
        margin=_margin(data.get("margin")),
        factors=tuple((name, tuple(values)) for name, values in factors.items()),
        notes=words["notes"],
    )
    return study, notes


def _words(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return "" if value is None else _text(name, value)


def base_config(task: str, seed: int = 0, data: str = "", weights: str = "") -> RunConfig:
    """The settings that the lab proposes for a run, of which a study changes some."""
    return RunConfig(
        task=task, plan=FIRST_RUN.plan, seed=seed, data=data, weights=weights, **proposed_values(RunConfig)
    )


def shared_values(config: RunConfig, factors: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A config as the settings that all arms of a description share, which `described` reads.

    Left out are the defaults, what a factor sets, and what has no meaning for any of the methods.

    Args:
        config: The settings, without a time limit.
        factors: As of `core.study.product`.
    """
    default = base_config(config.task)
    names = factors.get("method", [config.method])
    tunings = [methods.method(name) for name in names]
    values: dict[str, Any] = {"task": config.task}
    values |= {name: getattr(config, name) for name in ("seed", "data", "weights") if getattr(config, name)}
    if "mask" not in factors and any(tuning.has_mask for tuning in tunings):
        values["mask"] = config.plan.code
    for entry in settings_of(RunConfig):
        value = getattr(config, entry.name)
        if not entry.option or entry.name in ("max_seconds", "method_settings", *RESERVED) or entry.name in factors:
            continue
        if value != getattr(default, entry.name) and (not entry.method or entry.method in names):
            values[entry.name] = value
    if config.method in names:
        own = dict(text.split("=", 1) for text in config.method_settings)
        values |= {name: value for name, value in own.items() if name not in factors}
    return values


def command(data: Mapping[str, Any]) -> str:
    """The command that starts the study of a description with factors (`described`)."""
    fields = {entry.name: entry.option for entry in settings_of(RunConfig) if entry.option}
    fields |= {name: name.replace("_", "-") for name in (*PLAN_FACTORS, "recipe", "task", "data", "weights")}
    factors: Mapping[str, Sequence[str]] = data.get("factors") or {}
    values = {name: [_text(name, value)] for name, value in data.items() if name not in RESERVED or name in fields}
    texts = {name: ",".join(map(str, value)) for name, value in (values | dict(factors)).items()}
    words = [f"--{fields[name]} {shlex.quote(text)}" for name, text in texts.items() if name in fields]
    if own := [f"{name}={text}" for name, text in texts.items() if name not in fields]:
        words.append(" ".join(["--set", *map(shlex.quote, own)]))
    seeds = data.get("seeds", 1)
    words.append(f"--seeds {','.join(map(str, seeds)) if isinstance(seeds, list) else seeds}")
    for name in ("title", "question", "notes", "reference", "margin"):
        if data.get(name):
            words.append(f"--{name} {shlex.quote(str(data[name]))}")
    return f"{PROGRAM} study new {' '.join(words)}"


def proposed_title(base: RunConfig, factors: Mapping[str, Sequence[str]], arms: Sequence[Arm]) -> str:
    """A title for a study without one: what varies, and the task."""
    varying = [name.replace("_", " ") for name, values in factors.items() if len(values) > 1]
    what = " × ".join(varying).capitalize() if varying else f"{len(arms)} arms" if len(arms) > 1 else arms[0].name
    where = "" if len(factors.get("task", ())) > 1 else f" on {catalog.task(base.task).title}"
    return f"{what}{where}"[:MAX_TITLE]


def listed(
    base: RunConfig, arms: Any, complete: Callable[[RunConfig], RunConfig], shared: Mapping[str, str] = {}
) -> tuple[Arm, ...]:
    """Arms that are given one by one, each with the settings in which it differs from the others.

    Args:
        base: Settings of all arms.
        arms: A list of mappings.
        complete: As of `core.study.product`.
        shared: Settings of the arms for whose method they have a meaning.

    Raises:
        ConfigError: They are not such a list, or a value breaks its rule.
    """
    if not isinstance(arms, list) or not arms or not all(isinstance(arm, Mapping) for arm in arms):
        raise ConfigError("arms is not a list of settings: write each as `- {name: dense, mask: dense}`")
    arms_read = []
    for number, entry in enumerate(arms, 1):
        values = {str(name): _text(str(name), value) for name, value in entry.items() if name != "name"}
        for name, value in values.items():
            check_factor(name, (value,))
        config, used = configured(base, {**shared, **values})
        if useless := [name for name in values if name not in used]:
            raise ConfigError(
                f"{useless[0]} of arm {number} has no meaning for the method {config.method}: leave it out"
            )
        name = _words(entry, "name") or (", ".join(shown(*pair) for pair in values.items()) or config.tuning.title)
        meant = {**shared, **values}
        arms_read.append(Arm(name, tuple((key, meant[key]) for key in used), complete(config)))
    return tuple(arms_read)


def _text(name: str, value: Any) -> str:
    """A value of YAML as the text that an option would have."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float, str)) and len(str(value)) <= _MANY:
        return str(value)
    raise ConfigError(f"{name[:60]} is {_cut(value)}: it must be one number or text of at most {_MANY:,} characters")


def _factors(data: Any) -> dict[str, list[str]]:
    if not isinstance(data, Mapping):
        raise ConfigError("factors is not a list of names with values: write `drop_rate: [0, 0.3, 0.5]` below it")
    return {
        str(name): [_text(str(name), value) for value in (values if isinstance(values, list) else [values])]
        for name, values in data.items()
    }


def _seed(data: Mapping[str, Any]) -> int:
    seed = data.get("seed", 0)
    if type(seed) is not int:
        raise ConfigError(f"seed is {_cut(seed)}: it must be a whole number")
    return seed


def _seeds(value: Any, first: int) -> tuple[int, ...]:
    if type(value) is int:
        if not 1 <= value <= MAX_SEEDS:
            raise ConfigError(f"the study has {_cut(value)} seeds: it must have 1 to {MAX_SEEDS}")
        return tuple(range(first, first + value))
    if isinstance(value, list) and all(type(seed) is int for seed in value):
        return tuple(value)
    raise ConfigError(f"seeds is {str(value)[:60]!r}: it must be a number of seeds or a list of them")


def _margin(value: Any) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 100:
        raise ConfigError(f"margin is {_cut(value)}: it must be above 0 and at most 100 percentage points")
    return float(value)


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def as_yaml(study: Study) -> str:
    """A description of a study that `read_study` reads: its arms one by one, with all settings that differ.

    Of a study that chooses it has the last stage, which a comment says: the rule is no part of a description.
    """
    import yaml

    comment = ""
    if study.choice is not None:
        reference, last = study.compared[-1]
        study = replace(study, arms=last or study.arms, reference=reference or study.arms[0].name, choice=None)
        comment = f"# The last stage of a choice, without its rule: `{PROGRAM} choose` starts another choice.\n"

    fields = [entry for entry in settings_of(RunConfig) if entry.option and entry.name not in ("seed", "data")]
    default = base_config(study.arms[0].config.task)

    def values_of(config: RunConfig) -> dict[str, Any]:
        values: dict[str, Any] = {"task": config.task}
        if config.has_mask:
            values["mask"] = config.plan.code
        for entry in fields:
            value = getattr(config, entry.name)
            if entry.name == "method_settings":
                values |= dict(text.split("=", 1) for text in value)
            elif value != getattr(default, entry.name):
                values[entry.name] = value
        return values

    every = [values_of(arm.config) for arm in study.arms]
    shared = {name: value for name, value in every[0].items() if all(other.get(name) == value for other in every)}
    head: dict[str, Any] = {"title": study.title}
    head |= {name: getattr(study, name) for name in ("question", "notes") if getattr(study, name)}
    head |= {"seeds": list(study.seeds), "reference": study.reference, "seed": study.arms[0].config.seed}
    if study.margin is not None:
        head["margin"] = study.margin
    folders = {arm.config.data for arm in study.arms}
    if len(folders) == 1 and (folder := folders.pop()):  # of several tasks each has its usual one
        head["data"] = folder
    head["task"] = study.arms[0].config.task
    arms = [
        {"name": arm.name} | {name: value for name, value in values.items() if name not in shared}
        for arm, values in zip(study.arms, every, strict=True)
    ]
    return comment + yaml.safe_dump(head | shared | {"arms": arms}, sort_keys=False, allow_unicode=True, width=120)


def with_reference(study: Study, text: str) -> Study:
    """A study with another reference: the name of an arm, or "factor=value" that only one arm has."""
    name, equals, value = text.partition("=")
    if equals and text not in [arm.name for arm in study.arms]:
        matching = [arm for arm in study.arms if dict(arm.values).get(name.strip()) == value.strip()]
        if len(matching) == 1:
            return replace(study, reference=matching[0].name)
    return replace(study, reference=text)
