"""Calls in message batches: half the price, within a day, in any order, and the same batch after a kill."""

from itertools import islice

from tqdm import tqdm

from storyforge.core.errors import UserError
from storyforge.judging.money import affordable, at_most
from storyforge.judging.retries import persist
from storyforge.judging.service import Due
from storyforge.judging.work import Work, committed, noted

MOST_REQUESTS = 10_000  # of one batch; the service takes 100,000 or 256 MB
POLL_S = 30


def in_batches(work: Work, due: Due) -> int:
    """How many calls replied in the batches under way, and in a new one of as many as can be paid for.

    What expired or failed there is due again. Without params.batch there is no new one.
    """
    with tqdm(total=len(due), desc="calls in batches", disable=None) as bar:
        replied = sum(_collected(work, batch, bar) for batch in under_way(work, due))
        left = {key: each for key, each in due.items() if work.kept.reply(key) is None}
        if not left or not work.batched:
            return replied
        spent = committed(work.keys, work.kept, work.provider, work.params)
        most = {k: at_most(call, work.rate, work.params, batched=True) for k, (call, _) in left.items()}
        chunk = affordable(dict(islice(most.items(), MOST_REQUESTS)), spent, work.params.max_dollars)
        batch = persist(lambda: _created(work, chunk, left), work.pause, next(iter(chunk)))
        return replied + _collected(work, batch, bar)


def under_way(work: Work, due: Due) -> list[str]:
    """The batches that some of these are in, sent by a run before this one."""
    return [batch for batch, rows in work.kept.batches().items() if rows.keys() & due.keys()]


def _created(work: Work, chunk: dict[str, float], due: Due) -> str:
    """The id of a new batch, which the store knows before anybody asks for it."""
    with noted(work.kept, chunk) as requests:
        batch = work.service.batch.create({key: due[key] for key in chunk})
    work.kept.put_in_batch(requests, batch)
    return batch


def _collected(work: Work, batch: str, bar: tqdm) -> int:
    """How many replies came, once it has ended. Killed in between, the next run goes on with the rest."""
    while not (ended := persist(lambda: work.service.batch.ended(batch), work.pause, batch)):
        if ended is None:
            return _lost(work, batch)
        work.pause.stopped.wait(min(POLL_S, work.params.max_wait_s))
    replies, wrong = persist(lambda: work.service.batch.results(batch), work.pause, batch)
    replied = 0
    for key, (request, _) in work.kept.batches()[batch].items():
        if reply := replies.get(key):
            work.kept.keep(key, reply, requests=[request], batched=True)
            bar.update()
            replied += 1
        elif key in replies:
            work.kept.forget([request])
    if batch in work.kept.batches():
        _lost(work, batch)
    if wrong:
        raise UserError(wrong)
    return replied


def _lost(work: Work, batch: str) -> int:
    """What the service does not tell of may have been paid for."""
    rows = work.kept.batches()[batch].values()
    work.kept.put_in_batch([request for request, _ in rows], None)
    return 0
