"""StudyTable: the studies of a store, their versions and their runs."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from mlae_lab.core.study import Study
from mlae_lab.errors import LabError
from mlae_lab.runs.database import Database, StoreError, require_intact

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
MAX_STUDIES = 2_000
Cells = Mapping[tuple[str, int], str]  # (arm, seed) to the id of a run


@dataclass(frozen=True)
class StoredStudy:
    """A study of a store.

    Attributes:
        id: Eight of a-z and 2-7.
        created: Seconds since 1970.
        owner: As of a run.
        halted: Whether it was stopped: its missing runs are not to be started.
        version: Number of its last version, from 1.
        study: Its last version.
    """

    id: str
    created: float
    owner: str
    halted: bool
    version: int
    study: Study


class StudyTable(Database):
    """Studies. A version is never changed: more seeds or arms are another version."""

    def add_study(self, study: Study, owner: str = "") -> StoredStudy:
        """Store a study, without any run. Raises StoreError if the store has `MAX_STUDIES` already."""
        name = new_id()
        with self._connection(write=True) as db:
            if db.execute("SELECT COUNT(*) FROM studies").fetchone()[0] >= MAX_STUDIES:
                raise StoreError(f"the store has {MAX_STUDIES:,} studies: delete one that is not needed")
            insert_study(db, name, study, time.time(), owner)
        return self.study(name)

    def add_version(self, name: str, study: Study) -> StoredStudy:
        """Store the next version of a study."""
        with self._connection(write=True) as db:
            last = db.execute("SELECT MAX(version) FROM study_versions WHERE study = ?", (name,)).fetchone()[0]
            if last is None:
                raise _unknown(name)
            db.execute(
                "INSERT INTO study_versions VALUES (?, ?, ?, ?)",
                (name, last + 1, time.time(), json.dumps(study.to_dict())),
            )
        return self.study(name)

    def study(self, name: str) -> StoredStudy:
        """A study by its id. Raises StoreError if it is unknown or cannot be read."""
        with self._connection() as db:
            row = db.execute(f"{_SELECT} AND studies.id = ?", (name,)).fetchone()
        if row is None:
            raise _unknown(name)
        try:
            return _stored(row)
        except (LabError, ValueError) as error:
            raise StoreError(f"study {name} cannot be read ({' '.join(str(error).split())[:300]})") from None

    def studies(self) -> list[StoredStudy]:
        """All studies, newest first, without those that cannot be read (`unread_studies`)."""
        studies = []
        for row in self._study_rows():
            with suppress(LabError, ValueError):
                studies.append(_stored(row))
        return studies

    def unread_studies(self) -> list[str]:
        """The ids of studies that are damaged or name what is not installed."""
        known = {stored.id for stored in self.studies()}
        return [row[0] for row in self._study_rows() if row[0] not in known]

    def _study_rows(self) -> list[tuple]:
        with self._connection() as db:
            return db.execute(f"{_SELECT} ORDER BY studies.rowid DESC").fetchall()

    def halt_study(self, name: str, halted: bool) -> None:
        """Record that a study is stopped, or that it continues."""
        with self._connection(write=True) as db:
            db.execute("UPDATE studies SET halted = ? WHERE id = ?", (int(halted), name))

    def halted_studies(self) -> set[str]:
        """The ids of the studies that are stopped, also of those that cannot be read."""
        with self._connection() as db:
            return {name for (name,) in db.execute("SELECT id FROM studies WHERE halted = 1")}

    def delete_study(self, name: str) -> bool:
        """Delete a study; its runs stay. Returns whether it existed."""
        with self._connection(write=True) as db:
            db.execute("DELETE FROM study_runs WHERE study = ?", (name,))
            db.execute("DELETE FROM study_versions WHERE study = ?", (name,))
            return db.execute("DELETE FROM studies WHERE id = ?", (name,)).rowcount == 1

    def study_cells(self, name: str) -> dict[tuple[str, int], str]:
        """The recorded run of each arm and seed; it may have been deleted since."""
        with self._connection() as db:
            rows = db.execute("SELECT arm, seed, run FROM study_runs WHERE study = ?", (name,)).fetchall()
        return {(arm, seed): run for arm, seed, run in rows}

    def set_study_cells(self, name: str, cells: Cells) -> None:
        """Record the runs of arms and seeds."""
        with self._connection(write=True) as db:
            db.executemany(
                "INSERT OR REPLACE INTO study_runs (study, arm, seed, run) VALUES (?, ?, ?, ?)",
                [(name, arm, seed, run) for (arm, seed), run in cells.items()],
            )

    def studies_of(self, run: str) -> list[str]:
        """The ids of the studies that a run belongs to."""
        with self._connection() as db:
            return [name for (name,) in db.execute("SELECT DISTINCT study FROM study_runs WHERE run = ?", (run,))]

    def studies_by_run(self) -> dict[str, list[str]]:
        """The ids of the studies of every run that belongs to one."""
        studies: dict[str, list[str]] = {}
        with self._connection() as db:
            for run, name in db.execute("SELECT DISTINCT run, study FROM study_runs ORDER BY run, study"):
                studies.setdefault(run, []).append(name)
        return studies


def new_id() -> str:
    """A random id for a study."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


def insert_study(
    db: sqlite3.Connection, name: str, study: Study, created: float, owner: str = "", halted: bool = False
) -> None:
    """Insert the first version of a study, in the transaction of `db`."""
    db.execute("INSERT INTO studies VALUES (?, ?, ?, ?)", (name, created, owner, int(halted)))
    db.execute("INSERT INTO study_versions VALUES (?, 1, ?, ?)", (name, created, json.dumps(study.to_dict())))


_SELECT = """SELECT studies.id, studies.created, owner, halted, version, spec FROM studies
    JOIN study_versions AS held ON held.study = studies.id
    WHERE version = (SELECT MAX(version) FROM study_versions WHERE study = studies.id)"""


def _stored(row: tuple) -> StoredStudy:
    name, created, owner, halted, version, spec = row
    return StoredStudy(name, created, owner, bool(halted), version, _study(spec))


@lru_cache(maxsize=MAX_STUDIES)
def _study(spec: str) -> Study:
    """A stored version, validated once: a page of studies reads all of them every few seconds."""
    return Study.from_dict(json.loads(require_intact(spec)))


def _unknown(name: str) -> StoreError:
    return StoreError(f"study {name[:60]!r} is not in the store: `study list` names those that are")
