"""Visitors: nicknames and drafts of the browsers that use a store."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mlae_lab.runs.database import TIMEOUT_SECONDS, Database


@dataclass(frozen=True)
class Visitor:
    """A browser. draft: JSON of its draft, "" for none. seen: seconds since 1970."""

    id: str
    nickname: str = ""
    draft: str = ""
    seen: float = 0.0


class Visitors(Database):
    """The browsers that a store knows."""

    def visitor(self, visitor: str) -> Visitor:
        """The record of a browser; an unknown one has no nickname and no draft."""
        with self._connection() as db:
            row = db.execute("SELECT id, nickname, draft, seen FROM visitors WHERE id = ?", (visitor,)).fetchone()
        return Visitor(*row) if row else Visitor(visitor)

    def keep_visitor(self, visitor: str, timeout: float = TIMEOUT_SECONDS, **changes: str) -> None:
        """Store a browser's nickname or draft.

        Args:
            visitor: Its id.
            timeout: Seconds to wait for another writer; then sqlite3.OperationalError is raised.
            changes: nickname, draft.
        """
        unknown = set(changes) - {"nickname", "draft"}
        if unknown:
            raise TypeError(f"a visitor has no {', '.join(sorted(unknown))}")
        changed = ", ".join(f"{name} = :{name}" for name in (*changes, "seen"))  # two tabs may change different things
        with self._connection(write=True, timeout=timeout, durable=False) as db:
            db.execute(
                f"""INSERT INTO visitors (id, nickname, draft, seen) VALUES (:id, :nickname, :draft, :seen)
                    ON CONFLICT (id) DO UPDATE SET {changed}""",
                {"nickname": "", "draft": "", **changes, "id": visitor, "seen": time.time()},
            )

    def nicknames(self) -> dict[str, str]:
        """Nicknames by the id of the browser."""
        with self._connection() as db:
            return dict(db.execute("SELECT id, nickname FROM visitors WHERE nickname != ''").fetchall())
