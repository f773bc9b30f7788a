"""Rules that a machine can check: text → how well one is kept, per opportunity, and where it is broken.

A check says whether a rule was kept, not whether a text is good. None: neither prompt nor text has an
opportunity to keep or to break it.
"""

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from storyforge.core.records import Exchange
from storyforge.core.words import WORD, Gram, grams, words
from storyforge.measures.prompt_words import common_words, covered, elements, words_ratio

COPIED_RUN = 8  # words, as the report's measure has it
REPEATED = 4  # words of a phrase
MOST_REPEATED = 0.1  # share of repeated phrases up to which a text keeps its full score: rhetoric repeats
SPEAKERS = re.compile(r"\bSpeakers: ([^.\n]+)")
PLACE = re.compile(r"\bPlace: ([^.\n]+)")
HEADING = re.compile(r"^[^\W\d_][^\W\d_ .'’-]*(?:[ .'’-]+[^\W\d_]+){0,4}\.?$")
DIRECTION = re.compile(r"^\[.*\]$|^\(.*\)$")
SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]*_]*\s*$|\]\s*$""")
META = re.compile(
    r"\bas an ai\b|\bi hope (?:this|you) (?:helps?|enjoy)|^(?:sure|certainly|of course)[!,]|\bhere(?:'s| is) (?:a|the|your) "
    r"(?:\w+ ){0,3}(?:story|scene|version|text|passage)\b|^(?:edit|note|a/n|author'?s note)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
CHILD = re.compile(
    r"\b(?:child|children|minor|toddler|(?:[1-9]|1[0-7]|ten|twelve|fourteen|sixteen)[ -]years?[ -]old)\b",
    re.I,
)
SEXUAL = re.compile(r"\b(?:sexual|sexually|erotic|orgasm|genitals?|penis|vagina|nipples?|moaned)\b", re.I)
FIRST, THIRD = (
    frozenset("i me my mine myself we us our".split()),
    frozenset("he she him her his hers they".split()),
)
SPOKEN = re.compile(r"“[^”]*”|\"[^\"\n]*\"")
Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Finding:
    score: float  # 0 to 1
    spans: Spans  # where the rule is broken
    opportunities: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """What checks know of the training stories."""

    common: frozenset[str]  # words that say nothing of one prompt
    known: frozenset[str]
    runs: frozenset[int]  # hashes of the runs of COPIED_RUN words


Check = Callable[[str, str, bool, Corpus], Finding | None]


def corpus(train: Iterable[Exchange]) -> Corpus:
    texts, known, runs = [], set(), set()
    for story in train:
        said = words(story.story)
        known.update(said)
        runs.update(map(_hashed, grams(said, COPIED_RUN)))
        texts.append((story.group, f"{story.prompt}\n{story.story}"))
    return Corpus(common_words(texts), frozenset(known), frozenset(runs))


def _hashed(run: Gram) -> int:
    return zlib.crc32(" ".join(run).encode())


def speakers_asked(prompt: str) -> tuple[str, ...]:
    """The names after "Speakers:", as they are asked for."""
    found = SPEAKERS.search(prompt)
    return tuple(filter(None, map(str.strip, found[1].split(",")))) if found else ()


def _speeches(text: str) -> list[tuple[int, int, str]]:
    """Start, end and name of each heading above a speech: a short line in capitals, with a line below it."""
    found, at, lines = [], 0, text.split("\n")
    for number, line in enumerate(lines):
        name = line.strip().rstrip(".")
        below = number + 1 < len(lines) and lines[number + 1].strip()
        if name and name.isupper() and len(name) <= 40 and HEADING.match(name) and below:
            found.append((at, at + len(line), name))
        at += len(line) + 1
    return found


def prompt_words(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Share of the prompt's uncommon words that the text takes up; names of speakers count elsewhere."""
    asked = SPEAKERS.sub("", prompt)
    wanted = elements(asked, corpus.common)
    share = covered(wanted, text)
    return None if share is None else Finding(share, (), len(wanted))


def speakers(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Of the asked, the share that speak; times, of speeches after the first, the share of those asked for."""
    asked = {name.upper() for name in speakers_asked(prompt)}
    if not asked:
        return None
    said = _speeches(text)
    strangers = [(start, end) for start, end, name in said[1:] if name not in asked]
    speaking = len(asked & {name for _, _, name in said}) / len(asked)
    fitting = 1 - len(strangers) / len(said[1:]) if said[1:] else 1.0
    both = speaking + fitting
    return Finding(2 * speaking * fitting / both if both else 0.0, tuple(strangers), len(asked))


def turns(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Whether two of those asked for speak in turn, where two were asked for."""
    asked = {name.upper() for name in speakers_asked(prompt)}
    if len(asked) < 2:
        return None
    said = [name for _, _, name in _speeches(text) if name in asked]
    return Finding(float(any(a != b for a, b in zip(said, said[1:], strict=False))), (), 1)


def drama_form(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Whether a scene begins with a name or a direction."""
    if not speakers_asked(prompt):
        return None
    first = next((line.strip() for line in text.split("\n") if line.strip()), "")
    begins = (
        bool(DIRECTION.match(first)) or bool(_speeches(text)) and first.rstrip(".") == _speeches(text)[0][2]
    )
    return Finding(float(begins), () if begins else ((0, min(len(text), len(first))),), 1)


def words_asked(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """1 inside the length asked for, falling to 0 at half and at double."""
    ratio = words_ratio(prompt, len(words(text)))
    if ratio is None:
        return None
    short = min(ratio, 1 / ratio) if ratio else 0.0
    return Finding(max(0.0, 2 * short - 1), (), 1)


def viewpoint(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Outside speech, the share of pronouns that are of the person asked for."""
    asked = re.search(r"\b(first|third)[ -]person\b", prompt, re.IGNORECASE)
    told = Counter(words(SPOKEN.sub(" ", text)))
    own, other = (FIRST, THIRD) if asked and asked[1].lower() == "first" else (THIRD, FIRST)
    fitting, wrong = (sum(told[word] for word in group) for group in (own, other))
    if not asked or not fitting + wrong:
        return None
    # A first-person story speaks of others too: its own pronouns must only occur.
    share = float(fitting > 0) if own is FIRST else fitting / (fitting + wrong)
    return Finding(share, (), fitting + wrong)


def names_kept(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Of the words written like an asked name, the share that are the name and no near miss of it."""
    asked = {name for part in speakers_asked(prompt) for name in words(part) if len(name) > 4}
    found = [(match.start(), match.end(), match[0].casefold()) for match in WORD.finditer(text)]
    exact = sum(word in asked for _, _, word in found)
    unknown = [row for row in found if row[2] not in asked and row[2] not in corpus.known]
    missed = tuple((a, b) for a, b, word in unknown if any(_near(word, name) for name in asked))
    total = exact + len(missed)
    return Finding(exact / total, missed, total) if total else None


def _near(word: str, name: str) -> bool:
    """One letter off: changed, dropped, added, or two neighbours exchanged."""
    if abs(len(word) - len(name)) > 1 or word == name:
        return False
    start = next(
        (n for n, (a, b) in enumerate(zip(word, name, strict=False)) if a != b), min(len(word), len(name))
    )
    w, n = word[start:], name[start:]
    return w[1:] == n[1:] or w[1:] == n or w == n[1:] or w[:2] == n[1::-1] and w[2:] == n[2:]


def ends(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """The writer stopped by itself, after a sentence or a direction."""
    whole = ended and SENTENCE_END.search(text) is not None
    return Finding(float(whole), () if whole else ((max(0, len(text) - 40), len(text)),), 1)


def said_once(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """1 up to MOST_REPEATED of repeated phrases, 0 where all are."""
    runs = grams(words(text), REPEATED)
    if not runs:
        return None
    repeated = 1 - len(set(runs)) / len(runs)
    return Finding(1 - max(0.0, repeated - MOST_REPEATED) / (1 - MOST_REPEATED), (), len(runs))


def known_words(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Share of words that the training stories have; the prompt's own count as known."""
    asked = set(words(prompt))
    found = [(match.start(), match.end(), match[0].casefold()) for match in WORD.finditer(text)]
    if not found:
        return None
    strange = tuple((a, b) for a, b, word in found if word not in corpus.known and word not in asked)
    return Finding(1 - len(strange) / len(found), strange, len(found))


def not_copied(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    runs = grams(words(text), COPIED_RUN)
    if not runs:
        return None
    return Finding(1 - sum(_hashed(run) in corpus.runs for run in runs) / len(runs), (), len(runs))


def no_meta(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Nothing said to the reader, about the text, or as an assistant."""
    found = tuple(match.span() for match in META.finditer(text))
    return Finding(float(not found), found, 1)


def safe(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """No sexual words in a text with a child; dark matter as such is no fault."""
    broken = CHILD.search(text) and SEXUAL.search(text)
    return Finding(float(not broken), (broken.span(),) if broken else (), 1)


LISTED: Sequence[Check] = (
    prompt_words,
    speakers,
    turns,
    drama_form,
    words_asked,
    viewpoint,
    names_kept,
    ends,
    said_once,
    known_words,
    not_copied,
    no_meta,
    safe,
)
CHECKS: dict[str, Check] = {check.__name__: check for check in LISTED}
