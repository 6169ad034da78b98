"""Record the first run for the home page: the active experts of each step, each evaluation, each contribution.

python assets/record_first_run.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlae_lab.core import catalog
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import Evaluation, ExpertStats, TrainStep
from mlae_lab.locations import ASSETS
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import fit

PLAYBACK_SECONDS = 14


def main() -> None:
    setup = prepare(FIRST_RUN)
    experts = setup.experts
    assert experts is not None
    sample = experts.sample
    steps: list[list[str]] = []  # per step and row, the active experts as bits of a hexadecimal number

    def recorded_sample() -> torch.Tensor:
        factors = sample()
        steps.append([format(sum(int(f > 0) << i for i, f in enumerate(row)), "x") for row in factors.tolist()])
        return factors

    experts.sample = recorded_sample
    evaluations, contribution, seconds = [], [], 0.0
    for event in fit(setup):
        if isinstance(event, Evaluation):
            evaluations.append({"epoch": event.epoch, "accuracy": round(event.accuracy, 2)})
            print(event)
        elif isinstance(event, ExpertStats):
            contribution.append([[round(v or 0.0, 4) for v in row] for row in event.contribution])
        elif isinstance(event, TrainStep):
            seconds = event.seconds
    task, plan = catalog.task(FIRST_RUN.task), FIRST_RUN.plan
    caption = (
        f"Recorded run: {task.title}, p = {plan.drop_rate[0][0]:g}, {FIRST_RUN.epochs} epochs of 800 images, "
        f"seed {FIRST_RUN.seed}, evaluated on 200 held-out images; {seconds:.0f} s on two CPU cores. "
        "A ring marks an active expert, the fill shows its contribution."
    )
    recording = {
        "id": FIRST_RUN.hash,
        "rows": plan.rows,
        "columns": plan.columns,
        "epochs": FIRST_RUN.epochs,
        "seconds": PLAYBACK_SECONDS,
        "baseline": 100 / task.classes,
        "steps": steps,
        "evaluations": evaluations,
        "contribution": contribution,
        "caption": caption,
    }
    (ASSETS / "first_run.json").write_text(json.dumps(recording, separators=(",", ":")))


if __name__ == "__main__":
    main()
