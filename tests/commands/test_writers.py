import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from storyforge.commands.writers import INCOMPLETE, Writers, all_named, asked, deltas, named, sampling
from storyforge.core.choice import sample_seed
from storyforge.core.errors import UserError
from storyforge.core.files import write_json
from storyforge.core.text import printable


@pytest.fixture
def writers(adapter):
    return Writers(named(None))


def test_streamed_deltas_joined_are_what_write_gives(writers):
    for prompt in asked([]):
        for name in writers.names:
            params = sampling({"max_new_tokens": 40})
            (written,) = writers.write(name, [prompt], params)
            ids = writers.encoder.prompt(prompt.prompt)
            streamed = list(writers.stream(name, ids, params, sample_seed(prompt.id, 0, params.seed)))
            assert "".join(delta.text for delta in streamed) == written.text
            assert (streamed[-1].tokens, streamed[-1].ended) == (written.tokens, written.ended)


def test_each_adapter_and_the_base_write_differently(adapter, older):
    writers = Writers(named(None, [older]))
    (prompt, _) = asked([])
    texts = {name: writers.write(name, [prompt], sampling({}))[0].text for name in writers.names}
    assert list(texts) == ["base", "tuned", "older.1"]
    assert len(set(texts.values())) == 3


def test_an_adapter_writes_the_same_whoever_stands_beside_it(adapter, older, writers):
    (prompt, _), params = asked([]), sampling({})
    among = Writers(named(None, [older]))
    among.write("older.1", [prompt], params)
    for name in ("tuned", "base"):
        assert among.write(name, [prompt], params) == writers.write(name, [prompt], params)
    alone = Writers({})
    assert alone.names == ("base",)
    assert alone.write("base", [prompt], params) == writers.write("base", [prompt], params)


def test_the_global_batch_of_prompts_does_not_change_a_text(writers, monkeypatch):
    prompts, params = asked([]), sampling({})
    together = writers.write("tuned", prompts, params)
    monkeypatch.setattr("storyforge.sampling.generate.SIDE_BY_SIDE", 1)
    assert writers.write("tuned", prompts, params) == together


STOP = 256


def decode(ids):
    return bytes(ids).decode(errors="replace")


def streamed(data: bytes, end: tuple[int, ...] = (STOP,)):
    return list(deltas([*data, *end], decode, frozenset([STOP])))


def test_a_character_comes_whole():
    assert [delta.text for delta in streamed("né!".encode()) if delta.text] == ["n", "é", "!"]


def test_space_waits_for_what_follows_and_is_dropped_at_both_ends():
    assert [delta.text for delta in streamed(b" \na \n b \n") if delta.text] == ["a", " \n b"]


def test_an_end_is_told_from_a_cut():
    last, cut = streamed(b"ab")[-1], streamed(b"ab", ())[-1]
    assert (last.tokens, last.ended, cut.tokens, cut.ended) == (3, True, 2, False)


def test_half_a_character_at_the_end_is_shown_as_one():
    assert "".join(delta.text for delta in streamed("aé".encode()[:2], ())) == f"a{INCOMPLETE}"


def test_given_prompts_come_first_and_presets_by_kind_or_id(clone):
    assert [p.id for p in asked(["A duel."], ["Romance", "fog-bell"])] == ["A duel.", "last-rose", "fog-bell"]
    assert [p.id for p in asked([])] == ["fog-bell", "last-rose"]


def test_without_a_prompt_the_recipes_are_asked_its_held_out_stories_first(clone):
    assert [p.id for p in asked([], least_held_out=2)] == ["story-8", "fog-bell", "last-rose"]
    params = clone / "params.yaml"
    params.write_text(
        params.read_text().replace("kinds: []", "kinds: [romance]").replace("held_out: 0", "held_out: 1")
    )
    assert [p.id for p in asked([])] == ["story-8", "last-rose"]
    assert [p.id for p in asked([], ["mystery"])] == ["fog-bell"]
    (clone / "data/processed/test.jsonl").unlink()
    assert [p.id for p in asked([])] == ["last-rose"]


def test_the_standard_prompts_hold_the_four_kinds_of_story(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert {"mystery", "science fiction", "romance", "horror"} <= {prompt.kind for prompt in asked([])}


def test_what_is_given_goes_before_params_yaml(clone):
    params = sampling({"temperature": 0.3, "seed": None})
    assert (params.temperature, params.seed, params.max_new_tokens) == (0.3, 11, 12)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"top_p": 0}, "top_p = 0: Input should be greater than 0"),
        ({"temperature": "hot"}, "temperature = hot: Input should be a valid number"),
    ],
)
def test_an_impossible_setting_is_named(clone, changes, complaint):
    with pytest.raises(UserError, match=complaint):
        sampling(changes)


