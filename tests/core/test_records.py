"""Files are canonical, appear whole or not at all, and a broken one is named."""

import errno
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from storyforge.core import records
from storyforge.collect.stage import CollectParams
from storyforge.core.errors import UserError
from storyforge.core.files import (
    dumps,
    published,
    published_folder,
    read_json,
    read_jsonl,
    read_yaml,
    write_json,
    write_jsonl,
)
from storyforge.core.records import Exchange, Prompt, Story, read_prompts
from storyforge.preprocess.stage import PreprocessParams

STORY = Story(
    "1", "folder", "g", None, 'He said "é" / and\u2028left.', "none", {"b": 1, "a": [0.30000000000000004]}
)


@pytest.fixture
def full_disk(monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)


def test_row_is_one_canonical_line():
    assert dumps(STORY) == (
        '{"group":"g","id":"1","licence":"none","meta":{"a":[0.30000000000000004],"b":1},"prompt":null,'
        '"source":"folder","text":"He said \\"é\\" / and\u2028left."}'
    )


def test_not_a_number_is_never_written():
    with pytest.raises(ValueError, match="JSON compliant"):
        dumps({"loss": float("nan")})


def test_rows_come_back_as_they_were_written(tmp_path):
    exchange = Exchange("1", "folder", "g", "Begin.", "Once.\r\nTwice.", ended=True)
    for row in (STORY, exchange):
        assert write_jsonl(tmp_path / "new" / "rows.jsonl", [row, row]) == 2
        assert list(read_jsonl(tmp_path / "new" / "rows.jsonl", type(row))) == [row, row]


def test_bytes_depend_on_the_rows_alone(tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from storyforge.core.records import *; from storyforge.core.files import *\n"
        "meta = {key: 1 for key in {'x', 'y', 'z'}}\n"
        "write_jsonl(Path(sys.argv[1]), [Story('1', 's', 'g', None, chr(233), 'l', meta)])"
    )
    source = str(Path(records.__file__).parents[2])
    for seed, locale in (("0", "C"), ("7", "C.UTF-8")):
        env = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "LC_ALL": locale,
            "PYTHONUTF8": "0",
            "PYTHONPATH": source,
        }
        subprocess.run([sys.executable, "-c", script, tmp_path / seed], env=env, check=True)
    assert (tmp_path / "0").read_bytes() == (tmp_path / "7").read_bytes()


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "7", '{"id": "1"}', '{"unknown": 1}', "[" * 100_000, "9" * 5000, "\xff", dumps(STORY)[:-1]]
    + [dumps(STORY).replace(*change) for change in (('"1"', "1"), ('"none"', "null"), ("{", "[", 2))]
    + [dumps(STORY).replace('"1"', r'"\ud800"'), dumps(STORY).replace('"prompt":null', '"prompt":[]')],
)
def test_line_that_is_no_row_is_named(line, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{dumps(STORY)}\n{line}\n")
    with pytest.raises(UserError, match="rows.jsonl, line 2: not a Story"):
        list(read_jsonl(path, Story))


@pytest.mark.parametrize("read", [lambda path: list(read_jsonl(path, Story)), read_json, read_yaml])
def test_missing_file_is_named(read, tmp_path):
    with pytest.raises(UserError, match="absent"):
        read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("read", "content"),
    [
        *((read_json, content) for content in (b"{", b"\xff", b"[" * 100_000, b"9" * 5000, b"")),
        *((read_yaml, content) for content in (b"a: [", b"\xff", b"[" * 5000, b"a: " + b"9" * 5000)),
        *((read_yaml, content) for content in (b"a: 2026-13-45", b"a: !!int x", rb'a: "\ud800"', b"&a [*a]")),
    ],
)
def test_broken_file_is_named_on_one_line(read, content, tmp_path):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(UserError, match="broken: cannot be read") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_json_for_people_keeps_its_order(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "b": 1,\n  "a": "é"\n}\n'.encode()


