"""The diversity experiment: does masking make experts less similar?

The paper says so (section 4.3, appendix A.4). This trains one network many times with equal settings, where only the
kind of dropout, its rate p and the seed differ:

    dense    every expert in every step
    expert   an expert is dropped for a whole step and batch: the paper's mask
    token    an expert is dropped for single tokens: ordinary dropout on z = A x, the same noise without the structure
    lora     no mask, λ stays 1, entries of x are dropped in front of A: LoRA with dropout

Runs of one seed share the initial a, the initial head and the batches, so their differences are paired.

The rule: at one p on one task, "masking makes experts less similar" is supported if the 95 % interval (Student's t
over seeds) of the paired difference in mean |cosine| lies below 0, contradicted if it lies above, and not settled
otherwise. The split into rank-1 parts is not unique; the effective rank of ΔW does not depend on it and is judged by
the same rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from mlae_lab.core import catalog
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.events import SimilarityStats, mean_of
from mlae_lab.core.image_labels import for_new_run
from mlae_lab.core.patterns import EXPERTS, dense, fitted
from mlae_lab.core.random_baseline import RandomBaseline, over_layers, random_experts
from mlae_lab.core.seed_statistics import PERCENT, SeedStatistics, seed_statistics
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import commands, outcomes, pairs
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore

RELATION = "diversity"
RATES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
SEEDS = 3
EPOCHS = 8  # default of the page and of the command line
MAX_RATES = 12
ARMS = {
    "dense": "Dense",
    "expert": "Expert dropout",
    "token": "Rank dropout per token",
    "lora": "LoRA with dropout",
}
MEASURES = {
    "accuracy": "Accuracy, %",
    "absolute": "Mean |cosine|",
    "signed": "Mean cosine",
    "effective_rank": "Effective rank of ΔW",
    "stable_rank": "Stable rank of ΔW",
}
Cell = tuple[str, float, int]  # arm, p, seed


@dataclass(frozen=True)
class Experiment:
    """A diversity experiment.

    Attributes:
        config: Of its dense run with the first seed.
        rates: In ascending order, each in [0, 0.9], 0 included.
        seeds: In ascending order.
    """

    config: RunConfig
    rates: tuple[float, ...]
    seeds: tuple[int, ...]

    def cells(self) -> dict[Cell, RunConfig]:
        """The runs, by seed, then by p.

        At p = 0 the arms expert and token are the dense run and have no cell. LoRA without dropout has one: its λ is
        not trained, so it is not the dense run.
        """
        configs: dict[Cell, RunConfig] = {}
        for seed in self.seeds:
            configs["dense", 0.0, seed] = _arm(self.config, "dense", 0.0, seed)
            for rate in self.rates:
                for arm in ("expert", "token", "lora") if rate else ("lora",):
                    configs[arm, rate, seed] = _arm(self.config, arm, rate, seed)
        return configs

    def command(self) -> str:
        """The equivalent command: it starts the missing runs and prints the result."""
        text = self.config.command().replace(f"{PROGRAM} train", f"{PROGRAM} diversity", 1)
        mask = f" --mask '{self.config.plan.code}'"
        experts = max(self.config.plan.kept)
        rates = ",".join(f"{rate:g}" for rate in self.rates)
        width = "" if experts == EXPERTS else f" --experts {experts}"
        return f"{text.replace(mask, width, 1)} --seeds {len(self.seeds)} --rates {rates}"


def experiment(
    config: RunConfig, rates: Sequence[float] = RATES, seeds: int = SEEDS, experts: int = EXPERTS
) -> Experiment:
    """Describe an experiment.

    Args:
        config: Its settings; mask and dropout are set by the arms, its seed is the first.
        rates: Each in [0, 0.9], at most 12; 0 is always added.
        seeds: Their number, 1 to 10.
        experts: Per layer.

    Raises:
        ConfigError: A value out of range, a method without a mask, a time limit, or settings that contain a dropout.
    """
    if type(seeds) is not int or not 1 <= seeds <= pairs.MAX_SEEDS:
        raise ConfigError(f"seeds is {seeds!r}: it must be a whole number from 1 to {pairs.MAX_SEEDS}")
    if not 1 <= len(rates) <= MAX_RATES or not all(0 <= rate <= 0.9 for rate in rates):
        raise ConfigError(f"rates are {', '.join(f'{r:g}' for r in rates)}: give 1 to {MAX_RATES}, each from 0 to 0.9")
    if not config.has_mask:
        raise ConfigError(f"the method is {config.method} and has no experts: choose mlae")
    if config.max_seconds is not None:
        raise ConfigError("with a time limit the runs would train for different numbers of steps: set no time limit")
    if config.mask_per != "step" or config.input_dropout or config.consistency or config.learned_drop_rates != "off":
        raise ConfigError(
            "the arms set mask-per, input-dropout, consistency and learned drop rates: leave all at their defaults"
        )
    plan = fitted(dense(experts=experts), catalog.backbone(config.backbone).default_targets)
    sorted_rates = tuple(sorted({0.0, *(round(float(rate), 4) for rate in rates)}))
    return Experiment(replace(config, plan=plan), sorted_rates, tuple(range(config.seed, config.seed + seeds)))


def _arm(config: RunConfig, arm: str, rate: float, seed: int) -> RunConfig:
    plan = config.plan
    if arm in ("expert", "token"):
        plan = plan.with_rates((rate,) * plan.rows)
    if arm == "lora":
        plan = replace(plan, coefficient_init=1.0, train_coefficients=False)
    return replace(
        config, plan=plan, seed=seed, mask_per="token" if arm == "token" else "step",
        input_dropout=rate if arm == "lora" else 0.0,
    )  # fmt: skip


def launch(store: RunStore, wanted: Experiment, owner: str = "") -> dict[Cell, Run]:
    """Enqueue the missing runs of an experiment and return all its runs; those that the store has are reused."""
    runs: dict[Cell, Run] = {}
    for cell, entry in reusable(store, wanted).items():
        if isinstance(entry, RunConfig):
            first = next(iter(runs.values())).id if runs else ""
            entry = commands.launch(store, entry, owner, Origin(first, RELATION))
        runs[cell] = entry
    return runs


def waiting(runs: Iterable[Run], owner: str) -> list[Run]:
    """The queued runs that this owner started for an experiment. Reused runs are not among them: an experiment may not
    cancel runs that were started for something else."""
    return [run for run in runs if run.status is Status.QUEUED and run.relation == RELATION and run.owner == owner]


def cancel(store: RunStore, runs: Sequence[Run]) -> int:
    """Cancel those runs that are still queued, from the last on. Returns their number."""
    return sum(commands.cancel(store, run.id) for run in reversed(runs))


def reusable(store: RunStore, wanted: Experiment) -> dict[Cell, Run | RunConfig]:
    """For each cell its run (`outcomes.reusable`), else its config."""
    cells = wanted.cells()
    return dict(zip(cells, outcomes.reusable(store, [*cells.values()]), strict=True))


def experiments(runs: Sequence[Run]) -> list[Experiment]:
    """The experiments that runs were started for, newest first, as are the runs."""
    groups: dict[RunConfig, list[list[Run]]] = {}  # by settings, then by images
    for run in runs:
        if run.relation == RELATION:
            known = groups.setdefault(_base(run.config), [])
            same = (g for g in known if all(outcomes.may_be_same_images(r.config, run.config) for r in g))
            if (group := next(same, None)) is not None:
                group.append(run)
            else:
                known.append([run])
    return [_experiment(base, group) for base, known in groups.items() for group in known]


def _experiment(base: RunConfig, runs: Sequence[Run]) -> Experiment:
    """The experiment of runs that have these settings and the same images, newest first."""
    newest = for_new_run(runs[0].config)
    seeds = sorted({run.config.seed for run in runs})
    config = replace(
        base, seed=seeds[0], data_notes=newest.data_notes, data_fingerprint=newest.data_fingerprint,
        data=next((run.config.data for run in runs if run.config.data), ""),  # the images may have been moved
    )  # fmt: skip
    return Experiment(config, tuple(sorted({0.0, *(_rate(run.config) for run in runs)})), tuple(seeds))


def _base(config: RunConfig) -> RunConfig:
    """The dense run with seed 0 of the experiment that a run is part of."""
    whole = replace(config.plan.with_rates((0.0,) * config.plan.rows), train_coefficients=True)
    return replace(for_new_run(config), plan=whole, seed=0, mask_per="step", input_dropout=0.0, data="")


def _rate(config: RunConfig) -> float:
    return config.input_dropout or max(map(max, config.plan.drop_rate))


# ---------------------------------------------------------------- results


@dataclass(frozen=True)
class Point:
    """One arm at one p.

    Attributes:
        arm: Key of `ARMS`.
        rate: p.
        seeds: Those evaluated.
        values: By measure, over the seeds.
        differences: By measure, the paired difference to the reference, where there are pairs.
        reference: Name of the reference: the same arm at p = 0, which for expert and token is the dense run. LoRA at
            p = 0 is compared with the dense run.
    """

    arm: str
    rate: float
    seeds: tuple[int, ...]
    values: Mapping[str, SeedStatistics]
    differences: Mapping[str, SeedStatistics]
    reference: str


@dataclass(frozen=True)
class Result:
    """Results of an experiment so far.

    Attributes:
        experiment: The experiment.
        points: By arm, then by p, those with an evaluated run; expert and token start with the dense run.
        missing: Cells that are not evaluated yet.
        runs: By cell.
        baseline: The similarity of random experts, None without pairs of experts.
    """

    experiment: Experiment
    points: tuple[Point, ...]
    missing: tuple[Cell, ...]
    runs: Mapping[Cell, Run]
    baseline: RandomBaseline | None

    def curve(self, arm: str) -> list[Point]:
        """The points of an arm in the order of p."""
        return [point for point in self.points if point.arm == arm]

    @property
    def verdict(self) -> list[str]:
        """What the results say, one sentence each: |cosine| with masks, effective rank, accuracy, the controls."""
        return _verdict(self)


def result(store: RunStore, wanted: Experiment) -> Result:
    """The results of an experiment so far."""
    runs = {cell: run for cell, run in reusable(store, wanted).items() if isinstance(run, Run)}
    measured = {cell: values for cell, run in runs.items() if (values := measures(store, run))}
    points: list[Point] = []
    for arm in ARMS:
        for rate in wanted.rates:
            if arm == "dense" and rate:
                continue
            point = _point(measured, wanted, arm, rate)
            if point is not None:
                points.append(point)
    plan = wanted.config.plan
    shapes = catalog.backbone(wanted.config.backbone).shapes(plan.targets)
    baseline = over_layers([random_experts(*shapes[t], n) for t, n in zip(plan.targets, plan.kept, strict=True)])
    return Result(wanted, tuple(points), tuple(c for c in wanted.cells() if c not in measured), runs, baseline)


def measures(store: RunStore, run: Run) -> dict[str, float]:
    """The final values of a run by measure, means over layers; empty before its last epoch."""
    curve, last = outcomes.accuracies(store, run), store.last(run.id, SimilarityStats)
    if not outcomes.is_through(run, curve) or last is None:
        return {}
    values = {"accuracy": curve[-1][1]} | {
        name: mean_of(getattr(last, name)) for name in ("absolute", "signed", "effective_rank", "stable_rank")
    }
    return {name: value for name, value in values.items() if value is not None}


def _cell(arm: str, rate: float, seed: int) -> Cell:
    """The cell of an arm at p: at p = 0 the dense one, except for LoRA."""
    return (arm, rate, seed) if rate or arm == "lora" else ("dense", 0.0, seed)


def _point(measured: Mapping[Cell, Mapping[str, float]], wanted: Experiment, arm: str, rate: float) -> Point | None:
    by_seed = {seed: measured[cell] for seed in wanted.seeds if (cell := _cell(arm, rate, seed)) in measured}
    if not by_seed:
        return None
    baseline = "lora" if rate and arm == "lora" else "dense"
    epoch = wanted.config.epochs

    def over_seeds(name: str, paired: bool) -> SeedStatistics | None:
        numbers = []
        for seed, values in by_seed.items():
            reference_values = measured.get((baseline, 0.0, seed), {})
            if name in values and (not paired or name in reference_values):
                numbers.append(values[name] - (reference_values[name] if paired else 0.0))
        bounds = PERCENT if name == "accuracy" and not paired else (-inf, inf)
        return seed_statistics(epoch, numbers, bounds) if numbers else None

    values = {name: s for name in MEASURES if (s := over_seeds(name, False))}
    is_reference = rate == 0 and arm != "lora"
    differences = {} if is_reference else {name: s for name in MEASURES if (s := over_seeds(name, True))}
    reference = "LoRA without dropout" if baseline == "lora" else "dense"
    return Point(arm, rate, tuple(by_seed), values, differences, reference)


# ---------------------------------------------------------------- text


def judged(difference: SeedStatistics | None) -> int | None:
    """The sign of a difference: 1 above 0, -1 below, 0 if the interval contains 0, None for fewer than two pairs."""
    if difference is None or difference.interval is None:
        return None
    _, low, high = difference.interval
    return 1 if low > 0 else -1 if high < 0 else 0


_CLAIM = {-1: "supported", 1: "contradicted", 0: "not settled", None: "open until there are two seeds"}
_CHANGE = {-1: "falls", 1: "rises", 0: "is not settled", None: "is open until there are two seeds"}
_TITLES = (("expert", "Expert dropout"), ("token", "Rank dropout per token"), ("lora", "Dropout in LoRA"))


def claim(point: Point) -> str:
    """What a point says about the claim that masking makes experts less similar."""
    return _CLAIM[judged(point.differences.get("absolute"))]


def _verdict(results: Result) -> list[str]:
    config = results.experiment.config
    task = catalog.task(config.task).title
    masked = _masked(results, "expert")
    if masked:
        counts = {point.differences["absolute"].n for point in masked if "absolute" in point.differences}
        sentences = [
            f"On {task}, the claim that masking makes experts less similar is "
            f"{_by_rate({point.rate: claim(point) for point in masked})} ({_range(counts)}, {config.epochs} epochs)."
        ]
    else:
        sentences = [
            f"There is no result for {task} yet: it needs the dense run and a run with expert dropout of the same seed."
        ]
    for arm, title in _TITLES:
        points = _masked(results, arm)
        if not points:
            continue
        parts = [
            ("mean |cosine|", "absolute"),
            ("the effective rank of ΔW", "effective_rank"),
            ("accuracy", "accuracy"),
        ]
        changes = [
            f"{label} {_by_rate({p.rate: _CHANGE[judged(p.differences.get(measure))] for p in points})}"
            for label, measure in parts[arm == "expert" :]
        ]
        sentences.append(f"{title}, compared with {points[-1].reference}: {'; '.join(changes)}.")
    if results.missing:
        sentences.append(f"{len(results.missing)} of {len(results.experiment.cells())} runs are not evaluated yet.")
    return sentences


def _masked(results: Result, arm: str) -> list[Point]:
    return [point for point in results.curve(arm) if point.rate and point.differences]


def _range(counts: set[int]) -> str:
    few, many = min(counts, default=0), max(counts, default=0)
    return f"{many} seed{'s' * (many != 1)}" if few == many else f"{few} to {many} seeds"


def _by_rate(texts: Mapping[float, str]) -> str:
    """ "rises at p = 0.1 and 0.3, falls at p = 0.9"; "rises at every p" if all texts are equal."""
    if len(set(texts.values())) == 1 and len(texts) > 1:
        return f"{next(iter(texts.values()))} at every p"
    parts = []
    for text in dict.fromkeys(texts.values()):
        rates = [f"{rate:g}" for rate, other in texts.items() if other == text]
        parts.append(f"{text} at p = {' and '.join([', '.join(rates[:-1]), rates[-1]] if len(rates) > 1 else rates)}")
    return ", ".join(parts)


def report(results: Result) -> dict:
    """The results as data for JSON."""

    def numbers(statistics: Mapping[str, SeedStatistics]) -> dict:
        return {name: {"mean": s.mean, "low": s.low, "high": s.high, "n": s.n} for name, s in statistics.items()}

    config, baseline = results.experiment.config, results.baseline
    return {
        "task": config.task, "epochs": config.epochs, "rates": list(results.experiment.rates),
        "seeds": list(results.experiment.seeds), "runs": len(results.runs), "missing": len(results.missing),
        "baseline": baseline and {"mean": baseline.mean, "deviation": baseline.deviation},
        "points": [
            {"arm": p.arm, "p": p.rate, "seeds": list(p.seeds), "values": numbers(p.values), "reference": p.reference,
             "difference": numbers(p.differences), "claim": claim(p) if p.arm == "expert" and p.differences else None}
            for p in results.points
        ],
        "verdict": results.verdict, "command": results.experiment.command(),
    }  # fmt: skip
