"""Sexual words beside a minor: what no story is kept with, and no draft."""

import re
from collections.abc import Iterator

from storyforge.core.words import words

EXPLICIT = frozenset(
    "cum cumming cock cocks pussy penis vagina clit orgasm orgasms masturbate masturbated masturbating"
    " masturbation blowjob blowjobs horny molest molested molesting sex sexual sexually".split()
)
MINOR = re.compile(
    r"\b(?:under ?age|pre-?teens?|toddlers?|school ?(?:girl|boy)s?|little (?:girl|boy)s?|pedo\w*|loli\w*"
    r"|(?:[1-9]|1[0-7]|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six)teen)[ -]year[ -]olds?)\b",
    re.IGNORECASE,
)
PARAGRAPH = re.compile(r"[^\n]+(?:\n[^\n]+)*")


def minors_in_sexual_paragraphs(text: str) -> Iterator[re.Match[str]]:
    """The first words for a minor in each paragraph that has a sexual word."""
    for paragraph in PARAGRAPH.finditer(text):
        if not EXPLICIT.isdisjoint(words(paragraph[0])) and (minor := MINOR.search(text, *paragraph.span())):
            yield minor
