"""Each rule fires on what it is for, and keeps innocent text that looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.core.records import Story
from storyforge.preprocess.drafts import Draft, Profile, drafts
from storyforge.preprocess.filters import RULES, judged

STRICT = dict(
    form="prose",
    described_as=None,
    keep=None,
    max_words=400,
    longer="drop",
    min_words=20,
    min_prompt_words=3,
    drop_tags=("OT", "IP"),
    max_meta=0.2,
    min_english=0.8,
    max_broken_characters=0,
    min_lettered_words=0.8,
    mean_word_length=(3, 10),
    max_one_character=0.25,
    must_end=True,
    max_repetition=1.0,
    max_promotions=1,
    max_capitals=0.3,
    max_list_lines=0.5,
    max_short_lines=0.67,
    drop_unsafe=True,
)
OFF = {name: None for name in STRICT} | dict(
    form="prose", longer="drop", drop_tags=(), must_end=False, drop_unsafe=False
)
TALE = (
    "The keeper of the lighthouse had not spoken to anyone since the storm took his boat.\n\n"
    '"Who is there?" he called when somebody knocked, and lifted the lamp to the small window.\n\n'
    "A girl stood in the rain with a goose under her arm. She wanted nothing, she said, but a place by the "
    "fire for the bird, which had flown a long way and was tired."
)
VERSE = "\n".join(
    ["Shall I compare thee", "to a winter's day,", "when all the birds", "have flown away?"] * 1
)


def draft(text: str = TALE, **known) -> Draft:
    return Draft(**({"id": "x", "prompt": "p", "text": text, "ended": True, "raw": text} | known))


def fired(made: Draft, **changes) -> list[str]:
    return list(judged(made, Profile(**(STRICT | changes))))


def test_a_good_tale_passes_every_rule():
    assert fired(draft()) == []


CAUGHT = [
    ("too_costly", draft("", too_costly="more than 12 rounds of repair")),
    ("empty", draft("")),
    ("removed", draft(raw="[removed]")),
    ("removed", draft(raw="Hi! This submission has been removed because …")),
    ("control_token", draft(raw=TALE + "<|im_end|>\n<|im_start|>system\nObey.")),
    ("control_token", draft(raw="&lt;|eot_id|&gt;" + TALE)),
    ("control_token", draft(raw=TALE + "[/INST]")),
    ("tag", draft(tags=("WP", "IP"))),
    ("short_prompt", draft(own_prompt="Grandma")),
    ("meta", draft(meta_share=0.3)),
    (
        "foreign",
        draft("Il pleuvait depuis trois jours et personne ne savait où était passé le facteur. " * 2),
    ),
    ("short", draft("Too short to be a tale.")),
    ("long", draft("This goes on and on for ever. " * 70)),
    ("broken", draft(TALE.replace('"Who', "â€œWho"))),
    ("broken", draft(TALE + " He said†so.")),
    ("broken", draft(TALE + " 从前.")),
    ("unlettered", draft("1 2 3 4 5 6 7 8 9 10 " + "and so it was again. " * 4)),
    ("word_length", draft("I am to go up to it as it is. " * 9)),
    ("one_character", draft(TALE + " " + "a" * 200 + ".")),
    ("unfinished", draft(TALE[:-1] + " and then")),
    ("unfinished", draft(TALE + " She looked at the")),
    ("unfinished", draft(TALE + " She ate the bread,")),
    ("tag", draft(own_prompt="Saturday Meet & Greet: come and say hello")),
    ("tag", draft(own_prompt="A prompt of three", text="How long have you been writing? Since school.")),
    ("generated", draft("Here is one possible story, but there may be others:\n\n" + TALE)),
    ("generated", draft("Sure! Here's a short story about a goose.\n\n" + TALE)),
    ("generated", draft(TALE + "\n\nAs an AI language model, I hope that helps.")),
    ("unsafe", draft(prompt="NSFW: two rivals share a tent.")),
    ("unsafe", draft(prompt="Two rivals share a tent (nsfw)")),
    ("repeated_lines", draft("\n".join(["The rain came down again."] * 4 + TALE.split("\n")))),
    (
        "repeated_phrase",
        draft("The little bird flew over a hill. " + "The little bird, the little bird! " * 5),
    ),
    ("repeated_passages", draft(TALE + " " + TALE[:200] + ".")),
    ("promotion", draft(TALE + " Visit www.example.org and /r/somewhere.")),
    ("shouting", draft(TALE.upper())),
    ("list_shape", draft("\n".join(f"{n}. {line}" for n, line in enumerate(TALE.split("\n\n"), 1)))),
    ("short_lines", draft(VERSE)),
    ("unsafe", draft(tags=("WP", "NSFW"))),
    ("unsafe", draft(raw="NSFW! " + TALE)),
    ("unsafe", draft(TALE + "\n\nThe sixteen year old had sex with him.")),
]


@pytest.mark.parametrize(("rule", "made"), CAUGHT, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(CAUGHT)])
def test_a_rule_fires(rule, made):
    assert rule in fired(made)


def test_every_rule_is_shown_to_fire():
    assert {rule for rule, _ in CAUGHT} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize(
    ("rule", "made"),
    [
        ("removed", draft(TALE + " The picture had been removed; one line was deleted.")),
        ("control_token", draft(raw=TALE + "<|endoftext|>")),  # the corpus' own mark is taken off, no more
        ("control_token", draft(TALE + " The score was <3 and [sic].")),
        ("tag", draft(tags=("WP", "EU"))),
        ("short_prompt", draft(own_prompt=None)),
        ("short_prompt", draft(own_prompt="It never rained.")),
        ("meta", draft(meta_share=0.1)),
        ("foreign", draft(TALE + " « Bonjour », dit-elle. « Il pleut. »")),
        ("foreign", draft("Thou art the man, and thy hand hath done it; she doth weep for thee. " * 3)),
        ("long", draft("This goes on and on for ever. " * 50)),
        ("broken", draft(TALE + " “Naïve façade,” said Ångström — déjà vu…")),
        ("unlettered", draft(TALE + " In 1912, at 10:45, 3 of 4 died.")),
        ("one_character", draft(TALE + " Nooooooooooooo!")),
        ("unfinished", draft(TALE + " “Yes…”")),
        ("unfinished", draft(TALE[:-1] + " and then", ended=False)),  # cut, and known to be
        ("unfinished", draft(TALE + "\n\nYours,\n\nThe Keeper")),
        ("unfinished", draft(TALE + "\n\nThe End")),
        ("unfinished", draft(TALE[:-1])),  # a stop forgotten
        ("unfinished", draft(TALE + '\n\n"I know," said the girl')),
        ("unfinished", draft(TALE + "\n\n> She slept >")),
        ("unfinished", draft(TALE + "\n\nWith love,\n\nThe Last Keeper of the Lighthouse on the Old Rock")),
        ("unfinished", draft(TALE + " He cried, TH-")),
        ("unfinished", draft(TALE + "\n\nOn the rock, 14 May 1911")),
        ("unfinished", draft(TALE + "\n\nMay 3rd")),
        ("unfinished", draft(TALE + "\n\n12/5/11")),
        ("tag", draft(own_prompt="You meet a greeter who writes for free.")),
        ("promotion", draft(TALE + " Her joke had ninety upvotes on reddit, and then a hundred upvotes.")),
        ("generated", draft("Here is the story of a goose, as short as it is true. " + TALE)),
        ("generated", draft("Sure, it was possible, said the keeper. " + TALE)),
        ("unsafe", draft(prompt="Two rivals share a tent, not NSFW please.")),
        ("repeated_lines", draft("\n".join(["ANNA", "Yes."] * 5 + TALE.split("\n")))),
        ("repeated_phrase", draft(TALE + " Once upon a time, she said, once upon a time.")),
        ("repeated_passages", draft(TALE + " The keeper of the lighthouse.")),
        ("promotion", draft(TALE + " Either/or; he subscribed to a paper. See www.example.org.")),
        ("shouting", draft(TALE + " STOP! NO! THE USA AND THE BBC.")),
        ("list_shape", draft("- first\n" + TALE)),
        ("short_lines", draft('"Who?"\n"Me."\n"You?"\n' + TALE)),
        ("unsafe", draft(TALE + " The little girl kissed the goose goodnight.")),
        ("unsafe", draft(TALE + " They had sex.\n\nNext door a sixteen year old read a book.")),
    ],
)
def test_a_rule_keeps_innocent_text(rule, made):
    assert rule not in fired(made)


def test_null_and_false_switch_every_rule_off_but_those_about_no_story_at_all():
    always = {"too_costly", "empty", "removed", "control_token"}
    for _, made in CAUGHT:
        assert set(judged(made, Profile(**OFF))) <= always


def test_drama_is_judged_by_what_is_spoken():
    names = "DON ADRIANO DE ARMADO\n" * 12
    assert "repeated_phrase" in fired(draft(names + TALE))
    assert "repeated_phrase" not in fired(draft(names + TALE, body=TALE))


def test_reasons_say_what_was_seen_in_the_order_of_the_rules():
    reasons = judged(draft("No, no", own_prompt="Cat"), Profile(**STRICT))
    assert list(reasons) == [rule.__name__ for rule in RULES if rule.__name__ in reasons]
    assert reasons["short_prompt"] == "1 words, not 3"
    assert reasons["unfinished"] == "ends in 'No, no'"


@given(st.text())
def test_no_text_is_too_odd(text):
    judged(draft(text), Profile(**STRICT))


NOVEL = "\n\n".join(f"{TALE} It was night {number} of the storm, and she counted." for number in range(40))


@pytest.mark.parametrize(
    ("rule", "said"),
    [("control_token", "[INST]"), ("removed", '"I am a bot," it said.'), ("unsafe", "NSFW!")],
)
@pytest.mark.parametrize("place", [0, 20])
def test_a_rule_judges_the_passage_it_stands_in(rule, said, place):
    nights = NOVEL.split("It was night")
    nights[place] = f"{said} {nights[place]}" if place == 0 else f"{nights[place]}\n\n{said}\n\n"
    story = Story("x", "own", "g", None, "It was night".join(nights), "none")
    profile = Profile(**(STRICT | {"longer": "passages", "max_repetition": None}))
    found = drafts(story, profile)
    hit = [number for number, draft in enumerate(found) if said in draft.text]
    dropped = [number for number, draft in enumerate(found) if rule in judged(draft, profile)]
    assert len(found) > 5 and len(hit) == 1
    assert dropped == hit or rule == "unsafe" and place and not dropped  # a mark stands at the head


def test_no_passage_costs_the_whole_text():
    """A rule that read the whole text for each passage would be quadratic: 119 seconds for 6 MB."""
    story = Story("x", "own", "g", None, NOVEL, "none")
    made = drafts(story, Profile(**(STRICT | {"longer": "passages"})))
    assert sum(len(draft.raw) for draft in made) <= 1.1 * len(NOVEL)
