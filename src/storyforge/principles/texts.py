"""Checks of any text: what was asked for, how it is told, and what no text should hold."""

import re
from collections.abc import Iterable
from itertools import accumulate

from storyforge.core.words import WORD, grams, words
from storyforge.measures.diversity import COPIED_RUN
from storyforge.measures.prompt_words import covered, elements, words_ratio
from storyforge.measures.safety import minors_in_sexual_paragraphs
from storyforge.principles import asked
from storyforge.principles.corpus import Corpus
from storyforge.principles.findings import Finding, Span, complete, finding

LONGEST_PREMISE = 120  # words; a longer prompt holds a page to go on from, not what to write about
PHRASE = 4  # words
USUAL_REPEATS = 0.05  # share of a text's phrases; rhetoric and song say things twice
NEAR = 3  # sentences on either side that still hold the narrator's person
LONGEST_NAME = 30  # letters
SPOKEN = re.compile(r'"[^"\n]*"|“[^“”\n]*”')
SENTENCE = re.compile(r"[^.!?…\n]+[.!?…]*")
PERSONS = {
    "first": frozenset("i me my mine myself we us our ours ourselves".split()),
    "second": frozenset("you your yours yourself yourselves".split()),
    "third": frozenset("he him his himself she her hers herself they them their theirs themselves".split()),
}
SENTENCE_END = re.compile(r"""[.!?…—\])][\"'”’)\]*_]*\Z""")
META = re.compile(
    r"\bas an ai\b|\b(?:ai|large) language model\b|\bai assistant\b"
    r"|\bi hope (?:this|you(?:'ll)?) (?:helps?|enjoy|likes?|meets?)\b"
    r"|\A\W{0,9}(?:sure|certainly|of course|absolutely)[!,.:]"
    r"|\A(?:[^\n]{0,60}\W)?(?:here is|here's|below is|this is) (?:an?|the|my|your) (?:\w{1,20} ){0,4}"
    r"(?:story|scene|version|passage|play|script|opening|response)\b(?! of| about| that)"
    r"|^\W{0,4}(?:speakers|place|setting|title|prompt|note|author's note|word count|edit)\W{0,4}:"
    r"|^\W{0,4}(?:write|compose|continue) (?:an?|the|your) (?:\w{1,20} ){0,3}(?:story|scene|passage|play)\b",
    re.IGNORECASE | re.MULTILINE,
)


def asked_words(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Share of the prompt's uncommon words that the text takes up.

    None for a scene: who speaks is another check's, and plays name their place as seldom as a writer does
    (docs/LOG.md). None for a page to go on from.
    """
    if asked.drama(prompt) or len(words(prompt)) > LONGEST_PREMISE:
        return None
    wanted = elements(prompt, corpus.common)
    share = covered(wanted, text)
    return None if share is None else Finding(share, (), len(wanted))


def length(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """1 at the length asked for, falling to 0 at half and at double."""
    ratio = words_ratio(prompt, len(words(text)))
    if ratio is None:
        return None
    near = min(ratio, 1 / ratio) if ratio else 0.0
    return Finding(max(0.0, 2 * near - 1), (), 1)


def viewpoint(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Share of the sentences with pronouns, outside speech, that are told by the person asked for.

    A first or second person tells of others too: a pronoun of its own in the NEAR sentences around will do.
    """
    if (person := asked.person(prompt)) is None:
        return None
    told = SPOKEN.sub(lambda speech: " " * len(speech[0]), text)
    found = [(match.span(), set(words(match[0]))) for match in SENTENCE.finditer(told)]
    found = [(span, said) for span, said in found if any(said & each for each in PERSONS.values())]
    if person == "third":
        fits = [not said & PERSONS["first"] and not said & PERSONS["second"] for _, said in found]
    else:
        own = [0, *accumulate(bool(said & PERSONS[person]) for _, said in found)]
        fits = [own[min(n + NEAR + 1, len(found))] > own[max(n - NEAR, 0)] for n in range(len(found))]
    broken = [span for (span, _), fit in zip(found, fits, strict=True) if not fit]
    return finding(sum(fits), len(found), broken)


def names(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Of the names that were asked for, as the text writes them, the share without a wrong letter.

    Wrong: one letter changed, dropped or added, or two neighbours exchanged, in a capitalised word that no
    training story has.
    """
    wanted = asked.names(prompt)
    near = {shape for name in wanted for shape in _shapes(name)}
    kept, broken = 0, []
    for match in WORD.finditer(complete(text, ended)):
        word = asked.bare(match[0].casefold())
        if word in wanted:
            kept += 1
        elif match[0][0].isupper() and 3 < len(word) <= LONGEST_NAME and word not in corpus.numbers:
            broken += [match.span()] if not near.isdisjoint(_shapes(word)) else []
    return finding(kept, kept + len(broken), broken)


def _shapes(word: str) -> Iterable[str]:
    """The word, and it without each of its letters: two words a letter apart have one in common."""
    return {word, *(word[:n] + word[n + 1 :] for n in range(len(word)))}


def ends(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Where an end is asked for, whether the writer stopped by itself, behind a sentence or a direction."""
    if not asked.end(prompt):
        return None
    whole = ended and SENTENCE_END.search(text.rstrip()[-20:]) is not None
    return Finding(float(whole), () if whole else ((len(text.rstrip()[:-20]), len(text)),), 1)


def said_once(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """1 where no more than USUAL_REPEATS of the phrases were said before, 0 where all were."""
    places = [match.span() for match in WORD.finditer(text)]
    phrases = grams(words(text), PHRASE)
    seen: set[tuple[str, ...]] = set()
    again = [n for n, phrase in enumerate(phrases) if phrase in seen or seen.add(phrase)]
    excess = max(0.0, len(again) - USUAL_REPEATS * len(phrases)) / (1 - USUAL_REPEATS)
    spans = _joined((places[n][0], places[n + PHRASE - 1][1]) for n in again)
    return finding(len(phrases) - excess, len(phrases), spans)


def known_words(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Share of the words that the training stories or the prompt have; None where there are no stories."""
    given = set(words(prompt))
    said = WORD.finditer(complete(text, ended)) if corpus.numbers else ()
    found = [(match.span(), match[0].casefold()) for match in said]
    strange = [span for span, word in found if word not in corpus.numbers and word not in given]
    return finding(len(found) - len(strange), len(found), strange)


def own_words(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Share of the runs of COPIED_RUN words that stand in no training story."""
    places = [match.span() for match in WORD.finditer(text)]
    copied = corpus.copied(words(text))
    again = copied.nonzero()[0].tolist()
    spans = _joined((places[n][0], places[n + COPIED_RUN - 1][1]) for n in again)
    return finding(len(copied) - len(again), len(copied), spans)


def no_meta(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """1 where the text says nothing of itself, of the request or as an assistant, else 0."""
    spans = tuple(match.span() for match in META.finditer(text))
    return Finding(float(not spans), spans, 1)


def safe(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """0 where sexual words stand beside a minor, else 1: a rule of words, which cannot see all harm."""
    spans = tuple(minor.span() for minor in minors_in_sexual_paragraphs(text))
    return Finding(float(not spans), spans, 1)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Those that overlap made one."""
    found: list[Span] = []
    for start, end in spans:
        if found and start < found[-1][1]:
            start = found.pop()[0]
        found.append((start, end))
    return found
