"""What becomes of each draft: found by tasks on families of them, put together here, some bytes a draft."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from storyforge.core.choice import rank
from storyforge.core.records import SIDES
from storyforge.core.workers import Run
from storyforge.preprocess import corpus
from storyforge.preprocess.accounts import Families
from storyforge.preprocess.heldout import Drafts, hold_out, works
from storyforge.preprocess.relations import connected, equal, families
from storyforge.preprocess.settling import STAYS, Settler, Share, Sided, batches

PART, MOST_PARTS = 25_000, 64  # training drafts compared with held-out text at once; parts until those


@dataclass
class Verdicts:
    """Arrays have an element a draft; mappings, by its number, are of the few whose fate hangs on others."""

    settler: Settler
    run: Run
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    side: np.ndarray = field(init=False)  # uint8, a place in SIDES
    own_work: np.ndarray = field(init=False)  # whether its work is its story, and not its group
    cluster: np.ndarray = field(init=False)  # rank of the name
    rule: np.ndarray = field(init=False)  # uint8, why it goes: STAYS, or 1 + its place in corpus.RULES
    why: dict[int, str] = field(default_factory=dict)
    clusters: dict[int, str] = field(default_factory=dict)  # that are not the draft's work
    copies: Counter[str] = field(default_factory=Counter)  # of an original
    ended: list[str] = field(default_factory=list)  # works whose own end is held out

    def find(self) -> None:
        """All of them, in this order: what goes for one reason is asked for no other."""
        for name in ("group", "story", "prompt", "rejected", "by_prompt"):
            self.columns[name] = self.settler.spool.column(name)
        self._hold_out()
        self._drop_copies()
        self._drop_held_out_text()
        self._settle_prompts()
        self._keep_wanted()

    def staying(self) -> np.ndarray:
        """Numbers of the drafts, ascending."""
        return np.flatnonzero(~self.columns["rejected"] & (self.rule == STAYS))

    def shares(self) -> Iterator[Share]:
        """By shard."""
        spool = self.settler.spool
        whys, clusters = (deque(sorted(known.items())) for known in (self.why, self.clusters))
        for shard, first, end in zip(spool.shards, spool.starts, spool.starts[1:], strict=False):
            mine, said = slice(first, end), ({}, {})
            for left, taken in zip((whys, clusters), said, strict=True):
                while left and left[0][0] < end:
                    taken.update([left.popleft()])
            yield Share(shard, first, self.side[mine], self.own_work[mine], self.rule[mine], *said)

    def families(self) -> Families:
        """For the report."""
        staying, known = self.staying(), self.columns
        prompted = staying[known["prompt"][staying] != 0]
        pairs = np.unique(np.stack([self.cluster[prompted], known["group"][prompted]]), axis=1)
        sources, clusters = self.settler.spool.of_source(), Counter()
        for mine in sources.values():
            numbers = staying[(staying >= mine.start) & (staying < mine.stop)]
            for place, side in enumerate(SIDES):
                clusters[side] += len(np.unique(self.cluster[numbers[self.side[numbers] == place]]))
        return Families(
            clusters=clusters,
            groups={source: known["group"][mine] for source, mine in sources.items()},
            copies=self.copies.values(),
            prompts=np.unique(pairs[0], return_counts=True)[1].tolist(),
            ended=self.ended,
        )

    def _hold_out(self) -> None:
        known, count = self.columns, len(self.settler.spool)
        self.side, self.rule = np.zeros(count, np.uint8), np.full(count, STAYS, np.uint8)
        self.own_work = np.zeros(count, bool)
        params = self.settler.params
        for source, mine in self.settler.spool.of_source().items():
            drafts = Drafts(
                known["group"][mine],
                known["story"][mine],
                known["prompt"][mine] != 0,
                known["by_prompt"][mine],
                known["rejected"][mine],
            )
            own = self.own_work[mine] = works(drafts, params.corpus.max_stories_a_prompt)
            work = np.where(own, drafts.story, drafts.group)
            self.side[mine], gaps, ended = hold_out(source, drafts, work, params.split)
            for number in gaps:
                self._drop(mine.start + number, "gap")
            for number in ended:
                draft = self.settler.spool.draft(mine.start + number)[0]
                self.ended.append(draft.story if own[number] else draft.group)
        self.cluster = np.where(self.own_work, known["story"], known["group"])

    def _drop_copies(self) -> None:
        staying = self.staying()
        pairs = self._alike("texts", staying)
        pairs += [equal(self.settler.spool.column("fingerprint")[staying], staying)]
        labels = connected(np.concatenate(pairs), len(self.rule))[staying]
        _, family, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        several = sizes[family] > 1
        found = families(labels[several], staying[several])
        for gone in self.run(self.settler.copies, batches(found, self.side), self._named):
            for number, rule, original in gone:
                self._drop(number, rule, f"of {original}")
                self.copies[original] += 1

    def _drop_held_out_text(self) -> None:
        staying, spool = self.staying(), self.settler.spool
        spool.keep("compared", staying)
        work = self.cluster.copy()
        for source, mine in spool.of_source().items():
            work[mine] ^= np.uint64(rank(source, self.settler.params.split.salt))
        spool.keep("works", work[staying])
        held_out = self.side[staying] != SIDES.index("train")
        spool.keep("held_out", held_out)
        spool.keep("own_work", self.own_work)
        parts = min(MOST_PARTS, 1 + int((~held_out).sum()) // PART) if held_out.any() else 0
        for gone in self.run(self.settler.overlapping, [(part, parts) for part in range(parts)], str):
            for number, why in gone:
                self._drop(number, "held_out_text", why)

    def _settle_prompts(self) -> None:
        staying, known = self.staying(), self.columns
        prompted = staying[known["prompt"][staying] != 0]
        if not len(prompted):
            return
        # 1. Prompts and groups are connected by the drafts that have both, prompts by being alike.
        prompts, first, prompt = np.unique(known["prompt"][prompted], return_index=True, return_inverse=True)
        groups, group = np.unique(known["group"][prompted], return_inverse=True)
        order = np.argsort(prompted[first])
        drafts = prompted[first][order]  # one of each prompt
        alike = np.concatenate(self._alike("prompts", drafts))
        pairs = order[np.searchsorted(drafts, alike)]
        both = np.stack([prompt, len(prompts) + group], axis=1)
        roots = connected(np.concatenate([pairs, both]), len(prompts) + len(groups))[len(prompts) :]
        # 2. All drafts of those groups, whether they have a prompt or not.
        members = staying[np.isin(known["group"][staying], groups)]
        _, family = np.unique(roots[np.searchsorted(groups, known["group"][members])], return_inverse=True)
        # 3. To be judged are families of several groups, sides or works, and crowded ones.
        judged = np.zeros(int(family.max()) + 1, bool)
        for array in (known["group"], self.side, self.cluster):
            lowest = np.full(len(judged), array.max())
            np.minimum.at(lowest, family, array[members])
            judged[family[array[members] != lowest[family]]] = True
        if (most := self.settler.params.corpus.max_stories_a_prompt) is not None:
            judged |= np.bincount(family) > most
        mine = judged[family]
        found = families(family[mine], members[mine])
        for settled in self.run(self.settler.prompts, batches(found, self.side), self._named):
            for number, cluster, rule, why in settled:
                named = rank(cluster, self.settler.params.split.salt)
                if named != self.cluster[number]:
                    self.clusters[number], self.cluster[number] = cluster, named
                if rule:
                    self._drop(number, rule, why)

    def _keep_wanted(self) -> None:
        spool = self.settler.spool
        staying = self.staying()
        for source, mine in spool.of_source().items():
            numbers = staying[(staying >= mine.start) & (staying < mine.stop)]
            if (wanted := self.settler.params.profiles[source].keep) is not None and wanted < len(numbers):
                ranks = spool.column("rank")[numbers]
                self.rule[numbers[np.argsort(ranks, kind="stable")[wanted:]]] = _code("not_chosen")

    def _alike(self, kind: str, drafts: np.ndarray) -> list[np.ndarray]:
        self.settler.spool.keep(kind, drafts)
        bands = range(self.settler.params.corpus.bands.bands)
        return list(self.run(self.settler.alike, [(kind, band) for band in bands], str))

    def _named(self, batch: list[Sided]) -> str:
        known = self.settler.spool.draft(batch[0][0][0])[0]
        return f"{known.source}, what may be alike, from {known.id} on"

    def _drop(self, number: int, rule: str, why: str = "") -> None:
        self.rule[number] = _code(rule)
        if why:
            self.why[number] = why


def _code(rule: str) -> int:
    return 1 + corpus.RULES.index(rule)
