"""kill -9 at any instant, any number of times: the next run gives the same bytes, and nobody helps it."""

import random
import time
from collections.abc import Iterator
from itertools import count

import pytest
from warm import FIGURES

ONE_SAVE = {"max_steps": 2, "checkpoint_every": 2}
SAVED_IN_PLACE = """lambda work, step, write: (
    (final := work / f"step-{step:08d}").mkdir(exist_ok=True),
    write(final),
    (final / "MANIFEST.json").write_text(json.dumps(
        sys.modules["storyforge.train.checkpoints"]._manifest(final, work.name, final.name)
    )),
)"""
SAVED_IN_PLACE = ("without", "storyforge.train.loop", "save", SAVED_IN_PLACE)
DELETED_IN_PLACE = ("without", "storyforge.train.stage", "discard", "__import__('shutil').rmtree")
PUBLISHED_IN_PLACE = (
    "without",
    "storyforge.train.stage",
    "published_folder",
    "__import__('contextlib').contextmanager(lambda path: (path.mkdir(parents=True), (yield path)))",
)


def killed_at_random(place, whole, kills: int, seed: int) -> dict[str, int]:
    """Killed that often, on and on through resumed runs; a run that outlives its instant must be right."""
    pick, found = random.Random(seed), {"kills": 0, "finished": 0, "torn": 0, "different": 0}
    timed, begin = place.copy(place.folder.with_name("timed")), time.perf_counter()
    timed.run()
    length, status = time.perf_counter() - begin, None
    while found["kills"] < kills or status:
        place.clear()
        status = place.killed_after(pick.uniform(0, 1.2 * length)) if found["kills"] < kills else place.run()
        assert status in (0, -9), place.said
        found["finished" if status == 0 else "kills"] += 1
        found["different" if status == 0 else "torn"] += place.outputs() != whole and (
            status == 0 or bool(place.torn(whole))
        )
    return found


def killed_at_every_call(place, whole, *without, first: int = 1) -> Iterator[str]:
    """Killed instead of the first call to the disk, the second … and run again; for each what went wrong."""
    for number in count(first):
        place.clear()
        (place.folder / "log").write_text("")
        if place.run(("die_at", number), *without) == 0:
            return  # there are no more calls
        torn = place.torn(whole)
        place.clear()
        status = place.run(*without)
        halves = "damaged" in place.said
        different = status or place.outputs() != whole
        yield f"{number}: torn {torn}, {place.said}" if torn or halves or different else ""


def counted(results: list[str]) -> str:
    return f"{len(results)} instants, {sum(map(bool, results))} wrong"


def test_training_killed_fifty_times_ends_with_the_same_bytes(training, whole):
    found = killed_at_random(training, whole, kills=50, seed=1604)
    FIGURES.append(f"train, kill -9 at random instants: {found}")
    assert found["torn"] == found["different"] == 0
    assert "resumed from step" in training.said and "damaged" not in training.said


def test_aligning_killed_twenty_times_ends_with_the_same_bytes(aligning, tmp_path):
    undisturbed, place = aligning.copy(tmp_path / "undisturbed"), aligning.copy(tmp_path / "here")
    assert undisturbed.run() == 0, undisturbed.said
    found = killed_at_random(place, undisturbed.outputs(), kills=20, seed=1611)
    FIGURES.append(f"align, kill -9 at random instants: {found}")
    assert found["torn"] == found["different"] == 0
    assert "resumed from step" in place.said and "damaged" not in place.said


@pytest.mark.slow
def test_aligning_killed_at_every_call_to_the_disk(aligning, tmp_path):
    undisturbed, place = aligning.copy(tmp_path / "undisturbed"), aligning.copy(tmp_path / "here")
    assert undisturbed.run() == 0, undisturbed.said
    results = list(killed_at_every_call(place, undisturbed.outputs()))
    FIGURES.append(f"align, kill -9 at each call to the disk: {counted(results)}")
    assert not any(results), "\n".join(results)


LATER = [
    pytest.param(stage, marks=pytest.mark.slow) for stage in ("preprocess", "evaluate", "revise", "report")
]


@pytest.mark.parametrize("stage", ["collect", *LATER])
def test_other_stages_killed_at_random_and_at_every_call_to_the_disk(ran, stage, tmp_path):
    whole, place = ran(stage).outputs(), ran(stage).copy(tmp_path / "here")
    found = killed_at_random(place, whole, kills=10, seed=1623)
    results = list(killed_at_every_call(place, whole))
    FIGURES.append(
        f"{stage}, kill -9 at random instants: {found}; at each call to the disk: {counted(results)}"
    )
    assert found["torn"] == found["different"] == 0
    assert not any(results), "\n".join(results)


def test_judging_killed_twenty_times_ends_with_the_same_bytes(judging, tmp_path):
    undisturbed, place = judging.copy(tmp_path / "undisturbed"), judging.copy(tmp_path / "here")
    assert undisturbed.run() == 0 and "win rate" in undisturbed.said, undisturbed.said
    found = killed_at_random(place, undisturbed.outputs(), kills=20, seed=1611)
    FIGURES.append(f"judge, kill -9 at random instants: {found}")
    assert found["torn"] == found["different"] == 0
    assert "damaged" not in place.said and not list(place.work.glob("*/*.jsonl"))


@pytest.fixture
def short(training):
    """Two steps, one save, one publication; and what an undisturbed run gives."""
    training.choose(**ONE_SAVE)
    undisturbed = training.copy(training.folder.with_name("undisturbed"))
    assert undisturbed.run() == 0
    return training, undisturbed.outputs()


@pytest.mark.slow
def test_killed_at_every_call_of_one_save_and_one_publication(short):
    results = list(killed_at_every_call(*short))
    FIGURES.append(
        f"train, kill -9 at each call to the disk of one save and one publication: {counted(results)}"
    )
    assert not any(results), "\n".join(results)


@pytest.mark.slow
@pytest.mark.parametrize("without", [SAVED_IN_PLACE, PUBLISHED_IN_PLACE], ids=["save", "publication"])
def test_without_the_rename_it_is_torn(short, without):
    assert next(filter(None, killed_at_every_call(*short, without)), None)


@pytest.mark.slow
def test_without_the_rename_work_that_is_deleted_is_half_there(short):
    """It is deleted after the publication, in the last of the calls."""
    assert next(filter(None, killed_at_every_call(*short, DELETED_IN_PLACE, first=25)), None)
