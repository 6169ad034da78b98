"""Requests to the Hugging Face Hub through its own library, and its errors as one sentence each.

The library's URLs, headers, login, session and settings are used, so HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE,
HF_HUB_DOWNLOAD_TIMEOUT and the proxies work as in any other program.
"""

from __future__ import annotations

import fnmatch
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from mlae_lab.core.hosts import Remote, RemoteFile
from mlae_lab.data.progress import FetchError, Interrupted

_CHUNK = 1 << 16  # bytes; requests loses up to this many when a connection breaks


@dataclass(frozen=True)
class Located:
    """Where a file's bytes are: the URL (signed for a short time), the size if known, and the host's ETag."""

    url: str
    size: int | None
    etag: str | None
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Body:
    """Status and headers of a response, and its bytes as they arrive."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


def listed(remote: Remote) -> tuple[RemoteFile, ...]:
    """The remote's files; paths with a `*` are expanded from the repository's list. Raises the library's exceptions."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    if not any("*" in file.path for file in remote.files):
        return remote.files
    files = []
    entries = HfApi().list_repo_tree(remote.repo, recursive=True, repo_type=remote.repo_type, revision=remote.revision)
    tree = [entry for entry in entries if isinstance(entry, RepoFile)]
    for file in remote.files:
        matches = [entry for entry in tree if fnmatch.fnmatch(entry.path, file.path)]
        if not matches:
            raise FetchError(
                f"{remote.repo} holds no {file.path}: it has changed, "
                f"{'fetch ' + remote.task + ' instead' if remote.task else 'see ' + remote.page}"
            )
        files += [replace(file, path=entry.path, size_bytes=entry.size) for entry in matches]
    return tuple(files)


def locate(remote: Remote, file: RemoteFile) -> Located:
    """Request a file's size, ETag and current URL. Raises the library's exceptions."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(remote.repo, file.path, repo_type=remote.repo_type, revision=remote.revision)
    metadata = get_hf_file_metadata(url)
    # Compressed content has another length and no ranges.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if urlsplit(metadata.location).netloc != urlsplit(url).netloc:
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    return Located(metadata.location, metadata.size, metadata.etag, headers)


@contextmanager
def opened(located: Located, start: int = 0) -> Iterator[Body]:
    """Request a file's bytes from `start` on. Raises the library's exceptions."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = {**located.headers, **({"Range": f"bytes={start}-"} if start else {})}
    session: Any = get_session()  # of httpx or requests, by the library's version
    seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
    if hasattr(session, "build_request"):  # httpx, from huggingface_hub 1.0 on
        with session.stream("GET", located.url, headers=headers, timeout=seconds, follow_redirects=True) as response:
            hf_raise_for_status(response)
            yield Body(response.status_code, response.headers, response.iter_raw())
    else:  # requests
        with session.get(located.url, headers=headers, timeout=seconds, stream=True) as response:
            hf_raise_for_status(response)
            yield Body(response.status_code, response.headers, response.iter_content(_CHUNK))


def cached(remote: Remote, file: RemoteFile) -> Path | None:
    """The file in the library's own cache (below HF_HOME), None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    if "*" in file.path:
        return None
    path = try_to_load_from_cache(remote.repo, file.path, repo_type=remote.repo_type, revision=remote.revision)
    return Path(path) if isinstance(path, str) else None


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids every request."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def offline_sentence(remote: Remote) -> FetchError:
    """The error for HF_HUB_OFFLINE without all files in the library's cache."""
    return FetchError(
        f"HF_HUB_OFFLINE is set and {remote.repo} is not in the Hugging Face cache: unset it, or fetch {remote.name} "
        f"on a machine with a connection and copy {remote.subfolder} from its data folder to this one"
    )


