"""The central experiment: does masking make experts less alike?

The paper says so (section 4.3, appendix A.4). This trains one network many times on equal terms, with nothing but the
kind of dropout and its rate p changed, over several seeds:

    dense    every expert in every step
    expert   an expert is dropped for a whole step and batch: the paper's mask
    token    an expert is dropped for single tokens: ordinary dropout on z = A x, the same noise without the structure
    lora     no mask, λ stays 1, single numbers of x are dropped in front of A: LoRA with dropout

With one seed all start from the same a, the same head and the same batches, so each difference is a pair.

The rule: at one p on one task, "masking makes experts less alike" is supported if the 95 % interval (Student's t over
seeds) of the paired difference in mean |cosine| lies below 0, contradicted if it lies above, and not settled otherwise.
Rank-1 parts can be cut in other ways, so the effective rank of ΔW, which cannot, is judged by the same rule beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mlae_lab.core import catalog
from mlae_lab.core.config import ConfigError, RunConfig
from mlae_lab.core.events import SimilarityStats, mean_of
from mlae_lab.core.patterns import EXPERTS, dense, fitted, scaled
from mlae_lab.core.random_baseline import RandomBaseline, over_layers, random_experts
from mlae_lab.runs import commands, outcomes, pairs
from mlae_lab.runs.pairs import SeedStatistics, seed_statistics
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Origin, Run, RunStore

RELATION = "diversity"
RATES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
SEEDS = 3
EPOCHS = 8  # of the experiment that is proposed, by the page and by the command line
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
    "signed": "Mean cosine, signed",
    "effective_rank": "Effective rank of ΔW",
    "stable_rank": "Stable rank of ΔW",
}
Cell = tuple[str, float, int]  # arm, p, seed


@dataclass(frozen=True)
class Experiment:
    """config: of its dense run with the first seed. rates: rising, each in [0, 0.9], 0 among them. seeds: rising."""

    config: RunConfig
    rates: tuple[float, ...]
    seeds: tuple[int, ...]

    def cells(self) -> dict[Cell, RunConfig]:
        """The runs, seed by seed and in each by p. At p = 0 expert and token are the dense run and have none of their
        own; LoRA without dropout is another network than dense, its λ does not learn."""
        found: dict[Cell, RunConfig] = {}
        for seed in self.seeds:
            found["dense", 0.0, seed] = _arm(self.config, "dense", 0.0, seed)
            for rate in self.rates:
                for arm in ("expert", "token", "lora") if rate else ("lora",):
                    found[arm, rate, seed] = _arm(self.config, arm, rate, seed)
        return found

    def command(self) -> str:
        """The command line that starts what is missing, and tells the result."""
        text = self.config.command().replace("mlae_lab train", "mlae_lab diversity", 1)
        mask = f" --mask '{self.config.plan.code}'"
        experts = max(self.config.plan.kept)
        rates = ",".join(f"{rate:g}" for rate in self.rates)
        own = "" if experts == EXPERTS else f" --experts {experts}"
        return f"{text.replace(mask, own, 1)} --seeds {len(self.seeds)} --rates {rates}"


def experiment(
    config: RunConfig, rates: Sequence[float] = RATES, seeds: int = SEEDS, experts: int = EXPERTS
) -> Experiment:
    """An experiment on equal terms.

    config: everything but mask and dropout, which the arms decide; its seed is the first. rates: each in [0, 0.9], at
    most 12; 0 is always among them. seeds: 1 to 10. experts: in each layer.
    Raises ConfigError for a number out of range, a linear probe, a time limit or a dropout of its own.
    """
    if type(seeds) is not int or not 1 <= seeds <= pairs.MAX_SEEDS:
        raise ConfigError(f"seeds is {seeds!r}: it must be a whole number from 1 to {pairs.MAX_SEEDS}")
    if not 1 <= len(rates) <= MAX_RATES or not all(0 <= rate <= 0.9 for rate in rates):
        raise ConfigError(f"rates are {', '.join(f'{r:g}' for r in rates)}: give 1 to {MAX_RATES}, each from 0 to 0.9")
    if config.method != "mlae":
        raise ConfigError("a linear probe has no experts: compare masked experts")
    if config.max_seconds is not None:
        raise ConfigError("the runs would stop by the clock, so the terms were not equal: set no time limit")
    if config.mask_per != "step" or config.input_dropout:
        raise ConfigError("the arms decide what is dropped: leave mask-per and input-dropout as they are")
    plan = fitted(dense(experts=experts), catalog.backbone(config.backbone).default_targets)
    own = tuple(sorted({0.0, *(round(float(rate), 4) for rate in rates)}))
    return Experiment(replace(config, plan=plan), own, tuple(range(config.seed, config.seed + seeds)))


def _arm(config: RunConfig, arm: str, rate: float, seed: int) -> RunConfig:
    plan = config.plan
    if arm in ("expert", "token"):
        plan = plan.with_rates((rate,) * plan.rows)
    if arm == "lora":
        plan = scaled(plan, coefficient_init=1.0, train_coefficients=False)
    return replace(
        config, plan=plan, seed=seed, mask_per="token" if arm == "token" else "step",
        input_dropout=rate if arm == "lora" else 0.0,
    )  # fmt: skip


def launch(store: RunStore, asked: Experiment, owner: str = "") -> dict[Cell, Run]:
    """Enqueue what is missing and give all runs. One that a store has already is taken, not repeated."""
    found: dict[Cell, Run] = {}
    for cell, entry in taken(store, asked).items():
        if isinstance(entry, RunConfig):
            first = next(iter(found.values())).id if found else ""
            entry = commands.launch(store, entry, owner, Origin(first, RELATION))
        found[cell] = entry
    return found


def waiting(runs: Iterable[Run], owner: str) -> list[Run]:
    """Those that wait in the queue, were started for an experiment and by this owner. A run that was started for
    something else counts in an experiment too, but is not its to cancel."""
    return [run for run in runs if run.status is Status.QUEUED and run.relation == RELATION and run.owner == owner]


def cancel(store: RunStore, runs: Sequence[Run]) -> int:
    """Cancel those runs that still wait, from the last on; how many did. One whose turn has come goes on."""
    return sum(commands.cancel(store, run.id) for run in reversed(runs))


def taken(store: RunStore, asked: Experiment) -> dict[Cell, Run | RunConfig]:
    """For each cell its run, finished or on its way, else its config."""
    cells = asked.cells()
    return dict(zip(cells, outcomes.taken(store, [*cells.values()]), strict=False))


def experiments(runs: Sequence[Run]) -> list[Experiment]:
    """The experiments that runs were started for, newest first. runs: newest first, as a store lists them."""
    rates: dict[RunConfig, set[float]] = {}
    seeds: dict[RunConfig, set[int]] = {}
    data: dict[RunConfig, str] = {}  # the newest run that names a folder says where the images lie now
    for run in runs:
        if run.relation == RELATION:
            base, rate = _base(run.config)
            data[base] = data.get(base) or run.config.data
            rates.setdefault(base, {0.0}).add(rate)
            seeds.setdefault(base, set()).add(run.config.seed)
    return [
        Experiment(
            replace(base, seed=min(seeds[base]), data=data[base]),
            tuple(sorted(rates[base])),
            tuple(sorted(seeds[base])),
        )
        for base in rates
    ]


def _base(config: RunConfig) -> tuple[RunConfig, float]:
    """The dense run with seed 0 of the experiment that a run is part of, and the run's p."""
    plan = config.plan
    rate = config.input_dropout or max(map(max, plan.drop_rate))
    whole = scaled(plan.with_rates((0.0,) * plan.rows), train_coefficients=True)
    return replace(config, plan=whole, seed=0, mask_per="step", input_dropout=0.0, data=""), rate


