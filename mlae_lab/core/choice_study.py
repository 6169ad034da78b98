"""Choosing p, initial λ and learning rate for a task: a study on train → val, with a rule that chooses one of its arms.

The arms are the grid of a few values for each setting; the first value of each is the default. The largest grid that
the budget allows is taken. Where that makes room for more arms, it is searched by successive halving (Jamieson and
Talwalkar 2016, arXiv:1502.07943) over epochs: all arms train for a quarter of the epochs with a complete schedule,
a quarter of the arms, or as many as the budget allows up to half, for all epochs: the default and the best of the
others. What is chosen follows from the stored runs alone
(`core.choice`), so nothing but the arms and the rule is kept.

For a large budget a sampler may propose the arms one after the other from a range of each setting (`ChoiceRule.space`,
`runs.sampling`); the default is the first arm. With `RunConfig.folds` the seeds are folds of a cross-validation.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product as combinations
from statistics import fmean

from mlae_lab.core import catalog
from mlae_lab.core.choice import Choice, ChoiceRule, FirstStage, Scores, choose, kept_arms
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.core.settings import ConfigError, option_arguments, setting_of
from mlae_lab.core.study import MAX_ARMS, MAX_RUNS, Arm, Study, check_factor, configured, product, shown
from mlae_lab.locations import PROGRAM

FACTORS = ("drop_rate", "coefficient_init", "learning_rate")
SEEDS = 2
FINAL_SEEDS = 3
_PREFERRED = ("drop_rate", "learning_rate", "coefficient_init")  # which of two equally large grids is taken
_DEFAULT_P, _DEFAULT_INIT = "0.5", "1"  # the best single setting for all tasks of VTAB-1k (Table 15 of the paper)
_SHARE = 4  # a short run has a quarter of the epochs, and a quarter of the arms survive it
_LEAST_EPOCHS = 8  # of a full run, for short ones to say anything
_LEAST_ARMS = 6  # fewer train for all epochs at once
LEAST_SAMPLED = 20  # arms; a sampler that learns from ten random ones needs some more for that to pay


def proposed(base: RunConfig, is_sampled: bool = False) -> dict[str, tuple[str, ...]]:
    """The values that are tried for each setting, in the order in which a growing budget adds them, the default first.

    p and initial λ are from the paper's grids (0 to 0.9, 0.125 to 4); the learning rate is that of the run, twice and
    two fifths of it.

    Args:
        base: All other settings.
        is_sampled: Return the default, the lowest and the highest value of each range that a sampler searches.
    """
    rate = base.learning_rate
    if is_sampled:
        return {
            "drop_rate": (_DEFAULT_P, "0", "0.9"),
            "coefficient_init": (_DEFAULT_INIT, "0.125", "4"),
            "learning_rate": tuple(f"{value:.6g}" for value in (rate, rate / 4, 4 * rate)),
        }
    return {
        "drop_rate": (_DEFAULT_P, "0", "0.3"),
        "coefficient_init": (_DEFAULT_INIT, "4", "0.25"),
        "learning_rate": tuple(f"{value:.6g}" for value in (rate, 2 * rate, 0.4 * rate)),
    }


@dataclass(frozen=True)
class Design:
    """A grid and how it is searched.

    Attributes:
        values: Setting to the values that are tried.
        rungs: As of `ChoiceRule`.
        cost: Of all runs, in the unit of the budget.
    """

    values: Mapping[str, tuple[str, ...]]
    rungs: tuple[tuple[int, int], ...]
    cost: float

    @property
    def arms(self) -> int:
        """Number of combinations that are tried."""
        return self.rungs[0][1]


def design(
    values: Mapping[str, Sequence[str]],
    epochs: int,
    seeds: int,
    budget: float,
    cost_of: Callable[[int], float],
    folds: int = 0,
) -> Design:
    """The design with the most arms within a budget, and of equally large ones that with the most full runs.

    Args:
        values: As of `proposed`.
        epochs: Of a full run.
        seeds: Of every arm; with folds, their number times that of the divisions.
        budget: Upper limit of the cost.
        cost_of: Epochs to the cost of one run.
        folds: Of a cross-validation, 0 for none.

    Raises:
        ConfigError: The budget does not allow two arms.
    """
    full, short = cost_of(epochs), cost_of(max(1, epochs // _SHARE))
    designs = []
    for counts in combinations(*(range(1, len(values[name]) + 1) for name in values)):
        arms = math.prod(counts)
        if arms < 2:
            continue
        grid = {name: tuple(values[name][:count]) for name, count in zip(values, counts, strict=True)}
        designs.append(Design(grid, ((epochs, arms),), seeds * arms * full))
        if arms >= _LEAST_ARMS and epochs >= _LEAST_EPOCHS:
            designs += [
                Design(grid, ((epochs // _SHARE, arms), (epochs, longer)), seeds * (arms * short + longer * full))
                for longer in range(max(2, math.ceil(arms / _SHARE)), arms // 2 + 1)
            ]
    affordable = [entry for entry in designs if entry.cost <= budget * (1 + 1e-9)]
    if not designs:
        raise ConfigError("every setting has one value: give p, initial λ or learning rate two or more")
    if not affordable:
        least = min(entry.cost for entry in designs)
        divisions = seeds // folds if folds else 0
        unit = "division" if divisions > 1 else "fold" if folds else "seed"
        count = f"{seeds} {unit}{'s' * (seeds != 1)}" if divisions < 2 else f"{divisions} divisions of {folds} folds"
        raise ConfigError(
            f"the budget is {budget:g}, and two arms with {count} take {least:.3g}: allow at least {math.ceil(least)}, "
            f"or fewer {unit}s"
        )
    return max(
        affordable,
        key=lambda entry: (
            entry.arms, entry.rungs[-1][1],
            *(len(entry.values[name]) for name in _PREFERRED if name in entry.values),
        ),
    )  # fmt: skip


def seeds_of(base: RunConfig, count: int) -> tuple[int, ...]:
    """The seeds of a choice. count: seeds, or divisions of the images in a cross-validation."""
    return tuple(range(count * max(1, base.folds)))


def choice_study(
    base: RunConfig,
    budget: float,
    unit: str = "runs",
    seconds_of: Callable[[RunConfig], float] | None = None,
    values: Mapping[str, Sequence[str]] | None = None,
    seeds: Sequence[int] = tuple(range(SEEDS)),
    complete: Callable[[RunConfig], RunConfig] = lambda config: config,
    is_sampled: bool = False,
) -> tuple[Study, Design]:
    """The study that chooses p, initial λ and learning rate.

    Args:
        base: All other settings. The protocol is set to "val".
        budget: Upper limit, above 0.
        unit: Of the budget, "runs" or "seconds".
        seconds_of: Estimated seconds of a run, for a budget in seconds.
        values: As of `proposed`, in place of it.
        seeds: Of every arm.
        complete: As of `core.study.product`.
        is_sampled: Whether a sampler proposes the arms, from the lowest to the highest of the values.

    Raises:
        ConfigError: A value breaks its rule, or the budget does not allow two arms, of a sampler `LEAST_SAMPLED`.
    """
    if not base.has_mask:
        raise ConfigError(f"the method {base.method} has no masked experts, so there is no p to choose: choose mlae")
    if base.learned_drop_rates != "off":
        raise ConfigError(
            f"learned_drop_rates is {base.learned_drop_rates!r}, which leaves only an initial p to choose: set off"
        )
    if not (budget > 0 and math.isfinite(budget)):
        raise ConfigError(f"the budget is {budget:g}: it must be above 0")
    base = replace(base.to_the_end(), protocol="val", keep_best=False, seed=seeds[0])
    values = proposed(base, is_sampled) | dict(values or {})
    for name, texts in values.items():
        check_factor(name, texts)
    cost_of: Callable[[int], float] = lambda epochs: epochs / base.epochs  # noqa: E731
    if unit == "seconds":
        assert seconds_of is not None
        by_epochs = {n: seconds_of(replace(base, epochs=n)) for n in (base.epochs, max(1, base.epochs // _SHARE))}
        cost_of = by_epochs.__getitem__
    if is_sampled:
        return _sampled_study(base, budget, unit, cost_of(base.epochs), values, seeds, complete)
    plan = design(values, base.epochs, len(seeds), budget, cost_of, base.folds)
    first, full = plan.rungs[0][0], base.epochs
    arms, _ = product(base, {**plan.values, "epochs": (str(first),)}, complete)
    if len(arms) < plan.arms:
        raise ConfigError("two of the values are equal: name each once")
    if len(plan.rungs) > 1:
        default = _longer(arms[0], full)
        arms = (*(replace(arm, name=f"{arm.name}, {_epochs(first)}") for arm in arms), default)
    reference = arms[-1 if len(plan.rungs) > 1 else 0].name
    factors = tuple((name, texts) for name, texts in plan.values.items())
    return _study(base, arms, seeds, reference, factors, ChoiceRule(budget, unit, plan.rungs)), plan


def _study(
    base: RunConfig,
    arms: tuple[Arm, ...],
    seeds: Sequence[int],
    reference: str,
    factors: tuple[tuple[str, tuple[str, ...]], ...],
    rule: ChoiceRule,
) -> Study:
    return Study(
        title=f"Choosing p and λ on {catalog.task(base.task).title}"[:120],
        arms=arms,
        seeds=tuple(seeds),
        question="Which drop rate p, initial λ and learning rate, by validation images alone?",
        reference=reference,
        factors=factors,
        choice=rule,
    )


def _sampled_study(
    base: RunConfig,
    budget: float,
    unit: str,
    cost: float,
    values: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    complete: Callable[[RunConfig], RunConfig],
) -> tuple[Study, Design]:
    """As `choice_study`: the default alone, with the rule by which `sampled_arm` adds the others. cost: of a run."""
    space = []
    for name, texts in values.items():
        product(base, {name: texts})  # every value follows the rule of its setting
        numbers = [float(text) for text in texts]
        if len(numbers) > 1:
            space.append((name, min(numbers), max(numbers)))
    if not space:
        raise ConfigError("every setting has one value: give p, initial λ or learning rate a lowest and a highest")
    arms = math.floor(budget * (1 + 1e-9) / (cost * len(seeds)))
    if arms < LEAST_SAMPLED:
        raise ConfigError(
            f"the budget is {budget:g}, which is {arms} settings: a sampler needs at least {LEAST_SAMPLED}, that is a "
            f"budget of {math.ceil(LEAST_SAMPLED * cost * len(seeds))}; below that, a grid chooses better"
        )
    arms = min(arms, MAX_ARMS, MAX_RUNS // len(seeds))  # of a study; the rest of the budget is not spent
    rule = ChoiceRule(budget, unit, ((base.epochs, arms),), tuple(space))
    default = {name: texts[0] for name, texts in values.items()}
    arm = replace(_arm(base, default, rule), config=complete(configured(base, default)[0]))
    tried = {name: tuple(texts) for name, texts in values.items()}
    return _study(base, (arm,), seeds, arm.name, (), rule), Design(tried, rule.rungs, arms * cost * len(seeds))


def _arm(base: RunConfig, values: Mapping[str, str], rule: ChoiceRule) -> Arm:
    sampled = {name for name, _, _ in rule.space}
    name = ", ".join(shown(name, text) for name, text in values.items() if name in sampled)
    return Arm(name, tuple(values.items()), configured(base, values)[0])


def awaits_sample(study: Study, accuracies: Mapping[str, Mapping[int, float]]) -> bool:
    """Whether a sampler is to propose the next arm: all runs so far are through, and the rule allows more arms.

    Args:
        study: Any study.
        accuracies: As of `next_arms`.
    """
    rule = study.choice
    if rule is None or not rule.space or len(study.arms) >= rule.rungs[-1][1]:
        return False
    return all(set(accuracies.get(arm.name, {})) >= set(study.seeds) for arm in study.arms)


def sampled_arm(study: Study, values: Mapping[str, float], digits: int = 3) -> Arm | None:
    """A proposed arm, None if the study has one with these values.

    Args:
        study: With a rule that has a space.
        values: Setting to value, for each setting of the space.
        digits: Significant digits that are kept of a value.
    """
    assert study.choice is not None
    bounds = {name: (low, high) for name, low, high in study.choice.space}
    texts = dict(study.arm(study.reference).values)
    for name, value in values.items():
        low, high = bounds[name]
        text = f"{float(f'{value:.{digits}g}'):.{max(6, digits)}g}"
        texts[name] = text if low <= float(text) <= high else repr(low if float(text) < low else high)
    arm = _arm(study.arm(study.reference).config, texts, study.choice)
    return None if any(known.config == arm.config for known in study.arms) else arm


def _longer(arm: Arm, epochs: int) -> Arm:
    """An arm of a short stage with another number of epochs."""
    values = tuple((name, str(epochs) if name == "epochs" else text) for name, text in arm.values)
    name = arm.name.removesuffix(f", {_epochs(arm.config.epochs)}")
    return Arm(f"{name}, {_epochs(epochs)}", values, replace(arm.config, epochs=epochs))


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def command(
    base: RunConfig, budget: str, values: Mapping[str, Sequence[str]], seeds: int, is_sampled: bool = False
) -> str:
    """The command that starts the same choice.

    Args:
        base: As of `choice_study`.
        budget: As the command takes it, such as "12" or "30min".
        values: As of `proposed`; what is proposed anyway is left out.
        seeds: Number of seeds, or of divisions in a cross-validation.
        is_sampled: As of `choice_study`.
    """
    known = proposed(base, is_sampled)
    usual = setting_of(RunConfig, "learning_rate").initial
    shared = replace(base.to_the_end(), learning_rate=usual, protocol="val", keep_best=False, seed=0)
    words = [f"{PROGRAM} choose --task {shlex.quote(base.task)} --budget {budget} --seeds {seeds}"]
    words += ["--sampler optuna"] if is_sampled else []
    words += [f"--mask '{base.plan.code}'"] if base.plan.keep != uniform(0.5).keep else []
    for name, option in zip(FACTORS, ("drop-rate", "coefficient-init", "lr"), strict=True):
        texts = tuple(values.get(name, known[name]))
        if texts != known[name] or (name == "learning_rate" and base.learning_rate != usual):
            words.append(f"--{option} {','.join(map(shlex.quote, texts))}")
    words += [text for text in option_arguments(shared, "mlae") if text.split()[0] not in ("--lr", "--method")]
    return " ".join(words)


# ---------------------------------------------------------------- while it runs


def next_arms(study: Study, accuracies: Mapping[str, Mapping[int, float]]) -> tuple[Arm, ...]:
    """The arms that train next, () if the stage is not complete or was the last.

    Args:
        study: With a rule.
        accuracies: Arm to seed to accuracy after its last epoch.
    """
    rule, groups = study.choice, study.compared
    if rule is None:
        return ()
    for (reference, arms), (_, longer), (epochs, count) in zip(groups, groups[1:], rule.rungs[1:], strict=False):
        if len(longer) >= count:
            continue
        if not reference or any(set(accuracies.get(arm.name, {})) < set(study.seeds) for arm in arms):
            return ()
        means = {arm.name: fmean(accuracies[arm.name].values()) for arm in arms}
        kept = kept_arms(means, reference, distances(arms, reference), count)
        known = {arm.name for arm in longer}
        return tuple(arm for name in kept if (arm := _longer(study.arm(name), epochs)).name not in known)
    return ()


def finalists(study: Study) -> tuple[Arm, ...]:
    """The arms with all epochs, as far as they are known."""
    return study.compared[-1][1]


def distances(arms: Sequence[Arm], default: str) -> dict[str, int]:
    """By arm, the number of settings in which it differs from the default, which is one of them."""
    own = next(dict(arm.values) for arm in arms if arm.name == default)
    return {arm.name: sum(own.get(name) != text for name, text in arm.values) for arm in arms}


def choice_of(study: Study, scores: Mapping[str, Scores]) -> Choice | None:
    """What a study chooses, None before the runs of its last stage are through.

    Args:
        study: With a rule.
        scores: Of its arms; those of a first stage only serve to say how sure the choice is.
    """
    arms = finalists(study)
    if study.choice is None or len(arms) < study.choice.rungs[-1][1]:
        return None
    folds = max(1, arms[0].config.folds)
    divisions = {seed // folds for seed in study.seeds}  # an incomplete one, of seeds that were added, does not count
    wanted = {d for d in divisions if set(range(d * folds, (d + 1) * folds)) <= set(study.seeds)}
    if any(set(scores[arm.name].accuracies) < wanted for arm in arms if arm.name in scores):
        return None
    if any(arm.name not in scores for arm in arms):
        return None
    first = None
    if len(study.choice.rungs) > 1:
        reference, short = study.compared[0]
        away, epochs = distances(short, reference), study.choice.epochs
        named = {arm.name: _longer(arm, epochs).name for arm in short}
        if all(name in scores for name in named):
            first = FirstStage(
                {longer: scores[name] for name, longer in named.items()},
                {longer: away[name] for name, longer in named.items()},
                study.choice.rungs[1][1],
            )
    finals = {arm.name: scores[arm.name] for arm in arms}
    return choose(finals, study.reference, distances(arms, study.reference), first)


# ---------------------------------------------------------------- the final runs


def tested(config: RunConfig) -> RunConfig:
    """A setting as it is reported: trained on train and val, evaluated on test."""
    return replace(config, protocol="test", folds=0, early_stopping=0, keep_best=False)


def final_study(
    study: Study,
    arms: Sequence[str],
    seeds: Sequence[int],
    complete: Callable[[RunConfig], RunConfig] = lambda config: config,
) -> Study:
    """The study that trains arms on train and val and evaluates them on test.

    Args:
        study: That chose.
        arms: Names of its arms; the default is the reference if it is among them.
        seeds: Of every arm.
        complete: As of `core.study.product`.
    """
    chosen = [study.arm(name) for name in dict.fromkeys(arms)]
    return Study(
        title=f"Final runs: {study.title[:1].lower()}{study.title[1:]}"[:120],
        arms=tuple(replace(arm, config=complete(replace(tested(arm.config), seed=seeds[0]))) for arm in chosen),
        seeds=tuple(seeds),
        question="How good are the chosen settings on test images, and how good is the default?",
        reference=study.reference if study.reference in arms else chosen[0].name,
    )


def repetitions(study: Study) -> str:
    """How often each arm trains, as text: "2 seeds", "5 folds", "5 folds × 2 divisions"."""
    seeds, folds = len(study.seeds), study.arms[0].config.folds
    if not folds:
        return f"{seeds} seed{'s' * (seeds != 1)}"
    return f"{folds} folds" + (f" × {seeds // folds} divisions" if seeds > folds else "")


def stages(study: Study) -> Iterator[str]:
    """The stages of a study with a rule in words."""
    assert study.choice is not None
    for number, (epochs, arms) in enumerate(study.choice.rungs):
        yield f"{arms} settings for {_epochs(epochs)}" + (
            ", the default among them" if number else ", proposed one after the other" if study.choice.space else ""
        )
