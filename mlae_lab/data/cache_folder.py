"""The files of decoded images (`data.cache`) and their deletion.

<folder>/<key>/pixels.npy, labels.npy, content.npy, meta.json   one finished cache; key: SHA-256 of what it depends on
<folder>/<key>.building-<pid>-<number>/            being written; renamed when it is complete
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
    """Delete caches that were not opened for so many days, and the leftovers of builders that died.

    Caches that are being built stay, and so do other files. A process that has a deleted cache open can
    still read it.

    Returns:
        The number of bytes freed.
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
    """The lock file of the cache in the folder `home`."""
    return home.with_name(f"{home.name}.lock")


def fresh(home: Path, kind: str) -> Path:
    """An unused name next to a cache, of kind "building" or "gone": pids are reused, and threads share one."""
    names = (home.with_name(f"{home.name}.{kind}-{os.getpid()}-{number}") for number in _numbers)
    return next(name for name in names if not name.exists())


def clear(home: Path, alone: bool) -> None:
    """Delete a cache and its leftovers; for other processes it disappears at one moment.

    Args:
        home: the folder of the cache.
        alone: whether the lock is held, which means that the processes which wrote the leftovers are dead.
    """
    if home.exists():
        home.rename(fresh(home, "gone"))
    _clear_leftovers(home, alone)


def _clear_leftovers(home: Path, alone: bool) -> None:
    for kind in ("building", "gone"):
        for folder in home.parent.glob(f"{home.name}.{kind}-*"):
            if alone or kind == "gone" or _idle_seconds(folder) > _DAY:  # without a lock its builder may be alive
                shutil.rmtree(folder, ignore_errors=True)


def _idle_seconds(folder: Path) -> float:
    """Seconds since a cache was last opened or a leftover last written; infinite without any file."""
    times = []
    for file in (folder / "meta.json", folder / "pixels.npy"):
        with suppress(OSError):
            times.append(file.stat().st_mtime)
    return time.time() - max(times) if times else float("inf")


def _bytes(home: Path) -> int:
    files = itertools.chain(home.glob("*"), home.parent.glob(f"{home.name}.*/*"))
    return sum(file.stat().st_size for file in files if file.is_file())
