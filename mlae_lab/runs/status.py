"""The states of a run."""

from __future__ import annotations

from enum import Enum


class Status(str, Enum):
    """queued: waits for its device. starting: loads. running: trains. stopping: was asked to end and
    keeps what it has. The others are ends; lost: the process is gone and left no word.

    An end changes only when a person resumes the run (`RESUMABLE`); finished never does.
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
