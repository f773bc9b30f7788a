"""A writer's own stories: unpublished by git, whole in every clone and experiment once they are under DVC."""

import shutil

import pytest
from pipeline import ROOT, Repository

GRAPH = """
stages:
  collect:
    cmd: ls data/my-stories > names.txt
    deps: [data/my-stories]
    params: [salt]
    outs: [names.txt]
"""
FILES = (".gitignore", ".gitattributes", ".dvcignore", ".dvc/config", "Makefile", "data/my-stories/.gitkeep")


@pytest.fixture
def here(tmp_path, environment) -> Repository:
    """The files that decide, a graph of one stage, and an environment that has been set up."""
    root = tmp_path / "here"
    for name in (*FILES, "requirements.txt", "constraints.txt", "pyproject.toml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "dvc.yaml").write_text(GRAPH)
    (root / "params.yaml").write_text("salt: 1\n")
    repository = Repository(root, {**environment, "PYTHONPATH": str(ROOT / "src")})
    repository.git("init", "--quiet")
    repository.dvc("init", "--quiet", "--force")
    shutil.copy(ROOT / ".dvc/config", root / ".dvc/config")
    repository.commit("A clone")
    for name in ("a.txt", "b.txt"):
        (root / "data/my-stories" / name).write_text(f"Story {name}.\n")
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "dvc").symlink_to(shutil.which("dvc", path=environment["PATH"]))
    (root / ".venv" / "bin" / ".ready").touch()
    return repository


def collected(here: Repository, *words: str) -> list[str]:
    """What the stage saw in an experiment that ran elsewhere."""
    here.dvc("exp", "run", "--name", "elsewhere", "--force", *words)
    if "--queue" in words:
        here.dvc("exp", "run", "--run-all")
    here.dvc("exp", "apply", "elsewhere")
    return (here.root / "names.txt").read_text().split()


def test_git_does_not_take_unpublished_stories(here):
    here.git("add", "--all")
    assert here.git("status", "--short") == ""


def test_an_experiment_elsewhere_has_them_once_they_are_under_dvc(here):
    assert collected(here, "--temp") == []  # why `make stories` is needed
    here.git("checkout", "--quiet", ".")
    assert "My stories, under DVC" in here.run("make", "stories")
    assert here.git("ls-files", "data") == "data/.gitignore\ndata/my-stories.dvc\n"
    assert collected(here, "--temp", "--set-param", "salt=2") == ["a.txt", "b.txt"]
    (here.root / "data/my-stories/c.txt").write_text("Story c.\n")
    assert collected(here, "--queue", "--set-param", "salt=3") == ["a.txt", "b.txt", "c.txt"]
    assert here.repro() == []


def test_the_same_command_again_takes_what_has_changed(here):
    here.run("make", "stories")
    assert "dvc add" in here.run("make", "stories") and here.git("status", "--short") == ""
    (here.root / "data/my-stories/a.txt").write_text("Another end.\n")
    here.run("make", "stories")
    assert here.git("log", "--format=%s").splitlines()[:2] == ["My stories, under DVC"] * 2
    assert here.git("status", "--short") == ""


def test_without_a_story_nothing_is_done(here):
    for file in (here.root / "data/my-stories").glob("*.txt"):
        file.unlink()
    assert "error: data/my-stories is empty" in here.run("make", "stories", status=2)
    assert here.git("status", "--short") == ""


def test_another_clone_gets_them_from_the_remote(here, tmp_path):
    here.run("make", "stories")
    here.dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    here.repro()
    here.commit("A run")
    here.dvc("push")
    there = here.clone(tmp_path / "there")
    there.run("storyforge", "pull")
    assert there.digest("data/my-stories") == here.digest("data/my-stories")
    assert there.repro() == [] and there.git("status", "--short") == ""


def test_line_ends_of_stories_are_their_own(here, tmp_path):
    """Whoever commits them all the same: git would make them LF, and dvc.lock another one on that machine."""
    story = here.root / "data/my-stories/a.txt"
    story.write_bytes(b"One.\r\nTwo.\r\n")
    here.git("add", "--force", "data/my-stories")
    here.commit("Published")
    there = here.clone(tmp_path / "there")
    assert (there.root / "data/my-stories/a.txt").read_bytes() == b"One.\r\nTwo.\r\n"
