"""Stand-ins on loopback for the hub and for a package index, met by the real clients."""

import hashlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow
import pyarrow.parquet
from huggingface_hub import constants

NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody answers
REVISION = "a" * 40
LARGE = (".parquet", ".safetensors")  # kept by sha256, as a hub does through LFS; the rest by git's sha1
PLAY = """# The Lost Key

## ACT I

### SCENE I. Verona. A street.

_Enter ANNA and BRUNO_

**ANNA**  
Who keeps the key that kept the house from harm?

**BRUNO**  
Not I; I never had it in my hand.

### SCENE II. The same.

**ANNA**  
Then is it lost, and we are locked without.
"""


class Hub:
    """One repository at one commit. `faults` answer the next requests for a file's body, one each.

    `requests` lists (path, headers) of every request for a body.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        name: str = "datasets/tests/stories",
        revision: str = REVISION,
        token: str | None = None,
    ):
        self.files, self.name, self.revision, self.token = dict(files), name, revision, token
        self.origin = f"hub:{name}@{revision}"
        self.faults: list[Callable] = []
        self.list_faults: list[Callable] = []  # the same for the list of files
        self.authorizations: list[str | None] = []  # of every request
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.closing = threading.Event()

    @contextmanager
    def running(self) -> Iterator["Hub"]:
        with serve(self._answer) as self.url:
            try:
                yield self
            finally:
                self.closing.set()  # lets stalled answers go

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.authorizations.append(request.headers["Authorization"])
        path = request.path.partition("?")[0]
        kind = "" if self.name.startswith("datasets/") else "models/"
        if path == f"/api/{kind}{self.name}/tree/{self.revision}":
            if self.list_faults:
                return self.list_faults.pop(0)(self, request, b"")
            return send(request, json.dumps(self._tree()).encode(), {"Content-Type": "application/json"})
        if path == f"/api/{kind}{self.name}/auth-check":
            return self._gated(request) or send(request, b"")
        if path.startswith("/api/"):
            missing = "RevisionNotFound" if f"{self.name}/tree/" in path else "RepoNotFound"
            return send(request, b"", {"X-Error-Code": missing}, status=404)
        file = path.removeprefix(f"/{self.name}/resolve/{self.revision}/")
        if path == file or file not in self.files:
            return send(request, b"no such file", status=404)
        self.requests.append((file, {key.lower(): value for key, value in request.headers.items()}))
        if self.faults:
            return self.faults.pop(0)(self, request, self.files[file])
        self._gated(request) or send_body(request, self.files[file])

    def _gated(self, request: BaseHTTPRequestHandler) -> bool:
        """Whether the request was refused for its token."""
        refused = bool(self.token) and request.headers["Authorization"] != f"Bearer {self.token}"
        if refused:
            send(request, b"gated", {"X-Error-Code": "GatedRepo"}, status=401)
        return refused

    def _tree(self) -> list[dict]:
        return [
            {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)}
            | (
                {"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 130}}
                if path.endswith(LARGE)
                else {}
            )
            for path, data in self.files.items()
        ] + [{"type": "directory", "path": "data", "oid": "d" * 40}]


def status(code: int, **headers: str) -> Callable:
    """A fault: no body but this status."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda hub, request, body: send(request, b"", named, status=code)


def cut(at: int) -> Callable:
    """A fault: the connection ends after so many bytes of the body."""
    return lambda hub, request, body: send_body(request, body, stop=at)


def stall(at: int) -> Callable:
    """A fault: nothing comes after so many bytes, and the connection stays open."""

    def answer(hub, request, body):
        send_body(request, body, stop=at)
        request.wfile.flush()
        hub.closing.wait(60)

    return answer


def corrupted(at: int | None = None) -> Callable:
    """A fault: right size, right headers, one bit wrong; cut after so many bytes."""
    return lambda hub, request, body: send_body(request, bytes([body[0] ^ 1]) + body[1:], stop=at)


def whole(hub: Hub, request: BaseHTTPRequestHandler, body: bytes) -> None:
    """A fault: all of the file, whatever range was asked for."""
    send(request, body)


def redirected(to: str) -> Callable:
    return lambda hub, request, body: send(request, b"", {"Location": to + request.path}, status=302)


def send_body(request: BaseHTTPRequestHandler, body: bytes, stop: int | None = None) -> None:
    """A file as a hub sends it: from where the request asks."""
    start = int((request.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
    if start >= len(body) > 0:
        return send(request, b"", status=416)
    part = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
    send(request, body[start:], part, 206 if start else 200, stop)


def send(
    request, body: bytes, headers: Mapping[str, str] = (), status: int = 200, stop: int | None = None
) -> None:
    """The header announces all of the body, whatever is sent of it."""
    request.send_response(status)
    for key, value in dict(headers).items():
        request.send_header(key, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[:stop])


@contextmanager
def serve(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a server on loopback that answers GET and POST with `answer`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        do_POST = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def package_index(wheels: Mapping[str, bytes]) -> Iterator[str]:
    """The address of a simple index of wheels by file name."""

    def answer(request):
        _, kind, name = request.path.split("/")[:3]
        if kind == "files" and name in wheels:
            return send(request, wheels[name])
        links = [f'<a href="/files/{file}">{file}</a>' for file in wheels if file.startswith(f"{name}-")]
        page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()
        send(request, page, {"Content-Type": "text/html"}, 200 if links else 404)

    with serve(answer) as url:
        yield f"{url}/simple"


def wheel(name: str, members: Mapping[str, str | bytes], version: str = "1.0") -> tuple[str, bytes]:
    """File name and bytes of a wheel that pip accepts."""
    info = f"{name}-{version}.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in {**members, **about}.items():
            archive.writestr(zipfile.ZipInfo(member), content, zipfile.ZIP_DEFLATED)
    return f"{name}-{version}-py3-none-any.whl", packed.getvalue()


def parquet(**columns) -> bytes:
    """A parquet file of these columns: lists, or pyarrow arrays."""
    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), written)
    return written.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def isolate(monkeypatch, cache) -> list[float]:
    """Keep a test from this machine's caches, tokens, network and clock; returns the waits asked for."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("STORYFORGE_CACHE", str(cache))
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setenv("PIP_INDEX_URL", NOWHERE)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(cache / "no-tokens"))
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits
