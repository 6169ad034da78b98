"""The zip of an archive file: which members it may have, their size limits, and how untrusted members are read."""

from __future__ import annotations

import io
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlae_lab.core.units import format_bytes
from mlae_lab.errors import LabError
from mlae_lab.files import regular_opener
from mlae_lab.runs.paths import IMAGES

FORMAT = 2
OLD_FORMAT = 1  # of version 0.5: events, their fields, a relation and labels of images have other names
SUFFIX = ".mlae"
RUN_BYTES = 1_000_000
EVENTS_BYTES = 500_000_000
LOG_BYTES = 2_000_000
IMAGES_BYTES = 20_000_000  # gzipped; a million images take 10 to 20 MB
MAX_EVENTS = 2_000_000
MAX_PACKED = 200  # compression ratio; that of a run's events is 10 to 20
TENSORS_BYTES = 2_000_000_000  # per member; below 2 GiB no member needs zip64
RUN, EVENTS, LOG = "run.json", "events.jsonl", "log.txt"
EPOCH = re.compile(r"epoch-([0-9]{5})\.safetensors")
CHUNK = 1 << 20


class ArchiveError(LabError):
    """A file that is not an archive file, or that breaks a rule."""


class _LimitedReads(io.FileIO):
    """A file that returns at most a megabyte at once: a zip that lists millions of members seems truncated."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(CHUNK if size is None or not 0 <= size <= CHUNK else size)


@dataclass(frozen=True)
class Packed:
    """An open archive file whose list of members is checked."""

    name: str
    zip: zipfile.ZipFile
    members: Mapping[str, zipfile.ZipInfo]

    @property
    def sizes(self) -> dict[str, int]:
        return {name: entry.file_size for name, entry in self.members.items()}

    def chunks(self, member: str) -> Iterator[bytes]:
        """A member's bytes, exactly as many as it declares; the last read compares its checksum."""
        left = self.members[member].file_size
        with _damage(self.name):
            source = self.zip.open(self.members[member])
        with source:
            while True:
                with _damage(self.name):
                    chunk = source.read(CHUNK)
                left -= len(chunk)
                if left < 0 or (left and not chunk):
                    raise ArchiveError(
                        f"{member} in {self.name} does not have the size that it declares: request the file again"
                    )
                if not chunk:
                    return
                yield chunk


@contextmanager
def opened(file: Path) -> Iterator[Packed]:
    """Open an archive file and check its list of members. Raises ArchiveError."""
    file = Path(file)
    try:
        raw = _LimitedReads(file, opener=regular_opener)
    except OSError as error:
        raise ArchiveError(
            f"{file} cannot be opened ({error.strerror or error}): choose a {SUFFIX} file that MLAE Lab exported"
        ) from None
    with raw:
        with _damage(file.name):
            packed = zipfile.ZipFile(raw)
        yield Packed(file.name, packed, _members(packed, file.name))


@contextmanager
def _damage(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause = " ".join(str(error).split())[:80] or type(error).__name__
        raise ArchiveError(
            f"{name} is not an archive file, or it is truncated or damaged ({cause}): choose a {SUFFIX} file that MLAE "
            "Lab exported"
        ) from None


_TENSORS = ("adapter.safetensors", "best.safetensors", "checkpoint.safetensors", "start.safetensors")


def _members(packed: zipfile.ZipFile, file: str) -> dict[str, zipfile.ZipInfo]:
    """The members by name, before the first one is read. Raises ArchiveError for any that is not allowed."""
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in packed.infolist():
        name = entry.orig_filename  # `filename` ends at a zero byte
        most = limit(name)
        plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG) and not entry.external_attr & 0x10
        allowed = (zipfile.ZIP_STORED,) if is_stored(name) else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if most == 0:
            raise ArchiveError(
                f"{file} contains {short(name)}: only {RUN}, {EVENTS}, {LOG}, {IMAGES} and safetensors files are "
                "allowed"
            )
        if name in members:
            raise ArchiveError(f"{file} contains {name} twice: each member is allowed once")
        if not plain:
            raise ArchiveError(f"{name} in {file} is a link or a folder: only regular files are allowed")
        if entry.flag_bits & 0x41:
            raise ArchiveError(f"{name} in {file} is encrypted: archive files have no password")
        if entry.compress_type not in allowed:
            how = "stored" if len(allowed) == 1 else "stored or deflated"
            raise ArchiveError(f"{name} in {file} has the compression method {entry.compress_type}: it must be {how}")
        if entry.file_size > most:
            raise ArchiveError(
                f"{name} in {file} has {format_bytes(entry.file_size)}: at most {format_bytes(most)} are allowed"
            )
        if entry.file_size > max(CHUNK, MAX_PACKED * entry.compress_size):
            raise ArchiveError(
                f"{name} in {file} expands to {entry.file_size // max(1, entry.compress_size)} times its compressed "
                f"size: at most {MAX_PACKED} times are allowed"
            )
        members[name] = entry
    for name in (RUN, EVENTS):
        if name not in members:
            raise ArchiveError(f"{file} has no {name}: choose a {SUFFIX} file that MLAE Lab exported")
    return members


def limit(name: str) -> int:
    """The most bytes that a member of this name may have, 0 for a name that is not allowed."""
    limits = {RUN: RUN_BYTES, EVENTS: EVENTS_BYTES, LOG: LOG_BYTES, IMAGES: IMAGES_BYTES}
    tensors = name in _TENSORS or EPOCH.fullmatch(name)
    return limits.get(name, TENSORS_BYTES if tensors else 0)


def is_stored(name: str) -> bool:
    """Whether a member of this name is not compressed in the zip, so that no small file expands to a large one."""
    return name.endswith((".safetensors", ".gz"))


def short(value: object) -> str:
    """An untrusted value in ASCII, at most 60 characters, for an error message."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
