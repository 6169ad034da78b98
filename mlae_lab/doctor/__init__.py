"""The doctor: the state of this machine and of the lab, its problems and their remedies, in six sections of findings.

It changes nothing: no folder is made, no run is moved, a store of an earlier version is not migrated, and torch is
loaded only on request, in another process.
`examine` never raises: a section that cannot be examined is a finding like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mlae_lab.doctor import devices, disk, runs, store, versions, weights
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, Report, Section, trouble
from mlae_lab.doctor.torch_check import TorchReport, check_torch
from mlae_lab.locations import PROGRAM

__all__ = ["Finding", "Report", "Section", "TorchReport", "check_torch", "examine"]


def examine(folder: Path | None = None, deep: bool = False, torch: TorchReport | None = None) -> Report:
    """Examine everything. Never raises and makes no folder; without `deep` it usually takes less than a second.

    Args:
        folder: The store, by default the one that new runs go to.
        deep: Load torch in another process, and read a database of any size.
        torch: An earlier report of torch, used in place of a new one.
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
    return Report(tuple(Section(title, _findings(title, part, context)) for title, part in parts.items()))


def _findings(title: str, part: Callable[[Context], Iterator[Finding]], context: Context) -> tuple[Finding, ...]:
    findings: list[Finding] = []
    try:
        findings.extend(part(context))
    except Exception as error:
        findings.append(
            trouble(
                title.lower(),
                f"this section could not be examined completely: {type(error).__name__}, {error}",
                f"fix what the error names, or report it together with the output of `{PROGRAM} doctor --json`",
            )
        )
    return tuple(findings)