def test_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), published(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_text() == "old"
        raise RuntimeError
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a.txt", "old")]


def test_file_is_synced_before_it_is_renamed_and_its_name_after(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        done = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, done=done: (calls.append(name), done(*args)))
    write_json(tmp_path / "a.json", 1)
    assert calls == ["fsync", "replace", "fsync"]


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, full_disk):
    with pytest.raises(
        UserError, match="rows.jsonl: No space left on device: nothing was written there: make room$"
    ):
        write_jsonl(tmp_path / "rows.jsonl", [STORY])
    assert list(tmp_path.iterdir()) == []


def test_folder_replaces_an_older_one_whole(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("")
    with published_folder(tmp_path / "out") as folder:
        (folder / "new").write_text("")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "out",
        "out/new",
    ]


def test_folder_that_fails_leaves_the_older_one(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError), published_folder(tmp_path / "out") as folder:
        (folder / "new").write_text("")
        raise RuntimeError
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


KILLED = """
import os, sys
from pathlib import Path
from storyforge.core.files import published_folder
path, name, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
call = getattr(os, name)
def call_and_die(*words, **more):
    global left
    call(*words, **more)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
setattr(os, name, call_and_die)
with published_folder(path) as folder:
    (folder / "new").write_text("")
"""


def killed(path: Path, call: str, number: int) -> bool:
    """Whether a writer of `path` was killed after that many calls; else it has finished."""
    words = [sys.executable, "-c", KILLED, path, call, str(number)]
    return subprocess.run(words, env={**os.environ, "PYTHONPATH": "src"}).returncode == -9


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("call", ["mkdir", "fsync", "replace", "unlink", "rmdir"])
def test_what_a_killed_writer_left_goes_and_no_result_is_lost(tmp_path, call):
    for number in count(1):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old").write_text("")
        if not killed(tmp_path / "out", call, number):
            break
        with pytest.raises(RuntimeError), published_folder(tmp_path / "out"):
            raise RuntimeError
        assert tree(tmp_path) in (["out", "out/old"], ["out", "out/new"])
    assert number > 2


