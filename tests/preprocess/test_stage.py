"""Raw stories become exchanges and rejected rows; what is held out stays apart; mistakes are one line."""

import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tasks
from ruamel.yaml import YAML
from sklearn.feature_extraction.text import TfidfVectorizer

from storyforge.core import splits
from storyforge.collect.sources import folder_text, shakespeare, tinystories, writingprompts
from storyforge.core.engine_file import Engine
from storyforge.core.errors import UserError
from storyforge.core.files import read_jsonl, write_jsonl
from storyforge.core.records import Exchange, Story, read_prompts
from storyforge.core.splits import read_split
from storyforge.core.storage import Work
from storyforge.core.words import grams, words
from storyforge.preprocess import guards, shards, stage
from storyforge.preprocess.drafts import Profile
from storyforge.preprocess.heldout import held_out_prompts, sides
from storyforge.preprocess.stage import PreprocessParams, main, preprocess
from storyforge.preprocess.wordings import SCENE_WORDINGS

ROOT = Path(__file__).parents[2]
FILES = ("train.jsonl", "val.jsonl", "test.jsonl", "rejected.jsonl", "metadata.json")
WHO = "keeper widow captain baker thief painter nurse miller judge stranger fisher twin".split()
WHAT = "lantern letter horse key map clock violin ring coat ladder kettle goose".split()
DID = "hid found sold carried buried mended painted followed forgot stole dropped burned".split()
THINGS = [a + b for a in WHAT for b in ("maker", "box", "shop", "smoke", "song", "light", "road", "tree")]
WHERE = (
    "in the attic|by the river|behind the church|on the ice|under the bridge|at the market|on the hill".split(
        "|"
    )
)


def tale(number: int, words: int = 140) -> str:
    """English of its own for every number, in the tokens that WritingPrompts comes in."""
    rng, sentences, length = random.Random(number), [], 0
    while length < words:
        who, what, did, thing = (rng.choice(choices) for choices in (WHO, WHAT, DID, THINGS))
        sentences.append(
            rng.choice(
                [
                    f"The {who} and a {thing} {did} her {what} .",
                    f"`` I ca n't see {what} or {thing} , '' said that {who} .",
                    f"{thing.title()} and {what} were with the {who} , who {did} it .",
                ]
            )
        )
        length += len(sentences[-1].split())
    return " <newline> <newline> ".join(" ".join(sentences[n : n + 3]) for n in range(0, len(sentences), 3))


def prompt(number: int) -> str:
    rng = random.Random(f"prompt {number}")
    who, did, what, where = (rng.choice(choices) for choices in (WHO, DID, WHAT, WHERE))
    return f"[ WP ] The {who} {did} {number} times a {what} {where} ."