def test_a_missing_model_names_the_command_that_makes_it(clone):
    with pytest.raises(UserError, match="^models/tuned: no adapter there: run `dvc repro train`$"):
        named(None)


def test_the_aligned_writer_stands_beside_the_one_it_was_made_from(aligned):
    assert list(all_named(None, None)) == ["tuned", "aligned"]
    assert list(all_named(None, [aligned.resolve()])) == ["tuned", "aligned"]  # once
    assert list(all_named(aligned.with_name("tuned"), None)) == ["tuned"]  # it was made from another one
    assert list(named(aligned)) == ["aligned"] and list(named(None)) == ["tuned"]


def test_a_second_phase_that_is_off_names_no_writer(adapter):
    write_json(adapter.with_name("aligned") / "training.json", {"off": True})
    assert list(all_named(None, [])) == ["tuned"]
    with pytest.raises(UserError, match="aligned: no adapter there: run `dvc repro align`, with revise.prom"):
        named(adapter.with_name("aligned"))


@pytest.mark.parametrize("command", ["sample", "continue"])
def test_the_aligned_writer_may_be_chosen_and_is_named(aligned, storyforge, tmp_path, command):
    asked = tmp_path / "duel.txt"
    asked.write_text("It was a duel.")
    done = storyforge(command, str(asked), "--adapter", "models/aligned")
    assert "aligned: 12 tokens, cut; seed 11" in done.stderr


def test_an_adapter_of_another_base_is_refused(adapter, older):
    config = older / "adapter_config.json"
    values = YAML(typ="safe").load(config) | {"base_model_name_or_path": "other/llama"}
    config.write_text(json.dumps(values))
    with pytest.raises(UserError, match="older.1 was trained on other/llama"):
        Writers(named(None, [older]))


def test_two_adapters_of_one_name_are_told_apart(adapter, older):
    names = named(adapter, [older, shutil.copytree(older, older.parent / "run-2" / "older.1")])
    assert list(names) == ["tuned", "older.1", "run-2/older.1"]


def test_adapters_of_one_name_in_folders_of_one_name_are_all_shown(adapter, older):
    copies = [shutil.copytree(older, older.parent / place / "run" / "older.1") for place in ("a", "b", "c")]
    names = named(adapter, [older, *copies])
    assert list(names) == ["tuned", "older.1", "run/older.1", "b/run/older.1", "c/run/older.1"]
    assert list(names.values()) == [adapter, older, *copies]
    assert Writers(names).names == ("base", *names)


def test_sample_writes_the_story_to_stdout_and_the_rest_to_stderr(adapter, storyforge):
    first, second = (storyforge("sample", "A duel.", "--seed", "5") for _ in range(2))
    assert first.stdout == second.stdout != storyforge("sample", "A duel.", "--seed", "6").stdout
    (written,) = Writers(named(None)).write("tuned", asked(["A duel."]), sampling({"seed": 5}))
    assert first.stdout == printable(written.text) + "\n"
    assert first.stderr == "tuned: 12 tokens, cut; seed 5, temperature 1.0\n"


def test_sample_of_the_base_needs_no_adapter(clone, storyforge):
    done = storyforge("sample", "--preset", "mystery", "--base", "--length", "3")
    assert done.stderr.startswith("base: 3 tokens")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], 'one prompt is needed: storyforge sample "what it is about", or --preset mystery'),
        (["A duel.", "--preset", "mystery"], "one prompt is needed"),
        (["A \udcff."], "the prompt: character 3 is half a character or not UTF-8: write it anew"),
        ([" "], "' ' is no prompt: say what the story is about"),
        (["--preset", "western"], "no prompt of kind or id 'western'; there are: mystery, romance"),
        (["A duel."], "models/tuned: no adapter there: run `dvc repro train`\n"),
        (["word " * 200, "--base"], "a reply of 12 are more than the 512 tokens that the model reads"),
    ],
)
def test_what_sample_cannot_do_is_said_in_one_line(clone, storyforge, words, complaint):
    said = storyforge("sample", *words, status=1).stderr
    assert complaint in said and said.count("\n") == 1


def test_a_path_is_relative_to_where_the_user_stands(older, storyforge, monkeypatch):
    monkeypatch.chdir(older.parent)
    assert storyforge("sample", "A duel.", "--adapter", "older.1").stderr.startswith("tuned: 12 tokens")
