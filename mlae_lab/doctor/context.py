"""What the sections of one examination share: the store, the data folder, how deep to look."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlae_lab.doctor.torch_check import TorchReport
from mlae_lab.locations import data_folder, default_store
from mlae_lab.runs.store import RunStore


@dataclass
class Context:
    """What the sections share. store: open, once the section Store has opened it; damaged: it cannot be relied on."""

    asked: Path | None
    deep: bool
    torch: TorchReport | None
    store: RunStore | None = None
    damaged: bool = False

    @cached_property
    def folder(self) -> Path:
        return (self.asked or default_store()).expanduser().absolute()

    @cached_property
    def data(self) -> Path:
        return data_folder().absolute()
