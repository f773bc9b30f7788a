"""The splits in data/processed: of each one file, or where it would be large, several.

SPLIT.jsonl up to PART_BYTES; beyond that SPLIT-00000.jsonl, SPLIT-00001.jsonl and so on, of at most as many.
They are cut between lines, by their bytes alone: who wrote the lines, and in what shares, does not show.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from storyforge.core.errors import UserError
from storyforge.core.files import published, read_json, read_jsonl
from storyforge.core.records import Exchange

PART_BYTES = 1 << 30


def write_split(folder: Path, name: str, lines: Iterable[bytes]) -> int:
    """Lines that end in a newline, into a folder with none of this name; a longer one is a part by itself.

    Returns how many files they are in; what is more than one belongs in `parts` of the metadata.json there.
    """
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
    return len(paths)


def split_files(processed: Path, name: str) -> list[Path]:
    """In their order; the path of the one file where there is none.

    UserError where some of those that metadata.json counts are missing, or others are there.
    """
    whole, parts = processed / f"{name}.jsonl", sorted(processed.glob(f"{name}-[0-9]*.jsonl"))
    if not parts:
        return [whole]
    count = read_json(processed / "metadata.json").get("parts", {}).get(name, 0)
    wanted = [_part(processed, name, number) for number in range(count)]
    if odd := ({whole} if whole.exists() else set(parts)) - set(wanted):
        raise UserError(f"{min(odd)}: does not belong with the others there: run `dvc repro`")
    if missing := set(wanted) - set(parts):
        remedy = "`dvc checkout` brings it back, else `dvc repro preprocess`"
        raise UserError(f"{min(missing)}: missing, of {count} files of one split: {remedy}")
    return wanted


def read_split(processed: Path, name: str) -> Iterator[Exchange]:
    """The rows of all its files; UserError names the line that is none."""
    for path in split_files(processed, name):
        yield from read_jsonl(path, Exchange)


def _part(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}-{number:05}.jsonl"
