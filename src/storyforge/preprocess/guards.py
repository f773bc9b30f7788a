"""What stops the stage, or is said: a rule that drops so much of a source that it does not fit it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from storyforge.core.errors import UserError
from storyforge.preprocess.corpus import Bands

NO_FAULT = ("not_chosen", "gap")  # as many as params.yaml asks for
# Of one's own stories, where several drafts of one are nothing unusual: to drop them is enough.
OWN = "folder"
OWN_NO_FAULT = (*NO_FAULT, "copy", "near_copy", "held_out_text")
GOVERNED = {  # rule → the key that makes it stricter or milder; of a source's profile, or with its section
    "tag": "drop_tags",
    "short_prompt": "min_prompt_words",
    "meta": "max_meta",
    "foreign": "min_english",
    "short": "min_words",
    "long": "max_words",
    "broken": "max_broken_characters",
    "unlettered": "min_lettered_words",
    "word_length": "mean_word_length",
    "one_character": "max_one_character",
    "unfinished": "must_end",
    "repeated_lines": "max_repetition",
    "repeated_phrase": "max_repetition",
    "repeated_passages": "max_repetition",
    "promotion": "max_promotions",
    "shouting": "max_capitals",
    "list_shape": "max_list_lines",
    "short_lines": "max_short_lines",
    "unsafe": "drop_unsafe",
    "near_copy": "corpus.min_jaccard",
    "split_conflict": "corpus.min_jaccard",
    "crowded_prompt": "corpus.max_stories_a_prompt",
}
MANY, ROWS = 10_000_000, 4  # drafts, of which with so few numbers in a band too many meet by chance
FEW = 50  # drafts of a source; among fewer a share does not stop the stage, and is said


def require_moderate_rules(report: Mapping[str, Any], max_share: float) -> None:
    """UserError for a rule that drops more than its share of a source, and where nothing is left."""
    if line := next(_excesses(report, max_share, few=False), None):
        raise UserError(line)
    if not report["splits"]["train"]["rows"]:
        dropped = Counter()
        for account in report["sources"].values():
            dropped.update({rule: row["dropped"] for rule, row in account["rules"].items() if row["dropped"]})
        rules = ", ".join(f"{rule} {count:,}" for rule, count in dropped.most_common(3))
        raise UserError(
            f"no story is left to train on ({rules or 'there are no stories'}): "
            "look at preprocess.profiles in params.yaml"
        )


def strangers(drafts: int, bands: Bands) -> str | None:
    """A line where so many texts, of which nothing is alike, would be compared; else None.

    With 32 bands of 4 each TinyStories row meets 1.3 among two million, and more as they grow in number.
    """
    if drafts <= MANY or bands.rows > ROWS:
        return None
    found = Bands(25, 5).found(similarity := 0.7)
    return (
        f"preprocess.corpus.bands = {list(bands)}: of {drafts:,} drafts many that are nothing alike share a "
        f"band and are compared: [25, 5] spares most of that, and finds {found:.0%} of pairs of {similarity}"
    )


def heavy_rules(report: Mapping[str, Any], max_share: float) -> list[str]:
    """The same of sources with so few drafts that it stops nothing, in lines."""
    return list(_excesses(report, max_share, few=True))


def _excesses(report: Mapping[str, Any], max_share: float, few: bool) -> Iterator[str]:
    for source, account in report["sources"].items():
        drafts = account["drafts"]
        for rule, row in account["rules"].items() if (drafts < FEW) == few else ():
            excused = OWN_NO_FAULT if source == OWN else NO_FAULT
            if rule not in excused and row["dropped"] > max_share * drafts:
                example = row["examples"][0]
                yield (
                    f"{source}: rule '{rule}' drops {row['dropped']:,} of {drafts:,}, more than "
                    f"preprocess.max_rule_share = {max_share} allows"
                    f"{f' from {FEW} on' if few else ''} (for one: {example['opening']!r}: "
                    f"{example['reason']}): {_remedy(rule, source)}"
                )


def _remedy(rule: str, source: str) -> str:
    if not (key := GOVERNED.get(rule)):
        return "take such texts out of the source, or raise that share"
    return f"look at preprocess.{key if '.' in key else f'profiles.{source}.{key}'} in params.yaml"
