"""Events that a locked store did not take are written once; a damaged file does no harm."""

from __future__ import annotations

import json

import pytest

from mlae_lab.core.config import RunConfig
from mlae_lab.core.events import Saved
from mlae_lab.core.patterns import allocation
from mlae_lab.runs import pending_events
from mlae_lab.runs.store import RunStore

FIRST, SECOND, THIRD = (Saved(epoch, 10 * epoch, 1000) for epoch in (1, 2, 3))


@pytest.fixture
def run(lab_store: RunStore) -> str:
    name = lab_store.enqueue(RunConfig("digits", allocation((2,))), "cpu").id
    lab_store.append(name, [FIRST])
    return name


def saved_events(store: RunStore, run: str) -> list[Saved]:
    return [stored.event for stored in store.events(run)]


def test_pending_events_are_written_once(lab_store: RunStore, run: str) -> None:
    files = lab_store.paths(run)
    pending_events.keep(files, lab_store.event_ids(run)[1], [SECOND])
    pending_events.keep(files, lab_store.event_ids(run)[1], [SECOND, THIRD])  # replaces the earlier ones
    assert saved_events(lab_store, run) == [FIRST]
    for _ in range(2):
        pending_events.deliver(lab_store, run)
        assert saved_events(lab_store, run) == [FIRST, SECOND, THIRD]
    assert [path.name for path in files.folder.iterdir() if "pending" in path.name] == []


def test_events_that_the_store_has_are_not_written_again(lab_store: RunStore, run: str) -> None:
    pending_events.keep(lab_store.paths(run), lab_store.event_ids(run)[1], [SECOND])
    lab_store.append(run, [SECOND])  # killed before the file was removed
    pending_events.deliver(lab_store, run)
    assert saved_events(lab_store, run) == [FIRST, SECOND]
    assert not lab_store.paths(run).pending_events.exists()


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", "{}", '{"after": 1}', '{"after": 1, "events": 5}', '{"after": 1, "events": [["saved"]]}',
        json.dumps({"after": 1, "events": [["saved", "{}"]]}), json.dumps({"after": 1, "events": [["saved", "{"]]}),
        json.dumps({"after": 0, "events": [["saved", "[]"]]}), json.dumps({"after": 1, "events": [["saved", "5"]]}),
        json.dumps({"after": 1, "events": [["saved", "null"]]}), '{"after": 1, "events": ' + "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_kept(lab_store: RunStore, run: str, text: str) -> None:
    lab_store.paths(run).pending_events.write_text(text)
    pending_events.deliver(lab_store, run)
    assert saved_events(lab_store, run) == [FIRST]
    assert lab_store.paths(run).pending_events.read_text() == text


def test_events_of_a_newer_version_are_skipped(lab_store: RunStore, run: str) -> None:
    pending_events.keep(lab_store.paths(run), lab_store.event_ids(run)[1], [SECOND])
    note = json.loads(lab_store.paths(run).pending_events.read_text())
    note["events"].append(["dreamt", "{}"])
    lab_store.paths(run).pending_events.write_text(json.dumps(note))
    pending_events.deliver(lab_store, run)
    assert saved_events(lab_store, run) == [FIRST, SECOND]
