"""WritingPrompts rows → English prose, without tags, markdown, and what authors say around their stories."""

import re
from dataclasses import dataclass

from storyforge.preprocess.asides import ORNAMENT, without_asides
from storyforge.preprocess.cleaning import repaired
from storyforge.preprocess.treebank import detokenised

TAG = re.compile(r"\[\s*([A-Za-z][A-Za-z /&,]{0,18}?)\s*\]")
# r/WritingPrompts wiki, "Post tags"; NSFW and NSFL are Reddit's own.
TAGS = frozenset("WP SP EU CW CC PM PI IP MP TT RF OT FF HP CS MOD MODPOST NANO META PUNCH NSFW NSFL".split())
LEADING_TAG = re.compile(r"^\s*(?:WP|EU|CW)\s*[:;]\s*")
INSIDE = re.compile(r"[(\[]\s*(?:more|details|see|explanation)\s+(?:inside|below|in\s[\w\s]+)\s*[)\]]", re.I)
LINK = re.compile(
    r"\[([^\[\]\n]*)\] ?\( ?(?:https?\b|www\.|/?[ru]/|#)[^()\n]*(?:\([^()\n]*\)[^()\n]*)?\)", re.IGNORECASE
)
URL = re.compile(
    r"\(? ?(?:https? ?: ?//|www\.)[^\s)]+(?:\? [^\s)]*=[^\s)]*)?(?: ?\))?", re.IGNORECASE
)  # the tokeniser leaves a space after `http:` and after `?`
EMPHASIS = re.compile(r"(?<![\w*~\\])(\*{1,3}|~~)([^*~\n]*[^*~\s\\])( ?)\1(?!\w)")
UNDERLINED = re.compile(r"_(?<![\w/]_)_?(?=[^\s_/])([^_\n]*[^\s_/])_{1,2}(?![\w/])")
STRAY_MARK = re.compile(r"\*(?<![\w*]\*)\**+|\*++(?!\w)|\^ ?(?=[\w(])|\\([*_~#^>\[\](){}|.!-])")
LINE_MARK = re.compile(r"^(?:(?:> ?)+|(?:# ?)+(?!\d))", re.MULTILINE)
RULE = "***"  # between scenes


@dataclass(frozen=True, slots=True)
class Stripped:
    """A story without what was said around it."""

    text: str
    characters: int  # taken off, white space not counted
    goes_on: bool  # its author says that more stands elsewhere


def prompt_and_tags(prompt: str) -> tuple[str, tuple[str, ...]]:
    """The premise as prose, and its tags in capitals in the order in which they stand."""
    text = repaired(prompt.replace("<newline>", "\n")).replace("\n", " ")
    tags: list[str] = []

    def taken(match: re.Match[str]) -> str:
        named = re.split(r"[\s/&,]+", match[1].upper())
        if not TAGS.intersection(named) and match.string[: match.start()].strip():
            return match[0]
        tags.extend(named)
        return " "

    text = LEADING_TAG.sub("", TAG.sub(taken, text))
    prose = repaired(detokenised(unmarked(INSIDE.sub(" ", text)))).lstrip(" :;,-—–")
    return prose, tuple(dict.fromkeys(tags))


def story(text: str) -> Stripped:
    """English prose from a row's story."""
    text = repaired(text.replace("<newline>", "\n"))
    lines, goes_on = without_asides(text.split("\n"))
    kept = "\n".join(lines)
    taken = _letters(text) - _letters(kept) if len(kept) < len(text) else 0
    return Stripped(repaired(detokenised(unmarked(kept))), taken, goes_on)


def _letters(text: str) -> int:
    return len(text) - text.count(" ") - text.count("\n")


def unmarked(text: str) -> str:
    """Words without markdown; a ruled line between scenes as three stars."""
    if "http" in text or "www." in text or "](" in text or "] (" in text:
        text = URL.sub("", LINK.sub(r"\1", text))
    lines = ["\0" if ORNAMENT.fullmatch(line) else line for line in LINE_MARK.sub("", text).split("\n")]
    text = "\n".join(lines).strip("\0\n ")
    if "*" in text or "~~" in text:
        text = EMPHASIS.sub(r"\2\3", EMPHASIS.sub(r"\2\3", text))  # twice: bold around italics
    if "_" in text:
        text = UNDERLINED.sub(r"\1", text)
    if any(mark in text for mark in "*^\\"):
        text = STRAY_MARK.sub(r"\1", text)
    return re.sub(r"\0(?:\s*\0)*", RULE, text)
