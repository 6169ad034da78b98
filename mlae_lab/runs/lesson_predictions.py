"""LessonPredictions: what people guessed in lessons, without names."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

from mlae_lab.runs.database import Database, StoreError

MAX_PREDICTIONS = 20_000  # in a store


class LessonPredictions(Database):
    """The guesses of all people of a store: lesson, task, guess and time, nothing else."""

    def add_prediction(self, lesson: str, task: str, guess: Any, timeout: float = 2.0) -> None:
        """Store a guess.

        Args:
            lesson: Name of the lesson.
            task: On which it was taken.
            guess: Plain data, checked by the lesson's form of guess.
            timeout: Seconds to wait for another writer.

        Raises:
            StoreError: The store holds `MAX_PREDICTIONS` already.
        """
        with self._connection(write=True, timeout=timeout, durable=False) as db:
            if db.execute("SELECT COUNT(*) FROM lesson_predictions").fetchone()[0] >= MAX_PREDICTIONS:
                raise StoreError(f"the store has {MAX_PREDICTIONS:,} guesses already: this one is not counted")
            db.execute(
                "INSERT INTO lesson_predictions (lesson, task, guess, time) VALUES (?, ?, ?, ?)",
                (lesson, task, json.dumps(guess), time.time()),
            )

    def predictions(self, lesson: str, task: str) -> list[Any]:
        """All guesses of a lesson on a task, in order."""
        with self._connection() as db:
            rows = db.execute(
                "SELECT guess FROM lesson_predictions WHERE lesson = ? AND task = ? ORDER BY rowid", (lesson, task)
            ).fetchall()
        values = []
        for (text,) in rows:
            with suppress(ValueError):
                values.append(json.loads(text))
        return values
