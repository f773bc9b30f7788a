"""One function a rule: a draft and its source's profile → why it is dropped, or None.

The rule's name is the function's. Bounds are the profile's; their sources stand here or in params.yaml.
"""

import re
from collections import Counter
from collections.abc import Callable

import numpy as np

from storyforge.measures.safety import EXPLICIT, minors_in_sexual_paragraphs
from storyforge.preprocess import repetition
from storyforge.preprocess.cleaning import CONTROL_TOKEN, HARMLESS, unescaped
from storyforge.preprocess.drafts import Draft, Profile
from storyforge.preprocess.language import english

Rule = Callable[[Draft, Profile], str | None]

REMOVED = re.compile(
    r"\A\W*(?:removed|deleted)\W*\Z|this (?:submission|comment|post) has been removed"
    r"|top-level comments must be|off-topic discussion\W+(?:reply|all)|i am a bot\b"
)
BROKEN = re.compile(r"[âÃÂ]€|Ã[\x80-\xbf ¡-¿]|â€|�|†|[\u4e00-\u9fff\u3040-\u30ff\uac00-\ud7af]")
ENDING = re.compile(
    r"(?:[.!?…—\"'”’)\]*:~>]|\w[-–]|\bThe End|\bFin|[\U0001f300-\U0001faff]|\b\d{4}|\d[/.-]\d{1,2}"
    r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)\w* \d{1,2}(?:st|nd|rd|th)?)\s*\Z",
    re.IGNORECASE,
)
SIGNATURE = re.compile(r"[.,!?…\"'”’]\n+\W?[A-Z]\S*(?: \S+){0,9}\s*\Z")  # of a letter: Best,⏎Your son
# A sentence may lack its stop; it does not end in one of these. What is cut off mostly does, or in a comma.
DANGLING = frozenset(
    "a an the and or but nor of to in at for with from by as into onto upon than then when while if because"
    " so who which whose where is was were be been am are his its their my your our this these those not no"
    " very i he she they we has had have would could should will can may might must do does did like".split()
)
THREAD = re.compile(  # a prompt that asks for talk
    r"meet ?(?:and|&|'?n'?|\+) ?greet|free[ -]?write\b|\bleave a (?:story|comment)|introduce yourself"
    r"|^\W*prompt me\b|(?:mon|tues|wednes|thurs|fri|satur|sun)day (?:\w+ )?(?:thread|discussion|free)"
    r"|call for (?:new )?mod",
    re.IGNORECASE,
)
ANSWERS = re.compile(r"how long have you been writing|what is your writing motivation", re.IGNORECASE)
GENERATOR = re.compile(
    r"\A\W*(?:(?:sure|certainly|of course|okay)\W.{0,40})?\b(?:here(?:'s| is| are)|this is|the following is) "
    r"(?:(?:one|a|an|my|some|another|the) )?(?:\w+ )?(?:possible|sample|example|revised|rewritten|short) "
    r"(?:\w+ ){0,2}(?:story|stories|version|summary|tale|answer|response)"
    r"|\b(?:one|a) possible (?:story|version|ending)\b|\bas an ai\b|\b(?:ai|large) language model\b"
    r"|\b(?:story|tale) (?:using|with|that uses) (?:the|these|your) words",
    re.IGNORECASE,
)
PROMOTION = re.compile(
    r"https?:|www\.|(?<![\w/])/?[ru]/\w{3,}|patreon\b|\bmy sub ?reddit"
    r"|upvote (?:this|if|me|my)\b|please upvote|subscribe to my"
)
PROMOTED = ("http", "www.", "r/", "u/", "patreon", "reddit", "upvote", "subscribe")  # in what it looks for
LIST_ITEM = re.compile(r"(?:[-*•+–]|\(?\d{1,3}[.)]|[a-zA-Z][.)])\s")
MARKED = frozenset({"NSFW", "NSFL"})
MARK = re.compile(r"(?<!\bnot )(?<!\bnon-)\bNSF[WL]\b", re.IGNORECASE)


def too_costly(draft: Draft, _: Profile) -> str | None:
    """Made, or damaged, so that cleaning it would take hours."""
    return draft.too_costly


def empty(draft: Draft, _: Profile) -> str | None:
    """No words at all."""
    return None if draft.words else "no words"


def removed(draft: Draft, _: Profile) -> str | None:
    """What moderators leave behind (lindenmg/Writing-Prompts-Dataset-Creator, data_pruning)."""
    found = REMOVED.search(draft.raw[:2000].lower())
    return f"says {found[0]!r}" if found else None


