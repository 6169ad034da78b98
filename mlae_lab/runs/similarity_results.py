"""What a study of diversity says: does masking make experts less similar? (`core.study_presets.diversity`)

The rule: at one p on one task, "masking makes experts less similar" is supported if the 95 % interval (Student's t
over seeds) of the paired difference in mean |cosine| lies below 0, contradicted if it lies above, and not settled
otherwise. The split into rank-1 parts is not unique; the effective rank of ΔW does not depend on it and is judged by
the same rule. Runs of one seed share the initial a, the initial head and the batches, so their differences are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from mlae_lab.core import catalog
from mlae_lab.core.events import SimilarityStats, mean_of
from mlae_lab.core.random_baseline import RandomBaseline, over_layers, random_experts
from mlae_lab.core.seed_statistics import PERCENT, SeedStatistics, seed_statistics
from mlae_lab.core.study import Study
from mlae_lab.core.study_presets import DROPOUTS, diversity_command, dropout_arms
from mlae_lab.runs import outcomes
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.runs.studies import State

MEASURES = {
    "accuracy": "Accuracy, %",
    "absolute": "Mean |cosine|",
    "signed": "Mean cosine",
    "effective_rank": "Effective rank of ΔW",
    "stable_rank": "Stable rank of ΔW",
}
_Key = tuple[str, float]  # dropout, p


# ---------------------------------------------------------------- results


@dataclass(frozen=True)
class Point:
    """One arm at one p.

    Attributes:
        dropout: Key of `core.study_presets.DROPOUTS`.
        rate: p.
        seeds: Those evaluated.
        values: By measure, over the seeds.
        differences: By measure, the paired difference to the reference, where there are pairs.
        reference: Name of the reference: the same arm at p = 0, which for expert and token is the dense run. LoRA at
            p = 0 is compared with the dense run.
    """

    dropout: str
    rate: float
    seeds: tuple[int, ...]
    values: Mapping[str, SeedStatistics]
    differences: Mapping[str, SeedStatistics]
    reference: str


@dataclass(frozen=True)
class SimilarityResults:
    """Results of a study of diversity so far.

    Attributes:
        study: The study.
        rates: All p, in ascending order.
        points: By dropout, then by p, those with an evaluated run; expert and token start with the dense run.
        runs: Number of its runs that are there.
        missing: Number of its runs that are not evaluated yet.
        baseline: The similarity of random experts, None without pairs of experts.
    """

    study: Study
    rates: tuple[float, ...]
    points: tuple[Point, ...]
    runs: int
    missing: int
    baseline: RandomBaseline | None

    def curve(self, dropout: str) -> list[Point]:
        """The points of a kind of dropout in the order of p."""
        return [point for point in self.points if point.dropout == dropout]

    @property
    def verdict(self) -> list[str]:
        """What the results say, one sentence each: |cosine| with masks, effective rank, accuracy, the controls."""
        return _verdict(self)


def similarity_results(
    store: RunStore, state: State, curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies
) -> SimilarityResults | None:
    """The results of a study of diversity so far; None for another study.

    Args:
        store: Of the runs.
        state: Of the study.
        curve_of: `outcomes.accuracies`, or a cached version of it.
    """
    study = state.stored.study
    arms = dropout_arms(study)
    if arms is None:
        return None
    kinds = {arm.name: kind for kind, arm in arms.items()}
    measured: dict[_Key, dict[int, dict[str, float]]] = {}
    for cell in state.cells:
        if cell.run is not None and (values := measures(store, cell.run, curve_of)):
            measured.setdefault(kinds[cell.arm], {})[cell.seed] = values
    rates = tuple(sorted({rate for _, rate in arms}))
    epochs = arms["dense", 0.0].config.epochs
    points = [
        point
        for dropout in DROPOUTS
        for rate in rates
        if (dropout != "dense" or not rate) and (point := _point(measured, dropout, rate, epochs)) is not None
    ]
    plan, backbone = arms["dense", 0.0].config.plan, catalog.backbone(arms["dense", 0.0].config.backbone)
    shapes = backbone.shapes(plan.targets)
    baseline = over_layers([random_experts(*shapes[t], n) for t, n in zip(plan.targets, plan.kept, strict=True)])
    return SimilarityResults(
        study, rates, tuple(points), sum(cell.run is not None for cell in state.cells),
        len(state.cells) - sum(map(len, measured.values())), baseline,
    )  # fmt: skip


def measures(
    store: RunStore, run: Run, curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies
) -> dict[str, float]:
    """The final values of a run by measure, means over layers; empty before its last epoch. curve_of: as above."""
    curve = curve_of(store, run)
    last = store.last(run.id, SimilarityStats) if outcomes.is_through(run, curve) else None
    if last is None:
        return {}
    values = {"accuracy": curve[-1][1]} | {
        name: mean_of(getattr(last, name)) for name in ("absolute", "signed", "effective_rank", "stable_rank")
    }
    return {name: value for name, value in values.items() if value is not None}


def _point(
    measured: Mapping[_Key, Mapping[int, Mapping[str, float]]], dropout: str, rate: float, epoch: int
) -> Point | None:
    """One kind of dropout at p; at p = 0 it is the dense arm, except for LoRA."""
    by_seed = measured.get((dropout, rate) if rate or dropout == "lora" else ("dense", 0.0))
    if not by_seed:
        return None
    baseline = "lora" if rate and dropout == "lora" else "dense"
    of_reference = measured.get((baseline, 0.0), {})

    def over_seeds(name: str, paired: bool) -> SeedStatistics | None:
        numbers = []
        for seed, values in by_seed.items():
            reference_values = of_reference.get(seed, {})
            if name in values and (not paired or name in reference_values):
                numbers.append(values[name] - (reference_values[name] if paired else 0.0))
        bounds = PERCENT if name == "accuracy" and not paired else (-inf, inf)
        return seed_statistics(epoch, numbers, bounds) if numbers else None

    values = {name: s for name in MEASURES if (s := over_seeds(name, False))}
    is_reference = rate == 0 and dropout != "lora"
    differences = {} if is_reference else {name: s for name in MEASURES if (s := over_seeds(name, True))}
    reference = "LoRA without dropout" if baseline == "lora" else "dense"
    return Point(dropout, rate, tuple(by_seed), values, differences, reference)


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


def _verdict(results: SimilarityResults) -> list[str]:
    config = results.study.arms[0].config
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
    for dropout, title in _TITLES:
        points = _masked(results, dropout)
        if not points:
            continue
        parts = [
            ("mean |cosine|", "absolute"),
            ("the effective rank of ΔW", "effective_rank"),
            ("accuracy", "accuracy"),
        ]
        changes = [
            f"{label} {_by_rate({p.rate: _CHANGE[judged(p.differences.get(measure))] for p in points})}"
            for label, measure in parts[dropout == "expert" :]
        ]
        sentences.append(f"{title}, compared with {points[-1].reference}: {'; '.join(changes)}.")
    if results.missing:
        sentences.append(f"{results.missing} of {results.study.runs} runs are not evaluated yet.")
    return sentences


def _masked(results: SimilarityResults, dropout: str) -> list[Point]:
    return [point for point in results.curve(dropout) if point.rate and point.differences]


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


def as_data(results: SimilarityResults) -> dict:
    """The results as data for JSON."""

    def numbers(statistics: Mapping[str, SeedStatistics]) -> dict:
        return {name: {"mean": s.mean, "low": s.low, "high": s.high, "n": s.n} for name, s in statistics.items()}

    config, baseline = results.study.arms[0].config, results.baseline
    return {
        "task": config.task, "epochs": config.epochs, "rates": list(results.rates),
        "seeds": list(results.study.seeds), "runs": results.runs, "missing": results.missing,
        "baseline": baseline and {"mean": baseline.mean, "deviation": baseline.deviation},
        "points": [
            {"arm": p.dropout, "p": p.rate, "seeds": list(p.seeds), "values": numbers(p.values),
             "reference": p.reference, "difference": numbers(p.differences),
             "claim": claim(p) if p.dropout == "expert" and p.differences else None}
            for p in results.points
        ],
        "verdict": results.verdict, "command": diversity_command(results.study),
    }  # fmt: skip
