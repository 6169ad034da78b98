"""Paths of the lab's own files (in a checkout next to the package, in an installation inside it) and of its data; the
name of its command line.
"""

from __future__ import annotations

import os
from pathlib import Path

from mlae_lab.errors import LabError

PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = (PACKAGE.parent / "assets" / "digits.npz").exists()
ROOT = PACKAGE.parent
PAGES = ROOT / "pages" if _CHECKOUT else PACKAGE / "_pages"
ASSETS = ROOT / "assets" if _CHECKOUT else PACKAGE / "_assets"
# The command line as messages and equivalent commands give it: it also works in a checkout that is not installed.
PROGRAM = "python -m mlae_lab"


def default_store() -> Path:
    """Folder of the runs: $MLAE_LAB_STORE, else ~/.mlae_lab. Raises LabError."""
    return _from_environment("MLAE_LAB_STORE") or Path.home() / ".mlae_lab"


def data_folder() -> Path:
    """Folder of fetched images and weights: $MLAE_LAB_DATA, else data/ in the store. Raises LabError."""
    return _from_environment("MLAE_LAB_DATA") or default_store() / "data"


def _from_environment(variable: str) -> Path | None:
    folder = os.environ.get(variable)
    try:
        return Path(folder).expanduser() if folder else None
    except RuntimeError:  # ~somebody who does not exist
        raise LabError(f"{variable} is {folder}, in an unknown home folder: name a folder in full") from None


def weights_file(backbone: str) -> Path:
    """Path of a backbone's fetched weights, whether the file exists or not."""
    return data_folder() / "weights" / backbone / "model.safetensors"
