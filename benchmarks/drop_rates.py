"""Ways to set the drop rate p, compared on the four bundled tasks (benchmarks/drop_rates.jsonl).

    python -m benchmarks drop_rates [--seeds 0,1,2] [--tasks digits,fashion] [--show]

Compared are p = 0, p = 0.5, a rule of thumb from the paper, `choose`, p learned by layer, and the best p in hindsight;
each with the same budget. Every p of the grid is trained on train and evaluated on val (800 and 200 images), for
`choose` (`core.choice`, all seeds together, the default p = 0.5), and trained on train and val and evaluated once on
test, for the result. So each run is used by every strategy that wants it.

    rule of thumb     p of Table 10 for a task that renders one of the paper's; else the median of its natural tasks
                      (the paper states no rule; this is what its table suggests)
    best in hindsight the p of the grid with the highest mean accuracy on test, which nobody can know beforehand
    p = 0.5, longer   p = 0.5 with as many epochs as `choose` costs in all, its final runs included

`choose` trains the grid besides; the last row spends that on training instead. The experts are in the last four blocks,
so that the frozen blocks before them are computed once per task; this is part of no run's time.

Finished runs are kept one by one: after Ctrl-C or a power cut the same command continues. --show only prints.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median

import torch

from benchmarks.method_table import start_of
from benchmarks.training import trained
from mlae_lab.core.choice import Choice, Honesty, Scores, choose, honesty
from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import unpacked
from mlae_lab.core.paper import TUNED
from mlae_lab.core.paper_arms import COUNTERPARTS, GROUPS
from mlae_lab.core.patterns import allocation
from mlae_lab.core.seed_statistics import PERCENT, mean_text, seed_statistics
from mlae_lab.errors import LabError
from mlae_lab.files import append_line
from mlae_lab.runs.method_table import SEEDS, TASKS, Budget, Start
from mlae_lab.training.setup import prepare

FILE = Path(__file__).with_name("drop_rates.jsonl")
RATES = (0.5, 0.0, 0.3, 0.7)  # the first is the default
LEARNED, LONGER = "p learned by layer", "p = 0.5, longer"
EPOCHS, BATCH_SIZE = 3, 16
BLOCKS = 4  # with experts


@dataclass(frozen=True)
class Cell:
    """One planned run. arm: its name in the table."""

    arm: str
    config: RunConfig


@dataclass(frozen=True)
class Row:
    """One finished run.

    Attributes:
        arm: As of `Cell`.
        task: A name of `core.catalog`.
        protocol: "val" or "test".
        seed: Of the run.
        epochs: Of the run.
        hash: Of its config.
        accuracy: After the last epoch, in percent.
        correct: Which images are classified correctly, as of `core.events.Evaluation`.
        images: Of the evaluation.
        steps: Of the training.
        seconds: From the first step to the end of the evaluation.
        cpu_seconds: The same in processor time.
        command: The equivalent command line.
    """

    arm: str
    task: str
    protocol: str
    seed: int
    epochs: int
    hash: str
    accuracy: float
    correct: str
    images: int
    steps: int
    seconds: float
    cpu_seconds: float
    command: str


class DropRatesError(LabError):
    """A file with a line that is not one of this benchmark."""


# ---------------------------------------------------------------- what is planned


def arm_of(rate: float) -> str:
    """The name of an arm with a fixed p."""
    return f"p = {rate:g}"


def longer_epochs(seeds: int) -> int:
    """Epochs of a run that costs as much as one final run of `choose` and its share of the search."""
    search = len(RATES) * seeds * 800 / 1000  # in final runs: these train on 1,000 images
    return round(EPOCHS * (search + seeds) / seeds)


def rule_of_thumb(task: str) -> float:
    """p by Table 10 of the paper, see above."""
    if task in COUNTERPARTS:
        return TUNED[COUNTERPARTS[task]].drop_rate
    return median(TUNED[name].drop_rate for name in GROUPS["natural"])


def cells(tasks: Sequence[str] = TASKS, seeds: Sequence[int] = SEEDS) -> Iterator[Cell]:
    """The runs in the order of training: seed by seed, the longer ones last."""
    for seed in seeds:
        for task in tasks:
            for protocol in ("val", "test"):
                yield from (Cell(arm_of(rate), _config(task, protocol, seed, rate)) for rate in RATES)
            yield Cell(LEARNED, replace(_config(task, "test", seed, RATES[0]), learned_drop_rates="layer"))
    for seed in seeds:
        for task in tasks:
            yield Cell(LONGER, replace(_config(task, "test", seed, RATES[0]), epochs=longer_epochs(len(seeds))))


def _config(task: str, protocol: str, seed: int, rate: float) -> RunConfig:
    plan = allocation((0,) * (12 - BLOCKS) + (8,) * BLOCKS, drop_rate=rate)
    return RunConfig(
        task, plan, protocol=protocol, epochs=EPOCHS, batch_size=BATCH_SIZE, learning_rate=5e-3, warmup=0.1,
        evaluations=1, seed=seed, device="cpu", precision="float32",
    )  # fmt: skip


# ---------------------------------------------------------------- training


def train(cell: Cell) -> Row:
    """Train one run to its end and evaluate it."""
    ready = prepare(cell.config)  # which reads or keeps the features of the frozen blocks: this is not timed
    began, cpu = time.monotonic(), time.process_time()
    (started, evaluation), config = trained(ready), cell.config
    return Row(
        cell.arm, config.task, config.protocol, config.seed, config.epochs, config.hash, round(evaluation.accuracy, 3),
        evaluation.correct, started.evaluation_images, started.steps, round(time.monotonic() - began, 1),
        round(time.process_time() - cpu, 1), config.command(),
    )  # fmt: skip


def complete(path: Path, start: Start, planned: Sequence[Cell]) -> None:
    """Train the planned runs that a file lacks and append their results. Raises KeyboardInterrupt after Ctrl-C."""
    present = {row.hash for row in read(path)}
    waiting = [cell for cell in planned if cell.config.hash not in present]
    print(f"{len(planned) - len(waiting)} of {len(planned)} runs are in {path}", flush=True)
    if waiting:
        append_line(path, json.dumps({"start": asdict(start)}, ensure_ascii=False))
    began = time.monotonic()
    for done, cell in enumerate(waiting, 1):
        row = train(cell)
        append_line(path, json.dumps(asdict(row), ensure_ascii=False))
        left = (time.monotonic() - began) / done * (len(waiting) - done)
        print(
            f"{len(planned) - len(waiting) + done:>4} / {len(planned)}  {row.task:<24}{row.arm:<20}{row.protocol:<5}"
            f"seed {row.seed}  {row.accuracy:5.1f} %  {row.cpu_seconds:5.1f} s CPU, {left / 60:.0f} minutes left",
            flush=True,
        )


def read(path: Path = FILE) -> list[Row]:
    """The finished runs in a file. Raises DropRatesError for another file."""
    if not path.exists():
        return []
    rows = []
    *lines, _ = path.read_text(encoding="utf-8").split("\n")  # the last has no end if a program was killed
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            rows += [] if "start" in entry else [Row(**entry)]
        except (ValueError, TypeError) as error:
            raise DropRatesError(f"line {number} of {path} is not one of this benchmark ({error}): remove it") from None
    return rows


# ---------------------------------------------------------------- what it says


@dataclass(frozen=True)
class Answer:
    """What the runs of one task say.

    Attributes:
        tests: Arm to seed to accuracy on test in percent.
        choice: What `choose` says, None before all runs on val are done.
        honesty: What the test runs say about it.
    """

    tests: Mapping[str, Mapping[int, float]]
    choice: Choice | None
    honesty: Honesty | None


def answer(rows: Sequence[Row], task: str) -> Answer:
    """Evaluate the runs of one task."""
    tests: dict[str, dict[int, float]] = {}
    scores: dict[str, Scores] = {}
    for row in (row for row in rows if row.task == task):
        if row.protocol == "test":
            tests.setdefault(row.arm, {})[row.seed] = row.accuracy
            continue
        known = scores.get(row.arm, Scores({}))
        correct = {**known.correct, row.seed: unpacked(row.correct, row.images)}
        scores[row.arm] = Scores({**known.accuracies, row.seed: row.accuracy}, correct, row.images)
    fixed = [arm_of(rate) for rate in RATES]
    if not all(arm in scores for arm in fixed):
        return Answer(tests, None, None)
    choice = choose({arm: scores[arm] for arm in fixed}, fixed[0], {arm: int(arm != fixed[0]) for arm in fixed})
    known = {arm: tests[arm] for arm in fixed if arm in tests}
    return Answer(tests, choice, honesty(choice, known) if choice else None)


def strategies(entry: Answer, task: str) -> dict[str, tuple[str, Mapping[int, float]]]:
    """Each strategy to the arm that it takes and that arm's accuracies on test by seed."""
    fixed = {arm: entry.tests[arm] for rate in RATES if (arm := arm_of(rate)) in entry.tests}
    seeds = set.intersection(*map(set, fixed.values())) if len(fixed) == len(RATES) else set()
    best = max(fixed, key=lambda arm: fmean(fixed[arm][seed] for seed in seeds)) if seeds else ""
    taken = {
        "p = 0": arm_of(0), "p = 0.5": arm_of(0.5), "rule of thumb": arm_of(rule_of_thumb(task)),
        "choose": entry.choice.chosen if entry.choice else "",
        "highest on val": entry.choice.best if entry.choice else "",
        LEARNED: LEARNED, LONGER: LONGER, "best in hindsight": best,
    }  # fmt: skip
    return {name: (arm, entry.tests.get(arm, {})) for name, arm in taken.items()}


