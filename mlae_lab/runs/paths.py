"""The names of all files of a store.

<store>/lab.sqlite            runs, their events, drafts (`runs.store`, `runs.event_log`, `runs.visitors`)
<store>/making.lock           held while the tables are created or migrated
<store>/supervisor.lock       held by the store's supervisor while it is alive, and its heartbeat
<store>/supervisor.log        output of the supervisor
<store>/watched.json          runs and studies for whose end an alert is due (`runs.alerts`)
<store>/alert_failure.json    the last alert that could not be sent
<store>/without_study.json    runs of earlier versions that became no study (`runs.preset_migration`)
<store>/login.salt            32 random bytes for the key of login cookies (`ui.authentication`), for its owner only
<store>/archive/<run>.mlae    archived runs (`runs.archive_file`)
<store>/runs/<run>/lock       held by the run's process while it is alive
<store>/runs/<run>/log.txt    output of the process, with the traceback if it failed
<store>/runs/<run>/heartbeat  time of the last progress (`runs.liveness`)
<store>/runs/<run>/exit_record.json     how the process ended, written in place (`runs.liveness`)
<store>/runs/<run>/pending_events.json  events not written yet because the store was locked (`runs.pending_events`)
<store>/runs/<run>/adapter.safetensors     experts and head as last saved
<store>/runs/<run>/best.safetensors        the adapter of the best evaluation, with the setting keep_best
<store>/runs/<run>/checkpoint.safetensors  the newest checkpoint
<store>/runs/<run>/images.json.gz          which images it is trained and evaluated on (`data.image_record`)
<store>/runs/<run>/location.json              where images and weights are now (`runs.run_location`)
<store>/runs/<run>/start.safetensors       of a branched run: the checkpoint of its parent that it starts from
<store>/runs/<run>/checkpoints/epoch-00004.safetensors   checkpoints after some evaluated epochs
<store>/runs/<run>/probe.lock, probe.json, probe.log     of the process that answers queries (`runs.probe`)
<store>/runs/<run>/answers/<query>-<hash>.json           cached answers of long queries
<store>/runs/<run>/exports/<format>.zip, .json, .log, .lock   exports for other programs (`runs.exporting`)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_RUN_ID = re.compile(r"[a-z2-7]{8}")
_CHECKPOINT = re.compile(r"epoch-(\d{5})\.safetensors")
LAST = "last"
IMAGES = "images.json.gz"


def is_run_id(text: str) -> bool:
    """Whether a text has the form of a run id: eight of a-z and 2-7, so it is safe in a path."""
    return bool(_RUN_ID.fullmatch(text))


def database(store: Path) -> Path:
    return store / "lab.sqlite"


def making(store: Path) -> Path:
    """Locked by the process that creates or migrates a store's tables."""
    return store / "making.lock"


def studies_lock(store: Path) -> Path:
    """Locked by the process that starts, stops or extends a study."""
    return store / "studies.lock"


def supervisor_lock(store: Path) -> Path:
    return store / "supervisor.lock"


def supervisor_log(store: Path) -> Path:
    return store / "supervisor.log"


def watched(store: Path) -> Path:
    """The runs and studies for which an alert is still to be sent."""
    return store / "watched.json"


def throughput_file(store: Path) -> Path:
    """The measurements of `runs.throughput`."""
    return store / "throughput.jsonl"


def alert_failure(store: Path) -> Path:
    """The last alert that could not be sent."""
    return store / "alert_failure.json"


def without_study(store: Path) -> Path:
    """The groups of runs of an earlier version that became no study."""
    return store / "without_study.json"


def login_salt(store: Path) -> Path:
    return store / "login.salt"


def images_of_checkpoint(checkpoint: Path) -> Path:
    """The list of images of the run that a checkpoint belongs to."""
    folder = checkpoint.parent
    return (folder.parent if folder.name == "checkpoints" else folder) / IMAGES


def archive(store: Path) -> Path:
    """The folder of archived runs."""
    return store / "archive"


def archived(store: Path, run: str) -> Path:
    """The file of an archived run."""
    return archive(store) / f"{RunPaths(store, run).run}.mlae"


@dataclass(frozen=True)
class RunPaths:
    """The files of a run. Raises ValueError for a text that is not a run id, which could lead out of the store."""

    store: Path
    run: str

    def __post_init__(self) -> None:
        if not is_run_id(self.run):
            raise ValueError(f"{self.run!r} is not a run id: it must have eight letters a-z or digits 2-7")

    @property
    def folder(self) -> Path:
        return self.store / "runs" / self.run

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def heartbeat(self) -> Path:
        return self.folder / "heartbeat"

    @property
    def exit_record(self) -> Path:
        return self.folder / "exit_record.json"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter.safetensors"

    @property
    def best(self) -> Path:
        """The adapter of the evaluation with the highest accuracy (setting `keep_best`)."""
        return self.folder / "best.safetensors"

    @property
    def images(self) -> Path:
        """Which images the run is trained and evaluated on (`data.image_record`)."""
        return self.folder / IMAGES

    @property
    def location(self) -> Path:
        """Where its images and weights are on this machine (`runs.run_location`)."""
        return self.folder / "location.json"

    @property
    def pending_events(self) -> Path:
        """Events that are not in the store yet (`runs.pending_events`)."""
        return self.folder / "pending_events.json"

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "checkpoint.safetensors"

    @property
    def probe_lock(self) -> Path:
        """Held by the run's probe while it is alive."""
        return self.folder / "probe.lock"

    @property
    def probe_address(self) -> Path:
        return self.folder / "probe.json"

    @property
    def probe_log(self) -> Path:
        return self.folder / "probe.log"

    @property
    def answers(self) -> Path:
        return self.folder / "answers"

    @property
    def exports(self) -> Path:
        """The folder of finished exports (`runs.exporting`)."""
        return self.folder / "exports"

    @property
    def start(self) -> Path:
        return self.folder / "start.safetensors"

    def checkpoint_after(self, epoch: int) -> Path:
        """The checkpoint kept after an epoch."""
        return self.folder / "checkpoints" / f"epoch-{epoch:05d}.safetensors"

    def checkpoints(self) -> dict[str, Path]:
        """The checkpoints of a run by name: "last", then the kept epochs as "1", "2", ..., oldest first."""
        checkpoints = {LAST: self.checkpoint} if self.checkpoint.is_file() else {}
        try:
            names = sorted(path.name for path in (self.folder / "checkpoints").iterdir())
        except OSError:
            names = []
        for name in names:
            if match := _CHECKPOINT.fullmatch(name):
                checkpoints[str(int(match[1]))] = self.folder / "checkpoints" / name
        return checkpoints
