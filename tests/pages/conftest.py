"""A store with real runs in it, made once: a masked run and a linear probe, both finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import pattern
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.training.trainer import fit, prepare


@pytest.fixture(scope="session")
def filled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    store = RunStore(folder)
    common = {"task": "digits", "backbone": "lab_vit_12x128.random", "epochs": 2}
    for config in (RunConfig(method="linear", **common), RunConfig(plan=pattern("hourglass", "mixed"), **common)):
        run = store.enqueue(config, device="cpu")
        store.append(run.id, list(fit(prepare(config))))
        store.move(run.id, Status.FINISHED)
    return folder


@pytest.fixture
def empty_store(tmp_path: Path) -> Path:
    return tmp_path / "store"
