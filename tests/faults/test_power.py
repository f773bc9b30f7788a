"""The power fails: what was not synced is lost. Once a file is published or a checkpoint saved, it stays.

A process that is killed loses no written byte, so kills cannot show that a sync is missing. Here a disk is
played on which the worst happens: at the cut, files not synced since they were written are empty, and
names not synced since they were changed are the old ones.
"""

import os
from collections.abc import Callable
from pathlib import Path
from stat import S_ISDIR, S_ISREG

import pytest
from warm import FIGURES

from storyforge.core.files import published, published_folder
from storyforge.train.checkpoints import newest, save


class Cut(BaseException):
    """Nothing in the code catches it: power is gone."""


class Disk:
    """Watches `folder`; cuts the power instead of the call of that number."""

    def __init__(self, folder: Path, monkeypatch, cut_at: int | None = None):
        self.folder, self.cut_at, self.calls = folder, cut_at, 0
        there = [file.stat() for file in folder.rglob("*") if file.is_file()]
        self.synced = {file.st_ino: file.st_size for file in there}  # inode → bytes that are safe
        self.renames: list[tuple[Path, Path, Path | None]] = []  # from, to, what stood there
        for name in ("fsync", "rename", "replace"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))
        self.rename, self.older = os.rename.__wrapped__, folder.with_name("older")
        self.older.mkdir(exist_ok=True)

    def _watched(self, name: str, call: Callable):
        def watched(*args):
            self.calls += 1
            if self.calls == self.cut_at:
                raise Cut
            if name == "fsync":
                self._sync(args[0])
            else:
                self._note(*map(Path, args))
            return call(*args)

        watched.__wrapped__ = call
        return watched

    def _sync(self, handle: int) -> None:
        found = os.fstat(handle)
        self.synced[found.st_ino] = found.st_size
        self.renames = [r for r in self.renames if r[1].parent.stat().st_ino != found.st_ino]

    def _note(self, old: Path, new: Path) -> None:
        kept = None
        if new.is_file():
            kept = self.older / str(self.calls)
            os.link(new, kept)
        self.renames.append((old, new, kept))

    def fail(self) -> None:
        """What the next start finds."""
        for file in self.folder.rglob("*"):
            if file.is_file() and self.synced.get(file.stat().st_ino) != file.stat().st_size:
                os.truncate(file, 0)
        for old, new, kept in reversed(self.renames):
            if new.exists():
                old.parent.mkdir(exist_ok=True)  # its removal came after
                self.rename(new, old)
            if kept:
                self.rename(kept, new)


def cut_everywhere(tmp_path, act, right) -> int:
    """Cut at every call and, last, after all; `right` judges what is found. Returns how many cuts."""
    number = 0
    while True:
        number += 1
        folder = tmp_path / str(number) / "work"
        folder.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            prepare(folder)
            disk, finished = Disk(folder, patch, number), True
            try:
                act(folder)
            except Cut:
                finished = False
        disk.fail()
        assert right(folder, finished), f"cut instead of call {number}: {sorted(folder.rglob('*'))}"
        if finished:
            return number


def prepare(folder: Path) -> None:
    """An older file, an older folder and an older checkpoint, all safe."""
    (folder / "out").mkdir()
    for file in (folder / "file", folder / "out" / "a"):
        file.write_text("old")
    save(folder, 1, lambda staging: (staging / "weights").write_text("one"))


def publish_file(folder: Path) -> None:
    with published(folder / "file") as file:
        file.write(b"new")


def file_is_right(folder: Path, finished: bool) -> bool:
    return (folder / "file").read_text() in (["new"] if finished else ["new", "old"])


def publish_folder(folder: Path) -> None:
    with published_folder(folder / "out") as out:
        (out / "deep").mkdir()
        (out / "a").write_text("new")
        (out / "deep" / "b").write_text("new")


def folder_is_right(folder: Path, finished: bool) -> bool:
    """DVC deletes an output before its stage, so none is as good as the old one."""
    if not (folder / "out").exists():
        return not finished
    texts = [file.read_text() for file in sorted((folder / "out").rglob("*")) if file.is_file()]
    return texts == ["new", "new"] or (not finished and texts == ["old"])


def save_two(folder: Path) -> None:
    save(folder, 2, lambda staging: (staging / "weights").write_text("two"))


def checkpoint_is_right(folder: Path, finished: bool) -> bool:
    found = newest(folder)
    return found is not None and (found / "weights").read_text() in (["two"] if finished else ["one", "two"])


ACTS = {
    "file": (publish_file, file_is_right),
    "folder": (publish_folder, folder_is_right),
    "checkpoint": (save_two, checkpoint_is_right),
}


@pytest.mark.parametrize("kind", ACTS)
def test_power_cut_at_any_call_loses_nothing_that_was_finished(tmp_path, kind):
    cuts = cut_everywhere(tmp_path, *ACTS[kind])
    FIGURES.append(f"power cut while a {kind} is published: {cuts} instants, 0 wrong")
    assert cuts > 3


@pytest.mark.parametrize("kind", ACTS)
@pytest.mark.parametrize("is_lost", [S_ISREG, S_ISDIR], ids=["files", "names"])
def test_without_the_sync_it_is_lost(tmp_path, kind, is_lost, monkeypatch):
    sync = Disk._sync
    monkeypatch.setattr(
        Disk, "_sync", lambda disk, handle: is_lost(os.fstat(handle).st_mode) or sync(disk, handle)
    )
    with pytest.raises(AssertionError, match="cut instead of call"):
        cut_everywhere(tmp_path, *ACTS[kind])
