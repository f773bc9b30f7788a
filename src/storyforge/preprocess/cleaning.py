"""Text as it was before encodings, chat formats and tokenisers changed it. Repairs and never drops.

Every pattern is linear in the text, and so is a repair: one that needs many rounds is refused (TooCostly).

WritingPrompts is served in Penn Treebank tokens: fully in prompts, halfway in stories, where spaces before
punctuation and apostrophes are gone already, wanted ones among them.
"""

import html
import re
import unicodedata
from collections.abc import Callable
from html.entities import html5

import ftfy

# The closing quote of a text decoded as Windows-1252 whose third byte, undefined there, was thrown away.
# ftfy cannot know it (it would read a dagger and eat the space), so it goes first.
LOST_BYTE = re.compile(r"â€(?=[\x00-\x7f]|$)")
# Two characters no English text puts together: the first bytes of UTF-8 read as Latin-1 or Windows-1252.
MOJIBAKE = re.compile(r"[Â-ô][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
# A letter in capitals before a closing mark looks the same: “AMANHÃ” is no mojibake of “AMANHÔ.
WORD_END = re.compile(
    r"((?:(?<=[A-ZÀ-Þ])|(?<=[“”„‘’‚«»‹›]))[Â-ô](?:[“”„‘’‚«»‹›™](?!\w)|[…–—])|(?<=[A-ZÀ-Þ])[Â-ô]’(?=[A-ZÀ-Þ]))"
)
NAMED = r"[A-Za-z][A-Za-z0-9]{1,30}"
SPACED = "#\\d{1,7}|nbsp|amp|lt|gt|quot|apos|[mn]dash|hellip|[lr][sd]quo"  # as Penn Treebank: & nbsp ;
ENTITY = re.compile(rf"&(#\d{{1,7}}|#[xX][0-9a-fA-F]{{1,6}}|{NAMED});|& ?({SPACED}) ?;")
# Controls but those that break a line, zero-width and directional marks, private use, surrogates.
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\ue000-\uf8ff\U000e0000-\U0010ffff]"
)
# Invisible and spelling all the same: joiners in scripts beyond Latin and in emoji, and the tags of a flag.
JOINING = re.compile(
    "(?<=[^\x00-\u02ff\u2000-\u206f\ue000-\uf8ff])[\u180e\u200c\u200d](?![\u200b-\u200f])"
    "|(?<=\U0001f3f4)[\U000e0030-\U000e007a]{3,6}\U000e007f"
)
# What chat formats use for turns and ends: ChatML, Llama 2 and 3, Gemma, Mistral, DeepSeek, T5 and BERT. In
# a play's markdown underscores are emphasis and are gone.
CONTROL_TOKEN = re.compile(
    r"<\s*[|｜]\s*[^<>\s]{0,40}?\s*[|｜]\s*>|</?s>|<(?:bos|eos|pad|unk|mask)>|<(?:start|end)_?of_?(?:turn|image)>"
    r"|\[/?(?:INST|SYSTEM_?PROMPT|AVAILABLE_?TOOLS|TOOL_?CALLS|TOOL_?RESULTS|CLS|SEP|MASK)\]|<</?SYS>>",
    re.IGNORECASE,
)
# Those that corpora hold between texts and that blanks are made with; no turn of a chat begins with one.
HARMLESS = re.compile(
    r"<\|\s*end_?of_?text\s*\|>|</?s>|\[(?:MASK|CLS|SEP)\]|<(?:unk|pad|mask)>", re.IGNORECASE
)
BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
BRACKET = re.compile("|".join(BRACKETS))
CLITIC = re.compile(r" '(s|m|d|re|ve|ll)\b(?!')", re.I)
DOUBLED_CLITIC = re.compile(r"''(?<=\w'') (s|m|d|re|ve|ll|t)\b")  # What'' s
CURLY_CLITIC = re.compile(r"’ (s|m|d|re|ve|ll|t)\b(?!’)", re.I)
CURLY_APART = re.compile(r" ’(?=(?:s|m|d|re|ve|ll|t)\b(?!’))", re.I)
CURLY_START = re.compile(r" ’ (?=(?:til|em|cause|tis|twas|bout|round|cuz)\b)", re.I)
SPLIT_WORDS = tuple(
    (f"{half} {rest}", re.compile(rf"{half}(?<!\w{half}) {rest}\b(?! only)"), half + rest)
    for pair in ("gon na", "wan na", "got ta", "gim me", "lem me", "can not")
    for half, rest in (pair.split(), pair.capitalize().split(), pair.upper().split())
)
TIS = re.compile(r"('(?<!\w')[tT]) (?=(?:is|was|were|will)\b)")
QUOTE = re.compile(r"(``|''|\")")
# An opening single quote that lost the space before it; a closing one must follow, so that o'clock is safe.
# One that opens without a closing one: a capital after a whole word, a year, a word begun short.
LONE = re.compile(
    r"'(?:(?<=(?<![\w'])[a-z]{3}')|(?<=[a-z]{4}')"
    r"|(?<= (?:an|as|at|be|by|in|is|it|my|of|or|to)')|(?<=[.,!?]'))"
    r"(?:(?=[A-Z][a-z]+\b(?!'))|(?<= \w\w')(?=[a-z]{4})|(?=\d\d\b)|(?=(?:em|im|til|cause|bout)\b))"
)
STUCK = re.compile(
    r"'(?!(?:s|t|m|d|re|ve|ll)\b)(?:(?<=[,;:?!…]')(?=[A-Za-z])"
    r"|(?:(?<=[A-Za-z][a-z]{2}')|(?<=\dth')|(?<=\.')|(?<= a')|(?<= (?:an|as|at|be|by|in|is|it|my|of|or|to)'))"
    r"(?=\w[^'\n]{0,150}'(?!\w)))"
)
CLOCK = re.compile(r"\b([oO])(['’]) clock\b")
CLOSING, OPENING = ",;:?!%)]}…”", "([{“‘$£€"  # no space before, none after
DASH = re.compile(r"--(?<!---)-?(?!-)")


