"""DVC is killed with -9 while it trains, in each way to run it; called again, it gives the same bytes."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from pipeline import Repository
from ruamel.yaml import YAML
from warm import FIGURES

pytestmark = pytest.mark.slow
LONGER = {
    "train.max_steps": None,
    "train.epochs": 20,
    "train.checkpoint_every": 1,
    "train.validate_every": 100,
}
WAYS = {
    "repro": [("repro", "train")],
    "exp run": [("exp", "run", "train")],
    "exp run --temp": [("exp", "run", "--temp", "--name", "again", "train")],
    "queue": [("exp", "run", "--queue", "--name", "again", "train"), ("queue", "start")],
}


@pytest.fixture(scope="module")
def ready(built, tmp_path_factory) -> Repository:
    """All but training is done, and training takes long enough to be killed."""
    ready = built.clone(tmp_path_factory.mktemp("ready") / "storyforge", cache=True)
    ready.choose(LONGER)
    ready.commit("A longer training")
    return ready


@pytest.fixture(scope="module")
def expected(ready, tmp_path_factory) -> str:
    """The hash of the adapter that an undisturbed run gives."""
    there = ready.clone(tmp_path_factory.mktemp("there") / "storyforge", cache=True)
    assert there.repro("train") == ["train"]
    return adapter(there)


@pytest.mark.parametrize(("way", "whom"), [*((way, "dvc") for way in WAYS), ("repro", "all")])
def test_killed_and_called_again(ready, expected, tmp_path, way, whom):
    here = ready.clone(tmp_path / "storyforge", cache=True)
    *before, last = WAYS[way]
    try:
        kills = [kill_while_it_trains(here, before, last, whom) for _ in range(2)]
        for words in before:
            here.dvc(*words)
        said = here.dvc(*last)
        if way == "queue":
            wait_for_success(here)
            said = here.dvc("queue", "logs", "again")
    finally:
        subprocess.run(["dvc", "queue", "stop", "--kill"], cwd=here.root, env=here.env, capture_output=True)
    if "--temp" in last or way == "queue":
        here.dvc("exp", "apply", "again")
    assert "resumed from step" in said
    assert adapter(here) == expected
    FIGURES.append(f"{way}, kill -9 of {whom}: after steps {kills}; the same adapter")


def adapter(repository) -> str:
    lock = YAML(typ="safe").load(repository.root / "dvc.lock")
    outs = {out["path"]: out["md5"] for out in lock["stages"]["train"]["outs"]}
    return outs["models/tuned"]


def kill_while_it_trains(here, before, words, whom: str) -> int:
    """Kill the DVC that started training, or its whole family; returns how many steps were saved."""
    steps = saved(here)
    for first in before:
        here.dvc(*first)
    dvc = subprocess.Popen(
        ["dvc", *words], cwd=here.root, env=here.env, stdout=-3, stderr=-3, start_new_session=True
    )
    end = time.monotonic() + 300
    while saved(here) <= steps + 5:
        assert dvc.poll() is None or "queue" in words, "it ended before it could be killed"
        assert time.monotonic() < end, f"nothing was saved after step {steps}"
        time.sleep(0.02)
    stage = next(pid for pid in processes() if is_training(pid, here.root))
    family = {parent(stage)} | ({stage} if whom == "all" else set())
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    dvc.wait(120)
    end = time.monotonic() + 60
    while any(is_training(pid, here.root) for pid in processes()):
        assert time.monotonic() < end, "an orphan trains on"
        time.sleep(0.05)
    return saved(here)


def saved(here) -> int:
    return max((int(path.name[5:]) for path in here.root.glob(".checkpoints/*/step-*")), default=0)


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def is_training(pid: int, root: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b"storyforge.train.stage" in words and Path(f"/proc/{pid}/cwd").resolve().is_relative_to(root)
    except OSError:
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def wait_for_success(here) -> None:
    end = time.monotonic() + 400
    while "Running" in (status := here.dvc("queue", "status")) or "Queued" in status:
        assert time.monotonic() < end, status
        time.sleep(1)
    assert "Success" in status, status
