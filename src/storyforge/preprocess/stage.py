"""Make prose of the raw stories, drop with a reason what is none, and split the rest.

Reads   data/raw/SOURCE.jsonl of each source; data/prompts.yaml, which no story may give away
Writes  data/processed: train.jsonl, val.jsonl and test.jsonl in the order of the sources, so that a new
        story shows as a new line and as nothing else; rejected.jsonl with reasons (any of these in parts
        where it is large: core/splits.py); metadata.json; the metrics
Params  preprocess
"""

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from storyforge.core.cache import digest
from storyforge.core.engine_file import Engine, engine
from storyforge.core.errors import UserError
from storyforge.core.files import published_folder, write_json
from storyforge.core.launch import launch
from storyforge.core.records import read_prompts
from storyforge.core.runner import everywhere, running
from storyforge.core.splits import write_split
from storyforge.core.text import printable
from storyforge.core.work import work_folder
from storyforge.core.workers import Run
from storyforge.preprocess.accounts import Account, Read, outlook, report, summary
from storyforge.preprocess.drafts import Profile
from storyforge.preprocess.examiner import Examiner, PreprocessParams
from storyforge.preprocess.guards import heavy_rules, require_moderate_rules, strangers
from storyforge.preprocess.heldout import held_out_prompts
from storyforge.preprocess.settling import FILES, RULES, Settler
from storyforge.preprocess.shards import Shard, Spool, cut, is_whole, joined, sent
from storyforge.preprocess.verdicts import Verdicts

WORTH_PROCESSES = 2_000_000  # bytes of raw stories; fewer are done sooner than processes start


def preprocess(
    files: Sequence[Path], prompts: Sequence[str], params: PreprocessParams, folder: Path, run_by: Engine
) -> tuple[dict[str, Any], Read]:
    """Write the splits and the rejected rows to `folder`; returns the report.

    Texts stay in files of the work folder: one task examines a shard of the stories, others compare, the last
    writes the shard's lines. What a killed run had examined is not examined again.
    """
    held_out = held_out_prompts(prompts, params.corpus.shingle_words, params.corpus.min_jaccard)
    shards = cut(files)
    made_of = [params.model_dump(), prompts, [(path.name, digest(path)) for path in files]]
    with work_folder(run_by.work, made_of) as work, running(run_by) as run:
        _examine(Examiner(params, held_out, work), shards, run)
        spool = Spool.of(work, shards)
        if line := strangers(len(spool), params.corpus.bands):
            print(line)
        settler = Settler(params, spool)
        verdicts = Verdicts(settler, run)
        verdicts.find()
        accounts: dict[str, Account] = {}
        for shard, account in zip(
            shards, run(settler.write, verdicts.shares(), lambda share: share.shard.named()), strict=True
        ):
            accounts.setdefault(shard.path.stem, Account(RULES)).add(account)
        written = {name: write_split(folder, name, joined(work, shards, name)) for name in FILES}
        made, read = report(accounts, verdicts.families(), params.split), Read()
        if parts := {name: count for name, count in written.items() if count > 1}:
            made["parts"] = parts
        for source, counted in spool.read():
            read.stories[source] += counted["stories"]
            read.files |= counted["files"]
        if work.is_stored:
            everywhere(run_by, work.forget)
    require_moderate_rules(made, params.max_rule_share)
    return made, read


def _examine(examiner: Examiner, shards: Sequence[Shard], run: Run) -> None:
    """Into the work folder, what is not there yet."""
    there = examiner.work.names()
    left = deque(shard for shard in shards if not is_whole(there, shard))
    given = (sent(examiner.work, shard) for shard in tuple(left))
    examined = run(examiner.examine, given, Shard.named)
    try:
        for _ in tqdm(examined, "preprocess", len(left), unit=" shards", disable=None):
            left.popleft()
    except UserError:
        if examiner.work.is_stored:  # a node has the shard alone: in our file its lines have their numbers
            for _ in left[0].stories():
                pass
        raise


def raw_files(raw: Path, profiles: Mapping[str, Profile]) -> list[Path]:
    """The sources' files in the order of the profiles; UserError for one without, or if there is none."""
    found = {path.stem: path for path in raw.glob("*.jsonl") if path.stem != "rejects"}
    if unknown := sorted(set(found).difference(profiles)):
        raise UserError(
            f"{found[unknown[0]]}: params.yaml has no preprocess.profiles.{unknown[0]}: "
            "add one, with `form: prose` at least, or take one from recipes/"
        )
    if not found:
        raise UserError(f"{raw}: no stories there: run `dvc repro collect`")
    return [found[source] for source in profiles if source in found]


def main(raw: Path, prompts: Path, processed: Path, metrics: Path) -> dict[str, Any]:
    params, chosen = PreprocessParams.load(), engine()
    held_out = [prompt.prompt for prompt in read_prompts(prompts)]
    files = raw_files(raw, params.profiles)
    large = sum(path.stat().st_size for path in files) >= WORTH_PROCESSES
    run_by = chosen if large else chosen.model_copy(update={"kind": "local", "workers": 1, "work": None})
    with published_folder(processed) as folder:
        metadata, read = preprocess(files, held_out, params, folder, run_by)
        write_json(folder / "metadata.json", metadata)
    write_json(metrics, summary(metadata))
    for source, account in metadata["sources"].items():
        rows = ", ".join(f"{count:,} {side}" for side, count in account["kept"].items())
        stories, drafts = read.stories[source], account["drafts"]
        of = f"{drafts:,} passages of " if drafts != stories else ""
        print(printable(f"{source}: {rows} of {of}{stories:,} {'story' if stories == 1 else 'stories'}"))
        if dropped := {rule: row["dropped"] for rule, row in account["rules"].items() if row["dropped"]}:
            print(f"  dropped: {', '.join(f'{count:,} {rule}' for rule, count in dropped.items())}")
        if copies := read.copies(account):
            print(printable(f"  {copies}: leave one draft of each story"))
        if languages := account.get("languages"):
            print(f"  languages: {', '.join(f'{count:,} {name}' for name, count in languages.items())}")
        if missing := account["held_out_but_absent"]:
            absent = printable(", ".join(missing))
            print(f"  held out in params.yaml but not among the stories: {absent}")
    for line in heavy_rules(metadata, params.max_rule_share):
        print(printable(line))
    print(outlook(metadata))
    return {"engine": run_by.kind, "processes": run_by.processes}


if __name__ == "__main__":
    launch(main)
