"""A wrong params.yaml is one line that names file, key and value."""

import difflib
import shutil
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from dvc.utils.serialize import modify_yaml
from pydantic import Field

from storyforge.core.errors import UserError
from storyforge.core.params import Params, Slice

SOUND = "tell:\n  words: 3\n  rate: 2e-5\n  how: slowly\n  voice: {name: no, pitch: [1, 2]}\n"


class VoiceParams(Slice):
    name: str
    pitch: tuple[float, float]


class TellParams(Params):
    section: ClassVar[str] = "tell"
    words: Annotated[int, Field(ge=1)]
    rate: float
    how: Literal["slowly", "quickly"]
    voice: VoiceParams


def load(tmp_path, text: str | bytes) -> TellParams:
    path = tmp_path / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return TellParams.load(path)


def test_values_are_those_of_yaml_1_2(tmp_path):
    params = load(tmp_path, SOUND)
    assert (params.rate, params.voice.name) == (0.00002, "no")


def test_values_do_not_change(tmp_path):
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path, SOUND).words = 4


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("words: 3", "words: 0", "tell.words = 0: Input should be greater than or equal to 1"),
        ("words: 3", "words: many", "tell.words = 'many': Input should be a valid integer"),
        ("words: 3", "words: [3]", r"tell.words = \[3\]: Input should be a valid integer"),
        ("words: 3", "words:", "tell.words = None: Input should be a valid integer"),
        ("rate: 2e-5", "rate: .inf", "tell.rate = inf: Input should be a finite number"),
        ("rate: 2e-5", "rate: .nan", "tell.rate = nan: Input should be a finite number"),
        ("pitch: [1, 2]", "pitch: [1, -.inf]", "tell.voice.pitch.1 = -inf: Input should be a finite number"),
        ("how: slowly", "how: loudly", "tell.how = 'loudly': Input should be 'slowly' or 'quickly'"),
        ("words: 3", "words: 3\n  wrods: 4", "tell.wrods is not a known key"),
        ("name: no", "name: no, tone: 3", "tell.voice.tone is not a known key"),
        ("  words: 3\n", "", "tell.words is missing"),
        ("tell:", "told:", "section 'tell' is missing: compare with recipes/"),
        (SOUND, "", "section 'tell' is missing"),
        (SOUND, "- tell", "section 'tell' is missing"),
        ("tell:", "tell: [", "cannot be read"),
        ("words: 3", "words: 3\n  words: 4", "cannot be read: .*duplicate key"),
        ("words: 3", "words: !!python/object/apply:os.getcwd []", "cannot be read: .*python/object"),
    ],
)
def test_mistake_is_one_line_with_file_key_and_value(old, new, complaint, tmp_path):
    assert old in SOUND
    with pytest.raises(UserError, match=f"params.yaml: {complaint}") as caught:
        load(tmp_path, SOUND.replace(old, new))
    assert "\n" not in str(caught.value)


def test_every_mistake_is_named_at_once(tmp_path):
    with pytest.raises(UserError, match=r"tell\.words = 0: .*; tell\.how = 'loudly': "):
        load(tmp_path, SOUND.replace("words: 3", "words: 0").replace("slowly", "loudly"))


def test_file_that_is_missing_or_no_text_is_named(tmp_path):
    with pytest.raises(UserError, match="absent.yaml: cannot be read"):
        TellParams.load(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="params.yaml: cannot be read"):
        load(tmp_path, b"tell: \xff\xfe")


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "file", [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))], ids=lambda file: file.stem
)
@pytest.mark.parametrize(
    ("section", "key", "value", "line"),
    [
        ("train", "patience", 5, "  patience: 5                   # validations without"),
        ("train", "epochs", 9, "  epochs: 9"),
        ("model", "chat", "chatml", "  chat: chatml\n"),
        ("preprocess", "max_rule_share", 0.3, "  max_rule_share: 0.3           # of a source's drafts;"),
    ],
)
def test_dvc_changes_the_line_of_the_choice_and_no_other(file, section, key, value, line, tmp_path):
    """As `dvc exp run -S` does; every file is in the form that DVC writes."""
    copy = shutil.copy(file, tmp_path / "params.yaml")
    with modify_yaml(copy) as params:
        params[section][key] = value
    before, after = (path.read_text("utf-8").splitlines(keepends=True) for path in (file, Path(copy)))
    changed = [row for row in difflib.ndiff(before, after) if row[0] in "+-"]
    assert [row[0] for row in changed] == ["-", "+"] and changed[1][2:].startswith(line)
