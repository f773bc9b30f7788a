"""The lock with hashes names exactly the pinned versions; `make setup HASHES=1` installs nothing else."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK, CUDA = ROOT / "requirements.lock", ROOT / "requirements-cuda.lock"
LISTS = ("requirements.txt", "requirements-dev.txt", "requirements-documents.txt", "requirements-judge.txt")
PINNED = (*LISTS, "constraints.txt")
HASH = "--hash=sha256:"
lock = runpy.run_path(str(ROOT / ".ci" / "lock.py"))


def pins(*files: Path) -> set[tuple[str, str]]:
    """(name, version) of every line with one."""
    lines = [
        line.partition(" #")[0].rstrip(" \\") for file in files for line in file.read_text().splitlines()
    ]
    found = [Requirement(line) for line in lines if "==" in line and not line.startswith(("#", "-"))]
    return {(canonicalize_name(pin.name), str(pin.specifier).removeprefix("==")) for pin in found}


def test_the_lock_holds_exactly_the_pins():
    assert pins(LOCK) == pins(*(ROOT / name for name in PINNED)) - pins(CUDA)


def test_what_only_cuda_needs_stands_apart():
    """Else a CPU build of torch would bring gigabytes of CUDA along; torch itself pins most of them."""
    names = {name for name, _ in pins(CUDA)}
    assert {"nvidia-cublas", "triton"} <= names and all(name.startswith(lock["CUDA"]) for name in names)
    assert not {name for name, _ in pins(LOCK)} & names


def test_the_packages_of_cuda_are_of_one_release():
    """13.0, which torch is built with. What torch leaves open constraints.txt pins, but so that the build
    with CUDA 12 may be installed instead: its packages end in -cu12, and its cuda-bindings is 12.9."""
    found = dict(pins(CUDA))
    assert found["cuda-toolkit"].startswith("13.0.")
    for name in ("bindings", "nvrtc", "runtime", "cupti"):
        assert found.get(f"nvidia-cuda-{name}", found.get(f"cuda-{name}")).startswith("13.0."), name
    assert found["nvidia-nvjitlink"].startswith("13.0.") and found["nvidia-nvtx"].startswith("13.0.")
    assert all(name.endswith("-cu13") for name in found if "-cu1" in name)
    lines = [
        Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"
    ]
    open_ones = {pin.name: pin.specifier for pin in lines if pin.name in found}
    assert open_ones.keys() == {"cuda-bindings", "cuda-pathfinder", "nvidia-nvjitlink"}
    assert all(found[name] in specifier for name, specifier in open_ones.items())
    assert "12.9.7" in open_ones["cuda-bindings"] and "13.5.0" not in open_ones["cuda-bindings"]


@pytest.mark.parametrize("file", [LOCK, CUDA])
def test_every_package_has_hashes_and_only_wheels_where_there_are_any(file):
    text = file.read_text()
    assert "\n--only-binary :all:\n" in text
    for entry in re.findall(r"(?m)^\w.*==(?:.*\\\n)*.*", text):
        assert HASH in entry
    sources = {"antlr4-python3-runtime", "wsgidav"} if file == LOCK else set()
    assert set(re.findall(r"(?m)^--no-binary (\S+)$", text)) == sources


def file(name: str, digest: str) -> dict:
    return {"url": f"https://index.example/{name}", "hashes": {"sha256": digest}}


def test_of_each_package_the_hashes_that_linux_and_macos_need_are_kept():
    wheels = [file("a-1-py3-none-any.whl", "any"), file("a-1-cp310-cp310-win_amd64.whl", "windows")]
    packages = [
        {"name": "a", "version": "1", "wheels": wheels, "sdist": file("a-1.tar.gz", "source")},
        {"name": "b", "version": "2", "marker": "sys_platform == 'darwin'", "sdist": file("b.tar.gz", "b")},
        {"name": "c", "version": "3", "marker": "sys_platform == 'win32'", "wheels": wheels},
    ]
    assert list(lock["entries"](packages, {"a==1": {"another"}})) == [
        ("a", f"a==1 \\\n    {HASH}another \\\n    {HASH}any\n"),
        ("b", f"--no-binary b\nb==2 ; sys_platform == 'darwin' \\\n    {HASH}b\n"),
    ]


def test_another_build_of_torch_is_added_and_stays(tmp_path):
    wheel = tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    wheel.write_bytes(b"")
    known = lock["known_builds"]([])["torch==2.13.0"]
    assert len(known) > 10
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert lock["known_builds"]([wheel])["torch==2.13.0"] == {*known, empty}


def commands(folder: Path, *choices: str) -> list[str]:
    """The pip commands of `make setup`, newer pins having come since the last one."""
    return re.findall(r"-m pip install (.*)", printed(folder, *choices))


def printed(folder: Path, *choices: str) -> str:
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / ".ready").touch()  # a plain set-up was made before
    for name in ("Makefile", "pyproject.toml", LOCK.name, CUDA.name, *PINNED):
        shutil.copy(ROOT / name, folder)
    done = subprocess.run(["make", "-n", "setup", *choices], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_set_up_with_hashes_installs_nothing_without(tmp_path):
    *installs, own = commands(tmp_path, "HASHES=1")
    assert [line.split("--requirement ")[1].partition(";")[0] for line in installs] == [
        ".venv/setuptools.lock",
        "requirements.lock",
        "requirements-cuda.lock",
    ]
    assert all("--require-hashes" in line and "--no-build-isolation" in line for line in installs)
    assert own.endswith("--editable .") and "--no-deps --no-build-isolation" in own


def test_set_up_looks_at_the_gpu_before_it_fetches_torch(tmp_path):
    lines = printed(tmp_path, "TORCH_INDEX=https://wheels.example").splitlines()
    looked = [n for n, line in enumerate(lines) if "graphics 'https://wheels.example'" in line]
    [fetched] = [n for n, line in enumerate(lines) if "--requirement requirements.txt" in line]
    assert [n < fetched for n in looked] == [True, False]  # and again where all was installed before


def test_plain_set_up_asks_for_no_hash_and_so_takes_any_index(tmp_path):
    assert commands(tmp_path) == ["--quiet --no-compile --requirement requirements.txt"]


@pytest.mark.slow
def test_the_lock_resolves_for_this_python():
    """What is installed here is not fetched again, as long as it has the version of the lock."""
    words = ["--dry-run", "--no-deps", "--no-build-isolation", "--require-hashes", "--requirement", str(LOCK)]
    done = subprocess.run([sys.executable, "-m", "pip", "install", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout
