"""Tasks over shares of a source collect what one pass over its records does, whoever runs them."""

import json
import shutil
import tracemalloc
from collections import Counter
from hashlib import sha256
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tasks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storyforge.core import workers
from storyforge.collect import reading, shards, stage
from storyforge.collect.reading import Record, Unusable, decoded
from storyforge.collect.shards import Choice, Maker, Share
from storyforge.collect.sources import writingprompts
from storyforge.core.choice import HIGHEST_RANK, rank
from storyforge.core.engine_file import Engine
from storyforge.core.errors import UserError
from storyforge.core.files import dumps
from storyforge.core.storage import Work

SEED = 7
BAD = (None, b" ", b"a\xffb", b"a\0b")
Rows = list[tuple[bytes | None, bytes | None]]  # prompt and story


def table(path: Path, rows: Rows, group: int) -> None:
    """A parquet file of these rows, some in each row group; its text unchecked, as a broken writer does."""
    columns = {}
    for name, values in zip(("prompt", "story"), zip(*rows, strict=True) if rows else ((), ()), strict=True):
        raw = pyarrow.array(values, pyarrow.binary())
        columns[name] = pyarrow.Array.from_buffers(pyarrow.string(), len(raw), raw.buffers())
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=group)


@pytest.fixture
def collected(monkeypatch, tmp_path):
    """collected(files, wanted, …): what the stage makes of them, by file name, its report among it."""

    def run(files: dict[str, Path], wanted: int | None, place: Path = tmp_path, **engine) -> dict[str, bytes]:
        monkeypatch.setattr(stage.assets, "files", lambda *_: files)
        source = {"stories": wanted, "origin": f"hub:datasets/w/p@{'0' * 40}", "files": "*"}
        params = stage.CollectParams(seed=SEED, max_reject_share=1, writingprompts=source)
        (raw := place / "raw").mkdir()
        run_by = Engine(**{"workers": 1, "work": str(place / "work")} | engine)
        report, _ = stage.collect(params, place, raw, run_by)
        found = {path.name: path.read_bytes() for path in raw.iterdir()}
        shutil.rmtree(raw)
        return found | {"report": dumps(report).encode()}

    return run


def defined(files: dict[str, Rows], wanted: int | None) -> tuple[list[bytes], list[tuple], dict]:
    """Lines of stories, file, row and reason of rejects, and part of the report, in the plainest way."""
    stories, rejects = [], []
    for name, rows in files.items():
        for number, (prompt, story) in enumerate(rows, 1):
            try:
                parts = (part if part is None else decoded(part) for part in (prompt, story))
                stories.append(writingprompts(*parts))
            except Unusable as reason:
                rejects.append((name, number, str(reason)))
    ranks = [rank(story.id, SEED) for story in stories]
    lowest = set(sorted(set(ranks))[:wanted])
    within = [(place, story) for place, story in zip(ranks, stories, strict=True) if place in lowest]
    kept = [each for number, each in enumerate(within) if each[0] not in dict(within[:number])]
    records = {
        "read": len(stories) + len(rejects),
        "not_chosen": len(stories) - len(within),
        "duplicates": len(within) - len(kept),
        "rejected": dict(sorted(Counter(reason for *_, reason in rejects).items())),
    }
    texts = [story.text for _, story in kept]
    figures = {
        "stories": len(kept),
        "words": sum(len(text.split()) for text in texts),
        "bytes": sum(len(text.encode()) for text in texts),
        "records": records,
        "samples": [
            {"id": story.id, "opening": story.text} for _, story in sorted(kept, key=itemgetter(0))[:3]
        ],
    }
    return [dumps(story).encode() for _, story in kept], rejects, figures


