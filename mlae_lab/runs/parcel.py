"""A run as one file that is safe to open from strangers, and runs put away as such files.

A parcel (`.mlae`) is a zip with these members, each at most once, and nothing else:

    run.json                   the run's row (`_header_of`), its config as `RunConfig.to_dict` gives it
    events.jsonl               one event per line: {"kind": ..., "time": ..., "payload": {...}}
    log.txt                    the end of its log
    adapter.safetensors, checkpoint.safetensors      stored plainly, so that a small file stays a small one
    start.safetensors, epoch-00004.safetensors       the same, in the parcel of a run that was put away

Whoever opens one trusts nothing in it: no member's name becomes a path, sizes are limited before and while a member is
read, every value is checked, and folders of another machine are left behind.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import secrets
import shutil
import sqlite3
import stat
import types
import typing
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from pathlib import Path

from mlae_lab import locks
from mlae_lab.core import events as ev
from mlae_lab.core.config import LATER, RunConfig
from mlae_lab.runs import paths
from mlae_lab.runs.paths import RunPaths, is_run_id
from mlae_lab.runs.status import Status
from mlae_lab.runs.store import Run, RunStore, StoreError

FORMAT = 1
SUFFIX = ".mlae"
RUN_BYTES = 1_000_000
EVENTS_BYTES = 500_000_000
LINE_BYTES = 4_000_000  # the similarity of the largest canvas takes 1.3 MB
MAX_EVENTS = 2_000_000
LOG_BYTES = 2_000_000
KEPT_LOG_BYTES = 1_000_000  # of a log's end, when it is exported
TENSORS_BYTES = 2_000_000_000  # per member; below 2 GiB no member needs zip64
TENSORS_HEADER_BYTES = 10_000_000

_HEX, _BASE64 = re.compile("[0-9a-f]*"), re.compile("[A-Za-z0-9+/=]{1,40000}")
_RUN, _EVENTS, _LOG = "run.json", "events.jsonl", "log.txt"
_EPOCH = re.compile(r"epoch-([0-9]{5})\.safetensors")
_CHUNK = 1 << 20
_REASON = 4000  # characters of a stranger's reason
_LAST_TIME = 250_000_000_000  # seconds since 1970, a little before the year 9900
_MOST = 2**53  # whole numbers up to here survive JSON, SQLite and floats
_RELATIONS = ("retry", "duplicate", "paired", "repeat", "race", "continued", "imported")
_HASH = re.compile(r"[0-9a-f]{12}")
_DTYPES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


class ParcelError(ValueError):
    """A file that is no parcel, or one that breaks a rule; its text gives the value, the rule and what would work."""


@dataclass(frozen=True)
class Parcel:
    """What a parcel holds, all of it checked. run: as `import_run` would put it into a store; events: their number;
    skipped: events of a kind that only a newer lab knows; files: its members, name to bytes."""

    run: Run
    events: int
    skipped: int
    files: Mapping[str, int]


@dataclass(frozen=True)
class Archived:
    """A run that was put away. time: when, in seconds since 1970; bytes: of its file; task: of the catalog, or
    `own:<folder>`; trouble: why its file cannot be read, "" where it can; task is then "" and status None."""

    id: str
    time: float
    bytes: int
    task: str = ""
    status: Status | None = None
    trouble: str = ""


# ---------------------------------------------------------------- a run becomes a file


def export(store: RunStore, run_id: str, file: Path) -> int:
    """Write a run that is over as a parcel; it appears whole or not at all. Returns its size in bytes.

    Two exports of the same run have the same bytes. Raises StoreError for a run that is unknown, not over or goes on
    meanwhile, ParcelError where the file cannot be written or the run is larger than a parcel may be.
    """
    run = _ended(store, run_id, "exported")
    files = store.paths(run.id)
    _write(store, run, Path(file), {path.name: path for path in (files.adapter, files.checkpoint)}, {})
    return Path(file).stat().st_size


def _ended(store: RunStore, run_id: str, what: str) -> Run:
    run = store.run(run_id)
    if not run.status.is_over:
        raise StoreError(f"run {run.id} is {run.status.value}: it can be {what} when it is over")
    return run


def _write(store: RunStore, run: Run, file: Path, tensors: Mapping[str, Path], here: Mapping[str, object]) -> int:
    """Write a parcel. here: what concerns this store alone. Returns the number of its events."""
    events = store.events(run.id)
    if len(events) > MAX_EVENTS:
        raise ParcelError(f"run {run.id} has {len(events)} events: a parcel takes at most {MAX_EVENTS}")
    header = _header_of(run) | ({"here": dict(here)} if here else {})
    lines = (
        f'{{"kind":{json.dumps(s.event.kind)},"time":{json.dumps(s.time)},"payload":{ev.to_json(s.event)}}}\n'.encode()
        for s in events
    )
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.part")
    try:
        with partial.open("xb") as raw:
            with zipfile.ZipFile(raw, "w") as packed:
                _add(packed, _RUN, [json.dumps(header, indent=1).encode()])
                _add(packed, _EVENTS, _together(lines))
                for name, path in {_LOG: store.paths(run.id).log, **tensors}.items():
                    with suppress(FileNotFoundError), path.open("rb") as source:
                        if name == _LOG:
                            source.seek(max(0, os.fstat(source.fileno()).st_size - KEPT_LOG_BYTES))
                        _add(packed, name, iter(lambda: source.read(_CHUNK), b""))
            raw.flush()
            os.fsync(raw.fileno())
        _require_same(store, run)
        os.replace(partial, file)
    except OSError as error:
        _require_same(store, run)  # a folder that vanishes under the reader was deleted
        raise ParcelError(
            f"{file} cannot be written ({error.strerror or error}): choose a name in a folder that is there, "
            "may be written and has room"
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink()
    return len(events)


def _header_of(run: Run) -> dict:
    """run.json. config_hash: of the config as it stands there; first_hash: where the row remembers another one,
    because the run came from another machine or an older lab."""
    config_hash = run.config.hash
    header = {
        "format": FORMAT, "id": run.id, "status": run.status.value, "reason": run.reason, "created": run.created,
        "started": run.started, "ended": run.ended, "device": run.device, "parent": run.parent,
        "relation": run.relation, "config_hash": config_hash, "config": run.config.to_dict(),
    }  # fmt: skip
    return header if run.config_hash == config_hash else header | {"first_hash": run.config_hash}


def _add(packed: zipfile.ZipFile, name: str, chunks: Iterable[bytes]) -> None:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    info.compress_type = zipfile.ZIP_STORED if name.endswith(".safetensors") else zipfile.ZIP_DEFLATED
    limit, size = _limit(name), 0
    with packed.open(info, "w") as target:
        for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise ParcelError(
                    f"{name} of the run is larger than {_bytes_text(limit)}, the most that a parcel takes"
                )
            target.write(chunk)


def _together(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in larger pieces: a zip takes its time for each."""
    waiting: list[bytes] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _require_same(store: RunStore, run: Run) -> None:
    if store.run(run.id) != run:
        raise StoreError(f"run {run.id} was changed while it was being written: try again when it is over")