# ---------------------------------------------------------------- what came of it


@dataclass(frozen=True)
class Point:
    """One arm at one p. values: by measure over the seeds measured; against: by measure the paired difference to
    `reference`, where it has pairs: the arm's own p = 0, which is the dense run but for LoRA; at its p = 0 LoRA's is
    the dense run. seeds: measured."""

    arm: str
    rate: float
    seeds: tuple[int, ...]
    values: Mapping[str, SeedStatistics]
    against: Mapping[str, SeedStatistics]
    reference: str


@dataclass(frozen=True)
class Found:
    """points: of the arms, each in the order of p, those with a measurement; expert and token begin with the dense
    run. missing: cells without a measurement yet; runs: by cell. chance: what random experts would show."""

    experiment: Experiment
    points: tuple[Point, ...]
    missing: tuple[Cell, ...]
    runs: Mapping[Cell, Run]
    baseline: RandomBaseline | None

    def curve(self, arm: str) -> list[Point]:
        """The points of an arm by p."""
        return [point for point in self.points if point.arm == arm]

    @property
    def verdict(self) -> list[str]:
        """What the numbers say, one sentence each: |cosine| under the mask, effective rank, accuracy, the controls."""
        return _verdict(self)


def found(store: RunStore, asked: Experiment) -> Found:
    """Where an experiment stands."""
    runs = {cell: run for cell, run in taken(store, asked).items() if isinstance(run, Run)}
    measured = {cell: values for cell, run in runs.items() if (values := measures(store, run))}
    points: list[Point] = []
    for arm in ARMS:
        for rate in asked.rates:
            if arm == "dense" and rate:
                continue
            point = _point(measured, asked, arm, rate)
            if point is not None:
                points.append(point)
    shapes = catalog.backbone(asked.config.backbone).shapes(asked.config.plan.targets)
    baseline = over_layers(
        [random_experts(*shapes[t], n) for t, n in zip(asked.config.plan.targets, asked.config.plan.kept, strict=False)]
    )
    return Found(asked, tuple(points), tuple(c for c in asked.cells() if c not in measured), runs, baseline)


