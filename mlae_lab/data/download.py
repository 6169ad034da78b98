"""Bring one file of the Hub here: resumable, watched, stopped within a moment, checked.

`hf_hub_download` does not do: since 2.0 it gives its partial file a new name each time and deletes it on any
failure, so 4.66 GB would begin anew; 0.27 resumes but asks nobody whether it should stop, and hf_xet neither.
So the bytes are asked for here, with the library's own address, headers and session (`data.hub`), by Range.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

from mlae_lab.core.hosts import Remote, RemoteFile
from mlae_lab.core.units import format_bytes
from mlae_lab.data import hub
from mlae_lab.data.progress import FetchError, Interrupted, Meter

PAUSES = (1.0, 3.0, 10.0)  # seconds before each new try after an interruption
_ENOUGH = 8_000_000  # bytes after which an interruption counts as the first again
_TICK = 0.1
_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)", re.IGNORECASE | re.DOTALL)


def download(remote: Remote, file: RemoteFile, located: hub.Located, folder: Path, meter: Meter) -> Path:
    """The complete, checked file in `folder`; a partial one from an earlier time is gone on with.

    located: as just told by the host; asked for again after an interruption, since its address is valid for minutes.
    meter: has its phase started; counts the bytes as they come, those already here included.
    Raises FetchError, Cancelled, and OSError for the disk; all leave what is here for the next time, unless it is
    worth nothing.
    """
    partial = partial_file(folder, file, located)
    tries, gained, known = 0, 0, True
    while True:
        before = _size(partial)
        try:
            if not known:
                located = ask(lambda: hub.locate(remote, file), remote, meter)
                if partial_file(folder, file, located) != partial:
                    raise FetchError(f"{file.path} has changed on the host meanwhile: the same command begins anew")
            known = True
            _receive(remote, file, located, partial, meter)
            break
        except Interrupted:
            gained += _size(partial) - before
            if gained > _ENOUGH:
                tries, gained = 0, 0
            # A host that gave nothing at all will not in three seconds: say so at once.
            elif tries == len(PAUSES) or (tries == 0 and gained <= 0):
                raise
        _pause(PAUSES[tries], meter)
        tries, known = tries + 1, False
    _check(file, located.etag, partial, meter)
    return partial


def partial_file(folder: Path, file: RemoteFile, located: hub.Located) -> Path:
    """Where a file's bytes gather. The host's mark is in the name, so bytes of two versions are never mixed."""
    mark = re.sub(r"[^0-9A-Za-z]", "", located.etag or "")[:16] or f"size{located.size}"
    return folder / f"{file.path.replace('/', '__')}.{mark}.partial"


def missing_bytes(folder: Path, file: RemoteFile, located: hub.Located) -> int:
    """Bytes still to come."""
    return max(0, (located.size or file.size_bytes or 0) - _size(partial_file(folder, file, located)))


def ask(question: Callable[[], Any], remote: Remote, meter: Meter) -> Any:
    """The library's answer to a question; Cancelled within a moment, FetchError with a sentence for a refusal."""
    with closing(_background(lambda: iter((question(),)))) as answers:
        for answer in _watched(answers, remote, meter):
            return answer


