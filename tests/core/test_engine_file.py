"""What engine.yaml says of this machine, and where it is looked for."""

import pytest

from storyforge.core.engine_file import engine
from storyforge.core.errors import UserError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    return tmp_path


@pytest.mark.parametrize("text", ["", "gpus:\n", "kind: ray\naddress: null\n"])
def test_what_is_not_said_is_left_to_the_machine(here, text):
    (here / "engine.yaml").write_text(text)
    assert engine().gpus is None


def test_it_is_found_above_and_dvc_names_the_main_repository(here, monkeypatch):
    assert engine().gpus is None
    (here / "engine.yaml").write_text("gpus: 2\n")
    assert engine().gpus == 2
    main = here / "main"
    main.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(main))
    assert engine().gpus is None
    (main / "engine.yaml").write_text("gpus: 3\n")
    assert engine().gpus == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [("gpus: 0", "engine.yaml: gpus = 0: .*greater than 0"), ("- 1", "engine.yaml: .1.: .*dictionary")],
)
def test_a_wrong_value_is_named(here, text, message):
    (here / "engine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        engine()
