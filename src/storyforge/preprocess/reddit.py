"""WritingPrompts rows → English prose, without tags, markdown, and what authors say around their stories.

Notes, edits, thanks, links and "part 2 in the comments" are taken off at the head and the tail only, line by
line from outside: a diary that thanks its reader stays.
"""

import re
from dataclasses import dataclass

from storyforge.preprocess.cleaning import detokenised, repaired

TAG = re.compile(r"[\[({]\s*([A-Za-z][A-Za-z /&,]{0,18}?)\s*[\])}]")
# r/WritingPrompts wiki, "Post tags"; NSFW and NSFL are Reddit's own.
TAGS = frozenset("WP SP EU CW CC PM PI IP MP TT RF OT FF HP CS MOD MODPOST NANO META PUNCH NSFW NSFL".split())
LEADING_TAG = re.compile(r"^\s*(?:WP|EU|CW)\s*(?:[:;]|[-–—]+\s)\s*")
CROSS_POST = re.compile(
    r"[\[({]\s*(?:x|cross|re) ?-? ?post[^\[\](){}\n]{0,80}[\])}]"
    r"|\b(?:x|cross) ?-? ?post(?:ed)? from /?r/ ?\w+",
    re.IGNORECASE,
)
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


# Lines of ornaments, smileys, and the numbers some authors sign with.
ORNAMENT = re.compile(r"[-*_=~#+•—–|\s]{2,}|[-*_=~#+•—–]|[:;=] ?-?[()DPp3]|[-–—~+] ?\d+|> ?>[> ]*")
INLINE_RULE = re.compile(r"(?<!\S)[ *]{0,4}[=~]{4,}[ *]{0,4}(?!\S)")
DROP_CAP = re.compile(r"\b(?:T(?=\*h)|W(?=\*h)|I(?=\*[fnt]\b))\*")  # T*he; f*ck stays
QUOTED = re.compile(r"^[\s*_\[(]*(?:``|''|[\"'“‘])")
ITALIC = re.compile(r"\*[^*]+\*")
WORDS = {
    "<work>": "(?:post|wp|entry|submission|response|reply|prompt|story|attempt|times?|try|writing|short)",
    "<criticism>": "(?:feedback|critiques?|critiquing|criti[cs]isms?|c ?& ?c)",
    "<more>": "(?:enjoy(?:ed)?|liked? (?:it|this|my)|(?:read|see) more|more of|continue|keep going)",
    "<handheld>": "(?:mobile|i?phone|ipad|tablet)",
    "<typed>": "(?:wrote|written|typed|typing|writing|done|made)",
    "<flaw>": "(?:format|spelling|gramma|typo|mistakes|errors|english|mobile|length|rushed|written|writing)",
    "<later>": r"(?:\d+|two|three|four|i{2,3}|iv)",
}


def _any(*patterns: str) -> re.Pattern[str]:
    """Finds one of the patterns, where <work> and the like stand for WORDS."""
    whole = "|".join(patterns)
    for name, words in WORDS.items():
        whole = whole.replace(name, words)
    return re.compile(whole, re.IGNORECASE)


