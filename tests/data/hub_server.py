"""A local Hub: real HTTP on the loopback with the part of the API that huggingface_hub uses, and optional faults."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>Please log in.</body></html>"


@dataclass
class HubServer:
    """Its files, its faults, and the requests it received.

    files: by path after the host name, as in "datasets/owner/name/file". status: refuses every question with it.
    code: its X-Error-Code. retry_after: seconds with a 429. cut: ends each answer's body after so many bytes.
    stall_at: falls silent there. rate: bytes per second. lie: names a checksum that is not the file's. page: gives a
    web page in place of the bytes. no_ranges: ignores Range. no_etag: names no checksum. size: claims this size.

    Of uploads: large: endings of files that go to the storage (LFS). created: the requests for new repositories.
    uploaded: what arrived, by path in the repository; large files of no commit yet by checksum. commits: their headers.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    status: int | None = None
    code: str = ""
    retry_after: str = ""
    cut: int | None = None
    cut_times: int = 1_000_000
    stall_at: int | None = None
    rate: float | None = None
    lie: bool = False
    page: bool = False
    no_ranges: bool = False
    no_etag: bool = False
    size: int | None = None
    large: tuple[str, ...] = (".safetensors",)
    created: list[dict] = field(default_factory=list)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    commits: list[dict] = field(default_factory=list)
    served: int = 0
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage(self) -> str:
        """The same server under another name: a host to which no login may be sent."""
        return f"http://localhost:{self.port}"

    def requested(self, method: str) -> list[dict[str, str]]:
        """The headers of all requests of a kind, in order."""
        return [headers for kind, _, headers in self.requests if kind == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_PUT(self) -> None:
        """A large file arrives in the storage."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = urlsplit(self.path).path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.uploaded[oid] = content
        self._say(200, b"", {}, True)

    def do_POST(self) -> None:
        """Uploads: a new repository, how each file is to be sent, where large ones go, the commit."""
        hub, path = self.hub, urlsplit(self.path).path.strip("/")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        hub.requests.append(("POST", path, {k.lower(): v for k, v in self.headers.items()}))
        if hub.status is not None:
            return self._say(hub.status, b"{}", {}, True)
        answer: dict = {}
        if path == "api/repos/create":
            hub.created.append(json.loads(content))
            answer = {"url": f"{hub.url}/ada/{hub.created[-1]['name']}"}
        elif path == "api/validate-yaml":
            answer = {"errors": [], "warnings": []}
        elif "/preupload/" in path:
            answer = {
                "files": [
                    {
                        "path": file["path"], "shouldIgnore": False,
                        "uploadMode": "lfs" if file["path"].endswith(hub.large) else "regular",
                    }
                    for file in json.loads(content)["files"]
                ]
            }  # fmt: skip
        elif path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(content)["objects"]
            answer = {
                "transfer": "basic",
                "objects": [
                    {**entry, "actions": {"upload": {"href": f"{hub.url}/storage/{entry['oid']}"}}} for entry in wanted
                ],
            }
        else:
            assert "/commit/" in path, path
            self._commit([json.loads(line) for line in content.splitlines()])
            answer = {
                "commitUrl": f"{hub.url}/{path.split('/')[2]}/{path.split('/')[3]}/commit/{COMMIT}",
                "commitOid": COMMIT,
                "success": True,
            }
        self._say(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, True)

    def _commit(self, lines: list[dict]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append(value)
            elif line["key"] == "lfsFile":
                self.hub.uploaded[value["path"]] = self.hub.uploaded.pop(value["oid"])
            else:
                assert line["key"] == "file", line
                self.hub.uploaded[value["path"]] = base64.b64decode(value["content"])

    def _answer(self, body: bool) -> None:
        hub, path = self.hub, urlsplit(self.path).path.strip("/")
        if path == "api/agent-harnesses":  # newer libraries request once which program they run in
            return self._say(404, b"", {}, body)
        hub.requests.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        if hub.status is not None:
            headers = {"X-Error-Code": hub.code} if hub.code else {}
            self._say(hub.status, b"{}", headers | ({"Retry-After": hub.retry_after} if hub.retry_after else {}), body)
        elif path.startswith("api/"):
            self._tree(path, body)
        elif path.startswith("lfs/"):
            self._bytes(hub.files[path.removeprefix("lfs/")], body)
        else:
            self._resolve(path, body)

    def _tree(self, path: str, body: bool) -> None:
        """/api/datasets/OWNER/NAME/tree/main: the list of files."""
        repo = path.removeprefix("api/").removeprefix("models/").partition("/tree/")[0]
        result = [
            {"type": "file", "path": name.removeprefix(repo + "/"), "size": len(data), "oid": "0" * 40}
            for name, data in self.hub.files.items()
            if name.startswith(repo + "/")
        ]
        self._say(200, json.dumps(result).encode(), {"Content-Type": "application/json"}, body)

    def _resolve(self, path: str, body: bool) -> None:
        """/datasets/OWNER/NAME/resolve/main/FILE: a redirect to where the bytes lie, with what is known of them."""
        repo, _, rest = path.partition("/resolve/")
        name = f"{repo}/{rest.partition('/')[2]}"
        data = self.hub.files.get(name)
        if data is None:
            return self._say(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        if self.hub.page:
            return self._say(200, PAGE, {"Content-Type": "text/html"}, body)
        headers = {
            "Location": f"{self.hub.storage}/lfs/{name}?signature=x",
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{"0" * 40}"',
            "X-Linked-Size": str(self.hub.size or len(data)),
            "X-Linked-Etag": f'"{hashlib.sha256(data + b"!" * self.hub.lie).hexdigest()}"',
        }
        if self.hub.no_etag:
            headers["X-Linked-Etag"] = headers["ETag"]
        self._say(302, b"", headers, body)

    def _bytes(self, data: bytes, body: bool) -> None:
        hub, requested = self.hub, self.headers.get("Range")
        start = int(requested.removeprefix("bytes=").split("-")[0]) if requested and not hub.no_ranges else 0
        if start and start >= len(data):
            return self._say(416, b"", {"Content-Range": f"bytes */{len(data)}"}, body)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        if body:
            self._pour(data[start:], start)

    def _pour(self, data: bytes, start: int) -> None:
        hub, sent = self.hub, 0
        cut = hub.cut if hub.cut is not None and hub.cut_times > 0 else None
        hub.cut_times -= cut is not None
        step = 65_536 if hub.rate is None else max(1, int(hub.rate / 20))
        try:
            while sent < len(data):
                if hub.stall_at is not None and start + sent >= hub.stall_at:
                    while hub.stall_at is not None and start + sent >= hub.stall_at:
                        time.sleep(0.02)
                    break  # a silent connection stays silent
                end = min(len(data), sent + step, cut if cut is not None else len(data))
                if end == sent:
                    break
                hub.served += end - sent  # before it is sent: whoever has it finds it counted
                self.wfile.write(data[sent:end])
                sent = end
                if hub.rate is not None:
                    time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = self.close_connection or sent < len(data)

    def _say(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a stalled response must not block the test


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A running server on a free port of the loopback."""
    hub = HubServer()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.stall_at = hub.rate = None
        server.shutdown()
        server.server_close()
        thread.join()
