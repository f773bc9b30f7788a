"""A stage ends with the DVC that started it, and with nothing else: however it was started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline import Repository
from rules_graph import START

ROOT = Path(__file__).parents[2]
STAGE = """
import os, sys, time
from pathlib import Path
from storyforge.core import launch

def main(out):
    seconds = float(Path("seconds").read_text())
    Path(os.environ["NOTES"], "pid").write_text(str(os.getpid()))
    time.sleep(seconds)
    out.write_text("done")

if "WATCHED" in os.environ:
    launch.end_with_parent = lambda: None
launch.launch(main)
"""
IMPORTS = """
import time
from pathlib import Path
from storyforge.core.launch import launch
Path("importing").touch()
while Path("importing").exists():
    time.sleep(0.02)
launch(lambda out: out.write_text("done") and None)
"""
PARENT = """
import subprocess, sys, time
from pathlib import Path
print(subprocess.Popen(sys.argv[1:], stdout=-3, stderr=-3).pid)
while not Path("importing").exists():
    time.sleep(0.02)
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")


@pytest.fixture
def sleeper(tmp_path, environment):
    """A repository of one stage, which sleeps and writes; outside it, where the stage notes its number."""
    root, notes = tmp_path / "here", tmp_path / "notes"
    for folder in (root, notes):
        folder.mkdir()
    repository = Repository(root, {**environment, "NOTES": str(notes)})
    (root / "src").mkdir()
    (root / "src" / "storyforge").symlink_to(ROOT / "src" / "storyforge")
    (root / "src" / "sleep.py").write_text(STAGE)
    (root / "seconds").write_text("60")
    (root / "dvc.yaml").write_text(
        f"stages:\n  sleep:\n    cmd: {START} sleep out timing.json\n"  # begins as our stages' commands do
        "    deps: [src/sleep.py, seconds]\n    outs: [out]\n"
    )
    repository.git("init", "--quiet")
    repository.dvc("init", "--quiet")
    (root / ".gitignore").write_text("/out\n/timing.json\n")
    repository.commit("One stage")
    return repository


def start(repository, *words: str) -> tuple[subprocess.Popen, int]:
    """DVC and the stage, which has begun to sleep."""
    note = Path(repository.env["NOTES"], "pid")
    dvc = subprocess.Popen(
        ["dvc", *words], cwd=repository.root, env=repository.env, stdout=-3, stderr=-3, start_new_session=True
    )
    end = time.monotonic() + 180
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < end and dvc.poll() is None, "the stage did not start"
        time.sleep(0.05)
    return dvc, int(note.read_text())


def alive_after(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.05)
    return True


@linux
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_kill_of_dvc_alone_leaves_no_stage(sleeper, shell):
    if not Path(shell).exists():
        pytest.skip(f"no {shell}")
    here = Repository(sleeper.root, {**sleeper.env, "SHELL": shell})
    dvc, stage = start(here, "repro")
    os.kill(dvc.pid, signal.SIGKILL)
    dvc.wait()
    assert not alive_after(stage, 5)
    (here.root / "seconds").write_text("0")
    assert here.repro() == ["sleep"] and (here.root / "out").read_text() == "done"


@linux
def test_without_the_watch_it_would_write_on(sleeper):
    here = Repository(sleeper.root, {**sleeper.env, "WATCHED": "no"})
    dvc, stage = start(here, "repro")
    os.kill(dvc.pid, signal.SIGKILL)
    dvc.wait()
    try:
        assert alive_after(stage, 1)
    finally:
        os.kill(stage, signal.SIGKILL)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("words", [("exp", "run"), ("exp", "run", "--temp")])
def test_kill_of_an_experiment_leaves_no_stage(sleeper, words):
    dvc, stage = start(sleeper, *words)
    os.kill(dvc.pid, signal.SIGKILL)
    dvc.wait()
    assert not alive_after(stage, 5)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("repro",), ("exp", "run"), ("exp", "run", "--temp")])
def test_no_way_to_run_kills_a_stage_whose_parent_lives(sleeper, words):
    (sleeper.root / "seconds").write_text("3")
    sleeper.dvc(*words)


@pytest.mark.slow
def test_queue_finishes_what_it_started(sleeper):
    """Its worker outlives the command that starts it."""
    (sleeper.root / "seconds").write_text("3")
    sleeper.dvc("exp", "run", "--queue", "--name", "later")
    sleeper.dvc("queue", "start")
    try:
        end = time.monotonic() + 180
        while "Success" not in (status := sleeper.dvc("queue", "status")):
            assert time.monotonic() < end and "Failed" not in status, status
            time.sleep(1)
    finally:
        sleeper.dvc("queue", "stop", "--kill")


@pytest.mark.parametrize("how", ["by hand", "by DVC, which died during the imports"])
@linux
def test_a_stage_started_by_hand_outlives_its_shell_and_an_orphan_does_not_begin(tmp_path, how):
    """The parent dies while the stage imports."""
    (tmp_path / "stage.py").write_text(IMPORTS)
    env = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    env |= {"PYTHONPATH": str(ROOT / "src")} | ({} if how == "by hand" else {"DVC_STAGE": "sleep"})
    words = [sys.executable, "-c", PARENT, sys.executable, "stage.py", "out", "timing.json"]
    done = subprocess.run(words, cwd=tmp_path, env=env, check=True, capture_output=True, text=True)
    (tmp_path / "importing").unlink()
    assert not alive_after(int(done.stdout), 20)
    assert (tmp_path / "out").exists() == (how == "by hand")
