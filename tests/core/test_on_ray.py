"""What is said before Ray is asked for anything; tests/faults/test_cluster.py has the rest."""

import re
import socket
import sys
import time

import pytest
import tasks

from storyforge.core import on_ray
from storyforge.core.engine_file import Engine
from storyforge.core.errors import UserError
from storyforge.core.runner import running


@pytest.fixture
def ray_is_there(monkeypatch):
    monkeypatch.setattr(on_ray, "find_spec", lambda name: name)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def ask(address: str | None) -> list[int]:
    with running(Engine(kind="ray", address=address)) as run:
        return list(run(tasks.squared, [1, 2], str))


def test_the_file_goes_before_the_environment_and_that_before_the_ray_of_this_machine(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.6:6379")
    assert on_ray.place("10.0.0.5:6379") == ("10.0.0.5:6379", "engine.yaml: address")
    assert on_ray.place(None) == ("10.0.0.6:6379", "$RAY_ADDRESS")
    monkeypatch.delenv("RAY_ADDRESS")
    assert on_ray.place(None)[0] == "auto"


@pytest.mark.parametrize("address", ["ray://10.0.0.5:10001", "10.0.0.5", "local", "10.0.0.5:"])
def test_an_address_of_another_form_is_one_line(ray_is_there, address):
    with pytest.raises(UserError, match=f"^engine.yaml: address = {address}: HOST:PORT is what is"):
        ask(address)


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="the package ray is missing here: .* -r requirements-ray.txt$"):
        ask("127.0.0.1:6379")


def test_an_address_where_nothing_listens_is_one_line(ray_is_there, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=f"^.RAY_ADDRESS = {address}: nothing answers: is Ray running there"):
        ask(None)


@pytest.mark.skipif(sys.platform != "linux", reason="fills a queue of waiting connections as Linux counts it")
def test_an_address_that_is_silent_is_given_up(ray_is_there, monkeypatch):
    monkeypatch.setattr(on_ray, "PATIENCE_S", 0.2)
    server, waiting = socket.create_server(("127.0.0.1", 0), backlog=0), socket.socket()
    with server, waiting:
        waiting.connect(server.getsockname())
        start = time.monotonic()
        with pytest.raises(UserError, match="nothing answers"):
            ask(f"127.0.0.1:{server.getsockname()[1]}")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({}, ""),
        ({"ftfy": "6.3.0"}, "ftfy 6.3.0, this clone 6.3.1: install requirements.txt there"),
        ({"rensa": "(none)"}, "rensa .none., this clone .*: install requirements.txt there"),
        ({"storyforge": "0123"}, "storyforge 0123, this clone [0-9a-f]{16}: uninstall it there"),
    ],
)
def test_what_a_node_has_otherwise_is_named(other, said):
    here = on_ray.identity() | ({"ftfy": "6.3.1"} if "ftfy" in other else {})
    assert re.fullmatch(said, on_ray._difference(here | other, here))
