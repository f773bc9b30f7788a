"""A run that is killed between or inside batches ends with the texts of one that was not."""

import errno
import os

import pytest

from storyforge.core.errors import UserError
from storyforge.sampling import kept
from storyforge.sampling.generate import SamplingParams, write
from storyforge.sampling.kept import write_kept

PARAMS = SamplingParams(
    seed=1, max_new_tokens=6, temperature=1.0, top_p=1.0, min_p=0.0, repetition_penalty=1.0
)
PROMPTS = [f"Tell of {n} birds{' and rain' * (n % 3)}." for n in range(12)]
SEEDS = list(range(100, 112))


@pytest.fixture
def written(tuned, encoder, tmp_path, monkeypatch):
    """Writes the twelve in batches of five; the requests that reached the model are in `written.batches`."""
    monkeypatch.setattr(kept, "SIDE_BY_SIDE", 5)

    def noting(model, encoder, prompts, params, *, seeds):
        run.batches.append(len(prompts))
        return write(model, encoder, prompts, params, seeds=seeds)

    def run():
        run.batches = []
        monkeypatch.setattr(kept, "write", noting)
        found = write_kept(tuned, encoder, PROMPTS, PARAMS, seeds=SEEDS, work=tmp_path, name="drafts")
        (run.file,) = tmp_path.glob("drafts-*.jsonl")
        return found

    return run


def test_a_text_depends_on_its_prompt_and_seed_not_on_its_batch(written, tuned, encoder):
    together = write(tuned, encoder, PROMPTS, PARAMS, seeds=SEEDS)
    assert written() == together and written.batches == [5, 5, 2]
    assert len({reply.text for reply in together}) == 12


@pytest.mark.parametrize("left", [0, 1, 200, -1, -30])
def test_a_file_cut_anywhere_is_gone_on_with_and_ends_the_same(written, left, capsys):
    whole, content = written(), written.file.read_bytes()
    written.file.write_bytes(content[:left])
    done = content[:left].count(b"\n")
    assert written() == whole and written.batches == [5, 5, 2][done:]
    assert written.file.read_bytes() == content
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "damage", [lambda line: line.replace(b"tokens", b"tokenz"), lambda line: b"\0" * 9 + b"\n"]
)
def test_a_damaged_line_is_set_aside_in_one_line_and_written_again(written, damage, capsys):
    whole = written()
    first, second, third = written.file.read_bytes().splitlines(keepends=True)
    written.file.write_bytes(first + damage(second) + third)
    assert written() == whole and written.batches == [5, 2]
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{written.file.name}, line 2: damaged" in said
    assert (
        written.file.with_name(f"broken-{written.file.name}").read_bytes() == first + damage(second) + third
    )
    assert written.file.read_bytes() == first + second + third


def test_other_seeds_have_a_file_of_their_own(tuned, encoder, tmp_path):
    for seeds in ([1], [2], [1]):
        write_kept(tuned, encoder, ["Tell."], PARAMS, seeds=seeds, work=tmp_path, name="drafts")
    assert len(list(tmp_path.glob("drafts-*.jsonl"))) == 2


def test_a_full_disk_is_one_line_and_what_was_finished_stays(written, monkeypatch):
    calls, fsync = [], os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) > 2:  # the first batch, and its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"drafts-\w+\.jsonl: No space left on device: make room"):
        written()
    monkeypatch.setattr(os, "fsync", fsync)
    assert len(written()) == 12 and written.batches == [2]
