"""Record the tour: one masked run in detail, and the accuracy and similarity of three masked and three dense runs.

python assets/record_tour.py
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlae_lab.core import tour
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Evaluation, ExpertStats, SimilarityStats, mean_of
from mlae_lab.locations import ASSETS
from mlae_lab.training.setup import Setup, prepare
from mlae_lab.training.trainer import fit

PART = 16  # rows and columns of the part of a weight matrix that is shown
STEPS = 60  # sampled masks that are shown


def _part(matrix: torch.Tensor) -> list[list[float]]:
    """The first rows and columns, with five digits."""
    return [[float(f"{value:.5g}") for value in row] for row in matrix[:PART, :PART].tolist()]


def _rounded(canvas: tuple, digits: int = 4) -> list[list[float]]:
    return [[round(value or 0.0, digits) for value in row] for row in canvas]


def _sampled(setup: Setup) -> list[list[str]]:
    """Returns a list that the training fills: per step and row, the active experts as bits of a hexadecimal number."""
    steps: list[list[str]] = []
    experts = setup.experts
    assert experts is not None
    sample = experts.sample

    def recorded_sample() -> torch.Tensor:
        factors = sample()
        steps.append([format(sum(int(f > 0) << i for i, f in enumerate(row)), "x") for row in factors.tolist()])
        return factors

    experts.sample = recorded_sample
    return steps


def _weights(setup: Setup) -> dict:
    """The shown part of W, of ΔW and of every expert λ b aᵀ of the tour's layer, of rank 1 each."""
    assert setup.experts is not None
    target = setup.experts.plan.targets[tour.LAYER - 1]
    layer = setup.experts.layers[target]
    with torch.no_grad():
        experts = [
            layer.coefficient[i] * torch.outer(layer.b[:, i], layer.a[i]) for i in range(layer.coefficient.numel())
        ]
        delta = layer.delta()
        return {
            "target": target,
            "inputs": layer.in_features,
            "outputs": layer.out_features,
            "w": _part(layer.base.weight),
            "delta": _part(delta),
            "experts": [_part(expert) for expert in experts],
            "norm": round(float(layer.base.weight.norm()), 3),
            "delta_norm": round(float(delta.norm()), 3),
        }


def _run(config: RunConfig) -> tuple[Setup, list[list[str]], list]:
    setup = prepare(config)
    steps = _sampled(setup)
    events = []
    for event in fit(setup):
        events.append(event)
        if isinstance(event, Evaluation):
            print(event, flush=True)
    return setup, steps, events


def main() -> None:
    """Train the six runs and write assets/tour.json."""
    arms: dict[str, list[dict[str, float]]] = {}
    recording: dict = {}
    for name, configs in tour.configs().items():
        for config in configs:
            setup, steps, events = _run(config)
            evaluations = [event for event in events if isinstance(event, Evaluation)]
            experts = [event for event in events if isinstance(event, ExpertStats)]
            similarity = [event for event in events if isinstance(event, SimilarityStats)][-1]
            arms.setdefault(name, []).append(
                {
                    "seed": config.seed,
                    "accuracy": round(evaluations[-1].accuracy, 2),
                    "similarity": round(mean_of(similarity.absolute) or 0.0, 5),
                }
            )
            print(config.what, arms[name][-1], flush=True)
            if config != tour.MASKED:
                continue
            recording = {
                "id": config.hash,
                "rows": config.plan.rows,
                "columns": config.plan.columns,
                "epochs": config.epochs,
                "layer": tour.LAYER,
                "weights": _weights(setup),
                "steps": steps[:: max(1, len(steps) // STEPS)][:STEPS],
                "accuracy": [[event.epoch, round(event.accuracy, 2)] for event in evaluations],
                "contribution": [_rounded(event.contribution) for event in experts],
                "coefficient": _rounded(experts[-1].coefficient),
                "similarity": [_rounded(matrix, 3) for matrix in similarity.matrices],
            }
    recording |= {
        "arms": arms,
        "hashes": {name: [config.hash for config in configs] for name, configs in tour.configs().items()},
        "made": f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads",
    }
    (ASSETS / "tour.json").write_text(json.dumps(recording, separators=(",", ":")))


if __name__ == "__main__":
    main()
