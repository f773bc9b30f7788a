import pytest

from storyforge.core.errors import UserError
from storyforge.principles.constitution import applying, as_system, read_constitution

GOOD = """
version: 1
principles:
  - {id: premise, kind: task, applies: any, critique: What is left out?, revise: Put it in., check: prompt_words, weight: 1}
  - {id: voices, kind: prose, applies: drama, critique: Who is like whom?, revise: Change one.}
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "constitution.yaml").write_text(text)
        return tmp_path / "constitution.yaml"

    return write


def test_the_committed_constitution_is_valid_and_asks_by_the_prompt():
    from pathlib import Path

    principles = read_constitution(Path(__file__).parents[2] / "data/constitution.yaml")
    scene = {each.id for each in applying(principles, "Write a scene. Speakers: ANN, BEN.")}
    prose = {each.id for each in applying(principles, "Tell of rain in 300 words.")}
    assert "speakers" in scene - prose and "length" in prose - scene and "premise" in scene & prose
    assert as_system(principles).count("\n- ") == len(principles)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("id: voices", "id: premise", "principle premise: id: it stands twice"),
        (
            "prompt_words",
            "prompt_wrods",
            "principle premise: check: no 'prompt_wrods'; there are: prompt_words",
        ),
        ("applies: drama", "applies: dramas", "principle voices: applies: Input should be 'any'"),
        ("revise: Change one.", "revise: ' '", "principle voices: revise: String should match"),
        ("revise: Change one.", "revision: Change one.", "principle voices: revise: Field required"),
        (
            "revise: Change one.",
            "revise: Change one., weight: 1",
            "principle voices: weight: it weighs a check",
        ),
        ("weight: 1", "weight: -1", "principle premise: weight: Input should be greater"),
        ("version: 1", "version: 1\nmore: 2", "it must hold a list `principles`, and nothing beside"),
        ("principles:", "rules:", "it must hold a list `principles`"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_principle_and_key(written, old, new, said):
    assert len(read_constitution(written(GOOD))) == 2
    with pytest.raises(UserError) as error:
        read_constitution(written(GOOD.replace(old, new)))
    assert "constitution.yaml: " in str(error.value) and said in str(error.value)
    assert "\n" not in str(error.value)
