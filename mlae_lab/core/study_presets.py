"""Presets: the studies that have separate buttons and commands. A preset only fills in a `Study`.

    repeats     one arm, several seeds: how much the seed alone changes the accuracy
    pair        a mask compared with another one, and on request with the linear probe
    race        2 to 8 masks with equal settings
    diversity   does masking make experts less similar? Four kinds of dropout at several drop rates

What a page shows of a study depends on its arms (`compared_masks`, `dropout_arms`), not on the preset that made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import EXPERTS, dense, fitted, paper_patterns
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.settings import ConfigError
from mlae_lab.core.study import MAX_TITLE, Arm, Study, configured
from mlae_lab.locations import PROGRAM

MAX_MASKS = 8
MAX_SEEDS = 10
MAX_REPEATS = 30
ENOUGH_SEEDS = 3
Names = Mapping[MaskPlan, str]  # of saved masks


def repeats(config: RunConfig, seeds: Sequence[int]) -> Study:
    """The same run with several seeds. Raises ConfigError for a time limit or a seed out of range."""
    name = mask_names([config.plan])[0] if config.has_mask else config.tuning.title
    arm = Arm(name, (), replace(config, seed=seeds[0]))
    return Study(
        _title(f"{name} on {_task(config)}, several seeds"), (arm,), tuple(seeds),
        "How much does the seed alone change the accuracy?",
    )  # fmt: skip


def pair(
    config: RunConfig, plan: MaskPlan, seeds: int = ENOUGH_SEEDS, probe: bool = False, known: Names | None = None
) -> Study:
    """A mask, the reference, compared with another one.

    Args:
        config: The run with the mask; its seed is the first.
        plan: The other mask.
        seeds: Their number, 1 to 10.
        probe: Add the linear probe as an arm.
        known: Names of saved masks.

    Raises:
        ConfigError: The same mask, a method without a mask, a time limit, or a number of seeds out of range.
        CatalogError: The mask is on layers that the backbone does not have.
    """
    if plan == config.plan and config.has_mask:
        raise ConfigError("both masks are the same: choose another one to compare with")
    arms = _mask_arms(config, [config.plan, plan], known, probe)
    title = f"{arms[0].name} and {arms[1].name} on {_task(config)}"
    question = "What does the mask change?"
    return Study(_title(title), arms, consecutive(config, seeds), question)


def race(
    config: RunConfig, plans: Sequence[MaskPlan], seeds: int = 1, known: Names | None = None, probe: bool = False
) -> Study:
    """Several masks with equal settings; the first is the reference.

    Args:
        config: All settings except the mask; its seed is the first.
        plans: 2 to 8 different masks.
        seeds: Their number, 1 to 10.
        known: Names of saved masks.
        probe: Add the linear probe as an arm.

    Raises:
        ConfigError: A number out of range, equal masks, a method without a mask or a time limit.
        CatalogError: A mask is on layers that the backbone does not have.
    """
    if not 2 <= len(plans) <= MAX_MASKS:
        raise ConfigError(f"a race has {len(plans)} mask{'s' * (len(plans) != 1)}: choose 2 to {MAX_MASKS}")
    repeated = next((i for i, plan in enumerate(plans) if plan in plans[:i]), None)
    if repeated is not None:
        raise ConfigError(
            f"masks {plans.index(plans[repeated]) + 1} and {repeated + 1} are the same: choose different masks"
        )
    return Study(
        _title(f"Race of {len(plans)} masks on {_task(config)}"), _mask_arms(config, plans, known, probe),
        consecutive(config, seeds), "Which of these masks is the most accurate?",
    )  # fmt: skip


def race_command(config: RunConfig, plans: Sequence[MaskPlan], seeds: int = 1, probe: bool = False) -> str:
    """The equivalent command of a race, or of a pair of new runs."""
    masks = " ".join(f"--mask '{plan.code}'" for plan in plans)
    text = config.command().replace(f"{PROGRAM} train", f"{PROGRAM} race", 1)
    mask = f"--mask '{config.plan.code}'"
    return f"{text.replace(mask, masks, 1)} --seeds {seeds}" + " --linear-probe" * probe


def compared_masks(study: Study) -> tuple[Arm, ...]:
    """The arms of a study that are masks with equal settings, 2 to 8 of them; none for another study."""
    masks = tuple(arm for arm in study.arms if arm.config.has_mask)
    is_few = 2 <= len(masks) <= MAX_MASKS
    return masks if is_few and len({arm.config.canonical("plan", "seed") for arm in masks}) == 1 else ()


def consecutive(config: RunConfig, seeds: int, most: int = MAX_SEEDS) -> tuple[int, ...]:
    """So many seeds, starting with that of a config. Raises ConfigError for a number that is not 1 to `most`."""
    if type(seeds) is not int or not 1 <= seeds <= most:
        raise ConfigError(f"seeds is {seeds!r}: it must be a whole number from 1 to {most}")
    return tuple(range(config.seed, config.seed + seeds))


def _mask_arms(config: RunConfig, plans: Sequence[MaskPlan], known: Names | None, probe: bool) -> tuple[Arm, ...]:
    if not config.has_mask:
        raise ConfigError(f"the method is {config.method} and has no mask: choose mlae")
    arms = tuple(
        Arm(name, (("mask", plan.code),), replace(config, plan=plan))
        for name, plan in zip(mask_names(plans, known), plans, strict=True)
    )
    if not probe:
        return arms
    return (*arms, Arm("Linear probe", (("method", "linear"),), configured(config, {"method": "linear"})[0]))


def _task(config: RunConfig) -> str:
    return catalog.task(config.task).title


def _title(text: str) -> str:
    return text if len(text) <= MAX_TITLE else f"{text[: MAX_TITLE - 1]}…"


# ---------------------------------------------------------------- names of masks


def mask_names(plans: Sequence[MaskPlan], known: Names | None = None) -> list[str]:
    """A short, unique name for each mask: its name in the library, the paper's, else its kind and number of experts;
    equal names get a number."""
    paper = {(pattern.plan.keep, pattern.plan.drop_rate): pattern.title for pattern in paper_patterns()}
    first = [(known or {}).get(plan) or _name(plan, paper) for plan in plans]
    return [
        name if first.count(name) == 1 else f"{name} ({first[: i + 1].count(name)})" for i, name in enumerate(first)
    ]


def _name(plan: MaskPlan, paper: Mapping[tuple, str]) -> str:
    rates = {p for row in plan.rates for p in row}
    rate = f", p = {rates.pop():g}" if len(rates) == 1 and rates != {0.0} else ""
    if title := paper.get((plan.keep, plan.drop_rate)):
        return title.replace(", stochastic", "") + rate if title.startswith("Uniform") else title + rate
    if plan.experts == plan.rows * plan.columns and rate:
        return "Uniform" + ("" if plan.columns == EXPERTS else f", {plan.experts} experts") + rate
    return f"{plan.kind_name.capitalize()}, {plan.experts} experts{rate}"


# ---------------------------------------------------------------- diversity

RATES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
EPOCHS = 8  # default of the page and of the command line
MAX_RATES = 12
DROPOUTS = {
    "dense": "Dense",
    "expert": "Expert dropout",
    "token": "Rank dropout per token",
    "lora": "LoRA with dropout",
}
_DROPOUT, _RATE = "dropout", "drop_rate"  # factors of its arms


def diversity(
    config: RunConfig, rates: Sequence[float] = RATES, seeds: int = ENOUGH_SEEDS, experts: int = EXPERTS
) -> Study:
    """Does masking make experts less similar?

    The paper says so (section 4.3, appendix A.4). One network is trained many times with equal settings, where only the
    kind of dropout, its rate p and the seed differ:

        dense    every expert in every step, the reference
        expert   an expert is dropped for a whole step and batch: the paper's mask
        token    an expert is dropped for single tokens: ordinary dropout on z = A x, the same noise without structure
        lora     no mask, λ stays 1, entries of x are dropped in front of A: LoRA with dropout

    At p = 0 the arms expert and token are the dense run. LoRA without dropout is an arm: its λ is not trained.

    Args:
        config: Its settings; mask and dropout are set by the arms, its seed is the first.
        rates: Each in [0, 0.9], at most 12; 0 is always added.
        seeds: Their number, 1 to 10.
        experts: Per layer.

    Raises:
        ConfigError: A value out of range, a method without a mask, a time limit, or settings that contain a dropout.
    """
    if not 1 <= len(rates) <= MAX_RATES or not all(0 <= rate <= 0.9 for rate in rates):
        raise ConfigError(f"rates are {', '.join(f'{r:g}' for r in rates)}: give 1 to {MAX_RATES}, each from 0 to 0.9")
    if not config.has_mask:
        raise ConfigError(f"the method is {config.method} and has no experts: choose mlae")
    if config.mask_per != "step" or config.input_dropout or config.consistency or config.learned_drop_rates != "off":
        raise ConfigError(
            "the arms set mask-per, input-dropout, consistency and learned drop rates: leave all at their defaults"
        )
    plan = fitted(dense(experts=experts), catalog.backbone(config.backbone).default_targets)
    config = replace(config, plan=plan)
    arms = [_dropout_arm(config, "dense", 0.0)]
    for rate in sorted({0.0, *(round(float(rate), 4) for rate in rates)}):
        arms += [_dropout_arm(config, name, rate) for name in (("expert", "token", "lora") if rate else ("lora",))]
    return Study(
        _title(f"Diversity of experts on {_task(config)}"), tuple(arms), consecutive(config, seeds),
        "Does masking make experts less similar?",
    )  # fmt: skip


def _dropout_arm(config: RunConfig, dropout: str, rate: float) -> Arm:
    plan = config.plan
    if dropout in ("expert", "token"):
        plan = plan.with_rates((rate,) * plan.rows)
    if dropout == "lora":
        plan = replace(plan, coefficient_init=1.0, train_coefficients=False)
    name = "LoRA without dropout" if dropout == "lora" and not rate else DROPOUTS[dropout]
    return Arm(
        f"{name}, p = {rate:g}" if rate else name,
        ((_DROPOUT, dropout), (_RATE, f"{rate:g}")),
        replace(
            config, plan=plan, mask_per="token" if dropout == "token" else "step",
            input_dropout=rate if dropout == "lora" else 0.0,
        ),
    )  # fmt: skip


def dropout_arms(study: Study) -> dict[tuple[str, float], Arm] | None:
    """The arms of a study of diversity by dropout and p; None for another study."""
    arms = {}
    for arm in study.arms:
        values = dict(arm.values)
        if values.get(_DROPOUT) not in DROPOUTS:
            return None
        arms[values[_DROPOUT], float(values[_RATE])] = arm
    return arms if ("dense", 0.0) in arms else None


def diversity_command(study: Study) -> str:
    """The equivalent command of a study of diversity: it starts the missing runs and prints the result.

    "" for seeds that do not follow one another: the command takes the first and their number.
    """
    if study.seeds != tuple(range(study.seeds[0], study.seeds[0] + len(study.seeds))):
        return ""
    arms = dropout_arms(study)
    assert arms is not None  # of another study there is none
    config = replace(arms["dense", 0.0].config, seed=study.seeds[0])
    text = config.command().replace(f"{PROGRAM} train", f"{PROGRAM} diversity", 1)
    mask, experts = f" --mask '{config.plan.code}'", max(config.plan.kept)
    width = "" if experts == EXPERTS else f" --experts {experts}"
    rates = ",".join(f"{rate:g}" for rate in sorted({rate for _, rate in arms}))
    return f"{text.replace(mask, width, 1)} --seeds {len(study.seeds)} --rates {rates}"
