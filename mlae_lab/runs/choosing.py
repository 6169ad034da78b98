"""What a study that chooses says: the chosen arm, how sure it is, its optimism and its regret; and its final runs.

All of it follows from runs in the store. The final runs are those of any study whose configs equal that of an arm under
the protocol "test", so they count whoever started them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlae_lab.core.choice import Choice, Honesty, Scores, cross_validated, honesty
from mlae_lab.core.choice_study import FINAL_SEEDS, choice_of, final_study, finalists, stages, tested
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import MAX_IMAGES_RECORDED, Evaluation, Started, unpacked
from mlae_lab.core.seed_statistics import points
from mlae_lab.core.study import Arm, Study, shown
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import devices, outcomes
from mlae_lab.runs.outcomes import Curve
from mlae_lab.runs.store import Run, RunStore, StoreError
from mlae_lab.runs.studies import CellState, State
from mlae_lab.runs.study_table import StoredStudy


@dataclass(frozen=True)
class Report:
    """What a study that chooses says so far.

    Attributes:
        study: The study.
        choice: None before its last stage is through.
        honesty: What the test runs say about it; None before there is a choice.
        tests: Arm to seed to accuracy on test images in percent.
        sentences: All of it in words.
    """

    study: Study
    choice: Choice | None
    honesty: Honesty | None
    tests: dict[str, dict[int, float]]
    sentences: tuple[str, ...]


def report(
    store: RunStore, state: State, curve_of: Callable[[RunStore, Run], Curve] = outcomes.accuracies
) -> Report | None:
    """What a study says about its choice; None for a study that only compares.

    Args:
        store: Of the study.
        state: Of the study.
        curve_of: `outcomes.accuracies`, or a cached version of it.
    """
    study = state.stored.study
    if study.choice is None:
        return None
    arms = finalists(study)
    scores = {arm.name: _scores(store, state.of(arm.name), arm.config.folds) for arm in study.arms}
    choice = choice_of(study, {name: entry for name, entry in scores.items() if entry is not None})
    if choice is None:
        return Report(study, None, None, {}, (_before(study, state),))
    tests = _tests(store, arms, curve_of)
    checked = honesty(choice, tests)
    return Report(study, choice, checked, tests, tuple(_sentences(study, choice, checked)))


def _scores(store: RunStore, cells: Sequence[CellState], folds: int) -> Scores | None:
    accuracies, correct, evaluated, images = {}, {}, {}, 0
    for cell in cells:
        if cell.run is None or cell.accuracy is None:
            continue
        last, started = store.last(cell.run.id, Evaluation), store.last(cell.run.id, Started)
        accuracies[cell.seed] = cell.accuracy
        if last is None or started is None:
            continue
        images, evaluated[cell.seed] = started.evaluation_images, started.evaluated
        try:
            correct[cell.seed] = unpacked(last.correct, images)
        except ValueError:  # of an earlier version, or more images than are recorded one by one
            continue
    if folds:
        return cross_validated(folds, accuracies, correct, evaluated)
    return Scores(accuracies, correct, images) if accuracies else None


def _tests(
    store: RunStore, arms: Sequence[Arm], curve_of: Callable[[RunStore, Run], Curve]
) -> dict[str, dict[int, float]]:
    """Accuracies of the arms' settings on test images, from all runs of the store."""
    wanted = {_identity(tested(arm.config)): arm for arm in arms}
    tests: dict[str, dict[int, float]] = {arm.name: {} for arm in arms}
    for run in store.runs():
        if run.config.protocol != "test" or run.relation == "branched":
            continue
        arm = wanted.get(_identity(run.config))
        if arm is None or run.device != devices.kind(arm.config.device):
            continue
        curve = curve_of(store, run)
        if outcomes.is_through(run, curve) and outcomes.may_be_same_images(arm.config, run.config):
            tests[arm.name].setdefault(run.config.seed, curve[-1][1])
    return tests