# ---------------------------------------------------------------- a file becomes a run


def inspect(file: Path) -> Parcel:
    """Read all of a parcel and check it; nothing is written. Raises ParcelError."""
    with _opened(file) as packed:
        run, _ = _header(packed)
        for _ in _unpacked(packed, None):
            pass
        told = [found is None for found in _events(packed, run.config)]
        return Parcel(_foreign(run, ""), told.count(False), told.count(True), packed.sizes)


def import_run(store: RunStore, file: Path, owner: str = "") -> Run:
    """Put the run in a parcel into the store, under its own name; its settings lose the folders of another machine.

    owner: a visitor's id, as in `Run`. A run that came from none is "imported". Raises ParcelError for the file,
    StoreError if the run is here already, was put away here, or cannot be written; nothing of it is left then.
    """
    with _opened(file) as packed:
        run, _ = _header(packed)
        if not _is_here(store, run.id) and paths.archived(store.folder, run.id).exists():
            raise StoreError(f"run {run.id} was put away here: `mlae_lab restore {run.id}` brings it back")
        with _arriving(store, run.id) as files:
            _fill(store, files, packed, _foreign(run, owner), run.config)
    return store.run(run.id)


def _foreign(run: Run, owner: str) -> Run:
    """A stranger's run as it may come into a store of ours."""
    weights = run.config.weights.replace("\\", "/").rsplit("/", 1)[-1]
    config = replace(run.config, data="", weights="" if weights in (".", "..") else weights)
    return replace(
        run,
        config=config,
        reason=run.reason[:_REASON],
        owner=owner,
        parent=run.parent if is_run_id(run.parent) else "",
        relation=run.relation if run.relation in _RELATIONS else "imported",
    )


