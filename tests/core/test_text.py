import pytest

from storyforge.core.errors import UserError
from storyforge.core.text import one_line, printable

HOSTILE = "\x1b]0;title\x07 \x9b2J \u202eevil\u2066 \ud800 \udcff"


def test_what_a_terminal_obeys_is_spelled_out():
    assert printable(HOSTILE) == r"\x1b]0;title\x07 \x9b2J \u202eevil\u2066 \ud800 \udcff"
    assert printable(HOSTILE).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028", "\x0c"])
def test_every_line_end_is_one(end):
    assert printable(f"a{end}\tb") == "a\n\tb"


def test_letters_of_any_language_stay():
    text = "naïve Ω 🏴\U000e0067\U000e007f 👩\u200d🚀 نمی\u200cخواهم \u200fשלום — “…”"
    assert printable(text) == text


def test_an_error_is_one_safe_line_whatever_it_quotes():
    error = UserError(f"a\nb\r\r\x1b[2K{HOSTILE}.txt: rename it")
    assert str(error) == one_line(str(error)) == f"a b \\x1b[2K{printable(HOSTILE)}.txt: rename it"
