"""A stage ends with a status that tells how, and its volatile figures appear whole."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storyforge.core import before_torch
from storyforge.core.errors import UserError
from storyforge.core.launch import launch, memory_limit


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stage", str(tmp_path / "in"), str(tmp_path / "timing" / "stage.json")])
    return tmp_path


def test_figures_go_to_the_last_path_and_the_others_to_the_stage(command):
    launch(lambda path: {"rows": path.name})
    assert [path.name for path in (command / "timing").iterdir()] == ["stage.json"]
    figures = json.loads((command / "timing" / "stage.json").read_text())
    assert (
        figures.keys() == {"rows", "seconds", "peak_memory_mib", "memory_limit_mib"}
        and figures["rows"] == "in"
    )


def test_a_users_mistake_is_one_line_and_status_1(command, capsys):
    def mistaken(path):
        raise UserError(f"{path.name}: not there: make it")

    with pytest.raises(SystemExit) as ended:
        launch(mistaken)
    assert ended.value.code == 1 and capsys.readouterr().err == "error: in: not there: make it\n"
    assert not (command / "timing").exists()


def test_ctrl_c_ends_without_a_traceback(command):
    with pytest.raises(SystemExit) as ended:
        launch(lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert ended.value.code == 130


def test_figures_that_cannot_be_written_are_a_line_too(command, capsys):
    (command / "timing").write_text("a file")
    with pytest.raises(SystemExit):
        launch(lambda _: None)
    assert "stage.json: File exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "1000000\n"}, 1_000_000),
        ("0::/a/b\n", {"a/b/memory.max": "500000\n", "a/memory.max": "1000000\n"}, 500_000),
        ("0::/a\n", {"b/memory.max": "500000\n"}, None),
        ("4:cpu,memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "700000\n"}, 700_000),
        ("4:memory:/outside/c1\n", {"memory/memory.limit_in_bytes": "600000\n"}, 600_000),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("4:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "700000\n"}, None),
    ],
    ids=["v2 around", "v2 own", "v2 another's", "v1", "v1 in a container", "v1 none", "v1 not of memory"],
)
def test_the_limit_is_the_least_of_the_processs_own_cgroup_and_those_around_it(
    tmp_path, cgroup, files, limit
):
    for name, text in {
        "proc/self/cgroup": cgroup,
        **{f"sys/fs/cgroup/{n}": t for n, t in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == (limit or memory_limit(tmp_path / "no cgroups there"))


def test_a_limit_on_address_space_is_one_on_memory():
    script = "import storyforge.core.launch as launch; print(launch.memory_limit())"
    command = ["bash", "-c", f"ulimit -v 3000000 && exec {sys.executable} -c '{script}'"]
    env = {**os.environ, "PYTHONPATH": str(Path(launch.__code__.co_filename).parents[2])}
    assert int(subprocess.check_output(command, env=env)) <= 3_000_000 * 1024


UNCHANGED = """
import importlib, logging, os, signal, warnings
state = lambda: (
    dict(os.environ), os.getcwd(), logging.getLogger("bitsandbytes").level, logging.root.level,
    [signal.getsignal(number) for number in (2, 15)],
)
before = state()
for name in {modules}:
    importlib.import_module(name)
assert state() == before
"""
LOADING = """
import os, sys
class Finder:
    @staticmethod
    def find_spec(name, path, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            sys.exit()
sys.meta_path.insert(0, Finder)
import storyforge.{stage}.stage
"""


def ended(code, **settings):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | settings | {"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
    )


def test_importing_a_module_without_torch_changes_nothing_in_the_process():
    folders = ("core", "collect", "preprocess", "report")
    files = [file for folder in folders for file in sorted(Path("src/storyforge", folder).glob("*.py"))]
    modules = [f"storyforge.{file.parent.name}.{file.stem}" for file in files if file.stem != "before_torch"]
    assert "storyforge.core.launch" in modules
    done = ended(UNCHANGED.format(modules=modules))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("stage", ["train", "evaluate", "revise", "align", "judge"])
def test_waiting_threads_are_told_how_long_to_spin_before_torch_loads(stage):
    assert ended(LOADING.format(stage=stage)).stdout == "20000\n"
    assert ended(LOADING.format(stage=stage), GOMP_SPINCOUNT="7").stdout == "7\n"


FOUR_BITS = """
import sys
from storyforge.core import before_torch
print("bitsandbytes" in sys.modules)
"""


def test_what_computes_4_bits_is_not_imported_where_there_is_no_cuda_unless_a_cpu_may_do_it():
    there = (
        "True\n" if not before_torch._has_cuda() else "False\n"
    )  # None in its place, which no import finds
    assert ended(FOUR_BITS, STORYFORGE_ALLOW_CPU="").stdout == there
    assert ended(FOUR_BITS, STORYFORGE_ALLOW_CPU="1").stdout == "False\n"
