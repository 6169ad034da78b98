"""Table 3 of the paper: images per second of inference, measured on this machine and kept in the store's folder.

A measurement is one line of `throughput.jsonl`. Of several on one chip, with one backbone, the last counts; rates that
it lacks are those of earlier ones under the same conditions (device, precision, threads, torch).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlae_lab.core import catalog
from mlae_lab.core.paper_arms import PAPER_BACKBONE
from mlae_lab.core.paper_tables import printed_table
from mlae_lab.core.settings import ConfigError
from mlae_lab.data.listing import counted
from mlae_lab.errors import LabError
from mlae_lab.files import append_line
from mlae_lab.locations import ROOT
from mlae_lab.runs.paths import throughput_file

BATCHES = (1, 4, 16)
RANDOM = ".random"  # ends the name of a backbone with random weights, which are as fast


class ThroughputError(LabError):
    """A measurement that failed."""


@dataclass(frozen=True)
class Rate:
    """One number. merged: whether the method's update is part of the network's weights; rate: images per second."""

    method: str
    merged: bool
    batch: int
    rate: float


@dataclass(frozen=True)
class Throughput:
    """A measurement.

    Attributes:
        date: UTC, ISO 8601.
        chip: Name of the GPU or the processor.
        device: "cpu" or "cuda".
        precision: "float32" or "bfloat16".
        threads: Of a CPU.
        torch: Its version.
        backbone: Its name.
        rates: What was measured.
        since: Date of the oldest rate, "" if all are of `date`.
    """

    date: str
    chip: str
    device: str
    precision: str
    threads: int
    torch: str
    backbone: str
    rates: tuple[Rate, ...]
    since: str = ""

    @property
    def conditions(self) -> tuple:
        """Equal for measurements whose rates belong into one table."""
        return self.chip, self.backbone, self.device, self.precision, self.threads, self.torch

    @property
    def where(self) -> str:
        """Chip, precision and date as text."""
        threads = f", {counted(self.threads, 'thread')}" if self.device == "cpu" else ""
        days = " to ".join(dict.fromkeys(date[:10] for date in (self.since, self.date) if date))
        return f"{self.chip}{threads}, {self.precision}, torch {self.torch}, {days}"

    @property
    def is_papers(self) -> bool:
        """Whether the backbone has the shape of the paper's."""
        return same_shape(self.backbone)


def same_shape(backbone: str) -> bool:
    """Whether a backbone is the paper's up to its weights."""
    return backbone.partition(".")[0] == PAPER_BACKBONE.partition(".")[0]


@dataclass(frozen=True)
class RateRow:
    """A row of the table with one measurement: batch to images per second.

    Attributes:
        row: Its name.
        merged: Whether the measured update is merged, which is what the paper prints of methods that can be.
        rates: Measured.
        paper: The paper's, empty for the state that the paper does not print.
    """

    row: str
    merged: bool
    rates: Mapping[int, float]
    paper: Mapping[int, float]


def methods_of(rows: Sequence[str] = ()) -> dict[str, str]:
    """Row of Table 3 to its method.

    Args:
        rows: Names of rows, empty for all.

    Raises:
        ConfigError: A row that the table does not have.
    """
    known = {row.name.lower(): row for row in printed_table("table3").rows}
    unknown = [name for name in rows if name.lower() not in known]
    if unknown:
        listed = "; ".join(row.name for row in known.values())
        raise ConfigError(f"{unknown[0][:60]!r} is no row of Table 3: choose from {listed}")
    return {row.name: row.method for row in ([known[name.lower()] for name in rows] or known.values())}


def measure(
    store: Path, rows: Sequence[str], device: str, backbone: str, report: Callable[[str], None] = lambda text: None
) -> Throughput:
    """Measure rows of Table 3 in a separate process, and keep the result.

    Args:
        store: Its folder.
        rows: As of `methods_of`.
        device: "auto", "cpu" or "cuda".
        backbone: Its name, "" for the paper's.
        report: Called with each number as text.

    Raises:
        ConfigError: As `methods_of` does.
        CatalogError: An unknown backbone.
        ThroughputError: The measurement failed.
    """
    methods = methods_of(rows)
    entry = catalog.backbone(backbone or PAPER_BACKBONE)
    name = entry.name if entry.name.endswith(RANDOM) else entry.name.partition(".")[0] + RANDOM
    command = [sys.executable, "-m", "mlae_lab.runs.throughput_worker", device, name, *methods.values()]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as process:  # `-m` finds it there
        assert process.stdout is not None
        assert process.stderr is not None
        first, rates = {}, []
        for line in process.stdout:
            values = json.loads(line)
            if not first:
                first = values
                continue
            rates.append(Rate(**values))
            report(f"{rates[-1].method}{' merged' * rates[-1].merged}, batch {rates[-1].batch}: {rates[-1].rate:.1f}")
        problem = process.stderr.read().strip().splitlines()
        status = process.wait()
    if status != 0 or not rates:
        raise ThroughputError(problem[-1] if problem else f"the measurement ended with status {status}")
    result = Throughput(
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **first, backbone=name, rates=tuple(rates)
    )  # fmt: skip
    append_line(throughput_file(store), json.dumps(asdict(result), ensure_ascii=False))
    return result


def measured(store: Path) -> list[Throughput]:
    """The measurements of a store, one for each chip and backbone, the newest first; damaged lines are left out."""
    try:
        lines = throughput_file(store).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    known: dict[tuple[str, str], Throughput] = {}  # the newest first
    for line in reversed(lines):
        try:
            values = json.loads(line)
            entry = Throughput(**{**values, "rates": tuple(Rate(**rate) for rate in values["rates"])})
        except (ValueError, TypeError, KeyError):
            continue
        newer = known.setdefault((entry.chip, entry.backbone), entry)
        if newer is not entry and newer.conditions == entry.conditions:
            known[entry.chip, entry.backbone] = _completed(newer, entry)
    return list(known.values())


def _completed(newer: Throughput, older: Throughput) -> Throughput:
    """A measurement with the rates that only an older one has."""
    measured = {(rate.method, rate.merged, rate.batch) for rate in newer.rates}
    more = tuple(rate for rate in older.rates if (rate.method, rate.merged, rate.batch) not in measured)
    return replace(newer, rates=(*newer.rates, *more), since=older.date) if more else newer


def rate_rows(entry: Throughput) -> Iterator[RateRow]:
    """The rows of a measurement; the paper prints merged methods as they are merged, and no unmerged ones."""
    for row in printed_table("table3").rows:
        states = sorted({rate.merged for rate in entry.rates if rate.method == row.method}, reverse=True)
        for merged in states:
            rates = {r.batch: r.rate for r in entry.rates if (r.method, r.merged) == (row.method, merged)}
            printed = {batch: row.values[f"bs{batch}"] for batch in BATCHES if f"bs{batch}" in row.values}
            yield RateRow(row.name, merged, rates, printed if merged == states[0] else {})
