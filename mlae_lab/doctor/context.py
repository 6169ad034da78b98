"""What the sections of one examination share: the store, the data folder, the depth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlae_lab.doctor.torch_check import TorchReport
from mlae_lab.locations import data_folder, default_store
from mlae_lab.runs.store import RunStore


@dataclass
class Context:
    """What the sections share.

    Attributes:
        requested: The folder of the store, or None for the default.
        deep: Whether to do what takes seconds.
        torch: An earlier report of torch.
        store: Set by the section Store once it has opened it.
        damaged: Whether the section Store found the database damaged.
        outdated: Whether an earlier version wrote the store, which is then not opened: opening migrates it.
    """

    requested: Path | None
    deep: bool
    torch: TorchReport | None
    store: RunStore | None = None
    damaged: bool = False
    outdated: bool = False

    @cached_property
    def folder(self) -> Path:
        return (self.requested or default_store()).expanduser().absolute()

    @cached_property
    def data(self) -> Path:
        return data_folder().absolute()