# One of these makes a line at an end of the text the author's and not the story's.
ASIDE = _any(
    r"^\W*(?:edit(?:s|ed)?(?: ?\d+)?\b|p\.? ?s\.? ?[:,-]|tl ?;? ?dr\b|ooc\b)",
    r"^\W*(?:a ?/ ?n|author\W{0,3}s? (?:note|comment)|after ?word|foreword|(?:side ?|quick )?note|disclaimer"
    r"|(?:trigger |content )?warning|obligatory|inspired by|context|credit)s?\b[^.!?]{0,25}[:;—–-]",
    r"(?:^|[\s(])/?[ru]/\w{2,}|https? ?: ?//|\bwww\.|[\w-] ?\. ?(?:com|net|org|blogspot|wordpress)\b",
    r"\bmy (?:\w+ )?(?:sub ?reddit|sub|profile|web ?(?:page|site)|blog|patreon|wattpad|other stories)\b",
    r"\b(?:this|the) sub(?: ?reddit)?\b|\bup ?vot(?:e|ing)|\breddit (?:gold|silver)\b",
    r"\bth(?:ank(?:s| you)|x)\b.{0,50}\b(?:reading|gold|prompt|comments?|upvotes?|support|<criticism>)\b",
    r"\b(?:comments|pointers|<criticism>)\b.{0,40}\b(?:welcomed?|appreciated|please|wanted|encouraged|greatly"
    r"|be nice|love[dly]?|always|hope)\b",
    r"\b(?:please|any|some|welcome|appreciate|love|want|like|constructive|open to)\b.{0,40}\b<criticism>\b",
    r"\bfeel free to (?:critique|criticize|comment|check|add|point|correct|give|leave|tear|visit|read)\b",
    r"\bmy (?:\w+ ){0,2}first (?:ever )?<work>\b.{0,60}(?:\b(?:post|writ|prompt|response|reply|here\b|sub\b"
    r"|wp\b|kind\b|gentle|english|hope|sorry)|$)",
    r"^\W*(?:first|long) <work>\b.{0,60}(?:post|writ|prompt|here\b|sub\b|lurk|kind\b|gentle)",
    r"\bnew (?:here|to (?:this|writing|the sub|wp|/?r/))",
    r"\b(?:sorry|pardon|excuse|apologi[sz]e|apologies|forgive)\b.{0,50}\b<flaw>",
    r"^\W*(?:sorry|apologies) if i\b",
    r"\b(?:on|from|via|with|by) (?:my |a )?<handheld>\b.{0,40}\b(?:sorry|format|typo|spelling|bear)",
    r"\b<typed>\b.{0,30}\b(?:on|from) (?:(?:my|the|a) )?<handheld>\b",
    r"\bi (?:just )?<typed> (?:this|it) (?:in|on|at|while|for|up|real|very|quick)\b",
    r"\bthis was (?:done|written|typed|inspired|based)\b",
    r"\b(?:hope (?:you|u|ya|y'?all|someone|everyone|op|that|this|it)|if (?:you|any(?:one|body)|people))\b"
    r".{0,60}\b<more>\b",
    r"\blet me know (?:what|if|how|your)\b.{0,40}\b(?:think|thoughts|like|enjoy|want|improve|read|more)",
    r"\b(?:tell me what you think|what d(?:o|id) you (?:guys )?think)\b",
    r"\b(?:this|the|great|awesome|good|cool|nice|fun|amazing|love|interesting|original|your|similar|another"
    r"|writing) (?:\w+ )?(?:prompts?|wp)\b",
    r"\b(?:fun|hard|difficult|easy) (?:to )?writ(?:e|ing)\b|\benjoy(?:ed)? writing (?:this|it|that)\b",
    r"\b(?:not|n't) (?:\w+ ){0,2}(?:good|best|great|happy|experienced) (?:at |a |with )?(?:writ|this one)",
    r"\b(?:good|great|many) (?:responses|replies|stories) already\b",
    r"\b(?:will|'ll|may|might|going to|gonna|can) (?:\w+ )?(?:post|upload|update) (?:some |a )?"
    r"(?:more|the (?:rest|next)|part|it|another|again|later|tomorrow|soon|if)\b",
    r"\b(?:could|would|might) (?:\w+ )?(?:write|right) (?:\w+ )?more\b"
    r"|^\W*(?:best|all) i (?:could|got|have)\b.{0,20}$",
    r"\bguess (?:the|what|which) (?:\w+ )?(?:twist|reference|movie|film|song|game|show|book|fandom)\b",
    r"\b(?:trigger|content) warnings?\b|^\W*(?:tw|cw)\W{0,2}:",
    r"^\W*(?:(?:this|it)(?: story)?(?: is|'s| was)? )?(?:\w+ly |kind of |sort of )?based (?:\w+ )?(?:up)?on\b"
    r".{0,30}\b(?:true|real|actual) (?:story|events?|life|experiences?)\b",
    r"^\W*eta ?[:;—–-](?!\W*(?:\d|t\b|un\w+|one|two|three|four|five|six|ten|twenty|thirty)\b)",
    r"\bd(?:o|oes|id)(?: ?n't)? (?:\w+ )?(?:follow|match|fit|adhere|stick to)\b.{0,25}\b(?:wp|prompt)",
)
ELSEWHERE = _any(
    r"^\W*(?:to be )?cont(?:inue[ds]?|inuing|\.|'?d)?\b\W*"
    r"(?:(?:in|below|here|soon|as|with|later|tomorrow|from)\b.{0,60})?\W*$",
    r"^\W*(?:t\.?b\.?c\.?|more (?:to come|coming|later|soon|below|in)\b.{0,30})\W*$",
    r"\b(?:part|chapter) <later>\b.{0,40}\b(?:below|repl(?:y|ies)|comments?|coming|here|up|soon|follow)",
    r"\b(?:continued|rest|remainder|next part|second (?:part|half)|conclusion)\b.{0,25}"
    r"\b(?:repl(?:y|ies)|comments?|below)\b",
    r"^\W*part (?:one|five|i|v|<later>)\W*$",
)
# At the end of a line that is the story's otherwise.
TO_BE_CONTINUED = re.compile(
    r"(?:(?<=[.!?…\"'”’*)\]—–-])|(?<=[.!?…\"'”’*)\]—–-] ))"
    r"[\W_]{0,6}\b(?:to be cont(?:inue[ds]?|\.|'?d)?|t\.b\.c)\b\W*\Z",
    re.IGNORECASE,
)
# From here on everything is the author's, whatever it says.
AFTERWARDS = re.compile(
    r"^\W*(?:edit ?\d* ?[:;—–-]|a ?/ ?n\b|author\W{0,3}s? note|after ?word\b)", re.IGNORECASE
)
# Inside brackets, or beyond a ruled line, a word or two of these is enough.
CUE = re.compile(
    r"\b(?:writ(?:e|er|ing|ten)|wrote|prompts?|stor(?:y|ies)|posts?|comments?|read(?:ing|ers?)?|responses?|references?"
    r"|enjoy|hope|sorry|thanks?|feedback|criti\w+|mobile|format(?:ting)?|typos?|grammar|spelling|mistakes?|english"
    r"|language|link|idea|inspir\w+|movie|song|game|original|relevant|fun|reddit|first time|nsfw|wp|op)\b",
    re.IGNORECASE,
)
PROMPT = re.compile(r"\bprompts?\b", re.IGNORECASE)
EDGE_LINES = 8
MOST_LETTERS = 4000  # what is longer is no aside, and the patterns need 15 microseconds a letter
LONGEST = 60  # words; a longer paragraph that is not set apart by brackets, italics or a rule is the story


