"""MaskLibrary: the saved masks of a store."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mlae_lab.core.plan import MaskPlan, PlanError
from mlae_lab.core.sanitize import one_line
from mlae_lab.runs.database import TIMEOUT_SECONDS, Database, StoreError

MAX_PLANS = 500
MAX_NAME = 48  # characters


@dataclass(frozen=True)
class SavedPlan:
    """A mask of the library. owner: as of a run; created: seconds since 1970."""

    id: str
    name: str
    owner: str
    created: float
    plan: MaskPlan


class MaskLibrary(Database):
    """The library of masks of a store. Names are unique, ignoring case."""

    def plans(self) -> list[SavedPlan]:
        """All saved masks, newest first, without those that only a newer version can read."""
        plans = []
        with self._connection() as db:
            rows = db.execute("SELECT id, name, owner, created, plan FROM plans ORDER BY rowid DESC").fetchall()
        for mask, name, owner, created, text in rows:
            with suppress(PlanError):
                plans.append(SavedPlan(mask, name, owner, created, MaskPlan.from_json(text)))
        return plans

    def save_plan(self, name: str, plan: MaskPlan, owner: str = "", timeout: float = TIMEOUT_SECONDS) -> SavedPlan:
        """Save a mask under a name.

        Args:
            name: Unique in the library, ignoring case.
            plan: The mask.
            owner: As in a run.
            timeout: Seconds to wait for another writer.

        Raises:
            StoreError: The name is used or not valid, or the library is full.
        """
        saved = SavedPlan(secrets.token_hex(8), plan_name(name), owner, time.time(), plan)
        with self._connection(write=True, timeout=timeout) as db:
            if db.execute("SELECT COUNT(*) FROM plans").fetchone()[0] >= MAX_PLANS:
                raise StoreError(f"the library is full, with {MAX_PLANS} masks: delete one that is not needed")
            with _unique(saved.name):
                db.execute(
                    "INSERT INTO plans (id, name, owner, created, plan) VALUES (?, ?, ?, ?, ?)",
                    (saved.id, saved.name, owner, saved.created, plan.to_json()),
                )
        return saved

    def rename_plan(self, saved: str, name: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Rename a saved mask. Raises StoreError as `save_plan` does, and for a mask that was deleted."""
        name = plan_name(name)
        with self._connection(write=True, timeout=timeout) as db, _unique(name):
            if not db.execute("UPDATE plans SET name = ? WHERE id = ?", (name, saved)).rowcount:
                raise StoreError("this mask was deleted from the library: save it again")

    def delete_plan(self, saved: str, timeout: float = TIMEOUT_SECONDS) -> bool:
        """Delete a saved mask; runs that use it are not affected. Returns whether it existed."""
        with self._connection(write=True, timeout=timeout) as db:
            return db.execute("DELETE FROM plans WHERE id = ?", (saved,)).rowcount == 1


def plan_name(text: str) -> str:
    """The name of a saved mask as it is stored: one line, without control or invisible characters.

    Raises StoreError for an empty name and for more than 48 characters.
    """
    name = one_line(text.replace("\u200c", "").replace("\u200d", ""))
    if not 1 <= len(name) <= MAX_NAME:
        raise StoreError(f"the name of a mask has {len(name)} characters: it must have 1 to {MAX_NAME}")
    return name


@contextmanager
def _unique(name: str) -> Iterator[None]:
    """Raise StoreError if another mask has the name."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise StoreError(f"the library has a mask named {name!r} already: choose another name") from None
