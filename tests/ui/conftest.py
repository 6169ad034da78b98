"""The whole app, opened by AppTest as one browser tab of a visitor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from streamlit import config
from streamlit.testing.v1 import AppTest

from mlae_lab.runs.store import RunStore
from tests.lab import open_page


@pytest.fixture
def bind() -> Iterator[Callable[[str | None], None]]:
    """Says which address the server has, as its command line would."""
    before = config.get_option("server.address")
    yield lambda address: config.set_option("server.address", address)
    config.set_option("server.address", before)


@pytest.fixture
def store(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """The store of the app, empty."""
    monkeypatch.setenv("MLAE_LAB_STORE", str(store.folder))
    return store


@pytest.fixture
def tab(store: RunStore, bind: Callable[[str | None], None]) -> Callable[..., AppTest]:
    """Opens a page in a new session of a browser whose id is known; on this machine alone."""
    bind("127.0.0.1")
    return lambda page, visitor, **query: open_page(page, {"visitor_id": visitor}, **query)
