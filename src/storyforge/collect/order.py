"""The order in which a reader opens files: a prologue first, numbers by their value, an epilogue last."""

import re

from storyforge.collect.numbers import COUNTED, ROMAN, value

# 18 digits: an archive's name may have thousands, which int() refuses
NUMBER = re.compile(rf"(\d{{1,18}}|(?<![^\W_])(?:(?i:{COUNTED})|{ROMAN})(?![^\W_]))")
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