def prompted(count: int, start: int = 0) -> list[Story]:
    """Two stories a prompt."""
    return [writingprompts(prompt(n // 2), tale(n)) for n in range(start, start + count)]


def plays() -> list[Story]:
    found = []
    for play, place in (("Macbeth", "A heath."), ("Hamlet", "Elsinore."), ("Twelfth Night", "A coast.")):
        speech = tale(len(found) + 500, words=60).replace(" <newline> <newline> ", "  \n").replace(" .", ".")
        scene = f"_Enter {play.upper()}_\n\n**FIRST LORD**  \n{speech}  \n\n_Exeunt_"
        found += shakespeare(
            "plays/tragedies/x.md", f"# {play}\n\n## ACT I\n\n### SCENE I. {place}\n\n{scene}\n"
        )
    return found


def everything() -> dict:
    """params.yaml with the profiles of all recipes."""
    whole = YAML().load(ROOT / "params.yaml")
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        whole["preprocess"]["profiles"] |= YAML().load(recipe)["preprocess"]["profiles"]
    return whole


@pytest.fixture
def params() -> PreprocessParams:
    return PreprocessParams.model_validate(everything()["preprocess"])


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory with params.yaml, prompts.yaml and an empty data/raw; `run` is the stage's main."""
    (tmp_path / "raw").mkdir()
    YAML().dump(everything(), tmp_path / "params.yaml")
    (tmp_path / "prompts.yaml").write_bytes((ROOT / "data/prompts.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run() -> dict[str, bytes]:
    main(Path("raw"), Path("prompts.yaml"), Path("processed"), Path("metrics.json"))
    return {name: Path("processed", name).read_bytes() for name in FILES}


def rows(name: str) -> list[Exchange]:
    return list(read_jsonl(Path("processed", f"{name}.jsonl"), Exchange))


def rejected() -> dict[str, dict]:
    lines = Path("processed/rejected.jsonl").read_text("utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def change(path: str, value) -> None:
    """One key of params.yaml."""
    yaml = YAML()
    whole = yaml.load(Path("params.yaml"))
    *above, last = path.split(".")
    section = whole["preprocess"]
    for key in above:
        section = section[key]
    section[last] = value
    yaml.dump(whole, Path("params.yaml"))


def test_every_draft_ends_in_exactly_one_file(workplace):
    bad = [writingprompts(prompt(900), "[removed]"), writingprompts("[ IP ] A picture of it", tale(901))]
    stories = prompted(60) + bad
    write_jsonl(workplace / "raw/writingprompts.jsonl", stories)
    write_jsonl(
        workplace / "raw/tinystories.jsonl",
        [tinystories(tale(n).replace("`` ", '"')) for n in range(1000, 1010)],
    )
    write_jsonl(workplace / "raw/shakespeare.jsonl", plays())
    run()
    report = json.loads(Path("processed/metadata.json").read_text())
    kept = [row.id for name in ("train", "val", "test") for row in rows(name)]
    assert len(kept) + len(rejected()) == len(set(kept) | set(rejected())) == len(stories) + 10 + 3
    assert sum(source["drafts"] for source in report["sources"].values()) == len(stories) + 13
    assert rejected()[bad[0].id]["reasons"]["removed"] == "says '[removed]'"
    assert rejected()[bad[1].id]["reasons"] == {"tag": "tagged IP"}
    assert "can't see" in rejected()[bad[1].id]["story"]
    rules = report["sources"]["writingprompts"]["rules"]
    assert rules["removed"]["dropped"] == rules["tag"]["dropped"] == 1
    assert json.loads(Path("metrics.json").read_text())["train_stories"] == len(rows("train"))


def test_what_comes_out_is_prose(workplace):
    write_jsonl(workplace / "raw/writingprompts.jsonl", prompted(40))
    run()
    for row in rows("train"):
        assert not re.search(r"``|''| n't| [.,]|<newline>|\[ ?WP", row.story + row.prompt)
        assert row.story.count('"') % 2 == 0 and row.ended


def test_listed_plays_are_held_out(workplace):
    write_jsonl(workplace / "raw/shakespeare.jsonl", plays())
    run()
    assert {name: {row.group for row in rows(name)} for name in ("train", "val", "test")} == {
        "train": {"Hamlet"},
        "val": {"Twelfth Night"},
        "test": {"Macbeth"},
    }
    passage = rows("test")[0]
    assert passage.story.startswith("[Enter MACBETH]\n\nFIRST LORD\n")
    assert "Place: A heath. Speakers: FIRST LORD." in passage.prompt


def made(stories: list[Story], params: PreprocessParams, name: str, **engine) -> tuple:
    """Report and bytes of a run over the stories, a file for each source."""
    sources = dict.fromkeys(story.source for story in stories)
    files = [Path("raw", f"{source}.jsonl") for source in sources]
    for path in files:
        write_jsonl(path, [story for story in stories if story.source == path.stem])
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    report, read = preprocess(files, ["Held out."], params, folder, Engine(**{"workers": 1} | engine))
    return report, read, {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def small_shards(monkeypatch):
    """Of a few stories each."""
    monkeypatch.setattr(shards, "LEAST_BYTES", 9_000)


def test_processes_shards_and_a_second_run_change_no_byte(workplace, params, monkeypatch):
    stories = prompted(100) + plays()
    results = [made(stories, params, "one")]
    monkeypatch.setattr(shards, "LEAST_BYTES", 9_000)
    results += [made(stories, params, "two", workers=2), made(stories, params, "again")]
    assert results[0] == results[1] == results[2]
    assert set(results[0][2]) == {"train.jsonl", "val.jsonl", "test.jsonl", "rejected.jsonl"}
    assert not Path(".work").exists()


def test_a_large_split_is_cut_where_its_bytes_say_whatever_the_shards(workplace, monkeypatch):
    write_jsonl(workplace / "raw/writingprompts.jsonl", prompted(100))
    whole, all_rows = run()["train.jsonl"], rows("train")
    found, paths = [], [Path(name) for name in ("raw", "prompts.yaml", "processed", "metrics.json")]
    with monkeypatch.context() as patch:
        patch.setattr(splits, "PART_BYTES", len(whole) // 3)
        for least_bytes in (9_000, 20_000):
            patch.setattr(shards, "LEAST_BYTES", least_bytes)
            main(*paths)
            found.append({path.name: path.read_bytes() for path in Path("processed").glob("train*")})
            assert list(read_split(Path("processed"), "train")) == all_rows
            Path("processed/train-00003.jsonl").unlink()
            with pytest.raises(UserError, match="train-00003.jsonl: missing, of 4 files of one split: "):
                list(read_split(Path("processed"), "train"))
    assert found[0] == found[1] and len(found[0]) == 4
    assert b"".join(found[0][name] for name in sorted(found[0])) == whole
    assert run()["train.jsonl"] == whole and len(list(Path("processed").glob("train*"))) == 1


def test_a_process_that_is_killed_changes_no_byte(workplace, params, monkeypatch, small_shards):
    stories = prompted(100)
    results = [made(stories, params, "whole", workers=2)]
    monkeypatch.setattr(stage, "Examiner", tasks.KilledExaminer)
    Path("marks").mkdir()
    Path("marks", stories[40].id).touch()
    results.append(made(stories, params, "killed", workers=2))
    assert results[0] == results[1] and not list(Path("marks").iterdir())


def test_stories_that_kill_every_process_are_named_in_one_line(workplace, params, monkeypatch, small_shards):
    stories = prompted(100)
    monkeypatch.setattr(stage, "Examiner", tasks.KilledExaminer)
    Path("marks").mkdir()
    Path("marks", stories[70].id).write_text("for ever")
    with pytest.raises(UserError, match="that worked on it was killed 3 times") as raised:
        made(stories, params, "named", workers=2)
    first, last = re.search(
        r"/raw/writingprompts.jsonl, from story (\S+) to (\S+): a process", str(raised.value)
    ).groups()
    ids = [story.id for story in stories]
    assert 70 - 40 < ids.index(first) <= 70 <= ids.index(last) < 70 + 40


def test_a_run_that_was_ended_goes_on_where_it_was(workplace, params, monkeypatch, small_shards):
    stories = prompted(100)
    whole = made(stories, params, "whole")
    gone_on = tasks.ended_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        made(stories, params, "ended")
    again = gone_on()
    assert made(stories, params, "again") == whole
    assert again[0] == 3 and again == sorted(again) and not Path(".work").exists()
    other = params.model_copy(update={"max_rule_share": 0.99})
    gone_on = tasks.ended_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        made(stories, params, "ended")
    again = gone_on()
    made(stories, other, "other")
    assert again[0] == 0 and not Path(".work").exists()


def test_the_order_of_the_rows_decides_nothing(workplace):
    stories = prompted(60) + [
        writingprompts(prompt(n), tale(n) + " <newline>") for n in range(12)
    ]  # copies under other prompts
    write_jsonl(workplace / "raw/writingprompts.jsonl", stories)
    first = run()
    write_jsonl(workplace / "raw/writingprompts.jsonl", stories[::-1])
    second = run()
    for name in FILES[:4]:
        assert sorted(first[name].splitlines()) == sorted(second[name].splitlines())
    assert first["metadata.json"] == second["metadata.json"]


def test_no_group_and_no_near_copy_stands_on_two_sides(workplace):
    change("split.val", 0.2)
    change("split.test", 0.2)
    change("max_rule_share", 1.0)
    near = [writingprompts(prompt(n), tale(n) + f" The {WHO[n % 12]} left .") for n in range(200, 260)]
    write_jsonl(workplace / "raw/writingprompts.jsonl", prompted(120, start=200) + near)
    run()
    sides = {name: rows(name) for name in ("train", "val", "test")}
    assert all(sides.values())
    everything = [(name, row) for name, found in sides.items() for row in found]
    groups = {(row.source, row.group): set() for _, row in everything}
    for name, row in everything:
        groups[row.source, row.group].add(name)
    assert all(len(names) == 1 for names in groups.values())
    table = TfidfVectorizer(ngram_range=(5, 5), use_idf=False, binary=True, norm="l2")
    similar = (vectors := table.fit_transform([row.story for _, row in everything])) @ vectors.T
    for a, b in zip(*similar.nonzero(), strict=True):  # cosine is never below Jaccard
        assert everything[a][0] == everything[b][0] or similar[a, b] < 0.7
    assert any("near_copy" in row["reasons"] for row in rejected().values())


def test_new_stories_move_no_old_one(workplace):
    def sides() -> dict[str, str]:
        run()
        return {row.id: name for name in ("train", "val", "test") for row in rows(name)}

    change("split.val", 0.2)  # of 40 works more than are assured
    change("split.test", 0.2)
    write_jsonl(workplace / "raw/writingprompts.jsonl", prompted(80))
    before = sides()
    write_jsonl(workplace / "raw/writingprompts.jsonl", prompted(80, start=80) + prompted(80))
    after = sides()
    assert {identity: after[identity] for identity in before if identity in after}.items() <= before.items()
    assert len(before.keys() & after.keys()) > 70


def test_as_many_as_wanted_are_kept_and_always_the_same(workplace):
    write_jsonl(workplace / "raw/writingprompts.jsonl", prompted(60))
    change("profiles.writingprompts.keep", 25)
    run()
    kept = {row.id for name in ("train", "val", "test") for row in rows(name)}
    write_jsonl(workplace / "raw/writingprompts.jsonl", prompted(60)[::-1])
    run()
    assert len(kept) == 25 and kept == {row.id for name in ("train", "val", "test") for row in rows(name)}


def test_a_held_out_prompt_is_not_given_away(workplace):
    secret = read_prompts(Path("prompts.yaml"))[0].prompt
    told = [writingprompts(f"[ WP ] {secret}", tale(1)), writingprompts(prompt(2), f"{secret} {tale(2)}")]
    write_jsonl(workplace / "raw/writingprompts.jsonl", told + prompted(20))
    run()
    for story in told:
        assert list(rejected()[story.id]["reasons"]) == ["contaminated"]


def test_a_group_takes_the_name_of_its_cluster_of_prompts(workplace):
    near = "[ WP ] The keeper who hid the lantern on the ice waits for you every single night and "
    alike = [writingprompts(near + end, tale(n)) for n, end in enumerate(("day", "noon"))]
    write_jsonl(workplace / "raw/writingprompts.jsonl", alike + prompted(9, start=100))
    run()
    named = {
        row.group for name in ("train", "val", "test") for row in rows(name) if "every single" in row.prompt
    }
    assert named == {min(story.group for story in alike)}


def test_a_rule_that_takes_too_much_stops_the_stage_and_leaves_the_old_result(workplace):
    write_jsonl(workplace / "raw/writingprompts.jsonl", prompted(60))
    before = run()
    change("profiles.writingprompts.min_words", 145)
    with pytest.raises(
        UserError, match=r"^writingprompts: rule 'short' drops \d+ of 60, more than .* params.yaml$"
    ):
        run()
    assert {name: Path("processed", name).read_bytes() for name in FILES} == before
    assert sorted(path.name for path in workplace.iterdir() if path.name.startswith(".")) == []


def test_of_few_drafts_a_rule_that_takes_many_is_said_and_stops_nothing(workplace, capsys):
    short = [folder_text(f"short {n}.txt", f"{n} words and no more of it.") for n in range(20)]
    write_jsonl(workplace / "raw/folder.jsonl", [*short, *own(10, words=60)])
    run()
    said = capsys.readouterr().out
    assert re.search(
        r"\nfolder: rule 'short' drops 20 of 30, more than preprocess\.max_rule_share = 0\.25 allows from "
        r"50 on \(for one: .*\): look at preprocess\.profiles\.folder\.min_words in params\.yaml\n10 works: ",
        said,
    )
    change("profiles.folder.min_words", 5)
    run()
    assert "rule" not in capsys.readouterr().out


def test_near_copies_of_ones_own_are_dropped_and_told_and_stop_nothing(workplace, capsys):
    texts = own(60, words=400)
    alike = [folder_text(f"{n} old.txt", f"{texts[n].text} The end came.") for n in range(30)]
    write_jsonl(workplace / "raw/folder.jsonl", [*texts, *alike])
    run()
    said = capsys.readouterr().out
    assert re.search(r"passages of 90 stories\n  dropped: .*near_copy", said)
    assert re.search(
        r"\d+( old)?.txt has much of the text of \d+( old)?.txt: leave one draft of each story", said
    )


def own(count: int, words: int = 140, prompt: str | None = None) -> list[Story]:
    """Stories in plain English, a file each."""
    texts = (
        folder_text(f"{n}.txt", tale(n, words).replace(" <newline> ", "\n").replace("<newline> ", "\n"))
        for n in range(count)
    )
    group = {"group": "".join(filter(str.isalnum, prompt.casefold()))} if prompt else {}
    return [replace(story, prompt=prompt, **group) for story in texts]


@pytest.mark.parametrize("count", range(3, 21))
def test_of_few_works_some_are_held_out_and_it_is_said(workplace, capsys, count):
    write_jsonl(workplace / "raw/folder.jsonl", own(count))
    run()
    found = {side: {row.group for row in rows(side)} for side in ("train", "val", "test")}
    least = 2 if count == 20 else 1
    assert [len(found[side]) for side in found] == [count - 2 * least, least, least]
    shares = ", ".join(f"{len(works)} {side}" for side, works in found.items())
    assert f"\n{count} works: {shares}. With so few the report will show" in capsys.readouterr().out


def test_two_short_works_are_trained_on_and_nothing_is_claimed(workplace, capsys):
    write_jsonl(workplace / "raw/folder.jsonl", own(2))
    run()
    assert not rows("val") and not rows("test")
    assert {row.group for row in rows("train")} == {"0", "1"}
    assert "2 works: 2 train, 0 val, 0 test. With so few the report will show samples, no loss" in (
        capsys.readouterr().out
    )


def test_the_end_of_one_work_alone_is_held_out(workplace, capsys):
    write_jsonl(workplace / "raw/folder.jsonl", own(1, words=12_000))
    run()
    numbers = {
        side: [int(row.id.rpartition("-")[2]) for row in rows(side)] for side in ("train", "val", "test")
    }
    passages = [*numbers["train"], *numbers["val"], *numbers["test"]]
    assert passages == sorted(passages) and len(numbers["train"]) > 10
    assert numbers["val"][0] == numbers["train"][-1] + 2 and numbers["test"][0] == numbers["val"][-1] + 2
    assert [row["reasons"] for row in rejected().values()] == 2 * [
        {"gap": "stands between what is trained on and what is held out"}
    ]
    assert "1 work: the end is held out behind a gap" in capsys.readouterr().out


def test_one_instruction_for_many_stories_is_no_premise(workplace):
    write_jsonl(workplace / "raw/folder.jsonl", own(60, prompt="Write a short story."))
    run()
    assert len(rows("train")) > 50 and len({row.group for row in rows("train")}) > 50
    assert "Write a short story." in {row.prompt for row in rows("train")}


def test_a_prompt_of_few_own_stories_keeps_them_together(workplace):
    pairs = [own(40)[n : n + 2] for n in range(0, 40, 2)]
    stories = [
        replace(story, prompt=f"No. {n}!", group=f"no{n}") for n, two in enumerate(pairs) for story in two
    ]
    write_jsonl(workplace / "raw/folder.jsonl", stories)
    run()
    assert {row.group for side in ("train", "val", "test") for row in rows(side)} == {
        f"no{n}" for n in range(20)
    }


def eights(text: str) -> set[tuple[str, ...]]:
    return set(grams(words(text), 8))


def test_no_half_of_a_held_out_row_stands_in_training(workplace):
    plain = [story.text for story in own(12, words=900)]
    change("max_rule_share", 1.0)
    drafts = [text.replace("the", "that", 12) + " So it ended." for text in plain[:4]]
    anthology, half = "\n\n".join(plain[4:8]), [text[len(text) // 3 :] for text in plain[8:]]
    texts = [*plain, *drafts, anthology, *half]
    write_jsonl(
        workplace / "raw/folder.jsonl", [folder_text(f"{n}.txt", text) for n, text in enumerate(texts)]
    )
    for val in (0.1, 0.3, 0.45):
        change("split.val", val)
        run()
        trained = set().union(*(eights(row.story) for row in rows("train")))
        held_out = [eights(row.story) for side in ("val", "test") for row in rows(side)]
        assert held_out and max(len(each & trained) / len(each) for each in held_out) < 0.5
    assert any("held_out_text" in row["reasons"] for row in rejected().values())


@pytest.mark.parametrize(
    ("key", "value"), [("profiles.writingprompts.min_words", 145), ("corpus.max_stories_a_prompt", 1)]
)
def test_what_governs_a_rule_that_takes_too_much_is_named(workplace, key, value):
    write_jsonl(workplace / "raw/writingprompts.jsonl", prompted(60))
    change(key, value)
    with pytest.raises(UserError, match=f"look at preprocess.{re.escape(key)} in params.yaml$"):
        run()


def test_every_key_that_is_named_exists(params):
    assert set(guards.GOVERNED) <= set(stage.RULES)
    known = {*Profile.model_fields, *(f"corpus.{key}" for key in type(params.corpus).model_fields)}
    assert set(guards.GOVERNED.values()) <= known


def test_nothing_left_to_train_on_is_said(workplace):
    write_jsonl(workplace / "raw/folder.jsonl", [folder_text("a.txt", "Too short.")])
    with pytest.raises(UserError, match=r"no story is left to train on \(short 1\)"):
        run()


def test_no_stories_at_all_are_said(workplace):
    write_jsonl(workplace / "raw/folder.jsonl", [])
    with pytest.raises(UserError, match=r"no story is left to train on \(there are no stories\)"):
        run()


def test_a_machine_that_does_not_see_the_work_folder_is_named(workplace, params):
    write_jsonl(workplace / "raw/folder.jsonl", own(1))
    examiner = stage.Examiner(params, held_out_prompts([], 5, 0.7), Work(str(workplace / "elsewhere")))
    with pytest.raises(UserError, match=r" does not see \S+elsewhere: give engine.yaml a `work` in a folder"):
        examiner.examine(shards.cut([Path("raw/folder.jsonl")])[0])
    assert not Path("elsewhere").exists()


def test_an_unknown_source_is_said(workplace):
    write_jsonl(workplace / "raw/diary.jsonl", prompted(1))
    with pytest.raises(UserError, match="raw/diary.jsonl: params.yaml has no preprocess.profiles.diary: add"):
        run()


def test_an_empty_folder_is_said(workplace):
    with pytest.raises(UserError, match="raw: no stories there: run `dvc repro collect`"):
        run()


def test_a_story_in_the_wrong_file_is_said(workplace):
    write_jsonl(workplace / "raw/tinystories.jsonl", prompted(1))
    with pytest.raises(UserError, match="is of source 'writingprompts', not of 'tinystories'"):
        run()


def test_prompts_of_another_shape_are_said(workplace):
    (workplace / "prompts.yaml").write_text("prompts:\n- {id: x}\n")
    with pytest.raises(UserError, match="prompts.yaml: prompt 1 must have"):
        run()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("profiles.folder.min_word", 3, "preprocess.profiles.folder.min_word is not a known key"),
        ("profiles.folder.longer", "cut", "preprocess.profiles.folder.longer = 'cut'"),
        (
            "profiles.folder.longer",
            None,
            "preprocess.profiles.folder.longer = None: where max_words is set, ",
        ),
        ("split.val", 0.7, "preprocess.split.val = 0.7"),
        ("corpus.min_jaccard", 0.1, "preprocess.corpus.min_jaccard = 0.1"),
        ("corpus.bands", [8, 16], "preprocess.corpus.bands = [8, 16]: they find 3% of the pairs as alike"),
        ("corpus.bands", [5, 1], "preprocess.corpus.bands = [5, 1]: they find 83% of the pairs as alike"),
        ("corpus.bands", [32], "preprocess.corpus.bands = [32]: give how many bands, and how many"),
        ("corpus.bands", 32, "preprocess.corpus.bands = 32: give how many bands"),
        ("corpus.bands", [32, "x"], "preprocess.corpus.bands.1 = 'x'"),
    ],
)
def test_a_wrong_param_is_said(workplace, key, value, said):
    change(key, value)
    with pytest.raises(UserError, match=re.escape(f"params.yaml: {said}")):
        run()


@pytest.mark.parametrize(("bands", "said"), [([32, 4], True), ([25, 5], False)])
def test_it_says_where_bands_let_too_many_strangers_meet(workplace, monkeypatch, capsys, bands, said):
    change("corpus.bands", bands)
    write_jsonl(workplace / "raw/writingprompts.jsonl", prompted(3))
    run()
    assert "corpus.bands" not in capsys.readouterr().out
    monkeypatch.setattr(guards, "MANY", 2)
    run()
    assert (f"preprocess.corpus.bands = {bands}: of " in capsys.readouterr().out) == said


@pytest.mark.parametrize("worth", [0, 10**9], ids=["processes", "one process"])
def test_a_broken_line_is_named_however_it_is_read(workplace, monkeypatch, worth):
    monkeypatch.setattr(stage, "WORTH_PROCESSES", worth)
    write_jsonl(workplace / "raw/writingprompts.jsonl", prompted(3))
    with (workplace / "raw/writingprompts.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(UserError, match="raw/writingprompts.jsonl, line 4: not a Story"):
        run()
    assert not Path("processed").exists()


def test_the_command_ends_in_one_line_without_a_trace(workplace):
    command = [
        sys.executable,
        "-m",
        "storyforge.preprocess.stage",
        "raw",
        "prompts.yaml",
        "processed",
        "m.json",
        "t.json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT / "src")})
    assert (done.returncode, done.stderr) == (1, "error: raw: no stories there: run `dvc repro collect`\n")


def test_the_committed_prompts_are_what_evaluation_needs():
    entries = YAML(typ="safe").load(ROOT / "data/prompts.yaml")["prompts"]
    assert {entry["kind"] for entry in entries} == {
        "mystery",
        "science fiction",
        "romance",
        "horror",
        "scene",
    }
    assert len({entry["id"] for entry in entries}) == len(entries)
    forms = "|".join(
        re.escape(wording)
        .replace(r"\{", "{")
        .replace(r"\}", "}")
        .format(
            part="[a-z ]+",
            kind="[A-Za-z ]+",
            place=" Place: [A-Z][^:]+[.]",
            speakers=" Speakers: [A-Z ,]+[.]",
        )
        for wording in SCENE_WORDINGS
    )
    for entry in entries:
        assert bool(re.fullmatch(forms, entry["prompt"])) == (entry["kind"] == "scene"), entry["id"]


def test_the_committed_held_out_plays_are_on_one_side_each(params):
    listed = params.split.held_out["shakespeare"]
    assert not set(listed.val) & set(listed.test)
    assert set(sides("shakespeare", listed.test, params.split).values()) == {"test"}