def measures(store: RunStore, run: Run) -> dict[str, float]:
    """What a run ended with, by measure; empty before its last epoch. Means over layers."""
    curve, last = outcomes.accuracies(store, run), store.last(run.id, SimilarityStats)
    if not outcomes.is_through(run, curve) or last is None:
        return {}
    values = {"accuracy": curve[-1][1]} | {
        name: mean_of(getattr(last, name)) for name in ("absolute", "signed", "effective_rank", "stable_rank")
    }
    return {name: value for name, value in values.items() if value is not None}


def _cell(arm: str, rate: float, seed: int) -> Cell:
    """The run that stands for an arm at p: at 0 the dense one, but for LoRA."""
    return (arm, rate, seed) if rate or arm == "lora" else ("dense", 0.0, seed)


def _point(measured: Mapping[Cell, Mapping[str, float]], asked: Experiment, arm: str, rate: float) -> Point | None:
    own = {seed: measured[cell] for seed in asked.seeds if (cell := _cell(arm, rate, seed)) in measured}
    if not own:
        return None
    to = ("dense", 0.0) if not rate or arm != "lora" else ("lora", 0.0)
    epoch = asked.config.epochs

    def over_seeds(name: str, paired: bool) -> SeedStatistics | None:
        found = []
        for seed, values in own.items():
            other = measured.get((to[0], to[1], seed), {})
            if name in values and (not paired or name in other):
                found.append(values[name] - (other[name] if paired else 0.0))
        return seed_statistics(epoch, found) if found else None

    values = {name: s for name in MEASURES if (s := over_seeds(name, False))}
    itself = rate == 0 and arm != "lora"
    against = {} if itself else {name: s for name in MEASURES if (s := over_seeds(name, True))}
    reference = "LoRA without dropout" if to[0] == "lora" else "dense"
    return Point(arm, rate, tuple(own), values, against, reference)


# ---------------------------------------------------------------- in words


