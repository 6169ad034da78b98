"""A run as data for JSON, and damage to its events in words."""

from __future__ import annotations

from collections.abc import Sequence

from mlae_lab.core import image_labels, recipes
from mlae_lab.core.events import Resumed, SearchGeneration, SimilarityStats, Started, Statistics, TrainStep, mean_of
from mlae_lab.runs import outcomes
from mlae_lab.runs.event_log import DamagedEvent
from mlae_lab.runs.liveness import stalled_for
from mlae_lab.runs.store import Run, RunStore

_NAMED = 8  # damaged events that a sentence names


def report(store: RunStore, run: Run) -> dict:
    """Settings and results of a run, as `train --json` prints them. Accuracies are in percent."""
    config, outcome = run.config, outcomes.outcome(store, run)
    started, last, best = outcome.started, outcome.last, outcome.best
    similarity, statistics = store.last(run.id, SimilarityStats), store.last(run.id, Statistics)
    seconds, speed = outcome.seconds if started else None, outcome.images_per_second
    return {
        "run": run.id, "status": run.status.value, "reason": run.reason, "task": config.task, "method": config.method,
        "method_settings": list(config.method_settings), "recipe": recipes.followed(config) or None,
        "plan_hash": config.plan.hash if config.has_mask else None,
        "trainable_parameters": started.parameters + started.head_parameters if started else None,
        "expert_parameters": started.parameters if started and config.has_mask else None,
        "epochs": outcome.step.epoch if outcome.step else 0,
        "train_seconds": None if seconds is None else round(seconds, 3),
        "images_per_second": None if speed is None else round(speed, 1),
        f"{config.protocol}_accuracy": last.accuracy if last else None,
        "accuracy_by_epoch": {str(e.epoch): e.accuracy for e in outcome.evaluations},
        "best_epoch_optimistic": {"epoch": best.epoch, "accuracy": best.accuracy} if best else None,
        "similarity": {"signed": mean_of(similarity.signed), "absolute": mean_of(similarity.absolute)}
        if similarity
        else None,
        "search": _search(store.last(run.id, SearchGeneration)),
        "statistics": dict(statistics.values) if statistics else {},
        "seed": config.seed, "badge": vars(config.badge),
        "data_notes": list(config.data_notes), "notes": notes_of(store, run),
        "device": started.device if started else run.device,
        "weights_fingerprint": started.weights if started else None,
    }  # fmt: skip


def _search(last: SearchGeneration | None) -> dict | None:
    if last is None:
        return None
    return {
        "generation": last.generation, "generations": last.generations, "candidates": last.candidates,
        "images": last.images, "accuracy": last.best, "parameters": last.parameters,
        "chosen": {label: list(forms) for label, forms in zip(last.labels, last.chosen, strict=True)},
    }  # fmt: skip


def notes_of(store: RunStore, run: Run) -> list[str]:
    """What was changed to train a run, and what changed when it was resumed."""
    started = store.last(run.id, Started)
    resumed = [note for stored in store.events(run.id, Resumed) for note in stored.event.notes]
    return list(dict.fromkeys([*(started.notes if started else ()), *resumed]))


def state(store: RunStore, run: Run) -> dict:
    """The current state of a run, as `runs --json` prints it."""
    step = store.last(run.id, TrainStep)
    return {
        "run": run.id, "status": run.status.value, "reason": run.reason or None, "pid": run.pid, "device": run.device,
        "epoch": step.epoch if step else 0, "step": step.step if step else 0,
        f"{run.config.protocol}_accuracy": outcomes.accuracy(store, run),
        "stalled_seconds": stalled_for(store.paths(run.id)) if run.status.is_active else None,
        "owner": run.owner or None, "attempt": run.attempt, "checkpoints": list(store.paths(run.id).checkpoints()),
        "parent": run.parent or None, "relation": run.relation or None,
        "name": run.name or None, "tags": list(run.tags), "notes": run.notes or None,
        "mask_name": run.mask_name or None, "config_hash": run.config_hash,
        "dataset_changed": image_labels.changed(run.config), "config": run.config.to_dict(),
    }  # fmt: skip


def sentence_of_damage(events: Sequence[DamagedEvent]) -> str:
    """Which events of a run are damaged, in one sentence without a full stop."""
    named = ", ".join(f"{event.id} ({event.kind})" for event in events[:_NAMED])
    more = f" and {len(events) - _NAMED} more" if len(events) > _NAMED else ""
    return f"damaged events, which are left out: {named}{more}"
