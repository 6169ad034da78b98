"""The states of a run."""

from __future__ import annotations

from enum import Enum


class Status(str, Enum):
    """The status of a run.

    queued: waits for its device. starting: loads. running: trains. stopping: was asked to stop and saves a checkpoint.
    The others are final; lost: the process exited without reporting a result.

    A final status changes only when a run is resumed (`RESUMABLE`); finished never changes.
    """

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"

    @property
    def is_over(self) -> bool:
        return self in (Status.FINISHED, Status.STOPPED, Status.FAILED, Status.LOST)

    @property
    def is_active(self) -> bool:
        return self in ACTIVE


ACTIVE = (Status.STARTING, Status.RUNNING, Status.STOPPING)
RESUMABLE = (Status.STOPPED, Status.FAILED, Status.LOST)
