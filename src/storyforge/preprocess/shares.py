"""Rules that drop more of a source than they should: an error, or a remark where a share says little."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from storyforge.core.errors import UserError
from storyforge.preprocess.accounts import Account

NO_FAULT = ("not_chosen", "gap")  # as many as params.yaml asks for
OWN = "folder"  # of one's own stories, where drafts of one story are nothing unusual: to drop them is enough
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
FEW = 50  # drafts of a source; among fewer a share may be chance, so the stage goes on


def require_moderate_rules(accounts: Mapping[str, Account], max_share: float) -> None:
    """UserError where a rule does not fit a source, or nothing is left to train on."""
    for source, account in accounts.items():
        for rule, count in _harsh(source, account.dropped, account.drafts, max_share):
            if account.drafts >= FEW:
                example = account.examples[rule].entries()[0]
                raise UserError(
                    f"{source}: rule '{rule}' drops {count:,} of {account.drafts:,}, more than "
                    f"preprocess.max_rule_share = {max_share} allows (for one: {example['opening']!r}: "
                    f"{example['reason']}): {_remedy(rule, source)}"
                )
    if not any(account.kept["train"] for account in accounts.values()):
        dropped = sum((account.dropped for account in accounts.values()), Counter()).most_common(3)
        rules = ", ".join(f"{rule} {count:,}" for rule, count in dropped) or "there are no stories"
        raise UserError(f"no story is left to train on ({rules}): look at preprocess.profiles in params.yaml")


def remarks(source: str, account: Mapping[str, Any], max_share: float) -> Iterator[str]:
    """A line for each rule that would have stopped the stage were the drafts not so few.

    `account` is the source's part of metadata.json.
    """
    dropped = {rule: row["dropped"] for rule, row in account["rules"].items()}
    for rule, count in _harsh(source, dropped, account["drafts"], max_share):
        yield f"rule '{rule}' drops {count} of {account['drafts']}: is that right? {_remedy(rule, source)}"


def _harsh(
    source: str, dropped: Mapping[str, int], drafts: int, max_share: float
) -> Iterator[tuple[str, int]]:
    excused = OWN_NO_FAULT if source == OWN else NO_FAULT
    for rule, count in dropped.items():
        if rule not in excused and count > max_share * drafts:
            yield rule, count


def _remedy(rule: str, source: str) -> str:
    if not (key := GOVERNED.get(rule)):
        return "take such texts out of the source, or raise that share"
    return f"look at preprocess.{key if '.' in key else f'profiles.{source}.{key}'} in params.yaml"
