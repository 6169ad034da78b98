"""Methods on a folder of own images and any backbone: accuracy on test over seeds, as JSON lines.

    python -m benchmarks own_images --data DIR --out FILE [--backbone vit_small_patch14_dinov2.lvd142m]
        [--weights FILE] [--image-size 70] [--methods mlae,lora,linear] [--seeds 0,1,2] [--epochs 10] [--show]

Protocol test: trained on train and val of the folder, evaluated once, after the last epoch, on its test split. All
methods follow the common recipe without drop path, so that a linear probe computes the features of each image once;
MLAE drops half of its experts in each step. Finished runs are kept one by one: the same command continues after Ctrl-C
or a power cut. Before each run the lab's estimate of its time is printed, and after it the time that it took. --show
only prints the results.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.method_table import complete, start_of, train
from mlae_lab.core import recipes
from mlae_lab.core.catalog import DEFAULT_BACKBONE, backbone
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import fitted, uniform
from mlae_lab.core.seed_statistics import PERCENT, mean_text, seed_statistics
from mlae_lab.core.units import format_duration
from mlae_lab.data.listing import counted
from mlae_lab.data.tasks import image_folder, located, own_task_of
from mlae_lab.errors import LabError
from mlae_lab.runs.estimate import rough_estimate
from mlae_lab.runs.method_table import DROP_RATE, SEEDS, Budget, Cell, Result, Table, read, title_of

METHODS = ("mlae", "lora", "linear")
BUDGET = Budget(epochs=10, batch_size=32)
RECIPE = "common"  # without drop path


def cells(
    folder: Path, name: str, weights: str, image_size: int, methods: Sequence[str], seeds: Sequence[int], budget: Budget
) -> Iterator[Cell]:
    """The runs in the order of training: seed by seed.

    Args:
        folder: Of the images.
        name: Of the backbone.
        weights: A file of weights, "" for the backbone's own.
        image_size: In pixels, 0 for the backbone's own.
        methods: Names of `core.method`.
        seeds: Of the runs.
        budget: Of every run.

    Raises:
        ConfigError, CatalogError, DataError, BackboneError: The runs cannot be made.
    """
    plan = fitted(uniform(DROP_RATE), backbone(name).default_targets)
    first = located(
        RunConfig(
            own_task_of(folder).name, plan, backbone=name, weights=weights, image_size=image_size, data=str(folder),
            protocol="test", evaluations=1, device="cpu",
        )
    )  # fmt: skip
    for seed in seeds:
        for method in methods:
            config = replace(first, method=method, seed=seed)
            values = {**recipes.values_of(config, "common"), **asdict(budget), "drop_path": 0.0}
            yield Cell(RECIPE, replace(config, **values))


def timed(cell: Cell) -> Result:
    """Train one run, and print what the lab estimates before it and how long it took."""
    estimate = rough_estimate(None, cell.config)
    expected = "–" if estimate.seconds is None else format_duration(estimate.seconds)
    print(f"{title_of(cell.config.method)}, seed {cell.config.seed}: estimated {expected}", flush=True)
    result = train(cell)
    print(f"  took {format_duration(result.seconds)}", flush=True)
    return result


def report(table: Table) -> list[str]:
    """A line for each method: mean over seeds with its 95 % interval, trained parameters, seconds of a run."""
    lines = []
    for method in dict.fromkeys(result.method for result in table.results):
        results = sorted((r for r in table.results if r.method == method), key=lambda r: r.seed)
        accuracy = seed_statistics(table.starts[-1].epochs, [r.accuracy for r in results], PERCENT)
        parameters = results[0].parameters + results[0].head_parameters
        seconds = sorted(r.seconds for r in results)[len(results) // 2]
        lines.append(
            f"{title_of(method):<16}{mean_text(accuracy, 1):>14} %  {counted(len(results), 'seed')}, {parameters:,} "
            f"trained parameters, {format_duration(seconds)} a run"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options, then train and print."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the images")
    parser.add_argument("--out", type=Path, required=True, help="the file of the results")
    parser.add_argument("--backbone", default=DEFAULT_BACKBONE, help="by default %(default)s")
    parser.add_argument("--weights", default="", help="a file with its weights")
    parser.add_argument("--image-size", type=int, default=0, help="pixels, by default the backbone's own")
    parser.add_argument("--methods", default=",".join(METHODS), help="by default %(default)s")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="by default %(default)s")
    parser.add_argument("--epochs", type=int, default=BUDGET.epochs, help="of every run, by default %(default)s")
    parser.add_argument("--batch-size", type=int, default=BUDGET.batch_size, help="by default %(default)s")
    parser.add_argument("--show", action="store_true", help="train nothing, print the results")
    options = parser.parse_args(arguments)
    budget = Budget(options.epochs, options.batch_size)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not options.show:
            weights = str(Path(options.weights).absolute()) if options.weights else ""
            planned = cells(
                image_folder(options.data), options.backbone, weights, options.image_size, options.methods.split(","),
                [int(seed) for seed in options.seeds.split(",")], budget,
            )  # fmt: skip
            complete(options.out, start_of("own_images", arguments, budget), list(planned), 1, timed)
    except KeyboardInterrupt:
        print(f"stopped: {options.out} holds the runs that were finished, and the same command continues", flush=True)
        return 130
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(report(read(options.out))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