def _fill(store: RunStore, files: RunPaths, packed: _Packed, run: Run, config: RunConfig) -> None:
    """Write a parcel's files, then its row and events: nobody sees a run before all of it is there."""
    for path, chunks in _unpacked(packed, files):
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as target:
            target.writelines(chunks)
    store.insert(run, [found for found in _events(packed, config) if found is not None])


@contextmanager
def _arriving(store: RunStore, run_id: str) -> Iterator[RunPaths]:
    """The empty folder of a run that is about to come into the store, held by its lock; removed if it does not come."""
    files = store.paths(run_id)
    _require_free(store, run_id)
    lock = _taken(files)
    try:
        _require_free(store, run_id)
        for path in files.folder.iterdir():  # left by a process that was killed while it did the same
            if path != files.lock:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield files
    except BaseException as error:
        if not _is_here(store, run_id):
            shutil.rmtree(files.folder, ignore_errors=True)
        if isinstance(error, (OSError, sqlite3.Error)):
            raise StoreError(
                f"run {run_id} could not be written into {store.folder} ({error}): make room there and try again"
            ) from None
        raise
    finally:
        os.close(lock)


def _taken(files: RunPaths) -> int:
    """The run's lock: its process cannot start while it is held, and nobody else puts it away or brings it back."""
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        lock = locks.take(files.lock)
        if lock is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(files.lock)):
                    return lock
            os.close(lock)  # its folder was deleted in between
    except OSError as error:
        raise StoreError(
            f"run {files.run} has no folder that can be written ({error}): make {files.folder.parent} writable"
        ) from None
    raise StoreError(f"somebody else is busy with run {files.run} at this moment: try again when that is over")


def _is_here(store: RunStore, run_id: str) -> bool:
    try:
        store.run(run_id)
    except StoreError:
        return False
    return True


def _require_free(store: RunStore, run_id: str) -> None:
    if _is_here(store, run_id):
        raise StoreError(f"run {run_id} is here already: delete it before you take it in once more")


# ---------------------------------------------------------------- put away and brought back


def archive(store: RunStore, run_id: str) -> Path:
    """Put away a run that is over: a checked parcel takes the place of its row, events and folder.

    Its checkpoints go with it. Raises StoreError if it is not over or its process is still there, ParcelError if it
    cannot be written; the run is then as it was.
    """
    _ended(store, run_id, "put away")
    files = store.paths(run_id)
    file = paths.archived(store.folder, run_id)
    lock = _taken(files)
    try:
        run = _ended(store, run_id, "put away")
        here = {"owner": run.owner, "attempt": run.attempt, "source": run.source, "data_folder": run.data_folder}
        tensors = {path.name: path for path in (files.adapter, files.checkpoint, files.start)}
        tensors |= {path.name: path for name, path in files.checkpoints().items() if name != paths.LAST}
        with suppress(FileExistsError):
            file.parent.mkdir()
        written = _write(store, run, file, tensors, here)
        try:
            if inspect(file).events != written:
                raise ParcelError(f"{file} does not hold every event of run {run.id}: the run stays where it is")
            store.delete(run.id, how="archived")
        except Exception:
            file.unlink(missing_ok=True)
            raise
    finally:
        os.close(lock)
    return file