def test_an_old_result_that_a_killed_writer_moved_comes_back(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("")
    assert killed(tmp_path / "out", "replace", 1) and not (tmp_path / "out").exists()
    with pytest.raises(RuntimeError), published_folder(tmp_path / "out"):
        raise RuntimeError
    assert tree(tmp_path) == ["out", "out/old"]


def test_what_lies_beside_and_is_not_ours_stays(tmp_path):
    for name in (".out.part", ".out.old", ".out.mine.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("")
    before = tree(tmp_path)
    with published_folder(tmp_path / "out"):
        pass
    assert tree(tmp_path) == sorted([*before, "out"])


def test_two_writers_never_mix_and_the_last_one_wins(tmp_path):
    with published_folder(tmp_path / "out") as first:
        (first / "first").write_text("")
        with published_folder(tmp_path / "out") as second:
            (second / "second").write_text("")
        assert tree(tmp_path / "out") == ["second"]
    assert tree(tmp_path) == ["out", "out/first"]


def test_many_writers_at_once_leave_the_whole_of_one(tmp_path):
    def write(number: int) -> None:
        for _ in range(20):
            with published_folder(tmp_path / "out") as folder:
                for part in "abc":
                    (folder / part).write_text(str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert tree(tmp_path) == ["out", "out/a", "out/b", "out/c"]
    assert len({(tmp_path / "out" / part).read_text() for part in "abc"}) == 1


def test_prompts_are_read_in_their_order(tmp_path):
    (tmp_path / "p.yaml").write_text(
        "prompts: [{id: b, kind: horror, prompt: Tell.}, {id: a, kind: x, prompt: Go.}]"
    )
    assert read_prompts(tmp_path / "p.yaml") == [Prompt("b", "horror", "Tell."), Prompt("a", "x", "Go.")]


def test_a_surrogate_pair_is_a_character_and_half_of_one_an_error(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text('prompts: [{id: a, kind: x, prompt: "A \\ud83d\\ude00."}]')
    assert read_prompts(file) == [Prompt("a", "x", "A \U0001f600.")]
    file.write_text('prompts: [{id: a, kind: x, prompt: T}, {id: b, kind: x, prompt: "A \\ude00."}]')
    with pytest.raises(
        UserError, match=r"p.yaml: cannot be read: prompts: 2: prompt: character 3 is half a character"
    ):
        read_prompts(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no list of prompts"),
        ("- a", "no list of prompts"),
        ("prompts: []", "no list of prompts"),
        ("prompts: 3", "no list of prompts"),
        ("prompts: {id: a, kind: x, prompt: T}", "no list of prompts"),
        ("prompts: [{id: a, prompt: Tell.}]", "prompt 1 must have the texts id, kind and prompt"),
        ("prompts: [{id: a, kind: x, prompt: Tell., mood: grim}]", "prompt 1 must have"),
        ("prompts: [{id: a, kind: x, prompt: 7}]", "prompt 1 must have"),
        ("prompts: [Tell.]", "prompt 1 must have"),
        (
            "prompts: [{id: a, kind: x, prompt: T}, {id: a, kind: x, prompt: U}]",
            "prompt 2: the id 'a' stands twice",
        ),
    ],
)
def test_a_prompt_of_another_shape_is_named(tmp_path, content, message):
    (tmp_path / "p.yaml").write_text(content)
    with pytest.raises(UserError, match=f"p.yaml: .*{message}"):
        read_prompts(tmp_path / "p.yaml")


def test_a_key_that_is_missing_from_json_is_named(tmp_path):
    write_json(tmp_path / "a.json", {"losses": {"first": 1}})
    with pytest.raises(UserError, match="a.json: there is no 'last' where it should be"):
        read_json(tmp_path / "a.json")["losses"]["last"]


def test_few_bytes_of_yaml_cannot_stand_for_a_memory_of_values(tmp_path):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
    )
    (tmp_path / "params.yaml").write_text(bomb)
    with pytest.raises(UserError, match="params.yaml: cannot be read: it has more than 20 aliases"):
        read_yaml(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: '" + "*stars* " * 99 + "'")
    assert read_yaml(tmp_path / "params.yaml")["a"].startswith("*stars* *stars*")
    (tmp_path / "params.yaml").write_text("a: &usual {b: 1}\nc: *usual\nd: {<<: *usual, e: 2}")
    assert read_yaml(tmp_path / "params.yaml")["d"] == {"b": 1, "e": 2}


ROOT = Path(__file__).parents[2]
INSERTED = (
    rb'[|{|&a |*a|<<: |? |!!int |!!timestamp 2020-99-99|\ud800|"\ud800"|- |: |%YAML 9.9|'
    rb"!!set|!!omap|!!binary x|'|\"|0x|.inf|NaN|!!python/name:os|@|`|!<|&a [*a]|{a: 1}: 2|[1]: 2|1:2:3|null"
    rb"|},{|]|1e999|2026-13-45"
).split(b"|")
INSERTED += [b"\xff", b"\0", b"\t", b"\n", b"\xef\xbb\xbf", b"9" * 5000, b"[" * 3000, b"|\n", b""]
READ = {
    "params.yaml": (PreprocessParams.load, "params.yaml"),
    "recipe": (CollectParams.load, "recipes/my-stories.yaml"),
    "prompts.yaml": (read_prompts, "data/prompts.yaml"),
    "dvc.yaml": (read_yaml, "dvc.yaml"),
    "metrics": (lambda path: read_json(path)["final"]["loss"], "metrics/train.json"),
    "stories": (lambda path: list(read_jsonl(path, Story)), Story),
    "exchanges": (lambda path: list(read_jsonl(path, Exchange)), Exchange),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("read", "content"), READ.values(), ids=READ)
def test_a_damaged_file_is_one_line_or_read(read, content, seed, tmp_path):
    rng, path = random.Random(seed), tmp_path / "damaged"
    if isinstance(content, str):
        content = (ROOT / content).read_bytes()[:1500]
    else:
        rows = [STORY, Exchange("1", "folder", "g", "Begin.", "Once.", True, {"tags": ["WP"]})]
        content = b"".join(dumps(row).encode() + b"\n" for row in rows if isinstance(row, content))
    for _ in range(10):
        data = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 4))):
            start = rng.randrange(len(data) + 1)
            data[start : start + rng.choice((0, 0, 1, 3, 40))] = rng.choice(INSERTED)
        path.write_bytes(data)
        try:
            read(path)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and len(str(error).encode()) < 2000, bytes(data)
