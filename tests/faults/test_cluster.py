"""Tasks on a Ray cluster of two nodes on loopback: results, errors and bytes are those of one machine."""

from importlib.util import find_spec
from pathlib import Path

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
from storyforge.core.workers import AHEAD
from storyforge.preprocess import stage
from storyforge.preprocess.stage import PreprocessParams

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: requirements-ray.txt"),
]
ROOT = Path(__file__).parents[2]
RAY = Engine(kind="ray")
TOKEN = {"RAY_AUTH_TOKEN": "of a test " * 4}


def named(item) -> str:
    return f"item {item}"


def shared(task, items, run_by, named):
    with running(run_by) as run:
        yield from run(task, items, named)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes that ask for a token, which the driver finds in its environment, as the address."""
    with ray_cluster.started(RAY_AUTH_MODE="token", **TOKEN) as head, pytest.MonkeyPatch.context() as patch:
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


def test_the_bytes_of_preprocess_are_those_of_one_process(cluster, tmp_path):
    texts = stories(90)
    made = [folder_text(*each) for each in [*texts.items(), ("copy.txt", texts["story-00.txt"])]]
    write_jsonl(tmp_path / "raw/folder.jsonl", made)
    params, results = PreprocessParams.load(ROOT / "recipes/my-stories.yaml"), []
    for name, run_by in (("alone", Engine(workers=1)), ("local", Engine(workers=2)), ("ray", RAY)):
        (tmp_path / name).mkdir()
        by = run_by.model_copy(update={"work": str(tmp_path / "work")})
        report, _ = stage.preprocess(
            [tmp_path / "raw/folder.jsonl"], ["Held out."], params, tmp_path / name, by
        )
        results.append((report, {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}))
    assert results[0] == results[1] == results[2]
    assert all(results[0][1].values())


def test_a_node_that_is_lost_costs_its_time_alone(cluster):
    """The last test: one node is left."""
    results = shared(tasks.process, range(300), RAY, named)
    first = [next(results) for _ in range(5)]
    cluster.stdin.write("\n")
    cluster.stdin.flush()
    assert cluster.stdout.readline() == "lost\n"
    assert len(first) + len(list(results)) == 300
