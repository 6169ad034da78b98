"""The only place that names files of the store.

<store>/lab.sqlite            runs and their events (`runs.store`)
<store>/making.lock           held for the moment in which a new store gets its tables
<store>/runs/<run>/lock       held by the run's process for as long as it lives
<store>/runs/<run>/log.txt    what the process printed, with the traceback if it failed
<store>/runs/<run>/adapter.safetensors   experts and head after the last evaluated epoch
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_RUN_ID = re.compile(r"[a-z2-7]{8}")


def is_run_id(text: str) -> bool:
    """Whether a text can be the name of a run: eight of a-z and 2-7, so it is safe in a path."""
    return bool(_RUN_ID.fullmatch(text))


def database(store: Path) -> Path:
    return store / "lab.sqlite"


def making(store: Path) -> Path:
    """Locked by the one process that makes a new store's tables."""
    return store / "making.lock"


@dataclass(frozen=True)
class RunPaths:
    """The files of one run. Raises ValueError for a run name that could leave the store."""

    store: Path
    run: str

    def __post_init__(self) -> None:
        if not is_run_id(self.run):
            raise ValueError(f"{self.run!r} is not the name of a run: it has eight letters a-z or digits 2-7")

    @property
    def folder(self) -> Path:
        return self.store / "runs" / self.run

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter.safetensors"