def _receive(remote: Remote, file: RemoteFile, located: hub.Located, partial: Path, meter: Meter) -> None:
    """Append what is missing. Raises Interrupted if the bytes end too early."""
    have = _size(partial)
    if located.size is not None and have > located.size:
        meter.add(-have)
        partial.unlink()
        have = 0
    if located.size is not None and have == located.size > 0:
        return  # a range that begins at the end would be refused

    def bytes_of_it() -> Iterator[tuple[int, str, bytes]]:
        with hub.opened(located, have) as body:
            start = have if body.status == 206 else 0
            begins = re.match(r"bytes (\d+)-", body.headers.get("Content-Range", ""))
            if start and begins and int(begins[1]) != have:
                raise FetchError(f"the host sent {file.path} from another place than asked: try again later")
            for chunk in body.chunks:
                yield start, body.headers.get("Content-Type", ""), chunk

    with partial.open("ab") as target, closing(_background(bytes_of_it)) as chunks:
        first = True
        for start, kind, chunk in _watched(chunks, remote, meter):
            if first and start == 0:
                if have:  # the host ignores ranges and begins anew
                    target.truncate(0)
                    meter.add(-have)
                    have = 0
                if _PAGE.match(chunk[:2000]) or kind.startswith("text/html"):
                    partial.unlink()
                    raise FetchError(_page_sentence(file.path))
            first = False
            target.write(chunk)
            have += len(chunk)
            meter.add(len(chunk))
    if located.size is not None and have < located.size:
        raise Interrupted(
            f"{file.path} broke off after {format_bytes(have)} of {format_bytes(located.size)}: "
            f"the same command goes on where it stopped"
        )
    if located.size is not None and have > located.size:
        partial.unlink()
        raise FetchError(
            f"{file.path} is longer than the {format_bytes(located.size)} that the host said: it was deleted, try again"
        )


def _page_sentence(name: str) -> str:
    return (
        f"instead of {name} came a web page: a network that wants a login or a wrong HF_ENDPOINT does this, "
        f"open a page in a browser and try again"
    )


def is_page(path: Path) -> bool:
    """Whether a file is a web page by its beginning."""
    with path.open("rb") as file:
        return bool(_PAGE.match(file.read(2000)))


def _check(file: RemoteFile, etag: str | None, path: Path, meter: Meter) -> None:
    """Compare the checksum, if one is known: the host's SHA-256 (its mark of a large file), else the table's."""
    if etag and re.fullmatch(r"[0-9a-f]{64}", etag):
        name, wanted = "sha256", etag
    elif file.sha256:
        name, wanted = "sha256", file.sha256
    elif file.md5:
        name, wanted = "md5", file.md5
    else:
        return
    done, total = meter.done, meter.total
    meter.start("checking", file.path, 0, path.stat().st_size)
    digest = hashlib.new(name, usedforsecurity=False)
    with path.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            meter.add(len(chunk))
    if digest.hexdigest() != wanted:
        path.unlink()
        raise FetchError(
            f"{file.path} is damaged: its {name} begins with {digest.hexdigest()[:12]} and not {wanted[:12]}; "
            f"it was deleted, the same command fetches it anew"
        )
    meter.start("downloading", file.path, done, total)


# ---------------------------------------------------------------- waiting without being deaf


def _background(make: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """The items of an iterator that another thread runs, and None ten times a second while there is none.

    A read of a silent connection cannot be broken off from outside, only left behind: the thread is a daemon,
    ends at the library's timeout at the latest and then closes its connection.
    """
    items: Queue[tuple[str, Any]] = Queue(8)
    gone = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not gone.is_set():
            try:
                return items.put((kind, value), timeout=_TICK)
            except Full:
                continue

    def work() -> None:
        try:
            with closing(_as_generator(make())) as values:
                for value in values:
                    put("item", value)
                    if gone.is_set():
                        return
            put("end", None)
        except BaseException as error:
            put("error", error)

    threading.Thread(target=work, daemon=True, name="fetch").start()
    try:
        while True:
            try:
                kind, value = items.get(timeout=_TICK)
            except Empty:
                yield None
                continue
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        gone.set()


def _as_generator(values: Iterator[Any]) -> Iterator[Any]:
    yield from values


def _watched(items: Iterator[Any], remote: Remote, meter: Meter) -> Iterator[Any]:
    """The items without the Nones, with the meter's clock running and the library's exceptions as sentences."""
    while True:
        meter.tick()
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:
            raise hub.refusal(error, remote) from None
        if item is not None:
            yield item


def _pause(seconds: float, meter: Meter) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        meter.tick()
        time.sleep(_TICK)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
