"""RunStore: any number of processes, nothing lost and nothing duplicated."""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from mlae_lab.core import events as ev
from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.locations import PROGRAM
from mlae_lab.runs import commands
from mlae_lab.runs.paths import RunPaths, database, is_run_id
from mlae_lab.runs.report import state
from mlae_lab.runs.status import ACTIVE, Status
from mlae_lab.runs.store import Origin, Run, RunStore, StoreError
from mlae_lab.runs.visitors import Visitor
from tests.lab import processes, step

CONFIG = RunConfig("digits", uniform(0.5), seed=7, max_seconds=60.0)
NAN, INF = float("nan"), float("inf")


# ---------------------------------------------------------------- runs


def test_an_enqueued_run_is_read_back_unchanged(store: RunStore) -> None:
    before = time.time()
    run = store.enqueue(CONFIG, "cpu")
    assert is_run_id(run.id)
    assert run.config == CONFIG
    assert run.config_hash == CONFIG.hash
    assert (run.status, run.reason, run.device) == (Status.QUEUED, "", "cpu")
    assert (run.pid, run.started, run.ended) == (None, None, None)
    assert before <= run.created <= time.time()
    assert store.run(run.id) == run == RunStore(store.folder).run(run.id)
    assert store.paths(run.id).folder.is_dir()


def test_runs_are_listed_newest_first(store: RunStore) -> None:
    assert store.runs() == []
    ids = [store.enqueue(CONFIG, "cpu").id for _ in range(5)]
    assert len(set(ids)) == 5
    assert [run.id for run in store.runs()] == ids[::-1]