def refusal(error: Exception, remote: Remote) -> FetchError:
    """The error, with a sentence, for an exception of the library; Interrupted if another attempt may help."""
    from huggingface_hub import constants, errors

    if isinstance(error, FetchError):
        return error
    if isinstance(error, errors.OfflineModeIsEnabled):
        return offline_sentence(remote)
    if getattr(error, "response", None) is None and (problem := _settings_problem()):
        return FetchError(problem)
    host = urlsplit(constants.ENDPOINT).netloc or constants.ENDPOINT
    http_error: type[Exception] = errors.HTTPError  # pyright: ignore[reportPrivateImportUsage] - of either library
    if not isinstance(error, (http_error, OSError)):  # together every failure of both HTTP libraries
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        return FetchError(f"huggingface_hub failed ({text}): check HF_ENDPOINT, or try another version of it")
    response = getattr(error, "response", None)
    if response is None:  # `if not response` would be wrong: in requests an error response is false
        return Interrupted(
            f"{host} cannot be reached ({_reason(error)}): check the connection, {_proxy_variable()} and HF_ENDPOINT; "
            f"run the same command to continue"
        )
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    if code == "GatedRepo" or status in (401, 403):
        return FetchError(
            f"{host} refuses access to {remote.repo} ({status}): log in with `hf auth login` or set HF_TOKEN, and "
            f"accept the terms on {remote.page} if there are any; it also refuses what does not exist"
        )
    if status == 404 and remote.revision:
        return FetchError(
            f"{remote.repo} is not on {host} as Parquet (404): check its name on {remote.page}; the Hub converts only "
            "public datasets that it can show"
        )
    if status == 404:
        return FetchError(
            f"{remote.repo} or its file is not on {host} (404): it was moved or removed; if you have the files, put "
            f"them into {remote.subfolder} of the data folder"
        )
    if status == 429:
        return FetchError(f"{host} limits requests (429): try again {_wait(response.headers)}, or log in")
    if status >= 500 or status == 408:
        return Interrupted(f"{host} has a server error ({status}): try again later, the same command continues")
    return FetchError(f"{host} answered {status} for {remote.repo}: see {remote.page}")


# ---------------------------------------------------------------- HF_ENDPOINT and the proxies


def _settings_problem() -> str | None:
    """Why no request can work with these environment variables, in one sentence; None if they are in order."""
    from huggingface_hub import __version__, constants

    if urlsplit(constants.ENDPOINT).scheme not in ("http", "https"):
        return (
            f"HF_ENDPOINT is {constants.ENDPOINT[:80]}: it must begin with http:// or https://, such as "
            "https://huggingface.co"
        )
    uses_httpx = int(__version__.partition(".")[0]) >= 1
    socks = ("socks5", "socks5h") if uses_httpx else ("socks4", "socks4a", "socks5", "socks5h")
    package, module = ("socksio", "socksio") if uses_httpx else ("PySocks", "socks")
    for variable, address in _proxies().items():
        scheme = address.partition("://")[0].lower() if "://" in address else "http"
        shown = f"{variable} is {_without_login(address)[:80]}"
        if scheme in socks:
            if find_spec(module) is None:
                return f"{shown}, and SOCKS needs one more package: `pip install {package}`, or name an HTTP proxy"
        elif scheme not in ("http", "https"):
            return f"{shown}: a proxy must begin with http://, https:// or {socks[-2]}://"
    return None


def _proxies() -> dict[str, str]:
    """The proxies in the environment by the name of their variable."""
    proxies = {}
    for kind, address in getproxies_environment().items():
        if kind in ("https", "http", "all"):
            names = [name for name in os.environ if name.lower() == f"{kind}_proxy" and os.environ[name] == address]
            proxies[next(iter(names), f"{kind.upper()}_PROXY")] = address
    return proxies


def _proxy_variable() -> str:
    """The variable with the proxy of a request to the Hub; HTTPS_PROXY if there is none."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    by_name = {variable.lower(): variable for variable in _proxies()}
    if by_name and proxy_bypass(parts.hostname or ""):
        return "NO_PROXY"
    return by_name.get(f"{parts.scheme}_proxy") or by_name.get("all_proxy") or "HTTPS_PROXY"


def _without_login(address: str) -> str:
    """An address without the name and password that it may hold."""
    scheme, separator, rest = address.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _wait(headers: Mapping[str, str]) -> str:
    after = headers.get("Retry-After", "").strip()
    return f"in {after} seconds" if after.isdigit() else f"after {after[:40]}" if after else "in some minutes"


def _reason(error: BaseException) -> str:
    """Why there was no response, found in the chain of exceptions of either library."""
    chain: list[BaseException] = []
    pending: list[object] = [error]
    while pending:
        cause = pending.pop()
        if isinstance(cause, BaseException) and cause not in chain:
            chain.append(cause)
            pending += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
    for kind, text in (
        (socket.gaierror, "its name is not known"),
        (ssl.SSLError, "its certificate is not accepted"),
        (ConnectionRefusedError, "the connection was refused"),
        (TimeoutError, "it does not answer"),
        (ConnectionError, "the connection was lost"),
    ):
        if any(isinstance(cause, kind) for cause in chain):
            return text
    kinds = " ".join(type(cause).__name__ for cause in chain)
    if "Timeout" in kinds:
        return "it does not answer"
    if "Proxy" in kinds:
        return "the proxy refused"
    if "Protocol" in kinds or "Incomplete" in kinds or "Chunked" in kinds:
        return "the connection was lost"
    return " ".join(str(error).split())[:120] or type(error).__name__
