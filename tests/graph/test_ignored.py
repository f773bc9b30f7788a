"""Editors' leftovers and notes change no stage; a story in Markdown does."""

import shutil

import pytest
from pipeline import ROOT, Repository

GRAPH = """
stages:
  collect:
    cmd: echo collected
    deps: [data/my-stories, src/storyforge/engine]
"""
LEFTOVERS = [".a.txt.swp", "a.txt~", "#a.txt.orig", "a.txt.rej", "a.pyc", "__pycache__/a.pyc"]


@pytest.fixture
def here(tmp_path, environment) -> Repository:
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    for folder in ("data/my-stories", "src/storyforge/engine"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.txt").write_text("One.")
    repository = Repository(tmp_path, environment)
    repository.dvc("init", "--no-scm", "--quiet")
    assert repository.repro() == ["collect"]
    return repository


def test_leftovers_change_no_stage_and_a_story_does(here):
    for folder in (here.root / "data/my-stories", here.root / "src/storyforge/engine"):
        (folder / "__pycache__").mkdir()
        for name in LEFTOVERS:
            (folder / name).write_text("left")
        (folder / ".#s1.txt").symlink_to("somebody@host.1234:56")  # an Emacs lock: a link to nothing
    (here.root / "src/storyforge/engine/README.md").write_text("How it works.")
    assert here.repro() == []
    (here.root / "data/my-stories/b.md").write_text("A story.")
    assert here.repro() == ["collect"]
