"""Tasks on a Ray cluster of two nodes on loopback: results, errors and bytes are those of one machine."""

import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import bucket
import pytest
import ray_cluster
import tasks
from pipeline import stories

from storyforge.core import on_ray
from storyforge.collect.sources import folder_text
from storyforge.core.engine_file import Engine
from storyforge.core.errors import UserError
from storyforge.core.files import write_jsonl
from storyforge.core.runner import running
from storyforge.core.storage import Work
from storyforge.core.workers import AHEAD
from storyforge.preprocess import shards, stage
from storyforge.preprocess.stage import PreprocessParams

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: requirements-ray.txt"),
]
ROOT = Path(__file__).parents[2]
RAY = Engine(kind="ray")
STORED = Engine(kind="ray", work=bucket.URL)
TOKEN = {"RAY_AUTH_TOKEN": "of a test " * 4}


def named(item) -> str:
    return f"item {item}"


def shared(task, items, run_by, named):
    with running(run_by) as run:
        yield from run(task, items, named)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes that ask for a token, which the driver finds in its environment, as the address."""
    with (
        ray_cluster.started(RAY_AUTH_MODE="token", **TOKEN, **bucket.KEYS) as head,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {**ray_cluster.LOOPBACK, **TOKEN, "RAY_ADDRESS": head.address}.items():
            patch.setenv(name, value)
        yield head


def test_results_come_in_order_and_items_are_not_read_far_ahead(cluster):
    read = []

    def items():
        for number in range(40):
            read.append(number)
            yield number

    for count, result in enumerate(shared(tasks.squared, items(), RAY, named)):
        assert result == count**2
        assert len(read) <= count + AHEAD * 2
    assert len(read) == 40
    assert list(shared(tasks.squared, [], RAY, named)) == []


def test_both_nodes_work_and_fewer_where_fewer_are_wanted(cluster):
    assert len(set(shared(tasks.process, range(60), RAY, named))) > 1
    assert len(set(shared(tasks.process, range(20), Engine(kind="ray", workers=1), named))) == 1


def test_what_a_killed_process_had_is_done_again(cluster, tmp_path):
    for number in (0, 5, 6, 39):
        (tmp_path / str(number)).touch()
    items = [(str(tmp_path), number) for number in range(40)]
    assert list(shared(tasks.killed_once, items, RAY, str)) == list(range(40))
    assert not list(tmp_path.iterdir())


def test_an_item_that_kills_every_process_is_named_in_one_line(cluster):
    with pytest.raises(UserError, match="^item 7: .* killed 4 times .*: free memory") as raised:
        list(shared(tasks.killed_at_seven, range(40), RAY, named))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


def test_an_error_of_the_task_is_its_own(cluster):
    with pytest.raises(TypeError) as raised:
        list(shared(tasks.squared, ["text"], RAY, named))
    assert type(raised.value) is TypeError
    with pytest.raises(UserError) as raised:
        list(shared(tasks.mistaken, range(3), RAY, named))
    assert type(raised.value) is UserError and str(raised.value) == "file 0: mend it"


def test_a_node_with_another_package_is_named_before_it_has_done_anything(cluster, monkeypatch, tmp_path):
    here = on_ray.identity()
    monkeypatch.setattr(on_ray, "identity", lambda: here | {"ftfy": "6.0"})
    (tmp_path / "0").touch()
    with pytest.raises(UserError, match=r"^node 127\.0\.0\.1 has ftfy .*, this clone 6\.0: install"):
        list(shared(tasks.killed_once, [(str(tmp_path), 0)], RAY, str))
    assert (tmp_path / "0").exists()


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Stories in shards of a few."""
    monkeypatch.setattr(shards, "LEAST_BYTES", 9_000)
    texts = stories(90)
    made = [folder_text(*each) for each in [*texts.items(), ("copy.txt", texts["story-00.txt"])]]
    write_jsonl(tmp_path / "raw/folder.jsonl", made)
    return tmp_path / "raw/folder.jsonl"


@pytest.fixture
def store(cluster, monkeypatch, tmp_path):
    """An object store that both nodes reach; the driver has a cache of its own, as each of them has."""
    monkeypatch.setenv("STORYFORGE_CACHE", str(tmp_path / "cache"))
    with bucket.started(monkeypatch) as found:
        yield found