def control_token(draft: Draft, _: Profile) -> str | None:
    """A turn of a chat inside a story is not prose; end-of-text marks are only taken off."""
    raw = unescaped(f"{draft.prompt}\n{draft.raw}")  # a prompt may hold the page before
    found = next((match for match in CONTROL_TOKEN.finditer(raw) if not HARMLESS.fullmatch(match[0])), None)
    return f"holds {found[0]!r}" if found else None


def tag(draft: Draft, profile: Profile) -> str | None:
    """Tags of posts that hold no premise, or no story (r/WritingPrompts wiki)."""
    found = sorted(set(draft.tags).intersection(profile.drop_tags))
    if found or not profile.drop_tags:
        return f"tagged {', '.join(found)}" if found else None
    thread = THREAD.search(draft.own_prompt or "") or ANSWERS.search(draft.text[:400])
    return f"not tagged, but a thread of the forum: {thread[0]!r}" if thread else None


def short_prompt(draft: Draft, profile: Profile) -> str | None:
    """Too few words to be a premise (lindenmg: 2; here 3)."""
    count = len((draft.own_prompt or "").split())
    return _below(count, profile.min_prompt_words if draft.own_prompt is not None else None, "words")


def meta(draft: Draft, profile: Profile) -> str | None:
    """So much of the author's comment was removed that more may be left inside the story."""
    return _above(draft.meta_share, profile.max_meta, "of the characters stood around the story")


def foreign(draft: Draft, profile: Profile) -> str | None:
    """Not English by py3langid, which is asked where function words are few."""
    if profile.min_english is None:
        return None
    return _below(english(draft.text, draft.words), profile.min_english, "sure to be English")


def short(draft: Draft, profile: Profile) -> str | None:
    """Gopher has 50 words, ad8e's TinyStories cleaner 100 characters."""
    return _below(len(draft.words), profile.min_words, "words")


def long(draft: Draft, profile: Profile) -> str | None:
    """Where longer ones are not cut."""
    bound = profile.max_words if profile.longer == "drop" else None
    return _above(len(draft.tokens), bound, "words")


def broken(draft: Draft, profile: Profile) -> str | None:
    """Mojibake that could not be repaired, and stray CJK (ad8e/TinyStories-cleaner)."""
    if profile.max_broken_characters is None or draft.text.isascii():
        return None
    return _above(len(BROKEN.findall(draft.text)), profile.max_broken_characters, "broken characters")


def unlettered(draft: Draft, profile: Profile) -> str | None:
    """Gopher quality: at least 80 % of the words hold a letter; punctuation is no word here."""
    if profile.min_lettered_words is None or not draft.words:
        return None
    share = 1 - sum(map(str.isnumeric, draft.words)) / len(draft.words)
    return _below(share, profile.min_lettered_words, "of the words hold a letter")


def word_length(draft: Draft, profile: Profile) -> str | None:
    """Gopher quality: mean word length of 3 to 10 characters."""
    if profile.mean_word_length is None or not draft.words:
        return None
    mean, (low, high) = sum(map(len, draft.words)) / len(draft.words), profile.mean_word_length
    unit = "characters a word"
    return _below(mean, low, unit) or _above(mean, high, unit)


def one_character(draft: Draft, profile: Profile) -> str | None:
    """Keyboard mashing: one character makes up a quarter of the text."""
    if profile.max_one_character is None or not draft.text.strip():
        return None
    letters = "".join(draft.tokens)
    bytes_of_each = np.bincount(np.frombuffer(letters.encode(), np.uint8))
    if bytes_of_each.max() <= profile.max_one_character * len(letters):
        return None  # no byte is that frequent, so no character is
    character, count = Counter(letters).most_common(1)[0]
    return _above(count / len(letters), profile.max_one_character, f"of the characters are {character!r}")


def unfinished(draft: Draft, profile: Profile) -> str | None:
    """No end of a sentence: the main fault of TinyStories (0.44 % in ad8e's count). Cut texts are exempt."""
    end = draft.text[-200:]
    if not profile.must_end or not draft.ended or ENDING.search(end) or SIGNATURE.search(end):
        return None
    if draft.words and end[-1].isalnum() and draft.words[-1] not in DANGLING:
        return None
    return f"ends in {end[-30:]!r}"