def test_the_config_is_frozen_when_it_is_enqueued(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu")
    store.claim(run.id, "cpu")
    store.move(run.id, Status.FINISHED)
    with sqlite3.connect(database(store.folder)) as db:
        text = db.execute("SELECT config FROM runs").fetchone()[0]
    db.close()
    assert RunConfig.from_dict(json.loads(text)) == CONFIG == store.run(run.id).config


def test_an_unknown_run_is_one_sentence(store: RunStore) -> None:
    with pytest.raises(StoreError, match=r"run aaaaaaaa is not in .*: check its id, or choose another store"):
        store.run("aaaaaaaa")


@pytest.mark.parametrize(
    "name", ["../../etc", "..", "/etc/passwd", "", "AAAAAAAA", "aaaaaaa", "aaaaaaaaa", "aaaaaaa\n", "aaaaaaa1"]
)
def test_an_id_that_could_leave_the_store_is_refused(store: RunStore, name: str) -> None:
    assert not is_run_id(name)
    for call in (store.run, store.delete):
        with pytest.raises(StoreError, match="is not a run id: it must have eight letters"):
            call(name)
    with pytest.raises(ValueError, match="is not a run id"):
        store.paths(name)
    with pytest.raises(ValueError, match="is not a run id"):
        RunPaths(store.folder, name)


def test_every_file_of_a_run_lies_in_its_folder(store: RunStore) -> None:
    files = store.paths("abcd2345")
    for path in (files.lock, files.log, files.adapter):
        assert path.parent == files.folder == store.folder / "runs" / "abcd2345"


def test_a_row_of_a_newer_version_is_left_out(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    new, old = (store.enqueue(CONFIG, "cpu").id for _ in range(2))
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = json_set(config, '$.dream', 1) WHERE id = ?", (new,))
    for listed in (store.runs(), store.open_runs(), store.queue()):
        assert [run.id for run in listed] == [old]
    assert store.unread() == [new]
    with pytest.raises(
        StoreError, match=f"run {new} is of a newer version or damaged and cannot be read .*dream.*: update MLAE Lab"
    ):
        store.run(new)
    assert store.claim(old, "cpu")


def test_a_run_of_a_method_that_is_not_installed_hides_no_other_and_says_what_to_install(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    gone, old = (store.enqueue(CONFIG, "cpu").id for _ in range(2))
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = json_set(config, '$.method', 'gone') WHERE id = ?", (gone,))
    assert [run.id for run in store.runs()] == [old, gone]
    assert store.unread() == []
    assert [run.id for run in store.queue()] == [run.id for run in store.open_runs()] == [old]
    run = store.run(gone)
    assert (run.config.what, run.config.has_mask) == ("gone (not installed)", False)
    assert run.config.unavailable.startswith("its method 'gone' is not installed here: install")
    assert store.queue_positions().keys() == {old}


def test_a_run_of_a_method_that_is_not_installed_can_be_stopped_and_deleted_and_not_trained(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    run = store.enqueue(CONFIG, "cpu").id
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = json_set(config, '$.method', 'gone') WHERE id = ?", (run,))
    assert commands.stop(store, run) is Status.STOPPED
    with pytest.raises(StoreError, match=f"^run {run} cannot be resumed: its method 'gone' is not installed here"):
        commands.resume(store, run)
    with pytest.raises(StoreError, match=f"^run {run} cannot be repeated: its method 'gone' is not installed here"):
        commands.rerun(store, run)
    commands.delete(store, run)
    assert store.runs() == []


def flipped(store: RunStore, column: str, table: str, old: bytes, new: bytes, where: str) -> None:
    """Change bytes of a stored text, which SQLite's own check does not see."""
    with store._connection(write=True) as db:
        (text,) = db.execute(f"SELECT CAST({column} AS BLOB) FROM {table} WHERE {where}").fetchone()
        assert text.count(old)
        db.execute(f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE {where}", (text.replace(old, new, 1),))
    assert store.trouble() is None


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"step"', b'"stdp"'), (b'"loss":0.5', b'"loss":0,5'), (b'"epoch":1', b'"epoch":"'), (b'"loss"', b'"lo\xf3s"'),
     (b"{", b"["), (b'"mask":"', b'"mask":\xff'), (b'"epoch":1,', b'"epoch":1.')],
)  # fmt: skip
def test_a_damaged_event_is_named_and_the_others_are_read(old: bytes, new: bytes, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    run = store.enqueue(CONFIG, "cpu").id
    store.append(run, [step(number, 0.5) for number in (1, 2, 3)])
    ids = [stored.id for stored in store.events(run)]
    assert store.damaged_events() == []
    flipped(store, "payload", "events", old, new, f"id = {ids[2]}")
    assert [stored.event.step for stored in store.events(run, ev.TrainStep)] == [1, 2]
    last = store.last(run, ev.TrainStep)
    assert last is not None
    assert last.step == 2
    (damaged,) = store.damaged_events(run)
    assert (damaged.run, damaged.id, damaged.kind) == (run, ids[2], "step")
    assert damaged.cause
    assert "\n" not in damaged.cause
    assert state(store, store.run(run))["step"] == 2


@pytest.mark.parametrize("damage", ["no json", "[" * 5000, '{"task":' * 5000, "[]", '{"task": "\xff"}', "7"])
def test_damaged_settings_hide_no_other_run(damage: str, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    bad, good = (store.enqueue(CONFIG, "cpu").id for _ in range(2))
    with store._connection(write=True) as db:
        value = damage.encode("latin-1")
        db.execute("UPDATE runs SET config = CAST(? AS TEXT) WHERE id = ?", (value, bad))
    assert [run.id for run in store.runs()] == [run.id for run in store.queue()] == [good]
    assert store.unread() == [bad]
    assert set(store.damaged_runs()) == {bad}
    with pytest.raises(StoreError, match=f"run {bad} cannot be read, its settings are damaged"):
        store.run(bad)


def test_unread_runs_by_status(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    waiting, active = (store.enqueue(CONFIG, "cpu").id for _ in range(2))
    assert store.claim(active, "cpu")
    with store._connection(write=True) as db:
        db.execute("UPDATE runs SET config = json_set(config, '$.dream', 1)")
    assert set(store.unread()) == {waiting, active}
    assert store.unread(ACTIVE) == [active]
    assert store.holds(waiting)
    assert not store.holds("aaaaaaaa")


# ---------------------------------------------------------------- the queue


def names(runs: list[Run]) -> list[str]:
    return [run.id for run in runs]


def test_runs_are_queued_in_the_order_of_their_launch(store: RunStore) -> None:
    ids = [store.enqueue(CONFIG, "cpu").id for _ in range(3)]
    assert names(store.queue()) == ids == names(store.open_runs())
    assert store.claim(ids[0], "cpu")
    run = store.run(ids[0])
    assert (run.status, run.slot, run.attempt, run.turn, run.pid) == (Status.STARTING, "cpu", 1, 1, None)
    assert run.started is not None
    assert not store.claim(ids[0], "cpu")  # it is claimed already
    assert not store.claim(ids[1], "cpu")  # the device is busy
    assert names(store.queue()) == ids[1:]
    assert names(store.open_runs()) == ids
    store.move(ids[0], Status.FINISHED)
    assert store.claim(ids[1], "cpu")
    assert names(store.open_runs()) == ids[1:]


@pytest.mark.parametrize("state", ACTIVE)
def test_a_device_is_busy_until_its_run_is_over(store: RunStore, state: Status) -> None:
    first, second = (store.enqueue(CONFIG, "cpu").id for _ in range(2))
    assert store.claim(first, "cpu")
    store.move(first, state)
    assert not store.claim(second, "cpu")
    store.move(first, Status.LOST)
    assert store.claim(second, "cpu")


def test_each_device_has_its_own_slot(store: RunStore) -> None:
    cpu, cuda, other = (store.enqueue(CONFIG, device).id for device in ("cpu", "cuda", "cuda"))
    assert store.claim(cuda, "cuda:0")
    assert store.claim(cpu, "cpu")
    assert not store.claim(other, "cuda:0")
    assert store.claim(other, "cuda:1")


def test_a_cancelled_run_leaves_the_queue(store: RunStore) -> None:
    first, second = (store.enqueue(CONFIG, "cpu").id for _ in range(2))
    store.move(first, Status.STOPPED, "cancelled", only_from=(Status.QUEUED,))
    assert names(store.queue()) == [second]
    assert not store.claim(first, "cpu")


def test_owners_alternate_in_the_queue(store: RunStore) -> None:
    ada = [store.enqueue(CONFIG, "cpu", owner="ada").id for _ in range(4)]
    bob = [store.enqueue(CONFIG, "cpu", owner="bob").id for _ in range(2)]
    assert names(store.queue()) == [ada[0], bob[0], ada[1], bob[1], ada[2], ada[3]]
    assert store.claim(ada[0], "cpu")
    store.move(ada[0], Status.FINISHED)
    assert names(store.queue())[0] == bob[0]  # Ada's run started last
    late = store.enqueue(CONFIG, "cpu", owner="eve").id
    assert names(store.queue())[:3] == [bob[0], late, ada[1]]


def test_the_order_does_not_depend_on_the_clock(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = [store.enqueue(CONFIG, "cpu", owner="ada").id for _ in range(2)]
    bob = [store.enqueue(CONFIG, "cpu", owner="bob").id for _ in range(2)]
    monkeypatch.setattr(time, "time", lambda: 1000.0)  # the clock is set back to 1970
    for expected in (ada[0], bob[0], ada[1], bob[1]):
        assert names(store.queue())[0] == expected
        assert store.claim(expected, "cpu")
        store.move(expected, Status.FINISHED)


@pytest.mark.parametrize(
    ("move", "order"),
    [
        ((2, "up"), [0, 2, 1, 3]), ((2, "down"), [0, 1, 3, 2]), ((2, "first"), [2, 0, 1, 3]),
        ((1, "last"), [0, 2, 3, 1]), ((0, "up"), [0, 1, 2, 3]), ((3, "last"), [0, 1, 2, 3]),
    ],
)  # fmt: skip
def test_a_queued_run_can_be_moved(store: RunStore, move: tuple[int, str], order: list[int]) -> None:
    ids = [store.enqueue(CONFIG, "cpu").id for _ in range(4)]
    other = store.enqueue(CONFIG, "cpu", owner="bob").id
    assert store.reorder(ids[move[0]], move[1]) == (order != [0, 1, 2, 3])
    assert [run for run in names(store.queue()) if run != other] == [ids[i] for i in order]
    assert names(RunStore(store.folder).queue()) == names(store.queue())
    last = store.enqueue(CONFIG, "cpu").id
    assert names(store.queue())[-1] == last


def test_a_run_that_is_not_queued_is_not_moved(store: RunStore) -> None:
    first, second = (store.enqueue(CONFIG, "cpu").id for _ in range(2))
    store.claim(first, "cpu")
    assert not store.reorder(first, "last")
    assert names(store.queue()) == [second]


@pytest.mark.parametrize("end", [Status.STOPPED, Status.FAILED, Status.LOST])
def test_an_unfinished_run_can_be_queued_again(store: RunStore, end: Status) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    other = store.enqueue(CONFIG, "cpu").id
    store.claim(run, "cpu")
    store.began(run, 1)
    store.move(run, end, "because")
    assert store.requeue(run)
    assert not store.requeue(run)
    requeued = store.run(run)
    assert (requeued.status, requeued.reason, requeued.pid, requeued.ended, requeued.attempt) == (
        Status.QUEUED,
        "",
        None,
        None,
        1,
    )
    assert names(store.queue()) == [other, run]  # at the end of the queue
    store.move(other, Status.STOPPED)
    assert store.claim(run, "cpu")
    assert store.run(run).attempt == 2


def test_a_finished_run_is_never_queued_again(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    assert not store.requeue(run)
    store.move(run, Status.FINISHED)
    assert not store.requeue(run)
    assert store.run(run).status is Status.FINISHED


def test_a_process_may_begin_only_if_its_run_was_claimed(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    assert not store.began(run, 7)
    store.claim(run, "cpu")
    assert store.began(run, 7)
    assert store.run(run).pid == 7
    store.move(run, Status.STOPPED)
    assert not store.began(run, 8)
    assert store.run(run).pid == 7


CLAIM = """
import sys, time
from pathlib import Path
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore
store, me = RunStore(Path(sys.argv[1])), int(sys.argv[2])
ids = [run.id for run in reversed(store.runs())]
(Path(sys.argv[1]) / f"ready{me}").touch()
while len(list(Path(sys.argv[1]).glob("ready*"))) < int(sys.argv[3]):
    time.sleep(0.002)
while any(not run.status.is_over for run in store.runs()):
    for run in ids:
        if store.claim(run, "cpu"):
            print(run, flush=True)
            assert store.began(run, me) and store.run(run).pid == me
            assert store.move(run, Status.FINISHED)
"""


def test_exactly_one_of_six_processes_wins_each_claim(store: RunStore, root: Path) -> None:
    ids = [store.enqueue(CONFIG, "cpu").id for _ in range(20)]
    outputs = processes(root, CLAIM, [[str(store.folder), str(i), "6"] for i in range(6)])
    won = Counter(line for out in outputs for line in out.split())
    assert won == Counter(ids)
    assert sorted(run.turn for run in store.runs()) == list(range(1, 21))  # never two at the same time on one device


def test_queue_positions_are_counted_per_device(store: RunStore) -> None:
    cpu = [store.enqueue(CONFIG, "cpu").id for _ in range(3)]
    gpu = store.enqueue(CONFIG, "cuda").id
    assert store.queue_positions() == {cpu[0]: (1, 3), cpu[1]: (2, 3), cpu[2]: (3, 3), gpu: (1, 1)}


@pytest.mark.parametrize("how", ["deleted", "archived"])
def test_deleting_a_run_does_not_change_the_order_of_owners(store: RunStore, how: str) -> None:
    old = store.enqueue(CONFIG, "cpu", owner="ada").id
    for run in (old, store.enqueue(CONFIG, "cpu", owner="ben").id, store.enqueue(CONFIG, "cpu", owner="ada").id):
        assert store.claim(run, "cpu")
        store.move(run, Status.FINISHED)
    new = {owner: store.enqueue(CONFIG, "cpu", owner=owner).id for owner in ("ada", "ben")}
    assert [run.id for run in store.queue()] == [new["ben"], new["ada"]]
    for run in store.runs():
        if run.owner == "ada" and run.status.is_over:
            store.delete(run.id, how)
    assert [run.id for run in store.queue()] == [new["ben"], new["ada"]]


def test_unclaiming_restores_position_and_order(store: RunStore) -> None:
    first, second, others = (store.enqueue(CONFIG, "cpu", owner=owner).id for owner in ("ada", "ada", "bob"))
    order = [run.id for run in store.queue()]
    assert order == [first, others, second]
    assert store.claim(first, "cpu")
    assert store.unclaim(first)
    assert not store.unclaim(first)
    assert [run.id for run in store.queue()] == order
    assert (store.run(first).attempt, store.run(first).pid) == (0, None)
    assert store.claim(first, "cpu")
    store.move(first, Status.FINISHED)
    store.delete(first)
    assert [run.id for run in store.queue()] == [others, second]
    assert store.claim(second, "cpu")
    assert store.unclaim(second)
    assert [run.id for run in store.queue()] == [
        others,
        second,
    ]  # her start before, whose run was deleted, still counts


# ---------------------------------------------------------------- status


@pytest.mark.parametrize("final", [status for status in Status if status.is_over])
def test_a_final_status_never_changes(store: RunStore, final: Status) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    assert store.move(run, final, "this is the end")
    ended = store.run(run).ended
    assert ended is not None
    for status in Status:
        assert not store.move(run, status, "no, this")
        assert not store.move(run, status, "no, this", only_from=tuple(Status))
        assert not store.move(run, status, "no, this", only_from=(final,))
    assert not store.claim(run, "cpu")
    unchanged = store.run(run)
    assert (unchanged.status, unchanged.reason, unchanged.ended) == (final, "this is the end", ended)


def test_which_states_are_final() -> None:
    assert {s for s in Status if s.is_over} == {Status.FINISHED, Status.STOPPED, Status.FAILED, Status.LOST}
    assert set(ACTIVE) == {Status.STARTING, Status.RUNNING, Status.STOPPING}


def test_a_move_is_limited_to_the_given_statuses(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    assert not store.move(run, Status.RUNNING, only_from=(Status.STARTING,))
    assert store.run(run).status is Status.QUEUED
    assert store.claim(run, "cpu")
    assert store.move(run, Status.RUNNING, only_from=(Status.STARTING,))
    assert store.move(run, Status.STOPPING, only_from=(Status.STARTING, Status.RUNNING))
    assert not store.move(run, Status.RUNNING, only_from=(Status.STARTING,))  # a request to stop is kept
    assert store.run(run).status is Status.STOPPING
    assert store.run(run).ended is None


def test_moving_an_unknown_run_does_nothing(store: RunStore) -> None:
    assert not store.move("aaaaaaaa", Status.FINISHED)
    assert not store.claim("aaaaaaaa", "cpu")
    assert not store.began("aaaaaaaa", 1)
    assert not store.requeue("aaaaaaaa")


# ---------------------------------------------------------------- events

CANVAS = ((0.5, None), (None, 1.0))
ALL_KINDS: list[ev.Event] = [
    ev.Started(1, 2, 3, 4, 5, 6, "cpu", "float32", 0.5),
    ev.Resumed(1, 1, 0.5),
    step(1),
    ev.Evaluation(1, 1, "val", 50.0, 1.5, 2.0),
    ev.ExpertStats(1, CANVAS, CANVAS, CANVAS, CANVAS),
    ev.SimilarityStats(1, (0.5, None), (0.5, None), (((1.0, 0.5), (0.5, 1.0)), ())),
    ev.Statistics(1, 1, {"one": 0.5, "layers": (0.5, None)}, {"one": ("One", "%")}),
    ev.Saved(1, 1, 1000),
]


def test_events_of_every_kind_are_read_back_in_order(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    store.append(run, ALL_KINDS)
    stored = store.events(run)
    assert [entry.event for entry in stored] == ALL_KINDS
    assert [entry.id for entry in stored] == sorted({entry.id for entry in stored})
    for event in ALL_KINDS:
        assert store.last(run, type(event)) == event


def test_nan_and_infinities_are_read_back(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    stats = ev.ExpertStats(1, ((NAN, INF), (-INF, None)), CANVAS, CANVAS, CANVAS)
    written = [step(1, NAN), step(2, INF), step(3, -INF), stats]
    store.append(run, written)
    assert repr([stored.event for stored in store.events(run)]) == repr(written)


def test_readers_get_events_after_an_id(store: RunStore) -> None:
    run, other = (store.enqueue(CONFIG, "cpu").id for _ in range(2))
    store.append(run, [step(1), step(2)])
    store.append(other, [step(100)])
    seen = store.events(run)[-1].id
    assert store.events(run, after=seen) == []
    store.append(run, [step(3), ev.Saved(1, 3, 10)])
    assert [stored.event for stored in store.events(run, after=seen)] == [step(3), ev.Saved(1, 3, 10)]
    assert [stored.event for stored in store.events(other)] == [step(100)]
    assert store.events("aaaaaaaa") == []


def test_readers_get_events_of_given_kinds(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    store.append(run, ALL_KINDS)
    store.append(run, [step(2)])
    assert [stored.event for stored in store.events(run, ev.TrainStep)] == [step(1), step(2)]
    assert [stored.event.kind for stored in store.events(run, ev.Saved, ev.Started)] == ["started", "saved"]
    assert store.last(run, ev.TrainStep) == step(2)
    assert store.last("aaaaaaaa", ev.TrainStep) is None


def test_appending_no_events(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    store.append(run, [])
    assert store.events(run) == []


APPEND = """
import sys
from pathlib import Path
from mlae_lab.core.events import Saved
from mlae_lab.runs.store import RunStore
store, run, me = RunStore(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
for number in range(100):
    store.append(run, [Saved(me, 2 * number, 0), Saved(me, 2 * number + 1, 0)])
"""


def test_two_processes_append_while_a_third_reads(store: RunStore, root: Path) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, str(store.folder), run, str(i)], env={**os.environ, "PYTHONPATH": str(root)}
        )
        for i in range(2)
    ]
    seen: list = []
    while any(writer.poll() is None for writer in writers):
        seen += store.events(run, after=seen[-1].id if seen else 0)
    assert [writer.returncode for writer in writers] == [0, 0]
    seen += store.events(run, after=seen[-1].id if seen else 0)
    assert len(seen) == 400
    assert [stored.id for stored in seen] == sorted({stored.id for stored in seen})
    for me in range(2):  # the events of each writer are complete and in order; a pair stays together
        own = [(at, stored.event.step) for at, stored in enumerate(seen) if stored.event.epoch == me]
        assert [number for _, number in own] == list(range(200))
        assert all(own[i + 1][0] == own[i][0] + 1 for i in range(0, 200, 2))


def test_an_invalid_event_rolls_back_its_batch(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    with pytest.raises(TypeError):
        store.append(run, [step(1), dataclasses.replace(step(2), loss=object())])  # type: ignore[arg-type]
    assert store.events(run) == []


def test_an_event_of_an_unknown_kind_is_skipped(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    store.append(run, [step(1)])
    db = sqlite3.connect(database(store.folder))
    db.execute("INSERT INTO events (run, kind, time, payload) VALUES (?, 'dreamt', 1.0, '{}')", (run,))
    db.commit()
    db.close()
    assert [s.event for s in store.events(run)] == [step(1)]


# ---------------------------------------------------------------- deleting


def test_deleting_removes_row_events_and_files(store: RunStore) -> None:
    run, other = (store.enqueue(CONFIG, "cpu").id for _ in range(2))
    for name in (run, other):
        store.append(name, [step(1)])
        store.paths(name).log.write_text("text")
    store.move(run, Status.FINISHED)
    store.delete(run)
    assert [r.id for r in store.runs()] == [other]
    assert store.events(run) == []
    assert len(store.events(other)) == 1
    assert not store.paths(run).folder.exists()
    assert store.paths(other).log.exists()
    for call in (store.run, store.delete):
        with pytest.raises(StoreError, match=rf"run {run} was deleted on \d{{4}}-\d\d-\d\d .* and cannot be restored"):
            call(run)
    store.delete(other_over(store, other), how="archived")
    with pytest.raises(
        StoreError, match=rf"run {other} was archived on .*: restore it with `{PROGRAM} restore {other}`"
    ):
        store.run(other)


def other_over(store: RunStore, run: str) -> str:
    store.move(run, Status.STOPPED)
    return run


@pytest.mark.parametrize("status", [Status.QUEUED, *ACTIVE])
def test_a_run_that_is_not_over_is_not_deleted(store: RunStore, status: Status) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    store.move(run, status)
    with pytest.raises(StoreError, match=f"run {run} is {status.value}: stop it before you delete it"):
        store.delete(run)
    assert store.run(run).status is status
    assert store.paths(run).folder.exists()


def test_event_ids_are_never_reused(store: RunStore) -> None:
    """A reader that keeps the last id must not miss events of a later run after a deletion."""
    run = store.enqueue(CONFIG, "cpu").id
    store.append(run, [step(1), step(2)])
    last = store.events(run)[-1].id
    store.move(run, Status.FINISHED)
    store.delete(run)
    run = store.enqueue(CONFIG, "cpu").id
    store.append(run, [step(1)])
    assert store.events(run)[0].id > last


# ---------------------------------------------------------------- origins, visitors, sizes


def test_the_origin_of_a_run(store: RunStore) -> None:
    origin = Origin("abcd2345", "branched", "4")
    run = store.enqueue(CONFIG, "cpu", owner="ada", origin=origin, data_folder="/data")
    record = store.run(run.id)
    assert (record.parent, record.relation, record.source) == ("abcd2345", "branched", "4")
    assert (record.owner, record.data_folder) == ("ada", "/data")


def test_an_inserted_run_has_its_events(store: RunStore) -> None:
    ended = dataclasses.replace(
        store.enqueue(CONFIG, "cpu"), id="abcd2345", status=Status.FINISHED, started=2.0, ended=3.0, relation="imported"
    )
    store.insert(ended, [(1.5, step(1)), (2.5, step(2, NAN))])
    assert dataclasses.replace(store.run("abcd2345"), position=ended.position) == ended
    assert [(s.time, s.event.step) for s in store.events("abcd2345")] == [(1.5, 1), (2.5, 2)]
    with pytest.raises(StoreError, match=r"run abcd2345 is in .* already"):
        store.insert(ended, [(1.5, step(1))])
    assert len(store.events("abcd2345")) == 2
    store.delete("abcd2345")
    store.insert(ended, [])
    assert store.run("abcd2345").status is Status.FINISHED  # no longer recorded as gone


def test_visitors_have_a_nickname_and_a_draft(store: RunStore) -> None:
    assert store.visitor("one") == Visitor("one")
    store.keep_visitor("one", draft="{}")
    store.keep_visitor("one", nickname="Ada")
    store.keep_visitor("two", draft="[]")
    visitor = store.visitor("one")
    assert (visitor.nickname, visitor.draft) == ("Ada", "{}")
    assert visitor.seen > 0
    assert store.nicknames() == {"one": "Ada"}
    with pytest.raises(TypeError):
        store.keep_visitor("one", colour="red")


def test_event_bytes(store: RunStore) -> None:
    run, other = (store.enqueue(CONFIG, "cpu").id for _ in range(2))
    store.append(run, [step(number) for number in range(100)])
    sizes = store.event_bytes([run.id for run in store.runs()])
    assert 5_000 < sizes[run] < 50_000
    assert sizes[other] == 0


def test_a_burst_of_ten_thousand_events(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    store.append(run, [step(number) for number in range(10_000)])
    store.append(run, [step(number) for number in range(10_000, 10_010)])
    stored = store.events(run)
    assert [entry.event.step for entry in stored] == list(range(10_010))
    assert len(store.events(run, after=stored[9_999].id)) == 10
