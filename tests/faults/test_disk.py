"""The disk is full: one line says so, nothing half-written is published, and with room the run goes on."""

import re
import shutil
import subprocess
import sys
from itertools import count

import pytest
from warm import FIGURES


def failed_clearly(place, status: int, whole) -> bool:
    """One line, status 1, and no output that is not whole."""
    line = place.said.splitlines()[-1]
    known = re.match(
        r"error: .*(No space left|File too large|could not be saved, with [\d,]+ bytes free)", line
    )
    return status == 1 and bool(known) and "Traceback" not in place.said and not place.torn(whole)


def test_a_disk_that_is_full_from_some_moment_on(training, whole):
    """At each ninth of all the times that something must last."""
    for number in count(1, 9):
        shutil.rmtree(training.work, ignore_errors=True)
        (training.folder / "log").write_text("")
        if (status := training.run(("full_at", number))) == 0:
            break
        assert failed_clearly(training, status, whole), f"{number}: {training.said}"
        training.clear()
        assert training.run() == 0 and training.outputs() == whole
        training.clear()
    FIGURES.append(f"no space at {number // 9} moments: a clear line each, and the same bytes afterwards")
    assert number > 40


@pytest.mark.parametrize("size", [0, 100, 1000, 20_000, 60_000])
def test_a_disk_that_takes_only_small_files(training, whole, size):
    """safetensors and torch meet this limit in their own code, where nothing of ours can be patched."""
    (training.folder / "log").write_text("")
    status = training.run(("small_files", size))
    # 120 is Python's own, where its last words do not fit into the log either.
    assert status in (1, 120) and "Traceback" not in training.said, training.said
    training.clear()
    assert training.run() == 0 and training.outputs() == whole


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own in memory; a function sets its size."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def size(kib: int, *more: str) -> None:
        words = ["mount", "-t", "tmpfs", "-o", ",".join((*more, f"size={kib}k")), "none", str(disk)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")

    size(64_000)
    yield disk, size
    subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("mount"), reason="tmpfs is Linux's")
@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_small_disk_of_any_size(training, whole, small_disk, step):
    disk, size = small_disk
    place = training.copy(disk / "here")
    (place.folder / "log").unlink()
    (place.folder / "log").symlink_to(training.folder / "log")  # what is said has room
    needed = used(disk) + peak(training)
    sizes = [needed * share // 20 for share in range(1, 21, step)]
    clear = 0
    for kib in sizes:
        shutil.rmtree(place.work, ignore_errors=True)
        place.clear()
        (place.folder / "log").write_text("")
        size(max(kib, used(disk) + 4), "remount")
        status = place.run()
        clear += failed_clearly(place, status, whole) if status else place.outputs() == whole
        place.clear()
        size(64_000, "remount")
        assert place.run() == 0 and place.outputs() == whole, place.said
    FIGURES.append(f"tmpfs of {sizes[0]} to {sizes[-1]} KiB: {clear} of {len(sizes)} clear")
    assert clear == len(sizes)


def used(disk) -> int:
    """KiB in use."""
    found = shutil.disk_usage(disk)
    return found.used // 1024


def peak(training) -> int:
    """KiB that a run needs at most: two checkpoints, a third one while it is saved, and the adapter."""
    training.run(("die_at", 60))
    files = [file for file in training.checkpoints()[-1].iterdir()]
    size = sum(file.stat().st_size for file in files) // 1024
    shutil.rmtree(training.work)
    training.clear()
    return 4 * size
