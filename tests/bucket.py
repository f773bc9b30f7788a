"""An object store on loopback, met by the real client: moto, whose answers a test may replace."""

import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from moto.moto_server.threaded_moto_server import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
    make_server,
)

NAME = "storyforge"
URL = f"s3://{NAME}/some/where"
KEYS = {
    "AWS_ACCESS_KEY_ID": "writer",
    "AWS_SECRET_ACCESS_KEY": "of a test",
    "AWS_EC2_METADATA_DISABLED": "true",
}
Refusal = tuple[int, str]  # status and code
DENIED, BUSY = (403, "AccessDenied"), (503, "SlowDown")


class Quiet(MotoRequestHandler):
    def log_request(self, *_) -> None:
        pass


class Bucket:
    """`requests` lists (method, path) of each; `refuse` may answer one."""

    def __init__(self):
        self.requests: list[tuple[str, str]] = []
        self.refuse: Callable[[str, str], Refusal | None] = lambda method, path: None
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True, request_handler=Quiet)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        for method, path in (("POST", "moto-api/reset"), ("PUT", NAME)):
            asked = urllib.request.Request(f"{self.endpoint}/{path}", method=method)
            urllib.request.urlopen(asked).close()
        self.requests.clear()

    def answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if refused := self.refuse(method, path):
            status, code = refused
            start_response(f"{status} {code}", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>Not now.</Message></Error>".encode()]
        return self.moto(environ, start_response)

    def paths(self, method: str) -> list[str]:
        """Of its requests for a file, below URL."""
        top = f"/{URL.removeprefix('s3://')}/"
        return [path.removeprefix(top) for made, path in self.requests if made == method and top in path]

    def stop(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


@contextmanager
def started(patch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """It is the store of this process and of those it starts."""
    found = Bucket()
    try:
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
            patch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": found.endpoint}.items():
            patch.setenv(name, value)
        yield found
    finally:
        found.stop()
