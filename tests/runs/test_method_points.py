"""Runs of different methods as points of one figure."""

from __future__ import annotations

from dataclasses import replace

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation
from mlae_lab.core.patterns import uniform
from mlae_lab.runs.method_points import badges, method_points
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore

BASE = RunConfig("digits", uniform(0.5), epochs=2, device="cpu")


def finished(store: RunStore, config: RunConfig, accuracy: float) -> str:
    run = store.enqueue(config, "cpu")
    assert store.claim(run.id, "cpu")
    store.append(run.id, [Evaluation(config.epochs, 26, "val", accuracy, 0.5, 1.0)])
    store.move(run.id, Status.RUNNING)
    store.move(run.id, Status.FINISHED)
    return run.id


def test_seeds_are_one_point_and_settings_another(store: RunStore) -> None:
    ssf = replace(BASE, method="ssf")
    first, second = finished(store, ssf, 90.0), finished(store, replace(ssf, seed=1), 94.0)
    slow = finished(store, replace(ssf, learning_rate=1e-3), 80.0)
    masked = finished(store, BASE, 95.0)
    finished(store, replace(BASE, task="fashion"), 70.0)
    finished(store, replace(ssf, max_seconds=5.0), 99.0)
    store.enqueue(replace(ssf, seed=2), "cpu")
    runs = store.runs()
    badge = next(iter(badges(runs)))
    assert badge.task == "digits"
    points = method_points(store, runs, badge)
    assert [(p.what, p.parameters, p.accuracy.n, p.runs) for p in points] == [
        ("SSF", 34_304, 2, (first, second)),
        ("SSF", 34_304, 1, (slow,)),
        ("stochastic mask", 49_248, 1, (masked,)),
    ]
    assert points[0].accuracy.mean == 92.0
    assert points[0].accuracy.interval is not None
    assert points[2].active == 49_248 / 2
    assert points[1].settings == "2 epochs, learning rate 0.001"


def test_of_two_runs_with_one_seed_the_newer_counts(store: RunStore) -> None:
    finished(store, BASE, 50.0)
    newer = finished(store, BASE, 60.0)
    (point,) = method_points(store, store.runs(), BASE.badge)
    assert (point.runs, point.accuracy.mean) == ((newer,), 60.0)


def test_a_store_without_finished_runs(store: RunStore) -> None:
    store.enqueue(BASE, "cpu")
    assert badges(store.runs()) == {}
    assert method_points(store, store.runs(), BASE.badge) == []
