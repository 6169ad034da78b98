"""The section Runs: active runs, the supervisor, failures and leftovers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlae_lab.core import catalog
from mlae_lab.core.units import format_bytes, format_duration
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, good, note, shortened, trouble
from mlae_lab.doctor.folders import bytes_of, database_files, tree
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import liveness, paths, preset_migration, supervisor
from mlae_lab.runs.event_log import DamagedEvent
from mlae_lab.runs.owners import owner_name
from mlae_lab.runs.report import sentence_of_damage
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

NEW_FOLDER = 600.0  # seconds for which a run's folder may exist before its row
DAY = 86_400.0
LARGE_EVENTS = 10_000_000  # bytes of the database; events of a larger one are read by a deep examination only


def section(context: Context) -> Iterator[Finding]:
    """The runs of the store that the section Store has opened."""
    if context.store is None:
        if context.outdated:
            yield note("runs", "not examined: the store is of an earlier version")
        elif context.damaged:
            yield note("runs", "not examined: the store cannot be opened")
        else:
            yield good("runs", "none yet")
        return
    try:
        yield from _runs_of(context, context.store)
    except Exception as error:
        if not context.damaged:
            raise  # damage is already a finding of the section Store
        yield note("runs", f"not examined completely: the database is damaged ({error})")


def _runs_of(context: Context, store: RunStore) -> Iterator[Finding]:
    now, folders = time.time(), _run_folders(store.folder)  # before the rows: a folder is made before its row
    runs, names = store.runs(), store.nicknames()
    queued = sum(run.status is Status.QUEUED for run in runs)
    active = [run for run in reversed(runs) if run.status.is_active]
    unread, damaged = store.unread(), store.damaged_runs()
    newer = [name for name in unread if name not in damaged]
    if newer:
        yield trouble(
            "runs",
            f"{len(runs)}, and {len(newer)} that this lab cannot read: {shortened(newer)}",
            "update the lab: these runs are unchanged",
        )
    else:
        yield good("runs", f"{len(runs)}, {len(active)} active, {queued} queued")
    if left := preset_migration.note(store.folder):
        yield note("migration", left)
    for cause, names_of in _without_method(runs).items():
        yield note("method", f"{shortened(names_of)}: {cause.partition(':')[0]}", cause.partition(":")[2].strip())
    for name, cause in list(damaged.items())[:10]:
        yield trouble(
            f"run {name}",
            f"it cannot be read: {cause}",
            f"restore lab.sqlite from a backup; its files in {store.paths(name).folder} are unchanged",
        )
    yield from _events(context, store)
    yield _supervisor(store, queued, len(active))
    for run in active:
        yield _active_run(store, run, names, now)
    failed = [
        (run, now - run.ended) for run in runs
        if run.status in (Status.FAILED, Status.LOST) and run.ended is not None and now - run.ended < DAY
    ]  # fmt: skip
    for run, age in failed[:10]:
        yield note(f"run {run.id}", f"{run.status.value} {format_duration(age)} ago: {run.reason or 'reason unknown'}")
    if len(failed) > 10:
        yield note("more failures", f"{len(failed) - 10} more in the last day: `{PROGRAM} runs` lists them")
    ahead = [run.id for run in runs if run.started is not None and run.started > now + 5]
    if ahead:
        yield note(
            "clock",
            f"started later than now: {shortened(ahead)}; the clock was set back",
            "times and durations of these runs are wrong, their results are not",
        )
    known = {run.id for run in runs} | set(unread)
    orphans = [folder for folder, changed in folders if folder.name not in known and now - changed > NEW_FOLDER]
    if orphans:
        size = sum(status.st_size for folder in orphans for _, status in tree(folder))
        listed = shortened([folder.name for folder in orphans])
        yield note(
            "orphans",
            f"{len(orphans)} folder{'s' if len(orphans) != 1 else ''} of no known run, {format_bytes(size)}: {listed}",
            f"`{PROGRAM} doctor --recover` registers those with a checkpoint again; delete others in "
            f"{store.folder / 'runs'} if nobody needs them",
        )


def _without_method(runs: Iterable[Run]) -> dict[str, list[str]]:
    """What is missing to the ids of the runs whose method is not installed here."""
    missing: dict[str, list[str]] = {}
    for run in runs:
        if run.config.unavailable:
            missing.setdefault(run.config.unavailable, []).append(run.id)
    return missing


def _events(context: Context, store: RunStore) -> Iterator[Finding]:
    """Whether every event can be read. A damaged byte in one leaves the database intact."""
    size = bytes_of(*database_files(store.folder))
    if size > LARGE_EVENTS and not context.deep:
        yield note(
            "events",
            f"not read: the database has {format_bytes(size)}",
            f"`{PROGRAM} doctor --deep` reads all of them",
        )
        return
    by_run: dict[str, list[DamagedEvent]] = {}
    for event in store.damaged_events():
        by_run.setdefault(event.run, []).append(event)
    for name, events in list(by_run.items())[:10]:
        yield trouble(
            f"events of {name}",
            f"{sentence_of_damage(events)}; {events[0].cause}",
            "restore lab.sqlite from a backup, or do without these events: everything else of the run is intact",
        )
    if len(by_run) > 10:
        yield note("more damage", f"events of {len(by_run) - 10} more runs are damaged")


def _run_folders(store: Path) -> list[tuple[Path, float]]:
    """The folders below runs/ without links, with the time of their last change."""
    try:
        entries = [entry for entry in os.scandir(store / "runs") if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    folders = []
    for entry in entries:
        try:
            folders.append((Path(entry.path), entry.stat(follow_symlinks=False).st_mtime))
        except FileNotFoundError:
            continue
    return sorted(folders)


def _supervisor(store: RunStore, queued: int, active: int) -> Finding:
    if stalled := supervisor.stalled(store):
        return trouble("supervisor", stalled.state, stalled.cure)
    if supervisor.is_supervised(store):
        return good("supervisor", "running")
    if queued:
        return trouble(
            "supervisor",
            f"not running, and {queued} run{'s are' if queued != 1 else ' is'} queued",
            f"`{PROGRAM} runs` starts it again; if it exits, {paths.supervisor_log(store.folder)} gives the reason",
        )
    if active:
        return note("supervisor", "not running; active runs continue without it", f"`{PROGRAM} runs` starts it again")
    return good("supervisor", "not running, and not needed")


def _active_run(store: RunStore, run: Run, names: dict[str, str], now: float) -> Finding:
    files, name = store.paths(run.id), f"run {run.id}"
    try:
        alive = liveness.is_alive(files)
    except OSError as error:
        return trouble(
            name, f"cannot tell whether its process is alive ({error})", f"allow this user to read {files.folder}"
        )
    actual = liveness.derived(store, run)
    if actual.status is not run.status:
        value = f"recorded as {run.status.value}, actually {actual.status.value}" + (
            f": {actual.reason}" if actual.reason else ""
        )
        return note(name, value, f"the supervisor corrects it: `{PROGRAM} runs` starts one")
    if not alive:
        return note(name, f"{run.status.value}; its process has not started yet")
    beat = liveness.heartbeat(files)
    person = owner_name(run.owner, names)
    parts = [
        _title(run),
        f"by {person}" if person else "",
        run.status.value,
        f"on {run.slot}" if run.slot else "",
        f"for {format_duration(now - run.started)}" if run.started is not None else "",
        f"step {beat.step:.0f}" if beat else "no step yet",
    ]
    value = ", ".join(filter(None, parts))
    silent = liveness.stalled_for(files)
    if silent is None:
        return good(name, value)
    return trouble(
        name,
        f"{value}; stalled: no progress for {format_duration(silent)}",
        f"stop it at once, then resume it: `{PROGRAM} stop {run.id} --now` and `{PROGRAM} resume {run.id}`",
    )


def _title(run: Run) -> str:
    try:
        return f"{catalog.task(run.config.task).title}, {run.config.what}"
    except catalog.CatalogError:
        return f"{run.config.task}, {run.config.what}"
