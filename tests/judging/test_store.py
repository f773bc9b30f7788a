"""What was paid for stays: a store in use, damaged or without room is told of, and left as it is."""

import sqlite3
import threading

import pytest
from judges import questions

from storyforge.core.errors import UserError
from storyforge.judging.store import opened


def test_the_first_reply_of_a_key_stays(store):
    with opened(store) as kept:
        kept.keep("k", '{"a": 1}', requests=[], batched=True)
        kept.keep("k", '{"a": 2}', requests=[], batched=False)
    with opened(store) as kept:
        assert kept.reply("k") == ({"a": 1}, True) and kept.reply("other") is None


def test_a_request_is_there_until_its_reply_is_or_it_was_refused(store):
    with opened(store) as kept:
        requests = kept.intend({"a": 0.5, "b": 0.25, "c": 1.0})
    with opened(store) as kept:
        assert kept.unsettled() == [("a", 0.5, None), ("b", 0.25, None), ("c", 1.0, None)]
        kept.keep("a", "{}", requests=requests[:1], batched=False)
        kept.forget(requests[1:2])
        assert kept.unsettled() == [("c", 1.0, None)]


def test_requests_of_a_batch_are_found_by_its_id(store):
    with opened(store) as kept:
        requests = kept.intend({"a": 0.5, "b": 0.25})
        assert kept.batches() == {}
        kept.put_in_batch(requests, "batch")
    with opened(store) as kept:
        assert kept.batches() == {"batch": {"a": (1, 0.5), "b": (2, 0.25)}}
        kept.put_in_batch(requests, None)
        assert kept.batches() == {}


def test_what_was_kept_is_on_the_disk_before_anything_else_happens(store):
    with opened(store) as kept:
        settings = [
            kept.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
        assert settings == ["wal", 2]


def test_a_store_in_use_is_one_line(ask, service, store):
    with opened(store), pytest.raises(UserError, match="another run is using it: wait"):
        other = []
        thread = threading.Thread(target=lambda: other.append(_error(ask)))
        thread.start()
        thread.join()
        raise other[0]
    assert not service.asked


def _error(do):
    try:
        return do()
    except UserError as error:
        return error


@pytest.mark.parametrize("damage", ["no database", "cut", "page", "reply"])
def test_a_damaged_store_is_one_line_and_stays_as_it_is(ask, service, store, damage):
    ask(questions(40), workers=4)
    whole = store.read_bytes()
    if damage == "reply":
        with sqlite3.connect(store) as db:
            db.execute("UPDATE replies SET reply = replace(reply, 'winner', 'loser')")
        db.close()
    else:
        broken = {
            "no database": b"x" * 9000,
            "cut": whole[: len(whole) // 2],
            "page": whole[:4096] + bytes(4096) + whole[8192:],
        }
        store.write_bytes(broken[damage])
    before = store.read_bytes()
    with pytest.raises(UserError, match=f"{store.name}: damaged .*: put a copy back, or move it away"):
        ask(questions(40))
    assert store.read_bytes() == before and len(service.paid) == 40


def test_a_folder_where_nothing_can_be_written_is_one_line(ask, service, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="STORYFORGE_CACHE"):
        ask(path=tmp_path / "file" / "judge.sqlite")
    assert not service.asked


def test_a_full_disk_ends_the_run_in_one_line_and_loses_no_reply(ask, service, store):
    ask(questions(1))
    with opened(store) as kept:
        pages = kept.db.execute("PRAGMA page_count").fetchone()[0]
        kept.db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(UserError, match="full: make room"):
            kept.keep("large", '"' + "x" * 100_000 + '"', requests=[], batched=False)
    assert len(ask(questions(1))) == 1 and len(service.paid) == 1


def test_a_damaged_index_does_not_make_a_reply_look_unpaid(ask, service, store):
    ask(questions(1))
    with opened(store) as kept:
        ((key,),) = kept.db.execute("SELECT key FROM replies")
    whole = store.read_bytes()
    places = [place for place in range(len(whole)) if whole.startswith(key.encode(), place)]
    for place in places:
        store.write_bytes(whole[:place] + b"!" + whole[place + 1 :])
        with pytest.raises(UserError, match="damaged"):
            ask(questions(1))
    assert len(places) == 2 and len(service.paid) == 1