def report(rows: Sequence[Row], tasks: Sequence[str] = TASKS) -> list[str]:
    """The table as lines of Markdown, and what `choose` says of each task.

    An interval is that of the mean over seeds (Student's t, 95 %); the last two columns are of the mean over the tasks,
    seed by seed, and of its difference to p = 0.5.
    """
    entries = {task: answer(rows, task) for task in tasks}
    by_task = {task: strategies(entry, task) for task, entry in entries.items()}
    lines = [
        "| | " + " | ".join(tasks) + " | mean | to p = 0.5 |",
        "|---|" + "---|" * (len(tasks) + 2),
    ]
    base = _means([by_task[task]["p = 0.5"][1] for task in tasks])
    for name in next(iter(by_task.values())):
        texts = [_cell_text(*by_task[task][name], named=name not in entries[task].tests) for task in tasks]
        means = _means([by_task[task][name][1] for task in tasks])
        gains = [means[seed] - base[seed] for seed in means if seed in base]
        texts += [_text(list(means.values())), "" if name == "p = 0.5" or not gains else _text(gains, signed=True)]
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    for task, entry in entries.items():
        if entry.choice is None or entry.honesty is None:
            continue
        choice, checked = entry.choice, entry.honesty
        share = choice.of(choice.chosen).share
        lines.append(
            f"{task}: `choose` takes {choice.chosen} ({100 * (share or 0):.0f} % of resamples), highest on val "
            f"{choice.best}; gain on val {choice.gain:.2f} (standard error {choice.gain_error:.2f}), on test "
            f"{checked.test_gain if checked.test_gain is not None else float('nan'):.2f}; expected optimism "
            f"{choice.optimism or 0:.2f}; regret {checked.regret if checked.regret is not None else float('nan'):.2f}"
        )
    if rows:
        short = [row.cpu_seconds for row in rows if row.arm != LONGER]
        total = sum(row.cpu_seconds for row in rows) / 60
        lines.append(f"{len(rows)} runs, {fmean(short):.1f} s of processor time each, {total:.0f} minutes in all")
    return lines


