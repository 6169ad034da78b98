"""Paths of the lab's own files (in a checkout next to the package, in an installation inside it) and of its data; the
name of its command line.
"""

from __future__ import annotations

import os
import re
from importlib import metadata
from pathlib import Path

from mlae_lab import environment
from mlae_lab.errors import LabError

PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = (PACKAGE.parent / "assets" / "digits.npz").exists()
ROOT = PACKAGE.parent
PAGES = ROOT / "pages" if _CHECKOUT else PACKAGE / "_pages"
ASSETS = ROOT / "assets" if _CHECKOUT else PACKAGE / "_assets"
# The command line as messages and equivalent commands give it: it also works in a checkout that is not installed.
PROGRAM = "python -m mlae_lab"


_used_store: Path | None = None


def use_store(folder: Path | None) -> None:
    """Record the store that this process works on: what the data folder cannot hold goes below it.

    Args:
        folder: As `--store` names it, None for the default.
    """
    global _used_store
    _used_store = folder


def used_store() -> Path | None:
    """The store of `use_store`, for processes that this one starts."""
    return _used_store


def home_store() -> Path | None:
    """~/.mlae_lab, None if the home folder is unknown: HOME is not set and the system does not know the user."""
    try:
        return Path.home() / ".mlae_lab"
    except RuntimeError:
        return None


def default_store() -> Path:
    """Folder of the runs: $MLAE_LAB_STORE, else ~/.mlae_lab. Raises LabError."""
    store = environment.folder(environment.STORE) or home_store()
    if store is None:
        raise LabError(
            f"this user has no home folder, so there is no default store: name one with --store or {environment.STORE}"
        )
    return store


def data_folder() -> Path:
    """Folder of fetched images and weights: $MLAE_LAB_DATA, else data/ in the default store.

    Where there is no default store and none can be made, it is data/ in the used store.

    Raises:
        LabError: There is no home folder and no used store, or a variable names an unknown one.
    """
    if named := environment.folder(environment.DATA):
        return named
    try:
        folder = default_store() / "data"
    except LabError:
        if _used_store is None:
            raise
        return _used_store / "data"
    return folder if _used_store is None or os.path.isdir(folder) or _can_make(folder) else _used_store / "data"


def cache_folder() -> Path:
    """Folder of decoded images: cache/ in the data folder; if that cannot be written, data/cache/ in the used store."""
    folder = data_folder()
    return (folder if _used_store is None or _can_make(folder) else _used_store / "data") / "cache"


def _can_make(folder: Path) -> bool:
    """Whether this process can write into a folder, which may have to be made first."""
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    by_effective_user = os.access in os.supports_effective_ids
    return os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK, effective_ids=by_effective_user)


def weights_file(backbone: str) -> Path:
    """Path of a backbone's fetched weights, whether the file exists or not."""
    return data_folder() / "weights" / backbone / "model.safetensors"


def lab_version() -> str:
    """The version of the lab: that of the checkout, else of the installed package; "unknown" without either."""
    try:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        match = re.search(r'^version = "(.+?)"', text, re.MULTILINE)
        return match[1] if match else "unknown"
    except OSError:
        try:
            return metadata.version("mlae-lab")
        except metadata.PackageNotFoundError:
            return "unknown"