ROUNDS = 12  # of a repair, each of which may uncover what the next one mends; damage by accident takes three
MOST_MARKS = 30  # on one letter (Unicode Standard Annex 15, stream-safe text); sorting them is quadratic
MARKS = re.compile(rf"[^\w\s\x00-\x7f]{{{MOST_MARKS + 1},}}")
ORDINARY_SPACE = re.compile(r"\s{2,}|(?![\u202f\u3000]|(?<=[«—–])\xa0|\xa0[»:;!?%—–])\s")


class TooCostly(ValueError):
    """A text that would take more work than its length warrants; says why."""


def repaired(text: str) -> str:
    """The text in NFC with its encoding mended, no entities, control tokens or invisible characters.

    One space between words, one empty line at most between paragraphs; TooCostly for text made to be so.
    """
    return _repaired(text, CONTROL_TOKEN, spaced)


def with_tokens(text: str) -> str:
    """The same with the control tokens of chats: for a rule to find in the passage that holds them."""
    return _repaired(text, HARMLESS, spaced)


def laid_out(text: str) -> str:
    """The same with the indentation of verse and scripts."""
    return _repaired(text, HARMLESS, indented)


def _repaired(text: str, tokens: re.Pattern[str], space: Callable[[str], str]) -> str:
    text = space(text)
    for _ in range(ROUNDS):
        better = _without_invisible(text) if INVISIBLE.search(text) else text
        if not better.isascii() or any(mark in better for mark in "&<["):
            better = LOST_BYTE.sub("”", better)
            if MOJIBAKE.search(better):
                better = _decoded_again(better)
            better = unescaped(better)
            for _ in range(ROUNDS):
                fewer = tokens.sub("", better)
                if fewer == better:
                    break
                better = fewer  # again: one token inside another must not leave a third
            else:
                raise TooCostly(f"control tokens stand inside each other more than {ROUNDS} deep")
            better = _composed(better)
        if better == text:
            return text
        text = space(better)  # and again: an entity may hide an entity, a control token or mojibake
    raise TooCostly(f"more than {ROUNDS} rounds of repair")


def _without_invisible(text: str) -> str:
    """Joiners stay where they spell; nothing else that cannot be seen."""
    if not JOINING.search(text):
        return INVISIBLE.sub("", text)
    pieces, end = [], 0
    for kept in JOINING.finditer(text):
        pieces += [INVISIBLE.sub("", text[end : kept.start()]), kept[0]]
        end = kept.end()
    return "".join([*pieces, INVISIBLE.sub("", text[end:])])


def _decoded_again(text: str) -> str:
    pieces = WORD_END.split(text)  # what stays as it is has the odd numbers
    pieces[::2] = map(ftfy.fix_encoding, pieces[::2])
    return "".join(pieces)


def unescaped(text: str) -> str:
    """With the characters that complete entities stand for."""
    return ENTITY.sub(_character, text) if "&" in text else text


def _character(entity: re.Match[str]) -> str:
    """What the entity stands for; the text as it is where no entity has that name."""
    name = entity[1] or entity[2]
    known = name[0] == "#" or f"{name};" in html5
    return html.unescape(f"&{name};") if known else entity[0]


def _composed(text: str) -> str:
    beyond = len(text) - len(text.encode("ascii", "ignore"))  # ten times as fast as the pattern
    for run in MARKS.findall(text) if beyond > MOST_MARKS else ():
        marks = "".join("x" if unicodedata.combining(character) else " " for character in run)
        if max(map(len, marks.split()), default=0) > MOST_MARKS:
            raise TooCostly(f"more than {MOST_MARKS} combining marks on one letter")
    return unicodedata.normalize("NFC", text)