def prompt_and_tags(prompt: str) -> tuple[str, tuple[str, ...]]:
    """The premise as prose, and its tags in capitals in the order in which they stand."""
    text = repaired(prompt.replace("<newline>", "\n")).replace("\n", " ")
    tags: list[str] = []

    text = CROSS_POST.sub(" ", text)
    first = re.search(r"\S", text)  # a tag that nobody knows counts where the prompt begins

    def taken(match: re.Match[str]) -> str:
        named = re.split(r"[\s/&,]+", match[1].upper())
        if match[0][0] == "[":
            is_tag = match.start() <= first.start() or TAGS.intersection(named)
        else:  # a writer's brackets too: (op) is none
            is_tag = match[1] in TAGS or match[1].startswith(("nsf", "Nsf"))
        if not is_tag:
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
    if "==" in text or "~~~~" in text:
        text = INLINE_RULE.sub("\n***\n", text)
    lines = ["\0" if ORNAMENT.fullmatch(line) else line for line in LINE_MARK.sub("", text).split("\n")]
    text = "\n".join(lines).strip("\0\n ")
    if "*" in text or "~~" in text:
        if "T*" in text or "W*" in text or "I*" in text:
            text = DROP_CAP.sub(lambda match: match[0][:-1], text)
        text, found = EMPHASIS.subn(r"\2\3", text)
        text = EMPHASIS.sub(r"\2\3", text) if found else text  # again: bold around italics
    if "_" in text:
        text = UNDERLINED.sub(r"\1", text)
    if any(mark in text for mark in "*^\\"):
        text = STRAY_MARK.sub(r"\1", text)
    return re.sub(r"\0(?:\s*\0)*", RULE, text)


def without_asides(lines: list[str]) -> tuple[list[str], bool]:
    """The story's own lines, and whether its author says that it goes on elsewhere."""
    lines = _trimmed(lines)
    for index in range(len(lines) - 1, max(0, len(lines) - 2 * EDGE_LINES), -1):
        if AFTERWARDS.match(lines[index]):
            goes_on = any(ELSEWHERE.search(_plain(line)) for line in lines[index:])
            lines = _trimmed(lines[:index])
            break
    else:
        goes_on = False
    lines, continued = _stripped(lines[::-1])
    lines = _stripped(lines[::-1])[0]
    if lines and (promise := TO_BE_CONTINUED.search(lines[-1])):
        return [*lines[:-1], lines[-1][: promise.start()].rstrip()], True
    return lines, goes_on or continued


def _stripped(lines: list[str]) -> tuple[list[str], bool]:
    """Without asides before the story; pass the lines in reverse to remove those after it."""
    goes_on = False
    for _ in range(EDGE_LINES):
        if not lines or not _is_aside(lines):
            break
        goes_on = goes_on or bool(ELSEWHERE.search(_plain(lines[0])))
        lines = lines[1:]
        while lines and not lines[0]:
            lines = lines[1:]
    return _trimmed(lines), goes_on


def _is_aside(lines: list[str]) -> bool:
    """Whether the first line is an aside; the lines after it tell whether a ruled line separates it."""
    line = lines[0]
    if ORNAMENT.fullmatch(line) or QUOTED.match(line):
        return not QUOTED.match(line)
    bracketed = bool(re.match(r"\W{0,3}[(\[{^]", line) and re.search(r"[)\]}]\W{0,3}$|\^", line))
    beyond_a_rule = bool(ORNAMENT.fullmatch(next(filter(None, lines[1:]), "")))
    apart = bracketed or beyond_a_rule or bool(ITALIC.fullmatch(line))
    if len(line) > MOST_LETTERS or not apart and line.count(" ") >= LONGEST:
        return False
    plain = _plain(line)
    cues = len(CUE.findall(plain)) if bracketed or beyond_a_rule else 0
    if bracketed and cues >= 1 or beyond_a_rule and (cues >= 2 or PROMPT.search(plain)):
        return True
    return bool(ASIDE.search(plain) or ELSEWHERE.search(plain))


def _plain(line: str) -> str:
    return " ".join(re.sub(r"[*_^~>#{}\[\]()]+", " ", line[:MOST_LETTERS]).replace(" n't", "n't").split())


def _trimmed(lines: list[str]) -> list[str]:
    """Without empty lines and ruled ones at either end."""
    start, end = 0, len(lines)
    while start < end and not _is_own(lines[start]):
        start += 1
    while start < end and not _is_own(lines[end - 1]):
        end -= 1
    return lines[start:end]


def _is_own(line: str) -> bool:
    return bool(line) and not ORNAMENT.fullmatch(line)
