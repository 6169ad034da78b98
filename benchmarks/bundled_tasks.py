"""The accuracy of a run of the default length on each bundled task (the table in LOG.md).

    python -m benchmarks bundled_tasks [--seeds 3] [--tasks digits,fashion] [--out table.json]

Protocol test: trained on all 1,000 images, evaluated once, after the last epoch, on the test set.
Four rows for each task: linear probe, MLAE dense, MLAE p = 0.5, and MLAE dense on the same network with random weights,
the control for the pretraining. All use the settings of the default run; the linear probe uses its own (100 epochs,
learning rate 1e-2, features computed once).
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


def final_accuracy(config: RunConfig) -> float:
    """Accuracy after the last epoch, in percent."""
    return [event.accuracy for event in fit(prepare(config)) if isinstance(event, Evaluation)][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", default=",".join(t.name for t in catalog.TASKS if t.bundled))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tasks = options.tasks.split(",")
    accuracies: dict[str, dict[str, list[float]]] = {}
    for task in tasks:
        for row, config in ROWS.items():
            began = time.monotonic()
            values = [final_accuracy(replace(config, task=task, seed=seed)) for seed in range(options.seeds)]
            accuracies.setdefault(row, {})[task] = values
            seconds = time.monotonic() - began
            print(f"{task:<24}{row:<28}{statistics.mean(values):6.1f}   {values}   {seconds:.0f} s", flush=True)
            if options.out:
                options.out.write_text(json.dumps(accuracies, indent=1))
    print("\n| | " + " | ".join(catalog.task(t).title for t in tasks) + " |\n|---|" + "---|" * len(tasks))
    for row, by_task in accuracies.items():
        cells = [f"{statistics.mean(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in (by_task[t] for t in tasks)]
        print(f"| {row} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