def restore(store: RunStore, run_id: str) -> Run:
    """Bring back a run that was put away, as it was; its file goes.

    Raises StoreError if it was not put away or is here, ParcelError for a damaged file, which then stays.
    """
    if not is_run_id(run_id):
        raise StoreError(f"{run_id!r} is not the name of a run: it has eight letters a-z or digits 2-7")
    file = paths.archived(store.folder, run_id)
    if not file.is_file() and not _is_here(store, run_id):
        raise StoreError(f"run {run_id} was not put away in {store.folder}: there is no {file.name} in its archive")
    with _arriving(store, run_id) as files, _opened(file) as packed:
        run, here = _header(packed)
        if run.id != run_id:
            raise ParcelError(f"{file} holds run {run.id}, not {run_id}: import it as a file instead")
        _fill(store, files, packed, replace(run, **here), run.config)
        file.unlink()
    return store.run(run_id)


def archived(store: RunStore) -> list[Archived]:
    """The runs that are put away, the latest first; of each only run.json is read."""
    found = []
    for file in paths.archived(store.folder, "a" * 8).parent.glob(f"*{SUFFIX}"):
        if not is_run_id(file.stem) or _is_here(store, file.stem):
            continue
        try:
            about = file.stat()
        except FileNotFoundError:  # brought back in this moment
            continue
        entry = Archived(file.stem, about.st_mtime, about.st_size)
        try:
            with _opened(file) as packed:
                run, _ = _header(packed)
        except ParcelError as error:
            found.append(replace(entry, trouble=str(error)))
        else:
            found.append(replace(entry, task=run.config.task, status=run.status))
    return sorted(found, key=lambda entry: entry.time, reverse=True)


# ---------------------------------------------------------------- the zip, member by member


class _Modest(io.FileIO):
    """A file that gives at most a megabyte at once: a zip that lists millions of members seems cut off."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(_CHUNK if size is None or not 0 <= size <= _CHUNK else size)


@dataclass(frozen=True)
class _Packed:
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
                    chunk = source.read(_CHUNK)
                left -= len(chunk)
                if left < 0 or (left and not chunk):
                    raise ParcelError(f"{member} in {self.name} has another size than it says: ask for the file again")
                if not chunk:
                    return
                yield chunk


@contextmanager
def _opened(file: Path) -> Iterator[_Packed]:
    file = Path(file)
    try:
        raw = _Modest(file)
    except OSError as error:
        raise ParcelError(
            f"{file} cannot be opened ({error.strerror or error}): give a {SUFFIX} file that a lab exported"
        ) from None
    with raw:
        with _damage(file.name):
            packed = zipfile.ZipFile(raw)
        yield _Packed(file.name, packed, _members(packed, file.name))


@contextmanager
def _damage(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a damaged file makes its reader raise almost anything
        said = " ".join(str(error).split())[:80] or type(error).__name__
        raise ParcelError(
            f"{name} is no parcel, or it is cut off or damaged ({said}): give a {SUFFIX} file that a lab exported"
        ) from None


def _members(packed: zipfile.ZipFile, file: str) -> dict[str, zipfile.ZipInfo]:
    """The members by their names, before the first one is read. Raises ParcelError for any that a parcel cannot have."""
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in packed.infolist():
        name = entry.orig_filename  # `filename` ends at a zero byte
        limit = _limit(name)
        plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG) and not entry.external_attr & 0x10
        allowed = (zipfile.ZIP_STORED,) if name.endswith(".safetensors") else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if limit == 0:
            raise ParcelError(
                f"{file} holds {_short(name)}: a parcel holds {_RUN}, {_EVENTS}, {_LOG} and safetensors only"
            )
        if name in found:
            raise ParcelError(f"{file} holds {name} twice: a parcel holds each file once")
        if not plain:
            raise ParcelError(f"{name} in {file} is a link or a folder: a parcel holds plain files only")
        if entry.flag_bits & 0x41:
            raise ParcelError(f"{name} in {file} has a password: a parcel has none")
        if entry.compress_type not in allowed:
            how = "stored" if len(allowed) == 1 else "stored or deflated"
            raise ParcelError(f"{name} in {file} is packed by method {entry.compress_type}: it must be {how}")
        if entry.file_size > limit:
            raise ParcelError(
                f"{name} in {file} has {_bytes_text(entry.file_size)}: at most {_bytes_text(limit)} are taken"
            )
        found[name] = entry
    for name in (_RUN, _EVENTS):
        if name not in found:
            raise ParcelError(f"{file} lacks {name}: give a {SUFFIX} file that a lab exported")
    return found


def _limit(name: str) -> int:
    """The most bytes that a member may have, 0 for a name that no member has."""
    texts = {_RUN: RUN_BYTES, _EVENTS: EVENTS_BYTES, _LOG: LOG_BYTES}
    known = name in ("adapter.safetensors", "checkpoint.safetensors", "start.safetensors") or _EPOCH.fullmatch(name)
    return texts.get(name, TENSORS_BYTES if known else 0)


def _unpacked(packed: _Packed, files: RunPaths | None) -> Iterator[tuple[Path, Iterable[bytes]]]:
    """Log and tensors: where each belongs in a run's folder, and its bytes, checked as they are taken. files: None to
    check them only."""
    for name, size in packed.sizes.items():
        if name in (_RUN, _EVENTS):
            continue
        chunks = packed.chunks(name)
        checked = chunks if name == _LOG else _tensors(name, size, chunks)
        if files is None:
            for _ in checked:
                pass
        else:
            yield _place(files, name), checked


def _place(files: RunPaths, name: str) -> Path:
    if epoch := _EPOCH.fullmatch(name):
        return files.checkpoint_after(int(epoch[1]))
    own = {path.name: path for path in (files.log, files.adapter, files.checkpoint, files.start)}
    return own[name]


# ---------------------------------------------------------------- safetensors


def _tensors(name: str, size: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a safetensors file of that size; nothing is passed on before its header is checked."""
    start: bytes | None = b""
    for chunk in chunks:
        if start is None:
            yield chunk
            continue
        start += chunk
        length = int.from_bytes(start[:8], "little")
        if size < 8 or (len(start) >= 8 and length > min(TENSORS_HEADER_BYTES, size - 8)):
            break
        if len(start) >= 8 + length:
            trouble = tensors_trouble(start[8 : 8 + length], size - 8 - length)
            if trouble:
                raise ParcelError(f"{name} is not a safetensors file: {trouble}")
            yield start
            start = None
    if start is not None:
        raise ParcelError(f"{name} is not a safetensors file: its first eight bytes do not give the length of a header")


