"""The same kills by the kernel, at the system call itself, in a process that knows nothing of it."""

import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from warm import FIGURES

from storyforge.train.checkpoints import newest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed"),
]
ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from storyforge.train.checkpoints import newest, save
from storyforge.core.files import published_folder
work = Path(sys.argv[1], "work")
work.mkdir(exist_ok=True)
found = newest(work)
for step in range(int(found.name[5:]) + 1 if found else 1, 5):
    save(work, step, lambda folder: (folder / "weights").write_text(str(step)))
with published_folder(Path(sys.argv[1], "out")) as out:
    for name in "ab":
        (out / name).write_text(name)
"""
CALLS = ["rename", "fsync", "mkdir", "unlinkat", "rmdir"]


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_every_call_of_that_kind(tmp_path, call):
    (tmp_path / "script.py").write_text(SCRIPT)
    for number in count(1):
        here = tmp_path / str(number)
        here.mkdir()
        status = traced(here, f"inject={call}:signal=KILL:when={number}")
        if status == 0:
            break
        assert status == -9
        out = here / "out"
        assert not out.exists() or sorted(path.name for path in out.iterdir()) == ["a", "b"]
        assert traced(here, "trace=none") == 0
        assert (newest(here / "work") / "weights").read_text() == "4"
        assert [(out / name).read_text() for name in "ab"] == ["a", "b"]
        assert not list((here / "work").glob("broken-*"))
    FIGURES.append(f"strace, kill -9 at each {call} of four saves and a publication: {number - 1} instants")
    assert number > 2


def traced(here: Path, what: str) -> int:
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", what, sys.executable, "-B", "script.py"]
    done = subprocess.run([*words, here, ROOT / "src"], cwd=here.parent)
    return done.returncode if done.returncode >= 0 else -9
