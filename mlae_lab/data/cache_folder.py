"""The files of decoded images (`data.cache`) and how they go.

<folder>/<key>/pixels.npy, labels.npy, meta.json   one finished cache; key: SHA-256 of what it depends on
<folder>/<key>.building-<pid>-<number>/            being written; renamed whole when everything is in it
<folder>/<key>.gone-<pid>-<number>/                being deleted; renamed first, so that nobody opens half of it
<folder>/<key>.lock                                held while one of the above changes
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from mlae_lab.data.folder_lock import Busy, locked

_NAME = re.compile(r"([0-9a-f]{64})(|\.lock|\.building-\d+-\d+|\.gone-\d+-\d+)")
_DAY = 86_400.0
_numbers = itertools.count()


def forget(folder: Path, older_than_days: float) -> int:
    """Delete the caches that nobody opened for so many days, and what dead builders left. Returns bytes freed.

    Caches that are being built stay, other files too; who still reads a deleted cache keeps reading.
    """
    folder = Path(folder).expanduser().absolute()
    names = os.listdir(folder) if folder.is_dir() else []
    freed = 0
    for name in sorted({match[1] for match in map(_NAME.fullmatch, names) if match}):
        home = folder / name
        with suppress(Busy, OSError), locked(lock_file(home), wait=False, remove=True) as alone:
            before = _bytes(home)
            if _idle_seconds(home) >= older_than_days * _DAY:
                clear(home, alone)
            else:
                _clear_leftovers(home, alone)
            freed += before - _bytes(home)
    return freed


def lock_file(home: Path) -> Path:
    """home: the folder of one cache."""
    return home.with_name(f"{home.name}.lock")


def fresh(home: Path, kind: str) -> Path:
    """A name beside a cache, of kind "building" or "gone", that does not exist: pids come again, threads share one."""
    names = (home.with_name(f"{home.name}.{kind}-{os.getpid()}-{number}") for number in _numbers)
    return next(name for name in names if not name.exists())


def clear(home: Path, alone: bool) -> None:
    """Delete a cache, whole for everyone at one moment, and the leftovers beside it.

    alone: whether the lock is held, so that whoever began the leftovers is dead.
    """
    if home.exists():
        home.rename(fresh(home, "gone"))
    _clear_leftovers(home, alone)


def _clear_leftovers(home: Path, alone: bool) -> None:
    for kind in ("building", "gone"):
        for folder in home.parent.glob(f"{home.name}.{kind}-*"):
            if alone or kind == "gone" or _idle_seconds(folder) > _DAY:  # without a lock, its builder may be alive
                shutil.rmtree(folder, ignore_errors=True)


def _idle_seconds(folder: Path) -> float:
    """Since a cache was last opened, or a leftover last written to; without any file, for ever."""
    times = []
    for file in (folder / "meta.json", folder / "pixels.npy"):
        with suppress(OSError):
            times.append(file.stat().st_mtime)
    return time.time() - max(times) if times else float("inf")


def _bytes(home: Path) -> int:
    files = itertools.chain(home.glob("*"), home.parent.glob(f"{home.name}.*/*"))
    return sum(file.stat().st_size for file in files if file.is_file())
