"""The lab's own table of methods: all of them on the bundled tasks with one budget, over seeds and two recipes.

`python -m benchmarks method_table` makes it, run by run, and keeps it as JSON lines: a line `{"start": {...}}` for each
start of the command, which says where and with what the results after it were measured, and a line for each result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlae_lab.core import method as registry
from mlae_lab.core import recipes
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.core.seed_statistics import PERCENT, SeedStatistics, seed_statistics
from mlae_lab.errors import LabError
from mlae_lab.files import append_line
from mlae_lab.locations import ASSETS

FILE = ASSETS / "method_table.jsonl"
METHODS = tuple(registry.BUILT_IN)
# The order in which they are trained. Digits is last: there, the linear probe leaves methods little to gain.
TASKS = ("dsprites_loc_rendered", "fashion", "dsprites_ori_rendered", "digits")
SEEDS = (0, 1, 2)
RECIPES = {"common": "Common recipe", "own": "Own recipe"}
DROP_RATE = 0.5  # of MLAE: the best single one for all tasks of VTAB-1k in the paper (Table 15)

Key = tuple[str, str, str, int]  # recipe, method, task, seed


class TableError(LabError):
    """A file that is not a table of methods, or holds one with another budget."""


@dataclass(frozen=True)
class Budget:
    """What every run gets in place of its recipe's: epochs and images per step."""

    epochs: int
    batch_size: int


BUDGET = Budget(epochs=2, batch_size=16)


@dataclass(frozen=True)
class Cell:
    """One planned run. recipe: a name of `RECIPES`."""

    recipe: str
    config: RunConfig

    @property
    def key(self) -> Key:
        """What a table has one result for."""
        return self.recipe, self.config.method, self.config.task, self.config.seed


@dataclass(frozen=True)
class Start:
    """One start of the command.

    Attributes:
        command: As it was typed.
        date: UTC, ISO 8601.
        commit: Of the code.
        machine: Processor and number of cores.
        versions: Package to version.
        epochs: Of every run.
        batch_size: Images per step of every run.
    """

    command: str
    date: str
    commit: str
    machine: str
    versions: dict[str, str]
    epochs: int
    batch_size: int

    @property
    def budget(self) -> Budget:
        """Of every run."""
        return Budget(self.epochs, self.batch_size)


@dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
        recipe: A name of `RECIPES`.
        method: A name of `core.method`.
        task: A name of `core.catalog`.
        seed: Of the run.
        hash: Of its config.
        accuracy: On test after the last epoch, in percent.
        images: Of the test set.
        parameters: Trained ones without the head.
        head_parameters: Of the head.
        steps: Of the training.
        seconds: From loading to the end of the evaluation.
        cpu_seconds: The same in processor time, which other programs change less.
        command: The equivalent command line.
    """

    recipe: str
    method: str
    task: str
    seed: int
    hash: str
    accuracy: float
    images: int
    parameters: int
    head_parameters: int
    steps: int
    seconds: float
    cpu_seconds: float
    command: str

    @property
    def key(self) -> Key:
        """What a table has one result for."""
        return self.recipe, self.method, self.task, self.seed


@dataclass(frozen=True)
class Table:
    """The content of a file.

    Attributes:
        starts: Oldest first.
        results: Oldest first.
        outdated: Number of results that are left out, because the plan has other settings for them by now.
    """

    starts: tuple[Start, ...] = ()
    results: tuple[Result, ...] = ()
    outdated: int = 0


# ---------------------------------------------------------------- what is planned


def cells(
    budget: Budget,
    methods: Sequence[str] = METHODS,
    tasks: Sequence[str] = TASKS,
    seeds: Sequence[int] = SEEDS,
    wanted: Sequence[str] = tuple(RECIPES),
) -> Iterator[Cell]:
    """The runs of a table in the order of training: seed, recipe, task, method.

    A method has an own recipe if its authors' one for VTAB-1k differs from the common one in more than the budget.

    Args:
        budget: Of every run.
        methods: Names of `core.method`.
        tasks: Names of bundled tasks.
        seeds: Of the runs.
        wanted: Names of `RECIPES`.
    """
    for seed in seeds:
        for recipe in wanted:
            for task in tasks:
                for method in methods:
                    config = RunConfig(
                        task, uniform(DROP_RATE), method, protocol="test", evaluations=1, seed=seed, device="cpu",
                        precision="float32",
                    )  # fmt: skip
                    common = _with_recipe(config, "common", budget)
                    if recipe == "common":
                        yield Cell(recipe, common)
                    elif "vtab" in registry.method(method).recipes:
                        own = _with_recipe(config, "vtab", budget)
                        if own.hash != common.hash:
                            yield Cell(recipe, own)


def _with_recipe(config: RunConfig, recipe: str, budget: Budget) -> RunConfig:
    return replace(config, **{**recipes.values_of(config, recipe), **asdict(budget)})


@lru_cache(maxsize=2)
def planned_hashes(budget: Budget) -> Mapping[Key, str]:
    """The hash of the settings of each run of a whole table."""
    return {cell.key: cell.config.hash for cell in cells(budget)}


# ---------------------------------------------------------------- the file


def read(path: Path = FILE) -> Table:
    """The table in a file, an empty one if there is none. Of results for one cell the last counts.

    A last line without its end, of a program that was killed while it wrote, is ignored.

    Raises:
        TableError: Another line is not one of a table.
        OSError: The file cannot be read.
    """
    if not path.exists():
        return Table()
    *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    starts, results = [], {}
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if "start" in entry:
                starts.append(Start(**entry["start"]))
            else:
                result = Result(**entry)
                results[result.key] = result
        except (ValueError, TypeError) as error:
            raise TableError(f"line {number} of {path} is not one of a table of methods ({error}): remove it") from None
    if results and not starts:
        raise TableError(f"{path} has results and no start, so their budget is unknown: make the table again")
    planned = planned_hashes(starts[-1].budget) if starts else {}
    current = [result for key, result in results.items() if planned.get(key, result.hash) == result.hash]
    return Table(tuple(starts), tuple(current), len(results) - len(current))


def append(path: Path, entry: Start | Result) -> None:
    """Write one more line, in place of a last one that has no end. Raises OSError."""
    values: dict[str, Any] = asdict(entry)
    append_line(path, json.dumps({"start": values} if isinstance(entry, Start) else values, ensure_ascii=False))


# ---------------------------------------------------------------- what it says


@dataclass(frozen=True)
class TablePoint:
    """A method with one recipe on one task.

    Attributes:
        method: A name of `core.method`.
        title: Of the method.
        recipe: A name of `RECIPES`.
        parameters: Trained ones without the head.
        accuracy: On test, over seeds.
    """

    method: str
    title: str
    recipe: str
    parameters: int
    accuracy: SeedStatistics


def table_points(table: Table, task: str) -> list[TablePoint]:
    """A point for each method and recipe with results on a task, the highest accuracy first."""
    groups: dict[tuple[str, str], dict[int, Result]] = {}
    for result in table.results:
        if result.task == task:
            groups.setdefault((result.method, result.recipe), {})[result.seed] = result
    points = []
    for (method, recipe), by_seed in groups.items():
        values = [by_seed[seed].accuracy for seed in sorted(by_seed)]
        statistics = seed_statistics(table.starts[-1].epochs, values, PERCENT)
        parameters = next(iter(by_seed.values())).parameters
        points.append(TablePoint(method, title_of(method), recipe, parameters, statistics))
    return sorted(points, key=lambda point: -point.accuracy.mean)


def title_of(method: str) -> str:
    """The title of a method, MLAE's with its drop rate."""
    return f"MLAE, p = {DROP_RATE:g}" if method == "mlae" else registry.method(method).title


def missing(table: Table) -> tuple[int, int]:
    """Planned runs without a result, and all planned runs; 0 and 0 for an empty table."""
    if not table.starts:
        return 0, 0
    planned = planned_hashes(table.starts[-1].budget)
    return len(planned.keys() - {result.key for result in table.results}), len(planned)
