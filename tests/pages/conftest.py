"""A store with real runs in it, made once: a masked run and a linear probe, both finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit import config

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import pattern
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
from mlae_lab.training.setup import prepare
from mlae_lab.training.trainer import fit


@pytest.fixture(autouse=True)
def bound_to_this_machine() -> Iterator[None]:
    """As in mlae_lab/.streamlit/config.toml, which the test runner of pages does not read: no authentication."""
    before = config.get_option("server.address")
    config.set_option("server.address", "127.0.0.1")
    yield
    config.set_option("server.address", before)


@pytest.fixture(scope="session")
def filled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    store = RunStore(folder)
    common = {"task": "digits", "backbone": "lab_vit_12x128.random", "epochs": 2}
    for chosen in (RunConfig(method="linear", **common), RunConfig(plan=pattern("hourglass", "mixed"), **common)):
        run = store.enqueue(chosen, device="cpu")
        store.append(run.id, list(fit(prepare(chosen))))
        store.move(run.id, Status.FINISHED)
    return folder


@pytest.fixture
def store(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """The store that the pages show."""
    monkeypatch.setenv("MLAE_LAB_STORE", str(store.folder))
    return store


@pytest.fixture
def empty_store(tmp_path: Path) -> Path:
    return tmp_path / "store"
