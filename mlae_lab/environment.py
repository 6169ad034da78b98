"""The lab's environment variables: every one is read and checked here."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from mlae_lab.errors import LabError

STORE, DATA = "MLAE_LAB_STORE", "MLAE_LAB_DATA"
IMAGE_FOLDERS = "MLAE_LAB_IMAGE_FOLDERS"  # below which the pages may read images (`data.dataset_input`)
FEATURES = "MLAE_LAB_FEATURES"  # folder of frozen features, or "off" (`training.feature_cache`)
# Where alerts go (`runs.alerts`): an address, a command, a settings file.
ALERT_URL, ALERT_COMMAND, ALERTS = "MLAE_LAB_ALERT_URL", "MLAE_LAB_ALERT_COMMAND", "MLAE_LAB_ALERTS"


@dataclass(frozen=True)
class Seconds:
    """A variable with a number of seconds. default: if it is not set or empty."""

    name: str
    default: float

    def value(self) -> float:
        """The number that is set. Raises LabError if it is not a finite number from 0."""
        text = os.environ.get(self.name, "").strip()
        if not text:
            return self.default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise LabError(
                f"{self.name} is {text[:60]!r}: it must be a number of seconds from 0, such as {self.default:g}"
            )
        return value


SAVE = Seconds("MLAE_LAB_SAVE_SECONDS", 30.0)  # between checkpoints: a killed run loses at most this much training
# For this long a process tries to write the end to a locked or full store; the exit record has it in any case.
END = Seconds("MLAE_LAB_END_SECONDS", 60.0)
# For this long the fork server waits for the next run; 0: none is used, every run loads torch itself.
WARM = Seconds("MLAE_LAB_WARM_SECONDS", 120.0)
PROBE_IDLE = Seconds("MLAE_LAB_PROBE_IDLE", 300.0)  # without a request, after which a probe exits


def folder(variable: str) -> Path | None:
    """The folder in a variable, None if it is not set or empty. Raises LabError for `~name` of an unknown user."""
    given = os.environ.get(variable)
    return expanded(Path(given), variable) if given else None


def folders(variable: str) -> tuple[Path, ...]:
    """The folders in a variable, separated as in PATH. Raises LabError for `~name` of an unknown user."""
    given = filter(None, os.environ.get(variable, "").split(os.pathsep))
    return tuple(expanded(Path(path), variable).absolute() for path in given)


def expanded(path: Path, name: str, kind: str = "folder") -> Path:
    """A path of the user with `~` replaced.

    Args:
        path: As given.
        name: Of the variable or option, for the message.
        kind: "folder" or "file".

    Raises:
        LabError: The user after `~` is unknown, or the own home folder is.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise LabError(f"{name} is {path}, in an unknown home folder: name a {kind} in full") from None


def check() -> None:
    """Check all variables, also those that only the process of a run or of a probe reads. Raises LabError."""
    for variable in (STORE, DATA, FEATURES):
        folder(variable)
    folders(IMAGE_FOLDERS)
    for number in (SAVE, END, WARM, PROBE_IDLE):
        number.value()