def tensors_trouble(header: bytes, size: int) -> str:
    """What is wrong with the header of a safetensors file, "" if nothing is. size: of the data behind it, in bytes."""
    try:
        told = json.loads(header.decode())
    except (ValueError, RecursionError):
        return "its header is not JSON"
    if not isinstance(told, dict):
        return "its header is not a JSON object"
    notes = told.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        return "its __metadata__ is not an object of texts"
    spans = []
    for name, about in told.items():
        if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
            return f"{_short(name)} does not have dtype, shape and data_offsets"
        dtype, shape, span = about["dtype"], about["shape"], about["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            return f"{_short(name)} has the unknown dtype {_short(dtype)}"
        if not _are_counts(shape) or len(shape) > 64 or not _are_counts(span) or len(span) != 2:
            return f"shape and data_offsets of {_short(name)} are not lists of whole numbers"
        if span[1] - span[0] != math.prod(shape) * _DTYPES[dtype]:
            return f"{_short(name)} has {span[1] - span[0]} bytes, which is not what its shape {_short(shape)} takes"
        spans.append(tuple(span))
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            return f"its tensors leave a gap or overlap at byte {end}"
        end = stop
    return "" if end == size else f"its tensors take {end} bytes and {size} are there"


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MOST for n in value)


# ---------------------------------------------------------------- run.json


