"""Tasks over shards decide what is decided on the whole, said in the plainest way."""

import random
from pathlib import Path

import numpy as np
import pytest
from definition import decided
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from storyforge.collect.sources import folder_text, writingprompts
from storyforge.core.engine_file import Engine
from storyforge.core.files import write_jsonl
from storyforge.core.records import Story
from storyforge.preprocess import relations, shards, verdicts
from storyforge.preprocess.relations import connected, equal, families
from storyforge.preprocess.stage import PreprocessParams, preprocess

ROOT = Path(__file__).parents[2]
WORDS = "the a of and keeper lantern letter horse river ship captain baker hid found sold it was in".split()
PROMPTS = [
    "the keeper counts every ship that comes home in the night until one does not",
    "the keeper counts every ship that comes home in the night until one does again",
    "The keeper counts every ship that comes home in the night until one does not!",
    "a keeper counts every ship that comes home in the night until one does not",
    "the keeper counts every ship that comes home in the night until none does",
    "and the keeper counts every ship that comes home in the night until one does not",
    "a clock that strikes thirteen wakes the whole street and nobody says a word",
    "Write a short story.",
]


def params(bands: tuple[int, int] = (32, 4)) -> PreprocessParams:
    yaml = YAML(typ="safe")
    section = yaml.load(ROOT / "recipes/llama-3.1-8b.yaml")["preprocess"]
    section["profiles"] |= yaml.load(ROOT / "recipes/my-stories.yaml")["preprocess"]["profiles"]
    section["profiles"]["writingprompts"] |= {"keep": 6, "min_words": None}
    section["split"] |= {"val": 0.1, "test": 0.1}
    section["corpus"] |= {"bands": bands}
    return PreprocessParams.model_validate(section | {"max_rule_share": 1.0})


def text(number: int, length: int = 150) -> str:
    words = random.Random(number).choices(WORDS, k=length)
    return ". ".join(" ".join(words[start : start + 9]).capitalize() for start in range(0, length, 9)) + "."


def story(source: str, number: int, prompt: str | None, change: str) -> Story:
    told = {
        "same": text(number),
        "spaced": text(number).replace(" a ", "  a "),
        "apart": text(number).replace("tter", "t ter").replace("tain", "t ain").replace("per", "p er"),
        "near": text(number) + " And so it was.",
        "half": text(number, 300)[-700:],
        "both": text(number) + "\n\n" + text(number + 1),
        "short": "No.",
    }[change]
    if source == "writingprompts":
        return writingprompts(f"[ WP ] {prompt or PROMPTS[0]}", told)
    made = folder_text(f"{number} {change}.txt", told)
    if prompt is None:
        return made
    return Story(
        **{
            **{name: getattr(made, name) for name in Story.__slots__},
            "prompt": prompt,
            "group": "".join(filter(str.isalnum, prompt.casefold())),
        }
    )


corpora = st.lists(
    st.builds(
        story,
        st.sampled_from(["folder", "writingprompts", "writingprompts"]),
        st.integers(0, 40),
        st.sampled_from([None, *PROMPTS]),
        st.sampled_from(["same", "same", "spaced", "apart", "near", "half", "both", "short"]),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    corpora,
    st.sampled_from([1, 2, 64]),
    st.sampled_from([1_500, 5_000, 1 << 18]),
    st.sampled_from([(32, 4), (25, 5)]),
)
def test_tasks_over_shards_decide_what_the_whole_does(tmp_path_factory, stories, crowd, least_bytes, bands):
    place = tmp_path_factory.mktemp("corpus")
    stories = sorted(stories, key=lambda each: each.source)
    files = [place / f"{source}.jsonl" for source in dict.fromkeys(each.source for each in stories)]
    for path in files:
        write_jsonl(path, [each for each in stories if each.source == path.stem])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "LEAST_BYTES", least_bytes)
        patch.setattr(relations, "CROWD", crowd)
        patch.setattr(verdicts, "PART", 5)
        patch.setattr("storyforge.preprocess.stage.require_moderate_rules", lambda *_: None)
        engine = Engine(workers=1, work=str(place / "work"))
        report, _ = preprocess(files, ["Held out."], params(bands), place, engine)
    lines, whole = decided(stories, ["Held out."], params(bands))
    for name, expected in lines.items():
        assert (place / f"{name}.jsonl").read_bytes().splitlines() == expected, name
    assert {side: known["groups"] for side, known in report["splits"].items()} == whole["groups"]
    assert {side: known["rows"] for side, known in report["splits"].items()} == {
        side: len(lines[side]) for side in ("train", "val", "test")
    }
    for key in ("copies_of_one_story", "groups_of_one_prompt"):
        assert report[key] == whole[key]
    assert report.get("ends_held_out", []) == whole["ends_held_out"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_what_is_connected_has_the_lowest_of_all(pairs):
    sets = [{node} for node in range(31)]
    for a, b in pairs:
        united = sets[a] | sets[b]
        for node in united:
            sets[node] = united
    found = connected(np.array(pairs, np.int64).reshape(-1, 2), 31)
    assert found.tolist() == [min(nodes) for nodes in sets]


def test_families_are_the_members_of_each_label():
    found = families(np.array([5, 2, 5, 2, 9]), np.array([7, 3, 1, 8, 4]))
    assert [family.tolist() for family in found] == [[3, 8], [1, 7], [4]]
    assert list(families(np.empty(0, int), np.empty(0, int))) == []
    assert equal(np.array([4, 1, 4, 4]), np.array([10, 11, 12, 13])).tolist() == [[10, 12], [12, 13]]
