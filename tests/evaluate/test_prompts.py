from dataclasses import replace

import pytest

from storyforge.core.errors import UserError
from storyforge.core.records import Prompt
from storyforge.evaluate.prompts import PromptsParams, fitting_prompts, held_out

STANDARD = [
    Prompt("a", "mystery", "Fog."),
    Prompt("b", "scene", "Place: a mill."),
    Prompt("c", "mystery", "Bell."),
]


def asked(tests, kinds=(), held_out=0):
    params = PromptsParams(kinds=kinds, held_out=held_out)
    return [prompt.id for prompt in fitting_prompts(STANDARD, tests, params, 1)]


def test_a_recipe_names_the_kinds_and_how_many_held_out_prompts(exchanges):
    assert asked(exchanges) == ["a", "b", "c"]
    *own, last, second = asked(exchanges, ("mystery",), 2)
    assert (last, second) == ("a", "c") and len(own) == 2


def test_held_out_prompts_are_of_as_many_groups_as_possible_and_none_twice(exchanges):
    group = {prompt.prompt: story.group for story in exchanges for prompt in held_out([story], 1, 1)}
    for seed in range(5):
        found = held_out(exchanges, 4, seed)
        assert len({group[prompt.prompt] for prompt in found[:3]}) == 3 and len(set(found)) == 4
        assert held_out(exchanges[::-1], 4, seed) == found
    same = [replace(story, prompt="Go.") for story in exchanges]
    assert len(held_out(same, 4, 1)) == 1


def test_a_kind_that_no_prompt_has_is_named_with_those_there_are(exchanges):
    with pytest.raises(UserError, match="no prompt of kind 'western'; there are: mystery, scene"):
        asked(exchanges, ("western",))
