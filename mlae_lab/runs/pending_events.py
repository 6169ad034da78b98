"""Events that a locked store could not take, kept next to a run's checkpoint until it can.

A resumed run continues after its checkpoint and does not report earlier events again. So events that the store lacks
when a checkpoint is written, or when the run ends, are written to a file first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mlae_lab.core import events as ev
from mlae_lab.files import write_whole
from mlae_lab.runs.paths import RunPaths
from mlae_lab.runs.store import RunStore


def keep(files: RunPaths, after: int, events: Sequence[ev.Event]) -> None:
    """Write pending events to the file; those of an earlier call are replaced.

    Args:
        files: Of the run.
        after: Id of the run's newest event in the store.
        events: The events.

    Raises:
        OSError: The file cannot be written.
    """
    content = {"after": after, "events": [[event.kind, ev.to_json(event)] for event in events]}
    write_whole(files.pending_events, json.dumps(content))


def deliver(store: RunStore, run: str) -> None:
    """Write the pending events of a run to the store, unless it has them. Nobody else may write events of the run.

    They are written in one transaction: if the run has an event newer than `after`, the store has all of them. Raises
    OSError and sqlite3.Error; the file is kept then.
    """
    files = store.paths(run)
    try:
        content = json.loads(files.pending_events.read_text())
        after = content["after"]
        named = [ev.renamed(kind, json.loads(payload)) for kind, payload in content["events"]]  # may be of version 0.5
        events = [ev.from_json(ev.KINDS[kind], json.dumps(payload)) for kind, payload in named if kind in ev.KINDS]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # a damaged file is kept and does not block the queue
    if store.event_ids(run)[1] == after:
        store.append(run, events)
        store.sync()
    files.pending_events.unlink(missing_ok=True)
