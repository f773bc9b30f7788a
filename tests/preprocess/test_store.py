"""Tasks that share an object store and no disk: the same bytes, and a store's faults are one line."""

import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import bucket
import pytest
import tasks
from bucket import BUSY, DENIED, URL
from pipeline import stories

from storyforge.collect.sources import folder_text
from storyforge.core.engine_file import Engine
from storyforge.core.errors import UserError
from storyforge.core.files import dumps, write_jsonl
from storyforge.core.storage import Work
from storyforge.preprocess import shards, stage
from storyforge.preprocess.stage import PreprocessParams, preprocess

PARAMS = PreprocessParams.load(Path(__file__).parents[2] / "recipes/my-stories.yaml")
RAW = Path("raw/folder.jsonl")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A bucket, and a folder with raw stories in shards of a few; `marks` is for `tasks.KilledExaminer`."""
    (tmp_path / "marks").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORYFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "LEAST_BYTES", 6_000)
    texts = stories(60)
    write_jsonl(RAW, [folder_text(*each) for each in [*texts.items(), ("copy.txt", texts["story-00.txt"])]])
    with bucket.started(monkeypatch) as found:
        yield found


def made(folder: str, **engine) -> tuple:
    """Report and bytes."""
    Path(folder).mkdir(exist_ok=True)
    report, read = preprocess([RAW], ["Held out."], PARAMS, Path(folder), Engine(**{"workers": 1} | engine))
    return report, read, {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def left() -> set[str]:
    return {name.partition("/")[2] for name in Work(URL).names()}


def test_the_bytes_are_those_of_a_folder_and_nothing_stays(store, monkeypatch):
    whole = made("folder")
    monkeypatch.setattr(stage, "Examiner", tasks.BlindExaminer)
    assert whole == made("two", work=URL, workers=2)
    assert left() == set() and not Path(".work").exists()
    assert all(whole[2].values()) and len(whole[2]) == 4
    assert list(Path("cache/work").iterdir()) == []


def test_a_node_needs_nothing_of_another_but_the_store(store, monkeypatch):
    """Each task as on a node that has never done one."""
    monkeypatch.setattr(shards, "LEAST_BYTES", 20_000)
    whole, names = made("folder"), []

    def on_new_nodes(task, items, named):
        for item in items:
            monkeypatch.setenv("STORYFORGE_CACHE", str(Path(f"node-{len(names)}").absolute()))
            names.append(task.__name__)
            yield task(item)

    @contextmanager
    def running(engine):
        yield on_new_nodes

    monkeypatch.setattr(stage, "Examiner", tasks.BlindExaminer)
    monkeypatch.setattr(stage, "running", running)
    assert made("apart", work=URL) == whole
    assert {"examine", "alike", "copies", "overlapping", "write"} <= set(names)


def test_what_is_published_under_a_name_is_always_the_same(store, monkeypatch):
    published, publishing = [], Work.publishing

    def noted(work, name):
        published.append(name)
        return publishing(work, name)

    monkeypatch.setattr(Work, "publishing", noted)
    made("folder", work=URL)
    assert len(published) == len(set(published)) > 20


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "on another machine"])
def test_a_run_that_was_killed_goes_on(store, monkeypatch, elsewhere):
    whole, gone_on = made("folder"), tasks.ended_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        made("store", work=URL)
    if elsewhere:
        shutil.rmtree(".work")
        shutil.rmtree("cache")
    again = gone_on()
    assert made("store", work=URL) == whole
    assert again[0] == 3 and len(again) == again[-1] - 2
    assert left() == set()


def test_a_process_that_is_killed_changes_no_byte(store, monkeypatch):
    whole = made("folder")
    monkeypatch.setattr(stage, "Examiner", tasks.KilledExaminer)
    mark = Path("marks", [story.id for story in shards.Shard(0, RAW, 0, 10**9).stories()][40])
    mark.touch()
    assert made("killed", work=URL, workers=2) == whole
    assert not mark.exists()


MOMENTS = ["000005/cards.npy", "raw/000005/", "/compared.npy", "000002/train.jsonl"]


@pytest.mark.parametrize(("where", "workers"), [*((where, 1) for where in MOMENTS), (MOMENTS[0], 2)])
def test_a_refusal_in_the_middle_is_one_line_and_a_second_run_goes_on(store, where, workers):
    whole, refused = made("folder"), []

    def refuse(method, path):
        if where in path:
            refused.append(path)
        return DENIED if refused else None

    store.refuse = refuse
    with pytest.raises(UserError, match=rf"^{URL}/\S+: ACCESS_DENIED in \w+: .*: give every node") as raised:
        made("store", work=URL, workers=workers)
    assert "\n" not in str(raised.value) and not any(Path("store").iterdir())
    store.refuse = lambda method, path: None
    done = {name for name in Work(URL).names() if name.endswith("/read.json")}
    store.requests.clear()
    assert made("store", work=URL, workers=workers) == whole
    assert done and not done & set(store.paths("PUT"))


def test_a_store_that_ends_in_the_middle_is_one_line(store):
    def refuse(method, path):
        if "000003/" in path:
            store.stop()
            return BUSY

    store.refuse = refuse
    with pytest.raises(UserError, match=rf"^{URL}/\S+: NETWORK_CONNECTION in \w+: .*: see that it answers"):
        made("store", work=URL)
    assert not any(Path("store").iterdir())


def test_a_bucket_that_is_not_there_is_one_line_before_anything_is_done(store, monkeypatch):
    monkeypatch.setattr(stage.Examiner, "examine", None)
    with pytest.raises(UserError, match=r"^s3://other/\w+/begun: NO_SUCH_BUCKET in \w+: .*: make that"):
        made("store", work="s3://other")


def test_a_broken_line_has_its_number_in_the_file_of_the_clone(store):
    with RAW.open("a") as file:
        file.write("{broken\n")
    lines = len(RAW.read_bytes().splitlines())
    with pytest.raises(UserError, match=f"raw/folder.jsonl, line {lines}: not a Story"):
        made("store", work=URL)
    assert lines > 40


def test_a_story_of_another_source_is_named_in_the_file_of_the_clone(store):
    story = folder_text("x.txt", "Once.")
    with RAW.open("a") as file:
        file.write(dumps(replace(story, source="other")) + "\n")
    with pytest.raises(
        UserError, match="^/.*/raw/folder.jsonl: story .* is of source 'other', not of 'folder'"
    ):
        made("store", work=URL)
