"""What engine.yaml says of this machine, and where it is looked for."""

import subprocess
from pathlib import Path

import pytest
from rules_graph import declared, graph

from storyforge.core import engine_file
from storyforge.core.engine_file import NAME, Engine, engine
from storyforge.core.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    return tmp_path


@pytest.mark.parametrize("text", ["", "gpus:\n", "kind: local\naddress: null\n"])
def test_what_is_not_said_has_its_default(here, text):
    (here / NAME).write_text(text)
    assert engine() == Engine(kind="local", workers=None, address=None, gpus=None)


def test_it_is_found_above_and_dvc_names_the_main_repository(here, monkeypatch):
    assert engine() == Engine()
    (here / NAME).write_text("gpus: 2\n")
    assert engine().gpus == 2
    main = here / "main"
    main.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(main))
    assert engine().gpus is None
    (main / NAME).write_text("gpus: 3\n")
    assert engine().gpus == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("worker: 2", "worker is not a known key"),
        ("kind: dask", "kind = 'dask': Input should be 'local' or 'ray'"),
        ("workers: 0", "workers = 0: Input should be greater than 0"),
        ("workers: true", "workers = True: Input should be a valid integer"),
        ("gpus: 0", "gpus = 0: Input should be greater than 0"),
        ("work: gs://bucket/x", "work = 'gs://bucket/x': give a folder that all nodes see, or s3://BUCKET/"),
        ("work: s3://key:word@bucket", "work = 's3://key:word@bucket': give a folder that all nodes see"),
        ("work: s3://bucket//x", "work = 's3://bucket//x': give a folder that all nodes see"),
        ("work: s3://bucket/../other", "work = 's3://bucket/../other': give a folder that all nodes see"),
        ("work: s3:/bucket/x", "work = 's3:/bucket/x': give a folder that all nodes see, or s3://BUCKET/"),
        ("work: s3://", "work = 's3://': give a folder that all nodes see"),
        ("- 1", r"\[1\]: Input should be a valid dictionary"),
        ("kind: [", "cannot be read"),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_value(here, text, said):
    (here / NAME).write_text(text)
    with pytest.raises(UserError, match=f"{NAME}: {said}") as raised:
        engine()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("work", "place"),
    [
        ("s3://my.bucket-1", "s3://my.bucket-1"),
        ("s3://b0/x/y.z/", "s3://b0/x/y.z"),
        ("s3://b/.x", "s3://b/.x"),
        ("../x/", "../x/"),
    ],
)
def test_work_is_a_folder_or_a_place_in_a_store(here, work, place):
    (here / NAME).write_text(f"work: {work}\n")
    assert engine().work == place


def test_processes_are_as_many_as_are_wanted_else_as_there_are_processors(monkeypatch):
    monkeypatch.setattr(engine_file, "processors", lambda: 7)
    assert (Engine().processes, Engine(workers=3).processes) == (7, 3)
    assert Engine(kind="ray", workers=3).processes is None


def test_to_change_it_makes_nothing_stale():
    """It is no dependency, lies in none, and git does not see it."""
    for name, stage in graph(ROOT).items():
        deps = {Path(dep) for dep in declared(stage, "deps", "params")}
        assert not deps & {Path(NAME), *Path(NAME).parents}, name
    assert subprocess.run(["git", "check-ignore", "--quiet", NAME], cwd=ROOT).returncode == 0
