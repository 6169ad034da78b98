"""Questions to the Hugging Face Hub, through its own library, and its refusals as one sentence each.

The library's address, headers, login, session and settings are used, so HF_ENDPOINT, HF_TOKEN, HF_HOME,
HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT and the proxies mean what they mean everywhere else.
"""

from __future__ import annotations

import fnmatch
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from mlae_lab.core.hosts import Remote, RemoteFile
from mlae_lab.data.progress import FetchError, Interrupted

_CHUNK = 1 << 16  # bytes; requests loses up to so many when a connection breaks


@dataclass(frozen=True)
class Located:
    """Where a file's bytes are: url (signed for a short while), their number if told, and the host's mark for them."""

    url: str
    size: int | None
    etag: str | None
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Body:
    """The beginning of an answer and its bytes as they come."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


def listed(remote: Remote) -> tuple[RemoteFile, ...]:
    """The remote's files; those with a `*` as the repository lists them. Raises whatever the library raises."""
    from huggingface_hub import HfApi

    if not any("*" in file.path for file in remote.files):
        return remote.files
    found = []
    tree = [entry for entry in HfApi().list_repo_tree(remote.repo, recursive=True, repo_type=remote.repo_type)
            if getattr(entry, "size", None) is not None]  # fmt: skip
    for file in remote.files:
        matches = [entry for entry in tree if fnmatch.fnmatch(entry.path, file.path)]
        if not matches:
            raise FetchError(
                f"{remote.repo} holds no {file.path}: it has changed, "
                f"{'fetch ' + remote.task + ' instead' if remote.task else 'see ' + remote.page}"
            )
        found += [replace(file, path=entry.path, size_bytes=entry.size) for entry in matches]
    return tuple(found)


def locate(remote: Remote, file: RemoteFile) -> Located:
    """Ask for a file's size, mark and present address. Raises whatever the library raises."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(remote.repo, file.path, repo_type=remote.repo_type)
    told = get_hf_file_metadata(url)
    # Unpacked bytes have another number and cannot be asked for from the middle.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if urlsplit(told.location).netloc != urlsplit(url).netloc:
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    return Located(told.location, told.size, told.etag, headers)


@contextmanager
def opened(located: Located, start: int = 0) -> Iterator[Body]:
    """Ask for a file's bytes from `start` on. Raises whatever the library raises."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = {**located.headers, **({"Range": f"bytes={start}-"} if start else {})}
    session, seconds = get_session(), constants.HF_HUB_DOWNLOAD_TIMEOUT
    if hasattr(session, "build_request"):  # httpx, from huggingface_hub 1.0 on
        with session.stream("GET", located.url, headers=headers, timeout=seconds, follow_redirects=True) as answer:
            hf_raise_for_status(answer)
            yield Body(answer.status_code, answer.headers, answer.iter_raw())
    else:  # requests
        with session.get(located.url, headers=headers, timeout=seconds, stream=True) as answer:
            hf_raise_for_status(answer)
            yield Body(answer.status_code, answer.headers, answer.iter_content(_CHUNK))


def cached(remote: Remote, file: RemoteFile) -> Path | None:
    """The file in the library's own cache (below HF_HOME), if somebody has put it there already."""
    from huggingface_hub import try_to_load_from_cache

    if "*" in file.path:
        return None
    path = try_to_load_from_cache(remote.repo, file.path, repo_type=remote.repo_type)
    return Path(path) if isinstance(path, str) else None


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids every question."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def offline_sentence(remote: Remote) -> FetchError:
    """What to say when HF_HUB_OFFLINE is set and the library's cache does not have it all."""
    return FetchError(
        f"HF_HUB_OFFLINE is set and {remote.repo} is not in the Hugging Face cache: unset it, or fetch {remote.name} "
        f"where there is a connection and copy {remote.subfolder} from its data folder to this one"
    )


def refusal(error: Exception, remote: Remote) -> FetchError:
    """The sentence for an exception of the library; Interrupted if trying again may help."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    if isinstance(error, FetchError):
        return error
    if isinstance(error, OfflineModeIsEnabled):
        return offline_sentence(remote)
    host = urlsplit(constants.ENDPOINT).netloc or constants.ENDPOINT
    if not isinstance(error, (HTTPError, OSError)):  # together every failure of both HTTP libraries
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        return FetchError(f"huggingface_hub failed ({said}): check HF_ENDPOINT, or try another version of it")
    answer = getattr(error, "response", None)
    if answer is None:  # `if not answer` would be wrong: in requests a refusal counts as false
        return Interrupted(
            f"{host} cannot be reached ({_reason(error)}): check the connection, HTTPS_PROXY and HF_ENDPOINT; "
            f"the same command goes on where it stopped"
        )
    status, code = answer.status_code, answer.headers.get("X-Error-Code", "")
    if code == "GatedRepo" or status in (401, 403):
        return FetchError(
            f"{host} does not give {remote.repo} to you ({status}): log in with `hf auth login` or set HF_TOKEN, and "
            f"accept its terms on {remote.page} if it asks for that; it also answers so for what does not exist"
        )
    if status == 404:
        return FetchError(
            f"{remote.repo} or its file is not on {host} (404): it was moved or removed; if you have the files, put "
            f"them into {remote.subfolder} of the data folder by hand"
        )
    if status == 429:
        return FetchError(f"{host} wants fewer requests (429): try again {_wait(answer.headers)}, or log in")
    if status >= 500 or status == 408:
        return Interrupted(f"{host} is in trouble itself ({status}): try again later, the same command goes on")
    return FetchError(f"{host} answered {status} for {remote.repo}: see {remote.page}")


def _wait(headers: Mapping[str, str]) -> str:
    after = headers.get("Retry-After", "").strip()
    return f"in {after} seconds" if after.isdigit() else f"after {after[:40]}" if after else "in some minutes"


def _reason(error: BaseException) -> str:
    """Why there was no answer, found in the exceptions below this one, of whichever library."""
    seen: list[BaseException] = []
    left: list[object] = [error]
    while left:
        one = left.pop()
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            left += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    for kind, text in (
        (socket.gaierror, "its name is not known"),
        (ssl.SSLError, "its certificate is not accepted"),
        (ConnectionRefusedError, "the connection was refused"),
        (TimeoutError, "it does not answer"),
        (ConnectionError, "the connection broke off"),
    ):
        if any(isinstance(one, kind) for one in seen):
            return text
    kinds = " ".join(type(one).__name__ for one in seen)
    if "Timeout" in kinds:
        return "it does not answer"
    if "Proxy" in kinds:
        return "the proxy refused"
    if "Protocol" in kinds or "Incomplete" in kinds or "Chunked" in kinds:
        return "the connection broke off"
    return " ".join(str(error).split())[:120] or type(error).__name__