def repeated_lines(draft: Draft, profile: Profile) -> str | None:
    """Gopher repetition on lines, of four words or more so that names and cries do not count."""
    if profile.max_repetition is None:
        return None
    lines, letters = repetition.lines_said_before(draft.lines)
    return _above(lines, repetition.LINES * profile.max_repetition, "of the lines stood before") or _above(
        letters, repetition.LINE_LETTERS * profile.max_repetition, "of the lines' letters stood before"
    )


def repeated_phrase(draft: Draft, profile: Profile) -> str | None:
    """Gopher repetition: the most frequent 2-, 3- and 4-gram."""
    return _over_table(draft, profile, repetition.most_frequent, repetition.MOST_FREQUENT)


def repeated_passages(draft: Draft, profile: Profile) -> str | None:
    """Gopher repetition: 5- to 10-grams said before."""
    return _over_table(draft, profile, repetition.said_before, repetition.SAID_BEFORE)


def promotion(draft: Draft, profile: Profile) -> str | None:
    """Links and calls to follow that cleaning could not take off."""
    if profile.max_promotions is None or not any(word in draft.folded for word in PROMOTED):
        return None
    return _above(len(PROMOTION.findall(draft.folded)), profile.max_promotions, "links or calls to follow")


def generated(draft: Draft, profile: Profile) -> str | None:
    """A language model's own words before or after the story it was asked for; off where promotion is."""
    if profile.max_promotions is None:
        return None
    found = GENERATOR.search(draft.text[:300]) or GENERATOR.search(draft.text[-300:])
    return f"says {found[0]!r}" if found else None


def shouting(draft: Draft, profile: Profile) -> str | None:
    """Words in capitals, of four letters or more so that initials and I do not count."""
    if profile.max_capitals is None:
        return None
    long_words = [word for word in draft.tokens if len(word) > 3]
    share = sum(map(str.isupper, long_words)) / max(1, len(long_words))
    return _above(share, profile.max_capitals, "of the words are in capitals")


def list_shape(draft: Draft, profile: Profile) -> str | None:
    """Gopher quality: bullet lines, numbered ones as well."""
    if profile.max_list_lines is None:
        return None
    share = sum(bool(LIST_ITEM.match(line)) for line in draft.lines) / max(1, len(draft.lines))
    return _above(share, profile.max_list_lines, "of the lines are list items")


def short_lines(draft: Draft, profile: Profile) -> str | None:
    """FineWeb: at most 67 % of lines of 30 characters or less; beyond that it is verse, chat or code."""
    if profile.max_short_lines is None:
        return None
    share = sum(len(line) <= 30 for line in draft.lines) / max(1, len(draft.lines))
    return _above(share, profile.max_short_lines, "of the lines have 30 characters or less")


def unsafe(draft: Draft, profile: Profile) -> str | None:
    """Marked as not safe by its author, or sexual words beside a minor."""
    if not profile.drop_unsafe:
        return None
    if MARKED.intersection(draft.tags) or MARK.search(draft.raw[:300]) or MARK.search(draft.prompt):
        return "marked as not safe"
    if EXPLICIT.isdisjoint(draft.words):
        return None
    minor = next(minors_in_sexual_paragraphs(draft.text), None)
    return f"sexual beside {minor[0]!r}" if minor else None


RULES: tuple[Rule, ...] = (
    *(too_costly, empty, removed, control_token, tag, short_prompt, meta, foreign, short, long),
    *(broken, unlettered, word_length, one_character, unfinished),
    *(repeated_lines, repeated_phrase, repeated_passages),
    *(promotion, generated, shouting, list_shape, short_lines, unsafe),
)


def judged(draft: Draft, profile: Profile) -> dict[str, str]:
    """Every rule that would drop the draft, in the order of the pipeline, with what it saw."""
    return {rule.__name__: reason for rule in RULES if (reason := rule(draft, profile))}


def _over_table(draft: Draft, profile: Profile, measure: Callable, bounds: dict[int, float]) -> str | None:
    if profile.max_repetition is None:
        return None
    shares = measure(draft.numbered)
    reasons = (
        _above(shares[n], bounds[n] * profile.max_repetition, f"of the letters are in {n}-grams")
        for n in bounds
    )
    return next(filter(None, reasons), None)


def _below(value: float, bound: float | None, what: str) -> str | None:
    return f"{value:.3g} {what}, not {bound:g}" if bound is not None and value < bound else None


def _above(value: float, bound: float | None, what: str) -> str | None:
    return f"{value:.3g} {what}, not at most {bound:g}" if bound is not None and value > bound else None
