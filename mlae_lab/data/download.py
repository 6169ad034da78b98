"""Download one file from the Hub: resumable, with progress, stoppable within a moment, and checked.

`hf_hub_download` is not used: since 2.0 it gives its partial file a new name each time and deletes it on any
failure, so 4.66 GB would start again; 0.27 resumes but cannot be stopped, and neither can hf_xet. So the bytes are
requested here by Range, with the library's own URL, headers and session (`data.hub`).
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

from mlae_lab.core.failed_download import is_web_page
from mlae_lab.core.hosts import Remote, RemoteFile
from mlae_lab.core.units import format_bytes
from mlae_lab.data import hub
from mlae_lab.data.progress import FetchError, Interrupted, Meter

PAUSES = (1.0, 3.0, 10.0)  # seconds before each retry after an interruption
_ENOUGH = 8_000_000  # bytes after which an interruption counts as the first one again
_TICK = 0.1


def download(remote: Remote, file: RemoteFile, located: hub.Located, folder: Path, meter: Meter) -> Path:
    """Download a file into `folder` and check it; a partial file of an earlier attempt is continued.

    After an exception the partial file is kept for the next attempt, unless it is corrupt.

    Args:
        remote: that the file belongs to.
        file: to download.
        located: the host's latest answer; requested again after an interruption, as its URL is valid for minutes.
        folder: for the partial file.
        meter: with its phase started; counts the bytes as they arrive, those of earlier attempts included.

    Returns:
        The complete file.

    Raises:
        FetchError: the download failed.
        Cancelled: the meter was asked to stop.
        OSError: the disk failed.
    """
    partial = partial_file(folder, file, located)
    tries, gained, is_current = 0, 0, True
    while True:
        before = _size(partial)
        try:
            if not is_current:
                located = request(lambda: hub.locate(remote, file), remote, meter)
                if partial_file(folder, file, located) != partial:
                    raise FetchError(f"{file.path} has changed on the host: run the same command to start again")
            is_current = True
            _receive(remote, file, located, partial, meter)
            break
        except Interrupted:
            gained += _size(partial) - before
            if gained > _ENOUGH:
                tries, gained = 0, 0
            # A host that sent nothing at all will not do so in three seconds: report it at once.
            elif tries == len(PAUSES) or (tries == 0 and gained <= 0):
                raise
        _pause(PAUSES[tries], meter)
        tries, is_current = tries + 1, False
    _check(file, located.etag, partial, meter)
    return partial


def partial_file(folder: Path, file: RemoteFile, located: hub.Located) -> Path:
    """Where a file is downloaded to. The host's ETag is in the name, so bytes of two versions are never mixed."""
    version = re.sub(r"[^0-9A-Za-z]", "", located.etag or "")[:16] or f"size{located.size}"
    return folder / f"{file.path.replace('/', '__')}.{version}.partial"


def missing_bytes(folder: Path, file: RemoteFile, located: hub.Located) -> int:
    """Bytes that are still to be downloaded."""
    return max(0, (located.size or file.size_bytes or 0) - _size(partial_file(folder, file, located)))


def request(call: Callable[[], Any], remote: Remote, meter: Meter) -> Any:
    """The result of a request of the library; raises Cancelled within a moment, FetchError with a sentence."""
    with closing(_background(lambda: iter((call(),)))) as answers:
        for answer in _watched(answers, remote, meter):
            return answer


def _receive(remote: Remote, file: RemoteFile, located: hub.Located, partial: Path, meter: Meter) -> None:
    """Append the missing bytes. Raises Interrupted if they end too early."""
    received = _size(partial)
    if located.size is not None and received > located.size:
        meter.add(-received)
        partial.unlink()
        received = 0
    if located.size is not None and received == located.size > 0:
        return  # a range that begins at the end would be refused
    offset = received

    def download_chunks() -> Iterator[tuple[int, str, bytes]]:
        with hub.opened(located, offset) as body:
            start = offset if body.status == 206 else 0
            sent_range = re.match(r"bytes (\d+)-", body.headers.get("Content-Range", ""))
            if start and sent_range and int(sent_range[1]) != offset:
                raise FetchError(f"the host sent another range of {file.path} than requested: try again later")
            for chunk in body.chunks:
                yield start, body.headers.get("Content-Type", ""), chunk

    with partial.open("ab") as target, closing(_background(download_chunks)) as chunks:
        first = True
        for start, kind, chunk in _watched(chunks, remote, meter):
            if first and start == 0:
                if received:  # the host ignores ranges and starts from the beginning
                    target.truncate(0)
                    meter.add(-received)
                    received = 0
                if is_web_page(chunk[:2000]) or kind.startswith("text/html"):
                    partial.unlink()
                    raise FetchError(_page_sentence(file.path))
            first = False
            target.write(chunk)
            received += len(chunk)
            meter.add(len(chunk))
    if located.size is not None and received < located.size:
        raise Interrupted(
            f"{file.path} was interrupted after {format_bytes(received)} of {format_bytes(located.size)}: "
            f"run the same command to continue"
        )
    if located.size is not None and received > located.size:
        partial.unlink()
        raise FetchError(
            f"{file.path} is longer than the {format_bytes(located.size)} that the host announced: it was deleted, "
            f"try again"
        )


def _page_sentence(name: str) -> str:
    return (
        f"a web page arrived instead of {name}: the network may require a login, or HF_ENDPOINT is wrong; open a page "
        f"in a browser and try again"
    )


def is_page(path: Path) -> bool:
    """Whether a file begins like a web page."""
    with path.open("rb") as file:
        return is_web_page(file.read(2000))


def _check(file: RemoteFile, etag: str | None, path: Path, meter: Meter) -> None:
    """Compare the checksum, if one is known: the host's SHA-256 (its ETag of a large file), else the table's."""
    if etag and re.fullmatch(r"[0-9a-f]{64}", etag):
        name, expected = "sha256", etag
    elif file.sha256:
        name, expected = "sha256", file.sha256
    elif file.md5:
        name, expected = "md5", file.md5
    else:
        return
    done, total = meter.done, meter.total
    meter.start("checking", file.path, 0, path.stat().st_size)
    digest = hashlib.new(name, usedforsecurity=False)
    with path.open("rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            meter.add(len(chunk))
    if digest.hexdigest() != expected:
        path.unlink()
        raise FetchError(
            f"{file.path} is damaged: its {name} begins with {digest.hexdigest()[:12]}, not {expected[:12]}; "
            f"it was deleted, run the same command to fetch it again"
        )
    meter.start("downloading", file.path, done, total)


# ---------------------------------------------------------------- waiting that can be stopped


def _background(make: Callable[[], Iterator[Any]]) -> Generator[Any, None, None]:
    """The items of an iterator that runs in another thread, and None ten times a second while there is none.

    A read from a silent connection cannot be interrupted, only abandoned: the thread is a daemon, ends at the
    library's timeout at the latest and then closes its connection.
    """
    items: Queue[tuple[str, Any]] = Queue(8)
    abandoned = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not abandoned.is_set():
            try:
                return items.put((kind, value), timeout=_TICK)
            except Full:
                continue

    def work() -> None:
        try:
            with closing(_as_generator(make())) as values:
                for value in values:
                    put("item", value)
                    if abandoned.is_set():
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
        abandoned.set()


def _as_generator(values: Iterator[Any]) -> Generator[Any, None, None]:
    yield from values


def _watched(items: Iterator[Any], remote: Remote, meter: Meter) -> Iterator[Any]:
    """The items without the Nones, with the meter ticking and the library's exceptions as sentences."""
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
