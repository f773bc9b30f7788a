"""Text as it was before encodings, chat formats and tokenisers changed it. Repairs and never drops.

WritingPrompts is served in Penn Treebank tokens: fully in prompts, halfway in stories, where spaces before
punctuation and apostrophes are gone already, wanted ones among them.
"""

import html
import re
import unicodedata

import ftfy

# The closing quote of a text decoded as Windows-1252 whose third byte, undefined there, was thrown away.
# ftfy cannot know it (it would read a dagger and eat the space), so it goes first.
LOST_BYTE = re.compile(r"â€(?=[\x00-\x7f]|$)")
# Two characters no English text puts together: the first bytes of UTF-8 read as Latin-1 or Windows-1252.
MOJIBAKE = re.compile(r"[Â-ô][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
ENTITY = re.compile(r"& ?(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8}) ?;")
# Controls but those that break a line, zero-width and directional marks, private use, surrogates.
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\ue000-\uf8ff\U000e0000-\U0010ffff]"
)
# What chat formats use for turns and ends: ChatML, Llama 2 and 3, Gemma, Mistral, DeepSeek, T5 and BERT.
CONTROL_TOKEN = re.compile(
    r"<\s*[|｜][^<>\n]{0,40}?[|｜]\s*>|</?s>|<(?:bos|eos|pad|unk|mask)>|<(?:start|end)_of_(?:turn|image)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|CLS|SEP|MASK)\]|<</?SYS>>",
    re.IGNORECASE,
)
END_OF_TEXT = re.compile(r"<\|\s*end_?of_?text\s*\|>", re.IGNORECASE)
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
STUCK = re.compile(
    r"'(?!(?:s|t|m|d|re|ve|ll)\b)(?:(?<=[,;:?!…]')(?=[A-Za-z])"
    r"|(?:(?<=[a-z]{3}')|(?<=\.')|(?<= a')|(?<= (?:an|as|at|be|by|in|is|my|of|or|to)'))"
    r"(?=[A-Za-z][^'\n]{0,150}'(?!\w)))"
)
CLOSING, OPENING = ",;:?!%)]}…”", "([{“‘$£€"  # no space before, none after
DASH = re.compile(r"--(?<!---)-?(?!-)")


def repaired(text: str) -> str:
    """The text in NFC with its encoding mended, no entities, control tokens or invisible characters."""
    text = spaced(text)
    while True:
        better = INVISIBLE.sub("", text)
        if not better.isascii() or any(mark in better for mark in "&<["):
            better = LOST_BYTE.sub("”", better)
            if MOJIBAKE.search(better):
                better = ftfy.fix_encoding(better)
            better = ENTITY.sub(lambda match: html.unescape(f"&{match[1]};"), better)
            while (fewer := CONTROL_TOKEN.sub("", better)) != better:
                better = fewer  # again: one token inside another must not leave a third
            better = unicodedata.normalize("NFC", better)
        if better == text:
            return text
        text = spaced(better)  # and again: an entity may hide an entity, a control token or mojibake


def spaced(text: str) -> str:
    """One space between words, lines trimmed, one empty line at most between paragraphs, none at the ends."""
    lines = "\n".join(" ".join(line.split()) for line in text.splitlines()).strip()
    return re.sub(r"\n{3,}", "\n\n", lines) if "\n\n\n" in lines else lines


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
    text = re.sub(r" '(?=[\s,.;:?!]|$)(?<=\w '|[.,!?] ')", "'", STUCK.sub(" '", text))
    return _closed_up(text)


def _quoted(line: str) -> str:
    """The line with plain double quotes: they open and close by turns if even in number, else as marked."""
    text, *rest = QUOTE.split(line)
    marks, pieces = rest[::2], rest[1::2]
    for turn, (mark, piece) in enumerate(zip(marks, pieces, strict=True)):
        opens = turn % 2 == 0 if len(marks) % 2 == 0 else _opens(mark, text, piece)
        before, after = text.rstrip(" "), piece.lstrip(" ")
        if opens:
            text = before + ('"' if not before or before[-1] in "([{—-" else ' "') + after
        else:
            text = before + ('" ' if piece[:1] == " " or piece[:1].isalnum() else '"') + after
    return text.strip()


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
