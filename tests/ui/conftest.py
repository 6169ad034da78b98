"""The whole app, opened by AppTest as one browser tab of a visitor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit import config
from streamlit.testing.v1 import AppTest

from mlae_lab.locations import PACKAGE, PAGES
from mlae_lab.runs.store import RunStore


@pytest.fixture
def bind() -> Iterator[Callable[[str | None], None]]:
    """Says which address the server has, as its command line would."""
    before = config.get_option("server.address")
    yield lambda address: config.set_option("server.address", address)
    config.set_option("server.address", before)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """The store of the app, empty."""
    monkeypatch.setenv("MLAE_LAB_STORE", str(tmp_path / "lab"))
    return RunStore(tmp_path / "lab")


@pytest.fixture
def tab(store: RunStore, bind: Callable[[str | None], None]) -> Callable[..., AppTest]:
    """Opens a page in a new session of a browser whose id is known; on this machine alone."""
    bind("127.0.0.1")

    def opened(page: str, visitor: str, **query: str) -> AppTest:
        at = AppTest.from_file(str(PACKAGE / "app.py"), default_timeout=30)
        at.session_state["visitor_id"] = visitor
        at.run()
        at.switch_page(str(PAGES / f"{page}.py"))
        for name, value in query.items():
            at.query_params[name] = value
        at.run()
        assert not at.exception
        return at

    return opened
