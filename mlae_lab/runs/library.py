"""MaskLibrary: the masks that people of a store saved by name."""

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
    """The library of masks of a store. Names are unique, case does not count."""

    def plans(self) -> list[SavedPlan]:
        """All saved masks, newest first; one that only a newer lab can read is passed over."""
        found = []
        with self._connection() as db:
            rows = db.execute("SELECT id, name, owner, created, plan FROM plans ORDER BY rowid DESC").fetchall()
        for mask, name, owner, created, text in rows:
            with suppress(PlanError):
                found.append(SavedPlan(mask, name, owner, created, MaskPlan.from_json(text)))
        return found

    def save_plan(self, name: str, plan: MaskPlan, owner: str = "", timeout: float = TIMEOUT_SECONDS) -> SavedPlan:
        """Keep a mask under a name that no other has (case does not count).

        Raises StoreError, with what would work, for a name that is taken or no name, and for a full library.
        """
        saved = SavedPlan(secrets.token_hex(8), plan_name(name), owner, time.time(), plan)
        with self._connection(write=True, timeout=timeout) as db:
            if db.execute("SELECT COUNT(*) FROM plans").fetchone()[0] >= MAX_PLANS:
                raise StoreError(f"the library holds {MAX_PLANS} masks, its most: delete one that nobody needs")
            with _taken(saved.name):
                db.execute(
                    "INSERT INTO plans (id, name, owner, created, plan) VALUES (?, ?, ?, ?, ?)",
                    (saved.id, saved.name, owner, saved.created, plan.to_json()),
                )
        return saved

    def rename_plan(self, saved: str, name: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Give a saved mask another name. Raises StoreError as `save_plan` does, and for one that is gone."""
        name = plan_name(name)
        with self._connection(write=True, timeout=timeout) as db, _taken(name):
            if not db.execute("UPDATE plans SET name = ? WHERE id = ?", (name, saved)).rowcount:
                raise StoreError("this mask is no longer in the library: somebody deleted it")

    def delete_plan(self, saved: str, timeout: float = TIMEOUT_SECONDS) -> bool:
        """Forget a saved mask; runs that were made with it keep theirs. Returns whether it was there."""
        with self._connection(write=True, timeout=timeout) as db:
            return db.execute("DELETE FROM plans WHERE id = ?", (saved,)).rowcount == 1


def plan_name(text: str) -> str:
    """A saved mask's name as it is kept: one line, no control or invisible characters.

    Raises StoreError for nothing or for more than 48 characters.
    """
    name = one_line(text.replace("\u200c", "").replace("\u200d", ""))
    if not 1 <= len(name) <= MAX_NAME:
        raise StoreError(f"the name of a mask has {len(name)} characters: it must have 1 to {MAX_NAME}")
    return name


@contextmanager
def _taken(name: str) -> Iterator[None]:
    """Say it in a sentence where another mask has the name."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise StoreError(f"the library has a mask named {name!r} already: choose another name") from None