def _header(packed: _Packed) -> tuple[Run, dict]:
    """The run as its first store had it, and what concerned that store alone, {} in an export."""
    try:
        told = json.loads(b"".join(packed.chunks(_RUN)).decode())
        json.dumps(told, ensure_ascii=False).encode()  # half a surrogate pair fits into no database and on no page
    except ParcelError:
        raise
    except (ValueError, RecursionError) as error:
        raise ParcelError(f"{_RUN} in {packed.name} is not JSON ({str(error)[:80]}): ask for the file again") from None
    if not isinstance(told, dict):
        raise ParcelError(f"{_RUN} in {packed.name} is not a JSON object: ask for the file again")
    number = told.get("format")
    if type(number) is int and number > FORMAT:
        raise ParcelError(
            f"{packed.name} was written by a newer lab (format {number}, this one reads {FORMAT}): update this lab"
        )
    _require(number == FORMAT and type(number) is int, "format", number, f"{FORMAT}")
    name, status, device = told.get("id"), told.get("status"), told.get("device")
    _require(isinstance(name, str) and is_run_id(name), "id", name, "eight letters a-z or digits 2-7")
    ends = [s.value for s in Status if s.is_over]
    _require(status in ends, "status", status, f"an end, one of {', '.join(ends)}")
    _require(device in ("cpu", "cuda"), "device", device, "cpu or cuda")
    for key in ("reason", "parent", "relation"):
        _require(isinstance(told.get(key), str), key, told.get(key), "a text")
    for key in ("created", "started", "ended"):
        value = told.get(key)
        missing = value is None and key in told and key != "created"
        seconds = type(value) in (int, float) and 0 <= value <= _LAST_TIME
        _require(missing or seconds, key, value, "a time in seconds since 1970")
    run = Run(
        name, told["created"], _config(told), told.get("first_hash", told["config_hash"]), Status(status), told["reason"],
        device, None, told["started"], told["ended"], parent=told["parent"], relation=told["relation"],
    )  # fmt: skip
    here = told.get("here", {})
    kinds = {"owner": str, "attempt": int, "source": str, "data_folder": str}
    fits = isinstance(here, dict) and all(type(here.get(key, kind())) is kind for key, kind in kinds.items())
    _require(fits and 0 <= here.get("attempt", 0) <= _MOST, "here", here, "owner, attempt, source and data_folder")
    return run, {key: here[key] for key in kinds if key in here}


def _config(told: Mapping) -> RunConfig:
    given = told.get("config")
    try:
        config = RunConfig.from_dict(given)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ParcelError(f"the settings in {_RUN} cannot be used here: {said}") from None
    for key in ("config_hash", "first_hash"):
        value = told.get(key, told.get("config_hash"))
        _require(isinstance(value, str) and _HASH.fullmatch(value), key, value, "twelve hex digits")
    named = set(given) | set(LATER)  # these are in no hash where they are the default
    complete = named == {field.name for field in fields(RunConfig)}  # an older lab had fewer, and other hashes
    if complete and config.hash != told["config_hash"]:
        raise ParcelError(
            f"{_RUN} was changed after it was exported: its settings have the hash {config.hash} and it says "
            f"{told['config_hash']}; ask for the file again"
        )
    return config


