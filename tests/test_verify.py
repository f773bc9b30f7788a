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


CARELESS = {
    "seed": "hash('story')",
    "clock": "time.time() // 86400",
    "zone": "time.strftime('%z')",
    "order": "os.listdir('src/storyforge/core')",
    "place": "os.getcwd()",
    "processors": "os.cpu_count()",
}


def test_each_careless_output_is_named(here):
    """The collect stage writes six more files, each of which depends on what must not matter."""
    lines = [f"open('metrics/careless-{name}', 'w').write(str({what}))" for name, what in CARELESS.items()]
    with (here.root / "src" / "storyforge" / "collect" / "__init__.py").open("a") as file:
        file.write("\n".join(["import os, time", *lines, ""]))
    here.repro("preprocess")
    here.commit("Careless")
    said = here.run(*VERIFY, status=1)
    assert {name for name in CARELESS if f"careless-{name}" in said} == CARELESS.keys(), said