good = st.integers(0, 30).map(lambda n: f"Story {n} is “short”.".encode())
row = st.tuples(st.sampled_from([b"One", b"[ WP ] Two", *BAD]), st.one_of(good, good, st.sampled_from(BAD)))
corpora = st.lists(st.lists(row, max_size=25), min_size=1, max_size=4)


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    corpora,
    st.sampled_from([None, 1, 3, 12, 99]),
    st.sampled_from([1, 3, 100]),
    st.booleans(),
    st.sampled_from([0, 5, 100]),
)
def test_shards_hold_what_one_pass_over_all_rows_finds(
    collected, tmp_path_factory, corpus, wanted, group, cut, spare
):
    place = tmp_path_factory.mktemp("corpus")
    rows = {f"data/{number}.parquet": rows for number, rows in enumerate(corpus)}
    files = {name: place / name.replace("/", "-") for name in rows}
    for name, path in files.items():
        table(path, rows[name], group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SPARE", spare)  # of what is wanted, so few that lines are missing at first
        if cut:
            patch.setattr(reading, "TABLE_BYTES", 700)
        lines, rejects, figures = defined(rows, wanted)
        if rejects and not lines:
            with pytest.raises(UserError, match=f"no story in {len(rejects)} record"):
                collected(files, wanted, place)
            return
        found = collected(files, wanted, place)
    assert found["writingprompts.jsonl"].splitlines() == lines
    told = [json.loads(line) for line in found["rejects.jsonl"].splitlines()]
    assert [(each["file"], each["record"], each["reason"]) for each in told] == rejects
    report = json.loads(found["report"])["writingprompts"]
    assert {key: report[key] for key in figures} == figures
    assert sorted(path.name for path in place.iterdir()) == sorted(path.name for path in files.values())


ranks = st.lists(st.lists(st.integers(0, 12), max_size=12), min_size=1, max_size=4)


@given(ranks, st.sampled_from([None, 1, 4, 30]))
def test_of_equal_ranks_the_first_stays_in_whichever_shard(ranks, wanted):
    arrays = [np.array(each, np.uint64) for each in ranks]
    choice = Choice.among(np.concatenate(arrays), wanted)
    found = [stays for each in arrays for stays in choice.stay(each).tolist()]
    flat = [each for shard in ranks for each in shard]
    wanted_ones = sorted(set(flat))[:wanted]
    expected = [each in wanted_ones and each not in flat[:place] for place, each in enumerate(flat)]
    assert found == expected


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two files in eight shares, with copies and rows that are no story."""
    monkeypatch.setattr(reading, "TABLE_BYTES", 3_000)
    found = {}
    for number in range(2):
        told = [170 * number + n % 190 for n in range(200)]
        rows = [(b"One", f"Story {n} {sha256(bytes(n)).hexdigest()}".encode()) for n in told]
        rows.append((b"Two", b" "))
        found[f"{number}.parquet"] = tmp_path / f"{number}.parquet"
        table(found[f"{number}.parquet"], rows, 20)
    return found


def test_what_was_made_before_a_kill_is_not_made_again(collected, files, monkeypatch):
    whole, make, made = collected(files, 100), Maker.make, []
    monkeypatch.setattr(stage, "WORTH_PROCESSES", 1)

    def killed(self, share, **options):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(share.named)
        make(self, share, **options)

    monkeypatch.setattr(Maker, "make", killed)
    with pytest.raises(KeyboardInterrupt):
        collected(files, 100)
    first = list(made)
    monkeypatch.setattr(Maker, "make", lambda *args, **options: (made.append(args[1].named), make(*args)))
    shutil.rmtree(next(iter(files.values())).parent / "raw")
    assert collected(files, 100) == whole
    assert len(made) == len(set(made)) > 5 and made[:3] == first


def test_processes_and_one_that_is_killed_change_no_byte(collected, files, monkeypatch, tmp_path):
    whole = collected(files, 100)
    monkeypatch.setattr(stage, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(stage, "Maker", tasks.KilledMaker)
    (tmp_path / "mark").touch()
    monkeypatch.chdir(tmp_path)
    assert collected(files, 100, workers=2) == whole
    assert not (tmp_path / "mark").exists()


def test_tables_of_a_few_megabytes_start_no_process(collected, files, monkeypatch):
    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda *_: pytest.fail("started"))
    monkeypatch.setattr("storyforge.core.on_ray.running", lambda *_: pytest.fail("connected"))
    assert collected(files, 100, workers=2) == collected(files, 100, kind="ray")


def test_a_machine_that_sees_no_work_folder_or_no_table_says_what_to_set(tmp_path, files):
    share = Share("writingprompts", 0, "a", lambda: iter([Record("a", 1, None, (b"p", b"s"))]))
    with pytest.raises(UserError, match=r"does not see .*elsewhere: give engine.yaml a `work` in a folder"):
        Maker(Work(str(tmp_path / "elsewhere")), SEED).make(share)
    assert not (tmp_path / "elsewhere").exists()
    each = next(reading.tables(files, ("story",)))
    files["0.parquet"].unlink()
    with pytest.raises(UserError, match=r"does not see .*0.parquet: set STORYFORGE_CACHE to a folder"):
        next(each.records())


def test_no_line_is_written_of_what_will_hardly_be_wanted(collected, files, monkeypatch, tmp_path):
    shards_of, made = {}, []

    def looked_at(maker, shares, *rest, **own):
        paths = [maker.folder(share) / "stories.jsonl" for share in shares]
        shards_of[spare] = sum(path.read_bytes().count(b"\n") for path in paths)
        made.append(sum(1 for path in Path(maker.work.root).iterdir()) // len(shares))
        return joined(maker, shares, *rest, **own)

    joined = stage.joined
    monkeypatch.setattr(stage, "joined", looked_at)
    found = []
    for spare in (100, 20, -9):  # all, some, and too few: as many as are wanted then, at the second time
        monkeypatch.setattr(shards, "SPARE", spare)
        found.append(collected(files, 100))
    assert found[0] == found[1] == found[2] and made == [1, 1, 2]
    assert shards_of[100] > shards_of[20] > shards_of[-9] > 100  # 100 and their copies


def test_a_cut_table_allows_no_more_text_than_a_whole_one(files, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BATCH_BYTES", 1)
    cut = list(reading.tables(files, ("story",)))
    monkeypatch.undo()
    size = sum(path.stat().st_size for path in files.values())
    assert len(cut) > 5 and sum(each.most_bytes for each in cut) <= reading.MOST_TIMES * size


def test_to_choose_takes_two_bytes_a_story_at_most():
    ranks = np.random.default_rng(0).integers(0, 1 << 63, 100_000, np.uint64)
    tracemalloc.start()
    Choice.among(ranks, 5_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.2 * len(ranks)


def test_a_card_is_what_is_packed():
    assert np.frombuffer(shards.PACKED.pack(HIGHEST_RANK, 2, 3, 4), shards.CARD)[0].item() == (
        HIGHEST_RANK,
        2,
        3,
        4,
    )


def test_with_an_object_store_this_machine_alone_reads_with_as_many_processes_as_it_has(
    collected, files, monkeypatch, tmp_path, capsys
):
    whole, asked = collected(files, 100), []
    monkeypatch.setattr(stage, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(stage, "running", lambda engine: asked.append(engine) or workers.running(1))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for kind in ("ray", "local"):
        assert collected(files, 100, kind=kind, workers=64, work="s3://b/x") == whole
        assert "collect runs on this machine alone: " in capsys.readouterr().out
    assert asked == [Engine(), Engine(workers=64)]
