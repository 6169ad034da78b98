"""LessonPredictions: what people guessed in lessons, without names."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from contextlib import suppress
from typing import Any

from mlae_lab.runs.database import Database

MAX_PREDICTIONS = 20_000  # in a store; the oldest are removed


class LessonPredictions(Database):
    """The guesses of all people of a store: lesson, task, guess and time.

    `browser` is a hash of lesson, task and the browser's random id: it keeps a second guess of one browser from being
    counted, and says neither who guessed nor which guesses of two lessons are of one person.
    """

    def add_prediction(self, lesson: str, task: str, guess: Any, browser: str = "", timeout: float = 2.0) -> None:
        """Store a guess; a second one of a browser is not stored.

        Args:
            lesson: Name of the lesson.
            task: On which it was taken.
            guess: Plain data, checked by the lesson's form of guess.
            browser: Its random id, "" if it has none.
            timeout: Seconds to wait for another writer.
        """
        known = hashlib.sha256(json.dumps([lesson, task, browser or secrets.token_hex(16)]).encode()).hexdigest()[:24]
        with self._connection(write=True, timeout=timeout, durable=False) as db:
            db.execute(
                "INSERT OR IGNORE INTO lesson_predictions (lesson, task, browser, guess, time) VALUES (?, ?, ?, ?, ?)",
                (lesson, task, known, json.dumps(guess), time.time()),
            )
            db.execute(
                """DELETE FROM lesson_predictions WHERE rowid IN
                       (SELECT rowid FROM lesson_predictions ORDER BY time DESC, rowid DESC LIMIT -1 OFFSET ?)""",
                (MAX_PREDICTIONS,),
            )

    def predictions(self, lesson: str, task: str, since: float = 0.0) -> list[Any]:
        """All guesses of a lesson on a task from a time on (seconds since 1970), in order."""
        with self._connection() as db:
            rows = db.execute(
                "SELECT guess FROM lesson_predictions WHERE lesson = ? AND task = ? AND time >= ? ORDER BY rowid",
                (lesson, task, since),
            ).fetchall()
        values = []
        for (text,) in rows:
            with suppress(ValueError):
                values.append(json.loads(text))
        return values
