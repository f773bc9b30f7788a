"""Text from outside, made safe to show: nothing in it steers a terminal or hides from the reader."""

import re

LINE_END = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Control characters, which begin escape sequences; those that turn the direction of the text after them; and
# halves of surrogate pairs, as which Python holds the bytes of a file name that are not UTF-8.
UNSAFE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with every line end as \n, and what no terminal should obey spelled out: \x1b, \u202e."""
    return UNSAFE.sub(_spelled, LINE_END.sub("\n", text))


def one_line(text: str) -> str:
    """The same on one line."""
    return " ".join(line.strip() for line in printable(text).split("\n") if line.strip())


def _spelled(match: re.Match) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
