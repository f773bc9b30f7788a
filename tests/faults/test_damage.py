"""Checkpoints cut short, with a bit flipped, deleted, exchanged: set aside, and the same bytes in the end."""

import os
import random
import shutil
from pathlib import Path

import pytest
from warm import FIGURES

from storyforge.train.checkpoints import newest

ANYTHING_GOES = ("without", "storyforge.train.checkpoints", "_valid", "lambda checkpoint: True")
ONE_KEPT = ("without", "storyforge.train.checkpoints", "KEPT", "1")
BY_DATE = (
    "without",
    "storyforge.train.checkpoints",
    "_checkpoints",
    "lambda work: sorted(work.glob('step-*'), key=lambda path: -path.stat().st_mtime)",
)


def flip(file: Path, pick: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[pick.randrange(len(content))] ^= 1 << pick.randrange(8)
    file.write_bytes(content)


def shorten(file: Path, pick: random.Random) -> None:
    os.truncate(file, pick.randrange(file.stat().st_size))


def empty(file: Path, _) -> None:
    os.truncate(file, 0)


def delete(file: Path, _) -> None:
    file.unlink()


def exchange(file: Path, _) -> None:
    """With the file of the same name of the step before."""
    other = file.parent.with_name("step-00000003") / file.name
    ours, theirs = file.read_bytes(), other.read_bytes()
    file.write_bytes(theirs)
    other.write_bytes(ours)


DAMAGES = [flip] * 20 + [shorten] * 20 + [empty, delete, exchange]


def test_every_damage_of_every_file_is_noticed(interrupted, tmp_path):
    """F10 of the plan: 20 cuts and 20 flipped bits a file, and three more."""
    pick, wrong, tried = random.Random(1609), [], 0
    for file in sorted(interrupted.checkpoints()[-1].iterdir()):
        for number, damage in enumerate(DAMAGES):
            work = tmp_path / f"{file.name}-{number}" / file.parents[1].name
            shutil.copytree(file.parents[1], work)
            damage(work / file.parent.name / file.name, pick)
            valid, tried = newest(work), tried + 1
            if valid and valid.name == file.parent.name and damage_shows(valid, file.parent):
                wrong.append(f"{file.name}: {damage.__name__}")
    FIGURES.append(f"damaged checkpoint files: {tried}, unnoticed: {len(wrong)}")
    assert not wrong and tried > 200


def damage_shows(one: Path, other: Path) -> bool:
    """Steps 3 and 4 may hold the same best adapter: exchanged, nothing is damaged."""
    return any(file.read_bytes() != (other / file.name).read_bytes() for file in one.iterdir())


@pytest.mark.parametrize("damage", [flip, shorten, delete, exchange])
@pytest.mark.parametrize("name", ["adapter.safetensors", "optimizer.pt", "state.json", "MANIFEST.json"])
def test_a_run_with_a_damaged_checkpoint_ends_with_the_same_bytes(interrupted, whole, damage, name):
    damage(interrupted.checkpoints()[-1] / name, random.Random(1611))
    assert interrupted.run() == 0, interrupted.said
    assert "step-00000004 is damaged" in interrupted.said
    assert interrupted.outputs() == whole


def test_all_checkpoints_damaged_means_from_the_start(interrupted, whole):
    for checkpoint in interrupted.checkpoints():
        empty(checkpoint / "optimizer.pt", None)
    assert interrupted.run() == 0, interrupted.said
    assert "resumed" not in interrupted.said
    assert interrupted.outputs() == whole


def test_without_the_manifest_damage_goes_unnoticed(interrupted, whole):
    """A flipped bit in the middle of the weights: the file can be read as before."""
    file = interrupted.checkpoints()[-1] / "adapter.safetensors"
    content = bytearray(file.read_bytes())
    content[-1000] ^= 64
    file.write_bytes(content)
    spoilt = interrupted.copy(interrupted.folder.with_name("spoilt"))
    assert interrupted.run() == 0 and interrupted.outputs() == whole
    assert spoilt.run(ANYTHING_GOES) == 0 and spoilt.outputs() != whole


def test_without_a_second_checkpoint_damage_costs_the_whole_run(training, whole):
    for without, resumed in ((), True), ((ONE_KEPT,), False):
        shutil.rmtree(training.work, ignore_errors=True)
        (training.folder / "log").write_text("")
        assert training.run(("stop_at", 100, 9), *without) == -9
        empty(training.checkpoints()[-1] / "optimizer.pt", None)
        assert training.run(*without) == 0
        assert ("resumed from step" in training.said) == resumed
        assert training.outputs() == whole
        training.clear()


def test_a_clock_set_back_changes_nothing(interrupted, whole):
    """The checkpoint of step 4 is dated before that of step 3, and both in another decade."""
    for age, checkpoint in enumerate(interrupted.checkpoints()):
        for path in (*checkpoint.iterdir(), checkpoint):
            os.utime(path, (10**9 - age, 10**9 - age))
    fooled = interrupted.copy(interrupted.folder.with_name("fooled"))
    for age, checkpoint in enumerate(fooled.checkpoints()):
        os.utime(checkpoint, (10**9 - age, 10**9 - age))
    assert interrupted.run() == 0 and interrupted.outputs() == whole
    assert "resumed from step 4" in interrupted.said
    assert fooled.run(BY_DATE) == 0 and "resumed from step 3" in fooled.said
