"""Study: a question, the arms that answer it and their seeds, as plain data.

An arm is one setting of what is asked about. Every arm trains with every seed, and the runs of one seed share images,
order and random numbers, so that arms are compared in pairs. Arms are the product of the values of factors, or a list.

    arms, notes = product(base, {"method": ["mlae", "lora"], "drop_rate": ["0", "0.3", "0.5"]})
    Study("Which p?", arms, seeds=(0, 1, 2)).cells()      # seed by seed: a partial study already compares all arms
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product as combinations
from typing import Any

from mlae_lab.core import catalog, recipes
from mlae_lab.core import method as methods
from mlae_lab.core.choice import ChoiceRule
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import NAMES, fitted, paper_patterns, pattern
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.sanitize import one_line, printable
from mlae_lab.core.settings import ConfigError, Setting, setting_of, settings_of
from mlae_lab.errors import LabError

MAX_ARMS = 1_000
MAX_SEEDS = 100
MAX_RUNS = 5_000
MAX_TITLE = 120  # characters
MAX_NAME = 400  # of an arm
# Factors of the mask, in the order in which they are applied, with their names in an arm's name.
PLAN_FACTORS = {"mask": "mask", "drop_rate": "p", "expert_rank": "expert rank", "coefficient_init": "λ"}
_FIRST = ("task", "backbone", "method", "recipe")  # later factors change what these set
_UNFIT = ("plan", "seed", "data", "data_label", "data_notes", "data_fingerprint", "method_settings", "max_seconds")


@dataclass(frozen=True)
class Arm:
    """One arm. name: unique in its study; values: (factor, value as text); config: of its run with the first seed."""

    name: str
    values: tuple[tuple[str, str], ...]
    config: RunConfig


@dataclass(frozen=True)
class Cell:
    """One run of a study: an arm with a seed."""

    arm: str
    seed: int
    config: RunConfig


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        title: What it is about.
        arms: At least one, in the order of their names on a page.
        seeds: Different whole numbers, at least one.
        question: What it shall answer, "" for none.
        reference: Name of the arm that the others are compared with, by default the first.
        margin: Differences below this number of percentage points count as equivalent; None: equivalence is not tested.
        factors: (name, values as texts) of which the arms are the product; empty for a list of arms.
        notes: Free text.
        choice: How it chooses an arm (`core.choice_study`), None for a study that only compares.

    Raises:
        ConfigError: A value breaks its rule.
    """

    title: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    question: str = ""
    reference: str = ""
    margin: float | None = None
    factors: tuple[tuple[str, tuple[str, ...]], ...] = ()
    notes: str = ""
    choice: ChoiceRule | None = None

    def __post_init__(self) -> None:
        arms = tuple(replace(arm, name=one_line(arm.name)) for arm in self.arms)
        object.__setattr__(self, "arms", arms)
        for name in ("title", "question", "reference"):
            object.__setattr__(self, name, one_line(getattr(self, name)))
        object.__setattr__(self, "notes", "\n".join(map(printable, self.notes.splitlines())))
        if not 1 <= len(self.title) <= MAX_TITLE:
            raise ConfigError(f"the title has {len(self.title)} characters: it must have 1 to {MAX_TITLE}")
        if not 1 <= len(self.arms) <= MAX_ARMS:
            raise ConfigError(f"the study has {len(self.arms):,} arms: it must have 1 to {MAX_ARMS:,}")
        _check_seeds(self.seeds)
        if len(self.arms) * len(self.seeds) > MAX_RUNS:
            raise ConfigError(
                f"the study has {len(self.arms) * len(self.seeds):,} runs, {len(self.arms):,} arms with "
                f"{len(self.seeds)} seeds: it must have at most {MAX_RUNS:,}"
            )
        _check_arms(self.arms)
        names = [arm.name for arm in self.arms]
        object.__setattr__(self, "reference", self.reference or names[0])
        if self.reference not in names:
            raise ConfigError(f"the reference is {self.reference[:60]!r}, which is no arm: choose from {_few(names)}")
        if self.margin is not None and not 0 < self.margin <= 100:
            raise ConfigError(f"margin is {self.margin!r}: it must be above 0 and at most 100 percentage points")

    @property
    def runs(self) -> int:
        """Number of its runs."""
        return len(self.arms) * len(self.seeds)

    @property
    def hash(self) -> str:
        """Twelve hex digits that identify arms and seeds."""
        cells = [(cell.arm, cell.seed, cell.config.hash) for cell in self.cells()]
        return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:12]

    @property
    def compared(self) -> tuple[tuple[str, tuple[Arm, ...]], ...]:
        """The arms that are compared with one another, (reference, arms), those of the study's reference last.

        These are all, but where arms are chosen by successive halving only those with equally many epochs: the
        reference of a shorter stage is the arm with the values of the study's reference.
        """
        if self.choice is None:
            return ((self.reference, self.arms),)
        wanted, groups = _without("epochs", self.arm(self.reference)), []
        for epochs, _ in self.choice.rungs:
            arms = tuple(arm for arm in self.arms if arm.config.epochs == epochs)
            names = [arm.name for arm in arms if _without("epochs", arm) == wanted]
            groups.append((names[0] if names else "", arms))
        return tuple(groups)

    def arm(self, name: str) -> Arm:
        """An arm by its name. Raises ConfigError for an unknown one."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ConfigError(f"{name[:60]!r} is no arm of the study: choose from {_few([arm.name for arm in self.arms])}")

    @property
    def references(self) -> dict[str, str]:
        """Each arm to the name of the arm that it is compared with; a reference to itself.

        Accuracies on different tasks are not compared: with several tasks, the reference of an arm is that arm of its
        task whose other values are those of `reference`. Without such an arm it is the first arm of its task.
        """
        task_of = {arm.name: arm.config.task for arm in self.arms}
        if self.choice is not None:
            return {arm.name: reference for reference, arms in self.compared for arm in arms}
        if len(set(task_of.values())) == 1:
            return dict.fromkeys(task_of, self.reference)
        wanted = _without("task", self.arm(self.reference))
        by_task = {arm.config.task: arm.name for arm in self.arms if _without("task", arm) == wanted}
        by_task[task_of[self.reference]] = self.reference
        first: dict[str, str] = {}
        for name, task in task_of.items():
            first.setdefault(task, name)
        return {name: by_task.get(task, first[task]) for name, task in task_of.items()}

    @property
    def reference_title(self) -> str:
        """What a sentence calls the reference."""
        if self.choice is not None:
            return self.reference
        return self.reference if len(set(self.references.values())) == 1 else "the reference of the same task"

    def cells(self) -> Iterator[Cell]:
        """Its runs: every arm with the first seed, then every arm with the next."""
        for seed in self.seeds:
            for arm in self.arms:
                yield Cell(arm.name, seed, replace(arm.config, seed=seed))

    def extended(self, seeds: Sequence[int] = (), arms: Sequence[Arm] = ()) -> Study:
        """The study with more seeds or arms, which come last. Seeds that it has are left out.

        Raises:
            ConfigError: An arm has the name or the settings of another one, or it becomes too large.
        """
        return replace(
            self,
            seeds=(*self.seeds, *(seed for seed in seeds if seed not in self.seeds)),
            arms=(*self.arms, *arms),
        )

    def to_dict(self) -> dict:
        """Plain data."""
        return {
            "title": self.title, "question": self.question, "notes": self.notes,
            "factors": {name: list(values) for name, values in self.factors},
            "arms": [
                {"name": arm.name, "values": dict(arm.values), "config": arm.config.to_dict()} for arm in self.arms
            ],
            "seeds": list(self.seeds), "reference": self.reference, "margin": self.margin,
        } | ({"choice": self.choice.to_dict()} if self.choice else {})  # fmt: skip

    @classmethod
    def from_dict(cls, data: Any) -> Study:
        """The inverse of `to_dict`. Raises ConfigError for anything else."""
        try:
            arms = tuple(
                Arm(str(arm["name"]), _texts(arm["values"]), RunConfig.stored(arm["config"])) for arm in data["arms"]
            )
            factors = tuple((str(name), tuple(map(str, values))) for name, values in data["factors"].items())
            return cls(
                str(data["title"]), arms, tuple(data["seeds"]), str(data["question"]), str(data["reference"]),
                data["margin"], factors, str(data["notes"]),
                ChoiceRule.from_dict(data["choice"]) if data.get("choice") else None,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            if isinstance(error, LabError):
                raise
            raise ConfigError(f"the description of the study is damaged ({type(error).__name__}: {error})") from None


def _without(name: str, arm: Arm) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in arm.values if pair[0] != name)


def _texts(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(value)) for name, value in values.items())


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _check_seeds(seeds: Sequence[int]) -> None:
    if not 1 <= len(seeds) <= MAX_SEEDS:
        raise ConfigError(f"the study has {len(seeds)} seeds: it must have 1 to {MAX_SEEDS}")
    entry = setting_of(RunConfig, "seed")
    for seed in seeds:
        entry.check(seed)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"the seeds {', '.join(map(str, seeds[:12]))} are not all different: name each once")


def _check_arms(arms: Sequence[Arm]) -> None:
    by_name: dict[str, Arm] = {}
    by_config: dict[str, Arm] = {}
    for arm in arms:
        if not 1 <= len(arm.name) <= MAX_NAME:
            raise ConfigError(f"the name of an arm has {len(arm.name)} characters: it must have 1 to {MAX_NAME}")
        if arm.name in by_name:
            raise ConfigError(f"two arms are named {arm.name[:60]!r}: give each its own name")
        if early := arm.config.ends_early:
            raise ConfigError(
                f"{arm.name} has {early}, so its runs would train for different numbers of steps: set no time limit "
                "and no early stopping"
            )
        known = by_config.setdefault(arm.config.canonical("seed"), arm)
        if known is not arm:
            raise ConfigError(f"the arms {known.name} and {arm.name} have the same settings: leave one out")
        by_name[arm.name] = arm


# ---------------------------------------------------------------- factors


def product(
    base: RunConfig,
    factors: Mapping[str, Sequence[str]],
    complete: Callable[[RunConfig], RunConfig] = lambda config: config,
) -> tuple[tuple[Arm, ...], tuple[str, ...]]:
    """The arms that combine all values of all factors.

    A factor that has no meaning for an arm, such as the drop rate of a method without a mask, is left out of it; arms
    that become equal are one.

    Args:
        base: Settings that all arms share where no factor sets them; its seed is the first.
        factors: Name to values as texts. A name is that of a setting of a run or of a method, "recipe", or one of
            `PLAN_FACTORS`.
        complete: Finds the images of a config and their fingerprint, as `data.tasks.located` does.

    Returns:
        The arms, and one sentence for what was left out.

    Raises:
        ConfigError: An unknown factor, or a value that breaks its rule.
    """
    factors = {name: factors[name] for name in sorted(factors, key=_order)}
    for name, values in factors.items():
        check_factor(name, values)
    if math.prod(len(values) for values in factors.values()) > MAX_ARMS:
        raise ConfigError(
            f"the factors have {math.prod(map(len, factors.values())):,} combinations: choose at most {MAX_ARMS:,}"
        )
    arms: dict[RunConfig, list[tuple[str, str]]] = {}
    completed: dict[RunConfig, RunConfig] = {}
    equal, is_partial = 0, False
    for chosen in combinations(*factors.values()):
        wanted = dict(zip(factors, chosen, strict=True))
        try:
            config, used = configured(base, wanted)
        except ConfigError as error:
            arm = ", ".join(f"{name} = {text[:60]}" for name, text in wanted.items())
            raise ConfigError(f"{error} (in the arm {arm})") from None
        if config not in completed:
            completed[config] = complete(config)
        equal += completed[config] in arms
        is_partial = is_partial or len(used) < len(wanted)
        arms.setdefault(completed[config], [(name, wanted[name]) for name in used])
    varying = {name for name, values in factors.items() if len(values) > 1}
    names = _unique([_name(values, varying) or config.tuning.title for config, values in arms.items()])
    listed = tuple(Arm(name, tuple(values), config) for name, (config, values) in zip(names, arms.items(), strict=True))
    combined = "combination is equal to another one" if equal == 1 else "combinations are equal to others"
    cause = "a factor has no meaning there" if is_partial else "values are equal"
    notes = (f"{equal} {combined} because {cause}: counted once.",) if equal else ()
    return listed, notes


def _order(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def check_factor(name: str, values: Sequence[str]) -> None:
    """Raise ConfigError for a name that is no factor, and for values that are missing or repeated."""
    if name in _UNFIT or not (name in PLAN_FACTORS or name == "recipe" or _run_setting(name) or _of_methods(name)):
        raise ConfigError(
            f"{name[:60]!r} is no factor: choose {', '.join(PLAN_FACTORS)}, recipe, or a setting of a run or a method"
        )
    if name in ("protocol", "folds") and len(values) > 1:
        raise ConfigError(
            f"{name} has the values {', '.join(values)[:80]}: their accuracies are not comparable, so choose one"
        )
    if not values:
        raise ConfigError(f"the factor {name} has no values: give at least one")
    if len(set(values)) < len(values):
        raise ConfigError(f"the values {', '.join(values)[:80]} of {name} are not all different: name each once")


def _run_setting(name: str) -> Setting | None:
    return next((entry for entry in settings_of(RunConfig) if entry.name == name), None)


def _of_methods(name: str) -> bool:
    return any(entry.name == name for known in methods.available()[0].values() for entry in settings_of(known))


def configured(base: RunConfig, values: Mapping[str, str]) -> tuple[RunConfig, tuple[str, ...]]:
    """A config with other values, and the names of those that have a meaning for it.

    Args:
        base: The config to change.
        values: Factor to value, as texts.

    Raises:
        ConfigError: A value breaks its rule.
    """
    used = []
    config = base
    for name in (*(n for n in _FIRST if n in values), *(n for n in values if n not in _FIRST)):
        changed = _changed(config, name, values[name], values)
        if changed is not None:
            config = changed
            used.append(name)
    return config, tuple(name for name in values if name in used)


def _changed(config: RunConfig, name: str, text: str, values: Mapping[str, str]) -> RunConfig | None:
    """A config with one other value, None where that has no meaning."""
    if name == "method":
        return _with_method(config, text)
    if name == "recipe":
        own = "vtab" if text == config.method == "mlae" else text  # MLAE's recipe is its own one
        recipe = recipes.values_of(config, own)
        return replace(config, **{field: value for field, value in recipe.items() if field not in values})
    if name in PLAN_FACTORS:
        return replace(config, plan=_planned(config, name, text)) if config.has_mask else None
    if (entry := _run_setting(name)) is not None:
        if entry.method not in ("", config.method):
            return None
        others = {"image_size": 0} if name == "backbone" and "image_size" in values else {}  # set after it
        changed = replace(config, **others, **{name: entry.from_text(text)})
        if name == "backbone" and config.has_mask:
            targets = catalog.backbone(changed.backbone).default_targets
            return replace(changed, plan=fitted(config.plan, targets))
        return changed
    own = {known.name: known for known in settings_of(methods.method(config.method))}
    if name not in own:
        return None
    kept = [known for known in config.method_settings if known.partition("=")[0] != name]
    return replace(config, method_settings=(*kept, f"{name}={text}"))


def _with_method(config: RunConfig, name: str) -> RunConfig:
    """A config with another method, without settings of the one before."""
    if name == config.method:
        return config
    own = {entry.name: entry.default for entry in settings_of(RunConfig) if entry.method not in ("", name)}
    return replace(config, method=name, method_settings=(), **own)


def _planned(config: RunConfig, name: str, text: str) -> MaskPlan:
    plan = config.plan
    if name == "mask":
        return named_plan(text, config.backbone)
    entry = _PLAN_SETTINGS[name]
    value = entry.check(entry.from_text(text))
    return plan.with_rates((value,) * plan.rows) if name == "drop_rate" else replace(plan, **{name: value})


_PLAN_SETTINGS = {
    "drop_rate": Setting("Drop rate", noun="drop rate", kind=float, low=0, high=0.999),
    "expert_rank": Setting("Expert rank", noun="expert rank", kind=int, low=1, high=64),
    "coefficient_init": Setting("Initial λ", noun="initial λ", kind=float, low=-100, high=100),
}


def named_plan(text: str, backbone: str) -> MaskPlan:
    """The plan that a text names, fitted to a backbone if it is a pattern.

    Args:
        text: A pattern, such as hourglass or hourglass.mixed, or a mask code.
        backbone: Name of the backbone.

    Raises:
        PlanError: Another text.
    """
    name, _, kind = text.partition(".")
    if name in NAMES:
        return fitted(pattern(name, kind or None), catalog.backbone(backbone).default_targets)
    return MaskPlan.from_code(text)


# ---------------------------------------------------------------- names of arms


def shown(name: str, text: str) -> str:
    """A value of a factor as it stands in an arm's name: "p = 0.3", "LoRA", "epochs = 8"."""
    if name == "method":
        try:
            return methods.method(text).title
        except methods.UnavailableMethod:  # of a stored study
            return text
    if name == "mask":
        return _title_of_mask(text)
    if name in ("task", "backbone"):
        return (catalog.task if name == "task" else catalog.backbone)(text).title
    if name == "recipe":
        return f"{text} recipe"
    if name in PLAN_FACTORS:
        return f"{PLAN_FACTORS[name]} = {text}"
    entry = _run_setting(name)
    return f"{entry.label.lower() if entry else name} = {text}"


def _title_of_mask(text: str) -> str:
    if not text.startswith("m1_"):
        return text.replace(".", ", ").capitalize()
    plan = MaskPlan.from_code(text)
    known = next(
        (p.title for p in paper_patterns() if (p.plan.keep, p.plan.drop_rate) == (plan.keep, plan.drop_rate)), ""
    )
    return known or f"{plan.kind_name.capitalize()}, {plan.experts} experts"


def _name(values: Sequence[tuple[str, str]], varying: set[str]) -> str:
    return ", ".join(shown(name, text) for name, text in values if name in varying)


def _unique(names: Sequence[str]) -> list[str]:
    return [
        name if names.count(name) == 1 else f"{name} ({names[: number + 1].count(name)})"
        for number, name in enumerate(names)
    ]