def _identity(config: RunConfig) -> str:
    return config.canonical("device", "seed")


# ---------------------------------------------------------------- words


def _before(study: Study, state: State) -> str:
    assert study.choice is not None
    steps = list(stages(study))
    if len(steps) > 1:
        begun = len(finalists(study)) >= study.choice.rungs[-1][1]
        which = f"Stage {len(steps) if begun else 1} of {len(steps)}: {steps[-1 if begun else 0]}. "
    else:
        which = f"{steps[0][0].upper()}{steps[0][1:]}. "
    return f"{which}{state.done} of {len(state.cells)} runs are done; the choice follows when all are."


def values_text(study: Study, arm: str) -> str:
    """An arm's name without its epochs, which all arms of the last stage share."""
    varying = {name for name, texts in study.factors if len(texts) > 1}
    varying |= {name for name, _, _ in study.choice.space} if study.choice else set()
    return ", ".join(shown(name, text) for name, text in study.arm(arm).values if name in varying)


def _sentences(study: Study, choice: Choice, checked: Honesty) -> list[str]:
    """The choice in words; the first sentence stands alone."""
    assert study.choice is not None
    best, chosen = choice.of(choice.best), choice.of(choice.chosen)
    if choice.chosen == choice.default == choice.best:
        sentences = [f"The default is kept: {values_text(study, chosen.arm)}.", "No setting has a higher accuracy."]
    elif choice.chosen == choice.default:
        sentences = [
            f"The default is kept: {values_text(study, chosen.arm)}.",
            f"The setting with the highest accuracy, {values_text(study, best.arm)}, is {points(chosen.behind)} points "
            f"above it, which is within one standard error ({points(chosen.error)}).",
        ]
    else:
        higher = ""
        if choice.chosen != choice.best:
            more = " and differs from it in more settings" if best.distance > chosen.distance else ""
            higher = (
                f" {values_text(study, best.arm)} is {points(chosen.behind)} points higher, which is within one "
                f"standard error ({points(chosen.error)}){more}."
            )
        sentences = [
            f"Chosen: {values_text(study, chosen.arm)}.",
            f"It is {points(choice.gain)} points above the default, {values_text(study, choice.default)} (standard "
            f"error {points(choice.gain_error)}).{higher}",
        ]
    folds = study.arm(choice.chosen).config.folds
    unit = "division" if folds else "seed"
    data = f"{len(choice.seeds)} {unit}{'s' * (len(choice.seeds) != 1)}"
    data += f" and {choice.images:,} images" if choice.images else ""
    if folds:
        data += f", cross-validation with {folds} folds"
    if chosen.share is None:
        sentences.append(
            f"How sure the choice is, {data} do not say: runs of an earlier version, or with more than "
            f"{MAX_IMAGES_RECORDED:,} validation images, do not record which images they classify correctly."
        )
    else:
        rivals = [
            candidate for candidate in choice.candidates if candidate.arm != chosen.arm and (candidate.share or 0) > 0
        ]
        second = max(rivals, key=lambda candidate: candidate.share or 0, default=None)
        rival = f", {values_text(study, second.arm)} in {100 * (second.share or 0):.0f} %" if second else ""
        sentences.append(
            f"Repeated on resampled images and {unit}s ({data}), the rule chooses it in {100 * chosen.share:.0f} % of "
            f"cases{rival}."
        )
    if choice.optimism is not None:
        sentences.append(
            f"Expected optimism: a gain over the default that is found this way is {points(choice.optimism)} points "
            f"too high on average.{_first_stage(study, choice)}"
        )
    return sentences + _afterwards(study, choice, checked)


def _first_stage(study: Study, choice: Choice) -> str:
    """What the resamples say of a first stage, a sentence after a space; "" without one."""
    if study.choice is None or len(study.choice.rungs) < 2:
        return ""
    if choice.unknown is None:
        return " The selection in the first stage is not part of this."
    if not choice.unknown:
        return " Both stages are resampled."
    return (
        f" Both stages are resampled; in {100 * choice.unknown:.0f} % of cases the first would keep a setting that was "
        "not trained to the end, whose accuracy is then not known and not counted."
    )


