"""What is trained on, as tokens: encoded once for a run, kept on disk, and mapped by each of its processes.

They lie in the run's work directory, whose key holds all that decides them; of each split three files, in
this machine's byte order:

    NAME.tokens  int32: the tokens, row after row
    NAME.ids     UTF-8: the ids, row after row
    NAME.rows    int64, four a row: where its tokens and its id end, its reply_start, whether it is shortened;
                 the first four are 0
"""

import mmap
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from storyforge.core.errors import UserError
from storyforge.core.files import read_jsonl
from storyforge.core.records import Exchange
from storyforge.model.encoding import Encoded
from storyforge.model.processes import first_alone
from storyforge.train.checkpoints import made_once

FOLDER = "tokens"
KINDS = {"tokens": "i", "ids": "B", "rows": "q"}  # as array and memoryview name them
TOKENS_END, ID_END, REPLY_START, SHORTENED = range(4)


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """The files of one split."""

    tokens: memoryview
    ids: memoryview
    rows: memoryview

    def number(self, row: int, field: int) -> int:
        return self.rows[4 * (row + 1) + field]

    def part(self, row: int, end: int) -> slice:
        return slice(self.number(row - 1, end), self.number(row, end))


@dataclass(frozen=True, slots=True, eq=False)
class Mapped:
    """What training asks of an `Encoded`, looked up when it is asked for."""

    file: Map
    row: int

    @property
    def id(self) -> str:
        return str(self.file.ids[self.file.part(self.row, ID_END)], "utf-8")

    @property
    def ids(self) -> memoryview:
        return self.file.tokens[self.file.part(self.row, TOKENS_END)]

    @property
    def reply_start(self) -> int:
        return self.file.number(self.row, REPLY_START)

    @property
    def reply_tokens(self) -> int:
        return len(self.ids) - self.reply_start

    @property
    def shortened(self) -> bool:
        return bool(self.file.number(self.row, SHORTENED))


def encoded_once(
    work: Path,
    files: Mapping[str, Sequence[Path]],
    encode: Callable[[Exchange], Encoded],
    require_unchanged: Callable[[], None],
) -> list[list[Mapped]]:
    """The rows of each split, of which `files` has NAME and files.

    The first process encodes them if no start before did, the others wait for it.

    UserError where they cannot be saved, where a process does not see `work`, where `encode` raises one, and
    where `require_unchanged` does: what was read meanwhile is then not what the key of the run says.
    """

    def write(folder: Path) -> None:
        _write(files, encode, folder)
        require_unchanged()

    first_alone(FOLDER, partial(made_once, work, FOLDER, write))
    maps = [
        Map(*(_mapped(work / FOLDER / f"{name}.{part}", kind) for part, kind in KINDS.items()))
        for name in files
    ]
    return [[Mapped(whole, row) for row in range(len(whole.rows) // 4 - 1)] for whole in maps]


def _write(files: Mapping[str, Sequence[Path]], encode: Callable[[Exchange], Encoded], folder: Path) -> None:
    for name, parts in files.items():
        with ExitStack() as stack:
            tokens, ids, rows = (
                stack.enter_context((folder / f"{name}.{part}").open("wb")) for part in KINDS
            )
            array("q", (0, 0, 0, 0)).tofile(rows)
            tokens_end = ids_end = 0
            stories = chain.from_iterable(read_jsonl(file, Exchange) for file in parts)
            stories = tqdm(stories, desc=f"tokens of {name}", unit="", disable=None)
            for row in map(encode, stories):
                identity = row.id.encode()
                tokens_end, ids_end = tokens_end + len(row.ids), ids_end + len(identity)
                array("i", row.ids).tofile(tokens)
                ids.write(identity)
                array("q", (tokens_end, ids_end, row.reply_start, row.shortened)).tofile(rows)


def _mapped(file: Path, kind: str) -> memoryview:
    try:
        with file.open("rb") as opened:
            if not file.stat().st_size:  # nothing that could be mapped
                return memoryview(b"").cast(kind)
            # Private, though nobody writes: of some file systems (FUSE) that is the one kind there is.
            content = mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
            return memoryview(content).cast(kind)
    except OSError as error:
        remedy = "set STORYFORGE_CHECKPOINT_DIR to a folder that every process of the run sees"
        raise UserError(f"{file}: {error.strerror}: {remedy}") from None