def preprocessed(raw: Path, name: str, run_by: Engine) -> tuple:
    """Report and bytes."""
    params = PreprocessParams.load(ROOT / "recipes/my-stories.yaml")
    folder = raw.parents[1] / name
    folder.mkdir()
    by = run_by if run_by.work else run_by.model_copy(update={"work": str(raw.parents[1] / "work")})
    report, _ = stage.preprocess([raw], ["Held out."], params, folder, by)
    return report, {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_bytes_of_preprocess_are_those_of_one_process(cluster, raw):
    whole = preprocessed(raw, "alone", Engine(workers=1))
    assert whole == preprocessed(raw, "local", Engine(workers=2)) == preprocessed(raw, "ray", RAY)
    assert all(whole[1].values())


def test_a_process_killed_in_the_middle_of_it_changes_no_byte_and_costs_little(cluster, raw, monkeypatch):
    ids = [story.id for story in shards.Shard(0, raw, 0, 10**9).stories()]
    mark = Path(cluster.folder, "marks", ids[50])
    mark.parent.mkdir(exist_ok=True)
    monkeypatch.setattr(stage, "Examiner", tasks.KilledExaminer)
    made, took = [], []
    for name in ("whole", "killed"):
        if name == "killed":
            mark.touch()
        start = time.monotonic()
        made.append(preprocessed(raw, name, RAY))
        took.append(time.monotonic() - start)
    assert made[0] == made[1] and not mark.exists()
    assert took[1] < took[0] + 30


def test_nodes_that_share_a_store_and_no_disk_make_the_same_bytes(cluster, raw, store, monkeypatch):
    whole = preprocessed(raw, "alone", Engine(workers=1))
    monkeypatch.setattr(stage, "Examiner", tasks.MeetingExaminer)
    assert preprocessed(raw, "ray", STORED) == whole
    fetched = Counter(path.partition("/")[2] for path in store.paths("GET"))
    assert any(name.endswith("/texts.npy") for name in fetched)  # one node's, by the other
    assert fetched["texts.npy"]  # the driver's
    assert Work(bucket.URL).names() == set()
    assert not list(Path(cluster.folder).glob("*/work/*"))


def test_a_store_that_is_lost_is_one_line_and_a_second_run_goes_on(cluster, raw, store):
    whole, published = preprocessed(raw, "alone", Engine(workers=1)), []

    def refuse(method, path):
        if method == "PUT" and path.endswith("/read.json"):
            published.append(path)
        return bucket.DENIED if len(published) > 2 else None

    store.refuse = refuse
    with pytest.raises(
        UserError, match=rf"^{bucket.URL}/\S+: ACCESS_DENIED in \w+: .*: give every"
    ) as raised:
        preprocessed(raw, "refused", STORED)
    assert type(raised.value) is UserError and "\n" not in str(raised.value)
    store.refuse = lambda method, path: None
    done = {name for name in Work(bucket.URL).names() if name.endswith("/read.json")}
    store.requests.clear()
    assert preprocessed(raw, "again", STORED) == whole
    assert len(done) == 2 and not done & set(store.paths("PUT"))
    store.refuse = lambda method, path: store.stop() if "000003/" in path else None
    with pytest.raises(
        UserError, match=rf"^{bucket.URL}/\S+: NETWORK_CONNECTION in \w+: .*: see that it answers"
    ):
        preprocessed(raw, "ended", STORED)


def test_a_broken_line_has_its_number_in_the_file_of_the_clone(cluster, raw, store):
    with raw.open("a") as file:
        file.write("{broken\n")
    lines = len(raw.read_bytes().splitlines())
    for number, run_by in enumerate((RAY, STORED)):
        with pytest.raises(UserError, match=f"raw/folder.jsonl, line {lines}: not a Story"):
            preprocessed(raw, str(number), run_by)


def told(cluster) -> str:
    """What it answers to a line."""
    cluster.stdin.write("\n")
    cluster.stdin.flush()
    return cluster.stdout.readline()


def test_a_node_that_is_lost_costs_its_time_alone(cluster):
    results = shared(tasks.process, range(300), RAY, named)
    first = [next(results) for _ in range(5)]
    assert told(cluster) == "lost\n"
    assert len(first) + len(list(results)) == 300
    assert told(cluster) == "there\n"


def test_a_node_lost_in_the_middle_of_preprocess_changes_no_byte(cluster, raw, store):
    """The last test: one node is left."""
    whole, lost = preprocessed(raw, "alone", Engine(workers=1)), []

    def refuse(method, path):
        if "000003/" in path and not lost:
            lost.append(path)
            lost.append(told(cluster))

    store.refuse = refuse
    assert preprocessed(raw, "ray", STORED) == whole
    assert lost[1:] == ["lost\n"]
