"""`make verify` finds nothing where the pipeline keeps its promise, and what changed where it does not."""

import pytest

pytestmark = pytest.mark.slow
VERIFY = ("python", ".ci/verify.py", "--builds", "2")


@pytest.fixture
def here(built, tmp_path):
    return built.clone(tmp_path / "here")


def test_data_stages_give_the_same_bytes_in_any_environment(here):
    assert here.run(*VERIFY).count("the same bytes") == 2


def test_everything_gives_the_same_bytes_on_this_machine(here):
    assert "the same bytes" in here.run("python", ".ci/verify.py", "--all", "--builds", "1")


@pytest.mark.parametrize(
    "careless",
    [
        "hash('story')",  # the hash seed
        "__import__('time').time() // 86400",  # the clock
        "__import__('time').strftime('%z')",  # the time zone
        "__import__('os').listdir('src/storyforge/core')",  # the order of a directory
        "str(__import__('pathlib').Path.cwd())",  # the place
        "__import__('os').cpu_count()",  # the processors
    ],
)
def test_a_careless_output_is_named(here, careless):
    file = here.root / "src" / "storyforge" / "stages" / "collect.py"
    text = file.read_text()
    line = '        write_json(beside / "collection_report.json", report)\n'
    assert line in text
    file.write_text(text.replace(line, line + f'        write_json(beside / "careless.json", {careless})\n'))
    here.repro("preprocess")
    here.commit("Careless")
    assert "dvc.lock" in here.run(*VERIFY, status=1)
