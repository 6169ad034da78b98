"""The table of LOG.md: what a run of the default length reaches on each bundled task.

    python benchmarks/bundled_tasks.py [--seeds 3] [--tasks digits,fashion] [--out table.json]

Protocol test: trained on all 1,000 images, measured once, after the last epoch, on the test set.
Four rows for each task: linear probe, MLAE dense, MLAE p = 0.5, and MLAE dense on the same network
with random weights, the control that a pretraining has to beat. All with the settings of the
lab's first run; the linear probe with its own (100 epochs, learning rate 1e-2, features computed once).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import Evaluation
from mlae_lab.core.patterns import dense, uniform
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import fit

BASE = replace(FIRST_RUN, protocol="test", evaluations=1)
ROWS: dict[str, RunConfig] = {
    "linear probe": replace(BASE, method="linear", epochs=100, learning_rate=1e-2),
    "MLAE dense": replace(BASE, plan=dense()),
    "MLAE p = 0.5": replace(BASE, plan=uniform(0.5)),
    "MLAE dense, random weights": replace(BASE, plan=dense(), backbone="lab_vit_12x128.random"),
}


def last_epoch(config: RunConfig) -> float:
    """Accuracy after the last epoch, in percent."""
    return [e.accuracy for e in fit(prepare(config)) if isinstance(e, Evaluation)][-1]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--tasks", default=",".join(t.name for t in catalog.TASKS if t.bundled))
    ask.add_argument("--out", type=Path)
    chosen = ask.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    for task in chosen.tasks.split(","):
        for row, config in ROWS.items():
            began = time.monotonic()
            scores = [last_epoch(replace(config, task=task, seed=seed)) for seed in range(chosen.seeds)]
            found.setdefault(row, {})[task] = scores
            print(
                f"{task:<24}{row:<28}{statistics.mean(scores):6.1f}   {scores}   {time.monotonic() - began:.0f} s",
                flush=True,
            )
            if chosen.out:
                chosen.out.write_text(json.dumps(found, indent=1))
    tasks = chosen.tasks.split(",")
    print("\n| | " + " | ".join(catalog.task(t).title for t in tasks) + " |\n|---|" + "---|" * len(tasks))
    for row, scores in found.items():
        cells = [f"{statistics.mean(s):.1f} ({min(s):.1f} to {max(s):.1f})" for s in (scores[t] for t in tasks)]
        print(f"| {row} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
