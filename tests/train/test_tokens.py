"""Tokens of a run: encoded once, mapped as they were encoded."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from storyforge.core.errors import UserError
from storyforge.core.files import write_jsonl
from storyforge.model import processes
from storyforge.model.encoding import collate
from storyforge.train import tokens
from storyforge.train.tokens import encoded_once


@pytest.fixture
def stored(tmp_path, exchanges, encoder):
    """`encoded_once` of a split in two files and one of no story, and what the encoder makes of the first."""
    rows = [replace(row, id=f"{row.id} – Ωmega"[: 9 + 3 * n]) for n, row in enumerate(exchanges)]
    parts, val = [tmp_path / f"train-{n:05}.jsonl" for n in (0, 1)], tmp_path / "val.jsonl"
    for path, content in zip((*parts, val), (rows[:4], rows[4:], []), strict=True):
        write_jsonl(path, content)
    work = tmp_path / "work"
    work.mkdir()
    encode = partial(encoder.exchange, max_tokens=100)  # some are cut

    def run(encode, require_unchanged=lambda: None):
        return encoded_once(work, {"train": parts, "val": [val]}, encode, require_unchanged)

    return SimpleNamespace(work=work, run=run, encode=encode, rows=list(map(encode, rows)))


def fail(_):
    pytest.fail("encoded again")


def told(row):
    return row.id, list(row.ids), row.reply_start, row.reply_tokens, row.shortened


def test_a_row_is_what_the_encoder_made_of_it_and_its_batch_is_the_same(stored):
    found, none = stored.run(stored.encode)
    assert none == []
    assert list(map(told, found)) == list(map(told, stored.rows))
    assert {row.shortened for row in found} == {True, False}
    for part in (slice(0, 4), slice(8, None)):
        one, other = collate(found[part], "cpu"), collate(stored.rows[part], "cpu")
        for name in ("ids", "target_rows", "target_positions", "targets"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_the_next_start_encodes_nothing(stored):
    found = stored.run(stored.encode)[0]
    assert list(map(told, stored.run(fail)[0])) == list(map(told, found))


def test_a_run_killed_while_it_encodes_leaves_nothing_that_would_be_used(stored):
    rows = iter(stored.rows[:5])
    with pytest.raises(KeyboardInterrupt):
        stored.run(lambda _: next(rows, None) or (_ for _ in ()).throw(KeyboardInterrupt))
    assert list(stored.work.iterdir()) == []
    assert len(stored.run(stored.encode)[0]) == 9


def test_tokens_of_files_that_changed_meanwhile_are_not_kept(stored):
    def changed():
        raise UserError("changed")

    with pytest.raises(UserError, match="changed"):
        stored.run(stored.encode, changed)
    assert list(stored.work.iterdir()) == []


@pytest.mark.parametrize("part", ["tokens", "ids", "rows"])
def test_what_is_damaged_is_made_anew_and_said_so(stored, part, capsys):
    stored.run(stored.encode)
    file = stored.work / "tokens" / f"train.{part}"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert list(map(told, stored.run(stored.encode)[0])) == list(map(told, stored.rows))
    assert capsys.readouterr().err == f"{stored.work / 'tokens'} is damaged: made anew\n"


def test_a_process_that_does_not_see_the_folder_says_what_to_set(stored, monkeypatch):
    monkeypatch.setattr(tokens, "first_alone", lambda *_: None)
    with pytest.raises(UserError, match=r"train.tokens: No such file.*STORYFORGE_CHECKPOINT_DIR"):
        stored.run(stored.encode)


@pytest.fixture
def process(monkeypatch):
    """Makes this process the one of that number, of three that have one store."""
    store = torch.distributed.HashStore()
    monkeypatch.setattr(processes, "_get_default_store", lambda: store)

    def be(number):
        state = SimpleNamespace(num_processes=3, is_main_process=number == 0)
        monkeypatch.setattr(processes, "PartialState", lambda: state)

    return be


def test_the_others_wait_for_the_first_and_do_nothing(process, monkeypatch):
    done = []

    def first(_):
        process(0)
        processes.first_alone("work", lambda: done.append("first"))

    monkeypatch.setattr(processes.time, "sleep", first)
    process(2)
    processes.first_alone("work", lambda: done.append("another"))
    assert done == ["first"]


def test_all_end_by_the_mistake_that_the_first_met(process):
    def wrong():
        raise UserError("story 7: raise train.max_tokens")

    for number in (0, 1):
        process(number)
        with pytest.raises(UserError, match="^story 7: raise train.max_tokens$"):
            processes.first_alone("work", wrong if number == 0 else list)
