"""The order in which a reader opens files: a prologue first, numbers by their value, an epilogue last."""

import re

ONES = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
VALUES = dict(zip(ONES, range(1, 20), strict=True)) | dict(zip(TENS, range(20, 100, 10), strict=True))
# "seven", "seventeen", "Twenty-One", "twenty_one": longer words first, of those that begin alike
IN_WORDS = rf"(?:(?:{'|'.join(TENS)})(?:[ _-](?:{'|'.join(ONES[:9])})(?![^\W_]))?|{'|'.join(reversed(ONES))})"
ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
# 18 digits: an archive's name may have thousands, which int() refuses
NUMBER = re.compile(
    rf"(\d{{1,18}}|(?<![^\W_])(?:(?i:{IN_WORDS})|(?=[IVXLC])C{{0,3}}"
    r"(?:X[LC]|L?X{0,3})(?:I[XV]|V?I{0,3}))(?![^\W_]))"
)
SUFFIX = re.compile(r"\.\w+$")
FIRST = re.compile(r"\b(?:prologue|foreword|preface)\b", re.IGNORECASE)
LAST = re.compile(r"\b(?:epilogue|afterword)\b", re.IGNORECASE)


def natural(name: str) -> tuple[list[list[str | int]], str]:
    """A key to sort paths by: "Chapter 2" before "Chapter 10", "Part IX" before "Part X"."""
    *folders, file = name.split("/")
    return [_pieces(part) for part in (*folders, SUFFIX.sub("", file))], name


def _pieces(name: str) -> list[str | int]:
    """Text and numbers by turns, so that like is compared with like."""
    placed = LAST.sub("\U0010ffff", FIRST.sub("\x01", name))
    pieces = NUMBER.split(placed)
    return [value(piece) if n % 2 else piece.casefold() for n, piece in enumerate(pieces)]


def value(number: str) -> int:
    """Of digits, number words or Roman numerals."""
    if parts := [VALUES[word] for word in re.split("[ _-]", number.casefold()) if word in VALUES]:
        return sum(parts)
    if not set(number) <= set(ROMAN):
        return int(number)
    values = [ROMAN[letter] for letter in number]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))
