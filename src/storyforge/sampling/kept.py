"""Replies to many prompts, each batch on the disk before the next begins: a killed run goes on there."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path

from tqdm import tqdm

from storyforge.core.errors import UserError
from storyforge.core.files import dumps, sync
from storyforge.core.text import printable
from storyforge.model.encoding import Encoder
from storyforge.sampling.generate import SIDE_BY_SIDE, SamplingParams, Written, write

Asked = Sequence[tuple[str, int]]  # a batch: prompts, each with its seed


def write_kept(
    model,
    encoder: Encoder,
    prompts: Sequence[str],
    params: SamplingParams,
    *,
    seeds: Sequence[int],
    work: Path,
    name: str,
) -> list[Written]:
    """What `write` gives; a file in `work` holds a line a batch.

    `work` is a directory of one model and one `params`, `name` says what is written. A last line that a kill
    tore is written again. A file with another fault is copied, for a person to look at, and used up to that
    fault. UserError where the disk takes no more.
    """
    asked = list(zip(prompts, seeds, strict=True))
    kept = work / f"{name}-{_digest(asked, [])[:8]}.jsonl"  # other prompts or seeds have a file of their own
    batches = [asked[start : start + SIDE_BY_SIDE] for start in range(0, len(asked), SIDE_BY_SIDE)]
    found = _finished(kept, batches)
    bar = tqdm(desc=name, total=len(asked), initial=len(sum(found, [])), unit="text", disable=None)
    with bar:
        for batch in batches[len(found) :]:
            texts, numbers = zip(*batch, strict=True)
            found.append(write(model, encoder, texts, params, seeds=numbers))
            _append(kept, _line(batch, list(map(asdict, found[-1]))))
            bar.update(len(batch))
    return sum(found, [])


def _append(kept: Path, line: bytes) -> None:
    try:
        with kept.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        sync(kept.parent)
    except OSError as error:
        remedy = "make room, or set STORYFORGE_CHECKPOINT_DIR to a folder on another disk"
        raise UserError(f"{kept}: {error.strerror}: {remedy}") from error


def _finished(kept: Path, batches: Sequence[Asked]) -> list[list[Written]]:
    """The replies of the batches that are done; the file then holds these and nothing else."""
    if not kept.exists():
        return []
    *lines, _ = kept.read_bytes().split(b"\n")  # what follows the last line end was torn by a kill
    found = list(takewhile(lambda replies: replies is not None, map(_replies, batches, lines)))
    if len(found) < len(lines):
        aside = kept.with_name(f"broken-{kept.name}")
        shutil.copyfile(kept, aside)
        said = f"{kept}, line {len(found) + 1}: damaged: what follows is written again; {aside.name} keeps it"
        print(printable(said), file=sys.stderr)
    os.truncate(kept, sum(len(line) + 1 for line in lines[: len(found)]))
    return found


def _line(batch: Asked, replies: list[dict]) -> bytes:
    return dumps({"digest": _digest(batch, replies), "replies": replies}).encode() + b"\n"


def _replies(batch: Asked, line: bytes) -> list[Written] | None:
    """None where it is no line of this batch."""
    try:
        row = json.loads(line)
        fits = row["digest"] == _digest(batch, row["replies"])
        return [Written(**reply) for reply in row["replies"]] if fits else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _digest(batch: Asked, replies: list[dict]) -> str:
    return hashlib.sha256(dumps([batch, replies]).encode()).hexdigest()
