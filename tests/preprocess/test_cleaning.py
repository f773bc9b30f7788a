"""Encoding, control tokens and white space are put right, twice as once."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.preprocess.cleaning import CONTROL_TOKEN, repaired

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
