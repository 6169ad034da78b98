"""`finished`: a store with a small finished run."""

from __future__ import annotations

import pytest

from mlae_lab.runs.store import RunStore
from tests.lab import finished_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunStore, str]:
    return finished_run(tmp_path_factory.mktemp("finished") / "lab")