def spaced(text: str) -> str:
    """One space between words, lines trimmed, one empty line at most between paragraphs, none at the ends."""
    lines = "\n".join(" ".join(line.split()) for line in text.splitlines()).strip()
    return re.sub(r"\n{3,}", "\n\n", lines) if "\n\n\n" in lines else lines


def indented(text: str) -> str:
    """The same, but lines keep their indentation beyond that of all lines, if it means anything.

    It does where a line inside a paragraph is indented; where only first lines are, it is typography.
    Spaces that typography asks for stay too: narrow ones, ideographic ones, and those beside French marks.
    """
    lines = [line.expandtabs(4).rstrip() for line in text.splitlines()]
    depths = [len(line) - len(line.lstrip()) for line in lines]
    depths = [depth if depth > 1 else 0 for depth in depths]  # one space is a slip of the finger
    least = min((depth for line, depth in zip(lines, depths, strict=True) if line), default=0)
    followed = zip(lines, lines[1:], depths[1:], strict=False)
    meant = any(line and before and depth > least for before, line, depth in followed)
    kept = [
        " " * (depth - least if meant and line else 0) + _one_space(line.strip())
        for line, depth in zip(lines, depths, strict=True)
    ]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip("\n")


def _one_space(line: str) -> str:
    if any(space in line for space in "\xa0\u202f\u3000"):
        return ORDINARY_SPACE.sub(" ", line)
    return " ".join(line.split())  # ten times as fast


def detokenised(text: str) -> str:
    """The text as its author spaced it, as far as can be told; straight quotes stay straight."""
    text = BRACKET.sub(lambda match: BRACKETS[match[0]], text)
    for token in (" n't", " N'T", " n’t", " n ’ t"):
        text = text.replace(token, token.replace(" ", ""))
    text = TIS.sub(r"\1", text)
    text = DOUBLED_CLITIC.sub(r"'\1", CLITIC.sub(r"'\1", text))
    if "’" in text:
        text = CURLY_APART.sub("’", CURLY_CLITIC.sub(r"’\1", text))
        text = CURLY_START.sub(" ’", text)
    for pair, split, whole in SPLIT_WORDS:
        if pair in text:
            text = split.sub(whole, text)
    text = "\n".join(map(_quoted, text.split("\n")))
    if "`" in text:
        text = re.sub(r"` ?", "'", text)
    text = re.sub(r" '(?=[\s,.;:?!]|$)(?<=\w '|[.,!?] ')", "'", LONE.sub(" '", STUCK.sub(" '", text)))
    if " clock" in text:
        text = CLOCK.sub(r"\1\2clock", text)
    return _closed_up(text)


def _quoted(line: str) -> str:
    """The line with plain double quotes: they open and close by turns if even in number, else as marked."""
    text, *rest = QUOTE.split(line)
    marks, pieces = rest[::2], rest[1::2]
    done: list[str] = []  # all that stands before `text`, which ends where the next mark stands
    for turn, (mark, piece) in enumerate(zip(marks, pieces, strict=True)):
        opens = turn % 2 == 0 if len(marks) % 2 == 0 else _opens(mark, text, piece)
        before, after = text.rstrip(" "), piece.lstrip(" ")
        if opens:
            quote = '"' if not before or before[-1] in "([{—-" else ' "'
        else:
            quote = '" ' if piece[:1] == " " or piece[:1].isalnum() else '"'
        done.append(before)
        text = quote + after
    return "".join([*done, text]).strip()


def _opens(mark: str, before: str, after: str) -> bool:
    """Whether a quote mark between these pieces of a line opens, by its form and the spaces beside it."""
    if mark == '"':
        return before[-1:] in ("", " ") and after[:1] != " "
    return not before.strip() or mark == "``" and after.strip()[:1] not in ("", ",", ".")


def _closed_up(text: str) -> str:
    """Without spaces before punctuation and inside brackets; double hyphens as dashes."""
    text = re.sub(r" {2,}", " ", text) if "  " in text else text
    for mark in CLOSING:
        text = text.replace(f" {mark}", mark)
    for mark in OPENING:
        text = text.replace(f"{mark} ", mark)
    if " ." in text:
        text = re.sub(r" \.(?!\d)", ".", text)
    if " ’" in text:
        text = re.sub(r" ’(?!\w)", "’", text)
    if "# " in text:
        text = re.sub(r"# (?=\d)", "#", text)
    if "--" in text:
        text = DASH.sub("—", text.replace(" --", "--").replace("-- ", "--"))
    return text
