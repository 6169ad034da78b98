"""Database: created, opened concurrently, migrated; newer and damaged ones are refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mlae_lab.cli import main
from mlae_lab.core import events as ev
from mlae_lab.locations import PROGRAM
from mlae_lab.runs.paths import database
from mlae_lab.runs.schema import SCHEMA
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import RunStore, StoreError
from tests.lab import make_read_only, processes, step, to_schema_5
from tests.runs.test_archive_file import over
from tests.runs.test_store import CONFIG

FIRST_SCHEMA = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, created REAL NOT NULL,
    config TEXT NOT NULL, config_hash TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    device TEXT NOT NULL, pid INTEGER, started REAL, ended REAL);
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, kind TEXT NOT NULL, epoch INTEGER, step INTEGER,
    time REAL NOT NULL, payload TEXT NOT NULL);
CREATE INDEX events_of_run ON events (run, id);
CREATE INDEX events_of_kind ON events (run, kind, id);
PRAGMA user_version=1;
"""


def old_store(folder: Path) -> None:
    """A store of version 0.2: one finished, one running and one queued run."""
    folder.mkdir(parents=True)
    db = sqlite3.connect(database(folder))
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(FIRST_SCHEMA)
    for number, status in enumerate(("finished", "running", "queued")):
        values = (
            f"aaaaaaa{'abc'[number]}",
            1.0,
            json.dumps(CONFIG.to_dict()),
            CONFIG.hash,
            status,
            "",
            "cpu",
            None,
            2.0,
            None,
        )
        db.execute("INSERT INTO runs VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    db.execute("INSERT INTO events VALUES (NULL, 'aaaaaaaa', 'step', 1, 1, 5.0, ?)", (ev.to_json(step(1)),))
    db.commit()
    db.close()


def test_a_store_of_version_0_2_is_migrated(tmp_path: Path) -> None:
    old_store(tmp_path / "lab")
    store = RunStore(tmp_path / "lab")
    assert [(run.id, run.status.value) for run in store.runs()] == [
        ("aaaaaaac", "queued"), ("aaaaaaab", "running"), ("aaaaaaaa", "finished"),
    ]  # fmt: skip
    assert [s.event for s in store.events("aaaaaaaa")] == [step(1)]
    new = store.enqueue(CONFIG, "cpu").id
    assert [run.id for run in store.queue()] == ["aaaaaaac", new]
    assert not store.claim("aaaaaaac", "cpu")  # the running one has the device
    assert RunStore(tmp_path / "lab").runs() == store.runs()


def test_six_processes_migrate_a_store_at_the_same_time(tmp_path: Path, root: Path) -> None:
    for i in range(20):
        old_store(tmp_path / str(i))
    processes(root, OPEN.replace("range(60)", "range(20)"), [[str(tmp_path), str(i)] for i in range(6)])
    for i in range(20):
        assert len(RunStore(tmp_path / str(i)).runs()) == 3


def test_a_failed_migration_changes_nothing(tmp_path: Path) -> None:
    old_store(tmp_path / "lab")
    db = sqlite3.connect(database(tmp_path / "lab"))
    db.execute("CREATE TABLE visitors (something TEXT)")  # makes the last statement fail
    db.close()
    with pytest.raises(StoreError, match="cannot be used as a store"):
        RunStore(tmp_path / "lab")
    db = sqlite3.connect(database(tmp_path / "lab"))
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert len(db.execute("SELECT * FROM runs").fetchone()) == 11
    db.close()


def test_trouble_of_an_intact_and_a_damaged_file(store: RunStore) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    store.append(run, [step(number) for number in range(5000)])
    assert store.trouble() is None
    file = database(store.folder)
    db = sqlite3.connect(file)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    raw = bytearray(file.read_bytes())
    assert len(raw) > 200_000
    raw[100_000:140_000] = b"\xab" * 40_000
    file.write_bytes(raw)
    assert store.trouble()


def test_opening_creates_the_folder_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "a" / "b")
    run = store.enqueue(CONFIG, "cpu")
    assert RunStore(tmp_path / "a" / "b").runs() == [run]


def test_a_relative_folder_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = RunStore(Path("here"))
    monkeypatch.chdir("/")
    store.enqueue(CONFIG, "cpu")
    assert store.folder == tmp_path / "here"


def test_a_store_of_a_newer_version_is_refused_and_not_changed(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.enqueue(CONFIG, "cpu")
    db = sqlite3.connect(database(tmp_path))
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(
        StoreError, match=rf"was written by a newer version \(schema 99, this one reads {SCHEMA}\): update MLAE Lab"
    ):
        RunStore(tmp_path)
    db = sqlite3.connect(database(tmp_path))
    assert db.execute("PRAGMA user_version").fetchone() == (99,)
    db.close()


def test_sync_flushes_the_write_ahead_log(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.enqueue(CONFIG, "cpu").id
    store.append(run, [step(1)])
    log, synced = os.stat(f"{database(store.folder)}-wal"), []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_ino))
    store.sync()
    assert synced == [log.st_ino]
    assert log.st_size > 0


