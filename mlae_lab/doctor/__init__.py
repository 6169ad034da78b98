"""The doctor: what is here, what is wrong with it, and what to do about it, in six sections of findings.

It looks and changes nothing: no folder is made, no run is moved, and torch is loaded in another process only when it
is asked for. `examine` never raises: a part that cannot be examined is a finding like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mlae_lab.doctor import devices, disk, runs, store, versions, weights
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, Report, Section, trouble
from mlae_lab.doctor.machine import memory
from mlae_lab.doctor.store import RESCUE, knows_locks
from mlae_lab.doctor.torch_check import TorchReport, check_torch
from mlae_lab.doctor.weights import PAPER_WEIGHTS, weights_problem

# of the constants, only what others use: a limit is set where it is read, in its own module
__all__ = [
    "PAPER_WEIGHTS", "RESCUE", "Finding", "Report", "Section", "TorchReport", "check_torch", "examine", "knows_locks",
    "memory", "weights_problem",
]  # fmt: skip


def examine(folder: Path | None = None, deep: bool = False, torch: TorchReport | None = None) -> Report:
    """Look at everything. Never raises and makes no folder; without `deep` it takes less than a second as a rule.

    folder: the store, by default the one that runs go to. deep: load torch in another process and read a database of
    any size. torch: what it answered a moment ago, so that it is not asked again.
    """
    context = Context(folder, deep, torch)
    parts: dict[str, Callable[[Context], Iterator[Finding]]] = {
        "Devices": devices.section,
        "Versions": versions.section,
        "Weights and data": weights.section,
        "Disk": disk.section,
        "Store": store.section,  # opens the store, so it comes before the runs
        "Runs": runs.section,
    }
    return Report(tuple(Section(title, _kept(title, part, context)) for title, part in parts.items()))


def _kept(title: str, part: Callable[[Context], Iterator[Finding]], context: Context) -> tuple[Finding, ...]:
    found: list[Finding] = []
    try:
        found.extend(part(context))
    except Exception as error:
        found.append(
            trouble(
                title.lower(),
                f"this section could not be examined to its end: {type(error).__name__}, {error}",
                "put right what the error names; if it names nothing of yours, report it with `mlae_lab doctor --json`",
            )
        )
    return tuple(found)