def _require(fits: object, key: str, value: object, rule: str) -> None:
    if not fits:
        raise ParcelError(f"{_RUN} says that {key} is {_short(value)}: it must be {rule}")


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _bytes_text(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


# ---------------------------------------------------------------- events.jsonl


def _events(packed: _Packed, config: RunConfig) -> Iterator[tuple[float, ev.Event] | None]:
    """(time, event) for every line, None for one of a kind that this lab does not know."""
    for number, line in enumerate(_lines(packed.chunks(_EVENTS)), 1):
        if number > MAX_EVENTS:
            raise ParcelError(f"{_EVENTS} in {packed.name} has more than {MAX_EVENTS} lines, the most that are taken")
        try:
            yield _event(line, config)
        except (ValueError, RecursionError) as error:
            raise ParcelError(f"line {number} of {_EVENTS} cannot be taken: {str(error)[:300]}") from None


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > LINE_BYTES:
            raise ParcelError(f"a line of {_EVENTS} is longer than {_bytes_text(LINE_BYTES)}, the most that is taken")
    if rest:
        yield rest


def _event(line: bytes, config: RunConfig) -> tuple[float, ev.Event] | None:
    told = json.loads(line.decode())
    if not isinstance(told, dict) or set(told) != {"kind", "time", "payload"}:
        raise ValueError("it must be a JSON object with kind, time and payload")
    kind, at, payload = told["kind"], told["time"], told["payload"]
    if not isinstance(kind, str):
        raise ValueError(f"kind is {_short(kind)} and must be a text")
    if type(at) not in (int, float) or not 0 <= at <= _LAST_TIME:
        raise ValueError(f"time is {_short(at)} and must be in seconds since 1970")
    if kind not in ev.KINDS:
        return None
    known, needed = _fields(kind)
    if not isinstance(payload, dict) or not needed <= set(payload) <= set(known):
        raise ValueError(f"the payload of {kind} must have {', '.join(known)} and nothing else")
    values = {}
    for name, value in payload.items():
        try:
            values[name] = known[name](value)
        except ValueError as error:
            raise ValueError(f"{name} of {kind} holds {error}") from None
    event = ev.KINDS[kind](**values)
    _require_on_canvas(event, config)
    return at, event


def _require_on_canvas(event: ev.Event, config: RunConfig) -> None:
    """What is drawn on the plan's canvas must have its size."""
    plan = config.plan
    if isinstance(event, ev.ExpertStats):
        canvases = (event.share_drawn, event.contribution, event.coefficient, event.gradient)
        fits = all(len(c) == plan.rows and all(len(row) == plan.columns for row in c) for c in canvases)
    elif isinstance(event, ev.SimilarityStats):
        sides = tuple(len(m) if all(len(row) == len(m) for row in m) else -1 for m in event.matrices)
        ranks = all(len(ranks) in (0, plan.rows) for ranks in (event.effective_rank, event.stable_rank))
        fits = sides == plan.kept and len(event.signed) == len(event.absolute) == plan.rows and ranks
    elif isinstance(event, ev.TrainStep):
        fits = (
            not event.mask
            or bool(_HEX.fullmatch(event.mask))
            and len(event.mask) == 2 * -(-plan.rows * plan.columns // 8)
        )
    elif isinstance(event, ev.Watched):
        if not len(event.truth) == len(event.pictures) <= 48 or not all(map(_BASE64.fullmatch, event.pictures)):
            raise ValueError(
                "watched must hold at most 48 pictures in base64 of at most 40,000 letters, one for each truth"
            )
        return
    elif isinstance(event, ev.Guesses):
        if len(event.guess) != len(event.confidence):
            raise ValueError("guesses must have one confidence for each guess")
        return
    else:
        return
    if not fits:
        raise ValueError(f"{event.kind} does not have the size of the plan, {plan.rows} x {plan.columns}")


_Read = Callable[[object], object]


@cache
def _fields(kind: str) -> tuple[dict[str, _Read], set[str]]:
    """How each field of an event is read from JSON, and the fields that must be there."""
    of = ev.KINDS[kind]
    types_ = typing.get_type_hints(of)
    return {f.name: _reader(types_[f.name]) for f in fields(of)}, {f.name for f in fields(of) if f.default is MISSING}


def _reader(of: object) -> _Read:
    """Reads one JSON value of a type of `core.events`; the result raises ValueError for any other."""
    arguments = typing.get_args(of)
    if of is int:
        return _whole
    if of is float:
        return _number
    if of is str:
        return _text
    if typing.get_origin(of) is tuple:
        each = _reader(arguments[0])
        return lambda value: tuple(map(each, _list(value)))
    if typing.get_origin(of) in (types.UnionType, typing.Union):
        some = _reader(next(a for a in arguments if a is not types.NoneType))
        return lambda value: None if value is None else some(value)
    raise TypeError(f"no rule reads {of}")


def _whole(value: object) -> object:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError(f"{_short(value)} and must be a whole number from 0 to 2**53")
    return value


def _number(value: object) -> object:
    if type(value) is not float and not (type(value) is int and -_MOST <= value <= _MOST):
        raise ValueError(f"{_short(value)} and must be a number")
    return value


def _text(value: object) -> object:
    if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{_short(value)} and must be a text")
    return value


def _list(value: object) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{_short(value)} and must be a list")
    return value
