"""Encoding, control tokens, white space and tokens are put right, twice as once."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.preprocess.cleaning import CONTROL_TOKEN, detokenised, repaired

# Characters that faults are made of, so that random text meets the rules.
MESS = (
    st.text(st.sampled_from("aé â€œ™\x9d\x85\u200b\ufeff&amp;lt#60 <|im_end>[INST/]s\n\t\u0301Ã\x80"))
    | st.text()
)


@pytest.mark.parametrize(
    ("damaged", "meant"),
    [
        ("She said, â€œHello, itâ€™s me!â€\x9d", "She said, “Hello, it’s me!”"),
        ("She said, â€œHello!â€ and left.", "She said, “Hello!” and left."),  # the lost byte
        ("â€œHelloâ€\nâ€œYouâ€", "“Hello”\n“You”"),
        ("a noiseâ€”it was the bug", "a noise—it was the bug"),
        ("a cafÃ© in Paris", "a café in Paris"),
        ("cafe\u0301", "café"),
        ("zero\u200bwidth\ufeff and\x00 null", "zerowidth and null"),
        ("fish &amp; chips, & nbsp; &lt;3", "fish & chips, <3"),
        ("one  two\t three \r\n\r\n\r\n\r\nfour ", "one two three\n\nfour"),
    ],
)
def test_damage_is_mended(damaged, meant):
    assert repaired(damaged) == meant


@pytest.mark.parametrize(
    "innocent",
    [
        "“Curly quotes”, ‘single’ ones, and it’s fine — naïve façade, Camërhicht, déjà vu…",
        "She weighed 3 < 5 and 7 > 2; R&B [loud] and <whispers>.",
        "Âge, Ångström, Übermut.",
        "First line\nsecond line\n\nNew paragraph.",
    ],
)
def test_innocent_text_stays(innocent):
    assert repaired(innocent) == innocent


@pytest.mark.parametrize(
    "token",
    [
        "<|endoftext|>",
        "<|im_start|>",
        "<|eot_id|>",
        "< |im_end| >",
        "<｜end▁of▁sentence｜>",
        "</s>",
        "[/INST]",
    ]
    + ["<<SYS>>", "<start_of_turn>", "&lt;|im_end|&gt;", "&amp;lt;|im_end|&amp;gt;", "<|im\u200b_end|>"],
)
def test_a_control_token_is_taken_out(token):
    assert repaired(f"The end.{token} Of it.") == "The end. Of it."


def test_a_token_hidden_inside_another_does_not_come_out():
    assert repaired("Once<|im_<|im_end|>end|> more[INST[INST]]") == "Once more"


@given(MESS)
def test_any_text_is_repaired_once_and_for_all(text):
    once = repaired(text)
    assert repaired(once) == once


@given(MESS)
def test_no_control_token_and_no_odd_form_survives(text):
    once = repaired(text)
    assert not CONTROL_TOKEN.search(once)
    assert unicodedata.is_normalized("NFC", once)
    once.encode()


@pytest.mark.parametrize(
    ("tokens", "prose"),
    [
        ("`` Do n't , '' he said , `` I ca n't . ''", '"Don\'t," he said, "I can\'t."'),
        ("You 're late , and she 'd gone .", "You're late, and she'd gone."),
        (
            "I 'm gon na go ; he 's got ta stay and they can not .",
            "I'm gonna go; he's gotta stay and they cannot.",
        ),
        ("'T is true . And 't was cold .", "'Tis true. And 'twas cold."),
        (
            "The -LRB- old -RRB- house ( empty ) , at 5 % off , cost $ 20 .",
            "The (old) house (empty), at 5% off, cost $20.",
        ),
        ("Wait -- what ? I --", "Wait—what? I—"),
        (
            "It isn ’ t the world ’ s “ end ” , friends ’ house .",
            "It isn’t the world’s “end”, friends’ house.",
        ),
        ("The 'shadows ' are James ' own .", "The 'shadows' are James' own."),
        ("Well . . .", "Well..."),
    ],
)
def test_full_tokens(tokens, prose):
    assert detokenised(tokens) == prose


@pytest.mark.parametrize(
    ("halfway", "prose"),
    [
        ("`` Well --'' I wo n't.", '"Well—" I won\'t.'),
        ("What'' s your name?''", "What's your name?\""),
        ("an extinct'fight or flight' reaction", "an extinct 'fight or flight' reaction"),
        ("I said,'No.' and left", "I said, 'No.' and left"),
        ("I gave my life! ``, he said. `` Really?''", 'I gave my life!", he said. "Really?"'),
        ("`` The first speaks on.", '"The first speaks on.'),
        ("# 1 of # 2", "#1 of #2"),
    ],
)
def test_half_way_tokens(halfway, prose):
    assert detokenised(halfway) == prose


@pytest.mark.parametrize(
    "prose",
    [
        "At five o'clock, ma'am, O'Brien's rock'n'roll played; the boys' house was dark.",
        'He said, "Don\'t!" and she said, "Why not?"',
        "Can not only he, but she as well? She got me. A .45 lay there.",
        "A well-known, half-open door - and 1990-1995.",
    ],
)
def test_prose_stays(prose):
    assert detokenised(prose) == prose


@given(st.text(st.sampled_from("ab `'\"’“”.,-n't ()$\n")) | st.text())
def test_no_text_is_too_odd(text):
    detokenised(text)
