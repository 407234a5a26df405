"""A fake Hugging Face hub on loopback: the API calls that the client makes, and simulated failures."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "tester/flux2-tiny"
LARGE = ".safetensors"
PIECE = 1 << 16


@dataclass
class FakeHub:
    """Files of the hub and switches for its failures. Tests read `requests` and `bytes_sent`.

    `error` (status, code, message) answers every listing; `gate` requires `token`; `served` replaces a file's
    bytes in the answer only; the next `broken` answers with large files end half-way; `ranges` off answers a Range
    with the whole file; all `repositories` have the same files; `away` is the host that large files are redirected to;
    `hold` pauses an answer half-way until `resume` is set.
    """

    files: dict[str, bytes]
    url: str = ""
    error: tuple[int, str, str] | None = None
    gate: bool = False
    token: str = "hf_right"
    served: dict[str, bytes] = field(default_factory=dict)
    broken: int = 0
    ranges: bool = True
    away: str = ""
    hold: bool = False
    held: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    bytes_sent: dict[str, int] = field(default_factory=dict)
    repositories: tuple[str, ...] = field(default_factory=lambda: (REPOSITORY,))

    def build_listing(self) -> dict[str, Any]:
        siblings = [_sibling(name, content) for name, content in self.files.items()]
        return {"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": siblings}

    def ranges_asked(self, name: str) -> list[str | None]:
        return [headers.get("range") for path, headers in self.requests if path.endswith(f"/{name}")]


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": name, "size": len(content)}
    entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if name.endswith(LARGE):
        # For a large file, git stores a pointer: its SHA-1 is not that of the content.
        entry["blobId"] = hashlib.sha1(b"pointer").hexdigest()
        entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@contextmanager
def run_hub(files: dict[str, bytes]) -> Iterator[FakeHub]:
    hub = FakeHub(files)

    class Handler(_Handler):
        def __init__(self, *arguments: Any) -> None:
            self.hub = hub
            super().__init__(*arguments)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.resume.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((path, {name.lower(): value for name, value in self.headers.items()}))
        if path.startswith("/api/models/"):
            self._list(path)
        elif path.startswith("/cdn/"):
            self._send_file(path.removeprefix("/cdn/"))
        else:
            self._resolve(path)

    def _list(self, path: str) -> None:
        if self.hub.error is not None:
            self._fail(*self.hub.error)
        elif path.removesuffix(f"/revision/{COMMIT}") not in {f"/api/models/{name}" for name in self.hub.repositories}:
            self._fail(404, "RepoNotFound", "Repository not found")
        else:
            self._answer(200, json.dumps(self.hub.build_listing()).encode(), {"Content-Type": "application/json"})

    def _resolve(self, path: str) -> None:
        name = path
        for repository in self.hub.repositories:
            name = name.removeprefix(f"/{repository}/resolve/{COMMIT}/")
        given = self.headers.get("Authorization")
        if self.hub.gate and given is None:
            self._fail(401, "GatedRepo", "Access to this model is restricted. Please log in.")
        elif self.hub.gate and given != f"Bearer {self.hub.token}":
            self._fail(403, "GatedRepo", "You are not in the authorized list.")
        elif name not in self.hub.files:
            self._fail(404, "EntryNotFound", "Entry not found")
        elif self.hub.away and name.endswith(LARGE):
            self._answer(302, b"", {"Location": f"{self.hub.away}/cdn/{name}"})
        else:
            self._send_file(name)

    def _send_file(self, name: str) -> None:
        content = self.hub.served.get(name, self.hub.files[name])
        asked = self.headers.get("Range") if self.hub.ranges else None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self._head(206 if asked else 200, len(body), headers)
        half = len(body) // 2 if name.endswith(LARGE) else len(body)
        self._write(name, body[:half])
        if half == len(body):
            return
        if self.hub.hold:
            self.hub.held.set()
            self.hub.resume.wait(60)
        if self.hub.broken > 0:
            self.hub.broken -= 1
        else:
            self._write(name, body[half:])

    def _write(self, name: str, body: bytes) -> None:
        for start in range(0, len(body), PIECE):
            piece = body[start : start + PIECE]
            # Count before writing: a test may read this as soon as the client has all bytes.
            self.hub.bytes_sent[name] = self.hub.bytes_sent.get(name, 0) + len(piece)
            try:
                self.wfile.write(piece)
            except ConnectionError:
                return  # the client was stopped

    def _fail(self, status: int, code: str, message: str) -> None:
        self._answer(
            status, json.dumps({"error": message}).encode(), {"X-Error-Code": code, "X-Error-Message": message}
        )

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, len(body), headers)
        self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length), "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