def _afterwards(study: Study, choice: Choice, checked: Honesty) -> list[str]:
    if checked.test_gain is None:
        return ["Not tested yet: the final runs train the chosen and the default setting on train and val."]
    seeds = f"{len(checked.seeds)} seed{'s' * (len(checked.seeds) != 1)}"
    sentences = []
    if choice.chosen != choice.default:
        assert checked.optimism is not None
        sentences.append(
            f"On test images ({seeds}) it is {points(abs(checked.test_gain))} points "
            f"{'above' if checked.test_gain >= 0 else 'below'} the default: an optimism of "
            f"{points(checked.optimism, signed=True)} points."
        )
    if checked.regret is not None:
        sentences.append(
            f"Regret: {points(checked.regret)} points behind the best in hindsight of {checked.tested} tested settings"
            + (f", {values_text(study, checked.best)}." if checked.regret > 0 else ".")
        )
    return sentences or [f"The default was tested with {seeds}; no other setting was, so the regret is not known."]


# ---------------------------------------------------------------- final runs


def final(
    stored: StoredStudy,
    known: Report | None,
    seeds: int = FINAL_SEEDS,
    every: bool = False,
    complete: Callable[[RunConfig], RunConfig] = lambda config: config,
) -> Study:
    """The study of the final runs: the chosen setting and the default, or every setting of the last stage.

    Args:
        stored: The study that chose.
        known: Its report.
        seeds: Number of seeds, from 0.
        every: Also the settings that were not chosen, so that the regret is known.
        complete: As of `core.study.product`.

    Raises:
        StoreError: Nothing is chosen yet.
    """
    if known is None or known.choice is None:
        what = "only compares" if known is None else "has not chosen yet"
        raise StoreError(f"study {stored.id} {what}: final runs need a choice, see `{PROGRAM} study show {stored.id}`")
    chosen = [known.choice.chosen, known.choice.default]
    names = [arm.name for arm in finalists(stored.study)] if every else chosen
    return final_study(stored.study, names, range(seeds), complete)


# ---------------------------------------------------------------- data


def as_data(known: Report) -> dict:
    """A report as `choose --json` prints it; accuracies in percent, differences in points."""
    choice, checked, rule = known.choice, known.honesty, known.study.choice
    assert rule is not None
    data: dict = {
        "budget": rule.budget, "unit": rule.unit,
        "stages": [{"epochs": epochs, "arms": arms} for epochs, arms in rule.rungs],
        "folds": known.study.arms[0].config.folds, "space": {name: [low, high] for name, low, high in rule.space},
        "default": known.study.reference, "chosen": None, "sentences": list(known.sentences),
    }  # fmt: skip
    if choice is None or checked is None:
        return data
    config = known.study.arm(choice.chosen).config
    return data | {
        "chosen": choice.chosen, "best": choice.best, "command": config.command(),
        "settings": {name: text for name, text in known.study.arm(choice.chosen).values if name != "epochs"},
        "gain": choice.gain, "gain_error": choice.gain_error, "expected_optimism": choice.optimism,
        "resamples_with_unknown": choice.unknown,
        "seeds": list(choice.seeds), "images": choice.images or None,
        "candidates": [
            {
                "arm": entry.arm, "mean": entry.mean, "behind": entry.behind, "standard_error": entry.error,
                "settings_changed": entry.distance, "share_chosen": entry.share,
            }
            for entry in choice.candidates
        ],
        "test": {
            "accuracies": {arm: {str(seed): value for seed, value in sorted(values.items())}
                           for arm, values in known.tests.items() if values},
            "gain": checked.test_gain, "optimism": checked.optimism, "regret": checked.regret,
            "best": checked.best or None, "tested": checked.tested,
        },
    }  # fmt: skip
