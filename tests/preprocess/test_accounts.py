"""The account of a source: what was kept, what went by which rule, and examples of both."""

import numpy as np
import pytest

from storyforge.core.choice import rank
from storyforge.core.files import dumps
from storyforge.core.records import SIDES, Exchange
from storyforge.preprocess.accounts import (
    EXAMPLES,
    OPENINGS,
    Account,
    Families,
    outlook,
    report,
    shortened,
    summary,
)
from storyforge.preprocess.corpus import Candidate
from storyforge.preprocess.heldout import HeldOut, SplitParams

RULES = ("short", "foreign", "copy")
SPLIT = SplitParams(salt=1, val=0.1, test=0.1, held_out={"tales": HeldOut(val=(), test=("elsewhere",))})


def entry(number: int, side: str = "train", **known) -> Candidate:
    row = {"source": "tales", "group": f"g{number}", "words": 10, "ended": True, "stripped_characters": 2}
    plain = {
        "fingerprint": "",
        "prompt_words": None,
        "cluster": f"g{number}",
        "side": side,
    }
    return Candidate(**({"id": f"id{number:02}"} | row | plain | known))


def line(draft: Candidate) -> bytes:
    return dumps(
        Exchange(draft.id, draft.source, draft.group, "Tell.", f"Story of {draft.id}.", True)
    ).encode()


def kept_account(drafts: list[Candidate]) -> Account:
    account = Account(RULES)
    for draft in drafts:
        account.enter(draft, line(draft))
    return account


DRAFTS = [
    entry(1),
    entry(2, side="val", ended=False),
    entry(3, reasons={"foreign": "0.1", "copy": "of id01"}, original="id01"),
    entry(4, reasons={"short": "3 words", "foreign": "0.2"}),
    entry(5, prompt_words="a b", cluster="g1"),
]


def test_rules_are_counted_in_order_and_alone():
    found = kept_account(DRAFTS).report()
    assert found["kept"] == {"train": 2, "val": 1, "test": 0}
    assert found["words"] == {"train": 20, "val": 10, "test": 0}
    assert {rule: (c["dropped"], c["would_drop_alone"]) for rule, c in found["rules"].items()} == {
        "short": (1, 1),
        "foreign": (1, 2),
        "copy": (0, 1),
    }
    assert (found["drafts"], found["cut_short"], found["stripped_characters"]) == (5, 1, 6)
    assert found["rules"]["short"]["examples"] == [
        {"id": "id04", "prompt": "Tell.", "opening": "Story of id04.", "reason": "3 words"}
    ]


def test_a_lost_draft_is_noticed():
    account = kept_account(DRAFTS)
    account.drafts += 1
    with pytest.raises(AssertionError, match="5 of 6"):
        account.report()


def test_samples_are_few_and_do_not_depend_on_the_order():
    drafts = [entry(n) for n in range(30)] + [entry(n, reasons={"short": "x"}) for n in range(30, 60)]
    found, again = kept_account(drafts).report(), kept_account(drafts[::-1]).report()
    assert (len(found["openings"]), len(found["rules"]["short"]["examples"])) == (OPENINGS, EXAMPLES)
    assert found == again


FAMILIES = Families(
    clusters={"train": 1, "val": 1, "test": 0},
    groups={"tales": np.array([rank(f"g{number}", SPLIT.salt) for number in range(1, 6)], np.uint64)},
    copies=[1],
    prompts=[1],
)


def test_two_accounts_one_after_the_other_are_that_of_all():
    drafts = [entry(n, language="ru" if n % 7 else "en") for n in range(30)]
    drafts += [entry(n, side="val", reasons={"short": f"{n} words"} if n % 3 else {}) for n in range(30, 60)]
    for border in (0, 1, 29, 31, 60):
        first, later = kept_account(drafts[:border]), kept_account(drafts[border:])
        first.add(later)
        assert first.report() == kept_account(drafts).report()


def test_the_report_adds_up_sides_copies_and_prompts():
    found = report({"tales": kept_account(DRAFTS)}, FAMILIES, SPLIT)
    assert found["splits"]["train"] == {"rows": 2, "words": 20, "groups": 1}
    assert found["sources"]["tales"]["held_out_but_absent"] == ["elsewhere"]
    assert found["copies_of_one_story"] == {"1": 1}
    assert found["groups_of_one_prompt"] == {"1": 1}


def test_few_figures_are_compared_between_runs():
    assert summary(report({"tales": kept_account(DRAFTS)}, FAMILIES, SPLIT)) == {
        "kept_stories": 3,
        "rejected_share": 0.4,
        "train_stories": 2,
        "test_stories": 0,
    }


def test_languages_are_reported_where_there_are_others_than_english():
    assert "languages" not in kept_account(DRAFTS).report()
    found = kept_account([*DRAFTS, entry(6, language="ru"), entry(7, language="fi")]).report()
    assert found["languages"] == {"en": 3, "fi": 1, "ru": 1}


@pytest.mark.parametrize(
    ("works", "more", "said"),
    [
        ((10, 1, 1), {}, "12 works: 10 train, 1 val, 1 test. With so few the report will show samples and"),
        (
            (24, 3, 3),
            {},
            "30 works: 24 train, 3 val, 3 test. The report will give each difference with",
        ),
        ((2, 0, 0), {}, "2 works: 2 train, 0 val, 0 test. With so few the report will show samples, no loss"),
        ((1, 1, 1), {"ends_held_out": ["novel"]}, "1 work: the end is held out behind a gap (10 train, 10 "),
    ],
)
def test_what_the_report_can_say_is_told(works, more, said):
    splits = {side: {"groups": count, "rows": 10} for side, count in zip(SIDES, works, strict=True)}
    found = outlook({"splits": splits} | more)
    assert found.startswith(said)
    assert ("30 or more" in found) == (works[2] < 3)


def test_what_is_shown_is_short_and_names_nobody():
    shown = shortened(
        "Write to ann@example.org or u/ann at https://huggingface.co/x, 555-123-4567. " + "word " * 99
    )
    assert len(shown) <= 120 and not any(part in shown for part in ("ann", "huggingface", "4567"))
