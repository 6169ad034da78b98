"""Events that a locked store did not take, kept beside a run's checkpoint until it does.

A resumed run goes on behind its checkpoint and tells nothing again that lies before it. So whatever the store lacks
when a checkpoint is written, or when the run ends, is written here first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mlae_lab.core import events as ev
from mlae_lab.files import write_whole
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.store import RunStore


def keep(files: RunPaths, after: int, events: Sequence[ev.Event]) -> None:
    """Write them down; what was kept before is replaced. after: id of the run's newest event in the store. Raises OSError."""
    told = {"after": after, "events": [[event.kind, ev.to_json(event)] for event in events]}
    write_whole(files.pending_events, json.dumps(told))


def tell(store: RunStore, run: str) -> None:
    """Put into the store what was kept, if it is not there yet. Nobody may write events of the run meanwhile.

    A store takes all that waits or nothing: an event newer than `after` says that it took these. Raises OSError and
    sqlite3.Error; what was kept is then still there.
    """
    files = store.paths(run)
    try:
        told = json.loads(files.pending_events.read_text())
        after = told["after"]
        named = [ev.renamed(kind, json.loads(payload)) for kind, payload in told["events"]]  # 0.5 may have left them
        events = [ev.from_json(ev.KINDS[kind], json.dumps(payload)) for kind, payload in named if kind in ev.KINDS]
    except (
        FileNotFoundError,
        ValueError,
        KeyError,
        TypeError,
    ):  # a damaged file stops no queue; it stays for whoever wants to look
        return
    if store.event_ids(run)[1] == after:
        store.append(run, events)
        store.sync()
    files.pending_events.unlink(missing_ok=True)
