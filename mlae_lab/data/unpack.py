"""Unpack a downloaded archive into a folder that no entry can leave.

Only plain files and folders are accepted: an archive with absolute names, names with `..`, links, devices or passwords
is refused as a whole, because no dataset needs them.
"""

from __future__ import annotations

import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from mlae_lab.core.hosts import Unpack
from mlae_lab.core.units import format_bytes
from mlae_lab.data.download import is_page
from mlae_lab.data.progress import CorruptFile, FetchError, Meter

_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


def unpack(archive: Path, how: Unpack, into: Path, meter: Meter, name: str = "") -> None:
    """Write everything in a zip or tar archive (any compression that Python reads) below `into`.

    After an exception `into` is incomplete and must be deleted.

    Args:
        archive: the file.
        how: "zip" or "tar".
        into: the target folder.
        meter: counts bytes; may raise Cancelled.
        name: of the archive in error messages, by default the file's name.

    Raises:
        CorruptFile: the file is not such an archive, is damaged or has an entry that would leave `into`.
        FetchError: the disk has too little space.
        OSError: a file cannot be written.
    """
    name = name or archive.name
    if is_page(archive):
        raise CorruptFile(f"{name} is a web page, not a {how} archive")
    try:
        into.mkdir(parents=True, exist_ok=True)
        _zip(archive, into, meter, name) if how == "zip" else _tar(archive, into, meter, name)
    except _DAMAGE as error:
        with archive.open("rb") as file:
            start = file.read(4)
        is_archive = start == b"PK\x03\x04" if how == "zip" else _is_tar(archive)
        what = "is truncated or damaged" if is_archive else f"is not a {how} archive"
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise CorruptFile(f"{name} {what} ({reason})") from None


def _zip(archive: Path, into: Path, meter: Meter, name: str) -> None:
    with zipfile.ZipFile(archive) as packed:
        entries = packed.infolist()
        for entry in entries:  # all are checked before the first byte is written
            _require_inside(entry.filename, name)
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(name, entry.filename, "is a link or a device")
            if entry.flag_bits & 1:
                raise _refused(name, entry.filename, "has a password")
        total = sum(entry.file_size for entry in entries)
        free = shutil.disk_usage(into).free
        if total > free:
            raise FetchError(
                f"{name} unpacks to {format_bytes(total)} and {into.parent} has {format_bytes(free)} free: free some "
                f"space there or choose another folder with --into"
            )
        meter.start("unpacking", name, 0, total)
        for entry in entries:
            if entry.is_dir():
                (into / entry.filename).mkdir(parents=True, exist_ok=True)
                continue
            with packed.open(entry) as source:  # the last read compares the entry's CRC
                _write(source, into / entry.filename, meter, count=True)


def _tar(archive: Path, into: Path, meter: Meter, name: str) -> None:
    with archive.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as packed:
        meter.start("unpacking", name, 0, archive.stat().st_size)
        for member in packed:
            _require_inside(member.name, name)
            if not (member.isreg() or member.isdir()):
                raise _refused(name, member.name, "is a link or a device")
            if hasattr(tarfile, "data_filter"):  # Python's own check, from 3.10.12 and 3.11.4 on
                try:
                    tarfile.data_filter(member, str(into))
                except tarfile.FilterError as error:
                    raise _refused(name, member.name, f"is refused by Python ({type(error).__name__})") from None
            if member.isdir():
                (into / member.name).mkdir(parents=True, exist_ok=True)
                continue
            source = packed.extractfile(member)
            if source is not None:
                _write(source, into / member.name, meter)
            meter.set(raw.tell())


def _is_tar(archive: Path) -> bool:
    """Whether at least the beginning of the file can be read as a tar archive."""
    try:
        with tarfile.open(archive, "r:*"):
            return True
    except (*_DAMAGE, OSError):
        return False


def _require_inside(entry: str, archive: str) -> None:
    plain = entry.replace("\\", "/")
    path = PurePosixPath(plain)
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", plain) or "\0" in plain:
        raise _refused(archive, entry, "would leave the folder")


def _refused(archive: str, entry: str, why: str) -> CorruptFile:
    return CorruptFile(f"{archive} is refused because its entry {entry[:80]!r} {why}")


def _write(source: IO[bytes], path: Path, meter: Meter, count: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as target:
        while chunk := source.read(1 << 20):
            target.write(chunk)
            meter.add(len(chunk) if count else 0)
