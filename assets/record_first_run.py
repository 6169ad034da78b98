"""Record the lab's first run for the home page: what each step drew, what was measured, what each expert adds.

python assets/record_first_run.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from mlae_lab.core import catalog
from mlae_lab.core.defaults import FIRST_RUN
from mlae_lab.core.events import Evaluation, ExpertStats, TrainStep
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import fit

PLAY_SECONDS = 14


def main() -> None:
    setup = prepare(FIRST_RUN)
    draw, drawn = setup.experts.sample, []

    def recorded():
        factors = draw()
        drawn.append([format(sum(int(f > 0) << i for i, f in enumerate(row)), "x") for row in factors.tolist()])
        return factors

    setup.experts.sample = recorded
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
    rate = plan.drop_rate[0][0]
    recording = {
        "id": FIRST_RUN.hash, "rows": plan.rows, "columns": plan.columns, "epochs": FIRST_RUN.epochs,
        "seconds": PLAY_SECONDS, "chance": 100 / task.classes, "steps": drawn, "evaluations": evaluations,
        "contribution": contribution,
        "caption": f"A recorded run: {task.title}, p = {rate:g}, {FIRST_RUN.epochs} epochs of 800 images, seed {FIRST_RUN.seed}, "
                   f"measured on 200 others; it took {seconds:.0f} s on two processor cores. A ring marks an expert that the step "
                   "drew, the fill how much it adds.",
    }  # fmt: skip
    (HERE / "first_run.json").write_text(json.dumps(recording, separators=(",", ":")))


if __name__ == "__main__":
    main()
