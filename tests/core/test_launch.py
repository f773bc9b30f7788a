"""A stage ends with a status that tells how, and its volatile figures appear whole."""

import json
import os
import signal
import sys

import pytest

from storyforge.core.errors import UserError
from storyforge.core.launch import launch


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stage", str(tmp_path / "in"), str(tmp_path / "timing" / "stage.json")])
    return tmp_path


def test_figures_go_to_the_last_path_and_the_others_to_the_stage(command):
    launch(lambda path: {"rows": path.name})
    assert [path.name for path in (command / "timing").iterdir()] == ["stage.json"]
    figures = json.loads((command / "timing" / "stage.json").read_text())
    assert figures.keys() == {"rows", "seconds", "peak_memory_mib"} and figures["rows"] == "in"


def test_a_users_mistake_is_one_line_and_status_1(command, capsys):
    def mistaken(path):
        raise UserError(f"{path.name}: not there: make it")

    with pytest.raises(SystemExit) as ended:
        launch(mistaken)
    assert ended.value.code == 1 and capsys.readouterr().err == "error: in: not there: make it\n"
    assert not (command / "timing").exists()


def test_ctrl_c_ends_without_a_traceback(command):
    with pytest.raises(SystemExit) as ended:
        launch(lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert ended.value.code == 130


def test_figures_that_cannot_be_written_are_a_line_too(command, capsys):
    (command / "timing").write_text("a file")
    with pytest.raises(SystemExit):
        launch(lambda _: None)
    assert "stage.json: File exists" in capsys.readouterr().err
