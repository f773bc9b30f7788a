"""Every recipe's limits fit each other: a passage's words, and the tokens that are read of it."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from storyforge.commands.recipe import laid

ROOT = Path(__file__).parents[2]
RECIPES = [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]
# Tokens a word that few texts exceed. Prose: SmolLM2 90 % of 358 WritingPrompts stories, Llama 3.1 99 % of
# the whole corpus at 1,500 words (1,965 tokens). Drama: SmolLM2, 95 % of the plays' passages.
TOKENS_A_WORD = {("prose", "smollm2"): 1.5, ("prose", "llama3"): 1.31, ("drama", "smollm2"): 1.98}
TOKENS_A_WORD["prose", "auto"] = 1.5  # of larger vocabularies than SmolLM2's 49,152, so rather too many
FRAME = 80  # tokens of the turns, the system prompt and a prompt of the usual length


def limits(recipe: Path | str) -> tuple[dict, int]:
    whole = YAML(typ="safe").load(recipe)
    read = min(whole["train"]["max_tokens"], whole["evaluate"]["max_tokens"])
    needed = {}
    for name, profile in whole["preprocess"]["profiles"].items():
        form = "drama" if profile["form"] == "drama" else "prose"
        words = profile["max_words"] + (profile.get("page_words") or 0)
        needed[name] = words * TOKENS_A_WORD[form, whole["model"]["chat"]] + FRAME
    return needed, read


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_passage_fits_into_the_tokens_that_are_read(recipe):
    needed, read = limits(recipe)
    assert needed and max(needed.values()) <= read, needed


@pytest.mark.parametrize("base", sorted((ROOT / "recipes/bases").glob("*.yaml")), ids=lambda base: base.stem)
def test_a_passage_of_own_stories_fits_on_every_base(base):
    needed, read = limits(laid(ROOT / "recipes/my-stories.yaml", base))
    assert max(needed.values()) <= read


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_what_goes_through_at_once_holds_one_story(recipe):
    whole = YAML(typ="safe").load(recipe)
    assert whole["train"]["micro_batch_tokens"] >= whole["train"]["max_tokens"]
    assert whole["evaluate"]["batch_tokens"] >= whole["evaluate"]["max_tokens"]