def _means(by_task: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Seed to the mean over tasks, for seeds that all tasks have."""
    seeds = sorted(set.intersection(*map(set, by_task)))
    return {seed: fmean(accuracies[seed] for accuracies in by_task) for seed in seeds}


def _cell_text(arm: str, accuracies: Mapping[int, float], named: bool) -> str:
    return _text(list(accuracies.values())) + (f" ({arm})" if named and arm else "")


def _text(values: Sequence[float], signed: bool = False) -> str:
    if not values:
        return "–"
    if signed:
        return f"{fmean(values):+.1f} ({', '.join(f'{value:+.1f}' for value in values)})"
    return mean_text(seed_statistics(0, values, PERCENT), 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options, then train and print."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="by default %(default)s")
    parser.add_argument("--tasks", default=",".join(TASKS), help="of %(default)s")
    parser.add_argument("--out", type=Path, default=FILE, help="the file of the results")
    parser.add_argument("--show", action="store_true", help="train nothing, print the results")
    options = parser.parse_args(arguments)
    tasks, seeds = options.tasks.split(","), [int(seed) for seed in options.seeds.split(",")]
    start = start_of("drop_rates", arguments, Budget(EPOCHS, BATCH_SIZE))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(1)  # less processor time in all than with more
    try:
        if not options.show:
            complete(options.out, start, list(cells(tasks, seeds)))
    except KeyboardInterrupt:
        print(f"stopped: {options.out} holds the runs that were finished, and the same command continues", flush=True)
        return 130
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(report(read(options.out), tasks)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
