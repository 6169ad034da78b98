"""Where the images and the frozen weights of a run are on this machine, if not where its config says.

A folder moves, and an imported run comes without one. What a person names for a run is kept in its folder, so that
every later query and every resumption finds it. The config stays as it was enqueued.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from mlae_lab.core.config import RunConfig
from mlae_lab.errors import LabError
from mlae_lab.files import write_whole
from mlae_lab.runs.paths import RunPaths


class LocationError(LabError):
    """A file of weights that cannot be used, or frozen weights that a run was not trained on."""


@dataclass(frozen=True)
class RunLocation:
    """Where the files of a run are on this machine.

    Attributes:
        data: Folder of its images, "" for that of its config.
        weights: File of its frozen weights, "" for that of its config.
        fingerprint: Of the frozen weights that the run must have, "" if any will do. A rerun has that of its parent.
    """

    data: str = ""
    weights: str = ""
    fingerprint: str = ""

    def applied(self, config: RunConfig) -> RunConfig:
        """The config with the folder of the images; badge and hash of the run do not change."""
        return replace(config, data=self.data or config.data)

    @property
    def data_folder(self) -> Path | None:
        return Path(self.data) if self.data else None

    @property
    def weights_file(self) -> Path | None:
        return Path(self.weights) if self.weights else None

    def require(self, fingerprint: str, trained: str = "") -> None:
        """Raise LocationError for other frozen weights than the run's.

        Args:
            fingerprint: Of the weights that were loaded.
            trained: Of those that the run was trained on so far, "" for none.
        """
        expected = trained or self.fingerprint
        if expected and fingerprint != expected:
            raise LocationError(
                f"this run has frozen weights with fingerprint {expected} and {self.weights or 'the file here'} has "
                f"{fingerprint}: name the original file with --weights"
            )


def read_location(files: RunPaths) -> RunLocation:
    """What was named for a run; nothing without a file, and for one that cannot be read."""
    try:
        return location_of(json.loads(files.location.read_text()))
    except (OSError, ValueError, RecursionError):
        return RunLocation()


def location_of(data: object) -> RunLocation:
    """A location from JSON, without what is not a text."""
    values = data if isinstance(data, dict) else {}
    return RunLocation(
        **{field.name: values[field.name] for field in fields(RunLocation) if isinstance(values.get(field.name), str)}
    )


def keep_location(files: RunPaths, location: RunLocation) -> None:
    """Keep a location in a run's folder; nothing is written if it is known already."""
    if location != read_location(files):
        write_whole(files.location, json.dumps(asdict(location)))


def checked_weights(text: str) -> str:
    """The absolute path of a weight file, "" for "". Raises LocationError if it is not a file."""
    if not text.strip():
        return ""
    try:
        file = Path(text).expanduser().absolute()
        is_file = file.is_file()
    except (RuntimeError, ValueError, OSError):  # an unknown home folder, a null byte, a name that is too long
        file, is_file = Path(text[:200]), False
    if not is_file:
        raise LocationError(f"{file} is not a file: name a file with the weights that the run was trained on")
    return str(file)
