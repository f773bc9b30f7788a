"""Work shared out to the nodes of a Ray cluster: what `workers` does on one machine, across several.

Ray gives a task again when its process or its node is lost. It compares its own version and Python's on all
nodes; those of our code and of the packages that decide the bytes are compared here.
"""

import hashlib
import logging
import os
import pickle
import platform
import re
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from storyforge.core.errors import UserError
from storyforge.core.storage import PLACE
from storyforge.core.workers import AHEAD, Item, Result, Run

PACKAGE = Path(__file__).resolve().parents[1]
DECIDING = ("numpy", "rensa", "ftfy", "py3langid", "sentencex")  # packages that decide a text's bytes or fate
AGAIN = 3  # times that Ray gives a task whose process or node was lost
PATIENCE_S = 5
INSTALL = ".venv/bin/python -m pip install -r requirements-ray.txt"


def place(address: str | None) -> tuple[str, str]:
    """Where Ray is, and who says so, for messages; UserError for what is no HOST:PORT."""
    said_by = "engine.yaml: address"
    if address is None and (address := os.environ.get("RAY_ADDRESS")):
        said_by = "$RAY_ADDRESS"
    if not address or address == "auto":
        return "auto", said_by
    if not re.fullmatch(r"[^\s/]+:\d{1,5}", address):
        raise UserError(f"{said_by} = {address}: HOST:PORT is what is understood, such as 10.0.0.5:6379")
    return address, said_by


def require(address: str, said_by: str) -> None:
    """UserError where Ray is not installed, or nothing listens there: Ray itself would wait for minutes."""
    if find_spec("ray") is None:
        raise UserError(f"{said_by} = {address}: the package ray is missing here: {INSTALL}")
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S).close()
    except (OSError, OverflowError, UnicodeError):
        raise UserError(
            f"{said_by} = {address}: nothing answers: is Ray running there? `ray start --head`"
        ) from None


@contextmanager
def running(where: tuple[str, str], most: int | None) -> Iterator[Run]:
    """As `runner.running`; `most` limits the tasks at a time."""
    address, said_by = where
    ray = _connected(address, said_by)
    try:
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if not cpus:
            raise UserError(f"{said_by} = {address}: that Ray has no CPU for tasks: `ray start --num-cpus`")
        yield partial(_shared, ray, most or AHEAD * cpus)
    finally:
        ray.shutdown()


def _shared(
    ray: Any, most: int, task: Callable[[Item], Result], items: Iterable[Item], named: Callable[[Item], str]
) -> Iterator[Result]:
    # The task, with whatever it is bound to, is sent once and not with each item.
    run, held, here = ray.remote(max_retries=AGAIN)(_done), ray.put(pickle.dumps(task)), identity()
    items, given = iter(items), deque()
    while True:
        for item in islice(items, most - len(given)):
            given.append((item, run.remote([held], here, item)))
        if not given:
            return
        item, to_come = given.popleft()
        try:
            result = ray.get(to_come)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error  # what the task raised, as in a process of this machine
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
            raise UserError(
                f"{named(item)}: a process or node that worked on it was killed {1 + AGAIN} times (out "
                "of memory?): free memory, or give Ray fewer CPUs there: `ray start --num-cpus`"
            ) from None
        except ray.exceptions.RayError as error:
            raise UserError(f"{named(item)}: {_brief(error)}") from None
        yield result


def everywhere(task: Callable[[], None]) -> None:
    """As `runner.everywhere`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as At

    run = ray.remote(num_cpus=0, max_retries=0)(_called)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    given = [run.options(scheduling_strategy=At(node, soft=False)).remote(task) for node in nodes]
    ray.wait(given, num_returns=len(given), timeout=PATIENCE_S)


def _called(task: Callable[[], None]) -> None:
    task()


def _connected(address: str, said_by: str) -> Any:
    """The module ray, as a driver of the cluster whose workers import this clone's code."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # else it reports to its makers
    token = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    if "RAY_AUTH_TOKEN" in os.environ or os.path.exists(token):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # else Ray sends it to no address that it is told
    require(address, said_by)
    import ray

    # The keys of the store are each node's own.
    of_store = {name: os.environ[name] for name in PLACE if name in os.environ}
    try:
        ray.init(
            address,
            runtime_env={"py_modules": [str(PACKAGE)], "env_vars": of_store},
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except ConnectionError as error:
        remedy = "`ray start --head` starts one; where one asks for a token, `ray get-auth-token` shows it"
        raise UserError(f"{said_by} = {address}: {_brief(error)}: {remedy}") from None
    except Exception as error:  # of many kinds: another Ray or Python there is a RuntimeError
        raise UserError(f"{said_by} = {address}: {_brief(error)}") from None
    return ray


def _brief(error: Exception) -> str:
    """The first words of a message that goes on for paragraphs."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def _done(held: list, expected: dict[str, str], item: Item) -> Result:
    """On a node: the task's result, if this node computes as the one that asks for it does."""
    import ray

    # At each task, of which all but a process's first cost nothing: a node may join at any time.
    if other := _difference(identity(), expected):
        raise UserError(f"node {ray.util.get_node_ip_address()} has {other}")
    return _task(held[0])(item)


@lru_cache(maxsize=1)
def _task(held: Any) -> Callable[[Item], Result]:
    import ray

    return pickle.loads(ray.get(held))


@cache
def identity() -> dict[str, str]:
    """What decides the bytes that a node computes: versions, and a digest of this package's code."""
    code = hashlib.sha256()
    for file in sorted(file for file in PACKAGE.rglob("*.py") if file.is_file()):
        code.update(f"{file.relative_to(PACKAGE).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    versions = {name: _version(name) for name in DECIDING}
    return {"storyforge": code.hexdigest()[:16], **versions, "Python": platform.python_version()}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(none)"


def _difference(there: dict[str, str], here: dict[str, str]) -> str:
    """The first, in words; "" if there is none."""
    for name, found in there.items():
        if found != here[name]:
            remedy = "uninstall it there" if name == "storyforge" else "install requirements.txt there"
            return f"{name} {found}, this clone {here[name]}: {remedy}"
    return ""
