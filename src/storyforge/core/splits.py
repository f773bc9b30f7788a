"""The splits in data/processed: of each one file, or where it would be large, several.

SPLIT.jsonl up to PART_BYTES; beyond that SPLIT-00000.jsonl, SPLIT-00001.jsonl and so on, of at most as many.
They are cut between lines, by their bytes alone: who wrote the lines, and in what shares, does not show.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from storyforge.core.errors import UserError
from storyforge.core.files import published, read_jsonl
from storyforge.core.records import Exchange

PART_BYTES = 1 << 30


def write_split(folder: Path, name: str, lines: Iterable[bytes]) -> None:
    """Lines that end in a newline, into a folder with none of this name; a longer one is a part by itself."""
    lines, paths = iter(lines), []
    line = next(lines, b"")
    while line or not paths:
        paths.append(_part(folder, name, len(paths)))
        with published(paths[-1]) as file:
            size = file.write(line)
            while (line := next(lines, b"")) and size + len(line) <= PART_BYTES:
                size += file.write(line)
    if len(paths) == 1:
        paths[0].rename(folder / f"{name}.jsonl")


def split_files(processed: Path, name: str) -> list[Path]:
    """In their order; the path of the one file where there is none. UserError where some are missing."""
    whole, parts = processed / f"{name}.jsonl", sorted(processed.glob(f"{name}-[0-9]*.jsonl"))
    if not parts:
        return [whole]
    wanted = [_part(processed, name, number) for number in range(len(parts))]
    if whole.exists() or parts != wanted:
        odd = whole if whole.exists() else next(b for a, b in zip(wanted, parts, strict=True) if a != b)
        raise UserError(f"{odd}: does not belong with the others there: run `dvc repro`")
    return parts


def read_split(processed: Path, name: str) -> Iterator[Exchange]:
    """The rows of all its files; UserError names the line that is none."""
    for path in split_files(processed, name):
        yield from read_jsonl(path, Exchange)


def _part(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}-{number:05}.jsonl"
