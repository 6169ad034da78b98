"""Paths of the lab's own files (in a checkout next to the package, in an installation inside it) and of its data."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = (PACKAGE.parent / "assets" / "digits.npz").exists()
ROOT = PACKAGE.parent
PAGES = ROOT / "pages" if _CHECKOUT else PACKAGE / "_pages"
ASSETS = ROOT / "assets" if _CHECKOUT else PACKAGE / "_assets"


def default_store() -> Path:
    """Folder of the runs: $MLAE_LAB_STORE, else ~/.mlae_lab."""
    return Path(os.environ.get("MLAE_LAB_STORE") or Path.home() / ".mlae_lab").expanduser()


def data_folder() -> Path:
    """Folder of fetched images and weights: $MLAE_LAB_DATA, else data/ in the store."""
    folder = os.environ.get("MLAE_LAB_DATA")
    return Path(folder).expanduser() if folder else default_store() / "data"


def weights_file(backbone: str) -> Path:
    """Path of a backbone's fetched weights, whether the file exists or not."""
    return data_folder() / "weights" / backbone / "model.safetensors"
