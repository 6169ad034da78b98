"""A run in plain data, for people and programs that read JSON."""

from __future__ import annotations

from mlae_lab.core.events import Evaluation, SimilarityStats, Started, TrainStep, mean_of
from mlae_lab.runs.liveness import stalled_for
from mlae_lab.runs.store import Run, RunStore


def report(store: RunStore, run: Run) -> dict:
    """What a run was and what came of it, as `train --json` prints it. Accuracies in percent, last epoch."""
    config = run.config
    evaluations = [s.event for s in store.events(run.id, kinds=("evaluation",))]
    started, step = store.last(run.id, "started"), store.last(run.id, "step")
    similarity = store.last(run.id, "similarity")
    report: dict = {
        "run": run.id, "status": run.status.value, "reason": run.reason, "task": config.task, "method": config.method,
        "plan_hash": config.plan.hash if config.method == "mlae" else None,
        "trainable_parameters": started.parameters + started.head_parameters if isinstance(started, Started) else None,
        "expert_parameters": started.parameters if isinstance(started, Started) else None,
        "epochs": step.epoch if isinstance(step, TrainStep) else 0,
        "train_seconds": None, "images_per_second": None,
        f"{config.protocol}_accuracy": evaluations[-1].accuracy if evaluations else None,
        "accuracy_by_epoch": {str(e.epoch): e.accuracy for e in evaluations},
        "best_epoch_optimistic": _best(evaluations), "similarity": None, "seed": config.seed, "badge": vars(config.badge),
        "data_notes": list(config.data_notes),
        "device": started.device if isinstance(started, Started) else run.device,
        "weights_fingerprint": started.weights if isinstance(started, Started) else None,
    }  # fmt: skip
    if isinstance(step, TrainStep) and isinstance(started, Started):
        seconds = evaluations[-1].seconds if evaluations else step.seconds
        steps_per_epoch = -(-started.train_images // config.batch_size)
        in_last = min(started.train_images, config.batch_size * (step.step - (step.epoch - 1) * steps_per_epoch))
        images = started.train_images * (step.epoch - 1) + in_last
        report |= {"train_seconds": round(seconds, 3), "images_per_second": round(images / max(seconds, 1e-9), 1)}
    if isinstance(similarity, SimilarityStats):
        report["similarity"] = {"signed": mean_of(similarity.signed), "absolute": mean_of(similarity.absolute)}
    return report


def _best(evaluations: list[Evaluation]) -> dict | None:
    """The best measurement: chosen after the fact, so it is never the run's accuracy."""
    best = max(evaluations, key=lambda e: e.accuracy, default=None)
    return {"epoch": best.epoch, "accuracy": best.accuracy} if best else None


def state(store: RunStore, run: Run) -> dict:
    """Where a run stands now, as `runs --json` prints it."""
    step, evaluation = store.last(run.id, "step"), store.last(run.id, "evaluation")
    return {
        "run": run.id, "status": run.status.value, "reason": run.reason or None, "pid": run.pid, "device": run.device,
        "epoch": step.epoch if isinstance(step, TrainStep) else 0,
        "step": step.step if isinstance(step, TrainStep) else 0,
        f"{run.config.protocol}_accuracy": evaluation.accuracy if isinstance(evaluation, Evaluation) else None,
        "stalled_seconds": stalled_for(store.paths(run.id)) if run.status.is_active else None,
        "owner": run.owner or None, "attempt": run.attempt, "checkpoints": list(store.paths(run.id).checkpoints()),
        "parent": run.parent or None, "relation": run.relation or None,
        "config_hash": run.config_hash, "config": run.config.to_dict(),
    }  # fmt: skip
