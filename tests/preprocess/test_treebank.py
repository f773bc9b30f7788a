"""Penn Treebank tokens become prose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.preprocess.treebank import detokenised


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
