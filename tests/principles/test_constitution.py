"""The constitution as it is delivered, and one line for each way to write a wrong one."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from storyforge.core.errors import UserError
from storyforge.principles.checks import CHECKS
from storyforge.principles.constitution import applying, as_system, read_constitution

DELIVERED = Path(__file__).parents[2] / "data" / "constitution.yaml"
ONE = {"id": "end", "kind": "story", "applies": "any", "critique": "Why?", "revise": "Stop.", "check": "ends"}


@pytest.fixture
def read(tmp_path):
    def written(content):
        path = tmp_path / "constitution.yaml"
        if isinstance(content, str):
            path.write_text(content)
        else:
            YAML().dump(content, path)
        return read_constitution(path)

    return written


def test_the_delivered_one_has_every_check_once_and_explains_every_one():
    principles = read_constitution(DELIVERED)
    checks = [each.check for each in principles if each.check]
    assert len(principles) == 16 and sorted(checks) == sorted(CHECKS)
    header = DELIVERED.read_text().split("\nprinciples:")[0]
    assert all(name in header for name in CHECKS)


def test_its_defaults_are_no_check_and_a_guard(read):
    (found,) = read({"principles": [{key: ONE[key] for key in ONE if key != "check"}]})
    assert found.check is None and found.weight == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"weigth": 1}, "principle 1 (end): weigth is not a known key"),
        ({"check": "end"}, "principle 1 (end): check = 'end': Input should be 'asked_words'"),
        ({"applies": "verse"}, "principle 1 (end): applies = 'verse': Input should be 'any'"),
        ({"kind": None}, "principle 1 (end): kind = None"),
        ({"critique": " \n"}, "principle 1 (end): critique is empty"),
        ({"revise": ["Stop."]}, "principle 1 (end): revise = ['Stop.']"),
        ({"id": "The End"}, "principle 1 (The End): id = 'The End'"),
        ({"id": 7}, "principle 1: id = 7"),
        ({"weight": -1}, "principle 1 (end): weight = -1"),
        ({"weight": "1"}, "principle 1 (end): weight = '1'"),
        ({"weight": True}, "principle 1 (end): weight = True"),
        ({"weight": float("inf")}, "principle 1 (end): weight = inf"),
        ({"check": None, "weight": 1}, "principle 1 (end): weight: there is no check"),
    ],
)
def test_a_wrong_principle_is_one_line_with_file_principle_and_key(read, change, message):
    with pytest.raises(UserError) as error:
        read({"principles": [ONE | change]})
    assert f"constitution.yaml: {message}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"principles": [ONE | {"id": "overall"}]}, "principle 1: the id 'overall' is the whole verdict's"),
        ({"principles": [ONE, ONE]}, "principle 2: the id 'end' stands twice"),
        ({"principles": [{"id": "end"}]}, "principle 1 (end): kind is missing; applies is missing"),
        ({"principles": ["Stop."]}, "principle 1: it must have the keys id, kind, applies"),
        ({"principles": [ONE], "version": 2}, "version is not a known key"),
        ({"principles": []}, "the list of principles is empty"),
        ({"principles": None}, "there is no list of principles in it"),
        ([ONE], "there is no list of principles in it"),
        ("", "there is no list of principles in it"),
        ("principles: [{id: end", "cannot be read"),
        ("principles: [{id: end, id: end}]", "cannot be read"),
    ],
)
def test_a_wrong_file_is_one_line(read, content, message):
    with pytest.raises(UserError) as error:
        read(content)
    assert f"constitution.yaml: {message}" in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="constitution.yaml: cannot be read"):
        read_constitution(tmp_path / "constitution.yaml")


@pytest.mark.parametrize(
    "prompt, called_for",
    [
        ("Tell of rain.", set()),
        ("Write the opening of a scene for a comedy.", {"drama"}),
        ("Write a whole short scene for a comedy. Speakers: ANNE.", {"drama", "asks_end", "names"}),
        ("Tell in 300 words, in the first person, of Anna.", {"asks_length", "asks_viewpoint", "names"}),
    ],
)
def test_the_prompt_says_which_principles_count(prompt, called_for, read):
    conditions = ("any", "drama", "prose", "asks_length", "asks_viewpoint", "asks_end", "names")
    principles = read({"principles": [ONE | {"id": each, "applies": each} for each in conditions]})
    found = {each.applies for each in applying(principles, prompt)}
    assert found == called_for | {"any"} | ({"prose"} - ({"prose"} if "drama" in called_for else set()))


def test_as_a_system_prompt_it_is_one_line_a_rule():
    principles = read_constitution(DELIVERED)
    first, *rules = as_system(principles).splitlines()
    assert rules == [f"- {each.revise}" for each in principles]