def judged(difference: SeedStatistics | None) -> int | None:
    """1: above 0, -1: below, 0: the interval holds 0; None for fewer than two pairs."""
    if difference is None or difference.spread is None:
        return None
    _, low, high = difference.spread
    return 1 if low > 0 else -1 if high < 0 else 0


_CLAIM = {-1: "supported", 1: "contradicted", 0: "not settled", None: "open until there are two seeds"}
_MOVES = {-1: "falls", 1: "rises", 0: "is not settled", None: "is open until there are two seeds"}
_ARMS_IN_WORDS = (("expert", "Expert dropout"), ("token", "Rank dropout per token"), ("lora", "Dropout in LoRA"))


def claim(point: Point) -> str:
    """What one point says of the claim that masking makes experts less alike."""
    return _CLAIM[judged(point.against.get("absolute"))]


def _verdict(now: Found) -> list[str]:
    task = catalog.task(now.experiment.config.task).title
    masked = _masked(now, "expert")
    if masked:
        counts = {point.against["absolute"].n for point in masked if "absolute" in point.against}
        told = [
            f"On {task}, the claim that masking makes experts less alike is "
            f"{_by_rate({point.rate: claim(point) for point in masked})} ({_range(counts)}, {now.experiment.config.epochs} epochs)."
        ]
    else:
        told = [f"Nothing can be said of {task} yet: it needs the dense run and one with expert dropout, of one seed."]
    for arm, name in _ARMS_IN_WORDS:
        points = _masked(now, arm)
        if not points:
            continue
        parts = [
            ("mean |cosine|", "absolute"),
            ("the effective rank of ΔW", "effective_rank"),
            ("accuracy", "accuracy"),
        ]
        moves = [
            f"{words} {_by_rate({p.rate: _MOVES[judged(p.against.get(measure))] for p in points})}"
            for words, measure in parts[arm == "expert" :]
        ]
        told.append(f"{name}, against {points[-1].reference}: {'; '.join(moves)}.")
    if now.missing:
        told.append(f"{len(now.missing)} of {len(now.experiment.cells())} runs have not been measured yet.")
    return told


def _masked(now: Found, arm: str) -> list[Point]:
    return [point for point in now.curve(arm) if point.rate and point.against]


def _range(counts: set[int]) -> str:
    few, many = min(counts, default=0), max(counts, default=0)
    return f"{many} seed{'s' * (many != 1)}" if few == many else f"{few} to {many} seeds"


def _by_rate(words: Mapping[float, str]) -> str:
    """ "rises at p = 0.1 and 0.3, falls at p = 0.9"; "rises at every p" where one word fits all."""
    if len(set(words.values())) == 1 and len(words) > 1:
        return f"{next(iter(words.values()))} at every p"
    parts = []
    for word in dict.fromkeys(words.values()):
        rates = [f"{rate:g}" for rate, own in words.items() if own == word]
        parts.append(f"{word} at p = {' and '.join([', '.join(rates[:-1]), rates[-1]] if len(rates) > 1 else rates)}")
    return ", ".join(parts)


def told(now: Found) -> dict:
    """An experiment as plain data, for people and programs that read JSON."""

    def numbers(found: Mapping[str, SeedStatistics]) -> dict:
        return {name: {"mean": s.mean, "low": s.low, "high": s.high, "n": s.n} for name, s in found.items()}

    config = now.experiment.config
    return {
        "task": config.task, "epochs": config.epochs, "rates": list(now.experiment.rates),
        "seeds": list(now.experiment.seeds), "runs": len(now.runs), "missing": len(now.missing),
        "baseline": None if now.baseline is None else {"mean": now.baseline.mean, "deviation": now.baseline.deviation},
        "points": [
            {"arm": p.arm, "p": p.rate, "seeds": list(p.seeds), "values": numbers(p.values), "reference": p.reference,
             "difference": numbers(p.against), "claim": claim(p) if p.arm == "expert" and p.against else None}
            for p in now.points
        ],
        "verdict": now.verdict, "command": now.experiment.command(),
    }  # fmt: skip
