"""RunAnnotations: names, notes and tags that people give to runs. They change nothing that a run computes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

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
    """The notes on a run as they are stored, without control characters. Raises AnnotationError if they are too long."""
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


def tags_of(text: str) -> tuple[str, ...]:
    """Tags from their stored JSON."""
    return tuple(json.loads(text))


class RunAnnotations(Database):
    """Names, notes and tags of the runs of a store, in columns of the table of runs."""

    def annotate(self, run: str, name: str | None = None, notes: str | None = None) -> None:
        """Set the name or the notes of a run.

        Args:
            run: Its id.
            name: One line, "" for none; None leaves it.
            notes: Text, "" for none; None leaves them.

        Raises:
            AnnotationError: A text is too long.
            StoreError: The run is not in the store.
        """
        values = {"name": None if name is None else run_name(name), "notes": None if notes is None else run_notes(notes)}
        given = {column: value for column, value in values.items() if value is not None}
        changed = ", ".join(f"{column} = :{column}" for column in given) or "name = name"
        with self._connection(write=True) as db:
            if not db.execute(f"UPDATE runs SET {changed} WHERE id = :id", {**given, "id": run}).rowcount:
                raise _missing(run)

    def change_tags(self, runs: Sequence[str], add: Iterable[str] = (), remove: Collection[str] = ()) -> None:
        """Add tags to runs and remove tags from them, ignoring case, in one transaction.

        Args:
            runs: Their ids.
            add: Tags that they shall have.
            remove: Tags that they shall not have.

        Raises:
            AnnotationError: A tag breaks its rule, or a run would have too many. Nothing is changed.
            StoreError: A run is not in the store. Nothing is changed.
        """
        added, removed = run_tags(add), {one_line(tag).lower() for tag in remove}
        with self._connection(write=True) as db:
            for run in runs:
                row = db.execute("SELECT tags FROM runs WHERE id = ?", (run,)).fetchone()
                if row is None:
                    raise _missing(run)
                kept = [tag for tag in tags_of(row[0]) if tag.lower() not in removed]
                tags = json.dumps(run_tags([*kept, *added]), ensure_ascii=False)
                db.execute("UPDATE runs SET tags = ? WHERE id = ?", (tags, run))

    def known_tags(self) -> list[str]:
        """All tags of the store's runs, the most frequent first."""
        with self._connection() as db:
            rows = db.execute(
                """SELECT value, COUNT(*) FROM runs, JSON_EACH(CASE WHEN JSON_VALID(tags) THEN tags ELSE '[]' END)
                   GROUP BY LOWER(value) ORDER BY COUNT(*) DESC, LOWER(value)"""
            )
            return [tag for tag, _ in rows]


def _missing(run: str) -> StoreError:
    return StoreError(f"run {run[:60]!r} is not in the store: `runs` lists those that are")
