"""RunAnnotations: names, notes and tags that people give to runs. They change nothing that a run computes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache

from mlae_lab.core.sanitize import one_line, printable
from mlae_lab.errors import LabError
from mlae_lab.runs.database import Database, StoreError

MAX_NAME, MAX_NOTES, MAX_TAG, MAX_TAGS = 80, 10_000, 32, 20  # characters, and tags of a run


class AnnotationError(LabError):
    """A name, notes or a tag that breaks a rule."""


def run_name(text: str) -> str:
    """The name of a run as it is stored: one line. Raises AnnotationError for more than `MAX_NAME` characters."""
    name = one_line(text)
    if len(name) > MAX_NAME:
        raise AnnotationError(f"the name of a run has {len(name)} characters: it must have at most {MAX_NAME}")
    return name


def run_notes(text: str) -> str:
    """The notes on a run as they are stored, without control characters. Raises AnnotationError for too long ones."""
    notes = "\n".join(printable(line).rstrip() for line in text.splitlines()).strip()
    if len(notes) > MAX_NOTES:
        raise AnnotationError(f"the notes have {len(notes):,} characters: they must have at most {MAX_NOTES:,}")
    return notes


def run_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags as they are stored: sorted, each once, ignoring case.

    Raises:
        AnnotationError: A tag is empty, has a comma or is too long, or there are too many.
    """
    known: dict[str, str] = {}
    for text in tags:
        tag = one_line(text)
        if not 1 <= len(tag) <= MAX_TAG or "," in tag:
            raise AnnotationError(f"the tag {tag[:60]!r} must have 1 to {MAX_TAG} characters and no comma")
        known.setdefault(tag.lower(), tag)
    if len(known) > MAX_TAGS:
        raise AnnotationError(f"a run has {len(known)} tags: it must have at most {MAX_TAGS}")
    return tuple(known[key] for key in sorted(known))


@lru_cache(maxsize=1024)
def tags_of(text: str) -> tuple[str, ...]:
    """Tags from their stored JSON."""
    return tuple(json.loads(text))


class RunAnnotations(Database):
    """Names, notes and tags of the runs of a store, in columns of the table of runs."""

    def annotate(
        self,
        run: str,
        name: str | None = None,
        notes: str | None = None,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
    ) -> None:
        """Change what people wrote about a run, in one transaction.

        Args:
            run: Its id.
            name: One line, "" for none; None leaves it.
            notes: Text, "" for none; None leaves them.
            add: Tags that it shall have.
            remove: Tags that it shall not have, ignoring case.

        Raises:
            AnnotationError: A text breaks its rule, or there are too many tags. Nothing is changed.
            StoreError: The run is not in the store.
        """
        given = {"name": None if name is None else run_name(name), "notes": None if notes is None else run_notes(notes)}
        values = {column: value for column, value in given.items() if value is not None}
        added, removed = run_tags(add), _keys(remove)
        with self._connection(write=True) as db:
            values["tags"] = json.dumps(run_tags([*_kept(db, run, removed), *added]), ensure_ascii=False)
            changed = ", ".join(f"{column} = :{column}" for column in values)
            db.execute(f"UPDATE runs SET {changed} WHERE id = :id", {**values, "id": run})

    def change_tags(self, runs: Sequence[str], add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """As `annotate` for the tags of many runs: of all of them, or of none if one cannot be changed."""
        added, removed = run_tags(add), _keys(remove)
        with self._connection(write=True) as db:
            for run in runs:
                tags = json.dumps(run_tags([*_kept(db, run, removed), *added]), ensure_ascii=False)
                db.execute("UPDATE runs SET tags = ? WHERE id = ?", (tags, run))

    def known_tags(self) -> list[str]:
        """All tags of the store's runs, the most frequent first."""
        with self._connection() as db:
            rows = db.execute(
                """SELECT value, COUNT(*) FROM runs, JSON_EACH(CASE WHEN JSON_VALID(tags) THEN tags ELSE '[]' END)
                   GROUP BY LOWER(value) ORDER BY COUNT(*) DESC, LOWER(value)"""
            )
            return [tag for tag, _ in rows]


def _keys(tags: Iterable[str]) -> set[str]:
    return {one_line(tag).lower() for tag in tags}


def _kept(db: sqlite3.Connection, run: str, removed: set[str]) -> list[str]:
    """The tags of a run without those that are removed."""
    row = db.execute("SELECT tags FROM runs WHERE id = ?", (run,)).fetchone()
    if row is None:
        raise StoreError(f"run {run[:60]!r} is not in the store: `runs` lists those that are")
    return [tag for tag in tags_of(row[0]) if tag.lower() not in removed]
