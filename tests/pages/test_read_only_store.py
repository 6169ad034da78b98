"""Pages of a store that this process must not write."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlae_lab.runs.store import RunStore
from tests.lab import html, make_read_only, open_page
from tests.runs.test_archive_file import over
from tests.runs.test_store import CONFIG


def test_the_pages_of_a_read_only_store_can_be_read(ordinary_user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ordinary_user / "lab"
    store = RunStore(folder)
    done, waiting = over(store).id, store.enqueue(CONFIG, "cpu").id
    del store
    make_read_only(folder)
    before = sorted(folder.rglob("*"))
    monkeypatch.setenv("MLAE_LAB_STORE", str(folder))
    pages = {"runs": {"select": done}, "train": {"run": done}, "compare": {"a": done, "b": waiting}}
    for page, query in pages.items():
        at = open_page(page, **query)
        assert not at.error, (page, [error.value for error in at.error])
        if page in ("runs", "train"):
            assert done in html(at) + str(at.main), page
    assert sorted(folder.rglob("*")) == before
