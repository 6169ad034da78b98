"""The zip of a parcel, member by member: which there may be, how large, and how they are read without trusting them."""

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

FORMAT = 1
SUFFIX = ".mlae"
RUN_BYTES = 1_000_000
EVENTS_BYTES = 500_000_000
LOG_BYTES = 2_000_000
MAX_EVENTS = 2_000_000
MAX_PACKED = 200  # the events of a run pack to a tenth or a twentieth of their size
TENSORS_BYTES = 2_000_000_000  # per member; below 2 GiB no member needs zip64
RUN, EVENTS, LOG = "run.json", "events.jsonl", "log.txt"
EPOCH = re.compile(r"epoch-([0-9]{5})\.safetensors")
CHUNK = 1 << 20


class ArchiveError(LabError):
    """A file that is no parcel, or one that breaks a rule; its text gives the value, the rule and what would work."""


class _Modest(io.FileIO):
    """A file that gives at most a megabyte at once: a zip that lists millions of members seems cut off."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(CHUNK if size is None or not 0 <= size <= CHUNK else size)


@dataclass(frozen=True)
class Packed:
    """An open parcel whose list of members is checked."""

    name: str
    zip: zipfile.ZipFile
    members: Mapping[str, zipfile.ZipInfo]

    @property
    def sizes(self) -> dict[str, int]:
        return {name: entry.file_size for name, entry in self.members.items()}

    def chunks(self, member: str) -> Iterator[bytes]:
        """A member's bytes, exactly as many as it said; the last read compares its checksum."""
        left = self.members[member].file_size
        with _damage(self.name):
            source = self.zip.open(self.members[member])
        with source:
            while True:
                with _damage(self.name):
                    chunk = source.read(CHUNK)
                left -= len(chunk)
                if left < 0 or (left and not chunk):
                    raise ArchiveError(f"{member} in {self.name} has another size than it says: ask for the file again")
                if not chunk:
                    return
                yield chunk


@contextmanager
def opened(file: Path) -> Iterator[Packed]:
    """A parcel whose list of members is checked. Raises ParcelError."""
    file = Path(file)
    try:
        raw = _Modest(file)
    except OSError as error:
        raise ArchiveError(
            f"{file} cannot be opened ({error.strerror or error}): give a {SUFFIX} file that a lab exported"
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
        said = " ".join(str(error).split())[:80] or type(error).__name__
        raise ArchiveError(
            f"{name} is no parcel, or it is cut off or damaged ({said}): give a {SUFFIX} file that a lab exported"
        ) from None


def _members(packed: zipfile.ZipFile, file: str) -> dict[str, zipfile.ZipInfo]:
    """The members by their names, before the first one is read. Raises ParcelError for any that a parcel cannot have."""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in packed.infolist():
        name = entry.orig_filename  # `filename` ends at a zero byte
        most = limit(name)
        plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG) and not entry.external_attr & 0x10
        allowed = (zipfile.ZIP_STORED,) if name.endswith(".safetensors") else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if most == 0:
            raise ArchiveError(
                f"{file} holds {short(name)}: a parcel holds {RUN}, {EVENTS}, {LOG} and safetensors only"
            )
        if name in found:
            raise ArchiveError(f"{file} holds {name} twice: a parcel holds each file once")
        if not plain:
            raise ArchiveError(f"{name} in {file} is a link or a folder: a parcel holds plain files only")
        if entry.flag_bits & 0x41:
            raise ArchiveError(f"{name} in {file} has a password: a parcel has none")
        if entry.compress_type not in allowed:
            how = "stored" if len(allowed) == 1 else "stored or deflated"
            raise ArchiveError(f"{name} in {file} is packed by method {entry.compress_type}: it must be {how}")
        if entry.file_size > most:
            raise ArchiveError(
                f"{name} in {file} has {format_bytes(entry.file_size)}: at most {format_bytes(most)} are taken"
            )
        if entry.file_size > max(CHUNK, MAX_PACKED * entry.compress_size):
            raise ArchiveError(
                f"{name} in {file} unpacks to {entry.file_size // max(1, entry.compress_size)} times its size: what a lab "
                f"exports does so at most {MAX_PACKED} times"
            )
        found[name] = entry
    for name in (RUN, EVENTS):
        if name not in found:
            raise ArchiveError(f"{file} lacks {name}: give a {SUFFIX} file that a lab exported")
    return found


def limit(name: str) -> int:
    """The most bytes that a member may have, 0 for a name that no member has."""
    texts = {RUN: RUN_BYTES, EVENTS: EVENTS_BYTES, LOG: LOG_BYTES}
    known = name in ("adapter.safetensors", "checkpoint.safetensors", "start.safetensors") or EPOCH.fullmatch(name)
    return texts.get(name, TENSORS_BYTES if known else 0)


def short(value: object) -> str:
    """A stranger's value as a sentence can hold it."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
