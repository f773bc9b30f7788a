import json
from dataclasses import replace
from pathlib import Path

import pytest

from storyforge.core import splits
from storyforge.collect.accounts import Reject
from storyforge.commands.look import chosen, spelled
from storyforge.core.errors import UserError
from storyforge.core.files import write_json, write_jsonl


def ids(stage, count, seed=1, **wanted):
    return [row["id"] for row in chosen(stage, count, seed, **wanted)]


def test_same_seed_same_stories_other_seed_others(clone):
    assert ids("train", 3) == ids("train", 3)
    assert len({tuple(ids("train", 3, seed)) for seed in range(5)}) > 1


def test_more_stories_than_there_are_gives_each_once(clone):
    assert sorted(ids("raw", 99)) == [f"story-{n}" for n in range(9)]


def test_a_story_is_shown_with_source_prompt_and_length(clone, storyforge):
    done = storyforge("look", "test", "--seed", "1")
    head = "made · group-2 · story-8 · 7 words\n> Tell of 8 birds.\n"
    assert done.stdout == f"{head}\nBird 0 sang of rain number 8.\n\n"
    assert done.stderr == "seed 1\n"


def test_the_seed_it_names_shows_the_same_again(clone, storyforge):
    first = storyforge("look", "train")
    seed = first.stderr.split()[-1]
    assert storyforge("look", "train", "--seed", seed).stdout == first.stdout


def test_a_story_may_be_asked_for_by_id_and_source(clone):
    assert ids("raw", 5, id="story-4", source="made") == ["story-4"]


def test_rejected_stories_are_counted_by_rule(clone, storyforge):
    rows = [line.split() for line in storyforge("look", "rejected").stdout.splitlines()]
    assert rows[1:] == [["made", "short", "2", "18.18%", "3"], ["made", "foreign", "0", "0.00%", "1"]]


def test_what_collect_did_not_read_is_told_beside_the_rules(clone, storyforge):
    unread = "12 files were not read: .pages 11, .pdf 1: save them as .docx"
    report = {"folder": {"records": {"rejected": {"invalid_utf8": 1}}, "unread": unread}}
    reject = Reject("folder", "s09.txt", 1, 0, "invalid_utf8", "0" * 64, 9, "looks like x")
    Path("data/raw/collection_report.json").write_text(json.dumps(report))
    write_jsonl(Path("data/raw/rejects.jsonl"), [replace(reject, source="other"), reject])
    said = storyforge("look", "rejected").stdout
    assert f"folder: collect rejected invalid_utf8 1:\n  {reject}\nfolder:" in said
    assert str(reject).endswith("(looks like x): save it as UTF-8")
    assert said.endswith(f"folder: {unread}\n")


def test_rejected_stories_are_shown_with_what_was_wrong(clone, storyforge):
    shown = storyforge("look", "rejected", "--reason", "short", "-n", "9").stdout
    assert "rejected: short: 0 words, not 20" in shown and "rejected: short: 1 words, not 20" in shown


def test_tokens_show_the_reply_and_its_end_as_learned(clone, storyforge, encoder, exchanges):
    """An ended story is followed by the end token; one that was cut is not."""
    for story, end in ((exchanges[6], "<|im_end|>"), (exchanges[7], "")):
        shown = storyforge("look", "val", "--id", story.id, "--tokens").stdout
        before, after = shown.split("\nloss: ")
        assert after.partition("\n")[2].strip() == story.story + end
        assert story.prompt in before and "Bird 0" not in before
        assert after.startswith(f"{len(encoder.text(story.story)) + bool(end)} tokens\n")


def test_the_tokens_of_one_character_are_shown_together(encoder):
    parts = list(spelled(encoder.text("né"), encoder.tokenizer.decode))
    assert parts == ["n", "é"]


def test_nothing_in_a_story_steers_the_terminal(clone, storyforge):
    file = clone / "data/processed/test.jsonl"
    row = json.loads(file.read_text()) | {"story": "red\x1b[31m\x9b2Jbell\x07"}
    file.write_text(json.dumps(row) + "\n")
    assert "\nred\\x1b[31m\\x9b2Jbell\\x07\n" in storyforge("look", "test").stdout


def test_a_rules_name_is_no_markup_of_the_table(clone, storyforge):
    account = {"drafts": 1, "rules": {"x\x1b[2J": {"dropped": 1, "would_drop_alone": 1, "examples": []}}}
    write_json(clone / "data/processed/metadata.json", {"sources": {"[red]made[/nothing]": account}})
    assert "[red]made[/nothing]  x\\x1b[2J" in storyforge("look", "rejected").stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["draft"], "'draft' is no stage: choose one of raw, train, val, test, rejected, revised, verdicts"),
        (["train", "--source", "x"], "no train story of source 'x': there is made"),
        (["rejected", "--reason", "x"], "no rejected story of reason 'x': there is foreign, short"),
        (["train", "--id", "x"], "no train story of id 'x'"),
        (
            ["raw", "--tokens"],
            "a raw story is not trained on: look at train, val, test or rejected",
        ),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(clone, storyforge, words, complaint):
    assert storyforge("look", *words, status=1).stderr == f"error: {complaint}\n"


def test_a_split_in_parts_is_looked_at_as_one(clone, monkeypatch):
    file = clone / "data/processed/train.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.unlink()
    monkeypatch.setattr(splits, "PART_BYTES", 1)
    count = splits.write_split(file.parent, "train", lines)
    write_json(file.parent / "metadata.json", {"parts": {"train": count}})
    assert len(list(file.parent.glob("train-*"))) == len(lines) > 1
    assert {row["id"] for row in chosen("train", 99, 1)} == {json.loads(line)["id"] for line in lines}


def test_missing_stories_name_the_command_that_makes_them(clone):
    (clone / "data/processed/train.jsonl").unlink()
    with pytest.raises(UserError, match="there are no train stories yet: run `dvc repro preprocess`$"):
        chosen("train", 1, 1)


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"story": 1}', '{"story": "a", "id": "b"}', "[" * 10_000])
def test_a_broken_line_is_named(clone, line):
    (clone / "data/processed/test.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"test\.jsonl, line 1: no story"):
        chosen("test", 1, 1)
