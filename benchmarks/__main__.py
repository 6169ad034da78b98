"""Run a benchmark by its name: `python -m benchmarks NAME [options]`."""

from __future__ import annotations

import sys
from importlib import import_module

BENCHMARKS = {
    "gpu": "everything that matters on a CUDA GPU, in under 8 minutes",
    "vit_b16": "one training step of ViT-B/16 at the paper's full shape",
    "step": "what a training step costs beyond its matrix products",
    "frozen_features": "preparing a run from frozen features on disk, compared with computing them",
    "whatif": "a what-if toggle compared with a full pass",
    "similarity": "cosines and spectra from the factors, compared with full matrices",
    "bundled_tasks": "the accuracy of a default run on each bundled task",
    "method_table": "every method on the bundled tasks, common and own recipe, three seeds",
    "own_images": "methods on a folder of images with any backbone and image size, three seeds",
    "drop_rates": "fixed, chosen and learned p on the bundled tasks, three seeds",
    "choice": "how often `choose` finds the best arm, where the truth is known",
    "verdicts": "how often intervals hold the truth and verdicts are false, in simulated studies",
    "study_kills": "a study whose processes are killed at random, against an undisturbed one",
    "exports": "every export of four runs on five backbones, loaded by the foreign library",
    "ui": "server cost and smoothness of the live bench",
    "many_runs": "server time of the pages with 3, 40 and 1,000 runs",
    "viewers": "what twenty viewers cost a run",
    "students": "forty students in one lesson: how quickly a click is answered",
}


def main() -> int:
    """Run the benchmark that the first argument names; the others are its own."""
    names = "\n".join(f"  {name:<17}{summary}" for name, summary in BENCHMARKS.items())
    usage = f"usage: python -m benchmarks NAME [options]\n\n{names}"
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        print(usage)
        return 0
    if name not in BENCHMARKS:
        print(f"there is no benchmark {name!r}\n{usage}" if name else usage, file=sys.stderr)
        return 2
    sys.argv = [f"python -m benchmarks {name}", *sys.argv[2:]]
    return import_module(f"benchmarks.{name}").main() or 0


if __name__ == "__main__":
    sys.exit(main())
