"""The section Runs: what is under way, who gives runs their turn, what failed and what was left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from mlae_lab.core import catalog
from mlae_lab.core.units import format_bytes
from mlae_lab.doctor.context import Context
from mlae_lab.doctor.findings import Finding, good, note, some, trouble
from mlae_lab.doctor.folders import tree
from mlae_lab.runs import liveness, paths, supervisor
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore

NEW_FOLDER = 600.0  # seconds in which a run's folder may be there before its row
DAY = 86_400.0


def section(context: Context) -> Iterator[Finding]:
    """The runs of the store that the section Store has opened."""
    if context.store is None:
        yield note("runs", "not examined: the store cannot be opened") if context.damaged else good("runs", "none yet")
        return
    try:
        yield from _runs_of(context.store)
    except Exception as error:
        if not context.damaged:
            raise  # else the damage is named already, with its cure
        yield note("runs", f"not examined to the end: the database is damaged ({error})")


def _runs_of(store: RunStore) -> Iterator[Finding]:
    now, folders = time.time(), _run_folders(store.folder)  # before the rows: a folder is made before its row
    runs, names = store.runs(), store.nicknames()
    waiting = sum(run.status is Status.QUEUED for run in runs)
    active = [run for run in reversed(runs) if run.status.is_active]
    unread = store.unread()
    if unread:
        yield trouble(
            "runs",
            f"{len(runs)}, and {len(unread)} that this lab cannot read: {some(unread)}",
            "update the lab: they are as they were, and wait where they are",
        )
    else:
        yield good("runs", f"{len(runs)}, {len(active)} under way, {waiting} waiting")
    yield _supervisor(store, waiting, len(active))
    for run in active:
        yield _under_way(store, run, names, now)
    failed = [
        (run, now - run.ended) for run in runs
        if run.status in (Status.FAILED, Status.LOST) and run.ended is not None and now - run.ended < DAY
    ]  # fmt: skip
    for run, age in failed[:10]:
        yield note(f"run {run.id}", f"{run.status.value} {_duration(age)} ago: {run.reason or 'no reason is known'}")
    if len(failed) > 10:
        yield note("more failures", f"{len(failed) - 10} more of the last day: `mlae_lab runs` lists them")
    ahead = [run.id for run in runs if run.started is not None and run.started > now + 5]
    if ahead:
        yield note(
            "clock",
            f"started later than now: {some(ahead)}; the clock was set back",
            "times and durations of these runs are wrong, their results are not",
        )
    known = {run.id for run in runs} | set(unread)
    orphans = [folder for folder, changed in folders if folder.name not in known and now - changed > NEW_FOLDER]
    if orphans:
        size = sum(found.st_size for folder in orphans for _, found in tree(folder))
        listed = some([folder.name for folder in orphans])
        yield note(
            "orphans",
            f"{len(orphans)} folder{'s' if len(orphans) != 1 else ''} of no known run, {format_bytes(size)}: {listed}",
            f"delete them in {store.folder / 'runs'} if nobody misses them",
        )


def _run_folders(store: Path) -> list[tuple[Path, float]]:
    """The folders below runs/, links left out, with the time of their last change."""
    try:
        found = [entry for entry in os.scandir(store / "runs") if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    kept = []
    for entry in found:
        try:
            kept.append((Path(entry.path), entry.stat(follow_symlinks=False).st_mtime))
        except FileNotFoundError:
            continue
    return sorted(kept)


def _supervisor(store: RunStore, waiting: int, active: int) -> Finding:
    if supervisor.is_supervised(store):
        return good("supervisor", "alive")
    if waiting:
        return trouble(
            "supervisor",
            f"not alive, and {waiting} run{'s wait' if waiting != 1 else ' waits'}",
            f"`mlae_lab runs` starts it again; if it does not stay, {paths.supervisor_log(store.folder)} says why",
        )
    if active:
        return note("supervisor", "not alive; runs go on without it", "`mlae_lab runs` starts it again")
    return good("supervisor", "not alive, and nothing for it to do")


def _under_way(store: RunStore, run: Run, names: dict[str, str], now: float) -> Finding:
    files, name = store.paths(run.id), f"run {run.id}"
    try:
        alive = liveness.is_alive(files)
    except OSError as error:
        return trouble(name, f"nobody can say whether it lives ({error})", f"let this user read {files.folder}")
    if not alive:
        true = liveness.derived(store, run)
        if true.status is not run.status:
            value = f"written down as {run.status.value} and really {true.status.value}" + (
                f": {true.reason}" if true.reason else ""
            )
            return note(name, value, "the supervisor corrects it with its next look: `mlae_lab runs` starts it")
        return note(name, f"{run.status.value}; its process is not there yet")
    beat = liveness.heartbeat(files)
    person = names.get(run.owner) or (run.owner.removeprefix("cli:") if run.owner.startswith("cli:") else "")
    told = [
        _title(run),
        f"by {person}" if person else "",
        run.status.value,
        f"on {run.slot}" if run.slot else "",
        f"for {_duration(now - run.started)}" if run.started is not None else "",
        f"step {beat.step:.0f}" if beat else "no step yet",
    ]
    value = ", ".join(filter(None, told))
    silent = liveness.stalled_for(files)
    if silent is None:
        return good(name, value)
    return trouble(
        name,
        f"{value}; stalled: nothing for {_duration(silent)}",
        f"stop it at once, then resume it: `mlae_lab stop {run.id} --now` and `mlae_lab resume {run.id}`",
    )


def _title(run: Run) -> str:
    try:
        return f"{catalog.task(run.config.task).title}, {run.config.what}"
    except catalog.CatalogError:
        return f"{run.config.task}, {run.config.what}"


def _duration(seconds: float) -> str:
    minutes = max(0, int(seconds // 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"
