"""Previews of a run before it starts, computed in a separate process, as the app never loads torch.

The process (`preview_worker`) reads the config from its standard input and prints JSON lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from mlae_lab.core.config import RunConfig
from mlae_lab.core.rate_curve import STEPS, RatePoint
from mlae_lab.errors import LabError
from mlae_lab.locations import ROOT, used_store

_ONE = threading.Lock()  # a preview uses all cores


class PreviewError(LabError):
    """A preview that failed."""


def rate_points(config: RunConfig, report: Callable[[int, int], None] = lambda done, total: None) -> list[RatePoint]:
    """The curve of the learning-rate finder.

    Args:
        config: Of the run; its learning rate and epochs do not matter.
        report: Called with (steps done, steps at most); it may raise, which ends the process.

    Raises:
        PreviewError: The images or weights cannot be read, or the process failed.
    """
    points: list[RatePoint] = []

    def add(values: dict[str, Any]) -> None:
        points.append(RatePoint(**values))
        report(len(points), STEPS)

    _lines("rates", config, add)
    return points


def augmented_images(config: RunConfig) -> list[list[str]]:
    """Training images as they are and as the config augments them.

    Args:
        config: Of the run.

    Returns:
        For each image its versions, the stored one first, as base64 of a JPEG or a tiny PNG.

    Raises:
        PreviewError: The images cannot be read, or the process failed.
    """
    rows: list[list[str]] = []
    _lines("augmentation", config, lambda values: rows.append(values["versions"]))
    return rows


def _lines(kind: str, config: RunConfig, take: Callable[[dict[str, Any]], None]) -> None:
    # in ROOT, where `-m` finds the package wherever the server was started
    command = [sys.executable, "-m", "mlae_lab.runs.preview_worker", kind, str(used_store() or "")]
    pipe = subprocess.PIPE
    with (
        _ONE,
        tempfile.TemporaryFile("w+") as errors,  # a pipe that nobody reads would block a process with many warnings
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, cwd=ROOT) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(config.to_dict()))
            process.stdin.close()
            for line in process.stdout:
                take(json.loads(line))
            status = process.wait()
            errors.seek(0)
            problem = errors.read().strip().splitlines()
        except BaseException:
            process.kill()
            raise
    if status != 0:
        raise PreviewError(problem[-1] if problem else f"the preview ended with status {status}")
