"""Where the lab's own files lie: in a checkout beside the package, in an installed copy inside it."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = (PACKAGE.parent / "assets" / "digits.npz").exists()
ROOT = PACKAGE.parent
PAGES = ROOT / "pages" if _CHECKOUT else PACKAGE / "_pages"
ASSETS = ROOT / "assets" if _CHECKOUT else PACKAGE / "_assets"


def default_store() -> Path:
    """Where runs are kept: $MLAE_LAB_STORE, else ~/.mlae_lab."""
    return Path(os.environ.get("MLAE_LAB_STORE") or Path.home() / ".mlae_lab").expanduser()


def data_folder() -> Path:
    """Where fetched images and weights are kept: $MLAE_LAB_DATA, else data/ in the store."""
    named = os.environ.get("MLAE_LAB_DATA")
    return Path(named).expanduser() if named else default_store() / "data"


def weights_file(backbone: str) -> Path:
    """Where the fetched weights of a backbone lie, whether they are there or not."""
    return data_folder() / "weights" / backbone / "model.safetensors"
