"""Pushing to a remote and pulling in another clone, through real servers on loopback."""

import asyncio
import hashlib
import secrets
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

import asyncssh
import pytest
from cheroot.wsgi import Server
from moto.server import ThreadedMotoServer
from pipeline import Repository
from wsgidav.wsgidav_app import WsgiDAVApp

PASSWORD = secrets.token_hex(16)  # in no file of the repository


class Remote(NamedTuple):
    """What `dvc remote add` and `dvc remote modify` are told; what is local never reaches git."""

    url: str
    shared: dict[str, str]
    local: dict[str, str]


@pytest.fixture
def s3() -> Iterator[Remote]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/storyforge", method="PUT")).close()
        shared = {"endpointurl": endpoint, "region": "us-east-1"}
        yield Remote(
            "s3://storyforge/dvc", shared, {"access_key_id": "writer", "secret_access_key": PASSWORD}
        )
    finally:
        server.stop()


class OneUser(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("writer", PASSWORD)


@pytest.fixture
def ssh(tmp_path) -> Iterator[Remote]:
    root = tmp_path / "server"
    root.mkdir()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def listen():
        key = asyncssh.generate_private_key("ssh-ed25519")
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[key],
            server_factory=OneUser,
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(root)),
        )

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(20)
    try:
        yield Remote(f"ssh://writer@127.0.0.1:{server.get_port()}/store", {}, {"password": PASSWORD})
    finally:
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(server.wait_closed(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def webdav(tmp_path) -> Iterator[Remote]:
    (tmp_path / "server" / "store").mkdir(parents=True)
    users = {"user_mapping": {"*": {"writer": {"password": PASSWORD}}}}
    settings = {
        "provider_mapping": {"/": str(tmp_path / "server")},
        "simple_dc": users,
        "logging": {"enable": False},
    }
    server = Server(("127.0.0.1", 0), WsgiDAVApp(settings))
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        url = f"webdav://127.0.0.1:{server.bind_addr[1]}/store"
        yield Remote(url, {}, {"user": "writer", "password": PASSWORD})
    finally:
        server.stop()
        thread.join()


FORGE = """
import sys
from dvc.repo import Repo
remote = Repo().cloud.get_remote()
remote.fs.pipe_file(remote.odb.oid_to_path(sys.argv[1]), b"forged")
"""


def connected(here: Repository, remote: Remote) -> Repository:
    here.dvc("remote", "add", "--default", "store", remote.url)
    for key, value in remote.shared.items():
        here.dvc("remote", "modify", "store", key, value)
    for key, value in remote.local.items():
        here.dvc("remote", "modify", "--local", "store", key, value)
    here.commit("A remote")
    return here


@pytest.mark.parametrize("kind", ["s3", "ssh", "webdav"])
def test_pushed_run_is_whole_in_another_clone(kind, built, tmp_path, request):
    remote = request.getfixturevalue(kind)
    here = connected(built.clone(tmp_path / "here", cache=True), remote)
    here.dvc("push")

    there = here.clone(tmp_path / "there")
    there.run("git", "grep", "--quiet", PASSWORD, status=1)
    shutil.copy(here.root / ".dvc" / "config.local", there.root / ".dvc")
    said = there.run("storyforge", "pull")
    assert said.splitlines()[-1].startswith("verified and checked out: data/raw, ")
    assert there.digest("models/tuned") == here.digest("models/tuned") != {}
    assert there.repro() == []
    assert there.git("status", "--short") == ""


def test_a_tampered_object_of_a_server_is_refused(s3, built, tmp_path):
    """A folder as remote is tried in tests/commands/test_pull.py, in each way."""
    here = connected(built.clone(tmp_path / "here", cache=True), s3)
    here.dvc("push")
    weights = here.digest("models/tuned")["adapter_model.safetensors"]
    here.run("python", "-c", FORGE, hashlib.md5(weights).hexdigest())
    there = here.clone(tmp_path / "there")
    shutil.copy(here.root / ".dvc" / "config.local", there.root / ".dvc")
    said = there.run("storyforge", "pull", "models/tuned", status=1).splitlines()[-1]
    assert said.startswith("error: remote store: models/tuned/adapter_model.safetensors has other bytes")
    assert not (there.root / "models" / "tuned").exists()


def test_a_pulled_adapter_evaluates_to_the_same_numbers(built, tmp_path):
    here = built.clone(tmp_path / "here", cache=True)
    here.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    here.commit("A remote")
    here.dvc("push")
    there = here.clone(tmp_path / "there")
    there.run("storyforge", "pull")
    there.dvc("repro", "--force", "--single-item", "evaluate")
    assert there.git("status", "--short") == ""
    assert there.repro() == []