def test_the_schema_number_belongs_to_the_settings_of_a_run() -> None:
    """An earlier version must refuse a store with settings that it does not know: a new setting raises SCHEMA."""
    assert (SCHEMA, len(CONFIG.to_dict())) == (10, 40)


# ---------------------------------------------------------------- stores that cannot be opened


def refusal(folder: Path) -> str:
    with pytest.raises(StoreError) as error:
        RunStore(folder)
    return str(error.value)


def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    database(tmp_path).write_bytes(b"this is not a database, it is a text of more than a hundred bytes" * 3)
    assert refusal(tmp_path) == (
        f"{tmp_path} cannot be used as a store (lab.sqlite is damaged or another program's: file is not a database): "
        f"restore a backup of it, or move it away and register the runs again with `{PROGRAM} doctor --recover "
        f"--store {tmp_path}`"
    )


def test_a_truncated_database(tmp_path: Path) -> None:
    RunStore(tmp_path).enqueue(CONFIG, "cpu")
    with sqlite3.connect(database(tmp_path)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
    db.close()
    os.truncate(database(tmp_path), 5000)
    assert "lab.sqlite is damaged" in refusal(tmp_path)
    assert ": restore a backup of it, or move it away and register the runs again with" in refusal(tmp_path)


@pytest.mark.parametrize("below", ["file", "file/below"])
def test_a_file_in_the_way_of_the_folder(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / below
    assert refusal(folder) == (
        f"{folder} cannot be used as a store ({tmp_path / 'file'} is not a folder): choose a folder"
    )


def test_a_folder_in_the_way_of_the_database(tmp_path: Path) -> None:
    database(tmp_path).mkdir()
    assert refusal(tmp_path).endswith("(lab.sqlite in it is not a file): choose another folder")


@pytest.mark.parametrize("name", ["x" * 300, "/".join(["x" * 100] * 6)])
def test_a_path_that_is_too_long(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    assert refusal(folder).endswith(f"(its path is too long, {len(os.fsencode(folder))} bytes): choose a shorter path")


def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunStore(tmp_path).enqueue(CONFIG, "cpu")
    db, real = sqlite3.connect(database(tmp_path), isolation_level=None), sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda file, **options: real(file, **{**options, "timeout": 0.0}))
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")
    try:
        assert refusal(tmp_path).endswith(
            "(another program has locked lab.sqlite): try again when that program has finished"
        )
    finally:
        db.close()


def test_a_full_disk_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", no_space)
    assert refusal(tmp_path).endswith("(its disk is full): free some space there")


def test_a_folder_without_write_permission(ordinary_user: Path) -> None:
    (ordinary_user / "locked").mkdir(mode=0o555)
    for folder in (ordinary_user / "locked", ordinary_user / "locked" / "below"):
        assert refusal(folder) == (
            f"{folder} cannot be used as a store (no permission to write in {ordinary_user / 'locked'}): "
            "choose a folder of yours, or change its permissions"
        )


# ---------------------------------------------------------------- read-only stores


def test_a_read_only_store_can_be_read_and_exported(ordinary_user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ordinary_user / "lab"
    writer = RunStore(folder)
    done, waiting = over(writer), writer.enqueue(CONFIG, "cpu")
    del writer  # the last connection removes the write-ahead log
    make_read_only(folder)
    before = sorted(path.name for path in folder.iterdir())

    assert main(["runs", "--store", str(folder), "--json"]) == 0
    printed = capsys.readouterr()
    assert [row["run"] for row in json.loads(printed.out)["runs"]] == [waiting.id, done.id]
    assert printed.err == ""
    assert main(["export", done.id, str(ordinary_user / "run.mlae"), "--store", str(folder)]) == 0
    assert zipfile.is_zipfile(ordinary_user / "run.mlae")
    assert sorted(path.name for path in folder.iterdir()) == before
    capsys.readouterr()
    assert main(["stop", waiting.id, "--store", str(folder), "--yes"]) == 2
    assert capsys.readouterr().err == (
        f"mlae_lab: {folder} is read-only: its runs can be read and exported; to start or change one, choose a "
        "writable --store\n"
    )


def test_a_read_only_database_in_a_writable_folder_can_be_read(ordinary_user: Path) -> None:
    run = over(RunStore(ordinary_user))
    database(ordinary_user).chmod(0o444)
    store = RunStore(ordinary_user)
    assert store.is_read_only
    assert store.run(run.id) == run


def test_changes_that_are_only_in_the_log_of_a_read_only_store_are_read(ordinary_user: Path) -> None:
    """As in the snapshot of a lab that was killed. A database without its log would lack the newest runs."""
    writer = RunStore(ordinary_user / "lab")
    run = over(writer)
    copy = Path(shutil.copytree(ordinary_user / "lab", ordinary_user / "copy"))
    assert os.stat(f"{database(copy)}-wal").st_size > 0
    make_read_only(copy)
    assert RunStore(copy).runs() == [run]

    copy.chmod(0o755)
    Path(f"{database(copy)}-shm").unlink()
    copy.chmod(0o555)
    assert refusal(copy).endswith(
        "(it is read-only, and its last changes are in lab.sqlite-wal, which can only be read together with "
        "lab.sqlite-shm): copy the folder to a writable place and open the copy"
    )


def test_a_read_only_store_of_an_earlier_version_is_not_migrated(ordinary_user: Path) -> None:
    old_store(ordinary_user / "lab")
    make_read_only(ordinary_user / "lab")
    assert "is read-only, so it cannot be migrated: copy it to a writable folder" in refusal(ordinary_user / "lab")


def test_an_empty_database_that_is_read_only_is_not_one_of_an_earlier_version(ordinary_user: Path) -> None:
    """As an attempt to create a store on a full disk leaves it."""
    (ordinary_user / "lab").mkdir()
    database(ordinary_user / "lab").touch()
    make_read_only(ordinary_user / "lab")
    assert f"(no permission to write in {ordinary_user / 'lab'})" in refusal(ordinary_user / "lab")


def test_a_run_in_a_read_only_store_leaves_no_folder(ordinary_user: Path) -> None:
    over(RunStore(ordinary_user))
    database(ordinary_user).chmod(0o444)
    before = sorted(ordinary_user.rglob("*"))
    with pytest.raises(StoreError, match="is read-only: its runs can be read and exported"):
        RunStore(ordinary_user).enqueue(CONFIG, "cpu")
    assert sorted(ordinary_user.rglob("*")) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate file system with 400 KB. Only root can mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this user cannot mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root can mount a file system")
def test_a_real_disk_that_is_full_and_then_read_only(small_disk: Path) -> None:
    lab, other, fill = small_disk / "lab", small_disk / "other", small_disk / "fill"
    run = over(RunStore(lab))  # nothing has it open afterwards, so its -shm file is gone
    with suppress(OSError), fill.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    store = RunStore(lab)
    assert store.runs() == [run]
    with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
        store.keep_visitor("ada", nickname="Ada")
    assert refusal(other).endswith("(its disk is full): free some space there")
    fill.unlink()
    store.keep_visitor("ada", nickname="Ada")
    assert store.nicknames() == {"ada": "Ada"}
    del store
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert RunStore(lab).nicknames() == {"ada": "Ada"}
    assert refusal(other).endswith("read-only, and there is no store on it): choose a folder on another disk")


def test_a_store_on_a_full_disk_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite cannot create its -shm file there, which it needs even to read."""
    run = over(RunStore(tmp_path))
    real = sqlite3.connect

    def connect(file: Any, **options: Any) -> sqlite3.Connection:
        if not options.get("uri"):
            raise sqlite3.OperationalError("disk I/O error")
        return real(file, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)
    monkeypatch.setattr("mlae_lab.runs.database._FULL_BYTES", 2**62)
    store = RunStore(tmp_path)
    assert store.runs() == [run]
    monkeypatch.setattr(sqlite3, "connect", real)  # somebody has freed some space
    new = store.enqueue(CONFIG, "cpu")
    assert [r.id for r in store.runs()] == [new.id, run.id]


OPEN = """
import sys, time
from pathlib import Path
from mlae_lab.runs.store import RunStore
folder, me = Path(sys.argv[1]), sys.argv[2]
(folder / f"ready{me}").touch()
while len(list(folder.glob("ready*"))) < 6:
    time.sleep(0.001)
for i in range(60):
    RunStore(folder / str(i))
"""


def test_six_processes_create_a_store_at_the_same_time(tmp_path: Path, root: Path) -> None:
    processes(root, OPEN, [[str(tmp_path), str(i)] for i in range(6)])
    for i in range(60):
        assert RunStore(tmp_path / str(i)).runs() == []


def test_the_store_is_in_write_ahead_mode(store: RunStore) -> None:
    """Readers never block the writer, nor the writer them."""
    db = sqlite3.connect(database(store.folder))
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.execute("BEGIN IMMEDIATE")  # a writer is active
    assert store.runs() == []
    db.rollback()
    db.close()


def test_a_store_of_schema_4_gets_the_last_starts_of_each_owner(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for owner in ("ada", "ben"):
        run = store.enqueue(CONFIG, "cpu", owner=owner).id
        assert store.claim(run, "cpu")
        store.move(run, Status.FINISHED)
    db = sqlite3.connect(database(tmp_path))
    db.execute("DROP TABLE served")
    db.execute("ALTER TABLE gone DROP COLUMN owner")
    to_schema_5(db)
    db.execute("PRAGMA user_version=4")
    db.close()
    newer = RunStore(tmp_path)
    last, first = (newer.enqueue(CONFIG, "cpu", owner=owner).id for owner in ("ben", "ada"))
    assert [run.id for run in newer.queue()] == [first, last]
