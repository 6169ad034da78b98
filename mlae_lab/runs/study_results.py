"""What a study says: for each arm its mean and its difference to the reference, and a verdict in words."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from mlae_lab.core.inference import ALPHA, Comparison, comparisons, half_width
from mlae_lab.core.sanitize import spreadsheet_text
from mlae_lab.core.seed_statistics import PERCENT, SeedStatistics, between, points, seed_statistics
from mlae_lab.core.study import Arm, Study
from mlae_lab.core.study_presets import ENOUGH_SEEDS
from mlae_lab.runs import outcomes
from mlae_lab.runs.store import Run, RunStore
from mlae_lab.runs.studies import CellState, State

NOISE = "within the seed noise"
_REFERENCE = "reference"


@dataclass(frozen=True)
class ArmResult:
    """One arm.

    Attributes:
        arm: The arm.
        cells: Its runs, by seed.
        statistics: Of its accuracy after the last epoch, in percent; None before the first.
        comparison: With the reference; None for the reference, and without a seed in common.
        parameters: Trained parameters without the head, None for a method that is not installed here.
        seconds: Median training time of a run, None if none is known.
        verdict: One clause; "" for an arm without a result.
    """

    arm: Arm
    cells: tuple[CellState, ...]
    statistics: SeedStatistics | None
    comparison: Comparison | None
    parameters: int | None
    seconds: float | None
    verdict: str

    @property
    def values(self) -> dict[int, float]:
        """Seed to accuracy after the last epoch, in percent."""
        return {cell.seed: cell.accuracy for cell in self.cells if cell.accuracy is not None}


@dataclass(frozen=True)
class Results:
    """All arms of a study, in its order, and what they say together."""

    study: Study
    arms: tuple[ArmResult, ...]
    done: int
    verdict: str

    @property
    def reference(self) -> ArmResult:
        return self.of(self.study.reference)

    def of(self, name: str) -> ArmResult:
        """One arm. Raises KeyError for an unknown one."""
        for result in self.arms:
            if result.arm.name == name:
                return result
        raise KeyError(name)

    @property
    def ranked(self) -> tuple[ArmResult, ...]:
        """The arms with a result, the highest mean first; those of an earlier stage of a choice come last."""
        known = [result for result in self.arms if result.statistics is not None]
        last = {arm.name for arm in self.study.compared[-1][1]}
        return tuple(
            sorted(
                known,
                key=lambda result: (result.arm.name not in last, -result.statistics.mean),  # type: ignore[union-attr]
            )
        )


def seconds(store: RunStore, run: Run) -> float | None:
    """Training time of a run so far, None before its first step."""
    return outcomes.outcome(store, run).seconds


def results(store: RunStore, state: State, seconds_of: Callable[[RunStore, Run], float | None] = seconds) -> Results:
    """The results of a study as far as it is. seconds_of: `seconds`, or a cached version of it."""
    study, values = state.stored.study, state.values
    references, compared = study.references, dict[str, Comparison]()
    for _, group in study.compared:
        compared |= comparisons({arm.name: values[arm.name] for arm in group}, references, study.margin)
    by_arm: dict[str, list[CellState]] = {}
    for cell in state.cells:
        by_arm.setdefault(cell.arm, []).append(cell)
    arms = []
    for arm in study.arms:
        known = list(values[arm.name].values())
        statistics = seed_statistics(arm.config.evaluated_epochs[-1], known, PERCENT) if known else None
        comparison = compared.get(arm.name)
        arms.append(
            ArmResult(
                arm, tuple(by_arm[arm.name]), statistics, comparison,
                _parameters(arm),
                _median_seconds(store, by_arm[arm.name], seconds_of),
                verdict_of(comparison, study) if comparison else _REFERENCE if arm.name == references[arm.name] else "",
            )
        )  # fmt: skip
    last = {arm.name for arm in study.compared[-1][1]}
    together = _together(study, [result for result in arms if result.arm.name in last])
    return Results(study, tuple(arms), state.done, together)


def of_task(results: Results, task: str = "") -> Results:
    """Of a study on several tasks the part on one of them, by default the first, as a study by itself.

    Accuracies on different tasks are not comparable, so that a figure shows one task.
    """
    study = results.study
    chosen = task or study.arms[0].config.task
    arms = tuple(arm for arm in study.arms if arm.config.task == chosen)
    if len(arms) == len(study.arms):
        return results
    return replace(
        results,
        study=replace(study, arms=arms, reference=study.references[arms[0].name]),
        arms=tuple(result for result in results.arms if result.arm in arms),
    )


def last_stage(results: Results) -> Results:
    """Of a study that chooses the last stage of which two arms have results, as a study by itself; else the results.

    Arms of different stages train for different numbers of epochs, so that a figure shows one stage.
    """
    study = results.study
    if study.choice is None:
        return results
    for reference, arms in reversed(study.compared):
        shown = [result for result in results.arms if result.arm in arms]
        if reference and sum(result.statistics is not None for result in shown) > 1:
            return replace(
                results, study=replace(study, arms=arms, reference=reference, choice=None), arms=tuple(shown)
            )
    return results


def _median_seconds(
    store: RunStore, cells: Sequence[CellState], seconds_of: Callable[[RunStore, Run], float | None]
) -> float | None:
    runs = [cell.run for cell in cells if cell.run is not None and cell.accuracy is not None]
    known = [value for run in runs if (value := seconds_of(store, run)) is not None]
    return median(known) if known else None


def seeds_to_add(results: Results, most: int) -> int:
    """How many more seeds should settle every difference that is not settled yet; 0 if all are, or with `most` seeds.

    An arm that is neither different nor equivalent needs the seeds that detect its mean difference with a power of
    80 %. Where that number is not known or larger than `most`, seeds are added up to `most`.

    Args:
        results: Of the study.
        most: Seeds that the study shall have at most.
    """
    now, last = len(results.study.seeds), {arm.name for arm in results.study.compared[-1][1]}
    unsettled = [
        comparison
        for result in results.arms
        if result.arm.name in last
        and (comparison := result.comparison)
        and not comparison.is_different
        and not comparison.equivalent
    ]
    if not unsettled:
        return 0
    needed = max(comparison.settling or most for comparison in unsettled)
    return max(0, min(needed, most) - now)


# ---------------------------------------------------------------- words


def _parameters(arm: Arm) -> int | None:
    if arm.config.unavailable:
        return None
    return arm.config.tuning.parameters(arm.config.network)


def verdict_of(comparison: Comparison, study: Study) -> str:
    """What a comparison says about an arm, as a clause."""
    mean, n = comparison.mean, len(comparison.seeds)
    if n < 2:
        return f"{_relative(mean)}; one seed cannot distinguish that from noise"
    if comparison.low is None or comparison.high is None:
        same = "equal" if abs(mean) < 1e-9 else _relative(mean)
        return f"{same} with every seed: the evaluation is too coarse for an interval"
    level = f"{100 * comparison.level:.3g} % interval {between(comparison.low, comparison.high)}"
    if comparison.is_different:
        better = "better" if mean > 0 else "worse"
        small = "" if _exceeds_one_seed(comparison) else ", less than one seed varies"
        return f"{better} by {points(abs(mean))} points ({level}{small})"
    if comparison.equivalent and study.margin is not None:
        return f"no difference larger than {points(study.margin)} points ({level})"
    return f"{NOISE}: {points(mean, signed=True)} points ({level})"


def _exceeds_one_seed(comparison: Comparison) -> bool:
    """Whether the difference is larger than its variation between seeds."""
    return comparison.deviation is not None and abs(comparison.mean) > comparison.deviation


def _relative(mean: float) -> str:
    distance = points(abs(mean))
    return "level" if distance == "0" else f"{distance} points {'above' if mean > 0 else 'below'}"


def _together(study: Study, arms: Sequence[ArmResult]) -> str:
    """The verdict of the study, in one to four sentences; never beyond the data."""
    references, title = study.references, study.reference_title
    others = [result for result in arms if result.arm.name != references[result.arm.name]]
    known = [result for result in arms if result.statistics is not None]
    if not known:
        return "No run has reached its last epoch yet."
    if not others:
        result = known[0]
        assert result.statistics is not None
        few = (
            f" One run does not show the variation between seeds: add seeds until there are {ENOUGH_SEEDS} or more."
            if result.statistics.n < 2
            else ""
        )
        return f"{result.arm.name} reaches {_mean(result.statistics)}.{few}"
    compared = [result for result in others if result.comparison is not None]
    if not compared:
        return f"No arm has a seed in common with {title} yet."
    different = [result for result in compared if result.comparison and result.comparison.is_different]
    sentences = [
        f"{result.arm.name} is {result.verdict}"
        for result in sorted(different, key=lambda result: -result.comparison.mean if result.comparison else 0.0)[:3]
    ]
    if sentences:
        sentences[0] = f"Compared with {title}, {sentences[0]}"
    if len(different) > 3:
        sentences.append(f"{len(different) - 3} more arms differ from {title}")
    equivalent = [
        result for result in compared if result not in different and result.comparison and result.comparison.equivalent
    ]
    if equivalent and study.margin is not None:
        sentences.append(
            f"{_names(equivalent)} {'is' if len(equivalent) == 1 else 'are'} within {points(study.margin)} points of "
            f"{title}"
        )
    unsettled = [result for result in compared if result not in different and result not in equivalent]
    if unsettled:
        sentences.append(_unsettled(study, unsettled, len(unsettled) == len(compared)))
    missing = len(others) - len(compared)
    if missing:
        sentences.append(f"{missing} of {len(others)} arms {'has' if missing == 1 else 'have'} no result yet")
    return ". ".join(sentences) + "."


def noise(statistics: SeedStatistics | None) -> str:
    """The difference by which a single run of other settings exceeds the seed noise.

    Args:
        statistics: Of an arm.

    Returns:
        One or two sentences; "" without a standard deviation between seeds.
    """
    if statistics is None or statistics.interval is None or statistics.interval[0] < 1e-9:
        return ""
    deviation = statistics.interval[0]
    gap = half_width(deviation, statistics.n) * (2 * statistics.n) ** 0.5  # 95 % of gaps are smaller
    return (
        f"The standard deviation over seeds is {deviation:.2f} points: two single runs that differ only in the seed "
        f"are up to {points(gap)} points apart (95 % of such pairs). A smaller difference to a single run of another "
        "mask is within the seed noise; paired runs can detect smaller differences."
    )


def _unsettled(study: Study, arms: Sequence[ArmResult], are_all: bool) -> str:
    """A sentence about arms that no test distinguishes. are_all: whether no other arm can be compared."""
    numbers = [len(result.comparison.seeds) for result in arms if result.comparison]
    low, high = min(numbers), max(numbers)
    if are_all and high < 2:
        return "One seed cannot distinguish a difference from noise"
    seeds = f"{low} to {high} seeds" if low < high else "one seed" if high == 1 else f"{high} seeds"
    if are_all and len(arms) > 1:
        return f"No arm can be distinguished from {study.reference_title} with {seeds}"
    subject = arms[0].arm.name if are_all else "The other arm" if len(arms) == 1 else f"The other {len(arms)} arms"
    return f"{subject} cannot be distinguished from {study.reference_title} with {seeds}"


def _mean(statistics: SeedStatistics) -> str:
    if statistics.interval is None:
        return f"{statistics.mean:.1f} % with one seed"
    _, low, high = statistics.interval
    return f"{statistics.mean:.1f} % (95 % interval {low:.1f} to {high:.1f} %, {statistics.n} seeds)"


def mean_and_interval(result: ArmResult) -> str:
    """The mean of an arm with its 95 % interval, for a table or a sentence."""
    statistics = result.statistics
    if statistics is None:
        return "–"
    if statistics.interval is None:
        return f"{statistics.mean:.1f} %"
    _, low, high = statistics.interval
    return f"{statistics.mean:.1f} % ({between(low, high, signed=False)})"


def _names(results: Sequence[ArmResult], most: int = 3) -> str:
    names = [result.arm.name for result in results]
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more arms"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# ---------------------------------------------------------------- data


def as_data(results: Results, state: State) -> dict:
    """Results as `study show --json` prints them. Accuracies in percent, differences in points."""
    study, references = results.study, results.study.references
    return {
        "study": state.stored.id, "version": state.stored.version, "title": study.title, "question": study.question,
        "notes": study.notes, "reference": study.reference, "margin": study.margin, "seeds": list(study.seeds),
        "factors": {name: list(values) for name, values in study.factors},
        "runs": study.runs, "done": results.done, "counts": state.counts, "halted": state.stored.halted,
        "alpha": ALPHA,
        "arms": [_arm(result, references[result.arm.name]) for result in results.arms],
        "verdict": results.verdict,
    }  # fmt: skip


def _arm(result: ArmResult, reference: str) -> dict:
    statistics, comparison = result.statistics, result.comparison
    return {
        "name": result.arm.name, "values": dict(result.arm.values), "config": result.arm.config.to_dict(),
        "command": result.arm.config.command(), "reference": reference, "parameters": result.parameters,
        "seconds": result.seconds,
        "runs": {str(cell.seed): cell.run.id if cell.run else None for cell in result.cells},
        "accuracies": {str(seed): value for seed, value in result.values.items()},
        "mean": statistics.mean if statistics else None,
        "interval": list(statistics.interval[1:]) if statistics and statistics.interval else None,
        "difference": comparison and {
            "mean": comparison.mean, "deviation": comparison.deviation, "seeds": list(comparison.seeds),
            "interval": None if comparison.low is None else [comparison.low, comparison.high],
            "level": comparison.level, "p": comparison.p, "adjusted_p": comparison.adjusted,
            "equivalent": comparison.equivalent, "seeds_to_settle": comparison.settling,
        },
        "verdict": result.verdict,
    }  # fmt: skip


def as_csv(results: Results) -> str:
    """One row for each run: arm, the values of its factors, seed, run, accuracy in percent and status."""
    factors = list(dict.fromkeys(name for result in results.arms for name, _ in result.arm.values))
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["arm", *factors, "seed", "run", "status", "accuracy", "parameters"])
    for result in results.arms:
        values = dict(result.arm.values)
        for cell in result.cells:
            writer.writerow(
                [
                    spreadsheet_text(result.arm.name), *(spreadsheet_text(values.get(name, "")) for name in factors),
                    cell.seed,
                    cell.run.id if cell.run else "", cell.run.status.value if cell.run else "missing",
                    "" if cell.accuracy is None else cell.accuracy,
                    "" if result.parameters is None else result.parameters,
                ]
            )  # fmt: skip
    return file.getvalue()
